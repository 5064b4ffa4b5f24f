//! Fuzzing: hostile header values and bodies enter, over a toy cryptography that can be forged on purpose.
//! Asserts that whatever is accepted was signed, and that whatever was signed is accepted in any pieces.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{
    Encoding, Held, HmacSettings, Refusal, RequestView, SOURCE_ID_BYTES_MAX, Scheme, Started,
    TimestampSettings, TimestampUnit, Verified,
};
use crate::crypto::{HashAlgorithm, RunningMac, SignatureAlgorithm, SignatureVerifier, Tag};
use crate::id::encode_hex;

/// The clock of a fuzzed request.
const NOW_MS: u64 = 1_700_000_000_000;

/// Header lines of a request; a value need not be text.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub Vec<(String, Vec<u8>)>);

impl RequestView for Headers {
    fn method(&self) -> &'static str {
        "POST"
    }

    fn target(&self) -> &'static str {
        "/hooks/0123456789abcdef0123456789abcdef"
    }

    fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|line| line.0 == name)?;
        core::str::from_utf8(value).ok()
    }

    fn header_count(&self, name: &str) -> usize {
        self.0.iter().filter(|line| line.0 == name).count()
    }
}

/// Checks `body` in pieces of `piece` bytes, held whole, and released after its first piece; asserts one verdict.
pub fn run<'h, C: SignatureVerifier>(
    scheme: &Scheme,
    headers: &'h Headers,
    body: &[u8],
    (now_ms, piece): (u64, usize),
    crypto: &C,
) -> Result<Verified<'h>, Refusal> {
    let in_pieces = scheme.start(headers, now_ms, crypto).and_then(|mut check| {
        body.chunks(piece.max(1)).for_each(|bytes| check.update(bytes));
        let whole: &[u8] = if check.needs_whole_body() { body } else { &[] };
        scheme.finish(check, headers, whole, crypto)
    });
    let held = || match scheme.start_held(headers, now_ms, crypto) {
        Ok(Started::Held(held)) => Ok(Some(held)),
        Ok(Started::Running(_)) => Ok(None),
        Err(refusal) => Err(refusal),
    };
    match held() {
        Err(refusal) => assert_eq!(in_pieces, Err(refusal), "the head has one verdict"),
        Ok(None) => {}
        Ok(Some(held)) => {
            let expected = expected(scheme.held_secrets(), &held, body, crypto);
            assert_eq!(in_pieces, scheme.finish_held(&held, &expected, headers), "held whole");
        }
    }
    if let Ok(Some(held)) = held() {
        let (first, rest) = body.split_at(piece.min(body.len()));
        let mut check = scheme.release(&held, first, crypto);
        check.update(rest);
        assert_eq!(in_pieces, scheme.finish(check, headers, &[], crypto), "released after {piece} bytes");
    }
    in_pieces
}

/// What each secret gives for a held request.
pub fn expected<'s, C: SignatureVerifier>(
    secrets: impl Iterator<Item = &'s [u8]>,
    held: &Held,
    body: &[u8],
    crypto: &C,
) -> Vec<Tag> {
    let tag = |secret| {
        let mut running = crypto.hmac(HashAlgorithm::Sha256, secret);
        running.update(held.preamble());
        running.update(body);
        *running.finish().0.first_chunk().expect("a tag has 32 bytes")
    };
    secrets.map(tag).collect()
}

/// Reads `data` as: scheme, piece, which header to spoil and how, three header values and a body.
pub fn fuzz_verify(data: &[u8]) {
    let Some((&[scheme, piece, place, flip], rest)) = data.split_first_chunk() else { return };
    let mut fields = rest.splitn(4, |&byte| byte == b'\n');
    let mut field = || fields.next().unwrap_or_default();
    let hostile: [&[u8]; 3] = [field(), field(), field()];
    let body = field();
    let subject = Subject::new(scheme);

    let lines = subject.names.iter().zip(hostile).map(|(name, value)| ((*name).into(), value.to_vec()));
    let forged = Headers(lines.collect());
    let forged = subject.check(&forged, body, piece);
    assert!(forged.is_err(), "accepted what nobody signed");
    assert_ne!(forged, Err(Refusal::DoubledHeader));

    let honest = subject.sign(hostile[1], body);
    if !subject.allows(hostile[1]) {
        assert_eq!(subject.check(&honest, body, piece), Err(Refusal::MalformedSourceId));
        return;
    }
    let verified = subject.check(&honest, body, piece).expect("signed as the scheme says");
    assert_eq!(verified.secret_index, subject.index);
    assert_eq!(verified.source_id.map(str::as_bytes), Some(hostile[1]));

    let line = usize::from(place) % honest.0.len();
    let mut spoiled = honest.clone();
    let at = usize::from(flip) % spoiled.0[line].1.len();
    spoiled.0[line].1[at] ^= 1 << (place >> 5);
    assert!(subject.check(&spoiled, body, piece).is_err() || !subject.signs(line), "{spoiled:?}");
    let mut longer = body.to_vec();
    longer.push(flip);
    assert_eq!(subject.check(&honest, &longer, piece), Err(Refusal::Mismatch));
    let mut doubled = honest;
    doubled.0.push(doubled.0[line].clone());
    assert_eq!(subject.check(&doubled, body, piece), Err(Refusal::DoubledHeader));
}

/// A scheme, the secret to sign with, and the names of its headers: signature, id, timestamp.
struct Subject {
    scheme: Scheme,
    kind: Kind,
    index: usize,
    names: Vec<&'static str>,
}

enum Kind {
    GitHub,
    Standard,
    StandardPublicKey,
    Hmac,
}

const SECRETS: [[u8; 32]; 2] = [*b"an older secret of the endpoint.", *b"the newer secret of the endpoint"];

impl Subject {
    fn new(choice: u8) -> Self {
        let index = usize::from(choice >> 7);
        let bytes = SECRETS.map(Vec::from);
        let standard = vec!["webhook-signature", "webhook-id", "webhook-timestamp"];
        let (kind, scheme, names) = match choice % 4 {
            0 => (Kind::GitHub, Scheme::github(&bytes), vec!["x-hub-signature-256", "x-github-delivery"]),
            1 => (Kind::Standard, Scheme::standard_webhooks(&texts("whsec_")), standard),
            2 => (Kind::StandardPublicKey, Scheme::standard_webhooks(&texts("whpk_")), standard),
            _ => (Kind::Hmac, Scheme::hmac(settings(), &bytes), vec!["x-signature", "x-id", "x-time"]),
        };
        Self { scheme: scheme.expect("valid settings and secrets"), kind, index, names }
    }

    fn check<'h>(&self, headers: &'h Headers, body: &[u8], piece: u8) -> Result<Verified<'h>, Refusal> {
        run(&self.scheme, headers, body, (NOW_MS, usize::from(piece)), &Toy)
    }

    /// Whether a change of header line `line` must be refused.
    fn signs(&self, line: usize) -> bool {
        line != 1 || matches!(self.kind, Kind::Standard | Kind::StandardPublicKey)
    }

    /// Whether `id` may be the event id; the same rules, written a second time.
    fn allows(&self, id: &[u8]) -> bool {
        let full_stop = id.contains(&b'.') && self.signs(1);
        let printable = id.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        !id.is_empty() && id.len() <= SOURCE_ID_BYTES_MAX && printable && !full_stop
    }

    fn sign(&self, id: &[u8], body: &[u8]) -> Headers {
        let seconds = (NOW_MS / 1000).to_string();
        let message = match self.kind {
            Kind::GitHub => body.to_vec(),
            Kind::Standard | Kind::StandardPublicKey => [id, seconds.as_bytes(), body].join(&b'.'),
            Kind::Hmac => [seconds.as_bytes(), body].join(&b':'),
        };
        let mut running = Toy.hmac(HashAlgorithm::Sha256, &SECRETS[self.index]);
        running.update(&message);
        let tag = running.finish().0;
        let signature = match self.kind {
            Kind::GitHub => format!("sha256={}", hex(&tag[..32])),
            Kind::Standard => format!("v1,{}", STANDARD.encode(&tag[..32])),
            Kind::StandardPublicKey => format!("v1a,{}", STANDARD.encode(tag)),
            Kind::Hmac => format!("t={}", hex(&tag[..32])),
        };
        let values = [signature.into_bytes(), id.to_vec(), seconds.into_bytes()];
        Headers(self.names.iter().map(|name| (*name).into()).zip(values).collect())
    }
}

fn texts(prefix: &str) -> Vec<String> {
    SECRETS.iter().map(|secret| format!("{prefix}{}", STANDARD.encode(secret))).collect()
}

fn settings() -> HmacSettings {
    HmacSettings {
        algorithm: HashAlgorithm::Sha256,
        header: "X-Signature".into(),
        encoding: Encoding::Hex,
        prefix: "t=".into(),
        timestamp: Some(TimestampSettings {
            header: "X-Time".into(),
            unit: TimestampUnit::Seconds,
            separator: ":".into(),
            window_ms: 60_000,
        }),
        source_id_header: Some("X-Id".into()),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len() * 2];
    encode_hex(bytes, &mut text);
    String::from_utf8(text).expect("hex digits are ASCII")
}

/// FNV-1a of key and message, repeated to the length of a tag: sensitive to every bit, and no more.
struct Toy;

struct ToyMac(u64, usize);

impl SignatureVerifier for Toy {
    type Running = ToyMac;

    fn hmac(&self, algorithm: HashAlgorithm, secret: &[u8]) -> ToyMac {
        let mut running = ToyMac(0xcbf2_9ce4_8422_2325, super::claim::tag_bytes(algorithm));
        running.update(secret);
        running
    }

    fn verify(&self, _: SignatureAlgorithm, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let mut running = self.hmac(HashAlgorithm::Sha512, public_key);
        running.update(message);
        running.finish().0 == signature
    }
}

impl RunningMac for ToyMac {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(self) -> ([u8; 64], usize) {
        let mut tag = [0; 64];
        tag.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&self.0.to_be_bytes()));
        (tag, self.1)
    }
}
