//! What happens without a request: changes made by commands are noticed, and the listener's certificate is renewed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use zen_identity::SvidStore;

use super::{Server, issuer, now_ms, svid_files};
use crate::directory::{self, Directory};
use crate::{Control, ControlError, LEAF_LIFE_MS, Refusal};

/// How often other processes' changes are looked for.
const CHANGES_EVERY: Duration = Duration::from_millis(200);
/// Every how many looks the certificate's end and old rows are.
const UPKEEP_EVERY: u32 = 300;

/// The listener's identity, made anew unless a good one is there.
pub(super) fn own_identity(
    control: &Control,
    directory: &Directory,
    now_ms: u64,
) -> Result<Arc<SvidStore>, ControlError> {
    let files = svid_files(control, directory)?;
    if directory.path(directory::SERVER).exists() {
        match SvidStore::load(files.clone()) {
            Ok(store) if !is_due(&store, now_ms) && control.authority().certified_server(directory) => {
                return Ok(store);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the listener's certificate is made anew"),
        }
    }
    control.authority().certify_server(directory, control.trust_domain(), now_ms)?;
    Ok(SvidStore::load(files)?)
}

/// Runs as long as the listener does.
pub(super) async fn watch(server: Arc<Server>) {
    let mut clock = tokio::time::interval(CHANGES_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks = 0;
    loop {
        clock.tick().await;
        let found = {
            let server = server.clone();
            tokio::task::spawn_blocking(move || look(&server)).await
        };
        match found {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "changes could not be looked for"),
            Err(_) => return,
        }
        looks = (looks + 1) % UPKEEP_EVERY;
        if looks == 1 {
            let server = server.clone();
            let _ = tokio::task::spawn_blocking(move || upkeep(&server)).await;
        }
    }
}

fn look(server: &Server) -> Result<(), Refusal> {
    issuer::refresh(server);
    let known = server.news.borrow().clone();
    if let Some(news) = server.control.news(&known, now_ms())? {
        server.store.replace_deny_list(news.deny_list.clone());
        server.news.send_replace(Arc::new(news));
    }
    Ok(())
}

fn upkeep(server: &Server) {
    let now = now_ms();
    if let Err(error) = server.control.sweep(now) {
        tracing::error!(%error, "old certificates could not be swept");
    }
    issuer::advance(server);
    if !is_due(&server.store, now) {
        return;
    }
    let made =
        server.control.authority().certify_server(&server.directory, server.control.trust_domain(), now);
    match made.and_then(|()| Ok(server.store.reload()?)) {
        Ok(_) => tracing::info!("the listener has a new certificate"),
        Err(error) => tracing::error!(%error, "the listener's certificate could not be renewed"),
    }
}

/// Half of its life is over.
fn is_due(store: &SvidStore, now_ms: u64) -> bool {
    store.not_after().as_secs() * 1000 < now_ms + LEAF_LIFE_MS / 2
}
