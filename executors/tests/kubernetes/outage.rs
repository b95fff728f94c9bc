//! Daemons that are killed, API servers that are killed, and objects that vanish behind one's back.

use control_plane::Part;
use executors::{ExecutorError, RunPhase};
use scheduler_core::event::RunResult;
use scheduler_core::state::FailReason;

use crate::rig::{Site, instance, order, stop_after};

#[tokio::test]
async fn a_new_daemon_finds_what_the_old_one_left() {
    let Some(site) = Site::shared() else { return };
    let instance = instance();
    let mut old = site.daemon(&instance).await;
    let running = old.start(order("2h", "0")).await;
    let stopping = old.start(order("2h", "0")).await;
    let ending = old.start(order("500ms", "5")).await;
    old.started(running).await;
    old.started(stopping).await;
    old.executor.stop(stopping, stop_after(30)).await.unwrap();
    drop(old);
    let mut new = site.daemon(&instance).await;
    assert_eq!(new.ended(ending).await, RunResult::Failed { reason: FailReason::ExitCode { task: "main".into(), code: 5 } });
    assert!(matches!(new.ended(stopping).await, RunResult::Failed { reason: FailReason::Signal { signal: 15, .. } }));
    assert!(matches!(new.phase(running).await, Some(RunPhase::Running { .. })));
    new.executor.stop(running, stop_after(1)).await.unwrap();
    new.ended(running).await;
}

#[tokio::test]
async fn a_job_that_somebody_deletes_is_gone_and_that_is_said() {
    let Some(site) = Site::shared() else { return };
    let mut rig = site.daemon(&instance()).await;
    let run = rig.start(order("2h", "0")).await;
    rig.started(run).await;
    let job = format!("flash-{}-{}", run.job, run.attempt);
    site.cluster.kubectl(&["delete", "job", &job, "--wait=false"]).unwrap();
    rig.disturbed("was deleted").await;
    rig.until(run, Option::is_none).await;
    assert_eq!(rig.ends(run), 0, "how it ended is for the reconciler to say");

    // A pod alone: the run is over, and nobody's program is to blame.
    let run = rig.start(order("2h", "0")).await;
    rig.started(run).await;
    let job = format!("job-name=flash-{}-{}", run.job, run.attempt);
    site.cluster.kubectl(&["delete", "pod", "--selector", &job, "--wait=false"]).unwrap();
    rig.until(run, |phase| matches!(phase, Some(RunPhase::Ended { result: RunResult::Lost { .. }, .. }))).await;
}

#[tokio::test]
async fn while_the_api_server_is_away_nothing_is_lost() {
    let Some(site) = Site::start("an API server that is killed") else { return };
    if !site.cluster.is_ours() {
        return;
    }
    let mut rig = site.daemon(&instance()).await;
    let long = rig.start(order("2h", "0")).await;
    let short = rig.start(order("3s", "6")).await;
    let vanishing = rig.start(order("2h", "0")).await;
    for run in [long, short, vanishing] {
        rig.started(run).await;
    }
    site.cluster.kill_part(Part::ApiServer).unwrap();
    rig.disturbed("watching the cluster").await;
    let error = rig.executor.observe().await.unwrap_err();
    assert!(matches!(error, ExecutorError::Unreachable { .. }), "{error}");
    let late = order("20ms", "0");
    assert!(matches!(rig.executor.start(vec![late.clone()]).await.unwrap_err(), ExecutorError::Unreachable { .. }));

    site.cluster.start_part(Part::ApiServer).unwrap();
    site.cluster.wait_ready().unwrap();
    // As the reconciler does, until the order is taken.
    let late_run = late.run;
    while rig.executor.start(vec![late.clone()]).await.is_err() {}
    assert_eq!(rig.ended(late_run).await, RunResult::Succeeded);
    assert_eq!(rig.ended(short).await, RunResult::Failed { reason: FailReason::ExitCode { task: "main".into(), code: 6 } });
    let job = format!("flash-{}-{}", vanishing.job, vanishing.attempt);
    site.cluster.kubectl(&["delete", "job", &job, "--wait=false"]).unwrap();
    rig.disturbed(&vanishing.to_string()).await;
    rig.until(vanishing, Option::is_none).await;
    assert!(matches!(rig.phase(long).await, Some(RunPhase::Running { .. })));
}
