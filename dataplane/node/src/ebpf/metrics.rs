//! What the programs counted, as metrics; read from the kernel at each scrape.

use std::fmt::Error;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use zen_ebpf::abi::observe::{Counts, Histogram};
use zen_ebpf::abi::{fence, guard};

use super::Programs;

/// Seconds.
const MICROSECONDS: f64 = 1e-6;

/// Its view of the programs, for the registry.
#[derive(Clone)]
pub struct EbpfMetrics(pub Arc<Mutex<Programs>>);

impl std::fmt::Debug for EbpfMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EbpfMetrics").finish()
    }
}

/// A value with its labels.
type Row = (Vec<(&'static str, String)>, u64);

impl Collector for EbpfMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let programs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counters(
            &mut encoder,
            "zen_guard_packets",
            "Packets at listeners, by verdict",
            &guard_rows(&programs),
        )?;
        counters(
            &mut encoder,
            "zen_fence_connections",
            "Outgoing connections, by verdict",
            &fence_rows(&programs),
        )?;
        let steer = "Connections, by who chose their worker";
        counters(&mut encoder, "zen_steer_connections", steer, &steer_rows(&programs))?;
        missing(&mut encoder, programs.missing.len() as u64)?;
        let Some((observe, places)) = &programs.observe else { return Ok(()) };
        observed(&mut encoder, &places.counts(observe))
    }
}

fn missing(encoder: &mut DescriptorEncoder<'_>, count: u64) -> Result<(), Error> {
    let help = "Programs that are configured and not in force";
    let metric = encoder.encode_descriptor("zen_ebpf_missing", help, None, MetricType::Gauge)?;
    ConstGauge::new(count).encode(metric)
}

fn observed(encoder: &mut DescriptorEncoder<'_>, places: &[(String, Counts)]) -> Result<(), Error> {
    let mut connections = Vec::new();
    let mut bytes = Vec::new();
    for (place, counts) in places {
        let row =
            |label, value: &str, count| (vec![("place", place.clone()), (label, value.to_owned())], count);
        connections.extend([
            row("event", "opened", counts.opened),
            row("event", "closed", counts.closed),
            row("event", "reset", counts.reset),
            row("event", "failed", counts.failed),
        ]);
        bytes.extend([
            row("direction", "sent", counts.bytes_sent),
            row("direction", "received", counts.bytes_received),
        ]);
    }
    counters(encoder, "zen_tcp_connections", "Connections, by place and what became of them", &connections)?;
    counters(encoder, "zen_tcp_bytes", "Bytes of connections, acknowledged or received", &bytes)?;
    let handshake = "From SYN to established";
    histograms(encoder, ("zen_tcp_handshake_seconds", handshake), MICROSECONDS, places, |counts| {
        &counts.handshake_us
    })?;
    let rtt = "Smoothed round trip when a connection ends";
    histograms(encoder, ("zen_tcp_rtt_seconds", rtt), MICROSECONDS, places, |counts| &counts.rtt_us)?;
    let again = "Segments sent again, of each connection that ended";
    histograms(encoder, ("zen_tcp_retransmits", again), 1.0, places, |counts| &counts.retransmits)
}

fn guard_rows(programs: &Programs) -> Vec<Row> {
    let counts = programs.guard.as_ref().and_then(|guard| guard.counts().ok()).unwrap_or_default();
    let rows = counts.into_iter().flat_map(|(port, counts)| {
        let port = move || ("port", port.to_string());
        let reasons = guard::Reason::ALL.map(guard::Reason::label);
        verdicts(counts.passed, &reasons, &counts.refused, &counts.observed)
            .into_iter()
            .map(move |(labels, count)| ([vec![port()], labels].concat(), count))
            .collect::<Vec<_>>()
    });
    rows.collect()
}

fn fence_rows(programs: &Programs) -> Vec<Row> {
    let Some(counts) = programs.fence.as_ref().and_then(|fence| fence.counts().ok()) else {
        return Vec::new();
    };
    let reasons = fence::Reason::ALL.map(fence::Reason::label);
    verdicts(counts.passed, &reasons, &counts.refused, &counts.observed)
}

fn steer_rows(programs: &Programs) -> Vec<Row> {
    let address = |(address, steer): &(std::net::SocketAddr, zen_ebpf::Steer)| {
        let counts = steer.counts().ok()?;
        let row = |by: &str, count| (vec![("listener", address.to_string()), ("by", by.to_owned())], count);
        Some([row("processor", counts.steered), row("hash", counts.hashed)])
    };
    programs.steer.iter().filter_map(address).flatten().collect()
}

fn verdicts(passed: u64, reasons: &[&'static str], refused: &[u64], observed: &[u64]) -> Vec<Row> {
    let row = |verdict: &str, reason: &str, count| {
        (vec![("verdict", verdict.to_owned()), ("reason", reason.to_owned())], count)
    };
    let mut rows = vec![row("passed", "", passed)];
    for (at, reason) in reasons.iter().enumerate() {
        rows.push(row("refused", reason, refused[at]));
        rows.push(row("observed", reason, observed[at]));
    }
    rows
}

fn counters(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, rows: &[Row]) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in rows {
        ConstCounter::new(*count).encode(metric.encode_family(labels)?)?;
    }
    Ok(())
}

/// Of values whose unit is `unit` of what is shown.
fn histograms(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    unit: f64,
    places: &[(String, Counts)],
    pick: impl Fn(&Counts) -> &Histogram,
) -> Result<(), Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (place, counts) in places {
        let histogram = pick(counts);
        let labels = [("place", place.as_str())];
        let mut family = metric.encode_family(&labels)?;
        let total = histogram.buckets.iter().sum();
        let sum = histogram.sum as f64 * unit;
        family.encode_histogram::<NoLabelSet>(sum, total, &buckets(histogram, unit), None)?;
    }
    Ok(())
}

/// Upper bounds and counts: bucket n holds what has n bits.
fn buckets(histogram: &Histogram, unit: f64) -> Vec<(f64, u64)> {
    let last = histogram.buckets.len() - 1;
    let bound = |bits: usize| if bits == last { f64::INFINITY } else { ((1_u64 << bits) - 1) as f64 * unit };
    histogram.buckets.iter().enumerate().map(|(bits, count)| (bound(bits), *count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_its_bits_end() {
        let mut histogram = Histogram::default();
        histogram.buckets[10] = 3;
        let buckets = buckets(&histogram, MICROSECONDS);
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 3);
        assert!((buckets[10].0 - 1023e-6).abs() < 1e-9 && buckets[10].1 == 3);
        assert!(buckets[0].0 < 1e-9 && buckets[31].0 > 1e30);
    }
}
