//! What is around each page: who it is for, which tenant it is about, and where else to go.

use crate::people::Role;
use crate::rest::{Operation, may};

/// Sections of a tenant, and who may look at them.
const SECTIONS: [(&str, &str, Operation); 14] = [
    ("", "Overview", Operation::Read),
    ("/clusters", "Clusters", Operation::Read),
    ("/members", "Members", Operation::Read),
    ("/endpoints", "Endpoints", Operation::Read),
    ("/destinations", "Destinations", Operation::Read),
    ("/delivery-flows", "Delivery flows", Operation::Read),
    ("/policies", "Policies", Operation::Read),
    ("/credentials", "Credentials", Operation::Read),
    ("/deliveries", "Deliveries", Operation::Read),
    ("/dead-letters", "Dead letters", Operation::Read),
    ("/denials", "Denials", Operation::Read),
    ("/people", "People", Operation::ReadPeople),
    ("/billing", "Billing", Operation::Billing),
    ("/audit", "Audit log", Operation::Audit),
];

/// For the layout.
#[derive(Clone, Default)]
pub(super) struct Frame {
    pub(super) title: String,
    pub(super) person: String,
    /// In the tenant, as it is written; empty where it does not count.
    pub(super) role: &'static str,
    pub(super) may: Option<Role>,
    pub(super) csrf: String,
    pub(super) tenant: String,
    /// All in which the person has a role.
    pub(super) tenants: Vec<String>,
    pub(super) section: String,
    pub(super) notice: &'static str,
}

impl Frame {
    /// Those that the role may see.
    pub(super) fn sections(&self) -> Vec<(&'static str, &'static str)> {
        let seen = SECTIONS.iter().filter(|(_, _, operation)| self.may(*operation));
        seen.map(|(path, label, _)| (*path, *label)).collect()
    }

    pub(super) fn may(&self, operation: Operation) -> bool {
        self.may.is_some_and(|role| may(role, operation))
    }
}

/// What is said once something was done, by the word that the path carries.
pub(super) fn notice(word: &str) -> &'static str {
    match word {
        "saved" => "Saved. Clusters get it when you publish it.",
        "deleted" => "Deleted. Clusters get it when you publish it.",
        "published" => "Published. Agents bring it to their members within seconds.",
        "revoked" => "Revoked: the bundle lets nobody in.",
        "denied" => "Denied, in all clusters, from now on.",
        "allowed" => "The denial is taken back.",
        "role" => "The role is given.",
        "left" => "The role is taken.",
        "replayed" => "Ordered: the node sends them again.",
        "billing" => "Plan and contact are kept.",
        "made" => "The tenant is made; you are its owner.",
        _ => "",
    }
}
