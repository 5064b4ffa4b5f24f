//! The documents say what the code does: keys and defaults, metrics, examples, links.
//!
//! Keys come from the source of the raw configuration, defaults from `--print-config`, metrics from
//! their table; examples are extracted from the pages and checked by the node itself.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

const RAW: &str = concat!(
    include_str!("../src/config/raw.rs"),
    include_str!("../src/config/raw/access.rs"),
    include_str!("../src/config/raw/ebpf.rs"),
    include_str!("../src/config/raw/targets.rs"),
    include_str!("../src/config/raw/limits.rs"),
    include_str!("../src/config/raw/tracing.rs")
);
const METRICS: &str = include_str!("../src/metrics.rs");
const HMAC_METRICS: &str = include_str!("../src/hmac/mod.rs");
const EBPF_METRICS: &str = include_str!("../src/ebpf/metrics.rs");
/// Each struct of the raw configuration and its heading.
const SECTIONS: [(&str, &str); 44] = [
    ("Node", "[node]"),
    ("Admin", "[admin]"),
    ("Journal", "[journal]"),
    ("Identity", "[identity]"),
    ("Lockd", "[lockd]"),
    ("Tracing", "[tracing]"),
    ("Ebpf", "[ebpf]"),
    ("Guard", "[ebpf.guard]"),
    ("Fence", "[ebpf.fence]"),
    ("Steer", "[ebpf.steer]"),
    ("Observe", "[ebpf.observe]"),
    ("Ingester", "[ingester]"),
    ("Endpoint", "[[ingester.endpoints]]"),
    ("IdempotencyTable", "[ingester.idempotency]"),
    ("IdempotencyTable", "[egress.idempotency]"),
    ("Idempotency", "[ingester.endpoints.idempotency]"),
    ("Hmac", "[ingester.endpoints.hmac]"),
    ("NetworkList", "[ingester.networks.NAME]"),
    ("Proxies", "[ingester.proxies]"),
    ("Networks", "[ingester.endpoints.networks]"),
    ("Authorization", "[ingester.endpoints.authorization]"),
    ("SourceCertificate", "[ingester.endpoints.client_certificate]"),
    ("HeaderRule", "[[ingester.endpoints.headers]]"),
    ("Rates", "[ingester.endpoints.rates]"),
    ("Rate", "[ingester.endpoints.rates.endpoint]"),
    ("Rate", "[ingester.endpoints.rates.source]"),
    ("Rate", "[ingester.endpoints.rates.unverified]"),
    ("Flow", "[[ingester.flows]]"),
    ("EgressPeer", "[[ingester.egresses]]"),
    ("DryRun", "[ingester.egresses.dry_run]"),
    ("Egress", "[egress]"),
    ("Retention", "[egress.retention]"),
    ("Receipts", "[egress.receipts]"),
    ("IngesterPeer", "[[egress.ingesters]]"),
    ("DryRun", "[egress.ingesters.dry_run]"),
    ("Key", "[[egress.ingesters.keys]]"),
    ("Target", "[[egress.targets]]"),
    ("DryRun", "[egress.targets.dry_run]"),
    ("TargetAuthorization", "[egress.targets.authorization]"),
    ("TargetBatch", "[egress.targets.batch]"),
    ("Backoff", "[egress.targets.retry]"),
    ("Throttle", "[egress.targets.throttle]"),
    ("Breaker", "[egress.targets.breaker]"),
    ("AttemptRate", "[egress.targets.rate]"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Fields of each struct in `raw.rs`.
fn raw_fields() -> BTreeMap<String, BTreeSet<String>> {
    let mut structs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut current = None;
    for line in RAW.lines() {
        if let Some(rest) = line.strip_prefix("pub struct ") {
            current = rest.split(' ').next().map(str::to_owned);
        } else if line == "}" {
            current = None;
        } else if let (Some(name), Some(field)) = (&current, line.strip_prefix("    pub ")) {
            let field = field.split(':').next().unwrap_or_default();
            let field = field.trim_start_matches("r#");
            structs.entry(name.clone()).or_default().insert(field.to_owned());
        }
    }
    structs
}

/// Rows of the tables below each heading: key and the whole row's cells.
fn documented_keys() -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let mut sections: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    let mut heading = String::new();
    for line in page("docs/configuration.md").lines() {
        if let Some(title) = line.strip_prefix("## ") {
            title.trim_matches('`').clone_into(&mut heading);
        }
        let Some(row) = line.strip_prefix("| `") else { continue };
        let cells: Vec<String> =
            row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect();
        sections.entry(heading.clone()).or_default().insert(cells[0].clone(), cells);
    }
    sections
}

#[test]
fn every_system_call_on_the_list_is_explained() {
    let (list, explained) = (page("deploy/seccomp/zen-dataplane.json"), page("docs/security-model.md"));
    let list: BTreeMap<String, serde_json::Value> = serde_json::from_str(&list).unwrap();
    for (name, filter) in list {
        let calls: BTreeSet<_> = filter["filter"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| rule["syscall"].as_str().unwrap())
            .collect();
        assert!(!calls.is_empty(), "{name}");
        for call in calls {
            assert!(explained.contains(&format!("`{call}`")), "{call} in docs/security-model.md");
        }
    }
}

#[test]
fn every_key_is_documented_and_no_other() {
    let (fields, documented) = (raw_fields(), documented_keys());
    let known: BTreeSet<&str> = SECTIONS.iter().map(|(name, _)| *name).chain(["Raw"]).collect();
    let there: BTreeSet<&str> = fields.keys().map(String::as_str).collect();
    assert_eq!(there, known, "structs of raw.rs and sections of this test");
    for (name, heading) in SECTIONS {
        let rows: BTreeSet<String> = documented.get(heading).expect(heading).keys().cloned().collect();
        assert_eq!(rows, fields[name], "{heading} in docs/configuration.md and struct {name}");
    }
}

#[test]
fn documented_defaults_are_those_in_force() {
    let lab = Lab::new();
    let documented = documented_keys();
    let mut compared = 0;
    for (name, text) in lab.write_examples("README.md") {
        let given: toml::Table = text.parse().unwrap();
        let printed = lab.node(&name, "--print-config");
        let printed: toml::Table = String::from_utf8(printed.stdout).unwrap().parse().unwrap();
        let mut found = Vec::new();
        collect_defaults("", Some(&given), &printed, &mut found);
        for (section, key, value) in found {
            let mut headings = SECTIONS.iter().map(|(_, heading)| *heading);
            let heading = headings.find(|heading| heading.trim_matches(['[', ']']) == section);
            let Some(row) = documented.get(heading.unwrap_or(&section)).and_then(|rows| rows.get(&key))
            else {
                panic!("{section}.{key} has a default that is not documented");
            };
            assert!(
                row[2] == value || row[2] == "none" && value == "[]",
                "{section}.{key}: {value}, {row:?}"
            );
            compared += 1;
        }
    }
    assert!(compared > 25, "only {compared} defaults were compared");
}

/// Values that the printed configuration has and the given one has not, by section and key.
fn collect_defaults(
    section: &str,
    given: Option<&toml::Table>,
    printed: &toml::Table,
    found: &mut Vec<(String, String, String)>,
) {
    for (key, value) in printed {
        let below = format!("{section}.{key}");
        let below = below.trim_start_matches('.');
        let ours = given.and_then(|given| given.get(key));
        match (value, ours) {
            (toml::Value::Table(table), ours) => {
                collect_defaults(below, ours.and_then(toml::Value::as_table), table, found);
            }
            (toml::Value::Array(list), Some(toml::Value::Array(ours))) => {
                for (entry, ours) in list.iter().zip(ours) {
                    if let (Some(entry), Some(ours)) = (entry.as_table(), ours.as_table()) {
                        collect_defaults(below, Some(ours), entry, found);
                    }
                }
            }
            (_, Some(_)) => {}
            (value, None) => found.push((section.to_owned(), key.clone(), value.to_string())),
        }
    }
}

#[test]
fn every_metric_is_documented_and_no_other() {
    let table = METRICS.split("worker_metrics! {\n").nth(1).expect("the table of metrics");
    let table = table.split("\n}").next().expect("its end");
    let mut metrics: BTreeSet<String> = table
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let (kind, name) = (words.next().unwrap(), words.next().unwrap());
            let suffix = match kind {
                "latency" => "_seconds",
                "gauge" | "batches" => "",
                _counters => "_total",
            };
            format!("zen_{name}{suffix}")
        })
        .collect();
    let of_node =
        METRICS.split("fn encode_node").nth(1).expect("the node's own").split("fn histogram").next();
    for name in of_node.expect("its end").split("\"zen_").skip(1).filter_map(|rest| rest.split('"').next()) {
        let is_counter = name.ends_with("_refused") || name.ends_with("_trials");
        let suffix = if is_counter { "_total" } else { "" };
        metrics.insert(format!("zen_{name}{suffix}"));
    }
    // Each name follows the call that encodes it.
    let beside = [EBPF_METRICS, HMAC_METRICS].concat();
    for (at, _) in beside.match_indices("\"zen_") {
        let name = beside[at + 1..].split('"').next().expect("a literal ends");
        let before = &beside[..at];
        let calls = ["counters(", "histograms(", "encode_descriptor("];
        let call = calls.into_iter().max_by_key(|call| before.rfind(call)).expect("there are calls");
        metrics.insert(format!("{name}{}", if call == "counters(" { "_total" } else { "" }));
    }
    let page = page("docs/operations.md");
    let documented: BTreeSet<String> = page
        .lines()
        .filter_map(|line| {
            line.strip_prefix("| `zen_")?.split(['`', '{']).next().map(|name| format!("zen_{name}"))
        })
        .collect();
    assert_eq!(documented, metrics, "docs/operations.md and metrics.rs");
}

#[test]
fn examples_pass_the_check_and_name_their_faults() {
    let lab = Lab::new();
    let names = [lab.write_examples("README.md"), lab.write_examples("docs/configuration.md")].concat();
    assert_eq!(names.len(), 3, "{names:?}");
    for (name, text) in names {
        let output = lab.node(&name, "--check-config");
        assert!(output.status.success(), "{name}: {output:?}");
        let broken = text.replace("data_dir", "data_directory");
        fs::write(lab.path(&name), broken).unwrap();
        let output = lab.node(&name, "--check-config");
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && complaint.contains("data_directory"), "{name}: {complaint}");
    }
}

/// A verifier leaves these headers out; forwarding one would only break the target's check.
#[test]
fn headers_that_are_not_forwarded_are_refused_in_the_configuration() {
    const ENDPOINT: &str = "[[ingester.endpoints]]\n";
    let lab = Lab::new();
    let formats = page("docs/wire-formats.md");
    let sentence = formats.split("Not forwarded, because").nth(1).expect("the list");
    let sentence = sentence.split("The configuration of").next().expect("its end");
    let names: Vec<String> = sentence
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|name| if name.ends_with('-') { format!("{name}x") } else { name.to_owned() })
        .collect();
    assert!(names.len() > 15, "{names:?}");
    let (name, text) = lab.write_examples("README.md").remove(0);
    for header in names {
        fs::write(
            lab.path(&name),
            text.replace(ENDPOINT, &format!("{ENDPOINT}forward_headers = [\"{header}\"]\n")),
        )
        .unwrap();
        let output = lab.node(&name, "--check-config");
        let complaint = String::from_utf8(output.stderr).unwrap();
        let named =
            complaint.contains("ingester.endpoints[0].forward_headers") && complaint.contains(&header);
        assert!(!output.status.success() && named, "{header}: {complaint}");
    }
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut pages: Vec<PathBuf> = vec![root().join("README.md"), root().join("ARCHITECTURE.md")];
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    pages.extend(docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    let mut links = 0;
    for path in pages {
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            let headings = || fs::read_to_string(&target).unwrap();
            let found = anchor.is_empty() || headings().lines().any(|line| slug(line) == anchor);
            assert!(found, "{}: {link} names no heading", path.display());
            links += 1;
        }
    }
    assert!(links > 10, "only {links} links were found");
}

/// The paths that the pages name in backticks exist.
#[test]
fn every_source_that_is_named_exists() {
    let mut named = 0;
    for name in ["README.md", "ARCHITECTURE.md", "docs/security-model.md", "docs/operations.md"] {
        for path in page(name).split('`').skip(1).step_by(2) {
            let ours = ["dataplane/", "ebpf/", "trust/", "perf/", "scripts/", "docs/"];
            let first = path.split(['{', ' ']).next().unwrap_or_default();
            if !ours.iter().any(|prefix| first.starts_with(prefix)) {
                continue;
            }
            assert!(root().join(first).exists(), "{name}: {path} does not exist");
            named += 1;
        }
    }
    assert!(named > 20, "only {named} paths were found");
}

/// The anchor of a heading; empty for any other line.
fn slug(line: &str) -> String {
    let Some(title) = line.strip_prefix('#') else { return String::new() };
    let title = title.trim_start_matches('#').trim().to_lowercase();
    let kept = title.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

/// A directory with the certificates and secrets that the examples name.
struct Lab {
    directory: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        let lab = Self { directory: tempfile::tempdir().unwrap() };
        for directory in ["pki", "secrets"] {
            fs::create_dir(lab.path(directory)).unwrap();
        }
        let lab_ca = lab.authority("pki/bundle.pem");
        for (name, role) in [("edge-1", "ingester"), ("inside", "egress")] {
            let id = format!("spiffe://lab.zen-mesh.example/{role}/{name}");
            lab.leaf(name, SanType::URI(id.try_into().unwrap()), &lab_ca);
        }
        let public_ca = lab.authority("pki/public_ca.pem");
        lab.leaf("public", SanType::DnsName("localhost".try_into().unwrap()), &public_ca);
        for name in ["github", "link", "link-2", "billing"] {
            // 32 bytes in base64; the scheme github takes any text.
            lab.write(
                &format!("secrets/{name}"),
                "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n",
                0o600,
            );
        }
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn authority(&self, name: &str) -> Issuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        self.write(name, &params.self_signed(&key).unwrap().pem(), 0o644);
        Issuer::new(params, key)
    }

    fn leaf(&self, name: &str, identity: SanType, issuer: &Issuer<'_, KeyPair>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![identity];
        let key = KeyPair::generate().unwrap();
        self.write(&format!("pki/{name}.pem"), &params.signed_by(&key, issuer).unwrap().pem(), 0o644);
        self.write(&format!("pki/{name}.key"), &key.serialize_pem(), 0o600);
    }

    /// Writes a page's TOML blocks that begin with `# <name>`, fragments left out; returns names and texts.
    fn write_examples(&self, name: &str) -> Vec<(String, String)> {
        let page = page(name);
        let blocks = page.split("```toml\n# ").skip(1).filter_map(|rest| rest.split("\n```").next());
        let named = blocks.filter_map(|block| block.split_once('\n')).filter(|(name, _)| *name != "fragment");
        let examples: Vec<_> = named.map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
        for (name, text) in &examples {
            fs::write(self.path(name), text).unwrap();
        }
        examples
    }

    fn node(&self, config: &str, flag: &str) -> Output {
        let mut node = Command::new(env!("CARGO_BIN_EXE_zen-dataplane"));
        node.arg("--config").arg(self.path(config)).arg(flag).output().unwrap()
    }
}
