//! Parts of GPUs of a cluster with the executor `job`: how nodes tell them, and what is given out.

use control_plane::NodeSpec;
use serde_json::{Value, json};

use crate::rig::{Site, job, place};

const SHARED: &str = "nvidia.com/gpu.shared";

/// Its GPUs are given out in so many parts each.
fn sharing(name: &str, gpus: u64, replicas: u64) -> NodeSpec {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    NodeSpec {
        devices: vec![(SHARED.to_owned(), gpus * replicas)],
        labels: vec![
            label("nvidia.com/gpu.product", "NVIDIA-H100-80GB-HBM3"),
            label("nvidia.com/gpu.memory", "80000"),
            label("nvidia.com/gpu.replicas", &replicas.to_string()),
        ],
        ..NodeSpec::plain(name)
    }
}

fn part(resources: Value, replicas: u32) -> Value {
    let tasks = json!([{"name": "w", "replicas": replicas, "command": ["w"], "resources": resources}]);
    let mut job = job(json!({"env": {"SIM_DURATION": "2h"}, "tasks": tasks}));
    for key in ["command", "resources"] {
        job.as_object_mut().unwrap().remove(key);
    }
    job
}

fn of<'a>(nodes: &'a [Value], name: &str, key: &str, is: &str) -> Vec<&'a Value> {
    let node = nodes.iter().find(|node| node["name"] == name);
    node.and_then(|node| node["gpus"].as_array()).into_iter().flatten().filter(|gpu| gpu[key] == is).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_are_given_out_where_they_are_large_enough() {
    let nodes = vec![sharing("quarter-0", 2, 4), sharing("half-0", 1, 2), NodeSpec::with_gpus("gpu-0")];
    let Some(mut site) = Site::prepare("parts of GPUs", nodes, "") else { return };
    site.daemon.restart();
    for name in ["quarter-0", "half-0", "gpu-0"] {
        site.until_node(name, "ready", "").await;
    }
    let (_, nodes) = site.daemon.get("/api/v1/nodes").await;
    let all = nodes["items"].as_array().unwrap();
    let quarters = of(all, "quarter-0", "kind", "part");
    assert_eq!((quarters.len(), of(all, "half-0", "kind", "part").len(), of(all, "gpu-0", "kind", "whole").len()), (8, 2, 8));
    assert_eq!(
        (&quarters[0]["uuid"], &quarters[0]["memory"], &quarters[0]["part"]),
        (&json!("quarter-0/part-0"), &json!("80000Mi"), &json!("250m"))
    );

    // Halves are on the node that makes halves, and no whole GPU is divided for a third.
    let mut halves = Vec::new();
    for resources in [json!({"cpu": "1", "gpu": "0.5"}), json!({"cpu": "1", "gpuMpsUnits": 4, "gpuMemoryShare": "30000Mi"})] {
        let id = site.daemon.submit(part(resources, 1)).await;
        let running = site.daemon.until(&id, "running").await;
        assert_eq!(
            (place(&running), &running["placement"][0]["gpuShare"]),
            ("half-0", &json!({"gpu": "500m", "memory": "40000Mi"}))
        );
        halves.push(id);
    }
    let third = site.daemon.submit(part(json!({"cpu": "1", "gpu": "0.5"}), 1)).await;
    let (_, why) = site.daemon.get(&format!("/api/v1/jobs/{third}/why")).await;
    assert!(why["message"].as_str().unwrap().contains("it needs 1 part of a GPU, and none of 2 is free"), "{why:#}");

    // Replicas have one each.
    let six = site.daemon.submit(part(json!({"cpu": "1", "gpu": "0.2"}), 6)).await;
    assert_eq!(place(&site.daemon.until(&six, "running").await), "quarter-0");
    for (id, count) in [(&halves[0], 1), (&six, 6)] {
        let selector = format!("scheduling.flash-sched.io/job-id={id}");
        let pods = site.cluster.kubectl(&["get", "pods", "--selector", &selector, "--output", "json"]).unwrap();
        let pods: Value = serde_json::from_str(&pods).unwrap();
        let pods = pods["items"].as_array().unwrap();
        assert_eq!(pods.len(), count);
        assert!(pods.iter().all(|pod| pod["spec"]["containers"][0]["resources"]["limits"][SHARED] == "1"), "{pods:#?}");
    }
    let (_, queues) = site.daemon.get("/api/v1/queues").await;
    let used = queues["items"].as_array().unwrap().iter().find(|queue| queue["name"] == "default-batch");
    assert_eq!(used.unwrap()["used"]["gpu"], "2500m", "as much as the nodes make of it: {queues:#}");

    // What others have is set aside, and nobody of ours is promised it.
    let container = json!({"name": "c", "image": "any", "resources": {"limits": {SHARED: "1"}},
        "env": [{"name": "SIM_DURATION", "value": "2h"}]});
    let theirs = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs"},
        "spec": {"nodeName": "quarter-0", "restartPolicy": "Never", "containers": [container]}});
    site.cluster.kubectl_with(&["create", "--filename", "-"], &theirs.to_string()).unwrap();
    site.until_nodes("one is set aside", |nodes| of(nodes, "quarter-0", "state", "aside").len() == 1).await;
    let (_, nodes) = site.daemon.get("/api/v1/nodes").await;
    let aside = of(nodes["items"].as_array().unwrap(), "quarter-0", "state", "aside")[0];
    assert_eq!(aside["reason"], "of the parts of GPUs of node quarter-0: 1 in use by pods of others (default/theirs)");
    assert_eq!(aside["sharers"], Value::Null, "one that nobody has: {aside:#}");
    let two = site.daemon.submit(part(json!({"cpu": "1", "gpu": "0.25"}), 2)).await;
    let (_, why) = site.daemon.get(&format!("/api/v1/jobs/{two}/why")).await;
    assert!(why["message"].as_str().unwrap().contains("it needs 2 parts of GPUs together, and 1 of 10 is free"), "{why:#}");
    site.cluster.kubectl(&["delete", "pod", "theirs", "--wait=false"]).unwrap();
    assert_eq!(place(&site.daemon.until(&two, "running").await), "quarter-0");

    // A daemon that died finds them as they were.
    site.daemon.kill();
    site.daemon.restart();
    site.until_node("half-0", "ready", "").await;
    let (_, nodes) = site.daemon.get("/api/v1/nodes").await;
    let all = nodes["items"].as_array().unwrap();
    let held = |name: &str| of(all, name, "kind", "part").iter().filter(|gpu| !gpu["sharers"].is_null()).count();
    assert_eq!((held("quarter-0"), held("half-0")), (8, 2), "{nodes:#}");
    let (_, _) = site.daemon.post(&format!("/api/v1/jobs/{}/cancel", halves[0]), json!({})).await;
    assert_eq!(place(&site.daemon.until(&third, "running").await), "half-0");

    // What cannot be is refused with what there is.
    for (resources, words) in [
        (json!({"gpu": "0.6"}), "asks for 0.6 of a GPU, the largest part that a node gives out is 0.5"),
        (json!({"gpu": "0.1", "gpuMemoryShare": "60Gi"}), "with 64424509440 bytes of its memory, the largest part"),
    ] {
        let (_, refused) = site.daemon.post("/api/v1/jobs", job(json!({"resources": resources}))).await;
        assert!(refused["field"].as_str().unwrap_or_default().ends_with("resources.gpu"), "{refused:#}");
        assert!(refused["detail"].as_str().unwrap_or_default().contains(words), "{refused:#}");
    }
}
