//! The definitions of the resources, as a cluster takes them.
//!
//! The derived schema is that of the types alone. Here it gets the rules that types cannot say, each with a message for whoever wrote the
//! object, and loses what a cluster does not need: the description of every field of a pod would make it ten times as long.

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::flash_job::{FlashJob, NAME_LENGTH, TASKS};
use crate::queue::ClusterResourceQueue;

/// What a quantity looks like: `4`, `500m`, `16Gi`, `1e3`.
pub const QUANTITY_RULE: &str =
    r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+))?$";

/// All of them, in the order in which they are to be applied, as JSON objects.
///
/// # Errors
/// If a definition cannot be written as JSON, which is a fault of ours.
pub fn definitions() -> Result<[Value; 2], serde_json::Error> {
    let mut job = serde_json::to_value(FlashJob::crd())?;
    if let Some(schema) = schema(&mut job) {
        flash_job_rules(schema);
        if let Some(condition) = schema.pointer_mut("/properties/status/properties/conditions/items") {
            without_descriptions(condition);
        }
        without_nulls(schema);
    }
    let mut queue = serde_json::to_value(ClusterResourceQueue::crd())?;
    if let Some(schema) = schema(&mut queue) {
        quantities(schema);
        if let Some(condition) = schema.pointer_mut("/properties/status/properties/conditions/items") {
            without_descriptions(condition);
        }
        without_nulls(schema);
    }
    Ok([job, queue])
}

/// As one YAML document for each.
///
/// # Errors
/// If a definition cannot be written, which is a fault of ours.
pub fn definitions_yaml() -> Result<String, Unwritable> {
    let mut text = String::from("# Made by `flashd crds`; `cargo xtask lint --fix --only generated` writes it.\n");
    for definition in definitions()? {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&definition)?);
    }
    Ok(text)
}

/// The definitions cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Unwritable {
    /// Not as JSON.
    #[error("writing a definition as JSON")]
    Json(#[from] serde_json::Error),
    /// Not as YAML.
    #[error("writing a definition as YAML")]
    Yaml(#[from] serde_saphyr::ser::Error),
}

fn schema(definition: &mut Value) -> Option<&mut Value> {
    definition.pointer_mut("/spec/versions/0/schema/openAPIV3Schema")
}

fn rule(rule: &str, message: &str, path: Option<&str>) -> Value {
    let mut made = json!({"rule": rule, "message": message});
    if let Some(path) = path {
        made["fieldPath"] = path.into();
    }
    made
}

fn flash_job_rules(schema: &mut Value) {
    let name = format!(
        "a FlashJob's name has {NAME_LENGTH} characters at most, so that the names of its pods fit: shorten metadata.name"
    );
    schema["x-kubernetes-validations"] = json!([rule(&format!("size(self.metadata.name) <= {NAME_LENGTH}"), &name, None)]);
    let Some(spec) = schema.pointer_mut("/properties/spec") else { return };
    spec["x-kubernetes-validations"] = json!([
        rule("size(self.tasks) > 0", "a FlashJob needs at least one task: write spec.tasks[0].spec.containers", Some(".tasks")),
        rule(
            "!has(self.minAvailable) || self.minAvailable <= size(self.tasks)",
            "minAvailable is more than there are tasks: write a number from 0 (all of them) to the number of spec.tasks",
            Some(".minAvailable"),
        ),
    ]);
    let Some(tasks) = spec.pointer_mut("/properties/tasks") else { return };
    tasks["maxItems"] = TASKS.into();
    let Some(template) = tasks.get_mut("items") else { return };
    without_descriptions(template);
    quantities(template);
    template["required"] = json!(["spec"]);
    template["properties"]["spec"]["description"] = "The pod; `kubectl explain pod.spec` says what each field is.".into();
    template["x-kubernetes-validations"] = json!([rule(
        "size(self.spec.containers) > 0",
        "a task needs at least one container: write spec.containers with a name and an image",
        Some(".spec.containers"),
    )]);
    if let Some(metadata) = template.pointer_mut("/properties/metadata") {
        // Identity is given by us; what a template may say is this.
        metadata["description"] = "Labels and annotations of the pod. Its name is given to it.".into();
        metadata["properties"] = json!({
            "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "name": {"type": "string"},
            "generateName": {"type": "string"},
            "namespace": {"type": "string"},
            "finalizers": {"type": "array", "items": {"type": "string"}},
            "creationTimestamp": {"type": "string", "format": "date-time"},
        });
    }
}

/// `description` is text in a schema, and a schema where it is the name of a property.
fn without_descriptions(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("description").is_some_and(Value::is_string) {
                fields.remove("description");
            }
            fields.values_mut().for_each(without_descriptions);
        }
        Value::Array(items) => items.iter_mut().for_each(without_descriptions),
        _ => {}
    }
}

/// A null says nothing: the API server drops it where it is not allowed, and clients that write one for what they leave out are served.
fn without_nulls(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
                if let Some(values) = fields.get_mut("enum").and_then(Value::as_array_mut) {
                    values.retain(|value| !value.is_null());
                }
            }
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Where amounts stand: maps that are called so.
const AMOUNTS: [&str; 7] = ["limits", "requests", "capacity", "guaranteed", "limit", "overhead", "used"];

/// Gives every map of amounts the rule for quantities.
fn quantities(schema: &mut Value) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        for name in AMOUNTS {
            if let Some(amount) = properties.get_mut(name).and_then(|map| map.get_mut("additionalProperties"))
                && let Some(amount) = amount.as_object_mut().filter(|amount| is_int_or_string(amount))
            {
                amount.insert("pattern".to_owned(), QUANTITY_RULE.into());
                // Two pages on the history of quantities.
                amount.remove("description");
            }
        }
    }
    match schema {
        Value::Object(fields) => fields.values_mut().for_each(quantities),
        Value::Array(items) => items.iter_mut().for_each(quantities),
        _ => {}
    }
}

fn is_int_or_string(schema: &Map<String, Value>) -> bool {
    schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
}
