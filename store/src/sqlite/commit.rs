//! Writing a batch: rows, specs and events of new jobs many at a time, then the changes, one compare-and-set each, then notices,
//! keys and objects.

use std::sync::LazyLock;

use scheduler_core::event::Transition;
use scheduler_core::ids::{Attempt, Revision, Seq, Term};
use scheduler_core::state::StateKind;
use uuid::Uuid;

use super::chunk::Insert;
use super::codec::{Columns, args, int, state_kind};
use super::raw::{Arg, RawError};
use super::writer::Writer;
use crate::codec::standing;
use crate::ledger::end_of_run;
use crate::{Batch, Committed, JobUpdate, KeyRecord, Notice, ObjectChange, StoreError, Submit};

const OP: &str = "commit";

static RAISE_TERM: &str = include_str!("queries/raise_term.sql");
static TERM: &str = include_str!("queries/term.sql");
static PROBE: &str = include_str!("queries/probe.sql");
static INSERT_KEY: &str = include_str!("queries/insert_key.sql");
static CHANGE_EVENT: &str = include_str!("queries/change_event.sql");
static CHANGE_JOB: &str = include_str!("queries/change_job.sql");
static UPDATE_JOB: &str = include_str!("queries/update_job.sql");
static UPDATE_SPEC: &str = include_str!("queries/update_spec.sql");
static SET_OBJECT: &str = include_str!("queries/set_object.sql");
static DELETE_OBJECT: &str = include_str!("queries/delete_object.sql");
static INSERT_NOTICE: &str = include_str!("queries/insert_notice.sql");
static JOB_STATE: &str = include_str!("queries/job_state.sql");

static INSERT_JOBS: LazyLock<Insert> = LazyLock::new(|| Insert::of(include_str!("queries/insert_job.sql")));
static INSERT_SPECS: LazyLock<Insert> = LazyLock::new(|| Insert::of(include_str!("queries/insert_spec.sql")));
static INSERT_EVENTS: LazyLock<Insert> = LazyLock::new(|| Insert::of(include_str!("queries/insert_event.sql")));

/// New jobs that are made ready together: a multiple of the largest statement, so that a large batch is not held twice.
const AT_ONCE: usize = 256;

/// A new job with all that its three rows are made of.
struct NewRow<'a> {
    submit: &'a Submit,
    revision: Revision,
    shape: i64,
    policy: i64,
    owner: i64,
    columns: Columns,
    labels: Option<String>,
}

/// What a batch has done to the writer's memory, which takes it over once it is durable.
struct Progress {
    last_seq: Seq,
    last_revision: Revision,
    counts: [i64; 6],
}

/// A start whose row is written with what follows it.
struct Begun {
    revision: Revision,
    /// What the row still is.
    from: (StateKind, Attempt),
    at: Option<i64>,
}

/// Whether a job's start is followed by its end at once, so that one write of the row is enough: of short jobs most are.
fn goes_on(change: &Transition, next: &Transition) -> bool {
    let started = (change.from.0, change.to.state.kind()) == (StateKind::Starting, StateKind::Running);
    let ended = (next.from.0, next.to.state.kind()) == (StateKind::Running, StateKind::Finished);
    started && ended && change.seq == next.seq && change.job == next.job && next.from.1 == change.to.attempt
}

impl Writer {
    /// Makes a batch durable, or leaves no trace of it.
    pub(super) fn commit(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        let progress = self.transaction(OP, |writer| writer.write(batch))?;
        let first = self.last_revision.next();
        self.last_seq = progress.last_seq;
        self.last_revision = progress.last_revision;
        self.count(progress.counts);
        Ok(Committed { first, last: progress.last_revision })
    }

    fn write(&mut self, batch: &Batch) -> Result<Progress, StoreError> {
        self.check_term(batch.term)?;
        self.ledger.begin();
        let jobs = [batch.submits.len(), batch.changes.len(), batch.keys.len()];
        let others = [batch.objects.len(), batch.notices.len(), batch.samples.len()];
        if (jobs, others) == ([0; 3], [0; 3]) {
            // Without a write, a full disk would say that all is well.
            self.execute(OP, PROBE, &[])?;
        }
        let mut progress = Progress { last_seq: self.last_seq, last_revision: self.last_revision, counts: [0; 6] };
        for submit in &batch.submits {
            if submit.job.seq <= progress.last_seq {
                let what = format!("submission sequence {} (the latest is {})", submit.job.seq, progress.last_seq);
                return Err(StoreError::Duplicate { op: OP, what });
            }
            progress.last_seq = submit.job.seq;
            progress.counts[submit.lifecycle.state.kind() as usize] += 1;
        }
        for submits in batch.submits.chunks(AT_ONCE) {
            self.insert(submits, progress.last_revision.next()).map_err(|(row, error)| {
                self.refused(error, || match row.and_then(|row| submits.get(row)) {
                    Some(submit) => format!("job {}", submit.job.id),
                    None => "a job".to_owned(),
                })
            })?;
            progress.last_revision = Revision(progress.last_revision.0 + submits.len() as u64);
        }
        let mut begun = None;
        for (at, change) in batch.changes.iter().enumerate() {
            progress.last_revision = progress.last_revision.next();
            let at_once = batch.changes.get(at + 1).is_some_and(|next| goes_on(change, next));
            begun = self.change(change, progress.last_revision, begun, at_once)?;
            if let Some(ended) = end_of_run(change) {
                self.count_run(change, ended).map_err(|error| self.at(OP).sqlite(error))?;
            }
            progress.counts[change.from.0 as usize] -= 1;
            progress.counts[change.to.state.kind() as usize] += 1;
        }
        for notice in &batch.notices {
            progress.last_revision = progress.last_revision.next();
            self.note(notice, progress.last_revision)?;
        }
        for update in &batch.updates {
            self.update(update)?;
        }
        for key in &batch.keys {
            self.remember(key)
                .map_err(|error| self.refused(error, || format!("idempotency key {:?} of {:?}", key.key, key.scope)))?;
        }
        for object in &batch.objects {
            self.set(object)?;
        }
        for sample in &batch.samples {
            self.count_sample(sample).map_err(|error| self.at(OP).sqlite(error))?;
        }
        self.write_sums().map_err(|error| self.at(OP).sqlite(error))?;
        Ok(progress)
    }

    /// Raises the number of this term to `least`, unless it is that large.
    pub(super) fn raise_term(&mut self, least: Term) -> Result<Term, StoreError> {
        const RAISE: &str = "raise the term";
        let raised = self.term.max(least);
        self.transaction(RAISE, |writer| {
            writer.check_term(writer.term)?;
            writer.execute(RAISE, RAISE_TERM, &[int(raised.0)]).map(drop)
        })?;
        self.term = raised;
        Ok(raised)
    }

    /// The term in the table, and not the one in memory, says who may write.
    fn check_term(&mut self, ours: Term) -> Result<(), StoreError> {
        let current = self.db.first(TERM, &[], |row| row.number(0)).map_err(|error| self.at(OP).sqlite(error))?;
        match current.map(Term) {
            // What was begun before the number of this term was raised is of this term too.
            Some(current) if current == self.term && (self.begun..=self.term).contains(&ours) => Ok(()),
            Some(current) if current > ours || current > self.term => {
                Err(StoreError::Fenced { ours: ours.min(self.term), current })
            }
            _ => Err(self.at(OP).other(format!("term {ours} has not begun"))),
        }
    }

    /// Writes new jobs with their specs and events.
    ///
    /// # Errors
    /// What SQLite says, and where one is there already, its place among `submits`.
    fn insert(&mut self, submits: &[Submit], first: Revision) -> Result<(), (Option<usize>, RawError)> {
        let mut rows = Vec::with_capacity(submits.len());
        for (offset, submit) in (0..).zip(submits) {
            rows.push(self.row(submit, Revision(first.0 + offset)).map_err(|error| (None, error))?);
        }
        let mut jobs = Vec::with_capacity(rows.len() * 18);
        let mut specs = Vec::with_capacity(rows.len() * 3);
        let mut events = Vec::with_capacity(rows.len() * 12);
        for NewRow { submit, revision, shape, policy, owner, columns, labels } in &rows {
            let job = &submit.job;
            let lifecycle = args(columns);
            let (seq, id, shape, revision) = (int(job.seq.0), Arg::Blob(job.id.0.as_bytes()), Arg::Int(*shape), int(revision.0));
            let submitted_at = Arg::Int(job.submitted_at.0);
            let start_after = job.start_after.map(|time| time.0).into();
            jobs.extend([seq, id, shape, Arg::Int(*policy), Arg::Int(*owner), Arg::Text(submit.name.as_str())]);
            jobs.extend(lifecycle);
            jobs.extend([columns.started_at().into(), submitted_at, start_after, revision, int(self.term.0)]);
            specs.extend([seq, labels.as_deref().into(), Arg::Blob(&submit.spec)]);
            events.extend([revision, id, shape, submitted_at, Arg::Text("submitted")]);
            events.extend(lifecycle);
        }
        INSERT_JOBS.rows(&mut self.db, &jobs)?;
        INSERT_SPECS.rows(&mut self.db, &specs)?;
        INSERT_EVENTS.rows(&mut self.db, &events)
    }

    fn row<'a>(&mut self, submit: &'a Submit, revision: Revision) -> Result<NewRow<'a>, RawError> {
        Ok(NewRow {
            submit,
            revision,
            shape: self.interned.shape(&mut self.db, &submit.job.shape)?,
            policy: self.interned.policy(&mut self.db, &submit.job.policy)?,
            owner: self.interned.owner(&mut self.db, &submit.owner)?,
            columns: Columns::of(&submit.lifecycle)?,
            labels: labels(&submit.labels)?,
        })
    }

    /// Writes a change: its event, and the row unless the next change of the same row follows `at_once`; that one is given what is returned.
    fn change(
        &mut self,
        change: &Transition,
        revision: Revision,
        begun: Option<Begun>,
        at_once: bool,
    ) -> Result<Option<Begun>, StoreError> {
        let columns = Columns::of(&change.to).map_err(|error| self.at(OP).sqlite(error.into()))?;
        let [state, attempt, lost, state_at, placement, outcome, detail] = args(&columns);
        let (seq, number) = (int(change.seq.0), int(revision.0));
        let id = Arg::Blob(change.job.0.as_bytes());
        let (at, what) = (Arg::Int(change.at.0), Arg::Text(change.event.word()));
        let before = begun.as_ref().map(|begun| begun.revision.0.cast_signed()).into();
        let event = [seq, id, number, at, what, state, attempt, lost, state_at, placement, outcome, detail, before];
        let found = self.db.execute(CHANGE_EVENT, &event).map_err(|error| self.at(OP).sqlite(error))?;
        if found == 0 {
            return Err(self.out_of_step(change));
        }
        let from = begun.as_ref().map_or(change.from, |begun| begun.from);
        if at_once {
            return Ok(Some(Begun { revision, from, at: columns.started_at() }));
        }
        let (from_state, from_attempt) = (Arg::Int(from.0 as i64), int(from.1.0.into()));
        let started_at = begun.and_then(|begun| begun.at).into();
        let row = [
            seq,
            from_state,
            from_attempt,
            state,
            attempt,
            lost,
            state_at,
            placement,
            outcome,
            detail,
            number,
            int(self.term.0),
            started_at,
        ];
        match self.db.execute(CHANGE_JOB, &row) {
            Ok(1) => Ok(None),
            Ok(_) => Err(self.out_of_step(&Transition { from, ..change.clone() })),
            Err(error) => Err(self.at(OP).sqlite(error)),
        }
    }

    /// Why a compare-and-set found no row.
    fn out_of_step(&mut self, change: &Transition) -> StoreError {
        let args = [int(change.seq.0), Arg::Blob(change.job.0.as_bytes())];
        let found = self.db.first(JOB_STATE, &args, |row| Ok((state_kind(row.int(0)?)?, row.int(1)?)));
        match found {
            Ok(Some((state, attempt))) => StoreError::Stale {
                job: change.job,
                expected: standing(change.from.0, change.from.1.0.into()),
                found: standing(state, attempt),
            },
            Ok(None) => StoreError::Missing { job: change.job },
            Err(error) => self.at(OP).sqlite(error),
        }
    }

    fn update(&mut self, update: &JobUpdate) -> Result<(), StoreError> {
        match self.rewrite(update) {
            Ok(1) => Ok(()),
            Ok(_) => Err(StoreError::Missing { job: update.job }),
            Err(error) => Err(self.at(OP).sqlite(error)),
        }
    }

    /// How many rows were found: 1, or 0 where there is no such job.
    fn rewrite(&mut self, update: &JobUpdate) -> Result<u64, RawError> {
        let shape = self.interned.shape(&mut self.db, &update.shape)?;
        let policy = self.interned.policy(&mut self.db, &update.policy)?;
        let id = Arg::Blob(update.job.0.as_bytes());
        let found = self.db.execute(UPDATE_JOB, &[int(update.seq.0), id, Arg::Int(shape), Arg::Int(policy)])?;
        if found == 0 {
            return Ok(0);
        }
        self.db.execute(UPDATE_SPEC, &[int(update.seq.0), Arg::Blob(&update.spec)])
    }

    fn remember(&mut self, key: &KeyRecord) -> Result<(), RawError> {
        let jobs: Vec<u8> = key.jobs.iter().flat_map(|job| Uuid::as_bytes(&job.0)).copied().collect();
        let args = [
            key.scope.as_str().into(),
            key.key.as_str().into(),
            Arg::Blob(&key.fingerprint),
            Arg::Blob(&jobs),
            Arg::Int(key.at.0),
        ];
        self.db.execute(INSERT_KEY, &args).map(|_| ())
    }

    fn note(&mut self, notice: &Notice, revision: Revision) -> Result<(), StoreError> {
        let args = [
            int(revision.0),
            Arg::Int(notice.at.0),
            Arg::Int(notice.kind as i64),
            notice.name.as_str().into(),
            notice.what.as_str().into(),
            notice.node.as_ref().map(|node| node.as_str()).into(),
            notice.cause.as_ref().map(|cause| cause.as_str()).into(),
            notice.by.as_ref().map(|by| by.as_str()).into(),
            notice.reason.as_deref().into(),
        ];
        self.execute(OP, INSERT_NOTICE, &args).map(|_| ())
    }

    fn set(&mut self, object: &ObjectChange) -> Result<(), StoreError> {
        let (kind, name) = (Arg::Int(object.kind as i64), Arg::Text(object.name.as_str()));
        let Some(value) = &object.value else {
            return self.execute(OP, DELETE_OBJECT, &[kind, name]).map(|_| ());
        };
        let value = std::str::from_utf8(value)
            .map_err(|error| self.at(OP).other(format!("{} {:?}: {error}", object.kind.as_str(), object.name.as_str())))?;
        self.execute(OP, SET_OBJECT, &[kind, name, value.into(), int(self.term.0)]).map(|_| ())
    }

    /// An error of SQLite, which names what is there already in the caller's words.
    fn refused(&self, error: RawError, what: impl Fn() -> String) -> StoreError {
        if error.is_duplicate() { StoreError::Duplicate { op: OP, what: what() } } else { self.at(OP).sqlite(error) }
    }
}

fn labels(labels: &[(String, String)]) -> Result<Option<String>, RawError> {
    if labels.is_empty() {
        return Ok(None);
    }
    let object: serde_json::Map<_, _> = labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    super::codec::json(&object).map(Some)
}
