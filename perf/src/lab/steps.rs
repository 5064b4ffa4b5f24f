//! How long each step of a newcomer takes.

use std::fmt;
use std::time::{Duration, Instant};

/// Steps that were taken, in order.
#[derive(Debug)]
pub(crate) struct Steps {
    begun: Instant,
    last: Instant,
    taken: Vec<(String, Duration)>,
}

impl Steps {
    /// Begins with the first step.
    pub(crate) fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, taken: Vec::new() }
    }

    /// A step is done, and the next one begins.
    pub(crate) fn done(&mut self, step: impl Into<String>) {
        let now = Instant::now();
        self.taken.push((step.into(), now - self.last));
        self.last = now;
    }
}

/// A line for each step, then the sum.
impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (step, took) in &self.taken {
            writeln!(f, "{:>8.2} s  {step}", took.as_secs_f64())?;
        }
        write!(f, "{:>8.2} s  from nothing to a delivered event", (self.last - self.begun).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_a_line() {
        let mut steps = Steps::begin();
        steps.done("a bundle");
        steps.done("an event");
        let text = steps.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].ends_with(" s  a bundle") && lines[1].ends_with(" s  an event"), "{text}");
    }
}
