//! Checkpoints while the listener runs: what is new is signed soon, and what nothing is added to once an hour.

use std::sync::Arc;

use tokio::time::MissedTickBehavior;

use super::Server;
use crate::audit::{CHECKPOINT_EVERY, Due};

/// Signs as long as it is not dropped.
pub(super) async fn keep(server: Arc<Server>) {
    let mut ticks = tokio::time::interval(CHECKPOINT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sign(&server).await;
    }
}

/// Signs what is new.
pub(super) async fn sign(server: &Arc<Server>) {
    if let Err(error) = server.work(|control, now| Ok(control.keep_audit(Due::Idle, now)?)).await {
        tracing::error!(%error, "ALARM: the audit log's newest entries are neither signed nor handed on");
    }
}
