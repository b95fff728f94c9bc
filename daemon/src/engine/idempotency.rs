//! Requests with the same key at nearly the same time.
//!
//! A handler looks a key up in the store before it submits. Two handlers may both find nothing; so the engine remembers the keys of
//! the last [`WINDOW`], which is longer than a request may take. Whoever looked before the first of the two was durable reaches the
//! engine inside the window. Memory is bounded by the rate of keyed requests times the window.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use scheduler_core::ids::JobId;

use crate::backend::IdempotencyKey;

/// Longer than any request lives.
const WINDOW: Duration = Duration::from_secs(120);

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Same caller, key and body.
    Same(Vec<JobId>),
    /// Same caller and key, another body.
    Other,
}

/// Keys that this engine accepted lately.
#[derive(Debug, Default)]
pub(super) struct RecentKeys {
    keys: HashMap<(String, String), ([u8; 32], Vec<JobId>)>,
    order: VecDeque<(Instant, (String, String))>,
}

impl RecentKeys {
    /// What is known of a key.
    pub(super) fn look(&self, key: &IdempotencyKey) -> Option<Known> {
        let (fingerprint, jobs) = self.keys.get(&(key.scope.clone(), key.key.clone()))?;
        Some(if *fingerprint == key.fingerprint { Known::Same(jobs.clone()) } else { Known::Other })
    }

    /// Remembers an accepted key, and forgets those that are older than the window.
    pub(super) fn remember(&mut self, key: &IdempotencyKey, jobs: Vec<JobId>, at: Instant) {
        while let Some((since, old)) = self.order.front() {
            if at.duration_since(*since) < WINDOW {
                break;
            }
            self.keys.remove(old);
            self.order.pop_front();
        }
        let name = (key.scope.clone(), key.key.clone());
        self.keys.insert(name.clone(), (key.fingerprint, jobs));
        self.order.push_back((at, name));
    }

    /// Forgets all: after a failed commit only the store knows which keys count.
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(scope: &str, text: &str, body: u8) -> IdempotencyKey {
        IdempotencyKey { scope: scope.to_owned(), key: text.to_owned(), fingerprint: [body; 32] }
    }

    #[test]
    fn keys_are_scoped_compared_and_forgotten() {
        let start = Instant::now();
        let job = JobId(uuid::Uuid::from_u128(7));
        let mut keys = RecentKeys::default();
        assert_eq!(keys.look(&key("ann", "k", 1)), None);
        keys.remember(&key("ann", "k", 1), vec![job], start);
        assert_eq!(keys.look(&key("ann", "k", 1)), Some(Known::Same(vec![job])));
        assert_eq!(keys.look(&key("ann", "k", 2)), Some(Known::Other));
        assert_eq!(keys.look(&key("bob", "k", 1)), None);
        keys.remember(&key("ann", "l", 1), vec![], start + WINDOW);
        assert_eq!(keys.look(&key("ann", "k", 1)), None, "the window is over");
        keys.clear();
        assert_eq!(keys.look(&key("ann", "l", 1)), None);
    }
}
