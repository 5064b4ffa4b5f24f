//! Sets of status codes: which answers of a target are permanent.
//!
//! Names enter as configuration writes them, `422` or `4xx`; membership leaves. Refused: what is no failure, and what has a
//! meaning of its own (410 disables, 429 and 503 throttle). The default holds what judges the event itself, which is the same at
//! each attempt: its size (413, 431), its form (415), its content (422), its way here (508). 400, 401 and 403 are what many verifiers answer while a
//! key is rotated, a clock is off or an address list lags; 404 and 405 come from a deployment under way. Those heal.

/// Statuses that have a meaning of their own.
const RESERVED: [u16; 3] = [410, 429, 503];
const DEFAULT: [u16; 5] = [413, 415, 422, 431, 508];

/// A set of status codes from 300 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusSet {
    words: [u64; WORDS],
}

/// Words of 64 codes; the last begins at 576.
const WORDS: usize = 10;

/// A text that names no status that may be permanent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a permanent status is 300 to 599 but not 410, 429 or 503, or a class: 3xx, 4xx, 5xx")]
pub struct StatusError;

impl StatusSet {
    /// Nothing is permanent.
    pub const EMPTY: Self = Self { words: [0; WORDS] };

    /// Adds a status, or a class without the reserved ones.
    pub fn insert(&mut self, text: &str) -> Result<(), StatusError> {
        let class = match text {
            "3xx" => 300..=399,
            "4xx" => 400..=499,
            "5xx" => 500..=599,
            _ => return self.insert_one(text.parse().map_err(|_| StatusError)?),
        };
        class.filter(|status| !RESERVED.contains(status)).try_for_each(|status| self.insert_one(status))
    }

    /// Whether it holds the status; any number may be asked for.
    pub fn contains(&self, status: u16) -> bool {
        let word = self.words.get(usize::from(status / 64));
        word.is_some_and(|word| word >> (status % 64) & 1 == 1)
    }

    fn insert_one(&mut self, status: u16) -> Result<(), StatusError> {
        if !(300..=599).contains(&status) || RESERVED.contains(&status) {
            return Err(StatusError);
        }
        self.words[usize::from(status / 64)] |= 1 << (status % 64);
        Ok(())
    }
}

impl Default for StatusSet {
    fn default() -> Self {
        let mut set = Self::EMPTY;
        for status in DEFAULT {
            set.insert_one(status).expect("the defaults are failures and not reserved");
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn the_default_judges_the_event_and_not_the_target() {
        let held: Vec<u16> = (0..=1_000).filter(|&status| StatusSet::default().contains(status)).collect();
        assert_eq!(held, DEFAULT);
        assert!((0..=u16::MAX).all(|status| !StatusSet::EMPTY.contains(status)));
    }

    #[test]
    fn classes_leave_out_what_has_a_meaning_of_its_own() {
        let classes: [(&str, u16, &[u16]); 3] =
            [("3xx", 300, &[]), ("4xx", 400, &[410, 429]), ("5xx", 500, &[503])];
        for (text, first, without) in classes {
            let mut set = StatusSet::EMPTY;
            set.insert(text).unwrap();
            for status in 0..=1_000 {
                let expected = status / 100 * 100 == first && !without.contains(&status);
                assert_eq!(set.contains(status), expected, "{text} {status}");
            }
        }
    }

    #[test]
    fn what_is_no_failure_is_refused() {
        for text in ["410", "429", "503", "200", "299", "600", "2xx", "4XX", "", "4", "-400", "99999", "400 "]
        {
            let mut set = StatusSet::EMPTY;
            assert_eq!((set.insert(text), set), (Err(StatusError), StatusSet::EMPTY), "{text}");
        }
        let mut set = StatusSet::EMPTY;
        for text in ["300", "599", "400"] {
            set.insert(text).unwrap();
        }
        assert!(set.contains(300) && set.contains(599) && set.contains(400) && !set.contains(401));
    }
}
