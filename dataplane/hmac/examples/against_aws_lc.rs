//! Batches against aws-lc-rs, a message at a time: `cargo run --release -p zen-hmac --example against_aws_lc [KERNEL]...`
//!
//! Interleaved rounds; each figure is the median over rounds of (time of aws-lc-rs / time of the batch).

use std::hint::black_box;
use std::time::Instant;

use aws_lc_rs::hmac;
use zen_hmac::{Engine, Job, Kernel, PreparedKey, Tag};

const ROUNDS: usize = 61;
/// A sample takes about this long, so that the clock's own cost does not count.
const SAMPLE_BYTES: usize = 256 * 1024;
const BATCHES: [usize; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 32, 64];
const SIZES_BYTES: [usize; 5] = [0, 64, 256, 1024, 16384];

fn main() {
    let begun = Instant::now();
    let measured = Engine::measured();
    let took_ms = begun.elapsed().as_secs_f64() * 1e3;
    let chain: Vec<_> = measured.kernels().map(|(kernel, least)| format!("{kernel} from {least}")).collect();
    println!("measured in {took_ms:.1} ms: {}; failed: {:?}", chain.join(", "), measured.failed());
    let named: Vec<Kernel> = std::env::args().skip(1).map(|name| name.parse().expect("a kernel")).collect();
    table("measured", &measured);
    for kernel in named {
        match Engine::forced(kernel) {
            Ok(engine) => table(kernel.name(), &engine),
            Err(error) => println!("{error}"),
        }
    }
}

fn table(name: &str, engine: &Engine) {
    println!("{name:12} {}", BATCHES.map(|count| format!("{count:>13}")).concat());
    for bytes in SIZES_BYTES {
        row(&format!("{bytes} B"), engine, |_| bytes);
    }
    row("mixed", engine, |at| [64, 700, 1500, 8192, 300, 2500, 12000, 1024][(at * 5 + at / 8) % 8]);
}

fn row(name: &str, engine: &Engine, bytes: impl Fn(usize) -> usize) {
    let secrets: Vec<[u8; 32]> = (0..64).map(|seed| [seed; 32]).collect();
    let keys: Vec<_> = secrets.iter().map(|secret| PreparedKey::new(secret)).collect();
    let peers: Vec<_> = secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret)).collect();
    let messages: Vec<_> = (0..64).map(|at| vec![at as u8; bytes(at)]).collect();
    let jobs: Vec<_> =
        keys.iter().zip(&messages).map(|(key, message)| Job { key, parts: [message, &[]] }).collect();
    print!("{name:12} ");
    for count in BATCHES {
        let total: usize = messages[..count].iter().map(|message| message.len() + 256).sum();
        let repeat = (SAMPLE_BYTES / total).max(1);
        let mut tags: Vec<Tag> = Vec::new();
        let mut samples: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let theirs = time(repeat, || {
                    for (key, message) in peers[..count].iter().zip(&messages) {
                        black_box(hmac::sign(key, black_box(message)));
                    }
                });
                let ours = time(repeat, || engine.sign_jobs(black_box(&jobs[..count]), &mut tags));
                (theirs / ours, ours / (repeat * count) as f64 * 1e9)
            })
            .collect();
        samples.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (ratio, ns) = samples[ROUNDS / 2];
        print!("  {ratio:4.2} {ns:5.0}n");
    }
    println!();
}

fn time(repeat: usize, mut work: impl FnMut()) -> f64 {
    let begun = Instant::now();
    for _ in 0..repeat {
        work();
    }
    begun.elapsed().as_secs_f64()
}
