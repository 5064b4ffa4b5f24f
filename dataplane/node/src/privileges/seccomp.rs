//! System calls: what a running node needs is a list, everything else is answered EPERM (seccomp(2)).
//!
//! The list is data, `deploy/seccomp/zen-dataplane.json`: a filter `every`, what each architecture has beside it,
//! and `threads`, which answers `clone3` as if it did not exist: its flags cannot be looked at, those of `clone`
//! can. docs/security-model.md says what each group is for.

use std::collections::{BTreeMap, BTreeSet};

use seccompiler::{BpfMap, TargetArch};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Seccomp;

const LIST: &str = include_str!("../../../../deploy/seccomp/zen-dataplane.json");

/// Why the list is not in force.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// Neither of the two that the list is for.
    #[error("there is no list for {0}; set node.seccomp = \"off\"")]
    Architecture(&'static str),
    /// The kernel did not take it.
    #[error(
        "{0}; the kernel needs CONFIG_SECCOMP_FILTER, and a sandbox around the node must permit seccomp and prctl: \
         else set node.seccomp = \"off\""
    )]
    Refused(#[from] seccompiler::Error),
}

/// A filter as `seccompiler` reads it.
#[derive(Deserialize, Serialize)]
struct Filter {
    mismatch_action: Value,
    match_action: Value,
    #[serde(rename = "filter")]
    rules: Vec<Rule>,
}

#[derive(Deserialize, Serialize)]
struct Rule {
    syscall: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<Value>,
}

/// Puts the list in force for all threads, those to come included; how many system calls are on it.
pub fn confine(mode: Seccomp) -> Result<usize, SeccompError> {
    let (programs, calls) = compile(mode, std::env::consts::ARCH)?;
    // The list itself comes last: it does not let another one in.
    for name in ["threads", "every"] {
        if let Some(program) = programs.get(name) {
            seccompiler::apply_filter_all_threads(program)?;
        }
    }
    Ok(calls)
}

/// Programs by name, and how many system calls are on the list.
fn compile(mode: Seccomp, architecture: &'static str) -> Result<(BpfMap, usize), SeccompError> {
    let unknown = SeccompError::Architecture(architecture);
    let Ok(target) = TargetArch::try_from(architecture) else { return Err(unknown) };
    let mut list: BTreeMap<String, Filter> = serde_json::from_str(LIST).expect("a test compiles it");
    let Some(own) = list.remove(architecture) else { return Err(unknown) };
    let threads = list.remove("threads").expect("it is in the list");
    let mut every = list.remove("every").expect("it is in the list");
    every.rules.extend(own.rules);
    let calls = every.rules.iter().map(|rule| rule.syscall.as_str()).collect::<BTreeSet<_>>().len();
    let filters = if mode == Seccomp::Log {
        every.mismatch_action = "log".into();
        BTreeMap::from([("every", every)])
    } else {
        BTreeMap::from([("every", every), ("threads", threads)])
    };
    let text = serde_json::to_vec(&filters).expect("it was read from JSON");
    Ok((seccompiler::compile_from_json(text.as_slice(), target)?, calls))
}

#[cfg(test)]
mod tests;
