//! How much room nodes have: what they can give, less what every pod that is bound to them asks for, less what is about to be bound. Pure.
//!
//! What must hold: whatever is set aside stays so until the watch shows the pod on its node, or until it is given up. So two gangs are never
//! promised the same place, however late the watch is.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use tokio::sync::watch;

use super::super::quantity::{Amounts, add, shown};
use super::Key;
use super::books::{Books, Bound};
use super::requests::takes;

/// A pod that wants to go on a node.
#[derive(Clone, Debug)]
pub(in crate::kubernetes) struct Wish<'a> {
    pub(in crate::kubernetes) key: Key,
    /// Name or host name of the node.
    pub(in crate::kubernetes) node: &'a str,
    pub(in crate::kubernetes) pod: &'a PodSpec,
}

/// The books of nodes and pods, and what is about to be added to them. Whoever binds pods shares it with the watch.
#[derive(Debug)]
pub(in crate::kubernetes) struct Room {
    pub(super) books: Books,
    /// Set aside: pods by node.
    aside: BTreeMap<String, BTreeMap<Key, Amounts>>,
    /// Complete lists were had.
    pub(in crate::kubernetes) listed: bool,
    /// Lists of pods that were begun so far.
    pub(in crate::kubernetes) lists_begun: u64,
    /// The number of the last of them that is complete.
    last_list: u64,
}

/// The room of the nodes that are watched: for those that bind pods themselves.
#[derive(Clone, Debug)]
pub struct NodeRoom(pub(in crate::kubernetes) Arc<watch::Sender<Room>>);

impl Room {
    pub(super) const fn new(books: Books) -> Self {
        Self { books, aside: BTreeMap::new(), listed: false, lists_begun: 0, last_list: 0 }
    }

    /// A pod as the watch tells it.
    pub(super) fn put_pod(&mut self, pod: &Pod) {
        match self.books.bound(pod) {
            Some(bound) => {
                self.given_up(&[&bound.key]);
                self.books.put_pod(bound);
            }
            None => self.books.drop_pod(pod),
        }
    }

    /// All pods that there are.
    pub(super) fn set_pods(&mut self, pods: Vec<Bound>) {
        let keys: Vec<&Key> = pods.iter().map(|pod| &pod.key).collect();
        self.given_up(&keys);
        self.books.set_pods(pods);
        self.last_list = self.lists_begun;
    }

    /// The name of the node that is called so, itself or as a host.
    pub(in crate::kubernetes) fn node<'a>(&'a self, called: &'a str) -> &'a str {
        self.books.name_of(called)
    }

    /// Sets room aside for all of them, or for none and says why.
    pub(in crate::kubernetes) fn set_aside(&mut self, wishes: &[Wish<'_>]) -> Result<(), String> {
        let keys: Vec<&Key> = wishes.iter().map(|wish| &wish.key).collect();
        let before: Vec<(String, Key, Amounts)> = self.given_up(&keys);
        let outcome = wishes.iter().try_for_each(|wish| {
            let node = self.node(wish.node).to_owned();
            let Some(told) = self.books.told(&node) else { return Err(format!("there is no node {node}")) };
            if self.books.is_on(&node, &wish.key) {
                return Ok(());
            }
            if let Some(why) = told.traits.refuses(wish.pod) {
                return Err(why);
            }
            self.aside.entry(node.clone()).or_default().insert(wish.key.clone(), takes(wish.pod));
            self.over(&node, wish.pod).map_or(Ok(()), Err)
        });
        if outcome.is_err() {
            self.given_up(&keys);
            for (node, key, amounts) in before {
                self.aside.entry(node).or_default().insert(key, amounts);
            }
        }
        outcome
    }

    fn given_up(&mut self, keys: &[&Key]) -> Vec<(String, Key, Amounts)> {
        let mut taken = Vec::new();
        for (node, pods) in &mut self.aside {
            for key in keys {
                if let Some(amounts) = pods.remove(*key) {
                    taken.push((node.clone(), (*key).clone(), amounts));
                }
            }
        }
        self.aside.retain(|_, pods| !pods.is_empty());
        taken
    }

    /// These will not be bound, or are no more.
    pub(in crate::kubernetes) fn give_up<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        let keys: Vec<&Key> = keys.into_iter().collect();
        self.given_up(&keys);
    }

    /// Whether the watch has shown all of these on their nodes, or all that is there in a list that was begun after so many. They need not be
    /// there any more: what is short has ended by then.
    pub(in crate::kubernetes) fn has_shown(&self, keys: &[Key], lists: u64) -> bool {
        self.last_list > lists || keys.iter().all(|key| !self.aside.values().any(|pods| pods.contains_key(key)))
    }

    /// Why what was bound to a node cannot stay.
    pub(in crate::kubernetes) fn lacks(&self, node: &str, pod: &PodSpec) -> Option<String> {
        if self.books.told(node).is_none() {
            return Some(format!("node {node} was deleted"));
        }
        self.over(node, pod).map(|over| format!("somebody else took the room: {over}"))
    }

    /// What a node has promised more of than it has, of what this pod asks for. A device that fell ill while others have it is no reason to keep
    /// away who wants none.
    fn over(&self, node: &str, pod: &PodSpec) -> Option<String> {
        let allocatable = &self.books.told(node)?.allocatable;
        let asked = takes(pod);
        let mut used = Amounts::new();
        let aside = self.aside.get(node).into_iter().flat_map(BTreeMap::values);
        self.books.asked_of(node).chain(aside).for_each(|amounts| add(&mut used, amounts));
        used.iter().filter(|(resource, _)| asked.get(*resource).is_some_and(|amount| *amount > 0)).find_map(|(resource, used)| {
            let have = allocatable.get(resource).copied().unwrap_or(0);
            (*used > have)
                .then(|| format!("node {node} has {} {resource}, and its pods would ask for {}", shown(have), shown(*used)))
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::Node;
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::super::books::Rules;
    use super::*;

    fn spec(gpus: u32, more: Value) -> PodSpec {
        let mut spec = json!({"containers": [{"name": "c", "resources": {
            "limits": {"nvidia.com/gpu": gpus.to_string()}, "requests": {"cpu": "1"}}}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(spec).unwrap()
    }

    fn room() -> Room {
        let node = |name: &str, host: &str| {
            serde_json::from_value::<Node>(json!({
                "metadata": {"name": name, "labels": {"kubernetes.io/hostname": host}},
                "status": {"conditions": [{"type": "Ready", "status": "True"}],
                    "allocatable": {"nvidia.com/gpu": "8", "cpu": "4", "pods": "10"}}}))
            .unwrap()
        };
        let rules = Rules { instance: "here".to_owned(), grace: Duration::ZERO, tolerated: Vec::new() };
        let mut room = Room::new(Books::new(rules));
        room.books.set_nodes(vec![node("a", "a"), node("b", "host-b")], Instant::now());
        room
    }

    fn at(name: &str) -> Key {
        ("ns".to_owned(), name.to_owned())
    }

    fn bound(name: &str, node: &str, spec: &PodSpec) -> Pod {
        let mut pod = Pod { spec: Some(PodSpec { node_name: Some(node.to_owned()), ..spec.clone() }), ..Pod::default() };
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.namespace = Some("ns".to_owned());
        pod
    }

    #[test]
    fn a_gang_gets_room_for_all_or_none() {
        let (mut room, five) = (room(), spec(5, json!({})));
        let wish = |name: &str, node: &'static str| Wish { key: at(name), node, pod: &five };
        let error = room.set_aside(&[wish("one", "a"), wish("two", "a")]).unwrap_err();
        assert_eq!(error, "node a has 8 nvidia.com/gpu, and its pods would ask for 10");
        room.set_aside(&[wish("one", "a"), wish("two", "host-b")]).unwrap();
        assert!(room.set_aside(&[wish("three", "b")]).is_err(), "what is set aside is taken");
        room.set_aside(&[wish("one", "a"), wish("two", "b")]).unwrap();
        room.give_up(&[at("two")]);
        room.set_aside(&[wish("three", "b")]).unwrap();
        assert!(room.set_aside(&[wish("four", "nowhere")]).unwrap_err().contains("no node nowhere"));
    }

    #[test]
    fn what_the_watch_shows_is_counted_once() {
        let (mut room, eight) = (room(), spec(8, json!({})));
        room.set_aside(&[Wish { key: at("one"), node: "a", pod: &eight }]).unwrap();
        room.put_pod(&bound("one", "a", &eight));
        assert!(room.over("a", &eight).is_none());
        room.set_aside(&[Wish { key: at("one"), node: "a", pod: &eight }]).unwrap();
        room.put_pod(&bound("foreign", "a", &eight));
        assert!(room.over("a", &eight).is_some());
        room.books.drop_pod(&bound("one", "a", &eight));
        assert!(room.over("a", &eight).is_none());
        let mut over = bound("foreign", "a", &eight);
        over.status = Some(serde_json::from_value(json!({"phase": "Succeeded"})).unwrap());
        room.put_pod(&over);
        room.set_aside(&[Wish { key: at("next"), node: "a", pod: &eight }]).unwrap();
    }

    #[test]
    fn what_is_set_aside_is_shown_once_by_the_watch_or_by_a_later_list() {
        let (mut room, one) = (room(), spec(1, json!({})));
        let wish = |name: &str| Wish { key: at(name), node: "a", pod: &one };
        room.set_aside(&[wish("one"), wish("two")]).unwrap();
        let both = [at("one"), at("two")];
        let shown = |room: &Room, lists: u64| room.has_shown(&both, lists);
        room.put_pod(&bound("one", "a", &one));
        assert!(!shown(&room, 0));
        // Short: over before the other one is shown.
        room.books.drop_pod(&bound("one", "a", &one));
        room.put_pod(&bound("two", "a", &one));
        assert!(shown(&room, 0), "each was");
        room.set_aside(&[wish("one"), wish("two")]).unwrap();
        // A list that was under way when they were bound may not have them yet.
        room.lists_begun = 1;
        room.set_pods(Vec::new());
        assert!(!shown(&room, 1));
        room.lists_begun = 2;
        room.set_pods(Vec::new());
        assert!(shown(&room, 1), "they have ended, and were not seen");
        room.put_pod(&bound("foreign", "a", &spec(8, json!({}))));
        assert!(room.lacks("a", &one).unwrap().contains("somebody else took the room"));
        room.books.drop_node("a");
        assert_eq!(room.lacks("a", &one).unwrap(), "node a was deleted");
    }

    #[test]
    fn who_asks_for_none_of_what_a_node_lacks_has_its_room() {
        let (mut room, eight, none) = (room(), spec(8, json!({})), spec(0, json!({})));
        room.put_pod(&bound("trains", "a", &eight));
        // One of the eight falls ill while all are in use.
        let ill = json!({"metadata": {"name": "a"}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "capacity": {"nvidia.com/gpu": "8"}, "allocatable": {"nvidia.com/gpu": "7", "cpu": "4", "pods": "10"}}});
        room.books.put_node(serde_json::from_value(ill).unwrap(), Instant::now());
        room.set_aside(&[Wish { key: at("counts"), node: "a", pod: &none }]).unwrap();
        room.put_pod(&bound("counts", "a", &none));
        assert_eq!(room.lacks("a", &none), None);
        assert!(room.lacks("a", &spec(1, json!({}))).is_some());
    }
}
