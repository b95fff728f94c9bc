//! Two daemons, one table in PostgreSQL and one Lease: who leads has both, and who has lost them writes to neither.

use control_plane::{NodeSpec, Watched};
use hyper::StatusCode;
use k8s_openapi::api::batch::v1::Job;
use postgres_server::{Schema, server_for_test};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{Daemon, PATIENCE};
use crate::leader::{lease, made};
use crate::rig::{Site, daemon, endless, job};

/// The term of the table.
fn term(table: &Schema) -> u64 {
    table.ask("SELECT term::text FROM meta")[0].parse().unwrap()
}

/// Everything that is told of jobs and of things, seen by somebody else. What was used is summed up from time to time by whoever leads.
fn told(table: &Schema) -> Vec<String> {
    let mut rows = Vec::new();
    for (name, order, except) in [
        ("jobs", "seq", "true"),
        ("specs", "seq", "true"),
        ("events", "revision", "true"),
        ("notices", "revision", "true"),
        ("idempotency_keys", "id", "true"),
        ("tokens", "id", "true"),
        ("objects", "kind, name", "kind <> 4"),
    ] {
        rows.extend(table.ask(&format!("SELECT '{name} ' || t::text FROM {name} t WHERE {except} ORDER BY {order}")));
    }
    rows
}

/// Who leads in the Lease and in the table at once: its count, and the table's term.
fn terms(site: &Site, table: &Schema) -> (u64, u64) {
    let lease = lease(site);
    let count = lease["leaseTransitions"].as_u64().unwrap_or_else(|| panic!("{lease}"));
    let term = term(table);
    assert!(term >= count, "the table is in term {term}, the Lease in {count}");
    (count, term)
}

/// Waits until every Job runs, and there are so many: whoever leads has then written what it had to.
async fn settled(site: &Site, count: usize) {
    let jobs = Watched::all::<Job>(site.cluster.kubeconfig()).await;
    let runs = |job: &Value| job["status"]["ready"] == 1;
    jobs.find("all Jobs run", |all| (all.len() == count && all.values().all(|job| runs(job))).then_some(())).await;
}

async fn stands_by(daemon: &Daemon, leader: &Daemon) {
    daemon.logged(|log| log.contains("serves what can be read")).await;
    let (status, why) = daemon.post("/api/v1/jobs", job(json!({}))).await;
    let leads = format!("(pid {}) leads", leader.pid().as_raw_nonzero());
    assert!(status == StatusCode::SERVICE_UNAVAILABLE && why.to_string().contains(&leads), "{status} {why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_frozen_writes_to_neither_the_table_nor_the_cluster() {
    let what = "two daemons on PostgreSQL and a Lease";
    let Some(server) = server_for_test(what) else { return };
    let Some(mut site) = Site::prepare(what, vec![NodeSpec::plain("node-0")], "") else { return };
    let table = server.schema();
    // The Lease has been held before, by whoever had another table.
    let held = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": "flashd", "namespace": "flash-system"}, "spec": {"leaseTransitions": 6}});
    site.cluster.kubectl_with(&["create", "--filename", "-"], &held.to_string()).unwrap();
    let url = ("FLASHD_STORE_URL".to_owned(), table.url());
    site.daemon.envs.push(url.clone());
    site.daemon.restart();
    site.until_ready(StatusCode::OK, "").await;
    let first = lease(&site);
    assert_eq!(terms(&site, &table), (7, 7), "the table takes the number of the Lease");
    let long = site.daemon.submit(endless(0)).await;
    site.daemon.until(&long, "running").await;

    // The other one reads, and asks for nothing in the cluster.
    let folder = tempfile::tempdir().unwrap();
    let mut second = daemon(&site.cluster, folder.path(), "second", "");
    second.envs.push(url);
    second.restart();
    stands_by(&second, &site.daemon).await;
    assert_eq!(second.job(&long).await["state"], "running");
    assert_eq!(lease(&site)["holderIdentity"], first["holderIdentity"]);

    // The leader is given work that it has not begun, and is frozen beyond both of its leases.
    let mut leader = std::mem::replace(&mut site.daemon, second);
    leader.signal(Signal::STOP);
    let client = leader.client();
    let path = format!("/api/v1/jobs/{long}/cancel");
    let pending = tokio::spawn(async move {
        let cancel = client.call("POST", &path, Some(Value::Null), &[]);
        let submit = client.call("POST", "/api/v1/jobs", Some(job(json!({"name": "late"}))), &[]);
        futures::future::join(cancel, submit).await
    });
    site.until_ready(StatusCode::OK, "").await;
    let next = site.daemon.submit(endless(0)).await;
    site.daemon.until(&next, "running").await;
    settled(&site, 2).await;
    let (count, began) = terms(&site, &table);
    assert_eq!((count, began), (8, 8), "one count");

    // It wakes up, and writes nothing: neither of what it was asked, nor of what it knew.
    let (cluster, rows) = (made(&site), told(&table));
    let holder = lease(&site)["holderIdentity"].clone();
    leader.signal(Signal::CONT);
    let ended = tokio::task::spawn_blocking(move || {
        let status = leader.wait();
        (status, leader)
    });
    let (status, mut leader) = tokio::time::timeout(PATIENCE, ended).await.unwrap().unwrap();
    assert!(!status.success(), "{}", leader.log());
    let (cancelled, submitted) = pending.await.unwrap();
    for answer in [cancelled, submitted] {
        assert!(!matches!(&answer, Ok((status, _)) if status.is_success()), "{answer:?}");
    }
    assert_eq!(made(&site), cluster);
    assert_eq!(told(&table), rows);
    assert_eq!((terms(&site, &table), &lease(&site)["holderIdentity"]), ((count, began), &holder));
    let kept = site.daemon.job(&long).await;
    assert_eq!((&kept["state"], &kept["attempt"]), (&json!("running"), &json!(1)), "{kept}");

    // It comes back as the standby, and leads again as soon as the other one lets go.
    leader.restart();
    stands_by(&leader, &site.daemon).await;
    assert_eq!(leader.job(&next).await["state"], "running");
    assert!(site.daemon.terminate().success(), "{}", site.daemon.log());
    site.daemon = leader;
    site.until_ready(StatusCode::OK, "").await;
    assert_eq!(terms(&site, &table), (9, 9));
    for id in [&long, &next] {
        let job = site.daemon.job(id).await;
        assert_eq!((&job["state"], &job["attempt"]), (&json!("running"), &json!(1)), "{job}");
    }
    let revisions = site.daemon.all_revisions().await;
    assert!(revisions.iter().copied().eq(1..=revisions.len() as u64), "revisions have a gap");
}

/// Who has lost the table, and nothing else, lets the Lease go without being asked for anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_has_lost_its_table_lets_the_lease_go() {
    let what = "a daemon whose table was taken";
    let Some(server) = server_for_test(what) else { return };
    let Some(mut site) = Site::prepare(what, vec![NodeSpec::plain("node-0")], "") else { return };
    let table = server.schema();
    let url = ("FLASHD_STORE_URL".to_owned(), table.url());
    site.daemon.envs.push(url.clone());
    site.daemon.restart();
    site.until_ready(StatusCode::OK, "").await;
    // As if it had not been heard of for as long as its lease in the database lasts; its renewals in the cluster go on.
    table.execute("UPDATE meta SET term = term + 1, commits = commits + 1, holder = NULL");
    let mut leader = site.daemon;
    let folder = tempfile::tempdir().unwrap();
    site.daemon = daemon(&site.cluster, folder.path(), "second", "");
    site.daemon.envs.push(url);
    site.daemon.restart();
    let status = tokio::task::spawn_blocking(move || (leader.wait(), leader));
    let (status, leader) = tokio::time::timeout(PATIENCE, status).await.unwrap().unwrap();
    assert!(!status.success() && leader.log().contains("has ended"), "{}", leader.log());
    site.until_ready(StatusCode::OK, "").await;
    let (count, term) = terms(&site, &table);
    assert_eq!(count, term);
    let id = site.daemon.submit(job(json!({"env": {"SIM_DURATION": "20ms"}}))).await;
    assert_eq!(site.daemon.finished(&id).await["outcome"]["result"], "succeeded");
}
