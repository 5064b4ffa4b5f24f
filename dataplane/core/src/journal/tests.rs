//! Tests of the journal that need a disk.

use alloc::vec;
use std::collections::BTreeMap;

use crc32c::crc32c_append;
use proptest::collection::vec as bytes;
use proptest::prelude::*;

use super::fuzz::*;
use super::*;

mod cut_off;

const BLOCK: u64 = BLOCK_BYTES as u64;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operations_match_the_model(data in bytes(any::<u8>(), 0..600)) {
        fuzz_operations(&data);
    }

    #[test]
    fn any_corruption_is_survived(data in bytes(any::<u8>(), 0..600)) {
        fuzz_recovery(&data);
    }

    #[test]
    fn any_bytes_are_survived(data in bytes(any::<u8>(), 0..20_000)) {
        fuzz_segments(&data);
    }

    #[test]
    fn crc_by_table_is_crc32c(start: u32, data in bytes(any::<u8>(), 0..100)) {
        prop_assert_eq!(crc32c_by_table(start, &data), crc32c_append(start, &data));
    }
}

/// Commits of these payloads, each on disk before the next is sealed. Answers the writes.
fn written(lab: &mut Lab, commits: &[&[usize]]) -> Vec<Write> {
    let mut writes = Vec::new();
    for payloads in commits {
        lab.prepare();
        for payload in *payloads {
            lab.append(*payload).unwrap();
        }
        writes.extend(lab.seal());
        lab.write(0);
    }
    writes
}

/// Two commits sealed at once, after `written` ones. Answers both writes.
fn two_in_flight(lab: &mut Lab, first: usize, second: usize) -> [Write; 2] {
    lab.prepare();
    [first, second].map(|payload| {
        lab.append(payload).unwrap();
        lab.seal().unwrap()
    })
}

fn damage(lab: &Lab) -> Vec<Damage> {
    match lab.read(OnDamage::Refuse).1 {
        Err(RecoveryError::Damaged(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

fn at(segment: SegmentId, offset: u64, reason: DamageReason) -> Vec<Damage> {
    vec![Damage { segment, offset, reason }]
}

/// Three segments of several commits, with what lies where: start, end, reason, place to report.
fn long_journal() -> (Lab, Vec<Write>) {
    let mut lab = Lab::default();
    let commits: [&[usize]; 8] =
        [&[10, 20], &[5000], &[3000, 0, 3000], &[100], &[1; 9], &[9000], &[4000, 4000], &[7]];
    let writes = written(&mut lab, &commits);
    assert_eq!(lab.writer.live_segments().count(), 3);
    (lab, writes)
}

/// Where each record of a commit starts in its file, and where the last one ends.
fn record_places(lab: &Lab, write: &Write) -> Vec<u64> {
    let mut places = Vec::new();
    let mut reader = CommitReader::new(JOURNAL_ID, write.segment, write.offset, crc32c_append);
    let commit = &lab.disk[&write.segment.0][write.offset as usize..][..write.bytes];
    let mut end = 0;
    let mut note = |record: Record<'_>| {
        places.push(record.offset);
        end = record.offset + (RECORD_HEADER_BYTES + record.payload.len()) as u64;
    };
    assert_eq!(reader.handle_bytes(commit, &mut note), Ok(write.bytes));
    places.push(end);
    places
}

#[test]
fn a_flip_is_reported_where_it_is() {
    let (mut lab, writes) = long_journal();
    let (last, middle) = writes.split_last().unwrap();
    let (whole, _) = lab.read(OnDamage::Refuse);
    for write in middle {
        let places = record_places(&lab, write);
        let end = *places.last().unwrap();
        for byte in (write.offset..end).step_by(3) {
            lab.disk.get_mut(&write.segment.0).unwrap()[byte as usize] ^= 1 << (byte % 8);
            let record = places[..places.len() - 1].iter().rev().find(|start| **start <= byte);
            let expected = match record {
                Some(start) => at(write.segment, *start, DamageReason::Record),
                None => at(write.segment, write.offset, DamageReason::Commit),
            };
            assert_eq!(damage(&lab), expected, "{byte} of {write:?}");
            let (readable, skipped) = lab.read(OnDamage::Skip);
            assert_eq!(skipped.unwrap().damage, expected);
            assert!(readable.iter().all(|(sequence, payload)| whole[sequence] == *payload));
            assert!(readable.len() + places.len() > whole.len());
            lab.disk.get_mut(&write.segment.0).unwrap()[byte as usize] ^= 1 << (byte % 8);
        }
    }
    for byte in last.offset..*record_places(&lab, last).last().unwrap() {
        lab.disk.get_mut(&last.segment.0).unwrap()[byte as usize] ^= 0x10;
        let (found, recovered) = lab.read(OnDamage::Refuse);
        assert_eq!(found.len(), whole.len() - 1);
        let recovered = recovered.unwrap();
        assert!(recovered.damage.is_empty() && recovered.position == Some((last.segment, last.offset)));
        lab.disk.get_mut(&last.segment.0).unwrap()[byte as usize] ^= 0x10;
    }
    lab.recover();
}

#[test]
fn a_flip_in_a_payload_costs_one_record() {
    let mut lab = Lab::default();
    let writes = written(&mut lab, &[&[50, 50, 50], &[50]]);
    let places = record_places(&lab, &writes[0]);
    lab.disk.get_mut(&1).unwrap()[places[1] as usize + RECORD_HEADER_BYTES + 7] ^= 2;
    assert_eq!(damage(&lab), at(SegmentId(1), places[1], DamageReason::Record));
    let (found, _) = lab.read(OnDamage::Skip);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 3, 4]);
}

#[test]
fn padding_carries_nothing() {
    let (mut lab, writes) = long_journal();
    let end = *record_places(&lab, &writes[3]).last().unwrap();
    lab.disk.get_mut(&writes[3].segment.0).unwrap()[end as usize] ^= 1;
    lab.recover();
}

#[test]
fn a_file_cut_at_any_byte_recovers_what_is_before() {
    let mut lab = Lab::default();
    let writes = written(&mut lab, &[&[10, 20], &[5000], &[3000]]);
    let whole = lab.disk[&1].clone();
    let ends: Vec<(u64, u64)> = writes
        .iter()
        .map(|write| (*record_places(&lab, write).last().unwrap(), write.last.0))
        .map(|(end, last)| (end.next_multiple_of(BLOCK), last))
        .collect();
    for cut in SEGMENT_HEADER_BYTES..=ends[2].0 as usize {
        *lab.disk.get_mut(&1).unwrap() = whole[..cut].to_vec();
        let (found, recovered) = lab.read(OnDamage::Refuse);
        let recovered = recovered.unwrap();
        let last = ends.iter().rev().find(|(end, _)| *end <= cut as u64).map_or(0, |(_, last)| *last);
        assert_eq!((found.len() as u64, recovered.next_sequence.0), (last, last + 1), "{cut}");
        assert_eq!(recovered.position, None, "a short file is not written to");
    }
    for cut in 0..SEGMENT_HEADER_BYTES {
        *lab.disk.get_mut(&1).unwrap() = whole[..cut].to_vec();
        lab.disk.retain(|id, _| *id == 1);
        assert_eq!(lab.read(OnDamage::Skip).1.unwrap_err(), RecoveryError::Empty);
    }
}

#[test]
fn blocks_of_two_writes_never_pass_as_one() {
    // Two records that meet at a block boundary; the second write keeps the first one's tail.
    let first = BLOCK_BYTES - COMMIT_HEADER_BYTES - RECORD_HEADER_BYTES;
    let mut lab = Lab::default();
    lab.prepare();
    let start = BLOCK_BYTES;
    let mut images = Vec::new();
    for _ in 0..2 {
        lab.append(first).unwrap();
        lab.append(1000).unwrap();
        lab.seal().unwrap();
        images.push(lab.in_flight.pop().unwrap().1);
        lab.recover();
    }
    let file = lab.disk.get_mut(&1).unwrap();
    file[start..start + BLOCK_BYTES].copy_from_slice(&images[1][..BLOCK_BYTES]);
    file[start + BLOCK_BYTES..start + 2 * BLOCK_BYTES]
        .copy_from_slice(&images[0][BLOCK_BYTES..2 * BLOCK_BYTES]);
    let (found, recovered) = lab.read(OnDamage::Refuse);
    assert_eq!((found.len(), recovered.unwrap().truncated.unwrap().commits), (0, 1));
}

#[test]
fn a_commit_that_follows_another_one_is_not_taken() {
    let mut lab = Lab::default();
    let write = written(&mut lab, &[&[10], &[20]])[1];
    let commit = &mut lab.disk.get_mut(&1).unwrap()[write.offset as usize..];
    let mut header = CommitHeader::parse(commit, crc32c_append).unwrap();
    for (previous, taken) in [(0, 1), (1, 2), (2, 1)] {
        let commit = &mut lab.disk.get_mut(&1).unwrap()[write.offset as usize..];
        (header.previous, header.durable) = (CommitNumber(previous), CommitNumber(previous.min(1)));
        header.number = CommitNumber(3);
        header.write(commit, crc32c_append);
        assert_eq!(lab.read(OnDamage::Refuse).0.len(), taken, "{previous}");
    }
}

#[test]
fn missing_and_headless_segments_are_reported() {
    let (mut lab, _) = long_journal();
    let file = lab.disk.remove(&2).unwrap();
    assert_eq!(damage(&lab), at(SegmentId(2), 0, DamageReason::SegmentMissing));
    lab.disk.insert(2, vec![0; file.len()]);
    let zeroed =
        [at(SegmentId(2), 0, DamageReason::SegmentHeader), at(SegmentId(2), BLOCK, DamageReason::Commit)];
    assert_eq!(damage(&lab), zeroed.concat());
    for id in [1, 2, 3] {
        lab.disk.insert(2, file.clone());
        let (whole, _) = lab.read(OnDamage::Refuse);
        lab.disk.get_mut(&id).unwrap()[20] ^= 1;
        assert_eq!(damage(&lab), at(SegmentId(id), 0, DamageReason::SegmentHeader));
        let (found, recovered) = lab.read(OnDamage::Skip);
        assert_eq!((found, recovered.unwrap().position.is_none()), (whole, id == 3));
        lab.disk.get_mut(&id).unwrap()[20] ^= 1;
    }
    let last = *lab.disk.keys().last().unwrap();
    lab.disk.get_mut(&last).unwrap()[20] ^= 1;
    let unused = lab.read(OnDamage::Refuse).1.unwrap().unused;
    assert_eq!(unused, [SegmentId(last)], "a torn preparation is no damage");
}

#[test]
fn files_that_do_not_belong_are_refused() {
    let (mut lab, _) = long_journal();
    let mut header = SegmentHeader {
        journal_id: [0; 16],
        segment: SegmentId(2),
        segment_bytes: LIMITS.segment_bytes,
        created_ms: 0,
    };
    let put = |lab: &mut Lab, header: &SegmentHeader, version: u8| {
        let mut block = segment_header(header, crc32c_append);
        block[8] = version;
        let sum = crc32c_append(0, &block[..4092]);
        block[4092..].copy_from_slice(&sum.to_le_bytes());
        lab.disk.get_mut(&2).unwrap()[..BLOCK_BYTES].copy_from_slice(&block);
        lab.read(OnDamage::Skip).1.unwrap_err()
    };
    assert_eq!(put(&mut lab, &header, 2), RecoveryError::Foreign(SegmentId(2)));
    header.journal_id = JOURNAL_ID;
    let error = FormatError::Unsupported { version: 1, cipher: 0 };
    assert_eq!(put(&mut lab, &header, 1), RecoveryError::Unsupported { segment: SegmentId(2), error });
    let mut recovery = Recovery::new(LIMITS, crc32c_append);
    recovery.handle_segment(SegmentId(1), &lab.disk[&1], &mut |_| {}).unwrap();
    let again = recovery.handle_segment(SegmentId(1), &lab.disk[&1], &mut |_| {});
    assert_eq!(again, Err(RecoveryError::Order(SegmentId(1))));
    let empty = Recovery::new(LIMITS, crc32c_append).finish(OnDamage::Skip);
    assert_eq!(empty.unwrap_err(), RecoveryError::Empty);
}

#[test]
fn a_full_journal_refuses_and_takes_again_after_trimming() {
    let mut lab = Lab::default();
    let mut appended = 0;
    loop {
        lab.prepare();
        match lab.append(9000) {
            Ok(_) => appended += 1,
            Err(error) => {
                assert_eq!(error, AppendError::NoSegment);
                break;
            }
        }
        lab.flush();
    }
    assert_eq!((appended, lab.writer.segments_wanted()), (5, 0));
    // What does not fit at the end of a segment is taken all the same: else bounds in bytes are never met.
    let bytes_max = u64::from(LIMITS.segments_max) * LIMITS.segment_bytes;
    assert!(lab.writer.bytes_live() + LIMITS.segment_bytes > bytes_max, "{}", lab.writer.bytes_live());
    lab.trim(Sequence(2));
    assert_eq!(lab.writer.oldest(), Some(Sequence(3)));
    lab.prepare();
    written(&mut lab, &[&[9000], &[100]]);
    lab.recover();
    lab.trim(Sequence(u64::MAX));
    assert_eq!(lab.writer.live_segments().count(), 1, "the newest durable commit stays");
    lab.recover();
    assert_eq!(lab.writer.next_sequence(), Sequence(8 + SEQUENCES_SKIPPED));
}

#[test]
fn appends_are_refused_by_size() {
    let mut lab = Lab::default();
    let largest = LIMITS.payload_bytes_max();
    assert_eq!(lab.append(10), Err(AppendError::NoSegment));
    lab.prepare();
    assert_eq!(lab.append(largest + 1), Err(AppendError::TooLarge));
    assert_eq!(lab.seal(), None);
    lab.append(10).unwrap();
    assert_eq!(lab.append(largest), Err(AppendError::Full));
    lab.seal().unwrap();
    lab.append(largest).unwrap();
    lab.seal().unwrap();
    lab.append(1).unwrap();
    assert_eq!((lab.seal(), lab.writer.in_flight(), lab.writer.open_records()), (None, 2, 1));
    lab.flush();
    lab.recover();
    lab.reread();
}

#[test]
fn the_durable_prefix_waits_for_the_older_write() {
    let mut lab = Lab::default();
    let [first, second] = two_in_flight(&mut lab, 10, 20);
    assert_eq!(lab.writer.handle_written(second.commit), Sequence(0));
    assert_eq!((lab.writer.in_flight(), lab.writer.locate(Sequence(1))), (2, None));
    lab.append(1).unwrap();
    assert_eq!(lab.seal(), None, "a third commit waits for the prefix, not for any completion");
    assert_eq!(lab.writer.handle_written(first.commit), Sequence(2));
    assert_eq!((lab.writer.in_flight(), lab.writer.locate(Sequence(2))), (0, Some(SegmentId(1))));
}

#[test]
#[should_panic(expected = "a durable record is lost")]
fn canary_answering_before_the_write_is_caught() {
    let mut lab = Lab::default();
    lab.prepare();
    lab.append(10).unwrap();
    let write = lab.seal().unwrap();
    lab.writer.handle_written(write.commit);
    lab.recover();
}

#[test]
fn the_reader_takes_whole_commits_only() {
    let mut lab = Lab::default();
    let writes = written(&mut lab, &[&[10, 20], &[5000], &[30]]);
    let file = lab.disk[&1][BLOCK_BYTES..].to_vec();
    let end = writes[2].offset as usize - BLOCK_BYTES + writes[2].bytes;
    for split in 0..=end {
        let mut reader = CommitReader::new(JOURNAL_ID, SegmentId(1), BLOCK, crc32c_append);
        let mut sequences = Vec::new();
        let mut note = |record: Record<'_>| sequences.push(record.sequence.0);
        let taken = reader.handle_bytes(&file[..split], &mut note).unwrap();
        assert!(taken <= split && reader.offset() == BLOCK + taken as u64);
        assert_eq!(reader.handle_bytes(&file[taken..end], &mut note), Ok(end - taken));
        assert_eq!(sequences, [1, 2, 3, 4], "{split}");
    }
}

#[test]
fn the_reader_reports_damage_and_goes_on_behind_it() {
    let mut lab = Lab::default();
    let writes = written(&mut lab, &[&[10, 20], &[5000], &[30]]);
    let file = lab.disk.get_mut(&1).unwrap();
    file[writes[0].offset as usize + COMMIT_HEADER_BYTES + RECORD_HEADER_BYTES] ^= 1;
    file[writes[1].offset as usize] ^= 1;
    let end = writes[2].offset as usize + writes[2].bytes;
    let mut reader = CommitReader::new(JOURNAL_ID, SegmentId(1), BLOCK, crc32c_append);
    let (mut sequences, mut reasons) = (Vec::new(), Vec::new());
    while (reader.offset() as usize) < end {
        let rest = &file[reader.offset() as usize..end];
        let mut note = |record: Record<'_>| sequences.push(record.sequence.0);
        if let Err(damage) = reader.handle_bytes(rest, &mut note) {
            reasons.push(damage.reason);
            assert!(reader.skip_damage(rest, &mut note) > 0);
        }
    }
    assert_eq!(sequences, [2, 4]);
    assert_eq!(reasons, [DamageReason::Record, DamageReason::Commit]);
}

#[test]
fn structures_survive_no_truncation_and_no_flip() {
    let header = SegmentHeader {
        journal_id: JOURNAL_ID,
        segment: SegmentId(7),
        segment_bytes: LIMITS.segment_bytes,
        created_ms: 1_700_000_000_000,
    };
    let mut block = segment_header(&header, crc32c_append);
    assert_eq!(parse_segment_header(&block, crc32c_append), Ok(header));
    for byte in 0..BLOCK_BYTES {
        assert_eq!(parse_segment_header(&block[..byte], crc32c_append), Err(FormatError::Short));
        block[byte] ^= 0x40;
        assert!(parse_segment_header(&block, crc32c_append).is_err(), "{byte}");
        block[byte] ^= 0x40;
    }
    let mut lab = Lab::default();
    let write = written(&mut lab, &[&[40]])[0];
    let places = record_places(&lab, &write);
    let mut record = lab.disk[&1][places[0] as usize..places[1] as usize].to_vec();
    let parse = |bytes: &[u8]| {
        decode_record(bytes, SegmentId(1), places[0], crc32c_append).map(|record| record.sequence)
    };
    assert_eq!(parse(&record), Ok(Sequence(1)));
    for byte in 0..record.len() {
        assert_eq!(parse(&record[..byte]), Err(FormatError::Short));
        record[byte] ^= 0x40;
        assert!(parse(&record).is_err(), "{byte}");
        record[byte] ^= 0x40;
    }
}

/// The example of `docs/journal-format.md`, computed there by other means.
#[test]
fn the_bytes_are_those_of_the_specification() {
    const COMMIT: &str = "5a434d5441fc20041e0000000100000001000000000000000000000000000000\
        0000000000000000010000000000000001000000000000000200000000000000\
        11111111111111111111111111111111afefbfdc000000000000000000000000\
        020000000100000001000000000000000100000000000000a2e81d176869";
    let journal_id = [0x11; 16];
    let mut writer = Writer::new(LIMITS, journal_id, crc32c_append);
    let segment = writer.next_segment_id();
    writer.add_segment(segment);
    let mut open = vec![0xff; LIMITS.commit_bytes_max];
    assert_eq!(writer.append(&mut open, Kind::Event, 1, &[b"h", b"i"]), Ok(Sequence(1)));
    let write = writer.seal(&mut open, 2).unwrap();
    let expected =
        Write { segment, offset: BLOCK, bytes: BLOCK_BYTES, commit: CommitNumber(1), last: Sequence(1) };
    assert_eq!(write, expected);
    let mut text = vec![0; 252];
    crate::id::encode_hex(&open[..126], &mut text);
    assert_eq!(core::str::from_utf8(&text), Ok(COMMIT));
    assert!(open[126..BLOCK_BYTES].iter().all(|byte| *byte == 0));
    let header = SegmentHeader { journal_id, segment, segment_bytes: 24_576, created_ms: 3 };
    assert_eq!(segment_header(&header, crc32c_append)[4092..], 0xb049_c487_u32.to_le_bytes());
}

#[test]
fn limits_are_refused_by_name() {
    let cases = [
        (Limits { segment_bytes: 4096, ..LIMITS }, LimitsError::Segment),
        (Limits { segment_bytes: 10_000, ..LIMITS }, LimitsError::Segment),
        (Limits { commit_bytes_max: 0, ..LIMITS }, LimitsError::Commit),
        (Limits { commit_bytes_max: 5000, ..LIMITS }, LimitsError::Commit),
        (Limits { commit_bytes_max: 6 * BLOCK_BYTES, ..LIMITS }, LimitsError::Commit),
        (Limits { segments_max: 2, ..LIMITS }, LimitsError::Segments),
    ];
    for (limits, expected) in cases {
        assert_eq!(limits.validate(), Err(expected));
    }
    assert_eq!(LIMITS.validate(), Ok(()));
}

#[test]
fn kinds_keep_their_codes() {
    let codes: BTreeMap<u8, Kind> = (0..=255).map(|code| (code, Kind::from_code(code))).collect();
    assert!(codes.iter().all(|(code, kind)| kind.code() == *code));
    assert_eq!((codes[&1], codes[&5], codes[&6]), (Kind::Event, Kind::Dead, Kind::Index));
}
