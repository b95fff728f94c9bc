//! What is said and counted reaches the status of the one that it is of.
#![expect(clippy::unwrap_used, reason = "tests")]

use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_types::{FlashJobSpec, Phase, TaskPlacement};
use kube::client::Body;
use scheduler_core::ids::{Attempt, JobId};

use super::*;

/// Over a cluster that nobody asks.
fn board() -> FlashJobs {
    let nobody =
        tower::service_fn(|_: http::Request<Body>| async { Err::<http::Response<Body>, _>(std::io::Error::other("nobody")) });
    FlashJobs::new(Client::new(nobody, "default"), "here".to_owned(), None)
}

fn key() -> FlashJobKey {
    ("team".to_owned(), "train".to_owned())
}

fn flash_job(uid: &str) -> Arc<FlashJob> {
    let tasks = vec![PodTemplateSpec::default(); 2];
    let mut job = FlashJob::new("train", FlashJobSpec { tasks, ..FlashJobSpec::default() });
    (job.metadata.namespace, job.metadata.uid) = (Some("team".to_owned()), Some(uid.to_owned()));
    Arc::new(job)
}

fn run(job: u128, attempt: u32) -> RunId {
    RunId { job: JobId(uuid::Uuid::from_u128(job)), attempt: Attempt(attempt) }
}

fn running(active: i32) -> Counts {
    let placements = [0, 1].map(|task| TaskPlacement { task, ..TaskPlacement::default() }).to_vec();
    Counts { active, placements, ..Counts::default() }
}

fn shown(board: &FlashJobs) -> (i32, Option<Phase>, usize) {
    let status = board.books().due(&key()).unwrap().status;
    (status.active, status.phase, status.placements.len())
}

#[tokio::test]
async fn pods_of_an_earlier_run_are_not_those_of_the_next() {
    let board = board();
    board.books().jobs.insert(key(), flash_job("one"));
    board.say(&key(), run(1, 1), Some("one".to_owned()), Stand::Running);
    board.count(&key(), run(1, 1), running(2));
    assert_eq!(shown(&board), (2, Some(Phase::Running), 2));
    // Its node is lost: the pods look as if they ran, and the next try is begun elsewhere.
    board.say(&key(), run(1, 2), Some("one".to_owned()), Stand::Starting);
    assert_eq!(shown(&board), (0, Some(Phase::Pending), 0));
    board.count(&key(), run(1, 2), running(1));
    board.count(&key(), run(1, 1), running(2));
    assert_eq!(shown(&board), (1, Some(Phase::Pending), 2));
}

#[tokio::test]
async fn pods_of_one_that_was_deleted_are_not_those_of_its_namesake() {
    let board = board();
    board.books().jobs.insert(key(), flash_job("one"));
    board.say(&key(), run(1, 3), Some("one".to_owned()), Stand::Running);
    board.count(&key(), run(1, 3), running(2));
    // Deleted and applied anew; the pods of the first go on for their grace.
    board.books().gone(&key());
    board.books().jobs.insert(key(), flash_job("two"));
    board.count(&key(), run(1, 3), running(1));
    board.say(&key(), run(1, 3), Some("one".to_owned()), Stand::Stopping("being cancelled".to_owned()));
    assert!(board.books().due(&key()).is_none(), "what is said of the first is not for the second");
    board.say(&key(), run(2, 1), Some("two".to_owned()), Stand::Starting);
    assert_eq!(shown(&board), (0, Some(Phase::Pending), 0));
    board.count(&key(), run(2, 1), running(2));
    board.count(&key(), run(1, 3), running(1));
    assert_eq!(shown(&board), (2, Some(Phase::Running), 2));
}

#[tokio::test]
async fn nothing_is_remembered_of_what_is_gone() {
    let board = board();
    board.books().jobs.insert(key(), flash_job("one"));
    board.say(&key(), run(1, 1), Some("one".to_owned()), Stand::Running);
    board.books().gone(&key());
    // Its pods go after it, and whoever follows jobs is behind.
    board.say(&key(), run(1, 1), Some("one".to_owned()), Stand::Stopping("being cancelled".to_owned()));
    board.count(&key(), run(1, 1), running(1));
    board.uncount(&key());
    assert!(board.books().entries.is_empty());
    // One that the watch has not shown yet is counted all the same.
    board.count(&key(), run(2, 1), running(2));
    board.books().jobs.insert(key(), flash_job("two"));
    board.uncount(&key());
    board.say(&key(), run(2, 1), Some("two".to_owned()), Stand::Running);
    assert_eq!(shown(&board).0, 2);
}
