//! What a tenant or a queue has used, as it counts now: amounts times time, older use counting half as much with each half-life.
//!
//! While an amount `r` is held, use grows by `r` a microsecond and all of it decays; both are worked out when they are needed, from the
//! time of the last change. What whoever is in a line holds makes nothing grow before he begins; once that is known, it counts
//! from then. Integers only, so that every machine gets the same numbers: powers of two come from a table of square roots.
//!
//! The *share* that orders is the largest, over the resources, of use divided by what all nodes have, divided by the weight. What is
//! held at present counts in it for one mean run more: otherwise the first of many free slots would all go to the same tenant, whose use
//! only grows later.

use crate::scheduler::policy::Weight;
use crate::time::{Span, Timestamp};

/// Amounts of cpu, memory and GPUs, in the order of [`Resource::ALL`](crate::Resource::ALL). Wide: no sum of them overflows.
pub(crate) type Amounts = [u128; 3];

/// Shares are brought up to date for the mere passing of time once in this part of a half-life; they are off by 0.07 % at most.
pub(crate) const STEPS: u64 = 1024;

/// Binary places of the fraction of a half-life.
const PLACES: u32 = 16;
/// `1 / ln 2` and `ln 2` with 32 binary places.
const INVERSE_LN_2: u128 = 6_196_328_019;
const LN_2: u128 = 2_977_044_472;

/// `2^-(1/2)`, `2^-(1/4)`, ... with 32 binary places.
const ROOTS: [u128; PLACES as usize] = {
    let mut roots = [0; PLACES as usize];
    let mut root: u128 = 1 << 31;
    let mut at = 0;
    while at < roots.len() {
        root = (root << 32).isqrt();
        roots[at] = root;
        at += 1;
    }
    roots
};

/// See the module.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Usage {
    /// Amounts times microseconds, as they counted at `since`.
    value: Amounts,
    /// What is held since then.
    held: Amounts,
    /// What of that is not used yet, as far as is known.
    waiting: Amounts,
    since: Timestamp,
}

impl Usage {
    /// Use that counted this much at a time.
    pub(crate) const fn new(value: Amounts, since: Timestamp) -> Self {
        Self { value, held: [0; 3], waiting: [0; 3], since }
    }

    /// What counts at `now`, or at the last change if that is later.
    pub(crate) fn at(&self, now: Timestamp, half_life: Span) -> Amounts {
        let passed = now.since(self.since);
        if passed.0 == 0 {
            return self.value;
        }
        let mut value = self.value;
        for ((value, held), waiting) in value.iter_mut().zip(self.held).zip(self.waiting) {
            *value = after(*value, held.saturating_sub(waiting), passed, half_life);
        }
        value
    }

    /// Settles what counts at `now`.
    pub(crate) fn settle(&mut self, now: Timestamp, half_life: Span) {
        self.value = self.at(now, half_life);
        self.since = self.since.max(now);
    }

    /// From the last settled time on this much more is held.
    pub(crate) fn take(&mut self, amounts: &Amounts) {
        for (held, more) in self.held.iter_mut().zip(amounts) {
            *held += more;
        }
    }

    /// From the last settled time on this much less is held.
    pub(crate) fn give_back(&mut self, amounts: &Amounts) {
        for (held, less) in self.held.iter_mut().zip(amounts) {
            *held = held.saturating_sub(*less);
        }
    }

    /// So much of what is held is not used before [`begin`](Self::begin) says so.
    pub(crate) fn wait(&mut self, amounts: &Amounts) {
        for (waiting, more) in self.waiting.iter_mut().zip(amounts) {
            *waiting += more;
        }
    }

    /// So much of what is held waits no more, and has been used for so long already.
    pub(crate) fn begin(&mut self, amounts: &Amounts, ago: Span) {
        for ((value, waiting), amount) in self.value.iter_mut().zip(&mut self.waiting).zip(amounts) {
            // Less waits where use was not kept when it was taken.
            *waiting = waiting.saturating_sub(*amount);
            *value = value.saturating_add(amount.saturating_mul(u128::from(ago.0)));
        }
    }

    /// This much less was used over a time that has just passed.
    pub(crate) fn refund(&mut self, amounts: &Amounts, over: Span) {
        for (value, less) in self.value.iter_mut().zip(amounts) {
            *value = value.saturating_sub(less.saturating_mul(u128::from(over.0)));
        }
    }

    /// From `now` on exactly this is held, if it was something else before.
    pub(crate) fn hold(&mut self, held: Amounts, now: Timestamp) {
        if self.held != held {
            *self = Self { value: self.value, held, waiting: [0; 3], since: now };
        }
    }

    /// It is not kept any more, so nothing is heard of who waits.
    pub(crate) fn forget_waiting(&mut self) {
        self.waiting = [0; 3];
    }

    /// So much was used at a time; what is held goes on from there.
    pub(crate) fn restore(&mut self, value: Amounts, held: Amounts, since: Timestamp) {
        *self = Self { value, held, waiting: self.waiting, since };
    }

    /// Nothing is held, and what was used counts for less than a millionth of all nodes over a half-life.
    pub(crate) fn is_negligible(&self, capacity: &Amounts, half_life: Span) -> bool {
        let little =
            |(value, has): (&u128, &u128)| value.saturating_mul(1_000_000) <= has.saturating_mul(u128::from(half_life.0));
        self.held == [0; 3] && self.value.iter().zip(capacity).all(little)
    }

    /// The weighted dominant share as of the last settled time: microseconds of all nodes, with 16 binary places.
    pub(crate) fn share(&self, capacity: &Amounts, mean_run: Span, weight: Weight) -> u128 {
        let part = |resource: usize| {
            let used = self.value[resource].saturating_add(self.held[resource].saturating_mul(u128::from(mean_run.0)));
            (used.min(u128::MAX >> 16) << 16).checked_div(capacity[resource]).unwrap_or(0)
        };
        let dominant = part(0).max(part(1)).max(part(2));
        dominant.saturating_mul(1000) / u128::from(weight.thousandths())
    }
}

/// Use after some time in which `held` was held.
fn after(value: u128, held: u128, passed: Span, half_life: Span) -> u128 {
    let (time, half) = (u128::from(passed.0), u128::from(half_life.0.max(1)));
    if passed.0 < half_life.0 / STEPS {
        // So short that the curve is a line; the table would round it away.
        let lost = value.saturating_mul(time) / half;
        return (value - ((lost.min(u128::MAX >> 32) * LN_2) >> 32).min(value)).saturating_add(held.saturating_mul(time));
    }
    // Held forever it would come to `limit`; the distance from there decays.
    let limit = (held.saturating_mul(half).min(u128::MAX >> 34) * INVERSE_LN_2) >> 32;
    if limit >= value {
        limit - decayed(limit - value, passed, half_life)
    } else {
        limit + decayed(value - limit, passed, half_life)
    }
}

/// `value * 2^-(passed / half_life)`.
fn decayed(value: u128, passed: Span, half_life: Span) -> u128 {
    let half = half_life.0.max(1);
    let halvings = u32::try_from(passed.0 / half).unwrap_or(u32::MAX);
    let mut value = value.checked_shr(halvings).unwrap_or(0);
    let fraction = (u128::from(passed.0 % half) << PLACES) / u128::from(half);
    // Large values keep their upper digits, small ones all of them.
    let spare = 32_u32.saturating_sub(value.leading_zeros());
    value >>= spare;
    for (place, root) in ROOTS.iter().enumerate() {
        if fraction >> (PLACES as usize - 1 - place) & 1 == 1 {
            value = (value * root) >> 32;
        }
    }
    value << spare
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Span = Span::from_secs(3600);

    fn close(got: u128, wanted: f64) {
        let off = (got as f64 - wanted).abs() / wanted;
        assert!(off < 0.0002, "{got}, not {wanted}");
    }

    #[test]
    fn use_halves_with_each_half_life() {
        let value = 1_000_000_000_000_u128;
        for (seconds, part) in
            [(3600, 0.5), (7200, 0.25), (1800, 0.5_f64.sqrt()), (1, 0.5_f64.powf(1.0 / 3600.0)), (5, 0.5_f64.powf(5.0 / 3600.0))]
        {
            close(after(value, 0, Span::from_secs(seconds), HOUR), value as f64 * part);
        }
        assert_eq!(after(value, 0, Span::from_secs(3600 * 200), HOUR), 0);
        assert!(after(u128::MAX, u128::MAX, Span(u64::MAX), HOUR) > 0, "nothing overflows");
        assert!(after(u128::MAX, u128::MAX, Span(5), HOUR) > 0);
    }

    #[test]
    fn what_is_held_counts_the_same_in_one_step_or_in_many() {
        let (mut many, mut one) = (Usage::default(), Usage::default());
        for usage in [&mut many, &mut one] {
            usage.take(&[4000, 0, 1]);
        }
        for step in 1..=7200 {
            many.settle(Timestamp(step * 1_000_000), HOUR);
        }
        one.settle(Timestamp(7_200_000_000), HOUR);
        close(many.value[0], one.value[0] as f64);
        close(one.value[0], 4000.0 * 3.6e9 / std::f64::consts::LN_2 * 0.75);
        assert_eq!(one.value[1], 0);
    }

    #[test]
    fn the_dominant_share_is_divided_by_the_weight() {
        let usage = Usage::new([10, 900, 0], Timestamp(0));
        let two = Weight::new(2.0).unwrap_or(Weight::ONE);
        assert_eq!(usage.share(&[100, 1000, 8], Span(0), Weight::ONE), (900 << 16) / 1000);
        assert_eq!(usage.share(&[100, 1000, 8], Span(0), two), (900 << 16) / 1000 / 2);
        assert_eq!(usage.share(&[0, 0, 0], Span(0), two), 0, "what no node has is not shared");
    }
}
