//! Access to an endpoint as written: lists of networks, proxies, proofs beside the signature, header rules, rates.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Named lists, which endpoints refer to.
pub type NetworkLists = BTreeMap<String, NetworkList>;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkList {
    pub file: Option<String>,
    #[serde(default)]
    pub cidrs: Vec<String>,
    #[serde(default)]
    pub mode: ListMode,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ListMode {
    Observe,
    #[default]
    Enforce,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Proxies {
    pub networks: Vec<String>,
    pub protocol: ProxyProtocol,
    #[serde(default = "one")]
    pub hops: u8,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyProtocol {
    ProxyV2,
    XForwardedFor,
}

/// Entries are networks, or names of lists.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Networks {
    pub allow: Vec<String>,
    pub deny: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Authorization {
    pub kind: AuthorizationKind,
    pub secret_files: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum AuthorizationKind {
    Bearer,
    Basic,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SourceCertificate {
    #[serde(default)]
    pub spiffe_ids: Vec<String>,
    #[serde(default)]
    pub dns_names: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderRule {
    pub name: String,
    #[serde(default)]
    pub one_of: Vec<String>,
    pub prefix: Option<String>,
    pub regex: Option<String>,
    #[serde(default)]
    pub action: HeaderAction,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum HeaderAction {
    #[default]
    Reject,
    Quarantine,
    Log,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    pub endpoint: Option<Rate>,
    pub source: Option<Rate>,
    pub unverified: Option<Rate>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub per_minute: u32,
    pub burst: u32,
}

fn one() -> u8 {
    1
}
