//! The vectors of `scripts/wire-vectors`, an independent writer of docs/wire-formats.md: each one is read as it
//! says, and written byte for byte the same.

use hmac::{KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Digest as _;
use zen_core::crypto::{Digest, Mac, MacJob, Tag};
use zen_core::envelope::{
    DeliveryError, DeliveryVerifier, Metadata, ReceivedDelivery, SignatureHeader, write_forwarded_headers,
    write_signature,
};
use zen_core::event::Event;
use zen_core::link::{
    FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX, Frame, FrameReader, GoodbyeReason, Hello, LinkError, Outgoing,
    Receiver, ReceiverConfig, ReceiverEvent, Sender, SenderConfig, parse_frame,
};

struct Portable;

impl Mac for Portable {
    type Key = hmac::Hmac<sha2::Sha256>;

    fn prepare(&self, secret: &[u8]) -> Self::Key {
        hmac::Hmac::new_from_slice(secret).expect("HMAC takes keys of any length")
    }

    fn sign(&self, jobs: &[MacJob<'_, Self::Key>], tags: &mut Vec<Tag>) {
        tags.clear();
        tags.extend(jobs.iter().map(|job| {
            let mut mac = job.key.clone();
            mac.update(job.parts[0]);
            mac.update(job.parts[1]);
            Tag::from(mac.finalize().into_bytes())
        }));
    }

    fn sha256(&self, bytes: &[u8]) -> Digest {
        sha2::Sha256::digest(bytes).into()
    }
}

fn vectors() -> Value {
    serde_json::from_str(include_str!("../fixtures/wire.json")).expect("the fixture is JSON")
}

fn list(value: &Value, count: usize) -> &[Value] {
    let list = value.as_array().expect("a list");
    assert_eq!(list.len(), count, "no vector gets lost");
    list
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

fn hex(value: &Value) -> Vec<u8> {
    let digits = text(value).as_bytes();
    let mut bytes = vec![0; digits.len() / 2];
    zen_core::id::decode_hex(digits, &mut bytes).expect("lower-case hex");
    bytes
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    hex(value).try_into().expect("hex of that many bytes")
}

/// The encoded event of that name.
fn encoded(vectors: &Value, name: &Value) -> Vec<u8> {
    let events = list(&vectors["events"], 4);
    hex(&events.iter().find(|event| &event["name"] == name).expect("a vector of that name")["encoded_hex"])
}

#[test]
fn events() {
    for vector in list(&vectors()["events"], 4) {
        let (bytes, body) = (hex(&vector["encoded_hex"]), hex(&vector["body_hex"]));
        let expected = Event {
            id: text(&vector["id"]).parse().expect("an event id"),
            endpoint: text(&vector["endpoint"]).parse().expect("an endpoint id"),
            content_type: text(&vector["content_type"]),
            headers: text(&vector["headers"]),
            body: &body,
        };
        assert_eq!(Event::decode(&bytes), Ok(expected));
        let mut written = Vec::new();
        expected.encode_head(&mut written).expect("a canonical event");
        written.extend_from_slice(&body);
        assert_eq!(written, bytes);
    }
}

#[test]
fn envelopes() {
    let vectors = vectors();
    for vector in list(&vectors["envelopes"], 4) {
        let bytes = encoded(&vectors, &vector["event"]);
        let event = Event::decode(&bytes).expect("an event");
        assert_eq!(event.headers, text(&vector["headers"]));
        check_signed(vector, &event, text(&vector["audience"]), &vector["key_hex"], &vector["tag_hex"]);
    }
}

#[test]
fn deliveries() {
    let vectors = vectors();
    for vector in list(&vectors["deliveries"], 4) {
        let bytes = encoded(&vectors, &vector["event"]);
        let event = Event::decode(&bytes).expect("an event");
        assert_eq!(event.forwarded_headers(), text(&vector["headers"]));
        let keys = vector["keys_hex"].as_array().expect("keys");
        let tags = vector["tags_hex"].as_array().expect("tags");
        for (key, tag) in keys.iter().zip(tags) {
            check_signed(vector, &event, text(&vector["target"]), key, tag);
        }
        let mut signature = String::new();
        let tags: Vec<Tag> = tags.iter().map(array).collect();
        let (key_id, time_ms) = (text(&vector["key_id"]), number(&vector["time_ms"]));
        write_signature(&mut signature, key_id, time_ms, &array(&vector["nonce_hex"]), &tags);
        assert_eq!(signature, text(&vector["zen_signature"]));
        check_webhook_signature(vector, keys, event.body);
        check_as_target(vector, &event);
    }
}

/// The signed text and its tag under one key.
fn check_signed(vector: &Value, event: &Event<'_>, audience: &str, key: &Value, tag: &Value) {
    let mut canonical = Vec::new();
    let metadata = Metadata {
        key_id: text(&vector["key_id"]),
        time_ms: number(&vector["time_ms"]),
        nonce: array(&vector["nonce_hex"]),
        event_id: event.id,
        endpoint: event.endpoint,
        audience,
        content_type: event.content_type,
        headers_digest: &Portable.sha256(text(&vector["headers"]).as_bytes()),
    };
    metadata.write_canonical(&mut canonical).expect("no field is refused");
    assert_eq!(std::str::from_utf8(&canonical), Ok(text(&vector["canonical"])));
    let mut tags = Vec::new();
    Portable
        .sign(&[MacJob { key: &Portable.prepare(&hex(key)), parts: [&canonical, event.body] }], &mut tags);
    assert_eq!(tags, [array(tag)]);
}

/// Standard Webhooks: `<id>.<seconds>.<body>`, base64, one per secret.
fn check_webhook_signature(vector: &Value, keys: &[Value], body: &[u8]) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let head = format!("{}.{}.", text(&vector["webhook_id"]), text(&vector["webhook_timestamp"]));
    let signature = |key: &Value| {
        let key = Portable.prepare(&hex(key));
        let mut tags = Vec::new();
        Portable.sign(&[MacJob { key: &key, parts: [head.as_bytes(), body] }], &mut tags);
        format!("v1,{}", STANDARD.encode(tags[0]))
    };
    let signatures: Vec<_> = keys.iter().map(signature).collect();
    assert_eq!(signatures.join(" "), text(&vector["webhook_signature"]));
    for (secret, key) in vector["secrets"].as_array().expect("secrets").iter().zip(keys) {
        let bare = text(secret).strip_prefix("whsec_").expect("a whsec_ secret");
        assert_eq!(STANDARD.decode(bare), Ok(hex(key)));
    }
}

/// A target with only the last key accepts it, once, from the headers as they came in.
fn check_as_target(vector: &Value, event: &Event<'_>) {
    let received: Vec<_> = vector["received_headers"]
        .as_array()
        .expect("headers")
        .iter()
        .map(|line| (text(&line[0]).to_lowercase(), text(&line[1]).trim_matches([' ', '\t']).to_string()))
        .collect();
    let mut headers = String::new();
    write_forwarded_headers(received.iter().map(|line| (line.0.as_str(), line.1.as_str())), &mut headers);
    assert_eq!(headers, text(&vector["headers"]));
    let last = vector["keys_hex"].as_array().and_then(|keys| keys.last()).expect("a key");
    let keys = vec![(text(&vector["key_id"]).to_string(), Portable.prepare(&hex(last)))];
    let mut verifier = DeliveryVerifier::new(text(&vector["target"]), keys, 10);
    let (event_id, endpoint) = (event.id.to_string(), event.endpoint.to_string());
    let delivery = ReceivedDelivery {
        signature: text(&vector["zen_signature"]),
        event_id: &event_id,
        endpoint: &endpoint,
        content_type: event.content_type,
        headers: &headers,
        body: event.body,
    };
    let now_ms = number(&vector["time_ms"]) + 300_000;
    assert_eq!(verifier.verify(&Portable, &delivery, now_ms + 1), Err(DeliveryError::Stale));
    assert_eq!(verifier.verify(&Portable, &delivery, now_ms), Ok(event.id));
    assert_eq!(verifier.verify(&Portable, &delivery, now_ms), Err(DeliveryError::Replayed));
}

type Key = <Portable as Mac>::Key;

fn sender_config(link: &Value) -> SenderConfig<Key> {
    SenderConfig {
        node: text(&link["sender"]).to_string(),
        egress: text(&link["receiver"]).to_string(),
        stream: number(&link["stream"]) as u16,
        streams: number(&link["streams"]) as u16,
        journal_id: array(&link["journal_id_hex"]),
        key_id: text(&link["key_id"]).to_string(),
        key: Portable.prepare(&hex(&link["key_hex"])),
    }
}

fn receiver_config(link: &Value) -> ReceiverConfig<Key> {
    ReceiverConfig {
        node: text(&link["receiver"]).to_string(),
        ingester: text(&link["sender"]).to_string(),
        stream: number(&link["stream"]) as u16,
        keys: vec![(text(&link["key_id"]).to_string(), Portable.prepare(&hex(&link["key_hex"])))],
        session: array(&link["session_hex"]),
        credit_bytes: number(&link["credit_bytes"]),
        credit_events: number(&link["credit_events"]) as u32,
    }
}

fn frame(bytes: &[u8]) -> Frame<'_> {
    let (frame, size) = parse_frame(bytes, FRAME_BYTES_MAX).expect("well-formed").expect("whole");
    assert_eq!(size, bytes.len());
    frame
}

fn hello(bytes: &[u8]) -> Hello {
    let Frame::Hello(hello) = frame(bytes) else { panic!("a hello") };
    hello
}

/// What a machine appends, taken out of its buffer.
fn taken(out: &mut Vec<u8>) -> Vec<u8> {
    std::mem::take(out)
}

/// A receiver that was dialed and has asked for events.
fn open_receiver(link: &Value) -> Receiver<Key> {
    let (mut out, now_ms) = (Vec::new(), number(&link["now_ms"]));
    let peer = hello(&hex(&link["frames"]["hello_sender"]));
    let mut receiver =
        Receiver::accept(receiver_config(link), &peer, now_ms, &mut out).expect("the peer fits");
    assert_eq!(taken(&mut out), hex(&link["frames"]["hello_receiver"]));
    receiver.start(number(&link["resume_after"]), &mut out);
    assert_eq!(out, hex(&link["frames"]["start"]));
    receiver
}

#[test]
fn a_sender_writes_and_reads_the_frames() {
    let vectors = vectors();
    let (link, mut out) = (&vectors["link"], Vec::new());
    let (frames, now_ms) = (&link["frames"], number(&link["now_ms"]));
    let mut sender = Sender::dial(sender_config(link), now_ms, &mut out);
    assert_eq!(taken(&mut out), hex(&frames["hello_sender"]));
    for name in ["hello_receiver", "start"] {
        sender.handle_frame(frame(&hex(&frames[name])), now_ms, &mut out).expect(name);
    }
    let batch = list(&link["batch"], 4);
    let encodings: Vec<_> = batch.iter().map(|vector| encoded(&vectors, &vector["event"])).collect();
    let targets: Vec<Vec<_>> = batch
        .iter()
        .map(|vector| vector["targets"].as_array().expect("names").iter().map(text).collect())
        .collect();
    let events: Vec<_> = (0..batch.len())
        .map(|index| Outgoing {
            sequence: number(&batch[index]["sequence"]),
            targets: &targets[index],
            event: Event::decode(&encodings[index]).expect("an event"),
            encoded: &encodings[index],
        })
        .collect();
    assert_eq!(sender.seal_batch(&Portable, &events, now_ms, &mut out), 4);
    assert_eq!(taken(&mut out), hex(&frames["batch"]));
    sender.handle_frame(frame(&hex(&frames["ack"])), now_ms, &mut out).expect("an ack");
    assert_eq!((sender.acked(), sender.in_flight()), (number(&link["durable"]), 2));
    sender.handle_frame(frame(&hex(&frames["ping"])), now_ms, &mut out).expect("a ping");
    assert_eq!(taken(&mut out), hex(&frames["pong"]));
    sender.goodbye(GoodbyeReason::Reconfigured, &mut out);
    assert_eq!(taken(&mut out), hex(&frames["goodbye_reconfigured"]));
}

#[test]
fn a_receiver_writes_and_reads_the_frames() {
    let vectors = vectors();
    let (link, mut out) = (&vectors["link"], Vec::new());
    let (frames, now_ms) = (&link["frames"], number(&link["now_ms"]));
    let mut receiver = open_receiver(link);
    let bytes = hex(&frames["batch"]);
    let Ok(ReceiverEvent::Batch(batch)) = receiver.handle_frame(frame(&bytes), now_ms, &mut out) else {
        panic!("a batch");
    };
    let mut accepted = Vec::new();
    receiver.open_batch(&Portable, &batch, now_ms, &mut accepted).expect("each tag holds");
    assert_eq!(accepted.len(), 4);
    for (incoming, vector) in accepted.iter().zip(list(&link["batch"], 4)) {
        assert_eq!(incoming.sequence, number(&vector["sequence"]));
        assert_eq!(incoming.encoded, encoded(&vectors, &vector["event"]));
        assert!(incoming.targets.iter().eq(vector["targets"].as_array().expect("names").iter().map(text)));
    }
    receiver.grant(number(&link["granted_bytes"]), number(&link["granted_events"]));
    receiver.ack(number(&link["durable"]), &mut out);
    assert_eq!(taken(&mut out), hex(&frames["ack"]));
    receiver.goodbye(GoodbyeReason::Drain, &mut out);
    assert_eq!(taken(&mut out), hex(&frames["goodbye_drain"]));
}

#[test]
fn an_unknown_version_is_told_both_ranges() {
    let vectors = vectors();
    let frames = &vectors["link"]["frames"];
    let error =
        parse_frame(&hex(&frames["hello_unknown_version"]), FIRST_FRAME_BYTES_MAX).expect_err("refused");
    assert_eq!(error, LinkError::Version { min: 2, max: 7 });
    let mut out = Vec::new();
    error.write_refuse(&mut out);
    assert_eq!(out, hex(&frames["refuse_version"]));
}

#[test]
fn refused_frames() {
    let vectors = vectors();
    let link = &vectors["link"];
    for vector in list(&vectors["refused"]["frames"], 36) {
        let bytes = hex(&vector["hex"]);
        let error = match text(&vector["place"]) {
            "first" => {
                let mut reader = FrameReader::new();
                assert_eq!(reader.handle_bytes(&bytes), bytes.len());
                reader.poll_frame().map(|_| ())
            }
            "later" => parse_frame(&bytes, FRAME_BYTES_MAX).map(|_| ()),
            "connection" => on_connection(link, &bytes),
            other => panic!("no such place: {other}"),
        };
        let label = error.expect_err(text(&vector["name"])).label();
        assert_eq!(label, text(&vector["label"]), "{}", vector["name"]);
    }
}

fn on_connection(link: &Value, bytes: &[u8]) -> Result<(), LinkError> {
    let now_ms = number(&link["now_ms"]);
    let mut receiver = open_receiver(link);
    let event = receiver.handle_frame(frame(bytes), now_ms, &mut Vec::new())?;
    let ReceiverEvent::Batch(batch) = event else { return Ok(()) };
    let mut accepted = Vec::new();
    let result = receiver.open_batch(&Portable, &batch, now_ms, &mut accepted);
    assert!(result.is_ok() || accepted.is_empty(), "nothing of a refused batch is taken");
    result
}

#[test]
fn refused_signatures_and_events() {
    let vectors = vectors();
    for vector in list(&vectors["refused"]["signatures"], 16) {
        assert!(SignatureHeader::parse(text(vector)).is_err(), "{vector}");
    }
    for vector in list(&vectors["refused"]["events"], 8) {
        assert!(Event::decode(&hex(&vector["hex"])).is_err(), "{}", vector["name"]);
    }
}
