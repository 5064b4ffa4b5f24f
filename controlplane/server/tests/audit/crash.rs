//! A server that is killed while people change things: what was answered is in the log, and the log has nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use zen_audit::Outcome;

use crate::client::Client;
use crate::lab::Place;

const CLIENTS: usize = 4;
const KILLS: usize = 12;

/// Makes clusters until the connection is lost; the request ids of all answers.
async fn change(mut client: Client, round: usize, number: usize) -> Vec<String> {
    let mut answered = Vec::new();
    for index in 0.. {
        let path = format!("/v1/tenants/acme/clusters/c{round}-{number}-{index}");
        let body = json!({}).to_string();
        let headers = [("Content-Type", "application/json")];
        match client.try_send("PUT", &path, &headers, body.as_bytes()).await {
            Ok(answer) if answer.status == 201 => {
                answered.push(answer.header("x-request-id").unwrap().to_owned());
            }
            // Another client has the database for too long; nothing was done.
            Ok(answer) => assert_eq!(answer.status, 429, "{}", answer.text()),
            Err(_) => break,
        }
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_before_a_kill_is_in_the_log_and_nothing_else_is() {
    let place = Place::new();
    let person = place.certificate("owner");
    let mut answered = Vec::new();
    for round in 0..KILLS {
        let mut program = place.start(&[]).await;
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let client = Client::connect(program.people, &person).await.unwrap();
            clients.push(tokio::spawn(change(client, round, number)));
        }
        // Another moment each time: some fall between a commit and its answer, some into a checkpoint.
        tokio::time::sleep(Duration::from_millis(40 + 37 * round as u64)).await;
        program.kill();
        for client in clients {
            answered.extend(client.await.unwrap());
        }
    }
    assert!(answered.len() > KILLS, "{} changes were answered", answered.len());
    let entries = place.entries();
    let puts: Vec<_> = entries.iter().filter(|entry| entry.action == "clusters.put").collect();
    let told: BTreeSet<&str> = puts.iter().map(|entry| entry.request_id.as_str()).collect();
    assert_eq!(told.len(), puts.len(), "one entry for each request");
    let missing: Vec<&String> = answered.iter().filter(|id| !told.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "answered, and not in the log: {missing:?}");
    let entered: BTreeSet<String> = puts.iter().map(|entry| entry.target.clone()).collect();
    let database = place.database();
    let sql = "SELECT 'tenants/acme/clusters/' || name FROM objects WHERE kind = 'clusters'";
    let mut statement = database.prepare(sql).unwrap();
    let made: BTreeSet<String> =
        statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(entered, made, "no entry without its change, no change without its entry");
    assert!(puts.iter().all(|entry| entry.outcome == Outcome::Done));
    let mut program = place.start(&[]).await;
    program.terminate();
    let found = place.verify();
    assert_eq!((found.fault, found.signed), (None, found.entries), "{found:?}");
}
