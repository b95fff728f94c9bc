//! What `k8s/` installs is taken by a real API server, refuses what is wrong, and gives the daemon no more rights than it needs.
#![expect(clippy::unwrap_used, reason = "tests")]

use control_plane::{Cluster, ClusterError, NodeSpec, Options, for_test};
use serde_json::{Value, json};

fn manifests() -> String {
    format!("{}/..", env!("CARGO_MANIFEST_DIR"))
}

fn flash_job(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": "FlashJob", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

fn queue(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": "ClusterResourceQueue", "metadata": {"name": name}, "spec": spec})
        .to_string()
}

fn task() -> Value {
    json!({"metadata": {"labels": {"role": "worker"}}, "spec": {"schedulerName": k8s_types::SCHEDULER_NAME, "containers": [
        {"name": "main", "image": "any", "resources": {"limits": {"nvidia.com/gpu": 1, "cpu": "500m", "memory": "4Gi"}}}]}})
}

fn create(cluster: &Cluster, object: &str) -> Result<String, String> {
    cluster.kubectl_with(&["create", "--filename", "-"], object).map_err(|error| match error {
        ClusterError::Kubectl { said, .. } => said,
        other => panic!("{other}"),
    })
}

#[track_caller]
fn refused(cluster: &Cluster, object: &str, words: &str) {
    let said = create(cluster, object).unwrap_err();
    assert!(said.contains(words), "{said}");
}

fn may(cluster: &Cluster, verb: &str, resource: &str) -> bool {
    let who = "--as=system:serviceaccount:flash-system:flashd";
    // What stands behind a slash would be taken for the name of an object.
    let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
    let part = format!("--subresource={part}");
    cluster
        .kubectl(&["auth", "can-i", verb, resource, &part, who, "--namespace", "anywhere"])
        .is_ok_and(|answer| answer.trim() == "yes")
}

#[test]
fn the_manifests_install_and_what_is_wrong_is_refused_with_what_to_write() {
    let options = Options { nodes: vec![NodeSpec::plain("node-0")], ..Options::default() };
    let Some(cluster) = for_test("the_manifests_install", options) else { return };
    cluster.kubectl(&["apply", "--server-side", "--kustomize", &manifests()]).unwrap();
    cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).unwrap();
    // Twice, as an upgrade does.
    cluster.kubectl(&["apply", "--server-side", "--kustomize", &manifests()]).unwrap();

    the_overlay_for_postgresql_is_taken(&cluster);
    good_objects_are_kept_whole(&cluster);
    bad_objects_are_refused(&cluster);

    // The namespace asks for the strictest kind of pod; a pod of the Deployment is one.
    cluster
        .kubectl(&[
            "wait",
            "--for=create",
            "--namespace=flash-system",
            "pod",
            "--selector=app.kubernetes.io/name=flashd",
            "--timeout=60s",
        ])
        .unwrap();

    for verb in ["get", "list", "watch", "create", "patch", "delete"] {
        assert!(may(&cluster, verb, "jobs.batch"), "{verb}");
    }
    assert!(may(&cluster, "watch", "pods") && may(&cluster, "delete", "pods") && may(&cluster, "list", "nodes"));
    // Pods of FlashJobs are made and bound by us.
    assert!(may(&cluster, "create", "pods") && may(&cluster, "create", "pods/binding"));
    // Whose a token is may be asked; nobody's rights are, nobody's token is made, and nobody is played.
    assert!(may(&cluster, "create", "tokenreviews.authentication.k8s.io"));
    let forbidden = [
        ("get", "secrets"),
        ("update", "pods"),
        ("create", "pods/exec"),
        ("delete", "nodes"),
        ("create", "deployments.apps"),
        ("create", "subjectaccessreviews.authorization.k8s.io"),
        ("create", "serviceaccounts/token"),
        ("get", "serviceaccounts"),
        ("impersonate", "users"),
    ];
    for (verb, resource) in forbidden {
        assert!(!may(&cluster, verb, resource), "{verb} {resource}");
    }
}

/// Its address and password are references, nothing of it is a volume that outlives a pod, and there may be two daemons.
fn the_overlay_for_postgresql_is_taken(cluster: &Cluster) {
    let overlay = format!("{}/overlays/postgres", manifests());
    let made = cluster.kubectl(&["kustomize", &overlay]).unwrap();
    assert!(!made.contains("PersistentVolumeClaim") && !made.contains("kind: Secret"), "{made}");
    // Over what is installed, so that the server checks every object of it.
    let whole = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--output", "json", "--kustomize", &overlay];
    let taken: Value = serde_json::from_str(&cluster.kubectl(&whole).unwrap()).unwrap();
    let named = |kind: &str| taken["items"].as_array().unwrap().iter().find(|item| item["kind"] == kind).unwrap();
    let deployment = &named("Deployment")["spec"];
    assert_eq!((&deployment["replicas"], &named("PodDisruptionBudget")["spec"]["maxUnavailable"]), (&json!(2), &json!(2)));
    let container = &deployment["template"]["spec"]["containers"][0];
    let variables = container["env"].as_array().unwrap();
    let url = variables.iter().find(|variable| variable["name"] == "FLASHD_STORE_URL").unwrap();
    assert_eq!(url["valueFrom"]["secretKeyRef"], json!({"name": "flashd-store", "key": "url"}));
    let mounted = variables.iter().find(|variable| variable["name"] == "FLASHD_STORE_PASSWORD_FILE").unwrap();
    let path = container["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "store").unwrap();
    assert!(mounted["value"].as_str().unwrap().starts_with(path["mountPath"].as_str().unwrap()), "{container}");
}

fn good_objects_are_kept_whole(cluster: &Cluster) {
    // As clients write it that know no field of ours; a Go client writes its zero values too.
    let mut template = task();
    template["metadata"]["creationTimestamp"] = Value::Null;
    create(cluster, &flash_job("plain", &json!({"minAvailable": 2, "tasks": [template, task()]}))).unwrap();
    let kept = cluster.kubectl(&["get", "flashjob", "plain", "--output", "json"]).unwrap();
    let kept: k8s_types::FlashJob = serde_json::from_str(&kept).unwrap();
    assert_eq!(
        serde_json::to_value(&kept.spec.tasks[1]).unwrap()["metadata"],
        task()["metadata"],
        "labels of a template are kept"
    );
    assert_eq!((kept.spec.min_available, kept.spec.tasks.len()), (Some(2), 2));

    let status = json!({"status": {"active": 2, "desired": 2, "phase": "Running", "conditions": [{"type": "Ready", "status": "True",
        "reason": "AllRun", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}]}});
    let patch = ["patch", "fj", "plain", "--subresource=status", "--type=merge", "--patch", &status.to_string()];
    cluster.kubectl(&patch).unwrap();
    let shown = cluster.kubectl(&["get", "fj", "--field-selector=status.phase=Running"]).unwrap();
    assert!(shown.lines().next().unwrap().starts_with("NAME") && shown.contains("plain") && shown.contains("Running"), "{shown}");

    let all = json!({"minAvailable": 0, "tasks": [task()], "queueName": "default-batch", "priority": -5, "suspend": true,
        "activeDeadlineSeconds": 60, "retry": {"maxAttempts": 2}, "ttlSecondsAfterFinished": 0,
        "dependsOn": [{"name": "plain"}, {"name": "plain", "on": "Finished"}]});
    create(cluster, &flash_job("all", &all)).unwrap();
    create(cluster, &queue("team", &json!({"priority": 100, "isPreemptible": true, "maxConcurrent": 0, "ttlSeconds": 3600})))
        .unwrap();
    let quota = json!({"guaranteed": {"nvidia.com/gpu": 8, "memory": "1Ti"}, "limit": {"cpu": "1500m"}});
    create(cluster, &queue("lender", &json!({"cohort": "all", "weight": 3, "quota": quota, "namespaces": ["a", "b"]}))).unwrap();
    assert!(cluster.kubectl(&["get", "crq"]).unwrap().contains("lender"));
}

fn bad_objects_are_refused(cluster: &Cluster) {
    let job = |spec: Value| flash_job("bad", &spec);
    refused(cluster, &job(json!({"tasks": []})), "write spec.tasks[0].spec.containers");
    refused(cluster, &job(json!({})), "spec.tasks: Required value");
    refused(cluster, &job(json!({"tasks": [{"spec": {"containers": []}}]})), "write spec.containers with a name and an image");
    refused(cluster, &job(json!({"tasks": [{}]})), "spec.tasks[0].spec: Required value");
    refused(cluster, &job(json!({"tasks": [task()], "minAvailable": 2})), "write a number from 0 (all of them)");
    refused(cluster, &job(json!({"tasks": [task()], "minAvailable": -1})), "greater than or equal to 0");
    refused(cluster, &job(json!({"tasks": [task()], "minAvailble": 1})), "unknown field \"spec.minAvailble\"");
    let mut amount = task();
    amount["spec"]["containers"][0]["resources"]["limits"]["memory"] = "4Gigs".into();
    refused(cluster, &job(json!({"tasks": [amount]})), "limits.memory");
    let long = "a".repeat(k8s_types::NAME_LENGTH + 1);
    refused(cluster, &flash_job(&long, &json!({"tasks": [task()]})), "shorten metadata.name");
    create(cluster, &flash_job(&long[1..], &json!({"tasks": [task()]}))).unwrap();
    refused(cluster, &queue("bad", &json!({"weight": 0})), "spec.weight");
    refused(cluster, &queue("bad", &json!({"maxConcurrent": -1})), "spec.maxConcurrent");
    refused(cluster, &queue("bad", &json!({"quota": {"limit": {"cpu": "many"}}})), "spec.quota.limit.cpu");
}

#[test]
fn the_kept_definitions_are_those_of_the_types() {
    let kept = std::fs::read_to_string(format!("{}/crds/definitions.yaml", manifests())).unwrap();
    let made = k8s_types::definitions_yaml().unwrap();
    assert_eq!(kept.trim_end(), made.trim_end(), "`cargo xtask lint --fix --only generated` writes k8s/crds/definitions.yaml");
}
