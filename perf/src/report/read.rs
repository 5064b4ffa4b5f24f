//! Reading runs. Refused, each with what to do: what is no run, a run of another format, one that measured nothing.

use std::path::{Path, PathBuf};

use crate::error::LabError;
use crate::results::{FORMAT, Run, read};

/// The name of a run's file in its directory.
const RESULT: &str = "result.json";

/// The file of a run, if a directory is named.
pub(super) fn file_of(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(RESULT) } else { path.to_owned() }
}

/// Reads a run from its directory or its file.
pub(super) fn run(path: &Path) -> Result<Run, LabError> {
    let file = file_of(path);
    let refuse = |reason: String| LabError::NotARun { path: file.clone(), reason };
    let value: serde_json::Value = read(&file)?;
    let Some(format) = value.get("format").and_then(serde_json::Value::as_u64) else {
        return Err(refuse("this is not a run: it names no format".to_owned()));
    };
    if format != u64::from(FORMAT) {
        return Err(refuse(format!("this has format {format}, and this zen-perf reads format {FORMAT}")));
    }
    if value.get("rows").is_none() {
        return Err(refuse(
            "this is not a run: it has no rows; a load's own result has no report".to_owned(),
        ));
    }
    let run: Run = serde_json::from_value(value).map_err(|source| refuse(source.to_string()))?;
    if run.rows.iter().all(|row| row.rounds.is_empty()) && run.stages.is_empty() {
        return Err(refuse("this run has measured nothing: no row has a round".to_owned()));
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn what_is_no_run_is_refused_in_words() {
        let directory = tempfile::tempdir().unwrap();
        let mut empty = sample::run();
        empty.rows.clear();
        empty.stages.clear();
        let empty = serde_json::to_string(&empty).unwrap();
        let strange = serde_json::to_string(&sample::run()).unwrap().replacen("\"took_s\"", "\"took\"", 1);
        for (text, expected) in [
            ("", "EOF while parsing"),
            ("[]", "it names no format"),
            ("{\"format\":2,\"rows\":[]}", "format 2, and this zen-perf reads format 1"),
            ("{\"format\":1,\"seconds\":3}", "it has no rows"),
            (strange.as_str(), "unknown field `took`"),
            (empty.as_str(), "has measured nothing"),
        ] {
            std::fs::write(directory.path().join(RESULT), text).unwrap();
            let error = run(directory.path()).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(RESULT), "{error}");
        }
        let error = run(&directory.path().join("absent")).unwrap_err().to_string();
        assert!(error.contains("absent: No such file"), "{error}");
    }
}
