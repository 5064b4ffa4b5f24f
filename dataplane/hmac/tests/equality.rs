//! RFC 4231 vectors, and equality with aws-lc-rs over key sizes, message sizes and splits.

use proptest::prelude::*;
use zen_hmac::{Job, PreparedKey, Tag, sha256, sign_jobs, tags_equal};

fn oracle(secret: &[u8], message: &[u8]) -> Vec<u8> {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
    aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
}

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed) ^ (at >> 8) as u8).collect()
}

fn hex(text: &str) -> Vec<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("a hex digit") as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
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
    for (number, (secret, message, tag)) in cases.iter().enumerate() {
        let expected = hex(tag);
        let signed = PreparedKey::new(secret).sign(&[message]);
        assert_eq!(signed[0][..expected.len()], expected, "case {}", number + 1);
    }
}

#[test]
fn every_key_size_around_the_block_size() {
    for len in (0..=200).chain([255, 256, 1000, 4096]) {
        let (secret, message) = (bytes(3, len), bytes(5, len * 7 % 300));
        assert_eq!(PreparedKey::new(&secret).sign(&[&message])[0][..], oracle(&secret, &message), "{len}");
    }
}

#[test]
fn every_message_size_around_two_blocks() {
    let key = PreparedKey::new(b"secret");
    let messages: Vec<_> = (0..=300).map(|len| bytes(9, len)).collect();
    let borrowed: Vec<_> = messages.iter().map(Vec::as_slice).collect();
    for (message, tag) in messages.iter().zip(key.sign(&borrowed)) {
        assert_eq!(tag[..], oracle(b"secret", message), "{}", message.len());
    }
}

#[test]
fn verification_sees_each_bit() {
    let key = PreparedKey::new(b"secret");
    let tag = key.sign(&[b"message"])[0];
    assert!(key.verify(b"message", &tag) && tags_equal(&tag, &tag));
    assert!(!key.verify(b"messagf", &tag));
    for bit in 0..256 {
        let mut other = tag;
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(!key.verify(b"message", &other), "bit {bit}");
    }
}

#[test]
fn nothing_of_a_key_is_shown() {
    assert_eq!(format!("{:?}", PreparedKey::new(b"secret")), "PreparedKey(..)");
}

#[test]
fn sha256_of_abc() {
    assert_eq!(sha256(b"abc")[..], hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn batches_equal_the_oracle(
        jobs in proptest::collection::vec((0_usize..4, 0_usize..9000, 0_usize..9000, any::<u8>()), 0..20),
        key_lens in proptest::array::uniform4(0_usize..300),
    ) {
        let secrets = key_lens.map(|len| bytes(len as u8, len));
        let keys = secrets.each_ref().map(|secret| PreparedKey::new(secret));
        let messages: Vec<_> = jobs.iter().map(|job| (bytes(job.3, job.1), job.2.min(job.1))).collect();
        let batch: Vec<_> = jobs
            .iter()
            .zip(&messages)
            .map(|(job, (message, split))| {
                let (head, body) = message.split_at(*split);
                Job { key: &keys[job.0], parts: [head, body] }
            })
            .collect();
        let mut tags: Vec<Tag> = vec![[9; 32]; 3];
        sign_jobs(&batch, &mut tags);
        prop_assert_eq!(tags.len(), jobs.len());
        for ((job, (message, _)), tag) in jobs.iter().zip(&messages).zip(&tags) {
            prop_assert_eq!(&tag[..], &oracle(&secrets[job.0], message)[..]);
        }
        for ((message, split), (job, tag)) in messages.iter().zip(jobs.iter().zip(&tags)) {
            let mut running = keys[job.0].start();
            running.update(&message[..*split]);
            running.update(&message[*split..]);
            prop_assert_eq!(&running.finish(), tag);
            prop_assert!(keys[job.0].verify(message, tag));
        }
        let again = tags.clone();
        sign_jobs(batch.iter().copied(), &mut tags);
        prop_assert_eq!(again, tags);
    }
}
