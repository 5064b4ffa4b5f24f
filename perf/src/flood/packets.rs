//! The flood: SYNs and junk of connections that do not exist, from any address of one /24, to one port.
//!
//! Frames are made beforehand and written to the interface itself, so that sending costs little beside what they cost
//! whoever receives them.

use std::io::IoSlice;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, bind, sendmmsg, socket,
};
use nix::unistd::gettid;

use super::network::{FLOOD, OUTSIDE_INTERFACE};
use crate::error::LabError;
use crate::random::Random;

/// Frames of one system call, and frames that are made.
const BATCH: usize = 64;
const FRAMES: usize = 4096;
/// Every fourth is junk: an ACK with a payload.
const JUNK_EVERY: usize = 4;
const JUNK_BYTES: usize = 1000;
const ETHER_HEADER: usize = 14;
const IP_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// How a running flood is seen and stopped.
#[derive(Default)]
pub(super) struct FloodState {
    pub(super) stopping: AtomicBool,
    pub(super) sent: AtomicU64,
}

/// Sends to the machine behind the hardware address `mac` until stopped, `per_second` packets at most; 0 is as many as one
/// thread can.
pub(super) fn send(
    to: SocketAddr,
    mac: [u8; 6],
    per_second: u64,
    state: &FloodState,
) -> Result<(), LabError> {
    let failed =
        |source: Errno| LabError::Socket { what: "the flood's packet socket", source: source.into() };
    let SocketAddr::V4(to) = to else { unreachable!("the inside address is IPv4") };
    let fd: OwnedFd =
        socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    bind(fd.as_raw_fd(), &interface().map_err(failed)?).map_err(failed)?;
    run_first()?;
    let frames = frames(to, mac);
    let slices: Vec<[IoSlice<'_>; 1]> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
    let mut headers = MultiHeaders::<LinkAddr>::preallocate(BATCH, None);
    let (begun, mut sent, nobody) = (Instant::now(), 0, [None; BATCH]);
    for batch in slices.chunks(BATCH).cycle() {
        if state.stopping.load(Ordering::Relaxed) {
            break;
        }
        match sendmmsg(fd.as_raw_fd(), &mut headers, batch, nobody, [], MsgFlags::empty()) {
            Ok(results) => sent += results.count() as u64,
            // A full queue is no end of the flood.
            Err(Errno::ENOBUFS | Errno::EAGAIN) => {}
            Err(error) => return Err(failed(error)),
        }
        state.sent.store(sent, Ordering::Relaxed);
        if per_second > 0 {
            let due = Duration::from_secs_f64(sent as f64 / per_second as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    Ok(())
}

/// Packets from elsewhere do not wait until this machine has time for their sender (`SCHED_FIFO`).
fn run_first() -> Result<(), LabError> {
    let thread = gettid().to_string();
    let ran = Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).output();
    let output = ran.map_err(|source| LabError::Start { program: "chrt".into(), source })?;
    let text = || String::from_utf8_lossy(&output.stderr).into_owned();
    let failed =
        || LabError::Failed { program: "chrt", remedy: "run as root, with util-linux", output: text() };
    output.status.success().then_some(()).ok_or_else(failed)
}

fn interface() -> Result<LinkAddr, Errno> {
    let mut interfaces = getifaddrs()?.filter(|interface| interface.interface_name == OUTSIDE_INTERFACE);
    let found = interfaces.find_map(|interface| interface.address?.as_link_addr().copied());
    found.ok_or(Errno::ENODEV)
}

fn frames(to: SocketAddrV4, mac: [u8; 6]) -> Vec<Vec<u8>> {
    let mut random = Random::new(u64::from(to.port()));
    let frame = |at: usize| {
        let mut frame = Vec::from(mac);
        frame.extend_from_slice(&[2, 0, 0, 0, 0, 2, 0x08, 0x00]);
        let mut packet = packet(to, at.is_multiple_of(JUNK_EVERY));
        vary(&mut packet, &mut random);
        debug_assert_eq!(frame.len(), ETHER_HEADER);
        frame.extend_from_slice(&packet);
        frame
    };
    (0..FRAMES).map(frame).collect()
}

/// An IPv4 packet whose source, ports, sequence and checksum are filled in by [`vary`].
fn packet(to: SocketAddrV4, is_junk: bool) -> Vec<u8> {
    let payload = if is_junk { JUNK_BYTES } else { 0 };
    let mut packet = vec![0; IP_HEADER + TCP_HEADER + payload];
    let length = packet.len() as u16;
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[8] = 64;
    packet[9] = 6;
    packet[16..20].copy_from_slice(&to.ip().octets());
    let tcp = &mut packet[IP_HEADER..];
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[12] = 0x50;
    tcp[13] = if is_junk { ACK } else { SYN };
    tcp[14..16].copy_from_slice(&64_000_u16.to_be_bytes());
    packet
}

fn vary(packet: &mut [u8], random: &mut Random) {
    let bits = random.below(u64::MAX).to_le_bytes();
    packet[12..15].copy_from_slice(&FLOOD);
    packet[15] = 2 + bits[0] % 250;
    let tcp = &mut packet[IP_HEADER..];
    tcp[..2].copy_from_slice(&(1024 + u16::from_le_bytes([bits[1], bits[2]]) % 60_000).to_be_bytes());
    tcp[4..8].copy_from_slice(&bits[3..7]);
    checksum(packet);
}

/// Of the IP header (RFC 791), and of the segment with its pseudo-header (RFC 9293 section 3.1).
fn checksum(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let header = complement(sum(&packet[..IP_HEADER]));
    packet[10..12].copy_from_slice(&header);
    let (ip, tcp) = packet.split_at_mut(IP_HEADER);
    tcp[16..18].fill(0);
    let segment = complement(sum(&ip[12..20]) + 6 + tcp.len() as u32 + sum(tcp));
    tcp[16..18].copy_from_slice(&segment);
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]))).sum()
}

fn complement(mut sum: u32) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packets_checksums_add_up() {
        let mut random = Random::new(7);
        for is_junk in [false, true] {
            let mut packet = packet("10.78.0.1:443".parse().unwrap(), is_junk);
            vary(&mut packet, &mut random);
            let (ip, tcp) = packet.split_at(IP_HEADER);
            let pseudo = [&ip[12..20], &[0, 6], &(tcp.len() as u16).to_be_bytes(), tcp].concat();
            assert_eq!([complement(sum(ip)), complement(sum(&pseudo))], [[0; 2]; 2], "junk: {is_junk}");
        }
    }
}
