//! Which nodes and GPUs a task may have, as people and Kubernetes write it.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

/// One text, or several of which any will do. What is one is written as text, what is several as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AnyOf(pub Vec<String>);

const ANY_OF: &str = "text, or a list of texts (in YAML, numbers and true or false need quotes to be text)";

impl<'de> Deserialize<'de> for AnyOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Texts;
        impl<'de> Visitor<'de> for Texts {
            type Value = AnyOf;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ANY_OF)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<AnyOf, E> {
                Ok(AnyOf(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<AnyOf, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(AnyOf)
            }
        }
        deserializer.deserialize_any(Texts)
    }
}

impl Serialize for AnyOf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            several => several.serialize(serializer),
        }
    }
}

impl utoipa::PartialSchema for AnyOf {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
        let text = || ObjectBuilder::new().schema_type(Type::String);
        OneOfBuilder::new()
            .description(Some("One text, or several of which any will do."))
            .item(text())
            .item(ArrayBuilder::new().items(text()))
            .into()
    }
}

impl ToSchema for AnyOf {}

/// Labels that a node has to have, each with this value or with one of these.
pub type NodeSelector = BTreeMap<String, AnyOf>;

/// For a field that may be a selector: what is derived would take an array of pairs too.
pub(crate) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NodeSelector>, D::Error> {
    struct Labels;
    impl<'de> Visitor<'de> for Labels {
        type Value = Option<NodeSelector>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of labels and their values, as in {\"zone\": \"a\"}")
        }
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            NodeSelector::deserialize(MapAccessDeserializer::new(map)).map(Some)
        }
    }
    deserializer.deserialize_any(Labels)
}

/// What is asked of one label of a node, as in `matchExpressions` of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeExpression {
    /// The label.
    #[schema(example = "zone")]
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what: some for `In` and `NotIn`, one whole number for `Gt` and `Lt`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum Operator {
    /// The node has the label, with one of the values.
    In,
    /// The node does not have the label, or with another value.
    NotIn,
    /// The node has the label.
    Exists,
    /// The node does not have the label.
    DoesNotExist,
    /// The label's value is a whole number, and larger.
    Gt,
    /// The label's value is a whole number, and less.
    Lt,
}

impl Operator {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::In, Self::NotIn, Self::Exists, Self::DoesNotExist, Self::Gt, Self::Lt];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
            Self::Gt => "Gt",
            Self::Lt => "Lt",
        }
    }
}

/// How the tasks of a job are laid over nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Arrangement {
    /// On as few nodes as will do, the fullest first: large holes stay open for others.
    #[default]
    Pack,
    /// Over as many nodes as there are, the emptiest first.
    Spread,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use crate::{JobSpec, TaskSpec};

    #[test]
    fn selectors_read_back_as_they_are_printed() {
        let text = r#"{"resources":{"gpu":"1","gpuModel":["A100","H100"],"gpuMemory":"40Gi"},"nodeSelector":{"disk":["nvme","ssd"],"zone":"a"},"nodeExpressions":[{"key":"old","operator":"DoesNotExist"},{"key":"rack","operator":"NotIn","values":["7"]}]}"#;
        let task: TaskSpec = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&task).unwrap(), text);
        assert_eq!(task.node_selector.unwrap()["zone"].0, ["a"]);
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for (text, said) in [
            (r#"{"nodeSelector": ["zone"]}"#, "an object of labels"),
            (r#"{"nodeSelector": "zone=a"}"#, "an object of labels"),
            (r#"{"nodeSelector": {"zone": 1}}"#, "text, or a list of texts"),
            (r#"{"nodeSelector": {"zone": null}}"#, "text, or a list of texts"),
            (r#"{"nodeSelector": {"zone": ["a", true]}}"#, "expected a string"),
            (
                r#"{"nodeExpressions": [{"key": "a", "operator": "Larger", "values": ["1"]}]}"#,
                "`In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`",
            ),
            (r#"{"nodeExpressions": [["a", "Exists"]]}"#, "an object"),
            (r#"{"resources": {"gpuModel": 4}}"#, "text, or a list of texts"),
            (r#"{"resources": {"gpuMemory": "lots"}}"#, "`lots` is not an amount of memory"),
            (r#"{"placement": "scatter"}"#, "`pack` or `spread`"),
        ] {
            let error = serde_json::from_str::<JobSpec>(text).unwrap_err();
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
        let spec: JobSpec = serde_json::from_str(r#"{"nodeSelector": null, "placement": null}"#).unwrap();
        assert_eq!(spec, JobSpec::default());
    }
}
