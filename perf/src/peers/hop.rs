//! What the hops of all peers have in common: where they listen, whom they show which certificate, which keys they check.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Hops, Settings, endpoint};
use crate::lab::{INGESTER, Lab, TARGET_IDENTITY};

/// Shared by the hops, as the mesh's link key is.
pub(super) const LINK_KEY: &[u8] = b"a link key of thirty-two bytes..";
/// Carries the first hop's HMAC.
pub(super) const LINK_HEADER: &str = "x-link-signature";
/// Carries the source's.
pub(super) const SOURCE_HEADER: &str = "x-signature";
/// In front of both.
pub(super) const PREFIX: &str = "sha256=";

/// One hop of a peer.
#[derive(Clone, Debug)]
pub(super) struct Hop {
    /// 1 or 2.
    pub(super) number: usize,
    /// Where it listens.
    pub(super) listen: SocketAddr,
    /// The header that is checked.
    pub(super) check_header: &'static str,
    /// The key of the HMAC in it.
    pub(super) check_key: Vec<u8>,
    /// Where it sends events.
    pub(super) next: SocketAddr,
    /// A name in the next hop's certificate.
    pub(super) next_name: &'static str,
    /// Who vouches for the next hop.
    pub(super) next_ca: PathBuf,
    /// Whose certificate it shows to the next hop.
    pub(super) identity: String,
    /// Where the target takes deliveries.
    pub(super) path: String,
}

/// The hops that `settings` asks for, the first first.
pub(super) fn all(lab: &Lab, settings: Settings) -> Vec<Hop> {
    let path = format!("/hooks/{}", lab.targets[0].name);
    let last = Hop {
        number: 2,
        listen: second(lab),
        check_header: LINK_HEADER,
        check_key: LINK_KEY.to_vec(),
        next: lab.target,
        next_name: TARGET_IDENTITY,
        next_ca: lab.pki.bundle(),
        identity: lab.egresses[0].name.clone(),
        path,
    };
    let first = Hop {
        number: 1,
        listen: lab.public,
        check_header: SOURCE_HEADER,
        check_key: endpoint(lab).secret.into_bytes(),
        identity: INGESTER.to_owned(),
        ..last.clone()
    };
    match settings.hops {
        Hops::Ingest => vec![first],
        Hops::Both => {
            // The second hop shows the public certificate, as the first does.
            let (next, next_name, next_ca) = (last.listen, "localhost", lab.pki.public_ca());
            vec![Hop { next, next_name, next_ca, ..first }, last]
        }
    }
}

/// Where a second hop listens: the lab's egress would answer its admin requests there.
pub(super) fn second(lab: &Lab) -> SocketAddr {
    lab.egresses[0].admin
}
