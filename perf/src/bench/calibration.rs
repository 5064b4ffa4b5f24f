//! How fast the machine is just now, in CPU time of one thread, beside the machine of the reference figures.
//!
//! HAProxy's cost is its own code with its hashing, and the kernel's network. So two loops whose cost on that
//! machine is known: HMAC-SHA256 of 1 KiB with `hmac` and `sha2`, and a server on epoll that reads 1 KiB
//! and writes 64 bytes on each of 256 connections over loopback. Their geometric mean is the slow-down.

use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::time::{ClockId, clock_gettime};
use sha2::Sha256;

use crate::error::LabError;

/// On the machine of the reference figures (Xeon, 3.6 to 3.9 GHz, SHA-NI, Linux 6.18).
const REFERENCE_HMAC_NS: f64 = 657.0;
const REFERENCE_REQUEST_NS: f64 = 3600.0;
const HMAC_TURNS: usize = 20_000;
const CONNECTIONS: usize = 256;
const REQUESTS_EACH: usize = 20;
const REQUEST_BYTES: usize = 1024;
const ANSWER_BYTES: usize = 64;
const WAIT_MS: u16 = 5000;

/// Nanoseconds of CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calibration {
    /// One HMAC-SHA256 of 1 KiB.
    pub(crate) hmac_ns: f64,
    /// One request to a server on epoll, the server's side.
    pub(crate) request_ns: f64,
}

impl Calibration {
    /// Runs both loops, about 50 ms.
    pub(crate) fn measure() -> Result<Self, LabError> {
        let request_ns = request_ns().map_err(LabError::socket("cannot calibrate"))?;
        Ok(Self { hmac_ns: hmac_ns(), request_ns })
    }

    /// How many times slower than the reference machine.
    pub(crate) fn slowdown(&self) -> f64 {
        (self.hmac_ns / REFERENCE_HMAC_NS * (self.request_ns / REFERENCE_REQUEST_NS)).sqrt()
    }
}

fn hmac_ns() -> f64 {
    let body = [b'x'; REQUEST_BYTES];
    let prepared = Hmac::<Sha256>::new_from_slice(b"key").expect("HMAC takes a key of any length");
    let begun = thread_time();
    for _ in 0..HMAC_TURNS {
        let mut mac = prepared.clone();
        mac.update(black_box(&body));
        black_box(mac.finalize());
    }
    thread_time().saturating_sub(begun).as_nanos() as f64 / HMAC_TURNS as f64
}

fn request_ns() -> std::io::Result<f64> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (mut clients, mut accepted) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTIONS {
        clients.push(TcpStream::connect(address)?);
        accepted.push(listener.accept()?.0);
    }
    let server = std::thread::spawn(move || serve(&mut accepted));
    for _ in 0..REQUESTS_EACH {
        for client in &mut clients {
            client.write_all(&[b'x'; REQUEST_BYTES])?;
        }
        for client in &mut clients {
            client.read_exact(&mut [0; ANSWER_BYTES])?;
        }
    }
    server.join().expect("the server does not panic")
}

/// Answers every request; CPU nanoseconds of this thread for each.
fn serve(connections: &mut [TcpStream]) -> std::io::Result<f64> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for (at, connection) in connections.iter().enumerate() {
        connection.set_nonblocking(true)?;
        epoll.add(connection, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
    }
    let mut left = CONNECTIONS * REQUESTS_EACH * REQUEST_BYTES;
    let mut events = [EpollEvent::empty(); CONNECTIONS];
    let begun = thread_time();
    while left > 0 {
        let ready = epoll.wait(&mut events, EpollTimeout::from(WAIT_MS))?;
        if ready == 0 {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        for event in &events[..ready] {
            let connection = &mut connections[event.data() as usize];
            let bytes = connection.read(&mut [0; 4 * REQUEST_BYTES])?;
            left = left.saturating_sub(bytes);
            connection.write_all(&[b'x'; ANSWER_BYTES])?;
        }
    }
    let used = thread_time().saturating_sub(begun);
    Ok(used.as_nanos() as f64 / (CONNECTIONS * REQUESTS_EACH) as f64)
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has a CPU clock");
    Duration::from(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_machine_has_no_slowdown() {
        let calibration = Calibration { hmac_ns: REFERENCE_HMAC_NS, request_ns: REFERENCE_REQUEST_NS };
        assert!((calibration.slowdown() - 1.0).abs() < 1e-9);
        let slower = Calibration { hmac_ns: 2.0 * REFERENCE_HMAC_NS, request_ns: 2.0 * REFERENCE_REQUEST_NS };
        assert!((slower.slowdown() - 2.0).abs() < 1e-9);
        assert!(Calibration::measure().unwrap().slowdown() > 0.0);
    }
}
