//! A small fixed hasher for the core's tables: no random seed, so nothing in the core depends on the process it runs in.
//!
//! Keys are made by the daemon (ids, indexes) or are bounded in number by what is queued (names, shapes). No decision depends on the
//! order in which a table would be walked.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};

/// Makes [`Fold`] hashers.
pub(crate) type Build = BuildHasherDefault<Fold>;

/// The hash of one value.
pub(crate) fn hash_of<T: Hash + ?Sized>(value: &T) -> u64 {
    Build::default().hash_one(value)
}

/// Folds each word in with one wide multiplication; both ends of the result are well mixed, as `hashbrown` needs.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fold(u64);

impl Fold {
    fn mix(&mut self, word: u64) {
        let wide = u128::from(self.0 ^ word ^ 0x9e37_79b9_7f4a_7c15) * u128::from(0xd6e8_feb8_6659_fd93_u64);
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.mix(u64::from_le_bytes(last) ^ ((bytes.len() as u64) << 56));
    }

    fn write_u8(&mut self, value: u8) {
        self.mix(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.mix(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.mix(value);
    }

    fn write_u128(&mut self, value: u128) {
        self.mix(value as u64);
        self.mix((value >> 64) as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.mix(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
