//! Keys by their number: each new one has the next, and none is used twice.

/// What a key's file is called, without its extension.
pub fn key_name(number: u64) -> String {
    format!("key-{number}")
}

/// The number of a key's name.
pub fn key_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("key-")?.parse().ok()?;
    (key_name(number) == name).then_some(number)
}

/// Which keys of one identity stay: that of the certificate in force, the one before it, for a node that still runs by
/// it, and the newest, which may have been sent already.
pub fn retained(present: &[u64], in_force: Option<u64>) -> Vec<u64> {
    let before = present.iter().copied().filter(|key| Some(*key) < in_force).max();
    let own = present.iter().copied().filter(|key| Some(*key) == in_force).max();
    let newest = present.iter().copied().max();
    let mut retained: Vec<u64> = [before, own, newest].into_iter().flatten().collect();
    retained.dedup();
    retained
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_s_name_has_one_spelling() {
        assert_eq!(key_number(&key_name(12)), Some(12));
        for name in ["key-", "key-01", "key-+1", "key--1", "1", "key-1.age", "binding"] {
            assert_eq!(key_number(name), None, "{name}");
        }
    }

    #[test]
    fn the_key_in_force_and_its_neighbours_stay() {
        let cases: [(&[u64], Option<u64>, &[u64]); 8] = [
            (&[], None, &[]),
            (&[1], None, &[1]),
            (&[1, 2, 3], None, &[3]),
            (&[1], Some(1), &[1]),
            (&[1, 2], Some(1), &[1, 2]),
            (&[1, 2], Some(2), &[1, 2]),
            (&[5, 2, 1, 3, 4], Some(3), &[2, 3, 5]),
            (&[2, 3], Some(1), &[3]),
        ];
        for (present, in_force, expected) in cases {
            assert_eq!(retained(present, in_force), expected, "{present:?} {in_force:?}");
        }
    }
}
