//! Makes the pods of one run and binds them: all of them, or none is left.
//!
//! What must hold:
//! - Nothing is bound before all pods exist and there is room for all of them.
//! - An assembly ends with all pods bound, or with nothing of the run running and its end told. Until then nobody else acts on the run.
//! - Every step can be repeated: what is there already is looked at, and taken if it is this run's.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_types::FlashJob;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use scheduler_core::event::RunResult;
use scheduler_core::ids::RunId;
use scheduler_core::state::FailReason;
use tokio::time::Instant;

use super::super::error::{Meaning, lacks_right, meaning};
use super::super::manifest::run_of;
use super::super::nodes::requests::all_requests;
use super::super::nodes::room::Wish;
use super::super::nodes::{Key, key};
use super::super::quantity::Amounts;
use super::gang::{binding, flash_job_of, live_run, made_for, node, parts, pods, size};
use super::hub::{AT_ONCE, Cancel, Hub, now};
use super::lone::is_lone;
use super::verdict::{Known, Verdict, is_bound, is_over, verdict};
use crate::contract::{RunPhase, StartOrder};

/// How long an assembly waits for what may change by itself: room, a quota, a name that is still taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before something is tried again: doubled each time, up to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Why a gang did not come to be.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Fault {
    /// It never will, as it is.
    Never(String),
    /// It could at another time, or elsewhere.
    NotNow(String),
    /// It is to be stopped.
    Cancelled,
}

/// What an answer to a request leaves to do.
pub(super) enum Answer<T> {
    Done(T),
    /// Try again: somebody was away.
    Later,
    /// Try again, but not for long.
    Soon(String),
    Fault(Fault),
}

/// One run's.
pub(super) struct Assembly {
    pub(super) hub: Arc<Hub>,
    pub(super) run: RunId,
    pub(super) cancel: Arc<Cancel>,
}

impl Assembly {
    /// From an order.
    pub(super) async fn begin(self, order: StartOrder) {
        let outcome = self.make(&order).await;
        if let (Err(Fault::NotNow(why)), Ok((pod, gang))) = (&outcome, parts(&order))
            && !gang.lone
        {
            self.hub.board.taken_back(&(pod.namespace.clone(), gang.flash_job.clone()), why).await;
        }
        self.finish(outcome).await;
    }

    /// From the pods that an earlier executor left: goes on where all are there, which is to look once more who else is on their nodes where they are
    /// bound; else takes back what is.
    pub(super) async fn resume(self) {
        let outcome = self.go_on().await;
        self.finish(outcome).await;
    }

    async fn go_on(&self) -> Result<(), Fault> {
        self.listed().await?;
        // Read anew, now that nobody else acts on it: what was found may have been half of what is there.
        let mut found = self.found_pods().await?;
        let bound: Vec<Pod> = found.iter().filter(|pod| is_bound(pod) && !is_over(pod)).cloned().collect();
        if !bound.is_empty() {
            // What ends before the watch begins is never shown. Whatever still runs after its room is set aside will be.
            self.set_aside(&bound).await?;
            found = self.found_pods().await?;
            let runs: Vec<Key> = found.iter().filter(|pod| !is_over(pod)).map(key).collect();
            let over: Vec<Key> = bound.iter().map(key).filter(|key| !runs.contains(key)).collect();
            self.hub.give_up(&over);
        }
        let known = self.hub.runs().known(self.run);
        let refs: Vec<&Pod> = found.iter().collect();
        let all_there = found.first().is_some_and(|pod| found.len() >= size(pod));
        match verdict(&refs, &known, true, now()) {
            Verdict::Goes(_) if all_there => self.bind_all(found).await,
            // It has come about without us.
            Verdict::Over(_) if all_there => Ok(()),
            Verdict::Goes(_) | Verdict::Breaks | Verdict::Over(_) => {
                Err(Fault::NotNow("whoever made its pods was ended before all were there".to_owned()))
            }
        }
    }

    async fn found_pods(&self) -> Result<Vec<Pod>, Fault> {
        self.ask(|| async {
            // A daemon that begins may have many to look at.
            let _permit = self.hub.writes.acquire().await;
            match self.hub.pods_of("resume", self.run).await {
                Ok(pods) => Answer::Done(pods),
                Err(_) => Answer::Later,
            }
        })
        .await
    }

    async fn finish(self, outcome: Result<(), Fault>) {
        let end = match outcome {
            Ok(()) => None,
            Err(fault) => Some(self.take_back(&fault).await),
        };
        {
            // Settled before others may look, and theirs before it is told: whoever hears of it may have it forgotten at once.
            let mut runs = self.hub.runs();
            if let Some(phase) = &end {
                runs.ended.entry(self.run).or_insert_with(|| phase.clone());
            }
            runs.assembling.remove(&self.run);
        }
        if let Some(phase) = end {
            self.hub.tell_end(self.run, phase).await;
        }
        self.hub.look_at(self.run);
    }

    /// Asks until there is an answer.
    pub(super) async fn ask<T, A>(&self, mut request: impl FnMut() -> A) -> Result<T, Fault>
    where
        A: Future<Output = Answer<T>>,
    {
        let (begun, mut pause) = (Instant::now(), PAUSE.0);
        loop {
            if self.cancel.is_told() {
                return Err(Fault::Cancelled);
            }
            match request().await {
                Answer::Done(done) => return Ok(done),
                Answer::Fault(fault) => return Err(fault),
                Answer::Soon(message) if begun.elapsed() >= PATIENCE => return Err(Fault::NotNow(message)),
                Answer::Later | Answer::Soon(_) => {}
            }
            self.cancel.pause(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn make(&self, order: &StartOrder) -> Result<(), Fault> {
        let (pod, gang) = parts(order).map_err(Fault::Never)?;
        if gang.lone {
            return self.take_on(order).await;
        }
        let flash_job = self.flash_job(order).await?;
        let mut wanted = pods(order, &flash_job, &self.hub.instance).map_err(Fault::Never)?;
        self.listed().await?;
        // Before anything is written: what finds no room costs the API server nothing.
        self.set_aside(&wanted).await?;
        if let [only] = wanted.as_mut_slice() {
            self.place_at_once(only);
        }
        let api = self.hub.pods_in(&pod.namespace);
        let requests: Vec<_> = wanted.iter().map(|pod| self.create(&api, pod)).collect();
        // All outcomes are awaited: a request that is given up may still be carried out.
        let made: Vec<_> = futures::stream::iter(requests).buffered(AT_ONCE).collect().await;
        let made: Vec<Pod> = made.into_iter().collect::<Result<_, _>>()?;
        if made.iter().zip(&wanted).any(|(made, wanted)| asked(made) != asked(wanted)) {
            self.hub.grows(&pod.namespace);
        }
        self.bind_all(made).await
    }

    /// One pod is a whole gang: created where it goes it is bound by the same write. Not where admission adds to what pods ask for: what is
    /// asked for has to be known before it is bound.
    fn place_at_once(&self, pod: &mut Pod) {
        let (namespace, _) = key(pod);
        let target = node(pod).map(|called| self.hub.room.borrow().node(called).to_owned());
        if let Some(spec) = pod.spec.as_mut().filter(|_| !self.hub.has_grown(&namespace)) {
            spec.node_name = target;
        }
    }

    /// Waits until it is known what there is.
    pub(super) async fn listed(&self) -> Result<(), Fault> {
        self.ask(|| async { if self.hub.room.borrow().listed { Answer::Done(()) } else { Answer::Later } }).await
    }

    pub(super) async fn set_aside(&self, pods: &[Pod]) -> Result<(), Fault> {
        // Known of before it is done: whatever becomes of them, and whether or not they come to be, it is given back.
        self.hub.runs().aside.entry(self.run).or_default().extend(pods.iter().map(key));
        self.ask(|| async {
            let mut outcome = Ok(());
            self.hub.room.send_if_modified(|room| {
                let wish = |pod| Some(Wish { key: key(pod), node: node(pod)?, pod: pod.spec.as_ref()? });
                let wishes: Vec<Wish<'_>> = pods.iter().filter_map(wish).collect();
                outcome = room.set_aside(&wishes);
                false
            });
            match outcome {
                Ok(()) => Answer::Done(()),
                Err(why) => Answer::Soon(why),
            }
        })
        .await
    }

    /// The FlashJob that the pods will belong to.
    async fn flash_job(&self, order: &StartOrder) -> Result<FlashJob, Fault> {
        let (pod, gang) = parts(order).map_err(Fault::Never)?;
        let api: Api<FlashJob> = Api::namespaced(self.hub.client.clone(), &pod.namespace);
        let name = gang.flash_job.as_str();
        let gone = || Answer::Soon(format!("the FlashJob {name} was deleted"));
        let there = |uid| self.hub.board.get(&(pod.namespace.clone(), name.to_owned()), uid);
        if let Some(found) = gang.uid.as_deref().and_then(there) {
            return Ok(FlashJob::clone(&found));
        }
        let wanted = match &gang.uid {
            None => Some(flash_job_of(order, &self.hub.instance).map_err(Fault::Never)?),
            Some(_) => None,
        };
        self.ask(|| async {
            let Some(wanted) = &wanted else {
                return match api.get_opt(name).await {
                    Ok(Some(found)) if found.uid() == gang.uid => Answer::Done(found),
                    Ok(_) => gone(),
                    Err(error) => self.not_taken(&error, "FlashJob", &pod.namespace),
                };
            };
            let _permit = self.hub.writes.acquire().await;
            match api.create(&PostParams::default(), wanted).await.map_err(|error| (meaning(&error), error)) {
                Ok(made) => Answer::Done(made),
                Err((Meaning::Exists, _)) => match api.get_opt(name).await {
                    Ok(Some(found)) if made_for(&found) == Some(self.run.job) && found.metadata.deletion_timestamp.is_none() => {
                        Answer::Done(found)
                    }
                    // Whoever follows FlashJobs has its job cancelled.
                    Ok(Some(found)) if made_for(&found) == Some(self.run.job) => gone(),
                    Ok(Some(_)) => Answer::Soon(format!("there is another FlashJob {name} in {}", pod.namespace)),
                    Ok(None) | Err(_) => Answer::Later,
                },
                Err((_, error)) => self.not_taken(&error, "FlashJob", &pod.namespace),
            }
        })
        .await
    }

    /// What an error leaves to do that is not special to its request.
    pub(super) fn not_taken<T>(&self, error: &kube::Error, what: &str, namespace: &str) -> Answer<T> {
        match meaning(error) {
            Meaning::Refused(message) => Answer::Fault(Fault::Never(format!("the cluster refused the {what}: {message}"))),
            Meaning::Missing => {
                let detail = format!("the cluster has no namespace `{namespace}`, or does not know FlashJobs");
                let mend = format!(
                    "`kubectl create namespace {namespace}` makes one, `kubectl apply --server-side -k k8s` installs FlashJobs"
                );
                Answer::Fault(Fault::Never(format!("{detail}; {mend}")))
            }
            Meaning::Forbidden(message) => {
                if lacks_right(error) {
                    self.hub.warn(&message);
                }
                Answer::Soon(message)
            }
            Meaning::Exists | Meaning::Later(_) => Answer::Later,
        }
    }

    async fn create(&self, api: &Api<Pod>, pod: &Pod) -> Result<Pod, Fault> {
        let (namespace, name) = key(pod);
        self.ask(|| async {
            let _permit = self.hub.writes.acquire().await;
            match api.create(&PostParams::default(), pod).await.map_err(|error| (meaning(&error), error)) {
                Ok(made) => Answer::Done(made),
                Err((Meaning::Exists, _)) => match api.get_opt(&name).await {
                    Ok(Some(found)) => self.found(found, pod),
                    Ok(None) | Err(_) => Answer::Later,
                },
                Err((_, error)) => self.not_taken(&error, "pod", &namespace),
            }
        })
        .await
    }

    /// Whether a pod that is there already is the one that was to be made.
    fn found(&self, found: Pod, wanted: &Pod) -> Answer<Pod> {
        let name = found.name_any();
        let owner = |pod: &Pod| pod.metadata.owner_references.as_ref().and_then(|owners| Some(owners.first()?.uid.clone()));
        if run_of(&found.metadata) != Some(self.run) || owner(&found) != owner(wanted) {
            Answer::Soon(format!("there is another pod {name}"))
        } else if found.metadata.deletion_timestamp.is_some() {
            Answer::Fault(Fault::NotNow(format!("pod {name} was deleted")))
        } else {
            Answer::Done(found)
        }
    }

    pub(super) async fn bind_all(&self, pods: Vec<Pod>) -> Result<(), Fault> {
        self.listed().await?;
        // Once more, and of the pods as they were made: admission may have added to what they ask for. Those that are bound were set aside
        // before they were read, and the watch may have shown them; those that were over by then it may never show.
        let over: Vec<Key> = pods.iter().filter(|pod| is_over(pod)).map(key).collect();
        self.hub.give_up(&over);
        let unbound: Vec<Pod> = pods.iter().filter(|pod| !is_bound(pod)).cloned().collect();
        self.set_aside(&unbound).await?;
        let requests: Vec<_> = pods.iter().map(|pod| self.bind(pod)).collect();
        let outcomes: Vec<Result<(), Fault>> = futures::stream::iter(requests).buffer_unordered(AT_ONCE).collect().await;
        outcomes.into_iter().collect::<Result<(), Fault>>()?;
        // It cannot be bound elsewhere any more; its kubelet refuses it where somebody was quicker.
        if !pods.iter().any(is_lone) {
            self.still_alone(&pods).await?;
        }
        // Whoever told it meanwhile counts on it.
        if self.cancel.is_told() { Err(Fault::Cancelled) } else { Ok(()) }
    }

    async fn bind(&self, pod: &Pod) -> Result<(), Fault> {
        let (namespace, name) = key(pod);
        let Some(target) = node(pod).map(|called| self.hub.room.borrow().node(called).to_owned()) else {
            return Err(Fault::NotNow(format!("pod {name} does not say where it goes")));
        };
        if bound_to(pod) == Some(&target) {
            return Ok(());
        }
        let api = self.hub.pods_in(&namespace);
        let binding = binding(pod, &target);
        let params = PostParams::default();
        self.ask(|| async {
            let _permit = self.hub.writes.acquire().await;
            let bound = api.create_subresource::<_, serde_json::Value>("binding", &name, &params, &binding).await;
            let Err(error) = bound else { return Answer::Done(()) };
            match (&error, meaning(&error)) {
                (_, Meaning::Missing) => {
                    Answer::Fault(Fault::NotNow(format!("pod {name} was deleted, or node {target} is gone")))
                }
                // Who is placed anew at once, and refused at once, would be a busy loop.
                (_, Meaning::Refused(message)) => Answer::Soon(format!("pod {name} was not bound: {message}")),
                (kube::Error::Api(status), _) if status.code == 409 => match api.get_opt(&name).await {
                    Ok(Some(found)) => bound_where(&found, &target),
                    Ok(None) => Answer::Fault(Fault::NotNow(format!("pod {name} was deleted"))),
                    Err(_) => Answer::Later,
                },
                _ => self.not_taken(&error, "binding", &namespace),
            }
        })
        .await
    }

    /// Others bind pods as well. The watch tells in the order in which things were written: once it has shown our pods, or all that there are
    /// after them, it has shown all that was bound before them. While it is away nobody knows of the others, and this waits.
    async fn still_alone(&self, pods: &[Pod]) -> Result<(), Fault> {
        let keys: Vec<Key> = pods.iter().map(key).collect();
        let mut room = self.hub.room.subscribe();
        let lists = room.borrow().lists_begun;
        let mut told = self.cancel.told.subscribe();
        let room = tokio::select! {
            room = room.wait_for(|room| room.has_shown(&keys, lists)) => room,
            // Both ends are ours: the channels do not close.
            _ = told.wait_for(|told| *told) => return Err(Fault::Cancelled),
        };
        let Ok(room) = room else { return Ok(()) };
        let mut placed = pods.iter().filter_map(|pod| Some((room.node(node(pod)?), pod.spec.as_ref()?)));
        match placed.find_map(|(node, spec)| room.lacks(node, spec)) {
            Some(lack) => Err(Fault::NotNow(lack)),
            None => Ok(()),
        }
    }

    /// Deletes whatever there is of the run, and waits until nothing of it can run any more.
    async fn take_back(&self, fault: &Fault) -> RunPhase {
        let message = match fault {
            Fault::Never(message) | Fault::NotNow(message) => message.clone(),
            Fault::Cancelled => "it was stopped before it had begun".to_owned(),
        };
        if *fault == Fault::Cancelled {
            self.hub.stopped(self.run);
        }
        self.hub.broken(self.run, &message);
        let selector = live_run(&self.hub.instance, self.run);
        let mut pause = PAUSE.0 / 2;
        // What somebody else made is deleted only where that is how it is stopped.
        let goes = |pod: &Pod| is_lone(pod) && (!is_bound(pod) || (*fault != Fault::Cancelled && !is_over(pod)));
        let left = loop {
            match self.hub.list("take back", &selector).await {
                Ok(pods) if pods.iter().all(|pod| is_over(pod) && !goes(pod)) => break pods,
                Ok(pods) if pods.iter().any(goes) => {
                    for pod in pods.iter().filter(|pod| goes(pod)) {
                        if let Err(error) = self.let_go(pod).await {
                            tracing::warn!(run = %self.run, %error, "letting a pod go; trying again");
                        }
                    }
                }
                Ok(pods) => {
                    if let Err(error) = self.hub.delete("take back", &pods, None).await {
                        tracing::warn!(run = %self.run, %error, "taking a gang back; trying again");
                    }
                }
                Err(error) => tracing::warn!(run = %self.run, %error, "taking a gang back; trying again"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        };
        self.hub.give_up_all(self.run);
        let at = now();
        if left.is_empty() {
            self.hub.runs().unmade.insert(self.run);
        }
        let known: Known = self.hub.runs().known(self.run);
        let refs: Vec<&Pod> = left.iter().collect();
        match (fault, verdict(&refs, &known, false, at)) {
            (Fault::Never(_), _) => {
                let result = RunResult::Failed { reason: FailReason::Start { message: message.into() } };
                RunPhase::Ended { result, started_at: None, at }
            }
            (_, Verdict::Over(phase)) => phase,
            (_, Verdict::Goes(_) | Verdict::Breaks) => RunPhase::NotBegun { message, at },
        }
    }
}

/// The node that a pod is bound to.
fn bound_to(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|node| !node.is_empty())
}

fn asked(pod: &Pod) -> Option<Amounts> {
    pod.spec.as_ref().map(all_requests)
}

/// Of a pod that somebody has bound, or that cannot be bound.
fn bound_where(pod: &Pod, target: &str) -> Answer<()> {
    let name = pod.name_any();
    match bound_to(pod) {
        Some(node) if node == target => Answer::Done(()),
        Some(node) => Answer::Fault(Fault::NotNow(format!("somebody else bound pod {name}, to {node} instead of {target}"))),
        None if pod.metadata.deletion_timestamp.is_some() => Answer::Fault(Fault::NotNow(format!("pod {name} was deleted"))),
        None => Answer::Later,
    }
}
