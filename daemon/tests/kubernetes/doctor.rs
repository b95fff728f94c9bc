//! `flashd doctor` on a cluster: it says what is there and what is not, with what mends it, and leaves nothing behind.

use control_plane::NodeSpec;
use serde_json::{Value, json};

use crate::rig::{FLASH_JOBS, Site};

#[track_caller]
fn line<'a>(text: &'a str, begins: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(begins)).unwrap_or_else(|| panic!("no line begins with `{begins}`:\n{text}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doctor_says_what_a_cluster_lacks() {
    let nodes = vec![NodeSpec::plain("node-0"), NodeSpec::with_gpus("node-1")];
    let Some(mut site) = Site::prepare("what a doctor says", nodes, FLASH_JOBS) else { return };
    let (well, text) = site.daemon.doctor(&[]);
    assert!(well, "{text}");
    assert!(line(&text, "ok    cluster: ").contains("Kubernetes v1."), "{text}");
    assert!(line(&text, "ok    rights: ").contains("all "), "{text}");
    assert!(line(&text, "ok    FlashJobs: ").ends_with("scheduling.flash-sched.io/v1alpha1"), "{text}");
    assert!(line(&text, "ok    Lease: ").ends_with("flash-system/flashd is free"), "{text}");
    assert!(line(&text, "ok    nodes: ").contains("2 of 2 take pods; 8 nvidia.com/gpu"), "{text}");
    assert!(!text.contains("GPUs:"), "those of this machine are not used: {text}");
    let leases = site.cluster.kubectl(&["--namespace", "flash-system", "get", "leases", "--output", "name"]).unwrap();
    assert!(!leases.contains("flashd"), "nothing was made: {leases}");

    // Where there is a daemon.
    site.daemon.restart();
    site.until_ready(hyper::StatusCode::OK, "").await;
    let (well, text) = site.daemon.doctor(&[]);
    assert!(well && line(&text, "ok    Lease: ").contains("is held by "), "{text}");
    assert!(site.daemon.terminate().success());

    // What is missing is named, all of it in one go.
    site.cluster.kubectl(&["delete", "crd", "flashjobs.scheduling.flash-sched.io"]).unwrap();
    site.cluster.kubectl(&["delete", "rolebinding", "flash-sched", "--namespace", "flash-system"]).unwrap();
    let binds =
        json!([{"op": "test", "path": "/rules/3/resources/0", "value": "pods/binding"}, {"op": "remove", "path": "/rules/3"}]);
    let binds = binds.to_string();
    site.cluster.kubectl(&["patch", "clusterrole", "flash-sched", "--type", "json", "--patch", &binds]).unwrap();
    let (well, text) = site.daemon.doctor(&[]);
    let install = "`kubectl apply --server-side -k k8s`";
    assert!(!well && text.contains("3 check(s) failed"), "{text}");
    let rights = line(&text, "FAIL  rights: ");
    assert!(
        rights.contains("create pods/binding") && rights.contains("get leases.coordination.k8s.io") && rights.contains("4 of "),
        "{text}"
    );
    assert!(rights.contains(install) && line(&text, "FAIL  FlashJobs: ").contains(install), "{text}");
    assert!(line(&text, "FAIL  Lease: ").contains("cannot get resource"), "{text}");
    // Jobs need no FlashJobs.
    let (_, text) = site.daemon.doctor(&["--executors", "job"]);
    assert!(!text.contains("FlashJobs:"), "{text}");

    // With the rights of an administrator, in a namespace that is not there.
    let admin = site.cluster.kubeconfig().to_str().unwrap().to_owned();
    let at = site.daemon.extra.iter().position(|flag| flag == "--kubernetes-kubeconfig").unwrap() + 1;
    let ours = std::mem::replace(&mut site.daemon.extra[at], admin);
    let (well, text) = site.daemon.doctor(&["--kubernetes-namespace", "nowhere"]);
    assert!(!well && line(&text, "FAIL  Lease: ").contains("`kubectl create namespace nowhere`"), "{text}");

    // No way there: nothing more is asked.
    let good = std::fs::read_to_string(&ours).unwrap();
    let command = format!("`kubectl --kubeconfig {ours} get nodes` has to work");
    site.daemon.extra[at].clone_from(&ours);
    for (place, value) in [("/users/0/user/token", "stale"), ("/clusters/0/cluster/server", "https://127.0.0.1:1")] {
        let mut wrong: Value = serde_json::from_str(&good).unwrap();
        *wrong.pointer_mut(place).unwrap() = json!(value);
        std::fs::write(&ours, wrong.to_string()).unwrap();
        let (well, text) = site.daemon.doctor(&[]);
        assert!(!well && line(&text, "FAIL  cluster: ").contains(&command), "{text}");
        assert!(!text.contains("rights:"), "{text}");
    }
}
