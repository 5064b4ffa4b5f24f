//! Traces as written: which events get one.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    pub sample_percent: f64,
}
