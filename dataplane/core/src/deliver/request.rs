//! The HTTP/1.1 request of one attempt: its head (RFC 9112 section 3), signed twice over the same body.
//!
//! An event, a time and a nonce enter; MAC jobs leave, for one batch with other requests, and with their tags the
//! head. `zen-signature` is over the metadata of `envelope` and the body, `webhook-signature` over
//! `<id>.<Unix s>.<body>` (Standard Webhooks); both carry one `v1` per key, the newest first. Forwarded are the
//! source's headers as [`is_forwarded_name`] says, as in every verifier: what is left is what `headers` in the signed
//! metadata digests. Refused: whatever could end a line early, in configuration or event.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::Credentials;
use super::cloudevents::CE_HEADERS_BYTES_MAX;
use crate::crypto::{Mac, MacJob, Tag};
use crate::envelope::{Metadata, is_forwarded_name, write_signature};
use crate::event::{CONTENT_TYPE_BYTES_MAX, Event, HEADERS_BYTES_MAX, IS_NAME_BYTE, lines, push_header_line};
use crate::hops::sent_hops;
use crate::id::{EndpointId, EventId, is_name};
use crate::trace::{TRACEPARENT, TRACESTATE, TRACESTATE_LINE, TraceParent, attempt_span};

/// Most signing keys of a target: the newest, and those it replaces.
pub const SIGNER_KEYS_MAX: usize = 4;
/// Longest request target (path and query), bytes.
pub const PATH_BYTES_MAX: usize = 2048;
/// Longest `Host` value, bytes: a DNS name, a colon and a port.
pub const HOST_BYTES_MAX: usize = 259;
/// The `User-Agent` of every delivery.
pub const USER_AGENT: &str = concat!("zen-mesh/", env!("CARGO_PKG_VERSION"));

/// What a target's requests look like and are signed with.
#[derive(Debug)]
pub struct SignerConfig<'a> {
    /// Name of the target, the signed audience.
    pub target: &'a str,
    /// `Host`: name or address of the target, with its port unless it is the scheme's.
    pub host: &'a str,
    /// Path, with the query if there is one.
    pub path: &'a str,
    /// Id of the newest key.
    pub key_id: &'a str,
    /// 1 to [`SIGNER_KEYS_MAX`] secrets as `parse_secret` gives them, the newest first.
    pub secrets: &'a [Zeroizing<Vec<u8>>],
}

/// What is wrong in a [`SignerConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignerError {
    /// The target's name is not a name.
    #[error("target: not a name")]
    Target,
    /// The key id is not a name.
    #[error("key id: not a name")]
    KeyId,
    /// Not a host with an optional port.
    #[error("host: expected a name or address, and a port if it is not the default")]
    Host,
    /// Not an absolute path of visible ASCII.
    #[error("path: expected `/` and visible ASCII without `#`")]
    Path,
    /// None, too many, or an empty one.
    #[error("secrets: expected 1 to {SIGNER_KEYS_MAX}, none empty")]
    Secrets,
}

/// Why an event cannot be put into a request. `Event::decode` lets none of these through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The content type is too long or holds a control character.
    #[error("delivery: the content type cannot be a header")]
    ContentType,
    /// A header line is not canonical, or there are too many bytes of them.
    #[error("delivery: the headers are not in canonical form")]
    Headers,
}

/// One attempt at a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Attempts made before it, as in `Delivery`; the target sees one more.
    pub made: u32,
    /// How often an operator sent the event again.
    pub replay: u8,
    /// When it starts, Unix ms.
    pub time_ms: u64,
    /// Random, for this attempt alone.
    pub nonce: [u8; 16],
}

/// Signs and writes the requests of one target.
pub struct TargetSigner<K> {
    target: String,
    host: String,
    path: String,
    key_id: String,
    keys: Vec<K>,
}

/// A request between its preparation and its head; kept and used again, it stops allocating.
#[derive(Debug, Default)]
pub struct DeliveryRequest {
    head: RequestHead,
    content_type: String,
    /// What is forwarded, in canonical form.
    headers: String,
    /// The trace's lines of the head, if the event belongs to one.
    trace: String,
    /// Signed before the body, by Zen-Signature and by Standard Webhooks.
    zen_text: Vec<u8>,
    standard_text: Vec<u8>,
    signature: String,
}

#[derive(Clone, Copy, Debug)]
struct RequestHead {
    attempt: Attempt,
    event_id: EventId,
    endpoint: EndpointId,
    hops: u8,
    body_bytes: usize,
}

impl<K> TargetSigner<K> {
    /// Checks the configuration and prepares the keys.
    pub fn new<M: Mac<Key = K>>(mac: &M, config: &SignerConfig<'_>) -> Result<Self, SignerError> {
        check_config(config)?;
        Ok(Self {
            target: config.target.into(),
            host: config.host.into(),
            path: config.path.into(),
            key_id: config.key_id.into(),
            keys: config.secrets.iter().map(|secret| mac.prepare(secret)).collect(),
        })
    }

    /// Tags that each request needs: one per key and signature.
    pub fn tags(&self) -> usize {
        self.keys.len() * 2
    }

    /// Fills `request` with one attempt of `event`. On an error it must not be used.
    pub fn prepare<M: Mac<Key = K>>(
        &self,
        mac: &M,
        event: &Event<'_>,
        attempt: Attempt,
        request: &mut DeliveryRequest,
    ) -> Result<(), RequestError> {
        if event.content_type.len() > CONTENT_TYPE_BYTES_MAX || has_control(event.content_type) {
            return Err(RequestError::ContentType);
        }
        request.content_type.clear();
        request.content_type.push_str(event.content_type);
        request.headers.clear();
        forward_headers(event, &mut request.headers)?;
        request.head = RequestHead {
            attempt,
            event_id: event.id,
            endpoint: event.endpoint,
            hops: sent_hops(event),
            body_bytes: event.body.len(),
        };
        request.trace.clear();
        write_trace(event, &attempt, &mut request.trace);
        request.zen_text.clear();
        Metadata {
            key_id: &self.key_id,
            time_ms: attempt.time_ms,
            nonce: attempt.nonce,
            event_id: event.id,
            endpoint: event.endpoint,
            audience: &self.target,
            content_type: event.content_type,
            headers_digest: &mac.sha256(request.headers.as_bytes()),
        }
        .write_canonical(&mut request.zen_text)
        .expect("names and content type were checked for control characters");
        request.standard_text.clear();
        write_standard_text(&mut request.standard_text, &event.id, attempt.time_ms);
        Ok(())
    }

    /// Appends the jobs of one prepared request, [`Self::tags`] of them. `body` is the event's.
    ///
    /// # Panics
    /// If `body` is of another length than the event that was prepared.
    pub fn push_jobs<'a>(
        &'a self,
        request: &'a DeliveryRequest,
        body: &'a [u8],
        jobs: &mut Vec<MacJob<'a, K>>,
    ) {
        assert_eq!(body.len(), request.head.body_bytes, "the body is that of the prepared event");
        for text in [&request.zen_text, &request.standard_text] {
            jobs.extend(self.keys.iter().map(|key| MacJob { key, parts: [text, body] }));
        }
    }

    /// Appends the request head to `head`; the body follows it. `tags` are those of the jobs, in their order;
    /// `credentials` are not signed, for they say nothing of the event.
    ///
    /// # Panics
    /// If `tags` are not [`Self::tags`].
    pub fn write_head(
        &self,
        request: &mut DeliveryRequest,
        tags: &[Tag],
        credentials: Option<&Credentials>,
        head: &mut Vec<u8>,
    ) {
        assert_eq!(tags.len(), self.tags(), "one tag per job");
        let (zen_tags, standard_tags) = tags.split_at(self.keys.len());
        let RequestHead { attempt, event_id, endpoint, hops, body_bytes } = request.head;
        let mut out = Text(head);
        out.join(&["POST ", &self.path, " HTTP/1.1\r\nhost: ", &self.host, "\r\n"]);
        if !request.content_type.is_empty() {
            out.join(&["content-type: ", &request.content_type, "\r\n"]);
        }
        out.push(format_args!("content-length: {body_bytes}\r\nuser-agent: {USER_AGENT}\r\n"));
        let event_id = event_id.text();
        let event_id = core::str::from_utf8(&event_id).expect("hex digits and dashes are ASCII");
        out.join(&["zen-event-id: ", event_id]);
        out.push(format_args!("\r\nzen-endpoint: {endpoint}\r\n"));
        out.push(format_args!("zen-attempt: {}\r\nzen-hops: {hops}\r\n", attempt.made.saturating_add(1)));
        if attempt.replay > 0 {
            out.push(format_args!("zen-replay: {}\r\n", attempt.replay));
        }
        out.join(&[&request.trace]);
        request.signature.clear();
        write_signature(&mut request.signature, &self.key_id, attempt.time_ms, &attempt.nonce, zen_tags);
        out.join(&["zen-signature: ", &request.signature, "\r\n"]);
        request.signature.clear();
        write_standard_signature(&mut request.signature, standard_tags);
        let time_s = attempt.time_ms / 1000;
        out.join(&["webhook-id: ", event_id]);
        out.push(format_args!("\r\nwebhook-timestamp: {time_s}\r\n"));
        out.join(&["webhook-signature: ", &request.signature, "\r\n"]);
        if let Some(credentials) = credentials {
            out.join(&["authorization: ", credentials.value(), "\r\n"]);
        }
        for line in lines(&request.headers) {
            let colon = memchr::memchr(b':', line.as_bytes()).expect("forwarded lines have a colon");
            out.join(&[&line[..colon], ": ", &line[colon + 1..], "\r\n"]);
        }
        head.extend_from_slice(b"\r\n");
    }
}

impl Default for RequestHead {
    fn default() -> Self {
        let attempt = Attempt { made: 0, replay: 0, time_ms: 0, nonce: [0; 16] };
        Self { attempt, event_id: EventId([0; 16]), endpoint: EndpointId([0; 16]), hops: 0, body_bytes: 0 }
    }
}

/// Signs one request on its own and appends its head to `head`; batches go through [`TargetSigner`].
pub fn write_delivery<M: Mac>(
    mac: &M,
    signer: &TargetSigner<M::Key>,
    event: &Event<'_>,
    attempt: Attempt,
    head: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let mut request = DeliveryRequest::default();
    signer.prepare(mac, event, attempt, &mut request)?;
    let (mut jobs, mut tags) = (Vec::with_capacity(signer.tags()), Vec::with_capacity(signer.tags()));
    signer.push_jobs(&request, event.body, &mut jobs);
    mac.sign(&jobs, &mut tags);
    signer.write_head(&mut request, &tags, None, head);
    Ok(())
}

fn check_config(config: &SignerConfig<'_>) -> Result<(), SignerError> {
    if !is_name(config.target) {
        return Err(SignerError::Target);
    }
    if !is_name(config.key_id) {
        return Err(SignerError::KeyId);
    }
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if config.host.is_empty() || config.host.len() > HOST_BYTES_MAX || !config.host.bytes().all(is_host) {
        return Err(SignerError::Host);
    }
    let is_path = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    let path = config.path;
    if !path.starts_with('/') || path.len() > PATH_BYTES_MAX || !path.bytes().all(is_path) {
        return Err(SignerError::Path);
    }
    let keys = config.secrets.len();
    if keys == 0 || keys > SIGNER_KEYS_MAX || config.secrets.iter().any(|secret| secret.is_empty()) {
        return Err(SignerError::Secrets);
    }
    Ok(())
}

/// Appends the lines of the source's headers that a target gets.
fn forward_headers(event: &Event<'_>, out: &mut String) -> Result<(), RequestError> {
    if event.headers.len() > HEADERS_BYTES_MAX + CE_HEADERS_BYTES_MAX {
        return Err(RequestError::Headers);
    }
    let forwarded = event.forwarded_headers();
    if !forwarded.is_empty() && !forwarded.ends_with('\n') {
        return Err(RequestError::Headers);
    }
    for line in lines(forwarded) {
        let colon = memchr::memchr(b':', line.as_bytes()).ok_or(RequestError::Headers)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.bytes().all(|byte| IS_NAME_BYTE[usize::from(byte)]) || has_control(value)
        {
            return Err(RequestError::Headers);
        }
        if is_forwarded_name(name) {
            push_header_line(out, name, value);
        }
    }
    Ok(())
}

/// The attempt is a span of the event's trace, and the parent of what the target does.
fn write_trace(event: &Event<'_>, attempt: &Attempt, out: &mut String) {
    let Some(parent) = TraceParent::of_event(event) else { return };
    let parent = parent.with_parent(attempt_span(&attempt.nonce));
    write!(out, "{TRACEPARENT}: {parent}\r\n").expect("a string takes any text");
    let state = event.metadata(TRACESTATE_LINE).filter(|state| !has_control(state));
    if let Some(state) = state {
        write!(out, "{TRACESTATE}: {state}\r\n").expect("a string takes any text");
    }
}

fn has_control(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_control())
}

/// Appends what Standard Webhooks signs before the body.
fn write_standard_text(out: &mut Vec<u8>, id: &dyn fmt::Display, time_ms: u64) {
    Text(out).push(format_args!("{id}.{}.", time_ms / 1000));
}

/// Appends `v1,<base64>` per tag, separated by spaces.
fn write_standard_signature(out: &mut String, tags: &[Tag]) {
    for (index, tag) in tags.iter().enumerate() {
        out.push_str(if index == 0 { "v1," } else { " v1," });
        STANDARD.encode_string(tag, out);
    }
}

/// Formats into bytes.
struct Text<'a>(&'a mut Vec<u8>);

impl Text<'_> {
    /// Text that needs no formatting: the hot path of a delivery.
    fn join(&mut self, pieces: &[&str]) {
        for piece in pieces {
            self.0.extend_from_slice(piece.as_bytes());
        }
    }

    fn push(&mut self, text: fmt::Arguments<'_>) {
        self.write_fmt(text).expect("a vector takes any text");
    }
}

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::ToString;
    use std::vec;

    use hmac::{Hmac, KeyInit, Mac as _};
    use sha2::{Digest as _, Sha256};

    use super::super::parse_secret;
    use super::*;
    use crate::crypto::Digest;

    /// One `v1` per key from a script independent of this code: new key 32..64, old key 0..24.
    const EXPECTED: &str = "POST /in?x=1 HTTP/1.1\r\n\
        host: billing.svc:8443\r\n\
        content-type: application/json\r\n\
        content-length: 7\r\n\
        user-agent: zen-mesh/0.1.0\r\n\
        zen-event-id: 017f22e2-79b0-7cc3-98c4-dc0c0c07398f\r\n\
        zen-endpoint: 000102030405060708090a0b0c0d0e0f\r\n\
        zen-attempt: 3\r\n\
        zen-hops: 1\r\n\
        zen-signature: k=billing-2,t=1700000000123,n=f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff,\
        v1=5fccd086ad2268da05a172d46c966c6cae1bc03a57ffe6b7ddfde57d5cb2c40f,\
        v1=b07ee8473467afa0446f9c07c884ac8f58bbdcade53b78a79e6bf400823908ed\r\n\
        webhook-id: 017f22e2-79b0-7cc3-98c4-dc0c0c07398f\r\n\
        webhook-timestamp: 1700000000\r\n\
        webhook-signature: v1,kBfXFhRKOWTguGfmz1+brBxoFKBOZET+NE7JbfBSsmc= \
        v1,Z/w9d+6K3mnBBK3BP9akMTFOy1pmXnCFEfsv7X0TNsM=\r\n\
        x-github-event: push\r\n\
        x-github-event: second\r\n\
        \r\n";

    struct TestMac;

    impl Mac for TestMac {
        type Key = Vec<u8>;

        fn prepare(&self, secret: &[u8]) -> Vec<u8> {
            secret.to_vec()
        }

        fn sign(&self, jobs: &[MacJob<'_, Vec<u8>>], tags: &mut Vec<Tag>) {
            tags.clear();
            for job in jobs {
                let mut mac = Hmac::<Sha256>::new_from_slice(job.key).unwrap();
                job.parts.iter().for_each(|part| mac.update(part));
                tags.push(mac.finalize().into_bytes().into());
            }
        }

        fn sha256(&self, bytes: &[u8]) -> Digest {
            Sha256::digest(bytes).into()
        }
    }

    const ATTEMPT: Attempt = Attempt {
        replay: 0,
        made: 2,
        time_ms: 1_700_000_000_123,
        nonce: 0xf0f1_f2f3_f4f5_f6f7_f8f9_fafb_fcfd_feffu128.to_be_bytes(),
    };

    fn secrets() -> Vec<Zeroizing<Vec<u8>>> {
        vec![Zeroizing::new((32..64).collect()), Zeroizing::new((0..24).collect())]
    }

    fn config(secrets: &[Zeroizing<Vec<u8>>]) -> SignerConfig<'_> {
        SignerConfig {
            target: "billing",
            host: "billing.svc:8443",
            path: "/in?x=1",
            key_id: "billing-2",
            secrets,
        }
    }

    fn signer() -> TargetSigner<Vec<u8>> {
        TargetSigner::new(&TestMac, &config(&secrets())).unwrap()
    }

    fn sample() -> Event<'static> {
        Event {
            id: "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap(),
            endpoint: "000102030405060708090a0b0c0d0e0f".parse().unwrap(),
            content_type: "application/json",
            headers: ":tenant:acme\nx-github-event:push\nx-github-event:second\n",
            body: b"{\"a\":1}",
        }
    }

    fn written(event: &Event<'_>) -> Result<String, RequestError> {
        let mut head = Vec::new();
        write_delivery(&TestMac, &signer(), event, ATTEMPT, &mut head)?;
        Ok(String::from_utf8(head).unwrap())
    }

    fn signature(head: &str) -> &str {
        head.split("\r\n").find(|line| line.starts_with("zen-signature")).unwrap()
    }

    #[test]
    fn the_whole_head_with_signatures_made_elsewhere() {
        assert_eq!(written(&sample()).unwrap(), EXPECTED);
    }

    #[test]
    fn a_trace_goes_on_with_the_attempt_as_its_parent() {
        let trace = ":traceparent:00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n";
        let headers =
            format!(":tenant:acme\n{trace}:tracestate:a=1,b=2\nx-github-event:push\nx-github-event:second\n");
        let lines =
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-f0f1f2f3f4f5f6f7-01\r\ntracestate: a=1,b=2\r\n";
        let expected = EXPECTED.replace("zen-signature:", &format!("{lines}zen-signature:"));
        assert_eq!(
            written(&Event { headers: &headers, ..sample() }).unwrap(),
            expected,
            "and the signatures are the same"
        );
        for (from, to) in [("b7ad6b7169203331", "0000000000000000"), (trace, "")] {
            let headers = headers.replace(from, to);
            assert_eq!(written(&Event { headers: &headers, ..sample() }).unwrap(), EXPECTED, "{headers}");
        }
    }

    #[test]
    fn standard_webhooks_vector() {
        let secret = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let large = vec![b'a'; 262_144];
        let bodies: [(&[u8], &str); 2] = [
            (b"{\"test\": 2432232314}", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            (&large, "v1,Mw4Pe2WgApuT7NSqnSq0PQPV9gbLdggCl9B865x5Xh0="),
        ];
        for (body, expected) in bodies {
            let (mut text, mut tags, mut signature) = (Vec::new(), Vec::new(), String::new());
            write_standard_text(&mut text, &"msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330_999);
            TestMac.sign(&[MacJob { key: &TestMac.prepare(&secret), parts: [&text, body] }], &mut tags);
            write_standard_signature(&mut signature, &tags);
            assert_eq!(signature, expected);
        }
    }

    #[test]
    fn a_batch_is_the_same_as_one_by_one() {
        let signer = signer();
        let events = [sample(), Event { body: b"", ..sample() }, Event { headers: "", ..sample() }];
        let mut requests = [(); 3].map(|()| DeliveryRequest::default());
        // Twice, because what an earlier round left in a request must not leak into the next.
        for _ in 0..2 {
            let (mut jobs, mut tags) = (Vec::new(), Vec::new());
            for (event, request) in events.iter().zip(&mut requests) {
                signer.prepare(&TestMac, event, ATTEMPT, request).unwrap();
            }
            for (event, request) in events.iter().zip(&requests) {
                signer.push_jobs(request, event.body, &mut jobs);
            }
            TestMac.sign(&jobs, &mut tags);
            assert_eq!(tags.len(), signer.tags() * 3);
            for ((event, request), tags) in
                events.iter().zip(&mut requests).zip(tags.chunks_exact(signer.tags()))
            {
                let mut head = Vec::new();
                signer.write_head(request, tags, None, &mut head);
                assert_eq!(head, written(event).unwrap().into_bytes());
            }
            requests.rotate_left(1);
        }
    }

    #[test]
    fn every_signed_field_changes_the_signature() {
        let base = written(&sample()).unwrap();
        let tags = |head: &str| signature(head).split_once(",v1=").unwrap().1.to_string();
        for event in [
            Event { id: EventId([1; 16]), ..sample() },
            Event { endpoint: EndpointId([1; 16]), ..sample() },
            Event { content_type: "text/plain", ..sample() },
            Event { headers: ":tenant:acme\nx-github-event:pusi\nx-github-event:second\n", ..sample() },
            Event { headers: ":tenant:acme\n", ..sample() },
            Event { body: b"{\"a\":0}", ..sample() },
        ] {
            assert_ne!(tags(&written(&event).unwrap()), tags(&base), "{event:?}");
        }
        // The tenant is ours, not the target's: it is neither sent nor signed.
        let other = Event { headers: &sample().headers.replace("acme", "beta"), ..sample() };
        assert_eq!(written(&other).unwrap(), base);
        let secrets = secrets();
        let signers = [
            SignerConfig { target: "ledger", ..config(&secrets) },
            SignerConfig { key_id: "billing-3", ..config(&secrets) },
        ];
        for config in signers {
            let mut head = Vec::new();
            let signer = TargetSigner::new(&TestMac, &config).unwrap();
            write_delivery(&TestMac, &signer, &sample(), ATTEMPT, &mut head).unwrap();
            assert_ne!(tags(&String::from_utf8(head).unwrap()), tags(&base));
        }
    }

    #[test]
    fn what_a_verifier_leaves_out_is_dropped_and_not_signed() {
        let plain = written(&Event { headers: "b:*/*\nx-a:1\n", ..sample() }).unwrap();
        let hop_by_hop = ["connection", "content-length", "host", "te", "transfer-encoding", "upgrade"];
        let others = [
            "accept",
            "authorization",
            "user-agent",
            "via",
            "x-forwarded-for",
            "x-real-ip",
            "webhook-id",
            "zen-x",
        ];
        for name in hop_by_hop.into_iter().chain(others) {
            let mut lines = [("b", "*/*"), (name, "evil"), ("x-a", "1")];
            lines.sort_unstable();
            let mut headers = String::new();
            for (name, value) in lines {
                push_header_line(&mut headers, name, value);
            }
            assert_eq!(written(&Event { headers: &headers, ..sample() }).unwrap(), plain, "{name}");
        }
    }

    #[test]
    fn no_control_character_reaches_the_wire() {
        for byte in (0..32).chain([127]).map(char::from) {
            let content_type = format!("text/plain{byte}x: y");
            let refused = written(&Event { content_type: &content_type, ..sample() });
            assert_eq!(refused, Err(RequestError::ContentType), "{byte:?}");
            for headers in [format!("x-a:1{byte}x-b 2\n"), format!("x{byte}a:1\n"), format!("{byte}:1\n")] {
                let refused = written(&Event { headers: &headers, ..sample() });
                assert_eq!(refused, Err(RequestError::Headers), "{headers:?}");
            }
        }
        for headers in ["x-a:1", "x-a\n", "\n", "x a:1\n", "X-A:1\n", "é:1\n", "x-a:1\r\nhost:evil\r\n"] {
            let refused = written(&Event { headers, ..sample() });
            assert_eq!(refused, Err(RequestError::Headers), "{headers:?}");
        }
    }

    #[test]
    fn credentials_are_a_line_of_their_own_and_not_the_sources() {
        let (signer, mut request) = (signer(), DeliveryRequest::default());
        let event = Event { headers: "authorization:Bearer source\nx-a:1\n", ..sample() };
        signer.prepare(&TestMac, &event, ATTEMPT, &mut request).unwrap();
        let (mut jobs, mut tags, mut heads) = (Vec::new(), Vec::new(), [Vec::new(), Vec::new()]);
        signer.push_jobs(&request, event.body, &mut jobs);
        TestMac.sign(&jobs, &mut tags);
        let credentials = Credentials::bearer("ours").unwrap();
        signer.write_head(&mut request, &tags, None, &mut heads[0]);
        signer.write_head(&mut request, &tags, Some(&credentials), &mut heads[1]);
        let [without, with] = heads.map(|head| String::from_utf8(head).unwrap());
        assert!(!without.contains("authorization"), "{without}");
        assert_eq!(with.replace("authorization: Bearer ours\r\n", ""), without);
    }

    #[test]
    fn an_empty_content_type_is_left_out() {
        let head = written(&Event { content_type: "", ..sample() }).unwrap();
        assert!(!head.contains("content-type"), "{head}");
    }

    #[test]
    fn configuration_is_checked() {
        let (secrets, empty) = (secrets(), [Zeroizing::new(Vec::new())]);
        let many = vec![secrets[0].clone(); SIGNER_KEYS_MAX + 1];
        let good = || config(&secrets);
        let long_path = format!("/{}", "p".repeat(PATH_BYTES_MAX));
        let long_host = "h".repeat(HOST_BYTES_MAX + 1);
        for (config, expected) in [
            (SignerConfig { target: "a b", ..good() }, SignerError::Target),
            (SignerConfig { target: "", ..good() }, SignerError::Target),
            (SignerConfig { key_id: "k,v1=0", ..good() }, SignerError::KeyId),
            (SignerConfig { host: "", ..good() }, SignerError::Host),
            (SignerConfig { host: "a\r\nx: y", ..good() }, SignerError::Host),
            (SignerConfig { host: "user@host", ..good() }, SignerError::Host),
            (SignerConfig { host: &long_host, ..good() }, SignerError::Host),
            (SignerConfig { path: "", ..good() }, SignerError::Path),
            (SignerConfig { path: "in", ..good() }, SignerError::Path),
            (SignerConfig { path: "/ HTTP/1.1\r\nx: y", ..good() }, SignerError::Path),
            (SignerConfig { path: "/a b", ..good() }, SignerError::Path),
            (SignerConfig { path: "/a#b", ..good() }, SignerError::Path),
            (SignerConfig { path: "/é", ..good() }, SignerError::Path),
            (SignerConfig { path: &long_path, ..good() }, SignerError::Path),
            (SignerConfig { secrets: &[], ..good() }, SignerError::Secrets),
            (SignerConfig { secrets: &empty, ..good() }, SignerError::Secrets),
            (SignerConfig { secrets: &many, ..good() }, SignerError::Secrets),
        ] {
            assert_eq!(TargetSigner::new(&TestMac, &config).err(), Some(expected), "{config:?}");
        }
        for host in ["h", "10.0.0.1:80", "[fd00::1]:8443"] {
            assert!(TargetSigner::new(&TestMac, &SignerConfig { host, ..good() }).is_ok(), "{host}");
        }
    }
}
