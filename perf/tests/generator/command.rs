//! `zen-perf load` as a program, with files of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

pub const PERF: &str = env!("CARGO_BIN_EXE_zen-perf");
/// The secret of every endpoint here.
pub const SECRET: &str = "of tests alone";
pub const ENDPOINT: &str = "00112233445566778899aabbccddeeff";

/// A directory with certificates and endpoints.
pub struct Place {
    pub directory: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let made =
            Command::new(PERF).arg("pki").arg("--out").arg(directory.path()).output().expect("it runs");
        assert!(made.status.success(), "{made:?}");
        let endpoints = format!("[{{\"id\":\"{ENDPOINT}\",\"scheme\":\"hmac\",\"secret\":\"{SECRET}\"}}]");
        fs::write(directory.path().join("endpoints.json"), endpoints).expect("a file");
        Self { directory }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `load` at `address`, with the JSON in `load.json`.
    pub fn command(&self, address: SocketAddr, words: &str) -> Command {
        let mut command = Command::new(PERF);
        command.args(["load", "--address", &address.to_string(), "--ca"]).arg(self.file("public_ca.pem"));
        command.arg("--endpoints").arg(self.file("endpoints.json"));
        command.arg("--json").arg(self.file("load.json")).arg("--quiet").args(words.split_whitespace());
        command
    }

    pub fn load(&self, address: SocketAddr, words: &str) -> (Load, Output) {
        let output = self.command(address, words).output().expect("it runs");
        assert!(output.status.success(), "{words}: {}", text(&output.stderr));
        (self.result(), output)
    }

    pub fn start(&self, address: SocketAddr, words: &str) -> Child {
        let mut command = self.command(address, words);
        command.arg("--phases").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
    }

    /// The JSON of the last load.
    pub fn result(&self) -> Load {
        let text = fs::read(self.file("load.json")).expect("the load has written its result");
        Load(serde_json::from_slice(&text).expect("JSON"))
    }
}

/// A result.
pub struct Load(Value);

impl Load {
    pub fn count(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("{name} of {}", self.0))
    }

    pub fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap_or_else(|| panic!("{name} of {}", self.0))
    }

    pub fn says(&self, name: &str) -> bool {
        self.0[name].as_bool().unwrap_or_else(|| panic!("{name} of {}", self.0))
    }

    pub fn refused(&self) -> BTreeMap<String, u64> {
        serde_json::from_value(self.0["refused"].clone()).expect("statuses and counts")
    }

    /// How many latencies were surely longer than `us`: those behind the last step of the curve below it.
    pub fn slower_than(&self, us: f64) -> u64 {
        let latency = &self.0["latency"];
        let curve: Vec<(f64, f64)> = serde_json::from_value(latency["curve"].clone()).expect("a curve");
        let count = latency["count"].as_u64().expect("a count") as f64;
        let below = curve.iter().filter(|step| step.1 <= us).map(|step| step.0).fold(0.0, f64::max);
        (count * (1.0 - below)).round() as u64
    }

    /// Each request has come to one end.
    pub fn assert_whole(&self) {
        let refused: u64 = self.refused().values().sum();
        let ends = self.count("accepted") + refused + self.count("failed") + self.count("junk");
        assert_eq!(self.count("sent"), ends, "{}", self.0);
        assert_eq!(self.0["latency"]["count"].as_u64(), self.0["accepted"].as_u64());
        if let Some(offered) = self.0["offered"].as_u64() {
            assert_eq!(offered, self.count("sent") + self.count("unsent"));
        }
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
