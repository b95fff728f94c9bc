//! What is wrong with a cluster, or with the way to it: said with what mends it wherever people look, and mended without a restart.

use control_plane::NodeSpec;
use hyper::StatusCode;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::rig::{Site, job};

const INSTALL: &str = "`kubectl apply --server-side -k k8s`";

impl Site {
    /// Says that it is not ready because of this, and what mends it: where programs ask, to who waits, beside the nodes and in the log. Once it
    /// was mended it is ready, and has begun what waited.
    async fn wrong_until(&self, words: &str, command: &str, mend: impl FnOnce(&Self)) {
        self.until_ready(StatusCode::SERVICE_UNAVAILABLE, words).await;
        let (_, problem) = self.daemon.get("/readyz").await;
        let detail = problem["detail"].as_str().unwrap().to_owned();
        // For who reads the output of this test.
        eprintln!("/readyz: {detail}");
        assert!(detail.contains(command), "{detail}");
        let (_, nodes) = self.daemon.get("/api/v1/nodes").await;
        let mut told = vec![nodes["message"].clone()];
        let (status, answer) = self.daemon.post("/api/v1/jobs", short()).await;
        let mut waits = None;
        if status == StatusCode::CREATED {
            let id = answer["id"].as_str().unwrap().to_owned();
            told.push(self.daemon.get(&format!("/api/v1/jobs/{id}/why")).await.1["message"].clone());
            waits = Some(id);
        } else {
            // Nobody has seen a node yet, so nobody can say what is too large.
            assert!(status == StatusCode::SERVICE_UNAVAILABLE && nodes["items"] == json!([]), "{status} {answer}");
            let detail = answer["detail"].as_str().unwrap();
            assert!(detail.contains(words) && detail.contains(command), "{detail}");
        }
        for message in told {
            let message = message.as_str().unwrap_or_default();
            assert!(message.starts_with("Nothing is started now, because ") && message.contains(words), "{message}");
            assert!(message.contains(command), "{message}");
        }
        let log = self.daemon.log();
        let said = log.lines().filter(|line| line.contains("WARN")).any(|line| plain(line).contains(command));
        assert!(said, "{log}");
        mend(self);
        self.until_ready(StatusCode::OK, "").await;
        let waits = match waits {
            Some(id) => id,
            None => self.daemon.submit(short()).await,
        };
        assert_eq!(self.daemon.finished(&waits).await["outcome"]["result"], "succeeded");
    }

    fn install(&self) {
        let manifests = concat!(env!("CARGO_MANIFEST_DIR"), "/../k8s");
        self.cluster.kubectl(&["apply", "--server-side", "--kustomize", manifests]).unwrap();
    }

    /// The file that says where the cluster is.
    fn kubeconfig(&self) -> String {
        let at = self.daemon.extra.iter().position(|flag| flag == "--kubernetes-kubeconfig").unwrap() + 1;
        self.daemon.extra[at].clone()
    }
}

fn short() -> Value {
    job(json!({"env": {"SIM_DURATION": "20ms"}}))
}

/// A line of the log as it was meant.
fn plain(line: &str) -> String {
    line.replace("\\\"", "\"")
}

fn prepare(what: &str) -> Option<Site> {
    let mut site = Site::prepare(what, vec![NodeSpec::plain("node-0")], "")?;
    site.daemon.extra.extend(["--executors", "flashjob"].map(str::to_owned));
    Some(site)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_cluster_is_said_with_what_mends_it() {
    let Some(mut site) = prepare("what is wrong with a cluster") else { return };
    site.cluster.kubectl(&["delete", "crd", "flashjobs.scheduling.flash-sched.io"]).unwrap();
    site.daemon.restart_unready();
    site.wrong_until("FlashJobs: the cluster does not know them", INSTALL, Site::install).await;

    site.cluster.kubectl(&["delete", "rolebinding", "flash-sched", "--namespace", "flash-system"]).unwrap();
    site.wrong_until("cannot get resource", INSTALL, Site::install).await;

    // Right from the start, since a watch that goes on is not asked for its rights again.
    assert!(site.daemon.terminate().success());
    site.cluster.kubectl(&["delete", "clusterrolebinding", "flash-sched"]).unwrap();
    site.daemon.restart_unready();
    site.wrong_until("cannot list resource", INSTALL, Site::install).await;

    // Somebody else has the Lease, and is gone without letting it go.
    assert!(site.daemon.terminate().success());
    site.cluster.kubectl(&["delete", "lease", "flashd", "--namespace", "flash-system"]).unwrap();
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "flashd", "namespace": "flash-system"},
        "spec": {"holderIdentity": "another-scheduler", "leaseDurationSeconds": 86_400, "leaseTransitions": 7}});
    site.cluster.kubectl_with(&["create", "--filename", "-"], &lease.to_string()).unwrap();
    site.daemon.restart_unready();
    let words = "another-scheduler holds the Lease flash-system/flashd";
    site.wrong_until(words, "`kubectl --namespace flash-system delete lease flashd`", |site| {
        site.cluster.kubectl(&["--namespace", "flash-system", "delete", "lease", "flashd"]).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubeconfig_that_is_wrong_is_read_again_once_it_is_replaced() {
    let Some(mut site) = prepare("a kubeconfig that is wrong") else { return };
    let path = site.kubeconfig();
    let good = std::fs::read_to_string(&path).unwrap();
    let with = |place: &str, value: &str| {
        let mut wrong: Value = serde_json::from_str(&good).unwrap();
        *wrong.pointer_mut(place).unwrap() = json!(value);
        wrong.to_string()
    };
    let stale = with("/users/0/user/token", "stale");
    let elsewhere = with("/clusters/0/cluster/server", "https://127.0.0.1:1");
    let command = format!("`kubectl --kubeconfig {path} get nodes` has to work");
    let mend = |_: &Site| std::fs::write(&path, &good).unwrap();

    // As it starts.
    for (wrong, words) in [(&stale, "the credentials are not taken"), (&elsewhere, "the cluster does not answer")] {
        std::fs::write(&path, wrong).unwrap();
        site.daemon.restart_unready();
        site.wrong_until(words, &command, mend).await;
        site.daemon.signal(Signal::KILL);
        site.daemon.wait();
    }
    // What cannot be read at all ends it, with the same words.
    for (wrong, words) in [(Some("no: [yaml"), "kubeconfig "), (None, "No such file")] {
        match wrong {
            Some(text) => std::fs::write(&path, text).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let status = site.daemon.try_restart().unwrap_err();
        let log = site.daemon.log();
        let last = log.lines().last().unwrap_or_default();
        eprintln!("{status}: {last}");
        assert!(last.contains(words) && last.contains(&command) && last.contains("cannot start before"), "{last}");
    }
    std::fs::write(&path, &good).unwrap();
    site.daemon.restart();
    site.until_ready(StatusCode::OK, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_the_environment_are_read_again_once_they_are_replaced() {
    let Some(mut site) = prepare("a kubeconfig of the environment that is wrong") else { return };
    let path = site.kubeconfig();
    site.daemon.extra.retain(|word| *word != path && word != "--kubernetes-kubeconfig");
    let good = std::fs::read_to_string(&path).unwrap();
    let folder = std::path::Path::new(&path).with_file_name("home");
    let users = folder.join(".kube/config");
    std::fs::create_dir_all(folder.join(".kube")).unwrap();
    site.daemon.envs.push(("HOME".to_owned(), folder.to_str().unwrap().to_owned()));
    // Who it is in one file, and where in another.
    let part = |fields: &[&str], token: Option<&str>| {
        let mut part: Value = serde_json::from_str(&good).unwrap();
        if let Some(token) = token {
            part["users"][0]["user"]["token"] = json!(token);
        }
        part.as_object_mut().unwrap().retain(|key, _| fields.contains(&key.as_str()));
        part.to_string()
    };
    let fields = ["apiVersion", "kind", "users"];
    let (who, place) = (folder.join("who"), folder.join("where"));
    std::fs::write(&place, part(&["apiVersion", "kind", "clusters", "contexts", "current-context"], None)).unwrap();
    std::fs::write(&who, part(&fields, Some("stale"))).unwrap();
    let list = format!("{}:{}:{}", folder.join("absent").display(), who.display(), place.display());
    site.daemon.envs.push(("KUBECONFIG".to_owned(), list.clone()));
    site.daemon.restart_unready();
    let command = format!("`KUBECONFIG={list} kubectl get nodes` has to work");
    let mended = part(&fields, None);
    site.wrong_until("the credentials are not taken", &command, |_| std::fs::write(&who, mended).unwrap()).await;
    assert!(site.daemon.terminate().success());

    // Without it, that of the user.
    site.daemon.envs.pop();
    site.daemon.envs.push(("KUBECONFIG".to_owned(), String::new()));
    let stale = part(&["apiVersion", "kind", "users", "clusters", "contexts", "current-context"], Some("stale"));
    std::fs::write(&users, stale).unwrap();
    site.daemon.restart_unready();
    let command = format!("`kubectl --kubeconfig {} get nodes` has to work", users.display());
    site.wrong_until("the credentials are not taken", &command, |_| std::fs::write(&users, &good).unwrap()).await;
}
