//! How much room nodes have: what they can give, less what every pod that is bound to them asks for, less what is about to be bound. Pure.
//!
//! What must hold: whatever is set aside stays so until the watch shows the pod on its node, or until it is given up. So two gangs are never
//! promised the same place, however late the watch is.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec};

use super::super::nodes::NodeAmounts;
use super::super::nodes::requests::all_requests;
use super::super::quantity::{Amounts, add, amounts, shown};
use super::fits::Traits;
use super::verdict::is_terminal;

/// Namespace and name of a pod.
pub(super) type Key = (String, String);

/// A pod that wants to go on a node.
#[derive(Clone, Debug)]
pub(super) struct Wish<'a> {
    pub(super) key: Key,
    /// Name or host name of the node.
    pub(super) node: &'a str,
    pub(super) pod: &'a PodSpec,
}

/// What of a pod takes room on a node; a list of whole pods would be a thousand times as large.
#[derive(Debug)]
pub(super) struct Bound {
    key: Key,
    node: String,
    amounts: Amounts,
}

impl Bound {
    /// `None` for one that takes none: it has no node, or is over.
    pub(super) fn of(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        let node = spec.node_name.clone().filter(|node| !node.is_empty() && !is_terminal(pod))?;
        Some(Self { key: key(pod), node, amounts: requests(spec) })
    }
}

/// Nodes, and what is on them.
#[derive(Debug, Default)]
pub(super) struct Room {
    nodes: BTreeMap<String, (Traits, Amounts)>,
    /// Node of a host name, where that is not its name.
    hostnames: BTreeMap<String, String>,
    /// As the watch tells it: pods by node.
    bound: BTreeMap<String, BTreeMap<Key, Amounts>>,
    /// Set aside, likewise.
    aside: BTreeMap<String, BTreeMap<Key, Amounts>>,
    /// Of nodes and of pods, a list is complete.
    pub(super) listed: (bool, bool),
    /// Lists of pods that were begun so far.
    pub(super) lists_begun: u64,
    /// The number of the last of them that is complete.
    last_list: u64,
}

/// What a pod asks for, and its own place among the pods of a node.
fn requests(pod: &PodSpec) -> Amounts {
    let mut all = all_requests(pod);
    all.insert("pods".to_owned(), 1_000);
    all
}

/// What a pod asks for, as the core counts it. Its other resources are looked at when it is bound.
pub fn asks(pod: &PodSpec) -> NodeAmounts {
    super::super::nodes::requests::requests(pod)
}

pub(super) fn key(pod: &Pod) -> Key {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

impl Room {
    pub(super) fn put_node(&mut self, node: &Node) {
        let traits = Traits::of(node);
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
        let allocatable = allocatable.map(amounts).unwrap_or_default();
        if traits.hostname() != traits.name {
            self.hostnames.insert(traits.hostname().to_owned(), traits.name.clone());
        }
        self.nodes.insert(traits.name.clone(), (traits, allocatable));
    }

    pub(super) fn drop_node(&mut self, name: &str) {
        self.nodes.remove(name);
        self.hostnames.retain(|_, node| node != name);
    }

    pub(super) fn set_nodes(&mut self, nodes: &[Node]) {
        self.nodes.clear();
        self.hostnames.clear();
        for node in nodes {
            self.put_node(node);
        }
        self.listed.0 = true;
    }

    /// A pod as the watch tells it.
    pub(super) fn put_pod(&mut self, pod: &Pod) {
        match Bound::of(pod) {
            Some(bound) => self.put_bound(bound),
            None => self.drop_pod(pod),
        }
    }

    fn put_bound(&mut self, bound: Bound) {
        take_out(&mut self.aside, &bound.key);
        self.bound.entry(bound.node).or_default().insert(bound.key, bound.amounts);
    }

    pub(super) fn drop_pod(&mut self, pod: &Pod) {
        let key = key(pod);
        match pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) {
            Some(node) => {
                if let Some(pods) = self.bound.get_mut(node) {
                    pods.remove(&key);
                }
            }
            None => take_out(&mut self.bound, &key),
        }
    }

    pub(super) fn set_pods(&mut self, pods: Vec<Bound>) {
        self.bound.clear();
        for pod in pods {
            self.put_bound(pod);
        }
        self.listed.1 = true;
        self.last_list = self.lists_begun;
    }

    /// The name of the node that is called so, itself or as a host.
    pub(super) fn node<'a>(&'a self, called: &'a str) -> &'a str {
        if self.nodes.contains_key(called) { called } else { self.hostnames.get(called).map_or(called, String::as_str) }
    }

    /// Sets room aside for all of them, or for none and says why.
    pub(super) fn set_aside(&mut self, wishes: &[Wish<'_>]) -> Result<(), String> {
        let keys: Vec<&Key> = wishes.iter().map(|wish| &wish.key).collect();
        let before: Vec<(String, Key, Amounts)> = self.given_up(&keys);
        let outcome = wishes.iter().try_for_each(|wish| {
            let node = self.node(wish.node).to_owned();
            let Some((traits, _)) = self.nodes.get(&node) else { return Err(format!("there is no node {node}")) };
            let is_there = self.bound.get(&node).is_some_and(|pods| pods.contains_key(&wish.key));
            if is_there {
                return Ok(());
            }
            if let Some(why) = traits.refuses(wish.pod) {
                return Err(why);
            }
            self.aside.entry(node.clone()).or_default().insert(wish.key.clone(), requests(wish.pod));
            self.over(&node).map_or(Ok(()), Err)
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
    pub(super) fn give_up<'a>(&mut self, keys: impl IntoIterator<Item = &'a Key>) {
        let keys: Vec<&Key> = keys.into_iter().collect();
        self.given_up(&keys);
    }

    /// Whether the watch has shown all of these on their nodes, or all that is there in a list that was begun after so many. They need not be
    /// there any more: what is short has ended by then.
    pub(super) fn has_shown(&self, keys: &[Key], lists: u64) -> bool {
        self.last_list > lists || keys.iter().all(|key| !self.aside.values().any(|pods| pods.contains_key(key)))
    }

    /// Why what was bound to a node cannot stay.
    pub(super) fn lacks(&self, node: &str) -> Option<String> {
        if !self.nodes.contains_key(node) {
            return Some(format!("node {node} was deleted"));
        }
        self.over(node).map(|over| format!("somebody else took the room: {over}"))
    }

    /// What a node has promised more of than it has.
    pub(super) fn over(&self, node: &str) -> Option<String> {
        let (_, allocatable) = self.nodes.get(node)?;
        let mut used = Amounts::new();
        let there = [&self.bound, &self.aside].into_iter().filter_map(|pods| pods.get(node));
        there.flat_map(BTreeMap::values).for_each(|amounts| add(&mut used, amounts));
        used.iter().find_map(|(resource, used)| {
            let have = allocatable.get(resource).copied().unwrap_or(0);
            (*used > have)
                .then(|| format!("node {node} has {} {resource}, and its pods would ask for {}", shown(have), shown(*used)))
        })
    }
}

fn take_out(from: &mut BTreeMap<String, BTreeMap<Key, Amounts>>, key: &Key) {
    for pods in from.values_mut() {
        pods.remove(key);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

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
        let mut room = Room::default();
        room.set_nodes(&[node("a", "a"), node("b", "host-b")]);
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
        assert!(room.over("a").is_none());
        room.set_aside(&[Wish { key: at("one"), node: "a", pod: &eight }]).unwrap();
        room.put_pod(&bound("foreign", "a", &eight));
        assert!(room.over("a").is_some());
        room.drop_pod(&bound("one", "a", &eight));
        assert!(room.over("a").is_none());
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
        room.drop_pod(&bound("one", "a", &one));
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
        assert!(room.lacks("a").unwrap().contains("somebody else took the room"));
        room.drop_node("a");
        assert_eq!(room.lacks("a").unwrap(), "node a was deleted");
    }
}
