//! Values that many jobs share, kept once: a million equal requests hold one shape.
//!
//! Invariant: bounded. When too many different ones were seen, all are dropped here; those in use live on with their users.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Different values that are kept at most.
const KEPT: usize = 4_096;

/// A set of shared values.
pub(super) struct Interned<T>(Mutex<HashSet<Arc<T>>>);

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Hash + Eq> Interned<T> {
    /// The one copy of this value.
    pub(super) fn share(&self, value: T) -> Arc<T> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(&value) {
            return Arc::clone(known);
        }
        if kept.len() >= KEPT {
            kept.clear();
        }
        let value = Arc::new(value);
        kept.insert(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_the_number_is_bounded() {
        let interned = Interned::default();
        let first = interned.share(0);
        assert!(Arc::ptr_eq(&first, &interned.share(0)));
        for value in 1..=KEPT {
            interned.share(value);
        }
        assert!(interned.0.lock().unwrap_or_else(PoisonError::into_inner).len() <= KEPT);
    }
}
