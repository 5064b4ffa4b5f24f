//! One opening: who asks, may they, is it there, does it open, is it theirs; and its receipt, before the answer.

use std::sync::Arc;

use arc_swap::ArcSwap;
use zen_lock::{Refusal, SecretName};
use zeroize::Zeroizing;

use super::caller::{Caller, CallerError, Credentials};
use super::config::Changing;
use super::metrics::Metrics;
use crate::files::TreeError;
use crate::policy::Identity;
use crate::receipts::{Receipt, Receipts, Verdict, now_ms};
use crate::vault::{Expected, open};

/// What all connections share.
pub struct Service {
    changing: ArcSwap<Changing>,
    receipts: Arc<dyn Receipts>,
    /// Counts of what became of requests.
    pub metrics: Metrics,
}

/// How an opening ended, and what is said of it to whom.
struct Outcome {
    verdict: Verdict,
    reason: Option<String>,
    answer: Result<Zeroizing<Vec<u8>>, Refusal>,
}

impl Service {
    /// A service that answers by `changing`.
    pub fn new(changing: Changing, receipts: Arc<dyn Receipts>) -> Self {
        Self { changing: ArcSwap::from_pointee(changing), receipts, metrics: Metrics::default() }
    }

    /// What is in force.
    pub fn in_force(&self) -> Arc<Changing> {
        self.changing.load_full()
    }

    /// Puts something else in force, from the next request on.
    pub fn replace(&self, changing: Changing) {
        self.changing.store(Arc::new(changing));
    }

    /// Opens a secret for a caller that looked like `first` before its connection was greeted.
    pub fn answer(
        &self,
        caller: &Caller,
        first: &Identity,
        name: &SecretName,
    ) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let outcome = match caller.look() {
            Ok(now) if now == *first => self.open(first, name),
            Ok(_) => Outcome::refused(Verdict::Changed, "it runs another program now", Refusal::Denied),
            Err(CallerError::Ended) => {
                Outcome::refused(Verdict::Changed, CallerError::Ended, Refusal::Denied)
            }
            Err(error) => Outcome::refused(Verdict::Denied, error, Refusal::Denied),
        };
        let who = (caller.credentials, Some(first));
        self.record(who, Some(name), outcome.verdict, outcome.reason)?;
        outcome.answer
    }

    /// A refusal for which nothing is opened; its receipt.
    pub fn refuse(
        &self,
        who: (Credentials, Option<&Identity>),
        verdict: Verdict,
        reason: impl ToString,
    ) -> Result<(), Refusal> {
        self.record(who, None, verdict, Some(reason.to_string()))
    }

    fn open(&self, caller: &Identity, name: &SecretName) -> Outcome {
        let changing = self.changing.load();
        if let Err(denial) = changing.policy.judge(caller, name) {
            return Outcome::refused(Verdict::Denied, denial.label(), Refusal::Denied);
        }
        let sealed = match changing.files.read(name) {
            Ok(sealed) => sealed,
            Err(error @ TreeError::Missing(_)) => {
                return Outcome::refused(Verdict::Missing, error, Refusal::Missing);
            }
            Err(error) => return Outcome::refused(Verdict::Sealed, error, Refusal::Sealed),
        };
        let expected = Expected { place: name, authors: &changing.policy.authors(name) };
        match open(&sealed, &changing.keys, expected) {
            Ok(opened) => {
                Outcome { verdict: Verdict::Opened, reason: None, answer: Ok(opened.envelope.value) }
            }
            Err(error) => Outcome::refused(Verdict::Sealed, error, Refusal::Sealed),
        }
    }

    fn record(
        &self,
        (credentials, identity): (Credentials, Option<&Identity>),
        name: Option<&SecretName>,
        verdict: Verdict,
        reason: Option<String>,
    ) -> Result<(), Refusal> {
        let executable = identity.and_then(|identity| identity.executable.as_ref());
        let receipt = Receipt {
            time_ms: now_ms(),
            secret: name.map(ToString::to_string),
            verdict,
            reason,
            pid: credentials.pid,
            uid: credentials.uid,
            gid: credentials.gid,
            executable: executable.map(|executable| executable.path.to_string_lossy().into_owned()),
            unit: identity.and_then(|identity| identity.unit.clone()),
        };
        self.metrics.count(verdict);
        self.receipts.record(&receipt).map_err(|error| {
            tracing::error!(%error, "a receipt cannot be written, so nothing is handed out");
            Refusal::Busy
        })
    }
}

impl Outcome {
    fn refused(verdict: Verdict, reason: impl ToString, refusal: Refusal) -> Self {
        Self { verdict, reason: Some(reason.to_string()), answer: Err(refusal) }
    }
}
