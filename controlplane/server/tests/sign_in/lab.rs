//! A control plane with its listener for browsers, and a browser that keeps cookies.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use zen_control::{
    Database, Directory, Listening, OidcSettings, Role, Settings, Subject, WebListening, WebSettings,
    add_person, deny, initialize, make_sign_in_link, open_database,
};

use crate::client::{Answer, Client};

pub const PASSWORD: &str = "correct horse battery";

pub struct Lab {
    pub address: SocketAddr,
    directory: Directory,
    files: TempDir,
    listening: [tokio::task::JoinHandle<()>; 2],
}

/// Cookies by name, and one connection.
pub struct Browser {
    client: Client,
    pub cookies: BTreeMap<String, String>,
}

impl Lab {
    pub async fn start(oidc: Option<OidcSettings>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let directory = initialize(&files.path().join("state"), "acme.example", "acme", now_ms()).unwrap();
        let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let settings = Settings { listen: loopback, long_poll: Duration::from_secs(5) };
        let agents = Listening::bind(directory.clone(), &settings).await.unwrap();
        let settings = WebSettings { listen: loopback, certificate: None, names: Vec::new(), oidc };
        let web = WebListening::bind(directory.clone(), &settings).await.unwrap();
        let address = web.address().unwrap();
        let listening = [tokio::spawn(agents.run()), tokio::spawn(web.run_until(std::future::pending()))];
        let lab = Self { address, directory, files, listening };
        add_person(&mut lab.database(), "owner", (None, Role::Owner), now_ms()).unwrap();
        lab
    }

    pub fn database(&self) -> Database {
        open_database(&self.directory).unwrap()
    }

    pub fn deny(&self, subject: &Subject) {
        deny(&self.directory, &mut self.database(), subject, (None, None), now_ms()).unwrap();
    }

    pub fn root(&self) -> PathBuf {
        self.files.path().join("state/roots.pem")
    }

    pub fn link(&self, name: &str) -> String {
        make_sign_in_link(&mut self.database(), name, now_ms()).unwrap().to_string()
    }

    pub fn count(&self, table: &str) -> i64 {
        self.database().query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get(0)).unwrap()
    }

    /// Action, outcome and actor of all entries of the log of acts, in order.
    pub fn acts(&self) -> Vec<(String, String, String)> {
        let database = self.database();
        let mut rows = database.prepare("SELECT bytes FROM audit_entries ORDER BY sequence").unwrap();
        let rows = rows.query_map((), |row| row.get::<_, Vec<u8>>(0)).unwrap();
        let act = |bytes: Vec<u8>| {
            let entry: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            let text = |name: &str| entry[name].as_str().unwrap().to_owned();
            (text("action"), text("outcome"), text("actor"))
        };
        rows.map(|bytes| act(bytes.unwrap())).collect()
    }

    pub async fn client(&self) -> Client {
        let root = std::fs::read(self.root()).unwrap();
        let root = CertificateDer::from_pem_slice(&root).unwrap();
        Client::with(self.address, root, None).await.unwrap()
    }

    pub async fn browser(&self) -> Browser {
        Browser { client: self.client().await, cookies: BTreeMap::new() }
    }

    /// A browser in which somebody has signed in with a link; the key of their codes.
    pub async fn signed_in(&self, name: &str) -> (Browser, Codes) {
        let (mut browser, token) = (self.browser().await, self.link(name));
        let page = browser.get(&format!("/sign-in/link?token={token}")).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let codes = Codes::of(secret_of(&page.text()));
        let form = [("token", token.as_str()), ("password", PASSWORD), ("code", &codes.after(0))];
        let answer = browser.post("/sign-in/link", &form).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{}", answer.text());
        (browser, codes)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.listening.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Browser {
    pub async fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// As a page of ours sends it.
    pub async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        self.post_from("same-origin", path, form).await
    }

    pub async fn post_from(&mut self, site: &str, path: &str, form: &[(&str, &str)]) -> Answer {
        let pairs: Vec<String> =
            form.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "+"))).collect();
        let kind = ("Content-Type", "application/x-www-form-urlencoded");
        self.ask("POST", path, &[kind, ("Sec-Fetch-Site", site)], &pairs.join("&")).await
    }

    pub async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let mut all = headers.to_vec();
        if !cookies.is_empty() {
            all.push(("Cookie", &cookies));
        }
        let answer = self.client.send(method, path, &all, body.as_bytes()).await;
        let set = answer.head.lines().filter_map(|line| line.split_once(": "));
        for (_, line) in set.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")) {
            for part in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
                assert!(line.contains(part), "{line}");
            }
            assert!(line.starts_with("__Host-") && !line.contains("Domain"), "{line}");
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// Whether the first page is for whom it takes to be signed in.
    pub async fn is_in(&mut self) -> bool {
        let answer = self.get("/").await;
        match answer.header("location") {
            Some(location) if location.starts_with("/sign-in") => false,
            None if answer.status == 403 => false,
            _ => {
                assert!(answer.status < 400, "{}", answer.text());
                true
            }
        }
    }
}

/// The key that the page of a link shows.
pub fn secret_of(page: &str) -> Vec<u8> {
    let text = page.split("id=\"secret\">").nth(1).unwrap().split('<').next().unwrap();
    let mut bits = Vec::new();
    for character in text.chars() {
        let value = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".find(character).unwrap();
        bits.extend((0..5).rev().map(|at| (value >> at & 1) as u8));
    }
    bits.chunks(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
}

/// What forms of a session have.
pub fn csrf(cookie: &str) -> String {
    let hash = digest(&SHA256, format!("zen-csrf\n{cookie}").as_bytes());
    hash.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect()
}

fn digit(value: u8) -> char {
    char::from_digit(value.into(), 16).unwrap()
}

/// The codes of a device (RFC 6238), counted from a step that stays: between two looks at the clock the next may begin.
pub struct Codes {
    key: hmac::Key,
    step: u64,
}

impl Codes {
    pub fn of(secret: Vec<u8>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret);
        Self { key, step: now_ms() / 30_000 }
    }

    pub fn after(&self, steps: u64) -> String {
        let tag = hmac::sign(&self.key, &(self.step + steps).to_be_bytes());
        let at = usize::from(tag.as_ref()[19] & 15);
        let number = u32::from_be_bytes(tag.as_ref()[at..at + 4].try_into().unwrap()) & 0x7fff_ffff;
        format!("{:06}", number % 1_000_000)
    }
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}
