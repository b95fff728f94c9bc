//! What many jobs share, as numbers: the writer's memory of the tables `shapes`, `policies` and `owners`. New values of a batch are
//! gathered and written by one statement a table.

use std::sync::Arc;

use scheduler_core::job::{Policy, Shape};
use sqlx::postgres::PgConnection;

use super::fault::Fault;
use super::row::{get, owner};
use super::value::kept;
use crate::Owner;
use crate::codec::{Damage, json, parse};
use crate::intern::{Ids, MOST};

static LATEST_SHAPES: &str = include_str!("queries/latest_shapes.sql");
static LATEST_POLICIES: &str = include_str!("queries/latest_policies.sql");
static LATEST_OWNERS: &str = include_str!("queries/latest_owners.sql");
static INSERT_SHAPES: &str = include_str!("queries/insert_shapes.sql");
static INSERT_POLICIES: &str = include_str!("queries/insert_policies.sql");
static INSERT_OWNERS: &str = include_str!("queries/insert_owners.sql");
static SWEEP: &str = include_str!("queries/sweep.sql");

/// The three tables. After a transaction that failed it must be loaded anew: it may know rows that are not there.
#[derive(Default)]
pub(super) struct Interned {
    shapes: Ids<Arc<Shape>>,
    policies: Ids<Arc<Policy>>,
    owners: Ids<Owner>,
    new_shapes: Vec<(i64, Arc<Shape>, String)>,
    new_policies: Vec<(i64, String)>,
    new_owners: Vec<(i64, Owner)>,
}

impl Interned {
    pub(super) async fn load(db: &mut PgConnection) -> Result<Self, Fault> {
        let mut loaded = Self::default();
        let most = MOST as i64;
        for row in sqlx::query(LATEST_SHAPES).bind(most).fetch_all(&mut *db).await? {
            loaded.shapes.remember(get(&row, 0)?, Arc::new(parse("a shape", get(&row, 1)?)?));
        }
        for row in sqlx::query(LATEST_POLICIES).bind(most).fetch_all(&mut *db).await? {
            loaded.policies.remember(get(&row, 0)?, Arc::new(parse("a policy", get(&row, 1)?)?));
        }
        for row in sqlx::query(LATEST_OWNERS).bind(most).fetch_all(&mut *db).await? {
            loaded.owners.remember(get(&row, 0)?, owner(&row, 1)?);
        }
        Ok(loaded)
    }

    /// Removes rows that nothing uses, if there are more than are remembered anyway: only then can there be many duplicates.
    pub(super) async fn sweep(db: &mut PgConnection) -> Result<(), Fault> {
        sqlx::query(SWEEP).bind(MOST as i64).execute(db).await?;
        Ok(())
    }

    /// The row of this shape; [`Self::write`] makes it where it is not there.
    pub(super) fn shape(&mut self, shape: &Arc<Shape>) -> Result<i64, Damage> {
        self.shapes.id_of(shape, |id| {
            self.new_shapes.push((id, Arc::clone(shape), json(&**shape)?));
            Ok(())
        })
    }

    /// The row of this policy; [`Self::write`] makes it where it is not there.
    pub(super) fn policy(&mut self, policy: &Arc<Policy>) -> Result<i64, Damage> {
        self.policies.id_of(policy, |id| {
            self.new_policies.push((id, json(&**policy)?));
            Ok(())
        })
    }

    /// The row of this owner; [`Self::write`] makes it where it is not there.
    pub(super) fn owner(&mut self, owner: &Owner) -> Result<i64, Damage> {
        self.owners.id_of(owner, |id| {
            self.new_owners.push((id, owner.clone()));
            Ok(())
        })
    }

    /// Writes what is new.
    pub(super) async fn write(&mut self, db: &mut PgConnection) -> Result<(), Fault> {
        let shapes = std::mem::take(&mut self.new_shapes);
        if !shapes.is_empty() {
            let ids: Vec<i64> = shapes.iter().map(|(id, ..)| *id).collect();
            let namespaces: Vec<_> = shapes.iter().map(|(_, shape, _)| kept(shape.namespace.as_str())).collect();
            let queues: Vec<_> = shapes.iter().map(|(_, shape, _)| kept(shape.queue.as_str())).collect();
            let texts: Vec<&str> = shapes.iter().map(|(.., text)| text.as_str()).collect();
            sqlx::query(INSERT_SHAPES).bind(ids).bind(namespaces).bind(queues).bind(texts).execute(&mut *db).await?;
        }
        let (ids, texts): (Vec<i64>, Vec<String>) = std::mem::take(&mut self.new_policies).into_iter().unzip();
        if !ids.is_empty() {
            sqlx::query(INSERT_POLICIES).bind(ids).bind(texts).execute(&mut *db).await?;
        }
        let owners = std::mem::take(&mut self.new_owners);
        if !owners.is_empty() {
            let ids: Vec<i64> = owners.iter().map(|(id, _)| *id).collect();
            let users: Vec<_> = owners.iter().map(|(_, owner)| kept(owner.user.as_str())).collect();
            let uids: Vec<i64> = owners.iter().map(|(_, owner)| owner.uid.into()).collect();
            sqlx::query(INSERT_OWNERS).bind(ids).bind(users).bind(uids).execute(db).await?;
        }
        Ok(())
    }
}
