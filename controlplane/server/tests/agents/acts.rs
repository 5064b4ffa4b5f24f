//! What agents do, as the audit log has it: one entry for each change, none for an answer that is given again.

use zen_control_api::ProblemType;

use crate::client::{Agent, csr, enroll, new_key};
use crate::lab::{Lab, TRUST_DOMAIN};

/// Actor, action, target and outcome of entries about agents, oldest first.
fn acts(lab: &Lab) -> Vec<[String; 4]> {
    let sql = "SELECT actor, action, CAST(bytes AS TEXT) ->> '$.target', outcome FROM audit_entries
        WHERE actor NOT LIKE 'cli:%' AND action NOT LIKE 'witnesses.%' ORDER BY sequence";
    let database = lab.database();
    let mut statement = database.prepare(sql).unwrap();
    let rows = statement.query_map((), |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]));
    rows.unwrap().map(Result::unwrap).collect()
}

fn act(actor: &str, action: &str, part: &str, outcome: &str) -> [String; 4] {
    [actor, action, &format!("tenants/acme/clusters/edge/{part}"), outcome].map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_that_an_agent_makes_leaves_one_entry() {
    let lab = Lab::start().await;
    let bundle = lab.bundle("edge");
    let holder = format!("bundle:{}", bundle.bundle_id);
    let id = format!("spiffe://{TRUST_DOMAIN}/agent/edge");
    let (key, other) = (new_key(), new_key());
    let answer = enroll(lab.address, &bundle, &csr(&key)).await;
    let given: zen_control_api::EnrollmentAnswer = answer.read();
    let mut expected = vec![act(&holder, "agents.enroll", "agent", "done")];
    assert_eq!(acts(&lab), expected);
    assert_eq!(enroll(lab.address, &bundle, &csr(&key)).await.status, 201);
    assert_eq!(acts(&lab), expected, "the same answer again is no act");
    assert_eq!(enroll(lab.address, &bundle, &csr(&other)).await.problem(), ProblemType::BundleConsumed);
    expected.push(act(&holder, "agents.enroll", "agent", "refused"));
    assert_eq!(acts(&lab), expected);

    lab.configure("edge");
    let first = Agent::new(&key, given.certificate_chain, &given.trust_bundle, given.generation);
    let answer = first.certificate(lab.address, Some("node-1"), &csr(&new_key()), 0).await.unwrap();
    assert_eq!(answer.status, 201);
    expected.push(act(&id, "certificates.create", "members/node-1", "done"));
    assert_eq!(acts(&lab), expected);
    let next = new_key();
    for _ in 0..2 {
        assert_eq!(first.certificate(lab.address, None, &csr(&next), 1).await.unwrap().status, 201);
    }
    expected.push(act(&id, "certificates.create", "agent", "done"));
    assert_eq!(acts(&lab), expected, "once, however often its answer was lost");

    let answer = first.certificate(lab.address, None, &csr(&next), 1).await.unwrap();
    let second = Agent::of(&next, answer.read());
    second.connect(lab.address).await.unwrap().get("/healthz").await.unwrap();
    let answer = first.certificate(lab.address, None, &csr(&new_key()), 1).await.unwrap();
    assert_eq!(answer.problem(), ProblemType::CloneSuspected);
    expected.push(act(&id, "agents.lock", "agent", "done"));
    assert_eq!(acts(&lab), expected);
    let answer = first.certificate(lab.address, None, &csr(&new_key()), 1).await.unwrap();
    assert_eq!(answer.problem(), ProblemType::CloneSuspected);
    assert_eq!(acts(&lab), expected, "it was locked before");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_gets_nothing_that_leaves_no_entry() {
    let lab = Lab::start().await;
    let bundle = lab.bundle("edge");
    let no_entries = "CREATE TRIGGER no_entries BEFORE INSERT ON audit_entries
        BEGIN SELECT RAISE(ABORT, 'no room'); END";
    lab.database().execute(no_entries, ()).unwrap();
    let answer = enroll(lab.address, &bundle, &csr(&new_key())).await;
    assert_eq!(answer.status, 500);
    assert_eq!((lab.count("certificates"), lab.count("identities")), (0, 0));
    lab.database().execute("DROP TRIGGER no_entries", ()).unwrap();
    let agent = Agent::enroll(lab.address, &bundle).await;
    lab.database().execute(no_entries, ()).unwrap();
    let answer = agent.certificate(lab.address, None, &csr(&new_key()), 1).await.unwrap();
    assert_eq!((answer.status, lab.count("certificates")), (500, 1));
    lab.database().execute("DROP TRIGGER no_entries", ()).unwrap();
    assert_eq!(agent.renewed(lab.address).await.generation, 2);
}
