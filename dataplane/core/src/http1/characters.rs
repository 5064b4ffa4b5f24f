//! Character classes of RFC 9110 section 5.6.2 (token) and RFC 3986 (target, host), as one table.

const TOKEN: u8 = 1;
const TARGET: u8 = 2;
const HOST: u8 = 4;

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let value = byte as u8;
        let mut class = 0;
        if value.is_ascii_alphanumeric() {
            class = TOKEN | TARGET | HOST;
        }
        if matches!(value, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
        {
            class |= TOKEN;
        }
        if matches!(value, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&'..=b',' | b';' | b'=' | b'%') {
            class |= TARGET | HOST;
        }
        // Brackets are not in RFC 3986's query, but senders leave `a[]=1` as it is.
        if matches!(value, b'/' | b'?' | b':' | b'@' | b'[' | b']') {
            class |= TARGET;
        }
        table[byte] = class;
        byte += 1;
    }
    table
}

/// Whether `bytes` are a `token`.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| CLASSES[usize::from(byte)] & TOKEN != 0)
}

/// Whether `bytes` are only what a path and query may hold: no space, control, quote, `#` or obs-text.
pub(super) fn is_target_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| CLASSES[usize::from(byte)] & TARGET != 0)
}

/// Whether `bytes` are only what a `reg-name` may hold.
pub(super) fn is_host_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| CLASSES[usize::from(byte)] & HOST != 0)
}

/// How many octets at the start of `bytes` may be in a token.
pub(super) fn leading_token_len(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| CLASSES[usize::from(byte)] & TOKEN == 0).unwrap_or(bytes.len())
}

/// Whether `bytes` hold a control character other than HTAB.
pub(super) fn has_control(bytes: &[u8]) -> bool {
    !is_printable_ascii(bytes) && bytes.iter().any(|&byte| byte < b' ' && byte != b'\t' || byte == 0x7f)
}

/// Whether all of `bytes` are spaces or visible ASCII; eight at a time, as nearly every value is.
pub(super) fn is_printable_ascii(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().all(|byte| (b' '..=b'~').contains(byte));
    };
    let (words, _) = bytes.as_chunks::<8>();
    let clean = |word: &[u8; 8]| unprintable(u64::from_le_bytes(*word)) == 0;
    words.iter().all(clean) && clean(last)
}

/// Not 0 if any of eight octets is below space, DEL or over 127.
fn unprintable(word: u64) -> u64 {
    const EACH: u64 = u64::from_le_bytes([1; 8]);
    let del = word ^ (EACH * 0x7f);
    // A borrow reaches only lanes above one that is found already.
    let below_space = word.wrapping_sub(EACH * 0x20) & !word;
    let is_del = del.wrapping_sub(EACH) & !del;
    (below_space | is_del | word) & (EACH * 0x80)
}

/// Without the spaces and tabs (OWS) on both ends.
pub(super) fn trim_ows(bytes: &[u8]) -> &[u8] {
    let mut trimmed = bytes;
    while let [b' ' | b'\t', rest @ ..] = trimmed {
        trimmed = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = trimmed {
        trimmed = rest;
    }
    trimmed
}
