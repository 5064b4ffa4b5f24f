//! Whether bytes are one JSON text, without keeping anything of it.

use serde::de::IgnoredAny;

/// Whether `bytes` are one JSON text (RFC 8259), of any depth; what is duplicate is not looked for.
pub fn is_json(bytes: &[u8]) -> bool {
    // What is ignored is not checked to be UTF-8 by the parser.
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_and_nothing_else() {
        for good in ["{}", " [1, {\"a\": null}]\n", "1e3", "\"\u{e9}\"", "true"] {
            assert!(is_json(good.as_bytes()), "{good}");
        }
        for bad in ["", " ", "{", "{} {}", "{}x", "nul", "{'a':1}", "\u{feff}{}", "[1,]", "\"\n\"", "01"] {
            assert!(!is_json(bad.as_bytes()), "{bad}");
        }
        assert!(!is_json(b"\"\xff\""));
        // Neither stack nor memory grows with the depth.
        let deep = "[".repeat(1 << 20);
        assert!(!is_json(deep.as_bytes()));
        assert!(is_json((deep + &"]".repeat(1 << 20)).as_bytes()));
    }
}
