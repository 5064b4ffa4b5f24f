//! Shows that a search finds: a throw-away value in every form in a file of the lab, and in the arguments and the
//! environment of a process. The forms are made here by other means than the search's.

use std::ops::Range;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use zen_search::Form;

use super::Find;
use crate::error::LabError;
use crate::pki::write_file;
use crate::random::system_bytes;
use crate::signature::hex;

const FILE: &str = "search-proof";

/// A value with what forms differ on: base64 of `>>>` and `???` has `+` and `/` at each alignment.
pub(super) fn throw_away() -> String {
    format!("zen>>>???/+={}", hex(&system_bytes::<16>()))
}

/// A value that is planted.
pub(super) struct Proof {
    file: PathBuf,
    plants: Vec<(Form, Range<u64>)>,
    process: Child,
}

impl Proof {
    /// Plants `value` below `directory` and in a process.
    pub(super) fn plant(directory: &Path, value: &str) -> Result<Self, LabError> {
        let (mut text, mut plants) = (Vec::new(), Vec::new());
        for (form, planted) in planted(value) {
            let start = text.len() as u64;
            text.extend_from_slice(planted.as_bytes());
            plants.push((form, start..text.len() as u64));
            text.push(b'\n');
        }
        let file = directory.join(FILE);
        write_file(&file, &text, 0o600)?;
        let process = Command::new("sh")
            .args(["-c", "read -r _", value])
            .env("ZEN_SEARCH_PROOF", value)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|source| LabError::Start { program: "sh".into(), source })?;
        Ok(Self { file, plants, process })
    }

    /// The process that has the value.
    pub(super) fn process(&self) -> u32 {
        self.process.id()
    }

    /// How often the value is there.
    pub(super) fn len(&self) -> usize {
        self.plants.len() + 2
    }

    /// What was not found, of the places `process` and the file.
    pub(super) fn missed(&self, finds: &[Find], process: &[PathBuf; 2]) -> Vec<String> {
        let is_found = |place: &Path, form, range: &Range<u64>| {
            finds
                .iter()
                .any(|find| find.place == place && find.hit.form == form && range.contains(&find.hit.offset))
        };
        let anywhere = 0..u64::MAX;
        let in_file = self.plants.iter().map(|(form, range)| (self.file.as_path(), *form, range));
        process
            .iter()
            .map(|place| (place.as_path(), Form::AsItIs, &anywhere))
            .chain(in_file)
            .filter(|(place, form, range)| !is_found(place, *form, range))
            .map(|(place, form, range)| {
                let (label, start) = (form.label(), range.start);
                format!(
                    "the search does not find its own plant in {} at byte {start} ({label})",
                    place.display()
                )
            })
            .collect()
    }

    /// Takes it all away.
    pub(super) fn remove(mut self) -> Result<(), LabError> {
        drop(self.process.stdin.take());
        drop(self.process.wait());
        std::fs::remove_file(&self.file).map_err(LabError::file(&self.file))
    }
}

fn planted(value: &str) -> Vec<(Form, String)> {
    let inside = |before: &str| [before, value, "..."].concat();
    let mut all = vec![(Form::AsItIs, inside("."))];
    for before in ["", "a", "ab"] {
        all.push((Form::Base64, STANDARD.encode(inside(before))));
        all.push((Form::Base64Url, URL_SAFE.encode(inside(before))));
    }
    all.push((Form::Hex, hex(value.as_bytes())));
    all.push((Form::Hex, hex(value.as_bytes()).to_uppercase()));
    for (plain, escaped) in [("/", "\\/"), ("/", "\\u002f"), ("+", "\\u002B"), ("=", "\\u003d")] {
        all.push((Form::JsonEscapes, value.replace(plain, escaped)));
    }
    let (lower, upper): (Vec<_>, Vec<_>) =
        value.encode_utf16().map(|unit| (format!("\\u{unit:04x}"), format!("\\u{unit:04X}"))).unzip();
    all.push((Form::JsonEscapes, lower.concat()));
    all.push((Form::JsonEscapes, upper.concat()));
    all.push((Form::Numbers, format!("{:?}", value.as_bytes())));
    all.push((Form::Numbers, serde_json::json!(value.as_bytes()).to_string()));
    all
}
