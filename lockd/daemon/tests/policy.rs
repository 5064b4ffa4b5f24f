//! Each way to be somebody else: what comes of it, and its receipt. Needs root: callers of other users, mount
//! namespaces, control groups, and process ids that are given out again.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use support::{LOCKD, Vault, Wire, grant, read_greeting, run, said, wait_until};
use zen_lock::{Greeting, Refusal, ReplyHead};

const SECRET: &str = "edge/webhooks/github";
/// What [`caller`] plays, and for which vault.
const ROLE: &str = "ZEN_LOCKD_TEST_ROLE";
const VAULT: &str = "ZEN_LOCKD_TEST_VAULT";

fn vault() -> Vault {
    let vault = Vault::new();
    vault.seal(SECRET, b"swordfish");
    vault
}

fn by_executable(path: &Path) -> String {
    grant(&format!("executable = \"{}\"", path.display()))
}

/// `zen-lockd get` of a copy that a grant names; its last receipt.
fn last_receipt(vault: &Vault, verdict: &str, reason: &str) {
    let receipt = vault.receipts().pop().unwrap();
    assert_eq!(receipt["verdict"], verdict, "{receipt}");
    assert!(receipt["reason"].as_str().unwrap_or_default().contains(reason), "{receipt}");
}

#[test]
fn another_user_and_another_group_are_refused() {
    let vault = vault();
    let program = vault.copy(LOCKD.as_ref(), "program");
    let _daemon = vault.start(&grant("user = \"root\"\ngroup = \"root\""));
    let nobody = ["setpriv", "--reuid=65534", "--regid=0", "--clear-groups"];
    assert!(said(&vault.get_by(&nobody, &program, SECRET)).contains("does not grant"));
    last_receipt(&vault, "denied", "user and group");
    let group = ["setpriv", "--reuid=0", "--regid=65534", "--clear-groups"];
    assert!(said(&vault.get_by(&group, &program, SECRET)).contains("does not grant"));
    let receipt = vault.receipts().pop().unwrap();
    assert_eq!((receipt["uid"].as_u64(), receipt["gid"].as_u64()), (Some(0), Some(65534)));
    assert_eq!(said(&vault.get_by(&["env"], &program, SECRET)), "swordfish");
}

#[test]
fn another_executable_is_refused_whatever_it_calls_itself() {
    let vault = vault();
    let granted = vault.copy(LOCKD.as_ref(), "granted");
    let other = vault.copy(LOCKD.as_ref(), "other");
    let _daemon = vault.start(&by_executable(&granted));
    assert_eq!(said(&vault.get_by(&["env"], &granted, SECRET)), "swordfish");
    assert_eq!(vault.refusal(SECRET), Refusal::Denied, "this test is another program");
    last_receipt(&vault, "denied", "another executable");
    let named =
        vault.get_by(&["bash", "-c", "exec -a \"$0\" \"$@\"", granted.to_str().unwrap()], &other, SECRET);
    assert!(said(&named).contains("does not grant"), "{}", said(&named));
    last_receipt(&vault, "denied", "another executable");
    // A path that is no text still has its receipt.
    let odd = vault
        .directory
        .path()
        .join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"odd\xff"));
    fs::copy(LOCKD, &odd).unwrap();
    assert!(said(&vault.get_by(&["env"], &odd, SECRET)).contains("does not grant"));
    last_receipt(&vault, "denied", "another executable");
    assert!(vault.receipts().pop().unwrap()["executable"].as_str().unwrap().contains("odd"));
    // A link of the same file at another path is another path.
    let linked = vault.path("linked");
    fs::hard_link(&granted, &linked).unwrap();
    assert!(said(&vault.get_by(&["env"], &linked, SECRET)).contains("does not grant"));
}

#[test]
fn an_executable_in_a_namespace_of_its_own_is_another_file() {
    let vault = vault();
    let granted = vault.copy(LOCKD.as_ref(), "granted");
    let other = vault.copy(LOCKD.as_ref(), "other");
    let _daemon = vault.start(&by_executable(&granted));
    let script = format!("mount --bind '{}' '{}'; exec \"$@\"", other.display(), granted.display());
    let output = vault.get_by(&["unshare", "--mount", "sh", "-ec", &script, "sh"], &granted, SECRET);
    assert!(said(&output).contains("does not grant"), "{}", said(&output));
    last_receipt(&vault, "denied", "was replaced");
}

#[test]
fn a_running_executable_that_was_replaced_is_refused() {
    let vault = vault();
    let granted = vault.copy(&std::env::current_exe().unwrap(), "granted");
    let _daemon = vault.start(&by_executable(&granted));
    let mut before = play("ask", &vault, &granted);
    before.go_on();
    assert_eq!(before.answer(), ReplyHead::Value(9));
    let mut caller = play("ask", &vault, &granted);
    fs::rename(vault.copy(LOCKD.as_ref(), "next"), &granted).unwrap();
    caller.go_on();
    assert_eq!(caller.answer(), ReplyHead::Refused(Refusal::Denied));
    // It was in place when it connected and is not any more.
    last_receipt(&vault, "changed", "another program");
    assert_eq!(
        said(&vault.get_by(&["env"], &granted, SECRET)),
        "swordfish",
        "the new one is the granted one"
    );
}

#[test]
fn a_caller_that_becomes_another_program_is_refused() {
    let shell = fs::canonicalize("/bin/sh").unwrap();
    // From the granted one into another, and the other way round.
    for granted_is_shell in [false, true] {
        let vault = vault();
        let own = vault.copy(&std::env::current_exe().unwrap(), "caller");
        let _daemon = vault.start(&by_executable(if granted_is_shell { &shell } else { &own }));
        let mut caller = play("become", &vault, &own);
        caller.go_on();
        assert_eq!(caller.answer(), ReplyHead::Refused(Refusal::Denied));
        last_receipt(&vault, "changed", "another program");
    }
}

#[test]
fn a_socket_that_was_handed_on_is_of_no_use() {
    let vault = vault();
    let _daemon = vault.start(&grant("user = \"0\""));
    let mut wire = vault.wire();
    let request = wire.request(SECRET);
    // The shell is of the same user and group, and writes with a number of its own.
    let mut writer = write_by_shell(&wire.stream, &request);
    assert!(writer.wait().unwrap().success());
    assert_eq!(wire.reply(), Some(ReplyHead::Refused(Refusal::Malformed)));
    assert_eq!(wire.reply(), None);
    last_receipt(&vault, "stolen", &format!("written by process {}", writer.id()));
}

#[test]
fn a_process_id_that_was_given_out_again_is_of_no_use() {
    let vault = vault();
    let _daemon = vault.start(&grant("user = \"0\""));
    let heir = vault.path("heir");
    for _ in 0..200 {
        // A process connects, leaves its socket to another one, and is gone.
        let mut gone = spawn("leave", &vault, &std::env::current_exe().unwrap(), Stdio::null());
        assert!(gone.wait().unwrap().success());
        wait_until("the heir has asked", || heir.exists());
        let said = fs::read(&heir).unwrap();
        fs::remove_file(&heir).unwrap();
        let (has_its_id, head) = said.split_first().unwrap();
        let reply = ReplyHead::decode(head.try_into().unwrap()).unwrap();
        assert!(matches!(reply, ReplyHead::Refused(_)), "{reply:?}");
        if *has_its_id == 1 {
            assert_eq!(reply, ReplyHead::Refused(Refusal::Denied));
            return last_receipt(&vault, "changed", "the caller has ended");
        }
    }
    panic!("the id of a process that had ended was never given out again");
}

#[test]
fn a_unit_is_known_by_its_control_group() {
    let vault = vault();
    let program = vault.copy(LOCKD.as_ref(), "program");
    let _daemon = vault.start(&grant("unit = \"zen-lockd-test.service\""));
    let groups = Groups::new();
    let get = |group: &str| {
        let join = format!("echo $$ > '{}/cgroup.procs'; exec \"$@\"", groups.make(group).display());
        said(&vault.get_by(&["sh", "-ec", &join, "sh"], &program, SECRET))
    };
    assert_eq!(get("system.slice/zen-lockd-test.service"), "swordfish");
    assert_eq!(vault.receipts().pop().unwrap()["unit"], "zen-lockd-test.service");
    assert_eq!(get("system.slice/zen-lockd-test.service/inner"), "swordfish");
    for group in [
        "system.slice/zen-lockd-test-2.service",
        "user.slice/zen-lockd-test.service",
        "user.slice/system.slice/zen-lockd-test.service",
        "zen-lockd-test.service",
    ] {
        assert!(get(group).contains("does not grant"), "{group}");
        last_receipt(&vault, "denied", "another systemd unit");
    }
}

#[test]
fn no_path_leads_through_a_symbolic_link() {
    let vault = vault();
    let _daemon = vault.start(&grant("user = \"0\""));
    for part in ["edge", "edge/webhooks", "edge/webhooks/github.age"] {
        let (path, away) = (vault.path("sealed").join(part), vault.path("away"));
        fs::rename(&path, &away).unwrap();
        symlink(&away, &path).unwrap();
        assert_eq!(vault.refusal(SECRET), Refusal::Sealed, "{part}");
        last_receipt(&vault, "sealed", "symbolic link");
        fs::remove_file(&path).unwrap();
        fs::rename(&away, &path).unwrap();
        assert!(vault.get(SECRET).is_ok());
    }
    let program = vault.copy(LOCKD.as_ref(), "program");
    symlink(&program, vault.path("link")).unwrap();
    symlink(vault.directory.path(), vault.path("here")).unwrap();
    let good = by_executable(&program);
    for (rules, from, to, says) in [
        (by_executable(&vault.path("link")), "", "", "executable: "),
        (by_executable(&vault.path("here/program")), "", "", "executable: "),
        (good.clone(), "\"lockd.sock\"", "\"here/lockd.sock\"", ""),
        (good.clone(), "\"sealed\"", "\"here/sealed\"", ""),
    ] {
        vault.configure("", &rules);
        let text = fs::read_to_string(vault.path("lockd.toml")).unwrap();
        fs::write(vault.path("lockd.toml"), text.replace(from, to)).unwrap();
        refused_start(&vault.path("lockd.toml"), &[says, "is a symbolic link"]);
    }
    vault.configure("", &good);
    refused_start(&vault.path("here/lockd.toml"), &["is a symbolic link"]);
}

#[test]
fn an_executable_that_others_could_replace_is_no_condition() {
    let vault = vault();
    let program = vault.copy(LOCKD.as_ref(), "program");
    vault.configure("", &by_executable(&program));
    fs::set_permissions(&program, Permissions::from_mode(0o777)).unwrap();
    refused_start(&vault.path("lockd.toml"), &["executable: ", "group or others may write there"]);
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&program, Some(65534), None).unwrap();
    refused_start(&vault.path("lockd.toml"), &["executable: ", "belongs to user 65534"]);
}

fn refused_start(config: &Path, says: &[&str]) {
    let output = run(&["run", "--config", config.to_str().unwrap()], b"");
    let said = said(&output);
    assert!(!output.status.success() && says.iter().all(|says| said.contains(says)), "{says:?}: {said}");
}

/// A caller that has been greeted, and waits.
struct Player {
    child: Child,
    answer: PathBuf,
}

impl Player {
    fn go_on(&mut self) {
        self.child.stdin.take().unwrap().write_all(b"\n").unwrap();
    }

    /// The head of the reply that it got.
    fn answer(&mut self) -> ReplyHead {
        assert!(self.child.wait().unwrap().success());
        let head = fs::read(&self.answer).unwrap();
        ReplyHead::decode(head[..].try_into().unwrap()).unwrap()
    }
}

/// A process that runs `program`, which is this test, and plays a role.
fn play(role: &str, vault: &Vault, program: &Path) -> Player {
    let _ = fs::remove_file(vault.path("greeted"));
    let child = spawn(role, vault, program, Stdio::piped());
    wait_until("the caller is greeted", || vault.path("greeted").exists());
    Player { child, answer: vault.path("answer") }
}

fn spawn(role: &str, vault: &Vault, program: &Path, stdin: Stdio) -> Child {
    spawn_in(role, vault.directory.path(), program, stdin)
}

fn spawn_in(role: &str, vault: &Path, program: &Path, stdin: Stdio) -> Child {
    let mut command = Command::new(program);
    command.args(["--exact", "caller", "--ignored", "--nocapture"]).stdin(stdin).stdout(Stdio::null());
    command.env(ROLE, role).env(VAULT, vault).spawn().unwrap()
}

/// Not a test: what another process does for the tests above.
#[test]
#[ignore = "is run by other tests, in a process of its own"]
fn caller() {
    let vault = PathBuf::from(std::env::var_os(VAULT).unwrap());
    let role = std::env::var(ROLE).unwrap();
    if let Some(pid) = role.strip_prefix("heir of ") {
        return inherit(&vault, pid.parse().unwrap());
    }
    let mut stream = UnixStream::connect(vault.join("lockd.sock")).unwrap();
    let greeting = read_greeting(&mut stream);
    if role == "leave" {
        fs::write(vault.join("greeting"), greeting.encode()).unwrap();
        let heir = format!("heir of {}", std::process::id());
        let socket = Stdio::from(OwnedFd::from(stream));
        #[expect(clippy::zombie_processes, reason = "it outlives this process, which is what is tested")]
        let _heir = spawn_in(&heir, &vault, &std::env::current_exe().unwrap(), socket);
        return;
    }
    File::create(vault.join("greeted")).unwrap();
    std::io::stdin().read_exact(&mut [0]).unwrap();
    let mut wire = Wire { stream, greeting };
    let request = wire.request(SECRET);
    if role == "become" {
        let answer = vault.join("answer");
        let script = format!("printf '{}' >&0; head -c 5 <&0 > '{}'", octal(&request), answer.display());
        let stream = Stdio::from(OwnedFd::from(wire.stream));
        panic!("{}", Command::new("sh").args(["-c", &script]).stdin(stream).exec());
    }
    wire.send(&request);
    fs::write(vault.join("answer"), wire.reply().unwrap().encode()).unwrap();
}

/// Has the socket of the process `gone` as its standard input, and lets a process ask that has its id, if it can be had.
fn inherit(vault: &Path, gone: u32) {
    wait_until("it is gone", || !Path::new(&format!("/proc/{gone}")).exists());
    let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let greeting = fs::read(vault.join("greeting")).unwrap();
    let greeting = Greeting::decode(greeting[..].try_into().unwrap()).unwrap();
    let mut wire = Wire { stream, greeting };
    let request = wire.request(SECRET);
    fs::write("/proc/sys/kernel/ns_last_pid", (gone - 1).to_string()).unwrap();
    let mut writer = write_by_shell(&wire.stream, &request);
    assert!(writer.wait().unwrap().success());
    let said = [&[u8::from(writer.id() == gone)], &wire.reply().unwrap().encode()[..]].concat();
    fs::write(vault.join("heir.next"), said).unwrap();
    fs::rename(vault.join("heir.next"), vault.join("heir")).unwrap();
}

/// A shell writes these bytes itself, to a socket that it was given.
fn write_by_shell(stream: &UnixStream, bytes: &[u8]) -> Child {
    let script = format!("printf '{}' >&0", octal(bytes));
    let stream = Stdio::from(OwnedFd::from(stream.try_clone().unwrap()));
    Command::new("/bin/sh").args(["-c", &script]).stdin(stream).spawn().unwrap()
}

/// As printf(1) takes any byte.
fn octal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:03o}").unwrap();
        text
    })
}

/// Control groups where systemd would have its own; removed when dropped.
struct Groups {
    root: PathBuf,
}

impl Groups {
    fn new() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let is_hybrid = own.contains("name=systemd");
        let root = if is_hybrid { "/sys/fs/cgroup/systemd" } else { "/sys/fs/cgroup" };
        Self { root: root.into() }
    }

    fn make(&self, group: &str) -> PathBuf {
        let path = self.root.join(group);
        fs::create_dir_all(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; this test needs root", path.display()));
        path
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for group in [
            "system.slice/zen-lockd-test.service/inner",
            "system.slice/zen-lockd-test.service",
            "system.slice/zen-lockd-test-2.service",
            "user.slice/zen-lockd-test.service",
            "user.slice/system.slice/zen-lockd-test.service",
            "user.slice/system.slice",
            "zen-lockd-test.service",
        ] {
            let _ = fs::remove_dir(self.root.join(group));
        }
    }
}
