//! Which role may do what: one table, which the documentation prints.

use std::fmt::Write as _;

use crate::people::Role;

/// What routes do, as far as roles differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// To ask who one is, and for what concerns everybody.
    Greet,
    /// To look.
    Read,
    /// To make and change destinations and flows, which are drafts.
    Draft,
    /// To give clusters their configuration.
    Publish,
    /// To change all other objects, and to delete any.
    Manage,
    /// To let agents in.
    Enroll,
    /// To have dead letters sent again.
    Replay,
    /// To put somebody out, and to let them in again.
    Deny,
    /// To read the log of acts.
    Audit,
    /// To see who has which role.
    ReadPeople,
    /// To give and take roles.
    People,
    /// To see and change who pays, and for what.
    Billing,
    /// To make tenants.
    Tenants,
}

/// Whose role counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Nobody's: whoever is a person may.
    Anybody,
    /// The one in the tenant of the path.
    Tenant,
    /// The one in the first tenant: it is about the whole installation.
    Installation,
}

impl Operation {
    /// All of them, in the table's order.
    pub(crate) const ALL: [Self; 13] = [
        Self::Greet,
        Self::Read,
        Self::Draft,
        Self::Publish,
        Self::Manage,
        Self::Enroll,
        Self::Replay,
        Self::Deny,
        Self::Audit,
        Self::ReadPeople,
        Self::People,
        Self::Billing,
        Self::Tenants,
    ];

    /// Name, what it lets somebody do, and who may: the table.
    pub(crate) fn row(self) -> (&'static str, &'static str, &'static [Role]) {
        use Role::{Admin, Editor, Owner, Viewer};
        match self {
            Self::Greet => ("greet", "ask who one is; list one's tenants; the API's description", &Role::ALL),
            Self::Read => (
                "read",
                "see objects, configurations, bundles, status, deliveries, dead letters",
                &[Owner, Admin, Editor, Viewer],
            ),
            Self::Draft => ("draft", "make and modify destinations and flows", &[Owner, Admin, Editor]),
            Self::Publish => ("publish", "publish a cluster's configuration", &[Owner, Admin, Editor]),
            Self::Manage => (
                "manage",
                "make and modify clusters, members, endpoints (the adapters), policies, credentials; delete any object",
                &[Owner, Admin],
            ),
            Self::Enroll => ("enroll", "make and revoke enrollment bundles", &[Owner, Admin]),
            Self::Replay => ("replay", "have dead letters sent again", &[Owner, Admin]),
            Self::Deny => ("deny", "deny identities, and take that back (first tenant)", &[Owner, Admin]),
            Self::Audit => ("audit", "read and export the audit log", &[Owner, Admin]),
            Self::ReadPeople => ("read_people", "see who has which role", &[Owner, Admin]),
            Self::People => ("people", "give and take roles; make sign-in links", &[Owner]),
            Self::Billing => ("billing", "see and change plan and contact", &[Owner]),
            Self::Tenants => ("tenants", "make tenants (first tenant)", &[Owner]),
        }
    }
}

/// Whether a role may do it.
pub(crate) fn may(role: Role, operation: Operation) -> bool {
    operation.row().2.contains(&role)
}

/// The table, as Markdown.
pub fn permission_table() -> String {
    let mut text =
        "| permission | lets somebody | owner | admin | editor | viewer |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for operation in Operation::ALL {
        let (name, says, _) = operation.row();
        let _ = write!(text, "| `{name}` | {says} |");
        for role in Role::ALL {
            text.push_str(if may(role, operation) { " yes |" } else { " |" });
        }
        text.push('\n');
    }
    text
}
