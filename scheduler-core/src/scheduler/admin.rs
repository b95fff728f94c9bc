//! Changes while running: queues and cohorts come, change and go; use is handed out to be kept, and taken back.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::amounts::GPU_MILLIS;
use crate::hash::Build;
use crate::ids::Name;
use crate::scheduler::Scheduler;
use crate::scheduler::config::{QueueConfig, check_queues};
use crate::scheduler::errors::ChangeError;
use crate::scheduler::policy::CohortConfig;
use crate::scheduler::table::JobIx;
use crate::scheduler::tree::QueueIx;
use crate::scheduler::tree::key::Key;
use crate::scheduler::tree::share::Amounts;
use crate::time::Timestamp;

/// What a tenant of a queue, or a queue of a cohort, has used as it counted at a time. Amounts are rounded down to whole seconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageRecord {
    /// The queue.
    pub queue: Name,
    /// The tenant; none where it is the use of the whole queue among those of its cohort.
    #[serde(default)]
    pub namespace: Option<Name>,
    /// When it counted so.
    pub at: Timestamp,
    /// Thousandths of a core times seconds.
    pub cpu_milli_seconds: u64,
    /// MiB times seconds.
    pub memory_mib_seconds: u64,
    /// GPUs times seconds.
    pub gpu_seconds: u64,
}

const SECOND: u128 = 1_000_000;
const MIB: u128 = 1 << 20;
/// A GPU in thousandths.
const MILLIS: u128 = GPU_MILLIS as u128;

impl Scheduler {
    /// The configured queues as they are now, in the order in which they came.
    pub fn queue_configs(&self) -> impl Iterator<Item = &QueueConfig> {
        self.tree.queues().iter().filter(|queue| queue.configured).map(|queue| &queue.config)
    }

    /// The cohorts as they are now.
    pub fn cohort_configs(&self) -> impl Iterator<Item = &CohortConfig> {
        self.tree.cohort_configs()
    }

    /// Enters a queue, or changes the one of this name; its jobs stay and are ordered anew. Takes time in proportion to all jobs.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`].
    pub fn set_queue(&mut self, config: QueueConfig, now: Timestamp) -> Result<(), ChangeError> {
        let mut queues: Vec<_> = self.queue_configs().filter(|queue| queue.name != config.name).cloned().collect();
        queues.push(config.clone());
        let cohorts: Vec<_> = self.cohort_configs().cloned().collect();
        check_queues(&queues, &cohorts)?;
        let queued = self.take_out(&config.name);
        self.tree.configure(config, now);
        self.tree.relate(cohorts, now);
        for job in queued {
            if let Some(key) = self.key_of(job) {
                self.tree.push(self.jobs[job].bucket, job, key, self.stay_of(job), now);
            }
        }
        self.recount_borrowed();
        self.look_again();
        Ok(())
    }

    /// Removes a queue.
    ///
    /// # Errors
    /// It has unfinished jobs, or there is no such queue.
    pub fn remove_queue(&mut self, name: &Name, now: Timestamp) -> Result<(), ChangeError> {
        let index = self.tree.find_queue(name).filter(|&queue| self.tree.queue(queue).configured);
        let index = index.ok_or_else(|| ChangeError::Unknown { name: name.clone() })?;
        let jobs = self.tree.queue(index).counts.iter().sum();
        if jobs > 0 {
            return Err(ChangeError::HasJobs { name: name.clone(), jobs });
        }
        self.tree.retire(index);
        let cohorts = self.cohort_configs().cloned().collect();
        self.tree.relate(cohorts, now);
        self.look_again();
        Ok(())
    }

    /// Enters a cohort, or changes the one of this name.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`].
    pub fn set_cohort(&mut self, config: CohortConfig, now: Timestamp) -> Result<(), ChangeError> {
        let mut cohorts: Vec<_> = self.cohort_configs().cloned().collect();
        match cohorts.iter_mut().find(|cohort| cohort.name == config.name) {
            Some(cohort) => *cohort = config,
            None => cohorts.push(config),
        }
        self.set_cohorts(cohorts, now)
    }

    /// Removes a cohort.
    ///
    /// # Errors
    /// A queue or cohort names it, or there is no such cohort.
    pub fn remove_cohort(&mut self, name: &Name, now: Timestamp) -> Result<(), ChangeError> {
        let cohorts: Vec<_> = self.cohort_configs().filter(|cohort| cohort.name != *name).cloned().collect();
        if cohorts.len() == self.cohort_configs().count() {
            return Err(ChangeError::Unknown { name: name.clone() });
        }
        self.set_cohorts(cohorts, now)
    }

    fn set_cohorts(&mut self, cohorts: Vec<CohortConfig>, now: Timestamp) -> Result<(), ChangeError> {
        let queues: Vec<_> = self.queue_configs().cloned().collect();
        check_queues(&queues, &cohorts)?;
        self.tree.relate(cohorts, now);
        self.recount_borrowed();
        self.look_again();
        Ok(())
    }

    /// Which runs hold what their queue borrowed, now that guarantees may be others: of each queue, those that started first hold its own.
    fn recount_borrowed(&mut self) {
        let Self { active, jobs, tree, .. } = self;
        let mut held: HashMap<QueueIx, Amounts, Build> = HashMap::default();
        active.recount_borrowed(|active| {
            let job = &jobs[active.job];
            let Some(placement) = job.lifecycle.state.placement() else { return active.borrowed };
            let bucket = tree.bucket(job.bucket);
            let (amounts, before) = (bucket.demand.held(placement), held.entry(bucket.queue).or_default());
            let borrowed = tree.borrows_beside(job.bucket, before, &amounts);
            for (sum, more) in before.iter_mut().zip(amounts) {
                *sum += more;
            }
            borrowed
        });
    }

    /// Takes the queued jobs of a queue out of their lines.
    fn take_out(&mut self, queue: &Name) -> Vec<JobIx> {
        let Some(queue) = self.tree.find_queue(queue) else { return Vec::new() };
        let own = self.jobs.iter().filter(|(_, job)| self.tree.bucket(job.bucket).queue == queue);
        let queued: Vec<(JobIx, Key)> = own.filter_map(|(index, _)| Some((index, self.key_of(index)?))).collect();
        for &(job, key) in &queued {
            self.tree.remove(self.jobs[job].bucket, job, key, self.stay_of(job));
        }
        queued.into_iter().map(|(job, _)| job).collect()
    }

    /// What was decided before a change may be decided otherwise now.
    pub(super) fn look_again(&mut self) {
        self.exhausted = false;
        self.shapes.clear_checked();
    }

    /// What tenants and queues that share fairly have used, to be kept over a restart.
    pub fn usage_snapshot(&self, now: Timestamp) -> Vec<UsageRecord> {
        let whole = |amount: u128| u64::try_from(amount).unwrap_or(u64::MAX);
        let record = |(queue, namespace, [cpu, memory, gpus]): (&Name, Option<&Name>, [u128; 3])| UsageRecord {
            queue: queue.clone(),
            namespace: namespace.cloned(),
            at: now,
            cpu_milli_seconds: whole(cpu / SECOND),
            memory_mib_seconds: whole(memory / MIB / SECOND),
            gpu_seconds: whole(gpus / MILLIS / SECOND),
        };
        let mut records: Vec<_> = self.tree.usages(now).map(record).collect();
        records.sort_unstable_by(|one, other| (&one.queue, &one.namespace).cmp(&(&other.queue, &other.namespace)));
        records
    }

    /// Puts kept use back, before or after the jobs are restored. What jobs hold is counted from their restore on.
    /// Records of queues that do not share fairly (any more) are left aside; returns how many.
    pub fn restore_usage(&mut self, records: &[UsageRecord]) -> usize {
        let mut aside = 0;
        for record in records {
            let value = [
                u128::from(record.cpu_milli_seconds) * SECOND,
                u128::from(record.memory_mib_seconds) * SECOND * MIB,
                u128::from(record.gpu_seconds) * SECOND * MILLIS,
            ];
            let kept = self.tree.restore_usage(&record.queue, record.namespace.as_ref(), value, record.at);
            aside += usize::from(!kept);
        }
        aside
    }
}
