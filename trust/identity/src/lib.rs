//! Who a peer is, and whether it may speak to us.
//!
//! Enters: certificate chains of peers, our own certificate, key and trust bundle files, policies.
//! Leaves: SPIFFE ids, decisions, and rustls configurations for each hop. Refused: every chain that
//! breaks a rule of the SPIFFE X509-SVID, SPIFFE-ID or Federation documents or of RFC 5280, each with
//! an error variant of its own. Path building is rustls-webpki; every rule it leaves out is here.
//!
//! TLS 1.3 only (RFC 8446), one crypto provider ([`provider`]).

#![forbid(unsafe_code)]

mod agents;
mod bundle;
mod certificate;
mod deny;
mod error;
mod files;
pub mod fuzz;
mod key_pair;
mod policy;
mod private_key;
mod public;
mod source;
mod spiffe_id;
mod store;
mod svid;
mod target;
mod tls;
mod verifier;

pub use agents::{
    AgentPeer, BUNDLE_CERTIFICATE_BYTES_MAX, CONTROL_PATH, ControlRefused, PeerSvid, agent_peer, control_id,
    control_refused, enrollment_client_config, public_key_hash,
};
pub use bundle::{BUNDLE_ROOTS_MAX, BundleError, RootFault, TrustBundle, TrustBundles};
pub use deny::document::{DENY_LIST_BYTES_MAX, DENY_LIST_ENTRIES_MAX, DENY_LIST_MEMORY_BYTES};
pub use deny::{Denial, DenyEntry, DenyList, DenyListError};
pub use error::IdentityError;
pub use key_pair::{KeyPairError, Svid};
pub use policy::{Decision, PatternError, Policy, SharedPolicy, SpiffePattern, Trial, TrialObserver};
pub use private_key::{PrivateKeySource, PrivateKeyVault};
pub use public::{NextCertificate, ReloadingCertificate, public_server_config};
pub use source::{SOURCE_CHAIN_BYTES_MAX, peer_dns_names};
pub use spiffe_id::{SPIFFE_ID_BYTES_MAX, SpiffeId, SpiffeIdError, TRUST_DOMAIN_BYTES_MAX, TrustDomain};
pub use store::{Handshakes, NextSvid, Reloaded, SvidFiles, SvidStore};
pub use svid::{CHAIN_CERTIFICATES_MAX, PeerUsage, SvidError, check_svid, peer_id, peer_not_after};
pub use target::{TargetRoots, target_client_config};
pub use tls::{provider, spiffe_server_name};
pub use verifier::{PeerRefused, peer_refused};
