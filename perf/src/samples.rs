//! Sample webhooks: real GitHub bodies and made-up invoices of 1 to 30 KB, signed as their sources do.
//!
//! Each body begins with `{"lab_event":"<source id>",`, so that no two are equal and a swapped body
//! cannot pass unseen. Schemes: GitHub, Standard Webhooks 1.0.0, and HMAC-SHA256 in a header.

use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::signature::{base64, hex, hmac_sha256, secret_bytes};

const GITHUB: &str = include_str!("../samples/github.json");
const INVOICE_BYTES: [usize; 8] = [1_000, 2_000, 4_000, 6_000, 8_000, 12_000, 20_000, 30_000];
/// `{"lab_event":"` and `",` around an id of 36 characters.
const PREFIX_BYTES: usize = 14 + 36 + 2;

/// How the source of an endpoint signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SchemeName {
    /// `X-Hub-Signature-256`.
    #[serde(rename = "github")]
    GitHub,
    /// `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    StandardWebhooks,
    /// `x-signature: sha256=<hex>`, id in `x-event-id`.
    Hmac,
}

impl SchemeName {
    /// All of them, in the order in which endpoints take turns.
    pub(crate) const ALL: [Self; 3] = [Self::GitHub, Self::StandardWebhooks, Self::Hmac];

    /// As the configuration spells it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::GitHub => "github",
            Self::StandardWebhooks => "standard-webhooks",
            Self::Hmac => "hmac",
        }
    }
}

/// An endpoint as its source knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// 32 hex digits of `/hooks/<id>`.
    pub(crate) id: String,
    /// How its source signs.
    pub(crate) scheme: SchemeName,
    /// The secret as its file holds it.
    pub(crate) secret: String,
}

/// Which sizes the bodies have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// As sources send them, 1 to 30 KB.
    Realistic,
    /// Those of GitHub's events, from every source.
    GitHub,
    /// All of so many bytes.
    Fixed(usize),
}

/// A body without its first field.
#[derive(Clone, Debug)]
struct Template {
    kind: String,
    tail: Vec<u8>,
}

/// Bodies to choose from.
#[derive(Clone, Debug)]
pub(crate) struct Samples {
    github: Vec<Template>,
    invoices: Vec<Template>,
}

#[derive(Deserialize)]
struct GitHubSample {
    event: String,
    payload: serde_json::Value,
}

impl Samples {
    /// Prepares bodies of `sizes`.
    pub(crate) fn new(sizes: Sizes) -> Result<Self, LabError> {
        if let Sizes::Fixed(bytes) = sizes {
            let template = Template { kind: "ping".to_owned(), tail: padding(bytes) };
            return Ok(Self { github: vec![template.clone()], invoices: vec![template] });
        }
        let samples: Vec<GitHubSample> = serde_json::from_str(GITHUB)
            .map_err(|source| LabError::Json { path: Path::new("samples/github.json").to_owned(), source })?;
        let github: Vec<Template> = samples
            .into_iter()
            .map(|sample| Template {
                kind: sample.event,
                tail: sample.payload.to_string().into_bytes().split_off(1),
            })
            .collect();
        let invoices = match sizes {
            Sizes::GitHub => github.clone(),
            _ => INVOICE_BYTES.iter().map(|&bytes| invoice(bytes)).collect(),
        };
        Ok(Self { github, invoices })
    }

    /// Body number `choice` for an endpoint, with the id of its source.
    fn body(&self, scheme: SchemeName, choice: u64, source_id: &str) -> (&str, Vec<u8>) {
        let templates = self.of(scheme);
        let template = &templates[(choice % templates.len() as u64) as usize];
        let mut body = Vec::with_capacity(PREFIX_BYTES + template.tail.len());
        body.extend_from_slice(b"{\"lab_event\":\"");
        body.extend_from_slice(source_id.as_bytes());
        body.extend_from_slice(b"\",");
        body.extend_from_slice(&template.tail);
        (&template.kind, body)
    }

    /// How many bodies there are for an endpoint.
    pub(crate) fn choices(&self, scheme: SchemeName) -> usize {
        self.of(scheme).len()
    }

    fn of(&self, scheme: SchemeName) -> &[Template] {
        if scheme == SchemeName::GitHub { &self.github } else { &self.invoices }
    }

    /// A signed webhook; sign it anew before sending it again.
    pub(crate) fn webhook(&self, endpoint: &Endpoint, choice: u64, source_id: &str) -> Webhook {
        let (kind, body) = self.body(endpoint.scheme, choice, source_id);
        Webhook { kind: kind.to_owned(), source_id: source_id.to_owned(), body }
    }
}

/// One webhook: what a source sends, until it is accepted.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    kind: String,
    source_id: String,
    /// The bytes that are signed.
    pub(crate) body: Vec<u8>,
}

impl Webhook {
    /// The whole request, signed at `now_s` (Unix seconds), replacing `out`.
    pub(crate) fn write(&self, endpoint: &Endpoint, host: &str, now_s: u64, out: &mut Vec<u8>) {
        let mut head = format!(
            "POST /hooks/{} HTTP/1.1\r\nhost: {host}\r\nuser-agent: zen-perf\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n",
            endpoint.id,
            self.body.len()
        );
        self.write_signature(endpoint, now_s, &mut head);
        head.push_str("\r\n");
        out.clear();
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&self.body);
    }

    fn write_signature(&self, endpoint: &Endpoint, now_s: u64, head: &mut String) {
        let id = &self.source_id;
        let written = match endpoint.scheme {
            SchemeName::GitHub => {
                let tag = hex(&hmac_sha256(endpoint.secret.as_bytes(), &[&self.body]));
                write!(
                    head,
                    "x-github-event: {}\r\nx-github-delivery: {id}\r\nx-hub-signature-256: sha256={tag}\r\n",
                    self.kind
                )
            }
            SchemeName::StandardWebhooks => {
                let key = secret_bytes(&endpoint.secret).expect("the lab wrote this secret");
                let signed = format!("{id}.{now_s}.");
                let tag = base64(&hmac_sha256(&key, &[signed.as_bytes(), &self.body]));
                write!(
                    head,
                    "webhook-id: {id}\r\nwebhook-timestamp: {now_s}\r\nwebhook-signature: v1,{tag}\r\n"
                )
            }
            SchemeName::Hmac => {
                let tag = hex(&hmac_sha256(endpoint.secret.as_bytes(), &[&self.body]));
                write!(head, "x-event-id: {id}\r\nx-signature: sha256={tag}\r\n")
            }
        };
        written.expect("a String takes any text");
    }
}

/// The id of event `number` of a run, in the shape of a UUID.
pub(crate) fn source_id(run: u64, number: u64) -> String {
    let digits = format!("{run:016x}{number:016x}");
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

fn padding(bytes: usize) -> Vec<u8> {
    let frame = PREFIX_BYTES + b"\"padding\":\"\"}".len();
    let mut tail = b"\"padding\":\"".to_vec();
    tail.resize(tail.len() + bytes.saturating_sub(frame), b'x');
    tail.extend_from_slice(b"\"}");
    tail
}

fn invoice(bytes: usize) -> Template {
    let mut tail = String::from("\"type\":\"invoice.paid\",\"currency\":\"EUR\",\"lines\":[");
    let mut line = 0;
    while PREFIX_BYTES + tail.len() + 130 < bytes {
        line += 1;
        let comma = if line == 1 { "" } else { "," };
        write!(
            tail,
            "{comma}{{\"line\":{line},\"sku\":\"ZM-{:05}\",\"quantity\":{},\"amount\":\"{}.{:02}\",\
             \"text\":\"Überweisung {line}\"}}",
            line * 7919 % 100_000,
            line % 9 + 1,
            line * 37 % 997,
            line * 13 % 100
        )
        .expect("a String takes any text");
    }
    tail.push_str("]}");
    Template { kind: "invoice.paid".to_owned(), tail: tail.into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "00000000-0000-0001-0000-000000000002";

    #[test]
    fn every_body_is_json_with_its_id_and_of_realistic_size() {
        let samples = Samples::new(Sizes::Realistic).unwrap();
        assert_eq!(source_id(1, 2), ID);
        let mut total = 0;
        for scheme in SchemeName::ALL {
            for choice in 0..24 {
                let (_, body) = samples.body(scheme, choice, ID);
                let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
                assert_eq!(value["lab_event"], ID);
                assert!((800..31_000).contains(&body.len()), "{scheme:?} {choice}: {}", body.len());
                total += 1;
            }
        }
        assert_eq!((total, samples.github.len()), (72, 24));
    }

    #[test]
    fn fixed_sizes_are_exact() {
        for bytes in [1024, 8192] {
            let samples = Samples::new(Sizes::Fixed(bytes)).unwrap();
            for scheme in SchemeName::ALL {
                let (_, body) = samples.body(scheme, 5, ID);
                assert_eq!(body.len(), bytes);
                assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok());
            }
        }
    }

    #[test]
    fn github_signs_its_documented_example() {
        // "Validating webhook deliveries", docs.github.com: secret and body of the test values.
        let endpoint = Endpoint {
            id: "e".to_owned(),
            scheme: SchemeName::GitHub,
            secret: "It's a Secret to Everybody".to_owned(),
        };
        let webhook =
            Webhook { kind: "ping".to_owned(), source_id: ID.to_owned(), body: b"Hello, World!".to_vec() };
        let mut request = Vec::new();
        webhook.write(&endpoint, "h", 0, &mut request);
        let text = String::from_utf8(request).unwrap();
        let tag = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        assert!(text.contains(&format!("x-hub-signature-256: sha256={tag}\r\n")), "{text}");
    }
}
