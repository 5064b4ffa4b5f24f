//! Digests of receipts: each is an entry of the audit log, once, if it continues the one before.

use std::fmt::Write as _;

use rusqlite::Connection;
use zen_audit::{Digest, Hash, Note};
use zen_control_api::{DigestReport, RelayAnswer};

use super::writer::Writer;
use crate::{AgentSession, Refusal, audit};

/// Keeps the digests that are new; the number of the last segment. One that does not hold is an entry and an alarm, and
/// those behind it are not taken.
pub(crate) fn keep_digests(
    transaction: &Connection,
    agent: &AgentSession,
    report: &DigestReport,
    now_ms: u64,
) -> Result<RelayAnswer, Refusal> {
    let mut writer = Writer::open(transaction, agent, report.member.as_deref(), (&report.key, now_ms))?;
    let path = Writer::path(&writer.member);
    let mut newest = None;
    let mut fault = None;
    for text in &report.digests {
        let digest = match read(&writer, text) {
            Ok(Some(digest)) => digest,
            Ok(None) => continue,
            Err(found) => {
                fault = Some(found.to_owned());
                break;
            }
        };
        let part = format!("{path}/{}/sha256:{}", digest.segment, hex(&digest.hash()));
        audit::append_agent(transaction, (&agent.id, &writer.cluster), ("receipts.digest", &part), now_ms)?;
        writer.digest = Some(digest);
        newest = Some(text.as_str());
    }
    if let Some(found) = fault.as_ref().filter(|fault| writer.fault.as_ref() != Some(fault)) {
        let (cluster, member) = (writer.cluster.as_str(), writer.member.as_str());
        tracing::error!(
            cluster,
            member,
            fault = found,
            "ALARM: receipts do not continue what is known of them"
        );
        audit::append_agent(transaction, (&agent.id, cluster), ("receipts.alarm", &path), now_ms)?;
    }
    // A report of nothing asks how far we are, and mends nothing.
    if !report.digests.is_empty() {
        writer.fault = fault;
    }
    writer.keep(transaction, newest)?;
    Ok(RelayAnswer { last: writer.digest.map(|digest| digest.segment) })
}

/// The digest, unless it is known already.
fn read(writer: &Writer, text: &str) -> Result<Option<Digest>, &'static str> {
    let note = Note::parse(text).map_err(|_| "a digest is no note")?;
    let digest = Digest::verify(&note, &writer.key).map_err(|_| "a digest is not signed by its writer")?;
    let Some(last) = &writer.digest else {
        // What was before the first that we see is not ours to vouch for.
        let begins_well = digest.segment > 0 || (digest.first == 0 && digest.previous == Hash::of_nothing());
        return if begins_well { Ok(Some(digest)) } else { Err("the first digest continues another one") };
    };
    if digest.segment < last.segment || digest == *last {
        return Ok(None);
    }
    let continues =
        digest.segment == last.segment + 1 && digest.first == last.end() && digest.previous == last.hash();
    if continues { Ok(Some(digest)) } else { Err("a digest does not continue the one before") }
}

fn hex(hash: &Hash) -> String {
    hash.0.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes all");
        text
    })
}

#[cfg(test)]
mod tests {
    use zen_audit::{Segment, SignatureKind, SigningKey};

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::new("node/edge", SignatureKind::Note, &[seed; 32].into()).unwrap()
    }

    fn writer(digest: Option<Digest>) -> Writer {
        let (cluster, member) = ("edge".to_owned(), "edge-1".to_owned());
        Writer { cluster, member, key: key(1).public().clone(), digest, delivered: None, fault: None }
    }

    /// A segment with one line behind another digest.
    fn next(before: Option<&Digest>, line: &str) -> Digest {
        let mut segment = Segment::behind(before);
        segment.handle_line(line.as_bytes(), 1);
        segment.digest("node/edge", before)
    }

    #[test]
    fn a_digest_is_taken_once_and_in_its_turn() {
        let first = next(None, "a");
        let second = next(Some(&first), "b");
        let signed = |digest: &Digest| digest.sign(&key(1)).to_string();
        let read =
            |last: Option<&Digest>, text: &str| read(&writer(last.cloned()), text).map(|read| read.is_some());
        assert_eq!(read(None, &signed(&first)), Ok(true));
        assert_eq!(read(Some(&first), &signed(&second)), Ok(true));
        assert_eq!(read(None, &signed(&second)), Ok(true), "older ones are gone");
        assert_eq!(read(Some(&first), &signed(&first)), Ok(false));
        assert_eq!(read(Some(&second), &signed(&first)), Ok(false));
        let third = next(Some(&second), "c");
        let other_second = next(Some(&first), "another");
        let loose = Digest { previous: first.hash(), ..first.clone() };
        for (last, text) in [
            (Some(&first), signed(&third)),
            (Some(&second), signed(&other_second)),
            (Some(&other_second), signed(&third)),
            (None, signed(&loose)),
            (None, first.sign(&key(2)).to_string()),
            (None, "no note".to_owned()),
        ] {
            assert!(read(last, &text).is_err(), "{text}");
        }
    }
}
