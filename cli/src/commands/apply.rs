//! `flash queues apply -f FILE`: queues, cohorts and priority classes as a file says.
//!
//! Invariants: the whole file is read and understood before the first change; cohorts are set before what names them; each thing is
//! replaced by what the file says of it, and what the file does not name stays. What `flash queues -o yaml` printed can be applied: what
//! only the server can say is left aside.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use api::{CohortSpec, PriorityClassSpec, QueueSpec};
use clap::ValueHint;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::error::Error;
use crate::output;
use crate::query::Query;
use crate::{file, table};

pub(crate) const EXAMPLES: &str = "Examples:
  flash queues apply -f queues.yaml
  flash queues -o yaml > queues.yaml          what there is, to be edited and applied

A file has lists of cohorts, queues and priorityClasses, each with the fields of the API:
  cohorts:
  - name: lab
    fairShare: {halfLife: 7d}
  queues:
  - {name: train, cohort: lab, weight: 2, guaranteed: {gpu: 4}, preemptible: true}
  - {name: serve, cohort: lab, priority: 1000, guaranteed: {gpu: 4}, tenantLimits: {jobs: 10}}
  priorityClasses:
  - {name: urgent, priority: 1000}

What the file says of a queue replaces all that was said of it; queues that it does not name stay as they are.";

/// What comes back with a thing and is not sent.
const STANDING: [&str; 11] =
    ["origin", "waiting", "queued", "active", "used", "borrowed", "share", "tenantCount", "tenants", "queues", "pool"];

/// Arguments of `flash queues apply`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// YAML or JSON, one document or many; - is stdin
    #[arg(short = 'f', long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

/// All that a file says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Wanted {
    pub(super) cohorts: Vec<(String, CohortSpec)>,
    pub(super) queues: Vec<(String, QueueSpec)>,
    classes: Vec<(String, PriorityClassSpec)>,
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    let wanted = read(&args.file)?;
    for (name, spec) in parents_first(wanted.cohorts) {
        put(client, "/cohorts", "cohort", &name, &spec).await?;
    }
    for (name, spec) in wanted.classes {
        put(client, "/priorityclasses", "priority class", &name, &spec).await?;
    }
    for (name, spec) in wanted.queues {
        put(client, "/queues", "queue", &name, &spec).await?;
    }
    Ok(0)
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Wanted, Error> {
    let (name, documents) = file::documents(path)?;
    understand(&name, documents)
}

async fn put<S: Serialize>(client: &Client, path: &str, kind: &str, name: &str, spec: &S) -> Result<(), Error> {
    let _shown: Value = client.put(&Query::new(path).segment(name), spec).await?;
    output::print(&format!("{kind} {} is set\n", table::clean(name)))
}

/// Cohorts in an order in which each finds its parent. Those that lead back to themselves are left to the server to refuse.
fn parents_first(mut cohorts: Vec<(String, CohortSpec)>) -> Vec<(String, CohortSpec)> {
    let mut ordered = Vec::with_capacity(cohorts.len());
    loop {
        let waiting: BTreeSet<String> = cohorts.iter().map(|(name, _)| name.clone()).collect();
        let free = |(_, spec): &(String, CohortSpec)| spec.parent.as_ref().is_none_or(|parent| !waiting.contains(parent));
        let (now, later): (Vec<_>, Vec<_>) = cohorts.into_iter().partition(free);
        if now.is_empty() {
            ordered.extend(later);
            return ordered;
        }
        ordered.extend(now);
        cohorts = later;
    }
}

fn understand(file: &str, documents: Vec<Value>) -> Result<Wanted, Error> {
    let mut wanted = Wanted::default();
    for (at, document) in documents.into_iter().enumerate() {
        let place = format!("{file}: document {}", at + 1);
        let mut object = match document {
            Value::Null => continue,
            Value::Object(object) => object,
            _ => return Err(Error::usage(format!("{place}: must be an object with queues, cohorts or priorityClasses"))),
        };
        wanted.cohorts.extend(list(&place, "cohorts", &mut object)?);
        wanted.queues.extend(list(&place, "queues", &mut object)?);
        // As a list of queues is printed.
        wanted.queues.extend(list(&place, "items", &mut object)?);
        wanted.classes.extend(list(&place, "priorityClasses", &mut object)?);
        if let Some(key) = object.keys().next() {
            let key = table::clean(key);
            return Err(Error::usage(format!("{place}: {key}: must be one of queues, cohorts, priorityClasses")));
        }
    }
    if wanted == Wanted::default() {
        return Err(Error::usage(format!("{file}: there is no queue, cohort or priority class in it")));
    }
    Ok(wanted)
}

fn list<S: DeserializeOwned>(place: &str, key: &str, object: &mut Map<String, Value>) -> Result<Vec<(String, S)>, Error> {
    let items = match object.remove(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(Error::usage(format!("{place}: {key}: must be a list"))),
    };
    let mut found: Vec<(String, S)> = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let path = format!("{place}: {key}[{at}]");
        let Value::Object(mut item) = item else { return Err(Error::usage(format!("{path}: must be an object"))) };
        let Some(Value::String(name)) = item.remove("name") else {
            return Err(Error::usage(format!("{path}.name: must be a text")));
        };
        if found.iter().any(|(other, _)| *other == name) {
            return Err(Error::usage(format!("{path}.name: `{}` is there twice", table::clean(&name))));
        }
        // A cohort that was printed says what its queues are guaranteed together; a queue's guarantee is its own.
        if key == "cohorts" {
            item.remove("guaranteed");
        }
        item.retain(|key, _| !STANDING.contains(&key.as_str()));
        let spec = serde_path_to_error::deserialize(Value::Object(item)).map_err(|error| {
            let field = match error.path().to_string().as_str() {
                "." => String::new(),
                field => format!(".{field}"),
            };
            Error::usage(format!("{path}{field}: {}", table::clean(&error.inner().to_string())))
        })?;
        found.push((name, spec));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_understood_whole() {
        let printed = json!({"items": [{"name": "q", "weight": 2, "origin": "api", "queued": 3, "used": {"cpu": "1"}, "share": {"held": 1, "weight": 1}}]});
        let own = json!({"cohorts": [{"name": "vision", "parent": "lab"}, {"name": "lab", "guaranteed": {"gpu": "4"}, "queues": ["q"]}],
            "priorityClasses": [{"name": "urgent", "priority": 5}]});
        let wanted = understand("f", vec![Value::Null, printed, own]).unwrap();
        assert_eq!((wanted.queues.len(), wanted.queues[0].1.weight.0), (1, 2_000));
        let order: Vec<_> = parents_first(wanted.cohorts).into_iter().map(|(name, _)| name).collect();
        assert_eq!(order, ["lab", "vision"]);
        assert_eq!(wanted.classes, [("urgent".to_owned(), PriorityClassSpec { priority: 5 })]);
        let around =
            |name: &str, parent: &str| (name.to_owned(), CohortSpec { parent: Some(parent.to_owned()), ..CohortSpec::default() });
        assert_eq!(parents_first(vec![around("a", "b"), around("b", "a")]).len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (document, said) in [
            (json!([]), "f: document 1: must be an object"),
            (json!({"queue": []}), "f: document 1: queue: must be one of queues"),
            (json!({"queues": {}}), "f: document 1: queues: must be a list"),
            (json!({"queues": [{"weight": 1}]}), "queues[0].name: must be a text"),
            (json!({"queues": [{"name": "a"}, {"name": "a"}]}), "queues[1].name: `a` is there twice"),
            (json!({"queues": [{"name": "a", "wieght": 1}]}), "queues[0].wieght: unknown field"),
            (json!({"queues": [{"name": "a", "limit": {"gpu": "x"}}]}), "queues[0].limit.gpu: `x` is not an amount of GPUs"),
            (json!({"priorityClasses": [{"name": "a"}]}), "priorityClasses[0]: missing field `priority`"),
            (json!({}), "there is no queue, cohort or priority class in it"),
        ] {
            let error = understand("f", vec![document]).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
