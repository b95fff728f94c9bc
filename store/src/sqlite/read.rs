//! What readers ask: one job, pages of jobs, events, keys, tokens, objects. Each function runs on one snapshot.

use bytes::Bytes;
use scheduler_core::ids::{JobId, Name, Revision, Seq};
use scheduler_core::state::StateKind;
use scheduler_core::time::Timestamp;
use uuid::Uuid;

use super::codec::{job_id, json, lifecycle, parse};
use super::intern::owner;
use super::raw::{Arg, Connection, RawError, Row};
use super::readers::ReadError;
use crate::{
    EventRecord, JobPage, JobQuery, JobRecord, KeyRecord, LabelMatch, Notice, NoticeKind, NoticeQuery, NoticeRecord, ObjectKind,
    ObjectRecord, StoreError, TokenRecord,
};

/// Rows that one page of a list looks at, at most; one that found less says where to go on.
const SCAN: i64 = 500_000;
/// The same with a label selector, which reads a second table and parses JSON.
const SCAN_LABELS: i64 = 50_000;

static JOB_BY_ID: &str = include_str!("queries/job_by_id.sql");
static JOB_BY_SEQ: &str = include_str!("queries/job_by_seq.sql");
static IDS_BETWEEN: &str = include_str!("queries/ids_between.sql");
static ID_BY_SEQ: &str = include_str!("queries/id_by_seq.sql");
static LIST_ALL: &str = include_str!("queries/list_all.sql");
static LIST_STATE: &str = include_str!("queries/list_state.sql");
static NTH_OF_STATE: &str = include_str!("queries/nth_of_state.sql");
static NEWEST_BEFORE: &str = include_str!("queries/newest_before.sql");
static REVISION: &str = include_str!("queries/revision.sql");
static FLOOR: &str = include_str!("queries/floor.sql");
static EVENTS: &str = include_str!("queries/events.sql");
static EVENTS_OF_JOB: &str = include_str!("queries/events_of_job.sql");
static NOTICES: &str = include_str!("queries/notices.sql");
static KEY: &str = include_str!("queries/key.sql");
static OBJECTS: &str = include_str!("queries/objects.sql");
static TOKENS: &str = include_str!("queries/tokens.sql");

/// Jobs with their specs, in the order asked; unknown ones are left out.
pub(super) fn jobs_by_id(db: &mut Connection, ids: &[JobId]) -> Result<Vec<JobRecord>, ReadError> {
    let mut jobs = Vec::with_capacity(ids.len());
    for id in ids {
        jobs.extend(db.first(JOB_BY_ID, &[Arg::Blob(id.0.as_bytes())], job)?);
    }
    Ok(jobs)
}

/// Ids from `first` to `last`, both included, ascending, at most `limit`.
pub(super) fn ids_between(db: &mut Connection, first: JobId, last: JobId, limit: u32) -> Result<Vec<JobId>, ReadError> {
    let mut ids = Vec::new();
    let range = [Arg::Blob(first.0.as_bytes()), Arg::Blob(last.0.as_bytes()), Arg::Int(i64::from(limit))];
    db.query(IDS_BETWEEN, &range, |row| {
        ids.push(job_id(row.blob(0)?)?);
        Ok(())
    })?;
    Ok(ids)
}

/// The job with this submission sequence.
pub(super) fn id_by_seq(db: &mut Connection, seq: Seq) -> Result<Option<JobId>, ReadError> {
    let Ok(seq) = i64::try_from(seq.0) else { return Ok(None) };
    Ok(db.first(ID_BY_SEQ, &[Arg::Int(seq)], |row| job_id(row.blob(0)?))?)
}

/// A page of jobs, newest first.
pub(super) fn jobs(db: &mut Connection, query: &JobQuery) -> Result<JobPage, ReadError> {
    let revision = Revision(db.first(REVISION, &[], |row| row.number(0))?.unwrap_or_default());
    let filter = Filter::of(query)?;
    let limit = query.limit.clamp(1, 1_000) as usize;
    let before = query.before.map_or(i64::MAX, |seq| i64::try_from(seq.0).unwrap_or(i64::MAX));
    let from = filter.down_to(db, before)?;
    let mut found = filter.find(db, from, before, limit + 1)?;
    let next = if found.len() > limit {
        found.truncate(limit);
        found.last().copied()
    } else {
        newest_before(db, from)?.map(|_| from)
    };
    let mut jobs = Vec::with_capacity(found.len());
    for seq in found {
        jobs.extend(db.first(JOB_BY_SEQ, &[Arg::Int(seq)], job)?);
    }
    Ok(JobPage { jobs, next: next.map(|seq| Seq(seq.cast_unsigned())), revision })
}

fn newest_before(db: &mut Connection, before: i64) -> Result<Option<i64>, RawError> {
    Ok(db.first(NEWEST_BEFORE, &[Arg::Int(before)], |row| row.opt_int(0))?.flatten())
}

/// A [`JobQuery`] as parameters. What restricts nothing is NULL.
struct Filter<'a> {
    states: Vec<StateKind>,
    outcomes: Option<i64>,
    namespaces: Option<String>,
    queues: Option<String>,
    owners: Option<String>,
    name: Option<&'a str>,
    labels: Option<String>,
}

impl<'a> Filter<'a> {
    fn of(query: &'a JobQuery) -> Result<Self, RawError> {
        let list = |list: &Vec<String>| (!list.is_empty()).then(|| json(list)).transpose();
        let wanted = |kind: &StateKind| {
            (query.states.is_empty() || query.states.contains(kind))
                && (query.outcomes.is_empty() || *kind == StateKind::Finished)
        };
        Ok(Self {
            states: StateKind::ALL.into_iter().filter(wanted).collect(),
            outcomes: (!query.outcomes.is_empty()).then(|| query.outcomes.iter().fold(0, |mask, kind| mask | 1 << *kind as i64)),
            namespaces: list(&query.namespaces)?,
            queues: list(&query.queues)?,
            owners: list(&query.owners)?,
            name: query.name.as_deref(),
            labels: (!query.labels.is_empty())
                .then(|| json(&query.labels.iter().map(selector).collect::<Vec<_>>()))
                .transpose()?,
        })
    }

    /// Down to which sequence one page looks: as far as it takes where every row that is looked at matches, else over a bounded
    /// number of rows.
    fn down_to(&self, db: &mut Connection, before: i64) -> Result<i64, RawError> {
        let rare = self.outcomes.is_some() || self.namespaces.is_some() || self.queues.is_some() || self.owners.is_some();
        if !rare && self.name.is_none() && self.labels.is_none() {
            return Ok(0);
        }
        let scan = if self.labels.is_some() { SCAN_LABELS } else { SCAN };
        if self.states.len() == StateKind::ALL.len() {
            return Ok(newest_before(db, before)?.map_or(0, |newest| newest - scan + 1));
        }
        let mut from = 0;
        for state in &self.states {
            let args = [Arg::Int(*state as i64), Arg::Int(before), Arg::Int(scan - 1)];
            from = from.max(db.first(NTH_OF_STATE, &args, |row| row.int(0))?.unwrap_or(0));
        }
        Ok(from)
    }

    /// Sequences of jobs in `from..before` that match, newest first.
    ///
    /// A few states are looked up in their index, one by one; for all of them the table itself is read.
    fn find(&self, db: &mut Connection, from: i64, before: i64, limit: usize) -> Result<Vec<i64>, RawError> {
        let mut found = Vec::new();
        if self.states.len() == StateKind::ALL.len() {
            self.collect(db, LIST_ALL, None, (from, before, limit), &mut found)?;
        } else {
            for state in &self.states {
                self.collect(db, LIST_STATE, Some(*state as i64), (from, before, limit), &mut found)?;
            }
            found.sort_unstable_by(|a, b| b.cmp(a));
            found.truncate(limit);
        }
        Ok(found)
    }

    fn collect(
        &self,
        db: &mut Connection,
        sql: &'static str,
        state: Option<i64>,
        (from, before, limit): (i64, i64, usize),
        found: &mut Vec<i64>,
    ) -> Result<(), RawError> {
        let common = [
            Arg::Int(before),
            Arg::Int(from),
            Arg::Int(limit as i64),
            self.outcomes.into(),
            self.namespaces.as_deref().into(),
            self.queues.as_deref().into(),
            self.owners.as_deref().into(),
            self.name.into(),
            self.labels.as_deref().into(),
        ];
        let args: Vec<Arg<'_>> = common.into_iter().chain(state.map(Arg::Int)).collect();
        db.query(sql, &args, |row| {
            found.push(row.int(0)?);
            Ok(())
        })
    }
}

/// A selector as the queries read it: operator, key, value.
fn selector(label: &LabelMatch) -> [&str; 3] {
    match label {
        LabelMatch::Is(key, value) => ["is", key, value],
        LabelMatch::IsNot(key, value) => ["isNot", key, value],
        LabelMatch::Exists(key) => ["exists", key, ""],
        LabelMatch::Absent(key) => ["absent", key, ""],
    }
}

/// Columns of `job_by_id.sql` and `job_by_seq.sql`.
fn job(row: &Row) -> Result<JobRecord, RawError> {
    Ok(JobRecord {
        id: job_id(row.blob(0)?)?,
        seq: Seq(row.number(1)?),
        namespace: Name::from(row.text(2)?),
        queue: Name::from(row.text(3)?),
        owner: owner(row, 4)?,
        name: Name::from(row.text(6)?),
        lifecycle: lifecycle(row, 7)?,
        revision: Revision(row.number(14)?),
        submitted_at: Timestamp(row.int(15)?),
        start_after: row.opt_int(16)?.map(Timestamp),
        started_at: row.opt_int(17)?.map(Timestamp),
        last_placement: row.opt_text(11)?.map(|text| parse("a placement", text)).transpose()?,
        spec: Bytes::copy_from_slice(row.blob(18)?),
    })
}

/// Events after a revision, oldest first.
pub(super) fn events(
    db: &mut Connection,
    after: Revision,
    job: Option<JobId>,
    limit: u32,
) -> Result<Vec<EventRecord>, ReadError> {
    let (after, limit) = (above_floor(db, after)?, Arg::Int(limit.into()));
    let mut events = Vec::new();
    let see = |row: &Row| {
        events.push(EventRecord {
            revision: Revision(row.number(0)?),
            job: job_id(row.blob(1)?)?,
            namespace: Name::from(row.text(2)?),
            at: Timestamp(row.int(3)?),
            what: Name::from(row.text(4)?),
            lifecycle: lifecycle(row, 5)?,
        });
        Ok(())
    };
    match job {
        None => db.query(EVENTS, &[after, limit], see)?,
        Some(id) => db.query(EVENTS_OF_JOB, &[after, limit, Arg::Blob(id.0.as_bytes())], see)?,
    }
    Ok(events)
}

/// Notices after a revision, oldest first.
pub(super) fn notices(db: &mut Connection, query: &NoticeQuery) -> Result<Vec<NoticeRecord>, ReadError> {
    let after = above_floor(db, query.after)?;
    let kind = query.kind.map(|kind| kind as i64).into();
    let args = [after, Arg::Int(query.limit.into()), kind, query.name.as_ref().map(|name| name.as_str()).into()];
    let name = |row: &Row, column| Ok::<_, RawError>(row.opt_text(column)?.map(Name::from));
    let mut notices = Vec::new();
    db.query(NOTICES, &args, |row| {
        let kind: usize = row.number(2)?;
        let kind = NoticeKind::ALL.get(kind).ok_or_else(|| RawError::corrupt(format!("a notice of kind {kind}")))?;
        let notice = Notice {
            at: Timestamp(row.int(1)?),
            kind: *kind,
            name: Name::from(row.text(3)?),
            what: Name::from(row.text(4)?),
            node: name(row, 5)?,
            cause: name(row, 6)?,
            by: name(row, 7)?,
            reason: row.opt_text(8)?.map(str::to_owned),
        };
        notices.push(NoticeRecord { revision: Revision(row.number(0)?), notice });
        Ok(())
    })?;
    Ok(notices)
}

/// A revision to read after, unless what follows it is gone.
fn above_floor(db: &mut Connection, after: Revision) -> Result<Arg<'static>, ReadError> {
    let floor = Revision(db.first(FLOOR, &[], |row| row.number(0))?.unwrap_or_default());
    if after < floor {
        return Err(StoreError::Compacted { floor }.into());
    }
    Ok(Arg::Int(i64::try_from(after.0).unwrap_or(i64::MAX)))
}

/// The remembered answer for a key.
pub(super) fn key(db: &mut Connection, scope: &str, key: &str) -> Result<Option<KeyRecord>, ReadError> {
    let found = db.first(KEY, &[scope.into(), key.into()], |row| {
        let jobs: Result<Vec<JobId>, _> = row.blob(1)?.chunks(size_of::<Uuid>()).map(job_id).collect();
        Ok(KeyRecord {
            scope: scope.to_owned(),
            key: key.to_owned(),
            fingerprint: hash(row, 0)?,
            jobs: jobs?,
            at: Timestamp(row.int(2)?),
        })
    })?;
    Ok(found)
}

/// All tokens, oldest first.
pub(super) fn tokens(db: &mut Connection) -> Result<Vec<TokenRecord>, ReadError> {
    let mut tokens = Vec::new();
    db.query(TOKENS, &[], |row| {
        tokens.push(TokenRecord {
            id: row.text(0)?.to_owned(),
            name: row.text(1)?.to_owned(),
            hash: hash(row, 2)?,
            owner: owner(row, 3)?,
            created_at: Timestamp(row.int(5)?),
            expires_at: row.opt_int(6)?.map(Timestamp),
        });
        Ok(())
    })?;
    Ok(tokens)
}

/// All objects of a kind, by name.
pub(super) fn objects(db: &mut Connection, kind: ObjectKind) -> Result<Vec<ObjectRecord>, ReadError> {
    let mut objects = Vec::new();
    db.query(OBJECTS, &[Arg::Int(kind as i64)], |row| {
        objects.push(ObjectRecord { name: Name::from(row.text(0)?), value: Bytes::copy_from_slice(row.text(1)?.as_bytes()) });
        Ok(())
    })?;
    Ok(objects)
}

fn hash(row: &Row, column: i32) -> Result<[u8; 32], RawError> {
    row.blob(column)?.try_into().map_err(|_| RawError::corrupt("a hash has not 32 bytes"))
}
