//! No payload and no key of the data plane is ever in the control plane: the real programs, and a search for all of them.
//!
//! Sought are bodies and headers of events that went from the source to the target, the secrets of both, private keys of
//! nodes, agents and the public listener, link keys that agents made, keys by which agents are known again, seeds of
//! bundles, and keys of both lockds: as text and decoded, in every form that `zen-search` knows.
//! Searched are: all that agents and control plane say to each other, enrollment included, in the clear (`support/relay.rs`
//! says how); every file of the control plane's directory (database, `-wal`, keys, whatever a crash would leave), its log,
//! while it runs and after it has ended; and its memory, every mapping that can be read, while it runs.
//! Before each search a marker, put into a status report's reason in three forms, has to be found in the same places.
//! Not searched: swap, sockets' buffers in the kernel, and what is compressed or encrypted.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/chain.rs"]
mod chain;
#[path = "support/lab.rs"]
mod lab;
#[path = "support/relay.rs"]
mod relay;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use base64::prelude::{BASE64_STANDARD, Engine};
use chain::{Chain, LINK};
use lab::{Lab, wait_until};
use relay::{Ends, Relay, identity_of};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use zen_control_api::{EnrollmentBundle, MemberReport, Outcome, STATUS, StatusReport};
use zen_identity::spiffe_server_name;
use zen_search::{Form, Needles, Value};

/// What comes before the 32 bytes of a P-256 private key in DER: version, then an OCTET STRING (RFC 5915).
const BEFORE_SCALAR: [u8; 5] = [2, 1, 1, 4, 32];
const MARKED_BODY: &str = "a-marked-body-of-an-event";
const MARKED_HEADER: &str = "a-marked-header-of-an-event";

fn value(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Value {
    Value { name: name.into(), bytes: bytes.into().into() }
}

/// A secret as text, and what it decodes to.
fn of_secret(name: &str, text: &[u8]) -> Vec<Value> {
    let mut values = vec![value(name, text)];
    let encoded = text.strip_prefix(b"whsec_").unwrap_or(text);
    values.extend(BASE64_STANDARD.decode(encoded).ok().map(|bytes| value(format!("{name}, decoded"), bytes)));
    values
}

/// The number that a private key, PEM, is.
fn of_private_key(name: &str, pem: &[u8]) -> Value {
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem).unwrap();
    let der = key.secret_pkcs8_der();
    let at = der.windows(BEFORE_SCALAR.len()).position(|window| window == BEFORE_SCALAR).unwrap();
    let scalar = at + BEFORE_SCALAR.len();
    value(name, &der[scalar..scalar + 32])
}

/// All that must not be found.
fn secrets(chain: &Chain) -> Vec<Value> {
    let mut values = vec![
        value("a body", MARKED_BODY),
        value("a header", MARKED_HEADER),
        of_private_key("the public listener's key", chain.source.key.as_bytes()),
    ];
    values.extend(of_secret("the source's secret", chain.source.secret.as_bytes()));
    values.extend(of_secret("the target's secret", chain.target.secret.as_bytes()));
    for site in [&chain.edge, &chain.core] {
        let (lab, cluster) = (&site.lab, site.cluster);
        let own_key = fs::read_to_string(lab.path("own.key")).unwrap();
        let line = own_key.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).unwrap();
        values.push(value(format!("{cluster}: lockd's own key"), line));
        let names = sealed(lab);
        assert!(names.iter().any(|name| name.starts_with(&format!("zen-link/{LINK}/"))), "{names:?}");
        for name in names {
            let opened = lab.open(&name).unwrap();
            let full = format!("{cluster}: {name}");
            if opened.starts_with(b"-----BEGIN") {
                values.push(of_private_key(&full, &opened));
            } else {
                values.extend(of_secret(&full, &opened));
            }
        }
        let bundle = fs::read(chain.edge.lab.path(&format!("bundle-{cluster}.json"))).unwrap();
        let seed = EnrollmentBundle::decode(&bundle).unwrap().key();
        values.push(value(format!("{cluster}: the bundle's seed"), &seed.seed()[..]));
    }
    values
}

/// Names of all that lies sealed on a host now.
fn sealed(lab: &Lab) -> BTreeSet<String> {
    let paths = lab.files("state/secrets").into_iter();
    let name = |path: &Path| {
        let text = path.to_str()?.split_once("/secrets/gen-")?.1.split_once("/secrets/")?.1;
        text.strip_suffix(".age").map(str::to_owned)
    };
    let current = fs::read_link(lab.path("state/secrets/current")).unwrap();
    let current = format!("/{}/", current.to_str().unwrap());
    paths.filter(|path| path.to_str().unwrap().contains(&current)).filter_map(|path| name(&path)).collect()
}

/// What is found where, by name and form.
fn found(needles: &Needles, values: &[Value], place: &str, input: impl Read) -> (u64, Vec<String>) {
    let (bytes, hits) = needles.scan(input).unwrap();
    let told = hits.into_iter().map(|hit| {
        format!("{} is in {place} at byte {} ({})", values[hit.value].name, hit.offset, hit.form.label())
    });
    (bytes, told.collect())
}

/// All memory of a process that it can read itself.
fn memory(process: nix::unistd::Pid, needles: &Needles, values: &[Value]) -> (u64, Vec<String>) {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let mut memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let (mut bytes, mut all) = (0, Vec::new());
    for line in maps.lines() {
        let mut parts = line.split_whitespace();
        let (range, modes) = (parts.next().unwrap(), parts.next().unwrap());
        let name = parts.nth(3).unwrap_or_default();
        // The kernel's own pages cannot be read there, nor can what went meanwhile.
        if !modes.starts_with('r') || name.starts_with("[v") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut read = Vec::new();
        memory.seek(SeekFrom::Start(start)).unwrap();
        let _ = (&mut memory).take(end - start).read_to_end(&mut read);
        let (length, told) = found(needles, values, &format!("memory ({name} {range})"), &read[..]);
        bytes += length;
        all.extend(told);
    }
    (bytes, all)
}

/// The control plane's files and log.
fn files(lab: &Lab, needles: &Needles, values: &[Value]) -> (u64, Vec<String>) {
    let (mut bytes, mut all) = (0, Vec::new());
    for path in lab.files("control").into_iter().chain([lab.path("control.log")]) {
        let Ok(file) = File::open(&path) else { continue };
        let (length, told) = found(needles, values, &path.display().to_string(), file);
        bytes += length;
        all.extend(told);
    }
    (bytes, all)
}

/// Reports, as the agent of a host and through the relay, a reason that has `reason` in it.
fn report(host: &Path, port: u16, reason: &str) {
    let outcome = Outcome::Unreachable { reason: reason.to_owned() };
    let member = MemberReport { outcome, certificate_not_after_ms: 0 };
    let members = [("edge-1".to_owned(), member)].into();
    let report = StatusReport { agent_version: "canary".to_owned(), configuration: 1, members };
    let body = serde_json::to_vec(&report).unwrap();
    let config = identity_of(host).control_client_config(&[b"http/1.1"]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut stream = TlsConnector::from(config).connect(spiffe_server_name(), stream).await.unwrap();
        let head = format!("POST {STATUS} HTTP/1.1\r\nhost: c\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 204");
    });
}

/// A value that nobody else has, in the forms in which it is planted.
struct Plant {
    values: [Value; 1],
    needles: Needles,
    reason: String,
}

impl Plant {
    const FORMS: [Form; 3] = [Form::AsItIs, Form::Base64, Form::Hex];

    fn new() -> Self {
        let text = format!("canary-{:016x}{:016x}", getrandom::u64().unwrap(), getrandom::u64().unwrap());
        let hex = text.bytes().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        let reason = format!("{text} {} {hex}", BASE64_STANDARD.encode(&text));
        let values = [value("the plant", text)];
        Self { needles: Needles::new(&values), values, reason }
    }

    fn seek(&self, place: &str, input: impl Read) -> (u64, Vec<String>) {
        found(&self.needles, &self.values, place, input)
    }
}

/// What agents tell a control plane: all of it is searched.
const ALL_SAID: [&str; 9] = [
    "POST /v1/agents/bootstrap ",
    "/agent/v1/certificates",
    "/agent/v1/link-keys",
    "age1",
    "/agent/v1/sync",
    "/agent/v1/deliveries",
    "/agent/v1/receipts",
    "/agent/v1/dead-letters",
    "body_hmac",
];

fn is_said(said: &str, recorded: &[u8]) -> bool {
    recorded.windows(said.len()).any(|window| window == said.as_bytes())
}

/// Whether a plant was found in each of its forms.
fn has_all_forms((_, told): &(u64, Vec<String>)) -> bool {
    Plant::FORMS.iter().all(|form| told.iter().any(|line| line.contains(&format!("({})", form.label()))))
}

#[test]
fn neither_payloads_nor_keys_are_ever_in_the_control_plane() {
    let mut relay = None;
    let mut chain = Chain::start_by("", &[], |edge, core| {
        let hosts = [("edge", edge), ("core", core)];
        let hosts = hosts.map(|(name, lab)| (name.to_owned(), lab.directory.path().to_owned()));
        let ends = Ends { control: edge.path("control"), control_port: edge.port, hosts: hosts.to_vec() };
        let started = relay.insert(Relay::start(ends));
        started.port
    });
    let relay = relay.unwrap();
    chain.wait_linked();
    let mut sent = BTreeSet::new();
    for number in 0..50 {
        let body = format!("{{\"{MARKED_BODY}\":{number}}}").into_bytes();
        assert_eq!(chain.source.send(&body, MARKED_HEADER), Some(202));
        sent.insert(body);
    }
    // Link keys, certificates and configurations change meanwhile; keys of before are sought as well.
    let mut values = secrets(&chain);
    chain.rotate();
    chain.configure(2);
    wait_until("all is delivered", || chain.target.bodies().is_superset(&sent));
    chain.wait_linked();
    values.extend(secrets(&chain));
    wait_until("what became of events is told", || {
        let recorded = relay.recorded();
        ["/agent/v1/sync ", "/agent/v1/receipts ", "/agent/v1/dead-letters ", "\"body_hmac\":\""]
            .iter()
            .all(|said| is_said(said, &recorded))
    });
    for site in [&mut chain.edge, &mut chain.core] {
        assert!(site.agent.take().unwrap().stop());
    }
    let needles = Needles::new(&values);
    let control = chain.edge.lab.control.as_ref().unwrap().pid();

    let plant = Plant::new();
    let lab = &chain.edge.lab;
    wait_until("the plant is found in traffic, files and memory", || {
        report(lab.directory.path(), relay.port, &plant.reason);
        has_all_forms(&plant.seek("traffic", &relay.recorded()[..]))
            && has_all_forms(&files(lab, &plant.needles, &plant.values))
            && has_all_forms(&memory(control, &plant.needles, &plant.values))
    });
    let recorded = relay.recorded();
    for said in ALL_SAID {
        assert!(is_said(said, &recorded), "{said} was said");
    }
    let traffic = found(&needles, &values, "traffic", &recorded[..]);
    let running = [traffic, memory(control, &needles, &values), files(lab, &needles, &values)];
    assert!(chain.edge.lab.control.take().unwrap().stop());
    let after = files(&chain.edge.lab, &needles, &values);
    let is_plant_left = has_all_forms(&files(&chain.edge.lab, &plant.needles, &plant.values));
    assert!(is_plant_left, "the plant is found after the end, too");
    let sizes: Vec<u64> = running.iter().chain([&after]).map(|(bytes, _)| *bytes >> 10).collect();
    println!("{} values, {} spellings in {sizes:?} KiB", values.len(), needles.spellings());
    assert!(sizes.iter().all(|size| *size > 10), "each place was looked at: {sizes:?} KiB");
    let told: Vec<&String> = running.iter().chain([&after]).flat_map(|(_, told)| told).collect();
    assert!(told.is_empty(), "secrets are in the control plane: {told:#?}");
    // Where bodies belong, the same search finds them.
    let journal: u64 = chain
        .core
        .lab
        .files("data")
        .iter()
        .map(|path| found(&needles, &values, "a journal", File::open(path).unwrap()).1.len() as u64)
        .sum();
    assert!(journal > 0, "the journals of the data plane have bodies in clear");
    for site in [&mut chain.edge, &mut chain.core] {
        site.stop_node();
    }
}
