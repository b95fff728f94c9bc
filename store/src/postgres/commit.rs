//! Writing a batch: rows, specs and events of new jobs, then the changes, all of a table in one statement, then notices, updates, keys, objects and
//! what was used.

use std::collections::HashMap;

use scheduler_core::ids::{Name, Revision};
use sqlx::postgres::PgConnection;

use super::changes::{Changes, JobChange, gather};
use super::columns::{EventRow, NewRow, change_jobs, insert_events, insert_jobs};
use super::fault::Fault;
use super::ledger;
use super::row::{get, job_id};
use super::value::{Id, kept};
use super::writer::Writer;
use crate::codec::{Columns, Damage, signed, standing, state_kind};
use crate::{Batch, Committed, JobUpdate, KeyRecord, Notice, ObjectChange, StoreError, Submit};

const OP: &str = "commit";

/// Rows a statement: enough for every batch of the engine, and a bound for what is held twice.
const AT_ONCE: usize = 4_096;

static JOB_STATES: &str = include_str!("queries/job_states.sql");
static UPDATE_JOBS: &str = include_str!("queries/update_jobs.sql");
static UPDATE_SPECS: &str = include_str!("queries/update_specs.sql");
static INSERT_KEYS: &str = include_str!("queries/insert_keys.sql");
static INSERT_NOTICE: &str = include_str!("queries/insert_notice.sql");
static SET_OBJECT: &str = include_str!("queries/set_object.sql");
static DELETE_OBJECT: &str = include_str!("queries/delete_object.sql");

/// What a job's row was before its changes.
pub(super) struct Before {
    pub(super) shape: i64,
    pub(super) owner: i64,
    pub(super) revision: i64,
    pub(super) started_at: Option<i64>,
    pub(super) placement: Option<String>,
}

impl Writer {
    /// Makes a batch durable, or leaves no trace of it.
    pub(super) async fn commit(&mut self, batch: &Batch) -> Result<Committed, StoreError> {
        self.ready(OP).await?;
        if !(self.begun..=self.term).contains(&batch.term) {
            return Err(self.other_term(OP, batch.term).await);
        }
        let mut last_seq = self.last_seq;
        let mut counts = [0; 6];
        for submit in &batch.submits {
            if submit.job.seq <= last_seq {
                let what = format!("submission sequence {} (the latest is {last_seq})", submit.job.seq);
                return Err(StoreError::Duplicate { op: OP, what });
            }
            last_seq = submit.job.seq;
            counts[submit.lifecycle.state.kind() as usize] += 1;
        }
        for change in &batch.changes {
            counts[change.from.0 as usize] -= 1;
            counts[change.to.state.kind() as usize] += 1;
        }
        let changes = gather(&batch.changes)?;
        let first = self.last_revision.next();
        let last = Revision(self.last_revision.0 + (batch.submits.len() + batch.changes.len() + batch.notices.len()) as u64);
        self.transaction(OP, (last_seq, last), async |writer, db| writer.write(db, batch, &changes, first).await).await?;
        self.count(counts);
        Ok(Committed { first, last })
    }

    async fn write(&mut self, db: &mut PgConnection, batch: &Batch, changes: &Changes<'_>, first: Revision) -> Result<(), Fault> {
        self.ledger.begin();
        let mut next = signed(first.0);
        for submits in batch.submits.chunks(AT_ONCE) {
            let mut rows = Vec::with_capacity(submits.len());
            for (revision, submit) in (next..).zip(submits) {
                rows.push(NewRow {
                    submit,
                    revision,
                    shape: self.interned.shape(&submit.job.shape)?,
                    policy: self.interned.policy(&submit.job.policy)?,
                    owner: self.interned.owner(&submit.owner)?,
                    columns: Columns::of(&submit.lifecycle)?,
                });
            }
            next += rows.len() as i64;
            self.interned.write(db).await?;
            insert_jobs(db, &rows, signed(self.term.0)).await.map_err(|fault| there_already(fault, submits))?;
            insert_events(db, &rows.iter().map(EventRow::submitted).collect::<Vec<_>>()).await?;
        }
        if !changes.all.is_empty() {
            self.change(db, changes, next).await?;
        }
        for (revision, notice) in (next + changes.all.len() as i64..).zip(&batch.notices) {
            note(db, notice, revision).await?;
        }
        if !batch.updates.is_empty() {
            self.update(db, &batch.updates).await?;
        }
        if !batch.keys.is_empty() {
            remember(db, &batch.keys).await?;
        }
        for object in &batch.objects {
            self.set(db, object).await?;
        }
        if !batch.samples.is_empty() {
            ledger::count_samples(db, &mut self.ledger, &batch.samples).await?;
        }
        ledger::write_sums(db, &mut self.ledger).await
    }

    /// Writes changes: the rows of their jobs, their events, and the ends of runs among them.
    async fn change(&mut self, db: &mut PgConnection, changes: &Changes<'_>, first: i64) -> Result<(), Fault> {
        let mut before: HashMap<i64, Before> = HashMap::with_capacity(changes.jobs.len());
        for jobs in changes.jobs.chunks(AT_ONCE) {
            let found = change_jobs(jobs, changes, first, signed(self.term.0)).fetch_all(&mut *db).await?;
            let complete = found.len() == jobs.len();
            for row in found {
                let was = Before {
                    shape: get(&row, 1)?,
                    owner: get(&row, 2)?,
                    revision: get(&row, 3)?,
                    started_at: get(&row, 4)?,
                    placement: get(&row, 5)?,
                };
                before.insert(get(&row, 0)?, was);
            }
            if !complete {
                return Err(out_of_step(db, jobs, &before).await?.into());
            }
        }
        let mut events = Vec::with_capacity(changes.all.len());
        for (number, (change, (job, prev))) in changes.all.iter().zip(&changes.place).enumerate() {
            let seq = changes.jobs[*job].seq;
            let Some(was) = before.get(&seq) else { continue };
            let prev = prev.map_or(was.revision, |prev| first + prev as i64);
            events.push(EventRow::changed(change, &changes.columns[number], first + number as i64, prev, was.shape));
        }
        for events in events.chunks(AT_ONCE) {
            insert_events(db, events).await?;
        }
        ledger::count_ends(db, &mut self.ledger, changes, &before).await
    }

    async fn update(&mut self, db: &mut PgConnection, updates: &[JobUpdate]) -> Result<(), Fault> {
        // In the order in which they were decided: the last word on a job counts.
        for update in updates {
            let shape = self.interned.shape(&update.shape)?;
            let policy = self.interned.policy(&update.policy)?;
            self.interned.write(db).await?;
            let seqs = [signed(update.seq.0)];
            let query = sqlx::query(UPDATE_JOBS).bind(seqs).bind([Id(update.job)]).bind([shape]).bind([policy]);
            if query.execute(&mut *db).await?.rows_affected() == 0 {
                return Err(StoreError::Missing { job: update.job }.into());
            }
            sqlx::query(UPDATE_SPECS).bind(seqs).bind([&*update.spec]).execute(&mut *db).await?;
        }
        Ok(())
    }

    async fn set(&self, db: &mut PgConnection, object: &ObjectChange) -> Result<(), Fault> {
        let (kind, name) = (object.kind as i16, kept(object.name.as_str()));
        let Some(value) = &object.value else {
            sqlx::query(DELETE_OBJECT).bind(kind).bind(name).execute(db).await?;
            return Ok(());
        };
        let value = std::str::from_utf8(value)
            .map_err(|error| self.at(OP).other(format!("{} {:?}: {error}", object.kind.as_str(), object.name.as_str())))?;
        sqlx::query(SET_OBJECT).bind(kind).bind(name).bind(value).bind(signed(self.term.0)).execute(db).await?;
        Ok(())
    }
}

async fn note(db: &mut PgConnection, notice: &Notice, revision: i64) -> Result<(), Fault> {
    let text = |name: &Option<Name>| name.as_ref().map(|name| kept(name.as_str()).into_owned());
    let query = sqlx::query(INSERT_NOTICE)
        .bind(revision)
        .bind(notice.at.0)
        .bind(notice.kind as i16)
        .bind(kept(notice.name.as_str()))
        .bind(kept(notice.what.as_str()))
        .bind(text(&notice.node))
        .bind(text(&notice.cause))
        .bind(text(&notice.by))
        .bind(notice.reason.as_deref().map(kept));
    query.execute(db).await?;
    Ok(())
}

/// Which of these jobs was refused because it is there.
fn there_already(fault: Fault, submits: &[Submit]) -> Fault {
    let Some((_, values)) = fault.duplicate() else { return fault };
    let named = submits.iter().find(|submit| values.contains(&submit.job.id.0.to_string()));
    let what = named.map_or_else(|| "a job".to_owned(), |submit| format!("job {}", submit.job.id));
    StoreError::Duplicate { op: OP, what }.into()
}

async fn remember(db: &mut PgConnection, keys: &[KeyRecord]) -> Result<(), Fault> {
    let jobs = |key: &KeyRecord| {
        let ids: Vec<String> = key.jobs.iter().map(|job| job.0.to_string()).collect();
        format!("{{{}}}", ids.join(","))
    };
    let query = sqlx::query(INSERT_KEYS)
        .bind(keys.iter().map(|key| kept(&key.scope)).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| kept(&key.key)).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.fingerprint.as_slice()).collect::<Vec<_>>())
        .bind(keys.iter().map(jobs).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.at.0).collect::<Vec<_>>());
    let Err(error) = query.execute(db).await else { return Ok(()) };
    let fault = Fault::from(error);
    let Some((_, values)) = fault.duplicate() else { return Err(fault) };
    // As the server says it: `Key (key, scope)=(..., ...) already exists.`
    let is_named = |key: &&KeyRecord| values.contains(&format!("=({}, {})", kept(&key.key), kept(&key.scope)));
    let what = match keys.iter().find(is_named) {
        Some(key) => format!("idempotency key {:?} of {:?}", key.key, key.scope),
        None => "an idempotency key".to_owned(),
    };
    Err(StoreError::Duplicate { op: OP, what }.into())
}

/// Why compare-and-sets found fewer rows than there are jobs: the first job that was not `matched`.
async fn out_of_step(db: &mut PgConnection, jobs: &[JobChange], matched: &HashMap<i64, Before>) -> Result<StoreError, Fault> {
    let seqs: Vec<i64> = jobs.iter().map(|job| job.seq).collect();
    let mut present = HashMap::with_capacity(jobs.len());
    for row in sqlx::query(JOB_STATES).bind(seqs).fetch_all(db).await? {
        present.insert(get::<i64>(&row, 0)?, (job_id(&row, 1)?, state_kind(get(&row, 2)?)?, get::<i64>(&row, 3)?));
    }
    for job in jobs {
        match present.get(&job.seq) {
            Some((id, state, attempt)) if *id == job.id => {
                if !matched.contains_key(&job.seq) {
                    let expected = standing(job.from.0, job.from.1.0.into());
                    return Ok(StoreError::Stale { job: job.id, expected, found: standing(*state, *attempt) });
                }
            }
            _ => return Ok(StoreError::Missing { job: job.id }),
        }
    }
    Err(Damage::new("a compare-and-set found no row and none is missing").into())
}
