//! `route --explain`: what the flows of an endpoint, or an output, would do with an event.
//!
//! Reads the configuration's rules only: no secret, no certificate, no running node.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use zen_core::event::{BODY_BYTES_MAX, HEADERS_BYTES_MAX, push_header_line};
use zen_rules::{Document, Headers, Output, RuleError, Subject, TransformError};

use crate::config::{self, ConfigError};

/// Which rules, and which event.
#[derive(Debug, Args)]
pub struct Route {
    /// The configuration file of the ingester (for --endpoint) or of the egress (for --output).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Explain the flows of this endpoint. Shows types and lengths of what is in the event, never its values.
    #[arg(long, value_name = "ID", required_unless_present = "output", conflicts_with = "output")]
    endpoint: Option<String>,
    /// Show the body that the targets of this output would get.
    #[arg(long, value_name = "NAME")]
    output: Option<String>,
    /// The event's body; `-` is the standard input.
    #[arg(long, value_name = "FILE")]
    explain: PathBuf,
    /// A header of the event, such as `x-github-event: push`; once for each.
    #[arg(long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// JSON in place of text.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The configuration cannot be read, or its rules do not compile.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// An output's rules do not compile.
    #[error("configuration: {0}")]
    Rule(#[from] RuleError),
    /// No such output.
    #[error("{file}: no output \"{name}\" under [egress]; outputs are those of the egress's configuration")]
    NoOutput {
        /// The configuration.
        file: PathBuf,
        /// What was asked for.
        name: String,
    },
    /// The output sends bodies as they come.
    #[error("output \"{0}\" has no transform: its targets get the body as it came")]
    NoTransform(String),
    /// The body cannot be read.
    #[error("{file}: {source}")]
    Body {
        /// Where it should be.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The body is longer than an event's may be.
    #[error("{0}: more than {BODY_BYTES_MAX} bytes, which no event has")]
    TooLong(PathBuf),
    /// An argument that is not a header.
    #[error("--header {0:?}: give it as name: value")]
    Header(String),
    /// The output's transform fails.
    #[error("no body can be made, the delivery would be a dead letter: {0}")]
    Transform(#[from] TransformError),
    /// Nobody reads what is shown.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl Route {
    /// Explains.
    pub fn run(&self) -> Result<(), RouteError> {
        let body = read_body(&self.explain)?;
        let document = Document::new(&body);
        match (&self.endpoint, &self.output) {
            (Some(endpoint), _) => self.explain_flows(endpoint, &document),
            (None, output) => self.show_output(output.as_deref().unwrap_or_default(), &document),
        }
    }

    fn explain_flows(&self, endpoint: &str, document: &Document<'_>) -> Result<(), RouteError> {
        let routing = config::routing_of(&self.config, endpoint)?;
        let (lines, content_type) = headers(&self.headers)?;
        let subject =
            Subject { endpoint, content_type: &content_type, headers: Headers::Lines(&lines), document };
        let explanation = routing.explain(&subject);
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, &explanation).map_err(io::Error::from)?;
            return Ok(writeln!(out)?);
        }
        Ok(write!(out, "{explanation}")?)
    }

    fn show_output(&self, name: &str, document: &Document<'_>) -> Result<(), RouteError> {
        let raw = config::read(&self.config)?;
        let outputs = raw.egress.map(|egress| egress.outputs).unwrap_or_default();
        let Some(section) = outputs.iter().find(|output| output.name == name) else {
            return Err(RouteError::NoOutput { file: self.config.clone(), name: name.to_owned() });
        };
        let output = Output::compile(section)?;
        let transform = output.transform().ok_or_else(|| RouteError::NoTransform(name.to_owned()))?;
        let made = transform.apply(document)?;
        let mut out = io::stdout().lock();
        writeln!(out, "content-type: {}\n", made.content_type)?;
        out.write_all(&made.body)?;
        Ok(writeln!(out)?)
    }
}

fn read_body(file: &Path) -> Result<Vec<u8>, RouteError> {
    let failed = |source| RouteError::Body { file: file.to_owned(), source };
    let mut body = Vec::new();
    let bound = BODY_BYTES_MAX as u64 + 1;
    if file == Path::new("-") {
        io::stdin().lock().take(bound).read_to_end(&mut body).map_err(failed)?;
    } else {
        std::fs::File::open(file).map_err(failed)?.take(bound).read_to_end(&mut body).map_err(failed)?;
    }
    if body.len() > BODY_BYTES_MAX {
        return Err(RouteError::TooLong(file.to_owned()));
    }
    Ok(body)
}

/// Canonical lines of headers, and the content type among them.
fn headers(given: &[String]) -> Result<(String, String), RouteError> {
    let (mut lines, mut content_type) = (String::new(), String::new());
    for text in given {
        let refused = || RouteError::Header(text.clone());
        let (name, value) = text.split_once(':').ok_or_else(refused)?;
        let value = value.trim();
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
        let plain = !value.bytes().any(|byte| byte.is_ascii_control());
        if !is_name || !plain || lines.len() + text.len() > HEADERS_BYTES_MAX {
            return Err(refused());
        }
        let name = name.to_ascii_lowercase();
        push_header_line(&mut lines, &name, value);
        if name == "content-type" {
            value.clone_into(&mut content_type);
        }
    }
    Ok((lines, content_type))
}
