//! The part that reads what the watcher sees, says what speaks against each GPU, and holds ends of runs until their GPUs are free.
//!
//! What must hold:
//! - An end is passed on exactly once for each time that it came: when a look that began after it came found its GPUs free, when nothing
//!   can be seen of them, or when its time is over; in the last case the GPUs are set aside first.
//! - A process is ended only if it says that it is of a job that has ended, runs as that job's user, and is still the process that was seen: it is
//!   asked to end, and killed after a grace. Any other that is left keeps the GPU back.
//! - A sick GPU is drained by an order that is written down. It is given until that is taken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use executors::Report;
use executors::gpu::{GpuProcess, Procfs, View, Watcher};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use scheduler_core::ids::{JobId, Name, RunId};
use scheduler_core::time::Timestamp;
use store::{Notice, Store};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::meter::{Meter, MeterParts};
use super::{Board, Seen, SeenProcess, SharedBoard, device, judge};
use crate::config::values::{Foreign, Orphans};
use crate::config::{Config, Gpu as GpuConfig};
use crate::engine::{Aside, Cause, GatedEnd, GpuCommands, Observed, SharedCore, holders};
use crate::objects::nodes::{Closed, Order};
use crate::users::Users;

/// Who drains sick GPUs, and closes nodes on which all runs fail.
pub const OWN_NAME: &str = "flashd";
/// How often it is looked while ends wait.
const HURRY: Duration = Duration::from_millis(100);

/// What a keeper is made from.
pub struct KeeperParts {
    /// Who looks.
    pub watcher: Watcher,
    /// Who has what.
    pub core: SharedCore,
    /// What is shown.
    pub board: SharedBoard,
    /// Names of users.
    pub users: Arc<Users>,
    /// The job table, for what its owner has said of a job.
    pub store: Arc<dyn Store>,
    /// Whether a driver is asked: else nothing is seen of processes and memory.
    pub sees: bool,
}

/// An end that waits for its GPUs.
struct Held {
    end: GatedEnd,
    /// The first look that counts.
    round: u64,
    deadline: Instant,
    /// The user that its tasks ran as; `None` where that is not known any more.
    uid: Option<u32>,
    /// Processes that were asked to end, by number and start, and when they are killed.
    asked: BTreeMap<(u32, u64), Instant>,
}

/// See the module.
pub struct Keeper {
    parts: KeeperParts,
    rules: GpuConfig,
    views: watch::Receiver<Arc<View>>,
    processes: Procfs,
    /// What is in use on GPUs that nobody uses, by UUID.
    idle_bytes: BTreeMap<Name, u64>,
    /// Uncorrectable errors that are known already, by UUID.
    ecc: BTreeMap<Name, u64>,
    hot: BTreeSet<Name>,
    /// GPUs on which something of a job was left behind, and of which.
    stuck: BTreeMap<Name, JobId>,
    /// GPUs that are to be drained, and why.
    sick: BTreeMap<Name, String>,
    /// Those that were lost when they were seen last: their runs have been told.
    lost: BTreeSet<Name>,
    held: BTreeMap<RunId, Held>,
    /// What the engine knows; causes to leave are told once.
    told: Observed,
    meter: Meter,
}

impl Keeper {
    /// A keeper that has seen nothing yet.
    pub fn new(parts: KeeperParts, config: &Config) -> Self {
        let views = parts.watcher.views();
        let meter = Meter::new(
            MeterParts { core: parts.core.clone(), board: parts.board.clone(), store: parts.store.clone() },
            &config.gpu,
        );
        Self {
            parts,
            rules: config.gpu.clone(),
            views,
            processes: Procfs::default(),
            idle_bytes: BTreeMap::new(),
            ecc: BTreeMap::new(),
            hot: BTreeSet::new(),
            stuck: BTreeMap::new(),
            sick: BTreeMap::new(),
            lost: BTreeSet::new(),
            held: BTreeMap::new(),
            told: Observed::default(),
            meter,
        }
    }

    /// What is known at the start, before anything has been told to anybody.
    pub async fn begin(&mut self, view: &View) -> Observed {
        let mut observed = self.judge(view).await;
        if view.round == 0 {
            let note = view.stall.map_or_else(|| "the GPUs are still being looked for".to_owned(), stalled);
            self.parts.board.set(Board { note: Some(note), ..Board::default() });
        }
        // Nothing that ran has been restored as running on something else: whoever is on a lost GPU is told by the next look.
        self.lost.clear();
        observed.evict.clear();
        observed
    }

    /// Keeps until `stop`, or until the engine is gone.
    pub async fn run(mut self, engine: GpuCommands, mut ends: mpsc::Receiver<GatedEnd>, stop: CancellationToken) {
        let mut gate_open = true;
        loop {
            let hurry = if self.held.is_empty() { None } else { Some(HURRY) };
            let seen = tokio::select! {
                () = stop.cancelled() => return,
                changed = self.views.changed() => if changed.is_err() { return } else { true },
                // Nobody sends any where nothing can be seen.
                end = ends.recv(), if gate_open => {
                    gate_open = end.is_some();
                    if let Some(end) = end {
                        self.hold(end).await;
                    }
                    false
                }
                () = tokio::time::sleep(hurry.unwrap_or(Duration::MAX)), if hurry.is_some() => {
                    self.parts.watcher.look();
                    false
                }
            };
            // Whatever woke us, a look that came meanwhile is taken as one.
            let seen = seen || self.views.has_changed().unwrap_or(false);
            let view = Arc::clone(&self.views.borrow_and_update());
            if seen {
                if !self.tell(&view, &engine).await {
                    return;
                }
                self.drain_sick(&engine).await;
            }
            // Before the ends that wait for this very look are passed on.
            if seen {
                let ends = self.held.iter().filter_map(|(run, held)| Some((*run, end_of(&held.end.report)?))).collect();
                if !self.meter.look(&view, &ends, &engine).await {
                    return;
                }
            }
            if !self.release(&view, &engine).await {
                return;
            }
        }
    }

    /// Judges what was seen, and says so where that is news. False when the engine is gone.
    async fn tell(&mut self, view: &View, engine: &GpuCommands) -> bool {
        let observed = self.judge(view).await;
        if observed == self.told {
            return true;
        }
        self.told.clone_from(&observed);
        self.told.evict.clear();
        engine.observed(observed).await
    }

    async fn hold(&mut self, end: GatedEnd) {
        let Report::Ended { run, .. } = &end.report else { return };
        let owner = self.parts.store.job(end.job).await;
        let uid = owner.ok().flatten().map(|record| record.owner.uid);
        let deadline = Instant::now() + super::duration(self.rules.release_timeout);
        let round = self.parts.watcher.look();
        self.held.entry(*run).or_insert(Held { end, round, deadline, uid, asked: BTreeMap::new() });
    }

    /// What was seen, put on the board, and what follows from it.
    async fn judge(&mut self, view: &View) -> Observed {
        let holders = holders(&self.parts.core);
        let mut board = Board {
            driver: view.survey.driver.clone(),
            note: (!view.survey.problems.is_empty()).then(|| view.survey.problems.join("; ")),
            gpus: BTreeMap::new(),
            idle: self.meter.notes(),
        };
        let mut observed = Observed { looked: view.round > 0, ..Observed::default() };
        for reading in &view.survey.gpus {
            let uuid = Name::from(reading.gpu.uuid.as_str());
            let mut processes = Vec::new();
            for process in reading.processes.iter().flatten() {
                processes.push(self.process(*process).await);
            }
            let seen = Seen { reading: reading.clone(), processes };
            self.judge_one(
                &uuid,
                &seen,
                holders.get(&uuid).map_or(&[][..], Vec::as_slice),
                view.survey.driver.is_some(),
                &mut observed,
            );
            observed.gpus.push(device(&reading.gpu));
            board.gpus.insert(uuid, seen);
        }
        if let Some(stall) = view.stall {
            let why = stalled(stall);
            for gpu in &observed.gpus {
                observed.aside.entry(gpu.uuid.clone()).or_insert_with(|| Aside::new(Cause::Silent, &why));
            }
            board.note = Some(why);
        }
        let is_there = |uuid: &Name| board.gpus.contains_key(uuid);
        // One that is not listed any more while a run has it is as lost as one that does not answer.
        for uuid in holders
            .keys()
            .filter(|uuid| self.parts.sees && view.stall.is_none() && view.survey.driver.is_some() && !is_there(uuid))
        {
            observed.evict.insert(uuid.clone(), "it is not there any more".into());
        }
        self.forget(&board);
        self.parts.board.set(board);
        observed
    }

    fn judge_one(&mut self, uuid: &Name, seen: &Seen, of: &[JobId], driver: bool, observed: &mut Observed) {
        let reading = &seen.reading;
        let is_unused = of.is_empty() && seen.processes.is_empty() && reading.processes.is_some();
        if let Some(used) = reading.memory_used_bytes.filter(|_| is_unused && !self.stuck.contains_key(uuid)) {
            let idle = self.idle_bytes.entry(uuid.clone()).or_insert(used);
            *idle = used.min(*idle);
        }
        let stuck = self.stuck.get(uuid).and_then(|job| judge::left_behind(seen, *job, self.idle_bytes.get(uuid).copied(), of));
        if stuck.is_none() {
            self.stuck.remove(uuid);
        }
        let avoid = self.rules.foreign == Foreign::Avoid;
        let stuck = stuck.map(|why| Aside::new(Cause::LeftBehind, why));
        let why = stuck.or_else(|| judge::against(seen, of, avoid, self.hot.contains(uuid)));
        if judge::hot(seen, self.hot.contains(uuid)).is_some() {
            self.hot.insert(uuid.clone());
        } else {
            self.hot.remove(uuid);
        }
        if let Some(why) = why {
            observed.aside.insert(uuid.clone(), why);
        }
        if reading.lost.is_none() {
            self.lost.remove(uuid);
        } else if driver && self.lost.insert(uuid.clone()) {
            // Where the driver itself is silent, nothing is known of any GPU, and what runs may run on.
            observed.evict.insert(uuid.clone(), "it does not answer any more".into());
        }
        // What was wrong before we came is somebody's business who has seen it.
        if let Some(sick) = judge::sickness(seen, self.ecc.get(uuid).copied(), &self.rules.ignore_xids) {
            observed.evict.insert(uuid.clone(), sick.as_str().into());
            observed.aside.insert(uuid.clone(), Aside::new(Cause::Sick, &sick));
            self.sick.insert(uuid.clone(), sick);
        } else if let Some(sick) = self.sick.get(uuid) {
            observed.aside.insert(uuid.clone(), Aside::new(Cause::Sick, sick));
        }
        if let Some(errors) = reading.ecc_errors {
            self.ecc.insert(uuid.clone(), errors);
        }
    }

    async fn process(&mut self, process: GpuProcess) -> SeenProcess {
        let GpuProcess { pid, memory_bytes, graphics, busy_percent } = process;
        let found = self.processes.look(pid);
        let user = match found.uid {
            Some(uid) => self.parts.users.get(uid).await.ok().map(|user| user.name.clone()),
            None => None,
        };
        let job = found.job.and_then(|job| uuid::Uuid::parse_str(&job).ok()).map(JobId);
        SeenProcess { pid, user, command: found.command, memory_bytes, job, started: found.started, graphics, busy_percent }
    }

    /// What is kept of GPUs and processes is kept of those that are there.
    fn forget(&mut self, board: &Board) {
        let there = |uuid: &Name| board.gpus.contains_key(uuid);
        self.idle_bytes.retain(|uuid, _| there(uuid));
        self.stuck.retain(|uuid, _| there(uuid));
        self.hot.retain(|uuid| there(uuid));
        self.lost.retain(|uuid| there(uuid));
        let pids: BTreeSet<u32> = board.gpus.values().flat_map(|seen| &seen.processes).map(|process| process.pid).collect();
        self.processes.retain(|pid| pids.contains(&pid));
    }

    /// Has the drain of sick GPUs written down; those of which that fails are tried again at the next look.
    async fn drain_sick(&mut self, engine: &GpuCommands) {
        for (uuid, why) in std::mem::take(&mut self.sick) {
            let order = Order { close: Some(Closed::Draining), reason: Some(why.clone()), by: OWN_NAME.into() };
            if !engine.drain(uuid.clone(), order).await {
                self.sick.insert(uuid, why);
            }
        }
    }

    /// Passes on the ends whose GPUs are free, or whose time is over. False when the engine is gone.
    async fn release(&mut self, view: &View, engine: &GpuCommands) -> bool {
        let board = self.parts.board.get();
        let now = Instant::now();
        let holders = if self.held.is_empty() { BTreeMap::new() } else { holders(&self.parts.core) };
        let mut over: Vec<RunId> = Vec::new();
        let mut stuck = false;
        let mut swept: Vec<Notice> = Vec::new();
        let grace = super::duration(self.rules.orphan_grace);
        for (run, held) in &mut self.held {
            let left = |uuid: &Name| {
                let seen = board.gpus.get(uuid).filter(|seen| seen.reading.lost.is_none())?;
                let of = holders.get(uuid).map_or(&[][..], Vec::as_slice);
                judge::left_behind(seen, held.end.job, self.idle_bytes.get(uuid).copied(), of)
            };
            let blind = !self.parts.sees || view.stall.is_some();
            let was_seen = view.round >= held.round;
            let left: Vec<Name> = held.end.gpus.iter().filter(|uuid| left(uuid).is_some()).cloned().collect();
            if blind || (was_seen && left.is_empty()) {
                over.push(*run);
            } else if now >= held.deadline {
                self.stuck.extend(left.into_iter().map(|uuid| (uuid, held.end.job)));
                stuck = true;
                over.push(*run);
            } else if was_seen && self.rules.orphans == Orphans::End {
                let Held { end, uid, asked, .. } = held;
                for uuid in &left {
                    let Some(seen) = board.gpus.get(uuid) else { continue };
                    let ended = end_orphans(seen, end.job, *uid, asked, grace);
                    swept.extend((!ended.is_empty()).then(|| judge::swept(uuid, &ended, end.job)));
                }
            }
        }
        if !swept.is_empty() && !engine.told(swept).await {
            return false;
        }
        if stuck && !self.tell(view, engine).await {
            return false;
        }
        for run in over {
            if let Some(held) = self.held.remove(&run)
                && !engine.checked(held.end.report).await
            {
                return false;
            }
        }
        true
    }
}

/// Waits for the first look, for so long at most.
pub async fn first_view(watcher: &Watcher, patience: Duration) -> Arc<View> {
    let mut views = watcher.views();
    let first = tokio::time::timeout(patience, views.wait_for(|view| view.round > 0 || view.stall.is_some())).await;
    match first {
        Ok(Ok(view)) => Arc::clone(&view),
        _ => Arc::default(),
    }
}

/// Ends what is left of a job that has ended: each is asked first, and killed when its grace is over. Gives those that were asked now.
fn end_orphans<'a>(
    seen: &'a Seen,
    job: JobId,
    uid: Option<u32>,
    asked: &mut BTreeMap<(u32, u64), Instant>,
    grace: Duration,
) -> Vec<&'a SeenProcess> {
    let mut ended = Vec::new();
    for process in seen.processes.iter().filter(|process| process.job == Some(job)) {
        let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { continue };
        let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        // The number may be another process's by now; behind the handle it cannot become that any more.
        let now = Procfs::default().look(process.pid);
        // Anybody can say that he is of a job; of the same user he says it of himself.
        if now.started != process.started || now.uid.is_none() || now.uid != uid {
            continue;
        }
        let due = asked.get(&(process.pid, process.started)).copied();
        let signal = match due {
            None => Signal::TERM,
            Some(due) if due <= Instant::now() => Signal::KILL,
            Some(_) => continue,
        };
        match pidfd_send_signal(&handle, signal) {
            Ok(()) => {
                tracing::warn!(pid = process.pid, %job, ?signal, "a process of an ended job is still on a GPU, and is told to end");
            }
            Err(error) => tracing::warn!(pid = process.pid, %job, %error, "a process of an ended job is still on a GPU"),
        }
        if due.is_none() {
            asked.insert((process.pid, process.started), Instant::now() + grace);
            ended.push(process);
        }
    }
    ended
}

const fn end_of(report: &Report) -> Option<Timestamp> {
    if let Report::Ended { at, .. } = report { Some(*at) } else { None }
}

fn stalled(stall: executors::gpu::Stall) -> String {
    format!("the driver has not answered {} for more than {} s", stall.function, stall.since.elapsed().as_secs())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;

    use executors::gpu::Reading;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn nothing_is_ended_but_the_very_process_of_the_very_user() {
        let job = JobId(Uuid::from_u128(7));
        let mut child = Command::new("sleep").arg("1000").env("FLASH_JOB_ID", job.to_string()).spawn().unwrap();
        let found = Procfs::default().look(child.id());
        let process = SeenProcess {
            pid: child.id(),
            user: None,
            command: String::new(),
            memory_bytes: None,
            job: Some(job),
            started: found.started,
            graphics: false,
            busy_percent: None,
        };
        let seen = |process: SeenProcess| Seen { reading: Reading::default(), processes: vec![process] };
        let mut asked = BTreeMap::new();
        let end = |process: &SeenProcess, uid, grace, asked: &mut BTreeMap<_, _>| {
            end_orphans(&seen(process.clone()), job, uid, asked, grace).len()
        };
        // The number was another process's when it was seen; another user's; nobody knows whose; of another job.
        let earlier = SeenProcess { started: found.started + 1, ..process.clone() };
        assert_eq!(end(&earlier, found.uid, Duration::ZERO, &mut asked), 0);
        assert_eq!(end(&process, found.uid.map(|uid| uid + 1), Duration::ZERO, &mut asked), 0);
        assert_eq!(end(&process, None, Duration::ZERO, &mut asked), 0);
        assert_eq!(end(&SeenProcess { job: None, ..process.clone() }, found.uid, Duration::ZERO, &mut asked), 0);
        assert!(asked.is_empty() && child.try_wait().unwrap().is_none());
        assert_eq!(end(&process, found.uid, Duration::ZERO, &mut asked), 1);
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        assert_eq!(end(&process, found.uid, Duration::ZERO, &mut asked), 0, "it is told once");
    }
}
