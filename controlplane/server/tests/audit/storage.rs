//! What is kept, what is shown of it, and which start is refused.

use std::fs;
use std::path::Path;

use serde_json::json;
use zen_audit::{Checkpoint, Entry, EntryProof, LogKey, Note, Outcome};
use zen_control::{
    AuditSettings, Control, ControlError, Role, accept_truncation, add_person, open_database, restore,
    sign_audit,
};

use crate::lab::{Lab, Place, now_ms};

/// Takes the last entries out of the database, with their hashes and checkpoints: an old copy of it.
fn cut(place: &Place, count: u64) {
    let database = place.database();
    let size = place.entries().len() as u64 - count;
    for trigger in ["audit_entry_stays", "audit_node_stays"] {
        database.execute(&format!("DROP TRIGGER {trigger}"), ()).unwrap();
    }
    for sql in [
        "DELETE FROM audit_entries WHERE sequence >= ?1",
        "DELETE FROM audit_nodes WHERE ((idx + 1) << level) > ?1",
        "DELETE FROM audit_checkpoints WHERE size > ?1",
    ] {
        database.execute(sql, (i64::try_from(size).unwrap(),)).unwrap();
    }
}

fn sign(place: &Place) -> Checkpoint {
    let settings = AuditSettings::default();
    let note = sign_audit(&place.directory(), &mut place.database(), &settings, now_ms()).unwrap();
    Checkpoint::verify(&Note::parse(&note).unwrap(), &place.trust(1).log).unwrap()
}

fn refused(place: &Place) -> String {
    match Control::open(&place.directory()) {
        Err(error @ ControlError::AuditTruncated { .. }) => error.to_string(),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("the start was not refused"),
    }
}

fn people(place: &Place, names: &[&str]) {
    for name in names {
        add_person(&mut place.database(), name, (None, Role::Viewer), now_ms()).unwrap();
    }
}

#[test]
fn a_log_that_is_shorter_than_what_was_signed_for_stops_the_start() {
    let place = Place::new();
    people(&place, &["a", "b"]);
    let signed = sign(&place);
    assert_eq!(signed.size, place.entries().len() as u64);
    Control::open(&place.directory()).unwrap();
    people(&place, &["c"]);
    Control::open(&place.directory())
        .map(drop)
        .expect("longer than what was signed for is what a crash leaves");

    cut(&place, 3);
    let said = refused(&place);
    assert!(said.contains("more entries than the log has") && said.contains("--accept-truncation"), "{said}");
    assert!(place.bad(&["audit", "checkpoint"]).contains("more entries"), "no command signs it either");

    let settings = AuditSettings::default();
    assert!(accept_truncation(&place.directory(), &settings, now_ms()).unwrap());
    let last = place.entries().pop().unwrap();
    assert_eq!(last.action, "audit.accept-truncation");
    assert_eq!(last.target, format!("audit/entries/{}-{}", signed.size - 2, signed.size), "{last:?}");
    Control::open(&place.directory()).unwrap();
    assert_eq!(place.verify().fault, None);
    assert!(
        !accept_truncation(&place.directory(), &settings, now_ms()).unwrap(),
        "nothing is left to accept"
    );
}

#[test]
fn another_log_and_a_lost_file_stop_the_start() {
    let place = Place::new();
    people(&place, &["a", "b"]);
    sign(&place);
    let file = place.state().join("audit.checkpoint");
    let good = fs::read(&file).unwrap();

    fs::remove_file(&file).unwrap();
    assert!(refused(&place).contains("is not there"));
    let other = Place::new();
    sign(&other);
    for content in
        [b"".to_vec(), b"nothing".to_vec(), fs::read(other.state().join("audit.checkpoint")).unwrap()]
    {
        fs::write(&file, content).unwrap();
        assert!(refused(&place).contains("no checkpoint that the log's key signed"));
    }
    fs::write(&file, &good).unwrap();
    Control::open(&place.directory()).unwrap();

    // The same length, other entries: the last two written anew.
    cut(&place, 2);
    people(&place, &["c", "d"]);
    assert!(refused(&place).contains("other entries than the log has"));
}

#[test]
fn entries_that_went_without_their_hashes_stop_every_change() {
    let place = Place::new();
    people(&place, &["a", "b"]);
    sign(&place);
    let database = place.database();
    database.execute("DROP TRIGGER audit_entry_stays", ()).unwrap();
    database
        .execute("DELETE FROM audit_entries WHERE sequence = (SELECT max(sequence) FROM audit_entries)", ())
        .unwrap();
    let failed = add_person(&mut place.database(), "c", (None, Role::Viewer), now_ms());
    assert!(matches!(failed, Err(ControlError::AuditDamaged)), "{failed:?}");
    assert!(refused(&place).contains("more entries"));
    assert!(accept_truncation(&place.directory(), &AuditSettings::default(), now_ms()).unwrap());
    people(&place, &["c"]);
    assert_eq!(place.verify().fault, None);
}

#[test]
fn mistakes_do_not_change_entries() {
    let place = Place::new();
    let database = place.database();
    for sql in [
        "UPDATE audit_entries SET bytes = bytes",
        "DELETE FROM audit_entries",
        "UPDATE audit_nodes SET hash = x'00'",
        "DELETE FROM audit_nodes",
    ] {
        let error = database.execute(sql, ()).unwrap_err().to_string();
        assert!(error.contains("never"), "{sql}: {error}");
    }
}

#[test]
fn a_lost_key_is_not_made_anew() {
    let place = Place::new();
    sign(&place);
    let key = place.state().join("audit.key");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&key).unwrap()) & 0o7777, 0o400);
    fs::remove_file(&key).unwrap();
    assert!(matches!(open_database(&place.directory()), Err(ControlError::AuditKey { .. })));
    assert!(!key.exists());
}

#[test]
fn a_copy_that_comes_back_keeps_the_log() {
    let place = Place::new();
    place.good(&["backup", "--out", "copy.db"]);
    people(&place, &["later"]);
    let (before, signed) = (place.entries(), sign(&place));
    restore(&place.state(), &place.at().join("copy.db"), now_ms()).unwrap();
    let after = place.entries();
    assert_eq!(after[..before.len()], before[..]);
    assert_eq!(after.last().unwrap().action, "database.restore");
    assert!(!place.kept().contains("later"), "the state is the copy's");
    Control::open(&place.directory()).unwrap();
    assert!(sign(&place).size > signed.size);

    fs::write(place.state().join("control.db"), b"damaged").unwrap();
    restore(&place.state(), &place.at().join("copy.db"), now_ms()).unwrap();
    assert!(
        refused(&place).contains("more entries"),
        "without the database that was there, entries are lost"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_signs_hands_on_and_says_what_it_accepted() {
    let place = Place::new();
    let settings =
        "directory = \"state\"\n[audit]\ncheckpoint_file = \"elsewhere\"\nexport_file = \"entries.jsonl\"\n";
    fs::write(place.at().join("control.toml"), settings).unwrap();
    let mut program = place.start(&["--config", "control.toml"]).await;
    let mut owner =
        crate::client::Client::connect(program.people, &place.certificate("owner")).await.unwrap();
    assert_eq!(owner.put("/v1/tenants/acme/clusters/edge", &json!({})).await.status, 201);
    program.terminate();
    let note = Note::parse(&fs::read_to_string(place.at().join("elsewhere")).unwrap()).unwrap();
    let checkpoint = Checkpoint::verify(&note, &place.trust(1).log).unwrap();
    assert_eq!(checkpoint.size, place.entries().len() as u64, "the end is signed for");
    assert!(!place.state().join("audit.checkpoint").exists());
    assert_eq!(collected(&place.at().join("entries.jsonl")), place.export().entries);

    // A torn line, as a crash leaves it: its entry comes again.
    let mut text = fs::read(place.at().join("entries.jsonl")).unwrap();
    text.truncate(text.len() - 20);
    fs::write(place.at().join("entries.jsonl"), text).unwrap();
    cut(&place, 2);
    let said = place.bad(&["run", "--config", "control.toml"]);
    assert!(said.contains("elsewhere") && said.contains("more entries"), "{said}");
    fs::remove_file(place.at().join("entries.jsonl")).unwrap();
    let mut program = place.start(&["--config", "control.toml", "--accept-truncation"]).await;
    program.terminate();
    assert_eq!(place.entries().pop().unwrap().action, "audit.accept-truncation");
    assert_eq!(collected(&place.at().join("entries.jsonl")), place.export().entries);
}

fn collected(file: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| line.as_bytes().to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_entries_and_proves_them() {
    let lab = Lab::start().await;
    let mut owner = lab.client("owner").await;
    assert_eq!(owner.post("/v1/tenants", &json!({"name": "beta"})).await.status, 201);
    for cluster in ["a", "b", "c"] {
        let path = format!("/v1/tenants/acme/clusters/{cluster}");
        assert_eq!(owner.put(&path, &json!({})).await.status, 201);
    }
    assert_eq!(owner.put("/v1/tenants/beta/clusters/z", &json!({})).await.status, 201);
    let log = "/v1/tenants/acme/audit";
    let all = owner.get(&format!("{log}?action=clusters.")).await.json();
    let targets = |list: &serde_json::Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["target"].as_str().unwrap().replace("tenants/acme/clusters/", "")).collect()
    };
    assert_eq!(targets(&all), ["c", "b", "a"], "newest first, and nobody else's");
    let first = owner.get(&format!("{log}?action=clusters.&limit=2")).await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = owner.get(&format!("{log}?action=clusters.&cursor={cursor}")).await.json();
    assert_eq!((targets(&first), targets(&rest)), (vec!["c".into(), "b".into()], vec!["a".into()]));
    let now = now_ms();
    for (query, count) in [
        ("actor=spiffe://acme.example/people/owner&action=clusters.put".to_owned(), 3),
        ("actor=spiffe://acme.example/people/owne&action=clusters.put".to_owned(), 0),
        ("action=clusters.%25".to_owned(), 0),
        (format!("action=clusters.&from_ms={}", now + 60_000), 0),
        (format!("action=clusters.&until_ms={}", now + 60_000), 3),
    ] {
        let found = owner.get(&format!("{log}?{query}")).await.json();
        assert_eq!(found["items"].as_array().unwrap().len(), count, "{query}");
    }
    for bad in
        ["from_ms=-1", "from_ms=1e3", "until_ms=99999999999999999999", "actor=", "cursor=YXVkaXQKYQ", "x=1"]
    {
        assert_eq!(owner.get(&format!("{log}?{bad}")).await.problem(), "malformed", "{bad}");
    }
    let sequence = all["items"][0]["sequence"].as_u64().unwrap();
    let other = lab.place.entries().into_iter().find(|entry| entry.tenant == "beta").unwrap().sequence;
    for strange in [other.to_string(), "99999".to_owned()] {
        assert_eq!(owner.get(&format!("{log}/{strange}/proof")).await.problem(), "not_found", "{strange}");
    }
    let one = owner.get(&format!("{log}/{sequence}")).await.json();
    assert_eq!(one, all["items"][0]);
    assert_eq!(owner.get(&format!("{log}/{other}")).await.problem(), "not_found");
    sign(&lab.place);
    let proof = owner.get(&format!("{log}/{sequence}/proof")).await.json();
    let (entry, proof) = (proof["entry"].as_str().unwrap(), proof["proof"].as_str().unwrap());
    let key = owner.get("/v1/audit/key").await.json();
    let key = LogKey::parse(key["key"].as_str().unwrap()).unwrap();
    EntryProof::parse(proof).unwrap().verify(entry.as_bytes(), &key).unwrap();
    let changed = entry.replace("clusters/c", "clusters/d");
    assert!(EntryProof::parse(proof).unwrap().verify(changed.as_bytes(), &key).is_err());
    let read: Entry = serde_json::from_str(entry).unwrap();
    assert_eq!((read.sequence, read.outcome), (sequence, Outcome::Done));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_verified_elsewhere_and_a_change_is_found_here() {
    let lab = Lab::start().await;
    let mut owner = lab.client("owner").await;
    assert_eq!(owner.put("/v1/tenants/acme/clusters/a", &json!({})).await.status, 201);
    let size = sign(&lab.place).size;
    let answer = owner.get("/v1/audit/export").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/jsonl")));
    assert_eq!(zen_audit::Export::parse(&answer.text()).unwrap(), lab.place.export());
    let found = owner.get("/v1/audit/verification").await.json();
    let expected = json!({"anchored": 0, "signed": size, "entries": size, "verdict": "unanchored"});
    assert_eq!(found, expected);
    assert_eq!(owner.get("/v1/tenants/acme/audit/verification").await.json(), expected);
    assert_eq!(owner.get("/v1/audit/checkpoint").await.json()["size"], size);
    assert!(lab.place.good(&["audit", "verify"]).starts_with("PASS [0,0)\nUNANCHORED"));

    let database = lab.place.database();
    database.execute("DROP TRIGGER audit_entry_stays_as_it_is", ()).unwrap();
    let sql = "UPDATE audit_entries SET bytes = CAST(replace(CAST(bytes AS TEXT), 'people.put', 'people.pet') AS BLOB)
        WHERE sequence = 1";
    assert_eq!(database.execute(sql, ()).unwrap(), 1);
    let found = owner.get("/v1/audit/verification").await.json();
    // Checkpoints before the change may have been made at any moment; the entry after it is wrong in any case.
    assert!(found["verdict"] == "failed" && found["failed_from"].as_u64().unwrap() <= 2, "{found}");
    let output = lab.place.run(&["audit", "verify"]);
    assert!(!output.status.success() && String::from_utf8(output.stdout).unwrap().contains("FAIL from"));
    lab.add("eve", Role::Viewer);
    let mut eve = lab.client("eve").await;
    for path in ["/v1/audit/export", "/v1/audit/verification", "/v1/tenants/acme/audit"] {
        assert_eq!(eve.get(path).await.problem(), "forbidden", "{path}");
    }
}
