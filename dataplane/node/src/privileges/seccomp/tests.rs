//! The list as the kernel reads it, and in force: over threads of the test, and over a process that aborts.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Error, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::thread;

use libc::c_long;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{Pid, User};
use seccompiler::BpfProgram;
use zen_lock::{Client, Greeting, Listener, NONCE_BYTES, REQUEST_HEAD_BYTES, ReplyHead, SecretName};

use super::*;

/// `SECCOMP_RET_ALLOW`, `SECCOMP_RET_LOG`, `SECCOMP_RET_KILL_PROCESS`, and `SECCOMP_RET_ERRNO` with EPERM and ENOSYS.
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const KILL: u32 = 0x8000_0000;
const NOT_PERMITTED: u32 = 0x0005_0001;
const NO_SUCH_CALL: u32 = 0x0005_0026;
/// `AUDIT_ARCH_X86_64` and `AUDIT_ARCH_AARCH64`.
const X86_64: u32 = 0xc000_003e;
const AARCH64: u32 = 0xc000_00b7;
const HERE: u32 = if cfg!(target_arch = "x86_64") { X86_64 } else { AARCH64 };
/// What makes the abort test the process that aborts.
const ABORT: &str = "ZEN_TEST_ABORT";

/// Runs classic BPF over one system call, as the kernel does (`struct seccomp_data`).
fn verdict(program: &BpfProgram, architecture: u32, call: c_long, arguments: &[u64]) -> u32 {
    let mut data = vec![call as u32, architecture, 0, 0];
    for index in 0..6 {
        let argument = arguments.get(index).copied().unwrap_or(0);
        data.extend([argument as u32, (argument >> 32) as u32]);
    }
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let step = &program[at];
        at += 1;
        let jump = |is_so: bool| usize::from(if is_so { step.jt } else { step.jf });
        match step.code {
            0x20 => accumulator = data[step.k as usize / 4],
            0x54 => accumulator &= step.k,
            0x05 => at += step.k as usize,
            0x15 => at += jump(accumulator == step.k),
            0x25 => at += jump(accumulator > step.k),
            0x35 => at += jump(accumulator >= step.k),
            0x06 => return step.k,
            code => panic!("instruction {code:#x}"),
        }
    }
}

fn here(mode: Seccomp) -> BpfMap {
    compile(mode, std::env::consts::ARCH).unwrap().0
}

/// Runs `check` in a thread of its own under the list.
fn confined(check: impl FnOnce() + Send + 'static) {
    let run = move || {
        let programs = here(Seccomp::Enforce);
        seccompiler::apply_filter(&programs["threads"]).unwrap();
        seccompiler::apply_filter(&programs["every"]).unwrap();
        check();
    };
    thread::spawn(run).join().unwrap();
}

fn is_refused<T>(result: Result<T, impl Into<Error>>) -> bool {
    result.is_err_and(|error| error.into().raw_os_error() == Some(libc::EPERM))
}

#[test]
fn the_list_is_for_two_architectures_and_kills_what_calls_in_the_way_of_another() {
    for (name, own, other) in [("x86_64", X86_64, AARCH64), ("aarch64", AARCH64, X86_64)] {
        let (programs, calls) = compile(Seccomp::Enforce, name).unwrap();
        assert!(calls > 50, "{calls}");
        // io_uring_enter has one number everywhere, and so has io_uring_setup.
        let verdict = |architecture, call| verdict(&programs["every"], architecture, call, &[]);
        assert_eq!([426, 425].map(|call| verdict(own, call)), [ALLOW, NOT_PERMITTED], "{name}");
        assert_eq!(verdict(other, 426), KILL, "{name}");
    }
    assert!(matches!(compile(Seccomp::Enforce, "riscv64"), Err(SeccompError::Architecture("riscv64"))));
}

#[test]
fn arguments_decide_where_they_say_what_a_call_does() {
    let programs = here(Seccomp::Enforce);
    let is_allowed = |call, arguments: &[u64]| match verdict(&programs["every"], HERE, call, arguments) {
        ALLOW => true,
        NOT_PERMITTED => false,
        other => panic!("{other:#x}"),
    };
    let values = |call, index: usize, most: u64| {
        let arguments = |value| [vec![0; index], vec![value]].concat();
        (0..most).filter(|value| is_allowed(call, &arguments(*value))).collect::<Vec<_>>()
    };
    // AF_UNIX, AF_INET, AF_INET6, AF_NETLINK; not AF_PACKET, AF_VSOCK, AF_ALG.
    assert_eq!(values(libc::SYS_socket, 0, 64), [1, 2, 10, 16]);
    // Elements of maps, and what a map is; no program, no new map, no attaching.
    assert_eq!(values(libc::SYS_bpf, 0, 64), [1, 2, 3, 4, 15, 24]);
    // PR_SET_NAME; not PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_CAP_AMBIENT.
    assert_eq!(values(libc::SYS_prctl, 0, 128), [15]);
    assert_eq!(values(libc::SYS_io_uring_register, 1, 64), [21]);
    assert_eq!(values(libc::SYS_prlimit64, 2, 64), [0]);
    assert!(is_allowed(libc::SYS_prctl, &[0x5356_4d41]));
    let thread = 0x3d_0f00;
    let (user_namespace, own_memory) = (libc::CLONE_NEWUSER as u64, libc::CLONE_VM as u64);
    assert!(is_allowed(libc::SYS_clone, &[thread]));
    for flags in [0, libc::SIGCHLD as u64, thread | user_namespace, thread ^ own_memory] {
        assert!(!is_allowed(libc::SYS_clone, &[flags]), "{flags:#x}");
    }
    assert_eq!(verdict(&programs["threads"], HERE, libc::SYS_clone3, &[]), NO_SUCH_CALL);
    assert_eq!(verdict(&programs["threads"], HERE, libc::SYS_seccomp, &[]), ALLOW, "the list comes behind");
}

#[test]
fn what_would_lead_out_of_the_node_is_not_on_the_list() {
    let (enforced, logged) = (here(Seccomp::Enforce), here(Seccomp::Log));
    assert_eq!(verdict(&logged["every"], HERE, libc::SYS_read, &[]), ALLOW);
    for call in [
        libc::SYS_add_key,
        libc::SYS_capset,
        libc::SYS_chroot,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_finit_module,
        libc::SYS_init_module,
        libc::SYS_io_uring_setup,
        libc::SYS_kexec_load,
        libc::SYS_keyctl,
        libc::SYS_kill,
        libc::SYS_listen,
        libc::SYS_memfd_create,
        libc::SYS_mount,
        libc::SYS_name_to_handle_at,
        libc::SYS_open_by_handle_at,
        libc::SYS_perf_event_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_pivot_root,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_ptrace,
        libc::SYS_seccomp,
        libc::SYS_setns,
        libc::SYS_setuid,
        libc::SYS_unshare,
        libc::SYS_userfaultfd,
    ] {
        assert_eq!(verdict(&enforced["every"], HERE, call, &[]), NOT_PERMITTED, "{call}");
        assert_eq!(verdict(&logged["every"], HERE, call, &[]), LOG, "{call}");
    }
    assert!(!logged.contains_key("threads"), "what is only logged has no other answers");
}

#[test]
fn a_refused_call_fails_and_the_thread_goes_on() {
    confined(|| {
        assert!(is_refused(unshare(CloneFlags::CLONE_NEWNS)));
        assert!(is_refused(ptrace::traceme()));
        assert!(is_refused(mount(None::<&str>, "/", None::<&str>, MsFlags::MS_BIND, None::<&str>)));
        assert!(is_refused(kill(Pid::this(), Signal::SIGTERM)));
        assert!(is_refused(socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None)));
        assert!(is_refused(TcpListener::bind("127.0.0.1:0")), "what listens was bound before");
        assert!(is_refused(Command::new("false").spawn()), "no child");
        // Should it succeed, `false` takes the place of this process, and fails.
        assert!(is_refused(Err::<(), _>(Command::new("false").exec())), "no other program");
    });
}

#[test]
fn files_sockets_names_and_threads_work_under_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let inside_of = |name: &str| folder.path().join(name);
    let [file, directory, moved] = ["a", "b", "b/a"].map(inside_of);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let link = inside_of("current");
    std::os::unix::fs::symlink("gen-1", &link).unwrap();
    confined(move || {
        assert_eq!(std::fs::read_link(&link).unwrap().to_str(), Some("gen-1"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(&file, "kept").unwrap();
        std::fs::rename(&file, &moved).unwrap();
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "kept");
        std::fs::remove_file(&moved).unwrap();

        let mut outside = TcpStream::connect(address).unwrap();
        outside.write_all(b"x").unwrap();
        let named = thread::Builder::new().name("named".to_owned());
        let inside = named.spawn(move || listener.accept().unwrap().0.read(&mut [0; 1]).unwrap());
        assert_eq!(inside.unwrap().join().unwrap(), 1);
        assert!(("localhost", 0).to_socket_addrs().unwrap().next().is_some());
    });
}

#[test]
fn a_secret_of_lockd_is_asked_for_under_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let lockd = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.write_all(&Greeting { nonce: [7; NONCE_BYTES] }.encode()).unwrap();
        stream.read_exact(&mut [0; REQUEST_HEAD_BYTES + NONCE_BYTES + 1 + "a/b/c".len()]).unwrap();
        stream.write_all(&[&ReplyHead::Value(6).encode()[..], b"secret"].concat()).unwrap();
    });
    confined(move || {
        let user = User::from_name("root").unwrap().unwrap().uid;
        assert_eq!(user.as_raw(), 0, "names of users are found");
        let mut client = Client::connect(&socket, Listener::RootOrSelf).unwrap();
        assert_eq!(*client.open(&SecretName::parse("a/b/c").unwrap()).unwrap(), b"secret");
    });
    lockd.join().unwrap();
}

#[test]
fn a_bug_still_ends_a_confined_process() {
    if std::env::var_os(ABORT).is_some() {
        confine(Seccomp::Enforce).unwrap();
        std::process::abort();
    }
    let name = "privileges::seccomp::tests::a_bug_still_ends_a_confined_process";
    let this = std::env::current_exe().unwrap();
    let status = Command::new(this).args(["--exact", name]).env(ABORT, "1").status().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGABRT), "{status}");
}
