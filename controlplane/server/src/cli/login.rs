//! `zen-control login`: a token of an hour for a terminal.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use clap::Args;
use zen_control::ControlError;

#[derive(Debug, Args)]
pub(super) struct Login {
    /// Where browsers reach the control plane, `https://HOST:PORT`.
    #[arg(long)]
    server: String,
    /// PEM: who may sign its certificate, as `roots.pem`; the system's CAs without it.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// A new file for the token, mode 0600; standard output without it.
    #[arg(long)]
    out: Option<PathBuf>,
}

pub(super) fn run(login: &Login) -> Result<(), ControlError> {
    let ca = login
        .ca
        .as_ref()
        .map(|path| std::fs::read(path).map_err(|source| ControlError::File { path: path.clone(), source }));
    let ca = ca.transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|source| ControlError::File { path: "threads".into(), source })?;
    let token = runtime.block_on(async {
        let begun = zen_control::begin_login(&login.server, ca).await?;
        let (code, address) = begun.prompt();
        eprintln!("Open {address}\nand confirm the code {code}");
        begun.finish().await
    })?;
    let Some(path) = &login.out else {
        println!("{}", *token);
        return Ok(());
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| writeln!(file, "{}", *token));
    written.map_err(|source| ControlError::File { path: path.clone(), source })?;
    eprintln!(
        "For an hour: curl -H \"Authorization: Bearer $(cat {})\" {}/v1/tenants",
        path.display(),
        login.server
    );
    Ok(())
}
