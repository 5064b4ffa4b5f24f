//! Links that this node dials: which, when, and the first words on them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use zen_core::link::{Receiver, Sender};
use zen_uring::{Reactor, SocketId};

use super::admission::{egress_peer, ingester_peer};
use super::session::{Link, Machine, SPARE_OUT_BYTES_MAX, Side};
use super::slot::{Purpose, Slot, Want};
use super::{Links, Parts};
use crate::config::Direction;
use crate::reach;
use crate::stream::Stream;
use crate::tls::Tls;

impl Links {
    /// TCP to a peer is up, or not.
    pub fn handle_connected(
        &mut self,
        socket: SocketId,
        result: &Result<(), std::io::Error>,
        parts: &mut Parts<'_>,
    ) {
        let Some(slot) = self.slots.iter().find(|slot| slot.is(socket)) else {
            self.close(socket, "unwanted", parts.reactor);
            return;
        };
        let purpose = slot.purpose.clone();
        if result.is_err() {
            self.close(socket, "connect", parts.reactor);
            return;
        }
        if self.greet(socket, &purpose, parts).is_none() {
            self.close(socket, "tls", parts.reactor);
        }
    }

    /// An ingester has more streams than we knew: dial our share of them.
    pub fn handle_streams(&mut self, ingester: String, streams: u16) {
        self.streams.insert(ingester, streams);
        self.make_slots();
    }

    /// The resolver's answer.
    pub fn handle_resolved(&mut self, host: &str, addresses: &[IpAddr], reactor: &mut Reactor) {
        let (steady_ms, salt) = (self.clock.steady_ms, usize::from(self.entropy.bytes::<1>()[0]));
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.address.host != host || !slot.is_resolving() {
                continue;
            }
            let port = slot.address.port;
            let permitted = |address: &IpAddr| self.permits(host, SocketAddr::new(*address, port));
            let permitted: Vec<IpAddr> = addresses.iter().copied().filter(permitted).collect();
            if let Some(address) = self.slots[index].handle_resolved(&permitted, salt, steady_ms) {
                self.dial(index, address, reactor);
            }
        }
    }

    /// When a slot dials, steady ms.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.slots.iter().filter_map(Slot::poll_timeout).min()
    }

    pub(super) fn make_slots(&mut self) {
        let mut wanted = Vec::new();
        for peer in self.snapshot.ingester.iter().flat_map(|settings| &settings.egresses) {
            if let (Direction::IngesterDials, Some(address)) = (peer.direction, &peer.address) {
                wanted.push((Purpose::SendTo { egress: peer.name.clone() }, address.clone()));
            }
        }
        for peer in self.snapshot.egress.iter().flat_map(|settings| &settings.ingesters) {
            let (Direction::EgressDials, Some(address)) = (peer.direction, &peer.address) else { continue };
            let streams = self.streams.get(&peer.name).copied().unwrap_or(1);
            for stream in (0..streams).filter(|stream| stream % self.mesh.workers() == self.worker) {
                let purpose = Purpose::ReceiveFrom { ingester: peer.name.clone(), stream };
                wanted.push((purpose, address.clone()));
            }
        }
        self.slots.retain(|slot| {
            wanted.iter().any(|(purpose, address)| *purpose == slot.purpose && *address == slot.address)
        });
        let pause_ms_max = self.snapshot.node.link_pause_ms_max;
        for slot in &mut self.slots {
            slot.pause_ms_max = pause_ms_max;
        }
        for (purpose, address) in wanted {
            if !self.slots.iter().any(|slot| slot.purpose == purpose) {
                self.slots.push(Slot::new(purpose, address, pause_ms_max));
            }
        }
    }

    pub(super) fn dial_due(&mut self, reactor: &mut Reactor) {
        if self.draining {
            return;
        }
        for index in 0..self.slots.len() {
            match self.slots[index].poll(self.clock.steady_ms) {
                Want::Nothing => {}
                Want::Resolve => self.resolver.ask(&self.slots[index].address.host, self.worker),
                Want::Dial(address) if self.permits(&self.slots[index].address.host, address) => {
                    self.dial(index, address, reactor);
                }
                Want::Dial(_) => self.slots[index].handle_lost(self.clock.steady_ms),
            }
        }
    }

    fn permits(&self, host: &str, address: SocketAddr) -> bool {
        reach::permits_peer(&self.snapshot.reach, host, address, &self.metrics)
    }

    fn dial(&mut self, slot: usize, address: SocketAddr, reactor: &mut Reactor) {
        let steady_ms = self.clock.steady_ms;
        let slot = &mut self.slots[slot];
        let Ok(socket) = reactor.connect(address) else {
            slot.handle_lost(steady_ms);
            return;
        };
        slot.handle_dialled(socket);
        let side = match slot.purpose {
            Purpose::SendTo { .. } => Side::Ingester,
            Purpose::ReceiveFrom { .. } => Side::Egress,
        };
        self.open.insert(socket, Link::new(None, side, Machine::Dialling, steady_ms));
    }

    /// Starts TLS and says hello on a connection that we dialled.
    fn greet(&mut self, socket: SocketId, purpose: &Purpose, parts: &mut Parts<'_>) -> Option<()> {
        let steady_ms = self.clock.steady_ms;
        let mut out = Vec::new();
        let (tls, machine) = match purpose {
            Purpose::SendTo { egress } => {
                let snapshot = Arc::clone(&self.snapshot);
                let peer = egress_peer(&snapshot, egress)?;
                let config = self.sender_config(peer, parts.ingester.as_deref()?);
                let sender = Box::new(Sender::dial(config, steady_ms, &mut out));
                (Arc::clone(&peer.tls), Machine::Sending { sender, egress: egress.clone() })
            }
            Purpose::ReceiveFrom { ingester, stream } => {
                let snapshot = Arc::clone(&self.snapshot);
                let peer = ingester_peer(&snapshot, ingester)?;
                let config = self.receiver_config(peer, *stream);
                let receiver = Box::new(Receiver::dial(config, steady_ms, &mut out));
                (
                    Arc::clone(&peer.tls),
                    Machine::Receiving {
                        receiver,
                        ingester: ingester.clone(),
                        stream: None,
                        durable: 0,
                        owed: (0, 0),
                    },
                )
            }
        };
        let tls = Tls::connect(&tls, zen_identity::spiffe_server_name()).ok()?;
        let place = self.places.take(self.snapshot.node.links_max);
        if place.is_none() {
            tracing::warn!("a link is not made: node.links_max links are open");
        }
        let stream = Stream::start(socket, tls, parts.reactor).keeping(SPARE_OUT_BYTES_MAX);
        let link = self.open.get_mut(socket)?;
        link.place = Some(place?);
        link.stream = Some(stream);
        link.machine = machine;
        link.out = out;
        link.flush(parts.reactor);
        Some(())
    }
}
