//! Connections on tokio-uring: rustls without its own I/O over owned buffers, and journal writes by the ring.

use std::io::{self, Read as _};
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection};
use tokio_uring::buf::BoundedBuf as _;
use tokio_uring::net::TcpStream;

use crate::StartError;
use crate::group::Group;
use crate::hop::{Hop, Step};
use crate::journal::JournalFile;
use crate::on_tokio::{READ_BYTES, TURNS_BEFORE_SEAL};

const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// How the ring is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flags {
    /// As tokio-uring does by itself.
    Default,
    /// `IORING_SETUP_COOP_TASKRUN`: completions do not interrupt the thread.
    CoopTaskrun,
}

/// Serves for ever.
pub(crate) fn run(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    hop: Arc<Hop>,
    file: JournalFile,
    flags: Flags,
) -> Result<(), StartError> {
    let mut ring = tokio_uring::uring_builder();
    if flags == Flags::CoopTaskrun {
        ring.setup_coop_taskrun();
    }
    tokio_uring::builder().uring_builder(&ring).start(async move {
        let listener = tokio_uring::net::TcpListener::from_std(listener);
        let group = Rc::new(Group::new());
        tokio_uring::spawn(commit(Rc::clone(&group), file));
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let served = connection(stream, Arc::clone(&tls), Arc::clone(&hop), Rc::clone(&group));
                    drop(tokio_uring::spawn(served));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    })
}

/// A TLS connection whose ciphertext moves in buffers that the ring owns meanwhile.
struct Wire {
    stream: TcpStream,
    tls: ServerConnection,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Wire {
    /// Appends what the peer sent to `plain`; nothing if it has closed.
    async fn read(&mut self, plain: &mut Vec<u8>) -> io::Result<bool> {
        let (result, buffer) = self.stream.read(std::mem::take(&mut self.incoming)).await;
        self.incoming = buffer;
        let mut received = &self.incoming[..result?];
        if received.is_empty() {
            return Ok(false);
        }
        let mut open = true;
        while !received.is_empty() && open {
            self.tls.read_tls(&mut received)?;
            let state = self
                .tls
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error));
            let Ok(state) = state else {
                // The alert says why.
                self.flush().await?;
                return Ok(false);
            };
            open = !state.peer_has_closed();
            let (before, ready) = (plain.len(), state.plaintext_bytes_to_read());
            plain.resize(before + ready, 0);
            self.tls.reader().read_exact(&mut plain[before..])?;
        }
        self.flush().await?;
        Ok(open)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.tls.writer(), bytes)?;
        self.flush().await
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.tls.wants_write() {
            return Ok(());
        }
        let mut outgoing = std::mem::take(&mut self.outgoing);
        outgoing.clear();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut outgoing)?;
        }
        let (result, buffer) = self.stream.write_all(outgoing).await;
        self.outgoing = buffer;
        result
    }
}

async fn connection(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
    hop: Arc<Hop>,
    group: Rc<Group>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let tls = ServerConnection::new(tls).map_err(io::Error::other)?;
    let mut wire = Wire { stream, tls, incoming: vec![0; READ_BYTES], outgoing: Vec::new() };
    let (mut buffer, mut out) = (Vec::new(), Vec::new());
    loop {
        match hop.step(&buffer, &group, &mut out) {
            Step::Read { bytes_min } => {
                while buffer.len() < bytes_min {
                    if !wire.read(&mut buffer).await? {
                        return Ok(());
                    }
                }
                continue;
            }
            Step::Answered { bytes } => drop(buffer.drain(..bytes)),
            Step::Written { bytes, event } => {
                buffer.drain(..bytes);
                hop.settle(event, &mut out).await;
            }
            Step::Closing => {
                wire.write(&out).await?;
                wire.tls.send_close_notify();
                return wire.flush().await;
            }
        }
        wire.write(&out).await?;
        out.clear();
    }
}

/// Writes one batch after the other.
async fn commit(group: Rc<Group>, mut journal: JournalFile) {
    let file = journal.file.try_clone().expect("a descriptor is left at start");
    let file = tokio_uring::fs::File::from_std(file);
    loop {
        group.filled().await;
        for _ in 0..TURNS_BEFORE_SEAL {
            tokio::task::yield_now().await;
        }
        let (buffer, start, outcome) = group.seal().into_parts();
        let at = journal.place(buffer.len() - start);
        let (result, slice) = file.write_all_at(buffer.slice(start..), at).await;
        group.done(slice.into_inner(), &outcome, result.is_ok());
    }
}
