//! `dependsOn`: a FlashJob is queued when those that it names have ended as it says, whoever was there to see it.

use serde_json::{Value, json};

use crate::rig::{Site, condition, flash_job};

fn after(name: &str, others: Value) -> Value {
    let mut job = flash_job(name, 1, 0, "50ms", "0");
    job["spec"]["dependsOn"] = others;
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_have_become_decides() {
    let Some(mut site) = Site::start("FlashJobs that depend").await else { return };
    site.apply(&after("last", json!([{"name": "first"}, {"name": "bad", "on": "Failed"}])));
    let waits = site.watch("FlashJob", "last", |job| job["status"]["message"].is_string()).await;
    let message = condition(&waits, "Admitted")["message"].as_str().unwrap();
    assert!(message.contains("waits for FlashJob first to succeed; there is none of that name yet"), "{message}");
    let id = site.job_of("last").await;
    assert_eq!(site.daemon.job(&id).await["state"], "waiting");
    site.apply(&flash_job("first", 1, 0, "50ms", "0"));
    site.phase("first", "Succeeded").await;
    site.watch("FlashJob", "last", |job| {
        condition(job, "Admitted")["message"].as_str().is_some_and(|message| message.contains("FlashJob bad to fail"))
    })
    .await;

    // The other one ends while nobody looks; what must not follow a failure never does.
    site.apply(&flash_job("bad", 1, 0, "300ms", "3"));
    site.apply(&after("never", json!([{"name": "bad"}])));
    // Placed, or more: what is short may never be told to run.
    site.watch("FlashJob", "bad", |job| condition(job, "Admitted")["status"] == "True").await;
    site.daemon.kill();
    site.daemon.restart();
    site.phase("last", "Succeeded").await;
    let never = site.phase("never", "Failed").await;
    assert_eq!(condition(&never, "Complete")["reason"], "Cancelled");
    assert!(never["status"]["message"].as_str().unwrap().contains("dependsOn: FlashJob bad failed"), "{never:#}");
}
