//! FlashJobs and jobs over a daemon that is killed with SIGKILL at seeded points, while all that can befall a cluster befalls it ([`Fault`]).
//! Seeded: `FLASH_TEST_SEED` repeats a history, `FLASH_TEST_ROUNDS` makes it longer.
//!
//! FlashJobs are applied to the cluster, jobs are submitted by REST, some of both are cancelled. At the end every FlashJob has ended once and
//! as its job did, each became one job, and nothing of them is left to run. A [`Referee`] looks at every change of a pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use control_plane::{Fault, Injector, NodeSpec, Objects, Options, Referee, Seeded, Told, Watched};
use hyper::StatusCode;
use k8s_types::FlashJob;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::common::{Client, request};
use crate::rig::{Site, flash_job};

/// FlashJobs that are not over at a time, at most.
const OPEN: usize = 8;
const COMPLETE: &str = "Complete";
const FINALIZER: &str = "scheduling.flash-sched.io/run";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn is_complete(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|condition| condition["type"] == COMPLETE && condition["status"] == "True")
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// What is finished stays as it is: looked at in every change of a FlashJob.
#[derive(Default)]
struct Finished {
    statuses: BTreeMap<String, Value>,
    wrong: Vec<String>,
}

impl Finished {
    fn see(&mut self, told: Told<'_>) {
        match told {
            Told::List(objects) => objects.values().for_each(|object| self.one(object)),
            Told::Is(object) => self.one(object),
            Told::Gone(_) => {}
        }
    }

    fn one(&mut self, object: &Value) {
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        match self.statuses.get(uid) {
            Some(before) if *before != object["status"] => {
                self.wrong.push(format!("{} had finished with {before}, and then says {}", name_of(object), object["status"]));
            }
            None if is_complete(object) => drop(self.statuses.insert(uid.to_owned(), object["status"].clone())),
            _ => {}
        }
    }
}

/// A gang of the history: how wide, how long, how it ends.
fn gang(rng: &mut Seeded) -> (usize, String, String) {
    let wide = if rng.below(2) == 0 { 8 } else { usize::try_from(rng.below(7)).unwrap() + 1 };
    let code = if rng.below(6) == 0 { 1 + rng.below(100) } else { 0 };
    (wide, format!("{}ms", 50 + rng.below(900)), code.to_string())
}

/// Submits over any number of crashes; the id.
async fn submit(daemon: Client, spec: Value, key: String) -> String {
    loop {
        let sent = request("POST", "/api/v1/jobs", spec.to_string(), &[("idempotency-key", &key)]);
        match daemon.send(sent).await {
            Ok((StatusCode::CREATED, body)) => {
                let body: Value = serde_json::from_slice(&body).unwrap();
                return body["id"].as_str().unwrap().to_owned();
            }
            Ok((StatusCode::SERVICE_UNAVAILABLE, _)) | Err(_) => {}
            Ok((status, body)) => panic!("{status} {}", String::from_utf8_lossy(&body)),
        }
        // The daemon is away: a client's pause.
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// All jobs of the table, by id.
async fn table(daemon: &Client) -> BTreeMap<String, Value> {
    let (mut jobs, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let (status, page) = daemon.get(&format!("/api/v1/jobs?limit=100{cursor}")).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        for job in page["items"].as_array().unwrap() {
            jobs.insert(job["id"].as_str().unwrap().to_owned(), job.clone());
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return jobs,
        }
    }
}

/// What helps to see why something does not go on.
fn stuck(referee: &Referee, daemon: &Client) -> String {
    let log = daemon.log();
    let tail = log.get(log.floor_char_boundary(log.len().saturating_sub(6_000))..).unwrap_or_default();
    let pods = referee.pods.now();
    let held = pods.values().filter(|pod| !matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed")));
    let lines: Vec<String> =
        held.map(|pod| format!("{} {} {}", pod["metadata"], pod["spec"]["nodeName"], pod["status"])).collect();
    format!("{}\n{tail}", lines.join("\n"))
}

/// How often each job has finished, by the events.
async fn ends(daemon: &Client) -> BTreeMap<String, u32> {
    let (_, info) = daemon.get("/api/v1/info").await;
    let mut events = daemon.events("/api/v1/events?after=0").await;
    let mut ends = BTreeMap::new();
    loop {
        let event = tokio::time::timeout(control_plane::PATIENCE, events.next()).await.unwrap().unwrap();
        if event["state"] == "finished" {
            *ends.entry(event["job"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        if event["revision"].as_u64() >= info["revision"].as_u64() {
            return ends;
        }
    }
}

/// What the history has asked for.
#[derive(Default)]
struct Asked {
    /// Exit code of each FlashJob that was applied, by name.
    applied: BTreeMap<String, String>,
    /// Exit code of each job that was submitted, by id.
    sent: BTreeMap<String, String>,
    /// Names of FlashJobs and ids of jobs that may have been cancelled.
    cancelled: BTreeSet<String>,
}

/// Job and FlashJob tell the same end, and the right one.
fn check(asked: &Asked, jobs: &BTreeMap<String, Value>, flash_jobs: &Objects) -> BTreeMap<String, u32> {
    let (mut tally, mut known) = (BTreeMap::<String, u32>::new(), 0);
    let mut by_flash_job = BTreeMap::<&str, Vec<&Value>>::new();
    for job in jobs.values() {
        let name = job["spec"]["annotations"]["scheduling.flash-sched.io/flashjob-name"].as_str();
        by_flash_job.entry(name.unwrap_or_default()).or_default().push(job);
    }
    for (name, code) in &asked.applied {
        let became = by_flash_job.get(name.as_str()).map(Vec::as_slice).unwrap_or_default();
        let [job] = became else {
            // Deleted before anybody had seen it.
            assert!(became.is_empty() && asked.cancelled.contains(name), "{name} became {became:?}");
            continue;
        };
        known += 1;
        let flash_job = flash_jobs.get(&("default".to_owned(), name.clone()));
        agree(job, flash_job.map(|object| &**object), code, asked.cancelled.contains(name), &mut tally);
    }
    for (id, code) in &asked.sent {
        let tail = format!("-{}", id.rsplit('-').next().unwrap());
        let flash_job = flash_jobs.values().find(|object| name_of(object).ends_with(&tail));
        agree(&jobs[id], flash_job.map(|object| &**object), code, asked.cancelled.contains(id), &mut tally);
    }
    assert_eq!(jobs.len(), known + asked.sent.len(), "nothing else became a job");
    tally
}

fn agree(job: &Value, flash_job: Option<&Value>, code: &str, may_be_cancelled: bool, tally: &mut BTreeMap<String, u32>) {
    let result = job["outcome"]["result"].as_str().unwrap_or("none");
    let both = || format!("{job:#}\n{:#}", flash_job.unwrap_or(&Value::Null));
    match result {
        "succeeded" => assert_eq!(code, "0", "{}", both()),
        "failed" => assert_eq!(job["outcome"]["exitCode"].to_string(), code, "{}", both()),
        "cancelled" => assert!(may_be_cancelled, "{}", both()),
        other => panic!("{other}: {}", both()),
    }
    *tally.entry(result.to_owned()).or_default() += 1;
    // Who deletes one takes its status away with it; one that was never placed had none.
    let Some(flash_job) = flash_job else { return assert!(may_be_cancelled, "{}", both()) };
    let status = &flash_job["status"];
    let phase = if result == "succeeded" { "Succeeded" } else { "Failed" };
    assert_eq!(status["phase"], phase, "{}", both());
    if result == "succeeded" {
        assert_eq!((&status["succeeded"], &status["active"]), (&status["desired"], &json!(0)), "{}", both());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flash_jobs_end_once_whoever_is_killed() {
    let nodes: Vec<NodeSpec> = (0..8).map(|number| NodeSpec::with_gpus(format!("gpu-{number}"))).collect();
    let api_server_args = vec!["--watch-cache=false".to_owned()];
    let options = Options { nodes: nodes.clone(), api_server_args, ..Options::default() };
    let config = "node_grace = \"1s\"\n[node]\nfailures_in_a_row = 0\n";
    let Some((mut site, gate)) = Site::behind_gate("FlashJobs and a daemon under faults", options, config) else { return };
    let (seed, rounds) = (number("FLASH_TEST_SEED", 7), number("FLASH_TEST_ROUNDS", 10));
    let mut rng = Seeded::new(seed);
    let referee = Referee::begin(site.cluster.kubeconfig(), 8).await;
    let finished = Arc::<Mutex<Finished>>::default();
    let own = finished.clone();
    let flash_jobs = Watched::each::<FlashJob>(site.cluster.kubeconfig(), move |told| own.lock().unwrap().see(told)).await;
    site.daemon.restart();
    let mut asked = Asked::default();
    let mut faults = BTreeMap::<String, u32>::new();
    let Site { daemon, cluster, .. } = &mut site;
    let mut injector = Injector::new(cluster, gate, nodes);
    for round in 0..rounds {
        for at in 0..=rng.below(2) {
            let (name, (wide, duration, code)) = (format!("applied-{round}-{at}"), gang(&mut rng));
            let mut made = flash_job(&name, wide, 8, &duration, &code);
            made["spec"]["retry"] = json!({"maxAttempts": 100});
            cluster.kubectl_with(&["create", "--filename", "-"], &made.to_string()).unwrap();
            asked.applied.insert(name, code);
        }
        let (wide, duration, code) = gang(&mut rng);
        let spec = json!({"name": "sent", "image": "any", "retry": {"maxAttempts": 100}, "env": {"SIM_DURATION": duration, "SIM_EXIT": code},
            "tasks": [{"name": "w", "replicas": wide, "command": ["w"], "resources": {"cpu": "1", "gpu": "8"}}]});
        let sending = tokio::spawn(submit(daemon.client(), spec, format!("round-{round}")));
        block_in_place(|| rng.pause(400));

        // The daemon is killed before, while or after something befalls the cluster, or alone.
        let fault = Fault::ALL.get(usize::try_from(round).unwrap()).copied().or_else(|| rng.pick(&Fault::ALL).copied());
        let fault = fault.filter(|_| round < Fault::ALL.len() as u64 || rng.below(3) > 0);
        let when = rng.below(3);
        if when == 0 {
            daemon.kill();
        }
        let pods: Vec<String> = referee
            .pods
            .now()
            .values()
            .filter(|pod| pod["status"]["phase"] != "Succeeded")
            .map(|pod| name_of(pod).to_owned())
            .collect();
        if let Some(fault) = fault {
            let hit = block_in_place(|| injector.inflict(fault, &pods, &mut rng));
            hit.unwrap_or_else(|error| panic!("seed {seed}, round {round}, {fault}: {error:?}"));
            *faults.entry(fault.to_string()).or_default() += 1;
        }
        if when == 1 || (when == 2 && fault.is_none()) {
            daemon.kill();
        }
        if when < 2 || fault.is_none() {
            *faults.entry("daemon killed".to_owned()).or_default() += 1;
            block_in_place(|| rng.pause(300));
            daemon.restart();
        }
        let id = sending.await.unwrap();
        asked.sent.insert(id.clone(), code);
        match rng.below(12) {
            0 => {
                asked.cancelled.insert(id.clone());
                let _ = daemon.call("POST", &format!("/api/v1/jobs/{id}/cancel"), Some(Value::Null), &[]).await;
            }
            1 => {
                let name = format!("applied-{round}-0");
                cluster.kubectl(&["delete", "flashjob", &name, "--wait=false", "--ignore-not-found"]).unwrap();
                asked.cancelled.insert(name);
            }
            _ => {}
        }
        injector.tidy().unwrap();
        if round % 50 == 49 {
            eprintln!("round {round}: {} pods bound, faults {faults:?}", referee.bound());
        }
        assert_eq!(referee.wrong(), Vec::<String>::new(), "seed {seed}, round {round}, {fault:?}");
        let what = format!("seed {seed}, round {round}, {fault:?}: at most {OPEN} are open");
        let few = |all: &Objects| (all.values().filter(|object| !is_complete(object)).count() <= OPEN).then_some(());
        if let Err(late) = flash_jobs.try_find(what, few).await {
            panic!("{late}\n{}", stuck(&referee, daemon));
        }
    }
    let over = |all: &Objects| all.values().all(|object| is_complete(object)).then_some(());
    if let Err(late) = flash_jobs.try_find("all are over", over).await {
        panic!("{late}\n{}", stuck(&referee, daemon));
    }
    for id in asked.sent.keys() {
        daemon.finished(id).await;
    }
    let held = |pod: &Value| pod["metadata"]["finalizers"].as_array().is_some_and(|all| all.iter().any(|one| one == FINALIZER));
    referee.pods.find("all pods are let go of", |pods| (!pods.values().any(|pod| held(pod))).then_some(())).await;
    let jobs = table(daemon).await;
    let tally = check(&asked, &jobs, &flash_jobs.now());
    let ends = ends(daemon).await;
    assert!(jobs.keys().all(|id| ends.get(id) == Some(&1)), "each ends once: {ends:?}");
    assert_eq!(finished.lock().unwrap().wrong, Vec::<String>::new());
    assert_eq!(referee.wrong(), Vec::<String>::new());
    let attempts: u64 = jobs.values().filter_map(|job| job["attempt"].as_u64()).sum();
    let (bound, overlaps) = (referee.bound(), referee.overlaps());
    eprintln!(
        "seed {seed}: {rounds} rounds, {} gangs in {attempts} attempts ({tally:?}), {bound} pods bound, {overlaps} beside others, \
         faults {faults:?}, violations 0",
        jobs.len()
    );
    assert!(tally.contains_key("succeeded"));
}
