//! MIG instances of a cluster with the executor `job`: how nodes tell them, and what is given out.

use control_plane::NodeSpec;
use serde_json::{Value, json};

use crate::rig::{Site, endless, job, place};

const SMALL: &str = "nvidia.com/mig-1g.10gb";

fn instances(count: u32, profile: &str) -> Value {
    let resources = json!({"cpu": "1", "gpu": count, "migProfile": profile});
    job(json!({"resources": resources, "env": {"SIM_DURATION": "2h"}}))
}

fn of<'a>(nodes: &'a [Value], name: &str, key: &str, is: &str) -> Vec<&'a Value> {
    let node = nodes.iter().find(|node| node["name"] == name);
    node.and_then(|node| node["gpus"].as_array()).into_iter().flatten().filter(|gpu| gpu[key] == is).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mig_instances_of_nodes_are_given_out_by_profile() {
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let divided = NodeSpec {
        devices: vec![(SMALL.to_owned(), 7), ("nvidia.com/mig-3g.40gb.me".to_owned(), 2)],
        labels: vec![
            label("nvidia.com/gpu.product", "NVIDIA-H100-80GB-HBM3"),
            label("nvidia.com/gpu.memory", "81559"),
            label("nvidia.com/mig-1g.10gb.memory", "9984"),
        ],
        ..NodeSpec::plain("mig-0")
    };
    let Some(mut site) = Site::prepare("MIG instances of nodes", vec![divided, NodeSpec::with_gpus("gpu-0")], "") else { return };
    site.daemon.restart();
    site.until_node("mig-0", "ready", "").await;
    site.until_node("gpu-0", "ready", "").await;
    let (_, nodes) = site.daemon.get("/api/v1/nodes").await;
    let all = nodes["items"].as_array().unwrap();
    let small = of(all, "mig-0", "migProfile", "1g.10gb");
    assert_eq!((small.len(), of(all, "mig-0", "kind", "mig").len(), of(all, "gpu-0", "kind", "whole").len()), (7, 9, 8));
    assert_eq!(
        (&small[0]["uuid"], &small[0]["memory"], &small[0]["model"]),
        (&json!("mig-0/mig-1g.10gb-0"), &json!("9984Mi"), &json!("NVIDIA-H100-80GB-HBM3"))
    );

    // Each is counted by itself.
    let three = site.daemon.submit(instances(3, "1g.10gb")).await;
    let large = site.daemon.submit(instances(2, "3g.40gb+me")).await;
    let whole = site.daemon.submit(endless(8)).await;
    for (id, node, resource, count) in [
        (&three, "mig-0", SMALL, "3"),
        (&large, "mig-0", "nvidia.com/mig-3g.40gb.me", "2"),
        (&whole, "gpu-0", "nvidia.com/gpu", "8"),
    ] {
        assert_eq!(place(&site.daemon.until(id, "running").await), node);
        let selector = format!("scheduling.flash-sched.io/job-id={id}");
        let pods = site.cluster.kubectl(&["get", "pods", "--selector", &selector, "--output", "json"]).unwrap();
        let pods: Value = serde_json::from_str(&pods).unwrap();
        assert_eq!(pods["items"][0]["spec"]["containers"][0]["resources"]["limits"][resource], count, "{pods:#}");
    }
    // What others have is set aside, and nobody of ours is promised it.
    let container = json!({"name": "c", "image": "any", "resources": {"limits": {SMALL: "3"}},
        "env": [{"name": "SIM_DURATION", "value": "2h"}]});
    let theirs = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs"},
        "spec": {"nodeName": "mig-0", "restartPolicy": "Never", "containers": [container]}});
    site.cluster.kubectl_with(&["create", "--filename", "-"], &theirs.to_string()).unwrap();
    site.until_nodes("three are set aside", |nodes| of(nodes, "mig-0", "state", "aside").len() == 3).await;
    let (_, nodes) = site.daemon.get("/api/v1/nodes").await;
    let said = "of the MIG instances 1g.10gb of node mig-0: 3 in use by pods of others (default/theirs)";
    assert!(
        of(nodes["items"].as_array().unwrap(), "mig-0", "state", "aside").iter().all(|gpu| gpu["reason"] == said),
        "{nodes:#}"
    );
    let two = site.daemon.submit(instances(2, "1g.10gb")).await;
    let (_, why) = site.daemon.get(&format!("/api/v1/jobs/{two}/why")).await;
    assert!(why["message"].as_str().unwrap().contains("it needs 2 MIG instances 1g.10gb, and 1 of 7 is free"), "{why:#}");
    site.cluster.kubectl(&["delete", "pod", "theirs", "--wait=false"]).unwrap();
    assert_eq!(place(&site.daemon.until(&two, "running").await), "mig-0");

    // What cannot be is refused with what there is.
    for (resources, field, words) in [
        (
            json!({"gpu": 1, "migProfile": "2g.20gb"}),
            "resources.migProfile",
            "asks for MIG instances of the profile \"2g.20gb\", there are MIG instances of the profiles (1g.10gb, 3g.40gb+me)",
        ),
        (json!({"gpu": 8, "migProfile": "1g.10gb"}), "resources.gpu", "the largest node has 7"),
        (json!({"gpu": "0.5"}), "resources.gpu", "asks for 0.5 of a GPU, no node gives out parts of GPUs"),
    ] {
        let (_, refused) = site.daemon.post("/api/v1/jobs", job(json!({"resources": resources}))).await;
        assert!(refused["field"].as_str().unwrap_or_default().ends_with(field), "{refused:#}");
        assert!(refused["detail"].as_str().unwrap_or_default().contains(words), "{refused:#}");
    }
}
