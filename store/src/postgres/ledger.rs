//! The ledger of what was used: how the writer of PostgreSQL reads and writes what [`crate::ledger`] sums up.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use scheduler_core::ids::Name;
use scheduler_core::state::{JobState, Placement};
use scheduler_core::time::Timestamp;
use sqlx::postgres::PgConnection;

use super::changes::{Changes, Known as When};
use super::commit::Before;
use super::fault::Fault;
use super::row::{get, name};
use super::value::{Id, kept};
use crate::codec::{Damage, parse, signed};
use crate::ledger::{DayRows, Known, Ledger, Sum, sampled_columns};
use crate::usage::{Day, Promise, RunSample, Sampled};

static SHAPES: &str = include_str!("queries/shapes.sql");
static OWNERS: &str = include_str!("queries/owners.sql");
static OWNERS_OF: &str = include_str!("queries/owners_of.sql");
static ADD_DAYS: &str = include_str!("queries/usage_add_days.sql");
static END_RUNS: &str = include_str!("queries/usage_end_runs.sql");
static SAMPLE_RUNS: &str = include_str!("queries/usage_sample_runs.sql");

/// What is remembered of these rows, and those of which nothing is.
fn remembered<T>(ids: HashSet<i64>, find: impl Fn(i64) -> Option<T>) -> (HashMap<i64, T>, Vec<i64>) {
    let mut known = HashMap::with_capacity(ids.len());
    let mut unknown = Vec::new();
    for id in ids {
        match find(id) {
            Some(found) => drop(known.insert(id, found)),
            None => unknown.push(id),
        }
    }
    (known, unknown)
}

/// The shapes of these rows.
async fn known_shapes(db: &mut PgConnection, ledger: &mut Ledger, ids: HashSet<i64>) -> Result<HashMap<i64, Arc<Known>>, Fault> {
    let (mut known, unknown) = remembered(ids, |id| ledger.shape(id));
    if !unknown.is_empty() {
        for row in sqlx::query(SHAPES).bind(unknown).fetch_all(db).await? {
            let id = get(&row, 0)?;
            known.insert(id, ledger.learn_shape(id, parse("a shape", get(&row, 1)?)?));
        }
    }
    Ok(known)
}

/// The users of these rows.
async fn known_owners(db: &mut PgConnection, ledger: &mut Ledger, ids: HashSet<i64>) -> Result<HashMap<i64, Name>, Fault> {
    let (mut known, unknown) = remembered(ids, |id| ledger.owner(id));
    if !unknown.is_empty() {
        for row in sqlx::query(OWNERS).bind(unknown).fetch_all(db).await? {
            let id = get(&row, 0)?;
            known.insert(id, ledger.learn_owner(id, name(&row, 1)?));
        }
    }
    Ok(known)
}

fn missing(what: &str, id: i64) -> Fault {
    Damage(format!("there is no {what} {id}")).into()
}

/// Counts the runs that end among these changes. Their jobs' rows are written already.
pub(super) async fn count_ends(
    db: &mut PgConnection,
    ledger: &mut Ledger,
    changes: &Changes<'_>,
    before: &HashMap<i64, Before>,
) -> Result<(), Fault> {
    let ended = || changes.jobs.iter().filter(|job| !job.ends.is_empty()).filter_map(|job| Some((job, before.get(&job.seq)?)));
    let shapes = known_shapes(db, ledger, ended().map(|(_, was)| was.shape).collect()).await?;
    // Runs of which their jobs' rows will say nothing more.
    let mut followed: Vec<(i64, i64, i64, i64, Promise)> = Vec::new();
    for (job, was) in ended() {
        let known = shapes.get(&was.shape).ok_or_else(|| missing("shape", was.shape))?;
        for end in &job.ends {
            let started = match end.started {
                When::Before => was.started_at,
                When::Now(started) => started,
            };
            // One whose tasks never started has used nothing.
            let Some(started) = started.map(Timestamp) else { continue };
            let promise = match &known.shape {
                None => known.promise,
                Some(shape) => {
                    let placed = match end.placement {
                        When::Before => was.placement.as_deref(),
                        When::Now(change) => changes.columns[change].placement.as_deref(),
                    };
                    let placed: Option<Placement> = placed.map(|text| parse("a placement", text)).transpose()?;
                    Promise::of(shape, placed.as_ref())
                }
            };
            ledger.count_run((was.shape, was.owner), promise, started, end.ended);
            let change = &changes.all[end.change];
            if !matches!(change.to.state, JobState::Finished { .. }) {
                followed.push((job.seq, change.from.1.0.into(), started.0, end.ended.0, promise));
            }
        }
    }
    if followed.is_empty() {
        return Ok(());
    }
    sqlx::query(END_RUNS)
        .bind(followed.iter().map(|run| run.0).collect::<Vec<_>>())
        .bind(followed.iter().map(|run| run.1).collect::<Vec<_>>())
        .bind(followed.iter().map(|run| run.2).collect::<Vec<_>>())
        .bind(followed.iter().map(|run| run.3).collect::<Vec<_>>())
        .bind(followed.iter().map(|run| signed(run.4.cpu.0)).collect::<Vec<_>>())
        .bind(followed.iter().map(|run| signed(run.4.memory.0)).collect::<Vec<_>>())
        .bind(followed.iter().map(|run| signed(run.4.gpu_millis)).collect::<Vec<_>>())
        .execute(db)
        .await?;
    Ok(())
}

/// Counts what was seen of runs. One whose job is gone is nobody's.
pub(super) async fn count_samples(db: &mut PgConnection, ledger: &mut Ledger, samples: &[RunSample]) -> Result<(), Fault> {
    let seqs: Vec<i64> = samples.iter().map(|sample| signed(sample.seq.0)).collect();
    let ids: Vec<Id> = samples.iter().map(|sample| Id(sample.job)).collect();
    let mut whose: HashMap<(i64, uuid::Uuid), (i64, i64)> = HashMap::new();
    for row in sqlx::query(OWNERS_OF).bind(seqs).bind(ids).fetch_all(&mut *db).await? {
        whose.insert((get(&row, 0)?, get::<Id>(&row, 1)?.0.0), (get(&row, 2)?, get(&row, 3)?));
    }
    let mut runs: BTreeMap<(i64, i64), Sampled> = BTreeMap::new();
    for sample in samples {
        let seq = signed(sample.seq.0);
        let Some((shape, owner)) = whose.get(&(seq, sample.job.0)) else { continue };
        ledger.sum(Day::of(sample.at), *shape, *owner).used.sampled.add(&sample.sampled);
        runs.entry((seq, sample.attempt.0.into())).or_default().add(&sample.sampled);
    }
    if runs.is_empty() {
        return Ok(());
    }
    let columns: Vec<[i64; 5]> = runs.values().map(sampled_columns).collect();
    let column = |index: usize| columns.iter().map(|row| row[index]).collect::<Vec<_>>();
    sqlx::query(SAMPLE_RUNS)
        .bind(runs.keys().map(|(seq, _)| *seq).collect::<Vec<_>>())
        .bind(runs.keys().map(|(_, attempt)| *attempt).collect::<Vec<_>>())
        .bind(column(0))
        .bind(column(1))
        .bind(column(2))
        .bind(column(3))
        .bind(column(4))
        .execute(db)
        .await?;
    Ok(())
}

/// Writes what the batch has summed up.
pub(super) async fn write_sums(db: &mut PgConnection, ledger: &mut Ledger) -> Result<(), Fault> {
    let sums = ledger.take();
    if sums.is_empty() {
        return Ok(());
    }
    let shapes = known_shapes(db, ledger, sums.keys().map(|(_, shape, _)| *shape).collect()).await?;
    let owners = known_owners(db, ledger, sums.keys().map(|(.., owner)| *owner).collect()).await?;
    let mut rows = DayRows::new();
    for ((day, shape, owner), Sum { runs, used }) in sums {
        let known = shapes.get(&shape).ok_or_else(|| missing("shape", shape))?;
        let user = owners.get(&owner).ok_or_else(|| missing("owner", owner))?;
        let row = rows.entry((day, known.namespace.clone(), user.clone(), known.queue.clone())).or_default();
        row.runs += runs;
        row.used.add(&used);
    }
    let sampled: Vec<[i64; 5]> = rows.values().map(|sum| sampled_columns(&sum.used.sampled)).collect();
    let column = |index: usize| sampled.iter().map(|row| row[index]).collect::<Vec<_>>();
    sqlx::query(ADD_DAYS)
        .bind(rows.keys().map(|key| key.0.0).collect::<Vec<_>>())
        .bind(rows.keys().map(|key| kept(key.1.as_str())).collect::<Vec<_>>())
        .bind(rows.keys().map(|key| kept(key.2.as_str())).collect::<Vec<_>>())
        .bind(rows.keys().map(|key| kept(key.3.as_str())).collect::<Vec<_>>())
        .bind(rows.values().map(|sum| signed(sum.runs)).collect::<Vec<_>>())
        .bind(rows.values().map(|sum| signed(sum.used.promised.cpu_micros)).collect::<Vec<_>>())
        .bind(rows.values().map(|sum| signed(sum.used.promised.memory_mib_millis)).collect::<Vec<_>>())
        .bind(rows.values().map(|sum| signed(sum.used.promised.gpu_micros)).collect::<Vec<_>>())
        .bind(column(0))
        .bind(column(1))
        .bind(column(2))
        .bind(column(3))
        .bind(column(4))
        .execute(db)
        .await?;
    Ok(())
}
