//! From an identity of a provider to a person: known by issuer and subject, never by e-mail. Groups are roles, read each time.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use rusqlite::{Connection, OptionalExtension as _};
use zen_audit::Outcome;

use super::OidcSettings;
use super::token::Identity;
use crate::ControlError;
use crate::audit::{Act, append};
use crate::database::owner;
use crate::deny::hex;
use crate::people::{self, Role, Source};

/// How a person is called in the log.
pub(super) fn actor(issuer: &str, subject: &str) -> String {
    format!("{issuer}|{subject}")
}

/// The person of an identity, made if there is none yet, with the roles that their groups have now.
pub(super) fn person_of(
    transaction: &Connection,
    settings: &OidcSettings,
    identity: &Identity,
    (request_id, now_ms): (&str, u64),
) -> Result<String, ControlError> {
    let sql = "SELECT person FROM provider_identities WHERE issuer = ?1 AND subject = ?2";
    let key = (&settings.issuer, &identity.subject);
    let known: Option<String> = transaction.query_row(sql, key, |row| row.get(0)).optional()?;
    let is_new = known.is_none();
    let person = known.unwrap_or_else(|| name_of(&settings.issuer, &identity.subject));
    if is_new {
        if !people::make(transaction, &person, &identity.display, now_ms)? {
            return Err(ControlError::Argument("somebody else has this person's name"));
        }
        let sql = "INSERT INTO provider_identities (issuer, subject, person) VALUES (?1, ?2, ?3)";
        transaction.execute(sql, (key.0, key.1, &person))?;
    } else {
        let sql = "UPDATE people SET display = ?2 WHERE name = ?1";
        transaction.execute(sql, (&person, &identity.display))?;
    }
    let actor = actor(&settings.issuer, &identity.subject);
    let mut wanted = wanted(settings, &identity.groups);
    let present = people::with_source(transaction, &person)?;
    // Whoever has no group is a viewer; whoever was removed stays removed.
    if wanted.is_empty() && (is_new || !present.is_empty()) {
        wanted.insert(owner(transaction)?.tenant, Role::Viewer);
    }
    for (tenant, role) in changes(&present, &wanted) {
        if crate::store::has_tenant(transaction, &tenant)? {
            change(transaction, (&person, &tenant), role, (&actor, request_id, now_ms))?;
        }
    }
    Ok(person)
}

/// What groups say, the most in each tenant.
fn wanted(settings: &OidcSettings, groups: &[String]) -> BTreeMap<String, Role> {
    let mut wanted = BTreeMap::new();
    for (group, tenant, role) in &settings.roles {
        if groups.contains(group) {
            let most = wanted.entry(tenant.clone()).or_insert(*role);
            *most = (*most).max(*role);
        }
    }
    wanted
}

/// What has to be changed; roles that people gave here stay.
fn changes(
    present: &[(String, Role, Source)],
    wanted: &BTreeMap<String, Role>,
) -> Vec<(String, Option<Role>)> {
    let has = |tenant: &str| present.iter().find(|(of, _, _)| of == tenant);
    let given = wanted.iter().filter(|(tenant, role)| {
        has(tenant).is_none_or(|(_, now, source)| *source == Source::Groups && now != *role)
    });
    let taken = present
        .iter()
        .filter(|(tenant, _, source)| *source == Source::Groups && !wanted.contains_key(tenant));
    let given = given.map(|(tenant, role)| (tenant.clone(), Some(*role)));
    given.chain(taken.map(|(tenant, _, _)| (tenant.clone(), None))).collect()
}

/// The last owner of a tenant stays, whatever groups say.
fn change(
    transaction: &Connection,
    (person, tenant): (&str, &str),
    role: Option<Role>,
    (actor, request_id, now_ms): (&str, &str, u64),
) -> Result<(), ControlError> {
    let outcome = match people::set(transaction, (person, tenant), role, Source::Groups) {
        Ok(()) => Outcome::Done,
        Err(ControlError::LastOwner) => {
            tracing::error!(person, tenant, "ALARM: groups would take a tenant's last owner, who stays");
            Outcome::Refused
        }
        Err(error) => return Err(error),
    };
    let target = format!("tenants/{tenant}/people/{person}");
    let action = if role.is_some() { "people.put" } else { "people.delete" };
    append(transaction, &Act { tenant, actor, action, target: &target, outcome, request_id }, now_ms)?;
    Ok(())
}

fn name_of(issuer: &str, subject: &str) -> String {
    let hash = digest(&SHA256, format!("{issuer}\n{subject}").as_bytes());
    format!("sso-{}", hex(&hash.as_ref()[..12]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_said_stays_and_groups_are_read_anew() {
        let present = [
            ("a".to_owned(), Role::Owner, Source::Here),
            ("b".to_owned(), Role::Admin, Source::Groups),
            ("c".to_owned(), Role::Viewer, Source::Groups),
            ("d".to_owned(), Role::Editor, Source::Groups),
        ];
        let wanted = [("a", Role::Viewer), ("c", Role::Admin), ("d", Role::Editor), ("e", Role::Viewer)];
        let wanted = wanted.map(|(tenant, role)| (tenant.to_owned(), role)).into();
        let expected = [("c", Some(Role::Admin)), ("e", Some(Role::Viewer)), ("b", None)];
        assert_eq!(changes(&present, &wanted), expected.map(|(tenant, role)| (tenant.to_owned(), role)));
    }
}
