//! Two daemons and one Lease.

use control_plane::{NodeSpec, Watched};
use hyper::StatusCode;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_types::FlashJob;
use postgres_server::{Server, server_for_test};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::Daemon;
use crate::rig::{FLASH_JOBS, Site, daemon, endless, flash_job, job};

/// Name and version of all that executors make and write to, seen by somebody else.
pub(crate) fn made(site: &Site) -> Vec<(String, String)> {
    let kinds = ["get", "jobs,pods,flashjobs", "--output", "json"];
    let list: Value = serde_json::from_str(&site.cluster.kubectl(&kinds).unwrap()).unwrap();
    let text = |item: &Value, key: &str| item["metadata"][key].as_str().unwrap_or_default().to_owned();
    let items = list["items"].as_array().unwrap();
    items.iter().map(|item| (text(item, "name"), text(item, "resourceVersion"))).collect()
}

pub(crate) fn lease(site: &Site) -> Value {
    let text = site.cluster.kubectl(&["get", "lease", "flashd", "--namespace", "flash-system", "--output", "json"]).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["spec"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_frozen_beyond_its_lease_writes_nothing() {
    frozen("two daemons", "").await;
}

/// No pods, no bindings, no statuses: neither of what it had, nor of what came meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_flash_jobs_that_was_frozen_beyond_its_lease_writes_nothing() {
    frozen("two daemons with FlashJobs", FLASH_JOBS).await;
}

/// What the second one had to write is written: all that runs is its own, and said to run.
async fn settled(site: &Site, config: &str) {
    let pods = Watched::all::<Pod>(site.cluster.kubeconfig()).await;
    let own = if config == FLASH_JOBS { 3 } else { 1 };
    let runs = |pod: &Value| pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
    pods.find("its pods alone run", |pods| {
        let mut made = pods.iter().filter(|((namespace, _), _)| namespace == "default").map(|(_, pod)| pod);
        (made.clone().count() == own && made.all(|pod| runs(pod))).then_some(())
    })
    .await;
    let jobs = Watched::all::<Job>(site.cluster.kubeconfig()).await;
    let own = usize::from(config != FLASH_JOBS);
    let runs = |job: &Value| job["status"]["ready"] == 1;
    jobs.find("its Job alone is there", |all| (all.len() == own && all.values().all(|job| runs(job))).then_some(())).await;
    if config == FLASH_JOBS {
        let flash_jobs = Watched::all::<FlashJob>(site.cluster.kubeconfig()).await;
        let running = |all: &control_plane::Objects| all.values().filter(|one| one["status"]["phase"] == "Running").count();
        flash_jobs.find("both are said to run", |all| (running(all) >= 2).then_some(())).await;
    }
}

async fn frozen(what: &str, config: &str) {
    let Some(mut site) = Site::prepare(what, vec![NodeSpec::plain("node-0")], config) else { return };
    site.daemon.restart();
    site.until_ready(StatusCode::OK, "").await;
    let first = lease(&site);
    assert_eq!(first["leaseTransitions"], 1, "{first}");
    let long = site.daemon.submit(endless(0)).await;
    site.daemon.until(&long, "running").await;

    // Another one, with a table of its own, waits and says for whom.
    let folder = tempfile::tempdir().unwrap();
    let second = daemon(&site.cluster, folder.path(), "second", config);
    let leader = std::mem::replace(&mut site.daemon, second);
    site.daemon.restart();
    let holder = first["holderIdentity"].as_str().unwrap();
    site.until_ready(StatusCode::SERVICE_UNAVAILABLE, &format!("{holder} holds the Lease flash-system/flashd")).await;
    let waits = site.daemon.submit(job(json!({"env": {"SIM_DURATION": "2h"}}))).await;
    let (_, why) = site.daemon.get(&format!("/api/v1/jobs/{waits}/why")).await;
    assert!(why["message"].as_str().unwrap().contains("this is a standby"), "{why}");

    // The leader is given work that it has not begun, and is frozen: jobs of its table wait to be started and to be stopped.
    leader.signal(Signal::STOP);
    let client = leader.client();
    let pending = tokio::spawn(async move {
        let path = format!("/api/v1/jobs/{long}/cancel");
        let cancel = client.call("POST", &path, Some(Value::Null), &[]);
        let submit = client.call("POST", "/api/v1/jobs", Some(job(json!({"name": "late"}))), &[]);
        futures::future::join(cancel, submit).await
    });
    if config == FLASH_JOBS {
        site.cluster.kubectl_with(&["create", "--filename", "-"], &flash_job("meanwhile", 2, 0, "2h", "0").to_string()).unwrap();
    }
    site.until_ready(StatusCode::OK, "").await;
    site.daemon.until(&waits, "running").await;
    settled(&site, config).await;
    let taken = lease(&site);
    assert_eq!(taken["leaseTransitions"], 2, "{taken}");
    assert_ne!(taken["holderIdentity"], first["holderIdentity"]);

    // It wakes up, finds that it was replaced, and ends. Whatever it was asked, the cluster is as it was.
    let before = made(&site);
    leader.signal(Signal::CONT);
    let mut leader = leader;
    let status = tokio::task::spawn_blocking(move || {
        let status = leader.wait();
        (status, leader.log())
    });
    let (status, log) = status.await.unwrap();
    assert!(!status.success() && log.contains("gives no orders any more"), "{log}");
    drop(pending.await);
    assert_eq!(made(&site), before);
    assert_eq!(lease(&site)["holderIdentity"], taken["holderIdentity"]);

    // Let go at the end, the next one has it at once.
    assert!(site.daemon.terminate().success());
    assert_eq!(lease(&site)["holderIdentity"], Value::Null);
    site.daemon.restart();
    site.until_ready(StatusCode::OK, "").await;
    assert_eq!((&lease(&site)["leaseTransitions"], &site.daemon.job(&waits).await["state"]), (&json!(3), &json!("running")));
}

/// Waits until somebody holds the Lease in this term.
async fn until_term(site: &Site, term: u64) {
    let leases = Watched::all::<Lease>(site.cluster.kubeconfig()).await;
    let key = ("flash-system".to_owned(), "flashd".to_owned());
    let held = |lease: &Value| lease["spec"]["leaseTransitions"] == term && lease["spec"]["holderIdentity"].is_string();
    let found = leases.try_find("the term", |all| all.get(&key).is_some_and(|lease| held(lease)).then_some(())).await;
    found.unwrap_or_else(|late| panic!("never term {term}: {late}\n{}", site.daemon.log()));
}

/// The term that the next opening of this daemon's table begins with.
fn next_term(daemon: &Daemon) -> String {
    let program = daemon.command().get_program().to_owned();
    let mut command = std::process::Command::new(program);
    command.arg("migrate").arg("--data").arg(&daemon.dir).envs(daemon.envs.iter().map(|(key, value)| (key, value)));
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_never_goes_backwards() {
    never_backwards("terms of the Lease", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_never_goes_backwards_with_the_table_in_postgresql() {
    let Some(server) = server_for_test("terms of the Lease, with PostgreSQL") else { return };
    never_backwards("terms of the Lease, with PostgreSQL", Some(&server)).await;
}

async fn never_backwards(what: &str, server: Option<&Server>) {
    let Some(mut site) = Site::prepare(what, vec![NodeSpec::plain("node-0")], "") else { return };
    // A table of its own for each daemon.
    let table = || server.map(|server| ("FLASHD_STORE_URL".to_owned(), server.schema().url()));
    site.daemon.envs.extend(table());
    site.daemon.restart();
    site.until_ready(StatusCode::OK, "").await;
    until_term(&site, 1).await;
    // Whoever deletes the Lease or writes into it, while it is held.
    let flags = ["flashd", "--namespace", "flash-system"];
    site.cluster.kubectl(&[&["delete", "lease"], &flags[..]].concat()).unwrap();
    until_term(&site, 2).await;
    let less = ["--type=merge", "--patch", r#"{"spec": {"leaseTransitions": 0}}"#];
    site.cluster.kubectl(&[&["patch", "lease"], &flags[..], &less[..]].concat()).unwrap();
    until_term(&site, 3).await;
    let job = site.daemon.submit(job(json!({"env": {"SIM_DURATION": "20ms"}}))).await;
    assert_eq!(site.daemon.finished(&job).await["outcome"]["result"], "succeeded");

    // The table knows it: also in a cluster without the Lease its terms go on.
    assert!(site.daemon.terminate().success());
    site.cluster.kubectl(&[&["delete", "lease"], &flags[..]].concat()).unwrap();
    site.daemon.restart();
    until_term(&site, 4).await;

    // A table that is younger than the Lease takes its number.
    assert!(site.daemon.terminate().success());
    let folder = tempfile::tempdir().unwrap();
    site.daemon = daemon(&site.cluster, folder.path(), "young", "");
    site.daemon.envs.extend(table());
    site.daemon.restart();
    site.until_ready(StatusCode::OK, "").await;
    until_term(&site, 5).await;
    assert!(site.daemon.terminate().success());
    let said = next_term(&site.daemon);
    assert!(said.contains("term 6,"), "{said}");
}
