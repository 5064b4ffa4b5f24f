//! A fast target: mutual TLS, answers 200, checks both signatures, remembers what came, and fails as it is told to.
//!
//! In: deliveries to `/hooks/<target>`. Out: an [`Arrivals`] table, or only counts. A delivery whose
//! signature fails is noted as such and still gets its 200, so that one fault is not hidden by retries.

mod command;
mod faults;
mod intake;
mod recorder;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub(crate) use self::command::{Options, run};
use self::faults::Faults;
use self::intake::{Delivery, Intake};
use self::recorder::Recorder;
use crate::load::{Record, unix_ms};
use crate::record::{Arrivals, Arrived};
use crate::signature::{check_delivery, hex, secret_bytes, sha256};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const UNAUTHORIZED: &[u8] = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// A target as the egress knows it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    /// Its name, the last segment of its URL.
    pub(crate) name: String,
    /// `whsec_<base64>`.
    pub(crate) secret: String,
}

/// What a sink has seen.
#[derive(Debug, Default)]
pub(crate) struct SinkState {
    /// Deliveries answered with 200.
    pub(crate) count: AtomicU64,
    /// Deliveries answered with 503, as asked for.
    pub(crate) refused: AtomicU64,
    /// From now on a delivery whose signature fails gets 401 and is not remembered, as at a real target.
    pub(crate) refuses_invalid: AtomicBool,
    arrivals: Mutex<Arrivals>,
    by_target: Mutex<HashMap<String, Arc<AtomicU64>>>,
}

impl SinkState {
    /// How many different events came.
    pub(crate) fn distinct(&self) -> usize {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).0.len()
    }

    /// Deliveries that `target` answered with 200.
    pub(crate) fn count_of(&self, target: &str) -> u64 {
        let counts = self.by_target.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(target).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// The count of `target`, to be raised without a lock.
    fn counter(&self, target: &str) -> Arc<AtomicU64> {
        let mut counts = self.by_target.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(counts.entry(target.to_owned()).or_default())
    }

    /// Notes an arrival.
    pub(crate) fn add(&self, event_id: &str, body_sha256: String, fault: Option<String>) {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        arrivals.add(event_id, body_sha256, fault);
    }

    /// Removes an event from the table.
    pub(crate) fn take(&self, event_id: &str) -> Option<Arrived> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).0.remove(event_id)
    }

    /// A copy of the table.
    pub(crate) fn arrivals(&self) -> Arrivals {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A target, prepared: nothing is decoded or looked up again for an event.
struct Place {
    name: String,
    key: Vec<u8>,
    count: Arc<AtomicU64>,
}

/// A sink's settings.
#[derive(Clone)]
pub(crate) struct Sink {
    tls: TlsAcceptor,
    places: Arc<[Place]>,
    record: Record,
    state: Arc<SinkState>,
    faults: Arc<Faults>,
    recorder: Option<Arc<Recorder>>,
}

impl Sink {
    /// Stands for `targets` and keeps what it sees in `state`.
    pub(crate) fn new(tls: TlsAcceptor, targets: &[Target], record: Record, state: Arc<SinkState>) -> Self {
        let place = |target: &Target| Place {
            name: target.name.clone(),
            key: secret_bytes(&target.secret).expect("the lab wrote this secret"),
            count: state.counter(&target.name),
        };
        let places = targets.iter().map(place).collect();
        Self { tls, places, record, state, faults: Arc::default(), recorder: None }
    }

    /// Serves until the task is dropped; during an outage nobody listens.
    pub(crate) async fn serve(self, mut listener: TcpListener) {
        let (down, seen) = watch::channel(false);
        let address = listener.local_addr();
        let begun = tokio::time::Instant::now();
        for outage in self.faults.outages() {
            tokio::select! {
                () = self.accept(&listener, &seen) => {}
                () = tokio::time::sleep_until(begun + outage.begins()) => {}
            }
            let Ok(address) = address else { return };
            drop(listener);
            down.send_replace(true);
            tokio::time::sleep_until(begun + outage.ends()).await;
            down.send_replace(false);
            listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            };
        }
        self.accept(&listener, &seen).await;
    }

    async fn accept(&self, listener: &TcpListener, down: &watch::Receiver<bool>) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(self.clone().connection(stream, down.clone()))),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    /// A connection that breaks is the egress's to notice; nothing is remembered of half a delivery.
    async fn connection(self, stream: TcpStream, mut down: watch::Receiver<bool>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        if self.faults.outages().is_empty() {
            return self.exchange(stream).await;
        }
        // Linger of zero: whatever ends this connection, its peer sees a reset.
        stream.set_zero_linger()?;
        tokio::select! {
            ended = self.exchange(stream) => ended,
            _ = down.wait_for(|is_down| *is_down) => Ok(()),
        }
    }

    async fn exchange(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = self.tls.accept(stream).await?;
        let mut intake = Intake::default();
        while let Some(delivery) = intake.next(&mut stream).await? {
            let answer = self.take(&delivery);
            if let Some(latency) = self.faults.latency() {
                tokio::time::sleep(latency).await;
            }
            stream.write_all(answer).await?;
            stream.flush().await?;
        }
        Ok(())
    }

    fn take(&self, delivery: &Delivery<'_>) -> &'static [u8] {
        let name = delivery.path().and_then(|path| path.strip_prefix("/hooks/"));
        let Some(place) = self.places.iter().find(|place| Some(place.name.as_str()) == name) else {
            return NOT_FOUND;
        };
        if self.faults.refuses_next() {
            self.state.refused.fetch_add(1, Ordering::Relaxed);
            return UNAVAILABLE;
        }
        if self.record == Record::Events {
            let Ok(headers) = delivery.headers() else {
                return UNAUTHORIZED;
            };
            let checked = check_delivery(&place.key, &place.name, &headers, delivery.body, unix_ms());
            let fault = checked.err().map(|fault| fault.to_string());
            if fault.is_some() && self.state.refuses_invalid.load(Ordering::Relaxed) {
                return UNAUTHORIZED;
            }
            self.state.add(delivery.event_id(), hex(&sha256(delivery.body)), fault);
        }
        if let Some(recorder) = &self.recorder {
            recorder.arrived(delivery.event_id(), &sha256(delivery.body), &place.name);
        }
        place.count.fetch_add(1, Ordering::Relaxed);
        self.state.count.fetch_add(1, Ordering::Relaxed);
        OK
    }
}
