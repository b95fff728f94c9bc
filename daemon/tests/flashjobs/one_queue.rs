//! One queue: what somebody applies becomes a job, what somebody submits becomes a FlashJob, and either side ends the other.

use serde_json::{Value, json};

use crate::rig::{Site, condition, flash_job};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_queue_whichever_way_a_job_comes() {
    let Some(mut site) = Site::start("FlashJobs and jobs").await else { return };
    // Applied: it becomes a job, runs on both nodes, and says so.
    site.apply(&flash_job("pair", 2, 8, "400ms", "0"));
    let id = site.job_of("pair").await;
    let done = site.phase("pair", "Succeeded").await;
    assert_eq!(site.daemon.finished(&id).await["outcome"]["result"], "succeeded");
    let status = &done["status"];
    assert_eq!(
        (&status["succeeded"], &status["desired"], &status["active"], &status["failed"]),
        (&json!(2), &json!(2), &json!(0), &json!(0))
    );
    for (kind, expected) in [("Valid", "True"), ("Admitted", "True"), ("Complete", "True"), ("Ready", "False")] {
        assert_eq!(condition(&done, kind)["status"], expected, "{done:#}");
        assert_eq!(condition(&done, kind)["observedGeneration"], 1);
    }
    assert_eq!((&status["message"], status["startTime"].is_string()), (&Value::Null, true), "what is no more is not said");
    let nodes: Vec<_> = status["placements"].as_array().unwrap().iter().map(|placed| placed["node"].clone()).collect();
    assert_eq!(nodes.len(), 2);
    assert_ne!(nodes[0], nodes[1]);

    // Submitted: it becomes a FlashJob.
    let sent = site
        .daemon
        .submit(json!({"name": "rest", "image": "any", "command": ["train"], "env": {"SIM_DURATION": "50ms"},
        "tasks": [{"name": "w", "replicas": 2, "command": ["w"], "resources": {"cpu": "1", "gpu": "1"}},
            {"name": "head", "command": ["h"], "resources": {"cpu": "1"}}], "command": null}))
        .await;
    assert_eq!(site.daemon.finished(&sent).await["outcome"]["result"], "succeeded");
    let made = format!("rest-{}", sent.rsplit('-').next().unwrap());
    assert_eq!(site.phase(&made, "Succeeded").await["status"]["succeeded"], 3);

    // What fails says how, and stays so.
    site.apply(&flash_job("bad", 1, 0, "50ms", "9"));
    let bad = site.phase("bad", "Failed").await;
    assert!(bad["status"]["message"].as_str().unwrap().contains("exit code 9"), "{bad:#}");

    // Wrong ones say what to write, and are taken once that is written.
    let mut lost = flash_job("lost", 1, 0, "50ms", "0");
    lost["spec"]["queueName"] = json!("nowhere");
    site.apply(&lost);
    let wrong = site.watch("FlashJob", "lost", |object| object["status"]["conditions"].is_array()).await;
    assert_eq!(condition(&wrong, "Valid")["status"], "False");
    let message = condition(&wrong, "Valid")["message"].as_str().unwrap();
    assert!(message.contains("no queue `nowhere`; there are: ") && message.contains("default-batch"), "{message}");
    lost["spec"]["queueName"] = json!("default-batch");
    site.apply(&lost);
    let mended = site.phase("lost", "Succeeded").await;
    assert_eq!(
        (condition(&mended, "Valid")["status"].as_str(), condition(&mended, "Valid")["observedGeneration"].as_i64()),
        (Some("True"), Some(2))
    );
    site.apply(&flash_job("huge", 4, 8, "50ms", "0"));
    let huge = site.watch("FlashJob", "huge", |object| object["status"]["conditions"].is_array()).await;
    assert_eq!(condition(&huge, "Valid")["status"], "False", "{huge:#}");

    // Cancelled on either side.
    site.apply(&flash_job("long", 1, 8, "2h", "0"));
    let id = site.job_of("long").await;
    let runs = site.phase("long", "Running").await;
    assert_eq!(condition(&runs, "Ready")["status"], "True");
    site.daemon.post(&format!("/api/v1/jobs/{id}/cancel"), Value::Null).await;
    let cancelled = site.phase("long", "Failed").await;
    assert_eq!(condition(&cancelled, "Complete")["reason"], "Cancelled");
    site.apply(&flash_job("gone", 1, 8, "2h", "0"));
    let id = site.job_of("gone").await;
    site.phase("gone", "Running").await;
    site.cluster.kubectl(&["delete", "flashjob", "gone", "--wait=false"]).unwrap();
    assert_eq!(site.daemon.finished(&id).await["outcome"]["result"], "cancelled");

    // Suspended is held.
    let mut held = flash_job("held", 1, 0, "50ms", "0");
    held["spec"]["suspend"] = json!(true);
    site.apply(&held);
    let waits = site.watch("FlashJob", "held", |object| object["status"]["conditions"].is_array()).await;
    assert_eq!(condition(&waits, "Admitted")["reason"], "Suspended");
    held["spec"]["suspend"] = json!(false);
    site.apply(&held);
    site.phase("held", "Succeeded").await;

    // While the daemon is dead: one ends, one is deleted, one comes.
    site.apply(&flash_job("ends", 2, 4, "3s", "0"));
    let mut once = flash_job("deleted", 1, 0, "2h", "0");
    once["spec"]["retry"] = json!({"maxAttempts": 1});
    site.apply(&once);
    let deleted = site.job_of("deleted").await;
    site.watch("FlashJob", "ends", |job| condition(job, "Admitted")["status"] == "True").await;
    site.phase("deleted", "Running").await;
    site.daemon.kill();
    site.cluster.kubectl(&["delete", "flashjob", "deleted", "--wait=false"]).unwrap();
    site.apply(&flash_job("comes", 1, 0, "50ms", "0"));
    site.daemon.restart();
    assert_eq!(site.phase("ends", "Succeeded").await["status"]["succeeded"], 2);
    site.phase("comes", "Succeeded").await;
    assert_eq!(site.daemon.finished(&deleted).await["outcome"]["result"], "cancelled");
    assert_eq!(site.jobs().await.iter().filter(|job| job["spec"]["name"] == "ends").count(), 1, "imported once");
    assert_eq!(site.get("FlashJob", "pair").await["status"], done["status"], "what is finished is not written again");
}
