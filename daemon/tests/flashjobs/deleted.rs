//! Deleting either side cancels, also while no daemon looks; what has finished stays as it is; what was not made yet is made.

use serde_json::{Value, json};

use crate::common::PATIENCE;
use crate::rig::{Site, flash_job};

const DELETED: &str = "kubernetes: its FlashJob was deleted";
const KEPT: &str = "scheduling.flash-sched.io/job";

impl Site {
    /// A job that runs until it is stopped, or for a moment, and has one try.
    async fn sent(&self, name: &str, duration: &str) -> String {
        let spec = json!({"name": name, "image": "any", "command": ["x"], "resources": {"cpu": "1"}, "retry": {"maxAttempts": 1},
            "env": {"SIM_DURATION": duration}});
        self.daemon.submit(spec).await
    }

    async fn is_cancelled(&self, id: &str) {
        let job = self.daemon.finished(id).await;
        let outcome = &job["outcome"];
        assert_eq!(
            (&outcome["result"], &outcome["by"]),
            (&json!("cancelled"), &json!(DELETED)),
            "{job:#}\n{}",
            self.daemon.log()
        );
        assert_eq!(job["attempt"], 1, "it was not tried again: {job:#}");
    }

    fn delete(&self, name: &str, how: &[&str]) {
        self.cluster.kubectl(&[&["delete", "flashjob", name, "--wait=false"], how].concat()).unwrap();
    }

    fn pods(&self) -> Vec<Value> {
        let text = self.cluster.kubectl(&["get", "pods", "--output", "json"]).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["items"].as_array().unwrap().clone()
    }

    /// Whether the daemon may make FlashJobs, from now on.
    fn may_make(&self, may: bool) {
        let role = self.cluster.kubectl(&["get", "clusterrole", "flash-sched", "--output", "json"]).unwrap();
        let mut role: Value = serde_json::from_str(&role).unwrap();
        let rules = role["rules"].as_array_mut().unwrap();
        let rule = rules.iter_mut().find(|rule| rule["resources"] == json!(["flashjobs"])).unwrap();
        let verbs = rule["verbs"].as_array_mut().unwrap();
        verbs.retain(|verb| verb != "create");
        verbs.extend(may.then(|| json!("create")));
        self.cluster.kubectl_with(&["replace", "--filename", "-"], &role.to_string()).unwrap();
        let ask = ["auth", "can-i", "create", "flashjobs", "--as", "system:serviceaccount:flash-system:flashd"];
        let begun = std::time::Instant::now();
        while self.cluster.kubectl(&ask).is_ok() != may {
            assert!(begun.elapsed() < PATIENCE, "rights do not change");
        }
    }
}

/// What the FlashJob of a job is called.
fn made(name: &str, id: &str) -> String {
    format!("{name}-{}", id.rsplit('-').next().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_while_no_daemon_looked_is_cancelled() {
    let Some(mut site) = Site::start("FlashJobs that are deleted behind one's back").await else { return };
    let done = site.sent("done", "50ms").await;
    assert_eq!(site.daemon.finished(&done).await["outcome"]["result"], "succeeded");
    // Whoever made it has it as it was: nothing keeps it any more.
    let let_go = |job: &Value| job["status"]["phase"] == "Succeeded" && job["metadata"]["finalizers"].is_null();
    site.watch("FlashJob", &made("done", &done), let_go).await;

    let runs = site.sent("runs", "2h").await;
    let cascades = site.sent("cascades", "2h").await;
    site.apply(&json!({"apiVersion": "v1", "kind": "List", "items": [once("theirs"), once("theirs-too")]}));
    let theirs = [site.job_of("theirs").await, site.job_of("theirs-too").await];
    for id in [&runs, &cascades, &theirs[0], &theirs[1]] {
        site.daemon.until(id, "running").await;
    }
    // One that has been placed, and waits again.
    let waits = site.sent("waits", "2h").await;
    site.daemon.until(&waits, "running").await;
    for node in ["gpu-0", "gpu-1", "node-0"] {
        site.daemon.post(&format!("/api/v1/nodes/{node}/cordon"), json!({})).await;
    }
    site.daemon.post(&format!("/api/v1/jobs/{waits}/requeue"), Value::Null).await;
    site.daemon.until(&waits, "queued").await;

    site.daemon.kill();
    site.delete(&made("done", &done), &[]);
    site.delete(&made("runs", &runs), &[]);
    site.delete(&made("cascades", &cascades), &["--cascade=foreground"]);
    site.delete(&made("waits", &waits), &[]);
    site.delete("theirs", &[]);
    site.delete("theirs-too", &["--cascade=foreground"]);
    // Their pods are over when the next daemon looks: lost, for all that these say.
    for name in ["theirs-0-1", "theirs-1-1", "theirs-too-0-1", &format!("{}-0-1", made("cascades", &cascades))] {
        site.watch("Pod", name, |pod| pod["metadata"]["deletionTimestamp"].is_string() && pod["status"]["phase"] == "Failed")
            .await;
    }
    site.daemon.restart();
    for id in [&runs, &cascades, &waits, &theirs[0], &theirs[1]] {
        site.is_cancelled(id).await;
    }
    assert_eq!(site.daemon.job(&done).await["outcome"]["result"], "succeeded", "what has finished stays so");
    // The end of each is on record: nothing of them stays.
    for (name, id) in [("done", &done), ("runs", &runs), ("cascades", &cascades), ("waits", &waits)] {
        site.watch("FlashJob", &made(name, id), Value::is_null).await;
    }
    for pod in site.pods() {
        site.watch("Pod", pod["metadata"]["name"].as_str().unwrap(), Value::is_null).await;
    }
}

fn once(name: &str) -> Value {
    let mut job = flash_job(name, 2, 0, "2h", "0");
    job["spec"]["retry"] = json!({"maxAttempts": 1});
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_one_that_was_made_for_a_job_cancels_it_and_ends_its_pods_first() {
    let Some(site) = Site::start("FlashJobs that are deleted").await else { return };
    let runs = site.sent("runs", "2h").await;
    site.daemon.until(&runs, "running").await;
    let name = made("runs", &runs);
    assert_eq!(site.get("FlashJob", &name).await["metadata"]["finalizers"], json!([KEPT]));
    // As most people do it: kubectl waits until it is gone.
    site.cluster.kubectl(&["delete", "flashjob", &name]).unwrap();
    site.is_cancelled(&runs).await;

    // A copy under another name is nobody's but theirs.
    let runs = site.sent("runs", "2h").await;
    site.daemon.until(&runs, "running").await;
    let mut copy = site.get("FlashJob", &made("runs", &runs)).await;
    copy["metadata"] =
        json!({"name": "copy", "namespace": "default", "labels": copy["metadata"]["labels"], "finalizers": [KEPT]});
    copy.as_object_mut().unwrap().remove("status");
    site.apply(&copy);
    let copied = site.job_of("copy").await;
    site.daemon.until(&copied, "running").await;
    site.cluster.kubectl(&["delete", "flashjob", "copy"]).unwrap();
    site.is_cancelled(&copied).await;
    assert_eq!(site.daemon.job(&runs).await["state"], "running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_made_yet_is_made_and_not_taken_for_deleted() {
    let Some(mut site) = Site::start("a FlashJob that is not made yet").await else { return };
    site.may_make(false);
    let id = site.sent("late", "50ms").await;
    site.daemon.until(&id, "starting").await;
    let said = |log: &str| {
        log.contains("cannot create resource") && log.contains("`kubectl apply --server-side -k k8s` gives the rights")
    };
    site.daemon.logged(said).await;
    site.daemon.kill();
    let there = site.cluster.kubectl(&["get", "flashjobs", "--output", "name"]).unwrap();
    assert_eq!(there, "", "it was ordered, and could not be made");
    site.may_make(true);
    site.daemon.restart();
    let job = site.daemon.finished(&id).await;
    assert_eq!((&job["outcome"]["result"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job:#}\n{}", site.daemon.log());
    site.phase(&made("late", &id), "Succeeded").await;
}
