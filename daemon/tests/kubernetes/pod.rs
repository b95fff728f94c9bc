//! The daemon as it runs in a pod: where the cluster is stands in the environment, and who we are in the folder of the service account.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use control_plane::NodeSpec;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::common::Daemon;
use crate::rig::{Site, job};

/// Longer than a token that was read is used before it is read again.
const PATIENCE: Duration = Duration::from_mins(3);
/// Puts a folder where pods find that of their service account, for one program and what it starts.
const WRAPPER: &str = "#!/bin/sh\nunset KUBECONFIG\nexec unshare --mount sh -ec '\nmount -t tmpfs none /var/run\n\
    mkdir -p /var/run/secrets/kubernetes.io/serviceaccount\nmount --bind \"$0\" /var/run/secrets/kubernetes.io/serviceaccount\n\
    exec \"$@\"' ";

/// As a kubelet writes it: what is new appears all at once.
fn write(folder: &Path, version: &str, ca: &Path, token: &str) {
    let data = folder.join(version);
    std::fs::create_dir(&data).unwrap();
    std::fs::copy(ca, data.join("ca.crt")).unwrap();
    std::fs::write(data.join("namespace"), "flash-system").unwrap();
    std::fs::write(data.join("token"), token).unwrap();
    symlink(version, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    for name in ["ca.crt", "namespace", "token"] {
        // They are there after the first time.
        let _ = symlink(Path::new("..data").join(name), folder.join(name));
    }
}

/// A token that is good for as long as a Secret of this name is there.
fn token(site: &Site, secret: &str) -> String {
    site.cluster.kubectl(&["create", "secret", "generic", secret, "--namespace", "flash-system"]).unwrap();
    let bound = ["--bound-object-kind", "Secret", "--bound-object-name", secret];
    let create = ["create", "token", "flashd", "--namespace", "flash-system"];
    site.cluster.kubectl(&[&create[..], &bound[..]].concat()).unwrap().trim().to_owned()
}

fn is_good(site: &Site, token: &str) -> bool {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let answer = site.cluster.kubectl_with(&["create", "--output", "json", "--filename", "-"], &review.to_string()).unwrap();
    serde_json::from_str::<Value>(&answer).unwrap()["status"]["authenticated"] == true
}

fn executable(path: PathBuf, text: &str) -> PathBuf {
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_in_a_pod_finds_its_cluster_and_a_token_that_was_rotated() {
    let may = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/var/run"]).output();
    if !may.as_ref().is_ok_and(|output| output.status.success()) {
        return eprintln!("SKIPPED a daemon in a pod: no mounts of its own may be made here ({may:?})");
    }
    let Some(mut site) = Site::prepare("a daemon in a pod", vec![NodeSpec::plain("node-0")], "") else { return };
    let Some(ca) = site.cluster.folder().map(|folder| folder.join("ca.crt")) else {
        return eprintln!("SKIPPED a daemon in a pod: the cluster is not ours");
    };
    let folder = tempfile::tempdir().unwrap();
    let account = folder.path().join("account");
    std::fs::create_dir(&account).unwrap();
    let first = token(&site, "first");
    write(&account, "..2026_1", &ca, &first);
    let view =
        site.cluster.kubectl(&["config", "view", "--minify", "--output", "jsonpath={.clusters[0].cluster.server}"]).unwrap();
    let (host, port) = view.trim().trim_start_matches("https://").rsplit_once(':').unwrap();

    let config = "listen = \"off\"\nexecutors = [\"job\"]\n[kubernetes]\nlease_duration = \"3s\"\n";
    let mut daemon = Daemon::prepare(&folder.path().join("data"), config);
    let text = format!("{WRAPPER}'{}' '{}' \"$@\"\n", account.display(), env!("CARGO_BIN_EXE_flashd"));
    daemon.use_binary(executable(folder.path().join("in-a-pod"), &text));
    let home = folder.path().to_str().unwrap();
    let variables = [("KUBERNETES_SERVICE_HOST", host), ("KUBERNETES_SERVICE_PORT", port), ("HOME", home)];
    daemon.envs = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    site.daemon = daemon;
    site.daemon.restart();
    site.until_ready(StatusCode::OK, "").await;
    // The Lease is in the namespace that the folder names.
    site.cluster.kubectl(&["get", "lease", "flashd", "--namespace", "flash-system"]).unwrap();
    let short = job(json!({"env": {"SIM_DURATION": "20ms"}}));
    let done = site.daemon.submit(short.clone()).await;
    assert_eq!(site.daemon.finished(&done).await["outcome"]["result"], "succeeded");

    // Another token is put there, and the first one is good no more.
    let second = token(&site, "second");
    write(&account, "..2026_2", &ca, &second);
    site.cluster.kubectl(&["delete", "secret", "first", "--namespace", "flash-system"]).unwrap();
    let begun = Instant::now();
    while is_good(&site, &first) {
        assert!(begun.elapsed() < PATIENCE, "the first token stays good");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let next = site.daemon.submit(short).await;
    assert_eq!(site.daemon.finished(&next).await["outcome"]["result"], "succeeded", "the second token is not used");
    assert!(!site.daemon.log().contains(&first) && !site.daemon.log().contains(&second));
}
