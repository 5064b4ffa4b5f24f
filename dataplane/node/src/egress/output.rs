//! What an owner keeps for an output: which of its targets is in use, and what is known of the others.

use std::sync::Arc;

use zen_core::event::Event;
use zen_rules::failover::{Failover, Health, Switch};
use zen_rules::{Document, TransformError, Transformed};

use crate::config::{Output, Target};

/// How often a target that is not in use is probed.
const PROBE_EVERY_MS: u64 = 5_000;

/// One output at its owner.
pub struct OutputState {
    settings: Arc<Output>,
    failover: Option<Failover>,
    probe_due_ms: u64,
}

impl OutputState {
    /// Begins with the primary.
    pub fn new(settings: Arc<Output>) -> Self {
        Self { failover: settings.rules.failover(), settings, probe_due_ms: 0 }
    }

    /// Takes a changed configuration; the target in use stays, unless targets or policy changed.
    pub fn handle_settings(&mut self, settings: Arc<Output>) {
        if !settings.rules.stands_alike(&self.settings.rules) {
            self.failover = settings.rules.failover();
        }
        self.settings = settings;
    }

    /// The target in use.
    pub fn target(&self) -> &Arc<Target> {
        &self.settings.targets[self.active()]
    }

    /// Whether that is not the primary.
    pub fn is_on_standby(&self) -> bool {
        self.active() > 0
    }

    /// Takes in whether one of the targets does its work.
    pub fn handle_health(&mut self, target: &Arc<Target>, works: bool, steady_ms: u64) {
        let Some(failover) = &mut self.failover else { return };
        // One of an earlier configuration says nothing.
        let Some(index) = self.settings.targets.iter().position(|known| Arc::ptr_eq(known, target)) else {
            return;
        };
        failover.handle_health(index, if works { Health::Healthy } else { Health::Unhealthy }, steady_ms);
    }

    /// Switches if it is time.
    pub fn poll_switch(&mut self, steady_ms: u64) -> Option<Switch> {
        self.failover.as_mut()?.poll_switch(steady_ms)
    }

    /// Targets to be probed now: those that are not in use.
    pub fn poll_probes(&mut self, steady_ms: u64) -> Vec<Arc<Target>> {
        if self.failover.is_none() || steady_ms < self.probe_due_ms {
            return Vec::new();
        }
        self.probe_due_ms = steady_ms + PROBE_EVERY_MS;
        let used = self.active();
        let others = self.settings.targets.iter().enumerate().filter(|(index, _)| *index != used);
        others.map(|(_, target)| Arc::clone(target)).collect()
    }

    /// What the target gets instead of the body as it came, if there is a transform.
    pub fn transform(&self, event: &Event<'_>) -> Option<Result<Transformed<'_>, TransformError>> {
        let transform = self.settings.rules.transform()?;
        Some(transform.apply(&Document::new(event.body)))
    }

    fn active(&self) -> usize {
        self.failover.as_ref().map_or(0, Failover::active)
    }
}
