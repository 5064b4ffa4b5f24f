//! Entry points for fuzzing: arbitrary bytes in, broken invariants out as panics.
#![doc(hidden)]

use crate::{ReplyHead, Request, SecretName};

/// An accepted name is its own text, and each part of it is one step down a directory.
pub fn fuzz_secret_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(name) = SecretName::parse(text) else { return };
    assert_eq!(name.as_str(), text);
    assert_eq!(format!("{}/{}/{}", name.namespace(), name.name(), name.key()), text);
    let path = std::path::Path::new(text);
    assert_eq!(path.components().count(), 3);
    assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
}

/// An accepted request is written as it was read.
pub fn fuzz_request(data: &[u8]) {
    let Some((head, rest)) = data.split_first_chunk() else { return };
    let Ok(length) = Request::decode_head(*head) else { return };
    let Some(body) = rest.get(..length) else { return };
    let Ok(request) = Request::decode(body) else { return };
    assert_eq!(request.encode(), data[..2 + length]);
}

/// An accepted head of a reply is written as it was read.
pub fn fuzz_reply_head(data: &[u8]) {
    let Some(head) = data.first_chunk() else { return };
    if let Ok(read) = ReplyHead::decode(*head) {
        assert_eq!(read.encode(), *head);
    }
}
