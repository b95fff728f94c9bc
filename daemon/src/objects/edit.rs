//! Changes of objects: a whole spec, a JSON merge patch (RFC 7396), or a removal.
//!
//! Invariant: a patch is applied by the engine, to what is there at that moment: two patches of different fields both count.

use scheduler_core::ids::Name;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Invalid;
use super::nodes::Order;
use super::owned::Owned;

/// What is to become of a thing.
#[derive(Clone, PartialEq, Debug)]
pub enum Edit<S> {
    /// This, whether or not it is there; what is left out has its default.
    Put(S),
    /// What it is, with these members set, and those that are null left out.
    Patch(Map<String, Value>),
    /// Nothing.
    Remove,
}

/// A change that an administrator asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// Of a queue.
    Queue(Name, Edit<api::QueueSpec>),
    /// Of a queue that is an object of the cluster: what that says, or that it is gone.
    ClusterQueue(Name, Option<(api::QueueSpec, Owned)>),
    /// Of a cohort.
    Cohort(Name, Edit<api::CohortSpec>),
    /// Of a priority class.
    Class(Name, Edit<api::PriorityClassSpec>),
    /// Of a node: there is nothing but orders.
    Node(Name, Order),
    /// Of a GPU: the same. What is closed is drained.
    Gpu(Name, Order),
}

/// What a change did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changed {
    /// It was not there before.
    Created,
    /// It was there.
    Replaced,
    /// It is there no more.
    Removed,
    /// It is as it was.
    Nothing,
}

/// A patch does not fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EditError {
    /// There is nothing to patch.
    Absent,
    /// A field of the result.
    Invalid(Invalid),
}

impl<S: Serialize + DeserializeOwned> Edit<S> {
    /// The spec afterwards; `None` for a removal.
    ///
    /// # Errors
    /// See [`EditError`].
    pub fn apply(self, present: Option<&S>) -> Result<Option<S>, EditError> {
        match self {
            Self::Put(spec) => Ok(Some(spec)),
            Self::Remove => Ok(None),
            Self::Patch(patch) => {
                let bad = |detail: String| EditError::Invalid(Invalid::new("", detail));
                let mut value =
                    serde_json::to_value(present.ok_or(EditError::Absent)?).map_err(|error| bad(error.to_string()))?;
                merge(&mut value, Value::Object(patch));
                serde_path_to_error::deserialize(value).map(Some).map_err(|error| {
                    let path = error.path().to_string();
                    let field = if path == "." { String::new() } else { path };
                    EditError::Invalid(Invalid::new(field, error.inner().to_string()))
                })
            }
        }
    }
}

/// As deep as the patch is nested, which its parser bounds.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn patched(present: &str, patch: &str) -> Result<String, EditError> {
        let present: api::QueueSpec = serde_json::from_str(present).unwrap();
        let spec = Edit::<api::QueueSpec>::Patch(serde_json::from_str(patch).unwrap()).apply(Some(&present))?;
        Ok(serde_json::to_string(&spec.unwrap()).unwrap())
    }

    #[test]
    fn a_patch_sets_what_it_names_and_null_gives_the_default() {
        let present = r#"{"priority":5,"weight":2,"cohort":"a","limit":{"cpu":"4","gpu":"2"},"fairShare":{"halfLife":"1h"}}"#;
        let result =
            patched(present, r#"{"weight":3,"cohort":null,"limit":{"gpu":null,"memory":"1Gi"},"fairShare":{"weights":{"x":2}}}"#);
        let expected = r#"{"priority":5,"preemptible":false,"agePerPoint":"1m","weight":3,"limit":{"cpu":"4","memory":"1Gi"},"fairShare":{"halfLife":"1h","weights":{"x":2}}}"#;
        assert_eq!(result.unwrap(), expected);
        assert_eq!(patched(present, "{}").unwrap(), patched(present, r#"{"priority":5}"#).unwrap());
    }

    #[test]
    fn a_patch_that_does_not_fit_names_its_field() {
        for (patch, field) in [
            (r#"{"limit":{"gpu":"x"}}"#, "limit.gpu"),
            (r#"{"limit":3}"#, "limit"),
            (r#"{"wieght":1}"#, "wieght"),
            (r#"{"weight":0}"#, "weight"),
        ] {
            let EditError::Invalid(invalid) = patched("{}", patch).unwrap_err() else { panic!("{patch}") };
            assert_eq!(invalid.field, field, "{patch}");
        }
        let absent = Edit::<api::QueueSpec>::Patch(Map::new()).apply(None);
        assert_eq!(absent, Err(EditError::Absent));
    }
}
