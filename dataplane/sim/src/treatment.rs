//! How an egress treats a target: throttle, circuit breaker, rate, adaptive concurrency, order. Each run draws its own.

use zen_core::deliver::{BreakerLimits, FailureShare, OrderBy, RateLimit, TargetLimits, ThrottleLimits};

use crate::prng::Prng;

/// Longest pause of a target, ms: after the storm everything must be delivered soon.
const PAUSE_MS_MAX: u64 = 15_000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Treatment {
    throttle: ThrottleLimits,
    breaker: Option<BreakerLimits>,
    rate: Option<RateLimit>,
    answer_ms_max: Option<u64>,
    /// What its deliveries share that go out in order.
    pub order_by: Option<OrderBy>,
}

impl Treatment {
    /// Draws one.
    pub fn draw(prng: &mut Prng) -> Self {
        let throttle = ThrottleLimits {
            pause_ms: prng.choose(&[10, 500, 2_000]),
            pause_ms_max: PAUSE_MS_MAX,
            uncounted_max: prng.choose(&[0, 2, 16]),
        };
        let share = FailureShare { window: prng.choose(&[2, 8, 64]), percent: prng.choose(&[20, 50, 100]) };
        let breaker = BreakerLimits {
            failures_max: prng.choose(&[1, 3, 10]),
            share: prng.chance(300).then_some(share),
            pause_ms: prng.choose(&[10, 300, 3_000]),
            pause_ms_max: PAUSE_MS_MAX,
        };
        let rate = RateLimit { per_second: prng.choose(&[2, 20]), burst: prng.choose(&[1, 5]) };
        Self {
            throttle,
            breaker: prng.chance(600).then_some(breaker),
            rate: prng.chance(300).then_some(rate),
            answer_ms_max: prng.chance(300).then(|| prng.choose(&[5, 200])),
            order_by: prng.chance(400).then_some(OrderBy::Endpoint),
        }
    }

    /// The limits of its target, beside those that all have.
    pub fn limits(&self, all: TargetLimits) -> TargetLimits {
        let &Self { throttle, breaker, rate, answer_ms_max, .. } = self;
        TargetLimits { throttle, breaker, rate, answer_ms_max, ..all }
    }
}
