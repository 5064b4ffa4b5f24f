//! How a generation is published: the operations, in an order in which each prefix leaves a whole one in force.
//!
//! Files are written and synced in a directory that nobody reads yet; then the link `current` is replaced in one step.
//! What is left behind by a power cut is removed by the next publication. The last two generations stay.

/// The link to the generation in force.
pub const CURRENT: &str = "current";
/// What becomes the link.
const NEXT: &str = "current.next";
const PREFIX: &str = "gen-";

/// One file of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Below the generation, with `/` between its parts.
    pub path: String,
    /// What is in it.
    pub content: Content,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What the file of this name in the generation in force holds: the same file.
    Same,
}

/// One step on the file system; paths are below the directory of generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Makes a directory.
    MakeDirectory(String),
    /// Writes a new file and syncs it.
    Write(String, Vec<u8>),
    /// A second name for a file.
    Link {
        /// The first name.
        from: String,
        /// The second.
        to: String,
    },
    /// Syncs a directory; the empty path is the directory of generations.
    SyncDirectory(String),
    /// Makes a symbolic link, in place of one that was left behind.
    Point {
        /// Where.
        link: String,
        /// What it leads to.
        to: String,
    },
    /// Renames over what is there.
    Rename {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// Removes a directory and what is in it, if it is there.
    Remove(String),
}

/// A publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its generation.
    pub generation: u64,
    /// To be done in this order.
    pub operations: Vec<Operation>,
}

/// `gen-NUMBER`.
pub fn generation_name(number: u64) -> String {
    format!("{PREFIX}{number}")
}

/// The number of `gen-NUMBER`.
pub fn generation_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix(PREFIX)?.parse().ok()?;
    (generation_name(number) == name).then_some(number)
}

/// A new generation of `entries`, after `current`, where `present` are there; no number is ever used again.
pub fn plan(current: Option<u64>, present: &[u64], entries: &[Entry]) -> Plan {
    let generation = present.iter().copied().chain(current).max().map_or(1, |last| last + 1);
    let name = generation_name(generation);
    let mut directories = vec![name.clone()];
    let mut operations = vec![Operation::MakeDirectory(name.clone())];
    for entry in entries {
        for (at, _) in entry.path.match_indices('/') {
            let directory = format!("{name}/{}", &entry.path[..at]);
            if !directories.contains(&directory) {
                operations.push(Operation::MakeDirectory(directory.clone()));
                directories.push(directory);
            }
        }
        let to = format!("{name}/{}", entry.path);
        operations.push(match &entry.content {
            Content::Bytes(bytes) => Operation::Write(to, bytes.clone()),
            Content::Same => {
                let from = current.expect("only what is in force has the same file");
                Operation::Link { from: format!("{}/{}", generation_name(from), entry.path), to }
            }
        });
    }
    operations.extend(directories.into_iter().rev().map(Operation::SyncDirectory));
    operations.extend([
        Operation::SyncDirectory(String::new()),
        Operation::Point { link: NEXT.to_owned(), to: name },
        Operation::Rename { from: NEXT.to_owned(), to: CURRENT.to_owned() },
        Operation::SyncDirectory(String::new()),
    ]);
    let old = present.iter().copied().filter(|old| Some(*old) != current && *old != generation);
    operations.extend(old.map(|old| Operation::Remove(generation_name(old))));
    Plan { generation, operations }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_s_name_has_one_spelling() {
        assert_eq!(generation_number("gen-7"), Some(7));
        for name in ["gen-", "gen-07", "gen-+7", "7", "current", "gen-7.tmp"] {
            assert_eq!(generation_number(name), None, "{name}");
        }
    }

    #[test]
    fn the_link_is_replaced_after_everything_is_on_disk() {
        let entries = ["secrets/zen/agent/key-1.age", "secrets/zen/edge/key-2.age", "a"]
            .map(|path| Entry { path: path.to_owned(), content: Content::Bytes(Vec::new()) });
        let Plan { generation, operations } = plan(Some(3), &[2, 3, 5], &entries);
        assert_eq!(generation, 6, "what was left behind keeps its number to itself");
        let at = |wanted: &Operation| operations.iter().position(|operation| operation == wanted).unwrap();
        let renamed = at(&Operation::Rename { from: NEXT.to_owned(), to: CURRENT.to_owned() });
        for (place, operation) in operations.iter().enumerate() {
            match operation {
                Operation::Write(..) | Operation::MakeDirectory(_) => assert!(place < renamed),
                Operation::Remove(name) => {
                    assert!(place > renamed && ["gen-2", "gen-5"].contains(&name.as_str()), "{name}");
                }
                _ => {}
            }
        }
        let made: Vec<_> = operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::MakeDirectory(name) => Some(name),
                _ => None,
            })
            .collect();
        for name in made {
            assert!(at(&Operation::SyncDirectory(name.clone())) < renamed, "{name} is synced");
        }
    }

    #[test]
    fn what_did_not_change_is_the_same_file() {
        let same = Entry { path: "a/b".to_owned(), content: Content::Same };
        let Plan { operations, .. } = plan(Some(1), &[1], &[same]);
        let link = Operation::Link { from: "gen-1/a/b".to_owned(), to: "gen-2/a/b".to_owned() };
        assert!(operations.contains(&link));
    }
}
