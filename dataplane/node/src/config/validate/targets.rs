//! Kinds of targets: what they are sent, and how a node proves itself beside its certificate and its signatures.

use std::fmt::Display;

use zen_core::deliver::cloudevents::{AttributeError, CloudEvents};
use zen_core::deliver::{BATCH_EVENTS_MAX, BatchLimits, Credentials, LINGER_MS_MAX};

use super::egress::{TargetPlace, host_header, target_url};
use super::faults::Faults;
use crate::config::raw::{self, ClientCertificate, CredentialsKind, TargetBatch, TargetFormat};
use crate::config::settings::{Format, HostPort, Transport};

/// The credentials of a target; a fault is found for each key that is missing or out of place.
pub(super) fn authorization(
    key: &str,
    raw: &raw::TargetAuthorization,
    faults: &mut Faults,
) -> Option<Credentials> {
    let key = format!("{key}.authorization");
    match raw.kind {
        CredentialsKind::Bearer => {
            stray(
                &key,
                "bearer",
                [("username", &raw.username), ("password_file", &raw.password_file)],
                faults,
            );
            let file = required(format!("{key}.token_file"), raw.token_file.as_deref(), faults)?;
            let token = faults.secret(format_args!("{key}.token_file"), file)?;
            let made = Credentials::bearer(&token);
            made.map_err(|error| faults.push(format_args!("{key}.token_file"), error, "write a token to it"))
                .ok()
        }
        CredentialsKind::Basic => {
            stray(&key, "basic", [("token_file", &raw.token_file)], faults);
            let username = required(format!("{key}.username"), raw.username.as_deref(), faults)?;
            let file = required(format!("{key}.password_file"), raw.password_file.as_deref(), faults)?;
            let password = faults.secret(format_args!("{key}.password_file"), file)?;
            let made = Credentials::basic(username, &password);
            made.map_err(|error| faults.push(&key, error, "see docs/configuration.md, targets")).ok()
        }
    }
}

/// Longest path of a unix socket, bytes (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A target behind a unix socket, which no other host can reach: plain HTTP, and no name to be resolved.
pub(super) fn unix(key: &str, raw: &raw::Target, socket: &str, faults: &mut Faults) -> Option<TargetPlace> {
    if raw.ca_file.is_some()
        || !raw.spiffe_ids.is_empty()
        || raw.client_certificate == ClientCertificate::None
    {
        let remedy = "remove ca_file, spiffe_ids and client_certificate; peer_uid says who must listen";
        faults.push(key, "has keys of TLS, which a unix_socket does not speak", remedy);
    }
    let path = faults.resolve(socket);
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let problem = format_args!("{} is over {SOCKET_PATH_BYTES_MAX} bytes", path.display());
        faults.push(format_args!("{key}.unix_socket"), problem, "give a shorter path");
    }
    let url_key = format!("{key}.url");
    let Some(rest) = raw.url.strip_prefix("http://") else {
        let problem = format_args!("\"{}\" is not http", raw.url);
        faults.push(&url_key, problem, "over a unix_socket give http://localhost/path");
        return None;
    };
    let (address, url_path) = target_url(&url_key, &raw.url, rest, 80, faults)?;
    Some(TargetPlace {
        host: host_header(&address, 80),
        address: HostPort { host: String::new(), port: 0 },
        path: url_path,
        transport: Transport::Unix { path, peer_uid: raw.peer_uid },
    })
}

/// What a target is sent.
pub(super) fn format(key: &str, raw: &raw::Target, faults: &mut Faults) -> Option<Format> {
    let attributes =
        [("cloudevents_type", &raw.cloudevents_type), ("cloudevents_source", &raw.cloudevents_source)];
    if raw.format == TargetFormat::Original {
        stray(key, "the format original", attributes, faults);
        return Some(Format::Original);
    }
    let [kind, source] = attributes.map(|(_, value)| value.as_deref());
    let made = CloudEvents::new(kind, source).map_err(|error| {
        let name = match error {
            AttributeError::Type => "cloudevents_type",
            AttributeError::Source => "cloudevents_source",
        };
        faults.push(format_args!("{key}.{name}"), error, "see docs/wire-formats.md, CloudEvents");
    });
    Some(match raw.format {
        TargetFormat::CloudeventsStructured => Format::Structured(made.ok()?),
        _ => Format::Binary(made.ok()?),
    })
}

/// How many events a request holds; more than one only as lines of structured events.
pub(super) fn batch(key: &str, raw: &raw::Target, faults: &mut Faults) -> Option<BatchLimits> {
    let section = raw.batch?;
    let key = format!("{key}.batch");
    if raw.format != TargetFormat::CloudeventsStructured {
        let remedy = "give format = \"cloudevents-structured\": each line is such an event";
        faults.push(&key, "does not belong to this format", remedy);
    }
    faults.bound(format_args!("{key}.events_max"), section.events_max, 1, BATCH_EVENTS_MAX);
    faults.bound(format_args!("{key}.bytes_max"), section.bytes_max, 1024, 16 << 20);
    faults.bound(format_args!("{key}.linger_ms"), section.linger_ms, 0, LINGER_MS_MAX);
    if section.events_max > raw.in_flight_max {
        let problem = format_args!("{} is above in_flight_max, which counts events", section.events_max);
        faults.push(format_args!("{key}.events_max"), problem, "raise in_flight_max, or lower it");
    }
    let TargetBatch { events_max, bytes_max, linger_ms } = section;
    Some(BatchLimits { events_max: events_max.max(1), bytes_max: bytes_max as usize, linger_ms })
}

fn required<'a>(key: impl Display, value: Option<&'a str>, faults: &mut Faults) -> Option<&'a str> {
    if value.is_none() {
        faults.push(key, "is missing", "this kind of authorization needs it");
    }
    value
}

fn stray<const N: usize>(key: &str, kind: &str, keys: [(&str, &Option<String>); N], faults: &mut Faults) {
    for (name, value) in keys {
        if value.is_some() {
            faults.push(format_args!("{key}.{name}"), format_args!("does not belong to {kind}"), "remove it");
        }
    }
}
