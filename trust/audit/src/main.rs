//! Checks exports of an audit log and proofs of single entries, offline and by the keys that are given: nothing else is trusted.

#[path = "program/receipts.rs"]
mod receipts;

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use zen_audit::{
    Entry, EntryProof, Export, ExportError, Finding, Frontier, Hash, KeyError, LogKey, Node, Nodes,
    ProofTextError, SignatureKind, Trust, inclusion_proof, verify_export,
};

/// Longest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 4 << 30;
/// Some entries are vouched for by nobody, or by the log alone.
const UNANCHORED: u8 = 3;
/// Something was changed, is missing, or was never there.
const FAILED: u8 = 4;

/// Checks what an audit log says, without the log.
///
/// Exit codes: 0 all is vouched for, 3 some entries are not anchored, 4 something was changed, 2 it could not be checked.
#[derive(Debug, Parser)]
#[command(name = "zen-audit", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a whole export: which entries are anchored, which are not, and where something was changed.
    Verify(Verify),
    /// Write the proof for one entry of an export, to show it without the others.
    Prove(Prove),
    /// Check that an entry is in the log, by its proof.
    Check(Check),
    /// Check a directory of receipts, of a node or of lockd, against its signed digests, and those against the log.
    Receipts(receipts::Receipts),
}

#[derive(Debug, Args)]
struct Verify {
    #[command(flatten)]
    keys: Keys,
    /// Keys of witnesses, each as NAME+ID+BASE64.
    #[arg(long = "witness-key", value_name = "KEY")]
    witness_keys: Vec<String>,
    /// How many witnesses must have signed.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    quorum: u16,
    /// The export.
    export: PathBuf,
}

#[derive(Debug, Args)]
struct Prove {
    #[command(flatten)]
    keys: Keys,
    /// Which entry, from 0.
    #[arg(long)]
    index: u64,
    /// The export.
    export: PathBuf,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    keys: Keys,
    /// The entry's bytes, as they were stored.
    #[arg(long)]
    entry: PathBuf,
    /// The proof.
    proof: PathBuf,
}

#[derive(Debug, Args)]
struct Keys {
    /// The log's key, as NAME+ID+BASE64.
    #[arg(long, value_name = "KEY")]
    log_key: String,
}

/// Why something could not be checked.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: {source}", path.display())]
    Export { path: PathBuf, source: ExportError },
    #[error("{}: {source}", path.display())]
    Proof { path: PathBuf, source: ProofTextError },
    #[error("{text}: {source}")]
    Key { text: String, source: KeyError },
    #[error("{text}: is a key of {found}, and should be one of {expected}")]
    Kind { text: String, found: &'static str, expected: &'static str },
    #[error("{}: line {line} is not a digest", path.display())]
    DigestLine { path: PathBuf, line: usize },
    #[error("no checkpoint covers entry {index}: the last one that the log signed has {signed} entries")]
    Uncovered { index: u64, signed: u64 },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Verify(verify) => run_verify(&verify),
        Command::Prove(prove) => run_prove(&prove),
        Command::Check(check) => run_check(&check),
        Command::Receipts(receipts) => receipts::run(&receipts),
    };
    done.unwrap_or_else(|error| {
        eprintln!("zen-audit: {error}");
        ExitCode::from(2)
    })
}

fn run_verify(verify: &Verify) -> Result<ExitCode, CliError> {
    let witnesses = verify.witness_keys.iter().map(|text| key(text, SignatureKind::Cosignature));
    let witnesses = witnesses.collect::<Result<Vec<_>, _>>()?;
    let trust = Trust { log: verify.keys.log()?, witnesses, quorum: verify.quorum.into() };
    let finding = verify_export(&read_export(&verify.export)?, &trust);
    Ok(print(&finding, verify.quorum))
}

fn print(finding: &Finding, quorum: u16) -> ExitCode {
    let &Finding { anchored, signed, entries, fault } = finding;
    println!("PASS        [0,{anchored}) signed by the log and by at least {quorum} of the witnesses");
    if signed > anchored {
        println!("UNANCHORED  [{anchored},{signed}) signed by the log alone");
    }
    if let Some(fault) = fault {
        println!("FAIL        from {}: {fault}", fault.at());
        return ExitCode::from(FAILED);
    }
    if entries > signed {
        println!("UNANCHORED  [{signed},{entries}) signed by nobody yet");
    }
    if entries > anchored { ExitCode::from(UNANCHORED) } else { ExitCode::SUCCESS }
}

fn run_prove(prove: &Prove) -> Result<ExitCode, CliError> {
    let (log, export) = (prove.keys.log()?, read_export(&prove.export)?);
    let trust = Trust { log, witnesses: Vec::new(), quorum: 1 };
    let finding = verify_export(&export, &trust);
    if let Some(source) = finding.fault {
        return Err(CliError::Export { path: prove.export.clone(), source });
    }
    let uncovered = CliError::Uncovered { index: prove.index, signed: finding.signed };
    if prove.index >= finding.signed {
        return Err(uncovered);
    }
    let newest = export.checkpoints.iter().filter(|note| size_of(note) == Some(finding.signed));
    // The one with most signatures shows most.
    let Some(checkpoint) = newest.max_by_key(|note| note.signatures().len()) else { return Err(uncovered) };
    let hashes = match inclusion_proof(&Tree::of(&export), prove.index, finding.signed) {
        Ok(hashes) => hashes,
        Err(never) => match never {},
    };
    print!("{}", EntryProof { index: prove.index, hashes, checkpoint: checkpoint.clone() });
    Ok(ExitCode::SUCCESS)
}

fn run_check(check: &Check) -> Result<ExitCode, CliError> {
    let log = check.keys.log()?;
    let (entry, text) = (read(&check.entry)?, read_text(&check.proof)?);
    let failed = |source| CliError::Proof { path: check.proof.clone(), source };
    let proof = EntryProof::parse(&text).map_err(failed)?;
    match proof.verify(&entry, &log) {
        Ok(checkpoint) => {
            println!(
                "PASS  the entry is number {} of {} in {}",
                proof.index, checkpoint.size, checkpoint.origin
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println!("FAIL  {error}");
            Ok(ExitCode::from(FAILED))
        }
    }
}

/// All nodes of an export's tree; level by level.
struct Tree(Vec<Vec<Hash>>);

impl Tree {
    fn of(export: &Export) -> Self {
        let (mut frontier, mut levels) = (Frontier::default(), Vec::<Vec<Hash>>::new());
        for bytes in &export.entries {
            frontier.append(Entry::leaf(bytes), |node, hash| {
                levels.resize_with(levels.len().max(usize::from(node.level) + 1), Vec::new);
                levels[usize::from(node.level)].push(hash);
            });
        }
        Self(levels)
    }
}

impl Nodes for Tree {
    type Error = std::convert::Infallible;

    fn hash(&self, node: Node) -> Result<Hash, Self::Error> {
        Ok(self.0[usize::from(node.level)][node.index as usize])
    }
}

impl Keys {
    fn log(&self) -> Result<LogKey, CliError> {
        key(&self.log_key, SignatureKind::Note)
    }
}

fn key(text: &str, expected: SignatureKind) -> Result<LogKey, CliError> {
    let name = |kind| match kind {
        SignatureKind::Note => "a log",
        SignatureKind::Cosignature => "a witness",
    };
    let key = LogKey::parse(text).map_err(|source| CliError::Key { text: text.to_owned(), source })?;
    if key.kind() != expected {
        let (found, expected) = (name(key.kind()), name(expected));
        return Err(CliError::Kind { text: text.to_owned(), found, expected });
    }
    Ok(key)
}

fn size_of(note: &zen_audit::Note) -> Option<u64> {
    zen_audit::Checkpoint::parse(note.text()).ok().map(|checkpoint| checkpoint.size)
}

fn read_export(path: &Path) -> Result<Export, CliError> {
    let text = read_text(path)?;
    Export::parse(&text).map_err(|source| CliError::Export { path: path.to_owned(), source })
}

fn read_text(path: &Path) -> Result<String, CliError> {
    let text = String::from_utf8(read(path)?);
    text.map_err(|_| file(path)(io::Error::other("is not UTF-8")))
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let opened = fs::File::open(path).map_err(file(path))?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(file(path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(file(path)(io::Error::other("is over 4 GiB")));
    }
    Ok(bytes)
}

fn file(path: &Path) -> impl FnOnce(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File { path, source }
}
