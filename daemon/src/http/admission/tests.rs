//! What a user may send, and what is said to one who may not.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::json;

use scheduler_core::amounts::GpuShare;

use super::*;
use crate::backend::Via;
use crate::config::Settings;

fn admission() -> Admission {
    admission_of(rustix::process::geteuid().as_raw())
}

fn admission_of(own_uid: u32) -> Admission {
    let settings = Settings {
        config: Some("/dev/null".into()),
        data: Some("/tmp".into()),
        namespaces: Some(vec!["default".parse().unwrap(), "ml".parse().unwrap()]),
        ..Settings::default()
    };
    let config = Config::load(settings).unwrap();
    let directory = SharedDirectory::default();
    directory.set(Directory {
        queues: config.queues.iter().map(|queue| (queue.name.as_str().into(), api::Origin::BuiltIn)).collect(),
        classes: [("low".into(), (-10, api::Origin::File)), ("urgent".into(), (500, api::Origin::Api))].into(),
        ..Directory::default()
    });
    Admission::new(&config, directory, Arc::default(), own_uid)
}

#[test]
fn a_priority_class_is_a_number_from_now_on() {
    let admission = admission();
    let admitted = admit(&admission, json!({"command": ["a"], "priorityClass": "urgent", "checkpointable": true})).unwrap();
    assert_eq!((admitted.policy.priority, admitted.policy.checkpointable), (500, true));
    let spec: serde_json::Value = serde_json::from_slice(&admitted.spec).unwrap();
    assert_eq!((&spec["priority"], &spec["priorityClass"]), (&json!(500), &json!("urgent")));
    // What came back can be sent again.
    assert_eq!(admit(&admission, spec).unwrap().spec, admitted.spec);
    for (spec, path, said) in [
        (json!({"command": ["a"], "priorityClass": "no"}), "priorityClass", "no priorityClass `no`; there are: low, urgent"),
        (json!({"command": ["a"], "priorityClass": "urgent", "priority": 5}), "priority", "say one of them"),
    ] {
        let invalid = admit(&admission, spec).unwrap_err();
        assert_eq!(invalid.path, path);
        assert!(invalid.detail.contains(said), "{}", invalid.detail);
    }
}

fn caller() -> Caller {
    let uid = rustix::process::geteuid().as_raw();
    Caller { user: "ada".into(), uid, gid: uid, home: Some("/tmp".into()), admin: false, via: Via::Socket }
}

fn admit(admission: &Admission, spec: serde_json::Value) -> Checked<NewSubmit> {
    admission.admit(serde_json::from_value(spec).unwrap(), &caller(), Timestamp(1_700_000_000_000_000))
}

#[test]
fn the_shortest_job_is_completed() {
    let admitted = admit(&admission(), json!({"command": ["/usr/bin/Python3.12", "x"]})).unwrap();
    let spec: serde_json::Value = serde_json::from_slice(&admitted.spec).unwrap();
    let expected = json!({
        "name": "python3-12", "namespace": "default", "queue": "default-batch", "priority": 0, "executor": "local",
        "tasks": [{"name": "task", "replicas": 1, "command": ["/usr/bin/Python3.12", "x"], "workingDir": "/tmp", "resources": {"cpu": "1"}}],
        "retry": {"maxAttempts": 3}, "stop": {"signal": "SIGTERM", "grace": "30s"},
    });
    assert_eq!(spec, expected);
    assert_eq!(admitted.shape.tasks[0].request, Request { cpu: CpuMillis(1_000), memory: MemoryBytes(0), gpus: 0 });
    assert_eq!(*admitted.policy, Policy::default());
    assert_eq!((admitted.name.as_str(), admitted.hold, admitted.start_after), ("python3-12", false, None));
}

#[test]
fn a_completed_job_is_admitted_as_it_is() {
    let admission = admission();
    let first = admit(
        &admission,
        json!({"tasks": [{"command": ["a"], "replicas": 2}, {"command": ["b"], "resources": {"gpu": 1}}], "resources": {"cpu": 2, "memory": "1Gi"},
               "workingDir": "/", "labels": {"b": "2", "a": "1"}, "stop": {"signal": "INT"}, "timeLimit": "90m", "nice": 3, "hold": true}),
    )
    .unwrap();
    let again = admit(&admission, serde_json::from_slice(&first.spec).unwrap()).unwrap();
    assert_eq!(first.spec, again.spec);
    assert!(Arc::ptr_eq(&first.shape, &again.shape) && Arc::ptr_eq(&first.policy, &again.policy));
    let names: Vec<_> = first.shape.tasks.iter().map(|group| (group.name.as_str(), group.replicas, group.request)).collect();
    let request = |cpu, memory, gpus| Request { cpu: CpuMillis(cpu), memory: MemoryBytes(memory), gpus };
    assert_eq!(names, [("task-0", 2, request(2_000, 1 << 30, 0)), ("task-1", 1, request(1_000, 0, 1))]);
    assert_eq!(first.policy.stop.signal, libc::SIGINT);
    assert_eq!(first.policy.time_limit, Some(Span::from_secs(5_400)));
    assert_eq!(first.labels, [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())]);
    assert!(first.hold);
}

#[test]
fn nodes_and_gpus_are_asked_for_in_one_way() {
    let admission = admission();
    let first = admit(
        &admission,
        json!({"command": ["a"], "nodeSelector": {"zone": ["b", "a", "b"], "disk": "ssd"}, "placement": "spread",
               "nodeExpressions": [{"key": "old", "operator": "DoesNotExist"}],
               "resources": {"gpu": 1, "gpuModel": "H100", "gpuMemory": "40Gi"}}),
    )
    .unwrap();
    let other = admit(
        &admission,
        json!({"tasks": [{"command": ["a"], "nodeExpressions": [{"key": "old", "operator": "DoesNotExist"},
                          {"key": "zone", "operator": "In", "values": ["a", "b"]}, {"key": "disk", "operator": "In", "values": ["ssd"]}],
                          "resources": {"gpu": "1", "gpuModel": ["H100", "H100"], "gpuMemory": 42_949_672_960_u64}}], "placement": "spread"}),
    )
    .unwrap();
    assert!(Arc::ptr_eq(&first.shape, &other.shape), "{:?} {:?}", first.shape, other.shape);
    assert_eq!(first.shape.arrangement, Arrangement::Spread);
    let constraints = &first.shape.tasks[0].constraints;
    let said: Vec<_> = constraints.nodes.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["disk in (ssd)", "old does not exist", "zone in (a, b)"]);
    assert_eq!((constraints.gpu_models.as_slice(), constraints.gpu_memory.0), (&["H100".into()][..], 40 << 30));
    // Alternatives are one shape in whichever order they are said.
    let term = |key: &str, more: &[serde_json::Value]| {
        serde_json::Value::from([&[json!({"key": key, "operator": "Exists"})], more].concat())
    };
    let (small, large) =
        (json!({"key": "slots", "operator": "Lt", "values": ["9"]}), json!({"key": "slots", "operator": "Gt", "values": ["7"]}));
    let one = json!({"command": ["a"], "nodeTerms": [term("x", &[small.clone(), large.clone()]), term("y", &[])]});
    let same = json!({"tasks": [{"command": ["a"], "nodeTerms": [term("y", &[]), term("x", &[large, small]), term("y", &[])]}]});
    let (one, same) = (admit(&admission, one).unwrap(), admit(&admission, same).unwrap());
    assert!(Arc::ptr_eq(&one.shape, &same.shape), "{:?} {:?}", one.shape, same.shape);
    let said = one.shape.tasks[0].constraints.nodes[0].to_string();
    assert_eq!(said, "either slots above 7 and slots below 9 and x exists, or y exists");
    // What came back can be sent again.
    let again = serde_json::from_slice(&one.spec).unwrap();
    assert_eq!(admit(&admission, again).unwrap().spec, one.spec);
    let spec: serde_json::Value = serde_json::from_slice(&first.spec).unwrap();
    assert_eq!(spec["tasks"][0]["nodeSelector"], json!({"disk": "ssd", "zone": ["b", "a", "b"]}));
    assert_eq!((spec.get("nodeSelector"), &spec["placement"]), (None, &json!("spread")));
    assert_eq!(admit(&admission, spec).unwrap().spec, first.spec);
    // A task says its own, or nothing.
    let mixed = json!({"nodeSelector": {"zone": "a"}, "tasks": [{"command": ["a"]}, {"command": ["b"], "nodeSelector": {}}]});
    let mixed = admit(&admission, mixed).unwrap();
    let counts: Vec<_> = mixed.shape.tasks.iter().map(|group| group.constraints.nodes.len()).collect();
    assert_eq!(counts, [1, 0]);
    let plain = admit(&admission, json!({"command": ["a"], "placement": "pack"})).unwrap();
    assert!(Arc::ptr_eq(&plain.shape, &admit(&admission, json!({"command": ["a"]})).unwrap().shape));
}

#[test]
fn a_job_of_an_older_version_is_read_as_it_was() {
    let text = r#"{"name":"a","namespace":"default","queue":"default-batch","priority":0,"executor":"local","tasks":[{"name":"task","replicas":1,
        "command":["a"],"workingDir":"/","resources":{"cpu":"1","gpu":"1"}}],"retry":{"maxAttempts":3},"stop":{"signal":"SIGTERM","grace":"30s"}}"#;
    let spec: JobSpec = serde_json::from_str(text).unwrap();
    assert_eq!((spec.placement, &spec.tasks[0].node_selector), (None, &None));
    let admitted = admission().admit(spec, &caller(), Timestamp(0)).unwrap();
    assert!(admitted.shape.tasks[0].constraints.is_none());
    let shape =
        r#"{"namespace":"default","queue":"q","tasks":[{"name":"task","replicas":1,"request":{"cpu":1,"memory":0,"gpus":0}}]}"#;
    let shape: Shape = serde_json::from_str(shape).unwrap();
    assert_eq!((shape.arrangement, shape.tasks[0].constraints.is_none()), (Arrangement::Pack, true));
}

#[test]
fn what_is_wrong_is_named_with_its_path_and_what_is_allowed() {
    let admission = admission();
    let long = "x".repeat(128 << 10);
    for (spec, path, said) in [
        (json!({}), "command", "a program is needed"),
        (json!({"command": []}), "command", "a program is needed"),
        (json!({"command": [""]}), "command[0]", "empty"),
        (json!({"command": ["a", "b\0c"]}), "command[1]", "NUL"),
        (json!({"command": ["a", long]}), "command[1]", "131072"),
        (json!({"command": ["a"], "tasks": [{"command": ["b"]}]}), "command", "not together"),
        (json!({"tasks": [{"command": ["a"]}, {}]}), "tasks[1].command", "a program is needed"),
        (json!({"command": ["a"], "name": "Bad Name"}), "name", "DNS-1123"),
        (json!({"tasks": [{"name": "UP", "command": ["a"]}]}), "tasks[0].name", "DNS-1123"),
        (json!({"tasks": [{"name": "a", "command": ["a"]}, {"name": "a", "command": ["a"]}]}), "tasks[1].name", "twice"),
        (
            json!({"tasks": [{"name": "a", "replicas": 3, "command": ["a"]}, {"name": "a-2", "command": ["a"]}]}),
            "tasks[1].name",
            "a task of the group `a`",
        ),
        (json!({"command": ["a"], "minAvailable": 0}), "minAvailable", "1 to 1"),
        (json!({"tasks": [{"replicas": 4, "command": ["a"]}], "minAvailable": 5}), "minAvailable", "1 to 4"),
        (json!({"tasks": [{"replicas": 0, "command": ["a"]}]}), "tasks[0].replicas", "1 to 10000"),
        (
            json!({"tasks": [{"replicas": 9000, "command": ["a"]}, {"replicas": 9000, "command": ["a"]}]}),
            "tasks",
            "18000 tasks in all",
        ),
        (
            json!({"command": ["a"], "namespace": "nope"}),
            "namespace",
            "no namespace `nope`; there are: default, ml; `namespaces` in flashd.toml names them",
        ),
        (json!({"command": ["a"], "queue": "nope"}), "queue", "configfile-interactive, configfile-job, default-batch"),
        (json!({"command": ["a"], "executor": "job"}), "executor", "there is: local"),
        (json!({"command": ["a"], "env": {"A=B": "x"}}), "env", "without `=`"),
        (json!({"command": ["a"], "env": {"A": "x\0"}}), "env.A", "NUL"),
        (json!({"command": ["a"], "env": {"FLASH_JOB_ID": "x"}}), "env.FLASH_JOB_ID", "set by flashd"),
        (json!({"tasks": [{"command": ["a"], "env": {"": "x"}}]}), "tasks[0].env", "not a name"),
        (json!({"command": ["a"], "workingDir": "data"}), "workingDir", "absolute"),
        (json!({"command": ["a"], "workingDir": "/a\0"}), "workingDir", "NUL"),
        (json!({"command": ["a"], "workingDir": "/does/not/exist"}), "workingDir", "does not exist"),
        (json!({"tasks": [{"command": ["a"], "workingDir": "/dev/null"}]}), "tasks[0].workingDir", "is not a folder"),
        (json!({"tasks": [{"command": ["a"]}], "workingDir": "/does/not/exist"}), "workingDir", "does not exist"),
        (json!({"command": ["a"], "resources": {"cpu": 0}}), "resources.cpu", "at least 1m"),
        (json!({"tasks": [{"command": ["a"], "resources": {"cpu": "0"}}]}), "tasks[0].resources.cpu", "at least 1m"),
        (json!({"command": ["a"], "nodeSelector": {"a b": "x"}}), "nodeSelector", "`a b` is not a key"),
        (json!({"command": ["a"], "nodeSelector": {"zone": "x y"}}), "nodeSelector.zone", "`x y` is not a label value"),
        (json!({"command": ["a"], "nodeSelector": {"zone": []}}), "nodeSelector.zone", "1 to 64"),
        (
            json!({"tasks": [{"command": ["a"], "nodeSelector": {"zone": ["ok", "-"]}}]}),
            "tasks[0].nodeSelector.zone",
            "`-` is not a label value",
        ),
        (
            json!({"tasks": [{"command": ["a"], "nodeExpressions": [{"key": "zone", "operator": "In"}]}]}),
            "tasks[0].nodeExpressions[0].values",
            "0 values",
        ),
        (
            json!({"command": ["a"], "nodeExpressions": [{"key": "zone", "operator": "Exists", "values": ["a"]}]}),
            "nodeExpressions[0].values",
            "`Exists` has no values",
        ),
        (
            json!({"command": ["a"], "nodeExpressions": [{"key": "slots", "operator": "Gt", "values": ["many"]}]}),
            "nodeExpressions[0].values",
            "`Gt` has one value, a whole number",
        ),
        (
            json!({"command": ["a"], "nodeExpressions": [{"key": "slots", "operator": "Lt", "values": ["1", "2"]}]}),
            "nodeExpressions[0].values",
            "`Lt` has one value, a whole number",
        ),
        (
            json!({"tasks": [{"command": ["a"], "nodeTerms": [[{"key": "zone", "operator": "Exists"}], []]}]}),
            "tasks[0].nodeTerms[1]",
            "it asks for nothing",
        ),
        (
            json!({"command": ["a"], "nodeTerms": [[{"key": "zone", "operator": "Exists"}, {"key": "slots", "operator": "Gt"}]]}),
            "nodeTerms[0][1].values",
            "`Gt` has one value, a whole number",
        ),
        (
            json!({"command": ["a"], "nodeSelector": {"a": "b"},
                   "nodeTerms": [vec![json!({"key": "zone", "operator": "Exists"}); 32], vec![json!({"key": "disk", "operator": "Exists"}); 32]]}),
            "nodeTerms",
            "65 labels and expressions; a task may have 64",
        ),
        (
            json!({"command": ["a"], "nodeExpressions": [{"key": "/", "operator": "Exists"}]}),
            "nodeExpressions[0].key",
            "not a key",
        ),
        (
            json!({"tasks": [{"command": ["a"], "resources": {"gpuMemory": "1Gi"}}]}),
            "tasks[0].resources.gpuMemory",
            "`gpu` asks for none",
        ),
        (json!({"command": ["a"], "resources": {"gpu": 0, "gpuModel": "T4"}}), "resources.gpuModel", "`gpu` asks for none"),
        (json!({"command": ["a"], "resources": {"gpu": 1, "gpuModel": []}}), "resources.gpuModel", "0 models"),
        (
            json!({"command": ["a"], "resources": {"gpu": 1, "gpuModel": "\n"}}),
            "resources.gpuModel",
            "not the name of a GPU model",
        ),
        (json!({"command": ["a"], "resources": {"gpu": 1, "gpuMemory": 0}}), "resources.gpuMemory", "at least 1 byte"),
        (json!({"command": ["a"], "priority": 1_000_001}), "priority", "-1000000 to 1000000"),
        (json!({"command": ["a"], "retry": {"maxAttempts": 0}}), "retry.maxAttempts", "1 to 100"),
        (json!({"command": ["a"], "nice": -1}), "nice", "0 to 19"),
        (json!({"command": ["a"], "timeLimit": "0s"}), "timeLimit", "some time"),
        (json!({"command": ["a"], "stop": {"signal": "SIGSTOP"}}), "stop.signal", "SIGTERM, SIGINT"),
        (json!({"command": ["a"], "stop": {"grace": "2d"}}), "stop.grace", "more than 1d"),
        (json!({"command": ["a"], "rlimits": {"files": 3}}), "rlimits", "nofile"),
        (json!({"command": ["a"], "startAfter": "2099-01-01T00:00:00Z"}), "startAfter", "10 years"),
        (json!({"command": ["a"], "labels": {"a b": "x"}}), "labels", "not a key"),
        (json!({"command": ["a"], "labels": {"a": "x y"}}), "labels.a", "not a label value"),
        (json!({"command": ["a"], "annotations": {"": "x"}}), "annotations", "not a key"),
    ] {
        let shown = spec.to_string().chars().take(200).collect::<String>();
        let invalid = admit(&admission, spec).map(|_| ()).unwrap_err();
        assert_eq!(invalid.path, path, "{shown}: {invalid:?}");
        assert!(invalid.detail.contains(said), "{shown}: {}", invalid.detail);
    }
}

#[test]
fn names_that_only_look_alike_are_allowed() {
    let spec = json!({"tasks": [{"name": "a", "replicas": 3, "command": ["a"]}, {"name": "a-3", "command": ["a"]},
                                {"name": "a-01", "command": ["a"]}, {"name": "a-1", "replicas": 2, "command": ["a"]}]});
    admit(&admission(), spec).unwrap();
}

#[test]
fn a_path_is_prefixed_from_outside() {
    assert_eq!(Invalid::new("tasks[0].name", "").under("jobs[3]").path, "jobs[3].tasks[0].name");
    assert_eq!(Invalid::new("", "").under("jobs[3]").path, "jobs[3]");
    assert_eq!(Invalid::new("[2]", "").under("command").path, "command[2]");
}

#[test]
fn a_folder_that_was_asked_for_is_quick() {
    let admission = admission();
    let spec: JobSpec = serde_json::from_value(json!({"command": ["a"], "workingDir": "/"})).unwrap();
    assert!(!admission.is_quick(&spec, &caller()));
    admission.admit(spec.clone(), &caller(), Timestamp(0)).unwrap();
    assert!(admission.is_quick(&spec, &caller()));
}

#[test]
fn a_daemon_of_a_user_runs_jobs_of_that_user_alone() {
    let root = Caller { user: "root".into(), uid: 0, gid: 0, home: None, admin: true, via: Via::Socket };
    let spec: JobSpec = serde_json::from_value(json!({"command": ["true"], "workingDir": "/"})).unwrap();
    let refused = admission_of(4_242).admit(spec.clone(), &root, Timestamp(0)).unwrap_err();
    assert!(refused.detail.contains("runs as uid 4242 and cannot run jobs as root"), "{refused:?}");
    assert!(admission_of(0).admit(spec, &root, Timestamp(0)).is_ok());
}

#[test]
fn pods_get_whole_gpus_or_instances_whichever_way_a_job_is_written() {
    let mut admission = admission();
    admission.executor = ExecutorKind::Job;
    let whole = json!({"command": ["a"], "image": "img", "resources": {"gpu": 2}});
    assert_eq!(admit(&admission, whole).unwrap().shape.tasks[0].request.gpus, 2);
    let instance = json!({"command": ["a"], "image": "img", "resources": {"gpu": 2, "migProfile": "1g.10gb"}});
    let instance = admit(&admission, instance).unwrap().shape.tasks[0].clone();
    assert_eq!((instance.request.gpus, instance.constraints.mig_profile), (2, Some("1g.10gb".into())));
    // A part is one that a device plugin gives out; on a machine it is one that we keep to.
    for (resources, share) in [
        (json!({"gpu": "0.5"}), GpuShare { millis: 500, memory: MemoryBytes(0) }),
        (json!({"gpu": "500m", "gpuMemoryShare": "1Gi"}), GpuShare { millis: 500, memory: MemoryBytes(1 << 30) }),
        (json!({"gpuMpsUnits": 3}), GpuShare { millis: 300, memory: MemoryBytes(0) }),
    ] {
        for (executor, by_count) in [(ExecutorKind::Job, true), (ExecutorKind::FlashJob, true), (ExecutorKind::Local, false)] {
            admission.executor = executor;
            let mut spec = json!({"command": ["a"], "resources": resources});
            if by_count {
                spec["image"] = json!("img");
            }
            let group = admit(&admission, spec).unwrap().shape.tasks[0].clone();
            let asked = group.constraints;
            assert_eq!((group.request.gpus, asked.gpu_share, asked.gpu_replica), (1, Some(share), by_count), "{resources}");
        }
    }
    admission.executor = ExecutorKind::Job;
    let resources = json!({"gpuUuids": ["GPU-1"]});
    for spec in [
        json!({"command": ["a"], "image": "img", "resources": resources}),
        json!({"image": "img", "tasks": [{"command": ["a"], "resources": resources}]}),
        json!({"image": "img", "resources": resources, "tasks": [{"command": ["a"]}]}),
    ] {
        let invalid = admit(&admission, spec).unwrap_err();
        assert!(
            invalid.path.ends_with("resources.gpuUuids") && invalid.detail.contains("none can be named"),
            "{}",
            invalid.detail
        );
    }
}

#[test]
fn mps_units_are_tenths_of_a_gpu() {
    let admission = admission();
    let asked = |resources| admit(&admission, json!({"command": ["a"], "resources": resources}));
    for (units, gpu) in [(3, "300m"), (1, "100m"), (9, "900m"), (10, "1")] {
        let said = asked(json!({"gpuMpsUnits": units})).unwrap();
        let same = asked(json!({"gpu": gpu})).unwrap();
        assert!(Arc::ptr_eq(&said.shape, &same.shape), "{units}");
        assert_eq!(said.spec, same.spec, "{units}");
    }
    let share = asked(json!({"gpuMpsUnits": 3, "gpuMemoryShare": "2Gi"})).unwrap();
    let share = share.shape.tasks[0].constraints.gpu_share;
    assert_eq!(share, Some(GpuShare { millis: 300, memory: MemoryBytes(2 << 30) }));
    for (resources, said) in [
        (json!({"gpuMpsUnits": 3, "gpu": "300m"}), "and so does `gpu`: say one of the two"),
        (json!({"gpuMpsUnits": 3, "gpu": 0}), "and so does `gpu`: say one of the two"),
        (json!({"gpuMpsUnits": 0}), "`0` is not a number of MPS units: 1 to 10, of which 10 are one whole GPU"),
        (json!({"gpuMpsUnits": 11}), "`11` is not a number of MPS units: 1 to 10"),
    ] {
        let invalid = asked(resources.clone()).unwrap_err();
        assert!(
            invalid.path.ends_with("resources.gpuMpsUnits") && invalid.detail.contains(said),
            "{resources}: {}",
            invalid.detail
        );
    }
}

#[test]
fn volumes_are_checked_before_the_cluster_sees_them() {
    let mut admission = admission();
    let spec = |volumes: serde_json::Value| json!({"command": ["a"], "image": "img", "volumes": volumes});
    let local = admit(&admission, json!({"command": ["a"], "volumes": [{"mountPath": "/d", "claim": "c"}]})).unwrap_err();
    assert_eq!(local.path, "volumes");
    admission.executor = ExecutorKind::Job;
    let fine = json!([{"mountPath": "/data", "claim": "team.sets", "subPath": "a/b", "readOnly": true},
        {"mountPath": "/dev/shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}]);
    admit(&admission, spec(fine)).unwrap();
    for (volume, path) in [
        (json!({"mountPath": "data", "claim": "c"}), "volumes[0].mountPath"),
        (json!({"mountPath": "/", "claim": "c"}), "volumes[0].mountPath"),
        (json!({"mountPath": "/d"}), "volumes[0]"),
        (json!({"mountPath": "/d", "claim": "c", "emptyDir": {}}), "volumes[0]"),
        (json!({"mountPath": "/d", "claim": "No"}), "volumes[0].claim"),
        (json!({"mountPath": "/d", "claim": "c", "subPath": "../x"}), "volumes[0].subPath"),
        (json!({"mountPath": "/d", "emptyDir": {}, "readOnly": true}), "volumes[0].readOnly"),
    ] {
        assert_eq!(admit(&admission, spec(json!([volume]))).unwrap_err().path, path);
    }
    let twice = json!([{"mountPath": "/d", "claim": "c"}, {"mountPath": "/d", "emptyDir": {}}]);
    assert_eq!(admit(&admission, spec(twice)).unwrap_err().path, "volumes[1].mountPath");
}

#[test]
fn gpus_by_uuid_are_as_many_as_are_named() {
    let admission = admission();
    let asked = |resources| admit(&admission, json!({"command": ["a"], "resources": resources})).unwrap();
    let first = asked(json!({"gpuUuids": ["GPU-2", "GPU-1"]}));
    let constraints = &first.shape.tasks[0].constraints;
    assert_eq!((first.shape.tasks[0].request.gpus, &constraints.gpu_uuids[..]), (2, &["GPU-1".into(), "GPU-2".into()][..]));
    assert!(Arc::ptr_eq(&first.shape, &asked(json!({"gpu": 2, "gpuUuids": ["GPU-1", "GPU-2"]})).shape));
    // What came back can be sent again.
    let spec: serde_json::Value = serde_json::from_slice(&first.spec).unwrap();
    assert_eq!(spec["tasks"][0]["resources"], json!({"cpu": "1", "gpu": "2", "gpuUuids": ["GPU-2", "GPU-1"]}));
    assert_eq!(admit(&admission, spec).unwrap().spec, first.spec);
    let part = asked(json!({"gpu": "0.5", "gpuUuids": ["GPU-2"]}));
    assert_eq!(part.shape.tasks[0].constraints.gpu_share, Some(GpuShare { millis: 500, memory: MemoryBytes(0) }));
}

#[test]
fn a_part_of_a_gpu_is_one_gpu_with_a_share() {
    let admission = admission();
    let asked = |resources| admit(&admission, json!({"command": ["a"], "resources": resources}));
    for (gpu, millis) in [(json!("0.5"), 500), (json!(0.25), 250), (json!("1m"), 1), (json!("999m"), 999)] {
        let admitted = asked(json!({"gpu": gpu, "gpuMemoryShare": "2Gi"})).unwrap();
        let group = &admitted.shape.tasks[0];
        let share = GpuShare { millis, memory: MemoryBytes(2 << 30) };
        assert_eq!((group.request.gpus, group.constraints.gpu_share), (1, Some(share)), "{gpu}");
        // What came back can be sent again.
        let spec: serde_json::Value = serde_json::from_slice(&admitted.spec).unwrap();
        assert_eq!(admit(&admission, spec).unwrap().shape, admitted.shape);
    }
    let whole = asked(json!({"gpu": "1000m"})).unwrap();
    assert_eq!((whole.shape.tasks[0].request.gpus, whole.shape.tasks[0].constraints.gpu_share), (1, None));
    for (resources, path) in [
        (json!({"gpu": "1.5"}), "resources.gpu"),
        (json!({"gpu": "1001m"}), "resources.gpu"),
        (json!({"gpu": 2, "gpuMemoryShare": "1Gi"}), "resources.gpuMemoryShare"),
        (json!({"gpu": "0.5", "gpuMemoryShare": "0"}), "resources.gpuMemoryShare"),
        (json!({"gpu": "0.5", "migProfile": "1g.10gb"}), "resources.gpu"),
    ] {
        let invalid = asked(resources.clone()).unwrap_err();
        assert!(invalid.path.ends_with(path), "{resources}: {}", invalid.path);
    }
}
