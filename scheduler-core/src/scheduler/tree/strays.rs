//! Jobs of a line in the order of their keys, where nothing is known of how they come or how long they stay.
//!
//! A treap: a search tree by (key, index), and a heap by a number that is mixed from the index, which keeps it shallow without any
//! bookkeeping. Every node knows the shortest stay below it, so the first job that stays no longer than so long is found by one walk
//! down, as is the first of all. What the tree looks like depends on indexes; what it answers depends on keys and stays alone.
//!
//! What must hold: keys rise from left to right, numbers fall from the root down, and each `shortest` is the least stay of its subtree.

use crate::hash::hash_of;
use crate::scheduler::table::JobIx;
use crate::scheduler::tree::Stay;
use crate::scheduler::tree::key::Key;
use crate::slab::{Slab, index};

index! {
    /// A node of the tree.
    NodeIx
}

type Link = Option<NodeIx>;
type Order = (Key, JobIx);

struct Node {
    order: Order,
    stay: Stay,
    shortest: Stay,
    left: Link,
    right: Link,
}

/// See the module.
pub(crate) struct Strays {
    nodes: Slab<NodeIx, Node>,
    root: Link,
}

impl Default for Strays {
    fn default() -> Self {
        Self { nodes: Slab::new(), root: None }
    }
}

impl Strays {
    pub(crate) const fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Enters a job that is not in it.
    pub(crate) fn insert(&mut self, order: Order, stay: Stay) {
        let new = self.nodes.insert(Node { order, stay, shortest: stay, left: None, right: None });
        self.root = Some(self.insert_below(self.root, new));
    }

    /// False if it is not in it.
    pub(crate) fn remove(&mut self, order: Order) -> bool {
        let Some(gone) = self.remove_below(self.root, order).map(|(root, gone)| {
            self.root = root;
            gone
        }) else {
            return false;
        };
        self.nodes.remove(gone).is_some()
    }

    /// The first of those that stay no longer than `stay`.
    pub(crate) fn first_within(&self, stay: Stay) -> Option<Order> {
        let mut at = self.root.filter(|&root| self.nodes[root].shortest <= stay)?;
        loop {
            let node = &self.nodes[at];
            if let Some(left) = node.left.filter(|&left| self.nodes[left].shortest <= stay) {
                at = left;
            } else if node.stay <= stay {
                return Some(node.order);
            } else {
                at = node.right?;
            }
        }
    }

    /// How long a job of it stays.
    pub(crate) fn get(&self, order: Order) -> Option<Stay> {
        let mut at = self.root;
        while let Some(index) = at {
            let node = &self.nodes[index];
            if node.order == order {
                return Some(node.stay);
            }
            at = if order < node.order { node.left } else { node.right };
        }
        None
    }

    /// Every job with its stay, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Order, Stay)> {
        self.nodes.iter().map(|(_, node)| (node.order, node.stay))
    }

    fn weight(&self, at: NodeIx) -> u64 {
        hash_of(&self.nodes[at].order.1)
    }

    fn settle(&mut self, at: NodeIx) {
        let node = &self.nodes[at];
        let below = [node.left, node.right].into_iter().flatten().map(|child| self.nodes[child].shortest);
        let shortest = below.fold(node.stay, Stay::min);
        self.nodes[at].shortest = shortest;
    }

    fn insert_below(&mut self, at: Link, new: NodeIx) -> NodeIx {
        let Some(at) = at else { return new };
        let order = self.nodes[new].order;
        let top = if self.weight(new) > self.weight(at) {
            let (left, right) = self.split(Some(at), order);
            (self.nodes[new].left, self.nodes[new].right) = (left, right);
            new
        } else {
            if order < self.nodes[at].order {
                let left = self.insert_below(self.nodes[at].left, new);
                self.nodes[at].left = Some(left);
            } else {
                let right = self.insert_below(self.nodes[at].right, new);
                self.nodes[at].right = Some(right);
            }
            at
        };
        self.settle(top);
        top
    }

    /// What is before `order`, and what is behind it.
    fn split(&mut self, at: Link, order: Order) -> (Link, Link) {
        let Some(at) = at else { return (None, None) };
        let parts = if self.nodes[at].order < order {
            let (left, right) = self.split(self.nodes[at].right, order);
            self.nodes[at].right = left;
            (Some(at), right)
        } else {
            let (left, right) = self.split(self.nodes[at].left, order);
            self.nodes[at].left = right;
            (left, Some(at))
        };
        self.settle(at);
        parts
    }

    /// What is left, and the node that was taken out.
    fn remove_below(&mut self, at: Link, order: Order) -> Option<(Link, NodeIx)> {
        let at = at?;
        let node = &self.nodes[at];
        let (left, right) = (node.left, node.right);
        if node.order == order {
            return Some((self.join(left, right), at));
        }
        let gone = if order < node.order {
            let (left, gone) = self.remove_below(left, order)?;
            self.nodes[at].left = left;
            gone
        } else {
            let (right, gone) = self.remove_below(right, order)?;
            self.nodes[at].right = right;
            gone
        };
        self.settle(at);
        Some((Some(at), gone))
    }

    /// One tree of two, of which all of the first is before all of the second.
    fn join(&mut self, left: Link, right: Link) -> Link {
        let (Some(first), Some(second)) = (left, right) else { return left.or(right) };
        let top = if self.weight(first) > self.weight(second) {
            let below = self.join(self.nodes[first].right, right);
            self.nodes[first].right = below;
            first
        } else {
            let below = self.join(left, self.nodes[second].left);
            self.nodes[second].left = below;
            second
        };
        self.settle(top);
        Some(top)
    }

    /// True when what must hold does.
    pub(crate) fn is_consistent(&self) -> bool {
        let mut in_order = Vec::new();
        self.is_sound(self.root, &mut in_order) && in_order.is_sorted() && in_order.len() == self.nodes.len()
    }

    fn is_sound(&self, at: Link, in_order: &mut Vec<Order>) -> bool {
        let Some(at) = at else { return true };
        let node = &self.nodes[at];
        let below = || [node.left, node.right].into_iter().flatten();
        let shortest = below().map(|child| self.nodes[child].shortest).fold(node.stay, Stay::min);
        let left = self.is_sound(node.left, in_order);
        in_order.push(node.order);
        left && self.is_sound(node.right, in_order)
            && shortest == node.shortest
            && below().all(|child| self.weight(child) <= self.weight(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slab::Index;

    fn depth(strays: &Strays, at: Link) -> usize {
        at.map_or(0, |at| 1 + depth(strays, strays.nodes[at].left).max(depth(strays, strays.nodes[at].right)))
    }

    #[test]
    fn a_tree_stays_shallow_when_keys_rise() {
        let mut strays = Strays::default();
        for number in 0..10_000_u64 {
            strays.insert((Key::test(0, number), JobIx::new(number as usize)), Stay::test(number % 777));
        }
        let deepest = depth(&strays, strays.root);
        assert!(deepest < 50, "{deepest} levels for 10,000 jobs");
        assert!(strays.is_consistent());
    }

    #[test]
    fn a_node_is_one_cache_line() {
        assert_eq!(size_of::<Node>(), 64);
    }
}
