//! Entry points for fuzzing: arbitrary bytes in, broken invariants out as panics.
#![doc(hidden)]

use std::sync::OnceLock;

use zen_lock::SecretName;

use crate::daemon::caller::{is_unit, unit_of};
use crate::daemon::policy_of;
use crate::policy::Pattern;
use crate::vault::{Envelope, Expected, Identities, open};

/// Keys of no value: generated once, so that nothing that is fed can be sealed to them.
fn keys() -> &'static Identities {
    static KEYS: OnceLock<Identities> = OnceLock::new();
    KEYS.get_or_init(Identities::generate)
}

/// Nothing that was not sealed to our key opens.
pub fn fuzz_open(data: &[u8]) {
    let place = SecretName::parse("a/b/c").expect("three parts");
    assert!(open(data, keys(), Expected { place: &place, authors: &[] }).is_err());
}

/// An accepted envelope is read back as it was, and is allowed at its own place.
pub fn fuzz_envelope(data: &[u8]) {
    let Ok(envelope) = Envelope::decode(data) else { return };
    assert!(envelope.allows(&envelope.name));
    let again = Envelope::decode(&envelope.encode()).expect("what was written is read");
    assert_eq!((again.name, again.scope, again.author), (envelope.name, envelope.scope, envelope.author));
    assert_eq!(*again.value, *envelope.value);
}

/// A unit is one step of the path, and a service or a scope.
pub fn fuzz_unit(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(unit) = unit_of(text) else { return };
    assert!(!unit.contains('/') && text.contains("/system.slice/"));
    assert!(is_unit(&unit));
}

/// Accepted rules grant nothing to nobody: each names somebody and something.
pub fn fuzz_policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(policy) = policy_of(text) else { return };
    for grant in &policy.grants {
        let names =
            [grant.uid.is_some(), grant.gid.is_some(), grant.executable.is_some(), grant.unit.is_some()];
        assert!(names.contains(&true) && !grant.secrets.is_empty());
    }
    assert!(policy.signed.iter().all(|signed| !signed.authors.is_empty()));
}

/// A pattern never matches across a part's end.
pub fn fuzz_pattern(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (pattern, name) = text.split_once('\n').unwrap_or((text, "a/b/c"));
    let (Some(pattern), Ok(name)) = (Pattern::parse(pattern), SecretName::parse(name)) else { return };
    let written = text.split('\n').next().unwrap_or_default();
    let matches = match written.strip_suffix('*') {
        Some(prefix) => name.as_str().starts_with(prefix),
        None => name.as_str() == written,
    };
    assert_eq!(pattern.matches(&name), matches);
}
