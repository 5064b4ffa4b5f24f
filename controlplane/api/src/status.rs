//! What an agent reports: what each node runs, and what it refused. Names, numbers and reasons; never an event.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where reports go: `POST`, by the agent over mutual TLS.
pub const STATUS: &str = "/agent/v1/status";

/// One report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusReport {
    /// Of the agent's program.
    pub agent_version: String,
    /// The configuration that the agent has published last.
    pub configuration: u64,
    /// Nodes by name.
    pub members: BTreeMap<String, MemberReport>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberReport {
    /// What became of the configuration.
    pub outcome: Outcome,
    /// Unix ms: when its certificate ends.
    pub certificate_not_after_ms: u64,
}

/// What a node said to a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outcome {
    /// It runs by it.
    Applied {
        /// Which.
        version: u64,
    },
    /// It does not, and goes on as before.
    Rejected {
        /// Which.
        version: u64,
        /// Why.
        reason: String,
    },
    /// It cannot be asked.
    Unreachable {
        /// Why.
        reason: String,
    },
}
