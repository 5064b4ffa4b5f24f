//! What an operation's `user_data` says: its kind, and slot and generation of what it belongs to.

use crate::table::Key;

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
        self.key.pack(self.operation as u8)
    }

    /// The kernel returns what `encode` made; anything else is a bug.
    pub(super) fn decode(bits: u64) -> Self {
        let (kind, key) = Key::unpack(bits);
        Self { operation: OPERATIONS[usize::from(kind)], key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TABLE_ENTRIES_MAX;

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
