//! The command line of whoever runs the control plane. Commands and the server share the database, and nothing else.

mod audit;
mod authority;
mod login;
mod person;
mod print;
mod restore;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use zen_control::{BundleOrder, ConfigurationInput, ControlError, Database, Directory, Role, Subject};
use zen_control_api::{Hex16, is_name};

/// Lets clusters in, issues their certificates, and keeps what they run by.
#[derive(Debug, Parser)]
#[command(name = "zen-control", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a control plane: CAs, keys and database in a new directory.
    Init(Init),
    /// Enrollment bundles.
    #[command(subcommand)]
    Bundle(Bundle),
    /// What clusters run by.
    #[command(subcommand)]
    Configuration(ConfigurationCommand),
    /// Refuse somebody before their certificate ends, everywhere.
    Deny(Deny),
    /// Take a denial back.
    Allow(Allow),
    /// Print clusters, members, versions, and when certificates end.
    Status(State),
    /// Copy the database into a new file, while the server runs.
    Backup(Backup),
    /// Bring a copy of the database back, into a directory that nobody uses.
    Restore(restore::Restore),
    /// Roots and issuing CAs.
    #[command(subcommand)]
    Authority(authority::AuthorityCommand),
    /// What a cluster's agent may do when its certificate has ended.
    Recovery(authority::Recovery),
    /// People: who may use the API.
    #[command(subcommand)]
    Person(person::PersonCommand),
    /// The audit log: who did what.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Get a token for an hour, which somebody confirms in a browser.
    Login(login::Login),
    /// Print the routes and types of the API for people, as `OpenAPI` 3.1.
    Openapi,
    /// Listen for agents and people.
    Run(run::Run),
}

#[derive(Debug, Args)]
struct State {
    /// The control plane's directory.
    #[arg(long)]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct Init {
    #[command(flatten)]
    state: State,
    /// Of all SPIFFE ids.
    #[arg(long)]
    trust_domain: String,
    /// Whose clusters they are.
    #[arg(long)]
    tenant: String,
    /// The first person, who may do everything.
    #[arg(long, default_value = "owner")]
    owner: String,
    /// Where browsers will reach it, for the link with which the owner signs in.
    #[arg(long, default_value = person::WEB_URL)]
    web_url: String,
}

#[derive(Debug, Subcommand)]
enum Bundle {
    /// Make a bundle that lets one agent in, once.
    Create(BundleCreate),
    /// Print all bundles.
    List(State),
    /// Revoke a bundle; who came in with it stays.
    Revoke(BundleRevoke),
}

#[derive(Debug, Args)]
struct BundleCreate {
    #[command(flatten)]
    state: State,
    /// The cluster that it lets in.
    #[arg(long)]
    cluster: String,
    /// How long it is good, 1m to 24h.
    #[arg(long, default_value = "1h", value_parser = life)]
    ttl: Duration,
    /// Where agents connect, `https://HOST:PORT`; up to four.
    #[arg(long, required = true)]
    url: Vec<String>,
    /// A new file, mode 0600.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct BundleRevoke {
    #[command(flatten)]
    state: State,
    /// As `bundle list` prints it.
    id: String,
}

#[derive(Debug, Subcommand)]
enum ConfigurationCommand {
    /// Sign and publish a cluster's next configuration.
    Set(ConfigurationSet),
}

#[derive(Debug, Args)]
struct ConfigurationSet {
    #[command(flatten)]
    state: State,
    /// Which cluster.
    #[arg(long)]
    cluster: String,
    /// JSON: members and secrets.
    file: PathBuf,
}

#[derive(Debug, Args)]
struct Deny {
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    whom: Whom,
    /// Why, for whoever reads the list.
    #[arg(long)]
    reason: Option<String>,
    /// When it ends by itself, Unix milliseconds.
    #[arg(long, value_name = "UNIX_MS")]
    until: Option<u64>,
}

#[derive(Debug, Args)]
struct Allow {
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    whom: Whom,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// An identity.
    #[arg(long)]
    spiffe_id: Option<String>,
    /// A certificate, hex.
    #[arg(long)]
    serial: Option<String>,
    /// A key, hex.
    #[arg(long)]
    spki_sha256: Option<String>,
}

#[derive(Debug, Args)]
struct Backup {
    #[command(flatten)]
    state: State,
    /// A new file, mode 0600; keys and certificates are copied apart.
    #[arg(long)]
    out: PathBuf,
}

/// Runs one command.
pub(crate) fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zen-control: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), ControlError> {
    match command {
        Command::Init(init) => initialize(&init),
        Command::Bundle(bundle) => run_bundle(bundle),
        Command::Configuration(ConfigurationCommand::Set(set)) => {
            let (directory, mut database) = set.state.open()?;
            let input = ConfigurationInput::read(&set.file)?;
            let version = zen_control::set_configuration(&directory, &mut database, &set.cluster, input)?;
            println!("{} has version {version}", set.cluster);
            Ok(())
        }
        Command::Deny(deny) => {
            let (directory, mut database) = deny.state.open()?;
            let end = (deny.reason.as_deref(), deny.until);
            zen_control::deny(&directory, &mut database, &deny.whom.into(), end, now_ms())
        }
        Command::Allow(allow) => {
            let (directory, mut database) = allow.state.open()?;
            zen_control::allow(&directory, &mut database, &allow.whom.into(), now_ms())
        }
        Command::Status(state) => {
            let (directory, database) = state.open()?;
            print::status(&zen_control::overview(&database)?);
            authority::root_change(&directory, &database)
        }
        Command::Backup(backup) => zen_control::back_up(&backup.state.open()?.1, &backup.out),
        Command::Authority(command) => authority::run(command),
        Command::Recovery(recovery) => authority::recovery(&recovery),
        Command::Person(command) => person::run(command),
        Command::Audit(command) => audit::run(command),
        Command::Login(login) => login::run(&login),
        Command::Openapi => {
            println!("{}", zen_control::openapi());
            Ok(())
        }
        Command::Restore(restore) => restore::run(&restore),
        Command::Run(run) => run::run(run),
    }
}

fn initialize(init: &Init) -> Result<(), ControlError> {
    if !is_name(&init.owner) {
        return Err(ControlError::Argument("--owner is letters, digits, dots, dashes, underscores"));
    }
    let directory = zen_control::initialize(&init.state.dir, &init.trust_domain, &init.tenant, now_ms())?;
    let mut database = zen_control::open_database(&directory)?;
    zen_control::add_person(&mut database, &init.owner, (None, Role::Owner), now_ms())?;
    let token = zen_control::make_sign_in_link(&mut database, &init.owner, now_ms())?;
    print::made(&init.state.dir);
    person::print_link(&init.web_url, &init.owner, &token);
    Ok(())
}

fn run_bundle(command: Bundle) -> Result<(), ControlError> {
    match command {
        Bundle::Create(create) => {
            let (directory, mut database) = create.state.open()?;
            let order = BundleOrder {
                cluster: &create.cluster,
                life_ms: create.ttl.as_millis() as u64,
                urls: create.url,
                out: &create.out,
            };
            let id = zen_control::create_bundle(&directory, &mut database, &order, now_ms())?;
            println!("bundle {id} for {} is in {}", create.cluster, create.out.display());
            Ok(())
        }
        Bundle::List(state) => {
            let (_, database) = state.open()?;
            print::bundles(&zen_control::list_bundles(&database, now_ms())?);
            Ok(())
        }
        Bundle::Revoke(revoke) => {
            let (_, mut database) = revoke.state.open()?;
            let id: Result<Hex16, ()> = revoke.id.parse();
            let id = id.map_err(|()| ControlError::Argument("a bundle's id is 32 digits of hex"))?;
            zen_control::revoke_bundle(&mut database, id, now_ms())
        }
    }
}

impl State {
    fn open(&self) -> Result<(Directory, Database), ControlError> {
        let directory = Directory::open(&self.dir)?;
        let database = zen_control::open_database(&directory)?;
        Ok((directory, database))
    }
}

impl From<Whom> for Subject {
    fn from(whom: Whom) -> Self {
        match (whom.spiffe_id, whom.serial, whom.spki_sha256) {
            (Some(id), _, _) => Self::Id(id),
            (None, Some(serial), _) => Self::Serial(serial),
            (None, None, Some(key)) => Self::Key(key),
            (None, None, None) => unreachable!("clap demands one of them"),
        }
    }
}

/// A number and one of `s`, `m`, `h`.
fn life(text: &str) -> Result<Duration, &'static str> {
    let expected = "a number and s, m or h, as in 1h";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(expected)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(expected),
    };
    let number: u32 = number.parse().map_err(|_| expected)?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
