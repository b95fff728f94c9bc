//! Whether a node is one that a pod may go on, apart from room: readiness, taints, labels, required affinity. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration};

/// What of a node decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::kubernetes) struct Traits {
    pub(super) name: String,
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    unschedulable: bool,
    ready: bool,
}

impl Traits {
    pub(super) fn of(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            ready: conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True"),
        }
    }

    /// The name by which pods select it, which may differ from its own.
    pub(super) fn hostname(&self) -> &str {
        self.labels.get("kubernetes.io/hostname").map_or(self.name.as_str(), String::as_str)
    }

    /// Why a pod must not go here.
    pub(super) fn refuses(&self, pod: &PodSpec) -> Option<String> {
        let name = &self.name;
        if !self.ready {
            return Some(format!("node {name} is not ready"));
        }
        let tolerations = pod.tolerations.as_deref().unwrap_or_default();
        let cordon =
            Taint { key: "node.kubernetes.io/unschedulable".to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        if self.unschedulable && !tolerated(&cordon, tolerations) {
            return Some(format!("node {name} is cordoned"));
        }
        let kept = |taint: &&Taint| taint.effect != "PreferNoSchedule" && !tolerated(taint, tolerations);
        if let Some(taint) = self.taints.iter().find(kept) {
            return Some(format!("node {name} has the taint {}:{}", taint.key, taint.effect));
        }
        for (key, value) in pod.node_selector.iter().flatten() {
            if self.labels.get(key) != Some(value) {
                return Some(format!("node {name} has no label {key}={value}"));
            }
        }
        let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
        match required {
            Some(required) if !required.node_selector_terms.iter().any(|term| self.matches(term)) => {
                Some(format!("node {name} is none that its required node affinity names"))
            }
            _ => None,
        }
    }

    /// One without requirements matches nothing.
    fn matches(&self, term: &NodeSelectorTerm) -> bool {
        let labels = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        (!labels.is_empty() || !fields.is_empty())
            && labels.iter().all(|need| holds(need, self.labels.get(&need.key).map(String::as_str)))
            && fields.iter().all(|need| need.key == "metadata.name" && holds(need, Some(&self.name)))
    }
}

fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    let effect =
        |toleration: &Toleration| toleration.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == taint.effect);
    let key = |toleration: &Toleration| toleration.key.as_deref().is_none_or(|key| key.is_empty() || key == taint.key);
    let value = |toleration: &Toleration| match toleration.operator.as_deref() {
        Some("Exists") => true,
        _ => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
    };
    tolerations.iter().any(|toleration| effect(toleration) && key(toleration) && value(toleration))
}

fn holds(need: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = need.values.as_deref().unwrap_or_default();
    let among = |value: &str| values.iter().any(|one| one == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let compared = |so: fn(i64, i64) -> bool| {
        let (have, limit) = (value.and_then(number), values.first().and_then(|text| number(text)));
        have.zip(limit).is_some_and(|(have, limit)| so(have, limit))
    };
    match need.operator.as_str() {
        "In" => value.is_some_and(among),
        "NotIn" => value.is_none_or(|value| !among(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(|have, limit| have > limit),
        "Lt" => compared(|have, limit| have < limit),
        _ => false,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(spec: Value) -> Traits {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"zone": "a", "gpus": "8"}}, "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}))
        .unwrap();
        Traits::of(&node)
    }

    fn refusal(node: &Traits, pod: Value) -> String {
        let mut whole = json!({"containers": []});
        whole.as_object_mut().unwrap().extend(pod.as_object().unwrap().clone());
        node.refuses(&serde_json::from_value(whole).unwrap()).unwrap_or_default()
    }

    fn affinity(needs: Value) -> Value {
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": needs}]}}}})
    }

    #[test]
    fn a_node_that_takes_nobody_takes_nobody() {
        assert_eq!(refusal(&node(json!({})), json!({})), "");
        assert!(refusal(&Traits { ready: false, ..node(json!({})) }, json!({})).contains("not ready"));
        let cordoned = node(json!({"unschedulable": true}));
        assert!(refusal(&cordoned, json!({})).contains("cordoned"));
        assert_eq!(refusal(&cordoned, json!({"tolerations": [{"operator": "Exists"}]})), "");
    }

    #[test]
    fn taints_keep_away_whoever_does_not_tolerate_them() {
        let tainted = node(json!({"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}));
        assert!(refusal(&tainted, json!({})).contains("taint gpu:NoSchedule"));
        for (toleration, fits) in [
            (json!({"key": "gpu", "operator": "Exists"}), true),
            (json!({"key": "gpu", "value": "yes", "effect": "NoSchedule"}), true),
            (json!({"key": "gpu", "value": "no"}), false),
            (json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}), false),
            (json!({"key": "other", "operator": "Exists"}), false),
        ] {
            assert_eq!(refusal(&tainted, json!({"tolerations": [toleration]})).is_empty(), fits, "{toleration}");
        }
        assert_eq!(refusal(&node(json!({"taints": [{"key": "x", "effect": "PreferNoSchedule"}]})), json!({})), "");
    }

    #[test]
    fn selectors_and_required_affinity_are_kept() {
        let node = node(json!({}));
        assert_eq!(refusal(&node, json!({"nodeSelector": {"zone": "a"}})), "");
        assert!(refusal(&node, json!({"nodeSelector": {"zone": "b"}})).contains("no label zone=b"));
        for (need, fits) in [
            (json!({"key": "zone", "operator": "In", "values": ["b", "a"]}), true),
            (json!({"key": "zone", "operator": "NotIn", "values": ["a"]}), false),
            (json!({"key": "other", "operator": "NotIn", "values": ["a"]}), true),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "other", "operator": "DoesNotExist"}), true),
            (json!({"key": "gpus", "operator": "Gt", "values": ["4"]}), true),
            (json!({"key": "gpus", "operator": "Lt", "values": ["8"]}), false),
        ] {
            assert_eq!(refusal(&node, affinity(json!([need]))).is_empty(), fits, "{need}");
        }
        assert!(!refusal(&node, affinity(json!([]))).is_empty(), "a term that asks for nothing matches nothing");
    }
}
