//! The steps on the disk: each holds the database's write lock, writes keys and certificates first, and then the list.
//!
//! Whatever is killed in between leaves a key that nothing names, and the next attempt writes over it.

use std::fs;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{Issuer, KeyPair, PublicKeyData as _};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use zen_control_api::{Base64, SigningKey, is_name};
use zen_identity::{TrustDomain, public_key_hash};
use zeroize::Zeroizing;

use super::ledger::{Issuing, Kind, Ledger, ROOTS_MAX, Root};
use super::rotation::{Need, Spread, Step};
use super::spread::{self, Straggler};
use super::{configuration_key, end_of, made};
use crate::configuration::publish_roots;
use crate::database::{self, Owner, begin};
use crate::directory::{self, Directory, KEY_MODE, PUBLIC_MODE};
use crate::{ControlError, Database, audit};

/// Longest key file from elsewhere, bytes.
const KEY_FILE_BYTES_MAX: u64 = 16 * 1024;

/// What became of the CAs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Advanced {
    /// What was done, in words, in order.
    pub done: Vec<String>,
    /// What only a person can do.
    pub need: Option<Need>,
}

/// Whether somebody who would lose his connections stops a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// He does.
    No,
    /// He does not.
    Yes,
}

/// Makes a control plane where there is none.
pub fn initialize(
    path: &Path,
    trust_domain: &str,
    tenant: &str,
    now_ms: u64,
) -> Result<Directory, ControlError> {
    let trust_domain = TrustDomain::parse(trust_domain).map_err(ControlError::TrustDomain)?;
    if !is_name(tenant) {
        return Err(ControlError::Argument("a tenant is 1 to 64 letters, digits, dots, dashes, underscores"));
    }
    let prepared = Directory::prepare(path)?;
    let owner = Owner { trust_domain: trust_domain.to_string(), tenant: tenant.to_owned() };
    let filled = fill(&prepared, &owner, now_ms);
    if filled.is_err() {
        prepared.discard();
    }
    filled?;
    let published = prepared.clone().publish(path);
    if published.is_err() {
        prepared.discard();
    }
    published
}

fn fill(directory: &Directory, owner: &Owner, now_ms: u64) -> Result<(), ControlError> {
    let root = prepare_root(directory, 1, now_ms)?;
    let issuing = prepare_issuing(directory, &root, 1, None, now_ms)?;
    Ledger::first(root, Issuing { used_from_ms: Some(now_ms), ..issuing }).write(directory)?;
    let seed = serde_json::to_string(&Base64(*SigningKey::generate().seed()));
    let seed = Zeroizing::new(seed.expect("base64 is a text"));
    directory.create(directory::CONFIGURATION_KEY, &seed, KEY_MODE)?;
    audit::create_key(directory)?;
    database::create_database(directory, owner)
}

/// Does all that is due; what it could not do for want of a key is said.
pub fn advance(
    directory: &Directory,
    database: &mut Database,
    now_ms: u64,
) -> Result<Advanced, ControlError> {
    let mut done = Vec::new();
    loop {
        let transaction = begin(database)?;
        let mut ledger = Ledger::read(directory)?;
        if ledger.roots.len() == ROOTS_MAX && spread::is_unpublished(&transaction, &ledger, directory)? {
            audit::append_system(&transaction, ("", "authority.publish", "authority/roots"), now_ms)?;
            publish_roots(&transaction, &configuration_key(directory)?, &ledger.trust_bundle(directory)?)?;
            transaction.commit()?;
            done.push("the second root is published to all clusters".to_owned());
            continue;
        }
        let spread = spread::of_ledger(&ledger, directory, &transaction, now_ms)?;
        let spread = spread.map_or(Spread::Everywhere, |spread| spread.spread());
        let step = ledger.poll_step(now_ms, spread);
        let is_possible = |step: &Step| match step {
            Step::Prepare { root } => directory.path(&Kind::Root.key(*root)).exists(),
            Step::Use { .. } | Step::Remove { .. } => true,
        };
        let Some(step) = step.filter(is_possible) else {
            return Ok(Advanced { done, need: ledger.poll_need(now_ms) });
        };
        // First: what cannot be told of is not done.
        let (action, target) = told(&ledger, &step);
        audit::append_system(&transaction, ("", action, &target), now_ms)?;
        done.push(take(directory, &mut ledger, step, now_ms)?);
        transaction.commit()?;
    }
}

/// A step as the audit log has it.
fn told(ledger: &Ledger, step: &Step) -> (&'static str, String) {
    let (action, number) = match step {
        Step::Prepare { .. } => ("authority.prepare", ledger.next_issuing()),
        Step::Use { number } => ("authority.use", *number),
        Step::Remove { number } => ("authority.remove", *number),
    };
    (action, format!("authority/issuing/{number}"))
}

/// One step; what was done, in words.
fn take(directory: &Directory, ledger: &mut Ledger, step: Step, now_ms: u64) -> Result<String, ControlError> {
    match step {
        Step::Prepare { root } => {
            let root = *ledger.root(root).expect("a step is about the list");
            let number = ledger.next_issuing();
            ledger.issuing.push(prepare_issuing(directory, &root, number, None, now_ms)?);
            ledger.write(directory)?;
            Ok(format!("issuing CA {number} is prepared under root {}", root.number))
        }
        Step::Use { number } => {
            let next = ledger.issuing.iter_mut().find(|issuing| issuing.number == number);
            next.expect("a step is about the list").used_from_ms = Some(now_ms);
            ledger.write(directory)?;
            Ok(format!("issuing CA {number} signs from now on"))
        }
        Step::Remove { number } => {
            ledger.issuing.retain(|issuing| issuing.number != number);
            ledger.write(directory)?;
            remove(directory, Kind::Issuing, number);
            Ok(format!("issuing CA {number} is removed: it is over"))
        }
    }
}

/// Prepares the next issuing CA with a root key that is kept elsewhere; it signs when it is its turn.
pub fn renew_issuing(
    directory: &Directory,
    database: &mut Database,
    root_key: Option<&Path>,
    now_ms: u64,
) -> Result<Advanced, ControlError> {
    {
        let transaction = begin(database)?;
        let mut ledger = Ledger::read(directory)?;
        let root = *ledger.root(ledger.active().root).expect("checked when it was read");
        if ledger.waiting(root.number, now_ms).is_none() {
            let number = ledger.next_issuing();
            ledger.issuing.push(prepare_issuing(directory, &root, number, root_key, now_ms)?);
            let target = format!("authority/issuing/{number}");
            audit::append_command(&transaction, ("", "authority.renew", &target))?;
            ledger.write(directory)?;
        }
        transaction.commit()?;
    }
    advance(directory, database, now_ms)
}

/// Makes a second root and its first issuing CA, and publishes both roots. With one that is there already, and
/// [`Force::Yes`], its issuing CA signs from now on, whoever does not know it; who that is, is the answer.
pub fn rotate_root(
    directory: &Directory,
    database: &mut Database,
    force: Force,
    now_ms: u64,
) -> Result<Vec<Straggler>, ControlError> {
    let key = configuration_key(directory)?;
    let transaction = begin(database)?;
    let mut ledger = Ledger::read(directory)?;
    if ledger.roots.len() == ROOTS_MAX {
        let spread = spread::of_ledger(&ledger, directory, &transaction, now_ms)?.expect("there are two");
        let next = ledger.waiting(ledger.newest_root().number, now_ms).copied();
        let (Force::Yes, false, Some(next)) = (force, spread.is_signing, next) else {
            return Err(ControlError::Argument(
                "a second root is there already; see: zen-control authority status",
            ));
        };
        audit::append_command(&transaction, ("", "authority.rotate-root", "authority/roots"))?;
        take(directory, &mut ledger, Step::Use { number: next.number }, now_ms)?;
        transaction.commit()?;
        return Ok(spread.stragglers);
    }
    let root = prepare_root(directory, ledger.newest_root().number + 1, now_ms)?;
    let number = ledger.next_issuing();
    let issuing = prepare_issuing(directory, &root, number, None, now_ms)?;
    ledger.roots.push(root);
    ledger.issuing.push(issuing);
    audit::append_command(&transaction, ("", "authority.rotate-root", "authority/roots"))?;
    ledger.write(directory)?;
    publish_roots(&transaction, &key, &ledger.trust_bundle(directory)?)?;
    let spread = spread::of_ledger(&ledger, directory, &transaction, now_ms)?;
    transaction.commit()?;
    Ok(spread.map(|spread| spread.stragglers).unwrap_or_default())
}

/// Takes the old root out of everything. Refused while somebody needs it, unless forced; what breaks is the answer.
pub fn retire_root(
    directory: &Directory,
    database: &mut Database,
    force: Force,
    now_ms: u64,
) -> Result<spread::RootSpread, ControlError> {
    let key = configuration_key(directory)?;
    let transaction = begin(database)?;
    let mut ledger = Ledger::read(directory)?;
    let found = spread::of_ledger(&ledger, directory, &transaction, now_ms)?;
    let found =
        found.ok_or(ControlError::Argument("there is one root; first: zen-control authority rotate-root"))?;
    if !found.is_signing {
        return Err(ControlError::Argument(
            "the old root's issuing CA signs yet; see: zen-control authority status",
        ));
    }
    if force == Force::No && (!found.stragglers.is_empty() || found.live_leaves > 0) {
        return Err(ControlError::RootInUse {
            stragglers: found.stragglers.len(),
            leaves: found.live_leaves,
        });
    }
    let old = ledger.roots.remove(0).number;
    let (kept, gone) = ledger.issuing.drain(..).partition(|issuing| issuing.root != old);
    let gone: Vec<Issuing> = gone;
    ledger.issuing = kept;
    audit::append_command(&transaction, ("", "authority.retire-root", "authority/roots"))?;
    publish_roots(&transaction, &key, &ledger.trust_bundle(directory)?)?;
    // The list first: if only it is written, the next `authority retire-root` has nothing to do, and configurations
    // that have a root too many lose it with the next change.
    ledger.write(directory)?;
    transaction.commit()?;
    for issuing in gone {
        remove(directory, Kind::Issuing, issuing.number);
    }
    remove(directory, Kind::Root, old);
    Ok(found)
}

/// A root's key and certificate on the disk.
fn prepare_root(directory: &Directory, number: u64, now_ms: u64) -> Result<Root, ControlError> {
    let made = made::root(now_ms)?;
    write(directory, Kind::Root, number, &made)?;
    let ends_at_ms = end_of(&made.certificate).expect("it was made with an end");
    Ok(Root { number, prepared_at_ms: now_ms, ends_at_ms })
}

/// An issuing CA's key and certificate on the disk, signed with the root's key here or elsewhere.
fn prepare_issuing(
    directory: &Directory,
    root: &Root,
    number: u64,
    root_key: Option<&Path>,
    now_ms: u64,
) -> Result<Issuing, ControlError> {
    let key = match root_key {
        Some(path) => directory::read_text(path, KEY_FILE_BYTES_MAX)?,
        None => directory.read(&Kind::Root.key(root.number))?,
    };
    let key = KeyPair::from_pem(&key)?;
    let pem = directory.read(&Kind::Root.certificate(root.number))?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok();
    let own = digest(&SHA256, &key.subject_public_key_info());
    if der.as_ref().and_then(public_key_hash).is_none_or(|hash| hash != own.as_ref()) {
        return Err(ControlError::RootKey { number: root.number });
    }
    let made = made::issuing(&Issuer::from_ca_cert_pem(&pem, key)?, root.ends_at_ms, now_ms)?;
    write(directory, Kind::Issuing, number, &made)?;
    let ends_at_ms = end_of(&made.certificate).expect("it was made with an end");
    Ok(Issuing { number, root: root.number, prepared_at_ms: now_ms, ends_at_ms, used_from_ms: None })
}

fn write(directory: &Directory, kind: Kind, number: u64, made: &made::Made) -> Result<(), ControlError> {
    directory.replace(&kind.key(number), &made.key, KEY_MODE)?;
    directory.replace(&kind.certificate(number), &made.certificate, PUBLIC_MODE)
}

/// Files that nothing names any more; what stays is in nobody's way.
fn remove(directory: &Directory, kind: Kind, number: u64) {
    for name in [kind.key(number), kind.certificate(number)] {
        let _ = fs::remove_file(directory.path(&name));
    }
}
