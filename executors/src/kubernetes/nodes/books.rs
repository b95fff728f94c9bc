//! Nodes and what pods ask of them, kept from what the watch tells. No clock and no network.
//!
//! What must hold: a node is lost when it has been silent for the whole grace while it was watched, or was deleted; one that speaks again is
//! what it says. What is made anew is what has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler_core::ids::RunId;
use tokio::time::Instant;

use super::super::manifest::{instance_of, run_of};
use super::super::phase::pod_phase;
use super::super::quantity::Amounts;
use super::read::{Told, read};
use super::requests::{of, takes};
use super::{ClusterNode, Key, Standing, key};

/// Pods of others that are named.
const NAMED: usize = 3;

/// What is kept of a pod; a list of whole pods would be a thousand times as large.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Share {
    run: Option<RunId>,
    amounts: Amounts,
}

/// A pod that takes something of its node.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) key: Key,
    node: String,
    share: Share,
}

/// What is to be told apart.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Pods with another instance's label, or none, are not ours.
    pub(super) instance: String,
    /// How long a node may be silent.
    pub(super) grace: Duration,
    /// Keys of taints that keep none of our pods away.
    pub(super) tolerated: Vec<String>,
}

/// All that is known.
#[derive(Debug)]
pub(super) struct Books {
    rules: Rules,
    nodes: BTreeMap<String, Told>,
    /// Node of a host name, where that is not its name.
    hostnames: BTreeMap<String, String>,
    pods: BTreeMap<String, BTreeMap<Key, Share>>,
    /// Since when nodes are silent. Kept when everything is listed anew.
    silent: BTreeMap<String, Instant>,
    /// Nodes that were there and are not, while pods of ours are on them.
    deleted: BTreeSet<String>,
    view: BTreeMap<String, Arc<ClusterNode>>,
    dirty: BTreeSet<String>,
}

impl Books {
    pub(super) const fn new(rules: Rules) -> Self {
        Self {
            rules,
            nodes: BTreeMap::new(),
            hostnames: BTreeMap::new(),
            pods: BTreeMap::new(),
            silent: BTreeMap::new(),
            deleted: BTreeSet::new(),
            view: BTreeMap::new(),
            dirty: BTreeSet::new(),
        }
    }

    pub(super) fn put_node(&mut self, node: Node, now: Instant) {
        let Some(told) = read(node, &self.rules.tolerated) else { return };
        let name = told.node.name.clone();
        if told.traits.hostname() != name {
            self.hostnames.insert(told.traits.hostname().to_owned(), name.clone());
        }
        if told.silent.is_some() {
            self.silent.entry(name.clone()).or_insert(now);
        } else {
            self.silent.remove(&name);
        }
        self.deleted.remove(&name);
        self.dirty.insert(name.clone());
        self.nodes.insert(name, told);
    }

    pub(super) fn drop_node(&mut self, name: &str) {
        self.nodes.remove(name);
        self.hostnames.retain(|_, node| node != name);
        self.silent.remove(name);
        self.deleted.insert(name.to_owned());
        self.dirty.insert(name.to_owned());
    }

    /// All nodes there are; what is not among them was deleted.
    pub(super) fn set_nodes(&mut self, nodes: Vec<Node>, now: Instant) {
        let before: Vec<String> = self.nodes.keys().cloned().collect();
        self.nodes.clear();
        self.hostnames.clear();
        for node in nodes {
            self.put_node(node, now);
        }
        for name in before {
            if !self.nodes.contains_key(&name) {
                self.drop_node(&name);
            }
        }
    }

    /// What it takes of its node; `None` for one that takes nothing: it has no node, or is over.
    pub(super) fn bound(&self, pod: &Pod) -> Option<Bound> {
        let spec = pod.spec.as_ref()?;
        let node = spec.node_name.clone().filter(|node| !node.is_empty())?;
        if matches!(pod_phase(pod), "Succeeded" | "Failed") {
            return None;
        }
        let is_ours = instance_of(&pod.metadata) == Some(self.rules.instance.as_str());
        let run = is_ours.then(|| run_of(&pod.metadata)).flatten();
        Some(Bound { key: key(pod), node, share: Share { run, amounts: takes(spec) } })
    }

    pub(super) fn put_pod(&mut self, Bound { key, node, share }: Bound) {
        let pods = self.pods.entry(node.clone()).or_default();
        if pods.get(&key) != Some(&share) {
            pods.insert(key, share);
            self.dirty.insert(node);
        }
    }

    /// All there are.
    pub(super) fn set_pods(&mut self, pods: impl IntoIterator<Item = Bound>) {
        self.dirty.extend(self.pods.keys().cloned());
        self.pods.clear();
        for pod in pods {
            self.put_pod(pod);
        }
    }

    pub(super) fn drop_pod(&mut self, pod: &Pod) {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()) else { return };
        if self.pods.get_mut(node).and_then(|pods| pods.remove(&key(pod))).is_some() {
            self.dirty.insert(node.clone());
        }
    }

    /// The name of the node that is called so, itself or as a host.
    pub(super) fn name_of<'a>(&'a self, called: &'a str) -> &'a str {
        if self.nodes.contains_key(called) { called } else { self.hostnames.get(called).map_or(called, String::as_str) }
    }

    pub(super) fn told(&self, name: &str) -> Option<&Told> {
        self.nodes.get(name)
    }

    pub(super) fn is_on(&self, name: &str, pod: &Key) -> bool {
        self.pods.get(name).is_some_and(|pods| pods.contains_key(pod))
    }

    /// What each pod on a node asks for.
    pub(super) fn asked_of(&self, name: &str) -> impl Iterator<Item = &Amounts> {
        self.pods.get(name).into_iter().flat_map(BTreeMap::values).map(|share| &share.amounts)
    }

    /// When the next node will have been silent for too long.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let told = |name: &String| matches!(self.view.get(name).map(|node| &node.standing), Some(Standing::Lost(_)));
        self.silent.iter().filter(|(name, _)| !told(name)).map(|(_, since)| *since + self.rules.grace).min()
    }

    /// As it is now; `None` where that is as it was.
    pub(super) fn view(&mut self, now: Instant) -> Option<BTreeMap<String, Arc<ClusterNode>>> {
        let due = self.silent.iter().filter(|(_, since)| now >= **since + self.rules.grace);
        self.dirty.extend(due.map(|(name, _)| name.clone()));
        let mut changed = false;
        for name in std::mem::take(&mut self.dirty) {
            if self.pods.get(&name).is_some_and(BTreeMap::is_empty) {
                self.pods.remove(&name);
            }
            let made = self.make(&name, now);
            if made.is_none() {
                self.deleted.remove(&name);
            }
            if self.view.get(&name).map(AsRef::as_ref) == made.as_ref() {
                continue;
            }
            changed = true;
            match made {
                Some(node) => drop(self.view.insert(name, Arc::new(node))),
                None => drop(self.view.remove(&name)),
            }
        }
        changed.then(|| self.view.clone())
    }

    fn make(&self, name: &str, now: Instant) -> Option<ClusterNode> {
        let mut node = match self.nodes.get(name) {
            Some(told) => told.node.clone(),
            None if self.deleted.contains(name) => {
                let standing = Standing::Lost("it was deleted from the cluster".to_owned());
                ClusterNode { name: name.to_owned(), standing, ..ClusterNode::default() }
            }
            None => return None,
        };
        for ((namespace, pod), share) in self.pods.get(name).into_iter().flatten() {
            let asks = of(&share.amounts, u128::div_ceil);
            if let Some(run) = share.run {
                let sum = node.ours.entry(run).or_default();
                *sum = std::mem::take(sum).plus(&asks);
                continue;
            }
            for (resource, _) in asks.gpus.each() {
                let named = node.others_with_gpus.entry(resource.clone()).or_default();
                if named.len() < NAMED {
                    named.push(format!("{namespace}/{pod}"));
                }
            }
            node.others = node.others.plus(&asks);
        }
        if !self.nodes.contains_key(name) && node.ours.is_empty() {
            return None;
        }
        if let (Some(since), Some(Told { silent: Some(why), .. })) = (self.silent.get(name), self.nodes.get(name))
            && now >= *since + self.rules.grace
        {
            let seconds = self.rules.grace.as_secs();
            node.standing = Standing::Lost(format!("{why}, for {seconds} seconds and more"));
        }
        Some(node)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::super::{GpuCounts, GpuResource, NodeAmounts};
    use super::*;

    const GRACE: Duration = Duration::from_secs(30);

    fn books() -> Books {
        Books::new(Rules { instance: "here".to_owned(), grace: GRACE, tolerated: Vec::new() })
    }

    fn put(books: &mut Books, pod: &Pod) {
        let bound = books.bound(pod).unwrap();
        books.put_pod(bound);
    }

    fn node(name: &str, ready: &str) -> Node {
        let capacity = json!({"cpu": "8", "memory": "8Gi", "nvidia.com/gpu": "4"});
        let conditions = json!([{"type": "Ready", "status": ready, "message": "gone quiet"}]);
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"allocatable": capacity, "conditions": conditions}}))
            .unwrap()
    }

    fn pod(name: &str, node: &str, run: Option<u128>) -> Pod {
        let labels = run.map(|run| {
            let job = uuid::Uuid::from_u128(run).to_string();
            json!({"scheduling.flash-sched.io/instance": "here", "scheduling.flash-sched.io/job-id": job,
                "scheduling.flash-sched.io/attempt": "1"})
        });
        let resources = json!({"limits": {"nvidia.com/gpu": "1", "cpu": "1"}});
        serde_json::from_value(json!({"metadata": {"namespace": "x", "name": name, "labels": labels},
            "spec": {"nodeName": node, "containers": [{"name": "c", "resources": resources}]}, "status": {"phase": "Running"}}))
        .unwrap()
    }

    #[test]
    fn pods_are_counted_on_their_nodes_until_they_are_over() {
        let (mut books, now) = (books(), Instant::now());
        books.set_nodes(vec![node("a", "True"), node("b", "True")], now);
        for pod in [pod("theirs", "a", None), pod("mine", "a", Some(7)), pod("mine-too", "a", Some(7))] {
            put(&mut books, &pod);
        }
        let view = books.view(now).unwrap();
        let (a, b) = (&view["a"], &view["b"]);
        assert_eq!((a.others.gpus.clone(), a.others.cpu_millis), (GpuCounts::whole(1), 1_000));
        assert_eq!(a.others_with_gpus, [(GpuResource::Whole, vec!["x/theirs".to_owned()])].into());
        assert_eq!(a.ours.values().map(|asks| asks.gpus.clone()).collect::<Vec<_>>(), [GpuCounts::whole(2)]);
        assert_eq!(b.others, NodeAmounts::default());
        assert!(books.view(now).is_none(), "nothing has changed");
        let mut over = pod("theirs", "a", None);
        over.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
        books.drop_pod(&over);
        assert!(books.bound(&over).is_none());
        let after = books.view(now).unwrap();
        assert_eq!(after["a"].others, NodeAmounts::default());
        assert!(Arc::ptr_eq(&after["b"], &view["b"]), "what has not changed is not made anew");
    }

    #[test]
    fn a_silent_node_is_lost_after_its_grace_and_back_when_it_speaks() {
        let (mut books, now) = (books(), Instant::now());
        books.set_nodes(vec![node("a", "Unknown")], now);
        assert!(matches!(&books.view(now).unwrap()["a"].standing, Standing::Closed(why) if why.contains("gone quiet")));
        assert_eq!(books.deadline(), Some(now + GRACE));
        // Told again, and listed again: the time goes on.
        books.set_nodes(vec![node("a", "Unknown")], now + GRACE / 2);
        assert!(matches!(&books.view(now + GRACE).unwrap()["a"].standing, Standing::Lost(_)));
        assert_eq!(books.deadline(), None, "it is told");
        books.put_node(node("a", "True"), now + GRACE * 2);
        assert_eq!(books.view(now + GRACE * 2).unwrap()["a"].standing, Standing::Open);
    }

    #[test]
    fn a_deleted_node_is_lost_while_pods_of_ours_are_on_it() {
        let (mut books, now) = (books(), Instant::now());
        books.set_nodes(vec![node("a", "True"), node("b", "True")], now);
        put(&mut books, &pod("mine", "a", Some(7)));
        put(&mut books, &pod("theirs", "b", None));
        put(&mut books, &pod("early", "c", Some(8)));
        let view = books.view(now).unwrap();
        assert!(!view.contains_key("c"), "its node has not been told yet");
        books.set_nodes(vec![], now);
        let view = books.view(now).unwrap();
        assert!(matches!(&view["a"].standing, Standing::Lost(why) if why.contains("deleted")));
        assert_eq!(view.len(), 1, "nobody of ours was on b");
        books.drop_pod(&pod("mine", "a", Some(7)));
        assert!(books.view(now).unwrap().is_empty());
    }
}
