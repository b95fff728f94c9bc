//! What goes away under FlashJobs and jobs: their namespace, and a namesake before its pods have.

use serde_json::{Value, json};

use crate::rig::{Site, condition, flash_job, lone};

fn of_team(mut object: Value) -> Value {
    object["metadata"]["namespace"] = json!("team");
    object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_goes_with_all_that_is_in_it() {
    let nodes = vec![control_plane::NodeSpec::with_gpus("gpu-0"), control_plane::NodeSpec::plain("node-0")];
    let Some(site) = Site::configured("a namespace that goes", nodes, "namespaces = [\"default\", \"team\"]").await else {
        return;
    };
    site.cluster.kubectl(&["create", "namespace", "team"]).unwrap();
    site.apply(&of_team(flash_job("gang", 2, 4, "2h", "0")));
    let gang = site.job_of("gang").await;
    site.daemon.until(&gang, "running").await;
    let send = |name: &str, gpus: &str| {
        json!({"name": name, "namespace": "team", "image": "any", "command": ["x"], "resources": {"cpu": "1", "gpu": gpus},
            "env": {"SIM_DURATION": "2h"}})
    };
    let sent = site.daemon.submit(send("sent", "0")).await;
    site.daemon.until(&sent, "running").await;
    site.apply(&of_team(lone("alone", 0, "2h", "0", json!({}))));
    let alone = site.job_of_pod("alone").await;
    site.daemon.until(&alone, "running").await;
    // Two wait for the GPUs of the gang, and one is wrong.
    site.apply(&of_team(flash_job("waits", 1, 8, "50ms", "0")));
    let waits = site.job_of("waits").await;
    let later = site.daemon.submit(send("later", "8")).await;
    let mut wrong = flash_job("wrong", 1, 0, "50ms", "0");
    wrong["spec"]["queueName"] = json!("nowhere");
    site.apply(&of_team(wrong));
    site.cluster.kubectl(&["delete", "namespace", "team", "--timeout=60s"]).unwrap_or_else(|error| {
        let left = site.cluster.kubectl(&["get", "flashjobs,pods", "--namespace=team", "--output", "yaml"]);
        panic!("{error:?}\n{left:?}\n{}", site.daemon.log())
    });
    for job in [&gang, &sent, &alone, &waits] {
        assert_eq!(site.daemon.finished(job).await["outcome"]["result"], "cancelled");
    }
    // It had nothing there that could be deleted: it finds no place to be when its turn comes.
    let job = site.daemon.finished(&later).await;
    assert_eq!(job["outcome"]["result"], "failed", "{job:#}");
    assert!(job.to_string().contains("no namespace `team`"), "{job:#}");
    // All of the room is free.
    site.apply(&flash_job("next", 1, 8, "50ms", "0"));
    site.phase("next", "Succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namesake_begins_anew_and_a_daemon_that_begins_anew_changes_no_count() {
    let Some(mut site) = Site::start("namesakes").await else { return };
    let mut job = flash_job("train", 2, 8, "2h", "0");
    site.apply(&job);
    let first = site.job_of("train").await;
    site.phase("train", "Running").await;
    // A daemon that has not counted any pods yet has nothing to say of them.
    let before = site.watch("FlashJob", "train", |job| job["status"]["active"] == 2).await;
    site.daemon.kill();
    site.daemon.restart();
    site.apply(&flash_job("other", 1, 0, "50ms", "0"));
    site.phase("other", "Succeeded").await;
    let after = site.get("FlashJob", "train").await;
    assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"], "{after:#}");

    // Deleted, and applied again while its pods are still there.
    job["spec"]["tasks"].as_array_mut().unwrap().truncate(1);
    job["spec"]["minAvailable"] = json!(1);
    site.cluster.kubectl_with(&["replace", "--force", "--wait=false", "--filename", "-"], &job.to_string()).unwrap();
    let second = site.watch("FlashJob", "train", |job| job["status"]["phase"] == "Running").await;
    assert_eq!((&second["status"]["active"], &second["status"]["desired"]), (&json!(1), &json!(1)), "{second:#}");
    assert_ne!(second["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(condition(&second, "Ready")["status"], "True");
    assert_eq!(site.daemon.finished(&first).await["outcome"]["result"], "cancelled");
    site.cluster.kubectl(&["delete", "flashjob", "train"]).unwrap();
}
