//! Two daemons and one Lease: only the one that holds it takes anything over.

use serde_json::json;

use crate::rig::{Site, daemon, flash_job, lone};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_imports_nothing_until_it_leads() {
    let Some(mut site) = Site::start("a standby and FlashJobs").await else { return };
    site.apply(&flash_job("before", 1, 0, "2h", "0"));
    site.phase("before", "Running").await;
    let standby = daemon(&site.cluster, site.folder.path(), "second");
    let mut leader = std::mem::replace(&mut site.daemon, standby);
    // It has been told that it is one.
    site.daemon.restart();
    let waits = site.daemon.submit(json!({"image": "any", "command": ["x"], "resources": {"cpu": "1"}})).await;
    let (_, why) = site.daemon.get(&format!("/api/v1/jobs/{waits}/why")).await;
    assert!(why["message"].as_str().unwrap().contains("Nothing is started now"), "{why}");

    // What comes meanwhile is the leader's.
    site.apply(&flash_job("meanwhile", 1, 0, "50ms", "0"));
    site.apply(&lone("alone", 0, "50ms", "0", json!({})));
    site.phase("meanwhile", "Succeeded").await;
    site.watch("Pod", "alone", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(site.jobs().await.len(), 1, "its own: {}", site.daemon.log());

    // Then it is the one.
    assert!(leader.terminate().success());
    site.apply(&flash_job("after", 1, 0, "50ms", "0"));
    site.job_of("after").await;
    site.phase("after", "Succeeded").await;
}
