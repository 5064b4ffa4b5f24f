//! One provider: the way there, the way back, and what it is asked in between.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::Uri;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::Deserialize;

use super::OidcSettings;
use super::discovery::{Discovery, address};
use super::http::{Client, NoAnswer, Posted};
use super::keys::Key;
use super::pending::{AllPending, Pending};
use super::token::{Expected, Identity, TokenFault, check};
use crate::ControlError;
use crate::sign_in::form::{Form, encoded};
use crate::sign_in::secret;

/// How long what a provider says of itself is taken for true, ms.
const DISCOVERY_LIFE_MS: u64 = 3600 * 1000;
/// How often its keys are asked for again, at most, when a token has another, ms.
pub(crate) const KEYS_EVERY_MS: u64 = 60_000;

/// Why a provider lets somebody not in.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLetIn {
    #[error(
        "this sign-in is not known: it is over, was done already, or was begun in another browser; begin anew"
    )]
    State,
    #[error("the provider refused, or you did")]
    Refused,
    #[error("the answer is of another provider")]
    Issuer,
    #[error("the provider's answer has no code")]
    Code,
    #[error("the provider's description of itself is none, or of another issuer")]
    Discovery,
    #[error("the provider's keys are none")]
    Keys,
    #[error("the provider's answer has no ID token")]
    NoToken,
    #[error("{0}")]
    Token(#[from] TokenFault),
    #[error("{0}")]
    NoAnswer(#[from] NoAnswer),
}

/// A provider.
pub(in crate::sign_in) struct Provider {
    pub(super) settings: OidcSettings,
    client: Client,
    discovery_address: Uri,
    discovery: Mutex<Option<(Discovery, u64)>>,
    keys: tokio::sync::Mutex<(Vec<Key>, Option<u64>)>,
    pending: Mutex<AllPending>,
}

/// The way to the provider.
pub(super) struct Way {
    pub(super) url: String,
    /// For the browser's cookie.
    pub(super) browser: String,
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: String,
}

impl Provider {
    pub(in crate::sign_in) fn new(settings: OidcSettings) -> Result<Self, ControlError> {
        let at = format!("{}/.well-known/openid-configuration", settings.issuer.trim_end_matches('/'));
        let discovery_address = address(&at).ok_or(ControlError::Argument(
            "oidc.issuer is https://..., or http:// with a loopback address",
        ))?;
        let client = Client::new(&discovery_address, settings.ca.clone())?;
        Ok(Self {
            settings,
            client,
            discovery_address,
            discovery: Mutex::default(),
            keys: tokio::sync::Mutex::default(),
            pending: Mutex::default(),
        })
    }

    /// Where somebody is sent.
    pub(super) async fn begin(&self, now_ms: u64) -> Result<Way, NotLetIn> {
        let discovery = self.discovery(now_ms).await?;
        let (state, state_hash) = secret::new();
        let (browser, browser_hash) = secret::new();
        let (nonce, verifier) = (secret::new().0.to_string(), secret::new().0.to_string());
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
        let settings = &self.settings;
        let fields = [
            ("response_type", "code"),
            ("client_id", settings.client_id.as_str()),
            ("redirect_uri", settings.redirect_uri.as_str()),
            ("scope", settings.scope.as_str()),
            ("state", state.as_str()),
            ("nonce", nonce.as_str()),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ];
        let before = if discovery.authorization.contains('?') { '&' } else { '?' };
        let url = format!("{}{before}{}", discovery.authorization, query(&fields));
        let pending = Pending { browser: browser_hash, nonce, verifier, begun_ms: now_ms };
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).add(state_hash, pending);
        Ok(Way { url, browser: browser.to_string() })
    }

    /// Who came back, with which answer of the provider.
    pub(super) async fn finish(
        &self,
        answer: &Form,
        browser: Option<&str>,
        now_ms: u64,
    ) -> Result<Identity, NotLetIn> {
        let pending = answer.get("state").and_then(|state| secret::hash(state));
        let pending = pending.zip(browser.and_then(secret::hash)).and_then(|(state, browser)| {
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).take(&state, &browser, now_ms)
        });
        let pending = pending.ok_or(NotLetIn::State)?;
        let discovery = self.discovery(now_ms).await?;
        // RFC 9207: an answer that another provider gave must not reach this one's token endpoint.
        let is_its =
            answer.get("iss").map_or(!discovery.names_itself, |issuer| *issuer == self.settings.issuer);
        if !is_its {
            return Err(NotLetIn::Issuer);
        }
        if answer.contains_key("error") {
            return Err(NotLetIn::Refused);
        }
        let code = answer.get("code").filter(|code| !code.is_empty()).ok_or(NotLetIn::Code)?;
        let posted = self.token_request(&discovery, code, &pending.verifier);
        let text = self.client.ask(&discovery.token, Some(posted)).await?;
        let token: TokenAnswer = serde_json::from_slice(&text).map_err(|_| NotLetIn::NoToken)?;
        let expected = Expected {
            issuer: &self.settings.issuer,
            client_id: &self.settings.client_id,
            nonce: &pending.nonce,
            now: now_ms / 1000,
            groups_claim: &self.settings.groups_claim,
        };
        self.check(&token.id_token, &discovery, &expected, now_ms).await
    }

    fn token_request(&self, discovery: &Discovery, code: &str, verifier: &str) -> Posted {
        let settings = &self.settings;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", settings.redirect_uri.as_str()),
            ("code_verifier", verifier),
        ];
        let mut authorization = None;
        if discovery.wants_secret_in_form {
            fields.extend([
                ("client_id", settings.client_id.as_str()),
                ("client_secret", settings.client_secret.as_str()),
            ]);
        } else {
            let pair = format!("{}:{}", encoded(&settings.client_id), encoded(&settings.client_secret));
            authorization = Some(format!("Basic {}", BASE64_STANDARD.encode(pair)));
        }
        Posted { authorization, form: query(&fields) }
    }

    /// A key that is not known yet may be a new one.
    async fn check(
        &self,
        token: &str,
        discovery: &Discovery,
        expected: &Expected<'_>,
        now_ms: u64,
    ) -> Result<Identity, NotLetIn> {
        let mut keys = self.keys.lock().await;
        match check(token, &keys.0, expected) {
            Err(TokenFault::Key) => {}
            checked => return Ok(checked?),
        }
        if keys.1.is_some_and(|asked_ms| now_ms < asked_ms.saturating_add(KEYS_EVERY_MS)) {
            return Err(TokenFault::Key.into());
        }
        keys.1 = Some(now_ms);
        let text = self.client.ask(&discovery.keys, None).await?;
        keys.0 = Key::read_all(&text).ok_or(NotLetIn::Keys)?;
        Ok(check(token, &keys.0, expected)?)
    }

    async fn discovery(&self, now_ms: u64) -> Result<Discovery, NotLetIn> {
        let known = self.discovery.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((discovery, asked_ms)) = known
            && now_ms < asked_ms.saturating_add(DISCOVERY_LIFE_MS)
        {
            return Ok(discovery);
        }
        let text = self.client.ask(&self.discovery_address, None).await?;
        let discovery = Discovery::read(&text, &self.settings.issuer).ok_or(NotLetIn::Discovery)?;
        *self.discovery.lock().unwrap_or_else(PoisonError::into_inner) = Some((discovery.clone(), now_ms));
        Ok(discovery)
    }
}

fn query(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    pairs.join("&")
}
