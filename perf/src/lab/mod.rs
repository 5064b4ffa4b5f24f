//! A lab: a directory with certificates, secrets and configurations for one ingester, its egresses and
//! their targets, all on 127.0.0.1.
//!
//! In: a [`Shape`]. Out: files, ports, and what client and sink need to know. The directory is wiped
//! first if it is a lab's, refused if it is anything else, and locked while it is in use.

mod config;
mod ground;
mod metrics;
mod process;
mod shape;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::Flock;

use self::ground::{Ports, claim};
pub(crate) use self::metrics::{Metrics, get};
pub(crate) use self::process::{Process, become_child, wait_ready};
pub(crate) use self::shape::{BAD_TARGETS, COSTS, DARK_TARGET, Shape, TOUR_FAN_OUT, TOUR_FLAKY};
use crate::error::LabError;
use crate::pki::{Pki, Role, write_file};
use crate::random::system_bytes;
use crate::samples::{Endpoint, SchemeName};
use crate::signature::{base64, hex};
use crate::sink::Target;

/// Name of the lab's only ingester.
pub(crate) const INGESTER: &str = "edge-1";
/// Name in the SVID of whatever plays the targets.
pub(crate) const TARGET_IDENTITY: &str = "demo";

/// What a run changes in the configurations of its shape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// Links, by egress, and targets that are reached through a relay.
    pub(crate) relayed: &'static [&'static str],
    /// Size of a journal's files; the lab's own without it.
    pub(crate) segment_bytes: Option<u64>,
    /// Further lines of `[node]`.
    pub(crate) node: &'static str,
    /// Further lines of `[ingester]`.
    pub(crate) ingester: &'static str,
    /// Further lines of `[egress]`.
    pub(crate) egress: &'static str,
    /// Further lines of each target.
    pub(crate) target: &'static str,
    /// Whether each worker has a core of its own.
    pub(crate) pin_workers: bool,
    /// Further sections of the ingester, and of each egress.
    pub(crate) sections: [&'static str; 2],
    /// Where sources connect, if not on 127.0.0.1.
    pub(crate) public: Option<IpAddr>,
}

impl Tuning {
    /// No change.
    pub(crate) const NONE: Self = Self {
        relayed: &[],
        segment_bytes: None,
        node: "",
        ingester: "",
        egress: "",
        target: "",
        pin_workers: false,
        sections: [""; 2],
        public: None,
    };
}

/// A place for a relay: who dials a name of [`Tuning::relayed`] dials here.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// The egress of the link, or the target.
    pub(crate) name: &'static str,
    /// Where the relay listens.
    pub(crate) listen: SocketAddr,
    /// Where it leads.
    pub(crate) to: SocketAddr,
}

/// What drives the nodes' sockets and files; as their `--io`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Io {
    /// `io_uring`, or epoll where it is blocked.
    #[default]
    Auto,
    /// `io_uring` or nothing.
    Uring,
    /// epoll.
    Epoll,
}

impl Io {
    fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
        }
    }
}

/// A node of the lab.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// As in its SPIFFE id.
    pub(crate) name: String,
    /// Its configuration file.
    pub(crate) config: PathBuf,
    /// Where it answers `/readyz` and `/metrics`.
    pub(crate) admin: SocketAddr,
}

/// A lab on disk.
#[derive(Debug)]
pub(crate) struct Lab {
    /// Where everything is.
    pub(crate) directory: PathBuf,
    /// Certificates.
    pub(crate) pki: Pki,
    /// The public listener.
    pub(crate) public: SocketAddr,
    /// Where the targets listen.
    pub(crate) target: SocketAddr,
    /// Endpoints with their secrets.
    pub(crate) endpoints: Arc<[Endpoint]>,
    /// Targets with their secrets.
    pub(crate) targets: Arc<[Target]>,
    /// The ingester.
    pub(crate) ingester: Node,
    /// The egresses.
    pub(crate) egresses: Vec<Node>,
    /// Where the links listen: the ingester's, then each egress's.
    pub(crate) links: Vec<SocketAddr>,
    /// What is reached through relays.
    pub(crate) routes: Vec<Route>,
    /// What drives the nodes that are started from now on.
    pub(crate) io: Io,
    _lock: Flock<File>,
}

impl Lab {
    /// Makes a lab in `directory`; `workers` as in the nodes' configuration.
    pub(crate) fn make(directory: &Path, shape: Shape, workers: u32) -> Result<Self, LabError> {
        Self::make_tuned(directory, shape, workers, Tuning::NONE)
    }

    /// As [`Self::make`], with changes.
    pub(crate) fn make_tuned(
        directory: &Path,
        shape: Shape,
        workers: u32,
        tuning: Tuning,
    ) -> Result<Self, LabError> {
        let (directory, lock) = claim(directory)?;
        let workloads: Vec<(Role, &str)> = [(Role::Ingester, INGESTER), (Role::Target, TARGET_IDENTITY)]
            .into_iter()
            .chain(shape.egresses.iter().map(|egress| (Role::Egress, egress.name)))
            .collect();
        let pki = Pki::make(&directory.join("pki"), &workloads)?;
        let mut ports = Ports::default();
        let mut public = ports.claim(shape.public_port)?;
        public.set_ip(tuning.public.unwrap_or(public.ip()));
        let mut node = |name: &str| {
            let config = directory.join(format!("{name}.toml"));
            Ok::<_, LabError>(Node { name: name.to_owned(), config, admin: ports.claim(None)? })
        };
        let ingester = node(INGESTER)?;
        let egresses: Vec<Node> =
            shape.egresses.iter().map(|egress| node(egress.name)).collect::<Result<_, _>>()?;
        let names = shape.egresses.iter().flat_map(|egress| egress.targets);
        let mut lab = Self {
            public,
            target: ports.claim(None)?,
            endpoints: (0..shape.endpoints).map(|index| endpoint(shape, index)).collect(),
            targets: names.map(|name| Target { name: (*name).to_owned(), secret: secret() }).collect(),
            directory,
            pki,
            ingester,
            egresses,
            links: Vec::new(),
            routes: Vec::new(),
            io: Io::default(),
            _lock: lock,
        };
        lab.links = (0..=shape.egresses.len()).map(|_| ports.claim(None)).collect::<Result<Vec<_>, _>>()?;
        for name in tuning.relayed {
            let to = config::link_of(shape, &lab.links, name).unwrap_or(lab.target);
            lab.routes.push(Route { name, listen: ports.claim(None)?, to });
        }
        lab.write_secrets(shape)?;
        config::write(&lab, shape, workers, tuning)?;
        Ok(lab)
    }

    /// Where to dial to reach the link or target `name`, which is at `address`.
    fn dialled(&self, name: &str, address: SocketAddr) -> SocketAddr {
        self.routes.iter().find(|route| route.name == name).map_or(address, |route| route.listen)
    }

    /// Where the journals of `node` are.
    pub(crate) fn data_dir(&self, node: &Node) -> PathBuf {
        self.directory.join(&node.name)
    }

    /// The log of the process `name`.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// The secret file of `name`: an endpoint's id, a target, or `link-<egress>`.
    pub(crate) fn secret_file(&self, name: &str) -> PathBuf {
        self.directory.join("secrets").join(name)
    }

    /// Starts a node with the binary `program`; call it on the main thread.
    pub(crate) fn start(&self, node: &Node, program: &Path) -> Result<Process, LabError> {
        self.start_under(&[], node, program)
    }

    /// As [`Self::start`], by a command that becomes the node, such as `env` or `unshare`.
    pub(crate) fn start_under(
        &self,
        command: &[OsString],
        node: &Node,
        program: &Path,
    ) -> Result<Process, LabError> {
        let own = [
            program.as_os_str(),
            "--config".as_ref(),
            node.config.as_os_str(),
            "--io".as_ref(),
            self.io.label().as_ref(),
        ];
        let all: Vec<&OsStr> = command.iter().map(OsString::as_os_str).chain(own).collect();
        let (first, arguments) = all.split_first().expect("there is at least the node's program");
        Process::start(&node.name, Path::new(first), arguments, &self.log(&node.name))
    }

    fn write_secrets(&self, shape: Shape) -> Result<(), LabError> {
        let directory = self.directory.join("secrets");
        fs::create_dir(&directory).map_err(LabError::file(&directory))?;
        let write = |name: &str, text: &str| write_file(&self.secret_file(name), text.as_bytes(), 0o600);
        for endpoint in self.endpoints.iter() {
            write(&endpoint.id, &endpoint.secret)?;
        }
        for target in self.targets.iter() {
            write(&target.name, &target.secret)?;
        }
        for egress in shape.egresses {
            write(&format!("link-{}", egress.name), &secret())?;
        }
        self.write_json("endpoints.json", &self.endpoints[..])?;
        self.write_json("targets.json", &self.targets[..])
    }

    fn write_json(&self, name: &str, value: &(impl serde::Serialize + ?Sized)) -> Result<(), LabError> {
        let path = self.directory.join(name);
        let text = serde_json::to_string_pretty(value)
            .map_err(|source| LabError::Json { path: path.clone(), source })?;
        write_file(&path, text.as_bytes(), 0o600)
    }
}

/// Reads a JSON file of a lab, such as `endpoints.json`.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, LabError> {
    let text = fs::read_to_string(path).map_err(LabError::file(path))?;
    serde_json::from_str(&text).map_err(|source| LabError::Json { path: path.to_owned(), source })
}

/// The node's binary: `named`, or `zen-dataplane` beside this program.
pub(crate) fn node_program(named: Option<&Path>) -> Result<PathBuf, LabError> {
    let beside = || std::env::current_exe().map(|own| own.with_file_name("zen-dataplane"));
    let program = named.map_or_else(beside, |path| Ok(path.to_owned()));
    let failed = |source| LabError::Start { program: PathBuf::from("zen-dataplane"), source };
    let program = program.map_err(failed)?;
    program.canonicalize().map_err(|source| LabError::Start { program, source })
}

fn endpoint(shape: Shape, index: usize) -> Endpoint {
    let turns = SchemeName::ALL[index % SchemeName::ALL.len()];
    let scheme = if shape.routes.is_empty() { turns } else { SchemeName::GitHub };
    let secret = match scheme {
        SchemeName::StandardWebhooks => secret(),
        SchemeName::GitHub | SchemeName::Hmac => hex(&system_bytes::<20>()),
    };
    Endpoint { id: hex(&system_bytes::<16>()), scheme, secret }
}

fn secret() -> String {
    format!("whsec_{}", base64(&system_bytes::<32>()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_lab_has_what_the_shape_says_and_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let lab = Lab::make(directory.path(), Shape::CRASH, 1).unwrap();
            assert_eq!((lab.endpoints.len(), lab.targets.len(), lab.egresses.len()), (16, 4, 2));
            for endpoint in lab.endpoints.iter() {
                let mode = fs::metadata(lab.secret_file(&endpoint.id)).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600);
            }
            let text = fs::read_to_string(&lab.ingester.config).unwrap();
            assert_eq!(text.matches("[[ingester.endpoints]]").count(), 16);
            assert_eq!(text.matches("[[ingester.flows]]").count(), 16);
            assert_eq!(text.matches("direction = \"egress-dials\"").count(), 1);
            assert_eq!(text.matches("direction = \"ingester-dials\"").count(), 1);
            let busy = Lab::make(directory.path(), Shape::DEMO, 1);
            assert!(matches!(busy, Err(LabError::Busy(_))), "{busy:?}");
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("thesis.tex"), "years of work").unwrap();
        let refused = Lab::make(directory.path(), Shape::DEMO, 1);
        assert!(matches!(refused, Err(LabError::NotOurs(_))), "{refused:?}");
        assert!(directory.path().join("thesis.tex").exists());
    }
}
