//! A stand-in for lockd that speaks its protocol: values in the clear, and refusals by name instead of a policy.
//!
//! The daemon itself, with its vault and its policy, is run with a node by the lab's own check.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use zen_lock::{Greeting, REQUEST_HEAD_BYTES, Refusal, ReplyHead, Request};

const NONCE: [u8; 16] = *b"sixteen of nonce";

/// A daemon in this process, for as long as it runs.
pub struct Lockd {
    socket: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    secrets: HashMap<String, Result<Vec<u8>, Refusal>>,
    asked: HashMap<String, usize>,
    connections: usize,
    connected: usize,
    is_down: bool,
}

impl Lockd {
    /// Listens at `socket`, and has nothing.
    pub fn start(socket: &Path) -> Self {
        let lockd = Self { socket: socket.to_owned(), state: Arc::default() };
        lockd.listen();
        lockd
    }

    /// Has a value from now on.
    pub fn seal(&self, name: &str, value: impl AsRef<[u8]>) {
        self.state().secrets.insert(name.to_owned(), Ok(value.as_ref().to_vec()));
    }

    /// Refuses a name from now on; what it does not have is missing anyhow.
    pub fn refuse(&self, name: &str, refusal: Refusal) {
        self.state().secrets.insert(name.to_owned(), Err(refusal));
    }

    /// How often a name was asked for.
    pub fn asked(&self, name: &str) -> usize {
        self.state().asked.get(name).copied().unwrap_or(0)
    }

    /// How often anything was asked for.
    pub fn asked_in_all(&self) -> usize {
        self.state().asked.values().sum()
    }

    /// Connections that were made to it.
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    /// Connections that are open.
    pub fn connected(&self) -> usize {
        self.state().connected
    }

    /// Nobody listens any more.
    pub fn go_down(&self) {
        self.state().is_down = true;
        let _ = UnixStream::connect(&self.socket);
        fs::remove_file(&self.socket).unwrap();
    }

    /// Listens again, with what it had.
    pub fn come_up(&self) {
        self.state().is_down = false;
        self.listen();
    }

    fn listen(&self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        let state = Arc::clone(&self.state);
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut locked = state.lock().unwrap();
                if locked.is_down {
                    return;
                }
                locked.connections += 1;
                locked.connected += 1;
                let state = Arc::clone(&state);
                thread::spawn(move || {
                    serve(stream, &state);
                    state.lock().unwrap().connected -= 1;
                });
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// Until the other side has gone.
fn serve(mut stream: UnixStream, state: &Mutex<State>) -> Option<()> {
    stream.write_all(&Greeting { nonce: NONCE }.encode()).ok()?;
    loop {
        let mut head = [0; REQUEST_HEAD_BYTES];
        stream.read_exact(&mut head).ok()?;
        let mut body = vec![0; Request::decode_head(head).unwrap()];
        stream.read_exact(&mut body).unwrap();
        let request = Request::decode(&body).unwrap();
        assert_eq!(request.nonce, NONCE);
        let name = request.name.to_string();
        let found = {
            let mut state = state.lock().unwrap();
            *state.asked.entry(name.clone()).or_default() += 1;
            state.secrets.get(&name).cloned().unwrap_or(Err(Refusal::Missing))
        };
        let reply = match found {
            Ok(value) => [&ReplyHead::Value(value.len()).encode(), &*value].concat(),
            Err(refusal) => ReplyHead::Refused(refusal).encode().to_vec(),
        };
        stream.write_all(&reply).ok()?;
    }
}
