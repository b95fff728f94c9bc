//! What all nodes offer, and where to look for room: a plain walk over a few nodes, an [`Order`] where there are many.
//!
//! Both give the same answer; a property test compares them. An order is kept for each filter that is asked often, and follows what
//! changed through a log when it is asked next: a change costs the same however many filters there are, and a filter that nobody asks
//! costs nothing. Where an order has fallen behind the log, or is new, some walks are taken first, so that its making is paid for.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::scheduler::place::filter::{Filter, FilterIx, Filters};
use crate::scheduler::place::order::{Home, Key, Need, Order};
use crate::scheduler::place::room::Room;
use crate::scheduler::place::shared::{Rooms, SharedGpu, SharedGpus};
use crate::scheduler::place::{Group, Prefer};
use crate::slab::Index;

/// A walk over so many nodes is no slower than a search.
const FEW: usize = 96;
/// Walks before an order is made: it costs about as much.
const WALKS: u32 = 32;
/// Orders that are kept at most, each about 64 bytes a node; further filters walk.
const ORDERS: usize = 64;

/// What is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Query {
    /// One node for all of a group, else nodes in this order until there is room for all of it.
    Together(Prefer),
    /// As many nodes as there are tasks, the emptiest first.
    Apart,
}

/// Nodes and how many tasks each has room for, in the order of preference.
pub(crate) type Found = SmallVec<[(usize, u32); 4]>;

/// Somewhere to look for room.
pub(crate) trait Offers {
    fn find(&mut self, group: &Group, query: Query) -> Found;
    fn room(&self, node: usize) -> Room;
    fn filter(&self, index: FilterIx) -> &Filter;
    /// Enters something else for a node, for the time being.
    fn put(&mut self, node: usize, room: Room);
    /// The number of nodes.
    fn len(&self) -> usize;
    fn filters(&self) -> &Filters;
    fn shared_gpus(&self) -> &SharedGpus;
    /// Enters something else for the shared GPUs of a node, for the time being.
    fn put_shared(&mut self, node: usize, gpus: Vec<SharedGpu>);
}

/// Rooms that are walked.
pub(crate) struct Walk<'a> {
    pub(crate) rooms: Cow<'a, Rooms>,
    pub(crate) filters: &'a Filters,
}

impl Offers for Walk<'_> {
    fn find(&mut self, group: &Group, query: Query) -> Found {
        walk(&self.rooms, self.filters.get(group.filter), group, query)
    }

    fn room(&self, node: usize) -> Room {
        self.rooms[node]
    }

    fn filter(&self, index: FilterIx) -> &Filter {
        self.filters.get(index)
    }

    fn put(&mut self, node: usize, room: Room) {
        self.rooms.to_mut().list[node] = room;
    }

    fn len(&self) -> usize {
        self.rooms.list.len()
    }

    fn filters(&self) -> &Filters {
        self.filters
    }

    fn shared_gpus(&self) -> &SharedGpus {
        &self.rooms.shared
    }

    fn put_shared(&mut self, node: usize, gpus: Vec<SharedGpu>) {
        self.rooms.to_mut().shared.set(node, gpus);
    }
}

/// A field and what it is searched by.
pub(crate) struct Search<'a> {
    pub(crate) field: &'a mut Field,
    pub(crate) filters: &'a Filters,
}

impl Offers for Search<'_> {
    fn find(&mut self, group: &Group, query: Query) -> Found {
        let filter = self.filters.get(group.filter);
        self.field.bring_up_to_date(group.filter, filter);
        match self.field.order(group.filter) {
            Some(order) => search(order, &self.field.rooms, filter, group, query),
            None => walk(&self.field.rooms, filter, group, query),
        }
    }

    fn room(&self, node: usize) -> Room {
        self.field.rooms[node]
    }

    fn filter(&self, index: FilterIx) -> &Filter {
        self.filters.get(index)
    }

    fn put(&mut self, node: usize, room: Room) {
        self.field.set(node, room);
    }

    fn len(&self) -> usize {
        self.field.rooms.list.len()
    }

    fn filters(&self) -> &Filters {
        self.filters
    }

    fn shared_gpus(&self) -> &SharedGpus {
        &self.field.rooms.shared
    }

    fn put_shared(&mut self, node: usize, gpus: Vec<SharedGpu>) {
        self.field.rooms.shared.set(node, gpus);
    }
}

/// What one filter's searches go through.
#[derive(Default)]
struct View {
    order: Option<Order>,
    /// How far it has followed the log.
    at: u64,
    /// Walks since it was last of use.
    walks: u32,
}

impl Clone for Field {
    /// The rooms alone: a copy is seldom asked often enough for an order to pay.
    fn clone(&self) -> Self {
        Self { few: self.few, ..Self::new(self.rooms.clone()) }
    }
}

/// See the module.
pub(crate) struct Field {
    rooms: Rooms,
    /// By filter.
    views: Vec<View>,
    /// How many of them have an order.
    orders: usize,
    /// Nodes that changed, oldest first, once there is an order.
    log: Vec<u32>,
    /// How many were dropped from the front of the log.
    dropped: u64,
    few: usize,
}

impl Field {
    pub(crate) const fn new(rooms: Rooms) -> Self {
        Self { rooms, views: Vec::new(), orders: 0, log: Vec::new(), dropped: 0, few: FEW }
    }

    pub(crate) const fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Enters what a node offers now.
    pub(crate) fn set(&mut self, node: usize, room: Room) {
        if self.rooms[node] != room {
            self.rooms.list[node] = room;
            self.note(node);
        }
    }

    /// Enters what is taken of a node's shared GPUs now. Orders know nothing of them.
    pub(crate) fn set_shared(&mut self, node: usize, gpus: Vec<SharedGpu>) {
        self.rooms.shared.set(node, gpus);
    }

    /// One more node.
    pub(crate) fn push(&mut self, room: Room) {
        self.rooms.list.push(room);
        self.note(self.rooms.len() - 1);
    }

    /// Filters may say something else of this node, or it offers something else.
    pub(crate) fn note(&mut self, node: usize) {
        if self.orders == 0 {
            return;
        }
        if self.log.len() >= self.rooms.len().max(1024) {
            self.dropped += self.log.len() as u64;
            self.log.clear();
        }
        self.log.push(node as u32);
    }

    /// A filter is gone.
    pub(crate) fn forget(&mut self, filter: FilterIx) {
        if let Some(view) = self.views.get_mut(filter.position()) {
            self.orders -= usize::from(view.order.is_some());
            *view = View::default();
        }
    }

    /// The order of a filter, if it is of use: there, and up to date.
    fn order(&self, index: FilterIx) -> Option<&Order> {
        let view = self.views.get(index.position())?;
        view.order.as_ref().filter(|_| view.at == self.dropped + self.log.len() as u64)
    }

    /// Has the order of a filter follow what changed, or makes it, unless a walk does as well.
    fn bring_up_to_date(&mut self, index: FilterIx, filter: &Filter) {
        if self.rooms.len() <= self.few {
            return;
        }
        let Self { rooms, views, orders, log, dropped, .. } = self;
        if views.len() <= index.position() {
            views.resize_with(index.position() + 1, View::default);
        }
        let view = &mut views[index.position()];
        let end = *dropped + log.len() as u64;
        let place = |node: usize| place(&rooms[node], filter, node);
        match &mut view.order {
            Some(order) if view.at >= *dropped => {
                for &node in &log[(view.at - *dropped) as usize..] {
                    order.set(node as usize, place(node as usize));
                }
            }
            _ => {
                view.walks += 1;
                if view.walks < WALKS || (view.order.is_none() && *orders >= ORDERS) {
                    return;
                }
                *orders += usize::from(view.order.is_none());
                view.walks = 0;
                view.order = Some(Order::new(rooms.len(), (0..rooms.len()).filter_map(place)));
            }
        }
        view.at = end;
    }

    /// True when every order is sound and has what the rooms and filters say, but for what is still in the log.
    pub(crate) fn is_consistent(&self, filters: &Filters) -> bool {
        let used = self.views.iter().filter(|view| view.order.is_some()).count();
        let current = filters.refs().all(|(index, _)| {
            let filter = filters.get(index);
            let Some(view) = self.views.get(index.position()) else { return true };
            let Some(order) = view.order.as_ref().filter(|_| view.at >= self.dropped) else { return true };
            let behind = &self.log[(view.at - self.dropped) as usize..];
            let right = |node: usize| order.place(node) == place(&self.rooms[node], filter, node);
            order.is_consistent() && (0..self.rooms.len()).all(|node| right(node) || behind.contains(&(node as u32)))
        });
        used == self.orders && current
    }
}

/// Where a node belongs in the order of a filter.
fn place(room: &Room, filter: &Filter, node: usize) -> Option<(Home, Key)> {
    let mask = filter.fit(node).filter(|_| room.open)?;
    Some((if room.has_gpus { Home::WithGpus } else { Home::WithoutGpus }, Key::new(room, mask, node)))
}

/// Looks at every node.
fn walk(rooms: &[Room], filter: &Filter, group: &Group, query: Query) -> Found {
    let fullest = query == Query::Together(Prefer::Fullest);
    let mut whole = None;
    let mut partial: SmallVec<[_; 8]> = SmallVec::new();
    for (node, (room, fit)) in rooms.iter().zip(filter.fits()).enumerate() {
        let Some(mask) = *fit else { continue };
        let count = room.holds(group, mask);
        if count == 0 {
            continue;
        }
        let tight = (room.gpus.of(mask), room.cpu, room.memory);
        let order = if fullest { tight } else { (!tight.0, !tight.1, !tight.2) };
        let candidate = ((group.gpus == 0 && room.has_gpus, order), node, count);
        if query != Query::Apart && count == group.replicas {
            // Of those that are alike the first one stays.
            if whole.is_none_or(|best: ((bool, _), usize, u32)| candidate.0 < best.0) {
                whole = Some(candidate);
            }
        } else if whole.is_none() {
            partial.push(candidate);
        }
    }
    if let Some((_, node, count)) = whole {
        return SmallVec::from_slice(&[(node, count)]);
    }
    partial.sort_unstable();
    let mut found = Found::new();
    let mut enough = Enough::new(group, query);
    for (_, node, count) in partial {
        found.push((node, count));
        if enough.with(count) {
            break;
        }
    }
    found
}

/// The same by an order.
fn search(order: &Order, rooms: &[Room], filter: &Filter, group: &Group, query: Query) -> Found {
    let homes = [Home::WithoutGpus, Home::WithGpus];
    let need = |tasks: u32| {
        let all = |each: u64| each.checked_mul(tasks.into());
        Some(Need { gpus: group.gpus.checked_mul(tasks)?, cpu: all(group.cpu)?, memory: all(group.memory)? })
    };
    if let Query::Together(prefer) = query
        && let Some(need) = need(group.replicas)
    {
        let whole = homes.iter().find_map(|&home| match prefer {
            Prefer::Fullest => order.next(home, need, Key::FIRST),
            Prefer::Emptiest => order.previous(home, need, Key::LAST).and_then(|key| order.next(home, need, key.first_alike())),
        });
        if let Some(key) = whole {
            return SmallVec::from_slice(&[(key.node as usize, group.replicas)]);
        }
    }
    let mut found = Found::new();
    let Some(need) = need(1) else { return found };
    let mut enough = Enough::new(group, query);
    let mut enter = |key: Key| {
        let node = key.node as usize;
        let count = rooms[node].holds(group, filter.fit(node).unwrap_or(0));
        found.push((node, count));
        enough.with(count)
    };
    for home in homes {
        let fullest = query == Query::Together(Prefer::Fullest);
        let ended = if fullest { forward(order, home, need, &mut enter) } else { backward(order, home, need, &mut enter) };
        if ended {
            break;
        }
    }
    found
}

/// From the fullest on, until that is enough.
fn forward(order: &Order, home: Home, need: Need, enter: &mut impl FnMut(Key) -> bool) -> bool {
    let mut from = Key::FIRST;
    while let Some(key) = order.next(home, need, from) {
        if enter(key) {
            return true;
        }
        from = Key { node: key.node + 1, ..key };
    }
    false
}

/// From the emptiest on, until that is enough; those that have as much as each other in the order of their places.
fn backward(order: &Order, home: Home, need: Need, enter: &mut impl FnMut(Key) -> bool) -> bool {
    let mut before = Key::LAST;
    while let Some(last) = order.previous(home, need, before) {
        before = last.first_alike();
        let mut from = before;
        while let Some(key) = order.next(home, need, from).filter(|key| key.is_like(before)) {
            if enter(key) {
                return true;
            }
            from = Key { node: key.node + 1, ..key };
        }
    }
    false
}

/// When a search may end: as many tasks have room as there are, or as many nodes.
struct Enough {
    left: u64,
    apart: bool,
}

impl Enough {
    fn new(group: &Group, query: Query) -> Self {
        Self { left: group.replicas.into(), apart: query == Query::Apart }
    }

    fn with(&mut self, count: u32) -> bool {
        self.left = self.left.saturating_sub(if self.apart { 1 } else { count.into() });
        self.left == 0
    }
}

#[cfg(test)]
#[path = "field_tests.rs"]
mod tests;
