//! Pods that somebody else made for our scheduler: claimed, bound, and let go as they were.

use executors::{GangOrder, PodOrder, RunPhase, StartOrder};
use scheduler_core::event::RunResult;
use serde_json::{Value, json};

use crate::gangs::{again, foreign, of_run, on, pods};
use crate::rig::{Rig, Site, instance, order, stop_after};

fn get(site: &Site, name: &str) -> Value {
    serde_json::from_str(&site.cluster.kubectl(&["get", "pod", name, "--output", "json"]).unwrap()).unwrap()
}

/// Such a pod, and the order that it be run on this node.
fn made(site: &Site, name: &str, node: &str, gpus: u32, duration: &str) -> StartOrder {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": {
        "schedulerName": "flash-scheduler", "restartPolicy": "Never", "containers": [{"name": "c", "image": "any",
            "env": [{"name": "SIM_DURATION", "value": duration}], "resources": {"limits": {"nvidia.com/gpu": gpus.to_string()}}}]}});
    site.cluster.kubectl_with(&["create", "--filename", "-"], &pod.to_string()).unwrap();
    let uid = get(site, name)["metadata"]["uid"].as_str().unwrap().to_owned();
    let order = on(&[node], gpus, order(duration, "0"));
    let pod = order.pod.clone().unwrap();
    let gang = GangOrder { lone: true, flash_job: name.to_owned(), uid: Some(uid), ..pod.gang.clone().unwrap() };
    StartOrder { pod: Some(PodOrder { gang: Some(gang), ..pod }), ..order }
}

async fn not_begun(rig: &mut Rig, order: &StartOrder) -> String {
    let run = order.run;
    let so = |report: &executors::Report| matches!(report, executors::Report::NotBegun { run: told, .. } if *told == run);
    match rig.told(so).await {
        executors::Report::NotBegun { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_claimed_pod_is_bound_by_whoever_finds_it() {
    let Some(site) = Site::shared() else { return };
    let instance = instance();
    let order = made(site, "left", "node-0", 0, "50ms");
    // As whoever was killed before it bound the pod left it.
    let claim = json!({"metadata": {"finalizers": ["scheduling.flash-sched.io/run"],
        "labels": {"scheduling.flash-sched.io/live": instance, "scheduling.flash-sched.io/instance": instance,
            "scheduling.flash-sched.io/job-id": order.run.job.to_string(), "scheduling.flash-sched.io/attempt": "1"},
        "annotations": {"scheduling.flash-sched.io/gang-size": "1", "scheduling.flash-sched.io/node": "node-0",
            "scheduling.flash-sched.io/task": "task"}}});
    site.cluster.kubectl(&["patch", "pod", "left", "--patch", &claim.to_string()]).unwrap();
    let mut rig = site.gang_daemon(&instance).await;
    let run = rig.start(order).await;
    rig.started(run).await;
    assert_eq!(rig.ended(run).await, RunResult::Succeeded);
    rig.executor.forget(vec![run]).await.unwrap();
    let pod = get(site, "left");
    assert_eq!((&pod["spec"]["nodeName"], &pod["metadata"]["finalizers"]), (&json!("node-0"), &Value::Null), "{pod:#}");
    assert_eq!(rig.executor.observe().await.unwrap(), []);
}

#[tokio::test]
async fn a_pod_that_finds_the_room_taken_is_let_go_as_it_was() {
    let Some(site) = Site::start("a pod and the room of another") else { return };
    let mut rig = site.gang_daemon(&instance()).await;
    site.cluster.kubectl_with(&["create", "--filename", "-"], &foreign("intruder", "gpu-0", 1)).unwrap();
    let order = made(&site, "waits", "gpu-0", 8, "2h");
    let before = get(&site, "waits");
    rig.start(order.clone()).await;
    let message = not_begun(&mut rig, &order).await;
    assert!(message.contains("node gpu-0 has 8 nvidia.com/gpu"), "{message}");
    let after = get(&site, "waits");
    for part in ["labels", "annotations", "finalizers"] {
        assert_eq!(before["metadata"][part], after["metadata"][part]);
    }
    rig.executor.forget(vec![order.run]).await.unwrap();

    // The next try is another run of the same pod; what is left of the first does not touch it.
    site.cluster.kubectl(&["delete", "pod", "intruder", "--wait"]).unwrap();
    let next = again(order.clone());
    let run = rig.start(next).await;
    rig.started(run).await;
    rig.executor.forget(vec![order.run]).await.unwrap();
    assert!(matches!(rig.phase(run).await, Some(RunPhase::Running { .. })));
    assert_eq!(pods(&site, &of_run(run)).len(), 1);

    // Stopping it is deleting it.
    rig.executor.stop(run, stop_after(5)).await.unwrap();
    assert!(matches!(rig.ended(run).await, RunResult::Failed { .. }));
    rig.executor.forget(vec![run]).await.unwrap();
    rig.until(run, Option::is_none).await;
    assert_eq!(pods(&site, &of_run(run)), Vec::<Value>::new());
}

#[tokio::test]
async fn a_pod_that_is_another_by_now_is_left_alone() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.gang_daemon(&instance()).await;
    let mut order = made(site, "another", "node-0", 0, "2h");
    let gang = order.pod.as_mut().and_then(|pod| pod.gang.as_mut()).unwrap();
    gang.uid = Some("00000000-0000-0000-0000-000000000001".to_owned());
    rig.start(order.clone()).await;
    assert!(not_begun(&mut rig, &order).await.contains("pod another was deleted"));
    assert_eq!(get(site, "another")["spec"]["nodeName"], Value::Null);
}
