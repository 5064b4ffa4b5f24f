//! The exchange that makes the agent a witness of the audit log, and brings orders: after each answer to the question for a
//! configuration, and again at once if there is more to say.
//!
//! What was seen is on disk before it is cosigned, and an order before it is begun. Whatever an alarm rests on is kept in a
//! file of its own; nodes go on by what is in force.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine};
use zen_audit::{SignatureKind, SigningKey};
use zen_control_api::{
    LogReport, OrderEnd, REASON_BYTES_MAX, SignedOrder, SyncAnswer, SyncRequest, WitnessReport,
};
use zeroize::Zeroizing;

use crate::clock::{Clock, random};
use crate::control_plane::{ControlError, ControlPlane};
use crate::core::{Alarm, Backoff, EnrolledWith, LogWitness, Now, OrderState, WitnessAlarm};
use crate::enroll::open_seed;
use crate::lockd::{Lockd, LockdError, own_secret};
use crate::node;
use crate::state::{
    AGENT, EVIDENCE_FILE, Evidence, StateDirectory, StateError, WITNESS, WITNESS_FILE, own_path,
};
use crate::status::WitnessSnapshot;

/// Most requests in a row: the log as it is now, the cosignature of it, and once more.
const ROUNDS_MAX: u32 = 3;

/// Witness and orders of a running agent.
pub(crate) struct Syncing {
    witness: LogWitness,
    key: Option<SigningKey>,
    evidence: Option<String>,
    orders: OrderState,
    is_due: bool,
    backoff: Backoff,
    retry_steady_ms: u64,
    trouble: Option<String>,
    alarm: Alarm,
    order_alarm: Alarm,
}

/// What an exchange needs.
pub(crate) struct SyncMeans<'a> {
    pub(crate) state: &'a StateDirectory,
    pub(crate) lockd: &'a Lockd,
    pub(crate) enrolled: &'a EnrolledWith,
    /// Admin sockets by member.
    pub(crate) sockets: &'a BTreeMap<String, PathBuf>,
    pub(crate) clock: Clock,
}

/// Why an exchange came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("the witness' key: {0}")]
    Lockd(#[from] LockdError),
    #[error("zen/agent/{WITNESS} in lockd is no key that the agent made")]
    Key,
}

impl Syncing {
    /// With what is on disk.
    pub(crate) fn load(state: &StateDirectory, enrolled: &EnrolledWith) -> Result<Self, StateError> {
        let kept = state.witness()?;
        let witness = LogWitness::load(enrolled.audit_key.as_deref(), kept.as_ref())
            .ok_or_else(|| StateError::Malformed(state.path(WITNESS_FILE)))?;
        let evidence = state.evidence()?.map(|evidence| evidence.reason);
        let mut orders = state.orders()?;
        if orders.handle_start() {
            tracing::warn!(
                order = orders.last(),
                "an order was under way when the agent ended; it is not begun again"
            );
            state.set_orders(&orders)?;
        }
        Ok(Self {
            witness,
            key: None,
            evidence,
            orders,
            is_due: true,
            backoff: Backoff::default(),
            retry_steady_ms: 0,
            trouble: None,
            alarm: Alarm::default(),
            order_alarm: Alarm::default(),
        })
    }

    /// There may be something new at the control plane.
    pub(crate) fn handle_news(&mut self) {
        self.is_due = true;
    }

    /// Whether an exchange is due.
    pub(crate) fn poll_due(&self, now: Now) -> bool {
        self.is_due && now.steady_ms >= self.retry_steady_ms
    }

    /// Until when nothing is due, ms; nothing if news decide.
    pub(crate) fn wait_ms(&self, now: Now) -> Option<u64> {
        self.is_due.then(|| self.retry_steady_ms.saturating_sub(now.steady_ms))
    }

    /// What status says.
    pub(crate) fn snapshot(&self) -> WitnessSnapshot {
        WitnessSnapshot {
            size: self.witness.size(),
            alarm: self.evidence.clone(),
            trouble: self.trouble.clone(),
            last_order: self.orders.last(),
        }
    }

    /// The exchange, and what orders it brings.
    pub(crate) async fn step(&mut self, control: &ControlPlane, means: &SyncMeans<'_>) {
        let done = self.exchange(control, means).await;
        let now = means.clock.now();
        match done {
            Ok(is_more) => {
                self.is_due = is_more;
                self.backoff.handle_success();
                (self.retry_steady_ms, self.trouble) = (0, None);
            }
            // A control plane of an earlier version has no log and no orders.
            Err(SyncError::Control(error)) if error.is_unknown_route() => self.is_due = false,
            Err(error) => {
                let retry_after_ms = match &error {
                    SyncError::Control(error) => error.retry_after_ms(),
                    _ => None,
                };
                let wait = self.backoff.handle_failure(retry_after_ms, random());
                self.retry_steady_ms = now.steady_ms.saturating_add(wait);
                // A control plane that is away is told elsewhere, and is no trouble.
                let is_silent = matches!(&error, SyncError::Control(error) if !error.is_answered());
                let trouble = (!is_silent).then(|| error.to_string());
                if trouble.is_some() && self.trouble != trouble {
                    tracing::warn!(%error, "audit log and orders: it is tried again");
                }
                self.trouble = trouble;
            }
        }
    }

    /// Whether there is more to say at once.
    async fn exchange(&mut self, control: &ControlPlane, means: &SyncMeans<'_>) -> Result<bool, SyncError> {
        let mut connection = control.connect().await?;
        for _ in 0..ROUNDS_MAX {
            let request = self.request(means)?;
            let SyncAnswer { log, orders } = connection.sync(&request).await?;
            self.handle_heard(&request, means)?;
            let is_newer = self.handle_log(log.as_ref(), &request, means)?;
            if !orders.is_empty() {
                // Nodes may take longer than an idle connection lasts.
                drop(connection);
                let before = self.orders.clone();
                self.carry_out(&orders, means).await?;
                // What was refused comes again, and is asked for no sooner than anything else.
                return Ok(self.orders != before);
            }
            if !is_newer {
                return Ok(false);
            }
        }
        Ok(false)
    }

    fn request(&mut self, means: &SyncMeans<'_>) -> Result<SyncRequest, SyncError> {
        if self.key.is_none() && (self.witness.size() > 0 || means.state.has_own(WITNESS)?) {
            self.key = Some(witness_key(means)?);
        }
        let wall_ms = means.clock.now().wall_ms;
        let alarm = self.evidence.as_ref().map(|reason| short(reason.clone()));
        let witness = self.key.as_ref().map(|key| WitnessReport {
            key: key.public().to_string(),
            size: self.witness.size(),
            cosigned: self.witness.poll_cosigned(key, wall_ms),
            alarm,
        });
        Ok(SyncRequest { witness, last_order: self.orders.last(), results: self.orders.ends().to_vec() })
    }

    /// What was said is known now.
    fn handle_heard(&mut self, said: &SyncRequest, means: &SyncMeans<'_>) -> Result<(), StateError> {
        if let Some(witness) = said.witness.as_ref().filter(|witness| witness.cosigned.is_some()) {
            self.witness.handle_told(witness.size);
        }
        if said.results.is_empty() {
            return Ok(());
        }
        let mut next = self.orders.clone();
        next.handle_heard(&said.results);
        means.state.set_orders(&next)?;
        self.orders = next;
        Ok(())
    }

    /// Whether something was seen that is to be cosigned.
    fn handle_log(
        &mut self,
        shown: Option<&LogReport>,
        said: &SyncRequest,
        means: &SyncMeans<'_>,
    ) -> Result<bool, StateError> {
        // The proof is from the size that was said.
        let size = said.witness.as_ref().map_or(0, |witness| witness.size);
        assert_eq!(size, self.witness.size(), "what was seen before is known once there is a key");
        let mut next = self.witness.clone();
        match next.handle_log(shown) {
            Ok(Some(kept)) => {
                means.state.set_witness(&kept)?;
                self.witness = next;
                self.handle_continued(means)?;
                Ok(true)
            }
            Ok(None) => {
                self.handle_continued(means)?;
                Ok(false)
            }
            Err(alarm) => self.handle_alarm(&alarm, shown, means).map(|()| false),
        }
    }

    /// The alarm lasts until somebody has taken its evidence away.
    fn handle_continued(&mut self, means: &SyncMeans<'_>) -> Result<(), StateError> {
        if self.evidence.is_some() {
            self.evidence = means.state.evidence()?.map(|evidence| evidence.reason);
        }
        Ok(())
    }

    fn handle_alarm(
        &mut self,
        alarm: &WitnessAlarm,
        shown: Option<&LogReport>,
        means: &SyncMeans<'_>,
    ) -> Result<(), StateError> {
        let (reason, now) = (alarm.to_string(), means.clock.now());
        if self.alarm.handle_fault(&reason, now) {
            let evidence = means.state.path(EVIDENCE_FILE);
            tracing::error!(
                reason,
                evidence = %evidence.display(),
                "alarm: the control plane's audit log is not what it was; nothing of it is cosigned"
            );
        }
        means.state.add_evidence(&Evidence {
            at_ms: now.wall_ms,
            reason: reason.clone(),
            log: self.witness.log_key().map(ToString::to_string),
            seen: self.witness.seen(),
            shown: shown.cloned(),
        })?;
        let kept = means.state.evidence()?.map(|evidence| evidence.reason);
        self.evidence = kept.or(Some(reason));
        Ok(())
    }

    /// Each order once: its number is on disk before the node is asked.
    async fn carry_out(&mut self, orders: &[SignedOrder], means: &SyncMeans<'_>) -> Result<(), StateError> {
        for signed in orders {
            if !self.orders.has_place() {
                break;
            }
            let mut next = self.orders.clone();
            let taken = next.handle_order(signed, means.enrolled, means.clock.now());
            if next != self.orders {
                means.state.set_orders(&next)?;
                self.orders = next;
            }
            let order = match taken {
                Ok(order) => order,
                Err(error) => {
                    let reason = error.to_string();
                    if self.order_alarm.handle_fault(&reason, means.clock.now()) {
                        tracing::error!(reason, "alarm: an order is not carried out");
                    }
                    continue;
                }
            };
            let end = match means.sockets.get(&order.member) {
                Some(socket) => node::replay(socket, &order.replay).await,
                None => OrderEnd::Failed { reason: "this agent looks after no such member".to_owned() },
            };
            tracing::info!(order = order.number, member = order.member, ?end, "an order was carried out");
            let mut next = self.orders.clone();
            next.handle_end(end);
            // If this fails, the end is said as long as the agent runs; after that, nobody knows it.
            let kept = means.state.set_orders(&next);
            self.orders = next;
            kept?;
        }
        Ok(())
    }
}

/// The key by which this agent cosigns: made at the first need, sealed, on disk, and seen to be opened.
fn witness_key(means: &SyncMeans<'_>) -> Result<SigningKey, SyncError> {
    let SyncMeans { state, lockd, enrolled, .. } = means;
    if !state.has_own(WITNESS)? {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).expect("the kernel has randomness once it has started");
        let value = Zeroizing::new(BASE64_STANDARD.encode(*seed));
        let values = [(WITNESS.to_owned(), value)];
        let sealed = lockd.seal(AGENT, &values, &state.scratch())?;
        let new = values.iter().map(|(name, _)| own_path(AGENT, name)).zip(sealed).collect();
        state.publish_secrets(&new, |_| true)?;
        if *lockd.open(&own_secret(AGENT, WITNESS))? != values[0].1.as_bytes() {
            return Err(LockdError::Other(own_secret(AGENT, WITNESS)).into());
        }
    }
    let seed = open_seed(lockd, WITNESS)?.ok_or(SyncError::Key)?;
    let name = format!("{}/agent/{}", enrolled.trust_domain, enrolled.cluster);
    SigningKey::new(&name, SignatureKind::Cosignature, &seed).map_err(|_| SyncError::Key)
}

fn short(mut reason: String) -> String {
    let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    reason.truncate(end.unwrap_or(0));
    reason
}
