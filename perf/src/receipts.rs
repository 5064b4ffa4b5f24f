//! Receipts against deliveries: each event that came has one `delivered` line for its target, and the files verify.
//!
//! Enters: a lab whose nodes were stopped, and what arrived. Leaves: how many lines there were, and what is wrong. Files
//! are checked by `zen-audit`, the program of an auditor, which knows nothing of this lab.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::error::LabError;
use crate::lab::{Lab, beside};
use crate::record::Arrivals;

/// What turns them on in an egress, with digests in the middle of a run.
pub(crate) const SECTION: &str = "\n[egress.receipts]\nbytes_max = 1073741824\ndigest_receipts_max = 1000\n";
/// How many events of a kind of fault are named.
const NAMED_MAX: usize = 5;

#[derive(Deserialize)]
struct Line {
    event: Option<String>,
    outcome: Option<String>,
}

/// Counts lines of all egresses and says what does not hold.
pub(crate) fn check(lab: &Lab, arrivals: &Arrivals) -> Result<(u64, Vec<String>), LabError> {
    let (mut lines, mut complaints) = (0, Vec::new());
    let mut delivered: HashMap<String, u64> = HashMap::new();
    for node in &lab.egresses {
        let directory = lab.data_dir(node).join("receipts");
        lines += read(&directory, &mut delivered)?;
        complaints.extend(audit(&directory)?.map(|said| format!("receipts of {}: {said}", node.name)));
    }
    let without = arrivals.0.keys().filter(|event| !delivered.contains_key(*event));
    let twice = delivered.iter().filter(|(_, count)| **count > 1).map(|(event, _)| event);
    let never = delivered.keys().filter(|event| !arrivals.0.contains_key(*event));
    complaints.extend(named("came and have no receipt", without));
    complaints.extend(named("have two receipts", twice));
    complaints.extend(named("have a receipt and never came", never));
    Ok((lines, complaints))
}

fn named<'a>(what: &str, events: impl Iterator<Item = &'a String>) -> Option<String> {
    let events: Vec<&String> = events.collect();
    let some: Vec<&str> = events.iter().take(NAMED_MAX).map(|event| event.as_str()).collect();
    (!events.is_empty()).then(|| format!("{} events {what}: {}", events.len(), some.join(", ")))
}

fn read(directory: &Path, delivered: &mut HashMap<String, u64>) -> Result<u64, LabError> {
    let mut lines = 0;
    for entry in fs::read_dir(directory).map_err(LabError::file(directory))? {
        let path = entry.map_err(LabError::file(directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with("segment-") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(LabError::file(&path))?;
        for line in text.lines() {
            let line: Line =
                serde_json::from_str(line).map_err(|source| LabError::Json { path: path.clone(), source })?;
            lines += 1;
            if let (Some(event), Some("delivered")) = (line.event, line.outcome.as_deref()) {
                *delivered.entry(event).or_default() += 1;
            }
        }
    }
    Ok(lines)
}

/// What `zen-audit` has to say against a directory.
fn audit(directory: &Path) -> Result<Option<String>, LabError> {
    let key_file = directory.join("receipts.pub");
    let key = fs::read_to_string(&key_file).map_err(LabError::file(&key_file))?;
    let program = beside("zen-audit")?;
    let output = Command::new(&program).args(["receipts", "--key", key.trim()]).arg(directory).output();
    let output = output.map_err(|source| LabError::Start { program, source })?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned();
    Ok((!output.status.success()).then_some(said))
}
