//! Which GPUs of a node stand for each other: how they are divided into lanes.
//!
//! GPUs of one kind do. But where jobs that have not ended name some of them by UUID, those that the same jobs name are a lane of their own, and
//! are told apart from the rest as if they were of another kind: everything that counts lanes, from a search to a reservation, then counts these
//! very GPUs. Once the last such job has ended they join the others again. So jobs that name none, on nodes of which nobody names one, cost
//! what they always did.
//!
//! What must hold: lanes follow from the list of the GPUs and from who names which, and from nothing that was before. There are [`LANES`] of them
//! at most: what is named beyond that stays with its kind, and cannot be had by name; jobs that would need it are refused when they come.

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::hash::Build;
use crate::ids::Name;
use crate::scheduler::config::GpuDevice;
use crate::scheduler::place::filter::{FilterIx, Lane};
use crate::scheduler::place::room::LANES;

/// Which filters name a GPU, in order.
type By = SmallVec<[FilterIx; 2]>;

/// Who names which GPU.
#[derive(Clone, Default)]
pub(crate) struct Named(HashMap<Name, By, Build>);

impl Named {
    pub(super) fn enter(&mut self, filter: FilterIx, uuids: &[Name]) {
        for uuid in uuids {
            let by = self.0.entry(uuid.clone()).or_default();
            if let Err(at) = by.binary_search(&filter) {
                by.insert(at, filter);
            }
        }
    }

    pub(super) fn leave(&mut self, filter: FilterIx, uuids: &[Name]) {
        for uuid in uuids {
            let Some(by) = self.0.get_mut(uuid) else { continue };
            by.retain(|other| *other != filter);
            if by.is_empty() {
                self.0.remove(uuid);
            }
        }
    }

    fn by(&self, uuid: &Name) -> &[FilterIx] {
        if self.0.is_empty() { &[] } else { self.0.get(uuid).map_or(&[], |by| by.as_slice()) }
    }

    /// True when it is what these filters name.
    pub(super) fn is_current<'a>(&self, naming: impl Iterator<Item = (&'a Name, FilterIx)>) -> bool {
        let mut count = 0;
        let mut there = naming.inspect(|_| count += 1).map(|(uuid, filter)| self.by(uuid).contains(&filter));
        there.all(|there| there) && self.0.values().map(SmallVec::len).sum::<usize>() == count
    }
}

/// The lanes of a node, and that of each of its GPUs.
pub(crate) struct Division {
    pub(crate) lanes: SmallVec<[Lane; 1]>,
    pub(crate) of: SmallVec<[u8; 8]>,
}

/// Divides the GPUs of a node.
pub(crate) fn divide(gpus: &[&GpuDevice], named: &Named) -> Division {
    let is_like =
        |one: &GpuDevice, other: &GpuDevice| (&one.model, one.memory, &one.kind) == (&other.model, other.memory, &other.kind);
    let mut kinds: SmallVec<[&GpuDevice; 1]> = SmallVec::new();
    // Those of one kind that the same filters name.
    let mut sets: SmallVec<[(usize, &[FilterIx]); 8]> = SmallVec::new();
    let mut entries: SmallVec<[(usize, Option<usize>); 8]> = SmallVec::new();
    for gpu in gpus {
        let kind = kinds.iter().position(|kind| is_like(kind, gpu)).unwrap_or_else(|| {
            kinds.push(gpu);
            kinds.len() - 1
        });
        let by = named.by(&gpu.uuid);
        let set = (!by.is_empty()).then(|| {
            sets.iter().position(|set| *set == (kind, by)).unwrap_or_else(|| {
                sets.push((kind, by));
                sets.len() - 1
            })
        });
        entries.push((kind, set));
    }
    let rest = (0..kinds.len()).filter(|&kind| entries.contains(&(kind, None))).count();
    let apart = if rest + sets.len() <= LANES { sets.len() } else { LANES - kinds.len() };
    for (_, set) in &mut entries {
        *set = set.filter(|set| *set < apart);
    }
    // The kinds first, then what is named of them.
    let mut order: SmallVec<[(usize, Option<usize>); 8]> = entries.clone();
    order.sort_unstable_by_key(|&(kind, set)| set.map_or((0, kind), |set| (1, set)));
    order.dedup();
    let lane = |entry: &(usize, Option<usize>)| {
        let (GpuDevice { model, memory, kind, .. }, set) = (kinds[entry.0], entry.1);
        let mine = entries.iter().zip(gpus).filter(|(other, _)| set.is_some() && *other == entry);
        Lane { model: model.clone(), memory: *memory, kind: kind.clone(), these: mine.map(|(_, gpu)| gpu.uuid.clone()).collect() }
    };
    let lanes = order.iter().map(lane).collect();
    let of = entries.iter().map(|entry| order.iter().position(|other| other == entry).unwrap_or(0) as u8).collect();
    Division { lanes, of }
}
