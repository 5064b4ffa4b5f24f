//! Who may try, and how often: rules about a request before and after its signature was verified.
//!
//! Addresses enter, decisions leave. A network list, a proxy's word, a header rule or a rate only ever
//! refuses: none of them admits anybody, which the proofs of [`crate::verify`] alone do. Where a node itself
//! may connect is decided here, too.
//!
//! Addresses are canonical: an IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) is its IPv4 address,
//! so that no list can be passed by in another form.

mod destination;
mod forwarded;
#[doc(hidden)]
pub mod fuzz;
mod grant;
mod header_rule;
mod name_servers;
mod network;
mod prefixes;
mod proxy_header;
mod rate;
mod reach;

pub use destination::{DestinationPolicy, DestinationRefused};
pub use forwarded::{ForwardedError, forwarded_client};
pub use grant::{Grant, Protocol, Purpose};
pub use header_rule::{
    HEADER_RULES_MAX, HEADER_VALUE_BYTES_MAX, HEADER_VALUES_MAX, HeaderAction, HeaderPattern, HeaderRule,
    HeaderTest, HeaderVerdict, PATTERN_VALUE_BYTES_MAX, check_headers,
};
pub use name_servers::{NAME_SERVERS_MAX, name_servers};
pub use network::{
    Mode, NETWORKS_MAX, Network, NetworkError, NetworkList, NetworkRules, NetworkSet, NetworkVerdict,
};
pub use proxy_header::{Origin, PROXY_HEADER_BYTES_MAX, ProxyHeader, ProxyHeaderError};
pub use rate::{
    BUCKET_BYTES, BURST_MAX, PER_MINUTE_MAX, Rate, RateError, RateHasher, RateKey, RateTable, SourcePrefix,
    WAYS,
};
pub use reach::{ENTRIES_MAX, ReachEntry, ReachError, ReachRules};
