//! What every executor does with runs.

use executors::kubernetes::{JobExecutor, JobOptions, connect};
use executors::{Executor as _, ExecutorError, PodOrder, RunPhase, StartOrder, TaskOrder};
use scheduler_core::event::RunResult;
use scheduler_core::state::FailReason;

use crate::rig::{Site, instance, order, replicas, stop_after};

fn exit_code(task: &str, code: i32) -> RunResult {
    RunResult::Failed { reason: FailReason::ExitCode { task: task.into(), code } }
}

fn signalled(task: &str, signal: i32) -> RunResult {
    RunResult::Failed { reason: FailReason::Signal { task: task.into(), signal } }
}

fn start_message(result: RunResult) -> String {
    match result {
        RunResult::Failed { reason: FailReason::Start { message } } => message.to_string(),
        other => panic!("not a start that failed: {other:?}"),
    }
}

#[tokio::test]
async fn runs_end_as_their_pods_do() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.daemon(&instance()).await;
    let good = rig.start(order("50ms", "0")).await;
    let bad = rig.start(order("50ms", "3")).await;
    let killed = rig.start(order("50ms", "137")).await;
    let gang = rig.start(replicas(3, order("50ms", "0"))).await;
    rig.started(good).await;
    assert_eq!(rig.ended(good).await, RunResult::Succeeded);
    assert_eq!(rig.ended(bad).await, exit_code("main", 3));
    assert_eq!(rig.ended(killed).await, signalled("main", 9));
    assert_eq!(rig.ended(gang).await, RunResult::Succeeded);
}

#[tokio::test]
async fn a_start_that_is_given_again_changes_nothing() {
    let Some(site) = Site::shared() else { return };
    let instance = instance();
    let mut rig = site.daemon(&instance).await;
    let order = order("2h", "0");
    let run = order.run;
    rig.executor.start(vec![order.clone(), order.clone()]).await.unwrap();
    rig.started(run).await;
    rig.executor.start(vec![order.clone()]).await.unwrap();
    let select = format!("scheduling.flash-sched.io/instance={instance}");
    let pods = site.cluster.kubectl(&["get", "pods", "--selector", &select, "--output", "name"]).unwrap();
    assert_eq!(pods.lines().count(), 1, "{pods}");
    assert!(matches!(rig.phase(run).await, Some(RunPhase::Running { .. })));
    rig.executor.stop(run, stop_after(30)).await.unwrap();
    assert_eq!(rig.ended(run).await, signalled("main", 15));
    rig.executor.start(vec![order]).await.unwrap();
    assert!(matches!(rig.phase(run).await, Some(RunPhase::Ended { .. })), "what has ended is not started again");
}

#[tokio::test]
async fn a_stop_ends_all_tasks_before_it_is_told_and_can_be_given_again() {
    let Some(site) = Site::shared() else { return };
    let instance = instance();
    let mut rig = site.daemon(&instance).await;
    rig.executor.stop(order("1s", "0").run, stop_after(1)).await.unwrap();
    let gang = rig.start(replicas(3, order("2h", "0"))).await;
    rig.started(gang).await;
    rig.executor.stop(gang, stop_after(30)).await.unwrap();
    rig.executor.stop(gang, stop_after(1)).await.unwrap();
    let ended = rig.ended(gang).await;
    assert!(matches!(ended, RunResult::Failed { reason: FailReason::Signal { signal: 15, .. } }), "{ended:?}");
    let select = format!("scheduling.flash-sched.io/instance={instance}");
    let running = ["get", "pods", "--selector", &select, "--field-selector=status.phase=Running", "--output", "name"];
    assert_eq!(site.cluster.kubectl(&running).unwrap(), "");
    // One that never had a pod.
    let mut never = order("1s", "0");
    never.pod = never.pod.map(|pod| PodOrder { gpus: 1_000, ..pod });
    let run = rig.start(never).await;
    rig.until(run, |phase| matches!(phase, Some(RunPhase::Starting))).await;
    rig.executor.stop(run, stop_after(30)).await.unwrap();
    rig.ended(run).await;
}

#[tokio::test]
async fn what_runs_is_not_forgotten_and_what_ended_is_kept_until_then() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.daemon(&instance()).await;
    let ended = rig.start(order("20ms", "4")).await;
    let running = rig.start(order("2h", "0")).await;
    assert_eq!(rig.ended(ended).await, exit_code("main", 4));
    rig.started(running).await;
    assert!(matches!(rig.phase(ended).await, Some(RunPhase::Ended { result, .. }) if result == exit_code("main", 4)));
    rig.executor.forget(vec![ended, running, order("1s", "0").run]).await.unwrap();
    rig.executor.forget(vec![ended]).await.unwrap();
    assert_eq!(rig.phase(ended).await, None);
    assert!(matches!(rig.phase(running).await, Some(RunPhase::Running { .. })));
    rig.executor.stop(running, stop_after(1)).await.unwrap();
    rig.ended(running).await;
    rig.executor.forget(vec![running]).await.unwrap();
    assert_eq!(rig.executor.observe().await.unwrap(), []);
}

#[tokio::test]
async fn what_can_never_start_ends_with_what_to_do() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.daemon(&instance()).await;
    let good = order("20ms", "0");
    let with = |pod: fn(PodOrder) -> PodOrder| {
        let order = order("20ms", "0");
        StartOrder { pod: order.pod.clone().map(pod), ..order }
    };
    let nowhere = rig.start(with(|pod| PodOrder { namespace: "nowhere".to_owned(), ..pod })).await;
    let message = start_message(rig.ended(nowhere).await);
    assert!(message.contains("`kubectl create namespace nowhere`"), "{message}");
    let wrong = rig.start(with(|pod| PodOrder { gpu_resource: "no/such/thing".to_owned(), gpus: 1, ..pod })).await;
    let message = start_message(rig.ended(wrong).await);
    assert!(message.contains("no/such/thing"), "{message}");
    let mut mixed = good.clone();
    mixed.tasks.push(TaskOrder { name: "head".into(), command: vec!["other".to_owned()], ..mixed.tasks[0].clone() });
    let mixed = rig.start(mixed).await;
    let message = start_message(rig.ended(mixed).await);
    assert!(message.contains("replicas of one task"), "{message}");
    assert!(matches!(rig.phase(mixed).await, Some(RunPhase::Ended { .. })), "kept until it is forgotten");
    rig.executor.forget(vec![mixed, nowhere, wrong]).await.unwrap();
    assert_eq!(rig.executor.observe().await.unwrap(), []);
}

#[tokio::test]
async fn many_short_runs_each_have_their_own_end() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.daemon(&instance()).await;
    let orders: Vec<_> = (0..24).map(|number| order("20ms", &(number % 4).to_string())).collect();
    let runs: Vec<_> = orders.iter().map(|order| order.run).collect();
    rig.executor.start(orders).await.unwrap();
    for (number, run) in runs.iter().enumerate() {
        let expected = if number % 4 == 0 { RunResult::Succeeded } else { exit_code("main", i32::try_from(number % 4).unwrap()) };
        assert_eq!(rig.ended(*run).await, expected);
    }
    rig.executor.forget(runs).await.unwrap();
    assert_eq!(rig.executor.observe().await.unwrap(), []);
}

#[tokio::test]
async fn another_installation_in_the_same_cluster_is_left_alone() {
    let Some(site) = Site::shared() else { return };
    let (mut one, other) = (site.daemon(&instance()).await, site.daemon(&instance()).await);
    let run = one.start(order("2h", "0")).await;
    assert_eq!(other.executor.observe().await.unwrap(), []);
    other.executor.stop(run, stop_after(1)).await.unwrap();
    other.executor.forget(vec![run]).await.unwrap();
    one.until(run, |phase| matches!(phase, Some(RunPhase::Running { .. }))).await;
}

#[tokio::test]
async fn missing_rights_and_wrong_kubeconfigs_are_said_with_the_command_that_mends_them() {
    let Some(site) = Site::shared() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nobody.kubeconfig");
    site.cluster.kubectl(&["create", "serviceaccount", "nobody", "--namespace=flash-system"]).unwrap();
    std::fs::write(&file, site.cluster.kubeconfig_of("flash-system", "nobody").unwrap()).unwrap();
    let client = connect(Some(&file)).await.unwrap();
    let (reports, _inbox) = tokio::sync::mpsc::channel(4);
    let nobody = JobExecutor::new(JobOptions { client, instance: instance(), reports });
    let error = nobody.adopt().await.unwrap_err();
    assert!(matches!(&error, ExecutorError::Other { .. }), "{error}");
    assert!(error.to_string().contains("kubectl apply --server-side -k k8s"), "{error}");

    std::fs::write(&file, "clusters: [").unwrap();
    let error = connect(Some(&file)).await.err().unwrap().to_string();
    assert!(error.contains("nobody.kubeconfig") && error.contains("get nodes` has to work"), "{error}");
}
