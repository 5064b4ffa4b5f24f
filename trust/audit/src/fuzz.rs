//! What the fuzz targets call: each parser, with what must hold of anything that it takes.

use crate::{
    Checkpoint, Digest, EntryProof, Export, Hash, LogKey, Note, Segment, SignatureKind, Trust, leaf_hash,
    segment_lines, verify_consistency, verify_export, verify_inclusion, verify_segments,
};

/// A note that is read is written as it was.
pub fn fuzz_note(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(note) = Note::parse(text) {
        assert_eq!(note.to_string(), text);
        if let Ok(checkpoint) = Checkpoint::parse(note.text()) {
            assert_eq!(checkpoint.text(), note.text());
        }
        assert!(!matches!(note.verify(&stranger(SignatureKind::Note)), Ok(Some(_))));
    }
    if let Ok(key) = LogKey::parse(text) {
        assert_eq!(LogKey::parse(&key.to_string()), Ok(key));
    }
}

/// A proof that is read is written as it was, and shows nothing for a log that nobody has the key of.
pub fn fuzz_entry_proof(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(proof) = EntryProof::parse(text) {
        assert_eq!(proof.to_string(), text);
        assert!(proof.verify(data, &stranger(SignatureKind::Note)).is_err());
    }
}

/// An export that is read holds what its text holds, and is anchored by nobody.
pub fn fuzz_export(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(export) = Export::parse(text) else { return };
    assert_eq!(Export::parse(&export.text()).as_ref(), Ok(&export));
    let witnesses = vec![stranger(SignatureKind::Cosignature)];
    let trust = Trust { log: stranger(SignatureKind::Note), witnesses, quorum: 1 };
    let finding = verify_export(&export, &trust);
    assert_eq!((finding.anchored, finding.signed), (0, 0));
}

/// No hashes lead to a root that nobody made.
pub fn fuzz_proof(data: &[u8]) {
    let Some((sizes, rest)) = data.split_first_chunk::<16>() else { return };
    let [first, second] = [&sizes[..8], &sizes[8..]].map(|bytes| {
        let bytes = bytes.try_into().expect("eight bytes were taken");
        u64::from_be_bytes(bytes)
    });
    let hashes: Vec<Hash> = rest.as_chunks::<32>().0.iter().copied().map(Hash).collect();
    let root = Hash([7; 32]);
    assert!(verify_inclusion(&leaf_hash(data), (first, second), &hashes, &root).is_err());
    if first != second {
        assert!(verify_consistency((first, &leaf_hash(data)), (second, &root), &hashes).is_err());
    }
}

/// A digest that is read is written as it was, and is of no segment that nobody signed; lines are all of the bytes.
pub fn fuzz_segment(data: &[u8]) {
    let (lines, torn) = segment_lines(data);
    let mut segment = Segment::new(0, 0);
    let mut bytes = torn.len();
    for line in lines {
        assert!(!line.contains(&b'\n'));
        segment.handle_line(line, 0);
        bytes += line.len() + 1;
    }
    assert_eq!(bytes, data.len());
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(digest) = Digest::parse(text) {
        assert_eq!(digest.text(), text);
        assert!(Checkpoint::parse(text).is_err(), "it is one or the other");
    }
    if let Ok(note) = Note::parse(text) {
        let finding = verify_segments(&[note], [(0, data)], &stranger(SignatureKind::Note));
        assert_eq!(finding.verified, 0);
        assert!(finding.fault.is_some());
    }
}

fn stranger(kind: SignatureKind) -> LogKey {
    LogKey::new("nobody.example/log", kind, [3; 32]).expect("it is a name")
}
