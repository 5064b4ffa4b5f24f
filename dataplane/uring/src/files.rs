//! Open files and what is under way on them, whoever does it: whole reads and writes at an offset,
//! and fdatasync. The operation owns its buffer meanwhile.

use std::{io, os::fd::OwnedFd, sync::Arc};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
};

use crate::{
    buffer::{AlignedBuffer, BLOCK_BYTES},
    completion::{Completion, FileId},
    error::OpError,
    reactor::FILE_OPERATIONS_PER_FILE_MAX,
    table::{Key, Table},
};

/// Most bytes handed to the kernel in one read or write (read(2) takes hardly more); the rest follows.
const TRANSFER_BYTES_MAX: usize = 1 << 30;

const _: () = assert!(TRANSFER_BYTES_MAX.is_multiple_of(BLOCK_BYTES));

/// The files of one reactor.
#[derive(Debug)]
pub(crate) struct Files {
    open: Table<OpenFile>,
    limit: u32,
    operations: u32,
}

#[derive(Debug)]
struct OpenFile {
    fd: Arc<OwnedFd>,
    /// Opened with `O_DIRECT`: transfers begin at whole blocks.
    direct: bool,
    removed: bool,
    operations: u32,
}

impl Files {
    pub(crate) fn new(files_max: u16) -> Self {
        let limit = u32::from(files_max);
        Self { open: Table::new(limit), limit, operations: 0 }
    }

    pub(crate) fn add(&mut self, fd: OwnedFd) -> Result<FileId, OpError> {
        let flags = fcntl(&fd, FcntlArg::F_GETFL).map_err(OpError::system("fcntl F_GETFL"))?;
        let direct = OFlag::from_bits_retain(flags).contains(OFlag::O_DIRECT);
        let file = OpenFile { fd: Arc::new(fd), direct, removed: false, operations: 0 };
        let limit = self.limit;
        self.open.insert(file).map(FileId).map_err(|_| OpError::Full { what: "files", limit })
    }

    pub(crate) fn remove(&mut self, id: FileId) {
        self.file(id.0).removed = true;
        self.close_if_removed(id.0);
    }

    /// Operations begun and not ended.
    pub(crate) fn operations(&self) -> u32 {
        self.operations
    }

    /// Most operations that can have begun and not ended.
    pub(crate) fn operations_max(&self) -> u32 {
        self.limit * FILE_OPERATIONS_PER_FILE_MAX
    }

    pub(crate) fn begin(&mut self, id: FileId, token: u64, work: Work) -> FileOperation {
        assert!(self.operations < self.operations_max(), "at most FILE_OPERATIONS_PER_FILE_MAX a file");
        let file = self.file(id.0);
        assert!(!file.removed, "an operation on a removed file");
        file.operations += 1;
        let operation =
            FileOperation { file: id.0, fd: Arc::clone(&file.fd), direct: file.direct, token, work };
        self.operations += 1;
        operation
    }

    /// Reports an operation that has ended, and closes its file if nobody wants it any more.
    pub(crate) fn end(&mut self, operation: FileOperation, outcome: Result<usize, io::Error>) -> Completion {
        self.operations -= 1;
        let key = operation.file;
        self.file(key).operations -= 1;
        let completion = operation.complete(outcome);
        self.close_if_removed(key);
        completion
    }

    fn close_if_removed(&mut self, key: Key) {
        let file = self.file(key);
        if file.removed && file.operations == 0 {
            self.open.remove(key);
        }
    }

    fn file(&mut self, key: Key) -> &mut OpenFile {
        self.open.get_mut(key).expect("the id of a file that was not removed")
    }
}

/// One operation and everything it needs: whoever has it may run it.
#[derive(Debug)]
pub(crate) struct FileOperation {
    file: Key,
    fd: Arc<OwnedFd>,
    direct: bool,
    token: u64,
    work: Work,
}

#[derive(Debug)]
pub(crate) enum Work {
    Write(Transfer),
    Read(Transfer),
    Sync,
}

/// What a step of an operation led to.
#[derive(Debug)]
pub(crate) enum Step {
    /// The rest is to be asked for.
    Again,
    /// Nothing is left to do: bytes moved, or the error.
    Ended(Result<usize, io::Error>),
}

impl FileOperation {
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(crate) fn work(&self) -> &Work {
        &self.work
    }

    /// The descriptor and what is to be done on it.
    pub(crate) fn parts(&mut self) -> (&OwnedFd, &mut Work) {
        (&self.fd, &mut self.work)
    }

    /// Takes what the kernel answered to the call for the rest.
    pub(crate) fn handle_result(&mut self, result: Result<usize, Errno>) -> Step {
        let transfer = match &mut self.work {
            Work::Sync => None,
            Work::Write(transfer) | Work::Read(transfer) => Some(transfer),
        };
        match (result, transfer) {
            (Err(Errno::EINTR), _) => Step::Again,
            (Err(error), _) => Step::Ended(Err(error.into())),
            (Ok(_), None) => Step::Ended(Ok(0)),
            (Ok(bytes), Some(transfer)) => match transfer.advance(bytes, self.direct) {
                Progress::Partly => Step::Again,
                Progress::Whole => Step::Ended(Ok(transfer.len)),
                Progress::Stuck(done) => Step::Ended(Ok(done)),
            },
        }
    }

    fn complete(self, outcome: Result<usize, io::Error>) -> Completion {
        let (file, token) = (FileId(self.file), self.token);
        match self.work {
            Work::Sync => Completion::Synced { file, token, result: outcome.map(drop) },
            Work::Read(transfer) => {
                Completion::Read { file, token, buffer: transfer.buffer, result: outcome }
            }
            Work::Write(Transfer { buffer, len, .. }) => {
                let result = match outcome {
                    Ok(done) if done < len => Err(io::ErrorKind::WriteZero.into()),
                    other => other.map(drop),
                };
                Completion::Wrote { file, token, buffer, result }
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Transfer {
    buffer: AlignedBuffer,
    offset: u64,
    len: usize,
    done: usize,
}

enum Progress {
    Whole,
    Partly,
    /// Nothing more moves; this many bytes did.
    Stuck(usize),
}

impl Transfer {
    pub(crate) fn new(buffer: AlignedBuffer, offset: u64, len: usize) -> Self {
        assert!(len <= buffer.len(), "a transfer longer than its buffer");
        Self { buffer, offset, len, done: 0 }
    }

    /// Where the rest begins in memory, how long it is, and where in the file.
    pub(crate) fn rest(&self) -> (*mut u8, u32, u64) {
        assert!(self.done <= self.buffer.len());
        // SAFETY: at most one past the end of the buffer, asserted above.
        let start = unsafe { self.buffer.start().add(self.done) };
        (start, self.rest_len() as u32, self.rest_offset())
    }

    /// The rest's bytes.
    pub(crate) fn rest_bytes(&mut self) -> &mut [u8] {
        let end = self.done + self.rest_len();
        &mut self.buffer[self.done..end]
    }

    pub(crate) fn rest_offset(&self) -> u64 {
        self.offset + self.done as u64
    }

    fn rest_len(&self) -> usize {
        (self.len - self.done).min(TRANSFER_BYTES_MAX)
    }

    /// Counts `bytes` as done. A direct transfer goes on from a whole block, so a rest of one is repeated.
    fn advance(&mut self, bytes: usize, direct: bool) -> Progress {
        let done = self.done + bytes;
        assert!(done <= self.len, "the kernel moved more than asked for");
        if done == self.len {
            self.done = done;
            return Progress::Whole;
        }
        let whole = if direct { done - done % BLOCK_BYTES } else { done };
        if whole == self.done {
            return Progress::Stuck(done);
        }
        self.done = whole;
        Progress::Partly
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_transfer_goes_on_from_a_whole_block() {
        let mut transfer = Transfer::new(AlignedBuffer::new(4 * BLOCK_BYTES), 8192, 3 * BLOCK_BYTES);
        assert!(matches!(transfer.advance(BLOCK_BYTES + 512, true), Progress::Partly));
        let (start, len, offset) = transfer.rest();
        assert_eq!(start.addr() - transfer.buffer.start().addr(), BLOCK_BYTES);
        assert_eq!((len as usize, offset), (2 * BLOCK_BYTES, 8192 + BLOCK_BYTES as u64));
        assert_eq!(transfer.rest_bytes().len(), 2 * BLOCK_BYTES);
        assert!(matches!(transfer.advance(512, true), Progress::Stuck(done) if done == BLOCK_BYTES + 512));
        assert!(matches!(transfer.advance(2 * BLOCK_BYTES, true), Progress::Whole));
    }

    #[test]
    fn a_buffered_transfer_goes_on_from_any_byte() {
        let mut transfer = Transfer::new(AlignedBuffer::new(100), 7, 100);
        assert!(matches!(transfer.advance(1, false), Progress::Partly));
        assert_eq!((transfer.rest().1, transfer.rest().2), (99, 8));
        assert!(matches!(transfer.advance(0, false), Progress::Stuck(1)));
        assert!(matches!(transfer.advance(99, false), Progress::Whole));
    }

    #[test]
    #[should_panic(expected = "longer than its buffer")]
    fn a_transfer_longer_than_its_buffer_is_a_bug() {
        Transfer::new(AlignedBuffer::new(4096), 0, 4097);
    }
}
