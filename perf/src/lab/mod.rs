//! A lab: a directory with certificates, secrets and configurations for one ingester, its egresses and
//! their targets, all on 127.0.0.1. Secrets are files in clear, or sealed and handed out by zen-lockd.
//!
//! In: a [`Shape`]. Out: files, ports, and what client and sink need to know. The directory is wiped
//! first if it is a lab's, refused if it is anything else, and locked while it is in use.

mod api;
mod config;
mod ground;
mod metrics;
mod objects;
mod process;
mod secrets;
mod shape;
mod steps;
mod trust;
mod vault;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::Flock;

pub(crate) use self::ground::{claim, claim_port};
pub(crate) use self::metrics::{Metrics, get, quantile_of};
pub(crate) use self::process::{Process, become_child, wait_ready};
use self::secrets::Custody;
pub(crate) use self::secrets::{Kind, Secret};
pub(crate) use self::shape::{BAD_TARGETS, COSTS, DARK_TARGET, Shape, TOUR_FAN_OUT, TOUR_FLAKY};
pub(crate) use self::steps::Steps;
pub(crate) use self::trust::Trust;
pub(crate) use self::vault::Vault;
use crate::error::LabError;
use crate::pki::{Pki, Role};
use crate::random::system_bytes;
use crate::samples::{Endpoint, SchemeName};
use crate::signature::hex;
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
    /// Where egresses dial the ingester, if not on 127.0.0.1.
    pub(crate) link: Option<IpAddr>,
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
        link: None,
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
    /// The directory that it watches instead, if an agent looks after it.
    pub(crate) managed: Option<PathBuf>,
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
    /// All secrets, those of endpoints and targets included.
    pub(crate) secrets: Vec<Secret>,
    custody: Custody,
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
        let lab = Self::build(directory, shape, workers, tuning, Custody::Files)?;
        secrets::write_files(&lab)?;
        Ok(lab)
    }

    /// As [`Self::make`], without a secret in clear: its zen-lockd hands them to `node`, the nodes' program.
    pub(crate) fn make_sealed(
        directory: &Path,
        shape: Shape,
        workers: u32,
        node: &Path,
    ) -> Result<(Self, Vault), LabError> {
        let lab = Self::build(directory, shape, workers, Tuning::NONE, Custody::Lockd)?;
        let vault = Vault::make(&lab, shape, node)?;
        Ok((lab, vault))
    }

    /// As [`Self::make_sealed`], with a control plane and an agent that bring nodes their identities and configurations.
    pub(crate) fn make_managed(
        directory: &Path,
        shape: Shape,
        workers: u32,
        node: &Path,
    ) -> Result<(Self, Vault, Trust), LabError> {
        let mut lab = Self::build(directory, shape, workers, Tuning::NONE, Custody::Managed)?;
        let trust = Trust::make(&lab, shape, workers)?;
        let vault = Vault::make_managed(&lab, shape, node, &trust)?;
        for own in std::iter::once(&mut lab.ingester).chain(&mut lab.egresses) {
            let managed = trust.managed(&own.name);
            own.config = managed.join("current/node.toml");
            own.managed = Some(managed);
        }
        Ok((lab, vault, trust))
    }

    fn build(
        directory: &Path,
        shape: Shape,
        workers: u32,
        tuning: Tuning,
        custody: Custody,
    ) -> Result<Self, LabError> {
        let (directory, lock) = claim(directory)?;
        let workloads: Vec<(Role, &str)> = [(Role::Ingester, INGESTER), (Role::Target, TARGET_IDENTITY)]
            .into_iter()
            .chain(shape.egresses.iter().map(|egress| (Role::Egress, egress.name)))
            .collect();
        let (pki, keys) = Pki::certify(&directory.join("pki"), &workloads)?;
        let mut public = claim_port(shape.public_port)?;
        public.set_ip(tuning.public.unwrap_or(public.ip()));
        let node = |name: &str| {
            let config = directory.join(format!("{name}.toml"));
            Ok::<_, LabError>(Node { name: name.to_owned(), config, managed: None, admin: claim_port(None)? })
        };
        let ingester = node(INGESTER)?;
        let egresses: Vec<Node> =
            shape.egresses.iter().map(|egress| node(egress.name)).collect::<Result<_, _>>()?;
        let endpoints: Arc<[Endpoint]> = (0..shape.endpoints).map(|index| endpoint(shape, index)).collect();
        let targets: Arc<[Target]> =
            shape.egresses.iter().flat_map(|egress| egress.targets).map(|name| target(name)).collect();
        let mut lab = Self {
            public,
            target: claim_port(None)?,
            secrets: secrets::all(shape, &endpoints, &targets, keys, custody),
            custody,
            endpoints,
            targets,
            directory,
            pki,
            ingester,
            egresses,
            links: Vec::new(),
            routes: Vec::new(),
            io: Io::default(),
            _lock: lock,
        };
        lab.links = (0..=shape.egresses.len()).map(|_| claim_port(None)).collect::<Result<Vec<_>, _>>()?;
        if let Some(address) = tuning.link {
            lab.links[0].set_ip(address);
        }
        for name in tuning.relayed {
            let to = config::link_of(shape, &lab.links, name).unwrap_or(lab.target);
            lab.routes.push(Route { name, listen: claim_port(None)?, to });
        }
        config::write(&lab, shape, workers, tuning)?;
        Ok(lab)
    }

    /// The ingester, then the egresses.
    fn nodes(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.ingester).chain(&self.egresses)
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

    /// The value of a secret of this lab.
    pub(crate) fn secret(&self, kind: Kind, key: &str) -> &str {
        let found = self.secrets.iter().find(|secret| secret.kind == kind && secret.key == key);
        found.expect("a secret of the lab's shape").value.as_str()
    }

    /// How a configuration names a secret: the file, or what zen-lockd calls it.
    fn secret_name(&self, kind: Kind, key: &str) -> String {
        match self.custody {
            Custody::Files => self.secret_file(kind, key).display().to_string(),
            Custody::Lockd | Custody::Managed => format!("lockd:{}", kind.sealed_name(key)),
        }
    }

    /// The file of a secret in a lab that keeps files.
    fn secret_file(&self, kind: Kind, key: &str) -> PathBuf {
        let secrets = self.directory.join("secrets");
        match kind {
            Kind::Endpoint | Kind::Target => secrets.join(key),
            Kind::Link => secrets.join(format!("link-{key}")),
            Kind::PrivateKey => self.pki.key(key),
            Kind::HashKey => secrets.join(format!("hash-{key}")),
        }
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
        let (option, place): (&str, &Path) = match &node.managed {
            Some(managed) => ("--managed", managed),
            None => ("--config", &node.config),
        };
        let own = [
            program.as_os_str(),
            option.as_ref(),
            place.as_os_str(),
            "--io".as_ref(),
            self.io.label().as_ref(),
        ];
        let all: Vec<&OsStr> = command.iter().map(OsString::as_os_str).chain(own).collect();
        let (first, arguments) = all.split_first().expect("there is at least the node's program");
        Process::start(&node.name, Path::new(first), arguments, &self.log(&node.name))
    }
}

/// Reads a JSON file of a lab, such as `endpoints.json`.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, LabError> {
    let text = fs::read_to_string(path).map_err(LabError::file(path))?;
    serde_json::from_str(&text).map_err(|source| LabError::Json { path: path.to_owned(), source })
}

/// The node's binary: `named`, or `zen-dataplane` beside this program.
pub(crate) fn node_program(named: Option<&Path>) -> Result<PathBuf, LabError> {
    let Some(program) = named else {
        return beside("zen-dataplane");
    };
    program.canonicalize().map_err(|source| LabError::Start { program: program.to_owned(), source })
}

/// A program beside this one, without symbolic links in its path.
pub(crate) fn beside(name: &str) -> Result<PathBuf, LabError> {
    let own = std::env::current_exe().map(|own| own.with_file_name(name));
    own.and_then(|program| program.canonicalize())
        .map_err(|source| LabError::Start { program: PathBuf::from(name), source })
}

fn endpoint(shape: Shape, index: usize) -> Endpoint {
    let turns = SchemeName::ALL[index % SchemeName::ALL.len()];
    let scheme = if shape.routes.is_empty() { turns } else { SchemeName::GitHub };
    Endpoint { id: hex(&system_bytes::<16>()), scheme, secret: secrets::source_secret(scheme) }
}

fn target(name: &str) -> Target {
    Target { name: name.to_owned(), secret: secrets::signing_secret() }
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
                let mode =
                    fs::metadata(lab.secret_file(Kind::Endpoint, &endpoint.id)).unwrap().permissions().mode();
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
    fn a_lab_with_lockd_names_its_secrets_and_has_none_in_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let lab = Lab::build(directory.path(), Shape::DEMO, 1, Tuning::NONE, Custody::Lockd).unwrap();
        let [edge, inside] =
            [&lab.ingester, &lab.egresses[0]].map(|node| fs::read_to_string(&node.config).unwrap());
        for name in ["private-keys/edge-1", "private-keys/public", "links/inside", "hash-keys/edge-1"] {
            assert!(edge.contains(&format!("\"lockd:lab/{name}\"")), "{name} in {edge}");
        }
        for name in ["private-keys/inside", "links/inside", "hash-keys/inside", "targets/flaky"] {
            assert!(inside.contains(&format!("\"lockd:lab/{name}\"")), "{name} in {inside}");
        }
        let socket = format!("[lockd]\nsocket = \"{}\"\n", vault::socket(&lab.directory).display());
        assert!(edge.contains(&socket) && inside.contains(&socket), "{edge}");
        assert!(!lab.directory.join("secrets").exists());
        for secret in &lab.secrets {
            assert!(!lab.secret_file(secret.kind, &secret.key).exists(), "{secret:?}");
            assert!(!edge.contains(secret.value.as_str()) && !inside.contains(secret.value.as_str()));
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
