//! How a target is treated, as written: retries, pauses, circuit breaker, rate.

use serde::{Deserialize, Serialize};
use zen_core::deliver::{BreakerLimits, ThrottleLimits};

/// A status, or a class of them.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Status {
    Code(u16),
    Class(String),
}

/// In place of a list of pauses.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Backoff {
    pub first_ms: u64,
    #[serde(default = "factor")]
    pub factor: f64,
    pub max_ms: u64,
    pub attempts_max: u32,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Throttle {
    pub pause_ms: u64,
    pub pause_ms_max: u64,
    pub uncounted_max: u32,
}

impl Default for Throttle {
    fn default() -> Self {
        let ThrottleLimits { pause_ms, pause_ms_max, uncounted_max } = ThrottleLimits::default();
        Self { pause_ms, pause_ms_max, uncounted_max }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    pub enabled: bool,
    pub failures_max: u32,
    pub failure_percent: Option<u32>,
    pub window: u32,
    pub pause_ms: u64,
    pub pause_ms_max: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        let BreakerLimits { failures_max, pause_ms, pause_ms_max, .. } = BreakerLimits::default();
        Self { enabled: true, failures_max, failure_percent: None, window: 20, pause_ms, pause_ms_max }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptRate {
    pub per_second: u32,
    pub burst: Option<u32>,
}

/// What deliveries share that go out in order.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderBy {
    Endpoint,
    Header(String),
    JsonPath(String),
}

/// What judges the event itself.
pub(super) fn permanent_statuses() -> Vec<Status> {
    [413, 415, 422, 431, 508].map(Status::Code).to_vec()
}

fn factor() -> f64 {
    2.0
}
