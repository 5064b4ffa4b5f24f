//! Kinds of targets: what they are sent, and how a node proves itself beside its certificate and its signatures.

use std::sync::Arc;

use zen_core::deliver::cloudevents::{AttributeError, CloudEvents};
use zen_core::deliver::{BATCH_EVENTS_MAX, BatchLimits, Credentials, LINGER_MS_MAX, PASSWORD_BYTES_MAX};

use zeroize::Zeroizing;

use super::egress::{TargetPlace, host_header, named_roots, server_name_of, target_url};
use super::faults::Faults;
use crate::config::raw::{self, ClientCertificate, CredentialsKind, TargetBatch, TargetFormat};
use crate::config::settings::{Authorization, Format, HostPort, Transport};
use crate::oauth::{TokenRequest, TokenSource, push_form, write_token_request};

/// The credentials of a target, or where they come from; a fault is found for each key that is missing or out of place.
pub(super) fn authorization(
    key: &str,
    raw: &raw::TargetAuthorization,
    faults: &mut Faults,
) -> Option<Authorization> {
    let key = &format!("{key}.authorization");
    let (bearer, basic, oauth2) = (
        [("token_file", &raw.token_file)],
        [("username", &raw.username), ("password_file", &raw.password_file)],
        [
            ("token_url", &raw.token_url),
            ("client_id", &raw.client_id),
            ("client_secret_file", &raw.client_secret_file),
            ("scope", &raw.scope),
            ("ca_file", &raw.ca_file),
        ],
    );
    match raw.kind {
        CredentialsKind::Bearer => {
            stray(key, "bearer", basic, faults);
            stray(key, "bearer", oauth2, faults);
            let token = secret(key, "token_file", raw.token_file.as_deref(), faults)?;
            let made = Credentials::bearer(&token).map(Authorization::Fixed);
            made.map_err(|error| faults.push(format_args!("{key}.token_file"), error, "write a token to it"))
                .ok()
        }
        CredentialsKind::Basic => {
            stray(key, "basic", bearer, faults);
            stray(key, "basic", oauth2, faults);
            let username = required(key, "username", raw.username.as_deref(), faults)?;
            let password = secret(key, "password_file", raw.password_file.as_deref(), faults)?;
            let made = Credentials::basic(username, &password).map(Authorization::Fixed);
            made.map_err(|error| faults.push(key, error, "see docs/configuration.md, targets")).ok()
        }
        CredentialsKind::Oauth2 => {
            stray(key, "oauth2", bearer, faults);
            stray(key, "oauth2", basic, faults);
            let request = token_request(key, raw, faults)?;
            Some(Authorization::Tokens(Arc::new(TokenSource::new(request))))
        }
    }
}

/// The request for a token, written once (RFC 6749 sections 2.3.1 and 4.4.2).
fn token_request(key: &str, raw: &raw::TargetAuthorization, faults: &mut Faults) -> Option<TokenRequest> {
    let url_key = &format!("{key}.token_url");
    let url = required(key, "token_url", raw.token_url.as_deref(), faults);
    let client_id = required(key, "client_id", raw.client_id.as_deref(), faults);
    let secret = secret(key, "client_secret_file", raw.client_secret_file.as_deref(), faults);
    let roots = named_roots(key, raw.ca_file.as_deref(), faults);
    let scope = raw.scope.as_deref().unwrap_or_default();
    // RFC 6749 section 3.3.
    if scope.len() > SCOPE_BYTES_MAX || !scope.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        let problem = format_args!("is over {SCOPE_BYTES_MAX} bytes, or not visible ASCII");
        faults.push(format_args!("{key}.scope"), problem, "give scopes with a space between them");
        return None;
    }
    let Some(rest) = url?.strip_prefix("https://") else {
        faults.push(url_key, "is not https", "a token is asked for over TLS: give https://host[:port]/path");
        return None;
    };
    let (address, path) = target_url(url_key, url?, rest, 443, faults)?;
    let server_name = server_name_of(url_key, &address.host, faults)?;
    let tls = zen_identity::target_client_config(roots?, None)
        .map_err(|error| faults.push(key, error, "check ca_file, or the system's CA store"))
        .ok()?;
    let (mut id, mut word) = (String::new(), Zeroizing::new(String::with_capacity(3 * PASSWORD_BYTES_MAX)));
    push_form(&mut id, client_id?);
    push_form(&mut word, &secret?);
    let credentials = Credentials::basic(&id, &word)
        .map_err(|error| faults.push(key, error, "give a shorter client_id or secret"))
        .ok()?;
    let host = host_header(&address, 443);
    let text = write_token_request(&host, &path, &credentials, scope);
    Some(TokenRequest { address, server_name, tls, text })
}

/// Longest scope, bytes.
const SCOPE_BYTES_MAX: usize = 1024;

/// Longest path of a unix socket, bytes (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A target behind a unix socket, which no other host can reach: plain HTTP, and no name to be resolved.
pub(super) fn unix(key: &str, raw: &raw::Target, socket: &str, faults: &mut Faults) -> Option<TargetPlace> {
    if raw.ca_file.is_some()
        || !raw.spiffe_ids.is_empty()
        || !raw.deny_spiffe_ids.is_empty()
        || raw.dry_run.is_some()
        || raw.client_certificate == ClientCertificate::None
    {
        let remedy = "remove ca_file, all SPIFFE ids and client_certificate; peer_uid says who must listen";
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

fn required<'a>(key: &str, name: &str, value: Option<&'a str>, faults: &mut Faults) -> Option<&'a str> {
    if value.is_none() {
        faults.push(format_args!("{key}.{name}"), "is missing", "this kind of authorization needs it");
    }
    value
}

fn secret(key: &str, name: &str, file: Option<&str>, faults: &mut Faults) -> Option<Zeroizing<String>> {
    let file = required(key, name, file, faults)?;
    faults.secret(format_args!("{key}.{name}"), file)
}

fn stray<const N: usize>(key: &str, kind: &str, keys: [(&str, &Option<String>); N], faults: &mut Faults) {
    for (name, value) in keys {
        if value.is_some() {
            faults.push(format_args!("{key}.{name}"), format_args!("does not belong to {kind}"), "remove it");
        }
    }
}
