//! Whether pods are bound as they may be: somebody who schedules nothing looks at every change, over a connection of its own.
//!
//! What must hold of pods that ask for our scheduler:
//! - None is bound twice, or goes from one node to another.
//! - On no node do they hold more GPUs than it has, at any time; likewise MIG instances of each profile.
//! - Of a gang none is bound before all are there.
//!
//! Where somebody else's pods were on the node first, and both were bound at once, they may overlap until one gives way: such bindings are
//! counted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::watched::{Told, Watched};

/// The scheduler that they ask for.
const SCHEDULER: &str = "flash-scheduler";
/// Labels whose values together name their gang.
const GANG: [&str; 3] =
    ["scheduling.flash-sched.io/instance", "scheduling.flash-sched.io/job-id", "scheduling.flash-sched.io/attempt"];
/// Annotation: how many pods the gang has.
const SIZE: &str = "scheduling.flash-sched.io/gang-size";

/// How many of each resource.
type Devices = BTreeMap<String, u64>;

#[derive(Debug, Default)]
struct Books {
    /// What each node has.
    capacity: Devices,
    /// Node of every pod that ever had one, by uid.
    nodes: BTreeMap<String, String>,
    /// Pods that are bound and not over, by uid: node, devices, whether it is one of those.
    holds: BTreeMap<String, (String, Devices, bool)>,
    /// Pods ever seen of each gang.
    gangs: BTreeMap<Vec<String>, BTreeSet<String>>,
    wrong: Vec<String>,
    bound: usize,
    overlaps: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Referee {
    books: Arc<Mutex<Books>>,
    /// All pods.
    pub pods: Watched,
}

impl Referee {
    /// Looks from now on, at nodes that have so many GPUs each.
    pub async fn begin(kubeconfig: &Path, gpus: u64) -> Self {
        Self::over(kubeconfig, &[("nvidia.com/gpu", gpus)]).await
    }

    /// Looks from now on, at nodes that have so many of each of these, and of other devices none.
    pub async fn over(kubeconfig: &Path, capacity: &[(&str, u64)]) -> Self {
        let capacity = capacity.iter().map(|(resource, count)| ((*resource).to_owned(), *count)).collect();
        let books = Arc::new(Mutex::new(Books { capacity, ..Books::default() }));
        let own = books.clone();
        let pods = Watched::each::<Pod>(kubeconfig, move |told| lock(&own).see(told)).await;
        Self { books, pods }
    }

    /// What was not as it has to be.
    pub fn wrong(&self) -> Vec<String> {
        lock(&self.books).wrong.clone()
    }

    /// How many of those pods were bound so far.
    pub fn bound(&self) -> usize {
        lock(&self.books).bound
    }

    /// How many of them were bound to a node that somebody else had filled at the same time.
    pub fn overlaps(&self) -> usize {
        lock(&self.books).overlaps
    }
}

/// A panic elsewhere leaves the books as they are: whole.
fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn gang(pod: &Value) -> Vec<String> {
    GANG.iter().map(|label| text(&pod["metadata"]["labels"][label])).collect()
}

impl Books {
    fn see(&mut self, told: Told<'_>) {
        match told {
            Told::Is(pod) => self.pod(pod, false),
            Told::Gone(pod) => self.pod(pod, true),
            Told::List(pods) => {
                // It does not say what came first: those that are over or gone have left before others came.
                let there: BTreeSet<String> = pods.values().map(|pod| text(&pod["metadata"]["uid"])).collect();
                self.holds.retain(|uid, _| there.contains(uid));
                for pod in pods.values() {
                    self.enter(pod);
                }
                let (over, live): (Vec<_>, Vec<_>) = pods.values().partition(|pod| is_over(pod));
                for pod in over.into_iter().chain(live) {
                    self.pod(pod, false);
                }
            }
        }
    }

    /// The gang of a pod that is one of those.
    fn enter(&mut self, pod: &Value) {
        if pod["spec"]["schedulerName"] == SCHEDULER {
            self.gangs.entry(gang(pod)).or_default().insert(text(&pod["metadata"]["uid"]));
        }
    }

    fn pod(&mut self, pod: &Value, gone: bool) {
        self.enter(pod);
        let (uid, name, node) = (text(&pod["metadata"]["uid"]), text(&pod["metadata"]["name"]), text(&pod["spec"]["nodeName"]));
        let is_one = pod["spec"]["schedulerName"] == SCHEDULER;
        if node.is_empty() {
            return;
        }
        let before = self.nodes.insert(uid.clone(), node.clone());
        match &before {
            Some(before) if *before != node => self.wrong.push(format!("{name} was bound to {before}, then to {node}")),
            None if is_one => {
                self.bound += 1;
                let there = self.gangs.get(&gang(pod)).map_or(0, BTreeSet::len);
                let size = text(&pod["metadata"]["annotations"][SIZE]).parse().unwrap_or(1);
                if there < size {
                    self.wrong.push(format!("{name} was bound when {there} of its {size} were there"));
                }
            }
            None | Some(_) => {}
        }
        if gone || is_over(pod) {
            self.holds.remove(&uid);
            return;
        }
        let devices = devices(pod);
        self.holds.insert(uid, (node.clone(), devices.clone(), is_one));
        if before.is_some() || !is_one {
            return;
        }
        let used = |resource: &str, own: bool| -> u64 {
            let here = self.holds.values().filter(|(at, _, is_one)| *at == node && (*is_one || !own));
            here.filter_map(|(_, devices, _)| devices.get(resource)).sum()
        };
        let (mut over, mut overlaps) = (Vec::new(), false);
        for resource in devices.keys() {
            let capacity = self.capacity.get(resource).copied().unwrap_or(0);
            if used(resource, true) > capacity {
                let held = used(resource, true);
                over.push(format!("{node} has {capacity} {resource}, and with {name} pods of {SCHEDULER} hold {held}"));
            }
            overlaps |= used(resource, false) > capacity;
        }
        self.overlaps += usize::from(overlaps && over.is_empty());
        self.wrong.extend(over);
    }
}

/// What a pod asks of device plugins.
fn devices(pod: &Value) -> Devices {
    let mut all = Devices::new();
    let limits = pod["spec"]["containers"].as_array().into_iter().flatten();
    for (resource, count) in limits.filter_map(|container| container["resources"]["limits"].as_object()).flatten() {
        let count = count.as_str().and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        if resource.starts_with("nvidia.com/") && count > 0 {
            *all.entry(resource.clone()).or_default() += count;
        }
    }
    all
}
