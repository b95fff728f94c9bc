//! MIG instances: asked for by FlashJobs, pods and jobs, counted on each node by profile.

use control_plane::{NodeSpec, Referee};
use serde_json::{Value, json};

use crate::rig::{Site, condition, flash_job, lone};

const SMALL: &str = "nvidia.com/mig-1g.10gb";
/// Several pods have each of them at the same time.
const SHARED: &str = "nvidia.com/mig-1g.10gb.shared";

/// Two whole GPUs, and so many instances.
fn node(name: &str, small: u64) -> NodeSpec {
    NodeSpec { gpus: 2, devices: vec![(SMALL.to_owned(), small)], ..NodeSpec::plain(name) }
}

/// The same with these limits in each pod.
pub(crate) fn asking(mut object: Value, limits: &Value) -> Value {
    let set = |pod: &mut Value| pod["containers"][0]["resources"]["limits"] = limits.clone();
    match object["spec"]["tasks"].as_array_mut() {
        Some(tasks) => tasks.iter_mut().for_each(|task| set(&mut task["spec"])),
        None => set(&mut object["spec"]),
    }
    object
}

/// Why the job of a FlashJob does not run.
pub(crate) async fn why(site: &Site, name: &str) -> String {
    let job = site.job_of(name).await;
    let (_, why) = site.daemon.get(&format!("/api/v1/jobs/{job}/why")).await;
    why["message"].as_str().unwrap().to_owned()
}

/// A pod that somebody else put on a node runs there, with these.
pub(crate) async fn taken_by_another(site: &Site, node: &str, limits: &Value) {
    let container = json!({"name": "c", "image": "any", "env": [{"name": "SIM_DURATION", "value": "2h"}],
        "resources": {"limits": limits}});
    site.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs", "namespace": "default"},
        "spec": {"nodeName": node, "restartPolicy": "Never", "containers": [container]}}));
    site.watch("Pod", "theirs", |pod| pod["status"]["phase"] == "Running").await;
}

/// Sixteen gangs of two that are soon over; their names.
pub(crate) fn many_small(site: &Site, limits: &Value) -> Vec<String> {
    let names: Vec<String> = (0..16).map(|number| format!("small-{number}")).collect();
    for name in &names {
        site.apply(&asking(flash_job(name, 2, 0, "100ms", "0"), limits));
    }
    names
}

/// A FlashJob and a pod of this name that ask for these are told in such words that they cannot have them.
pub(crate) async fn refused(site: &Site, name: &str, limits: &Value, words: &str) {
    let objects = [
        ("FlashJob", "Valid", flash_job(name, 1, 0, "50ms", "0")),
        ("Pod", "PodScheduled", lone(name, 0, "50ms", "0", json!({}))),
    ];
    for (kind, said_in, object) in objects {
        site.apply(&asking(object, limits));
        let wrong = site.watch(kind, name, |object| condition(object, said_in)["status"] == "False").await;
        let message = condition(&wrong, said_in)["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_counted_by_profile() {
    let Some(site) = Site::with("MIG instances", vec![node("mig-0", 7), node("mig-1", 7)]).await else { return };
    let referee = Referee::over(site.cluster.kubeconfig(), &[(SMALL, 7), ("nvidia.com/gpu", 2)]).await;
    let three = json!({SMALL: "3"});

    // A gang has them, and whole GPUs are beside them.
    site.apply(&asking(flash_job("gang", 4, 0, "2h", "0"), &three));
    site.phase("gang", "Running").await;
    site.apply(&flash_job("whole", 2, 2, "2h", "0"));
    site.phase("whole", "Running").await;
    // One of each node is left: who asks for one has it, and a gang waits for more.
    site.apply(&asking(lone("single", 0, "2h", "0", json!({})), &json!({SMALL: "1"})));
    site.watch("Pod", "single", |pod| pod["status"]["phase"] == "Running").await;
    site.apply(&asking(flash_job("waits", 2, 0, "50ms", "0"), &three));
    let why = why(&site, "waits").await;
    assert!(why.contains("it needs 6 MIG instances 1g.10gb together, and 1 of 14 is free"), "{why}");
    site.cluster.kubectl(&["delete", "flashjob", "gang", "--wait=false"]).unwrap();
    site.phase("waits", "Succeeded").await;

    // What somebody else has on a node is not given out.
    taken_by_another(&site, "mig-0", &json!({SMALL: "6"})).await;
    // Many small ones, one after the other, in what is left: three at a time.
    let names = many_small(&site, &json!({SMALL: "1"}));
    // A job that came by REST, of two kinds.
    let both = json!({"name": "both", "image": "any", "env": {"SIM_DURATION": "50ms"}, "tasks": [
        {"name": "part", "replicas": 2, "command": ["p"], "resources": {"cpu": "100m", "gpu": 2, "migProfile": "1g.10gb"}},
        {"name": "plain", "command": ["w"], "resources": {"cpu": "100m"}}]});
    let both = site.daemon.submit(both).await;
    assert_eq!(site.daemon.finished(&both).await["outcome"]["result"], "succeeded", "{}", site.daemon.log());
    let made = site.phase(&format!("both-{}", both.rsplit('-').next().unwrap()), "Succeeded").await;
    let limits = |task: usize| made["spec"]["tasks"][task]["spec"]["containers"][0]["resources"]["limits"].clone();
    assert_eq!((&limits(1)[SMALL], &limits(2)[SMALL]), (&json!("2"), &Value::Null));
    for name in &names {
        site.phase(name, "Succeeded").await;
    }
    assert_eq!(referee.wrong(), Vec::<String>::new());
    assert!(referee.bound() >= 4 + 2 + 1 + 2 + 32 + 3, "{}", referee.bound());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_is_said_where_it_was_asked_for() {
    let Some(site) = Site::with("MIG instances that are not there", vec![node("mig-0", 7)]).await else { return };
    for (name, limits, words) in [
        ("other", json!({"nvidia.com/mig-2g.20gb": "1"}), "there are MIG instances of the profiles (1g.10gb)"),
        ("many", json!({SMALL: "8"}), "asks for 8 MIG instances of the profile \"1g.10gb\", the largest node has 7"),
        ("mixed", json!({SMALL: "1", "nvidia.com/gpu": "1"}), "a pod gets GPUs of one kind here; write one of the two"),
    ] {
        refused(&site, name, &limits, words).await;
    }
    // A node that has them comes: what was wrong is taken.
    let large = NodeSpec { devices: vec![("nvidia.com/mig-2g.20gb".to_owned(), 3)], ..NodeSpec::plain("mig-1") };
    site.cluster.add_nodes(&[large]).unwrap();
    site.phase("other", "Succeeded").await;
}

/// Replicas of MIG instances, and whatever else a plugin gives out: the core does not count them, and nobody gets one that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_counted_is_had_where_it_is() {
    let replicas = NodeSpec { devices: vec![(SHARED.to_owned(), 4)], ..NodeSpec::plain("share-0") };
    let Some(site) = Site::with("replicas of MIG instances", vec![NodeSpec::plain("node-0"), replicas]).await else { return };
    let referee = Referee::over(site.cluster.kubeconfig(), &[(SHARED, 4)]).await;
    let one = json!({SHARED: "1"});
    let names: Vec<String> = (0..4).map(|number| format!("share-{number}")).collect();
    for name in &names {
        site.apply(&asking(flash_job(name, 1, 0, "2h", "0"), &one));
    }
    for name in &names {
        let running = site.phase(name, "Running").await;
        assert_eq!(running["status"]["placements"][0]["node"], "share-0", "{running:#}");
    }
    site.apply(&asking(flash_job("next", 1, 0, "50ms", "0"), &one));
    site.job_of("next").await;
    site.cluster.kubectl(&["delete", "flashjob", "share-2", "--wait=false"]).unwrap();
    site.phase("next", "Succeeded").await;
    site.apply(&asking(flash_job("nowhere", 1, 0, "50ms", "0"), &json!({"example.com/fpga": "1"})));
    let wrong = site.watch("FlashJob", "nowhere", |object| condition(object, "Valid")["status"] == "False").await;
    let message = condition(&wrong, "Valid")["message"].as_str().unwrap();
    assert!(message.contains("asks for nodes where has.flash-sched.io/example.com_fpga exists, there is none"), "{message}");
    assert_eq!(referee.wrong(), Vec::<String>::new());
}
