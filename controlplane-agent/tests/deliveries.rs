//! From a node's receipts to what a person reads, and from a person's order to what a node does: the real programs, over both
//! clusters' agents, which are killed on the way. Each delivery is told once, and no order is done twice.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/chain.rs"]
mod chain;
#[path = "support/lab.rs"]
mod lab;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use chain::Chain;
use lab::{Lab, TRUST_DOMAIN, run, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, StreamOwned};
use zen_identity::{PrivateKeySource, SvidFiles, SvidStore, TrustDomain, spiffe_server_name};

/// The owner, at the API for people.
struct Person {
    port: u16,
    config: Arc<ClientConfig>,
}

impl Person {
    fn new(lab: &Lab) -> Self {
        let (directory, out) = (lab.text("control"), lab.text("owner"));
        run("zen-control", &["person", "certificate", "--dir", &directory, "--name", "owner", "--out", &out]);
        let store = SvidStore::load(SvidFiles {
            certificate_file: lab.path("owner/certificate.pem"),
            private_key: PrivateKeySource::File(lab.path("owner/key.pem")),
            trust_bundle_file: lab.path("owner/root.pem"),
            trust_domain: TrustDomain::parse(TRUST_DOMAIN).unwrap(),
        });
        let config = store.unwrap().control_client_config(&[b"http/1.1"]).unwrap();
        Self { port: lab.people_port, config }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let connection = ClientConnection::new(Arc::clone(&self.config), spiffe_server_name()).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", self.port)).unwrap());
        let length = body.len();
        let text = format!(
            "{method} /v1/tenants/acme/{path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // The end may come without a farewell.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// All items of a list.
    fn all(&self, path: &str) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("{path}limit=200{cursor}"));
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    fn deliveries(&self, verdict: &str) -> usize {
        self.all(&format!("deliveries?verdict={verdict}&")).len()
    }

    /// Orders letters to be sent again; the order's number.
    fn replay(&self, letters: &[Value]) -> u64 {
        let ids: Vec<&Value> = letters.iter().map(|letter| &letter["id"]).collect();
        let body = json!({ "cluster": "core", "member": "edge-1", "letters": ids });
        let (status, order) = self.ask("POST", "dead-letters/replay", &body.to_string());
        assert_eq!(status, 201, "{order}");
        assert_eq!((&order["state"], &order["letters"]), (&json!("open"), &json!(letters.len())), "{order}");
        order["order"].as_u64().unwrap()
    }

    /// How an order ended.
    fn end(&self, order: u64) -> Value {
        let mut found = Value::Null;
        wait_until("the order has an end", || {
            found = self.get(&format!("orders/{order}"));
            !["open", "sent"].contains(&found["state"].as_str().unwrap())
        });
        found
    }

    /// Targets of entries of the audit log.
    fn audited(&self, action: &str) -> Vec<String> {
        let items = self.all(&format!("audit?action={action}&"));
        items.iter().map(|entry| entry["target"].as_str().unwrap().to_owned()).collect()
    }
}

fn send(chain: &Chain, from: u32, count: u32) {
    for number in from..from + count {
        let body = format!("{{\"event\":{number}}}");
        assert_eq!(chain.source.send(body.as_bytes(), "a header"), Some(202));
    }
}

#[test]
fn a_dead_letter_is_seen_ordered_and_sent_again() {
    let chain = Chain::start("");
    chain.wait_linked();
    let person = Person::new(&chain.edge.lab);
    send(&chain, 0, 12);
    wait_until("all are told", || person.deliveries("delivered") == 12);
    let delivered = person.all("deliveries?target=sink&");
    let sequences: BTreeSet<u64> = delivered.iter().map(|row| row["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences.len(), 12, "each once: {delivered:#?}");
    assert!(delivered.iter().all(|row| row["body_hmac"].as_str().unwrap().len() == 64));
    let event = delivered[0]["event"].as_str().unwrap();
    assert_eq!(person.all(&format!("deliveries?event={event}&")).len(), 1);
    let last = delivered[0]["time_ms"].as_u64().unwrap();
    assert_eq!(person.all(&format!("deliveries?from_ms={}&", last + 1_000_000)).len(), 0);
    assert_eq!(person.all("deliveries?target=another&").len(), 0);

    chain.target.status.store(413, Ordering::Relaxed);
    send(&chain, 100, 2);
    wait_until("both are dead letters", || person.all("dead-letters?cluster=core&").len() == 2);
    let letters = person.all("dead-letters?");
    assert!(
        letters.iter().all(|letter| letter["status"] == 413 && letter["target"] == "sink"),
        "{letters:#?}"
    );
    assert_eq!(person.all("dead-letters?cluster=edge&").len(), 0);
    chain.target.status.store(200, Ordering::Relaxed);
    let order = person.replay(&letters);
    let end = person.end(order);
    assert_eq!((&end["state"], &end["done"]), (&json!("done"), &json!(2)), "{end}");
    wait_until("both are delivered", || person.deliveries("delivered") == 14);
    wait_until("and no letters any more", || person.all("dead-letters?").is_empty());
    // Who ordered and what came of it is in the log, and so are digests of the node's receipts, each once.
    assert_eq!(person.audited("dead-letters.replay"), [format!("tenants/acme/orders/{order}")]);
    assert_eq!(person.audited("orders.done"), [format!("tenants/acme/clusters/core/orders/{order}")]);
    // A segment ends with the write that gives it its fifth line: one or more for 14 lines, one more for the five after those.
    wait_until("digests are in the log", || person.audited("receipts.digest").len() >= 2);
    let digests = person.audited("receipts.digest");
    assert_eq!(digests.iter().collect::<BTreeSet<_>>().len(), digests.len(), "each once: {digests:#?}");
    let place = "tenants/acme/clusters/core/members/edge-1/receipts/0/sha256:";
    assert!(digests.iter().any(|digest| digest.starts_with(place)), "{digests:#?}");
    assert_eq!(person.audited("receipts.alarm"), [""; 0]);
    for wrong in [
        json!({ "cluster": "core", "member": "other", "letters": ["0-1-0"] }),
        json!({ "cluster": "nowhere", "member": "edge-1", "letters": ["0-1-0"] }),
        json!({ "cluster": "core", "member": "edge-1", "letters": [] }),
        json!({ "cluster": "core", "member": "edge-1", "letters": ["../x"] }),
        json!({ "cluster": "core", "member": "edge-1", "letters": ["0-1-0"], "to": "x" }),
    ] {
        let (status, problem) = person.ask("POST", "dead-letters/replay", &wrong.to_string());
        assert_eq!(status, 422, "{wrong}: {problem}");
    }
    // One that is not there is skipped, and nothing else happens.
    let end = person.end(person.replay(&letters));
    assert_eq!((&end["state"], &end["done"]), (&json!("done"), &json!(0)), "{end}");
}

#[test]
fn whoever_is_killed_each_delivery_is_told_once_and_no_order_done_twice() {
    let mut chain = Chain::start("");
    chain.wait_linked();
    let person = Person::new(&chain.edge.lab);
    chain.target.status.store(413, Ordering::Relaxed);
    let mut dead = 0;
    for round in 0..5_u32 {
        chain.target.status.store(413, Ordering::Relaxed);
        send(&chain, round * 10, 4);
        dead += 4;
        wait_until("letters are told", || {
            person.deliveries("dead") == dead && person.all("dead-letters?").len() == 4
        });
        let letters = person.all("dead-letters?");
        chain.target.status.store(200, Ordering::Relaxed);
        let order = person.replay(&letters);
        // Later each time: before it was heard, while it is done, after.
        thread::sleep(Duration::from_millis(u64::from(round) * 90));
        let agent = chain.core.agent.take().unwrap();
        agent.signal(Signal::SIGKILL);
        drop(agent);
        chain.core.agent = Some(chain.core.lab.start_agent());
        let end = person.end(order);
        let state = end["state"].as_str().unwrap();
        assert!(["done", "unknown"].contains(&state), "{end}");
        if state == "unknown" {
            // Nobody knows; a person looks, and orders what is still there.
            wait_until("the list is told anew", || {
                let left = person.all("dead-letters?");
                left.is_empty() || person.end(person.replay(&left))["state"] == "done"
            });
        }
        wait_until("all letters are sent again", || person.all("dead-letters?").is_empty());
    }
    let bodies = chain.target.counts();
    assert!(bodies.len() == 20 && bodies.values().all(|count| *count == 1), "each once: {bodies:?}");
    wait_until("all are told", || person.deliveries("delivered") == 20);
    let mut sequences: Vec<u64> =
        person.all("deliveries?").iter().map(|row| row["sequence"].as_u64().unwrap()).collect();
    sequences.sort_unstable();
    let told: BTreeSet<u64> = sequences.iter().copied().collect();
    assert_eq!(told.len(), sequences.len(), "none is told twice: {sequences:?}");
    let digests = person.audited("receipts.digest");
    assert_eq!(digests.iter().collect::<BTreeSet<_>>().len(), digests.len(), "each once: {digests:#?}");
}
