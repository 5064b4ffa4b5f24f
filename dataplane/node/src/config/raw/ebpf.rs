//! Programs in the kernel, as written.

use serde::{Deserialize, Serialize};

/// A program that is not named is not loaded.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ebpf {
    pub guard: Option<Guard>,
    pub fence: Option<Fence>,
    pub steer: Option<Steer>,
    pub observe: Option<Observe>,
}

/// What a filter does with what it would refuse.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum FilterMode {
    #[default]
    Observe,
    Enforce,
}

/// Who runs the program at an interface.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Xdp {
    Native,
    #[default]
    Generic,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Guard {
    pub mode: FilterMode,
    pub allow: Vec<String>,
    pub deny: Vec<String>,
    pub syn_per_second: u32,
    pub syn_burst: u32,
    pub packets_per_second: u32,
    pub packets_burst: u32,
    pub source_bits_v4: u8,
    pub source_bits_v6: u8,
    pub sources_max: u32,
    pub interfaces: Vec<String>,
    pub xdp: Xdp,
    pub required: bool,
}

impl Default for Guard {
    fn default() -> Self {
        Self {
            mode: FilterMode::Observe,
            allow: Vec::new(),
            deny: Vec::new(),
            syn_per_second: 0,
            syn_burst: 0,
            packets_per_second: 0,
            packets_burst: 0,
            source_bits_v4: 32,
            source_bits_v6: 64,
            sources_max: 65_536,
            interfaces: Vec::new(),
            xdp: Xdp::Generic,
            required: false,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Fence {
    pub mode: FilterMode,
    pub required: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Steer {
    pub required: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Observe {
    pub required: bool,
}
