//! Accepting when the process has no descriptor left. On its own, since the limit is the process's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::File,
    net::{TcpListener, TcpStream},
    time::Duration,
};

use harness::Harness;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use zen_uring::{Backend, Completion, Io, Limits, Reactor, SetupError, bind_reuseport};

mod harness;

/// More than the test has open before it takes the rest.
const DESCRIPTORS_MAX: u64 = 64;

#[test]
fn accepting_rests_without_descriptors_and_goes_on_when_there_are_some() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX, hard).unwrap();
    // One after the other: the limit is for both.
    Backend::ALL.into_iter().for_each(accept_without_descriptors);
}

fn accept_without_descriptors(backend: Backend) {
    let mut harness = Harness::small(backend);
    let listener =
        TcpListener::from(bind_reuseport("127.0.0.1:0".parse().unwrap()).unwrap().listen(64).unwrap());
    let address = listener.local_addr().unwrap();
    let client = TcpStream::connect(address).unwrap();
    harness.reactor.listen(listener.into()).unwrap();
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }

    for refused in
        [Backend::choose(Io::Auto).unwrap_err(), Reactor::new(&Limits::default(), backend).unwrap_err()]
    {
        assert!(matches!(refused, SetupError::Descriptors { .. }), "{refused}");
    }
    let nothing = harness.during(Duration::from_millis(350));
    assert!(nothing.is_empty(), "{nothing:?}");
    let counters = harness.reactor.counters();
    assert!((2..=4).contains(&counters.accept_rests), "once each 100 ms: {counters:?}");
    assert!(counters.enters < 30, "it rests, it does not spin: {counters:?}");

    taken.truncate(taken.len() / 2);
    let socket = harness.accepted();
    assert_eq!(harness.reactor.peer(socket), client.local_addr().ok());
    drop((client, taken));
    harness.reactor.receive(socket);
    harness.until("end of the stream", |_, completion| {
        matches!(completion, Completion::Closed { error: None, .. })
    });
    harness.drained();
}
