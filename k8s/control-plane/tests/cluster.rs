//! The cluster that tests run on does what a cluster does, survives what tests do to it, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "tests")]

use control_plane::{Cluster, NodeSpec, Options, Part, for_test};

fn job(name: &str, env: &str) -> String {
    format!(
        r#"{{"apiVersion": "batch/v1", "kind": "Job", "metadata": {{"name": "{name}"}},
            "spec": {{"backoffLimit": 0, "template": {{"spec": {{"restartPolicy": "Never", "containers": [
                {{"name": "main", "image": "any", "env": [{env}],
                  "resources": {{"limits": {{"nvidia.com/gpu": "4"}}}}}}]}}}}}}}}"#
    )
}

fn create(cluster: &Cluster, object: &str) {
    cluster.kubectl_with(&["create", "--filename", "-"], object).unwrap();
}

fn wait(cluster: &Cluster, what: &str, condition: &str) {
    cluster.kubectl(&["wait", &format!("--for={condition}"), what, "--timeout=60s"]).unwrap();
}

fn exit_code(cluster: &Cluster, job: &str) -> String {
    let path = "jsonpath={.items[*].status.containerStatuses[0].state.terminated.exitCode}";
    cluster.kubectl(&["get", "pods", "--selector", &format!("job-name={job}"), "--output", path]).unwrap()
}

/// Processes whose command line speaks of a folder.
fn processes_in(folder: &std::path::Path) -> usize {
    let folder = folder.to_str().unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    pids.filter(|entry| std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(folder))).count()
}

#[test]
fn jobs_run_on_nodes_and_a_killed_api_server_forgets_nothing() {
    let options = Options { nodes: vec![NodeSpec::with_gpus("gpu-0"), NodeSpec::plain("plain-0")], ..Options::default() };
    let Some(cluster) = for_test("jobs_run_on_nodes", options) else { return };
    create(&cluster, &job("good", ""));
    create(&cluster, &job("bad", r#"{"name": "SIM_EXIT", "value": "7"}, {"name": "SIM_DURATION", "value": "20ms"}"#));
    wait(&cluster, "job/good", "condition=Complete");
    wait(&cluster, "job/bad", "condition=Failed");
    assert_eq!((exit_code(&cluster, "good"), exit_code(&cluster, "bad")), ("0".to_owned(), "7".to_owned()));

    create(&cluster, &job("long", r#"{"name": "SIM_DURATION", "value": "2h"}"#));
    wait(&cluster, "job/long", "jsonpath={.status.ready}=1");
    if cluster.is_ours() {
        cluster.kill_part(Part::ApiServer).unwrap();
        assert!(cluster.kubectl(&["get", "nodes", "--request-timeout=2s"]).is_err(), "nobody answers");
        cluster.start_part(Part::ApiServer).unwrap();
        cluster.wait_ready().unwrap();
    }
    assert_eq!(exit_code(&cluster, "bad"), "7");
    cluster.kubectl(&["delete", "job", "long", "--cascade=foreground", "--timeout=60s"]).unwrap();
    let left = cluster.kubectl(&["get", "pods", "--selector", "job-name=long", "--output", "name"]).unwrap();
    assert_eq!(left, "");

    let Some(folder) = cluster.folder().map(std::path::Path::to_owned) else { return };
    assert_eq!(processes_in(&folder), Part::ALL.len());
    drop(cluster);
    assert_eq!(processes_in(&folder), 0);
    assert!(!folder.exists());
}
