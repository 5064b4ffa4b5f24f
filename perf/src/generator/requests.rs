//! Requests that are ready but for ids, times and signatures, and batches of them that are signed together.
//!
//! In: endpoints and samples at the start, event numbers later. Out: whole requests. A request's bytes are those
//! of [`Webhook::write`](crate::samples::Webhook::write), which a test holds them against; making one allocates nothing.

use zen_hmac::{Job, PreparedKey, Tag};

use super::draw::Sending;
use super::wire::HOST;
use crate::samples::{Endpoint, Samples, SchemeName, source_id};
use crate::signature::secret_bytes;

/// Most requests that are signed at once.
pub(super) const BATCH_REQUESTS_MAX: usize = 64;
/// An id as [`source_id`] writes it, bytes.
const ID_BYTES: usize = 36;
/// Where a body has the id of its event, behind `{"lab_event":"`.
const BODY_ID_AT: usize = 14;
/// What stands for ids and times until they are known.
const ID_PLACE: (u64, u64) = (0xfedc_ba98_7654_3210, 0x0f1e_2d3c_4b5a_6978);
const TIME_PLACE: u64 = 1_234_567_890;
const TIME_BYTES: usize = 10;
/// Id, dot, time, dot.
const PREAMBLE_BYTES: usize = ID_BYTES + TIME_BYTES + 2;

/// All that may be sent.
pub(super) struct Catalogue {
    run: u64,
    endpoints: Vec<Source>,
    /// Bodies of GitHub, then those of the others.
    bodies: [Vec<Vec<u8>>; 2],
}

/// An endpoint's side of it.
struct Source {
    scheme: SchemeName,
    key: PreparedKey,
    heads: Vec<Head>,
}

/// The head of one body's request.
struct Head {
    bytes: Vec<u8>,
    id_at: usize,
    time_at: Option<usize>,
    tag_at: usize,
}

impl Catalogue {
    /// Prepares requests of each endpoint for each body; `run` makes the ids of this run its own.
    pub(super) fn new(endpoints: &[Endpoint], samples: &Samples, run: u64) -> Self {
        let families = [SchemeName::GitHub, SchemeName::Hmac];
        let example = Endpoint { id: String::new(), scheme: SchemeName::Hmac, secret: String::new() };
        let bodies = families.map(|scheme| {
            let endpoint = Endpoint { scheme, ..example.clone() };
            let choices = 0..samples.choices(scheme) as u64;
            choices.map(|choice| samples.webhook(&endpoint, choice, &place()).body).collect()
        });
        let endpoints = endpoints.iter().map(|endpoint| Source::new(endpoint, samples)).collect();
        Self { run, endpoints, bodies }
    }

    /// The body of event `number`.
    pub(super) fn body(&self, number: u64) -> Vec<u8> {
        let (source, choice) = self.of(number);
        let mut body = self.bodies[family(source.scheme)][choice].clone();
        body[BODY_ID_AT..BODY_ID_AT + ID_BYTES].copy_from_slice(&id(self.run, number));
        body
    }

    /// The endpoint of event `number`, and which of its bodies: both are stepped through apart.
    fn of(&self, number: u64) -> (&Source, usize) {
        let sources = self.endpoints.len() as u64;
        let source = &self.endpoints[(number % sources) as usize];
        (source, (number / sources % source.heads.len() as u64) as usize)
    }
}

impl Source {
    fn new(endpoint: &Endpoint, samples: &Samples) -> Self {
        let key = match endpoint.scheme {
            SchemeName::StandardWebhooks => secret_bytes(&endpoint.secret).unwrap_or_default(),
            SchemeName::GitHub | SchemeName::Hmac => endpoint.secret.clone().into_bytes(),
        };
        let choices = 0..samples.choices(endpoint.scheme) as u64;
        let heads = choices.map(|choice| Head::new(endpoint, samples, choice)).collect();
        Self { scheme: endpoint.scheme, key: PreparedKey::new(&key), heads }
    }
}

impl Head {
    fn new(endpoint: &Endpoint, samples: &Samples, choice: u64) -> Self {
        let webhook = samples.webhook(endpoint, choice, &place());
        let mut bytes = Vec::new();
        webhook.write(endpoint, HOST, TIME_PLACE, &mut bytes);
        bytes.truncate(bytes.len() - webhook.body.len());
        let at = |text: &[u8]| bytes.windows(text.len()).position(|window| window == text);
        let (time, tag): (&[u8], &[u8]) = match endpoint.scheme {
            SchemeName::GitHub | SchemeName::Hmac => (b"", b"sha256="),
            SchemeName::StandardWebhooks => (b"webhook-timestamp: ", b"v1,"),
        };
        let after = |text: &[u8]| at(text).expect("the lab's head has this text") + text.len();
        Self {
            id_at: at(place().as_bytes()).expect("a head has the id of its event"),
            time_at: (!time.is_empty()).then(|| after(time)),
            tag_at: after(tag),
            bytes,
        }
    }
}

/// A request on its way to be signed.
#[derive(Debug)]
pub(super) struct Draft {
    /// The connection that it is for.
    pub(super) connection: usize,
    /// What it is.
    pub(super) sending: Sending,
    /// The number of its event; junk has none of its own.
    pub(super) number: u64,
    /// When it was due, ns since the start; `None` in a closed loop.
    pub(super) due_ns: Option<u64>,
    /// The request; whole after [`Batch::sign`].
    pub(super) bytes: Vec<u8>,
    preamble: [u8; PREAMBLE_BYTES],
    preamble_bytes: usize,
    body_at: usize,
    tag_at: usize,
    endpoint: usize,
}

/// Requests that are signed together. Its memory is used again.
#[derive(Debug, Default)]
pub(super) struct Batch {
    drafts: Vec<Draft>,
    used: usize,
    tags: Vec<Tag>,
}

impl Batch {
    /// Whether it has to be signed before more go in.
    pub(super) fn is_full(&self) -> bool {
        self.used == BATCH_REQUESTS_MAX
    }

    /// Whether there is nothing to sign or send.
    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Adds a request without its signature.
    pub(super) fn add(&mut self, catalogue: &Catalogue, order: Order, now_s: u64) {
        let draft = self.next(order);
        let (source, choice) = catalogue.of(order.number);
        let (head, body) = (&source.heads[choice], &catalogue.bodies[family(source.scheme)][choice]);
        draft.bytes.clear();
        draft.bytes.extend_from_slice(&head.bytes);
        draft.bytes.extend_from_slice(body);
        draft.body_at = head.bytes.len();
        draft.tag_at = head.tag_at;
        draft.endpoint = (order.number % catalogue.endpoints.len() as u64) as usize;
        let id = id(catalogue.run, order.number);
        for at in [head.id_at, draft.body_at + BODY_ID_AT] {
            draft.bytes[at..at + ID_BYTES].copy_from_slice(&id);
        }
        draft.preamble_bytes = 0;
        if let Some(time_at) = head.time_at {
            let time = decimal(now_s);
            draft.bytes[time_at..time_at + TIME_BYTES].copy_from_slice(&time);
            draft.preamble_bytes = PREAMBLE_BYTES;
            draft.preamble[..ID_BYTES].copy_from_slice(&id);
            draft.preamble[ID_BYTES] = b'.';
            draft.preamble[ID_BYTES + 1..PREAMBLE_BYTES - 1].copy_from_slice(&time);
            draft.preamble[PREAMBLE_BYTES - 1] = b'.';
        }
    }

    /// Adds bytes that are sent as they are.
    pub(super) fn add_raw(&mut self, order: Order, bytes: &[u8]) {
        let draft = self.next(order);
        draft.bytes.clear();
        draft.bytes.extend_from_slice(bytes);
        draft.body_at = 0;
    }

    /// Signs what is to be signed and hands out all, in order; the batch is empty then.
    pub(super) fn sign(&mut self, catalogue: Option<&Catalogue>) -> &mut [Draft] {
        let drafts = &mut self.drafts[..self.used];
        if let Some(catalogue) = catalogue {
            let jobs = drafts.iter().filter(|draft| draft.body_at > 0).map(|draft| Job {
                key: &catalogue.endpoints[draft.endpoint].key,
                parts: [&draft.preamble[..draft.preamble_bytes], &draft.bytes[draft.body_at..]],
            });
            zen_hmac::sign_jobs(jobs, &mut self.tags);
            let signed = drafts.iter_mut().filter(|draft| draft.body_at > 0);
            for (draft, tag) in signed.zip(&mut self.tags) {
                tag[31] ^= u8::from(draft.sending == Sending::BadSignature);
                write_tag(catalogue.endpoints[draft.endpoint].scheme, tag, &mut draft.bytes[draft.tag_at..]);
            }
        }
        self.used = 0;
        drafts
    }

    fn next(&mut self, order: Order) -> &mut Draft {
        if self.used == self.drafts.len() {
            self.drafts.push(Draft {
                connection: 0,
                sending: Sending::New,
                number: 0,
                due_ns: None,
                bytes: Vec::new(),
                preamble: [0; PREAMBLE_BYTES],
                preamble_bytes: 0,
                body_at: 0,
                tag_at: 0,
                endpoint: 0,
            });
        }
        let draft = &mut self.drafts[self.used];
        self.used += 1;
        (draft.connection, draft.sending) = (order.connection, order.sending);
        (draft.number, draft.due_ns) = (order.number, order.due_ns);
        draft
    }
}

/// What is to be sent, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    /// The connection.
    pub(super) connection: usize,
    /// What it is.
    pub(super) sending: Sending,
    /// The event.
    pub(super) number: u64,
    /// When it was due, ns since the start; `None` in a closed loop.
    pub(super) due_ns: Option<u64>,
}

fn family(scheme: SchemeName) -> usize {
    usize::from(scheme != SchemeName::GitHub)
}

fn place() -> String {
    source_id(ID_PLACE.0, ID_PLACE.1)
}

/// As [`source_id`], without allocating.
fn id(run: u64, number: u64) -> [u8; ID_BYTES] {
    let mut digits = [0; 32];
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&run.to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    zen_core::id::encode_hex(&bytes, &mut digits);
    let mut id = [b'-'; ID_BYTES];
    for (to, from) in [(0..8, 0..8), (9..13, 8..12), (14..18, 12..16), (19..23, 16..20), (24..36, 20..32)] {
        id[to].copy_from_slice(&digits[from]);
    }
    id
}

/// Ten digits, until the year 2286.
fn decimal(mut number: u64) -> [u8; TIME_BYTES] {
    let mut digits = [b'0'; TIME_BYTES];
    for digit in digits.iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    digits
}

fn write_tag(scheme: SchemeName, tag: &Tag, out: &mut [u8]) {
    use base64::Engine as _;
    match scheme {
        SchemeName::GitHub | SchemeName::Hmac => zen_core::id::encode_hex(tag, &mut out[..64]),
        SchemeName::StandardWebhooks => {
            let written = base64::engine::general_purpose::STANDARD.encode_slice(tag, &mut out[..44]);
            assert_eq!(written, Ok(44), "32 bytes are 44 digits");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::Sizes;
    use crate::signature::base64;

    const NOW_S: u64 = 1_790_000_000;

    fn endpoints() -> Vec<Endpoint> {
        SchemeName::ALL
            .iter()
            .map(|&scheme| {
                let secret = match scheme {
                    SchemeName::StandardWebhooks => format!("whsec_{}", base64(&[7; 32])),
                    SchemeName::GitHub | SchemeName::Hmac => "a secret".to_owned(),
                };
                Endpoint { id: format!("{:032x}", scheme as u8), scheme, secret }
            })
            .collect()
    }

    fn order(number: u64, sending: Sending) -> Order {
        Order { connection: 0, sending, number, due_ns: None }
    }

    #[test]
    fn requests_are_those_of_the_slow_way() {
        let endpoints = endpoints();
        for sizes in [Sizes::Realistic, Sizes::Fixed(1024)] {
            let samples = Samples::new(sizes).unwrap();
            let catalogue = Catalogue::new(&endpoints, &samples, 5);
            let mut batch = Batch::default();
            // Each round finds the memory of the one before.
            for numbers in [0..64, 64..128, 1_000_000..1_000_010_u64] {
                for number in numbers.clone() {
                    batch.add(&catalogue, order(number, Sending::New), NOW_S);
                }
                assert_eq!(batch.is_full(), numbers.end - numbers.start == 64);
                let drafts = batch.sign(Some(&catalogue));
                assert_eq!(drafts.len() as u64, numbers.end - numbers.start);
                for (number, draft) in numbers.zip(drafts) {
                    let endpoint = &endpoints[(number % 3) as usize];
                    let webhook = samples.webhook(endpoint, number / 3, &source_id(5, number));
                    let mut expected = Vec::new();
                    webhook.write(endpoint, HOST, NOW_S, &mut expected);
                    assert_eq!(draft.bytes, expected, "event {number}");
                    assert_eq!(catalogue.body(number), webhook.body);
                }
            }
        }
    }

    #[test]
    fn a_wrong_signature_differs_in_the_tag_alone() {
        let samples = Samples::new(Sizes::Fixed(1024)).unwrap();
        let catalogue = Catalogue::new(&endpoints(), &samples, 5);
        let mut batch = Batch::default();
        for number in 0..3 {
            batch.add(&catalogue, order(number, Sending::New), NOW_S);
            batch.add(&catalogue, order(number, Sending::BadSignature), NOW_S);
            batch.add_raw(order(number, Sending::Junk), b"junk");
            let [good, bad, junk] = batch.sign(Some(&catalogue)) else { panic!("three were added") };
            assert_eq!((good.bytes.len(), junk.bytes.as_slice()), (bad.bytes.len(), b"junk".as_slice()));
            let differing: Vec<usize> =
                (0..good.bytes.len()).filter(|&at| good.bytes[at] != bad.bytes[at]).collect();
            assert!((1..=2).contains(&differing.len()), "{differing:?}");
            assert!(differing.iter().all(|at| (good.tag_at..good.body_at).contains(at)), "{differing:?}");
        }
    }
}
