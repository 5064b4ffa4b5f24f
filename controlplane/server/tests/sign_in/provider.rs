//! A provider of identities that does as it is told, also what no provider may do. Plain HTTP on loopback.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use zen_control::{OidcSettings, Role};

use crate::lab::now_ms;

/// How the next answers are.
pub struct Behaviour {
    /// Of the ID token; null takes one away.
    pub claims: Value,
    pub header: Value,
    pub signer: Signer,
    /// In place of the discovery's and the token's answers.
    pub discovery: Value,
    pub token_answer: Option<(u16, String)>,
}

pub enum Signer {
    Own,
    Nobody,
    Stranger,
    /// HMAC, with the published key as secret.
    PublishedKey,
}

struct State {
    behaviour: Behaviour,
    key: Ed25519KeyPair,
    key_id: String,
    /// Challenge and nonce by code.
    codes: BTreeMap<String, (String, String)>,
    requests: Vec<String>,
}

pub struct Provider {
    pub issuer: String,
    state: Arc<Mutex<State>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            claims: json!({}),
            header: json!({}),
            signer: Signer::Own,
            discovery: json!({}),
            token_answer: None,
        }
    }
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Fields of a query or form, whose values are plain or percent-encoded.
pub fn fields(text: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'%' {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
            } else {
                bytes.push(byte);
            }
        }
        String::from_utf8(bytes).unwrap()
    };
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}

impl Provider {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            behaviour: Behaviour::default(),
            key: Ed25519KeyPair::generate().unwrap(),
            key_id: "first".to_owned(),
            codes: BTreeMap::new(),
            requests: Vec::new(),
        }));
        let (shared, own) = (state.clone(), issuer.clone());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, own) = (shared.clone(), own.clone());
                tokio::spawn(async move { serve(stream, &shared, &own).await });
            }
        });
        Self { issuer, state, serving }
    }

    pub fn settings(&self) -> OidcSettings {
        OidcSettings {
            issuer: self.issuer.clone(),
            client_id: "zen".to_owned(),
            client_secret: "s:e%cret".to_owned().into(),
            redirect_uri: "https://localhost:1/sign-in/provider/callback".to_owned(),
            scope: "openid".to_owned(),
            ca: None,
            groups_claim: "groups".to_owned(),
            roles: vec![
                ("operators".to_owned(), "acme".to_owned(), Role::Admin),
                ("kings".to_owned(), "acme".to_owned(), Role::Owner),
                ("elsewhere".to_owned(), "nowhere".to_owned(), Role::Owner),
            ],
        }
    }

    pub fn behave(&self, behaviour: Behaviour) {
        self.state.lock().unwrap().behaviour = behaviour;
    }

    /// A new key in place of the one before.
    pub fn rotate(&self, key_id: &str) {
        let mut state = self.state.lock().unwrap();
        state.key = Ed25519KeyPair::generate().unwrap();
        key_id.clone_into(&mut state.key_id);
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        self.state.lock().unwrap().requests.iter().filter(|asked| *asked == path).count()
    }

    /// What the browser brings back when its person has agreed.
    pub fn agree(&self, location: &str) -> BTreeMap<String, String> {
        let sent = fields(location.split_once('?').unwrap().1);
        assert_eq!(sent["response_type"], "code");
        assert_eq!(sent["code_challenge_method"], "S256");
        assert_eq!(sent["client_id"], "zen");
        let mut state = self.state.lock().unwrap();
        let code = format!("code-{}", state.codes.len());
        state.codes.insert(code.clone(), (sent["code_challenge"].clone(), sent["nonce"].clone()));
        [("code", code), ("state", sent["state"].clone()), ("iss", self.issuer.clone())]
            .map(|(name, value)| (name.to_owned(), value))
            .into()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, state: &Mutex<State>, issuer: &str) {
    let mut text = String::new();
    let (head, body) = loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "requests are whole");
        text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let (status, answer) = answer(&mut state.lock().unwrap(), issuer, (&path, &head, &body));
    let location = if status == 302 { "Location: /elsewhere\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{location}Content-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    let _ = stream.write_all(&[head.as_bytes(), answer.as_bytes()].concat()).await;
}

fn answer(state: &mut State, issuer: &str, (path, head, body): (&str, &str, &str)) -> (u16, String) {
    state.requests.push(path.to_owned());
    match path {
        "/.well-known/openid-configuration" => {
            let mut all = json!({
                "issuer": issuer,
                "authorization_endpoint": format!("{issuer}/auth"),
                "token_endpoint": format!("{issuer}/token"),
                "jwks_uri": format!("{issuer}/keys"),
                "authorization_response_iss_parameter_supported": true,
            });
            change(&mut all, &state.behaviour.discovery);
            (200, all.to_string())
        }
        "/keys" => {
            let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": state.key_id, "use": "sig",
                "x": encoded(state.key.public_key())});
            (200, json!({"keys": [key]}).to_string())
        }
        "/token" => token(state, issuer, head, &fields(body)),
        _ => (404, String::new()),
    }
}

fn token(state: &mut State, issuer: &str, head: &str, sent: &BTreeMap<String, String>) -> (u16, String) {
    if let Some(answer) = &state.behaviour.token_answer {
        return answer.clone();
    }
    let credentials = format!("authorization: basic {}", BASE64_STANDARD.encode("zen:s%3Ae%25cret"));
    let is_client = head.lines().any(|line| line.to_lowercase() == credentials.to_lowercase());
    let Some((challenge, nonce)) = state.codes.remove(&sent["code"]) else { return (400, String::new()) };
    let is_theirs = encoded(digest(&SHA256, sent["code_verifier"].as_bytes())) == challenge;
    if !is_client || !is_theirs || sent["grant_type"] != "authorization_code" {
        return (401, String::new());
    }
    let now = now_ms() / 1000;
    let mut claims = json!({"iss": issuer, "sub": "ann", "aud": "zen", "exp": now + 300, "iat": now, "nonce": nonce,
        "preferred_username": "ann@corp.example"});
    change(&mut claims, &state.behaviour.claims);
    let mut header = json!({"alg": "EdDSA", "kid": state.key_id});
    change(&mut header, &state.behaviour.header);
    let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
    let signature = match state.behaviour.signer {
        Signer::Own => state.key.sign(message.as_bytes()).as_ref().to_vec(),
        Signer::Stranger => Ed25519KeyPair::generate().unwrap().sign(message.as_bytes()).as_ref().to_vec(),
        Signer::Nobody => Vec::new(),
        Signer::PublishedKey => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, state.key.public_key().as_ref());
            hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
        }
    };
    (200, json!({"access_token": "x", "token_type": "Bearer", "id_token": format!("{message}.{}", encoded(signature))}).to_string())
}

fn change(all: &mut Value, changes: &Value) {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
            value => all[name] = value.clone(),
        }
    }
}
