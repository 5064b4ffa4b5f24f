//! What agents say of link keys: handed on as it was signed, to whom it is for, and nothing else.

use std::collections::BTreeMap;

use zen_control::{ConfigurationInput, set_configuration};
use zen_control_api::{
    CONFIGURATION, Configuration, LINK_KEYS, LINK_STATEMENT_BYTES_MAX, LinkKeys, LinkSide, LinkStatement,
    ProblemType, SealedLinkKey, SealedSecret, SignedConfiguration,
};

use crate::client::{Agent, Answer, Connection, new_key};
use crate::lab::Lab;

fn keys(cluster: &str, peer: &str, made_at_ms: u64) -> LinkKeys {
    let key = SealedLinkKey { number: made_at_ms, sealed: SealedSecret("YWdl".to_owned()) };
    let side = LinkSide { keys: vec![key], ..LinkSide::default() };
    LinkKeys {
        cluster: cluster.to_owned(),
        peer: peer.to_owned(),
        made_at_ms,
        recipient: "age1qqqq".to_owned(),
        links: BTreeMap::from([("edge-core".to_owned(), side)]),
    }
}

fn signed(keys: &LinkKeys) -> LinkStatement {
    keys.sign("a chain", &new_key().serialize_der()).unwrap()
}

fn configure(lab: &Lab, cluster: &str, links: &str) -> Result<u64, zen_control::ControlError> {
    let node = r#"keys = \"{{link_keys:edge-core}}\""#;
    let node = if cluster == "core" { node } else { "" };
    let member =
        format!(r#"{{"node": {{"spiffe_id": "spiffe://acme.example/{cluster}/node", "node": "{node}"}}}}"#);
    let text = format!(r#"{{"members": {member}, "link_keys": {links}}}"#);
    let input: ConfigurationInput = serde_json::from_str(&text).unwrap();
    set_configuration(&lab.directory, &mut lab.database(), cluster, input)
}

const LINKS: &str = r#"{"edge-core": {"sender": "edge", "receiver": "core"}}"#;

async fn say(connection: &mut Connection, statement: &LinkStatement) -> Answer {
    connection.post(LINK_KEYS, &serde_json::to_vec(statement).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_says_is_in_the_other_cluster_s_next_configuration() {
    let lab = Lab::start().await;
    let (of_edge, of_core) = (lab.bundle("edge"), lab.bundle("core"));
    let edge = Agent::enroll(lab.address, &of_edge).await;
    let core = Agent::enroll(lab.address, &of_core).await;
    let mut edge = edge.connect(lab.address).await.unwrap();
    let mut core = core.connect(lab.address).await.unwrap();
    let first = signed(&keys("edge", "core", 5));
    assert_eq!(say(&mut edge, &first).await.problem(), ProblemType::Forbidden, "it has no link yet");
    assert_eq!(configure(&lab, "edge", LINKS).unwrap(), 1);
    assert_eq!(say(&mut edge, &first).await.status, 204, "the other cluster may come later");
    assert_eq!(configure(&lab, "core", LINKS).unwrap(), 1);
    let next = signed(&keys("edge", "core", 6));
    for (statement, version) in [(&first, 1), (&next, 2)] {
        if version == 2 {
            assert_eq!(say(&mut edge, statement).await.status, 204);
        }
        let answer = core.get(&format!("{CONFIGURATION}?after={}", version - 1)).await.unwrap();
        let found: SignedConfiguration = answer.read();
        let found: Configuration =
            found.verify(&of_core.configuration_key, ("acme", "core"), version - 1).unwrap();
        assert_eq!((found.version, &found.link_statements["edge"]), (version, statement));
    }
    // Nobody else has it, and what was said once cannot be said again.
    assert_eq!(say(&mut edge, &first).await.problem(), ProblemType::Conflict);
    assert_eq!(say(&mut edge, &next).await.problem(), ProblemType::Conflict);
    let own: SignedConfiguration = edge.get(&format!("{CONFIGURATION}?after=0")).await.unwrap().read();
    let own = own.verify(&of_edge.configuration_key, ("acme", "edge"), 0).unwrap();
    assert_eq!((own.version, own.link_statements.len()), (1, 0));
    assert_eq!(lab.count("link_statements"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_statement_of_this_agent_is_refused_and_none_of_it_is_our_fault() {
    let lab = Lab::start().await;
    configure(&lab, "edge", LINKS).unwrap();
    configure(&lab, "core", LINKS).unwrap();
    let agent = Agent::enroll(lab.address, &lab.bundle("edge")).await;
    let mut connection = agent.connect(lab.address).await.unwrap();
    let good = keys("edge", "core", 5);
    for (cluster, peer, problem) in [
        ("core", "edge", ProblemType::Malformed),
        ("branch", "core", ProblemType::Malformed),
        ("edge", "edge", ProblemType::Forbidden),
        ("edge", "branch", ProblemType::Forbidden),
        ("edge", "'; DROP TABLE link_statements; --", ProblemType::Malformed),
    ] {
        let said = LinkKeys { cluster: cluster.to_owned(), peer: peer.to_owned(), ..good.clone() };
        assert_eq!(say(&mut connection, &signed(&said)).await.problem(), problem, "{cluster} to {peer}");
    }
    let statement = signed(&good);
    for text in ["", "{}", "null", "[1]", "{\"cluster\":\"edge\"}", "\u{0}", "{\"links\":"] {
        let said = LinkStatement { text: text.to_owned(), ..statement.clone() };
        assert_eq!(say(&mut connection, &said).await.problem(), ProblemType::Malformed, "{text}");
    }
    for body in [&b""[..], b"{}", b"\xff", b"{\"text\":1,\"chain\":\"\",\"signature\":\"\"}", b"[[[["] {
        let answer = connection.post(LINK_KEYS, body).await.unwrap();
        assert_eq!(answer.problem(), ProblemType::Malformed);
    }
    let long = LinkStatement { chain: "c".repeat(LINK_STATEMENT_BYTES_MAX), ..statement.clone() };
    assert_eq!(say(&mut connection, &long).await.problem(), ProblemType::Malformed);
    let longer = LinkStatement { chain: "c".repeat(2 * LINK_STATEMENT_BYTES_MAX), ..statement.clone() };
    assert_eq!(say(&mut connection, &longer).await.problem(), ProblemType::TooLarge);
    assert_eq!(connection.get(LINK_KEYS).await.unwrap().problem(), ProblemType::NotFound);
    assert_eq!(lab.count("link_statements"), 0);
    assert_eq!(say(&mut connection, &statement).await.status, 204, "and the good one is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_names_links_of_its_cluster_in_their_direction() {
    let lab = Lab::start().await;
    for links in [
        "{}",
        r#"{"edge-core": {"sender": "core", "receiver": "edge"}}"#,
        r#"{"edge-core": {"sender": "edge", "receiver": "branch"}}"#,
        r#"{"edge-core": {"sender": "edge", "receiver": "core"}, "a/b": {"sender": "edge", "receiver": "core"}}"#,
    ] {
        assert!(configure(&lab, "core", links).is_err(), "{links}");
    }
    assert_eq!(configure(&lab, "core", LINKS).unwrap(), 1);
}
