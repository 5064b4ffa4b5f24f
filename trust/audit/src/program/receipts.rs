//! `zen-audit receipts`: segments of receipts against their digests, and digests against an export of the control plane's log.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use zen_audit::{
    Digest, Entry, Note, SegmentFinding, SignatureKind, Trust, verify_digests, verify_export, verify_segments,
};

use super::{CliError, FAILED, UNANCHORED, file, key, read, read_export, read_text};

/// The digests of a node, a line of JSON each.
const DIGESTS: &str = "digests.jsonl";
/// The digests of lockd, a file each.
const DIGEST_FILES: &str = "digests";

#[derive(Debug, Args)]
pub(super) struct Receipts {
    /// The writer's key, as NAME+ID+BASE64.
    #[arg(long, value_name = "KEY")]
    key: String,
    /// An export of the control plane's log, to see which digests are in it.
    #[arg(long, requires = "log_key")]
    export: Option<PathBuf>,
    /// The log's key, as NAME+ID+BASE64.
    #[arg(long, value_name = "KEY", requires = "export")]
    log_key: Option<String>,
    /// Keys of the log's witnesses; without any, the log's own word is enough.
    #[arg(long = "witness-key", value_name = "KEY", requires = "export")]
    witness_keys: Vec<String>,
    /// How many witnesses must have signed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    quorum: u16,
    /// The directory: `segment-….jsonl`, and `digests.jsonl` of a node or `digests` of lockd.
    directory: PathBuf,
}

#[derive(Deserialize)]
struct DigestLine {
    note: String,
}

pub(super) fn run(receipts: &Receipts) -> Result<ExitCode, CliError> {
    let key = key(&receipts.key, SignatureKind::Note)?;
    let digests = read_digests(&receipts.directory)?;
    let (mut unread, segments) = (None, numbered(&receipts.directory, "segment-", ".jsonl")?);
    let segments = segments.into_iter().map_while(|(number, path)| match read(&path) {
        Ok(bytes) => Some((number, bytes)),
        Err(error) => {
            unread = Some(error);
            None
        }
    });
    let finding = verify_segments(&digests, segments, &key);
    if let Some(error) = unread {
        return Err(error);
    }
    let SegmentFinding { first, verified, unsigned, fault } = finding;
    println!("PASS        [{first},{verified}) signed by {}", key.name());
    if let Some(fault) = fault {
        println!("FAIL        from {verified}: {fault}");
        return Ok(ExitCode::from(FAILED));
    }
    if unsigned > 0 {
        println!("UNSIGNED    [{verified},{}) signed by nobody yet", verified + unsigned);
    }
    let digests = verify_digests(&digests, &key).expect("they were checked just now");
    let is_anchored = match anchored(receipts, &digests)? {
        None => true,
        Some(Ok(anchored)) => {
            println!("ANCHORED    [0,{anchored}) by digests in the log");
            anchored >= verified
        }
        Some(Err(fault)) => {
            println!("FAIL        the log: {fault}");
            return Ok(ExitCode::from(FAILED));
        }
    };
    Ok(if unsigned > 0 || !is_anchored { ExitCode::from(UNANCHORED) } else { ExitCode::SUCCESS })
}

/// Up to which line a digest is named by an entry that is vouched for; a digest vouches for all before it.
fn anchored(
    receipts: &Receipts,
    digests: &[Digest],
) -> Result<Option<Result<u64, zen_audit::ExportError>>, CliError> {
    let (Some(path), Some(log_key)) = (&receipts.export, &receipts.log_key) else { return Ok(None) };
    let witnesses = receipts.witness_keys.iter().map(|text| key(text, SignatureKind::Cosignature));
    let witnesses = witnesses.collect::<Result<Vec<_>, _>>()?;
    let needs_witnesses = !witnesses.is_empty();
    let log = key(log_key, SignatureKind::Note)?;
    let export = read_export(path)?;
    let finding = verify_export(&export, &Trust { log, witnesses, quorum: receipts.quorum.into() });
    if let Some(fault) = finding.fault {
        return Ok(Some(Err(fault)));
    }
    let vouched = if needs_witnesses { finding.anchored } else { finding.signed };
    let mut previous = Entry::before_the_first();
    let mut targets = Vec::new();
    for (index, bytes) in (0..vouched).zip(&export.entries) {
        targets.extend(Entry::read(bytes, index, &previous).ok().map(|entry| entry.target));
        previous = Entry::leaf(bytes);
    }
    let is_named = |digest: &&Digest| {
        let hash = digest.hash().0.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        let name = format!("/{}/sha256:{hash}", digest.segment);
        targets.iter().any(|target| target.ends_with(&name))
    };
    Ok(Some(Ok(digests.iter().rev().find(is_named).map_or(0, Digest::end))))
}

fn read_digests(directory: &Path) -> Result<Vec<Note>, CliError> {
    let files = directory.join(DIGEST_FILES);
    if files.is_dir() {
        let files = numbered(&files, "", ".note")?;
        return files.into_iter().map(|(_, path)| note(&path, 1, &read_text(&path)?)).collect();
    }
    let path = directory.join(DIGESTS);
    let text = read_text(&path)?;
    // What is behind the last line feed is being written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |(at, line): (usize, &str)| {
        let read: Option<DigestLine> = serde_json::from_str(line).ok();
        note(&path, at + 1, &read.map_or_else(String::new, |read| read.note))
    };
    whole.lines().enumerate().map(line).collect()
}

fn note(path: &Path, line: usize, text: &str) -> Result<Note, CliError> {
    Note::parse(text).map_err(|_| CliError::DigestLine { path: path.to_owned(), line })
}

/// Files whose names have a number between `prefix` and `suffix`, or another one behind it, by number.
fn numbered(directory: &Path, prefix: &str, suffix: &str) -> Result<Vec<(u64, PathBuf)>, CliError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(file(directory))? {
        let path = entry.map_err(file(directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let numbers = name.strip_prefix(prefix).and_then(|name| name.strip_suffix(suffix));
        let number = numbers.and_then(|numbers| numbers.split('-').next()?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort_unstable();
    Ok(found)
}
