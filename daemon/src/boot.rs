//! Whether the machine has been restarted since the daemon last noted its boot, and what that means for runs that were being started.
//!
//! A run may begin once. What a runner writes before it begins one outlives the runner, not the machine: so of a run that was ordered in an
//! earlier boot, and that the runner does not know, nobody can say whether it began. It is settled as lost. In the same boot it has not begun,
//! and its order is given again.
//!
//! What must hold: the new boot is on record only when no run of an earlier one is starting any more, in the table itself: the note goes into
//! the transaction that settles the last of them, or a later one.

use std::collections::BTreeSet;

use bytes::Bytes;
use scheduler_core::Scheduler;
use scheduler_core::ids::RunId;
use scheduler_core::state::StateKind;
use store::{ObjectChange, ObjectKind, Store, StoreError};

use crate::engine::run_of;

/// Where the kernel says which boot it is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The name of the note.
const NAME: &str = "boot";

/// What is to be noted of this boot, and when.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    /// `None` where it stands in the table.
    note: Option<Bytes>,
    doubtful: BTreeSet<RunId>,
}

impl Boot {
    /// Of a core as it was rebuilt at a start.
    ///
    /// # Errors
    /// The table cannot be read.
    pub async fn find(store: &dyn Store, core: &Scheduler) -> Result<Self, StoreError> {
        let present = std::fs::read_to_string(BOOT_ID).unwrap_or_else(|error| {
            // Then every start counts as another boot: runs that may have begun are not started again.
            tracing::warn!(%error, "which boot of the machine this is cannot be read");
            format!("unknown to process {}", std::process::id())
        });
        let present = Bytes::from(serde_json::Value::from(present.trim()).to_string());
        let notes = store.objects(ObjectKind::Note).await?;
        if notes.iter().any(|note| note.name.as_str() == NAME && note.value == present) {
            return Ok(Self::default());
        }
        let starting = core.active().filter(|(_, lifecycle)| lifecycle.state.kind() == StateKind::Starting);
        let doubtful: BTreeSet<RunId> = starting.map(|(job, lifecycle)| run_of(job, lifecycle)).collect();
        tracing::info!(runs = doubtful.len(), "the machine was restarted since the last time, or this is the first");
        Ok(Self { note: Some(present), doubtful })
    }

    /// The runs that were being started in an earlier boot.
    pub fn doubtful(&self) -> &BTreeSet<RunId> {
        &self.doubtful
    }

    /// The note, if it has to be written and may be.
    pub(crate) fn due(&self, core: &Scheduler) -> Option<ObjectChange> {
        let note = self.note.as_ref()?;
        let is_starting = |run: &RunId| {
            let view = core.view(run.job).filter(|view| view.lifecycle.attempt == run.attempt);
            view.is_some_and(|view| view.lifecycle.state.kind() == StateKind::Starting)
        };
        let settled = !self.doubtful.iter().any(is_starting);
        settled.then(|| ObjectChange { kind: ObjectKind::Note, name: NAME.into(), value: Some(note.clone()) })
    }

    /// Whether an object is this note.
    pub(crate) fn is_note(object: &ObjectChange) -> bool {
        object.kind == ObjectKind::Note && object.name.as_str() == NAME
    }

    /// It is on record.
    pub(crate) fn noted(&mut self) {
        *self = Self::default();
    }
}
