//! Connecting and accepting, and more operations and completions than the queues hold.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{fs::MetadataExt, net::UnixListener},
    thread,
    time::Duration,
};

use harness::{Harness, loopback, pair, pattern};
use zen_uring::{Backend, Completion, Limits, OpError, SocketId};

#[macro_use]
mod harness;

on_both! {
    connect_succeeds_where_somebody_listens_and_is_refused_where_nobody_does,
    a_unix_socket_is_connected_to_and_says_whose_it_is,
    a_unix_socket_that_is_not_there_or_does_not_listen_is_reported,
    a_full_queue_of_a_unix_socket_harms_nobody,
    a_connect_that_hangs_can_be_closed,
    one_multishot_accept_takes_five_hundred_connections,
    a_full_table_closes_what_it_cannot_hold_and_counts_it,
    a_stopped_listener_accepts_no_more_and_frees_its_slot,
    more_operations_than_the_queue_holds_are_all_done,
    a_flood_of_completions_beyond_the_queue_is_not_lost,
}

fn connect_succeeds_where_somebody_listens_and_is_refused_where_nobody_does(backend: Backend) {
    let mut harness = Harness::small(backend);
    let address = zen_ports::free_address();
    let listener = TcpListener::bind(address).unwrap();
    let socket = harness.reactor.connect(address).unwrap();
    harness.until("connection", |_, completion| {
        let Completion::Connected { socket: connected, result } = completion else {
            panic!("{completion:?}")
        };
        result.unwrap();
        connected == socket
    });
    assert_eq!(harness.reactor.peer(socket), Some(address));
    let (mut accepted, _) = listener.accept().unwrap();
    harness.send(socket, b"hello");
    let mut hello = [0; 5];
    accepted.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");

    drop((listener, accepted));
    let socket = harness.reactor.connect(address).unwrap();
    harness.until("refusal", |reactor, completion| {
        let Completion::Connected { socket: refused, result } = completion else { panic!("{completion:?}") };
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        reactor.close(refused);
        refused == socket
    });
    harness.drained();
}

fn a_unix_socket_is_connected_to_and_says_whose_it_is(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut harness = Harness::small(backend);
    let listener = UnixListener::bind(&path).unwrap();
    let socket = harness.reactor.connect_unix(&path).unwrap();
    harness.until("connection", |_, completion| {
        let Completion::Connected { socket: connected, result } = completion else {
            panic!("{completion:?}")
        };
        result.unwrap();
        connected == socket
    });
    assert_eq!(harness.reactor.peer(socket), None);
    let ours = folder.path().metadata().unwrap().uid();
    assert_eq!(harness.reactor.peer_uid(socket), Some(ours));
    let (mut accepted, _) = listener.accept().unwrap();
    harness.reactor.receive(socket);
    harness.send(socket, b"hello");
    let mut hello = [0; 5];
    accepted.read_exact(&mut hello).unwrap();
    accepted.write_all(&hello).unwrap();
    assert_eq!(harness.received(socket, 5), b"hello");

    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = harness.reactor.connect(tcp.local_addr().unwrap()).unwrap();
    harness.until("connection", |_, completion| matches!(completion, Completion::Connected { .. }));
    assert_eq!(harness.reactor.peer_uid(other), None);
    harness.drained();
}

fn a_unix_socket_that_is_not_there_or_does_not_listen_is_reported(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::small(backend);
    let (missing, left) = (folder.path().join("missing"), folder.path().join("left"));
    drop(UnixListener::bind(&left).unwrap());
    for (path, expected) in
        [(missing, std::io::ErrorKind::NotFound), (left, std::io::ErrorKind::ConnectionRefused)]
    {
        harness.reactor.connect_unix(&path).unwrap();
        harness.until("refusal", |reactor, completion| {
            let Completion::Connected { socket, result } = completion else { panic!("{completion:?}") };
            assert_eq!(result.unwrap_err().kind(), expected);
            reactor.close(socket);
            true
        });
    }
    let long = folder.path().join("x".repeat(108));
    assert!(matches!(harness.reactor.connect_unix(&long), Err(OpError::System { .. })));
    assert_eq!(harness.drained().sockets_open, 0);
}

fn a_full_queue_of_a_unix_socket_harms_nobody(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut harness = Harness::small(backend);
    let listener = UnixListener::bind(&path).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let sockets: Vec<_> = (0..8).map(|_| harness.reactor.connect_unix(&path).unwrap()).collect();
    let connected = harness
        .during(Duration::from_millis(50))
        .into_iter()
        .filter(|completion| matches!(completion, Completion::Connected { result, .. } if result.is_ok()));
    assert!((1..8).contains(&connected.count()));
    for socket in sockets {
        harness.reactor.close(socket);
    }
    harness.during(Duration::from_millis(50));
    let counters = harness.reactor.counters();
    assert_eq!((counters.sockets_open, counters.operations_in_flight), (0, 1), "only the waker's read");
    harness.drained();
}

fn a_connect_that_hangs_can_be_closed(backend: Backend) {
    let mut harness = Harness::small(backend);
    // A listener whose queue is full leaves the next connections hanging.
    let (inside, address) = loopback();
    let listener = TcpListener::from(inside);
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let sockets: Vec<_> = (0..8).map(|_| harness.reactor.connect(address).unwrap()).collect();
    let done = harness.during(Duration::from_millis(50)).len();
    assert!(done < sockets.len(), "{done}");
    for socket in sockets {
        harness.reactor.close(socket);
    }
    assert!(harness.during(Duration::from_millis(50)).is_empty());
    let counters = harness.reactor.counters();
    assert_eq!((counters.sockets_open, counters.operations_in_flight), (0, 1), "only the waker's read");
}

fn one_multishot_accept_takes_five_hundred_connections(backend: Backend) {
    const CONNECTIONS: usize = 500;
    let mut harness = Harness::new(&Limits::default(), backend);
    let (fd, address) = loopback();
    let listener = harness.reactor.listen(fd).unwrap();
    let client = thread::spawn(move || {
        (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>()
    });
    let mut accepted = Vec::new();
    harness.until("all connections", |_, completion| {
        let Completion::Accepted { listener: on, socket } = completion else { panic!("{completion:?}") };
        assert_eq!(on, listener);
        accepted.push(socket);
        accepted.len() == CONNECTIONS
    });
    let streams = client.join().unwrap();
    let counters = harness.reactor.counters();
    assert!(counters.submissions < 20, "multishot: {counters:?}");
    for socket in accepted {
        harness.reactor.close(socket);
    }
    harness.during(Duration::from_millis(20));
    assert_eq!(harness.drained().sockets_open, 0);
    for mut stream in streams {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}

fn a_full_table_closes_what_it_cannot_hold_and_counts_it(backend: Backend) {
    let mut harness =
        Harness::new(&Limits { sockets_max: 3, listeners_max: 1, ..Limits::default() }, backend);
    let (fd, address) = loopback();
    harness.reactor.listen(fd).unwrap();
    let error = harness.reactor.listen(loopback().0).unwrap_err();
    assert!(matches!(error, OpError::Full { what: "listeners", limit: 1 }), "{error}");

    let mut streams: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
    let accepted: Vec<_> = harness.during(Duration::from_millis(50));
    assert_eq!(accepted.len(), 3);
    assert_eq!(harness.reactor.counters().accepts_refused, 2);
    assert!(matches!(harness.reactor.connect(address), Err(OpError::Full { what: "sockets", limit: 3 })));
    for stream in &mut streams[3..] {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    let Completion::Accepted { socket, .. } = accepted[0] else { panic!("{accepted:?}") };
    harness.reactor.close(socket);
    harness.during(Duration::from_millis(5));
    let _one_more = TcpStream::connect(address).unwrap();
    assert_ne!(harness.accepted(), socket);
    harness.drained();
}

fn a_stopped_listener_accepts_no_more_and_frees_its_slot(backend: Backend) {
    let mut harness = Harness::new(&Limits { listeners_max: 1, ..Limits::default() }, backend);
    for _ in 0..3 {
        let (fd, address) = loopback();
        let listener = harness.reactor.listen(fd).unwrap();
        let _client = TcpStream::connect(address).unwrap();
        let socket = harness.accepted();
        harness.reactor.stop_listening(listener);
        harness.reactor.stop_listening(listener);
        assert!(harness.during(Duration::from_millis(20)).is_empty());
        assert!(TcpStream::connect(address).is_err());
        harness.reactor.close(socket);
    }
    harness.drained();
}

fn more_operations_than_the_queue_holds_are_all_done(backend: Backend) {
    let limits = Limits { submission_entries: 4, sockets_max: 256, ..Limits::default() };
    let mut harness = Harness::new(&limits, backend);
    let mut pairs: Vec<_> = (0..200).map(|_| pair(&mut harness)).collect();
    for (socket, _) in &pairs {
        harness.reactor.receive(*socket);
        harness.reactor.send(*socket, b"out".to_vec());
    }
    for (_, outside) in &mut pairs {
        outside.write_all(b"in").unwrap();
    }
    let (mut sent, mut received) = (0, 0);
    harness.until("all of them", |reactor, completion| {
        match completion {
            Completion::Sent { result, .. } => {
                result.unwrap();
                sent += 1;
            }
            Completion::Received { buffer, .. } => {
                received += buffer.len();
                reactor.recycle(buffer);
            }
            other => panic!("{other:?}"),
        }
        sent == 200 && received == 400
    });
    for (_, outside) in &mut pairs {
        let mut out = [0; 3];
        outside.read_exact(&mut out).unwrap();
        assert_eq!(&out, b"out");
    }
    harness.drained();
}

fn a_flood_of_completions_beyond_the_queue_is_not_lost(backend: Backend) {
    // Sixteen completions fit; each of the eight sockets has thousands of bytes for one-byte buffers.
    let limits = Limits {
        sockets_max: 8,
        submission_entries: 8,
        receive_buffers: 1 << 14,
        receive_buffer_bytes: 1,
        ..Limits::default()
    };
    let mut harness = Harness::new(&limits, backend);
    let mut received: HashMap<SocketId, Vec<u8>> = HashMap::new();
    for _ in 0..8 {
        let (socket, mut outside) = pair(&mut harness);
        outside.write_all(&pattern(1500)).unwrap();
        harness.reactor.receive(socket);
        received.insert(socket, Vec::new());
    }
    let mut ended = 0;
    harness.until("all bytes", |reactor, completion| {
        match completion {
            Completion::Received { socket, buffer } => {
                received.get_mut(&socket).unwrap().extend_from_slice(reactor.bytes(&buffer));
                reactor.recycle(buffer);
            }
            Completion::Closed { error: None, .. } => ended += 1,
            other => panic!("{other:?}"),
        }
        ended == 8
    });
    assert!(received.values().all(|bytes| *bytes == pattern(1500)));
    harness.drained();
}
