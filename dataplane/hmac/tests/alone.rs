//! aws-lc-rs for messages without company: alone in its process, as keys are prepared for the engine of the process.

mod support;

use support::{bytes, oracle};
use zen_hmac::{Engine, Job, Kernel, PreparedKey, install, sign_jobs};

#[test]
fn messages_without_company_get_the_same_tags() {
    install(Engine::forced(Kernel::OneAwsLc).expect("runs everywhere")).expect("the first");
    assert_eq!(zen_hmac::engine().kernels().collect::<Vec<_>>(), [(Kernel::OneAwsLc, 1)]);
    for secret_bytes in [0, 1, 32, 63, 64, 65, 200] {
        let secret = bytes(3, secret_bytes);
        let key = PreparedKey::new(&secret);
        for length in (0..=260).chain([1000, 4096]) {
            let message = bytes(length as u8, length);
            let (head, body) = message.split_at(length * 37 % (length + 1));
            let mut tags = vec![[9; 32]];
            sign_jobs([Job { key: &key, parts: [head, body] }], &mut tags);
            assert_eq!(tags.len(), 1);
            assert_eq!(tags[0][..], rust_crypto(&secret, &message), "{length} bytes");
            let mut running = key.start();
            running.update(head);
            running.update(body);
            assert_eq!(running.finish(), tags[0], "{length} bytes in pieces");
            assert!(key.verify(&message, &tags[0]));
            tags[0][length % 32] ^= 1;
            assert!(!key.verify(&message, &tags[0]), "a changed tag");
        }
    }
    assert_eq!(oracle(b"k", b"m"), rust_crypto(b"k", b"m"));
    assert!(!format!("{:?}", PreparedKey::new(b"hidden")).contains("hidden"));
}

/// The other oracle is aws-lc-rs itself.
fn rust_crypto(secret: &[u8], message: &[u8]) -> Vec<u8> {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mut running = Hmac::<sha2::Sha256>::new_from_slice(secret).expect("keys of any length");
    running.update(message);
    running.finalize().into_bytes().to_vec()
}
