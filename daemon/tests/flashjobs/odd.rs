//! FlashJobs that are odd: each is told what is wrong with it, or does what it says, and no other suffers.

use serde_json::{Value, json};

use crate::rig::{Site, condition, flash_job};

/// One whose only pod has this in its spec.
fn with(name: &str, more: Value) -> Value {
    let mut job = flash_job(name, 1, 0, "50ms", "0");
    job["spec"]["tasks"][0]["spec"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    job
}

fn asking(name: &str, resource: &str, amount: Value) -> Value {
    let mut job = flash_job(name, 1, 0, "50ms", "0");
    job["spec"]["tasks"][0]["spec"]["containers"][0]["resources"] = json!({"limits": {resource: amount}});
    job
}

fn also(mut job: Value, path: &str, value: Value) -> Value {
    job["spec"][path] = value;
    job
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_odd_is_told_and_harms_nobody() {
    let Some(mut site) = Site::start("odd FlashJobs").await else { return };
    // The API server takes these, and we say what is wrong.
    let sum = also(
        asking("sum", "memory", json!("9E")),
        "tasks",
        json!(vec![asking("", "memory", json!("9E"))["spec"]["tasks"][0].clone(); 8]),
    );
    for (job, words) in [
        (asking("negative", "cpu", json!("-1")), "containers[0].resources.limits.cpu is `-1`"),
        (asking("no-number", "memory", json!("1e1.5")), "resources.limits.memory is `1e1.5`"),
        (asking("exponent", "cpu", json!("1e30")), ""),
        (asking("exbi", "memory", json!("16Ei")), ""),
        (asking("gpus", "nvidia.com/gpu", json!(5_000_000)), ""),
        (sum, ""),
        (asking("part", "nvidia.com/gpu", json!("0.5")), "write a whole number"),
        (
            with("gates", json!({"schedulingGates": [{"name": "example.com/wait"}]})),
            "schedulingGates would keep its gang half bound",
        ),
    ] {
        site.apply(&job);
        let name = job["metadata"]["name"].as_str().unwrap();
        let told = site.watch("FlashJob", name, |job| job["status"]["conditions"].is_array()).await;
        let valid = condition(&told, "Valid");
        assert_eq!(valid["status"], "False", "{name}: {told:#}");
        assert!(!words.is_empty() || !valid["message"].as_str().unwrap().is_empty(), "{told:#}");
        assert!(valid["message"].as_str().unwrap().contains(words), "{valid:#}");
    }
    // These are no numbers of their kind: the schema says so, and what it lets pass can be read.
    for job in [
        also(flash_job("wide", 1, 0, "50ms", "0"), "minAvailable", json!(3_000_000_000_u64)),
        with("port", json!({"containers": [{"name": "c", "image": "any", "ports": [{"containerPort": 99_999_999_999_u64}]}]})),
        with("half", json!({"terminationGracePeriodSeconds": 1.5})),
        with("nulls", json!({"nodeSelector": {"zone": null}, "tolerations": [null]})),
    ] {
        let taken = site.cluster.kubectl_with(&["create", "--filename", "-"], &job.to_string());
        assert!(taken.is_err(), "{taken:?}");
    }
    // These are odd, and good.
    for job in [
        asking("plus", "cpu", json!("+100m")),
        asking("tiny", "cpu", json!("0.0000001")),
        asking("whole", "cpu", json!(1)),
        also(flash_job("for-ever", 1, 0, "50ms", "0"), "activeDeadlineSeconds", json!(i64::MAX)),
        with(
            "beside",
            json!({"initContainers": [{"name": "i", "image": "any", "restartPolicy": "Always",
            "resources": {"requests": {"cpu": "1"}}}]}),
        ),
    ] {
        site.apply(&job);
        site.phase(job["metadata"]["name"].as_str().unwrap(), "Succeeded").await;
    }
    // Pods that the API server never takes end their job with what it says.
    let mut label = with("label", json!({}));
    label["spec"]["tasks"][0]["metadata"] = json!({"labels": {"team": "not a label!"}});
    site.apply(&label);
    let failed = site.phase("label", "Failed").await;
    assert!(failed["status"]["message"].as_str().unwrap().contains("not a label!"), "{failed:#}");
    // What it does not take for now is tried on, and whoever looks is told why. It was there first, and would have all GPUs: others have them
    // meanwhile.
    let mut class = flash_job("class", 2, 8, "50ms", "0");
    for task in class["spec"]["tasks"].as_array_mut().unwrap() {
        task["spec"]["priorityClassName"] = json!("missing");
    }
    site.apply(&class);
    site.watch("FlashJob", "class", |job| condition(job, "Admitted")["status"] == "True").await;
    site.apply(&flash_job("all", 2, 8, "50ms", "0"));
    site.phase("all", "Succeeded").await;
    let said = site.cluster.kubectl(&["events", "--for", "flashjob/class"]).unwrap();
    assert!(said.contains("TakenBack") && said.contains("no PriorityClass with name missing was found"), "{said}");
    let missing =
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "missing"}, "value": 5});
    site.apply(&missing);
    site.phase("class", "Succeeded").await;
    site.daemon.kill();
    site.daemon.restart();
    site.apply(&flash_job("after", 1, 8, "50ms", "0"));
    site.phase("after", "Succeeded").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_is_its_own_and_an_edit_asks_for_no_more() {
    let Some(site) = Site::start("copies of FlashJobs").await else { return };
    let sent =
        json!({"name": "runs", "image": "any", "command": ["x"], "resources": {"cpu": "1"}, "env": {"SIM_DURATION": "2h"}});
    let runs = site.daemon.submit(sent).await;
    site.daemon.until(&runs, "running").await;
    // As somebody does it who wants the same in his own namespace: with its name, its labels and its finalizer.
    let name = format!("runs-{}", runs.rsplit('-').next().unwrap());
    let mut copy = site.get("FlashJob", &name).await;
    copy["metadata"] = json!({"name": name, "namespace": "other", "labels": copy["metadata"]["labels"],
        "finalizers": copy["metadata"]["finalizers"]});
    copy.as_object_mut().unwrap().remove("status");
    site.cluster.kubectl(&["create", "namespace", "other"]).unwrap();
    site.apply(&copy);
    let begun = std::time::Instant::now();
    let said = || {
        site.cluster.kubectl(&["get", "flashjob", &name, "--namespace=other", "--output", "jsonpath={.status.message}"]).unwrap()
    };
    // It is looked at as everybody's: that namespace is none of the daemon's.
    while !said().contains("namespace") {
        assert!(begun.elapsed() < crate::common::PATIENCE, "{}", site.daemon.log());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    site.cluster.kubectl(&["delete", "flashjob", &name, "--namespace=other", "--timeout=60s"]).unwrap();
    assert_eq!(site.daemon.job(&runs).await["state"], "running", "{}", site.daemon.log());
    // The namespace goes, and nothing of ours keeps it.
    site.cluster.kubectl(&["delete", "namespace", "other", "--timeout=60s"]).unwrap();

    // Admitted with one GPU: who writes more into it later does not get it beside his limits.
    let mut grows = flash_job("grows", 1, 1, "50ms", "0");
    grows["spec"]["suspend"] = json!(true);
    site.apply(&grows);
    site.watch("FlashJob", "grows", |job| condition(job, "Admitted")["reason"] == "Suspended").await;
    grows["spec"]["suspend"] = json!(false);
    grows["spec"]["tasks"][0]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] = json!("8");
    site.apply(&grows);
    let failed = site.phase("grows", "Failed").await;
    assert!(failed["status"]["message"].as_str().unwrap().contains("asks for 8 nvidia.com/gpu by now"), "{failed:#}");
}
