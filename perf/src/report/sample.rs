//! A run as the lab writes it, made up, for the tests of the report.

use crate::results::{CpuPerEvent, FORMAT, Goal, Latency, Load, Machine, Round, Row, Run, Stages};

/// Three systems in two scenarios, one of them with several offered rates, two rounds each.
pub(super) fn run() -> Run {
    let mut rows = Vec::new();
    for (system, lacks, most, cpu) in [
        ("zen, io_uring", vec![], 100_000.0, [5.1, 6.3, 0.9]),
        ("HAProxy", vec!["durability", "dedupe", "retry"], 30_000.0, [31.0, 28.5, 0.4]),
        ("tokio-uring, default flags", vec!["durability"], 55_000.0, [14.0, 0.0, 2.2]),
    ] {
        let lacks: Vec<String> = lacks.into_iter().map(str::to_owned).collect();
        let row = |scenario: &str, body_bytes, connections, offered_per_s: Option<f64>| Row {
            scenario: scenario.to_owned(),
            system: system.to_owned(),
            lacks: lacks.clone(),
            body_bytes,
            connections,
            offered_per_s,
            rounds: [1.0, 1.1].map(|factor| round(offered_per_s, most * factor, cpu)).to_vec(),
        };
        rows.push(row("keep-alive", 1024, 256, None));
        for share in [0.1, 0.3, 0.5, 0.7, 0.9, 1.2] {
            rows.push(row("keep-alive", 1024, 256, Some(share * most)));
        }
        rows.push(row("github-mix", 8192, 32, None));
    }
    Run {
        format: FORMAT,
        begun_unix_s: 1_790_000_000,
        took_s: 312.4,
        revision: "0123abc".to_owned(),
        command: "scripts/bench --quick".to_owned(),
        machine: machine(),
        rows,
        stages: ["ingester", "egress"].map(stages).to_vec(),
        goals: goals(),
        remarks: vec!["nginx with Lua was not measured: <lua> module is not installed".to_owned()],
    }
}

fn machine() -> Machine {
    Machine {
        processor: "A processor".to_owned(),
        cores: 2,
        kernel: "6.18.0".to_owned(),
        memory_bytes: 8 << 30,
        disk: "ext4 on /dev/vda".to_owned(),
        features: ["sha_ni", "avx512f"].map(str::to_owned).to_vec(),
        versions: vec!["HAProxy 2.6.12".to_owned()],
        placement: ["hops: 0", "sender, sink: 1"].map(str::to_owned).to_vec(),
    }
}

fn goals() -> Vec<Goal> {
    let goal = |name: &str, value, wanted: &str, met| Goal {
        name: name.to_owned(),
        value,
        wanted: wanted.to_owned(),
        met,
    };
    vec![
        goal("cpu-two-hops-1k-256", Some(0.21), "<= 0.25 of HAProxy, whole machine", true),
        goal("p99-at-70-percent", Some(1.3), "< 1 of HAProxy's", false),
        goal("workers-1-to-2", None, ">= 1.8", false),
    ]
}

fn round(offered: Option<f64>, most: f64, [first, second, kernel]: [f64; 3]) -> Round {
    let accepted = offered.map_or(most, |rate| rate.min(most));
    let load = accepted / most;
    let middle_us = 200.0 / (1.02 - load.min(1.0)) + 8.0 * first;
    let curve = (0..=50).map(|step| {
        let nines = f64::from(step) / 10.0;
        (1.0 - 10f64.powf(-nines), middle_us * (0.6 + 0.35 * nines + 0.12 * nines * nines))
    });
    let mut curve: Vec<(f64, f64)> = curve.collect();
    curve.push((1.0, middle_us * 8.0));
    Round {
        load: Load {
            format: FORMAT,
            seconds: 2.0,
            offered: offered.map(|rate| (2.0 * rate) as u64),
            sent: (2.0 * accepted) as u64,
            accepted: (2.0 * accepted) as u64,
            connects: 256,
            client_fell_behind: offered.is_some_and(|rate| rate > most),
            send_lag_p99_us: offered.map(|_| 12.0),
            client_cpu_us: 5.0,
            latency: Latency { count: 100_000, mean_us: middle_us, max_us: middle_us * 8.0, curve },
            command: "zen-perf load --connections 256".to_owned(),
            ..Load::default()
        },
        cpu_us: Some(CpuPerEvent {
            machine: (first + second + kernel) * 1.08,
            first,
            second,
            kernel,
            sink: 4.0,
            sender: 5.0,
            strangers: 0.3,
        }),
        idle_connection_bytes: None,
        slowdown: Some(1.1),
    }
}

fn stages(hop: &str) -> Stages {
    let names = [
        "send (kernel)",
        "TLS",
        "receive (kernel)",
        "verify",
        "journal",
        "parse",
        "link",
        "dedupe",
        "wait",
        "rest",
    ];
    let stages =
        names.iter().zip((1..=10).rev()).map(|(name, rank)| ((*name).to_owned(), f64::from(rank) * 0.11));
    Stages {
        system: "zen, io_uring".to_owned(),
        hop: hop.to_owned(),
        scenario: "keep-alive".to_owned(),
        stages: stages.collect(),
    }
}
