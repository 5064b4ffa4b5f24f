//! The process' engine: alone in its process, as it is set once.

mod support;

use support::oracle;
use zen_hmac::{Engine, Job, Kernel, PreparedKey, engine, install, sign_jobs};

#[test]
fn the_installed_engine_signs_and_stays() {
    install(Engine::forced(Kernel::Portable).expect("runs everywhere")).expect("the first");
    assert_eq!(engine().kernels().count(), 0);
    let key = PreparedKey::new(b"secret");
    let messages: [&[u8]; 3] = [b"", b"one", &[7; 1000]];
    let mut tags = Vec::new();
    sign_jobs(messages.map(|message| Job { key: &key, parts: [message, &[]] }), &mut tags);
    for (message, tag) in messages.iter().zip(&tags) {
        assert_eq!(tag[..], oracle(b"secret", message));
    }
    let second = Engine::forced(Kernel::One).expect("runs everywhere");
    assert_eq!(install(second).expect_err("there is one").kernels().next(), Some((Kernel::One, 1)));
}
