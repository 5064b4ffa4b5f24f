//! Lets a node work soon, and once, however often it is asked to.

use crate::context::{Context, Life, NodeId, Step};

/// The wake-up of a node in one of its lives.
#[derive(Debug)]
pub struct Waker {
    node: NodeId,
    life: Life,
    woken: bool,
}

impl Waker {
    /// Nobody asked yet.
    pub fn new(node: NodeId, life: Life) -> Self {
        Self { node, life, woken: false }
    }

    /// Lets the node work soon, unless it will.
    pub fn wake(&mut self, context: &mut Context) {
        if !core::mem::replace(&mut self.woken, true) {
            let delay_ms = context.prng.between(0, 1);
            context.schedule(delay_ms, Step::Wake { node: self.node, life: self.life });
        }
    }

    /// The node works now.
    pub fn handle_work(&mut self) {
        self.woken = false;
    }
}
