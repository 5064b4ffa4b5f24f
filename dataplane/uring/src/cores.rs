//! Which cores this process may use, and putting the calling thread on one of them.

use nix::{
    errno::Errno,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use crate::error::PinError;

/// The calling thread.
const SELF: Pid = Pid::from_raw(0);

/// The cores that the calling thread may run on, ascending (`sched_getaffinity(2)`).
pub fn online_cores() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(SELF) else {
        // More cores than the set can name.
        return (0..std::thread::available_parallelism().map_or(1, usize::from)).collect();
    };
    (0..CpuSet::count()).filter(|&core| allowed.is_set(core) == Ok(true)).collect()
}

/// Puts the calling thread on `core` and nowhere else (`sched_setaffinity(2)`).
pub fn pin_to_core(core: usize) -> Result<(), PinError> {
    let failed = |error: Errno| PinError { core, source: error.into() };
    let mut only = CpuSet::new();
    only.set(core).map_err(failed)?;
    sched_setaffinity(SELF, &only).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_use_its_core_only() {
        let cores = online_cores();
        let last = *cores.last().unwrap();
        let seen = std::thread::spawn(move || pin_to_core(last).map(|()| online_cores())).join().unwrap();
        assert_eq!(seen.unwrap(), [last]);
        assert_eq!(online_cores(), cores);
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        for core in [1000, usize::MAX] {
            let error = pin_to_core(core).unwrap_err();
            assert!(error.to_string().contains(&core.to_string()), "{error}");
        }
    }
}
