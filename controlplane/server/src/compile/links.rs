//! Links that routes need: who dials whom, and by which key.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use super::Faults;
use super::routes::Route;
use crate::objects::{Link as Reach, Member, Object as _, Role, TenantObjects};

/// Characters of each cluster in the name of a link's key; with the hash it is as long as such a name may be.
const CLUSTER_CHARACTERS: usize = 11;
const HASH_BYTES: usize = 8;

/// A link between an ingester and an egress.
pub(super) struct Link<'a> {
    pub(super) ingester: &'a str,
    pub(super) egress: &'a str,
    /// Who is dialled, and where.
    pub(super) dialled: Dialled<'a>,
    /// What agents call its key.
    pub(super) key: String,
    sender: &'a str,
    receiver: &'a str,
}

#[derive(Clone, Copy)]
pub(super) enum Dialled<'a> {
    Ingester(&'a Reach),
    Egress(&'a Reach),
}

/// Links of the cluster's members, by their ends.
pub(super) fn of<'a>(
    objects: &'a TenantObjects,
    cluster: &str,
    routes: &[Route<'a>],
    faults: &mut Faults,
) -> Vec<Link<'a>> {
    let all =
        routes.iter().flat_map(|route| route.ingesters.iter().map(|ingester| (*ingester, route.egress)));
    let pairs: BTreeSet<(&str, &str)> = all.collect();
    let mut links = Vec::new();
    for (ingester, egress) in pairs {
        let ends = (objects.members.get(ingester), objects.members.get(egress));
        let (Some(sender), Some(receiver)) = ends else { continue };
        if sender.cluster != cluster && receiver.cluster != cluster {
            continue;
        }
        let Some(dialled) = dialled(sender, receiver) else {
            let detail = format!("neither it nor {ingester} can be dialled: one of them needs a link");
            faults.push((Member::KIND, egress, "/link"), detail);
            continue;
        };
        let key = key_name(&sender.cluster, &receiver.cluster);
        links.push(Link {
            ingester,
            egress,
            dialled,
            key,
            sender: &sender.cluster,
            receiver: &receiver.cluster,
        });
    }
    links
}

/// Keys of the links, for the agents at their ends.
pub(super) fn keys(links: &[Link<'_>]) -> BTreeMap<String, zen_control_api::Link> {
    let key = |link: &Link<'_>| {
        let (sender, receiver) = (link.sender.to_owned(), link.receiver.to_owned());
        (link.key.clone(), zen_control_api::Link { sender, receiver })
    };
    links.iter().map(key).collect()
}

/// The egress dials where it can, from behind its firewall. A member that is both takes links as an ingester.
fn dialled<'a>(ingester: &'a Member, egress: &'a Member) -> Option<Dialled<'a>> {
    if let Some(link) = &ingester.link {
        return Some(Dialled::Ingester(link));
    }
    egress.link.as_ref().filter(|_| !egress.roles.contains(&Role::Ingester)).map(Dialled::Egress)
}

/// One for each two clusters and direction: a hash tells apart what is cut.
fn key_name(sender: &str, receiver: &str) -> String {
    let hash = digest(&SHA256, format!("{sender}/{receiver}").as_bytes());
    // Names are ASCII.
    let cut = |name: &str| name.chars().take(CLUSTER_CHARACTERS).collect::<String>();
    let mut name = format!("{}-{}-", cut(sender), cut(receiver));
    for byte in &hash.as_ref()[..HASH_BYTES] {
        write!(name, "{byte:02x}").expect("a String takes any text");
    }
    name
}

const _: () = assert!(2 * (CLUSTER_CHARACTERS + 1) + 2 * HASH_BYTES <= zen_control_api::LINK_NAME_BYTES_MAX);
