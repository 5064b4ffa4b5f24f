//! What can be done to the log of a control plane, on its real files: by who can write the database, by who has the log's
//! key as well, by a crash. Who catches it: the start, `zen-audit verify` on an export, a witness; or nobody.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use zen_audit::{
    Alarm, Checkpoint, Entry, Export, Frontier, Hash, Node, Nodes, Note, SignatureKind, SigningKey, Witness,
    consistency_proof,
};
use zen_control::{AuditSettings, Control, ControlError, Role, add_person, sign_audit};
use zen_control_api::Base64;
use zeroize::Zeroizing;

use crate::lab::{Place, TRUST_DOMAIN, now_ms};

const PASSED: i32 = 0;
const UNANCHORED: i32 = 3;
const FAILED: i32 = 4;
const FILE: &str = "audit.checkpoint";

/// A log of which a witness saw the first part, the log signed for some more, and the rest is signed by nobody.
struct Scene {
    place: Place,
    witness: Witness,
    cosigner: SigningKey,
    anchored: usize,
    signed: usize,
}

/// A tree of any entries.
#[derive(Default)]
struct Tree {
    frontier: Frontier,
    nodes: BTreeMap<Node, Hash>,
}

impl Nodes for Tree {
    type Error = Infallible;

    fn hash(&self, node: Node) -> Result<Hash, Infallible> {
        Ok(self.nodes[&node])
    }
}

impl Tree {
    fn of(entries: &[Vec<u8>]) -> Self {
        let mut tree = Self::default();
        for bytes in entries {
            let nodes = &mut tree.nodes;
            tree.frontier.append(Entry::leaf(bytes), |node, hash| {
                nodes.insert(node, hash);
            });
        }
        tree
    }
}

impl Scene {
    fn new() -> Self {
        let place = Place::new();
        let cosigner =
            signing_key(&format!("{TRUST_DOMAIN}/agent/edge"), SignatureKind::Cosignature, [7; 32]);
        let witness = Witness::new(place.trust(1).log, None);
        let mut scene = Self { place, witness, cosigner, anchored: 0, signed: 0 };
        scene.people(&["a", "b", "c"]);
        scene.sign();
        scene.anchored = scene.sync().unwrap() as usize;
        scene.people(&["d", "e"]);
        scene.signed = scene.sign() as usize;
        scene.people(&["f", "g"]);
        assert!(scene.anchored < scene.signed && scene.signed + 2 == scene.entries().len());
        let (status, said) = scene.verify();
        assert_eq!(status, UNANCHORED, "{said}");
        assert!(said.contains(&format!("PASS        [0,{})", scene.anchored)), "{said}");
        assert_eq!(scene.start(), None);
        scene
    }

    fn people(&self, names: &[&str]) {
        for name in names {
            add_person(&mut self.place.database(), name, (None, Role::Viewer), now_ms()).unwrap();
        }
    }

    /// A checkpoint, as the server and commands make it; how many entries it has.
    fn sign(&self) -> u64 {
        let settings = AuditSettings::default();
        let note = sign_audit(&self.place.directory(), &mut self.place.database(), &settings, now_ms());
        Checkpoint::verify(&Note::parse(&note.unwrap()).unwrap(), &self.place.trust(1).log).unwrap().size
    }

    /// The witness gets the newest checkpoint with whatever proof can be made, and cosigns it.
    fn sync(&mut self) -> Result<u64, Alarm> {
        let note = self.place.export().checkpoints.pop().unwrap();
        let size = Checkpoint::parse(note.text()).unwrap().size;
        let seen = self.witness.last().map_or(0, |seen| seen.size);
        let tree = Tree::of(&self.entries()[..size as usize]);
        let Ok(proof) = consistency_proof(&tree, seen.min(size), size);
        self.witness.handle_checkpoint(&note, &proof)?;
        let mut cosigned = Note::new(note.text().to_owned());
        cosigned.sign(&self.cosigner, now_ms() / 1000);
        let cosigned = cosigned.to_string();
        let line = cosigned.lines().next_back().unwrap();
        let (database, key) = (self.place.database(), self.cosigner.public().to_string());
        let sql = "INSERT OR IGNORE INTO audit_witnesses (cluster, key, since_ms) VALUES ('edge', ?1, 1)";
        database.execute(sql, (&key,)).unwrap();
        let sql = "INSERT OR REPLACE INTO audit_cosignatures (size, witness, line) VALUES (?1, ?2, ?3)";
        database.execute(sql, (size.cast_signed(), &key, line)).unwrap();
        Ok(size)
    }

    fn entries(&self) -> Vec<Vec<u8>> {
        self.place.export().entries
    }

    /// What the program of an auditor says of an export, by keys that the auditor has from elsewhere.
    fn verify(&self) -> (i32, String) {
        self.verify_of(&self.place.export())
    }

    fn verify_of(&self, export: &Export) -> (i32, String) {
        let file = self.place.at().join("log.export");
        fs::write(&file, export.text()).unwrap();
        let mut command = Command::new(program());
        command.args(["verify", "--log-key", &self.place.trust(1).log.to_string()]);
        let output =
            command.args(["--witness-key", &self.cosigner.public().to_string()]).arg(file).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    /// Why the server does not start, if it does not.
    fn start(&self) -> Option<String> {
        match Control::open(&self.place.directory()) {
            Ok(_) => None,
            Err(error @ ControlError::AuditTruncated { .. }) => Some(error.to_string()),
            Err(error) => panic!("{error}"),
        }
    }

    /// What somebody does who can write the database: other entries, with all hashes that belong to them.
    fn write(&self, entries: &[Vec<u8>]) {
        let database = self.place.database();
        drop_triggers(&database);
        database.execute_batch("DELETE FROM audit_entries; DELETE FROM audit_nodes").unwrap();
        for (sequence, bytes) in entries.iter().enumerate() {
            let sql = "INSERT INTO audit_entries (sequence, bytes) VALUES (?1, ?2)";
            database.execute(sql, (i64::try_from(sequence).unwrap(), bytes)).unwrap();
        }
        for (node, hash) in Tree::of(entries).nodes {
            let sql = "INSERT INTO audit_nodes (level, idx, hash) VALUES (?1, ?2, ?3)";
            database.execute(sql, (node.level, node.index.cast_signed(), &hash.0[..])).unwrap();
        }
    }

    /// What somebody does who has the log's key, too: new checkpoints of what is there, here and in the second file.
    fn sign_with_the_stolen_key(&self) {
        let entries = self.entries();
        let seed: Base64<32> = serde_json::from_str(&self.read("audit.key")).unwrap();
        let key = signing_key(&format!("{TRUST_DOMAIN}/audit"), SignatureKind::Note, seed.0);
        let (origin, root) = (key.public().name().to_owned(), Tree::of(&entries).frontier.root());
        let mut note = Note::new(Checkpoint { origin, size: entries.len() as u64, root }.text());
        note.sign(&key, 0);
        let database = self.place.database();
        database.execute_batch("DELETE FROM audit_checkpoints; DELETE FROM audit_cosignatures").unwrap();
        let sql = "INSERT INTO audit_checkpoints (size, made_ms, note) VALUES (?1, ?2, ?3)";
        database
            .execute(sql, (i64::try_from(entries.len()).unwrap(), now_ms().cast_signed(), note.to_string()))
            .unwrap();
        fs::write(self.place.state().join(FILE), note.to_string()).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.place.state().join(name)).unwrap()
    }
}

fn drop_triggers(database: &zen_control::Database) {
    for table in ["entry", "node"] {
        for trigger in [format!("audit_{table}_stays"), format!("audit_{table}_stays_as_it_is")] {
            database.execute(&format!("DROP TRIGGER IF EXISTS {trigger}"), ()).unwrap();
        }
    }
}

fn signing_key(name: &str, kind: SignatureKind, seed: [u8; 32]) -> SigningKey {
    SigningKey::new(name, kind, &Zeroizing::new(seed)).unwrap()
}

/// Entries with numbers and links as they have to be.
fn chained(entries: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let mut previous = Entry::before_the_first();
    let chain = |(sequence, bytes): (usize, Vec<u8>)| {
        let entry: Entry = serde_json::from_slice(&bytes).unwrap();
        let bytes = Entry { sequence: sequence as u64, previous, ..entry }.bytes().unwrap();
        previous = Entry::leaf(&bytes);
        bytes
    };
    entries.into_iter().enumerate().map(chain).collect()
}

fn edited(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(text.contains("people"), "{text}");
    text.replacen("people", "nobody", 1).into_bytes()
}

/// `zen-audit`, beside our own program.
fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_zen-control")).with_file_name("zen-audit");
    if !program.exists() {
        let target = program.parent().unwrap().parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "--package", "zen-audit", "--target-dir"]).arg(target);
        assert!(cargo.status().unwrap().success(), "zen-audit is needed");
    }
    program
}

#[test]
fn whoever_changes_signed_entries_is_caught_by_the_start_and_by_verify() {
    type Attack = fn(&mut Vec<Vec<u8>>, usize);
    let attacks: [(&str, Attack); 5] = [
        ("edited", |entries, at| entries[at] = edited(&entries[at])),
        ("deleted", |entries, at| drop(entries.remove(at))),
        ("swapped", |entries, at| entries.swap(at, at + 1)),
        ("doubled", |entries, at| entries.insert(at, entries[at].clone())),
        ("put in", |entries, at| entries.insert(at, edited(&entries[at]))),
    ];
    let scene = Scene::new();
    let honest = scene.entries();
    for (what, attack) in attacks {
        for at in [2, scene.anchored - 1] {
            let mut entries = honest.clone();
            attack(&mut entries, at);
            for (how, entries) in [("as they are", entries.clone()), ("chained anew", chained(entries))] {
                scene.write(&entries);
                let (status, said) = scene.verify();
                assert_eq!(status, FAILED, "{what} at {at}, {how}: {said}");
                let refused = scene.start().unwrap_or_else(|| panic!("{what} at {at}, {how}: it starts"));
                assert!(refused.contains("other entries"), "{refused}");
            }
        }
    }
    scene.write(&honest);
    assert_eq!((scene.start(), scene.verify().0), (None, UNANCHORED), "the honest ones are good again");
}

#[test]
fn an_edited_entry_without_its_hashes_is_caught_by_verify_alone() {
    let scene = Scene::new();
    let database = scene.place.database();
    drop_triggers(&database);
    let bytes = edited(&scene.entries()[2]);
    database.execute("UPDATE audit_entries SET bytes = ?1 WHERE sequence = 2", (bytes,)).unwrap();
    assert_eq!(scene.start(), None, "the start compares hashes, and walks through no entry");
    let (status, said) = scene.verify();
    assert!(status == FAILED && said.contains("entry 3"), "{said}");
}

#[test]
fn a_tail_that_was_cut_off_is_caught_by_the_second_file_or_by_a_witness() {
    let mut scene = Scene::new();
    let honest = scene.entries();
    let earlier = scene.read(FILE);
    scene.sync().unwrap();
    scene.write(&honest[..scene.signed - 1]);
    assert!(scene.start().unwrap().contains("more entries"));
    let (status, said) = scene.verify();
    assert!(status == FAILED && said.contains("are missing"), "{said}");

    // With its checkpoints and an older second file, nobody on this host can know.
    let size = (i64::try_from(scene.signed).unwrap(),);
    let database = scene.place.database();
    database.execute("DELETE FROM audit_checkpoints WHERE size >= ?1", size).unwrap();
    database.execute("DELETE FROM audit_cosignatures WHERE size >= ?1", size).unwrap();
    let older = scene.place.export().checkpoints.pop().unwrap();
    fs::write(scene.place.state().join(FILE), older.to_string()).unwrap();
    assert_eq!((scene.start(), scene.verify().0), (None, UNANCHORED));
    let found = scene.anchored as u64;
    assert_eq!(scene.sync(), Err(Alarm::Shorter { found, seen: scene.signed as u64 }));
    // Nor with a second file that is on another disk.
    fs::write(scene.place.state().join(FILE), earlier).unwrap();
    assert!(scene.start().unwrap().contains("more entries"));
}

#[test]
fn a_log_written_anew_with_its_own_key_is_caught_by_every_witness() {
    let mut scene = Scene::new();
    let mut entries = scene.entries();
    entries[2] = edited(&entries[2]);
    for more in [0, 1, 5] {
        let mut entries = entries.clone();
        for _ in 0..more {
            entries.push(entries[1].clone());
        }
        scene.write(&chained(entries));
        scene.sign_with_the_stolen_key();
        assert_eq!(scene.start(), None, "everything on this host says the same");
        let (status, said) = scene.verify();
        assert_eq!(status, UNANCHORED, "and is signed, but by no witness: {said}");
        assert!(said.starts_with("PASS        [0,0)"), "{said}");
        assert!(matches!(scene.sync(), Err(Alarm::Rewritten { .. })), "{more} more entries");
    }
    // As long as what was seen.
    scene.write(&chained(entries[..scene.anchored].to_vec()));
    scene.sign_with_the_stolen_key();
    assert_eq!(scene.sync(), Err(Alarm::Fork { size: scene.anchored as u64 }));
}

#[test]
fn a_fork_is_caught_by_the_first_who_sees_both_sides() {
    let mut scene = Scene::new();
    let common = scene.entries();
    let with = |more: &Vec<u8>| chained(common.iter().cloned().chain([more.clone()]));
    let (left, right) = (with(&common[1]), with(&common[2]));
    scene.write(&left);
    scene.sign_with_the_stolen_key();
    scene.sync().unwrap();
    let seen_left = scene.place.export();
    assert_eq!(scene.verify().0, PASSED, "for itself each side is whole");
    scene.write(&right);
    scene.sign_with_the_stolen_key();
    assert_eq!(scene.sync(), Err(Alarm::Fork { size: left.len() as u64 }));
    // Two auditors with an export each need no witness: one of them has both checkpoints.
    let mut both = scene.place.export();
    both.checkpoints.extend(seen_left.checkpoints);
    let (status, said) = scene.verify_of(&both);
    assert!(status == FAILED && said.contains("not those that were signed"), "{said}");
}

#[test]
fn an_old_copy_of_the_database_is_caught_by_the_second_file_or_by_a_witness() {
    let mut scene = Scene::new();
    let (copy, file) = (scene.place.at().join("copy.db"), scene.read(FILE));
    scene.place.good(&["backup", "--out", "copy.db"]);
    scene.people(&["h"]);
    scene.sign();
    let seen = scene.sync().unwrap();
    let database = scene.place.state().join("control.db");
    for beside in ["control.db-wal", "control.db-shm"] {
        let _ = fs::remove_file(scene.place.state().join(beside));
    }
    fs::copy(&copy, &database).unwrap();
    assert!(scene.start().unwrap().contains("more entries"));
    fs::write(scene.place.state().join(FILE), file).unwrap();
    assert_eq!(scene.start(), None, "with an old second file, too, this host knows nothing of it");
    assert_eq!(scene.sync(), Err(Alarm::Shorter { found: scene.signed as u64, seen }));
}

#[test]
fn a_crash_before_the_checkpoint_is_no_attack_and_what_nobody_signed_can_be_written_anew() {
    let scene = Scene::new();
    // Two entries are behind the last checkpoint, as a crash leaves them.
    let honest = scene.entries();
    assert_eq!(scene.start(), None);
    let (status, said) = scene.verify();
    let unsigned = format!("UNANCHORED  [{},{}) signed by nobody yet", scene.signed, honest.len());
    assert!(status == UNANCHORED && said.contains(&unsigned), "{said}");
    // Whoever can write the database before the next checkpoint is caught by nobody: that is what the line says.
    let mut entries = honest.clone();
    let last = entries.len() - 1;
    entries[last] = edited(&entries[last]);
    scene.write(&entries);
    assert_eq!((scene.start(), scene.verify().0), (None, UNANCHORED));
    scene.write(&honest);
    assert_eq!(scene.sign(), honest.len() as u64);
    // From then on they are.
    scene.write(&entries);
    assert!(scene.start().unwrap().contains("other entries"));
    assert_eq!(scene.verify().0, FAILED);
}
