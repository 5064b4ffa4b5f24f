//! Targets: fast ones that tell when an event came, and one that does as its mood says.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::flights::Flights;
use crate::error::LabError;
use crate::http::Wire;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.1 422 Unprocessable Content\r\ncontent-length: 0\r\n\r\n";
/// A body of 2 GB, of which as much is sent as the peer takes.
const LIE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2000000000\r\n\r\n";
const PIECE: [u8; 16 * 1024] = [b' '; 16 * 1024];
const SLOW: Duration = Duration::from_secs(30);
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// What a target does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// Answers 200 at once.
    Good,
    /// Nobody listens, and connections end.
    Dead,
    /// Answers 200 after [`SLOW`].
    Slow,
    /// Answers 200 and never ends.
    Lying,
    /// Answers 422.
    Refusing,
}

/// Answers 200 to everything; arrivals go to `flights`.
pub(super) async fn serve_fast(
    listen: SocketAddr,
    tls: TlsAcceptor,
    flights: Arc<Flights>,
) -> Result<(), LabError> {
    let listener =
        TcpListener::bind(listen).await.map_err(LabError::socket("cannot listen as the targets"))?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(fast(stream, tls.clone(), Arc::clone(&flights)))),
                Err(_) => tokio::time::sleep(BIND_PAUSE).await,
            }
        }
    });
    Ok(())
}

/// A connection that breaks is the egress's to notice.
async fn fast(stream: TcpStream, tls: TlsAcceptor, flights: Arc<Flights>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(tls.accept(stream).await?);
    while let Some(delivery) = wire.read().await? {
        flights.handle_arrival(&delivery.body, Instant::now());
        wire.write(OK).await?;
    }
    Ok(())
}

/// A target with moods; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Moody {
    mood: watch::Sender<Mood>,
}

impl Moody {
    /// Begins in `mood`.
    pub(super) fn start(listen: SocketAddr, tls: TlsAcceptor, mood: Mood) -> Self {
        let (mood, seen) = watch::channel(mood);
        tokio::spawn(serve(listen, tls, seen));
        Self { mood }
    }

    /// Changes it, for what it does just now too.
    pub(super) fn set(&self, mood: Mood) {
        self.mood.send_replace(mood);
    }
}

async fn serve(listen: SocketAddr, tls: TlsAcceptor, mut mood: watch::Receiver<Mood>) {
    while mood.wait_for(|mood| *mood != Mood::Dead).await.is_ok() {
        let Ok(listener) = TcpListener::bind(listen).await else {
            tokio::time::sleep(BIND_PAUSE).await;
            continue;
        };
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { break };
                    tokio::spawn(connection(stream, tls.clone(), mood.clone()));
                }
                dead = until(mood.clone(), Mood::Dead) => if dead { break } else { return },
            }
        }
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, mood: watch::Receiver<Mood>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    tokio::select! {
        ended = answer_all(stream, tls, mood.clone()) => ended,
        _ = until(mood, Mood::Dead) => Ok(()),
    }
}

async fn answer_all(stream: TcpStream, tls: TlsAcceptor, mut mood: watch::Receiver<Mood>) -> io::Result<()> {
    let mut wire: Wire<TlsStream<TcpStream>> = Wire::new(tls.accept(stream).await?);
    while wire.read().await?.is_some() {
        let now = *mood.borrow_and_update();
        match now {
            Mood::Good | Mood::Dead => wire.write(OK).await?,
            Mood::Refusing => wire.write(REFUSED).await?,
            Mood::Slow => {
                // Whichever comes first, the answer is the same.
                let _ = tokio::time::timeout(SLOW, mood.changed()).await;
                wire.write(OK).await?;
            }
            Mood::Lying => {
                wire.write(LIE).await?;
                while *mood.borrow() == Mood::Lying {
                    wire.write(&PIECE).await?;
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Whether that mood came; `false` if no other will.
async fn until(mut mood: watch::Receiver<Mood>, wanted: Mood) -> bool {
    mood.wait_for(|mood| *mood == wanted).await.is_ok()
}
