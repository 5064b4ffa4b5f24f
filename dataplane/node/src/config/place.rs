//! Where a configuration is: a file, or the generation that an agent's link leads to.
//!
//! An agent publishes `gen-N` beside the link `current` and renames the link over the one before. The link is
//! read once for each load and never followed, so that a load takes everything from one generation.

use std::io;
use std::path::{Path, PathBuf};

/// The link that says which generation counts.
const LINK: &str = "current";
/// What a generation's directory begins with.
const GENERATION: &str = "gen-";
/// A generation's configuration.
const FILE: &str = "node.toml";

/// Where to look.
#[derive(Clone, Debug)]
pub enum Place {
    /// One file.
    File(PathBuf),
    /// A directory in which an agent publishes generations.
    Managed(PathBuf),
}

/// What was found there; everything that a load reads is beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The configuration file.
    pub file: PathBuf,
    /// The number of its generation, if an agent published it.
    pub managed: Option<u64>,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is no link, or it cannot be read.
    #[error("{}: {source}; let the agent publish a generation there, or name its directory", link.display())]
    Link {
        /// Its path.
        link: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It leads elsewhere.
    #[error("{} leads to {target:?}; it must lead to {GENERATION}NUMBER beside it", link.display())]
    Target {
        /// Its path.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// The generation is not there.
    #[error("{}: {source}; publish a generation whole before the link leads to it", directory.display())]
    Generation {
        /// Its path.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Place {
    /// Reads the link, if there is one.
    pub fn locate(&self) -> Result<Located, PlaceError> {
        let directory = match self {
            Self::File(file) => return Ok(Located { file: file.clone(), managed: None }),
            Self::Managed(directory) => directory,
        };
        let link = directory.join(LINK);
        let target = match std::fs::read_link(&link) {
            Ok(target) => target,
            Err(source) => return Err(PlaceError::Link { link, source }),
        };
        let Some(number) = number_of(&target) else { return Err(PlaceError::Target { link, target }) };
        let directory = directory.join(target);
        match std::fs::symlink_metadata(&directory) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                let source = io::ErrorKind::NotADirectory.into();
                return Err(PlaceError::Generation { directory, source });
            }
            Err(source) => return Err(PlaceError::Generation { directory, source }),
        }
        Ok(Located { file: directory.join(FILE), managed: Some(number) })
    }
}

/// The number of `gen-N`, written in the one way that a number has.
fn number_of(target: &Path) -> Option<u64> {
    let text = target.as_os_str().to_str()?;
    let number = text.strip_prefix(GENERATION)?.parse().ok()?;
    (text == format!("{GENERATION}{number}")).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_a_generation_and_nowhere_else() {
        for (target, number) in [("gen-0", 0), ("gen-7", 7), ("gen-18446744073709551615", u64::MAX)] {
            assert_eq!(number_of(Path::new(target)), Some(number), "{target}");
        }
        for target in [
            "",
            "7",
            "gen-",
            "gen-x",
            "gen-01",
            "gen-+1",
            "gen--1",
            "gen-1 ",
            "gen-1/",
            "gen-1/../gen-2",
            "./gen-1",
            "../gen-1",
            "/gen-1",
            "Gen-1",
            "gen-18446744073709551616",
        ] {
            assert_eq!(number_of(Path::new(target)), None, "{target}");
        }
    }
}
