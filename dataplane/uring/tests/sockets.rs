//! The reactor on real sockets, loopback TCP and unix.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use harness::{Harness, loopback, pair, pattern, take};
use zen_uring::{Backend, Completion, Limits, OpError, Reactor, SocketId};

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
