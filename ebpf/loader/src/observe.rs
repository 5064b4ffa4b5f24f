//! Observing connections: places that are told apart, and what was counted at each.

use std::net::SocketAddr;

use aya::maps::{HashMap, PerCpuArray};
use aya::programs::SockOps;
use zen_ebpf_abi::observe::{Counts, Histogram, OTHER, PLACES_MAX, PlaceKey};

use crate::cgroup::{ATTACH_MODE, Cgroup};
use crate::error::{EbpfError, reason};
use crate::guard::{add, of_ip};
use crate::objects::{Loaded, OBSERVE, Owned, table};

const PROGRAM: &str = "zen_observe";
const KERNEL: &str = "5.8";

/// What a connection belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Came in at a listener.
    Listener(u16),
    /// Was dialled.
    Destination(SocketAddr),
}

/// The observer, attached.
pub struct Observe {
    loaded: Loaded,
    places: HashMap<Owned, PlaceKey, u32>,
    counts: PerCpuArray<Owned, Counts>,
}

impl Observe {
    /// Attaches it to `cgroup`.
    pub fn attach(cgroup: &Cgroup) -> Result<Self, EbpfError> {
        let mut observe = Self::load()?;
        let program = observe.loaded.program(PROGRAM, KERNEL, SockOps::load)?;
        let attached = program.attach(cgroup, ATTACH_MODE);
        attached.map_err(|error| EbpfError::Attach {
            program: PROGRAM,
            place: cgroup.path().display().to_string(),
            reason: reason(&error),
        })?;
        Ok(observe)
    }

    /// In the kernel, and nowhere attached.
    pub(crate) fn load() -> Result<Self, EbpfError> {
        let mut loaded = OBSERVE.load(&[])?;
        Ok(Self { places: loaded.map("PLACES")?, counts: loaded.map("COUNTS")?, loaded })
    }

    /// Counts connections of a place at `number`, 1 to 1023, from now on. Several places may share one.
    pub fn set_place(&mut self, place: Place, number: u32) -> Result<(), EbpfError> {
        if number == OTHER || number >= PLACES_MAX {
            return Err(EbpfError::TooMany { table: "PLACES", count: number as usize, max: PLACES_MAX });
        }
        table("PLACES", self.places.insert(key(place), number, 0))
    }

    /// What connections of `number` were like; 0 is all that have no place.
    pub fn counts(&self, number: u32) -> Result<Counts, EbpfError> {
        let each = table("COUNTS", self.counts.get(&number, 0))?;
        let mut sum = Counts::default();
        for counts in each.iter() {
            sum.opened += counts.opened;
            sum.closed += counts.closed;
            sum.reset += counts.reset;
            sum.failed += counts.failed;
            sum.bytes_sent += counts.bytes_sent;
            sum.bytes_received += counts.bytes_received;
            add_histogram(&mut sum.handshake_us, &counts.handshake_us);
            add_histogram(&mut sum.rtt_us, &counts.rtt_us);
            add_histogram(&mut sum.retransmits, &counts.retransmits);
        }
        Ok(sum)
    }

    pub(crate) fn load_programs(&mut self) -> Result<(), EbpfError> {
        self.loaded.program(PROGRAM, KERNEL, SockOps::load).map(drop)
    }
}

fn add_histogram(sum: &mut Histogram, one: &Histogram) {
    add(&mut sum.buckets, &one.buckets);
    sum.sum += one.sum;
}

fn key(place: Place) -> PlaceKey {
    let (address, port) = match place {
        Place::Listener(port) => ([0; 16], port),
        Place::Destination(address) => (of_ip(address.ip()), address.port()),
    };
    PlaceKey { address, port, reserved: 0 }
}
