//! Order keys: where a job stands in its queue, a tenant among the tenants of a queue, a queue among all queues.
//!
//! Keys of jobs are static. Without ageing a job's key is (priority, due time, sequence). With linear ageing a job that is due at `d` with
//! priority `p` has at time `t` the priority `p + (t - d) / a`, `a` being the time that is worth one point; of two jobs the one with the
//! smaller `d - p * a` is ahead at every `t`, so that difference is the key. Between queues, which may age differently, heads
//! are compared by their priority at `now`. Sequence ends every tie: heaps themselves are not FIFO.

use std::cmp::{Ordering, Reverse};

use crate::ids::Seq;
use crate::scheduler::config::QueueConfig;
use crate::time::Timestamp;

/// Where a job stands in its queue; the smallest is first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    /// Without ageing the priority, negated; with ageing the due time less what the priority is worth.
    primary: i64,
    due: Timestamp,
    seq: Seq,
}

/// Where a tenant stands in its queue; the smallest is first. The share is 0 where the queue does not share fairly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Turn {
    /// Weighted dominant share.
    pub(crate) share: u128,
    /// Of its first job.
    pub(crate) key: Key,
}

/// Where a queue stands among those of a cohort that shares fairly; the smallest is first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct QueueTurn {
    share: u128,
    priority: Reverse<i32>,
    due: Timestamp,
    seq: Seq,
}

/// Where the head of a queue stands among the heads of all queues; the largest is first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Rank {
    /// Priority at `now`, with 32 binary places.
    priority: i128,
    due: Reverse<Timestamp>,
    seq: Reverse<Seq>,
}

/// Comparing is what heaps do all day: each `lt` below says the same as `cmp`, without making an [`Ordering`] of every part first.
macro_rules! ordered {
    ($name:ident: $($part:ident),+) => {
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                ($(self.$part),+).cmp(&($(other.$part),+))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }

            #[inline]
            fn lt(&self, other: &Self) -> bool {
                $(
                    if self.$part != other.$part {
                        return self.$part < other.$part;
                    }
                )+
                false
            }

            #[inline]
            fn le(&self, other: &Self) -> bool {
                !other.lt(self)
            }
        }
    };
}

ordered!(Key: primary, due, seq);
ordered!(Turn: share, key);

/// How many points an age is, with 32 binary places, rounded towards 0.
fn points_with_places(age: i128, per_point: u64) -> i128 {
    match (u64::try_from(age.unsigned_abs()), u32::try_from(per_point)) {
        // Two short divisions where the long one would be a call.
        (Ok(time), Ok(per_point)) => {
            let per_point = u64::from(per_point);
            let (whole, rest) = (time / per_point, time % per_point);
            let points = (i128::from(whole) << 32) | i128::from((rest << 32) / per_point);
            if age < 0 { -points } else { points }
        }
        _ => (age << 32) / i128::from(per_point),
    }
}

impl Key {
    /// Of a job of this priority in this queue.
    pub(crate) fn new(queue: &QueueConfig, priority: i32, due: Timestamp, seq: Seq) -> Self {
        let points = i64::from(queue.priority) + i64::from(priority);
        let primary = match queue.age_per_point {
            None => -points,
            Some(age) => due.0.saturating_sub(points.saturating_mul(age.0 as i64)),
        };
        Self { primary, due, seq }
    }

    /// Among the heads of all queues.
    pub(crate) fn rank(&self, queue: &QueueConfig, now: Timestamp) -> Rank {
        let priority = match queue.age_per_point {
            None => -i128::from(self.primary) << 32,
            Some(age) => points_with_places(i128::from(now.0) - i128::from(self.primary), age.0.max(1)),
        };
        Rank { priority, due: Reverse(self.due), seq: Reverse(self.seq) }
    }

    /// Of its queue among those of a cohort.
    pub(crate) const fn queue_turn(&self, queue: &QueueConfig, share: u128) -> QueueTurn {
        QueueTurn { share, priority: Reverse(queue.priority), due: self.due, seq: self.seq }
    }

    #[cfg(test)]
    pub(crate) const fn test(primary: i64, seq: u64) -> Self {
        Self { primary, due: Timestamp(0), seq: Seq(seq) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn short_divisions_give_what_the_long_one_does(age in any::<i64>(), more in any::<i64>(), per_point in 1..u64::MAX) {
            for per_point in [per_point, per_point % 100 + 1, per_point >> 32 | 1] {
                let age = i128::from(age) - i128::from(more);
                for age in [age, age >> 30, -(age >> 40)] {
                    prop_assert_eq!(points_with_places(age, per_point), (age << 32) / i128::from(per_point));
                }
            }
        }

        #[test]
        fn smaller_is_what_comparing_says(one in prop::array::uniform3(0..3_u64), other in prop::array::uniform3(0..3_u64), shares in prop::array::uniform2(0..2_u128)) {
            let key = |parts: [u64; 3]| Key { primary: parts[0].cast_signed(), due: Timestamp(parts[1].cast_signed()), seq: Seq(parts[2]) };
            let (one, other) = (Turn { share: shares[0], key: key(one) }, Turn { share: shares[1], key: key(other) });
            prop_assert_eq!(one < other, one.cmp(&other).is_lt());
            prop_assert_eq!(one <= other, one.cmp(&other).is_le());
            prop_assert_eq!(one.key < other.key, one.key.cmp(&other.key).is_lt());
            prop_assert_eq!(one.key <= other.key, one.key.cmp(&other.key).is_le());
        }
    }
}
