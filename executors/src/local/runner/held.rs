//! Orders that wait in a line: how they come, how their turn comes, how they go without it.
//!
//! What must hold:
//! - A run begins only by [`Table::next_job`], which takes it out of its line and off the held ones under one lock with giving it its
//!   share. So it is either held, and whoever stops it drops it for good, or has begun, and is stopped like any other.
//! - The intent is written down after that and before the first process ([`spawn`](super::spawn)). A next runner that finds no intent
//!   of a held run in the journal knows that there was no process, as long as the machine has not been rebooted in between; see
//!   [`recover`](super::recover).

use std::sync::Arc;

use scheduler_core::ids::{Name, RunId};

use super::clock;
use super::lines::{Amounts, Share};
use super::output::Output;
use super::shared::Shared;
use super::table::{End, Held, Live, Run, SpawnJob, Table};
use crate::contract::{Line, StartOrder, TaskOrder};

/// Most runs that wait in lines, over all of them; more are not taken.
const MAX_HELD: usize = 4_096;

/// What all tasks of an order ask for; `None` if that is more than a number can say.
fn wants(order: &StartOrder) -> Option<Amounts> {
    let sum = |of: fn(&TaskOrder) -> u64| order.tasks.iter().map(of).try_fold(0, u64::checked_add);
    Some(Amounts { cpu_millis: sum(|task| task.cpu_millis)?, memory_bytes: sum(|task| task.memory_bytes)? })
}

/// Names of an order's tasks.
pub(super) fn task_names(order: &StartOrder) -> Vec<Name> {
    order.tasks.iter().map(|task| task.name.clone()).collect()
}

impl Table {
    /// An order that is not known takes its place in a line. One for which there is never room there is dropped at once.
    pub(super) fn hold(&mut self, shared: &Shared, line: Line, order: StartOrder, log_dir: &Arc<str>) {
        let run = order.run;
        if self.runs.contains_key(&run) {
            return;
        }
        let limits = Amounts { cpu_millis: line.cpu_millis, memory_bytes: line.memory_bytes };
        let fits = wants(&order).filter(|wants| wants.within(limits));
        match fits {
            Some(_) if self.lines.held() >= MAX_HELD => {
                let message = format!("the runner holds {MAX_HELD} orders, and takes no more until some have begun");
                self.never_begins(shared, run, message);
            }
            Some(wants) => {
                let ticket = self.lines.wait(line.id, run, wants, limits);
                let job = SpawnJob { order, log_dir: Arc::clone(log_dir), share: None, output: Output::Named };
                self.runs.insert(run, Run::Held(Box::new(Held { ticket, job })));
            }
            None => self.never_begins(shared, run, "it asks for more than its line may ever have in use".to_owned()),
        }
    }

    /// What is to be started next: of those that begin at once, and then of the lines. Whoever is given out begins.
    pub(super) fn next_job(&mut self) -> Option<SpawnJob> {
        if let Some(job) = self.queue.pop_front() {
            return Some(job);
        }
        let (run, share) = self.lines.next()?;
        let job = match self.runs.remove(&run) {
            Some(Run::Held(held)) => held.job,
            // Not possible: whoever is dropped is taken out of its line as well.
            other => {
                if let Some(other) = other {
                    self.runs.insert(run, other);
                }
                self.lines.leave(share);
                return None;
            }
        };
        let live = Live { share: Some(share), ..Live::new(task_names(&job.order), job.order.uid) };
        self.runs.insert(run, Run::Live(Box::new(live)));
        let late = self.lines.held() > 0 && job.order.tasks.len() == 1;
        let output = if late { Output::Late(self.spares.take(&job.log_dir, job.order.uid)) } else { Output::Named };
        Some(SpawnJob { share: Some(share), output, ..job })
    }

    /// Drops a run if it waits in a line; false if it does not.
    pub(super) fn drop_held(&mut self, shared: &Shared, run: RunId, why: &str) -> bool {
        let Some(Run::Held(held)) = self.runs.get(&run) else { return false };
        let ticket = held.ticket;
        self.lines.drop_out(ticket);
        self.never_begins(shared, run, why.to_owned());
        self.wake_spawner(shared);
        true
    }

    /// A run gives its share back, of which nothing is left.
    pub(super) fn leave_line(&mut self, shared: &Shared, share: Share) {
        self.lines.leave(share);
        self.wake_spawner(shared);
    }

    /// Wakes a spawn thread if there is somebody to be given out.
    pub(super) fn wake_spawner(&self, shared: &Shared) {
        if self.lines.is_ready() && !self.taking {
            shared.work.notify_one();
        }
    }

    fn never_begins(&mut self, shared: &Shared, run: RunId, message: String) {
        self.settle_as(shared, run, End::NotBegun { message, at: clock::now() });
    }
}
