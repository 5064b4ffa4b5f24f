//! Sockets with a source of their own, and network namespaces.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, connect, getsockopt, socket, sockopt,
};

/// A SYN that is dropped is sent again after a second; nobody waits for that here.
const ANSWER_MS: u16 = 300;

/// Programs stand at this process's cgroup: one test at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connects to `to` from the address `from`, within [`ANSWER_MS`].
pub fn dial(from: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let fd = open(SockType::Stream, to.ip())?;
    bind_to(&fd, SocketAddr::new(from.parse().unwrap(), 0))?;
    connect_to(&fd, to)?;
    let stream = TcpStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// A datagram socket that is connected; nothing is sent.
pub fn connect_datagram(to: SocketAddr) -> io::Result<()> {
    connect_to(&open(SockType::Datagram, to.ip())?, to)
}

fn open(kind: SockType, family: IpAddr) -> io::Result<OwnedFd> {
    let family = if family.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Ok(socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?)
}

fn bind_to(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(address) => bind(fd.as_raw_fd(), &SockaddrIn::from(address))?,
        SocketAddr::V6(address) => bind(fd.as_raw_fd(), &SockaddrIn6::from(address))?,
    }
    Ok(())
}

fn connect_to(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let outcome = match address {
        SocketAddr::V4(address) => connect(fd.as_raw_fd(), &SockaddrIn::from(address)),
        SocketAddr::V6(address) => connect(fd.as_raw_fd(), &SockaddrIn6::from(address)),
    };
    match outcome {
        Err(Errno::EINPROGRESS) => {}
        outcome => return Ok(outcome?),
    }
    let mut waiting = [PollFd::new(fd.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut waiting, PollTimeout::from(ANSWER_MS))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match getsockopt(fd, sockopt::SocketError)? {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Whether the answer did not come, as for a packet that was dropped.
pub fn is_silent<T>(outcome: &io::Result<T>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// A listener that accepts by itself, through the kernel's queue.
pub fn listen(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Runs a command of iproute2 that must succeed.
pub fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("install iproute2");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A namespace that is joined by a pair of interfaces: `outside` is in it, `inside` is here.
pub struct Outside {
    name: String,
    /// The interface of this side.
    pub inside: String,
}

impl Outside {
    /// `number` N tells its networks apart: `10.77.N.1` and `fd77:N::1` here, `10.77.N.2`, `10.77.N.3` and `fd77:N::2` there.
    pub fn make(number: u8) -> Self {
        let made = Self { name: format!("zen-out-{number}"), inside: format!("zen-in-{number}") };
        made.remove();
        ip(&format!("netns add {}", made.name));
        ip(&format!("link add {} type veth peer name eth0 netns {}", made.inside, made.name));
        for (place, arguments) in [
            ("", format!("address add 10.77.{number}.1/24 dev {}", made.inside)),
            ("", format!("address add fd77:{number}::1/64 dev {} nodad", made.inside)),
            ("", format!("link set {} up", made.inside)),
            (&*made.name, format!("address add 10.77.{number}.2/24 dev eth0")),
            (&*made.name, format!("address add 10.77.{number}.3/24 dev eth0")),
            (&*made.name, format!("address add fd77:{number}::2/64 dev eth0 nodad")),
            (&*made.name, "link set eth0 up".to_owned()),
            (&*made.name, "link set lo up".to_owned()),
        ] {
            if place.is_empty() { ip(&arguments) } else { ip(&format!("-n {place} {arguments}")) }
        }
        made
    }

    /// Does something in the namespace, in a thread of its own.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        let inside = || {
            nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
    }

    fn remove(&self) {
        let _ = Command::new("ip").args(["link", "delete", &self.inside]).output();
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.remove();
    }
}
