//! The order of the latest ends of runs. How it is kept is said in the [module](super).

use std::collections::BTreeMap;

use super::{Entry, RunIx};
use crate::amounts::GpuShare;
use crate::scheduler::nodes::{DeviceIx, Held, Part};
use crate::slab::Slab;
use crate::time::{Span, Timestamp};

/// When a job that holds resources has given them back at the latest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum End {
    /// Its tasks run or are being ended.
    At(Timestamp),
    /// Its tasks have not started: so long from now.
    In(Span),
    /// Nobody knows.
    Never,
}

impl End {
    /// As a time, if there is one.
    pub(crate) fn at(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::At(at) => Some(at),
            Self::In(span) => Some(now + span),
            Self::Never => None,
        }
    }
}

/// What a run has, as it stands in the order of ends: most have one task with one GPU at most, and are read in sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Brief {
    One(Part, Option<DeviceIx>),
    More(RunIx),
}

/// What a run gives back.
pub(crate) enum Back<'a> {
    One(Part, Option<DeviceIx>),
    All(&'a Held),
}

impl Back<'_> {
    pub(crate) fn parts(&self) -> &[Part] {
        match self {
            Self::One(part, _) => std::slice::from_ref(part),
            Self::All(held) => &held.parts,
        }
    }

    /// Parts of GPUs.
    pub(crate) fn shares(&self) -> &[(DeviceIx, GpuShare)] {
        if let Self::All(held) = self { held.shares() } else { &[] }
    }

    pub(crate) fn devices(&self) -> &[DeviceIx] {
        match self {
            Self::One(_, device) => device.as_slice(),
            Self::All(held) => &held.devices,
        }
    }
}

/// The order of ends: what runs have, by their ends and then by their order of start.
pub(super) struct Ends {
    at: BTreeMap<(Timestamp, u64), Brief>,
    within: BTreeMap<(Span, u64), Brief>,
    never: BTreeMap<u64, Brief>,
    /// Runs, by their order of start, that are new or whose end may be another.
    pub(super) noted: Vec<u64>,
}

impl Ends {
    /// Of all runs at once. Small keys are sorted first and room is made exactly: of many runs this is the most that a pass ever does, and
    /// memory that nobody has touched before is what costs most of it.
    pub(super) fn new(mut runs: Vec<(End, u64, RunIx)>, list: &Slab<RunIx, Entry>) -> Self {
        runs.sort_unstable();
        let started = runs.partition_point(|(end, ..)| matches!(end, End::At(_)));
        let known = runs.partition_point(|(end, ..)| !matches!(end, End::Never));
        let mut at = Vec::with_capacity(started);
        let mut within = Vec::with_capacity(known - started);
        let mut never = Vec::with_capacity(runs.len() - known);
        for (end, order, run) in runs {
            let brief = list[run].brief(run);
            match end {
                End::At(time) => at.push(((time, order), brief)),
                End::In(span) => within.push(((span, order), brief)),
                End::Never => never.push((order, brief)),
            }
        }
        Self {
            at: at.into_iter().collect(),
            within: within.into_iter().collect(),
            never: never.into_iter().collect(),
            noted: Vec::new(),
        }
    }

    pub(super) fn enter(&mut self, end: End, order: u64, brief: Brief) {
        match end {
            End::At(at) => self.at.insert((at, order), brief),
            End::In(span) => self.within.insert((span, order), brief),
            End::Never => self.never.insert(order, brief),
        };
    }

    pub(super) fn leave(&mut self, end: End, order: u64) -> Option<Brief> {
        match end {
            End::At(at) => self.at.remove(&(at, order)),
            End::In(span) => self.within.remove(&(span, order)),
            End::Never => self.never.remove(&order),
        }
    }

    pub(super) fn get(&self, end: End, order: u64) -> Option<&Brief> {
        match end {
            End::At(at) => self.at.get(&(at, order)),
            End::In(span) => self.within.get(&(span, order)),
            End::Never => self.never.get(&order),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.at.len() + self.within.len() + self.never.len()
    }
}

/// Runs that have started and such that have not in one order, then those whose end nobody knows.
pub(super) fn merged(ends: &Ends, now: Timestamp) -> impl Iterator<Item = (Option<Timestamp>, Brief)> {
    let mut started = ends.at.iter().map(|(&(at, order), brief)| ((at, order), *brief)).peekable();
    let mut starting = ends.within.iter().map(move |(&(span, order), brief)| ((now + span, order), *brief)).peekable();
    let known = std::iter::from_fn(move || match (started.peek(), starting.peek()) {
        (Some((one, _)), Some((other, _))) if one > other => starting.next(),
        (None, _) => starting.next(),
        _ => started.next(),
    });
    known.map(|((at, _), brief)| (Some(at), brief)).chain(ends.never.values().map(|brief| (None, *brief)))
}
