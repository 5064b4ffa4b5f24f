//! Each kernel and the measured engine, by batch size: `cargo bench -p zen-hmac`. Throughput is in messages.
//!
//! `examples/against_aws_lc.rs` compares with aws-lc-rs in interleaved rounds; here each stands alone.

use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::hmac;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zen_hmac::{Engine, Job, Kernel, PreparedKey};

const BATCHES: [usize; 4] = [1, 4, 16, 64];
const SIZES_BYTES: [usize; 3] = [64, 1024, 8192];

fn batches(criterion: &mut Criterion) {
    let mut engines = vec![("measured", Engine::measured())];
    for kernel in Kernel::ALL {
        if let Ok(engine) = Engine::forced(kernel) {
            engines.push((kernel.name(), engine));
        }
    }
    let secrets: Vec<[u8; 32]> = (0..64).map(|seed| [seed; 32]).collect();
    let keys: Vec<_> = secrets.iter().map(|secret| PreparedKey::new(secret)).collect();
    let peers: Vec<_> = secrets.iter().map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret)).collect();
    for bytes in SIZES_BYTES {
        let message = vec![7; bytes];
        let jobs: Vec<_> = keys.iter().map(|key| Job { key, parts: [&message, &[]] }).collect();
        let mut group = criterion.benchmark_group(format!("{bytes} bytes"));
        group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(500));
        for count in BATCHES {
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new("aws-lc-rs", count), |bencher| {
                bencher.iter(|| {
                    for key in &peers[..count] {
                        black_box(hmac::sign(key, &message));
                    }
                });
            });
            for (name, engine) in &engines {
                let mut tags = Vec::new();
                group.bench_function(BenchmarkId::new(*name, count), |bencher| {
                    bencher.iter(|| engine.sign_jobs(black_box(&jobs[..count]), &mut tags));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, batches);
criterion_main!(benches);
