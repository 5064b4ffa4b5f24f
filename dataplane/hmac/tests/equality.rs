//! Equality with aws-lc-rs over key sizes, message sizes and splits, and what a key and a comparison give away.

mod support;

use proptest::prelude::*;
use support::{bytes, oracle};
use zen_hmac::{Job, PreparedKey, Tag, sign_jobs, tags_equal};

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
