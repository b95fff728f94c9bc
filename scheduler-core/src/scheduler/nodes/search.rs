//! Where jobs fit: what a shape asks for, and which nodes have room for it, as they are or as they might be.

use std::borrow::Cow;

use crate::job::Shape;
use crate::scheduler::nodes::{Held, Nodes, traits};
use crate::scheduler::place::field::{Search, Walk};
use crate::scheduler::place::filter::{FilterIx, Filters};
use crate::scheduler::place::{Demand, Group, Misfit, Packing, Rooms, pack};

/// What jobs of a shape would ask for that nobody may have yet.
pub(crate) struct Trial<'a> {
    pub(crate) demand: Demand,
    /// Those that there are; or a copy, where the shape names GPUs that have no lanes of their own yet.
    nodes: Cow<'a, Nodes>,
    /// Its filters, where those nodes have none for it.
    filters: Option<Filters>,
}

impl Trial<'_> {
    pub(crate) fn filters(&self) -> &Filters {
        self.filters.as_ref().unwrap_or(&self.nodes.filters)
    }

    /// What each node has when nothing runs.
    pub(crate) fn whole(&self) -> &Rooms {
        &self.nodes.whole
    }

    /// Where it would fit if nothing else ran and all nodes took tasks.
    pub(crate) fn pack_whole(&self) -> Result<Packing, Misfit> {
        self.pack(&self.nodes.whole)
    }

    /// Whether it would fit now.
    pub(crate) fn fits_now(&self) -> bool {
        self.pack(self.nodes.rooms()).is_ok()
    }

    fn pack(&self, rooms: &Rooms) -> Result<Packing, Misfit> {
        pack(&self.demand, &mut Walk { rooms: Cow::Borrowed(rooms), filters: self.filters() })
    }
}

impl Nodes {
    /// What jobs of a shape ask for. Its filters have one user more, until [`dismiss`](Self::dismiss).
    pub(crate) fn demand(&mut self, shape: &Shape) -> Demand {
        let Self { filters, list, .. } = self;
        let demand = Demand::of(shape, |_, group| filters.acquire(group, list.iter().map(traits)));
        if demand.is_named {
            self.divide_again(shape.tasks.iter().flat_map(|group| &group.constraints.gpu_uuids));
        }
        demand
    }

    /// What jobs of a shape would ask for, and of what.
    pub(crate) fn trial(&self, shape: &Shape) -> Trial<'_> {
        let known: Option<Vec<FilterIx>> = shape.tasks.iter().map(|group| self.filters.find(group)).collect();
        if let Some(known) = known {
            let demand = Demand::of(shape, |index, _| known[index]);
            return Trial { demand, nodes: Cow::Borrowed(self), filters: None };
        }
        if shape.tasks.iter().any(|group| !group.constraints.gpu_uuids.is_empty()) {
            let mut nodes = self.clone();
            let demand = nodes.demand(shape);
            return Trial { demand, nodes: Cow::Owned(nodes), filters: None };
        }
        let mut filters = Filters::new();
        for (at, node) in self.list.iter().enumerate() {
            filters.update(at, traits(node));
        }
        let demand = Demand::of(shape, |_, group| filters.acquire(group, self.list.iter().map(traits)));
        Trial { demand, nodes: Cow::Borrowed(self), filters: Some(filters) }
    }

    /// Nobody has this demand any more. True where lanes are not what they were because of that.
    pub(crate) fn dismiss(&mut self, demand: &Demand) -> bool {
        let uuids = |group: &Group| self.filters.get(group.filter).uuids().to_vec();
        let named: Vec<_> = if demand.is_named { demand.groups.iter().flat_map(uuids).collect() } else { Vec::new() };
        for group in &demand.groups {
            for dropped in self.filters.release(group.filter) {
                self.field.forget(dropped);
            }
        }
        self.divide_again(&named)
    }

    /// Where a job fits now.
    pub(crate) fn find(&mut self, demand: &Demand) -> Result<Packing, Misfit> {
        let mut packing = pack(demand, &mut Search { field: &mut self.field, filters: &self.filters })?;
        if demand.has_parts {
            self.settle_parts(&mut packing);
        }
        Ok(packing)
    }

    /// Where a job would fit, if this were free. Looks at every node.
    pub(crate) fn pack(&self, demand: &Demand, rooms: &Rooms) -> Result<Packing, Misfit> {
        pack(demand, &mut Walk { rooms: Cow::Borrowed(rooms), filters: &self.filters })
    }

    /// Whether any of this is on a node that could take a task of a job if nothing else ran there.
    pub(crate) fn is_in_the_way(&self, demand: &Demand, held: &Held) -> bool {
        let mut nodes = held.parts.iter().map(|part| part.node as usize);
        let takes = |node: usize, group: &Group| {
            self.filters.get(group.filter).fit(node).is_some_and(|mask| self.idle[node].fits(group, mask))
        };
        nodes.any(|node| demand.groups.iter().any(|group| takes(node, group)))
    }
}
