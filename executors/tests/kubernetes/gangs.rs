//! The `flashjob` executor: what every executor does with runs, and that a gang is bound whole or not at all.

use control_plane::{NodeSpec, Objects, Part, Watched};
use executors::{GangOrder, GangPlace, PodOrder, RunPhase, StartOrder};
use scheduler_core::event::RunResult;
use scheduler_core::ids::{Attempt, RunId};
use scheduler_core::state::FailReason;
use serde_json::{Value, json};

use crate::rig::{Rig, Site, instance, order, replicas, stop_after};

/// The order with its tasks on these nodes, each with so many GPUs.
pub(crate) fn on(nodes: &[&str], gpus: u32, order: StartOrder) -> StartOrder {
    let order = if nodes.len() > 1 { replicas(u32::try_from(nodes.len()).unwrap(), order) } else { order };
    let place = |(index, node): (usize, &&str)| GangPlace {
        index: u32::try_from(index).unwrap(),
        node: (*node).to_owned(),
        gpus,
        gpu_resource: "nvidia.com/gpu".to_owned(),
    };
    let gang = GangOrder {
        flash_job: format!("fj-{}", &order.run.job.to_string()[..23]),
        lone: false,
        uid: None,
        queue: "default-batch".to_owned(),
        ttl_secs: None,
        places: nodes.iter().enumerate().map(place).collect(),
    };
    // Made by us is known by the end of the name.
    let name = executors::kubernetes::flashjob::flash_job_name("fj", order.run.job);
    let pod = order.pod.clone().map(|pod| PodOrder { gang: Some(GangOrder { flash_job: name, ..gang }), ..pod });
    StartOrder { pod, ..order }
}

/// The next attempt of the same job.
pub(crate) fn again(mut order: StartOrder) -> StartOrder {
    order.run = RunId { attempt: Attempt(order.run.attempt.0 + 1), ..order.run };
    order
}

pub(crate) fn pods(site: &Site, selector: &str) -> Vec<Value> {
    let text = site.cluster.kubectl(&["get", "pods", "--all-namespaces", "--selector", selector, "--output", "json"]).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["items"].as_array().unwrap().clone()
}

pub(crate) fn of_run(run: RunId) -> String {
    format!("scheduling.flash-sched.io/job-id={},scheduling.flash-sched.io/attempt={}", run.job, run.attempt)
}

/// A pod of somebody else, put on a node by hand.
pub(crate) fn foreign(name: &str, node: &str, gpus: u32) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": {"nodeName": node,
        "restartPolicy": "Never", "containers": [{"name": "c", "image": "any", "env": [{"name": "SIM_DURATION", "value": "2h"}],
            "resources": {"limits": {"nvidia.com/gpu": gpus.to_string()}}}]}})
    .to_string()
}

async fn not_begun(rig: &mut Rig, run: RunId) -> String {
    let so = |report: &executors::Report| matches!(report, executors::Report::NotBegun { run: told, .. } if *told == run);
    match rig.told(so).await {
        executors::Report::NotBegun { message, .. } => message,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn gangs_end_as_their_pods_do() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.gang_daemon(&instance()).await;
    let good = rig.start(on(&["node-0"], 0, order("50ms", "0"))).await;
    let bad = rig.start(on(&["node-1"], 0, order("50ms", "3"))).await;
    let gang = rig.start(on(&["node-0", "node-1", "node-0"], 0, order("50ms", "0"))).await;
    rig.started(gang).await;
    assert_eq!(rig.ended(good).await, RunResult::Succeeded);
    let reason = FailReason::ExitCode { task: "main".into(), code: 3 };
    assert_eq!(rig.ended(bad).await, RunResult::Failed { reason });
    assert_eq!(rig.ended(gang).await, RunResult::Succeeded);
    let nodes: Vec<Value> = pods(site, &of_run(gang)).iter().map(|pod| pod["spec"]["nodeName"].clone()).collect();
    assert_eq!(nodes, ["node-0", "node-1", "node-0"]);
    let flash_job = format!("fj-{}", &gang.job.to_string()[24..]);
    let owner = &pods(site, &of_run(gang))[0]["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("FlashJob"), &json!(flash_job)));
    rig.executor.forget(vec![good, bad, gang, order("1s", "0").run]).await.unwrap();
    assert_eq!(rig.executor.observe().await.unwrap(), []);
    assert_eq!(pods(site, &of_run(gang)).len(), 3, "their logs can still be read");
    assert_eq!(rig.ends(gang), 1);
}

#[tokio::test]
async fn an_order_that_is_given_again_and_a_stop_that_is_given_again() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.gang_daemon(&instance()).await;
    let order = on(&["node-0", "node-1"], 0, order("2h", "0"));
    let run = order.run;
    rig.executor.start(vec![order.clone(), order.clone()]).await.unwrap();
    rig.started(run).await;
    rig.executor.start(vec![order.clone()]).await.unwrap();
    rig.until(run, |phase| matches!(phase, Some(RunPhase::Running { .. }))).await;
    assert_eq!(pods(site, &of_run(run)).len(), 2);
    rig.executor.forget(vec![run]).await.unwrap();
    assert!(matches!(rig.phase(run).await, Some(RunPhase::Running { .. })), "what runs is not forgotten");
    rig.executor.stop(run, stop_after(30)).await.unwrap();
    rig.executor.stop(run, stop_after(1)).await.unwrap();
    let ended = rig.ended(run).await;
    assert!(matches!(ended, RunResult::Failed { reason: FailReason::Signal { signal: 15, .. } }), "{ended:?}");
    rig.executor.start(vec![order]).await.unwrap();
    assert!(matches!(rig.phase(run).await, Some(RunPhase::Ended { .. })), "what has ended is not started again");
    rig.executor.forget(vec![run]).await.unwrap();
    rig.until(run, Option::is_none).await;
    assert_eq!(pods(site, &of_run(run)), Vec::<Value>::new(), "what was deleted goes when it is forgotten");
}

#[tokio::test]
async fn who_fails_ends_the_gang_and_the_next_attempt_is_of_the_same_flash_job() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.gang_daemon(&instance()).await;
    let mut order = on(&["node-0", "node-1"], 0, order("2h", "0"));
    for (key, value) in [("SIM_DURATION", "50ms"), ("SIM_EXIT", "7")] {
        order.tasks[1].env.insert(key.to_owned(), value.to_owned());
    }
    let first = rig.start(order.clone()).await;
    let reason = FailReason::ExitCode { task: "main-1".into(), code: 7 };
    assert_eq!(rig.ended(first).await, RunResult::Failed { reason });
    rig.executor.forget(vec![first]).await.unwrap();
    let next = again(order);
    let second = rig.start(next).await;
    rig.ended(second).await;
    let owners = |run: RunId| pods(site, &of_run(run))[0]["metadata"]["ownerReferences"][0]["uid"].clone();
    assert_eq!(owners(first), owners(second));
}

/// A request of an executor that was killed may be carried out when the next one has looked already.
#[tokio::test]
async fn half_a_gang_that_comes_late_is_taken_back_and_never_bound() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.gang_daemon(&instance()).await;
    let order = on(&["node-0", "node-1"], 0, order("50ms", "0"));
    let first = rig.start(order.clone()).await;
    assert_eq!(rig.ended(first).await, RunResult::Succeeded);
    let mut half = pods(site, &of_run(first))[0].clone();
    rig.executor.forget(vec![first]).await.unwrap();
    let late = again(order).run;
    for server_made in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        half["metadata"].as_object_mut().unwrap().remove(server_made);
    }
    half["metadata"]["name"] = json!(half["metadata"]["name"].as_str().unwrap().replace("-0-1", "-0-2"));
    half["metadata"]["labels"]["scheduling.flash-sched.io/attempt"] = json!(late.attempt.to_string());
    half["spec"].as_object_mut().unwrap().remove("nodeName");
    half["status"] = json!({});
    site.cluster.kubectl_with(&["create", "--filename", "-"], &half.to_string()).unwrap();
    assert!(rig.phase(late).await.is_some(), "whoever looks finds it");
    let message = not_begun(&mut rig, late).await;
    assert!(message.contains("before all were there"), "{message}");
    rig.executor.forget(vec![late]).await.unwrap();
    assert_eq!(pods(site, &of_run(late)), Vec::<Value>::new());
    assert_eq!(rig.executor.observe().await.unwrap(), []);
}

#[tokio::test]
async fn a_gang_that_finds_the_room_taken_is_given_back_whole() {
    let nodes = (0..8).map(|number| NodeSpec::with_gpus(format!("gpu-{number}"))).collect();
    let Some(site) = Site::with("gangs of 8 x 8 GPUs", nodes) else { return };
    let instance = instance();
    let mut rig = site.gang_daemon(&instance).await;
    let names: Vec<String> = (0..8).map(|number| format!("gpu-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // Somebody took a GPU of the last node after it was decided where the gang goes.
    site.cluster.kubectl_with(&["create", "--filename", "-"], &foreign("intruder", "gpu-7", 1)).unwrap();
    let whole = on(&names, 8, order("2h", "0"));
    let run = rig.start(whole.clone()).await;
    let message = not_begun(&mut rig, run).await;
    assert!(message.contains("node gpu-7 has 8 nvidia.com/gpu, and its pods would ask for 9"), "{message}");
    assert_eq!(pods(&site, &of_run(run)), Vec::<Value>::new());
    assert!(matches!(rig.phase(run).await, Some(RunPhase::NotBegun { .. })), "kept until it is forgotten");
    rig.executor.forget(vec![run]).await.unwrap();
    assert_eq!(rig.executor.observe().await.unwrap(), []);

    site.cluster.kubectl(&["delete", "pod", "intruder", "--wait=true"]).unwrap();
    let run = rig.start(again(whole)).await;
    rig.started(run).await;
    let bound = pods(&site, &of_run(run));
    let mut nodes: Vec<&str> = bound.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, names);
    // No second one beside it, and the one that runs is not touched.
    let other = rig.start(on(&names[..2], 1, order("2h", "0"))).await;
    not_begun(&mut rig, other).await;
    assert!(matches!(rig.phase(run).await, Some(RunPhase::Running { .. })));
    // One pod is deleted by hand: all of it is lost.
    let victim = bound[3]["metadata"]["name"].as_str().unwrap();
    site.cluster.kubectl(&["delete", "pod", victim, "--wait=false"]).unwrap();
    assert!(matches!(rig.ended(run).await, RunResult::Lost { .. }));
    let running = ["get", "pods", "--field-selector=status.phase=Running", "--output", "name"];
    assert_eq!(site.cluster.kubectl(&running).unwrap(), "");
    // A node that is not to be used, and one that is not there.
    site.cluster.kubectl(&["cordon", "gpu-0"]).unwrap();
    let cordoned = rig.start(on(&names[..2], 1, order("1s", "0"))).await;
    assert!(not_begun(&mut rig, cordoned).await.contains("cordoned"));
    let nowhere = rig.start(on(&["gpu-1", "gone"], 1, order("1s", "0"))).await;
    assert!(not_begun(&mut rig, nowhere).await.contains("no node gone"));
}

/// Killed when all was bound and before it had looked who else came there: whoever adopts it looks, as long as it has not begun.
#[tokio::test]
async fn a_gang_that_was_bound_and_not_looked_at_again_is_looked_at_when_it_is_adopted() {
    let nodes = ["gpu-0", "gpu-1", "gpu-2"];
    let Some(site) = Site::with("a gang beside a stranger", nodes.map(NodeSpec::with_gpus).to_vec()) else { return };
    if !site.cluster.is_ours() {
        return;
    }
    let instance = instance();
    let mut rig = site.gang_daemon(&instance).await;
    let runs = rig.start(on(&nodes[2..], 8, order("2h", "0"))).await;
    rig.started(runs).await;
    // From now on nobody begins what is bound.
    site.cluster.kill_part(Part::Kwok).unwrap();
    let waits = rig.start(on(&nodes[..2], 8, order("2h", "0"))).await;
    let watched = Watched::pods(&site.kubeconfig).await;
    let of_it = |pod: &Value| pod["metadata"]["labels"]["scheduling.flash-sched.io/job-id"] == waits.job.to_string();
    let all = |objects: &Objects, so: &dyn Fn(&Value) -> bool| {
        (objects.values().filter(|pod| of_it(pod) && so(pod)).count() == 2).then_some(())
    };
    watched.find("both are bound", |objects| all(objects, &|pod| pod["spec"]["nodeName"].is_string())).await;
    drop(rig);
    for (name, node) in [("stranger", "gpu-1"), ("late-stranger", "gpu-2")] {
        site.cluster.kubectl_with(&["create", "--filename", "-"], &foreign(name, node, 1)).unwrap();
    }

    let mut rig = site.gang_daemon(&instance).await;
    watched.find("both are taken back", |objects| all(objects, &|pod| pod["metadata"]["deletionTimestamp"].is_string())).await;
    site.cluster.start_part(Part::Kwok).unwrap();
    let message = not_begun(&mut rig, waits).await;
    assert!(message.contains("somebody else took the room: node gpu-1 has 8 nvidia.com/gpu"), "{message}");
    assert!(matches!(rig.phase(runs).await, Some(RunPhase::Running { .. })), "what has begun is left alone");
    assert_eq!(rig.ends(runs), 0);
}

#[tokio::test]
async fn mig_instances_are_counted_like_gpus() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.gang_daemon(&instance()).await;
    let with = |count: u32| {
        let mut order = on(&["mig-0", "mig-0"], count, order("2h", "0"));
        for place in &mut order.pod.as_mut().unwrap().gang.as_mut().unwrap().places {
            place.gpu_resource = "nvidia.com/mig-1g.10gb".to_owned();
        }
        order
    };
    let six = rig.start(with(3)).await;
    rig.started(six).await;
    let more = rig.start(with(1)).await;
    let message = not_begun(&mut rig, more).await;
    assert!(message.contains("node mig-0 has 7 nvidia.com/mig-1g.10gb, and its pods would ask for 8"), "{message}");
    assert_eq!(pods(site, &of_run(more)), Vec::<Value>::new());
    for pod in pods(site, &of_run(six)) {
        assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/mig-1g.10gb"], "3");
    }
    rig.executor.stop(six, stop_after(1)).await.unwrap();
    rig.ended(six).await;
    rig.executor.forget(vec![six, more]).await.unwrap();
}

#[tokio::test]
async fn what_can_never_start_ends_with_what_to_do() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.gang_daemon(&instance()).await;
    let mut elsewhere = on(&["node-0"], 0, order("1s", "0"));
    elsewhere.pod = elsewhere.pod.map(|pod| PodOrder { namespace: "nowhere".to_owned(), ..pod });
    let mut wrong = on(&["node-0"], 0, order("1s", "0"));
    let place = &mut wrong.pod.as_mut().unwrap().gang.as_mut().unwrap().places[0];
    (place.gpus, place.gpu_resource) = (1, "no/such/thing".to_owned());
    let without = order("1s", "0");
    for (order, words) in
        [(elsewhere, "kubectl create namespace nowhere"), (wrong, "no/such/thing"), (without, "nothing of nodes")]
    {
        let run = rig.start(order).await;
        match rig.told(|report| matches!(report, executors::Report::Ended { run: told, .. } | executors::Report::NotBegun { run: told, .. } if *told == run)).await {
            executors::Report::Ended { result: RunResult::Failed { reason: FailReason::Start { message } }, .. } => {
                assert!(message.as_str().contains(words), "{message}");
            }
            executors::Report::NotBegun { message, .. } => assert!(message.contains(words), "{message}"),
            other => panic!("{other:?}"),
        }
        rig.executor.forget(vec![run]).await.unwrap();
    }
    assert_eq!(rig.executor.observe().await.unwrap(), []);
}

#[tokio::test]
async fn what_is_refused_holds_no_room() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.gang_daemon(&instance()).await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "one", "namespace": "full"},
        "spec": {"hard": {"pods": "1"}}});
    site.cluster.kubectl(&["create", "namespace", "full"]).unwrap();
    site.cluster.kubectl_with(&["create", "--filename", "-"], &quota.to_string()).unwrap();
    // As its controller does it, which does not run here.
    let status = json!({"status": {"hard": {"pods": "1"}, "used": {"pods": "0"}}}).to_string();
    let patch = ["patch", "resourcequota", "one", "--namespace=full", "--subresource=status", "--type=merge", "--patch", &status];
    site.cluster.kubectl(&patch).unwrap();
    // Most of a node's memory; nobody else asks for some.
    let large = |namespace: &str, nodes: &[&str]| {
        let mut order = on(nodes, 0, order("2h", "0"));
        order.tasks.iter_mut().for_each(|task| task.memory_bytes = 40 << 30);
        order.pod = order.pod.map(|pod| PodOrder { namespace: namespace.to_owned(), ..pod });
        order
    };
    // One of the two is made before the other is refused.
    let refused = rig.start(large("full", &["node-0", "node-1"])).await;
    assert!(not_begun(&mut rig, refused).await.contains("exceeded quota"));
    rig.executor.forget(vec![refused]).await.unwrap();
    assert_eq!(pods(site, &of_run(refused)), Vec::<Value>::new());
    let taken = rig.start(large("default", &["node-0", "node-1"])).await;
    rig.started(taken).await;
    rig.executor.stop(taken, stop_after(1)).await.unwrap();
    rig.ended(taken).await;
    rig.executor.forget(vec![taken]).await.unwrap();
}

#[tokio::test]
async fn what_admission_adds_is_known_after_the_first_pod_of_a_namespace() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.gang_daemon(&instance()).await;
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "more", "namespace": "limited"}, "spec": {
        "limits": [{"type": "Container", "defaultRequest": {"ephemeral-storage": "1Gi"}}]}});
    site.cluster.kubectl(&["create", "namespace", "limited"]).unwrap();
    site.cluster.kubectl_with(&["create", "--filename", "-"], &range.to_string()).unwrap();
    let limited = || {
        let mut order = on(&["node-0"], 0, order("2h", "0"));
        order.pod = order.pod.map(|pod| PodOrder { namespace: "limited".to_owned(), ..pod });
        order
    };
    // Nobody could know: it is created where it goes, and gives way.
    let first = rig.start(limited()).await;
    let over = |run: RunId| {
        move |report: &executors::Report| match report {
            executors::Report::Ended { run: told, result: RunResult::Lost { message }, .. } => {
                *told == run && message.as_str().contains("ephemeral-storage")
            }
            executors::Report::NotBegun { run: told, message, .. } => *told == run && message.contains("ephemeral-storage"),
            _ => false,
        }
    };
    rig.told(over(first)).await;
    // Now it is known, and none is bound that has no room.
    let second = rig.start(limited()).await;
    assert!(not_begun(&mut rig, second).await.contains("ephemeral-storage"));
    assert!(pods(site, &of_run(second)).iter().all(|pod| pod["spec"]["nodeName"].is_null()));
    rig.executor.forget(vec![second]).await.unwrap();
    assert_eq!(pods(site, &of_run(second)), Vec::<Value>::new());
}
