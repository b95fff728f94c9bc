//! What a pod asks of its node, as schedulers count it. Pure.

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::super::quantity::{Amounts, add, amounts};
use super::{GpuResource, NodeAmounts};

/// What a pod asks for, as the core counts it. Its other resources are looked at when it is bound.
pub fn requests(pod: &PodSpec) -> NodeAmounts {
    of(&all_requests(pod), u128::div_ceil)
}

/// What a pod asks for that the core does not count, and that not every node has: what other device plugins give out.
pub fn uncounted(pod: &PodSpec) -> impl Iterator<Item = String> {
    all_requests(pod).into_iter().filter(|(resource, amount)| *amount > 0 && is_uncounted(resource)).map(|(resource, _)| resource)
}

/// Names of what device plugins give out have a domain.
pub(super) fn is_uncounted(resource: &str) -> bool {
    resource.contains('/') && GpuResource::called(resource).is_none()
}

/// What a pod takes of its node: what it asks for, and its own place among the pods there.
pub(super) fn takes(pod: &PodSpec) -> Amounts {
    let mut all = all_requests(pod);
    all.insert("pods".to_owned(), 1_000);
    all
}

/// What a pod asks for while it runs: its containers and those that run beside them, or what one that runs before them needs if that is more.
pub(in crate::kubernetes) fn all_requests(pod: &PodSpec) -> Amounts {
    let mut running = Amounts::new();
    pod.containers.iter().for_each(|container| add(&mut running, &asked(container)));
    let (mut beside, mut most) = (Amounts::new(), Amounts::new());
    for container in pod.init_containers.iter().flatten() {
        let mut needs = beside.clone();
        add(&mut needs, &asked(container));
        raise(&mut most, &needs);
        // Such a container starts before the others and stays.
        if container.restart_policy.as_deref() == Some("Always") {
            beside = needs;
        }
    }
    add(&mut running, &beside);
    raise(&mut running, &most);
    if let Some(whole) = &pod.resources {
        running.extend(whole.limits.as_ref().map(amounts).unwrap_or_default());
        running.extend(whole.requests.as_ref().map(amounts).unwrap_or_default());
    }
    if let Some(overhead) = &pod.overhead {
        add(&mut running, &amounts(overhead));
    }
    running
}

/// The amounts that we count; memory and GPUs in whole units, as `round` makes them.
pub(super) fn of(amounts: &Amounts, round: fn(u128, u128) -> u128) -> NodeAmounts {
    let amount = |key: &str| amounts.get(key).copied().unwrap_or(0);
    let gpus = |amount: u128| u32::try_from(round(amount, 1_000)).unwrap_or(u32::MAX);
    NodeAmounts {
        cpu_millis: u64::try_from(amount("cpu")).unwrap_or(u64::MAX),
        memory_bytes: u64::try_from(round(amount("memory"), 1_000)).unwrap_or(u64::MAX),
        gpus: amounts.iter().filter_map(|(key, amount)| Some((GpuResource::called(key)?, gpus(*amount)))).collect(),
    }
}

/// Where only a limit is said, that much is asked for.
fn asked(container: &Container) -> Amounts {
    let resources = container.resources.as_ref();
    let mut asked = resources.and_then(|resources| resources.limits.as_ref()).map(amounts).unwrap_or_default();
    asked.extend(resources.and_then(|resources| resources.requests.as_ref()).map(amounts).unwrap_or_default());
    asked
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (key, amount) in other {
        let most = most.entry(key.clone()).or_default();
        *most = (*most).max(*amount);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::super::GpuCounts;
    use super::*;

    fn asks(more: Value) -> NodeAmounts {
        let mut pod = json!({"containers": [{"name": "c", "resources": {
            "limits": {"nvidia.com/gpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1500m"}}}]});
        pod.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        requests(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_pod_asks_for_the_most_that_it_needs_at_once() {
        assert_eq!(asks(json!({})), NodeAmounts { cpu_millis: 1_500, memory_bytes: 1 << 30, gpus: GpuCounts::whole(2) });
        let container = |name: &str, cpu: &str, policy: Option<&str>| json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
        let large = json!({"initContainers": [container("first", "3", None)]});
        assert_eq!(asks(large).cpu_millis, 3_000);
        let small = json!({"initContainers": [container("first", "1", None)]});
        assert_eq!(asks(small).cpu_millis, 1_500);
        let beside = json!({"initContainers": [container("mesh", "1", Some("Always")), container("first", "2", None)]});
        assert_eq!(asks(beside).cpu_millis, 3_000, "the mesh is there while the first runs, and with the task it is less");
        let stays = json!({"initContainers": [container("mesh", "2", Some("Always"))]});
        assert_eq!(asks(stays).cpu_millis, 3_500);
        assert_eq!(asks(json!({"overhead": {"cpu": "250m", "memory": "1"}})).memory_bytes, (1 << 30) + 1);
        assert_eq!(asks(json!({"resources": {"requests": {"cpu": "6"}}})).cpu_millis, 6_000);
    }

    #[test]
    fn what_other_plugins_give_out_is_told_by_name() {
        let limits = json!({"nvidia.com/gpu.shared": "1", "nvidia.com/mig-1g.10gb": "1", "nvidia.com/mig-1g.10gb.shared": "1", "rdma/hca": "0", "hugepages-2Mi": "4Mi",
            "ephemeral-storage": "1Gi"});
        let pod = json!({"containers": [{"name": "c", "resources": {"limits": limits}}]});
        let asked: Vec<String> = uncounted(&serde_json::from_value(pod).unwrap()).collect();
        assert_eq!(asked, ["nvidia.com/mig-1g.10gb.shared"]);
    }

    #[test]
    fn mig_instances_are_counted_by_profile_and_parts_of_gpus_by_themselves() {
        let container = |name: &str, limits: Value| json!({"name": name, "resources": {"limits": limits}});
        let some = |limits: Value| asks(json!({"containers": [container("a", limits), container("b", json!({}))]})).gpus;
        let mig = |profile: &str| GpuResource::Mig(profile.to_owned());
        let found = some(json!({"nvidia.com/mig-1g.10gb": "2", "nvidia.com/mig-3g.40gb": "0", "nvidia.com/gpu.shared": "1"}));
        assert_eq!(found, [(mig("1g.10gb"), 2), (GpuResource::Shared, 1)].into_iter().collect());
        let twice = json!({"containers": [container("a", json!({"nvidia.com/mig-1g.10gb": "2"})),
            container("b", json!({"nvidia.com/mig-1g.10gb": "1", "nvidia.com/gpu": "1"}))]});
        assert_eq!(asks(twice).gpus, [(mig("1g.10gb"), 3), (GpuResource::Whole, 1)].into_iter().collect());
    }
}
