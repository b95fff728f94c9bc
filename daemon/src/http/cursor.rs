//! Where a page of jobs ended, as an opaque word.
//!
//! Invariants: a cursor goes only with the filters that it was made with; one that was made up or changed is refused. It names a place
//! in the order of submission, so pages neither repeat nor miss a job that was there when the first one was read.

use scheduler_core::ids::Seq;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::text::{base64url, from_base64url};

/// Changes with the meaning of the bytes.
const VERSION: u64 = 1;

fn seal(seq: Seq, filters: &str) -> [u8; 8] {
    xxh3_64_with_seed(filters.as_bytes(), seq.0 ^ (VERSION << 56)).to_be_bytes()
}

/// For the page after the one that ended with `seq`.
pub fn encode(seq: Seq, filters: &str) -> String {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seq.0.to_be_bytes());
    bytes[8..].copy_from_slice(&seal(seq, filters));
    base64url(&bytes)
}

/// Where the page begins; `None` for what [`encode`] did not give with these filters.
pub fn decode(text: &str, filters: &str) -> Option<Seq> {
    let bytes = from_base64url(text).filter(|_| text.len() == 22)?;
    let (seq, found) = bytes.split_at_checked(8)?;
    let seq = Seq(u64::from_be_bytes(seq.try_into().ok()?));
    (found == seal(seq, filters)).then_some(seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_goes_with_its_filters_alone() {
        let cursor = encode(Seq(77), "state=queued");
        assert_eq!(decode(&cursor, "state=queued"), Some(Seq(77)));
        assert_eq!(decode(&cursor, "state=running"), None);
    }

    #[test]
    fn what_was_made_up_is_refused() {
        let cursor = encode(Seq(77), "");
        for index in 0..cursor.len() {
            let mut changed: Vec<char> = cursor.chars().collect();
            changed[index] = if changed[index] == 'A' { 'B' } else { 'A' };
            assert_eq!(decode(&changed.into_iter().collect::<String>(), ""), None);
        }
        for text in ["", "77", "é", "AAAAAAAAAAAAAAAAAAAAAA", &"A".repeat(1_000)] {
            assert_eq!(decode(text, ""), None, "{text}");
        }
    }
}
