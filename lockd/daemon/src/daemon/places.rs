//! Who may have a connection at the same time: few in all, and no user so many that others have none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Connections at once, each with a thread.
pub const CONNECTIONS_MAX: usize = 32;
const CONNECTIONS_PER_USER_MAX: usize = CONNECTIONS_MAX / 2;

/// Who is connected.
#[derive(Debug, Default)]
pub struct Places {
    by_user: Mutex<HashMap<u32, usize>>,
}

/// A place; free again when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    /// A place for a user, if there is one.
    pub fn take(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = by_user.values().sum();
        let own = by_user.get(&uid).copied().unwrap_or(0);
        if all >= CONNECTIONS_MAX || own >= CONNECTIONS_PER_USER_MAX {
            return None;
        }
        by_user.insert(uid, own + 1);
        Some(Place { places: Arc::clone(self), uid })
    }

    /// Whether nobody is connected.
    pub fn are_free(&self) -> bool {
        self.by_user.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_user = self.places.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = by_user.get_mut(&self.uid) {
            *own -= 1;
        }
        by_user.retain(|_, own| *own > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_has_all_places() {
        let places = Arc::new(Places::default());
        let mut taken: Vec<Place> = (0..CONNECTIONS_PER_USER_MAX).map(|_| places.take(1).unwrap()).collect();
        assert!(places.take(1).is_none());
        taken.extend((0..CONNECTIONS_PER_USER_MAX).map(|_| places.take(2).unwrap()));
        assert!(places.take(3).is_none(), "all are taken");
        taken.truncate(1);
        assert!(places.take(3).is_some());
    }
}
