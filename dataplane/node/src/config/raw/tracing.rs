//! Traces as written: which events get one, and where spans go.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    pub sample_percent: f64,
    pub otlp_endpoint: Option<String>,
    pub otlp_ca_file: Option<String>,
}
