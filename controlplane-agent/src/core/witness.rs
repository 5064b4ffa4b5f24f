//! A witness of the control plane's audit log: what it saw last, what continues that, and what it signs.
//!
//! Enters: the log as the control plane shows it, now. Leaves: a state that is on disk before anything is cosigned, and
//! cosignatures of what is there. Refused, as an alarm: another key, a log that is shorter, that has two roots for one size,
//! that does not continue what was seen, or that is not shown any more. The first checkpoint is trusted, whatever it is.

use serde::{Deserialize, Serialize};
use zen_audit::{Alarm as LogAlarm, Checkpoint, Hash, LogKey, Note, SigningKey, Witness};
use zen_control_api::LogReport;

/// What is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessState {
    /// The log's key, as notes write keys.
    pub log: String,
    /// The checkpoint that was seen last, a note.
    pub seen: String,
}

/// Why what is shown is not cosigned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessAlarm {
    /// Somebody else speaks for the log.
    #[error("the log's key is {shown}, and it was {pinned}")]
    Key {
        /// As it was known.
        pinned: String,
        /// As it is shown.
        shown: String,
    },
    /// What is shown is no key or no note.
    #[error("what is shown is no {0}")]
    Form(&'static str),
    /// It does not continue what was seen.
    #[error(transparent)]
    Log(#[from] LogAlarm),
    /// There was a log.
    #[error("the log had {seen} entries, and none is shown any more")]
    Gone {
        /// How many were seen.
        seen: u64,
    },
}

/// A witness of one log.
#[derive(Clone, Debug, Default)]
pub struct LogWitness {
    /// From the bundle, or of the first log that was shown.
    pinned: Option<LogKey>,
    seen: Option<Seen>,
    /// How many entries the cosigned checkpoint had that the control plane has.
    told: Option<u64>,
}

#[derive(Clone, Debug)]
struct Seen {
    witness: Witness,
    note: Note,
}

impl LogWitness {
    /// With what is on disk, and the log's key as the bundle had it; nothing if what is on disk does not hold.
    pub fn load(bundle_key: Option<&str>, kept: Option<&WitnessState>) -> Option<Self> {
        let pinned = bundle_key.map(LogKey::parse).transpose().ok()?;
        let Some(kept) = kept else { return Some(Self { pinned, seen: None, told: None }) };
        let (log, note) = (LogKey::parse(&kept.log).ok()?, Note::parse(&kept.seen).ok()?);
        let checkpoint = Checkpoint::verify(&note, &log).ok()?;
        let witness = Witness::new(log.clone(), Some(checkpoint));
        // What was seen is the older truth: a bundle with another key is an alarm when the log is shown.
        Some(Self { pinned: pinned.or(Some(log)), seen: Some(Seen { witness, note }), told: None })
    }

    /// How many entries were seen.
    pub fn size(&self) -> u64 {
        let last = self.seen.as_ref().and_then(|seen| seen.witness.last());
        last.map_or(0, |checkpoint| checkpoint.size)
    }

    /// Takes the log as it is shown; the state to keep, if there is anything new. The caller goes on with the machine as it
    /// was before if that cannot be kept.
    pub fn handle_log(&mut self, shown: Option<&LogReport>) -> Result<Option<WitnessState>, WitnessAlarm> {
        let Some(shown) = shown else {
            let seen = self.size();
            return if seen == 0 { Ok(None) } else { Err(WitnessAlarm::Gone { seen }) };
        };
        let key = LogKey::parse(&shown.key).map_err(|_| WitnessAlarm::Form("key"))?;
        if let Some(pinned) = self.pinned.as_ref().filter(|pinned| **pinned != key) {
            return Err(WitnessAlarm::Key { pinned: pinned.to_string(), shown: key.to_string() });
        }
        let note = Note::parse(&shown.checkpoint).map_err(|_| WitnessAlarm::Form("note"))?;
        let proof: Vec<Hash> = shown.proof.iter().map(|hash| Hash(hash.0)).collect();
        let mut witness = match &self.seen {
            Some(seen) => seen.witness.clone(),
            None => Witness::new(key.clone(), None),
        };
        let before = witness.last().cloned();
        let is_new = Some(witness.handle_checkpoint(&note, &proof)?) != before.as_ref();
        self.pinned = Some(key);
        if !is_new {
            return Ok(None);
        }
        self.seen = Some(Seen { witness, note });
        Ok(Some(WitnessState { log: shown.key.clone(), seen: shown.checkpoint.clone() }))
    }

    /// What was seen last, cosigned, unless the control plane has that already; it is on disk.
    pub fn poll_cosigned(&self, key: &SigningKey, wall_ms: u64) -> Option<String> {
        let seen = self.seen.as_ref().filter(|_| self.told != Some(self.size()))?;
        let mut note = Note::new(seen.note.text().to_owned());
        note.sign(key, wall_ms / 1000);
        Some(note.to_string())
    }

    /// The control plane has the cosignature of the checkpoint with so many entries.
    pub fn handle_told(&mut self, size: u64) {
        self.told = Some(size);
    }

    /// The log's key, once it is known.
    pub fn log_key(&self) -> Option<&LogKey> {
        self.pinned.as_ref()
    }

    /// What was seen last, a note.
    pub fn seen(&self) -> Option<String> {
        self.seen.as_ref().map(|seen| seen.note.to_string())
    }
}
