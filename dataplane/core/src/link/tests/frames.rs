//! Frames and hellos: bounds, versions, and what is malformed.

use std::format;
use std::string::{String, ToString};
use std::vec::Vec;

use super::super::frame::{begin_frame, end_frame, write_ping};
use super::super::fuzz::{receiver_config, sender_config};
use super::super::*;
use super::{NOW, receiver_hello, sender_hello};
use crate::envelope::tests::TestMac;

fn first_frame(stream: &[u8]) -> Result<String, LinkError> {
    let mut reader = FrameReader::new();
    assert_eq!(reader.handle_bytes(stream), stream.len());
    let result = reader.poll_frame().map(|frame| format!("{:?}", frame.unwrap()));
    if let Err(error) = &result {
        assert_eq!(reader.poll_frame(), Err(error.clone()), "errors are final");
    }
    result
}

#[test]
fn an_unknown_version_is_refused_with_both_ranges() {
    let mut stream = Vec::new();
    sender_hello(2, 7).write(&mut stream);
    let error = first_frame(&stream).unwrap_err();
    assert_eq!(error, LinkError::Version { min: 2, max: 7 });
    let mut out = Vec::new();
    error.write_refuse(&mut out);
    let text = "the peer speaks link versions 2 to 7, this node 1 to 1".to_string();
    let (frame, size) = parse_frame(&out, FIRST_FRAME_BYTES_MAX).unwrap().unwrap();
    assert_eq!((frame, size), (Frame::Refuse(Refuse { code: RefuseCode::Version, text }), out.len()));

    let mut sender = Sender::dial(sender_config(&TestMac), NOW, &mut Vec::new());
    let (frame, _) = parse_frame(&out, FIRST_FRAME_BYTES_MAX).unwrap().unwrap();
    let error = sender.handle_frame(frame, NOW, &mut Vec::new()).unwrap_err();
    assert!(matches!(&error, LinkError::Refused(refuse) if refuse.code == RefuseCode::Version));
    assert_eq!(error.refuse_code(), None);
}

#[test]
fn a_newer_peer_may_say_more_than_version_1() {
    let mut stream = Vec::new();
    sender_hello(1, 2).write(&mut stream);
    stream.extend_from_slice(b"more");
    let length = stream.len() as u32 - 4;
    stream[..4].copy_from_slice(&length.to_le_bytes());
    assert!(first_frame(&stream).is_ok());
    stream[11] = 1;
    assert_eq!(stream[9..13], [1, 0, 1, 0]);
    assert_eq!(first_frame(&stream), Err(LinkError::Malformed(FrameType::Hello)));
}

#[test]
fn malformed_hellos_are_refused() {
    let mut good = Vec::new();
    sender_hello(1, 1).write(&mut good);
    let malformed = LinkError::Malformed(FrameType::Hello);
    for (at, byte, error) in [
        (5, b'X', LinkError::Magic),
        (9, 0, malformed.clone()),
        (9, 2, malformed.clone()),
        (13, 3, malformed.clone()),
        (13, 2, malformed.clone()),
        (14, 2, malformed.clone()),
        (34, 0, malformed.clone()),
        (35, b'/', malformed.clone()),
    ] {
        let mut bad = good.clone();
        bad[at] = byte;
        assert_eq!(first_frame(&bad), Err(error), "{at}");
    }
    for end in 5..good.len() {
        let mut bad = good[..end].to_vec();
        bad[..4].copy_from_slice(&(end as u32 - 4).to_le_bytes());
        assert!(first_frame(&bad).is_err(), "{end}");
    }
}

#[test]
fn only_the_expected_peer_is_accepted() {
    let accept =
        |hello: &Hello| Receiver::accept(receiver_config(&TestMac, 0), hello, NOW, &mut Vec::new()).err();
    let good = sender_hello(1, 1);
    assert_eq!(accept(&good), None);
    assert_eq!(accept(&receiver_hello()), Some(LinkError::Role));
    assert_eq!(accept(&Hello { node: "edge-2".to_string(), ..good.clone() }), Some(LinkError::NodeName));
    assert_eq!(accept(&Hello { peer: "outside".to_string(), ..good.clone() }), Some(LinkError::PeerName));
    assert_eq!(accept(&Hello { stream: 0, ..good }), Some(LinkError::Stream));
    let accept = |hello: &Hello| Sender::accept(sender_config(&TestMac), hello, NOW, &mut Vec::new()).err();
    assert_eq!(accept(&receiver_hello()), None);
    assert_eq!(accept(&Hello { stream: 0, ..receiver_hello() }), Some(LinkError::Stream));
    let mut dialed = Sender::dial(sender_config(&TestMac), NOW, &mut Vec::new());
    let other = Frame::Hello(Hello { node: "outside".to_string(), ..receiver_hello() });
    assert_eq!(dialed.handle_frame(other, NOW, &mut Vec::new()), Err(LinkError::NodeName));
}

#[test]
fn lengths_and_types_have_bounds() {
    let head = |length: u32, kind: u8| [&length.to_le_bytes()[..], &[kind]].concat();
    assert_eq!(first_frame(&head(0, 1)), Err(LinkError::FrameLength { bytes: 0 }));
    assert_eq!(first_frame(&head(513, 1)), Err(LinkError::FrameLength { bytes: 513 }));
    assert_eq!(first_frame(&head(9, 0)), Err(LinkError::FrameType(0)));
    assert_eq!(first_frame(&head(9, 9)), Err(LinkError::FrameType(9)));
    let over = FRAME_BYTES_MAX as u32 + 1;
    assert_eq!(parse_frame(&head(over, 4), FRAME_BYTES_MAX), Err(LinkError::FrameLength { bytes: over }));
    assert_eq!(parse_frame(&head(over - 1, 4), FRAME_BYTES_MAX), Ok(None));
    for (kind, payload) in [
        (FrameType::Start, 27),
        (FrameType::Start, 29),
        (FrameType::Ack, 23),
        (FrameType::Ack, 25),
        (FrameType::Ping, 7),
        (FrameType::Pong, 9),
        (FrameType::Goodbye, 0),
        (FrameType::Goodbye, 2),
        (FrameType::Refuse, 1),
        (FrameType::Refuse, 3),
        (FrameType::Batch, 0),
        (FrameType::Batch, 2),
    ] {
        let mut frame = Vec::new();
        let start = begin_frame(&mut frame, kind);
        frame.resize(frame.len() + payload, 0);
        end_frame(&mut frame, start);
        assert_eq!(parse_frame(&frame, 100), Err(LinkError::Malformed(kind)), "{kind:?} {payload}");
    }
}

#[test]
fn a_batch_has_at_most_256_entries() {
    for (count, good) in [(BATCH_EVENTS_MAX, true), (BATCH_EVENTS_MAX + 1, false)] {
        let mut frame = Vec::new();
        let start = begin_frame(&mut frame, FrameType::Batch);
        frame.extend_from_slice(&(count as u16).to_le_bytes());
        for sequence in 1..=count as u64 {
            let (tag, key_id, targets) = (&[0; 32], "k", Targets::NONE);
            BatchEvent { sequence, time_ms: NOW, counter: sequence, tag, key_id, targets, encoded: b"" }
                .write(["t"].into_iter(), &mut frame);
        }
        end_frame(&mut frame, start);
        assert_eq!(parse_frame(&frame, FRAME_BYTES_MAX).is_ok(), good, "{count}");
    }
}

#[test]
fn the_reader_takes_what_it_has_room_for() {
    let mut reader = FrameReader::new();
    let mut stream = Vec::new();
    sender_hello(1, 1).write(&mut stream);
    for _ in 0..400_000 {
        write_ping(&mut stream, 1);
    }
    let taken = reader.handle_bytes(&stream);
    assert!(taken < stream.len() && taken > FRAME_BYTES_MAX);
    let mut frames = 0;
    while reader.poll_frame().unwrap().is_some() {
        frames += 1;
    }
    assert_eq!(reader.handle_bytes(&stream[taken..]), stream.len() - taken);
    while reader.poll_frame().unwrap().is_some() {
        frames += 1;
    }
    assert_eq!((frames, reader.buffered()), (400_001, 0));
}
