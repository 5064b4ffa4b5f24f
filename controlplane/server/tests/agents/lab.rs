//! A control plane in a directory of its own, listening on loopback.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use zen_control::{
    BundleOrder, ConfigurationInput, Database, Directory, Listening, Settings, create_bundle, initialize,
    open_database, set_configuration,
};
use zen_control_api::EnrollmentBundle;

pub const TRUST_DOMAIN: &str = "acme.example";

pub struct Lab {
    pub directory: Directory,
    pub address: SocketAddr,
    files: TempDir,
    listening: tokio::task::JoinHandle<()>,
}

impl Lab {
    pub async fn start() -> Self {
        Self::start_with(Duration::from_secs(5)).await
    }

    pub async fn start_with(long_poll: Duration) -> Self {
        let files = tempfile::tempdir().unwrap();
        let directory = initialize(&files.path().join("state"), TRUST_DOMAIN, "acme", now_ms()).unwrap();
        let settings = Settings { listen: "127.0.0.1:0".parse().unwrap(), long_poll };
        let listening = Listening::bind(directory.clone(), &settings).await.unwrap();
        let address = listening.address().unwrap();
        let listening = tokio::spawn(listening.run());
        Self { directory, address, files, listening }
    }

    /// What a command of another process has.
    pub fn database(&self) -> Database {
        open_database(&self.directory).unwrap()
    }

    pub fn state(&self) -> std::path::PathBuf {
        self.files.path().join("state")
    }

    pub fn bundle(&self, cluster: &str) -> EnrollmentBundle {
        self.bundle_at(cluster, now_ms())
    }

    pub fn bundle_at(&self, cluster: &str, now_ms: u64) -> EnrollmentBundle {
        let out = tempfile::tempdir_in(self.files.path()).unwrap().keep().join("bundle");
        let order = BundleOrder {
            cluster,
            life_ms: 3_600_000,
            urls: vec![format!("https://{}", self.address)],
            out: &out,
        };
        create_bundle(&self.directory, &mut self.database(), &order, now_ms).unwrap();
        EnrollmentBundle::decode(&std::fs::read(&out).unwrap()).unwrap()
    }

    /// One member, `node-1`.
    pub fn configure(&self, cluster: &str) -> u64 {
        let text = format!(
            r#"{{"members": {{"node-1": {{"spiffe_id": "spiffe://{TRUST_DOMAIN}/{cluster}/node-1", "node": ""}}}}}}"#
        );
        let input: ConfigurationInput = serde_json::from_str(&text).unwrap();
        set_configuration(&self.directory, &mut self.database(), cluster, input).unwrap()
    }

    pub fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        self.database().query_row(&sql, (), |row| row.get(0)).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}
