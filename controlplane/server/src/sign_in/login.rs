//! The other end of the device flow (RFC 8628): a terminal that asks a server for a token, and waits for a person to confirm.

use std::time::Duration;

use axum::http::Uri;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use super::device_pages::GRANT;
use super::form::encoded;
use super::oidc::address;
use super::oidc::http::{Client, NoAnswer, Posted};
use crate::ControlError;

/// A terminal that waits.
pub struct Login {
    client: Client,
    token: Uri,
    begun: Begun,
}

#[derive(Deserialize)]
struct Begun {
    device_code: Zeroizing<String>,
    user_code: String,
    verification_uri_complete: String,
    interval: u64,
}

/// Asks a server for codes; `ca` is the PEM text of who may sign its certificate, the system's CAs without it.
pub async fn begin_login(server: &str, ca: Option<Vec<u8>>) -> Result<Login, ControlError> {
    let at = |path: &str| {
        let uri = address(&format!("{}{path}", server.trim_end_matches('/')));
        uri.ok_or(ControlError::Argument("--server is https://HOST:PORT"))
    };
    let (code, token) = (at("/device/code")?, at("/device/token")?);
    let client = Client::new(&code, ca)?;
    let posted = Posted { authorization: None, form: "client_id=zen-control".to_owned() };
    let (status, body) = client.exchange(&code, Some(posted)).await.map_err(no_answer)?;
    if status != 200 {
        return Err(ControlError::Login(format!("the server answers {status}")));
    }
    let begun = serde_json::from_slice(&body)
        .map_err(|_| ControlError::Login("this is no control plane".to_owned()))?;
    Ok(Login { client, token, begun })
}

impl Login {
    /// What a person types, and where; from the server, so nothing for a terminal to obey.
    pub fn prompt(&self) -> (String, String) {
        let visible = |text: &str| text.chars().filter(char::is_ascii_graphic).take(512).collect();
        (visible(&self.begun.user_code), visible(&self.begun.verification_uri_complete))
    }

    /// Waits until somebody has said yes.
    pub async fn finish(self) -> Result<Zeroizing<String>, ControlError> {
        let form = format!("grant_type={}&device_code={}", encoded(GRANT), encoded(&self.begun.device_code));
        let mut interval = Duration::from_secs(self.begun.interval.clamp(1, 60));
        loop {
            tokio::time::sleep(interval).await;
            let posted = Posted { authorization: None, form: form.clone() };
            let (status, body) = self.client.exchange(&self.token, Some(posted)).await.map_err(no_answer)?;
            let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
            match (status, answer["access_token"].as_str(), answer["error"].as_str()) {
                (200, Some(token), _) => return Ok(Zeroizing::new(token.to_owned())),
                (_, _, Some("authorization_pending")) => {}
                (_, _, Some("slow_down")) => interval += Duration::from_secs(5),
                (_, _, Some("access_denied")) => {
                    return Err(ControlError::Login("somebody said no".to_owned()));
                }
                (_, _, Some("expired_token")) => {
                    return Err(ControlError::Login("nobody confirmed in time".to_owned()));
                }
                _ => return Err(ControlError::Login(format!("the server answers {status}"))),
            }
        }
    }
}

fn no_answer(error: NoAnswer) -> ControlError {
    // The same words are said of providers.
    ControlError::Login(error.to_string().replace("the provider", "the server"))
}
