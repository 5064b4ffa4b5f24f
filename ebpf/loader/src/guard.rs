//! The guard at its listeners: lists and budgets, replaced as a whole, and what it counted.

use std::net::SocketAddr;

use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, PerCpuArray};
use aya::programs::{CgroupSkb, CgroupSkbAttachType, ProgramError, Xdp, XdpMode};
use zen_ebpf_abi::address::{Address, MAPPED_BITS};
use zen_ebpf_abi::guard::{
    ALLOWED, Budget, Counts, DENIED, GENERATION_BITS, LISTENERS_MAX, LocalKey, NETWORKS_MAX, NetworkKey,
    Settings,
};

use crate::cgroup::{ATTACH_MODE, Cgroup};
use crate::error::{EbpfError, reason};
use crate::events::Refusals;
use crate::generations::Generations;
use crate::objects::{GUARD, Loaded, Owned, table};

const PROGRAM: &str = "zen_guard";
const XDP_PROGRAM: &str = "zen_guard_xdp";
const KERNEL: &str = "5.8";

/// Addresses with the same first bits; IPv4 in its mapped form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its first address.
    pub address: Address,
    /// Bits that are the same, of 128.
    pub bits: u8,
}

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In a second, over a long time; at least 1.
    pub per_second: u32,
    /// At once; at least 1.
    pub burst: u32,
}

/// What the guard refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuardRules {
    /// Whether it refuses, or only counts.
    pub enforce: bool,
    /// Sources that may connect; empty allows all.
    pub allow: Vec<Network>,
    /// Sources that may not. No network of it overlaps one of `allow`.
    pub deny: Vec<Network>,
    /// Connection attempts of a source.
    pub syn: Option<Rate>,
    /// Other packets of a source.
    pub packets: Option<Rate>,
    /// Bits of an IPv4 address that make a source, 24 to 32.
    pub source_bits_v4: u8,
    /// Bits of an IPv6 address that make a source, 48 to 128.
    pub source_bits_v6: u8,
}

/// Where sources or peers connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its address; unspecified for all of the machine.
    pub address: SocketAddr,
}

/// The guard, attached.
pub struct Guard {
    loaded: Loaded,
    rules: Generations<Settings, NetworkKey>,
    counts: PerCpuArray<Owned, Counts>,
    local: HashMap<Owned, LocalKey, u32>,
    interfaces: HashMap<Owned, u32, u32>,
    ports: Vec<u16>,
    refusals: Option<Refusals>,
}

impl Guard {
    /// Attaches it to `cgroup` for `listeners`, with budgets for up to `sources_max` sources at a time.
    pub fn attach(
        cgroup: &Cgroup,
        listeners: &[Listener],
        sources_max: u32,
        rules: &GuardRules,
    ) -> Result<Self, EbpfError> {
        let mut guard = Self::load(listeners, sources_max)?;
        guard.replace(rules)?;
        let program = guard.loaded.program(PROGRAM, KERNEL, CgroupSkb::load)?;
        let attached = program.attach(cgroup, CgroupSkbAttachType::Ingress, ATTACH_MODE);
        attached.map_err(|error| EbpfError::Attach {
            program: PROGRAM,
            place: cgroup.path().display().to_string(),
            reason: reason(&error),
        })?;
        Ok(guard)
    }

    /// In the kernel, and nowhere attached.
    pub(crate) fn load(listeners: &[Listener], sources_max: u32) -> Result<Self, EbpfError> {
        let mut loaded = GUARD.load(&[("SPENT", sources_max)])?;
        let rules = Generations::take(&mut loaded, "NETWORKS", NETWORKS_MAX)?;
        let mut ports: Vec<u16> = listeners.iter().map(|listener| listener.address.port()).collect();
        ports.sort_unstable();
        ports.dedup();
        if listeners.len() > LISTENERS_MAX as usize {
            return Err(EbpfError::TooMany { table: "PORTS", count: listeners.len(), max: LISTENERS_MAX });
        }
        let mut guarded: HashMap<_, u16, u32> = loaded.map_mut("PORTS")?;
        for (place, port) in (0..).zip(&ports) {
            table("PORTS", guarded.insert(port, place, 0))?;
        }
        Ok(Self {
            rules,
            counts: loaded.map("COUNTS")?,
            local: loaded.map("LOCAL")?,
            interfaces: loaded.map("INTERFACES")?,
            refusals: Some(Refusals::take(&mut loaded)?),
            ports,
            loaded,
        })
    }

    /// Judges frames at an interface already, `mode` natively or generically. `local` are the listeners' own addresses.
    pub fn attach_to_interface(
        &mut self,
        interface: &str,
        mode: XdpMode,
        local: &[SocketAddr],
    ) -> Result<(), EbpfError> {
        let refused =
            |reason| EbpfError::Attach { program: XDP_PROGRAM, place: interface.to_owned(), reason };
        let index = interface_index(interface).map_err(|error| refused(error.to_string()))?;
        self.set_local(local)?;
        let load = |program: &mut Xdp| match program.load() {
            Err(ProgramError::AlreadyLoaded) => Ok(()),
            outcome => outcome,
        };
        let program = self.loaded.program(XDP_PROGRAM, KERNEL, load)?;
        program.attach_to_if_index(index, mode).map_err(|error| refused(reason(&error)))?;
        table("INTERFACES", self.interfaces.insert(index, 1, 0))
    }

    /// Addresses of listeners where frames are judged at their interface. Others pass there, and are judged at the socket.
    pub fn set_local(&mut self, local: &[SocketAddr]) -> Result<(), EbpfError> {
        let key = |address: &SocketAddr| LocalKey {
            address: of_ip(address.ip()),
            port: address.port(),
            reserved: 0,
        };
        let wanted: Vec<LocalKey> = local.iter().map(key).collect();
        let known: Vec<LocalKey> = self.local.keys().flatten().collect();
        for gone in known.iter().filter(|key| !wanted.contains(key)) {
            table("LOCAL", self.local.remove(gone))?;
        }
        for key in wanted {
            let Ok(place) = self.ports.binary_search(&key.port) else { continue };
            table("LOCAL", self.local.insert(key, place as u32, 0))?;
        }
        Ok(())
    }

    /// Puts other rules in force, all at once. On an error the old ones stay.
    pub fn replace(&mut self, rules: &GuardRules) -> Result<(), EbpfError> {
        let settings = Settings {
            enforce: rules.enforce.into(),
            has_allow: (!rules.allow.is_empty()).into(),
            bits_v4: MAPPED_BITS + u32::from(rules.source_bits_v4),
            bits_v6: rules.source_bits_v6.into(),
            syn: budget(rules.syn),
            packets: budget(rules.packets),
        };
        let allowed = rules.allow.iter().map(|network| (*network, ALLOWED));
        let denied = rules.deny.iter().map(|network| (*network, DENIED));
        let entries: Vec<(Network, u32)> = allowed.chain(denied).collect();
        self.rules.replace(settings, &entries, |(network, value), generation| {
            let key = NetworkKey { generation, address: network.address };
            (Key::new(GENERATION_BITS + u32::from(network.bits), key), *value)
        })
    }

    /// Ports of its listeners, and what it counted at each.
    pub fn counts(&self) -> Result<Vec<(u16, Counts)>, EbpfError> {
        let at = |(place, port): (u32, &u16)| {
            let each = table("COUNTS", self.counts.get(&place, 0))?;
            let mut sum = Counts::default();
            for counts in each.iter() {
                sum.passed += counts.passed;
                add(&mut sum.refused, &counts.refused);
                add(&mut sum.observed, &counts.observed);
            }
            Ok((*port, sum))
        };
        (0..).zip(&self.ports).map(at).collect()
    }

    /// The events of its refusals; once.
    pub fn take_refusals(&mut self) -> Option<Refusals> {
        self.refusals.take()
    }

    /// Loads the program for interfaces, too.
    pub(crate) fn load_programs(&mut self) -> [Result<(), EbpfError>; 2] {
        [
            self.loaded.program(PROGRAM, KERNEL, CgroupSkb::load).map(drop),
            self.loaded.program(XDP_PROGRAM, KERNEL, Xdp::load).map(drop),
        ]
    }
}

/// An address as tables have it.
pub(crate) fn of_ip(ip: std::net::IpAddr) -> Address {
    match ip {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(ip) => ip.octets(),
    }
}

/// Adds numbers to sums.
pub(crate) fn add(sums: &mut [u64], numbers: &[u64]) {
    for (sum, number) in sums.iter_mut().zip(numbers) {
        *sum += number;
    }
}

/// A packet costs its share of a second; all of a burst but the packet itself may be owed.
fn budget(rate: Option<Rate>) -> Budget {
    rate.map_or(Budget::default(), |rate| {
        let cost_ns = 1_000_000_000 / u64::from(rate.per_second.max(1));
        Budget { cost_ns: cost_ns.max(1), burst_ns: cost_ns * u64::from(rate.burst.max(1) - 1) }
    })
}

fn interface_index(name: &str) -> std::io::Result<u32> {
    let path = format!("/sys/class/net/{name}/ifindex");
    let is_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    let text = if is_name { std::fs::read_to_string(path) } else { Err(std::io::ErrorKind::NotFound.into()) };
    let no_interface = || std::io::Error::other("there is no such network interface");
    text.map_err(|_| no_interface())?.trim_ascii().parse().map_err(|_| no_interface())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_cost_and_what_may_be_owed() {
        let budget_of = |per_second, burst| budget(Some(Rate { per_second, burst }));
        assert_eq!(budget_of(10, 20), Budget { cost_ns: 100_000_000, burst_ns: 1_900_000_000 });
        assert_eq!(budget_of(1_000_000_000, 1), Budget { cost_ns: 1, burst_ns: 0 });
        assert_eq!(budget(None), Budget::default());
    }

    #[test]
    fn a_burst_is_as_many_as_it_says() {
        let budget = budget(Some(Rate { per_second: 10, burst: 20 }));
        let mut spent = 0;
        let at_once = (0..100).filter(|_| !budget.is_over(&mut spent, 1_000_000_000_000, 1)).count();
        assert_eq!(at_once, 20);
    }

    #[test]
    fn an_interface_that_is_not_there_is_named() {
        for name in ["zen-none", "", "..", "lo/../lo"] {
            assert!(interface_index(name).is_err(), "{name}");
        }
        assert_eq!(interface_index("lo").unwrap(), 1);
    }
}
