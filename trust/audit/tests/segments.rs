//! Segments and their digests: what somebody does to the files who may write them, and who has the key too; then what holds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::key;
use zen_audit::{
    Digest, DigestError, Hash, Note, NoteError, Segment, SegmentFault, SegmentFinding, SignatureKind,
    SigningKey, segment_lines, verify_segments,
};

const SEGMENTS: u64 = 4;
const LINES: u64 = 5;

fn writer() -> SigningKey {
    key("spiffe://acme.example/clusters/edge/inside", SignatureKind::Note, 9)
}

/// Files as a writer leaves them.
#[derive(Clone)]
struct Files {
    segments: Vec<(u64, Vec<u8>)>,
    digests: Vec<Note>,
}

fn line(sequence: u64) -> String {
    format!("{{\"sequence\":{sequence},\"outcome\":\"delivered\"}}\n")
}

/// Segments under `key`, all closed but the last.
fn files_of(key: &SigningKey, line: impl Fn(u64) -> String) -> Files {
    let (mut files, mut before) = (Files { segments: Vec::new(), digests: Vec::new() }, None);
    for _ in 0..SEGMENTS {
        let (mut segment, mut bytes) = (Segment::behind(before.as_ref()), Vec::new());
        for _ in 0..LINES {
            let (line, time_ms) = (line(segment.next_sequence()), 1_000 + segment.next_sequence());
            segment.handle_line(line.trim_end_matches('\n').as_bytes(), time_ms);
            bytes.extend_from_slice(line.as_bytes());
        }
        files.segments.push((segment.number(), bytes));
        if segment.number() + 1 < SEGMENTS {
            let digest = segment.digest(key.public().name(), before.as_ref());
            files.digests.push(digest.sign(key));
            before = Some(digest);
        }
    }
    files
}

fn files() -> Files {
    files_of(&writer(), line)
}

fn found(files: &Files) -> SegmentFinding {
    let segments = files.segments.iter().map(|(number, bytes)| (*number, bytes));
    let finding = verify_segments(&files.digests, segments, writer().public());
    assert!(finding.first <= finding.verified, "{finding:?}");
    finding
}

#[track_caller]
fn refused(verified: u64, fault: SegmentFault, change: impl FnOnce(&mut Files)) {
    let mut files = files();
    change(&mut files);
    let finding = found(&files);
    assert_eq!((finding.fault, finding.verified), (Some(fault), verified), "{fault}");
}

#[test]
fn what_is_whole_is_verified_up_to_the_last_digest() {
    let mut files = files();
    let whole = SegmentFinding { first: 0, verified: 15, unsigned: 5, fault: None };
    assert_eq!(found(&files), whole);
    files.segments[3].1.extend_from_slice(b"{\"torn");
    assert_eq!(found(&files), whole, "a line that is being written is no line yet");
    files.segments.drain(..2);
    assert_eq!(found(&files), SegmentFinding { first: 10, ..whole }, "the oldest segments were let go");
    files.digests.drain(..1);
    assert_eq!(found(&files), SegmentFinding { first: 10, ..whole }, "and some of their digests");
    files.segments.drain(..1);
    assert_eq!(found(&files), SegmentFinding { first: 15, ..whole }, "only what is written now is left");
    let nothing = Files { segments: Vec::new(), digests: Vec::new() };
    assert_eq!(found(&nothing), SegmentFinding::default());
}

#[test]
fn lines_are_those_that_were_signed() {
    let edit = |files: &mut Files| files.segments[1].1[14] ^= 1;
    refused(5, SegmentFault::Root { segment: 1 }, edit);
    let swap = |files: &mut Files| {
        let text = String::from_utf8(files.segments[2].1.clone()).unwrap();
        let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
        lines.swap(1, 3);
        files.segments[2].1 = lines.concat().into_bytes();
    };
    refused(10, SegmentFault::Root { segment: 2 }, swap);
    let bytes = line(0).len();
    let delete = |files: &mut Files| drop(files.segments[0].1.drain(..bytes));
    refused(0, SegmentFault::Lines { segment: 0, lines: 4, signed: 5 }, delete);
    let again = |files: &mut Files| files.segments[2].1.extend_from_slice(line(14).as_bytes());
    refused(10, SegmentFault::Lines { segment: 2, lines: 6, signed: 5 }, again);
    let swap_files = |files: &mut Files| {
        let first = files.segments[0].1.clone();
        files.segments[0].1 = std::mem::replace(&mut files.segments[1].1, first);
    };
    refused(0, SegmentFault::Root { segment: 0 }, swap_files);
}

#[test]
fn a_segment_cut_at_any_byte_is_found() {
    let whole = files();
    for end in 0..whole.segments[2].1.len() {
        let mut files = whole.clone();
        files.segments[2].1.truncate(end);
        let finding = found(&files);
        let is_found = matches!(finding.fault, Some(SegmentFault::Lines { segment: 2, signed: 5, .. }));
        assert!(is_found && finding.verified == 10, "{end}: {finding:?}");
    }
}

#[test]
fn no_segment_between_others_is_missing() {
    refused(5, SegmentFault::Missing { segment: 1 }, |files| drop(files.segments.remove(1)));
    refused(10, SegmentFault::Missing { segment: 2 }, |files| files.segments.truncate(2));
    refused(0, SegmentFault::Missing { segment: 2 }, |files| files.segments.clear());
    refused(10, SegmentFault::Missing { segment: 2 }, |files| drop(files.segments.remove(2)));
}

#[test]
fn digests_continue_one_another() {
    refused(0, SegmentFault::Chain { segment: 2 }, |files| drop(files.digests.remove(1)));
    refused(0, SegmentFault::Chain { segment: 0 }, |files| files.digests.swap(0, 1));
    refused(0, SegmentFault::Chain { segment: 0 }, |files| files.digests.insert(1, files.digests[0].clone()));
    refused(10, SegmentFault::Undigested { segment: 2 }, |files| drop(files.digests.pop()));
    // The first digest leaves with its segment there: nobody vouches for those lines any more.
    refused(0, SegmentFault::Undigested { segment: 0 }, |files| drop(files.digests.remove(0)));
    let other = files_of(&writer(), |sequence| line(sequence + 1));
    let replace = |files: &mut Files| files.digests[1] = other.digests[1].clone();
    refused(0, SegmentFault::Chain { segment: 1 }, replace);
}

#[test]
fn only_its_writer_s_digests_count() {
    let not = |index, source| SegmentFault::Digest { index, source };
    let stranger = key(writer().public().name(), SignatureKind::Note, 10);
    let forged = files_of(&stranger, line).digests;
    refused(0, not(1, NoteError::Unsigned.into()), |files| files.digests[1] = forged[1].clone());
    let renamed = |files: &mut Files| {
        let mut digest = Digest::parse(files.digests[2].text()).unwrap();
        digest.origin = "spiffe://acme.example/clusters/other/inside".to_owned();
        files.digests[2] = digest.sign(&writer());
    };
    refused(0, not(2, DigestError::Origin), renamed);
    let stolen = |files: &mut Files| {
        let signature = files.digests[0].signatures()[0].clone();
        let mut digest = Digest::parse(files.digests[0].text()).unwrap();
        digest.root = Hash::of_nothing();
        files.digests[0] = Note::new(digest.text());
        files.digests[0].add(signature);
    };
    refused(0, not(0, NoteError::Signature.into()), stolen);
    // Whoever has the key writes all of it anew: the files say nothing of it, the hash kept elsewhere does.
    let (whole, anew) = (files(), files_of(&writer(), |sequence| line(sequence + 1)));
    assert_eq!(found(&anew).fault, None);
    let newest = |files: &Files| Digest::parse(files.digests.last().unwrap().text()).unwrap().hash();
    assert_ne!(newest(&whole), newest(&anew));
}

#[test]
fn a_digest_has_one_form() {
    let text = files().digests[1].text().to_owned();
    let digest = Digest::parse(&text).unwrap();
    assert_eq!((digest.segment, digest.first, digest.count), (1, 5, 5));
    assert_eq!((digest.from_ms, digest.to_ms), (1_005, 1_009));
    assert_eq!(digest.text(), text);
    assert!(
        text.starts_with("spiffe://acme.example/clusters/edge/inside\nzen-receipts-digest-v1\nsegment 1\n")
    );
    for (from, to) in [
        ("segment 1", "segment 01"),
        ("segment 1", "segment +1"),
        ("segment 1", "segment"),
        ("segment 1", "segment 4611686018427387905"),
        ("count 5", "count  5"),
        ("count 5\n", ""),
        ("first 5\ncount 5", "count 5\nfirst 5"),
        ("-v1", "-v2"),
        ("spiffe://acme.example/clusters/edge/inside", ""),
        ("root ", "root A"),
        ("=\nprevious", "\nprevious"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        assert_eq!(Digest::parse(&changed), Err(DigestError::Form), "{to}");
    }
    assert_eq!(Digest::parse(&format!("{text}more 1\n")), Err(DigestError::Form));
    for end in 0..text.len() {
        assert_eq!(Digest::parse(&text[..end]), Err(DigestError::Form), "{end}");
    }
}

#[test]
fn an_hour_without_lines_is_said_too() {
    let empty = Segment::behind(None).digest("lockd/host", None);
    assert_eq!((empty.count, empty.from_ms, empty.to_ms, empty.root), (0, 0, 0, Hash::of_nothing()));
    let next = Segment::behind(Some(&empty));
    assert_eq!((next.number(), next.count(), next.next_sequence()), (1, 0, 0));
}

#[test]
fn lines_end_with_their_line_feed() {
    for (bytes, expected, torn) in [
        (&b""[..], &[][..], &b""[..]),
        (b"a\nb\n", &[&b"a"[..], b"b"], b""),
        (b"a\nb", &[&b"a"[..]], b"b"),
        (b"\n\n", &[&b""[..], b""], b""),
        (b"a\r\n", &[&b"a\r"[..]], b""),
        (b"torn", &[], b"torn"),
    ] {
        let (lines, left) = segment_lines(bytes);
        assert_eq!((lines.collect::<Vec<_>>(), left), (expected.to_vec(), torn));
    }
}
