//! Holes at the end: what is cut off, what is damage, and that nothing that was cut off comes back.

use super::*;

#[test]
fn a_hole_in_flight_is_cut_off_with_what_follows() {
    for torn in [0, 1] {
        let mut lab = Lab::default();
        written(&mut lab, &[&[1, 2]]);
        let writes = two_in_flight(&mut lab, 5000, 300);
        lab.write(1 - torn);
        let (found, recovered) = lab.read(OnDamage::Refuse);
        let recovered = recovered.unwrap();
        let (commits, last) = if torn == 0 { (1, 2) } else { (0, 3) };
        assert_eq!((found.len(), recovered.next_sequence.0), (last, last as u64 + 1));
        assert_eq!(recovered.truncated.map_or(0, |cut| cut.commits), commits);
        assert_eq!(recovered.position, Some((SegmentId(1), writes[torn].offset)));
    }
}

#[test]
fn a_hole_behind_which_more_was_durable_is_damage() {
    let mut lab = Lab::default();
    written(&mut lab, &[&[1, 2]]);
    let writes = two_in_flight(&mut lab, 100, 200);
    lab.write(0);
    lab.write(0);
    let start = writes[0].offset as usize;
    let saved = lab.disk[&1].clone();
    lab.disk.get_mut(&1).unwrap()[start..start + BLOCK_BYTES].fill(0);
    assert_eq!(lab.read(OnDamage::Refuse).1.unwrap().truncated.unwrap().commits, 1);
    lab.disk.insert(1, saved);
    written(&mut lab, &[&[3]]);
    lab.disk.get_mut(&1).unwrap()[start..start + BLOCK_BYTES].fill(0);
    assert_eq!(damage(&lab), at(SegmentId(1), start as u64, DamageReason::Commit));
    let (found, _) = lab.read(OnDamage::Skip);
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 2, 4, 5]);
}

#[test]
fn damage_in_one_segment_hides_none_in_the_one_before() {
    let mut lab = Lab::default();
    let writes = written(&mut lab, &[&[9000], &[5000], &[10], &[20], &[30]]);
    let (lost, next) = (writes[1], writes[2]);
    assert_eq!((lost.segment, next.segment), (SegmentId(1), SegmentId(2)));
    lab.disk.get_mut(&1).unwrap()[lost.offset as usize..][..BLOCK_BYTES].fill(0);
    let record = next.offset + COMMIT_HEADER_BYTES as u64;
    for (byte, place, reason) in
        [(record + 30, record, DamageReason::Record), (next.offset, next.offset, DamageReason::Commit)]
    {
        lab.disk.get_mut(&2).unwrap()[byte as usize] ^= 1;
        let mut expected = at(SegmentId(1), lost.offset, DamageReason::Commit);
        expected.extend(at(SegmentId(2), place, reason));
        assert_eq!(damage(&lab), expected);
        lab.disk.get_mut(&2).unwrap()[byte as usize] ^= 1;
    }
}

#[test]
fn damage_before_does_not_vouch_for_what_was_in_flight() {
    for lost_header in [false, true] {
        let mut lab = Lab::default();
        let rotted = written(&mut lab, &[&[10], &[20]])[1];
        two_in_flight(&mut lab, 30, 40);
        lab.write(1);
        let (place, reason) = if lost_header {
            (rotted.offset, DamageReason::Commit)
        } else {
            (rotted.offset + COMMIT_HEADER_BYTES as u64, DamageReason::Record)
        };
        lab.disk.get_mut(&1).unwrap()[place as usize + 30] ^= 1;
        assert_eq!(damage(&lab), at(SegmentId(1), place, reason));
        let (found, recovered) = lab.read(OnDamage::Skip);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1], "a hole lies before the last one");
        let recovered = recovered.unwrap();
        assert!(recovered.truncated.is_some() && recovered.first_of_run > Sequence(4));
        lab.in_flight.clear();
        lab.resume(recovered);
        written(&mut lab, &[&[50], &[60], &[70]]);
        assert_eq!(damage(&lab), at(SegmentId(1), place, reason), "the old hole is still not damage");
        assert_eq!(lab.read(OnDamage::Skip).0.len(), 4);
    }
}

#[test]
fn what_was_cut_off_does_not_come_back() {
    // The same lengths again and again, so that each new commit ends where an old one starts.
    let mut lab = Lab::default();
    written(&mut lab, &[&[1]]);
    for _ in 0..4 {
        two_in_flight(&mut lab, 500, 600);
        lab.write(1);
        lab.in_flight.clear();
        lab.recover();
        assert!(lab.writer.next_sequence() > Sequence(1 + SEQUENCES_SKIPPED));
    }
    lab.append(500).unwrap();
    lab.seal().unwrap();
    lab.write(0);
    let expected = lab.model.clone();
    lab.recover();
    assert_eq!((lab.model.len(), &lab.model), (2, &expected));
    lab.reread();
}

#[test]
fn a_sequence_that_was_durable_once_names_no_other_record() {
    for rotted in 0..=2 {
        let mut lab = Lab::default();
        let writes = written(&mut lab, &[&[1], &[2, 3], &[4, 5, 6], &[7]]);
        let last = lab.writer.durable();
        for write in &writes[writes.len() - rotted..] {
            lab.disk.get_mut(&write.segment.0).unwrap()[write.offset as usize..][..write.bytes].fill(0);
        }
        let recovered = lab.read(OnDamage::Refuse).1.unwrap();
        assert_eq!(recovered.truncated, None, "nothing tells that there was more");
        lab.resume(recovered);
        assert!(lab.append(10).unwrap() > last, "{rotted} commits rotted");
    }
}

#[test]
fn what_was_cut_off_in_the_next_segment_does_not_come_back() {
    let mut lab = Lab::default();
    written(&mut lab, &[&[9000], &[10]]);
    two_in_flight(&mut lab, 100, 9000);
    lab.write(1);
    lab.in_flight.clear();
    lab.recover();
    written(&mut lab, &[&[200]]);
    two_in_flight(&mut lab, 9000, 9000);
    lab.in_flight.clear();
    lab.recover();
    assert_eq!(lab.model.len(), 3);
    written(&mut lab, &[&[9000], &[9000]]);
    lab.recover();
    lab.reread();
}

#[test]
fn what_was_cut_off_does_not_come_back_when_what_replaced_it_rots() {
    let mut lab = Lab::default();
    written(&mut lab, &[&[9000], &[5000]]);
    let [replaced, old] = two_in_flight(&mut lab, 100, 200);
    lab.write(1);
    lab.in_flight.clear();
    lab.recover();
    let new = written(&mut lab, &[&[300]])[0];
    assert_eq!((new.segment, new.offset), (replaced.segment, replaced.offset));
    lab.trim(lab.writer.durable());
    assert!(!lab.disk.contains_key(&1) && old.offset == new.offset + new.bytes as u64);
    let rotted = new.offset as usize + COMMIT_HEADER_BYTES + RECORD_HEADER_BYTES;
    lab.disk.get_mut(&new.segment.0).unwrap()[rotted] ^= 1;
    let (found, recovered) = lab.read(OnDamage::Skip);
    let recovered = recovered.unwrap();
    assert_eq!((found.len(), recovered.damage.len()), (0, 0), "it lies behind a newer header");
    lab.resume(recovered);
    assert!(lab.append(10).unwrap() > new.last);
}
