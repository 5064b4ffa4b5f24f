//! A control plane in a directory of its own: in this process, as a program, and its log as anybody may check it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use zen_audit::{Entry, Export, Finding, LogKey, Trust, verify_export};
use zen_control::{
    Database, Directory, Listening, PeopleListening, Role, Settings, add_person, audit_key, audit_witnesses,
    certify_person, export_audit, initialize, open_database,
};
use zen_ports::free_address;

use crate::client::Client;

pub const TRUST_DOMAIN: &str = "acme.example";

/// A directory with an owner, whose name is that.
pub struct Place {
    pub files: TempDir,
}

/// One that listens for people, and for agents.
pub struct Lab {
    pub place: Place,
    pub address: SocketAddr,
    listening: [tokio::task::JoinHandle<()>; 2],
}

/// The program; killed when dropped.
pub struct Program {
    child: Child,
    pub people: SocketAddr,
}

impl Place {
    pub fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let directory = initialize(&files.path().join("state"), TRUST_DOMAIN, "acme", now_ms()).unwrap();
        let place = Self { files };
        add_person(&mut open_database(&directory).unwrap(), "owner", (None, Role::Owner), now_ms()).unwrap();
        place
    }

    pub fn at(&self) -> &Path {
        self.files.path()
    }

    pub fn state(&self) -> PathBuf {
        self.at().join("state")
    }

    pub fn directory(&self) -> Directory {
        Directory::open(&self.state()).unwrap()
    }

    /// What a command of another process has.
    pub fn database(&self) -> Database {
        open_database(&self.directory()).unwrap()
    }

    /// Key, certificate and root in a new directory.
    pub fn certificate(&self, name: &str) -> PathBuf {
        let out = tempfile::tempdir_in(self.at()).unwrap().keep().join("person");
        certify_person(&self.directory(), &mut self.database(), name, &out, now_ms()).unwrap();
        out
    }

    /// What `zen-control audit export` writes.
    pub fn export(&self) -> Export {
        let mut text = Vec::new();
        export_audit(&mut self.database(), &mut text).unwrap();
        Export::parse(&String::from_utf8(text).unwrap()).unwrap()
    }

    /// The log's key and those of its witnesses.
    pub fn trust(&self, quorum: usize) -> Trust {
        let database = self.database();
        let log = LogKey::parse(&audit_key(&self.directory(), &database).unwrap()).unwrap();
        let witnesses = audit_witnesses(&database).unwrap();
        let witnesses = witnesses.iter().map(|(_, key, _)| LogKey::parse(key).unwrap()).collect();
        Trust { log, witnesses, quorum }
    }

    /// What a verifier elsewhere finds.
    pub fn verify(&self) -> Finding {
        verify_export(&self.export(), &self.trust(1))
    }

    /// All entries, each read as what it continues.
    pub fn entries(&self) -> Vec<Entry> {
        let mut previous = Entry::before_the_first();
        let read = |(index, bytes): (usize, &Vec<u8>)| {
            let entry = Entry::read(bytes, index as u64, &previous).unwrap();
            previous = Entry::leaf(bytes);
            entry
        };
        self.export().entries.iter().enumerate().map(read).collect()
    }

    /// All that is kept beside the log, as text: what a change that failed has to leave as it was.
    pub fn kept(&self) -> String {
        let database = self.database();
        let sql =
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'audit_%' ORDER BY name";
        let mut statement = database.prepare(sql).unwrap();
        let tables: Vec<String> =
            statement.query_map((), |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let rows = |table: &String| {
            let mut statement = database.prepare(&format!("SELECT * FROM {table}")).unwrap();
            let columns = statement.column_count();
            let row = |row: &rusqlite::Row<'_>| {
                let values: Vec<_> = (0..columns).map(|index| row.get_ref(index).unwrap()).collect();
                Ok(format!("{values:?}"))
            };
            let mut rows: Vec<String> = statement.query_map((), row).unwrap().map(Result::unwrap).collect();
            rows.sort();
            format!("{table}: {rows:?}\n")
        };
        tables.iter().map(rows).collect()
    }

    /// Runs a command in the files' directory, with `--dir state`.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_zen-control"));
        command.args(arguments).args(["--dir", "state"]).current_dir(self.at()).output().unwrap()
    }

    /// The output of a command that succeeds.
    pub fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command says that fails.
    pub fn bad(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// The program, which listens.
    pub async fn start(&self, more: &[&str]) -> Program {
        let people = free_address();
        let child = Command::new(env!("CARGO_BIN_EXE_zen-control"))
            .args(["run", "--log", "error", "--dir", "state", "--listen", &free_address().to_string()])
            .args(["--people-listen", &people.to_string()])
            .args(more)
            .current_dir(self.at())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut program = Program { child, people };
        let root = std::fs::read(self.state().join("roots.pem")).unwrap();
        let root = CertificateDer::from_pem_slice(&root).unwrap();
        for _ in 0..3000 {
            // Once handshakes are answered, signals are heard as well.
            if Client::with(people, root.clone(), None).await.is_ok() {
                return program;
            }
            assert!(program.child.try_wait().unwrap().is_none(), "the server ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the server did not listen");
    }
}

impl Lab {
    pub async fn start() -> Self {
        let place = Place::new();
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let settings = Settings { listen: loopback, long_poll: Duration::from_secs(5) };
        let listening = Listening::bind(place.directory(), &settings).await.unwrap();
        let people = PeopleListening::bind(place.directory(), loopback, listening.identity()).await.unwrap();
        let address = people.address().unwrap();
        let listening = [tokio::spawn(listening.run()), tokio::spawn(people.run())];
        Self { place, address, listening }
    }

    pub fn add(&self, name: &str, role: Role) {
        add_person(&mut self.place.database(), name, (None, role), now_ms()).unwrap();
    }

    pub async fn client(&self, name: &str) -> Client {
        Client::connect(self.address, &self.place.certificate(name)).await.unwrap()
    }
}

impl Program {
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, as systemd does it, and its end.
    pub fn terminate(&mut self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success() && self.child.wait().unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
