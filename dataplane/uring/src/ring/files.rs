//! Files through the ring. The operation is kept, with its buffer and descriptor, until its completion.

use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{opcode, types};
use nix::errno::Errno;

use super::{
    Ring,
    queue::failure,
    token::{Operation, Token},
};
use crate::{
    completion::{Completion, FileId},
    error::OpError,
    files::{Step, Work},
    table::Key,
};

impl Ring {
    pub(crate) fn add_file(&mut self, fd: OwnedFd) -> Result<FileId, OpError> {
        self.files.add(fd)
    }

    pub(crate) fn remove_file(&mut self, id: FileId) {
        self.files.remove(id);
    }

    pub(crate) fn begin_file(&mut self, id: FileId, token: u64, work: Work) {
        let operation = self.files.begin(id, token, work);
        let key = self.operations.insert(operation).expect("as many places as operations may begin");
        self.push_file(key);
    }

    pub(super) fn on_file(&mut self, key: Key, result: i32, completions: &mut Vec<Completion>) {
        let operation = self.operations.get_mut(key).expect("kept until its completion");
        let answer = if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(result as usize) };
        let outcome = match operation.handle_result(answer) {
            Step::Again if result >= 0 || !self.draining => return self.push_file(key),
            Step::Again => Err(failure(result)),
            Step::Ended(outcome) => outcome,
        };
        let operation = self.operations.remove(key).expect("looked up above");
        completions.push(self.files.end(operation, outcome));
    }

    fn push_file(&mut self, key: Key) {
        let operation = self.operations.get(key).expect("inserted and not completed");
        let fd = types::Fd(operation.fd().as_raw_fd());
        let entry = match operation.work() {
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
        // SAFETY: the table keeps buffer and descriptor until the completion.
        unsafe { self.queue.push(entry, Token::new(Operation::File, key)) };
    }
}
