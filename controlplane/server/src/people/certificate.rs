//! Certificates of people: for programs that act for somebody, and for a terminal.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use zen_identity::SpiffeId;
use zeroize::Zeroizing;

use super::{PEOPLE, exists};
use crate::database::{begin, integer, owner};
use crate::directory::{self, Directory, PRIVATE_MODE};
use crate::{Authority, ControlError, Database, Refusal, audit};

/// How long a person's certificate lives, ms.
pub const PERSON_LIFE_MS: u64 = 12 * 3600 * 1000;

/// Makes a key and a certificate for somebody: `key.pem`, `certificate.pem` and `root.pem`, mode 0600, in a new directory.
pub fn certify_person(
    directory: &Directory,
    database: &mut Database,
    name: &str,
    out: &Path,
    now_ms: u64,
) -> Result<(), ControlError> {
    let trust_domain = owner(database)?.trust_domain;
    let authority = Authority::load(directory)?;
    let transaction = begin(database)?;
    if !exists(&transaction, name)? {
        return Err(ControlError::Argument("there is nobody of this name; run: zen-control person add"));
    }
    let id = format!("spiffe://{trust_domain}/{PEOPLE}/{name}");
    let id = SpiffeId::parse(&id).map_err(|source| ControlError::Id { id, source })?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let issued = authority.issue_for(&id, &key, PERSON_LIFE_MS, now_ms).map_err(not_issued)?;
    transaction.execute("DELETE FROM person_certificates WHERE not_after_ms <= ?1", (integer(now_ms),))?;
    let sql = "INSERT INTO person_certificates (serial, person, not_after_ms) VALUES (?1, ?2, ?3)";
    transaction.execute(sql, (issued.serial, name, integer(issued.not_after_ms)))?;
    audit::append_command(&transaction, ("", "people.certify", &format!("people/{name}")))?;
    DirBuilder::new().mode(0o700).create(out).map_err(ControlError::file(out))?;
    let key = Zeroizing::new(key.serialize_pem());
    directory::create(&out.join("key.pem"), &key, PRIVATE_MODE)?;
    directory::create(&out.join("certificate.pem"), &issued.chain, PRIVATE_MODE)?;
    directory::create(&out.join("root.pem"), authority.trust_bundle(), PRIVATE_MODE)?;
    Ok(transaction.commit()?)
}

fn not_issued(refusal: Refusal) -> ControlError {
    match refusal {
        Refusal::Issue(error) => ControlError::Issue(error),
        _ => ControlError::AuthorityOver,
    }
}
