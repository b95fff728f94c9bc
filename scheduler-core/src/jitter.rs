//! Deterministic jitter: spreads what would come at once, without randomness.
//!
//! The same inputs give the same shift on every machine and in every version; golden tests pin the values, because a changed value
//! would move every recurring job of every user.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::ids::RunId;
use crate::time::Span;

/// By how much a recurring job is shifted within its window, from 0 to less than `window`: `xxh3(namespace/name) % window`.
pub fn recurring(namespace: &str, name: &str, window: Span) -> Span {
    let mut hash = Xxh3::new();
    hash.update(namespace.as_bytes());
    hash.update(b"/");
    hash.update(name.as_bytes());
    within(hash.digest(), window)
}

/// By how much another try is shifted, from 0 to less than `window`: `xxh3(job id, attempt) % window`, the id as its 16 bytes and the
/// attempt as 4 bytes little-endian after it.
pub fn retry(run: RunId, window: Span) -> Span {
    let mut bytes = [0; 20];
    let (id, attempt) = bytes.split_at_mut(16);
    id.copy_from_slice(run.job.0.as_bytes());
    attempt.copy_from_slice(&run.attempt.0.to_le_bytes());
    within(xxh3_64(&bytes), window)
}

/// The pause after so many tries were lost: `base` doubled with each after the first, at most `max`.
pub fn backoff(lost: u32, base: Span, max: Span) -> Span {
    let doublings = lost.saturating_sub(1).min(63);
    Span(base.0.saturating_mul(1 << doublings).min(max.0))
}

fn within(hash: u64, window: Span) -> Span {
    Span(hash.checked_rem(window.0).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::ids::{Attempt, JobId};

    fn run(attempt: u32) -> RunId {
        let job = JobId(Uuid::from_u128(0x0192_f0c1_2345_7abc_8def_0123_4567_89ab));
        RunId { job, attempt: Attempt(attempt) }
    }

    #[test]
    fn recurring_shifts_are_golden() {
        let hour = Span::from_secs(3600);
        let got = [("default", "nightly"), ("team-a", "nightly"), ("", "")];
        let got = got.map(|(namespace, name)| recurring(namespace, name, hour).0);
        assert_eq!(got, [2_798_789_444, 2_986_411_478, 1_051_168_302]);
        assert_eq!(recurring("default", "nightly", Span(0)), Span(0));
        assert_eq!(recurring("default", "nightly", Span(1)), Span(0));
    }

    #[test]
    fn retry_shifts_are_golden() {
        let got = [1, 2, 3].map(|attempt| retry(run(attempt), Span::from_secs(10)).0);
        assert_eq!(got, [1_972_108, 7_550_125, 9_934_981]);
    }

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let got = [0, 1, 2, 3, 4, 200].map(|lost| backoff(lost, Span(10), Span(75)).0);
        assert_eq!(got, [10, 10, 20, 40, 75, 75]);
    }
}
