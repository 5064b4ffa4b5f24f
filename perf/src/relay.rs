//! A TCP relay whose way can be cut, held or slowed while connections use it.
//!
//! In: where to listen and where it leads. Held connections keep every byte and go on later; a cut
//! resets them, and until it is opened again nobody listens.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PIECE_BYTES: usize = 16 * 1024;
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// What the relay does with connections, old and new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Bytes pass.
    Open,
    /// Connections are reset, new ones refused.
    Cut,
    /// Connections are accepted, bytes wait.
    Held,
    /// Bytes pass, about this many a second in each direction of a connection.
    Slow(u32),
}

/// A running relay; it ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    way: watch::Sender<Way>,
}

impl Relay {
    /// Starts with an open way.
    pub(crate) fn start(listen: SocketAddr, to: SocketAddr) -> Self {
        let (way, seen) = watch::channel(Way::Open);
        tokio::spawn(serve(listen, to, seen));
        Self { way }
    }

    /// Changes the way for every connection.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

async fn serve(listen: SocketAddr, to: SocketAddr, mut way: watch::Receiver<Way>) {
    while way.wait_for(|way| *way != Way::Cut).await.is_ok() {
        let Ok(listener) = TcpListener::bind(listen).await else {
            tokio::time::sleep(BIND_PAUSE).await;
            continue;
        };
        tokio::select! {
            () = accept(&listener, to, &way) => {}
            () = until_cut(way.clone()) => {}
        }
    }
}

async fn accept(listener: &TcpListener, to: SocketAddr, way: &watch::Receiver<Way>) {
    loop {
        match listener.accept().await {
            Ok((near, _)) => drop(tokio::spawn(connection(near, to, way.clone()))),
            Err(_) => tokio::time::sleep(BIND_PAUSE).await,
        }
    }
}

/// Returns when the way is cut, or the relay is gone.
async fn until_cut(mut way: watch::Receiver<Way>) {
    drop(way.wait_for(|way| *way == Way::Cut).await);
}

async fn connection(mut near: TcpStream, to: SocketAddr, mut way: watch::Receiver<Way>) {
    let cut = way.clone();
    let (near_side, passing) = (&mut near, &mut way);
    let relayed = async move {
        passing.wait_for(|way| *way != Way::Held).await.ok()?;
        let mut far = TcpStream::connect(to).await.ok()?;
        let set = near_side.set_nodelay(true).and(far.set_nodelay(true));
        set.ok()?;
        let back = passing.clone();
        let ((near_in, near_out), (far_in, far_out)) = (near_side.split(), far.split());
        // A failure of one direction ends both.
        tokio::try_join!(pump(near_in, far_out, passing.clone()), pump(far_in, near_out, back)).ok()
    };
    tokio::select! {
        _ = relayed => {}
        () = until_cut(cut) => drop(near.set_zero_linger()),
    }
}

/// Carries one direction until its end.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut way: watch::Receiver<Way>,
) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let count = tokio::select! {
            count = from.read(&mut piece) => count?,
            changed = way.changed() => {
                changed.map_err(std::io::Error::other)?;
                continue;
            }
        };
        let open = way.wait_for(|way| *way != Way::Held).await.map(|way| *way);
        let open = open.map_err(std::io::Error::other)?;
        if count == 0 {
            return to.shutdown().await;
        }
        if let Way::Slow(bytes_per_s) = open {
            tokio::time::sleep(Duration::from_secs_f64(count as f64 / f64::from(bytes_per_s))).await;
        }
        to.write_all(&piece[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::time::Instant;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    fn block_on(future: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(DEADLINE, future).await.unwrap() });
    }

    /// A free address, an echo behind a relay at it, and the relay.
    async fn echo() -> (SocketAddr, Relay) {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = echo.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    drop(tokio::io::copy(&mut from, &mut to).await);
                });
            }
        });
        let listen = zen_ports::free_address();
        (listen, Relay::start(listen, to))
    }

    async fn connect(address: SocketAddr) -> TcpStream {
        loop {
            match TcpStream::connect(address).await {
                Ok(stream) => return stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    async fn answers(stream: &mut TcpStream) -> bool {
        let mut answer = [0; 4];
        stream.write_all(b"ping").await.is_ok()
            && stream.read_exact(&mut answer).await.is_ok()
            && answer == *b"ping"
    }

    #[test]
    fn a_cut_resets_and_refuses_until_it_is_open() {
        block_on(async {
            let (listen, relay) = echo().await;
            let mut stream = connect(listen).await;
            assert!(answers(&mut stream).await);
            relay.set(Way::Cut);
            let error = stream.read(&mut [0; 1]).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            while TcpStream::connect(listen).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            relay.set(Way::Open);
            assert!(answers(&mut connect(listen).await).await);
        });
    }

    #[test]
    fn held_bytes_come_when_it_is_open() {
        block_on(async {
            let (listen, relay) = echo().await;
            let mut old = connect(listen).await;
            assert!(answers(&mut old).await);
            relay.set(Way::Held);
            let mut new = connect(listen).await;
            for stream in [&mut old, &mut new] {
                stream.write_all(b"ping").await.unwrap();
                let early = tokio::time::timeout(Duration::from_millis(200), stream.read(&mut [0; 4])).await;
                assert!(early.is_err(), "{early:?}");
            }
            relay.set(Way::Open);
            for stream in [&mut old, &mut new] {
                stream.read_exact(&mut [0; 4]).await.unwrap();
            }
        });
    }

    #[test]
    fn a_slow_way_takes_its_time() {
        block_on(async {
            let (listen, relay) = echo().await;
            relay.set(Way::Slow(40));
            let begun = Instant::now();
            assert!(answers(&mut connect(listen).await).await);
            // Four bytes at 40 a second, there and back.
            assert!(begun.elapsed() >= Duration::from_millis(200));
        });
    }
}
