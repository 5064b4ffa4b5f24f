//! What can be done to a log, by whom, and who sees it: the keeper of the database, the keeper of its signing key too, a lost tail.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{Log, entry, log_key, signed, witness_key};
use zen_audit::{
    Alarm, CheckpointError, Entry, EntryError, Export, ExportError, Finding, Hash, NoteError, Trust, Witness,
    verify_export,
};

const ENTRIES: u64 = 20;

fn trust() -> Trust {
    let witnesses = [1, 2, 3].map(|number| witness_key(number).public().clone()).to_vec();
    Trust { log: log_key().public().clone(), witnesses, quorum: 2 }
}

/// A log of twenty entries: two witnesses saw twelve of them, the log itself signed for sixteen.
fn export() -> (Log, Export) {
    let (mut log, mut checkpoints) = (Log::default(), Vec::new());
    for number in 0..ENTRIES {
        log.add(&format!("bundles/{number}"));
        match number + 1 {
            8 => checkpoints.push(log.checkpoint()),
            12 => {
                let mut note = log.checkpoint();
                note.sign(&witness_key(1), 1_790_000_000);
                note.sign(&witness_key(3), 1_790_000_001);
                checkpoints.push(note);
            }
            16 => {
                let mut note = log.checkpoint();
                note.sign(&witness_key(2), 1_790_000_002);
                checkpoints.push(note);
            }
            _ => {}
        }
    }
    let entries = log.entries.clone();
    (log, Export { entries, checkpoints })
}

/// Entries as somebody writes them who can compute hashes.
fn rechained(targets: impl Iterator<Item = String>) -> Vec<Vec<u8>> {
    let mut log = Log::default();
    targets.for_each(|target| log.add(&target));
    log.entries
}

fn found(entries: Vec<Vec<u8>>) -> Result<Finding, ExportError> {
    let finding = verify_export(&Export { entries, ..export().1 }, &trust());
    if let Some(fault) = finding.fault {
        assert!(finding.anchored <= finding.signed && finding.signed <= fault.at(), "{finding:?}");
    }
    finding.fault.map_or(Ok(finding), Err)
}

fn good(anchored: u64, signed: u64, entries: u64) -> Finding {
    Finding { anchored, signed, entries, fault: None }
}

#[test]
fn what_is_vouched_for_is_told_apart() {
    let (_, export) = export();
    assert_eq!(verify_export(&export, &trust()), good(12, 16, ENTRIES));
    assert_eq!(Export::parse(&export.text()), Ok(export.clone()));
    let lone = Trust { quorum: 1, ..trust() };
    assert_eq!(verify_export(&export, &lone).anchored, 16);
    // No quorum is as good as one: nobody is anchored by nobody.
    let none = Trust { quorum: 0, witnesses: Vec::new(), ..trust() };
    assert_eq!(verify_export(&export, &none).anchored, 0);
    let empty = Export::default();
    assert_eq!(verify_export(&empty, &trust()), good(0, 0, 0));
}

#[test]
fn an_edited_entry_is_found_even_when_all_after_it_is_written_anew() {
    let (log, _) = export();
    for at in 0..ENTRIES as usize {
        let mut entries = log.entries.clone();
        let text = String::from_utf8(entries[at].clone()).unwrap();
        entries[at] = text.replace("bundles/", "somebody/").into_bytes();
        let error = found(entries);
        if at + 1 < ENTRIES as usize {
            let index = at as u64 + 1;
            let expected = ExportError::Entry { index, source: EntryError::Previous };
            // A checkpoint right behind it is looked at before the next entry.
            let is_root = matches!(error, Err(ExportError::Root { size, .. }) if size == index);
            assert!(error == Err(expected) || is_root, "{at}: {error:?}");
        }
        let anew = rechained((0..ENTRIES as usize).map(|number| match number {
            number if number == at => format!("somebody/{number}"),
            number => format!("bundles/{number}"),
        }));
        let expected = match at {
            0..8 => Err(ExportError::Root { size: 8, good: 0 }),
            8..12 => Err(ExportError::Root { size: 12, good: 8 }),
            12..16 => Err(ExportError::Root { size: 16, good: 12 }),
            // Nobody has signed for these yet, and the finding says so.
            _ => Ok(good(12, 16, ENTRIES)),
        };
        assert_eq!(found(anew), expected, "{at}");
    }
}

#[test]
fn left_out_swapped_doubled_or_put_in_is_found() {
    let (log, _) = export();
    for at in 0..ENTRIES as usize - 1 {
        let mut without = log.entries.clone();
        without.remove(at);
        let mut swapped = log.entries.clone();
        swapped.swap(at, at + 1);
        let mut doubled = log.entries.clone();
        doubled.insert(at, log.entries[at].clone());
        let mut foreign = log.entries.clone();
        foreign.insert(at, entry(at as u64, "put in", Entry::before_the_first()).bytes().unwrap());
        for (what, entries) in
            [("left out", without), ("swapped", swapped), ("doubled", doubled), ("put in", foreign)]
        {
            assert!(found(entries).is_err(), "{what} at {at}");
        }
        let anew = rechained(
            (0..ENTRIES as usize).filter(|number| *number != at).map(|number| format!("bundles/{number}")),
        );
        assert_eq!(found(anew).is_err(), at < 16, "left out at {at} and chained anew");
    }
}

#[test]
fn a_lost_tail_is_found_as_far_as_somebody_signed() {
    let (log, _) = export();
    for length in 0..ENTRIES {
        let entries = log.entries[..length as usize].to_vec();
        let expected = if length < 16 {
            Err(ExportError::Missing { entries: length, signed: 16 })
        } else {
            Ok(good(12, 16, length))
        };
        assert_eq!(found(entries), expected, "{length} are left");
    }
}

#[test]
fn checkpoints_of_others_and_two_of_one_size_are_found() {
    let (log, honest) = export();
    let stranger = support::key("acme.example/log", zen_audit::SignatureKind::Note, 50);
    for (note, error) in [
        (signed(4, Hash([1; 32]), &log_key()), ExportError::Root { size: 4, good: 0 }),
        (signed(12, Hash([1; 32]), &log_key()), ExportError::Root { size: 12, good: 8 }),
        (
            signed(12, log.tree.frontier.root(), &stranger),
            ExportError::Checkpoint(CheckpointError::Note(NoteError::Unsigned)),
        ),
    ] {
        let mut export = honest.clone();
        export.checkpoints.push(note);
        assert_eq!(verify_export(&export, &trust()).fault, Some(error));
    }
}

#[test]
fn a_witness_sees_what_no_export_shows() {
    let mut log = Log::of(12);
    let mut witness = Witness::new(log_key().public().clone(), None);
    witness.handle_checkpoint(&log.checkpoint(), &[]).unwrap();
    log.add("bundles/12");
    let honest = log.clone();
    assert_eq!(witness.handle_checkpoint(&honest.checkpoint(), &honest.proof_since(12)).unwrap().size, 13);
    assert_eq!(witness.handle_checkpoint(&honest.checkpoint(), &[]).unwrap().size, 13, "again");
    let seen = witness.last().cloned();

    // Whoever has database and signing key writes all anew: everything is signed, and nothing of it is wrong in itself.
    let anew = |count: u64| {
        let mut log = Log::default();
        (0..count).for_each(|number| log.add(&format!("innocent/{number}")));
        log
    };
    for (count, alarm) in [(12, Alarm::Shorter { found: 12, seen: 13 }), (13, Alarm::Fork { size: 13 })] {
        let forged = anew(count);
        let proof = forged.proof_since(count.min(13));
        assert_eq!(witness.handle_checkpoint(&forged.checkpoint(), &proof), Err(alarm));
    }
    for count in [14, 20, 64] {
        let forged = anew(count);
        for proof in [forged.proof_since(13), honest.proof_since(12), Vec::new()] {
            let found = witness.handle_checkpoint(&forged.checkpoint(), &proof);
            assert!(matches!(found, Err(Alarm::Rewritten { seen: 13, .. })), "{count}: {found:?}");
        }
    }
    // An old copy of the database is a shorter log.
    let old = Log::of(12);
    assert_eq!(
        witness.handle_checkpoint(&old.checkpoint(), &[]),
        Err(Alarm::Shorter { found: 12, seen: 13 })
    );
    assert_eq!(witness.last().cloned(), seen, "no alarm changes what was seen");

    // Two views, one for each witness: each is whole, and the first that sees the other one knows.
    let (mut left, mut right) = (honest.clone(), honest.clone());
    left.add("for the left");
    right.add("for the right");
    let mut other = Witness::new(log_key().public().clone(), seen);
    witness.handle_checkpoint(&left.checkpoint(), &left.proof_since(13)).unwrap();
    other.handle_checkpoint(&right.checkpoint(), &right.proof_since(13)).unwrap();
    assert_eq!(other.handle_checkpoint(&left.checkpoint(), &[]), Err(Alarm::Fork { size: 14 }));
}

#[test]
fn malformed_exports_name_their_line() {
    let (_, export) = export();
    let text = export.text();
    let lines: Vec<&str> = text.lines().collect();
    for (number, bad) in [
        (0, "{}"),
        (0, "{\"format\":\"zen-audit-export-v2\"}"),
        (0, lines[1]),
        (3, lines[0]),
        (3, "null"),
        (3, "{\"entry\":\"A\"}"),
        (3, "{\"entry\":1}"),
        (3, "{\"checkpoint\":\"x\"}"),
        (3, "{\"entry\":\"\",\"checkpoint\":\"\"}"),
        (3, ""),
    ] {
        let mut changed = lines.clone();
        changed[number] = bad;
        assert_eq!(Export::parse(&changed.join("\n")), Err(ExportError::Line { line: number + 1 }), "{bad}");
    }
    assert_eq!(Export::parse(""), Err(ExportError::Line { line: 1 }));
    assert_eq!(ExportError::Line { line: 4 }.at(), 0);
}

#[test]
fn entries_are_bounded_and_read_as_they_are() {
    let good = entry(0, "clusters/edge", Entry::before_the_first());
    let bytes = good.bytes().unwrap();
    assert_eq!(Entry::read(&bytes, 0, &Entry::before_the_first()), Ok(good.clone()));
    assert_eq!(Entry::read(&bytes, 1, &Entry::before_the_first()), Err(EntryError::Sequence { found: 0 }));
    let long = Entry { target: "x".repeat(2049), ..good.clone() };
    assert_eq!(long.bytes(), Err(EntryError::Length));
    let long = Entry { request_id: "x".repeat(65), ..good };
    assert_eq!(long.bytes(), Err(EntryError::Length));
    for bad in [&b""[..], b"{}", b"[]", b"\xff", &bytes[..bytes.len() - 1]] {
        assert_eq!(Entry::read(bad, 0, &Entry::before_the_first()), Err(EntryError::Form));
    }
    let more = String::from_utf8(bytes).unwrap().replacen('{', "{\"more\":1,", 1);
    assert_eq!(Entry::read(more.as_bytes(), 0, &Entry::before_the_first()), Err(EntryError::Form));
}
