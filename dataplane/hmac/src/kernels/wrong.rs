//! Eight lanes, one of which is wrong: for the test of the self-test.

use super::one::One;
use super::{Block, Chain, Compress, Rows};

const LANES: usize = 8;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrong;

impl Compress<LANES> for Wrong {
    type States = Rows<LANES>;

    fn compress(self, states: &mut Rows<LANES>, blocks: &[&[Block]; LANES]) {
        for (chain, blocks) in states.0.iter_mut().zip(blocks) {
            let mut lane = Rows::<1>([*chain]);
            One.compress(&mut lane, &[blocks]);
            *chain = lane.0[0];
        }
        let last: &mut Chain = &mut states.0[LANES - 1];
        last[7] ^= 1;
    }
}
