//! Threads in which reads, writes and syncs of files may wait. Each operation is handed over whole, with
//! its buffer and its descriptor, and comes back with its outcome; then the bell rings.

use std::{
    collections::VecDeque,
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::{self, JoinHandle},
};

use nix::{errno::Errno, sys::uio, unistd};

use crate::{
    error::SetupError,
    files::{FileOperation, Step, Work},
    waker::Waker,
};

/// As many as commits of a journal are in flight; a read then waits for one of them at most.
const FILE_THREADS: usize = 2;
/// What one may need of its stack, bytes.
const STACK_BYTES: usize = 256 * 1024;

type Finished = (FileOperation, Result<usize, io::Error>);

/// The threads of one reactor, and the operations on their way to and from them.
#[derive(Debug)]
pub(super) struct FileThreads {
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

/// Where reactor and threads meet.
#[derive(Debug)]
struct Desk {
    state: Mutex<State>,
    work: Condvar,
    bell: Waker,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<FileOperation>,
    finished: Vec<Finished>,
    stopping: bool,
}

/// What becomes of the threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// They are idle: wait for their end.
    Join,
    /// They may be in a call that does not end; each ends after it.
    Leave,
}

impl FileThreads {
    /// Starts the threads; `bell` rings whenever one has finished something.
    pub(super) fn start(bell: Waker) -> Result<Self, SetupError> {
        let desk = Arc::new(Desk { state: Mutex::default(), work: Condvar::new(), bell });
        let mut this = Self { desk, threads: Vec::with_capacity(FILE_THREADS) };
        for _ in 0..FILE_THREADS {
            let desk = Arc::clone(&this.desk);
            match thread::Builder::new()
                .name("files".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || serve(&desk))
            {
                Ok(thread) => this.threads.push(thread),
                Err(source) => {
                    this.stop(Stop::Join);
                    return Err(SetupError::Thread { source });
                }
            }
        }
        Ok(this)
    }

    pub(super) fn begin(&self, operation: FileOperation) {
        self.desk.lock().waiting.push_back(operation);
        self.desk.work.notify_one();
    }

    /// The operations that no thread has begun.
    pub(super) fn take_waiting(&self) -> VecDeque<FileOperation> {
        mem::take(&mut self.desk.lock().waiting)
    }

    /// The operations that have ended; called after the bell.
    pub(super) fn take_finished(&self) -> Vec<Finished> {
        self.desk.bell.rearm();
        mem::take(&mut self.desk.lock().finished)
    }

    pub(super) fn stop(&mut self, stop: Stop) {
        self.desk.lock().stopping = true;
        self.desk.work.notify_all();
        for thread in self.threads.drain(..) {
            if stop == Stop::Join {
                thread.join().expect("a file thread has no way to panic");
            }
        }
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }

    /// The next operation, or none when the reactor goes.
    fn next(&self) -> Option<FileOperation> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(operation) = state.waiting.pop_front() {
                return Some(operation);
            }
            state = self.work.wait(state).expect("nobody panics while holding it");
        }
    }
}

fn serve(desk: &Desk) {
    while let Some(mut operation) = desk.next() {
        let outcome = loop {
            let result = call(&mut operation);
            if let Step::Ended(outcome) = operation.handle_result(result) {
                break outcome;
            }
        };
        desk.lock().finished.push((operation, outcome));
        desk.bell.wake();
    }
}

/// One system call for the rest of an operation. What cannot seek has no offset, as for a ring.
fn call(operation: &mut FileOperation) -> Result<usize, Errno> {
    let (fd, work) = operation.parts();
    match work {
        Work::Sync => unistd::fdatasync(fd).map(|()| 0),
        Work::Write(transfer) => {
            let at = transfer.rest_offset().cast_signed();
            match uio::pwrite(fd, transfer.rest_bytes(), at) {
                Err(Errno::ESPIPE) => unistd::write(fd, transfer.rest_bytes()),
                result => result,
            }
        }
        Work::Read(transfer) => {
            let at = transfer.rest_offset().cast_signed();
            match uio::pread(fd, transfer.rest_bytes(), at) {
                Err(Errno::ESPIPE) => unistd::read(fd, transfer.rest_bytes()),
                result => result,
            }
        }
    }
}
