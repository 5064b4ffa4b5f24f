//! How a target is treated: from what was written to the core's limits.

use std::fmt::Display;

use zen_core::deliver::{
    BreakerLimits, FAILURE_WINDOW_MAX, FailureShare, OrderBy, RateLimit, StatusSet, TargetLimits,
    ThrottleLimits,
};

use super::faults::Faults;
use crate::config::raw::{self, AttemptRate, Backoff, Breaker, Status, Throttle};

/// Pauses of a schedule.
const RETRIES_MAX: usize = 32;
/// Attempts of a schedule that is computed.
const ATTEMPTS_MAX: u32 = 100;
/// Longest pause between two attempts at a target: a day.
const PAUSE_MS_MAX: u64 = 86_400_000;
/// Longest deadline: 30 days.
const DEADLINE_MS_MAX: u64 = 30 * 86_400_000;
const RATE_MAX: u32 = 1_000_000;

/// The limits of a target's queue; what is at fault is told, and stands in until the configuration is refused.
pub(super) fn limits(key: &str, raw: &raw::Target, faults: &mut Faults) -> TargetLimits {
    faults.bound(format_args!("{key}.in_flight_max"), raw.in_flight_max, 1, 10_000);
    faults.bound(format_args!("{key}.queue_max"), raw.queue_max, 1, 10_000_000);
    faults.bound(format_args!("{key}.attempt_timeout_ms"), raw.attempt_timeout_ms, 100, 600_000);
    faults.bound(format_args!("{key}.retry_jitter_percent"), raw.retry_jitter_percent, 0, 100);
    if let Some(deadline_ms) = raw.deadline_ms {
        faults.bound(format_args!("{key}.deadline_ms"), deadline_ms, 1_000, DEADLINE_MS_MAX);
    }
    if let Some(answer_ms_max) = raw.answer_ms_max {
        faults.bound(format_args!("{key}.answer_ms_max"), answer_ms_max, 1, raw.attempt_timeout_ms);
    }
    TargetLimits {
        in_flight_max: raw.in_flight_max,
        queue_max: raw.queue_max,
        retry_schedule_ms: schedule(key, raw, faults),
        retry_jitter_percent: raw.retry_jitter_percent,
        attempt_timeout_ms: raw.attempt_timeout_ms,
        permanent: permanent(key, &raw.permanent_statuses, faults),
        throttle: throttle(key, raw.throttle, faults),
        breaker: breaker(key, raw.breaker, faults),
        rate: raw.rate.map(|rate| rate_limit(key, rate, faults)),
        answer_ms_max: raw.answer_ms_max,
        ..TargetLimits::default()
    }
}

/// What orders a target's deliveries.
pub(super) fn order_by(key: &str, raw: &raw::OrderBy, faults: &mut Faults) -> Option<OrderBy> {
    match raw {
        raw::OrderBy::Endpoint => Some(OrderBy::Endpoint),
        raw::OrderBy::Header(name) => {
            let name = name.to_ascii_lowercase();
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            if !name.starts_with(|first: char| first.is_ascii_alphabetic()) || !name.bytes().all(is_plain) {
                let key = format!("{key}.order_by.header");
                faults.push(
                    key,
                    format_args!("\"{name}\" is no header's name"),
                    "name one that endpoints forward",
                );
            }
            Some(OrderBy::Header(name))
        }
        raw::OrderBy::JsonPath(path) => {
            let key = format!("{key}.order_by.json_path");
            faults.parse(key, path, "name the member, such as data.id").map(OrderBy::Json)
        }
    }
}

fn schedule(key: &str, raw: &raw::Target, faults: &mut Faults) -> Vec<u64> {
    faults.bound(
        format_args!("{key}.retry_schedule_ms (count)"),
        raw.retry_schedule_ms.len(),
        0,
        RETRIES_MAX,
    );
    let Some(backoff) = raw.retry else { return raw.retry_schedule_ms.clone() };
    if raw.retry_schedule_ms != raw::retry_schedule_ms() {
        faults.push(key, "has both retry and retry_schedule_ms", "keep one: both say when to try again");
    }
    let Backoff { first_ms, factor, max_ms, attempts_max } = backoff;
    faults.bound(format_args!("{key}.retry.first_ms"), first_ms, 1, PAUSE_MS_MAX);
    faults.bound(format_args!("{key}.retry.factor"), factor, 1.0, 10.0);
    faults.bound(format_args!("{key}.retry.max_ms"), max_ms, first_ms.min(PAUSE_MS_MAX), PAUSE_MS_MAX);
    faults.bound(format_args!("{key}.retry.attempts_max"), attempts_max, 1, ATTEMPTS_MAX);
    let pauses_ms = std::iter::successors(Some(first_ms as f64), |pause_ms| Some(pause_ms * factor));
    let retries = attempts_max.clamp(1, ATTEMPTS_MAX) as usize - 1;
    pauses_ms.map(|pause_ms| (pause_ms as u64).min(max_ms)).take(retries).collect()
}

fn permanent(key: &str, statuses: &[Status], faults: &mut Faults) -> StatusSet {
    let mut set = StatusSet::EMPTY;
    for status in statuses {
        let text = match status {
            Status::Code(code) => code.to_string(),
            Status::Class(class) => class.clone(),
        };
        if let Err(error) = set.insert(&text) {
            let key = format!("{key}.permanent_statuses");
            faults.push(key, format_args!("\"{text}\": {error}"), "name it, or leave it out");
        }
    }
    set
}

fn throttle(key: &str, raw: Throttle, faults: &mut Faults) -> ThrottleLimits {
    let Throttle { pause_ms, pause_ms_max, uncounted_max } = raw;
    pauses(format_args!("{key}.throttle"), pause_ms, pause_ms_max, faults);
    faults.bound(format_args!("{key}.throttle.uncounted_max"), uncounted_max, 0, 1_000);
    ThrottleLimits { pause_ms, pause_ms_max, uncounted_max }
}

fn breaker(key: &str, raw: Breaker, faults: &mut Faults) -> Option<BreakerLimits> {
    let Breaker { enabled, failures_max, failure_percent, window, pause_ms, pause_ms_max } = raw;
    pauses(format_args!("{key}.breaker"), pause_ms, pause_ms_max, faults);
    faults.bound(format_args!("{key}.breaker.failures_max"), failures_max, 1, 10_000);
    faults.bound(format_args!("{key}.breaker.window"), window, 1, FAILURE_WINDOW_MAX);
    if let Some(percent) = failure_percent {
        faults.bound(format_args!("{key}.breaker.failure_percent"), percent, 1, 100);
    }
    let share = failure_percent.map(|percent| FailureShare { window, percent });
    enabled.then_some(BreakerLimits { failures_max, share, pause_ms, pause_ms_max })
}

/// Bounded from below, so that no target is asked in a loop.
fn pauses(key: impl Display, pause_ms: u64, pause_ms_max: u64, faults: &mut Faults) {
    faults.bound(format_args!("{key}.pause_ms"), pause_ms, 1, PAUSE_MS_MAX);
    let least_ms = pause_ms.min(PAUSE_MS_MAX);
    faults.bound(format_args!("{key}.pause_ms_max"), pause_ms_max, least_ms, PAUSE_MS_MAX);
}

/// Without a burst a tenth of a second's attempts, so that a rest is not followed by a flood.
fn rate_limit(key: &str, raw: AttemptRate, faults: &mut Faults) -> RateLimit {
    let AttemptRate { per_second, burst } = raw;
    faults.bound(format_args!("{key}.rate.per_second"), per_second, 1, RATE_MAX);
    let burst = burst.unwrap_or(per_second.div_ceil(10));
    faults.bound(format_args!("{key}.rate.burst"), burst, 1.max(per_second.div_ceil(1_000)), RATE_MAX);
    RateLimit { per_second, burst }
}
