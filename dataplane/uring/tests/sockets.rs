//! The reactor on real sockets, loopback TCP and unix.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use harness::{Harness, pattern, take};
use zen_uring::{Backend, Completion, Limits, OpError, Reactor, SocketId, bind_reuseport};

#[macro_use]
mod harness;

on_both! {
    echo_over_many_sockets_in_less_than_a_system_call_a_message,
    a_mebibyte_goes_to_a_slow_reader_whole_and_comes_back,
    an_accepted_connection_has_nodelay_and_a_peer,
    unix_sockets_are_accepted_and_have_no_address,
    a_socket_that_does_not_listen_is_refused,
    nonblocking_sockets_wait_in_the_ring_all_the_same,
    a_paused_socket_reports_nothing_until_it_receives_again,
    starvation_of_buffers_loses_nothing_and_recovers,
    idle_sockets_among_starved_ones_do_not_stall_those_with_data,
    a_dropped_receive_buffer_is_counted_and_comes_back,
    nothing_comes_out_for_a_socket_closed_with_operations_in_flight,
    the_last_words_before_a_close_are_heard,
    nothing_comes_out_for_a_detached_socket_that_was_closed_before_it_left,
    the_end_of_a_stream_is_reported_once_and_our_side_can_still_send,
    shutdown_follows_the_send_in_flight,
    a_send_to_a_peer_that_is_gone_fails_without_a_signal,
    #[should_panic(expected = "a second send")]
    a_second_send_in_flight_is_a_bug,
    a_detached_socket_keeps_its_data_on_a_second_reactor,
    connect_succeeds_where_somebody_listens_and_is_refused_where_nobody_does,
    a_connect_that_hangs_can_be_closed,
    one_multishot_accept_takes_five_hundred_connections,
    a_full_table_closes_what_it_cannot_hold_and_counts_it,
    a_stopped_listener_accepts_no_more_and_frees_its_slot,
    more_operations_than_the_queue_holds_are_all_done,
    a_flood_of_completions_beyond_the_queue_is_not_lost,
}

fn loopback() -> (OwnedFd, SocketAddr) {
    let fd = bind_reuseport("127.0.0.1:0".parse().unwrap(), 4096).unwrap();
    let listener = TcpListener::from(fd);
    let address = listener.local_addr().unwrap();
    (listener.into(), address)
}

/// A socket of the reactor and its peer, over unix.
fn pair(harness: &mut Harness) -> (SocketId, UnixStream) {
    let (inside, outside) = UnixStream::pair().unwrap();
    outside.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (harness.reactor.adopt(inside.into()).unwrap(), outside)
}

/// Sends back what arrives; keeps what may not be sent yet. Returns the sockets that ended.
fn echo(
    reactor: &mut Reactor,
    completion: Completion,
    unsent: &mut HashMap<SocketId, Option<Vec<u8>>>,
) -> usize {
    match completion {
        Completion::Accepted { socket, .. } => reactor.receive(socket),
        Completion::Received { socket, buffer } => {
            let bytes = reactor.bytes(&buffer).to_vec();
            reactor.recycle(buffer);
            if let Some(waiting) = unsent.get_mut(&socket) {
                waiting.get_or_insert_default().extend_from_slice(&bytes);
            } else {
                unsent.insert(socket, None);
                reactor.send(socket, bytes);
            }
        }
        Completion::Sent { socket, result, .. } => {
            result.unwrap();
            if let Some(bytes) = unsent.remove(&socket).flatten() {
                unsent.insert(socket, None);
                reactor.send(socket, bytes);
            }
        }
        Completion::Closed { socket, error } => {
            assert!(error.is_none(), "{error:?}");
            reactor.close(socket);
            return 1;
        }
        other => panic!("{other:?}"),
    }
    0
}

fn echo_over_many_sockets_in_less_than_a_system_call_a_message(backend: Backend) {
    const SOCKETS: usize = 64;
    const ROUNDS: usize = 20;
    let mut harness = Harness::new(&Limits::default(), backend);
    let (fd, address) = loopback();
    harness.reactor.listen(fd).unwrap();
    let client = thread::spawn(move || {
        let mut streams: Vec<_> = (0..SOCKETS).map(|_| TcpStream::connect(address).unwrap()).collect();
        for round in 0..ROUNDS {
            let message = pattern(1000 + round);
            for stream in &mut streams {
                stream.write_all(&message).unwrap();
            }
            for stream in &mut streams {
                let mut answer = vec![0; message.len()];
                stream.read_exact(&mut answer).unwrap();
                assert_eq!(answer, message);
            }
        }
    });
    let (mut ended, mut unsent) = (0, HashMap::new());
    harness.until("end of all sockets", |reactor, completion| {
        ended += echo(reactor, completion, &mut unsent);
        ended == SOCKETS
    });
    client.join().unwrap();
    let counters = harness.drained();
    assert_eq!(counters.sockets_open, 0);
    assert!(counters.completions >= (2 * SOCKETS * ROUNDS) as u64, "{counters:?}");
    assert!(counters.enters < counters.completions, "{counters:?}");
}

fn a_mebibyte_goes_to_a_slow_reader_whole_and_comes_back(backend: Backend) {
    let mut harness = Harness::small(backend);
    let (fd, address) = loopback();
    harness.reactor.listen(fd).unwrap();
    let bytes = pattern(1 << 20);
    let expected = bytes.clone();
    let reader = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let (mut got, mut piece) = (Vec::new(), [0; 16384]);
        while got.len() < expected.len() {
            let len = stream.read(&mut piece).unwrap();
            got.extend_from_slice(&piece[..len]);
            thread::sleep(Duration::from_micros(200));
        }
        assert!(got == expected);
        stream.write_all(&got).unwrap();
    });
    let socket = harness.accepted();
    harness.send(socket, &bytes);
    assert!(harness.received(socket, bytes.len()) == bytes);
    reader.join().unwrap();
    harness.drained();
}

fn an_accepted_connection_has_nodelay_and_a_peer(backend: Backend) {
    let mut harness = Harness::small(backend);
    let (fd, address) = loopback();
    harness.reactor.listen(fd).unwrap();
    let client = TcpStream::connect(address).unwrap();
    let socket = harness.accepted();
    assert_eq!(harness.reactor.peer(socket), Some(client.local_addr().unwrap()));
    harness.reactor.detach(socket);
    harness.until("detached socket", |_, completion| {
        let Completion::Detached { fd, .. } = completion else { panic!("{completion:?}") };
        assert!(TcpStream::from(fd).nodelay().unwrap());
        true
    });
    assert_eq!(harness.reactor.peer(socket), None);
    harness.drained();
}

fn unix_sockets_are_accepted_and_have_no_address(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut harness = Harness::small(backend);
    harness.reactor.listen(UnixListener::bind(&path).unwrap().into()).unwrap();
    let mut client = UnixStream::connect(&path).unwrap();
    let socket = harness.accepted();
    assert_eq!(harness.reactor.peer(socket), None);
    client.write_all(b"over a path").unwrap();
    assert_eq!(harness.received(socket, 11), b"over a path");
    harness.drained();
}

fn a_socket_that_does_not_listen_is_refused(backend: Backend) {
    let mut harness = Harness::small(backend);
    let (inside, _outside) = UnixStream::pair().unwrap();
    let error = harness.reactor.listen(inside.into()).unwrap_err();
    assert!(matches!(error, OpError::NotListening), "{error}");
}

fn nonblocking_sockets_wait_in_the_ring_all_the_same(backend: Backend) {
    let mut harness = Harness::small(backend);
    let (inside, mut outside) = UnixStream::pair().unwrap();
    inside.set_nonblocking(true).unwrap();
    let socket = harness.reactor.adopt(inside.into()).unwrap();
    harness.reactor.receive(socket);
    assert!(harness.during(Duration::from_millis(50)).is_empty());
    outside.write_all(b"late").unwrap();
    assert_eq!(harness.received(socket, 4), b"late");
    harness.drained();
}

fn a_paused_socket_reports_nothing_until_it_receives_again(backend: Backend) {
    let mut harness = Harness::small(backend);
    let (socket, mut outside) = pair(&mut harness);
    outside.write_all(b"before").unwrap();
    assert_eq!(harness.received(socket, 6), b"before");
    harness.reactor.pause(socket);
    harness.reactor.pause(socket);
    assert!(harness.during(Duration::from_millis(20)).is_empty());
    outside.write_all(b"meanwhile").unwrap();
    assert!(harness.during(Duration::from_millis(100)).is_empty());
    assert_eq!(harness.received(socket, 9), b"meanwhile");
    // Paused and wanted again before the kernel heard of either.
    harness.reactor.pause(socket);
    harness.reactor.receive(socket);
    outside.write_all(b"after").unwrap();
    assert_eq!(harness.received(socket, 5), b"after");
    harness.drained();
}

fn starvation_of_buffers_loses_nothing_and_recovers(backend: Backend) {
    const SOCKETS: usize = 8;
    const BYTES: usize = 100_000;
    let limits =
        Limits { receive_buffers: 4, receive_buffer_bytes: 512, sockets_max: 16, ..Limits::default() };
    let mut harness = Harness::new(&limits, backend);
    let mut received: HashMap<SocketId, Vec<u8>> = HashMap::new();
    let writers: Vec<_> = (0..SOCKETS)
        .map(|_| {
            let (socket, mut outside) = pair(&mut harness);
            received.insert(socket, Vec::new());
            harness.reactor.receive(socket);
            thread::spawn(move || outside.write_all(&pattern(BYTES)).unwrap())
        })
        .collect();
    let (mut ended, mut held) = (0, Vec::new());
    harness.until("end of all streams", |reactor, completion| {
        match completion {
            Completion::Received { socket, buffer } => {
                received.get_mut(&socket).unwrap().extend_from_slice(reactor.bytes(&buffer));
                held.push(buffer);
            }
            Completion::Closed { socket, error } => {
                assert!(error.is_none());
                reactor.close(socket);
                ended += 1;
            }
            other => panic!("{other:?}"),
        }
        // All four are held at times, so that the kernel has none.
        if held.len() == 4 || ended + 1 >= SOCKETS {
            held.drain(..).for_each(|buffer| reactor.recycle(buffer));
        }
        ended == SOCKETS
    });
    for writer in writers {
        writer.join().unwrap();
    }
    assert!(received.values().all(|bytes| *bytes == pattern(BYTES)));
    assert!(harness.drained().buffer_shortages > 0);
}

fn idle_sockets_among_starved_ones_do_not_stall_those_with_data(backend: Backend) {
    let limits =
        Limits { receive_buffers: 2, receive_buffer_bytes: 64, sockets_max: 64, ..Limits::default() };
    let mut harness = Harness::new(&limits, backend);
    let (busy, mut writer) = pair(&mut harness);
    writer.write_all(&[1; 128]).unwrap();
    harness.reactor.receive(busy);
    let mut held = Vec::new();
    harness.until("both buffers", |_, completion| {
        let Completion::Received { buffer, .. } = completion else { panic!("{completion:?}") };
        held.push(buffer);
        held.len() == 2
    });
    let mut pairs: Vec<_> = (0..32).map(|_| pair(&mut harness)).collect();
    for (socket, _) in &pairs {
        harness.reactor.receive(*socket);
    }
    assert!(harness.during(Duration::from_millis(20)).is_empty());
    assert!(harness.reactor.counters().buffer_shortages >= 32);
    let (last, outside) = pairs.last_mut().unwrap();
    outside.write_all(b"waiting").unwrap();
    held.drain(..).for_each(|buffer| harness.reactor.recycle(buffer));
    let mut bytes = Vec::new();
    let (last, start) = (*last, Instant::now());
    harness.until("bytes of the last in the line", |reactor, completion| {
        take(reactor, completion, last, &mut bytes);
        bytes == b"waiting"
    });
    // Sixteen rounds of two buffers, none of which may wait for something to happen.
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    harness.drained();
}

fn a_dropped_receive_buffer_is_counted_and_comes_back(backend: Backend) {
    let limits = Limits { receive_buffers: 1, ..Limits::default() };
    let mut harness = Harness::new(&limits, backend);
    let (socket, mut outside) = pair(&mut harness);
    harness.reactor.receive(socket);
    for round in 1..=5 {
        outside.write_all(b"x").unwrap();
        harness.until("a byte", |_, completion| matches!(completion, Completion::Received { .. }));
        assert_eq!(harness.reactor.counters().receive_buffers_dropped, round);
    }
}

fn nothing_comes_out_for_a_socket_closed_with_operations_in_flight(backend: Backend) {
    let mut harness = Harness::small(backend);
    let mut stale = Vec::new();
    for round in 0..50_u32 {
        let (socket, mut outside) = pair(&mut harness);
        assert!(!stale.contains(&socket));
        harness.reactor.receive(socket);
        // More than the socket's buffer, so that the send is in flight when the socket closes.
        harness.reactor.send(socket, vec![7; 4 << 20]);
        if round % 2 == 0 {
            harness.during(Duration::from_millis(1));
        }
        outside.write_all(b"unread").unwrap();
        harness.reactor.close(socket);
        harness.reactor.close(socket);
        harness.reactor.send(socket, vec![1]);
        harness.reactor.receive(socket);
        harness.reactor.shutdown_write(socket);
        harness.reactor.detach(socket);
        let late = harness.until_open(0);
        assert!(late.is_empty(), "{late:?}");
        let mut rest = Vec::new();
        // The peer's end: a reset, since bytes were left unread, or the end of the stream.
        let _ = outside.read_to_end(&mut rest);
        assert!(rest.iter().all(|&byte| byte == 7));
        stale.push(socket);
    }
    let counters = harness.drained();
    assert_eq!((counters.sockets_open, counters.buffer_shortages), (0, 0));
}

fn the_last_words_before_a_close_are_heard(backend: Backend) {
    let mut harness = Harness::small(backend);
    let (socket, mut outside) = pair(&mut harness);
    harness.reactor.receive(socket);
    harness.during(Duration::from_millis(1));
    harness.reactor.send(socket, b"goodbye".to_vec());
    harness.reactor.close(socket);
    assert!(harness.until_open(0).is_empty());
    let mut words = Vec::new();
    outside.read_to_end(&mut words).unwrap();
    assert_eq!(words, b"goodbye");
    assert_eq!(harness.drained().sockets_open, 0);
}

fn nothing_comes_out_for_a_detached_socket_that_was_closed_before_it_left(backend: Backend) {
    let mut harness = Harness::small(backend);
    for receiving in [false, true] {
        let (socket, mut outside) = pair(&mut harness);
        if receiving {
            harness.reactor.receive(socket);
            harness.during(Duration::from_millis(1));
        }
        harness.reactor.detach(socket);
        harness.reactor.close(socket);
        let late = harness.during(Duration::from_millis(5));
        assert!(late.is_empty(), "{late:?}");
        assert_eq!(outside.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(harness.drained().sockets_open, 0);
}

fn the_end_of_a_stream_is_reported_once_and_our_side_can_still_send(backend: Backend) {
    let mut harness = Harness::small(backend);
    let (socket, mut outside) = pair(&mut harness);
    outside.write_all(b"last words").unwrap();
    outside.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(harness.received(socket, 10), b"last words");
    let ended = |completion: &Completion| matches!(completion, Completion::Closed { error: None, .. });
    harness.until("end of the stream", |_, completion| ended(&completion));
    harness.reactor.receive(socket);
    assert!(harness.during(Duration::from_millis(20)).is_empty());
    harness.send(socket, b"answer");
    let mut answer = [0; 6];
    outside.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    harness.drained();
}

fn shutdown_follows_the_send_in_flight(backend: Backend) {
    let mut harness = Harness::small(backend);
    let (socket, mut outside) = pair(&mut harness);
    outside.set_read_timeout(Some(harness::PATIENCE)).unwrap();
    let bytes = pattern(3 << 20);
    harness.reactor.send(socket, bytes.clone());
    harness.reactor.shutdown_write(socket);
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        outside.read_to_end(&mut all).map(|_| all)
    });
    harness.until("sent", |_, completion| matches!(completion, Completion::Sent { result: Ok(()), .. }));
    harness.during(Duration::from_millis(20));
    assert!(reader.join().unwrap().unwrap() == bytes);
    harness.drained();
}

fn a_send_to_a_peer_that_is_gone_fails_without_a_signal(backend: Backend) {
    let mut harness = Harness::small(backend);
    let (socket, outside) = pair(&mut harness);
    drop(outside);
    harness.reactor.send(socket, vec![1; 100]);
    harness.until("failed send", |_, completion| {
        let Completion::Sent { buffer, result, .. } = completion else { panic!("{completion:?}") };
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        buffer.is_empty()
    });
    harness.drained();
}

fn a_second_send_in_flight_is_a_bug(backend: Backend) {
    let mut harness = Harness::small(backend);
    let (socket, _outside) = pair(&mut harness);
    harness.reactor.send(socket, vec![1]);
    harness.reactor.send(socket, vec![2]);
}

fn a_detached_socket_keeps_its_data_on_a_second_reactor(backend: Backend) {
    let mut harness = Harness::small(backend);
    let (fd, address) = loopback();
    harness.reactor.listen(fd).unwrap();
    let bytes = pattern(400_000);
    let expected = bytes.clone();
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&bytes).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"done");
    });
    let socket = harness.accepted();
    harness.reactor.receive(socket);
    let (mut first, mut moved, mut detaching) = (Vec::new(), None, false);
    harness.until("detached socket", |reactor, completion| {
        if let Completion::Detached { socket: from, fd } = completion {
            assert_eq!(from, socket);
            moved = Some(fd);
            return true;
        }
        take(reactor, completion, socket, &mut first);
        if !detaching {
            detaching = true;
            reactor.detach(socket);
        }
        false
    });
    let moved = moved.unwrap();
    let (to_second, for_second) = mpsc::channel::<(OwnedFd, Vec<u8>)>();
    let second = thread::spawn(move || {
        let (fd, mut all) = for_second.recv().unwrap();
        let mut harness = Harness::small(backend);
        let socket = harness.reactor.adopt(fd).unwrap();
        if all.len() < expected.len() {
            all.extend(harness.received(socket, expected.len() - all.len()));
        }
        assert!(all == expected);
        harness.send(socket, b"done");
        harness.drained();
    });
    to_second.send((moved, first)).unwrap();
    second.join().unwrap();
    client.join().unwrap();
    assert_eq!(harness.drained().sockets_open, 0);
}

fn connect_succeeds_where_somebody_listens_and_is_refused_where_nobody_does(backend: Backend) {
    let mut harness = Harness::small(backend);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
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
