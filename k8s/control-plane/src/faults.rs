//! Faults of a cluster, as seeded histories bring them about: whatever can be done to it without knowing who schedules there.
//!
//! What must hold: when a fault is over the cluster is whole again (all parts run, all nodes are there and ready, nobody is cut off), though
//! what it did to pods stays done.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::error::ClusterError;
use crate::gate::Gate;
use crate::node::NodeSpec;
use crate::part::Part;

/// Numbers of a history: splitmix64.
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The same seed gives the same numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one, below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// One of them; `None` if there is none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(of.len()).ok().filter(|count| *count > 0)?;
        of.get(usize::try_from(self.below(count)).ok()?)
    }

    /// Waits less than so many milliseconds.
    pub fn pause(&mut self, below_millis: u64) {
        std::thread::sleep(Duration::from_millis(self.below(below_millis)));
    }
}

/// What is done to a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// The API server is killed with SIGKILL, and started again.
    ApiServerKilled,
    /// Who comes through the gate is cut off until the versions that it knows are forgotten: its watches end with `410 Expired`.
    WatchExpired,
    /// A node is deleted, and comes back as a new one.
    NodeDeleted,
    /// All kubelets fall silent; a node is not ready any more, and all pods there are evicted.
    NodeSilent,
    /// A pod is deleted by hand.
    PodDeleted,
    /// A pod is deleted by force, and its finalizers are taken away.
    PodRemoved,
    /// Others write labels, annotations and statuses of pods, of their owners and of nodes.
    OthersWrite,
    /// Pods of others come, bound by the cluster's own scheduler.
    PodsOfOthers,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ApiServerKilled,
        Self::WatchExpired,
        Self::NodeDeleted,
        Self::NodeSilent,
        Self::PodDeleted,
        Self::PodRemoved,
        Self::OthersWrite,
        Self::PodsOfOthers,
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ApiServerKilled => "API server killed",
            Self::WatchExpired => "watch expired (410)",
            Self::NodeDeleted => "node deleted",
            Self::NodeSilent => "node silent, pods evicted",
            Self::PodDeleted => "pod deleted",
            Self::PodRemoved => "pod removed by force",
            Self::OthersWrite => "others write",
            Self::PodsOfOthers => "pods of others",
        })
    }
}

/// Whose pods they are.
const OTHERS: &str = "test-cluster/pod-of-others";
/// A mark that changes.
const MARK: &str = "test-cluster/mark";

/// Brings faults about.
#[derive(Debug)]
pub struct Injector<'a> {
    cluster: &'a Cluster,
    gate: Gate,
    nodes: Vec<NodeSpec>,
    /// Grows with each fault: names are used once.
    number: u64,
}

impl<'a> Injector<'a> {
    /// For a cluster with these nodes; whoever is to be cut off comes through the gate.
    pub fn new(cluster: &'a Cluster, gate: Gate, nodes: Vec<NodeSpec>) -> Self {
        Self { cluster, gate, nodes, number: 0 }
    }

    /// Brings one about, which takes up to some seconds. It hits one of these pods of `default`, or whatever else it needs; what it hit.
    ///
    /// # Errors
    /// The cluster did not do what it was told.
    pub fn inflict(&mut self, fault: Fault, pods: &[String], rng: &mut Seeded) -> Result<String, ClusterError> {
        self.number += 1;
        let kubectl = |args: &[&str]| self.cluster.kubectl(args);
        match fault {
            Fault::ApiServerKilled => {
                self.cluster.kill_part(Part::ApiServer)?;
                rng.pause(500);
                self.cluster.start_part(Part::ApiServer)?;
                self.cluster.wait_ready()?;
            }
            Fault::WatchExpired => return self.expire(rng),
            Fault::NodeDeleted => {
                let Some(node) = rng.pick(&self.nodes).cloned() else { return Ok(String::new()) };
                kubectl(&["delete", "node", &node.name])?;
                rng.pause(600);
                self.cluster.add_nodes(std::slice::from_ref(&node))?;
                self.cluster.wait_node(&node.name)?;
                // kwok may overlook a pod that is bound while it takes a node over. A kubelet looks at its pods again and again; here a
                // change makes it look.
                let there = format!("--field-selector=spec.nodeName={}", node.name);
                let looked = kubectl(&["annotate", "pods", &there, "--overwrite", &format!("{MARK}={}", self.number)]);
                // One that was listed may be gone when it is written; the others are written all the same.
                looked.or_else(|error| if error.to_string().contains("(NotFound)") { Ok(String::new()) } else { Err(error) })?;
                return Ok(node.name);
            }
            Fault::NodeSilent => {
                let Some(node) = rng.pick(&self.nodes).map(|node| node.name.clone()) else { return Ok(String::new()) };
                self.cluster.freeze_part(Part::Kwok, true)?;
                let silence = r#"{"status":{"conditions":[{"type":"Ready","status":"False","reason":"KubeletStopped","message":"unplugged"}]}}"#;
                kubectl(&["patch", "node", &node, "--subresource=status", "--type=strategic", "--patch", silence])?;
                kubectl(&["taint", "node", &node, "test-cluster/silent=yes:NoExecute"])?;
                rng.pause(600);
                self.cluster.freeze_part(Part::Kwok, false)?;
                kubectl(&["taint", "node", &node, "test-cluster/silent-"])?;
                self.cluster.wait_node(&node)?;
                return Ok(node);
            }
            Fault::PodDeleted | Fault::PodRemoved => {
                let Some(pod) = rng.pick(pods) else { return Ok(String::new()) };
                let by_hand = ["delete", "pod", pod, "--wait=false", "--ignore-not-found"];
                if fault == Fault::PodDeleted {
                    kubectl(&by_hand)?;
                } else {
                    kubectl(&[by_hand.as_slice(), &["--force", "--grace-period=0"]].concat())?;
                    // It may be gone by now.
                    let _ = kubectl(&["patch", "pod", pod, "--type=merge", "--patch", r#"{"metadata":{"finalizers":null}}"#]);
                }
                return Ok(pod.clone());
            }
            Fault::OthersWrite => {
                let mark = format!("{MARK}={}", self.number);
                let condition = json!({"status": {"conditions": [{"type": "test-cluster/Seen", "status": "True",
                    "reason": format!("At{}", self.number), "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
                for _ in 0..3 {
                    // What is gone meanwhile is not written any more.
                    let _ = kubectl(&["annotate", "nodes,pods,flashjobs", "--all", "--overwrite", &mark]);
                    let _ = kubectl(&["label", "pods,flashjobs", "--all", "--overwrite", &mark]);
                    if let Some(pod) = rng.pick(pods) {
                        let patch = ["patch", "pod", pod, "--subresource=status", "--type=strategic", "--patch"];
                        let _ = kubectl(&[patch.as_slice(), &[&condition.to_string()]].concat());
                    }
                    rng.pause(100);
                }
            }
            Fault::PodsOfOthers => {
                let items: Vec<Value> = (0..=rng.below(3)).map(|at| self.pod_of_others(at, rng)).collect();
                let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
                self.cluster.kubectl_with(&["create", "--filename", "-"], &list.to_string())?;
            }
        }
        Ok(String::new())
    }

    /// Pods of others that are left, and what else lies about, goes.
    ///
    /// # Errors
    /// The cluster did not do what it was told.
    pub fn tidy(&self) -> Result<(), ClusterError> {
        self.cluster.kubectl(&["delete", "pods", "--selector", OTHERS, "--wait=false", "--ignore-not-found"]).map(drop)
    }

    fn pod_of_others(&self, at: u64, rng: &mut Seeded) -> Value {
        let duration = format!("{}ms", 100 + rng.below(800));
        let gpus = (1 + rng.below(8)).to_string();
        let container = json!({"name": "c", "image": "any", "env": [{"name": "SIM_DURATION", "value": duration}],
            "resources": {"limits": {"nvidia.com/gpu": gpus}}});
        let labels = json!({OTHERS: self.number.to_string()});
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": format!("others-{}-{at}", self.number), "namespace": "default", "labels": labels},
            "spec": {"restartPolicy": "Never", "containers": [container]}})
    }

    fn expire(&self, rng: &mut Seeded) -> Result<String, ClusterError> {
        self.gate.set_closed(true);
        let outcome = self.forget_versions(rng);
        self.gate.set_closed(false);
        outcome.map(|()| String::new())
    }

    /// So that whoever was cut off cannot go on from where it was; the server's own answer is the proof.
    fn forget_versions(&self, rng: &mut Seeded) -> Result<(), ClusterError> {
        let list = self.cluster.kubectl(&["get", "--raw", "/api/v1/pods?limit=1"])?;
        let list: Value = serde_json::from_str(&list).unwrap_or_default();
        let old = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        let mark = format!("{MARK}={}", self.number);
        self.cluster.kubectl(&["annotate", "nodes", "--all", "--overwrite", &mark])?;
        rng.pause(300);
        self.cluster.compact()?;
        let resume = format!("/api/v1/pods?watch=1&timeoutSeconds=1&resourceVersion={old}");
        let answer = self.cluster.kubectl(&["get", "--raw", &resume]);
        let said = answer.unwrap_or_else(|error| error.to_string());
        if said.contains("too old") || said.contains("compacted") {
            return Ok(());
        }
        Err(ClusterError::Kubectl { args: resume, said: format!("not 410: {said}") })
    }
}
