//! A control plane in a directory of its own, listening for people on loopback.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use tokio::sync::Notify;
use zen_control::{
    Database, Directory, Listening, PeopleListening, Role, Settings, add_person, certify_person, initialize,
    open_database,
};

use crate::client::Client;

pub const TRUST_DOMAIN: &str = "acme.example";

pub struct Lab {
    pub directory: Directory,
    pub address: SocketAddr,
    pub agents: SocketAddr,
    files: TempDir,
    listening: [tokio::task::JoinHandle<()>; 2],
    ending: Arc<Notify>,
}

impl Lab {
    /// With an owner, whose name is that.
    pub async fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let directory = initialize(&files.path().join("state"), TRUST_DOMAIN, "acme", now_ms()).unwrap();
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let settings = Settings { listen: loopback, long_poll: Duration::from_secs(5) };
        let listening = Listening::bind(directory.clone(), &settings).await.unwrap();
        let people = PeopleListening::bind(directory.clone(), loopback, listening.identity()).await.unwrap();
        let (agents, address) = (listening.address().unwrap(), people.address().unwrap());
        let ending = Arc::new(Notify::new());
        let end = Arc::clone(&ending);
        let people = people.run_until(async move { end.notified().await });
        let listening = [tokio::spawn(listening.run()), tokio::spawn(people)];
        let lab = Self { directory, address, agents, files, listening, ending };
        lab.add("owner", Role::Owner);
        lab
    }

    /// The listener for people is to end; nothing is waited for.
    pub fn end(&self) {
        self.ending.notify_one();
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.listening[1].is_finished()
    }

    /// What a command of another process has.
    pub fn database(&self) -> Database {
        open_database(&self.directory).unwrap()
    }

    pub fn add(&self, name: &str, role: Role) {
        add_person(&mut self.database(), name, (None, role), now_ms()).unwrap();
    }

    pub fn add_in(&self, name: &str, tenant: &str, role: Role) {
        add_person(&mut self.database(), name, (Some(tenant), role), now_ms()).unwrap();
    }

    /// Key, certificate and root in a new directory.
    pub fn certificate(&self, name: &str) -> PathBuf {
        let out = tempfile::tempdir_in(self.files.path()).unwrap().keep().join("person");
        certify_person(&self.directory, &mut self.database(), name, &out, now_ms()).unwrap();
        out
    }

    pub async fn client(&self, name: &str) -> Client {
        Client::connect(self.address, &self.certificate(name)).await.unwrap()
    }

    pub async fn owner(&self) -> Client {
        self.client("owner").await
    }

    pub fn state(&self) -> &Path {
        self.files.path()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.listening.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}
