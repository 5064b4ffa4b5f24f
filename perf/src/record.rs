//! What was promised and what came: accepted events against arrivals at the target.
//!
//! An accepted event must arrive at least once, with its id, its body and valid signatures, and under one id
//! only: every body is of one source id. Arrivals without an acceptance are not faults: the answer was lost
//! with a connection.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::signature::hex;

/// How many events of a kind of fault are named in a report.
const NAMED_MAX: usize = 5;

/// An event that got a 202.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    /// Its number in the run.
    pub(crate) number: u64,
    /// The id in the answer.
    pub(crate) event_id: String,
    /// SHA-256 of the body sent.
    pub(crate) body_sha256: [u8; 32],
}

/// All arrivals of one event id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrived {
    /// How often it came.
    pub(crate) times: u64,
    /// SHA-256 of the bodies it came with; one, if all is well.
    pub(crate) bodies: BTreeSet<String>,
    /// What was wrong with its signatures.
    pub(crate) fault: Option<String>,
}

/// Arrivals by event id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals(pub(crate) HashMap<String, Arrived>);

impl Arrivals {
    /// Notes one arrival.
    pub(crate) fn add(&mut self, event_id: &str, body_sha256: String, fault: Option<String>) {
        if !self.0.contains_key(event_id) {
            self.0.insert(event_id.to_owned(), Arrived::default());
        }
        let arrived = self.0.get_mut(event_id).expect("just inserted");
        arrived.times += 1;
        arrived.bodies.insert(body_sha256);
        arrived.fault = arrived.fault.take().or(fault);
    }
}

/// The two sides compared.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Events with a 202.
    pub(crate) accepted: u64,
    /// Of them, how many arrived.
    pub(crate) delivered: u64,
    /// Arrivals beyond the first.
    pub(crate) duplicates: u64,
    /// Arrivals of events whose answer nobody got.
    pub(crate) unanswered: u64,
    /// Accepted, never arrived.
    pub(crate) lost: Vec<String>,
    /// Arrived with another body.
    pub(crate) wrong_body: Vec<String>,
    /// Arrived with a signature that does not verify.
    pub(crate) invalid: Vec<String>,
    /// Ids that were answered for two different events.
    pub(crate) shared_ids: Vec<String>,
    /// Bodies that arrived under two ids: one event was accepted twice.
    pub(crate) doubled: Vec<String>,
}

impl Comparison {
    /// Holds `arrivals` against `accepted`.
    pub(crate) fn new(accepted: &[Accepted], arrivals: &Arrivals) -> Self {
        let mut comparison = Self { accepted: accepted.len() as u64, ..Self::default() };
        let mut seen = HashSet::new();
        for event in accepted {
            let name = format!("{} (event {} of the run)", event.event_id, event.number);
            if !seen.insert(event.event_id.as_str()) {
                comparison.shared_ids.push(name.clone());
            }
            let Some(arrived) = arrivals.0.get(&event.event_id) else {
                comparison.lost.push(name);
                continue;
            };
            comparison.delivered += 1;
            if arrived.bodies.iter().any(|body| *body != hex(&event.body_sha256)) {
                comparison.wrong_body.push(name);
            }
        }
        for (event_id, arrived) in &arrivals.0 {
            comparison.duplicates += arrived.times - 1;
            comparison.unanswered += u64::from(!seen.contains(event_id.as_str()));
            if let Some(fault) = &arrived.fault {
                comparison.invalid.push(format!("{event_id}: {fault}"));
            }
        }
        comparison.doubled = doubled(arrivals);
        comparison
    }

    /// Whether nothing is wrong but that events may be lost.
    pub(crate) fn is_whole_but_lost(&self) -> bool {
        self.wrong_body.is_empty()
            && self.invalid.is_empty()
            && self.shared_ids.is_empty()
            && self.doubled.is_empty()
    }

    /// One line per kind of fault, naming its first events; none if the promise was kept.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let named = |events: &[String]| {
            let more = if events.len() > NAMED_MAX { ", ..." } else { "" };
            format!("{}{more}", events[..events.len().min(NAMED_MAX)].join(", "))
        };
        let faults = self.faults();
        let found = faults.iter().filter(|(_, events)| !events.is_empty());
        found.map(|(what, events)| format!("{} {what}: {}", events.len(), named(events))).collect()
    }

    fn faults(&self) -> [(&'static str, &Vec<String>); 5] {
        [
            ("LOST", &self.lost),
            ("with a wrong body", &self.wrong_body),
            ("with an invalid signature", &self.invalid),
            ("answered with the id of another", &self.shared_ids),
            ("DOUBLED, delivered under two ids", &self.doubled),
        ]
    }
}

fn doubled(arrivals: &Arrivals) -> Vec<String> {
    let mut ids: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (event_id, arrived) in &arrivals.0 {
        for body in &arrived.bodies {
            ids.entry(body).or_default().push(event_id);
        }
    }
    ids.into_values().filter(|ids| ids.len() > 1).map(|ids| ids.join(" and ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(number: u64, event_id: &str) -> Accepted {
        Accepted { number, event_id: event_id.to_owned(), body_sha256: [number as u8; 32] }
    }

    #[test]
    fn each_fault_is_found() {
        let sent = [accepted(0, "a"), accepted(1, "b"), accepted(2, "c"), accepted(3, "d"), accepted(4, "a")];
        let mut arrivals = Arrivals::default();
        arrivals.add("a", hex(&[0; 32]), None);
        arrivals.add("a", hex(&[0; 32]), None);
        arrivals.add("b", hex(&[9; 32]), None);
        arrivals.add("c", hex(&[2; 32]), Some("stale".to_owned()));
        arrivals.add("x", hex(&[5; 32]), None);
        let comparison = Comparison::new(&sent, &arrivals);
        assert_eq!((comparison.accepted, comparison.delivered, comparison.duplicates), (5, 4, 1));
        assert_eq!(comparison.unanswered, 1);
        assert_eq!(comparison.lost, ["d (event 3 of the run)"]);
        assert_eq!(comparison.wrong_body.len(), 2);
        assert_eq!(comparison.invalid, ["c: stale"]);
        assert_eq!(comparison.shared_ids, ["a (event 4 of the run)"]);
        assert_eq!(comparison.complaints().len(), 4);
    }

    #[test]
    fn one_body_under_two_ids_is_found() {
        let mut arrivals = Arrivals::default();
        arrivals.add("a", hex(&[0; 32]), None);
        arrivals.add("a", hex(&[0; 32]), None);
        arrivals.add("b", hex(&[1; 32]), None);
        assert!(Comparison::new(&[], &arrivals).doubled.is_empty());
        arrivals.add("c", hex(&[1; 32]), None);
        assert_eq!(Comparison::new(&[], &arrivals).doubled.len(), 1);
    }

    #[test]
    fn a_later_arrival_with_another_body_is_found() {
        let mut arrivals = Arrivals::default();
        arrivals.add("a", hex(&[0; 32]), None);
        assert!(Comparison::new(&[accepted(0, "a")], &arrivals).complaints().is_empty());
        arrivals.add("a", hex(&[7; 32]), None);
        assert_eq!(Comparison::new(&[accepted(0, "a")], &arrivals).wrong_body.len(), 1);
    }
}
