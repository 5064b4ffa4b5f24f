//! `zen-control person`: who may use the API, and their certificates.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use zen_control::{ControlError, Role};

use super::{State, now_ms};

#[derive(Debug, Subcommand)]
pub(super) enum PersonCommand {
    /// Let somebody use the API.
    Add(Add),
    /// Print everybody, and what they are.
    List(State),
    /// Give somebody a role in a tenant, or take it, at once.
    Role(SetRole),
    /// Let somebody use the API no more, at once.
    Remove(Remove),
    /// Make a link with which somebody sets a new password, once, within an hour: also the way in when nothing else works.
    Link(Link),
    /// Make a key and a certificate of 12 hours for somebody.
    Certificate(Certificate),
}

#[derive(Debug, Args)]
pub(super) struct Add {
    #[command(flatten)]
    state: State,
    /// Who.
    #[arg(long)]
    name: String,
    /// Where; in the first tenant without it.
    #[arg(long)]
    tenant: Option<String>,
    /// owner, admin, editor or viewer.
    #[arg(long)]
    role: Role,
}

#[derive(Debug, Args)]
pub(super) struct SetRole {
    #[command(flatten)]
    state: State,
    /// Who.
    #[arg(long)]
    name: String,
    /// Where; in the first tenant without it.
    #[arg(long)]
    tenant: Option<String>,
    /// owner, admin, editor or viewer; none without it.
    #[arg(long)]
    role: Option<Role>,
}

#[derive(Debug, Args)]
pub(super) struct Remove {
    #[command(flatten)]
    state: State,
    /// Who.
    #[arg(long)]
    name: String,
}

#[derive(Debug, Args)]
pub(super) struct Link {
    #[command(flatten)]
    state: State,
    /// For whom.
    #[arg(long)]
    name: String,
    /// Where browsers reach the server.
    #[arg(long, default_value = WEB_URL)]
    web_url: String,
}

#[derive(Debug, Args)]
pub(super) struct Certificate {
    #[command(flatten)]
    state: State,
    /// For whom.
    #[arg(long)]
    name: String,
    /// A new directory, mode 0700, for `key.pem`, `certificate.pem` and `root.pem`.
    #[arg(long)]
    out: PathBuf,
}

/// Where the server listens for browsers in the documentation.
pub(super) const WEB_URL: &str = "https://localhost:8446";

/// A link is printed once, and is a secret until it is used or over.
pub(super) fn print_link(web_url: &str, name: &str, token: &str) {
    println!("{name} signs in with this link, once, within an hour (run --web-listen):");
    println!("{}/sign-in/link?token={token}", web_url.trim_end_matches('/'));
}

pub(super) fn run(command: PersonCommand) -> Result<(), ControlError> {
    match command {
        PersonCommand::Add(add) => {
            let place = (add.tenant.as_deref(), add.role);
            zen_control::add_person(&mut add.state.open()?.1, &add.name, place, now_ms())?;
            println!("{} is {}", add.name, add.role.name());
            Ok(())
        }
        PersonCommand::List(state) => {
            for person in zen_control::list_people(&state.open()?.1)? {
                let role = person.role.map_or("no role", Role::name);
                println!("{} {} {role}", person.name, person.tenant);
            }
            Ok(())
        }
        PersonCommand::Role(set) => {
            let place = (set.tenant.as_deref(), set.role);
            zen_control::set_person_role(&mut set.state.open()?.1, &set.name, place)
        }
        PersonCommand::Remove(remove) => {
            zen_control::remove_person(&mut remove.state.open()?.1, &remove.name)
        }
        PersonCommand::Link(link) => {
            let token = zen_control::make_sign_in_link(&mut link.state.open()?.1, &link.name, now_ms())?;
            print_link(&link.web_url, &link.name, &token);
            Ok(())
        }
        PersonCommand::Certificate(certificate) => {
            let (directory, mut database) = certificate.state.open()?;
            let out = &certificate.out;
            zen_control::certify_person(&directory, &mut database, &certificate.name, out, now_ms())?;
            let out = out.display();
            println!("For 12 hours; from another host with --connect-to localhost:8445:HOST:8445 as well:");
            println!(
                "curl --cacert {out}/root.pem --cert {out}/certificate.pem --key {out}/key.pem \
                 https://localhost:8445/healthz"
            );
            Ok(())
        }
    }
}
