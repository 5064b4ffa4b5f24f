//! What cannot be done is refused, with words that say what to do.

use std::fs;

use crate::command::{Place, text};
use crate::server::{Script, start};

#[test]
fn what_cannot_be_done_is_said() {
    let (place, other) = (Place::new(), Place::new());
    let (address, _) = start(&place, Script::default());
    fs::write(place.file("none.json"), "[]").expect("a file");
    fs::write(place.file("broken.json"), "[{").expect("a file");
    let file = |name: &str| place.file(name).display().to_string();
    let foreign = other.file("public_ca.pem").display().to_string();
    for (words, expected) in [
        (format!("--ca {foreign}"), "name the CA of the server's certificate with --ca"),
        (format!("--ca {}", file("missing.pem")), "missing.pem"),
        (format!("--ca {}", file("endpoints.json")), "endpoints.json: has no certificate"),
        (format!("--endpoints {}", file("missing.json")), "missing.json: No such file"),
        (format!("--endpoints {}", file("none.json")), "has no endpoint"),
        (format!("--endpoints {}", file("broken.json")), "broken.json: EOF"),
        ("--only nobody".to_owned(), "nobody is no endpoint of"),
        ("--rate 0".to_owned(), "--rate: must be above 0"),
        ("--rate nan".to_owned(), "--rate: must be above 0"),
        ("--rate 10 --arrivals burst:0".to_owned(), "must be poisson, uniform or burst:N"),
        ("--arrivals uniform".to_owned(), "--rate <RATE>"),
        ("--duplicates 60 --junk 50".to_owned(), "together at most 100"),
        ("--size 10".to_owned(), "--size: must be from 66"),
        ("--size 1024 --mix github".to_owned(), "cannot be used with"),
        ("--connections 0".to_owned(), "0 is not in 1..="),
        ("--core 4096".to_owned(), "--core"),
        (format!("--record {}", file("missing/record")), "missing/record: No such file"),
    ] {
        // What is named twice counts the second time, so defaults come first.
        let mut command = std::process::Command::new(crate::command::PERF);
        command.args([
            "load",
            "--address",
            &address.to_string(),
            "--seconds",
            "0.1",
            "--warm-up-seconds",
            "0",
        ]);
        if !words.contains("--ca ") {
            command.arg("--ca").arg(place.file("public_ca.pem"));
        }
        if !words.contains("--endpoints ") {
            command.arg("--endpoints").arg(place.file("endpoints.json"));
        }
        let output = command.args(words.split(' ')).output().expect("it runs");
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{words}: {}", text(&output.stdout));
        assert!(said.contains(expected), "{words}: {said}");
        assert!(!said.contains("panicked"), "{words}: {said}");
    }
}

#[test]
fn a_port_where_nobody_listens_is_named() {
    let place = Place::new();
    let address = zen_ports::free_address();
    for words in ["--seconds 1", "--seconds 1 --new-connections", "--seconds 1 --rate 10 --io epoll"] {
        let output = place.command(address, words).output().expect("it runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("no connection to {address}: ")), "{said}");
        assert!(said.contains("refused") && said.contains("whether the server runs"), "{said}");
    }
}

/// TLS, and then never an answer.
#[test]
fn requests_that_all_fail_are_an_error() {
    let place = Place::new();
    let delay = std::time::Duration::from_hours(1);
    let (address, _) = start(&place, Script { delay, ..Script::default() });
    let mut child = place.start(address, "--seconds 0.2 --warm-up-seconds 0 --connections 2");
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("an id"));
    let out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = std::io::BufRead::lines(out).map(|line| line.expect("text"));
    // What is on the way is waited for, until somebody who does not want to wait says so.
    lines.find(|line| line == "phase drain").expect("the phase");
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).expect("it runs");
    let rest: Vec<String> = lines.collect();
    let output = child.wait_with_output().expect("it ends");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said} {rest:?}");
    assert!(said.contains("each of 2 requests to") && said.contains("failed"), "{said}");
}

#[test]
fn a_program_that_is_not_installed_is_named_with_what_to_install() {
    for (option, package) in [("--wrk", "apt-get install wrk"), ("--nginx", "apt-get install nginx")] {
        let mut command = std::process::Command::new(crate::command::PERF);
        // The other one is found, whether or not it is there.
        let other = if option == "--wrk" { "--nginx" } else { "--wrk" };
        let output = command.args(["load-check", other, "true", option, "/nowhere/at-all"]).output();
        let output = output.expect("it runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("/nowhere/at-all") && (said.contains(package) || said.contains("one core")),
            "{said}"
        );
    }
}
