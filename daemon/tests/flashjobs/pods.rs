//! Pods without a FlashJob that ask for our scheduler are jobs of one.

use control_plane::NodeSpec;
use serde_json::{Value, json};

use crate::common::PATIENCE;
use crate::rig::{Site, condition, lone};

fn node(pod: &Value) -> &str {
    pod["spec"]["nodeName"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_a_job_of_one() {
    let Some(mut site) = Site::start("pods without a FlashJob").await else { return };
    // It appears in the table, is bound, runs, and its end is the job's; then nobody holds it.
    site.apply(&lone("good", 8, "300ms", "0", json!({})));
    let id = site.job_of_pod("good").await;
    let done = site.daemon.finished(&id).await;
    assert_eq!((&done["outcome"]["result"], &done["spec"]["name"]), (&json!("succeeded"), &json!("good")), "{done:#}");
    let pod = site.watch("Pod", "good", |pod| pod["metadata"]["finalizers"].is_null()).await;
    assert_eq!(pod["status"]["phase"], "Succeeded");
    assert!(node(&pod).starts_with("gpu-"), "{pod:#}");
    site.apply(&lone("bad", 0, "50ms", "3", json!({"nodeSelector": {"kubernetes.io/hostname": "node-0"}})));
    let bad = site.daemon.finished(&site.job_of_pod("bad").await).await;
    assert_eq!((&bad["outcome"]["result"], &bad["outcome"]["exitCode"]), (&json!("failed"), &json!(3)), "{bad:#}");
    assert_eq!(node(&site.get("Pod", "bad").await), "node-0");

    // Queue and priority are those that it says; what is wrong is said at the pod.
    site.cluster
        .kubectl_with(
            &["apply", "--filename", "-"],
            &json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 700})
                .to_string(),
        )
        .unwrap();
    let mut queued = lone("queued", 0, "50ms", "0", json!({"priorityClassName": "high"}));
    queued["metadata"]["annotations"] = json!({"scheduling.flash-sched.io/queue-name": "configfile-job"});
    site.apply(&queued);
    let job = site.daemon.finished(&site.job_of_pod("queued").await).await;
    assert_eq!((&job["spec"]["queue"], &job["spec"]["priority"]), (&json!("configfile-job"), &json!(700)));
    let mut lost = lone("lost", 0, "50ms", "0", json!({}));
    lost["metadata"]["annotations"] = json!({"scheduling.flash-sched.io/queue-name": "nowhere"});
    site.apply(&lost);
    let says = |pod: &Value, words: &str| {
        let scheduled = condition(pod, "PodScheduled");
        scheduled["status"] == "False" && scheduled["message"].as_str().is_some_and(|message| message.contains(words))
    };
    site.watch("Pod", "lost", |pod| says(pod, "no queue `nowhere`; there are: ")).await;

    // One that nothing has room for now says why, in a condition and in an event, and goes when there is room.
    site.apply(&lone("holds-0", 8, "2h", "0", json!({})));
    site.apply(&lone("holds-1", 8, "2h", "0", json!({})));
    for name in ["holds-0", "holds-1"] {
        site.watch("Pod", name, |pod| pod["status"]["phase"] == "Running").await;
    }
    site.apply(&lone("waits", 8, "50ms", "0", json!({})));
    let waits = site.job_of_pod("waits").await;
    let told = site.watch("Pod", "waits", |pod| condition(pod, "PodScheduled")["reason"] == "Unschedulable").await;
    let (_, why) = site.daemon.get(&format!("/api/v1/jobs/{waits}/why")).await;
    for message in [&condition(&told, "PodScheduled")["message"], &why["message"]] {
        assert!(message.as_str().unwrap().contains("it needs 8 GPUs, and none of 16 is free"), "{message}");
    }
    let events = site.cluster.kubectl(&["events", "--for", "pod/waits", "--output", "json"]).unwrap();
    let events: Value = serde_json::from_str(&events).unwrap();
    assert!(events["items"].as_array().unwrap().iter().any(|event| event["reason"] == "FailedScheduling"), "{events:#}");

    // Either side ends the other.
    let holds = site.job_of_pod("holds-0").await;
    site.daemon.post(&format!("/api/v1/jobs/{holds}/cancel"), Value::Null).await;
    assert_eq!(site.daemon.finished(&holds).await["outcome"]["result"], "cancelled");
    site.watch("Pod", "holds-0", Value::is_null).await;
    assert_eq!(site.daemon.finished(&waits).await["outcome"]["result"], "succeeded");
    let holds = site.job_of_pod("holds-1").await;
    site.cluster.kubectl(&["delete", "pod", "holds-1", "--wait=false"]).unwrap();
    assert_eq!(site.daemon.finished(&holds).await["outcome"]["result"], "cancelled");
    site.watch("Pod", "holds-1", Value::is_null).await;

    // One that waits for a gate is held; one that is cancelled before it ran goes too.
    site.apply(&lone("gated", 0, "2h", "0", json!({"schedulingGates": [{"name": "example.com/wait"}]})));
    let gated = site.job_of_pod("gated").await;
    assert_eq!(site.daemon.job(&gated).await["state"], "waiting");
    site.cluster
        .kubectl(&["patch", "pod", "gated", "--type=json", "-p", r#"[{"op": "remove", "path": "/spec/schedulingGates/0"}]"#])
        .unwrap();
    site.daemon.until(&gated, "running").await;
    site.apply(&lone("shut", 0, "2h", "0", json!({"schedulingGates": [{"name": "example.com/wait"}]})));
    let shut = site.job_of_pod("shut").await;
    site.daemon.post(&format!("/api/v1/jobs/{shut}/cancel"), Value::Null).await;
    site.watch("Pod", "shut", Value::is_null).await;

    // While the daemon is dead one ends, one is deleted, one comes; what runs is taken over as it is.
    site.apply(&lone("ends", 0, "2s", "0", json!({})));
    let ends = site.job_of_pod("ends").await;
    site.daemon.until(&ends, "running").await;
    site.daemon.kill();
    site.cluster.kubectl(&["delete", "pod", "gated", "--wait=false"]).unwrap();
    site.apply(&lone("comes", 0, "50ms", "0", json!({})));
    site.watch("Pod", "ends", |pod| pod["status"]["phase"] == "Succeeded").await;
    site.daemon.restart();
    assert_eq!(site.daemon.finished(&ends).await["outcome"]["result"], "succeeded");
    let deleted = site.daemon.finished(&gated).await;
    assert_eq!(deleted["outcome"]["by"], "kubernetes: its pod was deleted", "{deleted:#}");
    assert_eq!(site.daemon.finished(&site.job_of_pod("comes").await).await["outcome"]["result"], "succeeded");
    site.watch("Pod", "gated", Value::is_null).await;
    let jobs = site.jobs().await;
    assert_eq!(jobs.iter().filter(|job| job["spec"]["name"] == "ends").count(), 1, "imported once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tainted_node_takes_whoever_tolerates_it() {
    let taint = ("nvidia.com/gpu".to_owned(), "present".to_owned(), "NoSchedule".to_owned());
    let tainted = NodeSpec { taints: vec![taint], ..NodeSpec::with_gpus("gpu-0") };
    let Some(site) = Site::with("a tainted node and pods", vec![tainted]).await else { return };
    site.apply(&lone("shy", 1, "2h", "0", json!({})));
    let told = site.watch("Pod", "shy", |pod| condition(pod, "PodScheduled")["reason"] == "Unschedulable").await;
    let message = condition(&told, "PodScheduled")["message"].as_str().unwrap();
    assert!(message.contains("scheduling.flash-sched.io/tainted"), "{message}");
    site.apply(&lone("bold", 1, "2h", "0", json!({"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]})));
    site.watch("Pod", "bold", |pod| node(pod) == "gpu-0").await;
}

/// Killed again and again, wherever it is just then: each pod is bound once, runs once, and its job ends as it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_killed_between_placing_and_binding_binds_once() {
    let Some(mut site) = Site::start("pods and a daemon that is killed").await else { return };
    for round in 0..4_u32 {
        let names: Vec<String> = (0..6).map(|number| format!("pod-{round}-{number}")).collect();
        let mut events = site.daemon.events("/api/v1/events?after=0").await;
        for name in &names {
            site.apply(&lone(name, 2, "200ms", "0", json!({})));
        }
        // One of them is placed: others are being bound, or wait to be.
        let placed = async {
            loop {
                let event = events.next().await.expect("the stream ended early");
                let id = event["job"].as_str().unwrap_or_default();
                if event["state"] == "starting"
                    && site.daemon.job(id).await["spec"]["name"].as_str().is_some_and(|name| names.iter().any(|own| own == name))
                {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, placed).await.unwrap();
        site.daemon.kill();
        site.daemon.restart();
        for name in &names {
            let pod = site.watch("Pod", name, |pod| pod["status"]["phase"] == "Succeeded").await;
            let job = site.daemon.finished(&site.job_of_pod(name).await).await;
            assert_eq!(job["outcome"]["result"], "succeeded", "{job:#}\n{pod:#}\n{}", site.daemon.log());
        }
    }
    assert_eq!(site.jobs().await.len(), 24, "each is imported once");
}
