//! Trees, logs and keys of the tests.

use std::collections::BTreeMap;
use std::convert::Infallible;

use zen_audit::{
    Checkpoint, Entry, Frontier, Hash, Node, Nodes, Note, Outcome, SignatureKind, SigningKey,
    consistency_proof, leaf_hash,
};
use zeroize::Zeroizing;

/// All nodes of a tree in memory.
#[derive(Clone, Default)]
pub struct Tree {
    pub nodes: BTreeMap<Node, Hash>,
    pub frontier: Frontier,
}

impl Nodes for Tree {
    type Error = Infallible;

    fn hash(&self, node: Node) -> Result<Hash, Infallible> {
        Ok(self.nodes[&node])
    }
}

impl Tree {
    pub fn append(&mut self, leaf: Hash) {
        let nodes = &mut self.nodes;
        self.frontier.append(leaf, |node, hash| assert_eq!(nodes.insert(node, hash), None, "{node:?} twice"));
    }

    /// Of entries that are their own numbers.
    #[allow(dead_code, reason = "not every test file needs it")]
    pub fn of(size: u64) -> Self {
        let mut tree = Self::default();
        (0..size).for_each(|number| tree.append(leaf_hash(&number.to_be_bytes())));
        tree
    }
}

/// A log as its keeper has it.
#[derive(Clone, Default)]
#[allow(dead_code, reason = "not every test file needs it")]
pub struct Log {
    pub tree: Tree,
    pub entries: Vec<Vec<u8>>,
}

#[allow(dead_code, reason = "not every test file needs all of it")]
impl Log {
    pub fn of(count: u64) -> Self {
        let mut log = Self::default();
        (0..count).for_each(|number| log.add(&format!("bundles/{number}")));
        log
    }

    pub fn add(&mut self, target: &str) {
        let previous = self.entries.last().map_or_else(Entry::before_the_first, |bytes| Entry::leaf(bytes));
        let entry = entry(self.entries.len() as u64, target, previous);
        let bytes = entry.bytes().unwrap();
        self.tree.append(Entry::leaf(&bytes));
        self.entries.push(bytes);
    }

    pub fn checkpoint(&self) -> Note {
        signed(self.tree.frontier.size(), self.tree.frontier.root(), &log_key())
    }

    pub fn proof_since(&self, size: u64) -> Vec<Hash> {
        consistency_proof(&self.tree, size, self.tree.frontier.size()).unwrap()
    }
}

#[allow(dead_code, reason = "not every test file needs it")]
pub fn entry(sequence: u64, target: &str, previous: Hash) -> Entry {
    Entry {
        sequence,
        time_ms: 1_790_000_000_000 + sequence,
        tenant: "acme".to_owned(),
        actor: "spiffe://acme.example/people/owner".to_owned(),
        action: "bundles.create".to_owned(),
        target: target.to_owned(),
        outcome: Outcome::Done,
        request_id: format!("r-{sequence}"),
        previous,
    }
}

#[allow(dead_code, reason = "not every test file needs it")]
pub fn signed(size: u64, root: Hash, key: &SigningKey) -> Note {
    let mut note = Note::new(Checkpoint { origin: "acme.example/log".to_owned(), size, root }.text());
    note.sign(key, 0);
    note
}

#[allow(dead_code, reason = "not every test file needs it")]
pub fn log_key() -> SigningKey {
    key("acme.example/log", SignatureKind::Note, 1)
}

#[allow(dead_code, reason = "not every test file needs it")]
pub fn witness_key(number: u8) -> SigningKey {
    key(&format!("acme.example/agent/{number}"), SignatureKind::Cosignature, 100 + number)
}

#[allow(dead_code, reason = "not every test file needs it")]
pub fn key(name: &str, kind: SignatureKind, seed: u8) -> SigningKey {
    SigningKey::new(name, kind, &Zeroizing::new([seed; 32])).unwrap()
}
