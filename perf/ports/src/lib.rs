//! For tests and the lab: addresses on loopback for programs that are told where to listen.
//!
//! A port that the kernel picks may be a client's before the program has started. Those of here lie below the ports of
//! clients, in blocks of which each is one process's as long as it runs: it holds an abstract socket with the block's name.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as Name, UnixListener};
use std::sync::{Mutex, PoisonError};

/// The first port of the first block.
const FIRST: u16 = 10_000;
/// Ports of a block.
const BLOCK: u16 = 50;
/// Blocks; Linux gives clients ports from 32,768 on.
const BLOCKS: u16 = 400;

/// What this process has.
#[derive(Debug)]
struct Taken {
    left: Range<u16>,
    held: Vec<UnixListener>,
}

impl Taken {
    /// Takes a block that no process has; false if there is none.
    fn take_block(&mut self) -> bool {
        let start = (std::process::id() % u32::from(BLOCKS)) as u16;
        for block in (start..BLOCKS).chain(0..start) {
            let name = Name::from_abstract_name(format!("zen-ports-{block}")).expect("a short name");
            if let Ok(held) = UnixListener::bind_addr(&name) {
                self.held.push(held);
                self.left = FIRST + block * BLOCK..FIRST + (block + 1) * BLOCK;
                return true;
            }
        }
        false
    }
}

/// The ports that are given out, all told.
pub const RANGE: Range<u16> = FIRST..FIRST + BLOCK * BLOCKS;

/// An address on 127.0.0.1 that is free now, and that no other caller of this has; none if all blocks are taken.
pub fn claim_address() -> Option<SocketAddr> {
    static TAKEN: Mutex<Taken> = Mutex::new(Taken { left: 0..0, held: Vec::new() });
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        for port in taken.left.by_ref() {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            if TcpListener::bind(address).is_ok() {
                return Some(address);
            }
        }
        if !taken.take_block() {
            return None;
        }
    }
}

/// As [`claim_address`], for tests.
pub fn free_address() -> SocketAddr {
    claim_address().expect("a block of ports that no process has")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::collections::HashSet;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn each_is_another_and_none_is_taken() {
        let first = free_address();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first.port() + 1));
        let addresses = [(); 130].map(|()| free_address());
        let ports: HashSet<u16> = addresses.iter().map(SocketAddr::port).collect();
        assert_eq!(ports.len(), addresses.len(), "each once, over the end of a block");
        assert!(ports.iter().all(|port| RANGE.contains(port)));
        assert!(!ports.contains(&first.port()));
        assert!(taken.is_err() || !ports.contains(&(first.port() + 1)), "somebody listens there");
    }

    /// Runs itself as processes at one moment; each says what it got, and none listens there.
    #[test]
    fn two_processes_never_have_the_same() {
        const PRINT: &str = "ZEN_PORTS_PRINT";
        if std::env::var_os(PRINT).is_some() {
            (0..60).for_each(|_| println!("port {}", free_address().port()));
            // Holds its blocks until all have theirs.
            std::io::stdin().lines().for_each(drop);
            return;
        }
        let own = std::env::current_exe().unwrap();
        let name = "tests::two_processes_never_have_the_same";
        let mut children = Vec::new();
        for _ in 0..8 {
            let mut command = Command::new(&own);
            command.args(["--exact", name, "--nocapture"]).env(PRINT, "1");
            children.push(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
        }
        let mut seen = HashSet::new();
        for child in &mut children {
            let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.as_mut().unwrap()));
            let ports = lines.filter_map(|line| line.unwrap().strip_prefix("port ").map(str::to_owned));
            for port in ports.take(60) {
                assert!(seen.insert(port.clone()), "two processes have {port}");
            }
        }
        assert_eq!(seen.len(), 8 * 60);
        for mut child in children {
            drop(child.stdin.take());
            child.stdout.take();
            child.wait().unwrap();
        }
    }
}
