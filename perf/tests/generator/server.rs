//! A TLS server with a script: it checks signatures, remembers ids, and stands still when it is told to.

use std::collections::HashSet;
use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::Sha256;

use crate::command::{Place, SECRET};

/// What the server does beside answering.
#[derive(Clone, Copy, Debug, Default)]
pub struct Script {
    /// It stands still from so long after its first request on, for so long.
    pub stall: Option<(Duration, Duration)>,
    /// Each answer takes so long.
    pub delay: Duration,
    /// Of the events it would accept, one in so many gets 429.
    pub busy_every: Option<u64>,
}

/// What it saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub new: AtomicU64,
    pub repeated: AtomicU64,
    pub wrong: AtomicU64,
    pub busy: AtomicU64,
    pub junk: AtomicU64,
    first: OnceLock<Instant>,
    ids: Mutex<HashSet<String>>,
}

impl Seen {
    pub fn of(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::SeqCst)
    }
}

/// Starts one; it lives as long as the test's process.
pub fn start(place: &Place, script: Script) -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let (config, seen) = (config(place), Arc::new(Seen::default()));
    let ours = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, config, seen) =
                (stream.expect("a connection"), Arc::clone(&config), Arc::clone(&seen));
            std::thread::spawn(move || serve(stream, config, script, &seen));
        }
    });
    (address, ours)
}

fn config(place: &Place) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(place.file("public.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(place.file("public.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3");
    Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate], key).expect("a pair"))
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, script: Script, seen: &Seen) {
    stream.set_nodelay(true).expect("a socket");
    let tls = ServerConnection::new(config).expect("a good configuration");
    let mut reader = BufReader::new(StreamOwned::new(tls, stream));
    loop {
        let Some(request) = read(&mut reader, seen) else { return };
        pause(script, *seen.first.get_or_init(Instant::now));
        let answer = answer(&request, script, seen);
        if reader.get_mut().write_all(answer.as_bytes()).and_then(|()| reader.get_mut().flush()).is_err() {
            return;
        }
    }
}

struct Request {
    id: String,
    signature: String,
    body: Vec<u8>,
}

/// The next request; nothing at the end, or if it is none.
fn read(reader: &mut impl std::io::BufRead, seen: &Seen) -> Option<Request> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).ok().filter(|bytes| *bytes > 0)?;
    if !line.starts_with(b"POST /hooks/") {
        seen.junk.fetch_add(1, Ordering::SeqCst);
        return None;
    }
    let (mut request, mut length) =
        (Request { id: String::new(), signature: String::new(), body: Vec::new() }, 0);
    loop {
        let mut text = String::new();
        reader.read_line(&mut text).ok()?;
        let Some((name, value)) = text.trim_end().split_once(": ") else { break };
        match name {
            "x-event-id" => value.clone_into(&mut request.id),
            "x-signature" => value.clone_into(&mut request.signature),
            "content-length" => length = value.parse().expect("a number"),
            _ => {}
        }
    }
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).ok()?;
    Some(request)
}

fn pause(script: Script, first: Instant) {
    std::thread::sleep(script.delay);
    if let Some((after, length)) = script.stall
        && first.elapsed() >= after
    {
        std::thread::sleep((after + length).saturating_sub(first.elapsed()));
    }
}

fn answer(request: &Request, script: Script, seen: &Seen) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("any length");
    mac.update(&request.body);
    let digits: Vec<String> = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let with = |status: &str, extra: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\n{extra}content-length: {}\r\n\r\n{body}", body.len())
    };
    if request.signature != format!("sha256={}", digits.concat()) {
        seen.wrong.fetch_add(1, Ordering::SeqCst);
        return with("401 Unauthorized", "", "");
    }
    let mut ids = seen.ids.lock().expect("no thread panics");
    let id = format!("{{\"id\":\"zen-{}\"}}", request.id);
    if ids.contains(&request.id) {
        seen.repeated.fetch_add(1, Ordering::SeqCst);
        return with("200 OK", "", &id);
    }
    let turn = seen.new.load(Ordering::SeqCst) + seen.busy.load(Ordering::SeqCst) + 1;
    if script.busy_every.is_some_and(|every| turn.is_multiple_of(every)) {
        seen.busy.fetch_add(1, Ordering::SeqCst);
        return with("429 Too Many Requests", "retry-after: 3\r\n", "");
    }
    ids.insert(request.id.clone());
    seen.new.fetch_add(1, Ordering::SeqCst);
    with("202 Accepted", "", &id)
}
