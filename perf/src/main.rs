//! `zen-perf`: everything around the nodes that shows what they do. Makes a lab with its own CA, sends
//! signed webhooks, plays the target, and drives the demo, the crash and power tests and the benchmark.

mod account;
mod agents;
mod arguments;
mod bench;
mod compare;
mod crash;
mod deliver;
mod demo;
mod duplicates;
mod error;
mod faults;
mod flood;
mod generator;
mod http;
mod idle;
mod lab;
mod load;
mod machines;
mod pairs;
mod peers;
mod pki;
mod power;
mod random;
mod receipts;
mod record;
mod relay;
mod report;
mod results;
mod samples;
mod scenario;
mod send;
mod sign;
mod signature;
mod sink;
mod soak;
mod stop;
mod tls;
mod vault;

use std::process::ExitCode;

fn main() -> ExitCode {
    arguments::run()
}
