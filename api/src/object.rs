//! Objects on the wire are objects. What is derived would take an array too, with the fields in their order: then a field is not
//! refused by its name, and one that is added shifts the others.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// A value that is read from an object and from nothing else.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// For a field that may be an object.
pub(crate) fn optional<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|object| object.0))
}

/// For a field that is an object where it is there; null is the default.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    optional(deserializer).map(Option::unwrap_or_default)
}

/// For a list of objects.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Vec::<Object<T>>::deserialize(deserializer)?.into_iter().map(|object| object.0).collect())
}

/// For a field that may be a list of objects.
pub(crate) fn some_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Vec<T>>, D::Error> {
    let list = Option::<Vec<Object<T>>>::deserialize(deserializer)?;
    Ok(list.map(|list| list.into_iter().map(|object| object.0).collect()))
}

/// For a field that may be a list of lists of objects.
pub(crate) fn some_lists<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Vec<T>>>, D::Error> {
    let lists = Option::<Vec<Vec<Object<T>>>>::deserialize(deserializer)?;
    let plain = |list: Vec<Object<T>>| list.into_iter().map(|object| object.0).collect();
    Ok(lists.map(|lists| lists.into_iter().map(plain).collect()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use crate::{JobBatch, JobSpec};

    #[test]
    fn an_array_is_no_object() {
        for text in [
            r#"{"resources": ["1"]}"#,
            r#"{"resources": []}"#,
            r#"{"retry": [3]}"#,
            r#"{"stop": ["SIGINT"]}"#,
            r#"{"tasks": [["a"]]}"#,
            r#"{"nodeTerms": [[["a", "Exists"]]]}"#,
            r#"{"tasks": [{"resources": []}]}"#,
        ] {
            let error = serde_json::from_str::<JobSpec>(text).unwrap_err();
            assert!(error.to_string().contains("expected an object"), "{text}: {error}");
        }
        assert!(serde_json::from_str::<JobBatch>(r#"{"jobs": [[]]}"#).is_err());
        let spec: JobSpec = serde_json::from_str(r#"{"resources": null, "retry": {"maxAttempts": 2}, "tasks": [{}]}"#).unwrap();
        assert_eq!((spec.resources, spec.tasks.len()), (None, 1));
        assert_eq!(spec.retry.unwrap().max_attempts, Some(2));
    }
}
