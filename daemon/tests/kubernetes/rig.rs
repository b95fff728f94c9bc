//! A daemon with the service account's token, and what it says of nodes.

use std::time::Duration;

use control_plane::{Cluster, Gate, NodeSpec, Options, for_test};
use serde_json::{Value, json};

use crate::common::{Daemon, PATIENCE};

/// A cluster in which everything is installed, and a daemon on it that has not been started.
pub(crate) struct Site {
    pub(crate) daemon: Daemon,
    pub(crate) cluster: Cluster,
    _folder: tempfile::TempDir,
}

impl Site {
    pub(crate) fn prepare(what: &str, nodes: Vec<NodeSpec>, config: &str) -> Option<Self> {
        Self::prepare_with(what, Options { nodes, ..Options::default() }, config)
    }

    pub(crate) fn prepare_with(what: &str, options: Options, config: &str) -> Option<Self> {
        let cluster = for_test(what, options)?;
        let folder = tempfile::tempdir().unwrap();
        let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s");
        cluster.kubectl(&["apply", "--server-side", "--kustomize", manifests]).unwrap();
        let daemon = daemon(&cluster, folder.path(), "data", config);
        Some(Self { daemon, cluster, _folder: folder })
    }

    /// One with the executor `flashjob` that can be cut off; `None` also where the cluster is not ours to hurt.
    pub(crate) fn behind_gate(what: &str, options: Options, config: &str) -> Option<(Self, Gate)> {
        let site = Self::prepare_with(what, options, &format!("{FLASH_JOBS}{config}")).filter(|site| site.cluster.is_ours())?;
        let gate = site.cluster.gate().unwrap();
        let kubeconfig = std::path::Path::new(&site.daemon.extra[1]);
        let text = std::fs::read_to_string(kubeconfig).unwrap();
        std::fs::write(kubeconfig, site.cluster.through(&gate, &text).unwrap()).unwrap();
        Some((site, gate))
    }

    /// Asks for the nodes until they are so.
    pub(crate) async fn until_nodes(&self, what: &str, so: impl Fn(&[Value]) -> bool) {
        let last = std::sync::Mutex::new(Value::Null);
        let look = async {
            loop {
                let (_, list) = self.daemon.get("/api/v1/nodes").await;
                if so(list["items"].as_array().unwrap()) {
                    return;
                }
                *last.lock().unwrap() = list;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let outcome = tokio::time::timeout(PATIENCE, look).await;
        assert!(outcome.is_ok(), "{what}: {:#}\n{}", last.lock().unwrap(), self.daemon.log());
    }

    pub(crate) async fn until_node(&self, name: &str, state: &str, words: &str) {
        self.until_nodes(&format!("{name} is {state} ({words})"), |nodes| {
            let mut found = nodes.iter().filter(|node| node["name"] == name);
            found.any(|node| node["state"] == state && node["reason"].as_str().unwrap_or_default().contains(words))
        })
        .await;
    }
}

/// Begins a configuration with the other executor.
pub(crate) const FLASH_JOBS: &str = "#flashjob\n";

/// A daemon with a folder of its own in this one; with the executor `job`, if its configuration does not begin with another one.
pub(crate) fn daemon(cluster: &Cluster, folder: &std::path::Path, name: &str, config: &str) -> Daemon {
    let kubeconfig = folder.join("kubeconfig");
    std::fs::write(&kubeconfig, cluster.kubeconfig_of("flash-system", "flashd").unwrap()).unwrap();
    let executor = if config.starts_with(FLASH_JOBS) { "flashjob" } else { "job" };
    let config = format!(
        "listen = \"off\"\nexecutors = [\"{executor}\"]\n[kubernetes]\nnamespace = \"flash-system\"\nlease_duration = \"3s\"\n{config}"
    );
    let mut daemon = Daemon::prepare(&folder.join(name), &config);
    daemon.extra = vec!["--kubernetes-kubeconfig".to_owned(), kubeconfig.to_str().unwrap().to_owned()];
    daemon
}

/// A job for a cluster, with `more`.
pub(crate) fn job(more: Value) -> Value {
    let mut job = json!({"image": "any", "command": ["train"], "resources": {"cpu": "100m"}});
    for (key, value) in more.as_object().unwrap() {
        job[key] = value.clone();
    }
    job
}

/// A FlashJob of so many pods with so many GPUs each, which run for a while and end with this code.
pub(crate) fn flash_job(name: &str, tasks: usize, gpus: u32, duration: &str, code: &str) -> Value {
    let task = json!({"spec": {"containers": [{"name": "c", "image": "any",
        "env": [{"name": "SIM_DURATION", "value": duration}, {"name": "SIM_EXIT", "value": code}],
        "resources": {"requests": {"cpu": "100m"}, "limits": {"nvidia.com/gpu": gpus.to_string()}}}]}});
    json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": "FlashJob", "metadata": {"name": name, "namespace": "default"},
        "spec": {"minAvailable": tasks, "tasks": vec![task; tasks]}})
}

/// One that runs until it is stopped, with so many GPUs.
pub(crate) fn endless(gpus: u32) -> Value {
    job(json!({"resources": {"cpu": "1", "gpu": gpus.to_string()}, "env": {"SIM_DURATION": "2h"}}))
}

/// The node of the only task.
pub(crate) fn place(job: &Value) -> &str {
    job["placement"][0]["node"].as_str().unwrap_or_default()
}
