//! Values as people read them: moments and spans.

use time::OffsetDateTime;

use super::now;

/// Unix ms as `2026-01-31 12:00:00 UTC`; empty for none.
pub(super) fn moment(ms: i64) -> String {
    let Ok(moment) = OffsetDateTime::from_unix_timestamp(ms / 1000) else { return String::new() };
    if ms == 0 {
        return String::new();
    }
    let (year, month, day) = (moment.year(), u8::from(moment.month()), moment.day());
    let (hour, minute, second) = (moment.hour(), moment.minute(), moment.second());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// How long until then, or since then, in the largest unit that has two digits or less.
pub(super) fn span(ms: i64) -> String {
    let away = (ms - now()).abs() / 1000;
    let text = match away {
        0..120 => format!("{away} s"),
        120..7200 => format!("{} min", away / 60),
        7200..172_800 => format!("{} h", away / 3600),
        _ => format!("{} days", away / 86_400),
    };
    if ms < now() { format!("{text} ago") } else { format!("in {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_by_people() {
        assert_eq!(moment(1_790_000_000_000), "2026-09-21 14:13:20 UTC");
        assert_eq!((moment(0), moment(i64::MAX)), (String::new(), String::new()));
        assert!(span(now() + 3_700_000).starts_with("in 61 min") && span(now() - 10_000).ends_with("ago"));
    }
}
