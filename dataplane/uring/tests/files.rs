//! Files through the ring: direct and synchronous, buffered, and without space.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{File, OpenOptions},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use harness::{Harness, pattern};
use zen_uring::{AlignedBuffer, Backend, Completion, FILE_OPERATIONS_PER_FILE_MAX, FileId, Limits, OpError};

#[macro_use]
mod harness;

on_both! {
    direct_synchronous_writes_are_read_back,
    two_commits_in_flight_both_complete,
    a_buffered_write_of_any_length_is_synced_and_ends_where_it_ends,
    a_full_device_fails_the_write_and_gives_the_buffer_back,
    a_write_that_is_taken_in_parts_goes_on_to_its_end,
    a_removed_file_completes_its_operations_and_frees_its_slot,
    #[should_panic(expected = "FILE_OPERATIONS_PER_FILE_MAX")]
    more_operations_than_the_bound_are_a_bug,
    #[should_panic(expected = "removed")]
    a_removed_file_is_not_used_again,
}

fn open(path: &Path, flags: i32) -> OwnedFd {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).custom_flags(flags);
    options.open(path).unwrap().into()
}

fn filled(bytes: &[u8]) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::new(bytes.len());
    buffer.copy_from_slice(bytes);
    buffer
}

fn wrote(harness: &mut Harness, file: FileId) -> (u64, AlignedBuffer) {
    let mut found = None;
    harness.until("write", |_, completion| {
        let Completion::Wrote { file: of, token, buffer, result } = completion else {
            panic!("{completion:?}")
        };
        assert_eq!(of, file);
        result.unwrap();
        found.replace((token, buffer)).is_none()
    });
    found.unwrap()
}

fn read(harness: &mut Harness, file: FileId, offset: u64, len: usize) -> Vec<u8> {
    let mut found = Vec::new();
    harness.reactor.read(file, offset, AlignedBuffer::new(len), len, 99);
    harness.until("read", |_, completion| {
        let Completion::Read { file: of, token, buffer, result } = completion else {
            panic!("{completion:?}")
        };
        assert_eq!((of, token), (file, 99));
        found.extend_from_slice(&buffer[..result.unwrap()]);
        true
    });
    found
}

fn direct_synchronous_writes_are_read_back(backend: Backend) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = folder.path().join("journal");
    let mut harness = Harness::small(backend);
    let file = harness.reactor.add_file(open(&path, libc::O_DIRECT | libc::O_DSYNC)).unwrap();
    let bytes = pattern(64 * 1024);
    let (first, second) = bytes.split_at(4096 * 3);
    harness.reactor.write(file, first.len() as u64, filled(second), second.len(), 2);
    let (token, buffer) = wrote(&mut harness, file);
    assert_eq!((token, &buffer[..]), (2, second));
    harness.reactor.write(file, 0, filled(first), first.len(), 1);
    assert_eq!(wrote(&mut harness, file).0, 1);
    assert!(read(&mut harness, file, 0, bytes.len()) == bytes);
    assert!(read(&mut harness, file, 4096, 8192) == bytes[4096..4096 + 8192]);
    assert!(std::fs::read(&path).unwrap() == bytes);
    harness.drained();
}

fn two_commits_in_flight_both_complete(backend: Backend) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut harness = Harness::small(backend);
    let path = folder.path().join("journal");
    let file = harness.reactor.add_file(open(&path, libc::O_DIRECT | libc::O_DSYNC)).unwrap();
    for token in 0..20_u64 {
        harness.reactor.write(file, token * 4096, filled(&[token as u8; 4096]), 4096, token);
    }
    let mut tokens = Vec::new();
    harness.until("all writes", |_, completion| {
        let Completion::Wrote { token, result, .. } = completion else { panic!("{completion:?}") };
        result.unwrap();
        tokens.push(token);
        tokens.len() == 20
    });
    tokens.sort_unstable();
    assert_eq!(tokens, (0..20).collect::<Vec<_>>());
    let all = std::fs::read(&path).unwrap();
    assert!(all.chunks(4096).enumerate().all(|(at, block)| block.iter().all(|&byte| byte as usize == at)));
    harness.drained();
}

fn a_buffered_write_of_any_length_is_synced_and_ends_where_it_ends(backend: Backend) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut harness = Harness::small(backend);
    let file = harness.reactor.add_file(open(&path, 0)).unwrap();
    let bytes = pattern(10_007);
    harness.reactor.write(file, 5, filled(&bytes), 10_001, 7);
    wrote(&mut harness, file);
    harness.reactor.sync(file, 8);
    harness.until("sync", |_, completion| {
        let Completion::Synced { file: of, token, result } = completion else { panic!("{completion:?}") };
        result.unwrap();
        (of, token) == (file, 8)
    });
    // More is asked for than there is.
    assert!(read(&mut harness, file, 5, 20_000) == bytes[..10_001]);
    assert!(read(&mut harness, file, 1 << 20, 10).is_empty());
    harness.drained();
}

fn a_full_device_fails_the_write_and_gives_the_buffer_back(backend: Backend) {
    let mut harness = Harness::small(backend);
    let full: OwnedFd = OpenOptions::new().write(true).open("/dev/full").unwrap().into();
    let file = harness.reactor.add_file(full).unwrap();
    harness.reactor.write(file, 0, filled(&[1; 4096]), 4096, 3);
    harness.until("failed write", |_, completion| {
        let Completion::Wrote { token, buffer, result, .. } = completion else { panic!("{completion:?}") };
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        token == 3 && buffer.len() == 4096
    });
    harness.drained();
}

fn a_write_that_is_taken_in_parts_goes_on_to_its_end(backend: Backend) {
    // A pipe stands for a file that takes part of a write: 64 KiB fit, the rest follows as it is read.
    let mut harness = Harness::small(backend);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let file = harness.reactor.add_file(writer.into()).unwrap();
    let bytes = pattern(300_000);
    harness.reactor.write(file, 0, filled(&bytes), bytes.len(), 1);
    let empty = std::thread::spawn(move || {
        let mut all = vec![0; bytes.len()];
        std::io::Read::read_exact(&mut reader, &mut all).unwrap();
        assert!(all == bytes);
    });
    wrote(&mut harness, file);
    empty.join().unwrap();
    harness.reactor.write(file, 0, filled(&[1]), 1, 2);
    harness.until("broken pipe", |_, completion| {
        let Completion::Wrote { token, result, .. } = completion else { panic!("{completion:?}") };
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        token == 2
    });
    harness.drained();
}

fn a_removed_file_completes_its_operations_and_frees_its_slot(backend: Backend) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut harness = Harness::new(&Limits { files_max: 1, ..Limits::default() }, backend);
    let mut previous = None;
    for round in 0..5_u64 {
        let path = folder.path().join(round.to_string());
        let file = harness.reactor.add_file(open(&path, libc::O_DIRECT | libc::O_DSYNC)).unwrap();
        assert_ne!(previous.replace(file), Some(file));
        let another = File::open(&path).unwrap().into();
        assert!(matches!(harness.reactor.add_file(another), Err(OpError::Full { what: "files", limit: 1 })));
        harness.reactor.write(file, 0, filled(&[9; 4096]), 4096, round);
        harness.reactor.remove_file(file);
        assert_eq!(wrote(&mut harness, file).0, round);
        assert_eq!(std::fs::read(&path).unwrap(), [9; 4096]);
    }
    harness.drained();
}

fn more_operations_than_the_bound_are_a_bug(backend: Backend) {
    let mut harness = Harness::new(&Limits { files_max: 1, ..Limits::default() }, backend);
    let file = harness.reactor.add_file(File::open("/dev/zero").unwrap().into()).unwrap();
    for token in 0..=u64::from(FILE_OPERATIONS_PER_FILE_MAX) {
        harness.reactor.read(file, 0, AlignedBuffer::new(1), 1, token);
    }
}

fn a_removed_file_is_not_used_again(backend: Backend) {
    let mut harness = Harness::small(backend);
    let file = harness.reactor.add_file(File::open("/dev/zero").unwrap().into()).unwrap();
    harness.reactor.remove_file(file);
    harness.reactor.sync(file, 0);
}
