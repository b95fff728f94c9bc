//! Assembling the run of a pod that somebody else made: it is looked at, claimed, and bound; or let go as it was.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};

use super::super::error::{Meaning, meaning};
use super::super::manifest::run_of;
use super::super::nodes::key;
use super::assemble::{Answer, Assembly, Fault};
use super::gang::{NODE, parts};
use super::lone::{claim, unclaim};
use super::verdict::{is_bound, is_terminal};
use crate::contract::StartOrder;

impl Assembly {
    /// A pod that is there already: it is made one of this run, and bound.
    pub(super) async fn take_on(&self, order: &StartOrder) -> Result<(), Fault> {
        let (pod, gang) = parts(order).map_err(Fault::Never)?;
        let (api, name) = (self.hub.pods_in(&pod.namespace), gang.flash_job.as_str());
        let Some((task, place)) = order.tasks.first().zip(gang.places.first()) else { return Ok(()) };
        let found = self
            .ask(|| async {
                match api.get_opt(name).await {
                    Ok(Some(found)) if found.uid() != gang.uid || found.metadata.deletion_timestamp.is_some() => {
                        Answer::Soon(format!("pod {name} was deleted"))
                    }
                    Ok(Some(found)) => Answer::Done(found),
                    Ok(None) => Answer::Soon(format!("pod {name} was deleted")),
                    Err(error) => self.not_taken(&error, "pod", &pod.namespace),
                }
            })
            .await?;
        if is_terminal(&found) {
            return Err(Fault::Never(format!("pod {name} has ended, and no run of this job began it")));
        }
        if is_bound(&found) && run_of(&found.metadata) != Some(self.run) {
            let node = found.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
            return Err(Fault::Never(format!("somebody else bound pod {name}, to {node}")));
        }
        let claim = claim(&found, self.run, &self.hub.instance, (task.name.as_str(), &place.node));
        let mut wanted = found;
        wanted.metadata.annotations.get_or_insert_default().insert(NODE.to_owned(), place.node.clone());
        self.listed().await?;
        // Before anything is written: what finds no room costs the API server nothing.
        self.set_aside(std::slice::from_ref(&wanted)).await?;
        let patch = Patch::Strategic(&claim);
        let claimed = self
            .ask(|| async {
                let _permit = self.hub.writes.acquire().await;
                match api.patch(name, &PatchParams::default(), &patch).await.map_err(|error| (meaning(&error), error)) {
                    Ok(claimed) => Answer::Done(claimed),
                    Err((Meaning::Missing, _)) => Answer::Soon(format!("pod {name} was deleted")),
                    // Another pod has its name.
                    Err((_, kube::Error::Api(status))) if status.code == 409 => {
                        Answer::Soon(format!("pod {name} was not taken: {}", status.message))
                    }
                    Err((_, error)) => self.not_taken(&error, "pod", &pod.namespace),
                }
            })
            .await?;
        self.bind_all(vec![claimed]).await
    }

    /// Whoever made it has it back as it was.
    pub(super) async fn let_go(&self, pod: &Pod) -> Result<(), kube::Error> {
        let (namespace, name) = key(pod);
        // The watch may show it as one of this run for a while.
        self.hub.runs().forgotten.insert(self.run);
        let _permit = self.hub.writes.acquire().await;
        let patch = Patch::Strategic(unclaim(pod));
        match self.hub.pods_in(&namespace).patch(&name, &PatchParams::default(), &patch).await {
            Err(error) if meaning(&error) != Meaning::Missing => Err(error),
            _ => Ok(()),
        }
    }
}
