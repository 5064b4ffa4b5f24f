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

/// RFC 9110 `tchar`.
pub(super) fn is_token_byte(byte: u8) -> bool {
    CLASSES[usize::from(byte)] & TOKEN != 0
}

/// Whether `text` is a `token`.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(is_token_byte)
}

/// Whether `text` holds only what a path and query may: no space, control, quote, `#` or obs-text.
pub(super) fn is_target_text(text: &str) -> bool {
    text.bytes().all(|byte| CLASSES[usize::from(byte)] & TARGET != 0)
}

/// Whether `text` holds only what a `reg-name` may.
pub(super) fn is_host_text(text: &str) -> bool {
    text.bytes().all(|byte| CLASSES[usize::from(byte)] & HOST != 0)
}

/// Whether `bytes` hold a control character other than HTAB.
pub(super) fn has_control(bytes: &[u8]) -> bool {
    // No early exit, so that it compiles to vector instructions.
    bytes
        .iter()
        .fold(0, |found, &byte| found | u8::from(byte < b' ' && byte != b'\t') | u8::from(byte == 0x7f))
        != 0
}

/// Without the spaces and tabs (OWS) on both ends.
pub(super) fn trim_ows(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
