//! Cost of a batch of HMACs against one at a time: `cargo run --release -p zen-hmac --example lanes_cost`.

use std::hint::black_box;
use std::time::Instant;

use zen_hmac::{Job, PreparedKey, sign_jobs};

const ROUNDS: usize = 2000;
const JOBS: usize = 64;

fn main() {
    let key = PreparedKey::new(b"0123456789abcdef0123456789abcdef");
    let mut tags = Vec::new();
    for bytes in [64, 256, 1024, 4096, 16384] {
        let message = vec![7_u8; bytes];
        let jobs = [Job { key: &key, parts: [&message[..40], &message[40..]] }; JOBS];
        let rounds = ROUNDS * 1024 / (bytes + 256);
        let mut best = [f64::MAX; 2];
        for _ in 0..5 {
            let begun = Instant::now();
            for _ in 0..rounds {
                sign_jobs(black_box(&jobs), &mut tags);
            }
            best[0] = best[0].min(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            for _ in 0..rounds {
                for job in black_box(&jobs) {
                    let mut running = job.key.start();
                    running.update(job.parts[0]);
                    running.update(job.parts[1]);
                    black_box(running.finish());
                }
            }
            best[1] = best[1].min(begun.elapsed().as_secs_f64());
        }
        let [batch, single] = best.map(|s| s / (rounds * JOBS) as f64 * 1e9);
        println!(
            "{bytes} bytes: batch {batch:.0} ns, one at a time {single:.0} ns, ratio {:.2}",
            batch / single
        );
    }
}
