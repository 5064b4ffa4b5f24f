//! Commands beside running a node.

mod route;

use clap::Subcommand;

pub use self::route::RouteError;

/// What is asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Which flows would take an event, and why; or what an output would make of it. No node is needed.
    Route(route::Route),
}

/// Runs a command.
pub fn run(command: Command) -> Result<(), RouteError> {
    match command {
        Command::Route(command) => command.run(),
    }
}
