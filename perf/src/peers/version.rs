//! Whether a peer is new enough, from what it says of itself.

use crate::error::LabError;

/// Major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

/// `NAME X.Y.Z` from the first version in `output`; an error if that is below `least`.
pub(super) fn find_version(name: &'static str, output: &str, least: Version) -> Result<String, LabError> {
    let mut words = output.split(|letter: char| letter.is_whitespace() || letter == '/');
    let Some((version, text)) = words.find_map(parse) else {
        let reason = format!("does not say its version, but {:?}", output.lines().next().unwrap_or_default());
        return Err(LabError::Tool { what: name.to_owned(), reason });
    };
    if version < least {
        let reason =
            format!("{text} is too old, {}.{} is needed; take that of Debian 12 or later", least.0, least.1);
        return Err(LabError::Tool { what: name.to_owned(), reason });
    }
    Ok(format!("{name} {text}"))
}

fn parse(word: &str) -> Option<(Version, &str)> {
    let text = word.split(['-', '+']).next()?;
    let mut numbers = text.split('.');
    let version = Version(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some((version, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_and_old_ones_refused() {
        let cases = [
            ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/\n", Ok("X 2.6.12")),
            ("nginx version: nginx/1.22.1\n", Err("X: 1.22.1 is too old, 2.6 is needed")),
            ("HAProxy version 2.10.1 2026", Ok("X 2.10.1")),
            ("Segmentation fault\n", Err("X: does not say its version, but \"Segmentation fault\"")),
            ("", Err("X: does not say its version")),
        ];
        for (output, wanted) in cases {
            let found = find_version("X", output, Version(2, 6)).map_err(|error| error.to_string());
            match wanted {
                Ok(text) => assert_eq!(found.as_deref(), Ok(text)),
                Err(words) => assert!(found.as_ref().unwrap_err().starts_with(words), "{found:?}"),
            }
        }
    }
}
