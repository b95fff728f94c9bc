//! ClusterResourceQueues are queues of the daemon: what they say is done, and how they stand is written back.

use hyper::StatusCode;
use serde_json::{Value, json};

use crate::rig::{Site, condition, flash_job};

const KIND: &str = "ClusterResourceQueue";

fn queue(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": KIND, "metadata": {"name": name}, "spec": spec})
}

fn in_queue(name: &str, queue: &str, gpus: u32, duration: &str) -> Value {
    let mut job = flash_job(name, 1, gpus, duration, "0");
    job["spec"]["queueName"] = json!(queue);
    job
}

async fn shown(site: &Site, name: &str) -> Value {
    site.daemon.get(&format!("/api/v1/queues/{name}")).await.1
}

async fn valid(site: &Site, name: &str) {
    site.watch(KIND, name, |queue| condition(queue, "Valid")["status"] == "True").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_the_cluster_is_a_queue_of_the_daemon() {
    let Some(mut site) = Site::start("ClusterResourceQueues").await else { return };
    // It is there, in a cohort that comes with it, and what it says holds.
    let spec = json!({"priority": 50, "isPreemptible": true, "maxConcurrent": 1, "cohort": "lab", "weight": 2,
        "quota": {"guaranteed": {"nvidia.com/gpu": "4"}, "limit": {"nvidia.com/gpu": "8", "memory": "64Gi"}}, "ttlSeconds": 0});
    site.apply(&queue("train", spec.clone()));
    valid(&site, "train").await;
    let train = shown(&site, "train").await;
    assert_eq!((&train["origin"], &train["priority"], &train["maxConcurrent"]), (&json!("cluster"), &json!(50), &json!(1)));
    assert_eq!((&train["cohort"], &train["weight"], &train["guaranteed"]), (&json!("lab"), &json!(2), &json!({"gpu": "4"})));
    site.apply(&in_queue("one", "train", 2, "2h"));
    site.apply(&in_queue("two", "train", 2, "2h"));
    let busy = site.watch(KIND, "train", |queue| queue["status"]["running"] == 1 && queue["status"]["pending"] == 1).await;
    assert_eq!(busy["status"]["used"], json!({"cpu": "100m", "nvidia.com/gpu": "2"}), "{busy:#}");

    // Others do not change it, and it follows its object.
    for (method, body) in [("PATCH", json!({"priority": 1})), ("PUT", json!({})), ("DELETE", Value::Null)] {
        let (status, problem) = site.daemon.call(method, "/api/v1/queues/train", Some(body), &[]).await.unwrap();
        assert_eq!(status, StatusCode::CONFLICT, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("kubectl edit clusterresourcequeue train"), "{problem}");
    }
    let mut more = spec;
    more["maxConcurrent"] = json!(2);
    site.apply(&queue("train", more.clone()));
    site.watch(KIND, "train", |queue| queue["status"]["running"] == 2 && queue["status"]["pending"] == 0).await;

    // What cannot be is said, and the queue stays as it was; then it is mended.
    let mut wrong = more.clone();
    wrong["quota"]["limit"]["nvidia.com/gpu"] = json!("2");
    site.apply(&queue("train", wrong));
    let told = site.watch(KIND, "train", |queue| condition(queue, "Valid")["status"] == "False").await;
    assert!(condition(&told, "Valid")["message"].as_str().unwrap().starts_with("spec.quota.guaranteed: "), "{told:#}");
    assert_eq!(shown(&site, "train").await["limit"]["gpu"], "8");
    site.apply(&queue("train", more));
    valid(&site, "train").await;

    // What was set over the API is the API's; what is built in can be the cluster's, and is itself again afterwards.
    let (status, _) = site.daemon.call("PUT", "/api/v1/queues/mine", Some(json!({"priority": 3})), &[]).await.unwrap();
    assert_eq!(status, StatusCode::CREATED);
    site.apply(&queue("mine", json!({"priority": 4})));
    let told = site.watch(KIND, "mine", |queue| condition(queue, "Valid")["status"] == "False").await;
    assert!(condition(&told, "Valid")["message"].as_str().unwrap().contains("flash queues delete mine"), "{told:#}");
    let (status, _) = site.daemon.call("DELETE", "/api/v1/queues/mine", None, &[]).await.unwrap();
    assert_eq!(status, StatusCode::NO_CONTENT);
    valid(&site, "mine").await;
    assert_eq!(shown(&site, "mine").await["priority"], 4);
    let before = shown(&site, "default-batch").await["priority"].clone();
    site.apply(&queue("default-batch", json!({"priority": 7})));
    valid(&site, "default-batch").await;
    assert_eq!(shown(&site, "default-batch").await["priority"], 7);
    site.cluster.kubectl(&["delete", "clusterresourcequeue", "default-batch"]).unwrap();
    let after = shown(&site, "default-batch").await;
    assert_eq!((&after["origin"], &after["priority"]), (&json!("builtIn"), &before));

    // A queue is for the namespaces that it names.
    site.apply(&queue("theirs", json!({"namespaces": ["elsewhere"]})));
    valid(&site, "theirs").await;
    site.apply(&in_queue("stranger", "theirs", 0, "50ms"));
    let told = site.watch("FlashJob", "stranger", |job| condition(job, "Valid")["status"] == "False").await;
    assert!(
        condition(&told, "Valid")["message"].as_str().unwrap().contains("takes jobs of the namespaces elsewhere"),
        "{told:#}"
    );

    // Its FlashJobs are kept as long as it says.
    site.apply(&queue("brief", json!({"ttlSeconds": 1})));
    valid(&site, "brief").await;
    site.apply(&in_queue("short", "brief", 0, "50ms"));
    site.job_of("short").await;
    site.watch("FlashJob", "short", Value::is_null).await;

    // With jobs it is not removed, and says so; whose it is outlives the daemon. One that goes meanwhile is gone afterwards.
    site.cluster.kubectl(&["delete", "clusterresourcequeue", "train", "--wait=false"]).unwrap();
    let stays = site.watch(KIND, "train", |queue| condition(queue, "Valid")["reason"] == "HasJobs").await;
    assert!(condition(&stays, "Valid")["message"].as_str().unwrap().contains("has 2 unfinished jobs"), "{stays:#}");
    site.daemon.kill();
    site.cluster
        .kubectl(&["patch", "clusterresourcequeue", "mine", "--type=merge", "-p", r#"{"metadata": {"finalizers": null}}"#])
        .unwrap();
    site.cluster.kubectl(&["delete", "clusterresourcequeue", "mine"]).unwrap();
    site.daemon.restart();
    assert_eq!(shown(&site, "train").await["origin"], "cluster");
    for name in ["one", "two"] {
        site.cluster.kubectl(&["delete", "flashjob", name, "--wait=false"]).unwrap();
    }
    site.watch(KIND, "train", Value::is_null).await;
    let (status, _) = site.daemon.get("/api/v1/queues/train").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = site.daemon.get("/api/v1/queues/mine").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
