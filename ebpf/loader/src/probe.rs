//! Which programs this kernel takes: each is loaded and thrown away; nothing is attached.

use crate::cgroup::CgroupError;
use crate::error::EbpfError;
use crate::fence::Fence;
use crate::guard::Guard;
use crate::observe::Observe;
use crate::steer::Steer;

/// Sources of a guard that is only tried.
const SOURCES: u32 = 16;

/// A feature, and why it is not there.
#[derive(Debug)]
pub struct Feature {
    /// Its name in configuration and documents.
    pub name: &'static str,
    /// Whether it is.
    pub result: Result<(), EbpfError>,
}

/// All of them. `cgroup` is what [`crate::Cgroup::join`] said.
pub fn probe(cgroup: Result<(), CgroupError>) -> Vec<Feature> {
    let (socket, interface) = match Guard::load(&[], SOURCES) {
        Ok(mut guard) => guard.load_programs().into(),
        Err(error) => (Err(error), Guard::load(&[], SOURCES).map(drop)),
    };
    let features = [
        ("cgroup", cgroup.map_err(EbpfError::from)),
        ("guard", socket),
        ("guard_xdp", interface),
        ("fence", Fence::load().and_then(|mut fence| fence.load_programs())),
        ("steer", Steer::load(&[]).map(drop)),
        ("observe", Observe::load().and_then(|mut observe| observe.load_programs())),
    ];
    features.into_iter().map(|(name, result)| Feature { name, result }).collect()
}
