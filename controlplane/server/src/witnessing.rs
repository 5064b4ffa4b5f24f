//! What agents may ask as witnesses, of orders, and of what nodes did: as functions, each in one transaction.

use rusqlite::{Connection, OptionalExtension as _};
use zen_control_api::{
    Base64, DeadLetterReport, DeliveryReport, DigestReport, LogReport, OrderResult, RelayAnswer, SignedOrder,
};

use crate::database::{begin, integer};
use crate::session::check_session;
use crate::{AgentSession, Control, ControlError, Refusal, SessionKey, audit, deliveries};

impl Control {
    /// The newest checkpoint, and that it continues the log with `size` entries; none before the first.
    pub(crate) fn log_report(&self, size: u64) -> Result<Option<LogReport>, Refusal> {
        let database = self.reader();
        // Proof and checkpoint are of one moment.
        let transaction = database.unchecked_transaction()?;
        let Some(latest) = audit::latest(&transaction)? else { return Ok(None) };
        let proof = audit::consistency(&transaction, size, latest.size).map_err(ours)?;
        let proof = proof.unwrap_or_default().into_iter().map(|hash| Base64(hash.0)).collect();
        Ok(Some(LogReport { key: self.audit_key().to_string(), checkpoint: latest.note, proof }))
    }

    /// Whether an agent says something else of the log than it did before.
    pub(crate) fn is_other_alarm(&self, cluster: &str, alarm: Option<&str>) -> Result<bool, Refusal> {
        Ok(alarm_of(&self.reader(), cluster)?.as_deref() != alarm)
    }

    /// Keeps what an agent says as a witness: it is an entry, in the log that it says was changed.
    pub(crate) fn keep_witness_alarm(
        &self,
        key: &SessionKey,
        alarm: Option<&str>,
        now_ms: u64,
    ) -> Result<(), Refusal> {
        let write = |transaction: &Connection, agent: &AgentSession| {
            let cluster = agent.cluster.as_str();
            let action = if let Some(reason) = alarm {
                tracing::error!(
                    cluster,
                    reason,
                    "ALARM: a witness says that the audit log is not what it was"
                );
                let sql = "INSERT INTO witness_alarms (cluster, reason, since_ms) VALUES (?1, ?2, ?3)
                    ON CONFLICT DO UPDATE SET reason = excluded.reason, since_ms = excluded.since_ms";
                transaction.execute(sql, (cluster, reason, integer(now_ms)))?;
                "witnesses.alarm"
            } else {
                transaction.execute("DELETE FROM witness_alarms WHERE cluster = ?1", (cluster,))?;
                "witnesses.end-alarm"
            };
            audit::append_agent(transaction, (&agent.id, cluster), (action, "witness"), now_ms)?;
            Ok(())
        };
        self.write(key, now_ms, write)
    }

    /// Whether there is an order that was not handed out and is not over.
    pub(crate) fn has_open_order(&self, cluster: &str, now_ms: u64) -> Result<bool, Refusal> {
        let sql =
            "SELECT EXISTS (SELECT 1 FROM orders WHERE cluster = ?1 AND state = 'open' AND expires_ms > ?2)";
        let wanted = (cluster, integer(now_ms));
        Ok(self.reader().prepare_cached(sql)?.query_row(wanted, |row| row.get(0))?)
    }

    /// Whether there is an order above the last one that an agent has begun.
    pub(crate) fn has_orders(&self, cluster: &str, last: u64, now_ms: u64) -> Result<bool, Refusal> {
        let sql = "SELECT EXISTS (SELECT 1 FROM orders
            WHERE cluster = ?1 AND state IN ('open', 'sent') AND number > ?2 AND expires_ms > ?3)";
        let wanted = (cluster, integer(last), integer(now_ms));
        Ok(self.reader().prepare_cached(sql)?.query_row(wanted, |row| row.get(0))?)
    }

    /// Hands orders to their agent.
    pub(crate) fn hand_out(
        &self,
        key: &SessionKey,
        last: u64,
        now_ms: u64,
    ) -> Result<Vec<SignedOrder>, Refusal> {
        self.write(key, now_ms, |transaction, agent| {
            deliveries::hand_out(transaction, &agent.cluster, last, now_ms)
        })
    }

    /// Keeps what came of orders.
    pub(crate) fn end_orders(
        &self,
        key: &SessionKey,
        results: &[OrderResult],
        now_ms: u64,
    ) -> Result<(), Refusal> {
        self.write(key, now_ms, |transaction, agent| {
            deliveries::end_orders(transaction, agent, results, now_ms)
        })
    }

    /// Keeps digests of receipts.
    pub(crate) fn keep_digests(
        &self,
        key: &SessionKey,
        report: &DigestReport,
        now_ms: u64,
    ) -> Result<RelayAnswer, Refusal> {
        self.write(key, now_ms, |transaction, agent| {
            deliveries::keep_digests(transaction, agent, report, now_ms)
        })
    }

    /// Keeps metadata of deliveries.
    pub(crate) fn keep_deliveries(
        &self,
        key: &SessionKey,
        report: &DeliveryReport,
        now_ms: u64,
    ) -> Result<RelayAnswer, Refusal> {
        self.write(key, now_ms, |transaction, agent| {
            deliveries::keep_deliveries(transaction, agent, report, now_ms)
        })
    }

    /// Keeps a node's list of dead letters.
    pub(crate) fn keep_letters(
        &self,
        key: &SessionKey,
        report: &DeadLetterReport,
        now_ms: u64,
    ) -> Result<RelayAnswer, Refusal> {
        self.write(key, now_ms, |transaction, agent| deliveries::keep_letters(transaction, agent, report))
    }

    fn write<T>(
        &self,
        key: &SessionKey,
        now_ms: u64,
        step: impl FnOnce(&Connection, &AgentSession) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut database = self.database();
        let transaction = begin(&mut database)?;
        let agent = check_session(&transaction, key, now_ms)?;
        let done = step(&transaction, &agent)?;
        transaction.commit()?;
        Ok(done)
    }
}

/// Takes a witness' key and cosignature. One that does not hold is told in the log: those beside it are kept.
pub(crate) fn keep_cosigned(
    transaction: &Connection,
    (trust_domain, cluster): (&str, &str),
    (witness_key, cosigned): (&str, &str),
    at_ms: u64,
) -> Result<(), Refusal> {
    let kept = audit::register_witness(transaction, (trust_domain, cluster), witness_key, at_ms)
        .and_then(|witness| audit::keep_cosignature(transaction, &witness, cosigned));
    match kept {
        Err(Refusal::Field(reason)) => {
            tracing::warn!(cluster, reason, "a cosignature is not kept");
            Ok(())
        }
        kept => kept.map(drop),
    }
}

fn alarm_of(database: &Connection, cluster: &str) -> rusqlite::Result<Option<String>> {
    let sql = "SELECT reason FROM witness_alarms WHERE cluster = ?1";
    database.prepare_cached(sql)?.query_row((cluster,), |row| row.get(0)).optional()
}

fn ours(error: ControlError) -> Refusal {
    Refusal::Kept(error.to_string())
}
