//! What an operation's `user_data` says: kind in 8 bits, slot in 24, generation in 32.

use crate::table::{Key, TABLE_ENTRIES_MAX};

/// What a completion answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Accept,
    Connect,
    Receive,
    Send,
    Shutdown,
    Close,
    File,
    Wake,
    Cancel,
}

const OPERATIONS: [Operation; 9] = [
    Operation::Accept,
    Operation::Connect,
    Operation::Receive,
    Operation::Send,
    Operation::Shutdown,
    Operation::Close,
    Operation::File,
    Operation::Wake,
    Operation::Cancel,
];

/// An operation on an entry of the table its kind belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) operation: Operation,
    pub(super) key: Key,
}

impl Token {
    pub(super) fn new(operation: Operation, key: Key) -> Self {
        Self { operation, key }
    }

    pub(super) fn encode(self) -> u64 {
        assert!(self.key.index < TABLE_ENTRIES_MAX);
        (self.operation as u64) << 56 | u64::from(self.key.index) << 32 | u64::from(self.key.generation)
    }

    /// The kernel returns what `encode` made; anything else is a bug.
    pub(super) fn decode(bits: u64) -> Self {
        let operation = OPERATIONS[(bits >> 56) as usize];
        let index = (bits >> 32) as u32 & (TABLE_ENTRIES_MAX - 1);
        Self { operation, key: Key { index, generation: bits as u32 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_survives_its_encoding() {
        for (number, operation) in OPERATIONS.into_iter().enumerate() {
            assert_eq!(operation as usize, number);
            for key in [
                Key { index: 0, generation: 0 },
                Key { index: TABLE_ENTRIES_MAX - 1, generation: u32::MAX },
                Key { index: 0x12_3456, generation: 0x89ab_cdef },
            ] {
                let token = Token::new(operation, key);
                assert_eq!(Token::decode(token.encode()), token);
            }
        }
    }
}
