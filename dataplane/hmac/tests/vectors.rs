//! Published vectors, by every kernel that this processor has: RFC 4231, NIST CAVP, Wycheproof.

mod support;

use support::{engines, fixture, hex};
use zen_hmac::{Job, PreparedKey, sha256, tags_equal};

/// A secret, a message, and the first bytes of the tag, which a vector may have truncated.
type Vector = (Vec<u8>, Vec<u8>, Vec<u8>);

/// Signs all of them as one batch with each engine, and looks whether `expected` holds for each.
fn check(vectors: &[Vector], expected: impl Fn(usize) -> bool) {
    let keys: Vec<_> = vectors.iter().map(|vector| PreparedKey::new(&vector.0)).collect();
    let jobs: Vec<_> = keys
        .iter()
        .zip(vectors)
        .map(|(key, (_, message, _))| {
            let (head, body) = message.split_at(message.len() / 3);
            Job { key, parts: [head, body] }
        })
        .collect();
    for (name, engine) in engines() {
        let mut tags = Vec::new();
        engine.sign_jobs(&jobs, &mut tags);
        assert_eq!(tags.len(), vectors.len());
        for (at, (tag, (_, _, published))) in tags.iter().zip(vectors).enumerate() {
            assert_eq!(tag.starts_with(published), expected(at), "{name}, vector {at}");
        }
    }
}

/// RFC 4231 section 4, cases 1 to 7 (5 is a truncated tag).
#[test]
fn rfc_4231() {
    let cases: [(Vec<u8>, Vec<u8>, &str); 7] = [
        (
            vec![0x0b; 20],
            b"Hi There".to_vec(),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        ),
        (
            b"Jefe".to_vec(),
            b"what do ya want for nothing?".to_vec(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (vec![0xaa; 20], vec![0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (
            (1..=25).collect(),
            vec![0xcd; 50],
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
        ),
        (vec![0x0c; 20], b"Test With Truncation".to_vec(), "a3b6167473100ee06e0c796c2955552b"),
        (
            vec![0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (
            vec![0xaa; 131],
            b"This is a test using a larger than block-size key and a larger than block-size data. \
              The key needs to be hashed before being used by the HMAC algorithm."
                .to_vec(),
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
        ),
    ];
    check(&cases.map(|(secret, message, tag)| (secret, message, hex(tag))), |_| true);
}

#[test]
fn nist_hmac() {
    let vectors: Vec<Vector> = fixture(include_str!("fixtures/nist_hmac_sha256.txt"))
        .iter()
        .map(|fields| (hex(fields[0]), hex(fields[1]), hex(fields[2])))
        .collect();
    assert_eq!(vectors.len(), 4);
    check(&vectors, |_| true);
}

#[test]
fn wycheproof() {
    let lines = fixture(include_str!("fixtures/wycheproof_hmac_sha256.txt"));
    assert_eq!(lines.len(), 174);
    let vectors: Vec<Vector> =
        lines.iter().map(|fields| (hex(fields[2]), hex(fields[3]), hex(fields[4]))).collect();
    check(&vectors, |at| lines[at][1] == "valid");
    let mut refused = 0;
    for (fields, (secret, message, tag)) in lines.iter().zip(&vectors) {
        let Ok(tag) = tag.as_slice().try_into() else { continue };
        let key = PreparedKey::new(secret);
        assert_eq!(key.verify(message, &tag), fields[1] == "valid", "vector {}", fields[0]);
        assert_eq!(tags_equal(&key.sign(&[message])[0], &tag), fields[1] == "valid");
        refused += usize::from(fields[1] == "invalid");
    }
    assert!(refused > 40, "only {refused} full tags are wrong");
}

#[test]
fn nist_sha256() {
    let vectors = fixture(include_str!("fixtures/nist_sha256.txt"));
    assert_eq!(vectors.len(), 69);
    for fields in vectors {
        assert_eq!(sha256(&hex(fields[0]))[..], hex(fields[1]), "{} bytes", fields[0].len() / 2);
    }
}
