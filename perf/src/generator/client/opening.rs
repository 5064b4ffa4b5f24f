//! Before the load: all connections are made, so that the span has no handshakes that nobody asked for.

use super::{Client, Completion, Connection, Duration, LabError, Phase};
use crate::generator::connection::Reuse;

/// Most handshakes at once.
const HANDSHAKES_MAX: usize = 64;
const WAIT: Duration = Duration::from_millis(50);

impl Client<'_> {
    /// Opens each connection, or one if each request has its own; fails if the first does not come about.
    pub(super) fn open(&mut self) -> Result<(), LabError> {
        let wanted = if self.plan.reuse == Reuse::Once { 1 } else { self.connections.len() };
        let mut completions: Vec<Completion> = Vec::new();
        let mut next = 0;
        while next < wanted || self.opening > 0 {
            while next < wanted && self.opening < HANDSHAKES_MAX {
                self.opening += 1;
                self.dial(next);
                next += 1;
            }
            self.reactor.tick(Some(WAIT), &mut completions);
            self.handle_completions(&mut completions);
            let now_ns = self.now_ns();
            self.upkeep(now_ns);
            if self.phase == Phase::Done {
                return Err(self.no_connection("stopped before the first"));
            }
            if let (0, Some(reason)) = (self.tally.load.connects, &self.tally.last_failure) {
                return Err(self.no_connection(reason));
            }
        }
        if self.plan.reuse == Reuse::Once {
            self.connections[0].close(&mut self.reactor);
        }
        for index in 0..self.connections.len() {
            if !self.connections[index].is_idle {
                self.rest_idle(index, 0);
            }
            self.connections[index].idle_since_ns = 0;
        }
        self.resting.clear();
        Ok(())
    }

    /// Begins to connect; what fails at once is a step like others.
    pub(super) fn dial(&mut self, index: usize) {
        let now_ns = self.now_ns();
        let connection: &mut Connection = &mut self.connections[index];
        match connection.dial(self.plan.address, now_ns, &mut self.reactor) {
            Ok(()) => {
                let socket = connection.socket.expect("it was just dialled");
                self.owners[socket.index()] = index;
            }
            Err(reason) => {
                let step = connection.fail(reason, &mut self.reactor);
                self.handle_step(index, step, now_ns);
            }
        }
    }

    fn no_connection(&self, reason: &str) -> LabError {
        let remedy = if reason.contains("certificate") {
            "name the CA of the server's certificate with --ca"
        } else {
            "look whether the server runs, and whether --address is its own"
        };
        LabError::Tool {
            what: format!("no connection to {}", self.plan.address),
            reason: format!("{reason}; {remedy}"),
        }
    }
}
