//! A lab for tests of the real binary: certificates, secrets and configuration in a temporary
//! directory, nodes as processes, and a client that speaks raw bytes over TLS.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use zen_ports::free_address;

use self::node::Node;
use self::pki::{Authority, TRUST_DOMAIN};

pub mod client;
pub mod node;
pub mod pki;

/// The endpoint with GitHub's scheme.
pub const GITHUB: &str = "00000000000000000000000000000001";
/// The endpoint with Standard Webhooks.
pub const STANDARD: &str = "00000000000000000000000000000002";
/// The endpoint with a generic HMAC; takes `application/json` only, 64 KiB at most.
pub const HMAC: &str = "00000000000000000000000000000003";
/// Secret of [`GITHUB`] and [`HMAC`], as its file holds it.
pub const SECRET: &str = "It's a Secret to Everybody";
/// Secret of [`STANDARD`], of the link and of the target, as its file holds it.
pub const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Segments of a lab's journals, bytes.
pub const SEGMENT_BYTES: u64 = 4 << 20;
/// Bound of a lab's journals, bytes.
pub const JOURNAL_BYTES_MAX: u64 = 32 << 20;

/// A temporary directory with the CAs, an SVID for `edge` (ingester), `inside` (egress) and `demo`
/// (target), the public certificate of `localhost`, and the secrets.
pub struct Lab {
    directory: tempfile::TempDir,
    /// Issues SVIDs; its certificate is `pki/bundle.pem`.
    pub svid_ca: Authority,
    /// Issues the public certificate; its certificate is `pki/public_ca.pem`.
    pub public_ca: Authority,
}

/// Where a node is reached.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Sources.
    pub listen: SocketAddr,
    /// Links.
    pub link: SocketAddr,
    /// Admin.
    pub admin: SocketAddr,
}

impl Ports {
    /// Three ports that are free now.
    pub fn pick() -> Self {
        Self { listen: free_address(), link: free_address(), admin: free_address() }
    }
}

impl Lab {
    /// A lab of its own.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["pki", "secrets"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let lab = Self {
            directory,
            svid_ca: Authority::new("Test SVID CA"),
            public_ca: Authority::new("Test public CA"),
        };
        lab.write("pki/bundle.pem", &lab.svid_ca.pem());
        lab.write("pki/public_ca.pem", &lab.public_ca.pem());
        lab.svid("edge", "ingester/edge");
        lab.svid("inside", "egress/inside");
        lab.svid("demo", "target/demo");
        lab.public_certificate("public");
        for (name, text) in [("source", SECRET), ("standard", WHSEC), ("link", WHSEC), ("target", WHSEC)] {
            lab.write_private(&format!("secrets/{name}"), text);
        }
        lab
    }

    /// A path in the lab.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file anybody may read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        write(&self.path(name), text, 0o644)
    }

    /// Writes a secret or a key, mode 0600.
    pub fn write_private(&self, name: &str, text: &str) -> PathBuf {
        write(&self.path(name), text, 0o600)
    }

    /// Writes `pki/FILE.pem` and `pki/FILE.key` for the SPIFFE id with this path.
    pub fn svid(&self, file: &str, id_path: &str) {
        self.keep(file, &self.svid_ca.svid(id_path));
    }

    /// The same, with a certificate that ends after `seconds`.
    pub fn svid_for_seconds(&self, file: &str, id_path: &str, seconds: i64) {
        self.keep(file, &self.svid_ca.svid_for(id_path, time::Duration::seconds(seconds)));
    }

    /// Writes `pki/FILE.pem` and `pki/FILE.key` for `localhost` and 127.0.0.1.
    pub fn public_certificate(&self, file: &str) {
        self.keep(file, &self.public_ca.server());
    }

    /// `[node]`, `[admin]`, `[journal]` and `[identity]` of the node whose SVID is `pki/NAME.pem`.
    pub fn node_text(&self, name: &str, ports: Ports) -> String {
        format!(
            "[node]\nname = \"{name}\"\ndata_dir = \"{name}\"\nworkers = 1\npin_workers = false\n\
             drain_timeout_ms = 5000\nreload_poll_ms = 100\nlog = \"info\"\n\n\
             [admin]\nlisten = \"{}\"\nsocket = \"{}\"\n\n\
             [journal]\nsegment_bytes = {SEGMENT_BYTES}\nbytes_max = {JOURNAL_BYTES_MAX}\n\n\
             [identity]\ncertificate_file = \"pki/{name}.pem\"\nprivate_key_file = \"pki/{name}.key\"\n\
             trust_bundle_file = \"pki/bundle.pem\"\ntrust_domain = \"{TRUST_DOMAIN}\"\n\n",
            ports.admin,
            self.path(&format!("{name}.sock")).display(),
        )
    }

    /// The whole configuration of the ingester `edge`: three endpoints, and the egress `inside`, which dials.
    pub fn ingester_text(&self, ports: Ports) -> String {
        let mut text = self.node_text("edge", ports);
        write!(
            text,
            "[ingester]\nlisten = [\"{}\"]\ncertificate_file = \"pki/public.pem\"\n\
             private_key_file = \"pki/public.key\"\nlink_listen = \"{}\"\nrequest_timeout_ms = 1000\n\
             idle_timeout_ms = 5000\n\n\
             [[ingester.egresses]]\nname = \"inside\"\ndirection = \"egress-dials\"\n\
             spiffe_ids = [\"spiffe://{TRUST_DOMAIN}/egress/inside\"]\nkey_id = \"link-1\"\n\
             key_file = \"secrets/link\"\n\n",
            ports.listen, ports.link,
        )
        .unwrap();
        text.push_str(&endpoint(GITHUB, "github", "source", "forward_headers = [\"x-github-event\"]"));
        text.push_str(&endpoint(STANDARD, "standard-webhooks", "standard", ""));
        let hmac = "content_types = [\"application/json\"]\nbody_bytes_max = 65536\n\
                    [ingester.endpoints.hmac]\nheader = \"x-signature\"\nprefix = \"sha256=\"";
        text.push_str(&endpoint(HMAC, "hmac", "source", hmac));
        text
    }

    /// The whole configuration of the egress `inside`, which dials `ingester`; `targets` are sections to add.
    pub fn egress_text(&self, ports: Ports, ingester: SocketAddr, targets: &str) -> String {
        let mut text = self.node_text("inside", ports);
        write!(
            text,
            "[egress]\n\n[[egress.ingesters]]\nname = \"edge\"\ndirection = \"egress-dials\"\n\
             address = \"{ingester}\"\nspiffe_ids = [\"spiffe://{TRUST_DOMAIN}/ingester/edge\"]\n\
             keys = [{{ id = \"link-1\", file = \"secrets/link\" }}]\n\n{targets}"
        )
        .unwrap();
        text
    }

    /// A `[[egress.targets]]` section; `extra` holds further keys, one a line.
    #[allow(clippy::unused_self, reason = "reads like the other sections")]
    pub fn target_text(&self, name: &str, address: SocketAddr, extra: &str) -> String {
        format!(
            "[[egress.targets]]\nname = \"{name}\"\nurl = \"https://{address}/hooks/{name}\"\n\
             key_id = \"{name}-1\"\nsecret_file = \"secrets/target\"\n\
             spiffe_ids = [\"spiffe://{TRUST_DOMAIN}/target/demo\"]\n{extra}\n\n"
        )
    }

    /// Writes `NAME.toml` and starts a node with it; returns when it is ready.
    pub fn start(&self, name: &str, ports: Ports, text: &str) -> Node {
        let config = self.write(&format!("{name}.toml"), text);
        Node::start(&config, ports.admin)
    }

    fn keep(&self, file: &str, issued: &pki::Issued) {
        // The key first: a poll in between must find a pair that does not fit, never a half file.
        replace(&self.path(&format!("pki/{file}.key")), &issued.key, 0o600);
        replace(&self.path(&format!("pki/{file}.pem")), &issued.certificate, 0o644);
    }
}

/// An endpoint and its flow to the target `demo` at `inside`; `extra` holds further keys, one a line.
pub fn endpoint(id: &str, scheme: &str, secret: &str, extra: &str) -> String {
    format!(
        "[[ingester.flows]]\nendpoint = \"{id}\"\negress = \"inside\"\ntargets = [\"demo\"]\n\n\
         [[ingester.endpoints]]\nid = \"{id}\"\ntenant = \"acme\"\nscheme = \"{scheme}\"\n\
         secret_files = [\"secrets/{secret}\"]\n{extra}\n\n"
    )
}

/// `text` with one part replaced; the part must be there exactly once.
pub fn change(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "\"{from}\" in:\n{text}");
    text.replace(from, to)
}

fn write(path: &Path, text: &str, mode: u32) -> PathBuf {
    use std::io::Write as _;
    let _ = fs::remove_file(path);
    let mut file = fs::File::options().write(true).create_new(true).mode(mode).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    path.to_owned()
}

/// Replaces a file in one step.
fn replace(path: &Path, text: &str, mode: u32) {
    let next = path.with_extension("next");
    write(&next, text, mode);
    fs::rename(next, path).unwrap();
}
