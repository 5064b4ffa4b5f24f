//! `seal`.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use zen_lock::SecretName;
use zen_lockd::files::{KeyFile, KeySource, SEALED_EXTENSION, create_new, replace};
use zen_lockd::vault::{AuthorKey, Envelope, Format, Recipients, Scope, seal};

use super::error::CliError;
use super::input::{self, Values};
use super::manifest::Manifest;

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Options of `seal`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// To whom (age1...); several times for several.
    #[arg(long = "recipient", value_name = "AGE1", required_unless_present = "recipients_file")]
    recipients: Vec<String>,
    /// A file with a recipient a line; # begins a comment.
    #[arg(long, value_name = "FILE")]
    recipients_file: Option<PathBuf>,
    /// The namespace for which values are sealed [default: that of the Secret].
    #[arg(long)]
    namespace: Option<String>,
    /// The object for which values are sealed [default: that of the Secret].
    #[arg(long)]
    name: Option<String>,
    /// How far a value may be moved.
    #[arg(long, value_enum, default_value_t)]
    scope: ScopeArgument,
    #[command(flatten)]
    from: Source,
    /// The key of the value that --from-file gives.
    #[arg(long, requires = "file")]
    key: Option<String>,
    /// Sign with this author's key, PKCS #8 PEM of mode 0400.
    #[arg(long, value_name = "FILE")]
    author_key: Option<PathBuf>,
    #[command(flatten)]
    to: To,
    /// Text instead of bytes, in files.
    #[arg(long, conflicts_with = "manifest")]
    armor: bool,
    /// Replace what is there.
    #[arg(long)]
    replace: bool,
}

/// Where values come from; `-` is the standard input.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// A JSON object of strings, or a Kubernetes Secret.
    #[arg(long = "from-json", value_name = "FILE")]
    json: Option<PathBuf>,
    /// A YAML mapping of strings, or a Kubernetes Secret.
    #[arg(long = "from-yaml", value_name = "FILE")]
    yaml: Option<PathBuf>,
    /// Lines of KEY=VALUE.
    #[arg(long = "from-env", value_name = "FILE")]
    env: Option<PathBuf>,
    /// One value, all bytes of the file; needs --key.
    #[arg(long = "from-file", value_name = "FILE", requires = "key")]
    file: Option<PathBuf>,
}

/// Where sealed values go.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct To {
    /// A directory: DIR/NAMESPACE/NAME/KEY.age.
    #[arg(long, value_name = "DIR")]
    out_dir: Option<PathBuf>,
    /// A zen-lock manifest; - is the standard output.
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ScopeArgument {
    /// Nowhere.
    #[default]
    Strict,
    /// Within its namespace.
    Namespace,
    /// Anywhere.
    Cluster,
}

impl Options {
    /// For what, and where it goes.
    pub(crate) fn target(&self) -> String {
        let place = [&self.namespace, &self.name].map(|part| part.as_deref().unwrap_or("?")).join("/");
        let to = self.to.out_dir.as_ref().or(self.to.manifest.as_ref());
        to.map_or(place.clone(), |to| format!("{place} in {}", to.display()))
    }
}

pub(crate) fn run(options: &Options) -> Result<ExitCode, CliError> {
    let recipients = recipients(&options.recipients, options.recipients_file.as_deref())?;
    let author = options.author_key.clone().map(|file| KeyFile(file).read()).transpose()?;
    let author = author.map(|pem| AuthorKey::from_pem(&pem)).transpose()?;
    let Values { namespace, name, by_key } = values(options)?;
    let place = (options.namespace.clone().or(namespace), options.name.clone().or(name));
    let (Some(namespace), Some(name)) = place else {
        return Err(CliError::Usage("say for what: --namespace and --name"));
    };
    let scope = match options.scope {
        ScopeArgument::Strict => Scope::Strict,
        ScopeArgument::Namespace => Scope::Namespace,
        ScopeArgument::Cluster => Scope::Cluster,
    };
    let format = if options.armor { Format::Armored } else { Format::Binary };
    let mut sealed = Vec::with_capacity(by_key.len());
    for (key, value) in by_key {
        let place = SecretName::new(&namespace, &name, &key)?;
        let mut envelope = Envelope::new(place.clone(), scope, value)?;
        if let Some(author) = &author {
            envelope.sign(author);
        }
        sealed.push((place, seal(&mut envelope, &recipients, format)?));
    }
    let count = sealed.len();
    match (&options.to.out_dir, &options.to.manifest) {
        (Some(directory), _) => write_files(directory, sealed, options.replace)?,
        (None, Some(file)) => write_manifest(file, (&namespace, &name), sealed, options.replace)?,
        (None, None) => unreachable!("clap demands one of them"),
    }
    eprintln!("sealed {count} of {namespace}/{name} to {} recipients", recipients.texts().len());
    Ok(ExitCode::SUCCESS)
}

/// Recipients of arguments and of a file.
fn recipients(given: &[String], file: Option<&Path>) -> Result<Recipients, CliError> {
    let text = file.map(|file| fs::read_to_string(file).map_err(CliError::io(file))).transpose()?;
    let lines = text.as_deref().unwrap_or_default().lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(Recipients::parse(given.iter().map(String::as_str).chain(lines))?)
}

fn values(options: &Options) -> Result<Values, CliError> {
    let Source { json, yaml, env, file } = &options.from;
    let parsed = match (json, yaml, env, file) {
        (Some(file), ..) => input::json(&input::read(file)?)?,
        (_, Some(file), ..) => input::yaml(&input::read(file)?)?,
        (_, _, Some(file), _) => input::dotenv(&input::read(file)?)?,
        (.., Some(file)) => {
            let key = options.key.clone().unwrap_or_default();
            Values { by_key: vec![(key, input::read(file)?)], ..Values::default() }
        }
        _ => unreachable!("clap demands one of them"),
    };
    Ok(parsed)
}

fn write_files(directory: &Path, sealed: Vec<(SecretName, Vec<u8>)>, replaces: bool) -> Result<(), CliError> {
    for (place, sealed) in sealed {
        let parent = directory.join(place.namespace()).join(place.name());
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(DIRECTORY_MODE).create(&parent).map_err(CliError::io(&parent))?;
        let file = parent.join(format!("{}.{SEALED_EXTENSION}", place.key()));
        let write = if replaces { replace } else { create_new };
        write(&file, &sealed, FILE_MODE).map_err(CliError::io(&file))?;
    }
    Ok(())
}

fn write_manifest(
    file: &Path,
    (namespace, name): (&str, &str),
    sealed: Vec<(SecretName, Vec<u8>)>,
    replaces: bool,
) -> Result<(), CliError> {
    let is_there = file.as_os_str() != "-" && file.exists();
    if is_there && !replaces {
        return Err(CliError::Exists(file.to_owned()));
    }
    let mut manifest = Manifest::new(namespace, name);
    for (place, sealed) in &sealed {
        manifest.set(place.key(), sealed);
    }
    manifest.write(file)
}
