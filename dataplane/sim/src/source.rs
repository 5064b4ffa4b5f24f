//! Sources: signed events, sent again until somebody answers 2xx; and some that nobody signed.

use std::rc::Rc;

use zen_core::crypto::{Mac, MacJob};
use zen_core::id::{EndpointId, EventId, encode_hex};
use zen_core::verify::{RequestView, Scheme};

use crate::checker::{Made, Violation};
use crate::context::{Context, Step};
use crate::crypto::Portable;

/// How long a source waits for an answer, ms.
const ANSWER_TIMEOUT_MS: u64 = 3_000;
/// Longest body beside its key, bytes.
const BODY_BYTES_MAX: u64 = 3_000;
/// Latest that a source sends again what was answered, ms.
const REPEAT_MS_MAX: u64 = 30_000;
/// Requests that are forged, of a thousand.
const FORGED_PERMILLE: u64 = 60;

/// A request to an ingester, signed as GitHub does.
#[derive(Debug)]
pub struct Request {
    /// Who sends it.
    pub source: usize,
    /// Which of its events.
    pub item: usize,
    /// The event's number in this run; its body begins with it.
    pub key: u64,
    /// `x-hub-signature-256`.
    pub signature: String,
    /// `x-github-delivery`: what the source calls the event; other sources may use the same name.
    pub delivery: String,
    /// The body.
    pub body: Rc<[u8]>,
}

impl RequestView for Request {
    fn method(&self) -> &'static str {
        "POST"
    }

    fn target(&self) -> &'static str {
        "/hooks"
    }

    fn header(&self, name: &str) -> Option<&str> {
        match name {
            "x-hub-signature-256" => Some(&self.signature),
            "x-github-delivery" => Some(&self.delivery),
            _ => None,
        }
    }

    fn header_count(&self, name: &str) -> usize {
        usize::from(self.header(name).is_some())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting { attempt: u32 },
    Over,
}

#[derive(Debug)]
struct Item {
    request: Rc<Request>,
    genuine: bool,
    state: State,
}

/// One source.
#[derive(Debug)]
pub struct Source {
    index: usize,
    share: usize,
    items: Vec<Item>,
}

impl Source {
    /// A source that will make `share` events.
    pub fn new(index: usize, share: usize) -> Self {
        Self { index, share, items: Vec::new() }
    }

    /// Makes the next event and sends it; then the next one later.
    pub fn make(&mut self, context: &mut Context) {
        if self.items.len() == self.share {
            return;
        }
        let (source, item) = (self.index, self.items.len());
        let key = (source as u64) << 32 | item as u64;
        let genuine = !context.prng.chance(FORGED_PERMILLE);
        let filler = context.prng.between(0, BODY_BYTES_MAX) as usize;
        let mut body = format!("{key:016x}").into_bytes();
        body.resize(16 + filler, b'.');
        let body: Rc<[u8]> = body.into();
        let signature = if genuine { sign(source, &body) } else { sign(source + 1000, &body) };
        context
            .checker
            .handle_made(key, Made { endpoint: endpoint(source), body: Rc::clone(&body), genuine });
        // A forger takes the name of what comes next.
        let delivery = delivery_name(item + usize::from(!genuine));
        let request = Rc::new(Request { source, item, key, signature, delivery, body });
        self.items.push(Item { request, genuine, state: State::Waiting { attempt: 0 } });
        self.send(context, item);
        let mean_ms = context.plan.storm_ms / self.share as u64;
        let pause_ms = context.prng.between(0, 2 * mean_ms);
        context.schedule(pause_ms, Step::Make { source });
    }

    /// Sends an event, to any ingester.
    pub fn send(&mut self, context: &mut Context, item: usize) {
        let State::Waiting { attempt } = &mut self.items[item].state else { return };
        *attempt += 1;
        let (source, attempt) = (self.index, *attempt);
        context.schedule(ANSWER_TIMEOUT_MS, Step::GiveUp { source, item, attempt });
        self.request(context, item);
        if context.prng.chance(context.plan.duplicate_permille) {
            self.request(context, item);
        }
    }

    /// Sends once, to any worker of any ingester.
    pub fn request(&self, context: &mut Context, item: usize) {
        let ingester = context.prng.below(context.plan.ingester_workers());
        context.note(format_args!("source {} sends event {item} to worker {ingester}", self.index));
        if !context.is_lost() {
            let delay_ms = context.delay_ms();
            let request = Rc::clone(&self.items[item].request);
            context.schedule(delay_ms, Step::Request { ingester, request });
        }
    }

    /// No answer came to that try.
    pub fn give_up(&mut self, context: &mut Context, item: usize, attempt: u32) {
        if self.items[item].state == (State::Waiting { attempt }) {
            self.send_again(context, item);
        }
    }

    /// An answer came.
    pub fn handle_answer(&mut self, context: &mut Context, item: usize, status: u16, id: Option<EventId>) {
        let (source, Item { request, genuine, state }) = (self.index, &mut self.items[item]);
        if *state == State::Over {
            return;
        }
        context.note(format_args!("source {source} gets {status} for event {item} {id:?}"));
        match (status, *genuine) {
            (200..=299, true) => {
                context.checker.handle_accepted(request.key);
                if context.prng.chance(context.plan.duplicate_permille) {
                    let delay_ms = context.prng.between(0, REPEAT_MS_MAX);
                    context.schedule(delay_ms, Step::Repeat { source, item });
                }
            }
            (401, false) => {}
            (401, true) | (200..=299, false) => context.checker.blame(Violation::Unverified),
            _ => return self.send_again(context, item),
        }
        *state = State::Over;
    }

    fn send_again(&mut self, context: &mut Context, item: usize) {
        if let State::Waiting { attempt } = &mut self.items[item].state {
            *attempt += 1;
        }
        let pause_ms = context.prng.between(100, 2_000);
        context.schedule(pause_ms, Step::Send { source: self.index, item });
    }
}

/// The endpoint of a source.
pub fn endpoint(source: usize) -> EndpointId {
    EndpointId([source as u8 + 1; 16])
}

/// What a source calls its event.
fn delivery_name(item: usize) -> String {
    format!("delivery {item}")
}

/// The scheme of a source's endpoint, as an ingester has it configured.
pub fn scheme(source: usize) -> Scheme {
    Scheme::github(&[secret(source)]).expect("the secret is neither empty nor long")
}

fn secret(source: usize) -> Vec<u8> {
    format!("secret of source {source}").into_bytes()
}

fn sign(source: usize, body: &[u8]) -> String {
    let key = Portable.prepare(&secret(source));
    let mut tags = Vec::new();
    Portable.sign(&[MacJob { key: &key, parts: [body, b""] }], &mut tags);
    let mut digits = [0; 64];
    encode_hex(&tags[0], &mut digits);
    format!("sha256={}", core::str::from_utf8(&digits).expect("hex digits are ASCII"))
}
