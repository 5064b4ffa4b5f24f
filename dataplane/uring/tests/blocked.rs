//! A process whose system call filter forbids `io_uring` (seccomp(2)), as container runtimes' do.
//!
//! A filter cannot be taken off again, so each case is this binary run once more behind a filter of its
//! own, with the test that is marked `ignore`; the parent says what it expects.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    env, io,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::{Command, Output},
    thread,
};

use harness::Harness;
use zen_uring::{Backend, Completion, Io, Limits, Reactor, SetupError, bind_reuseport};

mod harness;

/// Names the case to the child.
const EXPECTED: &str = "ZEN_URING_EXPECTED";
/// `io_uring_setup`, `io_uring_enter` and `io_uring_register` have the same numbers on every architecture.
const SETUP: u32 = 425;
const ENTER: u32 = 426;
const REGISTER: u32 = 427;

#[test]
fn blocked_calls_mean_epoll_which_serves() {
    for (first, last, errno) in [
        (SETUP, REGISTER, libc::EPERM),
        (SETUP, REGISTER, libc::ENOSYS),
        (SETUP, REGISTER, libc::EOPNOTSUPP),
        (SETUP, SETUP, libc::EINVAL),
        (ENTER, ENTER, libc::EPERM),
        (REGISTER, REGISTER, libc::EPERM),
    ] {
        let output = run_behind(first, last, errno, "epoll");
        assert!(output.status.success(), "{first} to {last}, errno {errno}: {output:?}");
    }
}

#[test]
fn a_lack_that_can_be_raised_is_an_error_and_not_epoll() {
    for errno in [libc::ENOMEM, libc::EMFILE] {
        let output = run_behind(SETUP, SETUP, errno, "error");
        assert!(output.status.success(), "errno {errno}: {output:?}");
    }
}

#[test]
#[ignore = "runs behind a filter that the other tests install"]
fn behind_the_filter() {
    match env::var(EXPECTED).unwrap().as_str() {
        "epoll" => {
            let chosen = Backend::choose(Io::Auto).unwrap();
            assert_eq!(chosen.backend, Backend::Epoll);
            assert!(chosen.reason.is_some_and(|reason| names_a_remedy(&reason)));
            let refused = Backend::choose(Io::Uring).unwrap_err();
            assert!(refused.is_blocked() && names_a_remedy(&refused), "{refused}");
            let refused = Reactor::new(&Limits::default(), Backend::Uring).unwrap_err();
            assert!(refused.is_blocked(), "{refused}");
            echo();
        }
        "error" => {
            let refused = Backend::choose(Io::Auto).unwrap_err();
            assert!(!refused.is_blocked(), "{refused}");
            assert!(refused.to_string().contains("raise"), "{refused}");
            assert_eq!(Backend::choose(Io::Epoll).unwrap().backend, Backend::Epoll);
        }
        other => panic!("{other}"),
    }
}

fn names_a_remedy(error: &SetupError) -> bool {
    let text = error.to_string();
    text.contains("Linux 6.1 or newer") || text.contains("kernel.io_uring_disabled")
}

fn echo() {
    let mut harness = Harness::small(Backend::Epoll);
    let listener =
        TcpListener::from(bind_reuseport("127.0.0.1:0".parse().unwrap()).unwrap().listen(8).unwrap());
    let address = listener.local_addr().unwrap();
    harness.reactor.listen(listener.into()).unwrap();
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"anybody there?").unwrap();
        let mut answer = [0; 14];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"anybody there?");
    });
    let socket = harness.accepted();
    let bytes = harness.received(socket, 14);
    harness.send(socket, &bytes);
    client.join().unwrap();
    harness.until("end of the stream", |_, completion| {
        matches!(completion, Completion::Closed { error: None, .. })
    });
    harness.drained();
}

/// Runs `behind_the_filter` where the calls from `first` to `last` fail with `errno`.
fn run_behind(first: u32, last: u32, errno: i32, expected: &str) -> Output {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "behind_the_filter", "--ignored"]).env(EXPECTED, expected);
    // SAFETY: between fork and exec, `forbid` makes two system calls and allocates nothing.
    unsafe { command.pre_exec(move || forbid(first, last, errno)) };
    let output = command.output().unwrap();
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    assert!(ran || !output.status.success(), "the child has run nothing: {output:?}");
    output
}

/// A classic BPF program over `struct seccomp_data`, whose first word is the number of the call.
fn forbid(first: u32, last: u32, errno: i32) -> io::Result<()> {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump =
        |code: u32, k: u32, jt, jf| libc::sock_filter { code: (code | libc::BPF_JMP) as u16, jt, jf, k };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        jump(libc::BPF_JGE | libc::BPF_K, first, 0, 2),
        jump(libc::BPF_JGT | libc::BPF_K, last, 1, 0),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: takes numbers only; without it an unprivileged process may not install a filter.
    let allowed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if allowed != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel copies the program, which lives until the call returns.
    let installed =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if installed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
