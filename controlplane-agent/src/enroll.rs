//! `zen-agent enroll`: from a bundle to an identity on disk. Can be killed anywhere and run again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use zen_control_api::{BUNDLE_BYTES_MAX, BundleError, EnrollmentBundle, SigningKey};
use zen_identity::IdentityError;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::Config;
use crate::control_plane::{ControlError, ControlPlane};
use crate::core::{
    Begun, CLOCK_WARNED_MS, Certificate, EnrolledWith, Enrolling, EnrollmentRefused, Known, Pending,
    begins_later, key_name, skew_ms,
};
use crate::key::PrivateKey;
use crate::lockd::{Lockd, LockdError, own_secret};
use crate::state::{AGENT, BINDING, Identity, Record, StateDirectory, StateError, own_path};

/// How often the clock is looked at while a certificate has not begun.
const CLOCK_LOOK_MS: u64 = 1000;

/// Why there is no identity yet; all that was done stays good for the next attempt.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The bundle's file.
    #[error("{}: {source}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// What the bundle or the answer is refused for.
    #[error(transparent)]
    Refused(#[from] EnrollmentRefused),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// Sealing or opening.
    #[error(transparent)]
    Lockd(#[from] LockdError),
    /// TLS.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The control plane.
    #[error("{0}; the same command can be run again with the same bundle")]
    Control(#[from] ControlError),
    /// The key in lockd is none.
    #[error("zen/agent/{0} in lockd is no key that the agent made; remove enrollment.json, and enroll again")]
    Key(String),
}

/// The keys of an enrollment, sealed and on disk.
struct Keys {
    number: u64,
    key: PrivateKey,
    binding: SigningKey,
}

/// Enrolls, and says whose identity is in force until when, Unix ms.
pub async fn enroll(bundle_file: &Path, config: &Config) -> Result<(String, u64), EnrollError> {
    let bundle = read_bundle(bundle_file)?;
    let clock = Clock::start();
    let state = StateDirectory::open(&config.state_dir)?;
    let own = state.identity(AGENT)?;
    let enrolled = own.as_ref().and_then(|own| own.record.enrolled.clone());
    let known = Known { enrolled, pending: state.pending()?, keys: state.keys(AGENT)? };
    let begun = known.begin(&bundle, clock.now())?;
    if let (Begun::Enrolled, Some(own)) = (begun, own) {
        finish(&state)?;
        return Ok((own.certificate.spiffe_id, own.certificate.validity.not_after_ms));
    }
    let lockd = Lockd(config.lockd.clone());
    let keys = match begun {
        Begun::KeySealed(number) => open_keys(&lockd, number)?,
        Begun::KeyNeeded(number) => make_keys(&state, &lockd, number)?,
        Begun::Enrolled => unreachable!("only with an identity"),
    };
    if begun == Begun::KeyNeeded(keys.number) {
        state.set_pending(Some(Pending { bundle_id: bundle.bundle_id, key: keys.number }))?;
    }
    let (enrolled, certificate, generation, roots) = ask(&bundle, &keys, clock).await?;
    let record = Record { key: keys.number, generation, recoveries: 0, enrolled: Some(enrolled) };
    let (spiffe_id, not_after_ms) = (certificate.spiffe_id.clone(), certificate.validity.not_after_ms);
    state.install(AGENT, &Identity { record, certificate, roots })?;
    finish(&state)?;
    Ok((spiffe_id, not_after_ms))
}

/// What is not needed once the identity is in force.
fn finish(state: &StateDirectory) -> Result<(), StateError> {
    state.set_pending(None)?;
    state.publish_secrets(&BTreeMap::new(), |_| true).map(drop)
}

fn read_bundle(file: &Path) -> Result<EnrollmentBundle, EnrollError> {
    let read = |source| EnrollError::Read { file: file.to_owned(), source };
    let metadata = fs::metadata(file).map_err(read)?;
    if metadata.len() > BUNDLE_BYTES_MAX as u64 {
        return Err(BundleError::Length.into());
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "others can read the bundle, and whoever is first is let in");
    }
    let text = Zeroizing::new(fs::read(file).map_err(read)?);
    Ok(EnrollmentBundle::decode(&text)?)
}

/// New keys, sealed, on disk, and seen to be opened by lockd: a bundle is not spent on a key that is lost.
fn make_keys(state: &StateDirectory, lockd: &Lockd, number: u64) -> Result<Keys, EnrollError> {
    let key = PrivateKey::generate();
    let has_binding = state.has_own(BINDING)?;
    let binding = if has_binding { known_binding(lockd)? } else { SigningKey::generate() };
    let mut values = vec![(key_name(number), key.pem())];
    if !has_binding {
        values.push((BINDING.to_owned(), Zeroizing::new(BASE64_STANDARD.encode(binding.seed()))));
    }
    let sealed = lockd.seal(AGENT, &values, &state.scratch())?;
    let new = values.iter().map(|(name, _)| own_path(AGENT, name)).zip(sealed).collect();
    state.publish_secrets(&new, |_| true)?;
    for (name, value) in &values {
        let name = own_secret(AGENT, name);
        if *lockd.open(&name)? != value.as_bytes() {
            return Err(LockdError::Other(name).into());
        }
    }
    Ok(Keys { number, key, binding })
}

/// The keys of an attempt before.
fn open_keys(lockd: &Lockd, number: u64) -> Result<Keys, EnrollError> {
    let name = key_name(number);
    let pem = lockd.open(&own_secret(AGENT, &name))?;
    let key = PrivateKey::from_pem(&pem).ok_or(EnrollError::Key(name))?;
    Ok(Keys { number, key, binding: known_binding(lockd)? })
}

fn known_binding(lockd: &Lockd) -> Result<SigningKey, EnrollError> {
    open_binding(lockd)?.ok_or_else(|| EnrollError::Key(BINDING.to_owned()))
}

/// The key by which an agent is known again; nothing if lockd hands out something else.
pub(crate) fn open_binding(lockd: &Lockd) -> Result<Option<SigningKey>, LockdError> {
    Ok(open_seed(lockd, BINDING)?.map(SigningKey::from_seed))
}

/// An Ed25519 seed of the agent's own; nothing if lockd hands out something else.
pub(crate) fn open_seed(lockd: &Lockd, name: &str) -> Result<Option<Zeroizing<[u8; 32]>>, LockdError> {
    let text = lockd.open(&own_secret(AGENT, name))?;
    // Room for what 44 digits may be; exactly 32 bytes are a seed.
    let mut bytes = Zeroizing::new([0; 36]);
    let Ok(32) = BASE64_STANDARD.decode_slice(&*text, &mut *bytes) else {
        return Ok(None);
    };
    let mut seed = Zeroizing::new([0; 32]);
    seed.copy_from_slice(&bytes[..32]);
    Ok(Some(seed))
}

/// Nonce, proof, answer: on one connection.
async fn ask(
    bundle: &EnrollmentBundle,
    keys: &Keys,
    clock: Clock,
) -> Result<(EnrolledWith, Certificate, u64, String), EnrollError> {
    let request = (keys.key.request(), keys.key.public_key());
    let enrolling = Enrolling::new(bundle, request, keys.binding.public());
    let mut connection = ControlPlane::by_bundle(bundle)?.connect().await?;
    let nonce = connection.nonce(bundle).await?;
    let request = enrolling.handle_nonce(&nonce, &connection.exporter(), clock.now())?;
    let skew_ms = skew_ms(nonce.server_time_ms, clock.now());
    if skew_ms.unsigned_abs() > CLOCK_WARNED_MS {
        tracing::warn!(skew_ms, "this host's clock and the control plane's are apart; is it synchronised?");
    }
    let answer = connection.enroll(&request).await?;
    drop(connection);
    loop {
        match enrolling.handle_answer(&answer, clock.now()) {
            Ok((enrolled, certificate)) => {
                return Ok((enrolled, certificate, answer.generation, answer.trust_bundle));
            }
            Err(refused) => wait_for_begin(&answer.certificate_chain, refused, clock).await?,
        }
    }
}

/// With a clock that is behind, a new certificate has not begun yet.
async fn wait_for_begin(
    chain: &str,
    refused: EnrollmentRefused,
    clock: Clock,
) -> Result<(), EnrollmentRefused> {
    let now_ms = clock.now().wall_ms;
    let EnrollmentRefused::Certificate(fault) = &refused else { return Err(refused) };
    let Some(begins_ms) = begins_later(chain, fault, now_ms) else { return Err(refused) };
    let wait_ms = begins_ms - now_ms;
    tracing::warn!(
        wait_ms,
        "the certificate has not begun by this host's clock, which is behind; waiting for it"
    );
    // The clock may be set meanwhile.
    tokio::time::sleep(Duration::from_millis(wait_ms.min(CLOCK_LOOK_MS))).await;
    Ok(())
}
