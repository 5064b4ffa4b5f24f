//! Connections on tokio: a single-threaded runtime for each thread, tokio-rustls, writes on its blocking pool.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::StartError;
use crate::group::Group;
use crate::hop::{Hop, Step};
use crate::journal::JournalFile;

/// Turns of the runtime before a batch is sealed: requests that are ready now join it.
pub(crate) const TURNS_BEFORE_SEAL: usize = 4;
/// What a connection reads at once.
pub(crate) const READ_BYTES: usize = 16 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Serves for ever.
pub(crate) fn run(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    hop: Arc<Hop>,
    file: JournalFile,
) -> Result<(), StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(StartError::Runtime)?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async move {
        listener.set_nonblocking(true).map_err(StartError::Runtime)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(StartError::Runtime)?;
        let group = Rc::new(Group::new());
        tokio::task::spawn_local(commit(Rc::clone(&group), file));
        let acceptor = TlsAcceptor::from(tls);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let served = connection(stream, acceptor.clone(), Arc::clone(&hop), Rc::clone(&group));
                    drop(tokio::task::spawn_local(served));
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    })
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    hop: Arc<Hop>,
    group: Rc<Group>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let (mut buffer, mut out) = (Vec::with_capacity(READ_BYTES), Vec::new());
    loop {
        match hop.step(&buffer, &group, &mut out) {
            Step::Read { bytes_min } => {
                while buffer.len() < bytes_min {
                    buffer.reserve(READ_BYTES);
                    if stream.read_buf(&mut buffer).await? == 0 {
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
                stream.write_all(&out).await?;
                return stream.shutdown().await;
            }
        }
        stream.write_all(&out).await?;
        stream.flush().await?;
        out.clear();
    }
}

/// Writes one batch after the other.
async fn commit(group: Rc<Group>, mut journal: JournalFile) {
    let file = Arc::new(journal.file.try_clone().expect("a descriptor is left at start"));
    loop {
        group.filled().await;
        for _ in 0..TURNS_BEFORE_SEAL {
            tokio::task::yield_now().await;
        }
        let (buffer, start, outcome) = group.seal().into_parts();
        let (at, file) = (journal.place(buffer.len() - start), Arc::clone(&file));
        let written = tokio::task::spawn_blocking(move || {
            let result = file.write_all_at(&buffer[start..], at);
            (buffer, result)
        });
        let (buffer, result) = written.await.expect("a write does not panic");
        group.done(buffer, &outcome, result.is_ok());
    }
}
