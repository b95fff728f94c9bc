//! Where jobs fit: what a shape asks for, and which nodes have room for it, as they are or as they might be.

use std::borrow::Cow;

use crate::job::Shape;
use crate::scheduler::nodes::{Held, Nodes, traits};
use crate::scheduler::place::field::{Search, Walk};
use crate::scheduler::place::filter::{FilterIx, Filters};
use crate::scheduler::place::{Demand, Group, Misfit, Packing, Rooms, pack};

impl Nodes {
    /// What jobs of a shape ask for. Its filters have one user more, until [`dismiss`](Self::dismiss).
    pub(crate) fn demand(&mut self, shape: &Shape) -> Demand {
        let Self { filters, list, .. } = self;
        Demand::of(shape, |_, group| filters.acquire(group, list.iter().map(traits)))
    }

    /// What jobs of a shape would ask for, and the filters for that where they are not there already.
    pub(crate) fn trial(&self, shape: &Shape) -> (Demand, Option<Filters>) {
        let known: Option<Vec<FilterIx>> = shape.tasks.iter().map(|group| self.filters.find(group)).collect();
        if let Some(known) = known {
            return (Demand::of(shape, |index, _| known[index]), None);
        }
        let mut filters = Filters::new();
        for (at, node) in self.list.iter().enumerate() {
            filters.update(at, traits(node));
        }
        let demand = Demand::of(shape, |_, group| filters.acquire(group, self.list.iter().map(traits)));
        (demand, Some(filters))
    }

    /// Nobody has this demand any more.
    pub(crate) fn dismiss(&mut self, demand: &Demand) {
        for group in &demand.groups {
            for dropped in self.filters.release(group.filter) {
                self.field.forget(dropped);
            }
        }
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

    /// Where a job would fit if nothing else ran and all nodes took tasks; by the filters of its [`trial`](Self::trial).
    pub(crate) fn pack_whole(&self, demand: &Demand, filters: &Filters) -> Result<Packing, Misfit> {
        pack(demand, &mut Walk { rooms: Cow::Borrowed(&self.whole), filters })
    }

    /// Whether jobs of a shape that nobody has yet would fit now.
    pub(crate) fn would_fit(&self, shape: &Shape) -> bool {
        let (demand, filters) = self.trial(shape);
        let filters = filters.as_ref().unwrap_or(&self.filters);
        pack(&demand, &mut Walk { rooms: Cow::Borrowed(self.rooms()), filters }).is_ok()
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
