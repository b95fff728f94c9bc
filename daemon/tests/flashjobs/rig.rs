//! A daemon with the service account's token on a cluster, and what an administrator sees there.

use control_plane::{Cluster, NodeSpec, Options, for_test};
use executors::kubernetes::connect;
use hyper::StatusCode;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::common::{Daemon, PATIENCE};

pub(crate) struct Site {
    pub(crate) daemon: Daemon,
    pub(crate) cluster: Cluster,
    pub(crate) folder: tempfile::TempDir,
    admin: Client,
}

impl Site {
    pub(crate) async fn start(what: &str) -> Option<Self> {
        Self::with(what, vec![NodeSpec::with_gpus("gpu-0"), NodeSpec::with_gpus("gpu-1"), NodeSpec::plain("node-0")]).await
    }

    pub(crate) async fn with(what: &str, nodes: Vec<NodeSpec>) -> Option<Self> {
        Self::configured(what, nodes, "").await
    }

    /// One whose daemon's configuration begins with this.
    pub(crate) async fn configured(what: &str, nodes: Vec<NodeSpec>, config: &str) -> Option<Self> {
        let cluster = for_test(what, Options { nodes, ..Options::default() })?;
        let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s");
        cluster.kubectl(&["apply", "--server-side", "--kustomize", manifests]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let admin = connect(Some(cluster.kubeconfig())).await.unwrap();
        let mut daemon = configured(&cluster, folder.path(), "data", config);
        daemon.restart();
        Some(Self { daemon, cluster, folder, admin })
    }

    pub(crate) fn apply(&self, object: &Value) {
        self.cluster.kubectl_with(&["apply", "--filename", "-"], &object.to_string()).unwrap();
    }

    fn api(&self, kind: &str) -> Api<DynamicObject> {
        let flash = "scheduling.flash-sched.io";
        let (group, version, namespaced) = match kind {
            "FlashJob" => (flash, "v1alpha1", true),
            "ClusterResourceQueue" => (flash, "v1alpha1", false),
            _ => ("", "v1", true),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        if namespaced {
            Api::namespaced_with(self.admin.clone(), "default", &resource)
        } else {
            Api::all_with(self.admin.clone(), &resource)
        }
    }

    /// The object as it is now.
    pub(crate) async fn get(&self, kind: &str, name: &str) -> Value {
        serde_json::to_value(self.api(kind).get(name).await.unwrap()).unwrap()
    }

    /// Watches an object until it is so; it is `Null` where there is none.
    pub(crate) async fn watch(&self, kind: &str, name: &str, so: impl Fn(&Value) -> bool) -> Value {
        let last = std::sync::Mutex::new(Value::Null);
        let is_so = |object: Option<&DynamicObject>| {
            let value = object.map_or(Value::Null, |object| serde_json::to_value(object).unwrap());
            let is_so = so(&value);
            *last.lock().unwrap() = value;
            is_so
        };
        let wait = tokio::time::timeout(PATIENCE, await_condition(self.api(kind), name, is_so)).await;
        let last = last.lock().unwrap().clone();
        assert!(matches!(wait, Ok(Ok(_))), "{kind} {name} is not so in time: {last:#}\n{}", self.daemon.log());
        last
    }

    pub(crate) async fn phase(&self, name: &str, phase: &str) -> Value {
        self.watch("FlashJob", name, |object| object["status"]["phase"] == phase).await
    }

    pub(crate) async fn jobs(&self) -> Vec<Value> {
        let (status, list) = self.daemon.get("/api/v1/jobs").await;
        assert_eq!(status, StatusCode::OK, "{list}");
        list["items"].as_array().unwrap().clone()
    }

    /// The job of a FlashJob, once there is one.
    pub(crate) async fn job_of(&self, name: &str) -> String {
        self.job_with("scheduling.flash-sched.io/flashjob-name", name).await
    }

    /// The job of a pod without a FlashJob, likewise.
    pub(crate) async fn job_of_pod(&self, name: &str) -> String {
        self.job_with("scheduling.flash-sched.io/pod-name", name).await
    }

    async fn job_with(&self, annotation: &str, value: &str) -> String {
        let (_, info) = self.daemon.get("/api/v1/info").await;
        let mut events = self.daemon.events(&format!("/api/v1/events?after={}", info["revision"])).await;
        let find = async {
            loop {
                if let Some(job) = self.jobs().await.iter().find(|job| job["spec"]["annotations"][annotation] == value) {
                    return job["id"].as_str().unwrap().to_owned();
                }
                events.next().await.expect("the stream ended early");
            }
        };
        let found = tokio::time::timeout(PATIENCE, find).await;
        found.unwrap_or_else(|_| panic!("{value} did not become a job\n{}", self.daemon.log()))
    }
}

/// A daemon that has not been started, with a folder of its own in this one.
pub(crate) fn daemon(cluster: &Cluster, folder: &std::path::Path, name: &str) -> Daemon {
    configured(cluster, folder, name, "")
}

fn configured(cluster: &Cluster, folder: &std::path::Path, name: &str, config: &str) -> Daemon {
    let kubeconfig = folder.join("kubeconfig");
    std::fs::write(&kubeconfig, cluster.kubeconfig_of("flash-system", "flashd").unwrap()).unwrap();
    let mut daemon = Daemon::prepare(
        &folder.join(name),
        &format!(
            "{config}\nlisten = \"off\"\nexecutors = [\"flashjob\"]\n[kubernetes]\nnamespace = \"flash-system\"\nlease_duration = \"3s\"\n"
        ),
    );
    daemon.extra = vec!["--kubernetes-kubeconfig".to_owned(), kubeconfig.to_str().unwrap().to_owned()];
    daemon
}

fn pod_spec(gpus: u32, duration: &str, code: &str) -> Value {
    json!({"containers": [{"name": "c", "image": "any",
        "env": [{"name": "SIM_DURATION", "value": duration}, {"name": "SIM_EXIT", "value": code}],
        "resources": {"requests": {"cpu": "100m"}, "limits": {"nvidia.com/gpu": gpus.to_string()}}}]})
}

pub(crate) fn flash_job(name: &str, tasks: usize, gpus: u32, duration: &str, code: &str) -> Value {
    let task = json!({"spec": pod_spec(gpus, duration, code)});
    json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": "FlashJob", "metadata": {"name": name, "namespace": "default"},
        "spec": {"minAvailable": tasks, "tasks": vec![task; tasks]}})
}

/// A pod for our scheduler, with `more` in its spec.
pub(crate) fn lone(name: &str, gpus: u32, duration: &str, code: &str, more: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
        "spec": pod_spec(gpus, duration, code)});
    let spec = pod["spec"].as_object_mut().unwrap();
    spec.insert("schedulerName".to_owned(), json!("flash-scheduler"));
    spec.insert("restartPolicy".to_owned(), json!("Never"));
    spec.extend(more.as_object().unwrap().clone());
    pod
}

pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    static NONE: Value = Value::Null;
    let all = object["status"]["conditions"].as_array();
    all.and_then(|all| all.iter().find(|condition| condition["type"] == kind)).unwrap_or(&NONE)
}
