//! The files of receipts through crashes at each byte, full disks and bounds, checked as an auditor does.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use zen_audit::{Note, SegmentFinding, verify_segments};
use zen_core::journal::Sequence;
use zen_core::record::{Ending, OutcomeRecord};

use super::book::{Book, DIGESTS, Mark, segment_path};
use super::entry::{Act, Begin, Entry, Evidence, Receipt};
use super::recover::{open, segments};
use super::{OnFull, ReceiptsSettings, digests_behind, page};

const JOURNAL: [u8; 16] = [7; 16];

fn book(directory: &Path, bytes_max: u64) -> Book {
    let settings = ReceiptsSettings {
        bytes_max,
        on_full: OnFull::Wait,
        digest_interval_s: 3_600,
        digest_receipts_max: 1_000,
    };
    open(directory, "node/a", None, settings).unwrap()
}

fn begin() -> Entry {
    Entry::Begin(Begin { time_ms: 1_000, worker: 3, journal: JOURNAL, record: 5 })
}

fn act(number: u64) -> Entry {
    let (action, target) = ("targets.pause", format!("targets/{number}"));
    Entry::Act(Act { time_ms: 1_000 + number, action, uid: Some(1000), target, count: None })
}

fn outcome(record: u64) -> Entry {
    Entry::Outcome(Receipt {
        time_ms: 2_000,
        worker: 3,
        record: Sequence(record),
        event_record: Sequence(record - 1),
        event_id: None,
        target: Arc::from("demo"),
        outcome: OutcomeRecord::new(record - 1, 0, Ending::Delivered),
        replays: 0,
        evidence: Evidence::Gone,
    })
}

fn finding(book: &Book) -> SegmentFinding {
    let directory = &book.directory;
    let notes: Vec<Note> =
        digests_behind(directory, None, usize::MAX).unwrap().into_iter().map(|(_, note)| note).collect();
    let files = segments(directory)
        .unwrap()
        .into_iter()
        .map(|kept| (kept.number, fs::read(segment_path(directory, kept.number, kept.first)).unwrap()));
    verify_segments(&notes, files, book.key())
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

fn cut(path: &Path, end: usize) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(end as u64).unwrap();
}

#[test]
fn a_write_cut_at_any_byte_leaves_whole_lines() {
    let home = tempfile::tempdir().unwrap();
    let mut whole = book(home.path(), 1 << 20);
    whole.append(&[begin(), act(1)]).unwrap();
    whole.append(&[outcome(9), outcome(11)]).unwrap();
    let path = segment_path(home.path(), 0, 0);
    let text = fs::read(&path).unwrap();
    for end in 0..=text.len() {
        let crashed = copy(home.path());
        cut(&segment_path(crashed.path(), 0, 0), end);
        let mut again = book(crashed.path(), 1 << 20);
        let lines = zen_audit::segment_lines(&text[..end]).0.count() as u64;
        assert_eq!(again.next_sequence(), lines, "{end}");
        let record = [None, Some(5), Some(5), Some(9), Some(11)][lines as usize];
        assert_eq!(again.marks().get(&3).map(|mark| mark.record), record, "{end}");
        again.append(&[act(2)]).unwrap();
        again.close().unwrap();
        let all = lines + 1;
        assert_eq!(
            finding(&again),
            SegmentFinding { first: 0, verified: all, unsigned: 0, fault: None },
            "{end}"
        );
    }
}

#[test]
fn a_digest_cut_at_any_byte_is_signed_again() {
    let home = tempfile::tempdir().unwrap();
    let mut whole = book(home.path(), 1 << 20);
    whole.append(&[act(1)]).unwrap();
    whole.close().unwrap();
    let before = fs::read(home.path().join(DIGESTS)).unwrap().len();
    whole.append(&[act(2), act(3)]).unwrap();
    whole.close().unwrap();
    let end_of_all = fs::read(home.path().join(DIGESTS)).unwrap().len();
    for end in before..=end_of_all {
        let crashed = copy(home.path());
        cut(&crashed.path().join(DIGESTS), end);
        let mut again = book(crashed.path(), 1 << 20);
        assert_eq!(again.next_sequence(), 3, "{end}");
        again.append(&[act(4)]).unwrap();
        again.close().unwrap();
        assert_eq!(
            finding(&again),
            SegmentFinding { first: 0, verified: 4, unsigned: 0, fault: None },
            "{end}"
        );
    }
}

#[test]
fn the_oldest_segments_go_and_what_they_told_stays() {
    let home = tempfile::tempdir().unwrap();
    let mut kept = book(home.path(), 1 << 20);
    kept.append(&[begin(), outcome(77)]).unwrap();
    kept.close().unwrap();
    let mut written = 2;
    while segments(home.path()).unwrap()[0].number == 0 {
        let batch: Vec<Entry> = (0..500).map(act).collect();
        kept.append(&batch).unwrap();
        kept.close_if_due(2_000).unwrap();
        written += 500;
        let bytes: u64 = segments(home.path()).unwrap().iter().map(|kept| kept.bytes).sum();
        assert!(bytes <= 1 << 20, "{bytes}");
    }
    let again = book(home.path(), 1 << 20);
    assert_eq!(again.marks().get(&3), Some(&Mark { journal: JOURNAL, record: 77 }));
    let found = finding(&again);
    assert_eq!((found.fault, found.verified + found.unsigned), (None, written));
    let first = page(home.path(), 0, written, 3).unwrap();
    assert_eq!((first.first, first.lines.len()), (found.first, 3));
    assert!(found.first > 0 && first.lines[0].contains(&format!("\"sequence\":{},", found.first)));
}

#[test]
fn a_disk_that_takes_nothing_costs_no_line() {
    let home = tempfile::tempdir().unwrap();
    let mut full = book(home.path(), 1 << 20);
    full.append(&[act(1)]).unwrap();
    let file = std::mem::replace(&mut full.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert!(full.append(&[act(2), act(3)]).is_err());
    assert_eq!((full.next_sequence(), full.segment.count()), (1, 1));
    full.file = file;
    full.append(&[act(2), act(3)]).unwrap();
    full.close().unwrap();
    assert_eq!(finding(&full), SegmentFinding { first: 0, verified: 3, unsigned: 0, fault: None });
}

#[test]
fn a_segment_is_closed_by_its_lines_and_by_its_age() {
    let home = tempfile::tempdir().unwrap();
    let mut aging = book(home.path(), 1 << 20);
    aging.append(&[act(0)]).unwrap();
    aging.close_if_due(1_000 + 3_599_999).unwrap();
    assert_eq!(aging.segment.number(), 0);
    aging.close_if_due(1_000 + 3_600_000).unwrap();
    assert_eq!((aging.segment.number(), aging.segment.count()), (1, 0));
    aging.append(&(0..1_000).map(act).collect::<Vec<_>>()).unwrap();
    aging.close_if_due(2_000).unwrap();
    assert_eq!(aging.segment.number(), 2);
}

#[test]
fn what_somebody_changed_stops_the_start() {
    let home = tempfile::tempdir().unwrap();
    let mut honest = book(home.path(), 1 << 20);
    honest.append(&[begin(), act(1)]).unwrap();
    honest.close().unwrap();
    honest.append(&[act(2)]).unwrap();
    let refused = |directory: &Path| {
        let settings = honest.settings;
        open(directory, "node/a", None, settings).err().unwrap().to_string()
    };
    let without = copy(home.path());
    fs::remove_file(without.path().join(DIGESTS)).unwrap();
    assert!(refused(without.path()).contains("there is a segment without a digest before it"));
    let forged = copy(home.path());
    let text = fs::read_to_string(forged.path().join(DIGESTS)).unwrap();
    fs::write(forged.path().join(DIGESTS), text.replace("count 2", "count 3")).unwrap();
    assert!(refused(forged.path()).contains("the last digest does not hold"));
    let garbled = copy(home.path());
    fs::write(garbled.path().join(DIGESTS), "{}\n").unwrap();
    assert!(refused(garbled.path()).contains("the last line is no digest"));
}
