//! The load generator against servers whose behaviour is known: what it must show, count, and say.

mod command;
mod counts;
mod messages;
mod node;
mod server;
mod stall;
