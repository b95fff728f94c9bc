//! Gangs under faults: executors that are killed at any point, API servers that are killed, pods that are deleted by hand, two gangs for one
//! place. Seeded: `FLASH_TEST_SEED` repeats a history, `FLASH_TEST_ROUNDS` makes it longer.
//!
//! An independent watcher looks at every change of a pod: none is bound twice, and no node is ever promised more than it has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use control_plane::{NodeSpec, Part};
use executors::kubernetes::connect;
use executors::{ExecutorError, Observed, RunPhase, StartOrder};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use scheduler_core::event::RunResult;
use scheduler_core::ids::RunId;
use serde_json::Value;

use crate::gangs::{of_run, on, pods};
use crate::rig::{PATIENCE, Rig, Site, instance, order, stop_after};

const NODES: [&str; 4] = ["gpu-0", "gpu-1", "gpu-2", "gpu-3"];
const GPUS: i64 = 8;

/// Numbers of a history: splitmix64.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// What the watcher saw that must not be.
#[derive(Default)]
struct Seen {
    /// Of every pod ever, by uid: its node.
    nodes: BTreeMap<String, String>,
    /// GPUs of pods that are bound and not over, by uid.
    holds: BTreeMap<String, (String, i64)>,
    wrong: Vec<String>,
    bound: usize,
}

impl Seen {
    fn pod(&mut self, pod: &Pod, gone: bool) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let spec = pod.spec.as_ref().unwrap();
        let Some(node) = spec.node_name.clone() else { return };
        match self.nodes.insert(uid.clone(), node.clone()) {
            Some(before) if before != node => self.wrong.push(format!("{name} was bound to {before}, then to {node}")),
            None => self.bound += 1,
            Some(_) => {}
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
        if gone || matches!(phase, "Succeeded" | "Failed") {
            self.holds.remove(&uid);
            return;
        }
        let gpus = |container: &k8s_openapi::api::core::v1::Container| {
            let limits = container.resources.as_ref()?.limits.as_ref()?;
            limits.get("nvidia.com/gpu")?.0.parse::<i64>().ok()
        };
        self.holds.insert(uid, (node.clone(), spec.containers.iter().filter_map(gpus).sum()));
        let used: i64 = self.holds.values().filter(|(at, _)| *at == node).map(|(_, gpus)| gpus).sum();
        if used > GPUS {
            self.wrong.push(format!("{node} has {GPUS} GPUs, and with {name} its pods hold {used}"));
        }
    }
}

async fn watch(kubeconfig: &Path, seen: Arc<Mutex<Seen>>) {
    let client = connect(Some(kubeconfig)).await.unwrap();
    let mut events = std::pin::pin!(watcher(Api::<Pod>::all(client), watcher::Config::default()));
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        let mut seen = seen.lock().unwrap();
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.insert(pod.metadata.uid.clone().unwrap_or_default());
                seen.pod(&pod, false);
            }
            Ok(Event::InitDone) => seen.holds.retain(|uid, _| listed.contains(uid)),
            Ok(Event::Apply(pod)) => seen.pod(&pod, false),
            Ok(Event::Delete(pod)) => seen.pod(&pod, true),
            Err(_) => {
                drop(seen);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// What a reconciler does with a run until it is over: looks, orders it again where nobody knows it, and has its end forgotten.
async fn settle(site: &Site, rig: &mut Rig, instance: &str, orders: &[StartOrder], rng: &mut Seeded) -> Vec<(RunId, RunPhase)> {
    let begun = Instant::now();
    let mut over = BTreeMap::new();
    while over.len() < orders.len() {
        assert!(begun.elapsed() < PATIENCE, "not over in time: {over:?}");
        match rig.executor.observe().await {
            Ok(found) => {
                let found: BTreeMap<RunId, RunPhase> = found.into_iter().map(|Observed { run, phase }| (run, phase)).collect();
                for order in orders.iter().filter(|order| !over.contains_key(&order.run)).cloned().collect::<Vec<_>>() {
                    match found.get(&order.run) {
                        None => rig.executor.start(vec![order]).await.unwrap(),
                        Some(phase @ (RunPhase::Ended { .. } | RunPhase::NotBegun { .. })) => {
                            over.insert(order.run, phase.clone());
                        }
                        Some(_) => {}
                    }
                }
            }
            Err(ExecutorError::Unreachable { .. }) => {}
            Err(other) => panic!("{other}"),
        }
        if rng.next(40) == 0 {
            *rig = rebuilt(site, instance).await;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let runs: Vec<RunId> = over.keys().copied().collect();
    while rig.executor.forget(runs.clone()).await.is_err() {}
    over.into_iter().collect()
}

async fn rebuilt(site: &Site, instance: &str) -> Rig {
    loop {
        if let Some(rig) = site.try_gang_daemon(instance).await {
            return rig;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gangs_are_whole_or_nothing_whoever_is_killed() {
    let nodes = NODES.map(NodeSpec::with_gpus).to_vec();
    let Some(site) = Site::with("gangs under faults", nodes) else { return };
    if !site.cluster.is_ours() {
        return;
    }
    let seed = number("FLASH_TEST_SEED", 7);
    let rounds = number("FLASH_TEST_ROUNDS", 12);
    let mut rng = Seeded(seed);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let watching = tokio::spawn({
        let (kubeconfig, seen) = (site.cluster.kubeconfig().to_owned(), seen.clone());
        async move { watch(&kubeconfig, seen).await }
    });
    let instance = instance();
    let mut rig = rebuilt(&site, &instance).await;
    let (mut succeeded, mut faults) = (0, BTreeMap::<&str, u32>::new());
    for round in 0..rounds {
        let wide = usize::try_from(rng.next(4)).unwrap() + 1;
        let duration = format!("{}ms", 50 + rng.next(600));
        let mut orders = vec![on(&NODES[..wide], 8, order(&duration, "0"))];
        // Another one for the same places: the core would not, but a foreign scheduler does.
        if rng.next(3) == 0 {
            orders.push(on(&NODES[..wide], 8, order(&duration, "0")));
        }
        rig.executor.start(orders.clone()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(rng.next(250))).await;
        let fault = match rng.next(10) {
            0..=4 => {
                rig = rebuilt(&site, &instance).await;
                "executor killed"
            }
            5 | 6 => {
                let run = orders[0].run;
                if let Some(pod) = pods(&site, &of_run(run)).first() {
                    let name = pod["metadata"]["name"].as_str().unwrap();
                    site.cluster.kubectl(&["delete", "pod", name, "--wait=false", "--ignore-not-found"]).unwrap();
                }
                "pod deleted"
            }
            7 => {
                let _ = rig.executor.stop(orders[0].run, stop_after(1)).await;
                "stopped"
            }
            8 => {
                site.cluster.kill_part(Part::ApiServer).unwrap();
                tokio::time::sleep(Duration::from_millis(rng.next(500))).await;
                site.cluster.start_part(Part::ApiServer).unwrap();
                site.cluster.wait_ready().unwrap();
                "API server killed"
            }
            _ => "none",
        };
        *faults.entry(fault).or_default() += 1;
        let over = settle(&site, &mut rig, &instance, &orders, &mut rng).await;
        for (run, phase) in over {
            let left = pods(&site, &of_run(run));
            let phase_of = |pod: &Value| pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
            let says = format!("seed {seed}, round {round}, {fault}: {run} {phase:?}");
            match phase {
                RunPhase::Ended { result: RunResult::Succeeded, .. } => {
                    succeeded += 1;
                    // One that was deleted when it had succeeded goes when it is forgotten.
                    let deleted = usize::from(fault == "pod deleted");
                    assert!(left.len() == wide || left.len() + deleted == wide, "{says}, wide {wide}: {left:?}");
                    assert!(left.iter().all(|pod| phase_of(pod) == "Succeeded"), "{says}");
                }
                RunPhase::NotBegun { .. } => assert_eq!(left, Vec::<Value>::new(), "{says}"),
                _ => assert!(left.iter().all(|pod| matches!(phase_of(pod).as_str(), "Succeeded" | "Failed")), "{says}: {left:?}"),
            }
        }
        assert_eq!(seen.lock().unwrap().wrong, Vec::<String>::new(), "seed {seed}, round {round}, {fault}");
    }
    watching.abort();
    let seen = seen.lock().unwrap();
    eprintln!("seed {seed}: {rounds} rounds, {succeeded} gangs succeeded, {} pods bound, faults {faults:?}", seen.bound);
    assert!(succeeded > 0 && seen.bound > 0);
}

#[tokio::test]
async fn while_the_api_server_is_away_a_gang_waits_and_goes_on() {
    let Some(site) = Site::with("a gang without an API server", NODES.map(NodeSpec::with_gpus).to_vec()) else { return };
    if !site.cluster.is_ours() {
        return;
    }
    let mut rig = site.gang_daemon(&instance()).await;
    let long = rig.start(on(&NODES[..2], 4, order("2h", "0"))).await;
    rig.started(long).await;
    site.cluster.kill_part(Part::ApiServer).unwrap();
    rig.disturbed("watching the cluster").await;
    let late = rig.start(on(&NODES[2..], 4, order("20ms", "0"))).await;
    assert!(matches!(rig.executor.observe().await.unwrap_err(), ExecutorError::Unreachable { .. }));
    site.cluster.start_part(Part::ApiServer).unwrap();
    site.cluster.wait_ready().unwrap();
    assert_eq!(rig.ended(late).await, RunResult::Succeeded, "nobody had to order it again");
    rig.until(long, |phase| matches!(phase, Some(RunPhase::Running { .. }))).await;
    assert_eq!(rig.ends(long), 0);
}
