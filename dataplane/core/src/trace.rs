//! W3C Trace Context (Recommendation level 1, with the random flag of level 2): `traceparent` and `tracestate`.
//!
//! A source's header values enter. What can be read leaves as metadata of the event, and from there, with the span
//! of the delivery attempt as the parent, as headers of the delivery. What cannot be read is left out and refuses
//! nothing: an unreadable `traceparent` takes its `tracestate` with it, and an unreadable `tracestate` goes alone
//! (sections 3.2 and 3.3). A `tracestate` over its bound loses whole members, the long ones first.

use alloc::string::String;
use core::fmt;

use crate::event::Event;
use crate::id::{decode_hex, encode_hex};

/// The header of requests and deliveries, and with a colon before it the event's metadata line.
pub const TRACEPARENT: &str = "traceparent";
/// The other one.
pub const TRACESTATE: &str = "tracestate";
/// Metadata: as received, or with the span of the node that took the event in as the parent.
pub const TRACEPARENT_LINE: &str = ":traceparent";
/// Metadata: as received, in one line.
pub const TRACESTATE_LINE: &str = ":tracestate";
/// Longest `tracestate`, bytes.
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// Bytes of a `traceparent` of version 00.
const TRACEPARENT_BYTES: usize = 55;
/// Somebody records this trace.
const SAMPLED: u8 = 0x01;
/// The right half of the trace id is random.
const RANDOM: u8 = 0x02;
/// Most members of a `tracestate`.
const MEMBERS_MAX: usize = 32;
/// Members over this leave first, bytes.
const LONG_MEMBER_BYTES: usize = 128;

/// A trace, and the span in it that came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Names the whole trace; not all zeros.
    pub trace_id: [u8; 16],
    /// The span of the caller; not all zeros.
    pub parent_id: [u8; 8],
    /// Those flags that are known.
    flags: u8,
}

impl TraceParent {
    /// A trace that begins here and is recorded; of zeros nothing is made.
    pub fn begin(trace_id: [u8; 16], parent_id: [u8; 8]) -> Option<Self> {
        let made = Self { trace_id, parent_id, flags: SAMPLED | RANDOM };
        (trace_id != [0; 16] && parent_id != [0; 8]).then_some(made)
    }

    /// Reads a header's value; of later versions what this one knows.
    pub fn parse(value: &str) -> Option<Self> {
        let bytes = value.as_bytes();
        let fields = bytes.first_chunk::<TRACEPARENT_BYTES>()?;
        if [2, 35, 52].iter().any(|&at| fields[at] != b'-') {
            return None;
        }
        let [version] = hex(&fields[..2])?;
        let is_whole = match version {
            0 => bytes.len() == TRACEPARENT_BYTES,
            0xff => false,
            _ => bytes.get(TRACEPARENT_BYTES).is_none_or(|&next| next == b'-'),
        };
        let (trace_id, parent_id) = (hex(&fields[3..35])?, hex(&fields[36..52])?);
        let [flags] = hex(&fields[53..55])?;
        let known = if version == 0 { SAMPLED | RANDOM } else { SAMPLED };
        let parent = Self { trace_id, parent_id, flags: flags & known };
        (is_whole && trace_id != [0; 16] && parent_id != [0; 8]).then_some(parent)
    }

    /// Of an event, if it belongs to a trace.
    pub fn of_event(event: &Event<'_>) -> Option<Self> {
        Self::parse(event.metadata(TRACEPARENT_LINE)?)
    }

    /// The same trace, with another span as the parent of what follows.
    #[must_use]
    pub fn with_parent(self, parent_id: [u8; 8]) -> Self {
        Self { parent_id, ..self }
    }

    /// Whether the caller records this trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl fmt::Display for TraceParent {
    /// As a header's value of version 00.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        encode_hex(&self.trace_id, &mut text[3..35]);
        encode_hex(&self.parent_id, &mut text[36..52]);
        encode_hex(&[self.flags], &mut text[53..55]);
        out.write_str(core::str::from_utf8(&text).expect("hex digits and hyphens"))
    }
}

/// The span of a delivery attempt: the first half of its nonce, which is random and sent anyway.
pub fn attempt_span(nonce: &[u8; 16]) -> [u8; 8] {
    let span = *nonce.first_chunk().expect("8 of 16 bytes");
    if span == [0; 8] { [1; 8] } else { span }
}

/// The `tracestate` that these header values make together: in order, without empty members; none if it cannot be read.
pub fn combine_tracestate<'a>(values: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    let members = values.flat_map(|value| value.split(',')).map(|member| member.trim_matches([' ', '\t']));
    let members = members.filter(|member| !member.is_empty());
    if members.clone().count() > MEMBERS_MAX || !members.clone().all(is_member) {
        return None;
    }
    let mut bytes: usize = members.clone().map(|member| member.len() + 1).sum();
    let mut state = String::new();
    for member in members {
        if bytes > TRACESTATE_BYTES_MAX + 1 && member.len() > LONG_MEMBER_BYTES {
            bytes -= member.len() + 1;
            continue;
        }
        let comma = if state.is_empty() { "" } else { "," };
        if state.len() + comma.len() + member.len() > TRACESTATE_BYTES_MAX {
            break;
        }
        state.push_str(comma);
        state.push_str(member);
    }
    (!state.is_empty()).then_some(state)
}

/// `key=value`, section 3.3.1.3.
fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let is_key_byte = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let begins = key.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
    let is_value_byte = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'=';
    begins
        && key.len() <= 256
        && key.bytes().all(is_key_byte)
        && (1..=256).contains(&value.len())
        && value.bytes().all(is_value_byte)
}

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    decode_hex(text, &mut bytes).ok()?;
    Some(bytes)
}

/// What is read is written as the same trace, and what is written is read again; states keep their bounds.
#[doc(hidden)]
pub fn fuzz_trace(data: &[u8]) {
    use alloc::string::ToString;
    let text = core::str::from_utf8(data).unwrap_or("");
    if let Some(parent) = TraceParent::parse(text) {
        let written = parent.to_string();
        assert_eq!(TraceParent::parse(&written), Some(parent));
        assert_eq!((&written[3..53], &written[..3]), (&text[3..53], "00-"));
    }
    let Some(state) = combine_tracestate(text.split('\n')) else { return };
    assert!(state.len() <= TRACESTATE_BYTES_MAX && state.split(',').count() <= MEMBERS_MAX);
    assert!(state.bytes().all(|byte| matches!(byte, b' '..=b'~')) && state.split(',').all(is_member));
    assert_eq!(combine_tracestate(core::iter::once(&*state)), Some(state.clone()));
}

#[cfg(test)]
mod tests {
    use alloc::borrow::ToOwned;
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    /// The example of the specification.
    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_specification_s_example() {
        let parent = TraceParent::parse(EXAMPLE).unwrap();
        assert_eq!(parent.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
        assert_eq!(parent.parent_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
        assert!(parent.is_sampled());
        assert_eq!(parent.to_string(), EXAMPLE);
        let next = parent.with_parent([0xab; 8]).to_string();
        assert_eq!(next, "00-0af7651916cd43dd8448eb211c80319c-abababababababab-01");
    }

    #[test]
    fn which_values_are_read_and_what_is_passed_on() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let good = |flags: &str| Some(format!("00-{trace}-{span}-{flags}"));
        for (value, expected) in [
            (format!("00-{trace}-{span}-00"), good("00")),
            (format!("00-{trace}-{span}-03"), good("03")),
            // Flags that are not defined are set to zero.
            (format!("00-{trace}-{span}-ff"), good("03")),
            (format!("00-{trace}-{span}-08"), good("00")),
            // Later versions may be longer, and only their sampled flag is known.
            (format!("01-{trace}-{span}-01"), good("01")),
            (format!("cc-{trace}-{span}-03-what-comes-later"), good("01")),
            (format!("01-{trace}-{span}-01."), None),
            (format!("00-{trace}-{span}-01-more"), None),
            (format!("00-{trace}-{span}-01-"), None),
            (format!("ff-{trace}-{span}-01"), None),
            (format!("0-{trace}-{span}-01"), None),
            (format!("0G-{trace}-{span}-01"), None),
            (format!("00-{trace}-{span}-1"), None),
            (format!("00-{trace}-{span}"), None),
            (format!("00-{trace}-{span}-"), None),
            (format!("00-{trace}-{span}-0x"), None),
            (format!("00_{trace}-{span}-01"), None),
            (format!("00-{trace}_{span}-01"), None),
            (format!("00-{trace}-{span}_01"), None),
            (format!("00-{}-{span}-01", trace.to_uppercase()), None),
            (format!("00-{trace}-{}-01", span.to_uppercase()), None),
            (format!("00-{}-{span}-01", "0".repeat(32)), None),
            (format!("00-{trace}-{}-01", "0".repeat(16)), None),
            (format!("00-{}-{span}-01", &trace[1..]), None),
            (format!(" 00-{trace}-{span}-01"), None),
            (format!("00-{trace}-{span}-\u{e9}"), None),
            (String::new(), None),
        ] {
            let read = TraceParent::parse(&value).map(|parent| parent.to_string());
            assert_eq!(read, expected, "{value}");
        }
    }

    #[test]
    fn every_byte_of_a_value_counts() {
        for at in 0..EXAMPLE.len() {
            assert_eq!(TraceParent::parse(&EXAMPLE[..at]), None, "{at}");
            let mut bytes = EXAMPLE.as_bytes().to_vec();
            bytes[at] = b'g';
            assert_eq!(TraceParent::parse(core::str::from_utf8(&bytes).unwrap()), None, "{at}");
        }
    }

    #[test]
    fn a_trace_that_begins_here_is_sampled_and_random() {
        let made = TraceParent::begin([1; 16], [2; 8]).unwrap();
        assert_eq!(made.to_string(), format!("00-{}-{}-03", "01".repeat(16), "02".repeat(8)));
        assert_eq!(TraceParent::begin([0; 16], [2; 8]), None);
        assert_eq!(TraceParent::begin([1; 16], [0; 8]), None);
        assert_eq!(attempt_span(&[0; 16]), [1; 8]);
    }

    #[test]
    fn states_are_joined_in_order_or_left_out() {
        let many = |count: usize| (0..count).map(|index| format!("k{index}=v")).collect::<Vec<_>>().join(",");
        let key = |bytes: usize| format!("{}=1", "k".repeat(bytes));
        let value = |bytes: usize| format!("k={}", "v".repeat(bytes));
        for (values, expected) in [
            (vec!["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE".to_owned()], true),
            (vec!["foo@=1,bar=2".to_owned()], true),
            (vec!["0a*_-/@=a b".to_owned()], true),
            (vec![many(32)], true),
            (vec![many(33)], false),
            (vec![key(256)], true),
            (vec![key(257)], false),
            (vec![value(256)], true),
            (vec![value(257)], false),
            (vec!["foo".to_owned()], false),
            (vec!["foo=".to_owned()], false),
            (vec!["=1".to_owned()], false),
            (vec!["Foo=1".to_owned()], false),
            (vec!["@foo=1".to_owned()], false),
            (vec!["foo =1".to_owned()], false),
            (vec!["foo=1=2".to_owned()], false),
            (vec!["foo=\u{e9}".to_owned()], false),
            (vec!["foo=1\u{7f}".to_owned()], false),
            (vec!["good=1".to_owned(), "bad".to_owned()], false),
            (vec![String::new()], false),
            (vec![" , ,".to_owned()], false),
        ] {
            let combined = combine_tracestate(values.iter().map(String::as_str));
            assert_eq!(combined, expected.then(|| values.join(",")), "{values:?}");
        }
        let combined = combine_tracestate(["a=1 ,\t b=2", "", ",c=3,"].into_iter());
        assert_eq!(combined.as_deref(), Some("a=1,b=2,c=3"));
    }

    #[test]
    fn a_state_over_its_bound_loses_whole_members_long_ones_first() {
        let long = |name: &str| format!("{name}={}", "v".repeat(200));
        let short = |name: &str| format!("{name}={}", "v".repeat(100));
        let state = |members: &[String]| combine_tracestate(members.iter().map(String::as_str)).unwrap();
        let kept = [short("a"), short("b"), short("c"), short("d")];
        assert_eq!(state(&[long("x"), kept.join(","), long("y")]), kept.join(","));
        assert_eq!(state(&[kept.join(","), short("e"), short("f")]), kept.join(","));
        assert_eq!(
            state(&[long("x"), long("y"), short("a"), short("b")]),
            [long("y"), short("a"), short("b")].join(",")
        );
        let exact = [long("x"), long("y"), format!("z={}", "v".repeat(512 - 2 * 203 - 2))].join(",");
        assert_eq!((exact.len(), state(core::slice::from_ref(&exact))), (512, exact));
    }

    #[test]
    fn fuzz_seeds() {
        for seed in [EXAMPLE, "a=1,b=2\nc=3", "", "cc-", &format!("cc{}-more", &EXAMPLE[2..])] {
            fuzz_trace(seed.as_bytes());
        }
    }
}
