//! Notes, keys, checkpoints and proofs as text: published examples, every cut, and what is not of the one form.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{Log, key, log_key, witness_key};
use zen_audit::{
    Checkpoint, CheckpointError, EntryProof, Hash, KeyError, LogKey, Note, NoteError, ProofError,
    ProofTextError, SignatureKind, inclusion_proof,
};

/// The example of the signed-note specification.
const POEM: &str = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n\
— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";
/// The example of the cosignature specification.
const COSIGNED: &str = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n\
— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

fn note() -> Note {
    let mut note = Log::of(5).checkpoint();
    note.sign(&witness_key(1), 1_790_000_000);
    note
}

#[test]
fn published_examples_are_read_and_written_alike() {
    for text in [POEM, COSIGNED] {
        assert_eq!(Note::parse(text).unwrap().to_string(), text);
    }
    let poem = Note::parse(POEM).unwrap();
    assert!(poem.text().ends_with("\n\ned è subito sera.\n"));
    let cosigned = Note::parse(COSIGNED).unwrap();
    let checkpoint = Checkpoint::parse(cosigned.text()).unwrap();
    assert_eq!((checkpoint.origin.as_str(), checkpoint.size), ("example.com/behind-the-sofa", 20_852_163));
    assert_eq!(checkpoint.text(), cosigned.text());
    let names: Vec<_> = cosigned.signatures().iter().map(|one| (one.name.as_str(), one.key_id)).collect();
    assert_eq!(
        names,
        [("example.com/behind-the-sofa", 0x033d_e0ae), ("witness.example.com/w1", 0x8d66_cf3f)]
    );
}

#[test]
fn no_cut_and_no_changed_byte_is_believed() {
    let (note, log, witness) = (note(), log_key(), witness_key(1));
    let text = note.to_string();
    let is_believed = |text: &str| {
        let Ok(note) = Note::parse(text) else { return false };
        let is_log = Checkpoint::verify(&note, log.public()).is_ok();
        is_log && note.verify(witness.public()).is_ok_and(|time| time == Some(1_790_000_000))
    };
    assert!(is_believed(&text));
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        assert!(!is_believed(&text[..end]), "cut at {end}");
    }
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            assert!(!is_believed(&changed), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn what_is_not_of_the_form_is_refused() {
    let long = format!("{}\n\n— a AAAAAAA=\n", "x".repeat(64 * 1024));
    let many = format!("text\n\n{}", "— a AAAAAAA=\n".repeat(257));
    for (text, error) in [
        ("", NoteError::Form),
        ("text\n", NoteError::Form),
        ("text\n\n", NoteError::Form),
        ("text\n\n\n", NoteError::Form),
        ("text\n— a AAAAAAA=\n", NoteError::Form),
        ("text\n\n— a AAAAAAA=", NoteError::Form),
        ("text\n\n- a AAAAAAA=\n", NoteError::Form),
        ("text\n\n—a AAAAAAA=\n", NoteError::Form),
        ("text\n\n—  AAAAAAA=\n", NoteError::Form),
        ("text\n\n— a+b AAAAAAA=\n", NoteError::Form),
        ("text\n\n— a b AAAAAAA=\n", NoteError::Form),
        ("text\n\n— a\u{a0}b AAAAAAA=\n", NoteError::Form),
        ("text\n\n— a AAAAAA==\n", NoteError::Form),
        ("text\n\n— a AAAAAAB=\n", NoteError::Form),
        ("text\n\n— a AAAAAAA\n", NoteError::Form),
        ("text\n\n— a AAAAAAA=\r\n", NoteError::Form),
        ("te\rxt\n\n— a AAAAAAA=\n", NoteError::Form),
        ("te\0xt\n\n— a AAAAAAA=\n", NoteError::Form),
        (&long, NoteError::Length),
        (&many, NoteError::Length),
    ] {
        assert_eq!(Note::parse(text), Err(error), "{text:.60?}");
    }
    assert!(Note::parse("text\n\n— a AAAAAAA=\n").is_ok(), "the others break one thing each");
}

#[test]
fn who_is_not_known_is_ignored_and_who_is_known_must_be_right() {
    let (mut note, log) = (note(), log_key());
    let stranger = key("acme.example/log", SignatureKind::Note, 77);
    assert_eq!(note.verify(stranger.public()), Ok(None), "the same name, another key");
    assert_eq!(Checkpoint::verify(&note, stranger.public()), Err(CheckpointError::Note(NoteError::Unsigned)));
    let renamed = key("acme.example/other", SignatureKind::Note, 1);
    assert_eq!(note.verify(renamed.public()), Ok(None), "the same key, another name");
    // A key that signs for another log's name is not that log.
    let mut foreign =
        Note::new(Checkpoint { origin: "other".into(), size: 0, root: Hash::of_nothing() }.text());
    foreign.sign(&log, 0);
    assert_eq!(Checkpoint::verify(&foreign, log.public()), Err(CheckpointError::Origin));
    // A log's signature is no cosignature, though key and name are the same.
    let cosigner = key("acme.example/log", SignatureKind::Cosignature, 1);
    assert_ne!(cosigner.public().id(), log.public().id());
    assert_eq!(note.verify(cosigner.public()), Ok(None));
    let mut wrong = note.signatures()[0].clone();
    wrong.signature[0] ^= 1;
    note.add(wrong);
    assert_eq!(note.verify(log.public()), Err(NoteError::Signature));
    assert_eq!(note.signatures().len(), 2, "a key has one signature");
}

#[test]
fn a_time_that_was_changed_is_no_cosignature() {
    let mut note = note();
    let mut later = note.signatures()[1].clone();
    later.signature[7] ^= 1;
    note.add(later.clone());
    assert_eq!(note.verify(witness_key(1).public()), Err(NoteError::Signature));
    later.signature.truncate(7);
    note.add(later);
    assert_eq!(note.verify(witness_key(1).public()), Err(NoteError::Signature));
}

#[test]
fn checkpoints_have_one_form() {
    let root = Hash::of_nothing().to_string();
    assert!(Checkpoint::parse(&format!("a\n0\n{root}\n")).is_ok());
    for text in [
        String::new(),
        format!("a\n0\n{root}"),
        format!("\n0\n{root}\n"),
        format!("a\n00\n{root}\n"),
        format!("a\n01\n{root}\n"),
        format!("a\n+1\n{root}\n"),
        format!("a\n-1\n{root}\n"),
        format!("a\n\n{root}\n"),
        format!("a\n4611686018427387905\n{root}\n"),
        format!("a\n18446744073709551616\n{root}\n"),
        format!("a\n1\n{}\n", &root[..43]),
        format!("a\n1\n{root} \n"),
        format!("a\n1\n{root}\nmore\n"),
    ] {
        assert_eq!(Checkpoint::parse(&text), Err(CheckpointError::Form), "{text:?}");
    }
}

#[test]
fn keys_have_one_form() {
    let text = log_key().public().to_string();
    assert_eq!(LogKey::parse(&text).unwrap(), *log_key().public());
    let (name, rest) = text.split_once('+').unwrap();
    let (id, data) = rest.split_once('+').unwrap();
    for (text, error) in [
        (format!("{name}+{id}"), KeyError::Form),
        (format!("+{id}+{data}"), KeyError::Form),
        (format!("a b+{id}+{data}"), KeyError::Form),
        (format!("{name}+{id}+{}", &data[4..]), KeyError::Kind),
        (format!("{name}+00000000+{data}"), KeyError::Id),
        (format!("{name}+{}+{data}", id.to_uppercase()), KeyError::Id),
        (format!("{name}x+{id}+{data}"), KeyError::Id),
        (format!("{name}+{id}+AQ=="), KeyError::Form),
        (format!("{name}+{id}+"), KeyError::Form),
    ] {
        assert_eq!(LogKey::parse(&text), Err(error), "{text}");
    }
}

#[test]
fn a_proof_stands_alone() {
    let log = Log::of(11);
    let hashes = inclusion_proof(&log.tree, 6, 11).unwrap();
    let proof = EntryProof { index: 6, hashes, checkpoint: log.checkpoint() };
    let text = proof.to_string();
    assert_eq!(EntryProof::parse(&text), Ok(proof.clone()));
    assert_eq!(proof.verify(&log.entries[6], log_key().public()).unwrap().size, 11);
    assert_eq!(
        proof.verify(&log.entries[5], log_key().public()),
        Err(ProofTextError::Proof(ProofError::Root))
    );
    for (from, to) in [
        ("index 6", "index 06"),
        ("index 6", "index +6"),
        ("index 6", "index"),
        ("@v1", "@v2"),
        ("index 6\n", "extra AA==\nindex 6\n"),
        ("index 6\n", "index 6\n \n"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        assert_eq!(EntryProof::parse(&changed), Err(ProofTextError::Form), "{to:?}");
    }
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        let cut = EntryProof::parse(&text[..end]);
        assert!(cut.is_err(), "cut at {end}");
    }
    let first = EntryProof { index: 0, hashes: Vec::new(), checkpoint: Log::of(1).checkpoint() };
    assert_eq!(EntryProof::parse(&first.to_string()), Ok(first), "one entry needs no hashes");
}
