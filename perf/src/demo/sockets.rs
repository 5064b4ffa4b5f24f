//! Every socket of the lab's processes must be one that the mesh is meant to have: TLS 1.3 with certificates on both sides, the
//! public listener, a unix socket, or the admin port on loopback.
//!
//! In: processes, and what each address of the lab is for. Out: a line and complaints. Sockets are read from /proc; at each TLS
//! listener TLS 1.2 and clients without a certificate are tried by another TLS library, Python's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::search::Report;
use crate::error::LabError;
use crate::lab::{Lab, Process, Trust};

const PROBE_PROGRAM: &str = include_str!("../../demo_probe.py");
/// States of `/proc/net/tcp`, as `include/net/tcp_states.h` numbers them.
const LISTEN: &str = "0A";
/// Both ends are gone, or going: no data moves any more.
const ENDING: [&str; 6] = ["04", "05", "06", "07", "08", "09"];

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Anybody may connect, over TLS 1.3.
    Public,
    /// TLS 1.3, certificates on both sides.
    Mutual,
    /// Plain, on loopback, for probes.
    Admin,
}

/// What the ports of a lab are for.
pub(super) struct Ports(BTreeMap<u16, Purpose>);

/// A TCP socket of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tcp {
    local: SocketAddr,
    remote: SocketAddr,
    listens: bool,
    ends: bool,
}

/// What a listener took.
#[derive(Debug, Deserialize)]
struct Probe {
    address: SocketAddr,
    tls12: bool,
    anonymous: bool,
}

impl Ports {
    pub(super) fn of(lab: &Lab, trust: Option<&Trust>) -> Self {
        let mut ports =
            BTreeMap::from([(lab.public.port(), Purpose::Public), (lab.target.port(), Purpose::Mutual)]);
        ports.extend(lab.links.iter().map(|link| (link.port(), Purpose::Mutual)));
        ports.extend(
            lab.egresses.iter().chain([&lab.ingester]).map(|node| (node.admin.port(), Purpose::Admin)),
        );
        let control = trust.into_iter().flat_map(|trust| [trust.listen(), trust.people()]);
        ports.extend(control.map(|listen| (listen.port(), Purpose::Mutual)));
        ports.extend(trust.map(|trust| (trust.browsers().port(), Purpose::Public)));
        Self(ports)
    }

    /// Looks at all sockets of `processes`, and tries the listeners.
    pub(super) fn check(&self, processes: &[&Process], python: &Path) -> Result<Report, LabError> {
        let (table, unix_sockets, datagrams) = (table()?, unix_inodes()?, datagram_inodes()?);
        let (mut complaints, mut listeners) = (Vec::new(), BTreeSet::new());
        let (mut tcp, mut unix) = (0, 0);
        for process in processes {
            for inode in inodes(process.id())? {
                match table.get(&inode) {
                    Some(socket) => {
                        tcp += 1;
                        complaints
                            .extend(self.complaint(socket).map(|what| format!("{}: {what}", process.name)));
                        let is_tls = self
                            .0
                            .get(&socket.local.port())
                            .is_some_and(|purpose| *purpose != Purpose::Admin);
                        listeners.extend((socket.listens && is_tls).then_some(socket.local));
                    }
                    None if unix_sockets.contains(&inode) => unix += 1,
                    // Neither TCP nor unix: a datagram socket of the network is none of ours.
                    None if datagrams.contains(&inode) => {
                        complaints
                            .push(format!("{} has a socket that is neither TCP nor unix", process.name));
                    }
                    None => {}
                }
            }
        }
        for probe in probe(python, &listeners)? {
            let is_public = self.0.get(&probe.address.port()) == Some(&Purpose::Public);
            if probe.tls12 {
                complaints.push(format!("{} takes TLS 1.2", probe.address));
            }
            if probe.anonymous != is_public {
                let what = if is_public { "refuses sources" } else { "takes clients without a certificate" };
                complaints.push(format!("{} {what}", probe.address));
            }
        }
        let line = format!(
            "sockets of {} processes: {tcp} TCP, {unix} unix; {} TLS listeners tried with TLS 1.2 and without a certificate: {}",
            processes.len(),
            listeners.len(),
            if complaints.is_empty() {
                "all as they must be".to_owned()
            } else {
                format!("{} are wrong", complaints.len())
            }
        );
        Ok(Report { line, complaints })
    }

    /// What is wrong with a socket, if anything is.
    fn complaint(&self, socket: &Tcp) -> Option<String> {
        let Tcp { local, remote, listens, ends } = socket;
        let purpose = self.0.get(&local.port()).or_else(|| self.0.get(&remote.port()).filter(|_| !listens));
        match purpose {
            _ if *ends => None,
            Some(Purpose::Admin) if !local.ip().is_loopback() => Some(format!("an admin port on {local}")),
            Some(_) => None,
            None if *listens => Some(format!("listens on {local}, which nothing is known of")),
            None => Some(format!("is connected from {local} to {remote}, of which nothing is known")),
        }
    }
}

/// All TCP sockets of this network namespace, by inode.
fn table() -> Result<BTreeMap<u64, Tcp>, LabError> {
    let mut found = BTreeMap::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(file).map_err(LabError::file(Path::new(file)))?;
        found.extend(text.lines().skip(1).filter_map(tcp_line));
    }
    Ok(found)
}

/// `sl local remote state ... inode`, addresses in hex, each word of them in the machine's order (`proc_net_tcp(5)`).
fn tcp_line(line: &str) -> Option<(u64, Tcp)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, remote, state, ..] = fields[..] else { return None };
    let inode = fields.get(9)?.parse().ok()?;
    let (local, remote) = (address(local)?, address(remote)?);
    Some((inode, Tcp { local, remote, listens: state == LISTEN, ends: ENDING.contains(&state) }))
}

fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':').filter(|(host, _)| matches!(host.len(), 8 | 32))?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words =
        host.as_bytes().chunks(8).map(|word| u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok());
    let bytes: Vec<u8> = words.map(|word| word.map(u32::to_ne_bytes)).collect::<Option<Vec<_>>>()?.concat();
    if let Ok(four) = <[u8; 4]>::try_from(&*bytes) {
        return Some((Ipv4Addr::from(four), port).into());
    }
    let sixteen = <[u8; 16]>::try_from(&*bytes).ok()?;
    Some((std::net::Ipv6Addr::from(sixteen).to_canonical(), port).into())
}

/// Inodes in one column of a table of /proc/net.
fn column(file: &str, column: usize) -> Result<BTreeSet<u64>, LabError> {
    let text = fs::read_to_string(file).map_err(LabError::file(Path::new(file)))?;
    Ok(text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(column)?.parse().ok()).collect())
}

fn unix_inodes() -> Result<BTreeSet<u64>, LabError> {
    column("/proc/net/unix", 6)
}

fn datagram_inodes() -> Result<BTreeSet<u64>, LabError> {
    Ok(&column("/proc/net/udp", 9)? | &column("/proc/net/udp6", 9)?)
}

/// Inodes of a process's sockets; one that is closed meanwhile is none.
fn inodes(pid: u32) -> Result<Vec<u64>, LabError> {
    let directory = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&directory).map_err(LabError::file(Path::new(&directory)))?;
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode =
        |link: std::path::PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    Ok(links.filter_map(inode).collect())
}

fn probe(python: &Path, listeners: &BTreeSet<SocketAddr>) -> Result<Vec<Probe>, LabError> {
    let mut command = Command::new(python);
    command.args(["-c", PROBE_PROGRAM]).args(listeners.iter().map(ToString::to_string)).stdin(Stdio::null());
    let output = command.output().map_err(|source| LabError::Start { program: python.to_owned(), source })?;
    let lines = String::from_utf8_lossy(&output.stdout);
    let probes: Vec<Probe> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if probes.len() == listeners.len() {
        return Ok(probes);
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::Tool { what: "the probe of listeners".to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn own_sockets_are_in_the_table() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let stream = TcpStream::connect(at).unwrap();
        let (table, own) = (table().unwrap(), inodes(std::process::id()).unwrap());
        let own: Vec<&Tcp> = own.iter().filter_map(|inode| table.get(inode)).collect();
        assert!(own.iter().any(|socket| socket.listens && socket.local == at), "{own:?}");
        let (from, to) = (stream.local_addr().unwrap(), at);
        assert!(
            own.iter().any(|socket| (socket.local, socket.remote) == (from, to) && !socket.listens),
            "{own:?}"
        );
    }

    #[test]
    fn what_is_not_meant_to_be_is_a_complaint() {
        let ports = Ports(BTreeMap::from([(1, Purpose::Public), (2, Purpose::Mutual), (3, Purpose::Admin)]));
        let socket = |local: &str, remote: &str, listens| Tcp {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            listens,
            ends: false,
        };
        for (socket, is_wrong) in [
            (socket("127.0.0.1:1", "0.0.0.0:0", true), false),
            (socket("127.0.0.1:50000", "127.0.0.1:2", false), false),
            (socket("127.0.0.1:3", "127.0.0.1:50000", false), false),
            (socket("192.0.2.1:3", "0.0.0.0:0", true), true),
            (socket("127.0.0.1:4", "0.0.0.0:0", true), true),
            (socket("127.0.0.1:50000", "127.0.0.1:4", false), true),
            (Tcp { ends: true, ..socket("127.0.0.1:50000", "127.0.0.1:4", false) }, false),
        ] {
            assert_eq!(ports.complaint(&socket).is_some(), is_wrong, "{socket:?}");
        }
    }

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        assert_eq!(address("0100007F:1F90"), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(address("00000000000000000000000001000000:0050"), Some("[::1]:80".parse().unwrap()));
        assert_eq!(address("0000000000000000FFFF00000100007F:0050"), Some("127.0.0.1:80".parse().unwrap()));
        for text in ["", "0100007F", "7F:1", "0100007F:xyz"] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
