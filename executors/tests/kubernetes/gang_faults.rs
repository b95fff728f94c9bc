//! Gangs under faults: executors that are killed at any point, and all that can befall a cluster ([`Fault`]), with two gangs for one place now
//! and then. Seeded: `FLASH_TEST_SEED` repeats a history, `FLASH_TEST_ROUNDS` makes it longer.
//!
//! A [`Referee`] looks at every change of a pod. What became of each run is compared with what is left of its pods.

use std::collections::BTreeMap;
use std::time::Duration;

use control_plane::{Cluster, Fault, Injector, NodeSpec, Options, Part, Referee, Seeded};
use executors::{ExecutorError, Observed, Report, RunPhase, StartOrder};
use scheduler_core::event::RunResult;
use scheduler_core::ids::RunId;
use serde_json::Value;
use tokio::task::block_in_place;
use tokio::time::timeout;

use crate::gangs::{of_run, on, pods};
use crate::rig::{PATIENCE, Rig, Site, instance, order, stop_after};

/// After so long without any news the pods are looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

const NODES: [&str; 8] = ["gpu-0", "gpu-1", "gpu-2", "gpu-3", "gpu-4", "gpu-5", "gpu-6", "gpu-7"];
/// What is done in a round.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Deed {
    Nothing,
    ExecutorKilled,
    Stopped,
    Cluster(Fault),
}

impl Deed {
    /// Each kind once, in the order of a seed, and then any; executors are killed most often.
    fn of(round: u64, first: &[Self], rng: &mut Seeded) -> Self {
        let at = usize::try_from(round).unwrap();
        first.get(at).copied().unwrap_or_else(|| match rng.below(14) {
            0 => Self::Nothing,
            1..=4 => Self::ExecutorKilled,
            5 => Self::Stopped,
            _ => Self::Cluster(*rng.pick(&Fault::ALL).unwrap()),
        })
    }

    fn name(self) -> String {
        match self {
            Self::Nothing => "none".to_owned(),
            Self::ExecutorKilled => "executor killed".to_owned(),
            Self::Stopped => "stopped".to_owned(),
            Self::Cluster(fault) => fault.to_string(),
        }
    }
}

/// What a reconciler and a core do with runs until they are over: orders again what nobody knows, and ends what was on a node that is gone.
struct Keeper<'a> {
    site: &'a Site,
    instance: String,
    rig: Rig,
}

impl Keeper<'_> {
    async fn kill(&mut self) {
        self.rig = rebuilt(self.site, &self.instance).await;
    }

    /// How each run ended.
    async fn settle(&mut self, referee: &Referee, orders: &[StartOrder], rng: &mut Seeded) -> BTreeMap<RunId, RunPhase> {
        let mut over: BTreeMap<RunId, RunPhase> = BTreeMap::new();
        let mut changes = referee.pods.changes();
        let mut looks = 0;
        loop {
            match self.rig.executor.observe().await {
                Ok(found) => self.compare(found, orders, &mut over).await,
                // It is not the cluster that is away any more.
                Err(ExecutorError::Unreachable { .. }) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
                Err(other) => panic!("{other}"),
            }
            if over.len() == orders.len() {
                break;
            }
            if rng.below(30) == 0 {
                self.kill().await;
                continue;
            }
            let news = async {
                tokio::select! {
                    report = self.rig.news() => Some(report),
                    changed = changes.changed() => { changed.unwrap(); None }
                }
            };
            let Ok(news) = timeout(LOOK_AGAIN, news).await else {
                looks += 1;
                assert!(LOOK_AGAIN * looks <= PATIENCE, "not over in time: {}", self.stuck(orders, &over).await);
                // kwok may overlook a pod that is bound soon after it took a node over; a kubelet looks at its pods again and again.
                let mark = format!("test-cluster/look={looks}");
                let _gone_meanwhile = self.site.cluster.kubectl(&["annotate", "pods", "--all", "--overwrite", &mark]);
                continue;
            };
            match news {
                Some(Report::Ended { run, result, started_at, at }) if is_one_of(orders, run) => {
                    over.insert(run, RunPhase::Ended { result, started_at, at });
                }
                Some(Report::NotBegun { run, message, at }) if is_one_of(orders, run) => {
                    over.insert(run, RunPhase::NotBegun { message, at });
                }
                _ => {}
            }
        }
        let runs: Vec<RunId> = over.keys().copied().collect();
        while self.rig.executor.forget(runs.clone()).await.is_err() {}
        over
    }

    /// What is known of those that are not over.
    async fn stuck(&self, orders: &[StartOrder], over: &BTreeMap<RunId, RunPhase>) -> String {
        let mut lines = vec![format!("{:?}", self.rig.executor.observe().await)];
        for order in orders.iter().filter(|order| !over.contains_key(&order.run)) {
            let pods = pods(self.site, &of_run(order.run));
            lines.extend(pods.iter().map(|pod| format!("{} {} {}", pod["metadata"], pod["spec"]["nodeName"], pod["status"])));
        }
        lines.extend(self.site.cluster.kubectl(&["get", "nodes,pods", "--output", "wide"]));
        lines.join("\n")
    }

    async fn compare(&self, found: Vec<Observed>, orders: &[StartOrder], over: &mut BTreeMap<RunId, RunPhase>) {
        let found: BTreeMap<RunId, RunPhase> = found.into_iter().map(|Observed { run, phase }| (run, phase)).collect();
        let open: Vec<_> = orders.iter().filter(|order| !over.contains_key(&order.run)).cloned().collect();
        for order in open {
            match found.get(&order.run) {
                None => self.rig.executor.start(vec![order]).await.unwrap(),
                Some(phase @ (RunPhase::Ended { .. } | RunPhase::NotBegun { .. })) => {
                    over.insert(order.run, phase.clone());
                }
                Some(_) => {}
            }
        }
    }
}

fn is_one_of(orders: &[StartOrder], run: RunId) -> bool {
    orders.iter().any(|order| order.run == run)
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

fn names_of(cluster: &Cluster, runs: &[StartOrder]) -> Vec<String> {
    let text = cluster.kubectl(&["get", "pods", "--selector", &of_run(runs[0].run), "--output", "json"]).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    list["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

/// What is left of a run's pods is as its end says.
fn check(site: &Site, run: RunId, phase: &RunPhase, wide: usize, deed: Deed, says: &str) {
    let left = pods(site, &of_run(run));
    let phase_of = |pod: &Value| pod["status"]["phase"].as_str().unwrap_or_default().to_owned();
    match phase {
        RunPhase::Ended { result: RunResult::Succeeded, .. } => {
            // Those that were deleted when they had succeeded are gone, or go when the run is forgotten.
            let may_go = matches!(
                deed,
                Deed::Cluster(Fault::PodDeleted | Fault::PodRemoved | Fault::NodeDeleted | Fault::NodeSilent) | Deed::Stopped
            );
            assert!(left.len() == wide || (may_go && left.len() < wide), "{says}: {left:?}");
            assert!(left.iter().all(|pod| phase_of(pod) == "Succeeded"), "{says}: {left:?}");
        }
        RunPhase::NotBegun { .. } => assert_eq!(left, Vec::<Value>::new(), "{says}"),
        _ => assert!(left.iter().all(|pod| matches!(phase_of(pod).as_str(), "Succeeded" | "Failed")), "{says}: {left:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gangs_are_whole_or_nothing_whatever_fails() {
    let specs = NODES.map(NodeSpec::with_gpus).to_vec();
    let api_server_args = vec!["--watch-cache=false".to_owned()];
    let options = Options { nodes: specs.clone(), api_server_args, ..Options::default() };
    let Some((site, gate)) = Site::behind_gate("gangs under faults", options) else { return };
    let seed = number("FLASH_TEST_SEED", 7);
    let mut first: Vec<Deed> = Fault::ALL.map(Deed::Cluster).to_vec();
    first.extend([Deed::ExecutorKilled, Deed::Stopped, Deed::ExecutorKilled, Deed::Nothing]);
    let rounds = number("FLASH_TEST_ROUNDS", 12);
    let mut rng = Seeded::new(seed);
    let referee = Referee::begin(site.cluster.kubeconfig(), 8).await;
    let mut injector = Injector::new(&site.cluster, gate, specs);
    let instance = instance();
    let mut keeper = Keeper { site: &site, rig: rebuilt(&site, &instance).await, instance };
    let (mut ends, mut deeds) = (BTreeMap::<&str, u32>::new(), BTreeMap::<String, u32>::new());
    for round in 0..rounds {
        let wide = if rng.below(2) == 0 { 8 } else { usize::try_from(rng.below(7)).unwrap() + 1 };
        let duration = format!("{}ms", 50 + rng.below(900));
        let mut orders = vec![on(&NODES[..wide], 8, order(&duration, "0"))];
        // Another one for the same places: the core would not, but a foreign scheduler does.
        if rng.below(3) == 0 {
            orders.push(on(&NODES[..wide], 8, order(&duration, "0")));
        }
        keeper.rig.executor.start(orders.clone()).await.unwrap();
        block_in_place(|| rng.pause(350));
        let deed = Deed::of(round, &first, &mut rng);
        *deeds.entry(deed.name()).or_default() += 1;
        if round % 50 == 49 {
            eprintln!("round {round}: {ends:?}");
        }
        match deed {
            Deed::Nothing => {}
            Deed::ExecutorKilled => keeper.kill().await,
            Deed::Stopped => drop(keeper.rig.executor.stop(orders[0].run, stop_after(1)).await),
            Deed::Cluster(fault) => {
                let names = names_of(&site.cluster, &orders);
                let hit = block_in_place(|| injector.inflict(fault, &names, &mut rng));
                let hit = hit.unwrap_or_else(|error| panic!("seed {seed}, round {round}, {fault}: {error:?}"));
                // The core ends what was on a node that is gone.
                if fault == Fault::NodeDeleted && NODES[..wide].contains(&hit.as_str()) {
                    for order in &orders {
                        while keeper.rig.executor.stop(order.run, stop_after(1)).await.is_err() {}
                    }
                }
            }
        }
        for (run, phase) in keeper.settle(&referee, &orders, &mut rng).await {
            let says = format!("seed {seed}, round {round}, {}, wide {wide}: {run} {phase:?}", deed.name());
            check(&site, run, &phase, wide, deed, &says);
            *ends.entry(word(&phase)).or_default() += 1;
        }
        assert_eq!(referee.wrong(), Vec::<String>::new(), "seed {seed}, round {round}, {}", deed.name());
        injector.tidy().unwrap();
        if round % 10 == 9 {
            // Nobody here says of any that its job's end is on record.
            let names = site.cluster.kubectl(&["get", "flashjobs", "--output", "name"]).unwrap();
            let free = r#"--patch={"metadata": {"finalizers": null}}"#;
            let patch: Vec<&str> = ["patch", "--type=merge", free].into_iter().chain(names.lines()).collect();
            site.cluster.kubectl(&patch).unwrap();
            site.cluster.kubectl(&["delete", "flashjobs", "--all", "--wait=false"]).unwrap();
        }
    }
    let (bound, overlaps) = (referee.bound(), referee.overlaps());
    eprintln!(
        "seed {seed}: {rounds} rounds, runs {ends:?}, {bound} pods bound, {overlaps} beside others, faults {deeds:?}, violations 0"
    );
    assert!(ends.contains_key("succeeded") && bound > 0);
}

fn word(phase: &RunPhase) -> &'static str {
    match phase {
        RunPhase::Ended { result: RunResult::Succeeded, .. } => "succeeded",
        RunPhase::Ended { result: RunResult::Lost { .. }, .. } => "lost",
        RunPhase::Ended { .. } => "ended",
        _ => "not begun",
    }
}

#[tokio::test]
async fn while_the_api_server_is_away_a_gang_waits_and_goes_on() {
    let Some(site) = Site::with("a gang without an API server", NODES[..4].iter().copied().map(NodeSpec::with_gpus).collect())
    else {
        return;
    };
    if !site.cluster.is_ours() {
        return;
    }
    let mut rig = site.gang_daemon(&instance()).await;
    let long = rig.start(on(&NODES[..2], 4, order("2h", "0"))).await;
    rig.started(long).await;
    site.cluster.kill_part(Part::ApiServer).unwrap();
    rig.disturbed("watching the cluster").await;
    let late = rig.start(on(&NODES[2..4], 4, order("20ms", "0"))).await;
    assert!(matches!(rig.executor.observe().await.unwrap_err(), ExecutorError::Unreachable { .. }));
    site.cluster.start_part(Part::ApiServer).unwrap();
    site.cluster.wait_ready().unwrap();
    assert_eq!(rig.ended(late).await, RunResult::Succeeded, "nobody had to order it again");
    rig.until(long, |phase| matches!(phase, Some(RunPhase::Running { .. }))).await;
    assert_eq!(rig.ends(long), 0);
}
