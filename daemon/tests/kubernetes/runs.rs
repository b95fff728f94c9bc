//! What a user submits runs as pods on the cluster's nodes, also when the daemon is killed meanwhile.

use control_plane::NodeSpec;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::rig::{Site, job};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_run_as_pods_and_outlive_the_daemon() {
    let nodes = vec![NodeSpec::with_gpus("gpu-0"), NodeSpec::plain("node-0")];
    let Some(mut site) = Site::prepare("the daemon on a cluster", nodes, "") else { return };
    let daemon = &mut site.daemon;
    daemon.restart();

    let good = daemon
        .submit(job(json!({"resources": {"cpu": "2", "gpu": "2"}, "tasks": [{"name": "w", "replicas": 4, "command": ["w"]}],
        "command": null, "env": {"SIM_DURATION": "50ms"}})))
        .await;
    let bad = daemon.submit(job(json!({"env": {"SIM_EXIT": "7", "SIM_DURATION": "50ms"}, "retry": {"maxAttempts": 1}}))).await;
    let long = daemon.submit(job(json!({"env": {"SIM_DURATION": "2h"}}))).await;
    let good = daemon.finished(&good).await;
    assert_eq!(good["outcome"]["result"], "succeeded", "{good}");
    assert!(good["placement"].as_array().unwrap().iter().all(|placed| placed["node"] == "gpu-0"), "{good}");
    let bad = daemon.finished(&bad).await;
    assert_eq!((&bad["outcome"]["reason"], &bad["outcome"]["exitCode"]), (&json!("exitCode"), &json!(7)), "{bad}");

    daemon.until(&long, "running").await;
    daemon.kill();
    daemon.restart();
    assert_eq!(daemon.job(&long).await["state"], "running");
    daemon.post(&format!("/api/v1/jobs/{long}/cancel"), Value::Null).await;
    let cancelled = daemon.finished(&long).await;
    assert_eq!(cancelled["outcome"]["result"], "cancelled", "{cancelled}\n{}", daemon.log());

    for (more, field) in [
        (json!({"image": ""}), "image"),
        (json!({"nice": 5}), "nice"),
        (json!({"stop": {"signal": "SIGINT"}}), "stop.signal"),
        (json!({"executor": "local"}), "executor"),
    ] {
        let (status, problem) = daemon.post("/api/v1/jobs", job(more)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert!(problem.to_string().contains(field), "{problem}");
    }
}
