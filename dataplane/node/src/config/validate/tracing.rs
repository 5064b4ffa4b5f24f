//! The `[tracing]` section.

use super::faults::Faults;
use crate::config::raw;
use crate::config::settings::TracingSettings;

pub(super) fn tracing(raw: &raw::Tracing, faults: &mut Faults) -> TracingSettings {
    let percent = raw.sample_percent;
    if !(0.0..=100.0).contains(&percent) {
        faults.push(
            "tracing.sample_percent",
            format_args!("{percent} is not 0 to 100"),
            "give a share of events",
        );
    }
    TracingSettings { sample_below: (percent / 100.0 * 2f64.powi(32)).ceil() as u64 }
}
