//! A server that stands still: an open loop must show what that does to whoever came meanwhile.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{Place, text};
use crate::server::{Script, start};

const STALL: Duration = Duration::from_secs(1);
const RATE: u64 = 200;

#[test]
fn a_stall_is_in_the_percentiles_of_an_open_loop_and_not_of_a_closed_one() {
    let place = Place::new();
    let script = Script { stall: Some((STALL, STALL)), ..Script::default() };
    let half_us = STALL.as_micros() as f64 / 2.0;

    let (address, _) = start(&place, script);
    let words = format!("--rate {RATE} --arrivals uniform --seconds 4 --warm-up-seconds 0 --connections 4");
    let (open, _) = place.load(address, &words);
    open.assert_whole();
    assert_eq!((open.count("offered"), open.count("unsent")), (4 * RATE, 0));
    let open_slow = open.slower_than(half_us);
    // Half of those that were due while it stood still waited for more than half of it.
    assert!(open_slow >= RATE * 4 / 10, "{open_slow}");

    // The same server from its first request on: four requests see the stall, the others are not even sent.
    let (address, _) = start(&place, script);
    let (closed, _) = place.load(address, "--seconds 4 --warm-up-seconds 0 --connections 4");
    closed.assert_whole();
    let closed_slow = closed.slower_than(half_us);
    assert!(closed_slow * 10 <= open_slow, "{closed_slow} of {}", closed.count("sent"));
}

#[test]
fn a_server_slower_than_the_rate_is_called_that() {
    let place = Place::new();
    let script = Script { delay: Duration::from_millis(20), ..Script::default() };
    let (address, _) = start(&place, script);
    let words = "--rate 400 --arrivals poisson --seconds 2 --warm-up-seconds 0 --connections 2";
    let (load, output) = place.load(address, words);
    load.assert_whole();
    assert_eq!((load.says("server_fell_behind"), load.says("client_fell_behind")), (true, false));
    // Twenty milliseconds and two connections are a hundred a second at most, however long the queue is worked off.
    assert!(load.number("accepted_per_s") < 110.0, "{}", load.number("accepted_per_s"));
    let said = text(&output.stderr);
    assert!(said.contains("the server is slower than 400/s"), "{said}");
}

#[test]
fn a_client_that_is_held_up_says_so() {
    let place = Place::new();
    let (address, _) = start(&place, Script::default());
    // Late by the client's doing is one event for each connection; of 1,500 events the p99 is the fifteenth.
    let words = "--rate 500 --arrivals uniform --seconds 3 --warm-up-seconds 0 --connections 64";
    let mut child = place.start(address, words);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    lines.by_ref().map(|line| line.expect("text")).find(|line| line == "phase measure").expect("the phase");
    let id = Pid::from_raw(i32::try_from(child.id()).expect("an id"));
    kill(id, Signal::SIGSTOP).expect("it runs");
    std::thread::sleep(Duration::from_secs(1));
    kill(id, Signal::SIGCONT).expect("it is stopped");
    assert!(lines.map(|line| line.expect("text")).any(|line| line == "phase done"));
    let output = child.wait_with_output().expect("it ends");
    let (load, said) = (place.result(), text(&output.stderr));
    load.assert_whole();
    assert!(output.status.success(), "{said}");
    assert_eq!((load.says("client_fell_behind"), load.says("server_fell_behind")), (true, false));
    assert!(load.number("send_lag_p99_us") > 500_000.0, "{}", load.number("send_lag_p99_us"));
    assert!(said.contains("the client could not hold 500/s"), "{said}");
}
