//! Whether a race counts, and a line for each goal: `goal NAME: VALUE (wanted ...) met|missed`.

use super::contender::{Figures, Kind};
use super::{GOAL_CELL, Row};
use crate::error::LabError;

/// HAProxy's CPU per event of both hops, µs, at 1 KiB and so many connections, on the reference machine.
const REFERENCE_US: [(u32, f64); 2] = [(32, 28.8 + 27.3), (256, 43.0 + 40.0)];
const REFERENCE_BODY_BYTES: usize = 1024;
/// How much worse than its reference HAProxy may be.
const WORSE_MAX: f64 = 1.25;
const CPU_SHARE_MAX: f64 = 0.40;
const EPOLL_SHARE_MAX: f64 = 1.0;
const ENTERS_MAX: f64 = 0.5;
/// What rustls allocates for a record that comes and one that goes; the egress keeps the event besides.
const ALLOCATIONS_MAX: [f64; 2] = [2.0, 4.0];

/// Prints how HAProxy did beside its reference; `false` if that invalidates the run.
pub(super) fn print_validity(rows: &[Row]) -> bool {
    let mut valid = true;
    for (connections, reference_us) in REFERENCE_US {
        let found = rows.iter().find(|row| {
            row.kind == Kind::HaProxy
                && row.cell.body_bytes == REFERENCE_BODY_BYTES
                && row.cell.connections == connections
        });
        let Some(row) = found else { continue };
        let slowdown = row.median(|one| one.calibration.slowdown());
        let hmac_ns = row.median(|one| one.calibration.hmac_ns);
        let request_us = row.median(|one| one.calibration.request_ns) / 1000.0;
        let measured_us = row.median(|one| one.cpu.first + one.cpu.second);
        let expected_us = reference_us * slowdown;
        let relation = measured_us / expected_us;
        println!(
            "HAProxy, {connections} connections, 1 KiB: {measured_us:.1} µs in both hops; reference {reference_us:.1} µs, \
             {expected_us:.1} µs at this machine's speed ({slowdown:.2} times slower: HMAC of 1 KiB {hmac_ns:.0} ns, \
             request on epoll {request_us:.1} µs): {relation:.2} of what was expected"
        );
        if !is_fair(relation) {
            let strangers = 100.0 * row.median(|one| one.cpu.others / one.cpu.busy.max(1.0));
            println!(
                "run INVALID: HAProxy did worse than {WORSE_MAX} times its reference at {connections} connections; \
                 strangers' processes had {strangers:.0} % of the busy time, so try again on a quiet machine"
            );
            valid = false;
        }
    }
    valid
}

/// Prints the goals that this run can tell about; whether all were met.
pub(super) fn print(rows: &[Row], allocations: Option<Result<[f64; 2], LabError>>) -> bool {
    let row = |kind| rows.iter().find(|row| row.kind == kind && row.cell == GOAL_CELL);
    let machine = |one: &Figures| one.cpu.machine();
    let mut met = true;
    if let (Some(zen), Some(rival)) = (row(Kind::Uring), row(Kind::HaProxy)) {
        let share = zen.median(machine) / rival.median(machine);
        met &= line("cpu-two-hops-256x1KiB", share, CPU_SHARE_MAX, "of HAProxy, whole machine");
    }
    if let (Some(ring), Some(epoll)) = (row(Kind::Uring), row(Kind::Epoll)) {
        let share = ring.median(machine) / epoll.median(machine);
        met &= line("cpu-uring-256x1KiB", share, EPOLL_SHARE_MAX, "of epoll, whole machine");
    }
    if let Some(zen) = row(Kind::Uring) {
        for (hop, name) in ["ingester", "egress"].into_iter().enumerate() {
            let enters = zen.median(|one| one.enters.map_or(f64::NAN, |enters| enters[hop]));
            met &= line(&format!("syscalls-{name}-256x1KiB"), enters, ENTERS_MAX, "enters per event");
        }
    }
    met & allocation_lines(allocations)
}

fn allocation_lines(allocations: Option<Result<[f64; 2], LabError>>) -> bool {
    let Some(allocations) = allocations else { return true };
    let counts = allocations.unwrap_or_else(|error| {
        println!("allocations could not be counted: {error}");
        [f64::NAN; 2]
    });
    let mut met = true;
    for ((name, count), most) in ["ingester", "egress"].into_iter().zip(counts).zip(ALLOCATIONS_MAX) {
        met &= line(&format!("allocations-{name}-256x1KiB"), count, most, "per event");
    }
    met
}

/// What was not measured is not met.
fn line(name: &str, value: f64, most: f64, unit: &str) -> bool {
    let met = value <= most;
    println!("goal {name}: {value:.2} (wanted <= {most:.2} {unit}) {}", if met { "met" } else { "missed" });
    met
}

fn is_fair(relation: f64) -> bool {
    relation <= WORSE_MAX
}

#[cfg(test)]
mod tests {
    use super::super::calibration::Calibration;
    use super::super::contender::Cell;
    use super::super::cpu::Cpu;
    use super::*;

    fn row(kind: Kind, hop_us: f64) -> Row {
        let cpu = Cpu { first: hop_us, second: hop_us, busy: 2.0 * hop_us, ..Cpu::default() };
        let calibration = Calibration { hmac_ns: 657.0, request_ns: 3600.0 };
        let one =
            Figures { events_per_s: 1.0, cpu, answer_ms: [0.0; 3], enters: Some([0.1, 0.1]), calibration };
        Row { cell: Cell { body_bytes: 1024, connections: 256 }, kind, rounds: vec![one] }
    }

    #[test]
    fn a_rival_much_worse_than_its_reference_invalidates_the_run() {
        assert!(print_validity(&[row(Kind::HaProxy, 41.5)]));
        assert!(print_validity(&[row(Kind::HaProxy, 51.0)]));
        assert!(!print_validity(&[row(Kind::HaProxy, 53.0)]));
    }

    #[test]
    fn goals_are_met_up_to_their_bound() {
        let counted = || Some(Ok([2.0, 4.0]));
        assert!(print(&[row(Kind::Uring, 16.0), row(Kind::HaProxy, 40.0)], counted()));
        assert!(!print(&[row(Kind::Uring, 17.0), row(Kind::HaProxy, 40.0)], counted()));
        assert!(!print(&[row(Kind::Uring, 41.0), row(Kind::Epoll, 40.0)], counted()));
        assert!(!print(&[row(Kind::Uring, 16.0)], Some(Ok([2.1, 4.0]))));
        assert!(!print(&[row(Kind::Uring, 16.0)], Some(Ok([f64::NAN, 4.0]))));
    }
}
