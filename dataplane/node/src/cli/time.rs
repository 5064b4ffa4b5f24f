//! Times on the command line: RFC 3339, or how long ago; the node speaks Unix ms.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::CliError;

const UNITS_MS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Unix ms of `2026-01-31T12:00:00Z`, or of a time so long ago: `90s`, `15m`, `2h`, `7d`.
pub fn parse(text: &str) -> Result<u64, CliError> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis() as u64;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let ago_ms = UNITS_MS
        .iter()
        .find(|(name, _)| *name == unit)
        .and_then(|(_, unit_ms)| number.parse::<u64>().ok()?.checked_mul(*unit_ms));
    let at = || OffsetDateTime::parse(text, &Rfc3339).ok().map(|at| at.unix_timestamp_nanos() / 1_000_000);
    let at_ms = ago_ms.map(|ago_ms| now_ms.saturating_sub(ago_ms));
    at_ms.or_else(|| u64::try_from(at()?).ok()).ok_or_else(|| {
        CliError::Argument(format!(
            "{text}: give a time such as 2026-01-31T12:00:00Z, or 90s, 15m, 2h, 7d ago"
        ))
    })
}

/// RFC 3339 in UTC, to the ms.
pub fn show(unix_ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000);
    at.ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| unix_ms.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_shown() {
        assert_eq!(parse("1970-01-01T00:00:01.5Z").unwrap(), 1_500);
        assert_eq!(parse("2026-01-31T13:00:00+01:00").unwrap(), 1_769_860_800_000);
        assert_eq!(show(1_769_860_800_000), "2026-01-31T12:00:00Z");
        assert_eq!(show(1_500), "1970-01-01T00:00:01.5Z");
        let (hour, now) = (parse("1h").unwrap(), parse("0s").unwrap());
        assert!((3_599_000..=3_601_000).contains(&(now - hour)), "{hour} {now}");
        for text in
            ["", "h", "5", "5w", "yesterday", "2026-01-31", "1969-01-01T00:00:00Z", "99999999999999999999d"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
