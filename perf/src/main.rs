//! `zen-perf`: everything around the nodes that shows what they do. Makes a lab with its own CA, sends
//! signed webhooks, plays the target, and drives the demo, the crash and power tests and the benchmark.

mod agents;
mod arguments;
mod bench;
mod crash;
mod deliver;
mod demo;
mod duplicates;
mod error;
mod faults;
mod flood;
mod http;
mod idle;
mod lab;
mod load;
mod pairs;
mod pki;
mod power;
mod random;
mod receipts;
mod record;
mod relay;
mod samples;
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
