//! Retention and tokens: what the writer does besides commits, in bounded steps.

use scheduler_core::ids::{JobId, Revision};
use scheduler_core::time::Timestamp;

use super::codec::job_id;
use super::raw::Arg;
use super::writer::Writer;
use crate::{Compaction, StoreError, TokenRecord};

static OLDEST_EVENTS: &str = include_str!("queries/oldest_events.sql");
static DELETE_EVENTS: &str = include_str!("queries/delete_events.sql");
static DELETE_NOTICES: &str = include_str!("queries/delete_notices.sql");
static RAISE_FLOOR: &str = include_str!("queries/raise_floor.sql");
static FLOOR: &str = include_str!("queries/floor.sql");
static OLDEST_KEYS: &str = include_str!("queries/oldest_keys.sql");
static DELETE_KEYS: &str = include_str!("queries/delete_keys.sql");
static OLDEST_FINISHED: &str = include_str!("queries/oldest_finished.sql");
static DELETE_JOB: &str = include_str!("queries/delete_job.sql");
static DELETE_SPEC: &str = include_str!("queries/delete_spec.sql");
static FORGET_RUNS: &str = include_str!("queries/usage_forget_runs.sql");
static REMEMBER_SEQ: &str = include_str!("queries/remember_seq.sql");
static INSERT_TOKEN: &str = include_str!("queries/insert_token.sql");
static DELETE_TOKEN: &str = include_str!("queries/delete_token.sql");

impl Writer {
    /// Removes the oldest events, notices and keys.
    ///
    /// Events and notices go in revision order up to the first that is young enough: a clock that was set back may keep some longer, but the
    /// floor stays one number with everything above it there.
    pub(super) fn compact(&mut self, before: Timestamp, limit: u32) -> Result<Compaction, StoreError> {
        const OP: &str = "compact";
        self.transaction(OP, |writer| {
            let events = writer.old_rows(OP, OLDEST_EVENTS, before, limit)?;
            let floor = writer
                .db
                .first(FLOOR, &[], |row| row.number(0))
                .map_err(|error| writer.at(OP).sqlite(error))?
                .map_or(Revision(0), Revision);
            let mut compaction = Compaction { floor, events: events.count, more: events.more };
            if let Some(last) = events.last {
                writer.execute(OP, DELETE_EVENTS, &[Arg::Int(last)])?;
                writer.execute(OP, DELETE_NOTICES, &[Arg::Int(last)])?;
                writer.execute(OP, RAISE_FLOOR, &[Arg::Int(last)])?;
                compaction.floor = Revision(last.cast_unsigned());
            }
            let left = limit.saturating_sub(u32::try_from(events.count).unwrap_or(u32::MAX));
            let keys = writer.old_rows(OP, OLDEST_KEYS, before, left)?;
            if let Some(last) = keys.last {
                writer.execute(OP, DELETE_KEYS, &[Arg::Int(last)])?;
            }
            compaction.more |= keys.more;
            Ok(compaction)
        })
    }

    /// Removes the jobs that finished first, with their specs. Their events stay until they are compacted, what they used in the sums of days.
    pub(super) fn prune(&mut self, before: Timestamp, limit: u32) -> Result<Vec<JobId>, StoreError> {
        const OP: &str = "prune";
        let removed = self.transaction(OP, |writer| {
            let mut oldest = Vec::new();
            writer
                .db
                .query(OLDEST_FINISHED, &[Arg::Int(before.0), Arg::Int(limit.into())], |row| {
                    oldest.push((row.int(0)?, job_id(row.blob(1)?)?));
                    Ok(())
                })
                .map_err(|error| writer.at(OP).sqlite(error))?;
            if oldest.is_empty() {
                return Ok(Vec::new());
            }
            // The rows say what the latest sequence is, until they go.
            writer.execute(OP, REMEMBER_SEQ, &[])?;
            for (seq, _) in &oldest {
                writer.execute(OP, FORGET_RUNS, &[Arg::Int(*seq)])?;
                writer.execute(OP, DELETE_SPEC, &[Arg::Int(*seq)])?;
                writer.execute(OP, DELETE_JOB, &[Arg::Int(*seq)])?;
            }
            Ok(oldest.into_iter().map(|(_, id)| id).collect())
        })?;
        self.count([0, 0, 0, 0, 0, -(removed.len() as i64)]);
        Ok(removed)
    }

    /// Keeps a token.
    pub(super) fn add_token(&mut self, token: &TokenRecord) -> Result<(), StoreError> {
        const OP: &str = "add a token";
        self.transaction(OP, |writer| {
            let args = [
                token.id.as_str().into(),
                token.name.as_str().into(),
                Arg::Blob(&token.hash),
                token.owner.user.as_str().into(),
                i64::from(token.owner.uid).into(),
                token.created_at.0.into(),
                token.expires_at.map(|time| time.0).into(),
            ];
            writer.db.execute(INSERT_TOKEN, &args).map(|_| ()).map_err(|error| {
                if error.is_duplicate() {
                    return StoreError::Duplicate { op: OP, what: format!("token {}", token.id) };
                }
                writer.at(OP).sqlite(error)
            })
        })
    }

    /// Forgets a token; false if there was none.
    pub(super) fn remove_token(&mut self, id: &str) -> Result<bool, StoreError> {
        const OP: &str = "remove a token";
        self.transaction(OP, |writer| Ok(writer.execute(OP, DELETE_TOKEN, &[id.into()])? > 0))
    }

    pub(super) fn execute(&mut self, op: &'static str, sql: &'static str, args: &[Arg<'_>]) -> Result<u64, StoreError> {
        self.db.execute(sql, args).map_err(|error| self.at(op).sqlite(error))
    }

    /// The first rows that are older than `before`, at most `limit`. The query gives keys and times in the order of the keys.
    fn old_rows(&mut self, op: &'static str, sql: &'static str, before: Timestamp, limit: u32) -> Result<OldRows, StoreError> {
        let mut rows = OldRows::default();
        let mut ended = false;
        self.db
            .query(sql, &[Arg::Int(i64::from(limit) + 1)], |row| {
                ended |= row.int(1)? >= before.0;
                if ended {
                    return Ok(());
                }
                if rows.count < u64::from(limit) {
                    rows.count += 1;
                    rows.last = Some(row.int(0)?);
                } else {
                    rows.more = true;
                }
                Ok(())
            })
            .map_err(|error| self.at(op).sqlite(error))?;
        Ok(rows)
    }
}

#[derive(Default)]
struct OldRows {
    count: u64,
    last: Option<i64>,
    more: bool,
}
