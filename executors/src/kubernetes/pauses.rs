//! How long a watch waits before it asks again after an error.
//!
//! The usual way doubles the pause to half a minute and forgets only after two quiet minutes: a server that was away twice in that time is
//! asked again half a minute after it is back, and until then nothing is started and no end is heard of. Here the pause stays below some
//! seconds, and is forgotten as soon as the watch has held for a while.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kube::runtime::utils::Backoff;

/// The first pause, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// After this long without an error the next one is a first one.
const HELD: Duration = Duration::from_secs(10);

/// Pauses without an end.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    last: Option<(Instant, Duration)>,
}

impl Pauses {
    /// The pause after an error now.
    fn after(&mut self, now: Instant) -> Duration {
        let again = |(at, pause): (Instant, Duration)| (now.duration_since(at) < HELD + pause).then_some(pause * 2);
        let pause = self.last.and_then(again).unwrap_or(PAUSE.0).min(PAUSE.1);
        self.last = Some((now, pause));
        pause
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.after(Instant::now());
        // Up to a quarter more, so that not all ask at once who lost the same server.
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        Some(pause + pause / 4 * (nanos % 1_000) / 1_000)
    }
}

impl Backoff for Pauses {
    /// A watch says that it begins before it has asked anybody: that is no sign of health.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_seconds_and_are_forgotten_after_a_while() {
        let (mut pauses, mut now) = (Pauses::default(), Instant::now());
        let mut after = |held: Duration| {
            pauses.reset();
            now += held;
            let pause = pauses.after(now);
            now += pause;
            pause.as_millis()
        };
        let grown: Vec<u128> = (0..7).map(|_| after(Duration::from_millis(1))).collect();
        assert_eq!(grown, [200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(after(Duration::from_secs(9)), 5_000, "it has hardly held");
        assert_eq!(after(Duration::from_secs(11)), 200);
    }
}
