//! Changes of a batch, gathered by job: a job that changes more than once goes from the state before its first change to that after its
//! last in one row, whose compare-and-set is that of the first. That each of the others fits the one before it is checked here.

use std::collections::HashMap;

use scheduler_core::event::Transition;
use scheduler_core::ids::{Attempt, JobId};
use scheduler_core::state::StateKind;
use scheduler_core::time::Timestamp;

use crate::StoreError;
use crate::codec::{Columns, Damage, standing};
use crate::ledger::end_of_run;

/// Something that was before the batch, or that it says itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Known<T> {
    /// As the row had it.
    Before,
    /// So.
    Now(T),
}

/// A run that ends.
#[derive(Debug)]
pub(super) struct End {
    /// Which change ends it.
    pub(super) change: usize,
    pub(super) ended: Timestamp,
    pub(super) started: Known<Option<i64>>,
    /// Of which change the placement is.
    pub(super) placement: Known<usize>,
}

/// All changes of one job.
#[derive(Debug)]
pub(super) struct JobChange {
    pub(super) seq: i64,
    pub(super) id: JobId,
    /// What the row has to be.
    pub(super) from: (StateKind, Attempt),
    pub(super) last: usize,
    /// Which change says where the latest run was placed.
    pub(super) placement: Known<usize>,
    /// The start of the latest run.
    pub(super) started: Known<Option<i64>>,
    pub(super) ends: Vec<End>,
}

impl JobChange {
    /// Whether it is needed where the run was placed before the batch.
    pub(super) fn wants_placement(&self) -> bool {
        self.ends.iter().any(|end| end.placement == Known::Before)
    }
}

/// The changes of a batch.
pub(super) struct Changes<'a> {
    pub(super) all: &'a [Transition],
    pub(super) columns: Vec<Columns>,
    pub(super) jobs: Vec<JobChange>,
    /// By change: which of `jobs` it is of, and the change of the same job before it.
    pub(super) place: Vec<(usize, Option<usize>)>,
}

/// Gathers changes by job.
///
/// # Errors
/// [`StoreError::Stale`] where one does not fit the one before it.
pub(super) fn gather(all: &[Transition]) -> Result<Changes<'_>, StoreError> {
    let columns = all.iter().map(|change| Columns::of(&change.to)).collect::<Result<Vec<_>, Damage>>();
    let columns =
        columns.map_err(|damage| StoreError::Other { op: "commit", subject: "a change".to_owned(), detail: damage.0 })?;
    let mut gathered = Changes { all, columns, jobs: Vec::with_capacity(all.len()), place: Vec::with_capacity(all.len()) };
    let mut by_job: HashMap<(u64, JobId), usize> = HashMap::with_capacity(all.len());
    for (number, change) in all.iter().enumerate() {
        let columns = &gathered.columns[number];
        let next = gathered.jobs.len();
        let at = *by_job.entry((change.seq.0, change.job)).or_insert(next);
        if at == next {
            gathered.jobs.push(JobChange {
                seq: crate::codec::signed(change.seq.0),
                id: change.job,
                from: change.from,
                last: number,
                placement: Known::Before,
                started: Known::Before,
                ends: Vec::new(),
            });
            gathered.place.push((at, None));
        } else {
            let before = gathered.jobs[at].last;
            let found = &gathered.columns[before];
            if (found.state, found.attempt) != change.from {
                return Err(StoreError::Stale {
                    job: change.job,
                    expected: standing(change.from.0, change.from.1.0.into()),
                    found: standing(found.state, found.attempt.0.into()),
                });
            }
            gathered.place.push((at, Some(before)));
        }
        let job = &mut gathered.jobs[at];
        job.last = number;
        if columns.placement.is_some() {
            job.placement = Known::Now(number);
        }
        match columns.state {
            StateKind::Starting => job.started = Known::Now(None),
            StateKind::Running => job.started = Known::Now(columns.started_at()),
            _ => {}
        }
        if let Some(ended) = end_of_run(change) {
            let (started, placement) = (job.started, job.placement);
            job.ends.push(End { change: number, ended, started, placement });
        }
    }
    Ok(gathered)
}
