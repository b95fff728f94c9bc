//! One command as one transaction: fenced by its first statement, durable when it is answered, looked up where the answer was lost.

use std::sync::atomic::Ordering;

use scheduler_core::ids::{Revision, Seq, Term};
use sqlx::postgres::PgConnection;
use tokio::time::timeout;

use super::super::fault::Fault;
use super::super::lease::{millis, standing};
use super::{GOODBYE, TRANSACTION, Writer};
use crate::StoreError;
use crate::codec::signed;

static FENCE: &str = include_str!("../queries/fence.sql");
static HEAD: &str = include_str!("../queries/head.sql");

impl Writer {
    /// Runs `work` in a transaction after which the table stands at `after`: durable when this returns a value, undone when it returns an
    /// error, unless the error says that the server is away.
    pub(in crate::postgres) async fn transaction<T>(
        &mut self,
        op: &'static str,
        after: (Seq, Revision),
        work: impl AsyncFnOnce(&mut Self, &mut PgConnection) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let mut db = self.begin(op).await?;
        // Until the end is known.
        self.in_step = false;
        self.counted = false;
        let begun = async {
            self.fence(&mut db, op, after).await?;
            work(self, &mut db).await
        };
        let value = match timeout(TRANSACTION, begun).await {
            Ok(Ok(value)) => value,
            Ok(Err(fault)) => {
                if matches!(timeout(GOODBYE, sqlx::raw_sql("ROLLBACK").execute(&mut db)).await, Ok(Ok(_))) {
                    self.db = Some(db);
                }
                return Err(self.at(op).fault(fault));
            }
            // Without its session the server undoes it.
            Err(_) => return Err(self.at(op).away(format!("not done within {} s", TRANSACTION.as_secs()))),
        };
        let done = timeout(TRANSACTION, sqlx::raw_sql("COMMIT").execute(&mut db)).await;
        let lost = match done {
            Ok(Ok(_)) => {
                self.commits += 1;
                (self.last_seq, self.last_revision) = after;
                self.db = Some(db);
                self.in_step = true;
                return Ok(value);
            }
            Ok(Err(error)) => self.at(op).sqlx(error),
            Err(_) => self.at(op).away("the server does not answer"),
        };
        drop(db);
        self.outcome(op, value, lost).await
    }

    /// Begins a transaction. A session that has died since the one before is replaced: nothing was said in it yet.
    async fn begin(&mut self, op: &'static str) -> Result<PgConnection, StoreError> {
        self.ready(op).await?;
        let known = self.commits;
        for _ in 0..2 {
            let Some(mut db) = self.db.take() else { break };
            match timeout(TRANSACTION, sqlx::raw_sql("BEGIN").execute(&mut db)).await {
                Ok(Ok(_)) => return Ok(db),
                Ok(Err(error)) => tracing::debug!(%error, op, "the session of the job table has died"),
                Err(_) => tracing::debug!(op, "the session of the job table does not answer"),
            }
            drop(db);
            self.in_step = false;
            self.ready(op).await?;
            if self.commits != known {
                return Err(self.at(op).other("somebody else has written"));
            }
        }
        Err(self.at(op).away("no session lasts"))
    }

    /// Whether a transaction whose commit was not answered is in the table.
    async fn outcome<T>(&mut self, op: &'static str, value: T, lost: StoreError) -> Result<T, StoreError> {
        let before = self.commits;
        self.unsettled.store(true, Ordering::Release);
        tracing::warn!(database = %self.address, error = %lost, "the answer to a commit was lost; looking it up");
        self.ready(op).await?;
        self.counted = self.commits > before;
        if self.counted { Ok(value) } else { Err(lost) }
    }

    /// The first statement of a transaction: nobody else has written, and nobody may before this one ends.
    async fn fence(&mut self, db: &mut PgConnection, op: &'static str, (seq, revision): (Seq, Revision)) -> Result<(), Fault> {
        let fenced = sqlx::query(FENCE)
            .bind(signed(self.term.0))
            .bind(self.commits)
            .bind(signed(seq.0))
            .bind(signed(revision.0))
            .bind(millis(self.lease))
            .execute(&mut *db)
            .await?;
        if fenced.rows_affected() == 1 {
            return Ok(());
        }
        let found = standing(&sqlx::query(HEAD).fetch_one(db).await?)?;
        if found.head.term != self.term {
            self.fence_off(found.head.term);
            return Err(self.at(op).wrong_term(self.term, found.head.term).into());
        }
        let (known, found) = (self.commits, found.commits);
        Err(self
            .at(op)
            .other(format!("somebody else has written: transaction {known} was expected to be the last, not {found}"))
            .into())
    }

    /// Another term has begun.
    pub(super) fn fence_off(&self, current: Term) -> StoreError {
        self.fenced.send_replace(Some(current));
        StoreError::Fenced { ours: self.term, current }
    }

    /// Why a batch of another term than this writer's is refused: the term in the table, and not the one in memory, says who may write.
    pub(in crate::postgres) async fn other_term(&mut self, op: &'static str, ours: Term) -> StoreError {
        let Some(db) = &mut self.db else { return StoreError::Closed { op } };
        match sqlx::query(HEAD).fetch_one(db).await.map_err(Fault::from).and_then(|row| standing(&row)) {
            Ok(found) => self.at(op).wrong_term(ours.min(self.term), found.head.term.max(Term(0))),
            Err(fault) => self.at(op).fault(fault),
        }
    }
}
