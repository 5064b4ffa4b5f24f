//! Renewal, members, and identities that are used in two places.

use std::time::Duration;

use zen_control::{Subject, allow, deny};
use zen_control_api::{CONFIGURATION, CertificateAnswer, ProblemType};

use crate::client::{Agent, csr, new_key};
use crate::lab::{Lab, TRUST_DOMAIN, now_ms};

#[tokio::test(flavor = "multi_thread")]
async fn generations_follow_each_other() {
    let lab = Lab::start().await;
    let mut agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    for generation in 2..5 {
        agent = agent.renewed(lab.address).await;
        assert_eq!(agent.generation, generation);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_given_again() {
    let lab = Lab::start().await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let text = csr(&new_key());
    let first: CertificateAnswer = agent.certificate(lab.address, None, &text, 1).await.unwrap().read();
    let again: CertificateAnswer = agent.certificate(lab.address, None, &text, 1).await.unwrap().read();
    assert_eq!((first.generation, &first.certificate_chain), (2, &again.certificate_chain));
    let other: CertificateAnswer =
        agent.certificate(lab.address, None, &csr(&new_key()), 1).await.unwrap().read();
    assert_eq!(other.generation, 3, "the second was never seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_own_key_is_used_once() {
    let lab = Lab::start().await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let key = new_key();
    let answer = agent.certificate(lab.address, None, &csr(&key), 1).await.unwrap();
    let second = Agent::of(&key, answer.read());
    let answer = second.certificate(lab.address, None, &csr(&key), 2).await.unwrap();
    assert_eq!(answer.problem(), ProblemType::CsrRefused);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_in_two_places_is_locked_until_it_is_enrolled_anew() {
    let lab = Lab::start().await;
    let first = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let early = lab.bundle("edge");
    let second = first.renewed(lab.address).await;
    second.connect(lab.address).await.unwrap().get("/healthz").await.unwrap();

    let answer = first.certificate(lab.address, None, &csr(&new_key()), 1).await.unwrap();
    assert_eq!(answer.problem(), ProblemType::CloneSuspected);
    for agent in [&first, &second] {
        let mut connection = agent.connect(lab.address).await.unwrap();
        let answer = connection.get(&format!("{CONFIGURATION}?after=0")).await.unwrap();
        assert_eq!(answer.problem(), ProblemType::CloneSuspected);
        let answer = agent.certificate(lab.address, None, &csr(&new_key()), agent.generation).await.unwrap();
        assert_eq!(answer.problem(), ProblemType::CloneSuspected);
    }
    let answer = crate::client::enroll(lab.address, &early, &csr(&new_key())).await;
    assert_eq!(answer.problem(), ProblemType::CloneSuspected, "a bundle from before the lock");
    assert_eq!(lab.count("bundles WHERE used_key IS NOT NULL"), 1, "and it is not used up");

    tokio::time::sleep(Duration::from_millis(5)).await;
    let third = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    assert_eq!(third.generation, 3);
    let fourth = third.renewed(lab.address).await;
    let answer = second.certificate(lab.address, None, &csr(&new_key()), 2).await.unwrap();
    assert_eq!(answer.problem(), ProblemType::Forbidden, "of the enrollment before, which locks nobody");
    assert_eq!(fourth.renewed(lab.address).await.generation, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_claims_another_generation_than_the_connection_has_locks_nobody() {
    let lab = Lab::start().await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    for claimed in [0, 2, u64::MAX] {
        let answer = agent.certificate(lab.address, None, &csr(&new_key()), claimed).await.unwrap();
        assert_eq!(answer.problem(), ProblemType::Conflict);
    }
    assert_eq!(agent.renewed(lab.address).await.generation, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_those_of_the_cluster() {
    let lab = Lab::start().await;
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    lab.configure("edge");
    lab.configure("core");
    let key = new_key();
    let first: CertificateAnswer =
        agent.certificate(lab.address, Some("node-1"), &csr(&key), 0).await.unwrap().read();
    let again: CertificateAnswer =
        agent.certificate(lab.address, Some("node-1"), &csr(&key), 0).await.unwrap().read();
    assert_eq!(first.certificate_chain, again.certificate_chain);
    let node = Agent::of(&key, first);
    assert_eq!(node.store.id().as_str(), format!("spiffe://{TRUST_DOMAIN}/edge/node-1"));
    let next: CertificateAnswer =
        agent.certificate(lab.address, Some("node-1"), &csr(&new_key()), 1).await.unwrap().read();
    assert_eq!(next.generation, 2);
    let lost: CertificateAnswer =
        agent.certificate(lab.address, Some("node-1"), &csr(&new_key()), 0).await.unwrap().read();
    assert_eq!(lost.generation, 3);
    for (member, generation, problem) in [
        ("node-1", 1, ProblemType::Conflict),
        ("node-1", 9, ProblemType::Conflict),
        ("node-2", 0, ProblemType::Forbidden),
        ("../node-1", 0, ProblemType::Malformed),
        ("", 0, ProblemType::Malformed),
        ("'; DROP TABLE members; --", 0, ProblemType::Malformed),
    ] {
        let answer =
            agent.certificate(lab.address, Some(member), &csr(&new_key()), generation).await.unwrap();
        assert_eq!(answer.problem(), problem, "{member} {generation}");
    }
    let mut by_node = node.connect(lab.address).await.unwrap();
    let answer = by_node.get(&format!("{CONFIGURATION}?after=0")).await.unwrap();
    assert_eq!(answer.problem(), ProblemType::Forbidden, "a node is no agent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_refuses_renewal_and_handshake_and_ends_connections() {
    let lab = Lab::start_with(Duration::from_mins(1)).await;
    lab.configure("edge");
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let member = Subject::Id(format!("spiffe://{TRUST_DOMAIN}/edge/node-1"));
    let own = Subject::Id(agent.store.id().to_string());
    let mut database = lab.database();

    deny(&lab.directory, &mut database, &member, (Some("left"), None), now_ms()).unwrap();
    let answer = agent.certificate(lab.address, Some("node-1"), &csr(&new_key()), 0).await.unwrap();
    assert_eq!(answer.problem(), ProblemType::Forbidden);
    allow(&lab.directory, &mut database, &member, now_ms()).unwrap();
    assert_eq!(
        agent.certificate(lab.address, Some("node-1"), &csr(&new_key()), 0).await.unwrap().status,
        201
    );

    let mut waiting = agent.connect(lab.address).await.unwrap();
    waiting.send("GET", &format!("{CONFIGURATION}?after=99"), b"").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    deny(&lab.directory, &mut database, &own, (None, None), now_ms()).unwrap();
    // Long before the end of its minute, when it would be refused as well.
    let answer = tokio::time::timeout(Duration::from_secs(20), waiting.answer()).await.unwrap();
    assert_eq!(answer.unwrap().problem(), ProblemType::Forbidden, "a request that waits is answered");
    assert!(waiting.get("/healthz").await.is_err(), "and the connection ends");
    let refused = agent.certificate(lab.address, None, &csr(&new_key()), 1).await;
    assert!(refused.is_err(), "the handshake: {refused:?}");

    allow(&lab.directory, &mut database, &own, now_ms()).unwrap();
    deny(&lab.directory, &mut database, &own, (None, Some(now_ms() + 5000)), now_ms()).unwrap();
    until_refused(&lab, &agent, true).await;
    assert!(agent.certificate(lab.address, None, &csr(&new_key()), 1).await.is_err());
    until_refused(&lab, &agent, false).await;
    assert_eq!(agent.renewed(lab.address).await.generation, 2, "the denial ended by itself");
}

/// Waits until a new connection of the agent is refused, or is not.
async fn until_refused(lab: &Lab, agent: &Agent, refused: bool) {
    let waiting = async {
        loop {
            let is_served = match agent.connect(lab.address).await {
                Ok(mut connection) => connection.get("/healthz").await.is_ok(),
                Err(_) => false,
            };
            if is_served != refused {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), waiting).await.expect("within a minute");
}
