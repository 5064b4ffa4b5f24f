//! The `[tracing]` section.

use std::net::IpAddr;
use std::sync::Arc;

use zen_identity::TargetRoots;

use super::egress::{host_header, server_name_of, target_url};
use super::faults::Faults;
use super::reach::check_literal;
use crate::config::raw;
use crate::config::settings::TracingSettings;
use crate::reach::COLLECTOR;
use crate::spans::Export;

const ENDPOINT: &str = "tracing.otlp_endpoint";

pub(super) fn tracing(raw: &raw::Tracing, faults: &mut Faults) -> TracingSettings {
    let percent = raw.sample_percent;
    if !(0.0..=100.0).contains(&percent) {
        faults.push(
            "tracing.sample_percent",
            format_args!("{percent} is not 0 to 100"),
            "give a share of events",
        );
    }
    let export = raw.otlp_endpoint.as_deref().and_then(|url| export(url, raw.otlp_ca_file.as_ref(), faults));
    if raw.otlp_ca_file.is_some() && !raw.otlp_endpoint.as_ref().is_some_and(|url| url.starts_with("https:"))
    {
        faults.push("tracing.otlp_ca_file", "is given without an https otlp_endpoint", "remove it");
    }
    TracingSettings {
        sample_below: (percent / 100.0 * 2f64.powi(32)).ceil() as u64,
        export: export.map(Arc::new),
    }
}

/// In clear to this host only.
fn export(url: &str, ca_file: Option<&String>, faults: &mut Faults) -> Option<Export> {
    let remedy = "give https://host[:port], or http:// at a loopback address";
    let split = |scheme: &str, port: u16| Some((url.strip_prefix(scheme)?, port));
    let Some((rest, port)) = split("https://", 443).or_else(|| split("http://", 80)) else {
        faults.push(ENDPOINT, format_args!("\"{url}\" is neither https nor http"), remedy);
        return None;
    };
    let (address, path) = target_url(ENDPOINT, url, rest, port, faults)?;
    check_literal(ENDPOINT, &COLLECTOR, &address, "name another host", faults);
    let path = format!("{}/v1/traces", path.trim_end_matches('/'));
    let host = host_header(&address, port);
    if port == 80 {
        let is_here = address.host == "localhost"
            || address.host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        if !is_here {
            faults.push(ENDPOINT, format_args!("\"{url}\" is not https"), remedy);
            return None;
        }
        return Some(Export::new(address, host, path, None));
    }
    let roots = match ca_file {
        None => TargetRoots::System,
        Some(file) => {
            let read = std::fs::read(faults.resolve(file));
            let remedy = "give a PEM file";
            let key = "tracing.otlp_ca_file";
            TargetRoots::Pem(
                read.map_err(|error| faults.push(key, format_args!("{file}: {error}"), remedy)).ok()?,
            )
        }
    };
    let tls = zen_identity::target_client_config(roots, None)
        .map_err(|error| faults.push(ENDPOINT, error, "check otlp_ca_file, or the system's CA store"))
        .ok()?;
    let name = server_name_of(ENDPOINT, &address.host, faults)?;
    Some(Export::new(address, host, path, Some((tls, name))))
}
