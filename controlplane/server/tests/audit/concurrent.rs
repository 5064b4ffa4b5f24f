//! Several processes and connections that write at the same time: one log.

use std::collections::BTreeSet;

use serde_json::json;

use crate::client::Client;
use crate::lab::Place;

const COMMANDS: usize = 3;
const CLIENTS: usize = 3;
const EACH: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_and_commands_write_one_log() {
    let place = Place::new();
    let person = place.certificate("owner");
    let mut program = place.start(&[]).await;
    let before = place.entries().len();
    std::thread::scope(|threads| {
        for command in 0..COMMANDS {
            let place = &place;
            threads.spawn(move || {
                for index in 0..EACH {
                    let serial = format!("{command:02x}{index:02x}");
                    // Who does not get the database in time has changed nothing, and is told so.
                    let mut output = place.run(&["deny", "--serial", &serial]);
                    while !output.status.success() {
                        let said = String::from_utf8(output.stderr).unwrap();
                        assert!(said.contains("database is locked"), "{said}");
                        output = place.run(&["deny", "--serial", &serial]);
                    }
                }
            });
        }
        let clients = async {
            let mut tasks = Vec::new();
            for number in 0..CLIENTS {
                let mut client = Client::connect(program.people, &person).await.unwrap();
                tasks.push(tokio::spawn(async move {
                    for index in 0..EACH {
                        let path = format!("/v1/tenants/acme/clusters/c{number}-{index}");
                        // Who does not get the database in time has changed nothing, and asks again.
                        let mut status = 429;
                        while status == 429 {
                            status = client.put(&path, &json!({})).await.status;
                        }
                        assert_eq!(status, 201);
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
        };
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(clients));
    });
    program.terminate();
    let entries = place.entries();
    let new = &entries[before..];
    let targets: BTreeSet<&str> = new.iter().map(|entry| entry.target.as_str()).collect();
    assert_eq!((new.len(), targets.len()), ((COMMANDS + CLIENTS) * EACH, (COMMANDS + CLIENTS) * EACH));
    let found = place.verify();
    assert_eq!((found.fault, found.signed), (None, found.entries));
}
