//! Looks for values that must not be somewhere: as they are, in base64, hex, JSON escapes and lists of numbers.
//!
//! Enters: values, and anything that can be read. Leaves: where each of their spellings is first. Whoever searches plants
//! a value of its own first, and has to find it.

#![forbid(unsafe_code)]

mod forms;
mod needles;

pub use forms::Form;
pub use needles::{Hit, Needles, Value};
