//! The rounds for kernels that hold a lane in each element of a vector.
//!
//! A kernel names its features, its lanes and its vector, and has these functions: `add`, `xor`, `xor3`, `splat`,
//! `choose`, `majority`, `rotate::<RIGHT, 32 - RIGHT>`, `shift::<RIGHT>`, `load_chains`, `store_chains` and `load_block`.

/// Writes a kernel's `compress`.
macro_rules! wide_compress {
    ($features:literal, $lanes:literal, $vector:ty) => {
        #[target_feature(enable = $features)]
        fn compress(states: &mut Columns<$lanes>, blocks: &[&[Block]; $lanes]) {
            let mut chains = load_chains(states);
            for at in 0..blocks[0].len() {
                let mut words = load_block(blocks, at);
                let mut next = first_rounds(&chains, &words);
                for constants in K.as_chunks::<16>().0[1..].iter() {
                    next = later_rounds(next, &mut words, constants);
                }
                for (chain, next) in chains.iter_mut().zip(next.0) {
                    *chain = add(*chain, next);
                }
            }
            store_chains(states, &chains);
        }

        /// The eight working variables, and `b ^ c`, which the majority of the last round has left.
        type Working = ([$vector; 8], $vector);

        #[inline]
        #[target_feature(enable = $features)]
        fn first_rounds(chains: &[$vector; 8], words: &[$vector; 16]) -> Working {
            let mut working = (*chains, xor(chains[1], chains[2]));
            macro_rules! step {
                ($at:literal) => {
                    working = round(working, add(words[$at], splat(K[$at])));
                };
            }
            $crate::kernels::wide::sixteen!(step);
            working
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn later_rounds(mut working: Working, words: &mut [$vector; 16], constants: &[u32; 16]) -> Working {
            macro_rules! step {
                ($at:literal) => {
                    words[$at] = add(
                        add(words[$at], small_sigma_0(words[($at + 1) % 16])),
                        add(words[($at + 9) % 16], small_sigma_1(words[($at + 14) % 16])),
                    );
                    working = round(working, add(words[$at], splat(constants[$at])));
                };
            }
            $crate::kernels::wide::sixteen!(step);
            working
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn round(([a, b, c, d, e, f, g, h], b_xor_c): Working, word: $vector) -> Working {
            let sigma_1 = xor3(rotate::<6, 26>(e), rotate::<11, 21>(e), rotate::<25, 7>(e));
            let sigma_0 = xor3(rotate::<2, 30>(a), rotate::<13, 19>(a), rotate::<22, 10>(a));
            let (majority, a_xor_b) = majority([a, b, c], b_xor_c);
            let first = add(add(h, word), add(sigma_1, choose(e, f, g)));
            let second = add(sigma_0, majority);
            ([add(first, second), a, b, c, add(d, first), e, f, g], a_xor_b)
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn small_sigma_0(word: $vector) -> $vector {
            xor3(rotate::<7, 25>(word), rotate::<18, 14>(word), shift::<3>(word))
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn small_sigma_1(word: $vector) -> $vector {
            xor3(rotate::<17, 15>(word), rotate::<19, 13>(word), shift::<10>(word))
        }
    };
}

/// Sixteen steps with constant places: a loop would leave the words in memory.
macro_rules! sixteen {
    ($step:ident) => {
        $step!(0);
        $step!(1);
        $step!(2);
        $step!(3);
        $step!(4);
        $step!(5);
        $step!(6);
        $step!(7);
        $step!(8);
        $step!(9);
        $step!(10);
        $step!(11);
        $step!(12);
        $step!(13);
        $step!(14);
        $step!(15);
    };
}

pub(super) use {sixteen, wide_compress};
