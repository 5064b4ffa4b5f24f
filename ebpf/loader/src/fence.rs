//! The fence around outgoing connections: what may be reached, replaced as a whole, and what it counted.

use aya::maps::PerCpuArray;
use aya::maps::lpm_trie::Key;
use aya::programs::CgroupSockAddr;
use zen_ebpf_abi::address::Address;
use zen_ebpf_abi::fence::{Counts, ENTRIES_MAX, KEY_BITS, OPEN, ReachKey, Reason, Settings};

use crate::cgroup::{ATTACH_MODE, Cgroup};
use crate::error::{EbpfError, reason};
use crate::events::Refusals;
use crate::generations::Generations;
use crate::guard::add;
use crate::objects::{FENCE, Loaded, Owned, table};

const PROGRAMS: [&str; 4] = ["zen_connect4", "zen_connect6", "zen_sendmsg4", "zen_sendmsg6"];
const KERNEL: &str = "5.8";

/// Addresses with the same first bits, at one port of one protocol. The longest that has an address decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// As in an IP header: 6 is TCP, 17 is UDP.
    pub protocol: u8,
    /// The port.
    pub port: u16,
    /// The first address; IPv4 in its mapped form.
    pub address: Address,
    /// Bits that are the same, of 128.
    pub bits: u8,
    /// Why it is refused; nothing if it may be reached.
    pub refused: Option<Reason>,
}

/// Where the node may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FenceRules {
    /// Whether it refuses, or only counts.
    pub enforce: bool,
    /// What may be reached, and what within it may not.
    pub entries: Vec<Reach>,
}

/// The fence, attached.
pub struct Fence {
    loaded: Loaded,
    rules: Generations<Settings, ReachKey>,
    counts: PerCpuArray<Owned, Counts>,
    refusals: Option<Refusals>,
}

impl Fence {
    /// Attaches it to `cgroup`.
    pub fn attach(cgroup: &Cgroup, rules: &FenceRules) -> Result<Self, EbpfError> {
        let mut fence = Self::load()?;
        fence.replace(rules)?;
        for name in PROGRAMS {
            let program = fence.loaded.program(name, KERNEL, CgroupSockAddr::load)?;
            let attached = program.attach(cgroup, ATTACH_MODE);
            attached.map_err(|error| EbpfError::Attach {
                program: name,
                place: cgroup.path().display().to_string(),
                reason: reason(&error),
            })?;
        }
        Ok(fence)
    }

    /// In the kernel, and nowhere attached.
    pub(crate) fn load() -> Result<Self, EbpfError> {
        let mut loaded = FENCE.load(&[])?;
        Ok(Self {
            rules: Generations::take(&mut loaded, "REACH", ENTRIES_MAX)?,
            counts: loaded.map("COUNTS")?,
            refusals: Some(Refusals::take(&mut loaded)?),
            loaded,
        })
    }

    /// Puts other rules in force, all at once. On an error the old ones stay.
    pub fn replace(&mut self, rules: &FenceRules) -> Result<(), EbpfError> {
        let settings = Settings { enforce: rules.enforce.into() };
        self.rules.replace(settings, &rules.entries, |entry, generation| {
            let key = ReachKey {
                generation,
                protocol: entry.protocol,
                reserved: 0,
                port: entry.port.to_be_bytes(),
                address: entry.address,
            };
            let value = entry.refused.map_or(OPEN, |reason| reason as u32);
            (Key::new(KEY_BITS + u32::from(entry.bits), key), value)
        })
    }

    /// What it counted.
    pub fn counts(&self) -> Result<Counts, EbpfError> {
        let each = table("COUNTS", self.counts.get(&0, 0))?;
        let mut sum = Counts::default();
        for counts in each.iter() {
            sum.passed += counts.passed;
            add(&mut sum.refused, &counts.refused);
            add(&mut sum.observed, &counts.observed);
        }
        Ok(sum)
    }

    /// The events of its refusals; once.
    pub fn take_refusals(&mut self) -> Option<Refusals> {
        self.refusals.take()
    }

    pub(crate) fn load_programs(&mut self) -> Result<(), EbpfError> {
        PROGRAMS.iter().try_for_each(|name| self.loaded.program(name, KERNEL, CgroupSockAddr::load).map(drop))
    }
}
