//! What flags say of queues and cohorts, as a JSON merge patch: what is not named stays as it is, `none` takes back what was said.
//!
//! Invariant: amounts, weights and durations are checked here by the wire's own types; everything else by the server.

use api::quantity::{Cpu, Duration, Gpus, Memory, Weight};
use serde_json::{Map, Value, json};

/// The word that takes back.
pub(crate) const NONE: &str = "none";

/// A value, or the word that takes it back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Or<T> {
    /// From now on this.
    Set(T),
    /// From now on the default.
    None,
}

/// `map`, as far as there is a value.
impl<T> Or<T> {
    fn value(&self, value: impl FnOnce(&T) -> Value) -> Value {
        match self {
            Self::Set(set) => value(set),
            Self::None => Value::Null,
        }
    }
}

/// A parser for flags that take `none`.
pub(crate) fn or<T: std::str::FromStr>(text: &str) -> Result<Or<T>, T::Err> {
    if text == NONE { Ok(Or::None) } else { text.parse().map(Or::Set) }
}

/// `cpu=4,memory=16Gi,gpu=2`, `gpu=none`, `none`, and so on: members of an object.
pub(crate) type Members = Or<Map<String, Value>>;

fn members(text: &str, member: impl Fn(&str, &str) -> Result<Value, String>) -> Result<Members, String> {
    if text == NONE {
        return Ok(Or::None);
    }
    let mut map = Map::new();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or_else(|| format!("`{part}` is not KEY=VALUE"))?;
        let value = if value == NONE { Value::Null } else { member(key, value)? };
        map.insert(key.to_owned(), value);
    }
    Ok(Or::Set(map))
}

/// An amount of one of the resources.
fn amount(key: &str, value: &str) -> Result<Value, String> {
    let text = |error: api::quantity::QuantityError| error.to_string();
    match key {
        "cpu" => value.parse::<Cpu>().map(|cpu| json!(cpu)).map_err(text),
        "memory" => value.parse::<Memory>().map(|memory| json!(memory)).map_err(text),
        "gpu" => value.parse::<Gpus>().map(|gpus| json!(gpus)).map_err(text),
        other => Err(format!("`{other}` is not cpu, memory or gpu")),
    }
}

/// `cpu=4,memory=16Gi,gpu=2`.
pub(crate) fn amounts(text: &str) -> Result<Members, String> {
    members(text, amount)
}

/// The same and `jobs=10`.
pub(crate) fn tenant_limits(text: &str) -> Result<Members, String> {
    members(text, |key, value| match key {
        "jobs" => value.parse::<u32>().map(|jobs| json!(jobs)).map_err(|_| format!("`{value}` is not a number of jobs")),
        key => amount(key, value).map_err(|error| error.replace("is not cpu,", "is not jobs, cpu,")),
    })
}

/// `vision=2,speech=0.5`.
pub(crate) fn weights(text: &str) -> Result<Members, String> {
    members(text, |_, value| value.parse::<Weight>().map(|weight| json!(weight)).map_err(|error| error.to_string()))
}

/// A merge patch that grows.
#[derive(Default)]
pub(crate) struct Patch(Map<String, Value>);

impl Patch {
    /// Sets a field where a flag was given.
    pub(crate) fn set<T: serde::Serialize>(&mut self, field: &str, flag: Option<&T>) -> &mut Self {
        if let Some(value) = flag {
            self.0.insert(field.to_owned(), json!(value));
        }
        self
    }

    /// Sets a field, or takes it back.
    pub(crate) fn set_or<T: serde::Serialize>(&mut self, field: &str, flag: Option<&Or<T>>) -> &mut Self {
        if let Some(flag) = flag {
            self.0.insert(field.to_owned(), flag.value(|value| json!(value)));
        }
        self
    }

    /// How turns are taken: the half-life, which turns it on, and weights.
    pub(crate) fn fair_share(&mut self, half_life: Option<&Or<Duration>>, weights: Option<&Members>) -> &mut Self {
        let mut fair = Map::new();
        match half_life {
            Some(Or::None) => {
                self.0.insert("fairShare".to_owned(), Value::Null);
                return self;
            }
            Some(Or::Set(half_life)) => drop(fair.insert("halfLife".to_owned(), json!(half_life))),
            None => {}
        }
        if let Some(weights) = weights {
            fair.insert("weights".to_owned(), weights.value(|map| Value::Object(map.clone())));
        }
        if !fair.is_empty() {
            self.0.insert("fairShare".to_owned(), Value::Object(fair));
        }
        self
    }

    /// The patch.
    pub(crate) fn body(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// What it makes of nothing: the spec of something new.
    pub(crate) fn fresh(&self) -> Value {
        without_nulls(self.body())
    }
}

/// A value without what is null in it.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            map.into_iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key, without_nulls(value))).collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn flags_become_a_patch() {
        let mut patch = Patch::default();
        let limit = amounts("cpu=10,gpu=4,memory=none").unwrap();
        patch.set("weight", Some(&"2".parse::<Weight>().unwrap())).set_or("limit", Some(&limit));
        patch.set_or("maxConcurrent", Some(&or::<u32>("none").unwrap())).set::<u32>("priority", None);
        patch.fair_share(Some(&or("7d").unwrap()), Some(&weights("a=1,b=2.5").unwrap()));
        let body = json!({"weight": 2, "limit": {"cpu": "10", "gpu": "4", "memory": null}, "maxConcurrent": null,
            "fairShare": {"halfLife": "7d", "weights": {"a": 1, "b": 2.5}}});
        assert_eq!(patch.body(), body);
        let fresh = json!({"weight": 2, "limit": {"cpu": "10", "gpu": "4"}, "fairShare": {"halfLife": "7d", "weights": {"a": 1, "b": 2.5}}});
        assert_eq!(patch.fresh(), fresh);
        let mut off = Patch::default();
        off.fair_share(Some(&Or::None), None);
        assert_eq!(off.body(), json!({"fairShare": null}));
        assert_eq!(tenant_limits("jobs=3,gpu=1").unwrap(), Or::Set(json!({"jobs": 3, "gpu": "1"}).as_object().unwrap().clone()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (error, said) in [
            (amounts("4").unwrap_err(), "`4` is not KEY=VALUE"),
            (amounts("cpus=4").unwrap_err(), "`cpus` is not cpu, memory or gpu"),
            (amounts("cpu=lots").unwrap_err(), "not an amount of CPU"),
            (tenant_limits("jobs=-1").unwrap_err(), "not a number of jobs"),
            (tenant_limits("job=1").unwrap_err(), "`job` is not jobs, cpu, memory or gpu"),
            (weights("a=0").unwrap_err(), "`0` is not a weight"),
        ] {
            assert!(error.contains(said), "{error}");
        }
    }
}
