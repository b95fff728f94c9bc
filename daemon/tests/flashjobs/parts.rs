//! Parts of GPUs: asked for by FlashJobs, pods and jobs, one a pod, as large as their nodes make them.

use control_plane::{NodeSpec, Referee};
use serde_json::{Value, json};

use crate::mig::{asking, many_small, refused, taken_by_another, why};
use crate::rig::{Site, flash_job, lone};

const SHARED: &str = "nvidia.com/gpu.shared";

/// Four parts, so many of them of one GPU; 0: it does not say of how many.
fn node(name: &str, replicas: u32) -> NodeSpec {
    let label = |key: &str, value: String| (key.to_owned(), value);
    let mut labels = vec![label("nvidia.com/gpu.memory", "80000".to_owned())];
    if replicas > 0 {
        labels.push(label("nvidia.com/gpu.replicas", replicas.to_string()));
    }
    NodeSpec { devices: vec![(SHARED.to_owned(), 4)], labels, ..NodeSpec::plain(name) }
}

fn one() -> Value {
    json!({SHARED: "1"})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_has_one_part_and_never_more_than_there_are() {
    let Some(site) = Site::with("parts of GPUs", vec![node("quarter-0", 4), node("half-0", 2)]).await else { return };
    let referee = Referee::over(site.cluster.kubeconfig(), &[(SHARED, 4)]).await;

    // A gang has them, of both nodes, and each counts as what its node makes it.
    site.apply(&asking(flash_job("gang", 6, 0, "2h", "0"), &one()));
    site.phase("gang", "Running").await;
    let gang = site.job_of("gang").await;
    let (_, job) = site.daemon.get(&format!("/api/v1/jobs/{gang}")).await;
    for placed in job["placement"].as_array().unwrap() {
        let size = if placed["node"] == "quarter-0" { "250m" } else { "500m" };
        assert_eq!(placed["gpuShare"]["gpu"], size, "{job:#}");
    }
    assert_eq!(job["spec"]["tasks"][0]["resources"]["gpu"], "1m", "any will do");
    site.apply(&asking(lone("single", 0, "2h", "0", json!({})), &one()));
    site.watch("Pod", "single", |pod| pod["status"]["phase"] == "Running").await;
    site.apply(&asking(flash_job("waits", 2, 0, "50ms", "0"), &one()));
    let why = why(&site, "waits").await;
    assert!(why.contains("it needs 2 parts of GPUs together, and 1 of 8 is free"), "{why}");
    site.cluster.kubectl(&["delete", "flashjob", "gang", "--wait=false"]).unwrap();
    site.phase("waits", "Succeeded").await;

    // What somebody else has on a node is not given out.
    taken_by_another(&site, "quarter-0", &json!({SHARED: "3"})).await;
    // Many small ones, one after the other, in what is left.
    let names = many_small(&site, &one());
    // A job that came by REST goes where the parts are as large as it asks.
    let half = json!({"name": "half", "image": "any", "env": {"SIM_DURATION": "50ms"}, "tasks": [
        {"name": "part", "replicas": 2, "command": ["p"], "resources": {"cpu": "100m", "gpu": "0.4"}},
        {"name": "plain", "command": ["w"], "resources": {"cpu": "100m"}}]});
    let half = site.daemon.submit(half).await;
    assert_eq!(site.daemon.finished(&half).await["outcome"]["result"], "succeeded", "{}", site.daemon.log());
    let made = site.phase(&format!("half-{}", half.rsplit('-').next().unwrap()), "Succeeded").await;
    let limits = |task: usize| made["spec"]["tasks"][task]["spec"]["containers"][0]["resources"]["limits"].clone();
    assert_eq!((&limits(1)[SHARED], &limits(2)[SHARED]), (&json!("1"), &Value::Null));
    assert!(made["status"]["placements"].as_array().unwrap()[..2].iter().all(|placed| placed["node"] == "half-0"), "{made:#}");
    for name in &names {
        site.phase(name, "Succeeded").await;
    }
    assert_eq!(referee.wrong(), Vec::<String>::new());
    assert!(referee.bound() >= 6 + 1 + 2 + 32 + 3, "{}", referee.bound());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_is_not_there_is_said_where_it_was_asked_for() {
    let Some(site) = Site::with("parts of GPUs that are not there", vec![NodeSpec::with_gpus("gpu-0")]).await else { return };
    for (name, limits, words) in [
        ("none", one(), "asks for a part of a GPU, no node gives out parts of GPUs"),
        (
            "two",
            json!({SHARED: "2"}),
            "nobody says whether two are of one GPU, or of one that has the other already; write \"1\"",
        ),
        ("mixed", json!({SHARED: "1", "nvidia.com/gpu": "1"}), "a pod gets GPUs of one kind here; write one of the two"),
    ] {
        refused(&site, name, &limits, words).await;
    }
    // A node that has some comes. It does not say how large they are: any part will do, a tenth is promised to nobody.
    site.cluster.add_nodes(&[node("unsaid-0", 0)]).unwrap();
    let done = site.phase("none", "Succeeded").await;
    assert_eq!(done["status"]["placements"][0]["node"], "unsaid-0", "{done:#}");
    let tenth = json!({"image": "any", "command": ["w"], "resources": {"gpu": "0.1"}});
    let (_, refused) = site.daemon.post("/api/v1/jobs", tenth).await;
    let words = "asks for 0.1 of a GPU, the largest part that a node gives out is 0.001";
    assert!(refused["detail"].as_str().unwrap_or_default().contains(words), "{refused:#}");
}
