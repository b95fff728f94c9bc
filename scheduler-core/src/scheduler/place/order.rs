//! Nodes from the fullest to the emptiest, searched for the first one that has enough of everything.
//!
//! A treap: a search tree by (free GPUs, free CPU, free memory, place in the list), shaped by a fixed hash of the place, so that it is the same
//! everywhere and no load can make it deep. Each knot knows the largest free amounts below it. A search goes down in order and turns back
//! where one of them is too small. Within one number of free GPUs the knots with enough CPU are the end of a sorted run, so turning
//! back happens for want of memory alone, and then for whole subtrees: O(G log n) for G different numbers of free GPUs, whatever the
//! nodes look like. Nodes without GPUs have a tree of their own, because tasks without GPUs look there first.
//!
//! What must hold: a node is in at most one tree, under the key that it was entered with.

use crate::scheduler::place::room::{Mask, Room};

const NIL: u32 = u32::MAX;

/// Where a node stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Key {
    pub(super) gpus: u32,
    pub(super) cpu: u64,
    pub(super) memory: u64,
    pub(super) node: u32,
}

impl Key {
    pub(super) const FIRST: Self = Self { gpus: 0, cpu: 0, memory: 0, node: 0 };
    pub(super) const LAST: Self = Self { gpus: u32::MAX, cpu: u64::MAX, memory: u64::MAX, node: u32::MAX };

    pub(super) fn new(room: &Room, mask: Mask, node: usize) -> Self {
        Self { gpus: room.gpus.of(mask), cpu: room.cpu, memory: room.memory, node: node as u32 }
    }

    /// The first place among those that have as much.
    pub(super) const fn first_alike(self) -> Self {
        Self { node: 0, ..self }
    }

    pub(super) fn is_like(self, other: Self) -> bool {
        self.first_alike() == other.first_alike()
    }
}

/// What is looked for; a key of which the place does not matter.
#[derive(Clone, Copy)]
pub(super) struct Need {
    pub(super) gpus: u32,
    pub(super) cpu: u64,
    pub(super) memory: u64,
}

/// Which tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Home {
    WithoutGpus = 0,
    WithGpus = 1,
}

#[derive(Clone, Copy)]
struct Knot {
    key: Key,
    home: Option<Home>,
    left: u32,
    right: u32,
    /// The largest amounts in this knot and below.
    gpus: u32,
    cpu: u64,
    memory: u64,
}

impl Knot {
    const EMPTY: Self = Self { key: Key::FIRST, home: None, left: NIL, right: NIL, gpus: 0, cpu: 0, memory: 0 };
}

/// See the module.
pub(super) struct Order {
    /// By node.
    knots: Vec<Knot>,
    roots: [u32; 2],
}

/// The shape of the tree: larger ones are nearer to the root.
const fn weight(node: u32) -> (u64, u32) {
    (
        (node as u64 ^ 0x9e37_79b9_7f4a_7c15)
            .wrapping_mul(0xd6e8_feb8_6659_fd93)
            .rotate_left(32)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15),
        node,
    )
}

impl Order {
    /// All these nodes, in linear time but for the sorting.
    pub(super) fn new(len: usize, nodes: impl Iterator<Item = (Home, Key)>) -> Self {
        let mut order = Self { knots: vec![Knot::EMPTY; len], roots: [NIL; 2] };
        let mut lists = [Vec::new(), Vec::new()];
        for (home, key) in nodes {
            lists[home as usize].push(key);
            order.knots[key.node as usize] = Knot { key, home: Some(home), ..Knot::EMPTY };
        }
        for (root, mut keys) in lists.into_iter().enumerate() {
            keys.sort_unstable();
            // The right edge of the tree so far; what leaves it has all of its children.
            let mut edge: Vec<u32> = Vec::new();
            for node in keys.into_iter().map(|key| key.node) {
                let mut below = NIL;
                while let Some(top) = edge.pop_if(|top| weight(*top) < weight(node)) {
                    order.pull(top);
                    below = top;
                }
                order.knots[node as usize].left = below;
                if let Some(&above) = edge.last() {
                    order.knots[above as usize].right = node;
                }
                edge.push(node);
            }
            order.roots[root] = edge.first().copied().unwrap_or(NIL);
            edge.into_iter().rev().for_each(|node| order.pull(node));
        }
        order
    }

    /// Enters a node at another place, or takes it out.
    pub(super) fn set(&mut self, node: usize, place: Option<(Home, Key)>) {
        if node >= self.knots.len() {
            self.knots.resize(node + 1, Knot::EMPTY);
        }
        let Knot { home, key, .. } = self.knots[node];
        if place == home.map(|home| (home, key)) {
            return;
        }
        if let Some(home) = home {
            self.roots[home as usize] = self.without(self.roots[home as usize], node as u32);
        }
        self.knots[node] = Knot::EMPTY;
        if let Some((home, key)) = place {
            self.knots[node] = Knot { key, home: Some(home), ..Knot::EMPTY };
            self.pull(node as u32);
            self.roots[home as usize] = self.with(self.roots[home as usize], node as u32);
        }
    }

    fn knot(&self, at: u32) -> &Knot {
        &self.knots[at as usize]
    }

    /// Works out the largest amounts again.
    fn pull(&mut self, at: u32) {
        let Knot { key, left, right, .. } = *self.knot(at);
        let (mut gpus, mut cpu, mut memory) = (key.gpus, key.cpu, key.memory);
        for child in [left, right] {
            if child != NIL {
                let child = self.knot(child);
                gpus = gpus.max(child.gpus);
                cpu = cpu.max(child.cpu);
                memory = memory.max(child.memory);
            }
        }
        let knot = &mut self.knots[at as usize];
        (knot.gpus, knot.cpu, knot.memory) = (gpus, cpu, memory);
    }

    fn with(&mut self, root: u32, node: u32) -> u32 {
        if root == NIL {
            return node;
        }
        let key = self.knot(node).key;
        if weight(node) > weight(root) {
            let (left, right) = self.split(root, key);
            (self.knots[node as usize].left, self.knots[node as usize].right) = (left, right);
            self.pull(node);
            return node;
        }
        if key < self.knot(root).key {
            let left = self.with(self.knot(root).left, node);
            self.knots[root as usize].left = left;
        } else {
            let right = self.with(self.knot(root).right, node);
            self.knots[root as usize].right = right;
        }
        self.pull(root);
        root
    }

    fn without(&mut self, root: u32, node: u32) -> u32 {
        if root == NIL {
            return NIL;
        }
        if root == node {
            return self.merge(self.knot(root).left, self.knot(root).right);
        }
        if self.knot(node).key < self.knot(root).key {
            let left = self.without(self.knot(root).left, node);
            self.knots[root as usize].left = left;
        } else {
            let right = self.without(self.knot(root).right, node);
            self.knots[root as usize].right = right;
        }
        self.pull(root);
        root
    }

    /// What is before a key, and what is not.
    fn split(&mut self, root: u32, key: Key) -> (u32, u32) {
        if root == NIL {
            return (NIL, NIL);
        }
        let parts = if self.knot(root).key < key {
            let (left, right) = self.split(self.knot(root).right, key);
            self.knots[root as usize].right = left;
            (root, right)
        } else {
            let (left, right) = self.split(self.knot(root).left, key);
            self.knots[root as usize].left = right;
            (left, root)
        };
        self.pull(root);
        parts
    }

    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NIL || right == NIL {
            return if left == NIL { right } else { left };
        }
        let root = if weight(left) > weight(right) {
            let below = self.merge(self.knot(left).right, right);
            self.knots[left as usize].right = below;
            left
        } else {
            let below = self.merge(left, self.knot(right).left);
            self.knots[right as usize].left = below;
            right
        };
        self.pull(root);
        root
    }

    /// The first node from a key on that has as much as is needed.
    pub(super) fn next(&self, home: Home, need: Need, from: Key) -> Option<Key> {
        self.next_in(self.roots[home as usize], need, from)
    }

    fn next_in(&self, root: u32, need: Need, from: Key) -> Option<Key> {
        if !self.reaches(root, need) {
            return None;
        }
        let knot = self.knot(root);
        if knot.key < from {
            return self.next_in(knot.right, need, from);
        }
        let here = || has(knot.key, need).then_some(knot.key);
        self.next_in(knot.left, need, from).or_else(here).or_else(|| self.next_in(knot.right, need, from))
    }

    /// The last node before a key that has as much as is needed.
    pub(super) fn previous(&self, home: Home, need: Need, before: Key) -> Option<Key> {
        self.previous_in(self.roots[home as usize], need, before)
    }

    fn previous_in(&self, root: u32, need: Need, before: Key) -> Option<Key> {
        if !self.reaches(root, need) {
            return None;
        }
        let knot = self.knot(root);
        if knot.key >= before {
            return self.previous_in(knot.left, need, before);
        }
        let here = || has(knot.key, need).then_some(knot.key);
        self.previous_in(knot.right, need, before).or_else(here).or_else(|| self.previous_in(knot.left, need, before))
    }

    /// Whether there can be enough below a knot.
    fn reaches(&self, root: u32, need: Need) -> bool {
        root != NIL && {
            let knot = self.knot(root);
            knot.gpus >= need.gpus && knot.cpu >= need.cpu && knot.memory >= need.memory
        }
    }

    /// Where a node stands.
    pub(super) fn place(&self, node: usize) -> Option<(Home, Key)> {
        self.knots.get(node).and_then(|knot| Some((knot.home?, knot.key)))
    }

    /// True when both are search trees of the right shape that know their largest amounts and have every node that has a home.
    pub(super) fn is_consistent(&self) -> bool {
        let mut keys = [Vec::new(), Vec::new()];
        let sound = [Home::WithoutGpus, Home::WithGpus].into_iter().all(|home| {
            let found = self.collect(self.roots[home as usize], home, &mut keys[home as usize]);
            found.is_some() && keys[home as usize].is_sorted()
        });
        sound && keys[0].len() + keys[1].len() == self.knots.iter().filter(|knot| knot.home.is_some()).count()
    }

    /// Appends the keys below a knot in order, and gives their largest amounts; nothing where something is wrong.
    fn collect(&self, root: u32, home: Home, keys: &mut Vec<Key>) -> Option<[u64; 3]> {
        if root == NIL {
            return Some([0; 3]);
        }
        let knot = self.knot(root);
        let lighter = |child: u32| child == NIL || weight(child) < weight(root);
        let left = self.collect(knot.left, home, keys)?;
        keys.push(knot.key);
        let right = self.collect(knot.right, home, keys)?;
        let own = [u64::from(knot.key.gpus), knot.key.cpu, knot.key.memory];
        let most = std::array::from_fn(|at| own[at].max(left[at]).max(right[at]));
        let right_here = knot.home == Some(home) && knot.key.node == root && lighter(knot.left) && lighter(knot.right);
        (right_here && most == [u64::from(knot.gpus), knot.cpu, knot.memory]).then_some(most)
    }
}

fn has(key: Key, need: Need) -> bool {
    key.gpus >= need.gpus && key.cpu >= need.cpu && key.memory >= need.memory
}
