//! Files: whole reads and writes at an offset, and fdatasync. The operation owns its buffer meanwhile.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use io_uring::{opcode, types};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::{
    Ring,
    queue::failure,
    token::{Operation, Token},
};
use crate::{
    buffer::{AlignedBuffer, BLOCK_BYTES},
    completion::{Completion, FileId},
    error::OpError,
    table::Key,
};

/// Most bytes handed to the kernel in one read or write (read(2) takes hardly more); the rest follows.
const TRANSFER_BYTES_MAX: usize = 1 << 30;

const _: () = assert!(TRANSFER_BYTES_MAX.is_multiple_of(BLOCK_BYTES));

#[derive(Debug)]
pub(super) struct OpenFile {
    fd: OwnedFd,
    /// Opened with `O_DIRECT`: transfers begin at whole blocks.
    direct: bool,
    removed: bool,
    operations: u32,
}

#[derive(Debug)]
pub(super) struct FileOperation {
    file: Key,
    token: u64,
    work: Work,
}

#[derive(Debug)]
enum Work {
    Write(Transfer),
    Read(Transfer),
    Sync,
}

#[derive(Debug)]
struct Transfer {
    buffer: AlignedBuffer,
    offset: u64,
    len: usize,
    done: usize,
}

impl Transfer {
    fn new(buffer: AlignedBuffer, offset: u64, len: usize) -> Self {
        assert!(len <= buffer.len(), "a transfer longer than its buffer");
        Self { buffer, offset, len, done: 0 }
    }

    /// Where the rest begins in memory, how long it is, and where in the file.
    fn rest(&self) -> (*mut u8, u32, u64) {
        assert!(self.done <= self.buffer.len());
        // SAFETY: at most one past the end of the buffer, asserted above.
        let start = unsafe { self.buffer.start().add(self.done) };
        (start, (self.len - self.done).min(TRANSFER_BYTES_MAX) as u32, self.offset + self.done as u64)
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

enum Progress {
    Whole,
    Partly,
    /// Nothing more moves; this many bytes did.
    Stuck(usize),
}

impl Ring {
    pub(crate) fn add_file(&mut self, fd: OwnedFd) -> Result<FileId, OpError> {
        let flags = fcntl(&fd, FcntlArg::F_GETFL).map_err(OpError::system("fcntl F_GETFL"))?;
        let direct = OFlag::from_bits_retain(flags).contains(OFlag::O_DIRECT);
        let file = OpenFile { fd, direct, removed: false, operations: 0 };
        let limit = u32::from(self.limits.files_max);
        self.files.insert(file).map(FileId).map_err(|_| OpError::Full { what: "files", limit })
    }

    pub(crate) fn remove_file(&mut self, id: FileId) {
        self.file(id.0).removed = true;
        self.close_if_removed(id.0);
    }

    pub(crate) fn write(&mut self, id: FileId, offset: u64, buffer: AlignedBuffer, len: usize, token: u64) {
        self.begin(id, token, Work::Write(Transfer::new(buffer, offset, len)));
    }

    pub(crate) fn read(&mut self, id: FileId, offset: u64, buffer: AlignedBuffer, len: usize, token: u64) {
        self.begin(id, token, Work::Read(Transfer::new(buffer, offset, len)));
    }

    pub(crate) fn sync(&mut self, id: FileId, token: u64) {
        self.begin(id, token, Work::Sync);
    }

    pub(super) fn on_file(&mut self, key: Key, result: i32, completions: &mut Vec<Completion>) {
        let operation = self.operations.get_mut(key).expect("kept until its completion");
        let file = self.files.get_mut(operation.file).expect("kept until its operations have completed");
        let transfer = match &mut operation.work {
            Work::Sync => None,
            Work::Write(transfer) | Work::Read(transfer) => Some(transfer),
        };
        let outcome = match (result, transfer) {
            (result, _) if result == -libc::EINTR && !self.draining => return self.push_file(key),
            (..0, _) => Err(failure(result)),
            (_, None) => Ok(0),
            (_, Some(transfer)) => match transfer.advance(result as usize, file.direct) {
                Progress::Partly => return self.push_file(key),
                Progress::Whole => Ok(transfer.len),
                Progress::Stuck(done) => Ok(done),
            },
        };
        file.operations -= 1;
        let operation = self.operations.remove(key).expect("looked up above");
        self.close_if_removed(operation.file);
        completions.push(operation.complete(outcome));
    }

    fn begin(&mut self, id: FileId, token: u64, work: Work) {
        let file = self.file(id.0);
        assert!(!file.removed, "an operation on a removed file");
        file.operations += 1;
        let operation = FileOperation { file: id.0, token, work };
        let key = self.operations.insert(operation).expect("at most FILE_OPERATIONS_PER_FILE_MAX a file");
        self.push_file(key);
    }

    fn push_file(&mut self, key: Key) {
        let operation = self.operations.get(key).expect("inserted and not completed");
        let file = self.files.get(operation.file).expect("kept until its operations have completed");
        let fd = types::Fd(file.fd.as_raw_fd());
        let entry = match &operation.work {
            Work::Write(transfer) => {
                let (start, len, offset) = transfer.rest();
                opcode::Write::new(fd, start, len).offset(offset).build()
            }
            Work::Read(transfer) => {
                let (start, len, offset) = transfer.rest();
                opcode::Read::new(fd, start, len).offset(offset).build()
            }
            Work::Sync => opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
        };
        // SAFETY: the two tables keep buffer and descriptor until the completion.
        unsafe { self.queue.push(entry, Token::new(Operation::File, key)) };
    }

    fn close_if_removed(&mut self, key: Key) {
        let file = self.file(key);
        if file.removed && file.operations == 0 {
            self.files.remove(key);
        }
    }

    fn file(&mut self, key: Key) -> &mut OpenFile {
        self.files.get_mut(key).expect("the id of a file that was not removed")
    }
}

impl FileOperation {
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
