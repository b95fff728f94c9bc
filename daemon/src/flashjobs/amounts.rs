//! What a pod's containers ask for, and their images: whether a cluster takes such a pod, and what to write instead. Pure.
//!
//! What must hold: nothing that cannot be read counts as nothing; what the API server would refuse of it is said before a run is made of it, while
//! it can still be mended.

use std::collections::BTreeMap;

use executors::kubernetes::thousandths;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

type Amounts = BTreeMap<String, Quantity>;

/// The first thing that is wrong with the containers of the pod at `path`, with what to write.
pub(super) fn wrong(path: &str, pod: &PodSpec) -> Option<String> {
    let named = |list: &'static str, containers: &[Container]| {
        containers.iter().enumerate().find_map(|(at, container)| of_container(&format!("{path}.{list}[{at}]"), container))
    };
    named("containers", &pod.containers).or_else(|| named("initContainers", pod.init_containers.as_deref().unwrap_or_default()))
}

fn of_container(path: &str, container: &Container) -> Option<String> {
    if container.image.as_deref().unwrap_or_default().is_empty() {
        return Some(format!("{path}.image is missing: write the image that it runs"));
    }
    let resources = container.resources.as_ref()?;
    let nothing = Amounts::new();
    let [requests, limits] = [&resources.requests, &resources.limits].map(|list| list.as_ref().unwrap_or(&nothing));
    let said = [("requests", requests), ("limits", limits)];
    let unreadable = said.iter().find_map(|(list, amounts)| {
        amounts.iter().find_map(|(name, amount)| of_amount(&format!("{path}.resources.{list}.{name}"), name, amount))
    });
    unreadable.or_else(|| requests.iter().find_map(|(name, asked)| unlike_its_limit(path, name, asked, limits.get(name))))
}

fn of_amount(path: &str, name: &str, amount: &Quantity) -> Option<String> {
    let said = amount.0.escape_debug();
    match thousandths(amount) {
        None => {
            let example = if name == "memory" { "16Gi" } else { "4" };
            Some(format!("{path} is `{said}`: write an amount of 0 or more, as \"{example}\""))
        }
        Some(amount) if is_whole(name) && !amount.is_multiple_of(1_000) => {
            Some(format!("{path} is `{said}`: write a whole number; the cluster gives out no parts of these"))
        }
        Some(_) => None,
    }
}

fn unlike_its_limit(path: &str, name: &str, asked: &Quantity, limit: Option<&Quantity>) -> Option<String> {
    let said = asked.0.escape_debug();
    let most = limit.and_then(thousandths);
    match thousandths(asked)? {
        asked if is_whole(name) && most != Some(asked) => {
            Some(format!("{path}.resources.limits.{name} is not what requests say: write \"{said}\" in both, or in limits alone"))
        }
        asked if most.is_some_and(|most| asked > most) => {
            Some(format!("{path}.resources.requests.{name} is `{said}`, which is more than its limit: write that much at most"))
        }
        _ => None,
    }
}

/// What device plugins give out has a domain in its name, and comes in whole ones that are asked for by limits.
fn is_whole(name: &str) -> bool {
    name.contains('/')
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(container: Value) -> Option<String> {
        let mut whole = json!({"name": "c", "image": "img"});
        whole.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        wrong("spec", &serde_json::from_value(json!({"containers": [whole]})).unwrap())
    }

    #[test]
    fn what_a_cluster_would_refuse_is_said_with_what_to_write() {
        let requests = |amounts: Value| json!({"resources": {"requests": amounts}});
        let limits = |amounts: Value| json!({"resources": {"limits": amounts}});
        let gpu = "nvidia.com/gpu";
        for (container, words) in [
            (json!({"image": ""}), "spec.containers[0].image is missing: write the image"),
            (requests(json!({"cpu": "-1"})), "resources.requests.cpu is `-1`: write an amount of 0 or more"),
            (requests(json!({"cpu": "1e1.5"})), "resources.requests.cpu is `1e1.5`: write an amount"),
            (limits(json!({"memory": "4Gigs"})), "resources.limits.memory is `4Gigs`: write an amount of 0 or more, as \"16Gi\""),
            (limits(json!({gpu: "0.5"})), "resources.limits.nvidia.com/gpu is `0.5`: write a whole number"),
            (requests(json!({gpu: "1"})), "resources.limits.nvidia.com/gpu is not what requests say: write \"1\" in both"),
            (
                json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}}}),
                "resources.requests.cpu is `2`, which is more than its limit",
            ),
        ] {
            let said = of(container).unwrap();
            assert!(said.contains(words), "{said}");
        }
        let both = json!({"resources": {"requests": {"cpu": "500m", gpu: "2"}, "limits": {"cpu": "0.5", gpu: "2000m", "memory": "1Gi"}}});
        assert_eq!((of(both), of(json!({}))), (None, None));
    }
}
