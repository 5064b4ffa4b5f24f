//! Access tokens for targets: OAuth 2 client credentials (RFC 6749 section 4.4).
//!
//! The control thread asks for a token, renews it at 80 % of its life, and again once if a target does not take it.
//! Workers only read the current one. Without a token deliveries wait; one that is valid stays while renewals fail.

mod answer;
mod exchange;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use answer::push_form;
use arc_swap::ArcSwapOption;
pub use exchange::{EXCHANGE_BYTES, TokenRequest, write_token_request};
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use zen_core::deliver::Credentials;

use self::answer::renew_after_ms;
use self::exchange::FetchError;
use crate::clock::Clock;
use crate::config::{Authorization, Snapshot};
use crate::control::Shared;
use crate::metrics::NodeMetrics;

/// A token server that does not answer is asked again after this, doubled each time.
const BACKOFF_MS_MIN: u64 = 1_000;
const BACKOFF_MS_MAX: u64 = 60_000;

/// An access token in force.
pub struct Token {
    /// As the `Authorization` header has it.
    pub credentials: Credentials,
    /// Until then, steady ms.
    expires_ms: u64,
    /// Whether a target refused it and another was asked for.
    refused: AtomicBool,
}

/// Where a target's token comes from, and the newest.
pub struct TokenSource {
    /// What is asked, of whom.
    pub request: TokenRequest,
    current: ArcSwapOption<Token>,
    asked: Notify,
}

impl TokenSource {
    /// Without a token.
    pub fn new(request: TokenRequest) -> Self {
        Self { request, current: ArcSwapOption::empty(), asked: Notify::new() }
    }

    /// The token in force.
    pub fn token(&self, steady_ms: u64) -> Option<Arc<Token>> {
        self.current.load_full().filter(|token| steady_ms < token.expires_ms)
    }

    /// A target answered 401 to a request with this token: another one is asked for, once.
    pub fn handle_refused(&self, token: &Token) {
        if !token.refused.swap(true, Ordering::AcqRel) {
            self.asked.notify_one();
        }
    }

    /// Takes over the token of an earlier configuration that asked for the same.
    fn inherit(&self, before: &Self) {
        if self.request.asks_as(&before.request) {
            self.current.store(before.current.load_full());
        }
    }
}

/// The tasks that keep the tokens of the configuration in force.
#[derive(Default)]
pub struct Keepers {
    tasks: Vec<AbortHandle>,
}

impl Keepers {
    /// Takes a new configuration; none of the tasks of the one before is left.
    pub fn handle_snapshot(
        &mut self,
        shared: &Arc<Shared>,
        metrics: &Arc<NodeMetrics>,
        lookups: &Arc<Semaphore>,
    ) {
        self.tasks.drain(..).for_each(|task| task.abort());
        let snapshot = shared.snapshot.load_full();
        for (name, source) in sources(&snapshot) {
            let keeper = Keeper {
                name: name.to_owned(),
                source: Arc::clone(source),
                shared: Arc::clone(shared),
                metrics: Arc::clone(metrics),
                lookups: Arc::clone(lookups),
            };
            self.tasks.push(tokio::spawn(keeper.run()).abort_handle());
        }
    }
}

/// Tokens that stay valid under a new configuration go over to it, before it is in force.
pub fn inherit(next: &Snapshot, before: &Snapshot) {
    for (name, source) in sources(next) {
        if let Some((_, before)) = sources(before).find(|(other, _)| *other == name) {
            source.inherit(before);
        }
    }
}

fn sources(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Arc<TokenSource>)> {
    let targets = snapshot.egress.iter().flat_map(|egress| egress.targets.values());
    targets.filter_map(|target| match &target.authorization {
        Some(Authorization::Tokens(source)) => Some((target.name.as_str(), source)),
        _ => None,
    })
}

struct Keeper {
    name: String,
    source: Arc<TokenSource>,
    shared: Arc<Shared>,
    metrics: Arc<NodeMetrics>,
    lookups: Arc<Semaphore>,
}

impl Keeper {
    async fn run(self) {
        // What was inherited is renewed at once: how old it is was not handed over.
        let mut backoff_ms = BACKOFF_MS_MIN;
        loop {
            let wait_ms = match self.fetch().await {
                Some(life_s) => {
                    backoff_ms = BACKOFF_MS_MIN;
                    renew_after_ms(life_s)
                }
                None => {
                    let wait_ms = backoff_ms;
                    backoff_ms = (backoff_ms * 2).min(BACKOFF_MS_MAX);
                    wait_ms
                }
            };
            // However often a target refuses, a server is not asked again sooner than this.
            tokio::time::sleep(Duration::from_millis(BACKOFF_MS_MIN)).await;
            let rest = Duration::from_millis(wait_ms.saturating_sub(BACKOFF_MS_MIN));
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.source.asked.notified() => {}
            }
        }
    }

    /// Asks once; how long the new token lives, s.
    async fn fetch(&self) -> Option<u64> {
        let snapshot = self.shared.snapshot.load_full();
        let egress = snapshot.egress.as_ref()?;
        let rules = (&*snapshot.reach, &egress.destinations);
        match exchange::fetch(&self.source.request, rules, &self.lookups).await {
            Ok(granted) => {
                let expires_ms = Clock::now().steady_ms.saturating_add(granted.life_s.saturating_mul(1000));
                let refused = AtomicBool::new(false);
                let token = Token { credentials: granted.credentials, expires_ms, refused };
                self.source.current.store(Some(Arc::new(token)));
                tracing::info!(target = self.name, life_s = granted.life_s, "a new access token");
                self.shared.mesh.ring_all();
                Some(granted.life_s)
            }
            Err(error) => {
                self.metrics.tokens_refused.add(1);
                if let FetchError::Forbidden(refused) = error {
                    self.metrics.beside.destinations_refused.add(refused.label());
                }
                tracing::warn!(target = self.name, %error, "no new access token");
                None
            }
        }
    }
}
