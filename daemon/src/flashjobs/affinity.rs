//! Required node affinity of pods as expressions over labels, which the core knows.
//!
//! What must hold: no node is ruled out that the affinity allows. What cannot be said in expressions is looked at when the pod is bound.

use api::{NodeExpression, Operator};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use crate::http::admission::VALUES;

/// What required node affinity asks of labels, as far as all of it has to hold: one term whole; of several, which are alternatives, what each of
/// them asks, and of a label that each of them wants among some values, that it is among any of these. The rest is looked at when the pod is bound.
pub(super) fn expressions(pod: &PodSpec) -> Vec<NodeExpression> {
    let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let terms = required.map(|required| required.node_selector_terms.as_slice()).unwrap_or_default();
    // One that asks for nothing matches nothing.
    let asks = |term: &&NodeSelectorTerm| {
        [term.match_expressions.as_ref().map(Vec::len), term.match_fields.as_ref().map(Vec::len)].iter().flatten().sum::<usize>()
            > 0
    };
    let mut terms = terms.iter().filter(asks).map(|term| term.match_expressions.iter().flatten().filter_map(expression));
    let first: Vec<NodeExpression> = terms.next().into_iter().flatten().collect();
    terms.fold(first, |common, term| {
        let term: Vec<NodeExpression> = term.collect();
        common.into_iter().filter_map(|asked| either(asked, &term)).collect()
    })
}

/// What holds of a node of which this holds, or all of those.
fn either(mut one: NodeExpression, those: &[NodeExpression]) -> Option<NodeExpression> {
    if those.contains(&one) {
        return Some(one);
    }
    let other =
        those.iter().find(|other| (other.operator, one.operator) == (Operator::In, Operator::In) && other.key == one.key)?;
    one.values.extend(other.values.iter().cloned());
    one.values.sort_unstable();
    one.values.dedup();
    // More than can be asked for is looked at later, instead of being refused.
    Some(one).filter(|one| one.values.len() <= VALUES)
}

fn expression(need: &NodeSelectorRequirement) -> Option<NodeExpression> {
    let operator = match need.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Gt,
        "Lt" => Operator::Lt,
        _ => return None,
    };
    Some(NodeExpression { key: need.key.clone(), operator, values: need.values.clone().unwrap_or_default() })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What is asked by these terms.
    fn asked(terms: Value) -> Vec<String> {
        let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        let pod = serde_json::from_value(json!({"containers": [], "affinity": affinity})).unwrap();
        let said = |one: &NodeExpression| format!("{} {} {}", one.key, one.operator.name(), one.values.join("|"));
        expressions(&pod).iter().map(said).collect()
    }

    fn labels(expressions: &[(&str, &str, &[&str])]) -> Value {
        let one = |(key, operator, values): &(&str, &str, &[&str])| json!({"key": key, "operator": operator, "values": values});
        json!({"matchExpressions": expressions.iter().map(one).collect::<Vec<_>>()})
    }

    fn node(name: &str) -> Value {
        json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]})
    }

    #[test]
    fn one_term_holds_as_it_is() {
        let term = labels(&[
            ("zone", "In", &["a", "b"]),
            ("old", "DoesNotExist", &[]),
            ("memory", "Gt", &["40000"]),
            ("rack", "Lt", &["7"]),
        ]);
        assert_eq!(asked(json!([term])), ["zone In a|b", "old DoesNotExist ", "memory Gt 40000", "rack Lt 7"]);
        assert_eq!(asked(json!([labels(&[])])), [] as [&str; 0]);
        // A term that asks for nothing is no alternative: it matches nothing.
        assert_eq!(asked(json!([labels(&[("zone", "In", &["a"])]), labels(&[]), {}])), ["zone In a"]);
    }

    #[test]
    fn of_alternatives_what_holds_in_all_is_asked() {
        let (a, b) = (("zone", "In", &["a"][..]), ("zone", "In", &["b", "a"][..]));
        let gpus = ("gpus", "Exists", &[][..]);
        assert_eq!(asked(json!([labels(&[a, gpus]), labels(&[gpus, b])])), ["zone In a|b", "gpus Exists "]);
        assert_eq!(asked(json!([labels(&[a, gpus]), labels(&[b]), labels(&[a])])), ["zone In a|b"]);
        assert_eq!(asked(json!([labels(&[a]), labels(&[gpus])])), [] as [&str; 0]);
        assert_eq!(
            asked(json!([labels(&[a]), labels(&[("zone", "NotIn", &["b"])])])),
            [] as [&str; 0],
            "one is no other's narrower"
        );
        for terms in [json!([labels(&[a]), node("n")]), json!([node("n"), labels(&[a])]), json!([node("n")])] {
            assert_eq!(asked(terms), [] as [&str; 0], "by name it may be anywhere");
        }
        let many = |letter: &str| (0..40).map(|number| format!("{letter}{number}")).collect::<Vec<_>>();
        let term = |letter: &str| json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": many(letter)}]});
        assert_eq!(asked(json!([term("a"), term("b")])), [] as [&str; 0], "more than can be asked for");
    }
}
