//! What happens without a request: changes made by commands are noticed, and the listener's certificate is renewed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use zen_identity::SvidStore;

use super::{Server, now_ms, svid_files};
use crate::directory::{self, Directory};
use crate::{Control, ControlError, LEAF_LIFE_MS, Refusal};

/// How often other processes' changes are looked for.
const CHANGES_EVERY: Duration = Duration::from_millis(200);
/// Every how many looks the certificate's end and old rows are.
const UPKEEP_EVERY: u32 = 300;
/// The issuing CA's end is said this long before, ms.
const AUTHORITY_WARNING_MS: u64 = 15 * 24 * 3600 * 1000;

/// The listener's identity, made anew unless a good one is there.
pub(super) fn own_identity(
    control: &Control,
    directory: &Directory,
    now_ms: u64,
) -> Result<Arc<SvidStore>, ControlError> {
    let files = svid_files(control, directory)?;
    if directory.path(directory::SERVER).exists() {
        match SvidStore::load(files.clone()) {
            Ok(store) if !is_due(&store, now_ms) => return Ok(store),
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
    let (mut version, mut next_end, mut looks) = (None, None, 0);
    loop {
        clock.tick().await;
        let found = {
            let server = server.clone();
            tokio::task::spawn_blocking(move || look(&server, version, next_end)).await
        };
        match found {
            Ok(Ok(seen)) => (version, next_end) = (Some(seen.version), seen.next_end),
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

struct Seen {
    version: i64,
    next_end: Option<u64>,
}

fn look(server: &Server, known: Option<i64>, next_end: Option<u64>) -> Result<Seen, Refusal> {
    let (version, now) = (server.control.data_version()?, now_ms());
    if known == Some(version) && next_end.is_none_or(|end| now < end) {
        return Ok(Seen { version, next_end });
    }
    let (deny_list, next_end) = server.control.deny_list(now)?;
    server.store.replace_deny_list(deny_list);
    server.changes.send_modify(|count| *count += 1);
    Ok(Seen { version, next_end })
}

fn upkeep(server: &Server) {
    let now = now_ms();
    if let Err(error) = server.control.sweep(now) {
        tracing::error!(%error, "old certificates could not be swept");
    }
    let authority = server.control.authority();
    if authority.not_after_ms() < now + AUTHORITY_WARNING_MS {
        let not_after_ms = authority.not_after_ms();
        tracing::warn!(
            not_after_ms,
            "the issuing CA ends soon; run: zen-control authority renew, then restart"
        );
    }
    if !is_due(&server.store, now) {
        return;
    }
    let made = authority.certify_server(&server.directory, server.control.trust_domain(), now);
    match made.and_then(|()| Ok(server.store.reload()?)) {
        Ok(_) => tracing::info!("the listener has a new certificate"),
        Err(error) => tracing::error!(%error, "the listener's certificate could not be renewed"),
    }
}

/// Half of its life is over.
fn is_due(store: &SvidStore, now_ms: u64) -> bool {
    store.not_after().as_secs() * 1000 < now_ms + LEAF_LIFE_MS / 2
}
