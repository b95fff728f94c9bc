//! Whether a cluster has what the daemon needs, looked at once, for whoever sets one up. Nothing is changed.
//!
//! Each question is asked as the daemon would ask it, and what is wrong is told in its words, with the command that mends it. Each ends in time.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_types::{GROUP, Right, VERSION, rights};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;

use super::error::{Meaning, meaning, said};

pub use super::error::INSTALL;

/// How long the API server may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Rights that are asked for at once.
const AT_ONCE: usize = 8;

async fn asked<T>(answer: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    match timeout(ANSWER, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(kube::Error::Service(format!("no answer within {} s", ANSWER.as_secs()).into())),
    }
}

/// The version of the cluster's API server.
///
/// # Errors
/// It does not answer, or not us; why.
pub async fn version(client: &Client) -> Result<String, String> {
    let version = asked(client.apiserver_version()).await.map_err(|error| said(&error))?;
    Ok(version.git_version)
}

/// The rights that the manifests give and that we have not, of all of them. Those of one namespace are those of `namespace`.
///
/// # Errors
/// They could not be asked for; why.
pub async fn lacking(client: &Client, namespace: &str) -> Result<(Vec<Right>, usize), String> {
    let all = rights().map_err(|error| format!("the manifest that gives rights cannot be read: {error}"))?;
    let count = all.len();
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let may = |right: Right| {
        let api = api.clone();
        let attributes = ResourceAttributes {
            group: Some(right.group.clone()),
            resource: Some(right.resource.clone()),
            subresource: right.subresource.clone(),
            verb: Some(right.verb.clone()),
            namespace: (!right.everywhere).then(|| namespace.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec =
            SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        async move {
            let answer = asked(api.create(&PostParams::default(), &review)).await?;
            Ok::<_, kube::Error>((right, answer.status.is_some_and(|status| status.allowed)))
        }
    };
    let answers: Vec<(Right, bool)> =
        stream::iter(all).map(may).buffered(AT_ONCE).try_collect().await.map_err(|error| said(&error))?;
    Ok((answers.into_iter().filter(|(_, allowed)| !allowed).map(|(right, _)| right).collect(), count))
}

/// Whether the cluster knows FlashJobs and queues; the version that it serves.
///
/// # Errors
/// It does not; why, and what mends it.
pub async fn kinds(client: &Client) -> Result<String, String> {
    let version = format!("{GROUP}/{VERSION}");
    let absent = |what: &str| format!("the cluster does not know {what} of {version}; `{INSTALL}` installs what is needed");
    let served = match asked(client.list_api_group_resources(&version)).await {
        Ok(served) => served,
        Err(error) if meaning(&error) == Meaning::Missing => return Err(absent("FlashJobs")),
        Err(error) => return Err(said(&error)),
    };
    let missing = ["flashjobs", "flashjobs/status", "clusterresourcequeues", "clusterresourcequeues/status"]
        .into_iter()
        .find(|name| !served.resources.iter().any(|resource| resource.name == *name));
    missing.map_or(Ok(version.clone()), |name| Err(absent(name)))
}

/// Who gives orders now, by this Lease; `None` where nobody does and we might.
///
/// # Errors
/// It cannot be read, or could not be made; why, and what mends it.
pub async fn leads(client: &Client, namespace: &str, name: &str) -> Result<Option<String>, String> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let words = |error: kube::Error| super::lease::words(namespace, &error);
    if let Some(lease) = asked(api.get_opt(name)).await.map_err(words)? {
        return Ok(lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()));
    }
    let lease = Lease { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, spec: None };
    let tried = PostParams { dry_run: true, ..PostParams::default() };
    match asked(api.create(&tried, &lease)).await {
        Ok(_) => Ok(None),
        // Somebody was faster.
        Err(error) if meaning(&error) == Meaning::Exists => Ok(None),
        Err(error) => Err(words(error)),
    }
}
