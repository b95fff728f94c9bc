//! Required node affinity: whatever can be said of labels is known before anything is bound, so nothing is placed in vain.

use control_plane::NodeSpec;
use serde_json::{Value, json};

use crate::mig::why;
use crate::rig::{Site, condition, flash_job};

const MEMORY: &str = "nvidia.com/gpu.memory";

fn node(name: &str, zone: &str, memory: &str) -> NodeSpec {
    let labels = [("zone", zone), (MEMORY, memory)].map(|(key, value)| (key.to_owned(), value.to_owned()));
    NodeSpec { labels: labels.to_vec(), ..NodeSpec::with_gpus(name) }
}

/// A gang of two that wants these terms.
fn wants(name: &str, gpus: u32, duration: &str, terms: Value) -> Value {
    let mut job = flash_job(name, 2, gpus, duration, "0");
    for task in job["spec"]["tasks"].as_array_mut().unwrap() {
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        task["spec"]["affinity"] = json!({"nodeAffinity": required});
    }
    job
}

fn label(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
}

fn by_name(name: &str) -> Value {
    json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_affinity_asks_of_labels_is_known_before_pods_are_bound() {
    let nodes = vec![node("a", "east", "40960"), node("b", "west", "81559"), node("c", "north", "9216")];
    let Some(site) = Site::with("affinity of FlashJobs", nodes).await else { return };
    // The largest and the fullest node first would be others. By the letters 9216 were more than 40960.
    let cases = [
        ("above", json!([label(MEMORY, "Gt", &["50000"])]), ["b"].as_slice()),
        ("below", json!([label(MEMORY, "Lt", &["10000"])]), &["c"]),
        ("either", json!([label("zone", "In", &["east"]), label("zone", "In", &["south"])]), &["a"]),
        // Nothing is said of both alternatives together, and the only node is one of the second, known by its name.
        ("apart", json!([label("zone", "In", &["south"]), by_name("a")]), &["a"]),
        ("differ", json!([label(MEMORY, "Lt", &["10"]), label("zone", "In", &["north"])]), &["c"]),
        ("both", json!([label("zone", "In", &["west"]), label("zone", "In", &["north"])]), &["b", "c"]),
    ];
    for (name, terms, allowed) in cases {
        site.apply(&wants(name, 1, "50ms", terms));
        let done = site.phase(name, "Succeeded").await;
        let placed = done["status"]["placements"].as_array().unwrap();
        assert!(!placed.is_empty() && placed.iter().all(|one| allowed.contains(&one["node"].as_str().unwrap())), "{done:#}");
        let said = site.cluster.kubectl(&["events", "--for", &format!("flashjob/{name}")]).unwrap();
        assert!(!said.contains("TakenBack"), "{said}");
    }
    // What is free elsewhere is no use to it, and what it waits for keeps nobody else waiting.
    site.apply(&wants("holds", 4, "2h", json!([label(MEMORY, "Gt", &["50000"])])));
    site.phase("holds", "Running").await;
    site.apply(&wants("waits", 4, "50ms", json!([label(MEMORY, "Gt", &["50000"])])));
    site.watch("FlashJob", "waits", |job| condition(job, "Valid")["status"] == "True").await;
    site.apply(&flash_job("passes", 2, 8, "50ms", "0"));
    site.phase("passes", "Succeeded").await;
    let told = why(&site, "waits").await;
    assert!(told.contains("GPU"), "{told}");
    let said = site.cluster.kubectl(&["events", "--for", "flashjob/waits"]).unwrap();
    assert!(!said.contains("TakenBack"), "{said}");
    // Nobody has that.
    site.apply(&wants("never", 1, "50ms", json!([label(MEMORY, "Gt", &["100000"])])));
    let told = site.watch("FlashJob", "never", |job| condition(job, "Valid")["status"] == "False").await;
    let message = condition(&told, "Valid")["message"].as_str().unwrap();
    assert!(message.contains("nvidia.com/gpu.memory above 100000") && message.contains("81559"), "{message}");
    let terms = json!([label(MEMORY, "Gt", &["100000"]), by_name("z")]);
    site.apply(&wants("nowhere", 1, "50ms", terms));
    let told = site.watch("FlashJob", "nowhere", |job| condition(job, "Valid")["status"] == "False").await;
    let message = condition(&told, "Valid")["message"].as_str().unwrap();
    assert!(message.contains("either flash-sched.io/hostname in (z), or nvidia.com/gpu.memory above 100000"), "{message}");
    // What our books alone know would be refused by kubelets.
    let mut ours = flash_job("ours", 1, 0, "50ms", "0");
    ours["spec"]["tasks"][0]["spec"]["nodeSelector"] = json!({"flash-sched.io/hostname": "a"});
    site.apply(&ours);
    let told = site.watch("FlashJob", "ours", |job| condition(job, "Valid")["status"] == "False").await;
    let message = condition(&told, "Valid")["message"].as_str().unwrap();
    assert!(
        message.contains("nodeSelector: `flash-sched.io/hostname`") && message.contains("kubernetes.io/hostname"),
        "{message}"
    );
    site.apply(&wants("letters", 1, "50ms", json!([label(MEMORY, "Gt", &["40Gi"])])));
    let told = site.watch("FlashJob", "letters", |job| condition(job, "Valid")["status"] == "False").await;
    let message = condition(&told, "Valid")["message"].as_str().unwrap();
    assert!(message.contains("`Gt` has one value, a whole number"), "{message}");
}
