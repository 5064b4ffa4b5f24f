//! The `report` command: one page with tables and plots of runs.
//!
//! In: `result.json` of one run or more, or their directories. Out: one HTML file that needs nothing else, and with
//! `--plots` each plot as a file. Refused: what is not a run of this format, and a run without figures.

mod bars;
mod canvas;
mod group;
mod lines;
mod page;
mod read;
#[cfg(test)]
mod sample;
pub(crate) mod spread;

use std::path::PathBuf;
use std::process::ExitCode;

use askama::Template as _;

use self::page::Page;
use crate::error::LabError;
use crate::pki::write_file;
use crate::results::Run;

/// Options of `report`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Runs: their directories, or their `result.json`.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page [default: report.html beside the first run's result.json].
    #[arg(long)]
    out: Option<PathBuf>,
    /// Also write each plot as an SVG file into this directory.
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

/// Writes a report.
pub(crate) fn run(options: &Options) -> Result<ExitCode, LabError> {
    let runs: Vec<Run> = options.runs.iter().map(|path| read::run(path)).collect::<Result<_, _>>()?;
    let beside = || read::file_of(&options.runs[0]).with_file_name("report.html");
    let out = options.out.clone().unwrap_or_else(beside);
    let page = Page::new(&runs);
    let text = page.render().expect("a page of texts renders into memory");
    write_file(&out, text.as_bytes(), 0o644)?;
    let mut plots = 0;
    if let Some(directory) = &options.plots {
        std::fs::create_dir_all(directory).map_err(LabError::file(directory))?;
        for plot in page.plots() {
            write_file(&directory.join(format!("{}.svg", plot.name)), plot.svg.as_bytes(), 0o644)?;
            plots += 1;
        }
    }
    let rows: usize = runs.iter().map(|run| run.rows.len()).sum();
    println!("{}: {rows} rows of {} runs", out.display(), runs.len());
    if let Some(directory) = &options.plots {
        println!("{}: {plots} plots", directory.display());
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(runs: &[Run], directory: &std::path::Path) -> String {
        let files: Vec<PathBuf> = (0..runs.len()).map(|at| directory.join(format!("{at}.json"))).collect();
        for (file, one) in files.iter().zip(runs) {
            crate::results::write(file, one).unwrap();
        }
        let options = Options { runs: files, out: None, plots: Some(directory.join("plots")) };
        assert_eq!(run(&options).unwrap(), ExitCode::SUCCESS);
        std::fs::read_to_string(directory.join("report.html")).unwrap()
    }

    #[test]
    fn a_page_stands_alone_and_says_what_was_measured() {
        let directory = tempfile::tempdir().unwrap();
        let page = written(&[sample::run()], directory.path());
        for outside in ["<script", "<link", "@import", "url(", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
        let foreign = page.matches("http").count() - page.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(foreign, 0, "the page names another address");
        for inside in [
            "105,000 (100,000 to 110,000)",
            "durability, dedupe, retry",
            "nothing of the work",
            "scripts/bench --quick",
            "&#60;lua&#62; module",
            "not measured",
            "the client itself fell behind in 2",
            "2026-09-21 14:13 UTC",
        ] {
            assert!(page.contains(inside), "{inside}");
        }
        assert_eq!(page.matches("<svg").count(), 6);
        assert_eq!(page.matches("role=\"img\"").count(), 6);
        let mut ids: Vec<&str> =
            page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "an id is used twice");
        assert_eq!(std::fs::read_dir(directory.path().join("plots")).unwrap().count(), 6);
    }

    #[test]
    fn two_runs_share_one_page_and_a_system_keeps_its_colour() {
        let directory = tempfile::tempdir().unwrap();
        let mut later = sample::run();
        later.rows.retain(|row| row.system == "HAProxy");
        let page = written(&[sample::run(), later], directory.path());
        assert!(page.contains("id=\"run1-run\"") && page.contains("id=\"run2-run\""));
        let second = page.split("id=\"run2-run\"").nth(1).unwrap();
        assert!(second.contains("#B84700") && !second.contains("stroke=\"#005F9E\""));
    }

    #[test]
    fn a_run_without_latency_or_cpu_has_no_such_plot() {
        let mut one = sample::run();
        one.stages.clear();
        for round in one.rows.iter_mut().flat_map(|row| &mut row.rounds) {
            round.cpu_us = None;
            round.load.latency = crate::results::Latency::default();
        }
        let directory = tempfile::tempdir().unwrap();
        one.rows.truncate(1);
        let page = written(&[one], directory.path());
        assert_eq!(page.matches("<svg").count(), 0);
        assert!(page.contains("–") && !page.contains("NaN"));
    }
}
