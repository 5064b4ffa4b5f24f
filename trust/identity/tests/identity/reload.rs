//! Files of an identity: what is refused, and that a bad generation changes nothing (rule 21).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::{fmt, io};

use tempfile::TempDir;
use zen_identity::{
    DenyEntry, DenyList, IdentityError, KeyPairError, PrivateKeySource, PrivateKeyVault, Reloaded,
    ReloadingCertificate, Svid, SvidError, SvidFiles, SvidStore,
};
use zeroize::Zeroizing;

use crate::pki::{Ca, DAY, DOMAIN, ID, at, dns, named, now, pem, set_window, uri, write_identity, write_key};

struct Lab {
    root: Ca,
    directory: TempDir,
    files: SvidFiles,
}

impl Lab {
    fn new() -> Self {
        let (root, directory) = (Ca::root(now(), |_| {}), tempfile::tempdir().unwrap());
        let leaf = root.leaf(|_| {});
        let files = write_identity(directory.path(), DOMAIN, &[&leaf.der], &leaf.key, &root);
        Self { root, directory, files }
    }

    fn key_file(&self) -> PathBuf {
        self.directory.path().join("svid.key")
    }

    /// The error of a first load, and that the same files do not replace a generation in force.
    fn refused(&self, spoil: impl FnOnce(&Self)) -> IdentityError {
        let store = SvidStore::load(self.files.clone()).unwrap();
        let before = format!("{store:?}");
        spoil(self);
        let error = SvidStore::load(self.files.clone()).unwrap_err();
        assert_eq!(store.reload().unwrap_err().to_string(), error.to_string());
        assert_eq!(format!("{store:?}"), before);
        error
    }
}

#[test]
fn a_generation_is_loaded_replaced_and_recognised() {
    let lab = Lab::new();
    let store = SvidStore::load(lab.files.clone()).unwrap();
    assert_eq!(store.id().as_str(), ID);
    assert_eq!(store.reload().unwrap(), Reloaded::Unchanged);
    let end = now() + DAY / 2;
    let next = lab.root.leaf(|params| set_window(params, now() - 60, end));
    write_identity(lab.directory.path(), DOMAIN, &[&next.der], &next.key, &lab.root);
    assert_eq!(store.reload().unwrap(), Reloaded::Changed);
    assert_eq!(store.not_after(), at(end));
    assert_eq!(store.reload().unwrap(), Reloaded::Unchanged);
}

/// Those of another generation, with a key of another name.
fn elsewhere(lab: &Lab, root: &Ca) -> SvidFiles {
    let leaf = root.leaf(|params| set_window(params, now() - 60, now() + DAY / 2));
    let directory = lab.directory.path().join("next");
    fs::create_dir_all(&directory).unwrap();
    write_identity(&directory, DOMAIN, &[&leaf.der], &leaf.key, root)
}

#[test]
fn what_is_prepared_elsewhere_counts_when_it_is_installed() {
    let lab = Lab::new();
    let store = SvidStore::load(lab.files.clone()).unwrap();
    store.replace_deny_list(DenyList::new([DenyEntry::Serial(vec![1])]));
    let before = format!("{store:?}");
    let next = store.prepare(elsewhere(&lab, &lab.root)).unwrap();
    assert_eq!(format!("{store:?}"), before, "nothing changes before");
    assert_eq!(store.install(next), Reloaded::Changed);
    assert_ne!(format!("{store:?}"), before);
    assert_eq!(store.deny_list().len(), 1, "the deny list stays");
    fs::remove_file(&lab.files.certificate_file).unwrap();
    assert_eq!(store.reload().unwrap(), Reloaded::Unchanged, "the files of now are read");

    let stranger = Ca::root(now(), |params| params.distinguished_name = named("stranger"));
    let files = elsewhere(&lab, &stranger);
    fs::write(&files.trust_bundle_file, pem(&[&lab.root.der])).unwrap();
    let error = store.prepare(files).unwrap_err();
    assert!(matches!(error, IdentityError::Svid { source: SvidError::UnknownIssuer, .. }), "{error}");
}

#[test]
fn a_deny_list_is_read_from_its_file() {
    let lab = Lab::new();
    let file = lab.directory.path().join("deny.json");
    assert!(matches!(DenyList::load(&file), Err(IdentityError::Read { .. })));
    fs::write(&file, "{\"version\":1,\"entries\":[{\"serial\":\"0a\"}]}").unwrap();
    assert_eq!(DenyList::load(&file).unwrap(), DenyList::new([DenyEntry::Serial(vec![10])]));
    fs::write(&file, "{\"version\":1}").unwrap();
    let error = DenyList::load(&file).unwrap_err();
    assert!(matches!(error, IdentityError::DenyList { .. }), "{error}");
    assert!(error.to_string().ends_with("ask whoever publishes it for a correct one"), "{error}");
    fs::write(&file, " ".repeat((1 << 20) + 1)).unwrap();
    assert!(matches!(DenyList::load(&file), Err(IdentityError::TooLarge { .. })));
}

#[test]
fn rule_21_our_own_chain_must_verify_against_our_own_bundle() {
    let error = Lab::new().refused(|lab| {
        let stranger = Ca::root(now(), |params| params.distinguished_name = named("stranger"));
        fs::write(&lab.files.trust_bundle_file, pem(&[&stranger.der])).unwrap();
    });
    assert!(matches!(error, IdentityError::Svid { source: SvidError::UnknownIssuer, .. }), "{error}");
    let error = Lab::new().refused(|lab| {
        let expired = lab.root.leaf(|params| set_window(params, now() - DAY, now() - 1));
        write_identity(lab.directory.path(), DOMAIN, &[&expired.der], &expired.key, &lab.root);
    });
    assert!(matches!(error, IdentityError::Svid { source: SvidError::Expired, .. }), "{error}");
    let error = Lab::new().refused(|lab| {
        let foreign =
            lab.root.leaf(|params| params.subject_alt_names = vec![uri("spiffe://other.example/a")]);
        write_identity(lab.directory.path(), DOMAIN, &[&foreign.der], &foreign.key, &lab.root);
    });
    assert!(matches!(error, IdentityError::Svid { source: SvidError::UnknownTrustDomain, .. }), "{error}");
}

#[test]
fn certificate_and_key_of_two_generations_are_refused() {
    let error = Lab::new().refused(|lab| {
        fs::write(&lab.files.certificate_file, pem(&[&lab.root.leaf(|_| {}).der])).unwrap();
    });
    assert!(matches!(error, IdentityError::KeyPair { source: KeyPairError::Mismatch, .. }), "{error}");
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_remedy() {
    for mode in [0o640, 0o604, 0o610, 0o602, 0o666] {
        let lab = Lab::new();
        let error = lab.refused(|lab| {
            fs::set_permissions(lab.key_file(), Permissions::from_mode(mode)).unwrap();
        });
        let file = lab.key_file().display().to_string();
        assert!(matches!(error, IdentityError::KeyPermissions { mode: read, .. } if read == mode), "{error}");
        assert!(error.to_string().ends_with(&format!("run: chmod 0600 {file}")), "{error}");
    }
    let lab = Lab::new();
    fs::set_permissions(lab.key_file(), Permissions::from_mode(0o400)).unwrap();
    assert!(SvidStore::load(lab.files).is_ok());
}

#[test]
fn missing_large_and_unreadable_files_are_named() {
    let error = Lab::new().refused(|lab| fs::remove_file(&lab.files.trust_bundle_file).unwrap());
    assert!(matches!(&error, IdentityError::Read { file, .. } if file.ends_with("bundle.pem")), "{error}");
    let error = Lab::new().refused(|lab| {
        fs::write(&lab.files.certificate_file, vec![b'a'; 1024 * 1024 + 1]).unwrap();
    });
    assert!(matches!(&error, IdentityError::TooLarge { file } if file.ends_with("svid.pem")), "{error}");
    let error = Lab::new().refused(|lab| fs::write(&lab.files.certificate_file, "").unwrap());
    assert!(matches!(error, IdentityError::KeyPair { source: KeyPairError::NoCertificate, .. }), "{error}");
    let error = Lab::new().refused(|lab| fs::write(lab.key_file(), "").unwrap());
    assert!(matches!(error, IdentityError::KeyPair { source: KeyPairError::KeyPem, .. }), "{error}");
    let error = Lab::new().refused(|lab| fs::write(&lab.files.trust_bundle_file, "").unwrap());
    assert!(matches!(error, IdentityError::Bundle { .. }), "{error}");
}

#[test]
fn chain_and_key_may_share_a_file() {
    let lab = Lab::new();
    let leaf = lab.root.leaf(|_| {});
    let both = format!("{}{}", leaf.key.serialize_pem(), pem(&[&leaf.der]));
    fs::write(lab.key_file(), both).unwrap();
    let files = SvidFiles { certificate_file: lab.key_file(), ..lab.files };
    assert!(SvidStore::load(files).is_ok());
}

#[test]
fn a_certificate_that_is_no_svid_is_refused_as_such() {
    let root = Ca::root(now(), |_| {});
    let leaf = root.leaf(|params| params.subject_alt_names = vec![dns("example.org")]);
    let error =
        Svid::from_pem(pem(&[&leaf.der]).as_bytes(), leaf.key.serialize_pem().as_bytes()).unwrap_err();
    assert_eq!(error, KeyPairError::Svid(SvidError::NoUri));
}

#[test]
fn debug_output_holds_no_key() {
    let lab = Lab::new();
    let store = SvidStore::load(lab.files).unwrap();
    let policy = zen_identity::SharedPolicy::new(zen_identity::Policy::default());
    let text = format!("{store:?} {:?}", store.server_config(policy, &[]).unwrap());
    assert!(text.contains(ID));
    assert!(!text.contains("PRIVATE KEY") && !text.contains("PrivatePkcs8"), "{text}");
}

#[test]
fn a_public_certificate_outside_its_validity_changes_nothing() {
    let (root, directory) = (Ca::root(now(), |_| {}), tempfile::tempdir().unwrap());
    let (certificate, key) = (directory.path().join("public.pem"), directory.path().join("public.key"));
    let write = |not_before, not_after| {
        let leaf = root.leaf(|params| {
            params.subject_alt_names = vec![dns("hooks.example.org")];
            set_window(params, not_before, not_after);
        });
        fs::write(&certificate, pem(&[&leaf.der])).unwrap();
        write_key(&key, &leaf.key);
    };
    let end = now() + DAY;
    write(now() - 60, end);
    let loaded = ReloadingCertificate::load(&certificate, PrivateKeySource::File(key.clone())).unwrap();
    assert_eq!(loaded.reload().unwrap(), Reloaded::Unchanged);
    for (not_before, not_after) in [(now() - DAY, now() - 1), (now() + 3600, now() + DAY)] {
        write(not_before, not_after);
        assert!(matches!(loaded.reload(), Err(IdentityError::Validity { .. })));
        assert!(matches!(
            ReloadingCertificate::load(&certificate, PrivateKeySource::File(key.clone())),
            Err(IdentityError::Validity { .. })
        ));
        assert_eq!(loaded.not_after(), at(end));
    }
    write(now() - 60, end);
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(loaded.reload(), Err(IdentityError::KeyPermissions { .. })));
}

/// A vault that counts how often its key is asked for.
#[derive(Debug, Default)]
struct Vault(Mutex<(Option<String>, usize)>);

impl Vault {
    fn source(self: &Arc<Self>) -> PrivateKeySource {
        PrivateKeySource::Vault(Arc::clone(self) as Arc<dyn PrivateKeyVault>)
    }

    fn keep(&self, key: &rcgen::KeyPair) {
        self.0.lock().unwrap().0 = Some(key.serialize_pem());
    }

    fn close(&self) {
        self.0.lock().unwrap().0 = None;
    }

    fn asked(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

impl fmt::Display for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the vault's key")
    }
}

impl PrivateKeyVault for Vault {
    fn open(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let (key, asked) = &mut *self.0.lock().unwrap();
        *asked += 1;
        let key = key.as_ref().ok_or_else(|| io::Error::other("closed; open it"))?;
        Ok(Zeroizing::new(key.clone().into_bytes()))
    }
}

#[test]
fn a_vault_is_asked_for_the_key_of_another_certificate_only() {
    let (lab, vault) = (Lab::new(), Arc::new(Vault::default()));
    let leaf = lab.root.leaf(|_| {});
    fs::write(&lab.files.certificate_file, pem(&[&leaf.der])).unwrap();
    vault.keep(&leaf.key);
    let files = SvidFiles { private_key: vault.source(), ..lab.files.clone() };
    let store = SvidStore::load(files).unwrap();
    for _ in 0..3 {
        assert_eq!(store.reload().unwrap(), Reloaded::Unchanged);
    }
    assert_eq!(vault.asked(), 1);

    // The certificate first: until its key is there the old generation stays, and each reload looks again.
    let end = now() + DAY / 2;
    let next = lab.root.leaf(|params| set_window(params, now() - 60, end));
    fs::write(&lab.files.certificate_file, pem(&[&next.der])).unwrap();
    let error = store.reload().unwrap_err();
    assert!(matches!(error, IdentityError::KeyPair { source: KeyPairError::Mismatch, .. }), "{error}");
    assert!(error.to_string().contains("the vault's key"), "{error}");
    vault.close();
    assert_eq!(store.reload().unwrap_err().to_string(), "closed; open it");
    assert_ne!(store.not_after(), at(end));
    vault.keep(&next.key);
    assert_eq!(store.reload().unwrap(), Reloaded::Changed);
    assert_eq!((store.not_after(), vault.asked()), (at(end), 4));

    // Another bundle is another generation.
    let both = [pem(&[&lab.root.der]), pem(&[&Ca::root(now(), |_| {}).der])].concat();
    fs::write(&lab.files.trust_bundle_file, both).unwrap();
    assert_eq!(store.reload().unwrap(), Reloaded::Changed);
    assert_eq!((store.reload().unwrap(), vault.asked()), (Reloaded::Unchanged, 5));
}

#[test]
fn a_vault_is_asked_when_another_place_names_another_key_or_certificate() {
    let (lab, vault) = (Lab::new(), Arc::new(Vault::default()));
    let leaf = lab.root.leaf(|_| {});
    fs::write(&lab.files.certificate_file, pem(&[&leaf.der])).unwrap();
    vault.keep(&leaf.key);
    let files = SvidFiles { private_key: vault.source(), ..lab.files.clone() };
    let store = SvidStore::load(files.clone()).unwrap();
    let copy = lab.directory.path().join("copy.pem");
    fs::copy(&files.certificate_file, &copy).unwrap();
    let elsewhere = SvidFiles { certificate_file: copy.clone(), ..files.clone() };
    let same = store.prepare(elsewhere).unwrap();
    assert_eq!((store.install(same), vault.asked()), (Reloaded::Unchanged, 1));

    // In a file now, under which name it is looked at.
    let key = lab.directory.path().join("other.key");
    write_key(&key, &lab.root.leaf(|_| {}).key);
    let in_file = SvidFiles { private_key: PrivateKeySource::File(key), ..files.clone() };
    let error = store.prepare(in_file).unwrap_err();
    assert!(matches!(error, IdentityError::KeyPair { source: KeyPairError::Mismatch, .. }), "{error}");
    fs::write(&copy, pem(&[&lab.root.leaf(|_| {}).der])).unwrap();
    let elsewhere = SvidFiles { certificate_file: copy, ..files };
    assert!(store.prepare(elsewhere).is_err());
    assert_eq!(vault.asked(), 2);
}

#[test]
fn a_vault_is_not_asked_for_what_no_peer_would_take() {
    let (lab, vault) = (Lab::new(), Arc::new(Vault::default()));
    let files = SvidFiles { private_key: vault.source(), ..lab.files.clone() };
    let expired = lab.root.leaf(|params| set_window(params, now() - DAY, now() - 1));
    let stranger = Ca::root(now(), |params| params.distinguished_name = named("stranger")).leaf(|_| {});
    for certificate in [String::new(), pem(&[&expired.der]), pem(&[&stranger.der])] {
        fs::write(&lab.files.certificate_file, &certificate).unwrap();
        assert!(SvidStore::load(files.clone()).is_err());
    }
    fs::write(&lab.files.certificate_file, pem(&[&expired.der])).unwrap();
    let public = ReloadingCertificate::load(&lab.files.certificate_file, vault.source());
    assert!(matches!(public, Err(IdentityError::Validity { .. })));
    assert_eq!(vault.asked(), 0);
}

#[test]
fn an_svid_that_runs_out_is_told_of_without_asking_for_its_key() {
    let (lab, vault) = (Lab::new(), Arc::new(Vault::default()));
    let leaf = lab.root.leaf(|params| set_window(params, now() - 60, now() + 2));
    fs::write(&lab.files.certificate_file, pem(&[&leaf.der])).unwrap();
    vault.keep(&leaf.key);
    let store = SvidStore::load(SvidFiles { private_key: vault.source(), ..lab.files.clone() }).unwrap();
    let error = loop {
        match store.reload() {
            Ok(reloaded) => assert_eq!(reloaded, Reloaded::Unchanged),
            Err(error) => break error,
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(matches!(error, IdentityError::Svid { source: SvidError::Expired, .. }), "{error}");
    assert_eq!(vault.asked(), 1);
}

#[test]
fn a_public_certificate_may_have_its_key_in_a_vault() {
    let (lab, vault) = (Lab::new(), Arc::new(Vault::default()));
    let file = lab.directory.path().join("public.pem");
    let issue = || {
        let leaf = lab.root.leaf(|params| params.subject_alt_names = vec![dns("hooks.example.org")]);
        fs::write(&file, pem(&[&leaf.der])).unwrap();
        vault.keep(&leaf.key);
    };
    issue();
    let loaded = ReloadingCertificate::load(&file, vault.source()).unwrap();
    assert_eq!((loaded.reload().unwrap(), vault.asked()), (Reloaded::Unchanged, 1));
    issue();
    vault.close();
    assert!(matches!(loaded.reload(), Err(IdentityError::Vault { .. })));
    assert_eq!(vault.asked(), 2);
    issue();
    assert_eq!(
        (loaded.reload().unwrap(), loaded.reload().unwrap()),
        (Reloaded::Changed, Reloaded::Unchanged)
    );
    assert_eq!(vault.asked(), 3);
}
