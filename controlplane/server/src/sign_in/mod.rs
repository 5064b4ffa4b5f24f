//! Sign-in of people with a browser: password and one-time code, a one-time link, or a provider of identities.
//!
//! Enters: forms, cookies, and what a provider says. Leaves: sessions, whose cookie's hash alone is kept. Refused: forms that
//! come from elsewhere, tries that are too many, and everything of which not each part is right; of what was wrong nothing is
//! told that helps to guess. Sign-ins, refusals and sign-outs are in the log of acts.

mod account;
mod code;
mod device_pages;
mod devices;
mod form;
pub(crate) mod fuzz;
mod key;
mod local;
mod login;
mod oidc;
mod pages;
mod password;
mod rates;
mod secret;
mod sessions;
mod settings;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::{Router, routing};
use tokio::sync::Semaphore;

pub(crate) use self::account::make_link;
pub use self::account::{LINK_LIFE_MS, make_sign_in_link};
pub use self::login::{Login, begin_login};
pub use self::oidc::OidcSettings;
pub(crate) use self::sessions::{csrf_token, may_post, session_id, touch};
pub(crate) use self::settings::RawOidc;

use self::devices::Devices;
use self::key::SignInKey;
use self::oidc::Provider;
use self::rates::Rates;
use crate::ControlError;
use crate::directory::Directory;
use crate::rest::Server;

/// Most passwords that are hashed at a time: each takes 19 MiB.
pub(crate) const HASHES_MAX: usize = 4;
/// How long somebody waits for that.
pub(crate) const HASH_TIMEOUT: Duration = Duration::from_secs(5);

/// What sign-in needs.
pub(crate) struct SignIn {
    server: Arc<Server>,
    key: SignInKey,
    rates: Rates,
    hashing: Semaphore,
    provider: Option<Provider>,
    devices: Mutex<Devices>,
}

impl SignIn {
    /// Of a directory; its key is made if there is none yet.
    pub(crate) fn open(
        server: &Arc<Server>,
        directory: &Directory,
        oidc: Option<OidcSettings>,
    ) -> Result<Arc<Self>, ControlError> {
        Ok(Arc::new(Self {
            server: server.clone(),
            key: SignInKey::load(directory)?,
            rates: Rates::default(),
            hashing: Semaphore::new(HASHES_MAX),
            provider: oidc.map(Provider::new).transpose()?,
            devices: Mutex::default(),
        }))
    }

    fn has_provider(&self) -> bool {
        self.provider.is_some()
    }
}

/// The pages of sign-in.
pub(crate) fn router(sign_in: &Arc<SignIn>) -> Router {
    Router::new()
        .route("/sign-in", routing::get(pages::sign_in).post(pages::password))
        .route("/sign-in/link", routing::get(pages::link).post(pages::use_link))
        .route("/sign-in/provider", routing::get(oidc::there))
        .route("/sign-in/provider/callback", routing::get(oidc::back))
        .route("/device", routing::get(device_pages::look).post(device_pages::decide))
        .route("/device/code", routing::post(device_pages::code))
        .route("/device/token", routing::post(device_pages::token))
        .route("/sign-out", routing::post(pages::sign_out))
        .with_state(sign_in.clone())
}

/// Where somebody signs in.
const SIGN_IN_PATH: &str = "/sign-in";
