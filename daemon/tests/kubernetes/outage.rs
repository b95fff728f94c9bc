//! An API server that is killed, and watches that cannot be resumed.

use std::time::Duration;

use control_plane::{Cluster, NodeSpec, Options, Part};
use hyper::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::PATIENCE;
use crate::rig::{Site, endless, job};

impl Site {
    /// Asks whether it is ready until the answer is so.
    pub(crate) async fn until_ready(&self, status: StatusCode, words: &str) {
        let look = async {
            loop {
                let (found, problem) = self.daemon.get("/readyz").await;
                if found == status && problem.to_string().contains(words) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let outcome = tokio::time::timeout(PATIENCE, look).await;
        assert!(outcome.is_ok(), "never {status} ({words})\n{}", self.daemon.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_api_server_is_away_nothing_is_started_and_nothing_is_lost() {
    let Some(mut site) = Site::prepare("an API server that is killed", vec![NodeSpec::plain("node-0")], "") else { return };
    if !site.cluster.is_ours() {
        return;
    }
    site.daemon.restart();
    let long = site.daemon.submit(endless(0)).await;
    let short =
        site.daemon.submit(job(json!({"env": {"SIM_DURATION": "2s", "SIM_EXIT": "3"}, "retry": {"maxAttempts": 1}}))).await;
    site.daemon.until(&long, "running").await;
    site.daemon.until(&short, "running").await;

    site.cluster.kill_part(Part::ApiServer).unwrap();
    site.until_ready(StatusCode::SERVICE_UNAVAILABLE, "the cluster does not answer").await;
    let late = site.daemon.submit(job(json!({"env": {"SIM_DURATION": "20ms"}}))).await;
    let (_, why) = site.daemon.get(&format!("/api/v1/jobs/{late}/why")).await;
    assert!(why["message"].as_str().unwrap().starts_with("Nothing is started now, because the cluster does not answer"), "{why}");
    assert_eq!(why["state"], "queued", "{why}");
    site.until_node("node-0", "cordoned", "the cluster does not answer").await;
    assert_eq!(site.daemon.job(&long).await["state"], "running");

    site.cluster.start_part(Part::ApiServer).unwrap();
    assert_eq!(site.daemon.finished(&late).await["outcome"]["result"], "succeeded");
    let short = site.daemon.finished(&short).await;
    assert_eq!((&short["outcome"]["exitCode"], &short["attempt"]), (&json!(3), &json!(1)), "{short}");
    let long = site.daemon.job(&long).await;
    assert_eq!((&long["state"], &long["attempt"]), (&json!("running"), &json!(1)), "{long}");
    site.until_ready(StatusCode::OK, "").await;
}

/// The version of what there is now.
fn version(cluster: &Cluster) -> String {
    let list: Value = serde_json::from_str(&cluster.kubectl(&["get", "--raw", "/api/v1/nodes?limit=1"]).unwrap()).unwrap();
    list["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_deleted_while_nobody_could_watch_is_settled() {
    let api_server_args = ["--watch-cache=false", "--etcd-compaction-interval=2s"].map(str::to_owned).to_vec();
    let options = Options { nodes: vec![NodeSpec::plain("node-0")], api_server_args, ..Options::default() };
    let Some(mut site) = Site::prepare_with("watches that are too old", options, "") else { return };
    if !site.cluster.is_ours() {
        return;
    }
    site.daemon.restart();
    let kept = site.daemon.submit(endless(0)).await;
    let deleted = site.daemon.submit(endless(0)).await;
    site.daemon.until(&kept, "running").await;
    site.daemon.until(&deleted, "running").await;

    // The daemon sees nothing of this, and what it saw last is gone from the server's memory when it looks again.
    let old = version(&site.cluster);
    site.daemon.signal(Signal::STOP);
    site.cluster.kubectl(&["delete", "job", &format!("flash-{deleted}-1"), "--cascade=foreground"]).unwrap();
    site.cluster.kill_part(Part::ApiServer).unwrap();
    site.cluster.start_part(Part::ApiServer).unwrap();
    site.cluster.wait_ready().unwrap();
    let resume = format!("/api/v1/nodes?watch=1&timeoutSeconds=1&resourceVersion={old}");
    let begun = std::time::Instant::now();
    loop {
        let answer = site.cluster.kubectl(&["get", "--raw", &resume]);
        let text = answer.unwrap_or_else(|error| error.to_string());
        if text.contains("too old") || text.contains("compacted") {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "never too old: {text}");
        // Versions are compacted when there are newer ones.
        site.cluster.kubectl(&["annotate", "node", "node-0", "--overwrite", &format!("test/at={:?}", begun.elapsed())]).unwrap();
    }
    site.daemon.signal(Signal::CONT);

    // One that is lost is tried again.
    let again = site.daemon.changed(&deleted, |job| job["attempt"] == 2 && job["state"] == "running").await;
    assert_eq!(again["attempt"], 2, "{again}");
    let kept = site.daemon.job(&kept).await;
    assert_eq!((&kept["state"], &kept["attempt"]), (&json!("running"), &json!(1)), "{kept}");
}
