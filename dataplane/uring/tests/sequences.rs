//! Random sequences of socket operations against the model.

use proptest::prelude::*;
use zen_uring::fuzz::fuzz_reactor;

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_operations_keeps_every_stream_whole(data in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz_reactor(&data);
    }
}
