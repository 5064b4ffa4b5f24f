//! A server that is killed, or a connection that is lost, between what is kept and what is said: one identity at most,
//! and the honest agent gets in.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use zen_control::{BundleOrder, Directory, create_bundle, initialize, open_database};
use zen_control_api::{ENROLL, EnrollmentBundle, ProblemType};
use zen_ports::free_address;

use crate::client::{Connection, csr, enroll, enrollment_request, new_key};
use crate::lab::{Lab, TRUST_DOMAIN, now_ms};

/// Kills when dropped.
struct Server(Child);

impl Server {
    async fn start(directory: &Path, address: SocketAddr) -> Self {
        Self::start_with(directory, address, "error", Stdio::null()).await
    }

    async fn start_with(directory: &Path, address: SocketAddr, log: &str, to: Stdio) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_zen-control"))
            .args(["run", "--log", log, "--people-listen", "127.0.0.1:0"])
            .args(["--listen", &address.to_string(), "--dir"])
            .arg(directory)
            .stderr(to)
            .spawn()
            .unwrap();
        let server = Self(child);
        for _ in 0..500 {
            if tokio::net::TcpStream::connect(address).await.is_ok() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the server did not listen");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn bundle(directory: &Directory, files: &Path, cluster: &str) -> EnrollmentBundle {
    let out = files.join(cluster);
    let urls = vec!["https://127.0.0.1:1".to_owned()];
    let order = BundleOrder { cluster, life_ms: 3_600_000, urls, out: &out };
    create_bundle(directory, &mut open_database(directory).unwrap(), &order, now_ms()).unwrap();
    EnrollmentBundle::decode(&std::fs::read(&out).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_let_in_whom_it_answers_later() {
    let files = tempfile::tempdir().unwrap();
    let state = files.path().join("state");
    let directory = initialize(&state, TRUST_DOMAIN, "acme", now_ms()).unwrap();
    let address = free_address();
    let mut kept_before_the_end = 0;
    for step in 0..16 {
        let cluster = format!("edge-{step}");
        let bundle = bundle(&directory, files.path(), &cluster);
        let (key, other) = (csr(&new_key()), csr(&new_key()));
        let server = Server::start(&state, address).await;
        let mut connection = Connection::with_bundle(address, &bundle).await.unwrap();
        let request = enrollment_request(&mut connection, &bundle, &key).await.unwrap();
        connection.send("POST", ENROLL, &serde_json::to_vec(&request).unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_micros(step * 1000)).await;
        drop(server);

        let count = |where_: &str| -> i64 {
            let sql = format!("SELECT count(*) FROM {where_} LIKE '%/agent/{cluster}'");
            open_database(&directory).unwrap().query_row(&sql, (), |row| row.get(0)).unwrap()
        };
        kept_before_the_end += count("certificates WHERE spiffe_id");
        let server = Server::start(&state, address).await;
        assert_eq!(enroll(address, &bundle, &key).await.status, 201, "step {step}");
        assert_eq!(enroll(address, &bundle, &other).await.problem(), ProblemType::BundleConsumed);
        assert_eq!(count("identities WHERE spiffe_id"), 1, "step {step}");
        assert_eq!(count("certificates WHERE spiffe_id"), 1, "step {step}");
        drop(server);
    }
    println!("{kept_before_the_end} of 16 kills came after the certificate was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_both_addresses_and_no_secret() {
    let files = tempfile::tempdir().unwrap();
    let state = files.path().join("state");
    let directory = initialize(&state, TRUST_DOMAIN, "acme", now_ms()).unwrap();
    let address = free_address();
    let bundle = bundle(&directory, files.path(), "edge");
    let log = files.path().join("log");
    let to = std::fs::File::create(&log).unwrap();
    let server = Server::start_with(&state, address, "trace", to.into()).await;
    let mut ports = Vec::new();
    for status in [201, 409] {
        let mut connection = Connection::with_bundle(address, &bundle).await.unwrap();
        ports.push(connection.port());
        let request = enrollment_request(&mut connection, &bundle, &csr(&new_key())).await.unwrap();
        let answer = connection.post(ENROLL, &serde_json::to_vec(&request).unwrap()).await.unwrap();
        assert_eq!(answer.status, status);
    }
    drop(server);
    let log = std::fs::read_to_string(&log).unwrap();
    let alarm = log.lines().find(|line| line.contains("ALARM")).unwrap();
    for port in ports {
        assert!(alarm.contains(&format!("127.0.0.1:{port}")), "{alarm}");
    }
    let seed = serde_json::to_string(&zen_control_api::Base64(*bundle.key().seed())).unwrap();
    for secret in [seed.trim_matches('"'), "PRIVATE KEY", &format!("{:?}", bundle.key().seed())] {
        assert!(!log.contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_loses_nothing() {
    let lab = Lab::start().await;
    for step in 0..16 {
        let bundle = lab.bundle(&format!("edge-{step}"));
        let key = csr(&new_key());
        let mut connection = Connection::with_bundle(lab.address, &bundle).await.unwrap();
        let request = enrollment_request(&mut connection, &bundle, &key).await.unwrap();
        connection.send("POST", ENROLL, &serde_json::to_vec(&request).unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_micros(step * 500)).await;
        drop(connection);
        assert_eq!(enroll(lab.address, &bundle, &key).await.status, 201, "step {step}");
    }
    assert_eq!((lab.count("identities"), lab.count("certificates")), (16, 16));
}
