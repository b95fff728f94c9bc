//! How a job stands, in the words of a FlashJob's status. Pure.

use executors::kubernetes::flashjob::Stand;
use scheduler_core::state::{JobState, Lifecycle, Outcome, StopReason, WaitFor};

use crate::http::view;

/// What is said of a job of this queue, of which so many tasks were placed last.
pub(super) fn stand(lifecycle: &Lifecycle, queue: &str, tasks: usize) -> Stand {
    let again = match lifecycle.lost {
        0 => String::new(),
        1 => "; infrastructure lost one try".to_owned(),
        lost => format!("; infrastructure lost {lost} tries"),
    };
    match &lifecycle.state {
        JobState::Waiting { on: WaitFor::Hold } => Stand::Held,
        JobState::Waiting { on: WaitFor::NotBefore(_) } => Stand::Waiting(format!("waits for its time{again}")),
        JobState::Queued { .. } => Stand::Waiting(format!("waits in queue {queue}; `flash why` says for what{again}")),
        JobState::Starting { .. } => Stand::Starting,
        JobState::Running { .. } => Stand::Running,
        JobState::Stopping { why, .. } => Stand::Stopping(match &**why {
            StopReason::Cancel { by } => format!("being cancelled by {by}"),
            StopReason::TimeLimit => "being ended: its time limit is over".to_owned(),
            StopReason::Requeue { by } => format!("being requeued by {by}"),
            StopReason::Evicted { message } | StopReason::Idle { message } => format!("being ended: {message}"),
            StopReason::Preempted { .. } => "being ended to make room for another job; it will be queued again".to_owned(),
        }),
        JobState::Finished { outcome, at } => match &**outcome {
            Outcome::Succeeded => Stand::Succeeded { at: *at, tasks },
            Outcome::Cancelled { by } => Stand::Failed { reason: "Cancelled", message: format!("cancelled by {by}"), at: *at },
            failed @ Outcome::Failed { .. } => {
                let message = view::outcome(failed).message.unwrap_or_default();
                Stand::Failed { reason: "Failed", message, at: *at }
            }
        },
    }
}
