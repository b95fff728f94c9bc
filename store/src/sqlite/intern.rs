//! What many jobs share, as numbers: the writer's memory of the tables `shapes`, `policies` and `owners`.

use std::hash::Hash;
use std::sync::Arc;

use scheduler_core::ids::Name;
use scheduler_core::job::{Policy, Shape};

use super::codec::{json, parse};
use super::raw::{Arg, Connection, RawError, Row};
use crate::Owner;
use crate::intern::{Ids, MOST};

static LATEST_SHAPES: &str = include_str!("queries/latest_shapes.sql");
static LATEST_POLICIES: &str = include_str!("queries/latest_policies.sql");
static LATEST_OWNERS: &str = include_str!("queries/latest_owners.sql");
static INSERT_SHAPE: &str = include_str!("queries/insert_shape.sql");
static INSERT_POLICY: &str = include_str!("queries/insert_policy.sql");
static INSERT_OWNER: &str = include_str!("queries/insert_owner.sql");
static SWEEP: &str = include_str!("queries/sweep.sql");

/// Reads the latest rows; the query gives the id first and the newest row first.
fn load<K: Clone + Eq + Hash>(
    db: &mut Connection,
    sql: &'static str,
    read: impl Fn(&Row) -> Result<K, RawError>,
) -> Result<Ids<K>, RawError> {
    let mut loaded = Ids::default();
    db.query(sql, &[Arg::Int(MOST as i64)], |row| {
        loaded.remember(row.int(0)?, read(row)?);
        Ok(())
    })?;
    Ok(loaded)
}

/// The three tables. After a transaction that failed it must be loaded anew: it may know rows that are not there.
pub(super) struct Interned {
    shapes: Ids<Arc<Shape>>,
    policies: Ids<Arc<Policy>>,
    owners: Ids<Owner>,
}

impl Interned {
    pub(super) fn load(db: &mut Connection) -> Result<Self, RawError> {
        Ok(Self {
            shapes: load(db, LATEST_SHAPES, |row| shape(row, 1).map(Arc::new))?,
            policies: load(db, LATEST_POLICIES, |row| parse("a policy", row.text(1)?).map(Arc::new))?,
            owners: load(db, LATEST_OWNERS, |row| owner(row, 1))?,
        })
    }

    /// Removes rows that nothing uses, if there are more than are remembered anyway: only then can there be many duplicates.
    pub(super) fn sweep(db: &mut Connection) -> Result<(), RawError> {
        db.execute(SWEEP, &[Arg::Int(MOST as i64)]).map(|_| ())
    }

    /// The row of this shape, made if it is not there.
    pub(super) fn shape(&mut self, db: &mut Connection, shape: &Arc<Shape>) -> Result<i64, RawError> {
        self.shapes.id_of(shape, |id| {
            let whole = json(&**shape)?;
            let args = [id.into(), shape.namespace.as_str().into(), shape.queue.as_str().into(), whole.as_str().into()];
            db.execute(INSERT_SHAPE, &args).map(|_| ())
        })
    }

    /// The row of this policy, made if it is not there.
    pub(super) fn policy(&mut self, db: &mut Connection, policy: &Arc<Policy>) -> Result<i64, RawError> {
        self.policies.id_of(policy, |id| {
            let text = json(&**policy)?;
            db.execute(INSERT_POLICY, &[id.into(), text.as_str().into()]).map(|_| ())
        })
    }

    /// The row of this owner, made if it is not there.
    pub(super) fn owner(&mut self, db: &mut Connection, owner: &Owner) -> Result<i64, RawError> {
        self.owners.id_of(owner, |id| {
            db.execute(INSERT_OWNER, &[id.into(), owner.user.as_str().into(), i64::from(owner.uid).into()]).map(|_| ())
        })
    }
}

/// A shape from its column `shape`. The columns `namespace` and `queue` repeat what lists select by.
pub(super) fn shape(row: &Row, column: i32) -> Result<Shape, RawError> {
    parse("a shape", row.text(column)?)
}

/// An owner from its columns `user, uid`, of which the first is column `first`.
pub(super) fn owner(row: &Row, first: i32) -> Result<Owner, RawError> {
    Ok(Owner { user: Name::from(row.text(first)?), uid: row.number(first + 1)? })
}
