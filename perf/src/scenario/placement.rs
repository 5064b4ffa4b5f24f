//! Which cores do what. With four or more, sender, sink and hops have cores of their own; with fewer nothing is pinned.
//!
//! On two cores a pinned sender would leave one core to both hops and the sink: that measures how well they share it,
//! and the share is not the same for systems with one process and with two. Unpinned, all have what the scheduler gives.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::error::LabError;
use crate::lab::Process;

/// Fewer, and nothing is pinned.
const CORES_MIN: usize = 4;

/// The cores of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    cores: Vec<usize>,
}

/// Somebody who may have cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The load generator.
    Sender,
    /// The target.
    Sink,
    /// A hop, from 0, with so many workers.
    Hop(usize, u32),
}

impl Placement {
    /// Of the cores that this process may use.
    pub(super) fn here() -> Self {
        let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
        let is_allowed = |core: &usize| allowed.is_set(*core).unwrap_or(false);
        Self { cores: (0..CpuSet::count()).filter(is_allowed).collect() }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.cores.len()
    }

    /// How many two hops with `workers` each, sender and sink want.
    pub(super) fn wanted(workers: u32) -> usize {
        2 * workers as usize + 2
    }

    /// The cores of `role` while hops have `workers` each; none if it may run anywhere.
    pub(super) fn of(&self, role: Role) -> &[usize] {
        let count = self.cores.len();
        if count < CORES_MIN {
            return &[];
        }
        match role {
            Role::Sender => &self.cores[count - 1..],
            Role::Sink => &self.cores[count - 2..count - 1],
            Role::Hop(hop, workers) => {
                let workers = workers as usize;
                let first = hop * workers;
                if Self::wanted(workers as u32) > count { &[] } else { &self.cores[first..first + workers] }
            }
        }
    }

    /// Moves all threads of a process to the cores of its role; those that it starts later follow.
    pub(super) fn pin(&self, process: &Process, role: Role) -> Result<(), LabError> {
        let cores = self.of(role);
        if cores.is_empty() {
            return Ok(());
        }
        let refused = |error: nix::Error| LabError::Tool {
            what: format!("cannot pin {} to cores {cores:?}", process.name),
            reason: error.desc().to_owned(),
        };
        let mut set = CpuSet::new();
        for &core in cores {
            set.set(core).map_err(refused)?;
        }
        for one in crate::bench::family(process.id()) {
            let threads = std::fs::read_dir(format!("/proc/{one}/task")).into_iter().flatten().flatten();
            for thread in threads.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
                match sched_setaffinity(Pid::from_raw(thread), &set) {
                    // It has ended since.
                    Ok(()) | Err(nix::Error::ESRCH) => {}
                    Err(error) => return Err(refused(error)),
                }
            }
        }
        Ok(())
    }

    /// A line for each role.
    pub(super) fn describe(&self) -> Vec<String> {
        if self.of(Role::Sender).is_empty() {
            return vec![format!(
                "nothing is pinned: sender, sink and hops share {} cores, which the scheduler gives out",
                self.count()
            )];
        }
        let roles = [
            ("hop 1", Role::Hop(0, 1)),
            ("hop 2", Role::Hop(1, 1)),
            ("sink", Role::Sink),
            ("sender", Role::Sender),
        ];
        roles.map(|(name, role)| format!("{name}: core {}", self.of(role)[0])).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_shares_a_core_where_there_are_enough() {
        let four = Placement { cores: vec![0, 1, 2, 5] };
        let roles = [Role::Hop(0, 1), Role::Hop(1, 1), Role::Sink, Role::Sender];
        assert_eq!(roles.map(|role| four.of(role).to_vec()), [vec![0], vec![1], vec![2], vec![5]]);
        assert_eq!(four.of(Role::Hop(1, 2)), [0; 0], "two workers each want six cores");
        let six = Placement { cores: (0..6).collect() };
        assert_eq!(six.of(Role::Hop(1, 2)), [2, 3]);
        assert_eq!(six.of(Role::Sender), [5]);
        assert_eq!(four.describe(), ["hop 1: core 0", "hop 2: core 1", "sink: core 2", "sender: core 5"]);
    }

    #[test]
    fn on_two_cores_nothing_is_pinned() {
        let two = Placement { cores: vec![0, 1] };
        assert!([Role::Sender, Role::Sink, Role::Hop(0, 1)].iter().all(|role| two.of(*role).is_empty()));
        assert!(two.describe()[0].starts_with("nothing is pinned"));
        assert!(Placement::here().count() >= 1);
    }
}
