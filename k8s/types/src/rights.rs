//! What the daemon may do in a cluster, as the manifests give it: there is no second list.

use serde::Deserialize;

/// The manifest that gives them.
const ACCOUNT: &str = include_str!("../../base/account.yaml");

/// One thing that the daemon does in a cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Right {
    /// API group; empty for the core one.
    pub group: String,
    /// Plural name of the kind, as `pods`.
    pub resource: String,
    /// Its part, as `status`.
    pub subresource: Option<String>,
    /// What is done, as `patch`.
    pub verb: String,
    /// In all namespaces; else only in the one that the daemon's Lease is in.
    pub everywhere: bool,
}

/// As kubectl writes it: `patch pods/status`, `get leases.coordination.k8s.io`.
impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        self.subresource.iter().try_for_each(|part| write!(f, "/{part}"))
    }
}

/// Of a document, what is of interest here.
#[derive(Deserialize)]
struct Document {
    kind: String,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// All of them, in the order of the manifest.
///
/// # Errors
/// The manifest cannot be read, which is a fault of ours.
pub fn rights() -> Result<Vec<Right>, serde_saphyr::Error> {
    let documents: Vec<Document> = serde_saphyr::from_multiple(ACCOUNT)?;
    let mut rights = Vec::new();
    for document in documents {
        let everywhere = document.kind == "ClusterRole";
        for rule in document.rules {
            for (group, resource) in rule.api_groups.iter().flat_map(|group| rule.resources.iter().map(move |one| (group, one))) {
                let (name, part) = resource.split_once('/').map_or((resource.as_str(), None), |(name, part)| (name, Some(part)));
                rights.extend(rule.verbs.iter().map(|verb| Right {
                    group: group.clone(),
                    resource: name.to_owned(),
                    subresource: part.map(str::to_owned),
                    verb: verb.clone(),
                    everywhere,
                }));
            }
        }
    }
    Ok(rights)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn rights_are_those_of_the_manifest() {
        let rights = rights().unwrap();
        let said: Vec<String> = rights.iter().map(ToString::to_string).collect();
        for one in ["delete jobs.batch", "create pods/binding", "patch flashjobs.scheduling.flash-sched.io/status", "watch nodes"]
        {
            assert!(said.iter().any(|said| said == one), "{one}: {said:?}");
        }
        let near: Vec<String> = rights.iter().filter(|right| !right.everywhere).map(ToString::to_string).collect();
        let leases = ["get leases.coordination.k8s.io", "create leases.coordination.k8s.io", "update leases.coordination.k8s.io"];
        assert_eq!(near, leases);
        assert_eq!(said.len(), ACCOUNT.lines().filter_map(verbs).sum::<usize>(), "none is overlooked");
    }

    /// How many verbs this line names; each rule of ours has one group and one resource.
    fn verbs(line: &str) -> Option<usize> {
        Some(line.trim().strip_prefix("verbs: [")?.split(',').count())
    }
}
