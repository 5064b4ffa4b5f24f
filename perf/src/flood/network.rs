//! A namespace outside, joined by a pair of interfaces: sources are there, and the flood.
//!
//! Nothing leaves this machine: the flood's addresses are routed to the namespace, which has no other way out and does not
//! forward, so answers to them end there.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use nix::sched::{CloneFlags, setns};

use crate::error::LabError;

/// The interface on this side.
pub(super) const INTERFACE: &str = "zen-flood";
/// The interface in the namespace.
pub(super) const OUTSIDE_INTERFACE: &str = "eth0";
/// Where sources connect to.
pub(super) const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 0, 1));
/// The network of the flood's addresses; the last byte is chosen for each packet.
pub(super) const FLOOD: [u8; 3] = [10, 79, 0];
const NAMESPACE: &str = "zen-flood";

/// The namespace; it goes with this value.
pub(super) struct Outside {
    namespace: &'static str,
    interface: &'static str,
}

impl Outside {
    /// Makes it; what an earlier run left is removed.
    pub(super) fn make() -> Result<Self, LabError> {
        remove();
        let outside = Self { namespace: NAMESPACE, interface: INTERFACE };
        for arguments in [
            format!("netns add {NAMESPACE}"),
            format!("link add {INTERFACE} type veth peer name eth0 netns {NAMESPACE}"),
            format!("address add {INSIDE}/24 dev {INTERFACE}"),
            format!("link set {INTERFACE} up"),
            format!("-n {NAMESPACE} address add 10.78.0.2/24 dev eth0"),
            format!("-n {NAMESPACE} link set eth0 up"),
            format!("-n {NAMESPACE} link set lo up"),
            "route add 10.79.0.0/24 via 10.78.0.2".to_owned(),
            // Hosts that know nothing of a connection answer a SYN-ACK with a RST.
            format!("-n {NAMESPACE} route add local 10.79.0.0/24 dev lo"),
        ] {
            ip(&arguments)?;
        }
        Ok(outside)
    }

    /// The hardware address of [`INTERFACE`].
    pub(super) fn mac(&self) -> Result<[u8; 6], LabError> {
        let path = format!("/sys/class/net/{}/address", self.interface);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| LabError::File { path: path.clone().into(), source })?;
        let mut bytes = text.trim_ascii().split(':').map_while(|byte| u8::from_str_radix(byte, 16).ok());
        Ok(std::array::from_fn(|_| bytes.next().unwrap_or_default()))
    }

    /// Moves this thread there.
    pub(super) fn enter(&self) -> Result<(), LabError> {
        let path = format!("/run/netns/{}", self.namespace);
        let socket = |source| LabError::Socket { what: "the flood's namespace", source };
        let file = File::open(path).map_err(socket)?;
        setns(&file, CloneFlags::CLONE_NEWNET).map_err(|error| socket(error.into()))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        remove();
    }
}

fn remove() {
    let _ = Command::new("ip").args(["link", "delete", INTERFACE]).output();
    let _ = Command::new("ip").args(["netns", "delete", NAMESPACE]).output();
}

fn ip(arguments: &str) -> Result<(), LabError> {
    let ran = Command::new("ip").args(arguments.split(' ')).output();
    let output = ran.map_err(|source| LabError::Start { program: "ip".into(), source })?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Failed {
        program: "ip",
        remedy: "run as root, with iproute2 and veth",
        output: format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr)),
    })
}
