//! The memory that a configuration can use, item by item: what is counted, how many, how large each.
//!
//! Sizes come from the types and bounds that the code itself uses. What cannot be read off a type
//! (rustls, the allocator, the process itself) was measured, and `tests/bounds.rs` holds it to that.

use std::fmt;
use std::sync::Arc;

use zen_core::access::{BUCKET_BYTES, HeaderTest};
use zen_core::deliver::cloudevents::structured_bytes_max;
use zen_core::deliver::{CREDENTIALS_BYTES_MAX, ORDERED_PLACE_BYTES, PLACE_BYTES};
use zen_core::event::{BODY_BYTES_MAX, EVENT_BYTES_MAX};
use zen_core::journal::COMMITS_IN_FLIGHT_MAX;
use zen_identity::{DENY_LIST_MEMORY_BYTES, SOURCE_CHAIN_BYTES_MAX};
use zen_rules::SMALL_PATTERN_BYTES;

use super::Routing;
use super::settings::{
    Authorization, ClientCertificates, EgressSettings, Format, IngesterSettings, Settings, Target,
};
use crate::dedupe::Waiting;
use crate::journal::MAKER_BYTES;
use crate::{admin, control, dedupe, egress, ingester, link, oauth, receipts, spans, tls, worker};

/// The program, its libraries' tables, the control thread and its runtime; measured.
const PROCESS_BYTES: usize = 20 << 20;
/// An endpoint, with its keys and lists, twice while a reload is under way.
const ENDPOINT_BYTES: usize = 2 * 4096;
/// A peer or a target: policy, keys, TLS settings with a system's roots, twice while a reload is under way.
const PEER_BYTES: usize = 2 * 256 * 1024;
/// The allocator's rounding and gaps: a sixteenth of what is allocated piece by piece.
const ALLOCATOR_SHARE: u64 = 16;
/// What the allocator keeps in reserve for a worker; measured.
const ALLOCATOR_RESERVE_BYTES: u64 = 4 << 20;

/// One thing that takes memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub name: &'static str,
    /// The key that bounds it, if there is one.
    pub key: Option<&'static str>,
    /// How many.
    pub count: u64,
    /// How large each is.
    pub bytes: u64,
}

impl Item {
    /// All of them, bytes.
    pub fn total(&self) -> u64 {
        self.count.saturating_mul(self.bytes)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} MiB", self.key.unwrap_or(self.name), mib(self.total()))
    }
}

/// Everything that takes memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryBound {
    items: Vec<Item>,
}

/// Whole MiB, rounded up.
pub fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

impl MemoryBound {
    /// The bound of a configuration.
    pub fn of(settings: &Settings<'_>) -> Self {
        let mut bound = Self::default();
        bound.process(settings);
        bound.journals(settings);
        let at_once = bound.total();
        let at_start = at_once + settings.journal.segment_bytes;
        bound.links(settings);
        if let Some(ingester) = settings.ingester {
            bound.ingester(ingester, settings);
            bound.access(ingester, usize::from(settings.node.workers));
        }
        if let Some(egress) = settings.egress {
            bound.egress(egress, settings);
        }
        // Before anything is taken in, journals are recovered: one at a time, a segment in memory whole.
        let recovery = at_start.saturating_sub(bound.total());
        bound.push("recovery", Some("journal.segment_bytes"), 1, recovery as usize);
        let workers = usize::from(settings.node.workers);
        let gaps = (bound.total() - at_once) / ALLOCATOR_SHARE;
        bound.push("allocator", None, workers, (gaps / workers as u64 + ALLOCATOR_RESERVE_BYTES) as usize);
        bound
    }

    /// All items, bytes.
    pub fn total(&self) -> u64 {
        self.items.iter().map(Item::total).fold(0, u64::saturating_add)
    }

    /// Items that a key bounds, largest first.
    pub fn largest(&self) -> impl Iterator<Item = &Item> {
        let mut items: Vec<&Item> = self.items.iter().filter(|item| item.key.is_some()).collect();
        items.sort_by_key(|item| std::cmp::Reverse(item.total()));
        items.into_iter()
    }

    fn push(&mut self, name: &'static str, key: Option<&'static str>, count: usize, bytes: usize) {
        self.items.push(Item { name, key, count: count as u64, bytes: bytes as u64 });
    }

    fn process(&mut self, settings: &Settings<'_>) {
        let workers = usize::from(settings.node.workers);
        let endpoints = settings.ingester.map_or(0, |ingester| ingester.endpoints.len());
        let peers = settings.ingester.map_or(0, |ingester| ingester.egresses.len())
            + settings.egress.map_or(0, |egress| egress.ingesters.len() + egress.targets.len());
        self.push("process", None, 1, PROCESS_BYTES);
        self.push("endpoints", None, endpoints, ENDPOINT_BYTES);
        self.push("peers and targets", None, peers, PEER_BYTES);
        // Twice while a reload is under way.
        self.push("where to connect", Some("egress.target_networks"), 2, settings.reach.memory_bytes());
        self.push("admin connections", None, admin::CONNECTIONS_MAX, admin::CONNECTION_BYTES);
        let (walks, commit) = (admin::WALKS_MAX, settings.journal.commit_bytes_max);
        self.push("walks over a journal", None, walks, commit + admin::LIFE_BYTES);
        if settings.node.deny_list_file.is_some() {
            self.push("deny list", Some("identity.deny_list_file"), 1, DENY_LIST_MEMORY_BYTES);
        }
        if settings.tracing.export.is_some() {
            self.push("spans", Some("tracing.otlp_endpoint"), spans::SPANS_MAX, spans::SPAN_BYTES);
            self.push("message of spans", None, 1, spans::EXPORT_BYTES);
            let workers = usize::from(settings.node.workers);
            self.push("open spans", Some("tracing.otlp_endpoint"), workers, ingester::OPEN_SPANS_BYTES);
        }
        if let Some(section) = settings.egress.filter(|egress| egress.receipts.is_some()) {
            self.push("receipts", Some("egress.receipts.bytes_max"), 1, receipts::RECEIPTS_BYTES);
            let waiting = workers * receipts::RECEIPTS_WAITING_MAX;
            self.push(
                "receipts that wait",
                Some("egress.receipts.bytes_max"),
                waiting,
                egress::RECEIPT_WAITING_BYTES,
            );
            let known = workers * section.events_max as usize;
            self.push(
                "hashes of events read back",
                Some("egress.events_max"),
                known,
                egress::RECEIPT_KNOWN_BYTES,
            );
        }
        self.push("blocking threads", None, control::BLOCKING_MAX, control::LOOKUP_STACK_BYTES);
        self.push("worker stacks", Some("node.workers"), workers, worker::STACK_BYTES);
        let reactor = worker::reactor_limits(settings).memory_bytes();
        self.push("reactors", Some("node.workers"), workers, reactor);
    }

    fn journals(&mut self, settings: &Settings<'_>) {
        let workers = usize::from(settings.node.workers);
        let roles = usize::from(settings.ingester.is_some()) + usize::from(settings.egress.is_some());
        let commit = settings.journal.commit_bytes_max;
        let positions = (settings.journal.bytes_max >> 20) as usize * 64;
        self.push(
            "commits",
            Some("journal.commit_bytes_max"),
            workers * roles * (COMMITS_IN_FLIGHT_MAX + 1),
            commit,
        );
        // A cursor keeps what it read while the next read is under way; records are listed as they are used.
        let cursors = settings.ingester.map_or(0, |ingester| ingester.egresses.len())
            + usize::from(settings.egress.is_some());
        self.push("journal read back", Some("journal.commit_bytes_max"), workers * cursors, 5 * commit / 2);
        self.push("journal positions", Some("journal.bytes_max"), workers * roles, positions);
        // One more than fits, and where the records of the open one lie.
        let recent = settings.journal.recent_bytes_max + 3 * commit / 2;
        self.push("recent commits", Some("journal.recent_bytes_max"), workers * roles, recent);
        self.push("segment preparation", None, 1, MAKER_BYTES);
    }

    fn links(&mut self, settings: &Settings<'_>) {
        let sending = if settings.ingester.is_some() { link::SENDING_BYTES } else { 0 };
        let receiving = if settings.egress.is_some() { link::RECEIVING_BYTES } else { 0 };
        let one = sending.max(receiving) + tls::IDLE_BYTES + tls::HANDSHAKE_BYTES;
        self.push("links", Some("node.links_max"), settings.node.links_max as usize, one);
        let unknown = usize::from(settings.node.workers) * link::HANDSHAKES_MAX;
        self.push("links in handshake", None, unknown, tls::IDLE_BYTES + 32 * 1024);
    }

    fn ingester(&mut self, ingester: &IngesterSettings, settings: &Settings<'_>) {
        let workers = usize::from(settings.node.workers);
        let one = tls::IDLE_BYTES + ingester::SOURCE_BYTES;
        self.push(
            "source connections",
            Some("ingester.connections_max"),
            ingester.connections_max as usize,
            one,
        );
        self.push(
            "requests",
            Some("ingester.body_memory_bytes_max"),
            workers,
            ingester.body_memory_bytes_max,
        );
        let spare =
            ingester::SPARE_BUFFERS_MAX * ingester::SPARE_BUFFER_BYTES_MAX + ingester::SCRATCH_BYTES_MAX;
        self.push("spare buffers", None, workers, spare);
        let table = dedupe::memory_bytes(&ingester.idempotency, Waiting::Allowed) as usize;
        self.push("idempotency keys", Some("ingester.idempotency.keys_max"), 1, table);
        self.push("requests that wait", None, dedupe::WAITING_MAX, ingester::WAITING_BYTES);
        self.push("index of keys", Some("node.workers"), workers, ingester::INDEX_BYTES);
        let records = ingester::pending_max(settings.journal.commit_bytes_max);
        self.push(
            "answers waiting",
            Some("journal.commit_bytes_max"),
            workers,
            records * ingester::PENDING_BYTES,
        );
    }

    /// What access to endpoints takes, as far as it is used.
    fn access(&mut self, ingester: &IngesterSettings, workers: usize) {
        if ingester.client_certificates == ClientCertificates::Asked {
            let count = ingester.connections_max as usize;
            // The chain in rustls, and what is read out of it.
            let bytes = 2 * SOURCE_CHAIN_BYTES_MAX;
            self.push("source certificates", Some("ingester.connections_max"), count, bytes);
        }
        let rates = || ingester.endpoints.values().map(|endpoint| endpoint.rates);
        if rates().any(|rates| rates.source.is_some() || rates.unverified.is_some()) {
            let count = ingester::SOURCE_TABLES * ingester.rate_sources_max as usize;
            self.push("rates of sources", Some("ingester.rate_sources_max"), count, BUCKET_BYTES);
        }
        if rates().any(|rates| rates.endpoint.is_some()) {
            self.push("rates of endpoints", None, ingester::RATE_ENDPOINTS_MAX, BUCKET_BYTES);
        }
        if ingester.network_bytes > 0 {
            // Twice while a reload is under way.
            self.push("networks", Some("ingester.networks"), 2, ingester.network_bytes);
        }
        let rules = ingester.endpoints.values().flat_map(|endpoint| &endpoint.header_rules);
        let patterns = rules.filter(|rule| matches!(rule.test, HeaderTest::Pattern(_))).count();
        if patterns > 0 {
            // Each worker has a search cache for each; all are there twice while a reload is under way.
            let count = 2 * patterns * (1 + workers);
            self.push("patterns of headers", Some("ingester.endpoints.headers"), count, SMALL_PATTERN_BYTES);
        }
        self.flows(ingester, workers);
    }

    /// Regular expressions of flows, and the body that conditions look at: one at a time for a worker.
    fn flows(&mut self, ingester: &IngesterSettings, workers: usize) {
        let routings = || ingester.endpoints.values().map(|endpoint| &endpoint.routing);
        let patterns: usize = routings().map(Routing::patterns).sum();
        self.patterns("patterns of flows", "ingester.flows", patterns, workers);
        let parsing = if routings().any(Routing::needs_json) { workers } else { 0 };
        self.push("body being routed", Some("node.workers"), parsing, zen_rules::DOCUMENT_BYTES_MAX);
    }

    /// Each worker has a search cache for each; all are there twice while a reload is under way.
    fn patterns(&mut self, name: &'static str, key: &'static str, patterns: usize, workers: usize) {
        self.push(name, Some(key), 2 * patterns * (1 + workers), zen_rules::PATTERN_BYTES);
    }

    fn egress(&mut self, egress: &EgressSettings, settings: &Settings<'_>) {
        let workers = usize::from(settings.node.workers);
        let table = dedupe::memory_bytes(&egress.idempotency, Waiting::Refused) as usize;
        self.push("event ids", Some("egress.idempotency.keys_max"), 1, table);
        let deliveries = workers * egress.events_max as usize;
        self.push(
            "deliveries",
            Some("egress.events_max"),
            deliveries,
            egress::LIVE_BYTES + egress::PARCEL_BYTES,
        );
        self.push(
            "cached events",
            Some("egress.cached_bytes_max"),
            workers,
            egress.cached_bytes_max + EVENT_BYTES_MAX,
        );
        self.push("orders", None, workers, egress::ORDERS_BYTES);
        let commit = settings.journal.commit_bytes_max;
        self.push("events sent again", None, admin::REPLAYS_MAX, commit + admin::COPIES_BYTES);
        self.push("pages of dead letters", None, 1, workers * admin::FOUND_BYTES + admin::PAGE_BYTES);
        self.push("notes", None, workers * egress::NOTES_MAX, egress::NOTE_BYTES);
        let places = egress.queues().map(|limits| limits.queue_max as usize).sum();
        self.push("target queues", Some("egress.targets.queue_max"), places, PLACE_BYTES);
        let ordered = egress.ordering.keys().filter_map(|name| egress.queue(name));
        let places = ordered.map(|limits| limits.queue_max as usize).sum();
        self.push("places in order", Some("egress.targets.queue_max"), places, ORDERED_PLACE_BYTES);
        let connections = egress.queues().map(|limits| limits.in_flight_max as usize).sum();
        let one = tls::IDLE_BYTES + egress::CONNECTION_BYTES;
        self.push("target connections", Some("egress.targets.in_flight_max"), connections, one);
        let primaries = egress.outputs.values().map(|output| &output.targets[0]);
        let targets = || egress.targets.values().chain(primaries.clone());
        let excerpts =
            targets().map(|target| target.limits.in_flight_max as usize * target.answer_excerpt_bytes_max);
        self.push("excerpts of answers", Some("egress.targets.in_flight_max"), 1, excerpts.sum());
        let told = admin::TARGET_BYTES + admin::FAILURE_BYTES;
        self.push("what is told of targets", None, targets().count(), told);
        let attempts = egress.attempt_memory_bytes_max;
        self.push("attempts", Some("egress.attempt_memory_bytes_max"), workers, attempts);
        self.push(
            "one attempt more",
            None,
            egress.queues().count(),
            egress::ATTEMPT_COPIES * EVENT_BYTES_MAX,
        );
        self.kinds(egress, workers);
        self.outputs(egress, workers);
    }

    /// What only some kinds of targets need.
    fn kinds(&mut self, egress: &EgressSettings, workers: usize) {
        let in_flight = egress.queues().map(|limits| limits.in_flight_max as usize).sum();
        if egress.targets.values().any(|target| target.authorization.is_some()) {
            let one = egress::ATTEMPT_COPIES * CREDENTIALS_BYTES_MAX;
            self.push("credentials", Some("egress.targets.in_flight_max"), in_flight, one);
        }
        let tokens = |target: &&Arc<Target>| matches!(target.authorization, Some(Authorization::Tokens(_)));
        let sources = egress.targets.values().filter(tokens).count();
        if sources > 0 {
            let one = oauth::EXCHANGE_BYTES + PEER_BYTES;
            self.push("access tokens", Some("egress.targets.authorization"), sources, one);
        }
        let batches = egress.targets.values().filter_map(|target| target.batch);
        if let Some(longest) = batches.map(|batch| batch.bytes_max).max() {
            // Lines, and the body that they become.
            let one = 2 * longest.max(structured_bytes_max(BODY_BYTES_MAX));
            self.push("batch being made", Some("egress.targets.batch.bytes_max"), workers, one);
        }
        if egress.targets.values().any(|target| matches!(target.format, Format::Structured(_))) {
            // Beyond the body itself, which is among the attempts, and one that is being made.
            let envelopes = egress::ATTEMPT_COPIES * structured_bytes_max(0);
            self.push("envelopes", Some("egress.targets.in_flight_max"), in_flight, envelopes);
            let base64 = egress.attempt_memory_bytes_max.div_ceil(3);
            self.push("bodies in base64", Some("egress.attempt_memory_bytes_max"), workers, base64);
            self.push("body being enclosed", None, workers, structured_bytes_max(BODY_BYTES_MAX));
        }
    }

    fn outputs(&mut self, egress: &EgressSettings, workers: usize) {
        let outputs = || egress.outputs.values();
        let standbys = outputs().map(|output| output.targets.len() - 1).sum();
        let one = tls::IDLE_BYTES + tls::HANDSHAKE_BYTES + egress::PROBE_BYTES;
        self.push("probes", None, standbys, one);
        let made = outputs().map(|output| {
            output.targets[0].limits.in_flight_max as usize * output.rules.transformed_bytes_max()
        });
        let made = made.sum();
        self.push(
            "bodies made",
            Some("egress.outputs.transform.output_bytes_max"),
            egress::ATTEMPT_COPIES,
            made,
        );
        let parsing = if made > 0 { workers } else { 0 };
        let patterns = outputs().map(|output| output.rules.patterns()).sum();
        self.patterns("patterns of outputs", "egress.outputs", patterns, workers);
        self.push("body being transformed", None, parsing, zen_rules::DOCUMENT_BYTES_MAX);
    }
}

impl fmt::Display for MemoryBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<22} {:>8} {:>12} {:>8}  bounded by", "memory", "count", "bytes", "MiB")?;
        for item in &self.items {
            let key = item.key.unwrap_or("");
            writeln!(
                f,
                "{:<22} {:>8} {:>12} {:>8}  {key}",
                item.name,
                item.count,
                item.bytes,
                mib(item.total())
            )?;
        }
        Ok(())
    }
}
