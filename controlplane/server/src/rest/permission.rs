//! Which role may do what: one table.

use crate::people::Role;

/// What routes do, as far as roles differ in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// To look.
    Read,
    /// To change objects, which are drafts.
    Draft,
    /// To give clusters their configuration.
    Publish,
    /// To let agents in.
    Enroll,
    /// To put somebody out, and to let them in again.
    Deny,
    /// To make tenants.
    Tenants,
}

/// Whether a role may do it.
pub(crate) fn may(role: Role, operation: Operation) -> bool {
    use Operation as O;
    match role {
        Role::Owner => true,
        Role::Admin => operation != O::Tenants,
        Role::Editor => matches!(operation, O::Read | O::Draft | O::Publish),
        Role::Viewer => operation == O::Read,
    }
}
