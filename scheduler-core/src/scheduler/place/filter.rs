//! Which nodes a task may go on, and which lanes of their GPUs it may have: constraints, worked out once for all jobs that have the same.
//!
//! A filter knows every node, so a job with constraints costs no more to place than one without. It is worked out when the first job with
//! these constraints comes, and corrected for a node when that changes.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::amounts::{GpuShare, MemoryBytes};
use crate::hash::Build;
use crate::ids::Name;
use crate::job::{Constraints, Selector, TaskGroup};
use crate::scheduler::config::GpuKind;
use crate::scheduler::place::divide::Named;
use crate::scheduler::place::room::Mask;
use crate::slab::{Slab, index};

index! {
    /// A filter.
    FilterIx
}

/// Filters that nobody uses any more are kept up to this number: jobs with the same constraints often come one after the other.
const IDLE: usize = 64;

/// A kind of GPU on a node, or some of a kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Lane {
    pub(crate) model: Name,
    pub(crate) memory: MemoryBytes,
    pub(crate) kind: GpuKind,
    /// These, which the same jobs name ([`divide`](super::divide)); none: those of the kind that nobody names.
    pub(crate) these: Vec<Name>,
}

/// What of a node constraints look at.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Traits {
    pub(crate) labels: BTreeMap<Name, Name>,
    pub(crate) lanes: SmallVec<[Lane; 1]>,
}

impl Traits {
    /// The lanes of GPUs that jobs name.
    pub(crate) fn named(&self) -> Mask {
        let named = self.lanes.iter().enumerate().filter(|(_, lane)| !lane.these.is_empty());
        named.fold(0, |mask, (at, _)| mask | 1 << at)
    }
}

/// What is asked of GPUs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct GpuRule {
    models: Vec<Name>,
    memory: MemoryBytes,
    profile: Option<Name>,
    /// These and no others.
    uuids: Vec<Name>,
    /// Instances are as good as whole GPUs.
    any_kind: bool,
    /// It is one of the parts that a device plugin gives out, of which each is as large as this at least.
    replica: Option<GpuShare>,
}

impl GpuRule {
    const ANY: Self =
        Self { models: Vec::new(), memory: MemoryBytes::ZERO, profile: None, uuids: Vec::new(), any_kind: false, replica: None };

    pub(crate) fn of(asked: &Constraints) -> Self {
        Self {
            models: asked.gpu_models.clone(),
            // A share of more than a GPU has finds no room on it, nobody else there or not.
            memory: asked.gpu_share.map_or(asked.gpu_memory, |share| asked.gpu_memory.max(share.memory)),
            profile: asked.mig_profile.clone(),
            uuids: asked.gpu_uuids.clone(),
            any_kind: !asked.gpu_uuids.is_empty() && asked.mig_profile.is_none() && asked.gpu_share.is_none(),
            replica: asked.gpu_share.filter(|_| asked.gpu_replica),
        }
    }

    pub(crate) fn accepts(&self, lane: &Lane) -> bool {
        let is_kind = match (&lane.kind, self.replica) {
            (GpuKind::Replica { millis }, Some(least)) => {
                *millis >= least.millis && GpuShare::even(*millis, lane.memory).memory >= least.memory
            }
            (GpuKind::Replica { .. }, None) | (_, Some(_)) => false,
            (GpuKind::Mig { profile }, None) => self.any_kind || self.profile.as_ref() == Some(profile),
            (GpuKind::Whole, None) => self.any_kind || self.profile.is_none(),
        };
        (self.models.is_empty() || self.models.contains(&lane.model))
            && lane.memory >= self.memory
            && is_kind
            && (self.uuids.is_empty() || lane.these.first().is_some_and(|one| self.uuids.contains(one)))
    }

    /// The lanes that tasks may have; nothing where there are none, or not all GPUs that they ask for.
    fn fit(&self, lanes: &[Lane]) -> Option<Mask> {
        let accepted = || lanes.iter().enumerate().filter(|(_, lane)| self.accepts(lane));
        // Who asks for a lane's first GPU asks for all of them: otherwise they were not in one lane.
        let all = self.uuids.is_empty() || accepted().map(|(_, lane)| lane.these.len()).sum::<usize>() == self.uuids.len();
        Some(accepted().fold(0, |mask, (at, _)| mask | 1 << at)).filter(|mask| *mask > 0 && all)
    }
}

/// What is asked of a node and its GPUs; of the latter nothing where none are asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Rule {
    nodes: Vec<Selector>,
    gpus: Option<GpuRule>,
}

impl Rule {
    fn of(group: &TaskGroup) -> Self {
        let asked = &group.constraints;
        let gpus = (group.request.gpus > 0).then(|| GpuRule::of(asked));
        Self { nodes: asked.nodes.clone(), gpus }
    }

    fn fit(&self, node: Option<&Traits>) -> Option<Mask> {
        let node = node.filter(|node| self.nodes.iter().all(|selector| selector.accepts(&node.labels)))?;
        let Some(gpus) = &self.gpus else { return Some(Mask::MAX) };
        gpus.fit(&node.lanes)
    }

    /// The GPUs that it names.
    fn uuids(&self) -> &[Name] {
        self.gpus.as_ref().map_or(&[], |gpus| &gpus.uuids)
    }
}

/// What a filter says of each node: the lanes that tasks may have, all of them for tasks that ask for no GPUs; nothing where they may not go.
#[derive(Clone)]
pub(crate) struct Filter {
    rule: Rule,
    fits: Vec<Option<Mask>>,
    /// Kinds of jobs that have it.
    refs: u32,
}

impl Filter {
    pub(crate) fn fit(&self, node: usize) -> Option<Mask> {
        self.fits.get(node).copied().flatten()
    }

    /// The GPUs that tasks ask for, where they ask for certain ones.
    pub(crate) fn uuids(&self) -> &[Name] {
        self.rule.uuids()
    }

    /// What it says of the nodes in their order.
    pub(crate) fn fits(&self) -> &[Option<Mask>] {
        &self.fits
    }
}

/// All filters in use.
#[derive(Clone)]
pub(crate) struct Filters {
    list: Slab<FilterIx, Filter>,
    by_rule: HashMap<Rule, FilterIx, Build>,
    /// Those of tasks without constraints, that ask for no GPUs and for some. They are always there, and not in the table.
    plain: [FilterIx; 2],
    /// Filters besides those that nobody uses.
    idle: usize,
    /// Memory of the GPUs in each lane of each node.
    memory: Vec<SmallVec<[u64; 1]>>,
    /// The GPUs that filters name.
    named: Named,
}

impl Filters {
    /// Without nodes.
    pub(crate) fn new() -> Self {
        let mut list = Slab::new();
        let plain = [None, Some(GpuRule::ANY)].map(|gpus| {
            let rule = Rule { nodes: Vec::new(), gpus };
            list.insert(Filter { rule, fits: Vec::new(), refs: 0 })
        });
        Self { list, by_rule: HashMap::default(), plain, idle: 0, memory: Vec::new(), named: Named::default() }
    }

    /// The filter of a group without constraints.
    fn plain(&self, group: &TaskGroup) -> Option<FilterIx> {
        group.constraints.is_none().then(|| self.plain[usize::from(group.request.gpus > 0)])
    }

    pub(crate) fn get(&self, index: FilterIx) -> &Filter {
        &self.list[index]
    }

    /// The filter of a task group, if it is there.
    pub(crate) fn find(&self, group: &TaskGroup) -> Option<FilterIx> {
        self.plain(group).or_else(|| self.by_rule.get(&Rule::of(group)).copied())
    }

    /// The filter of a task group, with one user more. `nodes` are all nodes in their order, nothing where there is none.
    pub(crate) fn acquire<'a>(&mut self, group: &TaskGroup, nodes: impl Iterator<Item = Option<&'a Traits>>) -> FilterIx {
        if let Some(index) = self.plain(group) {
            self.list[index].refs += 1;
            return index;
        }
        let rule = Rule::of(group);
        if let Some(&index) = self.by_rule.get(&rule) {
            let filter = &mut self.list[index];
            self.idle -= usize::from(filter.refs == 0);
            filter.refs += 1;
            return index;
        }
        let fits = nodes.map(|node| rule.fit(node)).collect();
        let index = self.list.insert(Filter { rule: rule.clone(), fits, refs: 1 });
        self.named.enter(index, rule.uuids());
        self.by_rule.insert(rule, index);
        index
    }

    /// One user less. Gives the filters that were dropped because of that.
    pub(crate) fn release(&mut self, index: FilterIx) -> Vec<FilterIx> {
        let filter = &mut self.list[index];
        filter.refs -= 1;
        if self.plain.contains(&index) {
            return Vec::new();
        }
        if filter.refs == 0 && !filter.uuids().is_empty() {
            // Its GPUs need no lanes any more.
            self.remove(index);
            return vec![index];
        }
        self.idle += usize::from(filter.refs == 0);
        if self.idle <= IDLE {
            return Vec::new();
        }
        self.idle = 0;
        let unused: Vec<FilterIx> = self.unused().collect();
        for &index in &unused {
            self.remove(index);
        }
        unused
    }

    fn remove(&mut self, index: FilterIx) {
        if let Some(filter) = self.list.remove(index) {
            self.named.leave(index, filter.uuids());
            self.by_rule.remove(&filter.rule);
        }
    }

    /// Who names which GPU.
    pub(crate) const fn named(&self) -> &Named {
        &self.named
    }

    fn unused(&self) -> impl Iterator<Item = FilterIx> {
        let unused = self.list.iter().filter(|(index, filter)| filter.refs == 0 && !self.plain.contains(index));
        unused.map(|(index, _)| index)
    }

    /// Corrects what is said of a node; true if anything changed for anybody.
    pub(crate) fn update(&mut self, node: usize, traits: Option<&Traits>) -> bool {
        let mut changed = false;
        if self.memory.len() <= node {
            self.memory.resize(node + 1, SmallVec::new());
        }
        self.memory[node] = traits.into_iter().flat_map(|traits| &traits.lanes).map(|lane| lane.memory.0).collect();
        for filter in self.list.iter_mut() {
            if filter.fits.len() <= node {
                filter.fits.resize(node + 1, None);
            }
            let fit = filter.rule.fit(traits);
            changed |= filter.fits[node] != fit;
            filter.fits[node] = fit;
        }
        changed
    }

    /// Memory of the GPUs in a lane of a node.
    pub(crate) fn lane_memory(&self, node: usize, lane: u8) -> u64 {
        self.memory.get(node).and_then(|lanes| lanes.get(usize::from(lane))).copied().unwrap_or(0)
    }

    /// Every filter with the number of its users.
    pub(crate) fn refs(&self) -> impl Iterator<Item = (FilterIx, u32)> {
        self.list.iter().map(|(index, filter)| (index, filter.refs))
    }

    /// True when all filters say of all nodes what their rules do.
    pub(crate) fn is_current<'a>(&self, nodes: impl Iterator<Item = Option<&'a Traits>> + Clone) -> bool {
        let right = |filter: &Filter| nodes.clone().map(|node| filter.rule.fit(node)).eq(filter.fits.iter().copied());
        let naming = self.list.iter().flat_map(|(index, filter)| filter.uuids().iter().map(move |uuid| (uuid, index)));
        self.unused().count() == self.idle
            && self.named.is_current(naming)
            && self.by_rule.len() + 2 == self.list.len()
            && self.list.iter().all(|(_, filter)| right(filter))
    }
}
