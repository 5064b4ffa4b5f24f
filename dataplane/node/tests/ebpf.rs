//! Programs in the kernel under real nodes: guard, fence, steer and observe on a path that delivers.
//!
//! These tests need root and a kernel with BPF; they fail where that is missing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use mesh::{Mesh, target};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use support::node::{get_unix, run, wait_until};
use support::{Lab, change};
use target::Answer;

#[path = "support/mesh.rs"]
mod mesh;
mod support;
#[path = "support/target.rs"]
mod target;

const ALL: &str = "[ebpf.guard]\nmode = \"enforce\"\nsyn_per_second = 1000\npackets_per_second = 100000\n\
    [ebpf.fence]\nmode = \"enforce\"\n[ebpf.steer]\n[ebpf.observe]\n";

/// A mesh with one target, whose nodes have these sections.
fn mesh(edge: &str, inside: &str) -> (Mesh, target::Target) {
    let lab = Lab::new();
    let target = target(&lab, "demo", |_, _| Answer::status(200));
    let section = lab.target_text("demo", target.address, "");
    let with = |text: &str, sections: &str| {
        format!("{}{sections}", change(text, "pin_workers = false", "pin_workers = true"))
    };
    let mesh = Mesh::start_with(lab, &section, |text| with(text, edge), |text| with(text, inside));
    (mesh, target)
}

/// Whether a connection from this address of the machine gets an answer.
fn is_answered(from: &str, to: SocketAddr) -> bool {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let from = SocketAddr::new(from.parse::<IpAddr>().unwrap(), 0);
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("IPv4 addresses") };
    bind(fd.as_raw_fd(), &SockaddrIn::from(from)).unwrap();
    let stream = TcpStream::from(fd);
    // The kernel takes this for the time that a connect may take.
    stream.set_write_timeout(Some(std::time::Duration::from_millis(300))).unwrap();
    match connect(stream.as_raw_fd(), &SockaddrIn::from(to)) {
        Ok(()) => true,
        Err(nix::errno::Errno::EINPROGRESS) => false,
        Err(error) => panic!("{error}"),
    }
}

/// What `bpftool` says, as root.
fn bpftool(arguments: &[&str]) -> String {
    let output = Command::new("bpftool").args(arguments).output().expect("install bpftool");
    String::from_utf8(output.stdout).unwrap()
}

/// The directory of a node's own cgroup.
fn cgroup_of(node: &support::node::Node) -> String {
    let memberships = fs::read_to_string(format!("/proc/{}/cgroup", node.id())).unwrap();
    let own = memberships.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" cgroup2 ")).unwrap();
    format!("{}{own}", mount.split(' ').nth(1).unwrap())
}

fn cli(mesh: &Mesh, node: &str, command: &[&str]) -> String {
    let socket = mesh.lab.path(&format!("{node}.sock"));
    let output = run(&[command, &["--socket", socket.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn all_four_stand_beside_a_path_that_delivers_and_go_with_their_process() {
    let (mut mesh, target) = mesh(ALL, ALL);
    let sent = mesh.send_many(50, 1000);
    wait_until("all are delivered", || mesh::delivered(&target.deliveries()).len() == sent.len());
    for node in ["edge", "inside"] {
        let status = cli(&mesh, node, &["ebpf", "status"]);
        for program in ["guard    enforce", "fence    enforce", "observe  on"] {
            assert!(status.contains(program), "{program} in:\n{status}");
        }
        // The egress dials, so it has no listeners.
        assert_eq!(status.contains("steer    on"), node == "edge", "{status}");
        assert!(!status.contains("missing"), "{status}");
    }
    assert!(mesh.edge.metric("zen_guard_packets_total") > 50.0);
    assert!(mesh.edge.metric("zen_steer_connections_total") >= 1.0);
    assert!(
        mesh.inside.metric("zen_fence_connections_total{verdict=\"passed\",reason=\"\"}") >= 2.0,
        "link and target"
    );
    let opened = |node: &support::node::Node, place: String| {
        node.metric(&format!("zen_tcp_connections_total{{place=\"{place}\",event=\"opened\"}}"))
    };
    assert!(opened(&mesh.edge, format!("listener:{}", mesh.edge_ports.listen.port())) >= 1.0);
    assert!(opened(&mesh.inside, format!("{}", target.address)) >= 1.0);
    let bytes = format!("zen_tcp_bytes_total{{place=\"{}\",direction=\"sent\"}}", target.address);
    wait_until("bytes are counted", || mesh.inside.metric(&bytes) > 50_000.0);

    let (cgroup, programs) = (cgroup_of(&mesh.edge), bpftool(&["prog", "show"]));
    assert!(cgroup.ends_with(&format!("zen-dataplane-{}", mesh.edge.id())), "{cgroup}");
    for name in ["zen_guard", "zen_connect4", "zen_sendmsg6", "zen_steer", "zen_observe"] {
        assert!(programs.contains(&format!("name {name}")), "{name} in:\n{programs}");
    }
    let id = fs::metadata(&cgroup).unwrap().ino();
    let links = || bpftool(&["link", "show"]).matches(&format!("cgroup_id {id} ")).count();
    assert_eq!(links(), 6, "guard, four of the fence, observe");
    mesh.edge.kill();
    wait_until("the kernel has let go of it", || links() == 0);
}

#[test]
fn guard_goes_from_observing_to_enforcing_by_a_reload() {
    let rules = |mode: &str, deny: &str| {
        format!("[ebpf.guard]\nmode = \"{mode}\"\nallow = []\ndeny = [\"{deny}\"]\n")
    };
    let (mesh, _target) = mesh(&rules("observe", "127.0.0.66"), "");
    let listen = mesh.edge_ports.listen;
    let reload = |text: &str, said: &str| {
        mesh.lab.write("edge.toml", &change(&mesh.edge_text, &rules("observe", "127.0.0.66"), text));
        mesh.edge.signal(Signal::SIGHUP);
        wait_until(said, || mesh.edge.get("/status").1.contains(said));
    };
    assert!(is_answered("127.0.0.66", listen));
    let observed = format!(
        "zen_guard_packets_total{{port=\"{}\",verdict=\"observed\",reason=\"denied\"}}",
        listen.port()
    );
    assert!(mesh.edge.metric(&observed) >= 1.0);

    reload(&rules("enforce", "127.0.0.66"), "generation 2 in force");
    assert!(!is_answered("127.0.0.66", listen));
    assert!(is_answered("127.0.0.67", listen));
    assert!(is_answered("127.0.0.66", mesh.edge_ports.admin), "no listener of the guard");
    mesh.send(b"{}");

    let both = rules("enforce", "127.0.0.64/26").replace("allow = []", "allow = [\"127.0.0.66\"]");
    for (bad, said) in [
        (both.as_str(), "both allowed and denied"),
        ("[ebpf.guard]\ndeny = [\"127.0.0\"]\n", "ebpf.guard.deny"),
        ("[ebpf.guard]\nsources_max = 2048\n", "ebpf needs a restart"),
        ("[ebpf.guard]\nsource_bits_v4 = 8\n", "ebpf.guard.source_bits_v4"),
        ("", "ebpf needs a restart"),
    ] {
        reload(bad, said);
        assert!(!is_answered("127.0.0.66", listen), "the old rules stay: {said}");
    }
    reload(&rules("enforce", "127.0.0.80/28"), "generation 3 in force");
    assert!(is_answered("127.0.0.66", listen));
    assert!(!is_answered("127.0.0.95", listen));
}

#[test]
fn refusals_are_told_as_they_happen() {
    let (mesh, _target) = mesh("[ebpf.guard]\nmode = \"enforce\"\ndeny = [\"127.0.0.66\"]\n", "");
    assert!(!is_answered("127.0.0.66", mesh.edge_ports.listen));
    let socket = mesh.lab.path("edge.sock");
    let drops = || get_unix(&socket, "/drops?after=0").unwrap().1;
    wait_until("it is told", || drops().contains("\"address\":\"127.0.0.66\""));
    let mut following = Command::new(env!("CARGO_BIN_EXE_zen-dataplane"))
        .args(["events", "--follow", "--socket", socket.to_str().unwrap()])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = io::BufRead::lines(io::BufReader::new(following.stdout.take().unwrap()));
    let line = lines.next().unwrap().unwrap();
    following.kill().unwrap();
    following.wait().unwrap();
    let expected = format!("refused  denied  from 127.0.0.66, port {}", mesh.edge_ports.listen.port());
    assert!(line.contains("guard  ") && line.contains(&expected), "{line}");
    assert_eq!(get_unix(&socket, "/drops?before=0").unwrap().0, 400);
}

/// The same rules hold in user space, so what a node dials is refused there first; here only the kernel stands in its way.
#[test]
fn fence_lets_a_node_reach_what_it_is_configured_for_and_no_more() {
    let (mesh, target) = mesh("", "[ebpf.fence]\nmode = \"enforce\"\nrequired = true\n");
    mesh.send_many(10, 100);
    wait_until("all are delivered", || target.deliveries().len() >= 10);
    for reason in ["not_listed", "loopback"] {
        let series = format!("zen_fence_connections_total{{verdict=\"refused\",reason=\"{reason}\"}}");
        assert!(mesh.inside.metric(&series) < 1.0, "{reason}");
    }
    // A process that is put beside it is fenced in as well.
    let cgroup = cgroup_of(&mesh.inside);
    let reach = |address: SocketAddr| {
        let (host, port) = (address.ip(), address.port());
        let script = format!("echo $$ > {cgroup}/cgroup.procs && exec 3<>/dev/tcp/{host}/{port}");
        Command::new("bash").args(["-c", &script]).output().unwrap()
    };
    assert!(reach(target.address).status.success(), "{:?}", reach(target.address));
    for elsewhere in [mesh.edge_ports.admin, mesh.edge_ports.listen, "127.0.0.2:443".parse().unwrap()] {
        let refused = reach(elsewhere);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("Operation not permitted"), "{elsewhere}: {said}");
    }
    assert!(
        mesh.inside.metric("zen_fence_connections_total{verdict=\"refused\",reason=\"not_listed\"}") >= 3.0
    );
}

#[test]
fn without_privileges_a_node_says_what_is_missing_and_goes_on_unless_it_is_required() {
    let (lab, ports) = (Lab::new(), support::Ports::pick());
    let text = change(&lab.ingester_text(ports), "pin_workers = false", "pin_workers = true");
    let without = "exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all \"$@\"";
    let start = |sections: &str| {
        let config = lab.write("edge.toml", &format!("{text}{sections}"));
        support::node::Node::spawn_behind(without, &config, ports.admin)
    };
    let mut node = start(ALL);
    node.wait_ready();
    for feature in ["guard", "fence", "steer", "observe"] {
        node.wait_log(&format!("feature=\"{feature}\""));
    }
    assert!(node.log().contains("run as root") && node.log().contains("CAP_BPF"), "{}", node.log());
    assert!(node.metric("zen_ebpf_missing") >= 4.0);
    let status = get_unix(&lab.path("edge.sock"), "/ebpf").unwrap().1;
    assert!(status.contains("\"state\":\"missing\"") && status.contains("CAP_BPF"), "{status}");
    assert!(node.terminate().success());
    for (section, remedy) in
        [("guard", "run as root"), ("fence", "run as root"), ("steer", "CAP_BPF"), ("observe", "run as root")]
    {
        let mut node = start(&format!("[ebpf.{section}]\nrequired = true\n"));
        assert!(!node.wait().success(), "{section}");
        assert!(node.log().contains("ebpf: ") && node.log().contains(remedy), "{}", node.log());
    }
}

/// As in a container: alone in a cgroup, in a cgroup namespace with its own mount.
#[test]
fn a_node_alone_in_its_cgroup_stays_there() {
    let (lab, ports) = (Lab::new(), support::Ports::pick());
    let mount = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mount.lines().find(|line| line.contains(" cgroup2 ")).unwrap().split(' ').nth(1).unwrap();
    let own = format!("{mount}/zen-box-{}", std::process::id());
    let inside = "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
    let script = format!(
        "mkdir -p {own} && echo $$ > {own}/cgroup.procs && exec unshare --cgroup --mount sh -ec '{inside}' sh \"$@\""
    );
    let sections =
        "[ebpf.guard]\nrequired = true\n[ebpf.fence]\nrequired = true\n[ebpf.observe]\nrequired = true\n";
    let config = lab.write("edge.toml", &format!("{}{sections}", lab.ingester_text(ports)));
    let mut node = support::node::Node::spawn_behind(&script, &config, ports.admin);
    node.wait_ready();
    let status = get_unix(&lab.path("edge.sock"), "/ebpf").unwrap().1;
    assert!(status.contains("\"place\":\"cgroup /sys/fs/cgroup/\""), "{status}");
    let memberships = fs::read_to_string(format!("/proc/{}/cgroup", node.id())).unwrap();
    assert!(memberships.contains("0::/zen-box-"), "{memberships}");
    assert!(node.terminate().success());
    fs::remove_dir(own).unwrap();
}

#[test]
fn an_interface_that_is_gone_is_said_before_anything_listens() {
    let (lab, ports) = (Lab::new(), support::Ports::pick());
    let section = "[ebpf.guard]\nmode = \"enforce\"\ninterfaces = [\"zen-gone\"]\nrequired = true\n";
    let config = lab.write("edge.toml", &format!("{}{section}", lab.ingester_text(ports)));
    let mut node = support::node::Node::spawn(&config, ports.admin);
    assert!(!node.wait().success());
    assert!(node.log().contains("zen-gone: there is no such network interface"), "{}", node.log());
    assert!(TcpStream::connect(ports.listen).is_err());
}
