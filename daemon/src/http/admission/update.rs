//! From a patch of a job that waits to its queue, policy and spec from now on.
//!
//! Invariants: only what is listed can be changed, so that what a job runs and what it asks for stay what was submitted; the result keeps the same
//! rules as a submit; a patch that changes nothing gives nothing.

use api::JobSpec;
use scheduler_core::ids::Name;
use serde_json::{Map, Value};
use store::JobRecord;

use super::{Admission, DEFAULT_QUEUE, Invalid, complete_policy, known, resolve_class, takes};
use crate::backend::{Caller, Update};
use crate::http::problem::{ApiError, ApiResult};
use crate::objects::edit::{Edit, EditError};

/// Fields of a spec that can be changed while the job waits.
pub const FIELDS: [&str; 6] = ["priority", "priorityClass", "queue", "timeLimit", "retry", "stop"];

impl Admission {
    /// What a patch makes of a job; nothing where it is so already.
    ///
    /// # Errors
    /// The patch names what cannot be changed, or a value that is not allowed. A stored spec that is damaged is a fault of ours.
    pub fn update(&self, record: &JobRecord, mut patch: Map<String, Value>, caller: &Caller) -> ApiResult<Option<Update>> {
        if let Some(other) = patch.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            let detail =
                format!("`{}` cannot be changed; of a job that waits these can: {}", other.escape_debug(), FIELDS.join(", "));
            return Err(Invalid::new(other, detail).into());
        }
        // A class and a number say the same thing twice: the one that is not sent goes.
        let names = |key: &str| patch.get(key).is_some_and(|value| !value.is_null());
        if names("priority") && !patch.contains_key("priorityClass") {
            patch.insert("priorityClass".to_owned(), Value::Null);
        } else if names("priorityClass") && !patch.contains_key("priority") {
            patch.insert("priority".to_owned(), Value::Null);
        }
        let mut before: JobSpec = serde_json::from_slice(&record.spec).map_err(|error| ApiError::internal(&error))?;
        let edited = Edit::Patch(patch).apply(Some(&before)).map_err(|error| match error {
            EditError::Invalid(invalid) => ApiError::invalid(invalid.field, invalid.detail),
            EditError::Absent => ApiError::internal(&"a spec that is there is not"),
        })?;
        let Some(mut spec) = edited else { return Ok(None) };
        let directory = self.directory.get();
        let queue = spec.queue.get_or_insert_with(|| DEFAULT_QUEUE.to_owned());
        // One that its own jobs alone know may be kept.
        let queue = if queue.as_str() == record.queue.as_str() {
            record.queue.clone()
        } else {
            let queue = known(directory.queues.keys(), queue, "queue")?.clone();
            takes(&directory, &queue, &record.namespace)?;
            queue
        };
        if spec.priority_class != before.priority_class || spec.priority != before.priority {
            resolve_class(&mut spec, &directory)?;
        }
        let policy = complete_policy(&mut spec)?;
        let written = serde_json::to_vec(&spec).map_err(|error| ApiError::internal(&error))?;
        if written == record.spec {
            return Ok(None);
        }
        let from = (record.queue.clone(), complete_policy(&mut before)?);
        let policy = self.policies.share(policy);
        Ok(Some(Update { from, queue, policy, spec: written.into(), by: Name::clone(&caller.user) }))
    }
}
