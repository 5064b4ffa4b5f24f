//! When to try again: jitter around a fixed schedule, and what the target asks for.
//!
//! Delays and a `Retry-After` value enter (RFC 9110 section 10.2.3), delays in ms leave. Of the dates only
//! IMF-fixdate is read (section 5.6.7); the obsolete forms are refused, so the schedule alone decides.

use core::ops::RangeInclusive;

/// Longest delay that [`parse_retry_after`] returns, ms: seven days. Longer ones are cut to it.
pub const RETRY_AFTER_MS_CEILING: u64 = 7 * 24 * 3600 * 1000;

const DAY_NAMES: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [(&str, u64); 12] = [
    ("Jan", 31),
    ("Feb", 28),
    ("Mar", 31),
    ("Apr", 30),
    ("May", 31),
    ("Jun", 30),
    ("Jul", 31),
    ("Aug", 31),
    ("Sep", 30),
    ("Oct", 31),
    ("Nov", 30),
    ("Dec", 31),
];

/// Deterministic spread of retries: `SplitMix64` from a seed.
#[derive(Debug)]
pub(super) struct Jitter {
    state: u64,
}

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// `delay_ms`, up to `percent` of it sooner or later.
    pub(super) fn spread(&mut self, delay_ms: u64, percent: u8) -> u64 {
        let reach = (u128::from(delay_ms) * u128::from(percent.min(100)) / 100) as u64;
        let choices = u128::from(reach) * 2 + 1;
        let offset = (u128::from(self.next()) % choices) as u64;
        (delay_ms - reach).saturating_add(offset)
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The delay in ms that a `Retry-After` value asks for at `now_ms` (Unix): a count of seconds or an IMF-fixdate.
/// A date in the past is no delay; anything malformed is `None`.
pub fn parse_retry_after(value: &str, now_ms: u64) -> Option<u64> {
    let value = value.trim_matches([' ', '\t']);
    let delay_ms = if value.starts_with(|first: char| first.is_ascii_digit()) {
        parse_seconds(value)?.saturating_mul(1000)
    } else {
        parse_date(value.as_bytes())?.saturating_mul(1000).saturating_sub(now_ms)
    };
    Some(delay_ms.min(RETRY_AFTER_MS_CEILING))
}

/// Any number of digits; saturates.
fn parse_seconds(value: &str) -> Option<u64> {
    value.bytes().try_fold(0u64, |seconds, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(seconds.saturating_mul(10).saturating_add(digit))
    })
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as Unix seconds; 0 for a date before 1970.
fn parse_date(text: &[u8]) -> Option<u64> {
    let text: &[u8; 29] = text.try_into().ok()?;
    let marks = [(3, b','), (4, b' '), (7, b' '), (11, b' '), (16, b' '), (19, b':'), (22, b':')];
    if marks.iter().any(|&(at, mark)| text[at] != mark) || &text[25..] != b" GMT" {
        return None;
    }
    let month = MONTHS.iter().position(|(name, _)| name.as_bytes() == &text[8..11])?;
    let year = number(&text[12..16], 0..=9999)?;
    let leap = is_leap(year);
    let day = number(&text[5..7], 1..=MONTHS[month].1 + u64::from(month == 1 && leap))?;
    let hour = number(&text[17..19], 0..=23)?;
    let minute = number(&text[20..22], 0..=59)?;
    // RFC 9110 allows a leap second.
    let second = number(&text[23..25], 0..=60)?;
    if !DAY_NAMES.iter().any(|name| name.as_bytes() == &text[..3]) {
        return None;
    }
    if year < 1970 {
        return Some(0);
    }
    let month_days: u64 = MONTHS[..month].iter().map(|(_, days)| days).sum();
    let leap_days = leap_days_before(year) - leap_days_before(1970) + u64::from(month > 1 && leap);
    let days = (year - 1970) * 365 + leap_days + month_days + day - 1;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn number(digits: &[u8], allowed: RangeInclusive<u64>) -> Option<u64> {
    let value = parse_seconds(core::str::from_utf8(digits).ok()?)?;
    allowed.contains(&value).then_some(value)
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Leap days of the years 1 to `year` - 1; `year` is at least 1.
fn leap_days_before(year: u64) -> u64 {
    let past = year - 1;
    past / 4 - past / 100 + past / 400
}

/// When a retry that was noted in a journal is due in steady time; never later than the delay it was noted with.
pub fn steady_due_ms(steady_ms: u64, wall_ms: u64, due_unix_ms: u64, noted_unix_ms: u64) -> u64 {
    let delay_ms_max = due_unix_ms.saturating_sub(noted_unix_ms);
    steady_ms + due_unix_ms.saturating_sub(wall_ms).min(delay_ms_max)
}

/// A time in steady time as the wall clock shows it now, for a note in a journal.
pub fn unix_due_ms(steady_ms: u64, wall_ms: u64, due_steady_ms: u64) -> u64 {
    wall_ms + due_steady_ms.saturating_sub(steady_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EXAMPLE_MS: u64 = 784_111_777_000;

    #[test]
    fn splitmix64_is_the_published_sequence() {
        // First outputs for seed 1234567, as published with the algorithm.
        let mut jitter = Jitter::new(1_234_567);
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([jitter.next(), jitter.next(), jitter.next()], expected);
    }

    #[test]
    fn jitter_stays_within_its_reach_and_fills_it() {
        let mut jitter = Jitter::new(7);
        for (delay_ms, percent, low, high) in
            [(1000, 20, 800, 1200), (1000, 0, 1000, 1000), (10, 100, 0, 20), (3, 20, 3, 3), (0, 20, 0, 0)]
        {
            let (mut least, mut most) = (u64::MAX, 0);
            for _ in 0..20_000 {
                let spread = jitter.spread(delay_ms, percent);
                least = least.min(spread);
                most = most.max(spread);
            }
            assert_eq!((least, most), (low, high), "{delay_ms} {percent}");
        }
        assert!(jitter.spread(u64::MAX, 20) >= u64::MAX / 10 * 8);
    }

    #[test]
    fn retry_after_values() {
        for (value, now_ms, expected) in [
            ("0", 5, Some(0)),
            ("120", 5, Some(120_000)),
            (" 120\t", 5, Some(120_000)),
            ("00000000000000000000000000000000000007", 0, Some(7_000)),
            ("604801", 0, Some(RETRY_AFTER_MS_CEILING)),
            ("99999999999999999999999999999999999999", 0, Some(RETRY_AFTER_MS_CEILING)),
            (EXAMPLE, EXAMPLE_MS - 2_500, Some(2_500)),
            (EXAMPLE, EXAMPLE_MS, Some(0)),
            (EXAMPLE, EXAMPLE_MS + 1, Some(0)),
            (EXAMPLE, 0, Some(RETRY_AFTER_MS_CEILING)),
            ("Thu, 01 Jan 1970 00:00:01 GMT", 0, Some(1_000)),
            ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_399_000, Some(1_000)),
            ("Wed, 01 Mar 2000 00:00:00 GMT", 951_868_799_000, Some(1_000)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", 1_709_251_198_000, Some(1_000)),
            ("Sat, 31 Dec 2016 23:59:60 GMT", 1_483_228_799_000, Some(1_000)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_798_000, Some(1_000)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", 0, Some(0)),
            ("Sat, 01 Jan 0000 00:00:00 GMT", 0, Some(0)),
            ("", 0, None),
            ("-1", 0, None),
            ("+1", 0, None),
            ("1.5", 0, None),
            ("1 2", 0, None),
            ("12s", 0, None),
            ("١", 0, None),
            ("Thu, 29 Feb 2023 00:00:00 GMT", 0, None),
            ("Thu, 29 Feb 1900 00:00:00 GMT", 0, None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", 0, None),
            ("Sun, 31 Nov 1994 08:49:37 GMT", 0, None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", 0, None),
            ("Sun, 06 Nov 1994 08:60:37 GMT", 0, None),
            ("Sun, 06 Nov 1994 08:49:61 GMT", 0, None),
            ("Sun, 06 Nov 1994 08:49:37 UTC", 0, None),
            ("sun, 06 Nov 1994 08:49:37 GMT", 0, None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 0, None),
            ("Sun Nov  6 08:49:37 1994", 0, None),
            ("Sun, +6 Nov 1994 08:49:37 GMT", 0, None),
        ] {
            assert_eq!(parse_retry_after(value, now_ms), expected, "{value}");
        }
    }

    #[test]
    fn every_truncation_and_insertion_of_a_date_is_refused() {
        for at in 0..EXAMPLE.len() {
            let (head, rest) = EXAMPLE.split_at(at);
            assert_eq!(parse_retry_after(head, 0), None, "{head}");
            let longer = std::format!("{head}\u{1}{rest}");
            assert_eq!(parse_retry_after(&longer, 0), None, "{longer:?}");
        }
    }
}
