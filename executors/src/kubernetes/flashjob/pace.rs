//! How much is written that could as well be left out. Pure: whoever asks says what time it is.
//!
//! A status that is not the last one, and an event, are for people who look. What must hold: nobody waits for them, so they give way to what
//! somebody waits for; and they are never given up for good, however much there is.

use std::time::Duration;

use tokio::time::Instant;

/// Writes that come in a rate, and some at once.
#[derive(Debug)]
pub(super) struct Pace {
    /// A second.
    rate: f64,
    /// At once, after a pause.
    burst: f64,
    left: f64,
    seen: Instant,
    /// One is let through so often, whatever else is written.
    least: Duration,
    last: Instant,
}

impl Pace {
    /// So many a second and so many at once; one in `least` in any case.
    pub(super) fn new(rate: f64, burst: f64, least: Duration, now: Instant) -> Self {
        Self { rate, burst, left: burst, seen: now, least, last: now }
    }

    fn refill(&mut self, now: Instant) {
        let more = now.saturating_duration_since(self.seen).as_secs_f64() * self.rate;
        self.left = (self.left + more).min(self.burst);
        self.seen = now;
    }

    /// Something is written that does not ask.
    pub(super) fn spend(&mut self, now: Instant) {
        self.refill(now);
        self.left = (self.left - 1.0).max(0.0);
    }

    /// Whether one more may be written now; if so it counts as written.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let may = self.left >= 1.0 || now.saturating_duration_since(self.last) >= self.least;
        if may {
            self.left = (self.left - 1.0).max(0.0);
            self.last = now;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_millis(500);

    #[test]
    fn few_go_at_once_and_many_at_a_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(10.0, 3.0, LEAST, start);
        assert_eq!((0..5).filter(|_| pace.take(start)).count(), 3);
        assert_eq!((0..5).filter(|_| pace.take(start + Duration::from_millis(200))).count(), 2);
        assert_eq!((0..9).filter(|_| pace.take(start + Duration::from_secs(60))).count(), 3, "what is not used is not kept");
    }

    #[test]
    fn they_give_way_but_not_for_ever() {
        let start = Instant::now();
        let mut pace = Pace::new(10.0, 3.0, LEAST, start);
        let taken: Vec<bool> = (1..=100_u64)
            .map(|step| {
                // What does not ask takes more than the rate gives.
                let now = start + Duration::from_millis(step * 10);
                pace.spend(now);
                pace.take(now)
            })
            .collect();
        let late = taken[10..].iter().filter(|taken| **taken).count();
        assert!((1..=2).contains(&late), "one in half a second: {late}");
    }
}
