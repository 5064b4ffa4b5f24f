//! Which of these types may lie in a map as they are.

use crate::event::{DropEvent, Pace};
use crate::{fence, guard, observe, steer};

macro_rules! plain {
    ($($kind:ty),+ $(,)?) => {
        $(
            // SAFETY: repr(C), integers only, no padding that is not a field: any bytes are a value.
            unsafe impl aya::Pod for $kind {}
        )+
    };
}

plain!(
    DropEvent,
    Pace,
    fence::ReachKey,
    fence::Settings,
    fence::Counts,
    guard::Settings,
    guard::NetworkKey,
    guard::LocalKey,
    guard::SourceKey,
    guard::Spent,
    guard::Counts,
    observe::PlaceKey,
    observe::Counts,
    observe::Connection,
    steer::Counts,
);
