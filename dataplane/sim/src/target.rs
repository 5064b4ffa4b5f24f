//! Targets: check each delivery with the core's verifier, take it or not, answer or not; and an eavesdropper.
//!
//! The eavesdropper sends deliveries again, most of them at the very edge of the window. A target whose clock
//! is set back after it forgot would take them, so targets' clocks are only skewed.

use std::collections::BTreeSet;
use std::rc::Rc;

use zen_core::crypto::Mac;
use zen_core::deliver::{Outcome, SignerConfig, TargetSigner, parse_secret};
use zen_core::envelope::{
    DeliveryError, DeliveryVerifier, ReceivedDelivery, SIGNATURE_WINDOW_MS, SignatureHeader,
    write_forwarded_headers,
};
use zen_core::id::EventId;
use zeroize::Zeroizing;

use crate::checker::Violation;
use crate::context::{Context, Life, NodeId, Step, Weather};
use crate::crypto::{Key, Portable};
use crate::plan::{Planted, Trouble};

/// Deliveries that a target remembers.
const SEEN_MAX: usize = 100_000;
/// Furthest that a target's clock is off, ms.
const SKEW_MS_MAX: u64 = 2_000;

/// How a target feels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// It takes what is right.
    Well,
    /// It answers that instead.
    Failing(u16),
    /// It accepts and never answers.
    Silent,
}

/// One target.
#[derive(Debug)]
pub struct Target {
    index: usize,
    verifier: DeliveryVerifier<Key>,
    skew_ms: i64,
    mood: Mood,
    /// Time and nonce of what was taken, in the planted bug's own memory.
    seen: BTreeSet<(u64, [u8; 16])>,
}

/// A delivery on its way.
#[derive(Debug)]
pub struct Attempt {
    /// Who delivers.
    pub egress: NodeId,
    /// In which of its lives.
    pub life: Life,
    /// The event's handle there.
    pub handle: u64,
    /// The attempt's number there.
    pub number: u64,
}

impl Target {
    /// A target that is well.
    pub fn new(index: usize, context: &mut Context) -> Self {
        let skew_ms = context.prng.between(0, 2 * SKEW_MS_MAX).cast_signed() - SKEW_MS_MAX.cast_signed();
        Self { index, verifier: verifier(index), skew_ms, mood: Mood::Well, seen: BTreeSet::new() }
    }

    /// Changes how it feels.
    pub fn set_mood(&mut self, mood: Mood) {
        self.mood = mood;
    }

    /// A delivery arrives.
    pub fn handle_delivery(&mut self, context: &mut Context, attempt: &Attempt, request: &Rc<[u8]>) {
        let Attempt { egress, life, handle, number: attempt } = *attempt;
        let status = self.take(context, request);
        let (true, Some(status)) = (!context.is_lost(), status) else { return };
        let outcome = Outcome::Answered { status, retry_after_ms: Some(3_000) };
        let delay_ms = context.delay_ms();
        context
            .schedule(delay_ms, Step::Outcome { egress, life, target: self.index, handle, attempt, outcome });
    }

    /// A delivery that was taken arrives again.
    pub fn handle_replay(&mut self, context: &mut Context, request: &[u8]) {
        let verdict = self.verify(context, &parse(request));
        context.note(format_args!("target {} gets a replay: {verdict:?}", self.index));
        context.replays_pending -= 1;
        if verdict.is_ok() {
            context.checker.blame(Violation::ReplayTaken(self.index));
        }
    }

    /// What it answers, if it answers.
    fn take(&mut self, context: &mut Context, request: &Rc<[u8]>) -> Option<u16> {
        if self.mood == Mood::Silent {
            return None;
        }
        let received = parse(request);
        let verdict = self.verify(context, &received);
        context.note(format_args!(
            "target {} ({:?}) checks {}: {verdict:?}",
            self.index, self.mood, received.event_id
        ));
        let id = match verdict {
            Ok(id) => id,
            Err(DeliveryError::Stale) if context.plan.troubles.contains(&Trouble::ClockStep) => {
                return Some(401);
            }
            Err(error) => {
                let why = error.to_string();
                context.checker.blame(Violation::RefusedHonest { target: self.index, why });
                return Some(401);
            }
        };
        self.record(context, &received, request);
        if let Mood::Failing(status) = self.mood {
            return Some(status);
        }
        context.checker.handle_delivered(self.index, id, received.endpoint, received.body);
        Some(200)
    }

    fn verify(
        &mut self,
        context: &Context,
        received: &ReceivedDelivery<'_>,
    ) -> Result<EventId, DeliveryError> {
        let now_ms = self.clock_ms(context);
        if context.plan.planted != Some(Planted::ReplayWindowOffByOne) {
            return self.verifier.verify(&Portable, received, now_ms);
        }
        let id = verifier(self.index).verify(&Portable, received, now_ms)?;
        let header = SignatureHeader::parse(received.signature)?;
        let oldest_ms = now_ms - SIGNATURE_WINDOW_MS + 1;
        self.seen.retain(|(time_ms, _)| *time_ms >= oldest_ms);
        if self.seen.insert((header.time_ms, header.nonce)) { Ok(id) } else { Err(DeliveryError::Replayed) }
    }

    /// The eavesdropper chooses when to send it again.
    fn record(&self, context: &mut Context, received: &ReceivedDelivery<'_>, request: &Rc<[u8]>) {
        if !context.prng.chance(context.plan.replay_permille) {
            return;
        }
        let header = SignatureHeader::parse(received.signature).expect("it was checked just now");
        let edge_ms = (header.time_ms + SIGNATURE_WINDOW_MS).saturating_sub(self.clock_ms(context));
        let delay_ms = match context.prng.below(6) {
            0 => 0,
            1 => context.prng.between(0, edge_ms),
            2 => edge_ms.saturating_sub(1),
            3 => edge_ms + 1,
            _ => edge_ms,
        };
        context.replays_pending += 1;
        context.schedule(delay_ms, Step::Replay { target: self.index, request: Rc::clone(request) });
    }

    fn clock_ms(&self, context: &Context) -> u64 {
        context.now_ms.saturating_add_signed(self.skew_ms)
    }
}

/// A mood for a while, ms; without a storm it is well.
pub fn draw_mood(context: &mut Context) -> (Mood, u64) {
    if context.weather == Weather::Calm {
        return (Mood::Well, 0);
    }
    let moods =
        [Mood::Failing(500), Mood::Failing(503), Mood::Failing(404), Mood::Failing(410), Mood::Silent];
    (context.prng.choose(&moods), context.prng.between(100, 20_000))
}

/// Signs for a target, as its egress has it configured.
pub fn signer(target: usize) -> TargetSigner<Key> {
    let config = SignerConfig {
        target: &format!("target-{target}"),
        host: "target.example",
        path: "/in",
        key_id: "key-1",
        secrets: &[secret(target)],
    };
    TargetSigner::new(&Portable, &config).expect("names and secrets are well-formed")
}

fn verifier(target: usize) -> DeliveryVerifier<Key> {
    let key = Portable.prepare(&secret(target));
    DeliveryVerifier::new(&format!("target-{target}"), vec![("key-1".to_owned(), key)], SEEN_MAX)
}

fn secret(target: usize) -> Zeroizing<Vec<u8>> {
    parse_secret(&format!("whsec_{target:031}A")).expect("32 digits of base 64 are 24 bytes")
}

/// Reads a delivery as it was written: head, empty line, body.
fn parse(request: &[u8]) -> ReceivedDelivery<'_> {
    let end = request.windows(4).position(|window| window == b"\r\n\r\n").expect("a head has an end");
    let head = core::str::from_utf8(&request[..end]).expect("a head is text");
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
    let value = |name: &str| lines.clone().find(|line| line.0 == name).map_or("", |line| line.1);
    let mut headers = String::new();
    write_forwarded_headers(lines.clone(), &mut headers);
    assert!(headers.is_empty(), "simulated sources send no headers of their own");
    ReceivedDelivery {
        signature: value("zen-signature"),
        event_id: value("zen-event-id"),
        endpoint: value("zen-endpoint"),
        content_type: value("content-type"),
        headers: "",
        body: &request[end + 4..],
    }
}
