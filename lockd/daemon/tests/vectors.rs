//! The age vectors of C2SP/CCTV (fixtures/age): what the age crate makes of each, and that lockd gives a value for none.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use age::armor::{ArmoredReadError, ArmoredReader};
use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Identity, scrypt, x25519};
use aws_lc_rs::digest::{SHA256, digest};
use zen_lock::SecretName;
use zen_lockd::vault::{EnvelopeError, Expected, Identities, OpenError, open};

const VECTORS: usize = 143;
const AS_EXPECTED: usize = 122;
/// Above all vectors but the one that is to be refused for its work.
const WORK_FACTOR_MAX: u8 = 16;
const ARMOR_BEGIN: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
/// Begins identities of X25519 with ML-KEM-768, which the crate does not have.
const HYBRID: &str = "AGE-SECRET-KEY-PQ-";

/// Not run by the crate: it has no hybrid identities.
const SKIPPED: [&str; 18] = [
    "armor_hybrid",
    "hybrid",
    "hybrid_and_x25519",
    "hybrid_bad_tag",
    "hybrid_currupted_enc_mlkem",
    "hybrid_currupted_enc_x25519",
    "hybrid_extra_argument",
    "hybrid_grease",
    "hybrid_identity",
    "hybrid_long_file_key",
    "hybrid_long_share",
    "hybrid_low_order",
    "hybrid_multiple_recipients",
    "hybrid_no_match",
    "hybrid_not_canonical_body",
    "hybrid_not_canonical_enc",
    "hybrid_short_share",
    "hybrid_uppercase",
];

/// Where the crate differs, and what it does instead.
const DEVIATIONS: [(&str, Outcome); 3] = [
    // It looks for armor at the first byte only, so that space in front makes it a damaged binary file.
    ("armor_whitespace_outside", Outcome::ArmorFailure),
    // Stanzas of old versions of age had no body; the header's MAC covers them all the same.
    ("stanza_missing_body", Outcome::Success),
    // Stanzas of old versions of age had no short last line; the header's MAC covers them all the same.
    ("stanza_missing_final_line", Outcome::Success),
];

/// With a passphrase, and no passphrase files: three damaged headers, and a stanza of another kind.
const NOT_PASSPHRASE: [&str; 4] =
    ["scrypt_and_x25519", "scrypt_double", "scrypt_not_canonical_body", "scrypt_uppercase"];

/// What lockd says of the vectors, and of how many.
const VERDICTS: [(&str, usize); 6] = [
    ("damaged", 28),
    ("header", 49),
    ("length", 3),
    ("no envelope", 19),
    ("other keys", 22),
    ("passphrase", 22),
];

/// How an opening ends, in the words of the vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Success,
    NoMatch,
    HmacFailure,
    HeaderFailure,
    PayloadFailure,
    ArmorFailure,
}

/// One vector.
struct Vector {
    name: String,
    expect: Outcome,
    /// SHA-256 of all plaintext that may be given out, even if the end fails.
    payload: Option<String>,
    identities: Vec<String>,
    passphrases: Vec<String>,
    is_armored: bool,
    file: Vec<u8>,
}

#[test]
fn the_age_crate_does_what_the_vectors_say_but_for_known_deviations() {
    let (mut as_expected, mut skipped, mut deviations) = (0, Vec::new(), Vec::new());
    let vectors = vectors();
    assert_eq!(vectors.len(), VECTORS);
    for vector in &vectors {
        if vector.is_hybrid_only() {
            skipped.push(vector.name.as_str());
            continue;
        }
        let mut plaintext = Vec::new();
        let outcome = decrypt(vector, &mut plaintext);
        match &vector.payload {
            _ if outcome != vector.expect => deviations.push((vector.name.as_str(), outcome)),
            Some(payload) if *payload != sha256(&plaintext) => panic!("{}: another plaintext", vector.name),
            _ => as_expected += 1,
        }
    }
    assert_eq!(deviations, DEVIATIONS);
    assert_eq!(skipped, SKIPPED);
    assert_eq!(as_expected, AS_EXPECTED);
}

#[test]
fn lockd_gives_a_value_for_no_vector_and_says_why() {
    let mut verdicts = BTreeMap::new();
    for vector in vectors() {
        let verdict = lockd_says(&vector);
        let is_passphrase = !vector.passphrases.is_empty() && !NOT_PASSPHRASE.contains(&&*vector.name);
        assert_eq!(verdict == "passphrase", is_passphrase, "{}: {verdict}", vector.name);
        *verdicts.entry(verdict).or_insert(0) += 1;
    }
    assert_eq!(verdicts, BTreeMap::from(VERDICTS));
}

fn lockd_says(vector: &Vector) -> &'static str {
    let keys: Vec<&str> = vector.keys().collect();
    let keys = match keys[..] {
        [] => Identities::generate(),
        _ => Identities::parse(&keys.join("\n")).unwrap(),
    };
    let place = SecretName::parse("edge/webhooks/github").unwrap();
    let error = open(&vector.file, &keys, Expected { place: &place, authors: &[] }).unwrap_err();
    match error {
        OpenError::Length => "length",
        // Many a damaged header is an unknown version to the crate; lockd refuses both.
        OpenError::Header | OpenError::Version => "header",
        OpenError::Passphrase => "passphrase",
        OpenError::OtherKeys => "other keys",
        OpenError::Damaged => "damaged",
        OpenError::Envelope(EnvelopeError::Malformed { .. } | EnvelopeError::Length) => "no envelope",
        error => panic!("{}: {error}", vector.name),
    }
}

/// Opens a vector as lockd opens files, with passphrases beside its keys.
fn decrypt(vector: &Vector, plaintext: &mut Vec<u8>) -> Outcome {
    let keys: Vec<x25519::Identity> = vector.keys().map(|key| key.parse().unwrap()).collect();
    let passphrases: Vec<scrypt::Identity> = vector.passphrases.iter().map(|text| passphrase(text)).collect();
    let keys = keys.iter().map(|key| key as &dyn Identity);
    let all = keys.chain(passphrases.iter().map(|identity| identity as &dyn Identity));
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(&vector.file[..]));
    match decryptor.and_then(|decryptor| decryptor.decrypt(all)) {
        Err(error) => outcome_of(vector, error),
        Ok(mut reader) => match reader.read_to_end(plaintext) {
            Ok(_) => Outcome::Success,
            Err(error) if is_of_armor(&error) => Outcome::ArmorFailure,
            Err(_) => Outcome::PayloadFailure,
        },
    }
}

fn passphrase(text: &str) -> scrypt::Identity {
    let mut identity = scrypt::Identity::new(SecretString::from(text));
    identity.set_max_work_factor(WORK_FACTOR_MAX);
    identity
}

fn outcome_of(vector: &Vector, error: DecryptError) -> Outcome {
    // Armor whose first line is none is a damaged header to the crate: it cannot know that armor was meant.
    let is_no_armor = vector.is_armored && !vector.file.starts_with(ARMOR_BEGIN);
    match error {
        DecryptError::Io(error) if is_of_armor(&error) => Outcome::ArmorFailure,
        DecryptError::InvalidHeader if is_no_armor => Outcome::ArmorFailure,
        DecryptError::InvalidHeader
        | DecryptError::Io(_)
        | DecryptError::UnknownFormat
        | DecryptError::ExcessiveWork { .. } => Outcome::HeaderFailure,
        DecryptError::InvalidMac => Outcome::HmacFailure,
        DecryptError::NoMatchingKeys | DecryptError::DecryptionFailed => Outcome::NoMatch,
        error => panic!("{}: {error}", vector.name),
    }
}

fn is_of_armor(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<ArmoredReadError>()).is_some()
}

fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// All vectors, by name.
fn vectors() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/age/vectors");
    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names.into_iter().map(|name| Vector::parse(&fs::read(folder.join(&name)).unwrap(), name)).collect()
}

impl Vector {
    /// Lines of `key: value`, an empty line, the age file.
    fn parse(bytes: &[u8], name: String) -> Self {
        let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let body = &bytes[end + 2..];
        let all = |key: &str| {
            let pairs = head.lines().filter_map(|line| line.split_once(": "));
            pairs.filter(|pair| pair.0 == key).map(|pair| pair.1.to_owned()).collect::<Vec<_>>()
        };
        let expect = match &*all("expect")[0] {
            "success" => Outcome::Success,
            "no match" => Outcome::NoMatch,
            "HMAC failure" => Outcome::HmacFailure,
            "header failure" => Outcome::HeaderFailure,
            "payload failure" => Outcome::PayloadFailure,
            "armor failure" => Outcome::ArmorFailure,
            other => panic!("{name}: expects {other:?}"),
        };
        let payload = all("payload").pop();
        assert_eq!(payload.is_some(), matches!(expect, Outcome::Success | Outcome::PayloadFailure), "{name}");
        let file = match all("compressed").pop().as_deref() {
            None => body.to_vec(),
            Some("zeros") => with_zeros(body),
            Some(other) => panic!("{name}: compressed as {other}"),
        };
        let is_armored = all("armored") == ["yes"];
        let (identities, passphrases) = (all("identity"), all("passphrase"));
        Self { name, expect, payload, identities, passphrases, is_armored, file }
    }

    /// X25519 identities.
    fn keys(&self) -> impl Iterator<Item = &str> {
        self.identities.iter().map(String::as_str).filter(|identity| !identity.starts_with(HYBRID))
    }

    fn is_hybrid_only(&self) -> bool {
        !self.identities.is_empty() && self.keys().next().is_none()
    }
}

/// Pieces of: length of what follows, the bytes, and how many zeros come then; lengths are 32 bits, big-endian.
fn with_zeros(mut pieces: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    while !pieces.is_empty() {
        let literal = length(&mut pieces);
        file.extend(pieces.split_off(..literal).unwrap());
        let zeros = length(&mut pieces);
        file.resize(file.len() + zeros, 0);
    }
    file
}

fn length(pieces: &mut &[u8]) -> usize {
    let (length, rest) = pieces.split_first_chunk().unwrap();
    *pieces = rest;
    u32::from_be_bytes(*length) as usize
}
