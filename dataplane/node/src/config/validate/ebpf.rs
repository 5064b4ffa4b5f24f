//! The `[ebpf]` section.

use zen_core::access::{Network, NetworkSet, ReachRules};
use zen_ebpf::abi::fence::Reason;
use zen_ebpf::{FenceRules, GuardRules, Rate, Reach, XdpMode};

use super::access::networks;
use super::faults::Faults;
use crate::config::raw::{self, FilterMode, Xdp};
use crate::config::settings::{EbpfSettings, GuardSettings};
use crate::ebpf::Need;

/// Networks in each list: the table holds both.
const NETWORKS_MAX: usize = 4096;
/// Interfaces where frames are judged.
const INTERFACES_MAX: usize = 16;
/// Longest name of an interface, bytes (`IFNAMSIZ` less its end).
const INTERFACE_BYTES_MAX: usize = 15;

pub(super) fn ebpf(raw: &raw::Ebpf, reach: &ReachRules, pins: bool, faults: &mut Faults) -> EbpfSettings {
    if raw.steer.is_some() && !pins {
        faults.push(
            "ebpf.steer",
            "leads nowhere, since node.pin_workers is false",
            "pin workers, or remove the section",
        );
    }
    EbpfSettings {
        guard: raw.guard.as_ref().map(|guard| self::guard(guard, faults)),
        fence: raw.fence.as_ref().map(|fence| (fence_rules(fence, reach), need(fence.required))),
        steer: raw.steer.as_ref().map(|steer| need(steer.required)),
        observe: raw.observe.as_ref().map(|observe| need(observe.required)),
    }
}

fn need(required: bool) -> Need {
    if required { Need::Required } else { Need::Wanted }
}

fn guard(raw: &raw::Guard, faults: &mut Faults) -> GuardSettings {
    faults.bound("ebpf.guard.source_bits_v4", raw.source_bits_v4, 24, 32);
    faults.bound("ebpf.guard.source_bits_v6", raw.source_bits_v6, 48, 128);
    faults.bound("ebpf.guard.sources_max", raw.sources_max, 1024, 16_777_216);
    faults.bound("ebpf.guard.interfaces (count)", raw.interfaces.len(), 0, INTERFACES_MAX);
    for name in &raw.interfaces {
        let is_name =
            !name.is_empty() && name.len() <= INTERFACE_BYTES_MAX && !name.contains(['/', ' ', '\0']);
        if !is_name {
            faults.push("ebpf.guard.interfaces", format_args!("\"{name}\" is no interface"), "see ip link");
        }
    }
    let (allow, deny) = lists(raw, faults);
    GuardSettings {
        rules: GuardRules {
            enforce: raw.mode == FilterMode::Enforce,
            allow: allow.into_iter().map(network).collect(),
            deny: deny.into_iter().map(network).collect(),
            syn: rate("ebpf.guard.syn", raw.syn_per_second, raw.syn_burst, faults),
            packets: rate("ebpf.guard.packets", raw.packets_per_second, raw.packets_burst, faults),
            source_bits_v4: raw.source_bits_v4,
            source_bits_v6: raw.source_bits_v6,
        },
        sources_max: raw.sources_max,
        interfaces: raw.interfaces.clone(),
        xdp: match raw.xdp {
            Xdp::Native => XdpMode::Driver,
            Xdp::Generic => XdpMode::Skb,
        },
        need: need(raw.required),
    }
}

/// Both lists; what is in both is a fault, since neither order of looking would be right.
fn lists(raw: &raw::Guard, faults: &mut Faults) -> (Vec<Network>, Vec<Network>) {
    let mut list = |key: &str, texts: &[String]| {
        faults.bound(format_args!("{key} (count)"), texts.len(), 0, NETWORKS_MAX);
        networks(key, texts, faults)
    };
    let (allow, deny) = (list("ebpf.guard.allow", &raw.allow), list("ebpf.guard.deny", &raw.deny));
    let sets = (NetworkSet::new(&allow), NetworkSet::new(&deny));
    if let (Ok(allowed), Ok(denied)) = sets
        && let Some(address) = allowed.common(&denied)
    {
        faults.push(
            "ebpf.guard.deny",
            format_args!("{address} is both allowed and denied"),
            "take it out of one of the lists",
        );
    }
    (allow, deny)
}

fn network(network: Network) -> zen_ebpf::Network {
    let (first, bits) = network.prefix();
    zen_ebpf::Network { address: first.to_be_bytes(), bits }
}

/// Without a burst, a second's worth may come at once.
fn rate(key: &str, per_second: u32, burst: u32, faults: &mut Faults) -> Option<Rate> {
    if per_second == 0 && burst != 0 {
        faults.push(
            format_args!("{key}_burst"),
            "is given without a rate",
            format_args!("give {key}_per_second"),
        );
    }
    let burst = if burst == 0 { per_second } else { burst };
    (per_second != 0).then_some(Rate { per_second, burst })
}

fn fence_rules(raw: &raw::Fence, reach: &ReachRules) -> FenceRules {
    let entries = reach.entries().map(|entry| Reach {
        protocol: entry.protocol,
        port: entry.port,
        address: entry.address,
        bits: entry.bits,
        refused: entry.verdict.err().map(reason),
    });
    FenceRules { enforce: raw.mode == FilterMode::Enforce, entries: entries.collect() }
}

/// The same reasons, by the numbers that the kernel keeps.
fn reason(refused: zen_core::access::DestinationRefused) -> Reason {
    use zen_core::access::DestinationRefused as Refused;
    match refused {
        Refused::NoHost => Reason::NoHost,
        Refused::Loopback => Reason::Loopback,
        Refused::LinkLocal => Reason::LinkLocal,
        Refused::Metadata => Reason::Metadata,
        Refused::OtherForm => Reason::OtherForm,
        Refused::NotListed => Reason::NotListed,
    }
}

#[cfg(test)]
mod tests {
    use zen_core::access::DestinationRefused as Refused;

    use super::*;

    #[test]
    fn the_kernels_reasons_have_our_names() {
        for refused in [
            Refused::NoHost,
            Refused::Loopback,
            Refused::LinkLocal,
            Refused::Metadata,
            Refused::OtherForm,
            Refused::NotListed,
        ] {
            assert_eq!(reason(refused).label(), refused.label());
        }
    }
}
