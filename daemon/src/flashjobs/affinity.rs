//! Required node affinity of pods, as a job says it. All of it is known before anything is bound: a gang that is placed where its pods may not go
//! would be placed there again and again.

use api::{NodeExpression, Operator};
use executors::kubernetes::nodes::is_of_books;
use executors::node::HOSTNAME;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, PodSpec};

/// What it asks of nodes: what all have to satisfy, and alternatives.
#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Affinity {
    pub(super) expressions: Vec<NodeExpression>,
    pub(super) terms: Vec<Vec<NodeExpression>>,
}

/// What required node affinity asks of nodes; the path in errors is that of the pod.
pub(super) fn affinity(path: &str, pod: &PodSpec) -> Result<Affinity, String> {
    let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    let Some(required) = required else { return Ok(Affinity::default()) };
    let path = format!("{path}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    let mut terms = Vec::with_capacity(required.node_selector_terms.len());
    for (at, term) in required.node_selector_terms.iter().enumerate() {
        let labels = term.match_expressions.iter().flatten().map(|need| {
            of_the_cluster(&need.key)?;
            expression(need, need.key.clone())
        });
        let fields = term.match_fields.iter().flatten().map(|need| match need.key.as_str() {
            "metadata.name" => expression(need, HOSTNAME.to_owned()),
            other => Err(format!("the field `{}` is not known: write metadata.name", other.escape_debug())),
        });
        let asked: Vec<NodeExpression> =
            labels.chain(fields).collect::<Result<_, _>>().map_err(|wrong| format!("{path}[{at}]: {wrong}"))?;
        // One that asks for nothing matches nothing.
        if !asked.is_empty() {
            terms.push(asked);
        }
    }
    match terms.len() {
        0 => Err(format!("{path} ask for nothing, and match no node: write matchExpressions, or leave the affinity out")),
        1 => Ok(Affinity { expressions: terms.remove(0), terms }),
        _ => Ok(Affinity { expressions: Vec::new(), terms }),
    }
}

fn expression(need: &NodeSelectorRequirement, key: String) -> Result<NodeExpression, String> {
    let Some(operator) = Operator::ALL.into_iter().find(|operator| operator.name() == need.operator) else {
        let all = Operator::ALL.map(Operator::name).join(", ");
        return Err(format!("`{}` is no operator: write one of {all}", need.operator.escape_debug()));
    };
    Ok(NodeExpression { key, operator, values: need.values.clone().unwrap_or_default() })
}

/// Kubelets look at labels, too: pods that ask for what only our books have would be placed and refused again and again.
pub(super) fn of_the_cluster(label: &str) -> Result<(), String> {
    if is_of_books(label) {
        let rule = "write one that `kubectl get nodes --show-labels` shows, as kubernetes.io/hostname";
        return Err(format!("`{label}` is a label of flash-sched's own, which nodes do not have in the cluster: {rule}"));
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// What is asked by these terms: what all nodes have to satisfy, then alternatives.
    fn asked(terms: Value) -> Result<(Vec<String>, Vec<Vec<String>>), String> {
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        let pod = serde_json::from_value(json!({"containers": [], "affinity": {"nodeAffinity": required}})).unwrap();
        let said = |all: &Vec<NodeExpression>| {
            all.iter().map(|one| format!("{} {} {}", one.key, one.operator.name(), one.values.join("|"))).collect::<Vec<_>>()
        };
        affinity("spec", &pod).map(|asked| (said(&asked.expressions), asked.terms.iter().map(said).collect()))
    }

    fn labels(expressions: &[(&str, &str, &[&str])]) -> Value {
        let one = |(key, operator, values): &(&str, &str, &[&str])| json!({"key": key, "operator": operator, "values": values});
        json!({"matchExpressions": expressions.iter().map(one).collect::<Vec<_>>()})
    }

    fn field(key: &str) -> Value {
        json!({"matchFields": [{"key": key, "operator": "In", "values": ["n"]}]})
    }

    #[test]
    fn all_of_it_is_said() {
        let zone = ("zone", "In", &["a", "b"][..]);
        let one = labels(&[zone, ("old", "DoesNotExist", &[]), ("memory", "Gt", &["40000"]), ("rack", "Lt", &["7"])]);
        let said = ["zone In a|b", "old DoesNotExist ", "memory Gt 40000", "rack Lt 7"].map(str::to_owned).to_vec();
        assert_eq!(asked(json!([one])).unwrap(), (said.clone(), Vec::new()));
        // A term that asks for nothing is no alternative.
        assert_eq!(asked(json!([labels(&[]), one, {}])).unwrap(), (said, Vec::new()));
        let mut both = field("metadata.name");
        both["matchExpressions"] = labels(&[zone])["matchExpressions"].clone();
        let terms = [vec!["gpus Exists "], vec!["zone In a|b", "flash-sched.io/hostname In n"]];
        let terms = terms.map(|term| term.into_iter().map(str::to_owned).collect()).to_vec();
        assert_eq!(asked(json!([labels(&[("gpus", "Exists", &[])]), both])).unwrap(), (Vec::new(), terms));
    }

    #[test]
    fn what_cannot_be_said_is_refused_with_what_to_write() {
        for (terms, words) in [
            (json!([{}]), "nodeSelectorTerms ask for nothing"),
            (json!([labels(&[("flash-sched.io/hostname", "Exists", &[])])]), "write one that `kubectl get nodes"),
            (json!([labels(&[("has.flash-sched.io/rdma_hca", "Exists", &[])])]), "which nodes do not have in the cluster"),
            (json!([]), "leave the affinity out"),
            (
                json!([labels(&[("zone", "Like", &["a"])])]),
                "nodeSelectorTerms[0]: `Like` is no operator: write one of In, NotIn,",
            ),
            (
                json!([labels(&[("zone", "Exists", &[])]), field("spec.x")]),
                "nodeSelectorTerms[1]: the field `spec.x` is not known",
            ),
        ] {
            let error = asked(terms).unwrap_err();
            assert!(error.starts_with("spec.affinity.nodeAffinity.") && error.contains(words), "{error}");
        }
    }
}
