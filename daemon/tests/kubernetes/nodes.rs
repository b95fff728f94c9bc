//! Nodes that come, are cordoned, used by others, deleted and silent, while jobs run.

use control_plane::{NodeSpec, Part};
use serde_json::{Value, json};

use crate::rig::{Site, endless, job, place};

/// A pod of somebody else, on this node.
fn foreign(site: &Site, name: &str, node: &str, gpus: u32) {
    let container = json!({"name": "c", "image": "any", "resources": {"limits": {"nvidia.com/gpu": gpus.to_string()}},
        "env": [{"name": "SIM_DURATION", "value": "2h"}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"nodeName": node, "restartPolicy": "Never", "containers": [container]}});
    site.cluster.kubectl_with(&["create", "--filename", "-"], &pod.to_string()).unwrap();
}

fn aside(nodes: &[Value], name: &str) -> usize {
    let node = nodes.iter().find(|node| node["name"] == name);
    let gpus = node.and_then(|node| node["gpus"].as_array()).into_iter().flatten();
    gpus.filter(|gpu| gpu["state"] == "aside").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_come_are_cordoned_and_shared_with_others() {
    let Some(mut site) = Site::prepare("nodes of a cluster", vec![NodeSpec::with_gpus("gpu-0")], "") else { return };
    site.daemon.restart();
    site.until_node("gpu-0", "ready", "").await;
    let (_, nodes) = site.daemon.get("/api/v1/nodes").await;
    assert_eq!(
        (&nodes["items"][0]["cpu"], &nodes["items"][0]["gpus"][7]["model"]),
        (&json!("64"), &json!("NVIDIA-H100-80GB-HBM3"))
    );

    // Cordoned by whoever: nobody is placed there, and it says what opens it.
    site.cluster.kubectl(&["cordon", "gpu-0"]).unwrap();
    site.until_node("gpu-0", "drained", "kubectl uncordon gpu-0").await;
    let waiting = site.daemon.submit(endless(8)).await;
    let (_, why) = site.daemon.get(&format!("/api/v1/jobs/{waiting}/why")).await;
    assert_eq!(why["reason"], "nodesClosed", "{why}");
    // One that comes while the daemon runs is used at once.
    let tainted = NodeSpec { taints: vec![("team".into(), "a".into(), "NoSchedule".into())], ..NodeSpec::plain("ours-0") };
    site.cluster.add_nodes(&[NodeSpec::with_gpus("gpu-1"), tainted]).unwrap();
    let first = site.daemon.until(&waiting, "running").await;
    assert_eq!(place(&first), "gpu-1");
    site.until_node("ours-0", "cordoned", "team=a:NoSchedule").await;
    // What administrators of ours say adds to what the cluster says.
    site.cluster.kubectl(&["uncordon", "gpu-0"]).unwrap();
    site.until_node("gpu-0", "ready", "").await;
    let (_, _) = site.daemon.post("/api/v1/nodes/gpu-0/cordon", json!({"reason": "fan"})).await;
    site.until_node("gpu-0", "cordoned", "fan").await;
    site.daemon.post("/api/v1/nodes/gpu-0/resume", json!({})).await;
    site.until_node("gpu-0", "ready", "").await;

    // What others ask for is not given out; when they go it is.
    foreign(&site, "theirs", "gpu-0", 6);
    site.until_nodes("six are set aside", |nodes| aside(nodes, "gpu-0") == 6).await;
    let two = site.daemon.submit(endless(2)).await;
    assert_eq!(place(&site.daemon.until(&two, "running").await), "gpu-0");
    let three = site.daemon.submit(endless(3)).await;
    let (_, nodes) = site.daemon.get("/api/v1/nodes").await;
    assert!(nodes.to_string().contains("6 in use by pods of others (default/theirs)"), "{nodes:#}");
    assert_eq!(site.daemon.job(&three).await["state"], "queued");
    site.cluster.kubectl(&["delete", "pod", "theirs", "--wait=false"]).unwrap();
    assert_eq!(place(&site.daemon.until(&three, "running").await), "gpu-0");
    site.until_nodes("none is set aside", |nodes| aside(nodes, "gpu-0") == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_on_nodes_that_are_lost_are_tried_again_as_their_policies_say() {
    let nodes = vec![NodeSpec::with_gpus("gpu-0"), NodeSpec::with_gpus("gpu-1"), NodeSpec::plain("node-0")];
    let Some(mut site) = Site::prepare("lost nodes", nodes, "node_grace = \"1s\"\n") else { return };
    site.daemon.restart();
    // Fills both, so that it is known who is where.
    let mut endless_one = endless(8);
    endless_one["retry"] = json!({"maxAttempts": 1});
    let once = site.daemon.submit(endless_one).await;
    let once_at = place(&site.daemon.until(&once, "running").await).to_owned();
    let again = site.daemon.submit(endless(8)).await;
    let again_at = place(&site.daemon.until(&again, "running").await).to_owned();
    assert_ne!(once_at, again_at);

    // Deleted: who may be tried again is, where there is room; who may not has failed, and that is on record.
    site.cluster.kubectl(&["delete", "node", &once_at, "--wait=false"]).unwrap();
    let failed = site.daemon.finished(&once).await;
    assert_eq!(failed["outcome"]["reason"], "infrastructure", "{failed}");
    assert!(failed["outcome"]["message"].as_str().unwrap().contains(&once_at), "{failed}");
    site.until_nodes("it is not there any more", |nodes| nodes.iter().all(|node| node["name"] != once_at.as_str())).await;
    site.cluster.add_nodes(&[NodeSpec::with_gpus("gpu-2")]).unwrap();
    site.until_node("gpu-2", "ready", "").await;

    if !site.cluster.is_ours() {
        return;
    }
    // Silent for longer than the grace. kwok would make it speak again at once.
    site.cluster.freeze_part(Part::Kwok, true).unwrap();
    let silence =
        r#"{"status":{"conditions":[{"type":"Ready","status":"False","reason":"KubeletStopped","message":"unplugged"}]}}"#;
    site.cluster.kubectl(&["patch", "node", &again_at, "--subresource=status", "--type=strategic", "--patch", silence]).unwrap();
    let moved = site.daemon.until(&again, "starting").await;
    assert_eq!((place(&moved), &moved["attempt"]), ("gpu-2", &json!(2)), "{moved}\n{}", site.daemon.log());
    site.until_node(&again_at, "lost", "unplugged").await;
    // It is back: what was given up there has ended before anybody else gets its place.
    site.cluster.freeze_part(Part::Kwok, false).unwrap();
    site.until_node(&again_at, "ready", "").await;
    site.daemon.until(&again, "running").await;
    let next = site.daemon.submit(endless(8)).await;
    assert_eq!(place(&site.daemon.until(&next, "running").await), again_at);
    let short = site.daemon.submit(job(json!({"env": {"SIM_DURATION": "20ms"}}))).await;
    assert_eq!(site.daemon.finished(&short).await["outcome"]["result"], "succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_that_loses_a_part_is_ended_whole_and_tried_again_whole() {
    let nodes = ["node-0", "node-1", "node-2"].map(NodeSpec::plain).to_vec();
    let Some(mut site) = Site::prepare("a gang that loses a part", nodes, "") else { return };
    site.daemon.restart();
    let gang = json!({"image": "any", "env": {"SIM_DURATION": "2h"}, "retry": {"maxAttempts": 2},
        "tasks": [{"name": "w", "replicas": 2, "command": ["w"], "resources": {"cpu": "10"}}]});
    let gang = site.daemon.submit(gang).await;
    let running = site.daemon.until(&gang, "running").await;
    let lost = place(&running).to_owned();
    site.cluster.kubectl(&["delete", "node", &lost, "--wait=false"]).unwrap();
    site.daemon.until(&gang, "stopping").await;
    site.daemon.until(&gang, "starting").await;
    let again = site.daemon.until(&gang, "running").await;
    assert_eq!(again["attempt"], 2, "{again}\n{}", site.daemon.log());
    assert!(again["placement"].as_array().unwrap().iter().all(|part| part["node"] != lost.as_str()), "{again}");
}
