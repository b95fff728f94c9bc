//! What readers ask: one job, pages of jobs, events, keys, tokens, objects. What takes more than one statement runs on one snapshot.

use std::collections::HashMap;

use bytes::Bytes;
use scheduler_core::ids::{JobId, Name, Revision, Seq};
use scheduler_core::state::StateKind;
use scheduler_core::time::Timestamp;
use sqlx::Acquire as _;
use sqlx::postgres::{PgConnection, PgExecutor, PgPool, PgRow, PgTransaction};

use super::connect::Address;
use super::fault::Fault;
use super::lease::standing;
use super::row::{get, hash, job, job_id, lifecycle, name, number, owner};
use super::schema;
use super::value::{Id, kept, kept_list, told};
use crate::codec::{Damage, signed, state_kind};
use crate::{
    EventRecord, Head, JobPage, JobQuery, JobRecord, KeyRecord, LabelMatch, Notice, NoticeKind, NoticeQuery, NoticeRecord,
    ObjectKind, ObjectRecord, OutcomeKind, StateCounts, StoreError, TokenRecord,
};

/// Rows that one page of a list looks at, at most; one that found less says where to go on.
const SCAN: i64 = 500_000;
/// The same with a label selector, which reads a second table.
const SCAN_LABELS: i64 = 50_000;

static HEAD: &str = include_str!("queries/head.sql");
static COUNT_STATES: &str = include_str!("queries/count_states.sql");
static JOBS_BY_ID: &str = include_str!("queries/jobs_by_id.sql");
static JOBS_BY_SEQ: &str = include_str!("queries/jobs_by_seq.sql");
static IDS_BETWEEN: &str = include_str!("queries/ids_between.sql");
static ID_BY_SEQ: &str = include_str!("queries/id_by_seq.sql");
static LIST: &str = include_str!("queries/list.sql");
static NTH_OF_STATE: &str = include_str!("queries/nth_of_state.sql");
static NEWEST_BEFORE: &str = include_str!("queries/newest_before.sql");
static EVENTS: &str = include_str!("queries/events.sql");
static EVENTS_OF_JOB: &str = include_str!("queries/events_of_job.sql");
static NOTICES: &str = include_str!("queries/notices.sql");
static KEY: &str = include_str!("queries/key.sql");
static OBJECTS: &str = include_str!("queries/objects.sql");
static TOKENS: &str = include_str!("queries/tokens.sql");

/// A transaction that sees one state of the table.
pub(super) async fn snapshot(pool: &PgPool) -> Result<PgTransaction<'static>, Fault> {
    Ok(pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
}

/// Where the table stands, whoever writes it, if it is one of this version.
pub(super) async fn head(pool: &PgPool, address: &Address) -> Result<Head, Fault> {
    let mut snapshot = snapshot(pool).await?;
    let db = snapshot.acquire().await?;
    schema::readable(db, address).await?;
    let head = standing(&sqlx::query(HEAD).fetch_one(db).await?)?.head;
    snapshot.commit().await?;
    Ok(head)
}

/// Number of jobs in each state.
pub(super) async fn counts<'a>(db: impl PgExecutor<'a>) -> Result<StateCounts, Fault> {
    let mut counts = StateCounts::default();
    for row in sqlx::query(COUNT_STATES).fetch_all(db).await? {
        counts[state_kind(get(&row, 0)?)? as usize] = number(&row, 1)?;
    }
    Ok(counts)
}

/// Jobs with their specs, in the order asked; unknown ones are left out.
pub(super) async fn jobs_by_id(pool: &PgPool, ids: &[JobId]) -> Result<Vec<JobRecord>, Fault> {
    let wanted: Vec<Id> = ids.iter().copied().map(Id).collect();
    let mut found = HashMap::with_capacity(ids.len());
    for row in sqlx::query(JOBS_BY_ID).bind(wanted).fetch_all(pool).await? {
        let record = job(&row)?;
        found.insert(record.id, record);
    }
    Ok(ids.iter().filter_map(|id| found.get(id).cloned()).collect())
}

/// Ids from `first` to `last`, both included, ascending, at most `limit`.
pub(super) async fn ids_between(pool: &PgPool, first: JobId, last: JobId, limit: u32) -> Result<Vec<JobId>, Fault> {
    let query = sqlx::query(IDS_BETWEEN).bind(Id(first)).bind(Id(last)).bind(i64::from(limit));
    query.fetch_all(pool).await?.iter().map(|row| job_id(row, 0)).collect()
}

/// The job with this submission sequence.
pub(super) async fn id_by_seq(pool: &PgPool, seq: Seq) -> Result<Option<JobId>, Fault> {
    let Ok(seq) = i64::try_from(seq.0) else { return Ok(None) };
    sqlx::query(ID_BY_SEQ).bind(seq).fetch_optional(pool).await?.map(|row| job_id(&row, 0)).transpose()
}

/// A page of jobs, newest first.
pub(super) async fn jobs(pool: &PgPool, query: &JobQuery) -> Result<JobPage, Fault> {
    let mut snapshot = snapshot(pool).await?;
    let db = snapshot.acquire().await?;
    let revision = standing(&sqlx::query(HEAD).fetch_one(&mut *db).await?)?.head.last_revision;
    let filter = Filter::of(query);
    let limit = query.limit.clamp(1, 1_000) as usize;
    let before = query.before.map_or(i64::MAX, |seq| signed(seq.0));
    let from = filter.down_to(db, before).await?;
    let mut found = filter.find(db, from, before, limit + 1).await?;
    let next = if found.len() > limit {
        found.truncate(limit);
        found.last().copied()
    } else {
        newest_before(db, from).await?.map(|_| from)
    };
    let mut jobs = Vec::with_capacity(found.len());
    if !found.is_empty() {
        for row in sqlx::query(JOBS_BY_SEQ).bind(found).fetch_all(db).await? {
            jobs.push(job(&row)?);
        }
    }
    snapshot.commit().await?;
    Ok(JobPage { jobs, next: next.map(|seq| Seq(seq.cast_unsigned())), revision })
}

async fn newest_before(db: &mut PgConnection, before: i64) -> Result<Option<i64>, Fault> {
    Ok(sqlx::query_scalar(NEWEST_BEFORE).bind(before).fetch_one(db).await?)
}

/// A [`JobQuery`] with the states that it asks for, all of them where it names none.
struct Filter<'a> {
    query: &'a JobQuery,
    states: Vec<StateKind>,
}

impl<'a> Filter<'a> {
    fn of(query: &'a JobQuery) -> Self {
        let wanted = |kind: &StateKind| {
            (query.states.is_empty() || query.states.contains(kind))
                && (query.outcomes.is_empty() || *kind == StateKind::Finished)
        };
        Self { query, states: StateKind::ALL.into_iter().filter(wanted).collect() }
    }

    /// Down to which sequence one page looks: as far as it takes where every row that is looked at matches, else over a bounded
    /// number of rows.
    async fn down_to(&self, db: &mut PgConnection, before: i64) -> Result<i64, Fault> {
        let query = self.query;
        let lists = [query.namespaces.is_empty(), query.queues.is_empty(), query.owners.is_empty(), query.outcomes.is_empty()];
        if lists == [true; 4] && query.name.is_none() && query.labels.is_empty() {
            return Ok(0);
        }
        let scan = if query.labels.is_empty() { SCAN } else { SCAN_LABELS };
        if self.states.len() == StateKind::ALL.len() {
            return Ok(newest_before(db, before).await?.map_or(0, |newest| newest - scan + 1));
        }
        let mut from = 0;
        for state in &self.states {
            let nth = sqlx::query_scalar(NTH_OF_STATE).bind(*state as i16).bind(before).bind(scan - 1);
            from = from.max(nth.fetch_optional(&mut *db).await?.unwrap_or(0));
        }
        Ok(from)
    }

    /// Sequences of jobs in `from..before` that match, newest first.
    async fn find(&self, db: &mut PgConnection, from: i64, before: i64, limit: usize) -> Result<Vec<i64>, Fault> {
        let query = self.query;
        let states: Vec<i16> = self.states.iter().map(|state| *state as i16).collect();
        let outcomes: Vec<i16> = query.outcomes.iter().map(|outcome: &OutcomeKind| *outcome as i16).collect();
        let selectors: Vec<_> = query.labels.iter().map(selector).collect();
        let part = |index: usize| selectors.iter().map(|selector| kept(selector[index])).collect::<Vec<_>>();
        let found = sqlx::query_scalar(LIST)
            .bind(before)
            .bind(from)
            .bind(limit as i64)
            .bind((states.len() < StateKind::ALL.len()).then_some(states))
            .bind((!outcomes.is_empty()).then_some(outcomes))
            .bind(kept_list(&query.namespaces))
            .bind(kept_list(&query.queues))
            .bind(kept_list(&query.owners))
            .bind((!selectors.is_empty()).then(|| part(0)))
            .bind(part(1))
            .bind(part(2))
            .bind(query.name.as_deref().map(kept));
        Ok(found.fetch_all(db).await?)
    }
}

/// A selector as the query reads it: operator, key, value.
fn selector(label: &LabelMatch) -> [&str; 3] {
    match label {
        LabelMatch::Is(key, value) => ["is", key, value],
        LabelMatch::IsNot(key, value) => ["isNot", key, value],
        LabelMatch::Exists(key) => ["exists", key, ""],
        LabelMatch::Absent(key) => ["absent", key, ""],
    }
}

/// Events after a revision, oldest first.
pub(super) async fn events(pool: &PgPool, after: Revision, job: Option<JobId>, limit: u32) -> Result<Vec<EventRecord>, Fault> {
    let (from, limit) = (signed(after.0), i64::from(limit));
    let query = match job {
        None => sqlx::query(EVENTS).bind(from).bind(limit),
        Some(id) => sqlx::query(EVENTS_OF_JOB).bind(from).bind(limit).bind(Id(id)),
    };
    let mut events = Vec::new();
    for row in query.fetch_all(pool).await? {
        let floor = Revision(number(&row, 0)?);
        if after < floor {
            return Err(StoreError::Compacted { floor }.into());
        }
        if get::<Option<i64>>(&row, 1)?.is_none() {
            break;
        }
        events.push(EventRecord {
            revision: Revision(number(&row, 1)?),
            job: job_id(&row, 2)?,
            namespace: name(&row, 3)?,
            at: Timestamp(get(&row, 4)?),
            what: Name::from(get::<&str>(&row, 5)?),
            lifecycle: lifecycle(&row, 6)?,
        });
    }
    Ok(events)
}

/// Notices after a revision, oldest first.
pub(super) async fn notices(pool: &PgPool, wanted: &NoticeQuery) -> Result<Vec<NoticeRecord>, Fault> {
    let query = sqlx::query(NOTICES)
        .bind(signed(wanted.after.0))
        .bind(i64::from(wanted.limit))
        .bind(wanted.kind.map(|kind| kind as i16))
        .bind(wanted.name.as_ref().map(|name| kept(name.as_str()).into_owned()));
    let text = |row: &PgRow, column| Ok::<_, Fault>(get::<Option<&str>>(row, column)?.map(|kept| told(kept).into_owned()));
    let mut notices = Vec::new();
    for row in query.fetch_all(pool).await? {
        let floor = Revision(number(&row, 0)?);
        if wanted.after < floor {
            return Err(StoreError::Compacted { floor }.into());
        }
        if get::<Option<i64>>(&row, 1)?.is_none() {
            break;
        }
        let kind: usize = number(&row, 3)?;
        let notice = Notice {
            at: Timestamp(get(&row, 2)?),
            kind: *NoticeKind::ALL.get(kind).ok_or_else(|| Damage(format!("a notice of kind {kind}")))?,
            name: name(&row, 4)?,
            what: name(&row, 5)?,
            node: text(&row, 6)?.map(Name::from),
            cause: text(&row, 7)?.map(Name::from),
            by: text(&row, 8)?.map(Name::from),
            reason: text(&row, 9)?,
        };
        notices.push(NoticeRecord { revision: Revision(number(&row, 1)?), notice });
    }
    Ok(notices)
}

/// The remembered answer for a key.
pub(super) async fn key(pool: &PgPool, scope: &str, key: &str) -> Result<Option<KeyRecord>, Fault> {
    let Some(row) = sqlx::query(KEY).bind(kept(scope)).bind(kept(key)).fetch_optional(pool).await? else { return Ok(None) };
    Ok(Some(KeyRecord {
        scope: scope.to_owned(),
        key: key.to_owned(),
        fingerprint: hash(&row, 0)?,
        jobs: get::<Vec<Id>>(&row, 1)?.into_iter().map(|id| id.0).collect(),
        at: Timestamp(get(&row, 2)?),
    }))
}

/// All tokens, oldest first.
pub(super) async fn tokens(pool: &PgPool) -> Result<Vec<TokenRecord>, Fault> {
    let mut tokens = Vec::new();
    for row in sqlx::query(TOKENS).fetch_all(pool).await? {
        tokens.push(TokenRecord {
            id: told(get(&row, 0)?).into_owned(),
            name: told(get(&row, 1)?).into_owned(),
            hash: hash(&row, 2)?,
            owner: owner(&row, 3)?,
            created_at: Timestamp(get(&row, 5)?),
            expires_at: get::<Option<i64>>(&row, 6)?.map(Timestamp),
        });
    }
    Ok(tokens)
}

/// All objects of a kind, by name.
pub(super) async fn objects(pool: &PgPool, kind: ObjectKind) -> Result<Vec<ObjectRecord>, Fault> {
    let mut objects = Vec::new();
    for row in sqlx::query(OBJECTS).bind(kind as i16).fetch_all(pool).await? {
        objects.push(ObjectRecord { name: name(&row, 0)?, value: Bytes::copy_from_slice(get::<&str>(&row, 1)?.as_bytes()) });
    }
    Ok(objects)
}
