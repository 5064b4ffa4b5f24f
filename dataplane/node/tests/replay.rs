//! Replays and changes on the way: whole frames sent again, and each signed field changed in turn, on
//! live links to a real egress and on deliveries to a target.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh::{Mesh, egress_alone, target, verifier};
use peer::{Peer, PeerIdentity, batch};
use support::node::Node;
use support::{GITHUB, Lab, Ports, WHSEC, change};
use target::{Answer, Target, unix_ms};
use zen_core::envelope::{DeliveryError, SIGNATURE_WINDOW_MS};
use zen_core::event::Event;
use zen_core::id::EventId;
use zen_core::link::{Refuse, RefuseCode, Sender, SenderConfig};
use zen_hmac::PreparedKey;

#[path = "support/mesh.rs"]
mod mesh;
#[path = "support/peer.rs"]
mod peer;
mod support;
#[path = "support/target.rs"]
mod target;

/// Where the fields of a batch's first entry are in its frame: length, type, count, then the entry.
const SEQUENCE_AT: usize = 7;
const TIME_AT: usize = 15;
const COUNTER_AT: usize = 23;
const TAG_AT: usize = 31;

const TAG: &str = "an event's tag does not match";

/// What is done to a frame.
type Change = Box<dyn Fn(&mut Vec<u8>)>;

/// A real egress with a target, and a peer with the identity and the key of its ingester.
struct Egress {
    lab: Lab,
    ports: Ports,
    node: Node,
    target: Target,
}

#[test]
fn a_frame_sent_again_is_refused_in_the_same_connection_and_in_a_new_one() {
    let egress = Egress::start();
    let (mut peer, mut sender) = egress.link(0);
    let frame = batch(&mut sender, 1, &["demo"], &event(), unix_ms());
    peer.say(&frame);
    peer.hear_ack(1);
    egress.target.wait(1);

    peer.say(&frame);
    expect(peer.hear_refusal(), RefuseCode::Protocol, "event sequences do not ascend");

    // The sequence is not signed, so that a thief could raise it; the counter still gives it away.
    let (mut peer, mut sender) = egress.link(1);
    let other = Event { id: EventId([0x22; 16]), ..event() };
    let second = batch(&mut sender, 2, &["demo"], &other, unix_ms());
    peer.say(&second);
    peer.hear_ack(2);
    let mut raised = second.clone();
    raised[SEQUENCE_AT] = 3;
    peer.say(&raised);
    expect(peer.hear_refusal(), RefuseCode::Authentication, "an event is replayed: ");

    for captured in [&frame, &second, &raised] {
        let (mut peer, _) = egress.link(2);
        peer.say(captured);
        expect(peer.hear_refusal(), RefuseCode::Authentication, TAG);
    }
    egress.expect_received(2);
    assert_eq!(egress.target.deliveries().len(), 2);
}

#[test]
fn an_event_id_is_delivered_once_even_when_it_is_signed_anew_and_after_a_kill() {
    let mut egress = Egress::start();
    let (mut peer, mut sender) = egress.link(0);
    peer.say(&batch(&mut sender, 1, &["demo"], &event(), unix_ms()));
    peer.say(&batch(&mut sender, 2, &["demo"], &event(), unix_ms()));
    peer.hear_ack(2);
    egress.target.wait(1);
    assert_eq!(egress.node.metric("zen_duplicate_event_ids_total") as u64, 1);

    egress.node.kill();
    egress.node = Node::start(&egress.lab.path("inside.toml"), egress.ports.admin);
    let (mut peer, mut sender) = egress.link(1);
    peer.say(&batch(&mut sender, 3, &["demo"], &event(), unix_ms()));
    let last = Event { id: EventId([0x22; 16]), ..event() };
    peer.say(&batch(&mut sender, 4, &["demo"], &last, unix_ms()));
    peer.hear_ack(4);
    assert_eq!(egress.node.metric("zen_duplicate_event_ids_total") as u64, 1);
    // The first may be delivered again, since its outcome may not have been durable; it is not taken again.
    egress.expect_received(1);
}

#[test]
fn each_signed_field_is_checked_on_a_live_link() {
    let egress = Egress::start();
    let replace = |from: &'static [u8], to: &'static [u8]| {
        move |frame: &mut Vec<u8>| {
            assert_eq!(from.len(), to.len());
            let at: Vec<usize> =
                frame.windows(from.len()).enumerate().filter(|(_, w)| *w == from).map(|(at, _)| at).collect();
            assert_eq!(at.len(), 1, "{:?} once", String::from_utf8_lossy(from));
            frame[at[0]..at[0] + to.len()].copy_from_slice(to);
        }
    };
    let flip = |at: usize| move |frame: &mut Vec<u8>| frame[at] ^= 1;
    let changes: Vec<(&str, Change, &str)> = vec![
        ("key id, another key", Box::new(replace(b"link-1", b"link-2")), TAG),
        ("key id, no key", Box::new(replace(b"link-1", b"link-9")), "an event is signed with an unknown key"),
        ("time", Box::new(flip(TIME_AT)), TAG),
        ("counter", Box::new(flip(COUNTER_AT)), TAG),
        ("tag", Box::new(flip(TAG_AT)), TAG),
        ("tag's last bit", Box::new(flip(TAG_AT + 31)), TAG),
        ("event id", Box::new(replace(&ID, &[0xff; 16])), TAG),
        ("endpoint", Box::new(replace(&ENDPOINT, &[0xee; 16])), TAG),
        ("target", Box::new(replace(b"\x04demo", b"\x04well")), TAG),
        ("content type", Box::new(replace(b"application/json", b"application/jsoN")), TAG),
        ("forwarded header", Box::new(replace(b"x-github-event:push", b"x-github-event:pull")), TAG),
        ("header name", Box::new(replace(b"x-github-event", b"x-github-evenu")), TAG),
        ("metadata", Box::new(replace(b":tenant:acme", b":tenant:evil")), TAG),
        ("body", Box::new(replace(b"{\"amount\":1}", b"{\"amount\":9}")), TAG),
    ];
    for (name, change, text) in changes {
        let (mut peer, mut sender) = egress.link(0);
        let mut frame = batch(&mut sender, 1, &["demo"], &event(), unix_ms());
        change(&mut frame);
        peer.say(&frame);
        let refuse = peer.hear_refusal().unwrap_or_else(|| panic!("{name}: closed without a refusal"));
        assert_eq!((refuse.code, refuse.text.as_str()), (RefuseCode::Authentication, text), "{name}");
    }
    egress.expect_received(0);
    assert!(egress.target.deliveries().is_empty());

    // The canary: the same batch as it was signed.
    let (mut peer, mut sender) = egress.link(0);
    peer.say(&batch(&mut sender, 1, &["demo"], &event(), unix_ms()));
    peer.hear_ack(1);
    egress.target.wait(1)[0].verify(&mut verifier("demo")).unwrap();
}

#[test]
fn one_bad_event_takes_its_whole_batch_with_it() {
    let egress = Egress::start();
    let (mut peer, mut sender) = egress.link(0);
    let good = batch(&mut sender, 1, &["demo"], &event(), unix_ms());
    let bad = batch(&mut sender, 2, &["demo"], &event(), unix_ms());
    let mut both = good.clone();
    both.extend_from_slice(&bad[7..]);
    let last = both.len() - 1;
    both[last] ^= 1;
    let length = both.len() as u32 - 4;
    both[..4].copy_from_slice(&length.to_le_bytes());
    both[5] = 2;
    peer.say(&both);
    expect(peer.hear_refusal(), RefuseCode::Authentication, TAG);
    egress.expect_received(0);
}

#[test]
fn an_event_signed_outside_the_window_is_refused() {
    let egress = Egress::start();
    for time_ms in [unix_ms() - SIGNATURE_WINDOW_MS - 1_000, unix_ms() + SIGNATURE_WINDOW_MS + 60_000] {
        let (mut peer, mut sender) = egress.link(0);
        peer.say(&batch(&mut sender, 1, &["demo"], &event(), time_ms));
        expect(
            peer.hear_refusal(),
            RefuseCode::Authentication,
            "an event's signing time is outside the window",
        );
    }
    let (mut peer, mut sender) = egress.link(0);
    peer.say(&batch(&mut sender, 1, &["demo"], &event(), unix_ms() - SIGNATURE_WINDOW_MS + 60_000));
    peer.hear_ack(1);
    egress.expect_received(1);
}

#[test]
fn a_key_that_only_shares_its_id_is_refused() {
    let egress = Egress::start();
    let (mut peer, mut sender) = egress.link_with(0, "link-1", &[9; 32]);
    peer.say(&batch(&mut sender, 1, &["demo"], &event(), unix_ms()));
    expect(peer.hear_refusal(), RefuseCode::Authentication, TAG);
    egress.expect_received(0);
}

#[test]
fn a_rotated_key_is_accepted_beside_the_old_one() {
    let egress = Egress::start();
    let (mut peer, mut sender) = egress.link_with(0, "link-2", &[2; 32]);
    peer.say(&batch(&mut sender, 1, &["demo"], &event(), unix_ms()));
    peer.hear_ack(1);
    egress.expect_received(1);
}

#[test]
fn a_delivery_sent_again_or_changed_is_refused_by_its_target() {
    let (mesh, target) = Mesh::with_target("", |_, _| Answer::status(200));
    mesh.send(b"{\"amount\":1}");
    let delivery = target.wait(1)[0].clone();
    let mut seen = verifier("demo");
    delivery.verify(&mut seen).unwrap();
    assert_eq!(delivery.verify(&mut seen), Err(DeliveryError::Replayed));

    for name in ["zen-event-id", "zen-endpoint", "content-type", "x-github-event"] {
        let mut changed = delivery.clone();
        let line = changed.headers.iter_mut().find(|line| line.0 == name).unwrap();
        // The last character, so that an identifier stays one.
        let last = if line.1.ends_with('1') { '2' } else { '1' };
        line.1.pop();
        line.1.push(last);
        assert_eq!(changed.verify(&mut verifier("demo")), Err(DeliveryError::Mismatch), "{name}");
    }
    let mut changed = delivery.clone();
    changed.headers.push(("x-injected".to_owned(), "1".to_owned()));
    assert_eq!(changed.verify(&mut verifier("demo")), Err(DeliveryError::Mismatch), "a header more");
    let mut changed = delivery.clone();
    changed.body[0] ^= 1;
    assert_eq!(changed.verify(&mut verifier("demo")), Err(DeliveryError::Mismatch), "a bit of the body");
    for at in 1..3 {
        let mut changed = delivery.clone();
        let line = changed.headers.iter_mut().find(|line| line.0 == "zen-signature").unwrap();
        let mut fields: Vec<String> = line.1.split(',').map(str::to_owned).collect();
        let last = if fields[at].ends_with('1') { '2' } else { '1' };
        fields[at].pop();
        fields[at].push(last);
        line.1 = fields.join(",");
        assert_eq!(changed.verify(&mut verifier("demo")), Err(DeliveryError::Mismatch), "field {at}");
    }
}

impl Egress {
    fn start() -> Self {
        let lab = Lab::new();
        let target = target(&lab, "demo", |_, _| Answer::status(200));
        lab.write_private("secrets/link-2", &format!("whsec_{}", STANDARD.encode([2; 32])));
        let sections =
            lab.target_text("demo", target.address, "") + &lab.target_text("well", target.address, "");
        let (node, ports) = egress_alone(&lab, &sections, |text| {
            let more = ", { id = \"link-2\", file = \"secrets/link-2\" }]";
            change(text, " }]", &format!(" }}{more}"))
        });
        Self { lab, ports, node, target }
    }

    /// A link that is ready for batches, and resumes after `resume_after`.
    fn link(&self, resume_after: u64) -> (Peer, Sender<PreparedKey>) {
        let secret = STANDARD.decode(WHSEC.strip_prefix("whsec_").unwrap()).unwrap();
        self.link_with(resume_after, "link-1", &secret)
    }

    fn link_with(&self, resume_after: u64, key_id: &str, secret: &[u8]) -> (Peer, Sender<PreparedKey>) {
        let mut peer = Peer::dial(self.ports.link, &PeerIdentity::of(&self.lab, "edge")).unwrap();
        let (sender, resumed) = peer.open_sender(SenderConfig {
            node: "edge".to_owned(),
            egress: "inside".to_owned(),
            stream: 0,
            streams: 1,
            journal_id: [7; 16],
            key_id: key_id.to_owned(),
            key: PreparedKey::new(secret),
        });
        assert_eq!(resumed, resume_after);
        (peer, sender)
    }

    /// What was journaled of links, refused batches included.
    fn expect_received(&self, events: u64) {
        assert_eq!(self.node.metric("zen_link_events_received_total") as u64, events);
    }
}

const ID: [u8; 16] = *b"\x01\x8b\xcf\xe5\x68\x00\x70\x00\x80\x00\x00\x00\x00\x00\x00\x21";
const ENDPOINT: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

fn event() -> Event<'static> {
    Event {
        id: EventId(ID),
        endpoint: GITHUB.parse().unwrap(),
        content_type: "application/json",
        headers: ":accepted-us:1700000000000000\n:generation:1\n:tenant:acme\nx-github-event:push\n",
        body: b"{\"amount\":1}",
    }
}

fn expect(refuse: Option<Refuse>, code: RefuseCode, text: &str) {
    let refuse = refuse.expect("a refusal before the connection is closed");
    assert!(refuse.code == code && refuse.text.starts_with(text), "{refuse:?} instead of {text}");
}
