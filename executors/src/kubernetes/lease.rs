//! Who of several may give orders to the cluster: the holder of a Lease.
//!
//! What must hold:
//! - A Lease is taken when it was let go, or when it was seen unchanged for as long as its holder said, by our own clock alone. Each time it is
//!   taken its term (`leaseTransitions`) grows.
//! - A term never goes backwards, whoever deletes the Lease or writes into it: what was the largest is kept elsewhere too ([`Terms`]), and a term
//!   is written down there before an order is given under it.
//! - Whoever holds it acts until two thirds of its time have gone by since the *start* of the last renewal that was answered; nobody else can have
//!   it before all of it has. That clock runs on while the process is stopped and while the machine sleeps.
//! - Each write names the version that it is based on: of two that take it at once one is refused.
//! - Who finds that another has it after he had it is done for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::{Meaning, meaning, said};

/// Remembers the largest term where a Lease that is deleted, or a cluster that is made anew, does not take it along.
#[async_trait]
pub trait Terms: Send + Sync {
    /// The largest that is known of.
    fn latest(&self) -> u64;

    /// A term begins: durable when this returns.
    ///
    /// # Errors
    /// It could not be written down; why.
    async fn begin(&self, term: u64) -> Result<(), String>;
}

/// What a Lease is held with.
pub struct LeaseOptions {
    /// The cluster, and who we are there.
    pub client: Client,
    /// Where the Lease is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who we are: nobody else may be called so, also no later process.
    pub holder: String,
    /// How long it holds without being renewed; whole seconds, at least 3.
    pub duration: Duration,
    /// Where terms are remembered.
    pub terms: Arc<dyn Terms>,
}

/// How things stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LeaseState {
    /// Not held, and why not.
    Waiting(String),
    /// Held.
    Held {
        /// Grows whenever the Lease changes hands.
        term: u32,
    },
}

/// Whether orders may be given.
#[derive(Clone, Debug)]
pub struct Leadership {
    state: watch::Receiver<LeaseState>,
    until: Arc<AtomicU64>,
}

impl Leadership {
    /// # Errors
    /// They may not, and why.
    pub fn check(&self) -> Result<(), String> {
        let state = self.state.borrow();
        match &*state {
            LeaseState::Waiting(why) => Err(why.clone()),
            LeaseState::Held { .. } if now() < self.until.load(Ordering::Acquire) => Ok(()),
            LeaseState::Held { .. } => Err("the Lease could not be renewed in time".to_owned()),
        }
    }

    /// How things stand, now and from now on. A Lease that is held by this may have run out: [`Self::check`] knows.
    pub fn states(&self) -> watch::Receiver<LeaseState> {
        self.state.clone()
    }
}

/// Gets the Lease and keeps it.
pub struct LeaseKeeper {
    api: Api<Lease>,
    options: LeaseOptions,
    state: watch::Sender<LeaseState>,
    until: Arc<AtomicU64>,
    /// The term, once it was ours.
    term: Option<u32>,
    /// The version that somebody else holds, and since when it has been that.
    seen: Option<(String, u64)>,
}

/// What an attempt has shown.
enum Found {
    Ours { term: u32 },
    Others { holder: String },
}

/// Microseconds since the machine was started, with the time that it slept.
fn now() -> u64 {
    let at = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(at.tv_sec).unwrap_or(0), u64::try_from(at.tv_nsec).unwrap_or(0));
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1_000)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl LeaseKeeper {
    /// Asks nobody yet.
    pub fn new(mut options: LeaseOptions) -> (Self, Leadership) {
        options.duration = Duration::from_secs(options.duration.as_secs().max(3));
        let (state, states) = watch::channel(LeaseState::Waiting("the Lease has not been looked at yet".to_owned()));
        let until = Arc::new(AtomicU64::new(0));
        let api = Api::namespaced(options.client.clone(), &options.namespace);
        let leadership = Leadership { state: states, until: Arc::clone(&until) };
        (Self { api, options, state, until, term: None, seen: None }, leadership)
    }

    /// Gets it, however long that takes, and keeps it, until another has it; who that is.
    pub async fn run(&mut self) -> String {
        let lease = format!("{}/{}", self.options.namespace, self.options.name);
        let patience = self.options.duration / 3;
        loop {
            let begun = now();
            match timeout(patience, self.attempt()).await {
                Ok(Ok(Found::Ours { term })) => {
                    let until = begun + micros(self.options.duration / 3 * 2);
                    let had_run_out = now() >= self.until.swap(until, Ordering::AcqRel);
                    let is_new = *self.state.borrow() != LeaseState::Held { term };
                    // Also after it had run out: who waits for that has seen no other state meanwhile.
                    if had_run_out || is_new {
                        self.state.send_replace(LeaseState::Held { term });
                        tracing::info!(lease, term, holder = self.options.holder, "leading");
                    }
                }
                Ok(Ok(Found::Others { holder })) => {
                    let why = format!("{holder} holds the Lease {lease}");
                    self.until.store(0, Ordering::Release);
                    let LeaseOptions { namespace, name, .. } = &self.options;
                    let mend = format!("if that one is gone for good, `kubectl --namespace {namespace} delete lease {name}`");
                    if self.say(LeaseState::Waiting(format!("this is a standby: {why}; {mend}"))) {
                        tracing::warn!(why, mend, "standby: nothing is started until the Lease is free");
                    }
                    if self.term.is_some() {
                        return why;
                    }
                }
                Ok(Err(why)) => self.failed(&lease, &why),
                Err(_) => self.failed(&lease, &format!("no answer within {} s", patience.as_secs_f32())),
            }
            tokio::time::sleep(self.options.duration / 8).await;
        }
    }

    /// Lets it go, so that nobody has to wait. Orders are not given any more.
    pub async fn release(self) {
        self.until.store(0, Ordering::Release);
        self.say(LeaseState::Waiting("the Lease was let go".to_owned()));
        let release = async {
            let mut lease = self.api.get(&self.options.name).await?;
            let ours = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) == Some(&self.options.holder);
            if let Some(spec) = lease.spec.as_mut().filter(|_| ours) {
                spec.holder_identity = None;
                self.api.replace(&self.options.name, &PostParams::default(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        match timeout(self.options.duration / 3, release).await {
            Ok(Ok(())) => tracing::info!("the Lease is let go"),
            Ok(Err(error)) => tracing::warn!(error = said(&error), "the Lease was not let go; it runs out by itself"),
            Err(_) => tracing::warn!("the Lease was not let go in time; it runs out by itself"),
        }
    }

    /// A failure to renew is no loss yet: orders go on for as long as nobody else can have it.
    fn failed(&self, lease: &str, why: &str) {
        if now() < self.until.load(Ordering::Acquire) {
            tracing::warn!(lease, why, "renewing the Lease failed; trying again");
        } else if self.say(LeaseState::Waiting(format!("the Lease {lease} cannot be had: {why}"))) {
            tracing::warn!(lease, why, "no Lease: nothing is started until there is one");
        }
    }

    /// Whether that is news.
    fn say(&self, state: LeaseState) -> bool {
        self.state.send_if_modified(|said| {
            let is_news = *said != state;
            *said = state;
            is_news
        })
    }

    async fn attempt(&mut self) -> Result<Found, String> {
        let name = self.options.name.clone();
        let present = match self.api.get_opt(&name).await {
            Ok(Some(present)) => present,
            Ok(None) => {
                let next = self.next(0);
                let lease = Lease {
                    metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() },
                    spec: Some(self.spec(None, next)),
                };
                self.api.create(&PostParams::default(), &lease).await.map_err(|error| self.words(&error))?;
                return self.ours(next).await;
            }
            Err(error) => return Err(self.words(&error)),
        };
        let spec = present.spec.clone().unwrap_or_default();
        let term = spec.lease_transitions.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        let next = match &holder {
            Some(holder) if *holder == self.options.holder && self.term.is_none_or(|ours| ours == term) => term,
            // Somebody else has written into it: the number is not to be less than it was.
            Some(holder) if *holder == self.options.holder => self.next(term),
            Some(holder) if self.is_valid(&present, &spec) => return Ok(Found::Others { holder: holder.clone() }),
            // Ours no more, whoever let it go: another may have held it meanwhile.
            _ if self.term.is_some() => return Ok(Found::Others { holder: holder.unwrap_or_else(|| "nobody".to_owned()) }),
            _ => self.next(term),
        };
        let lease = Lease { spec: Some(self.spec(Some(&spec).filter(|_| next == term), next)), ..present };
        self.api.replace(&name, &PostParams::default(), &lease).await.map_err(|error| self.words(&error))?;
        self.ours(next).await
    }

    /// The term after the one of the Lease, and after every other that is known of.
    fn next(&self, present: u32) -> u32 {
        let latest = u32::try_from(self.options.terms.latest()).unwrap_or(u32::MAX);
        let ours = self.term.map_or(0, |ours| ours.saturating_add(1));
        // More than a Lease can say is never reached: it would take a handover each second for 68 years.
        present.saturating_add(1).max(latest).max(ours).min(i32::MAX.cast_unsigned())
    }

    async fn ours(&mut self, term: u32) -> Result<Found, String> {
        if self.term != Some(term) {
            let begun = self.options.terms.begin(term.into()).await;
            begun.map_err(|why| format!("its term {term} could not be written down: {why}"))?;
        }
        self.term = Some(term);
        self.seen = None;
        Ok(Found::Ours { term })
    }

    /// Whether its holder may still act on it, as far as we have seen.
    fn is_valid(&mut self, present: &Lease, spec: &LeaseSpec) -> bool {
        let version = present.metadata.resource_version.clone().unwrap_or_default();
        let at = now();
        let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        let seconds = if seconds == 0 { self.options.duration.as_secs() } else { seconds };
        match &self.seen {
            Some((seen, since)) if *seen == version => at < since.saturating_add(seconds.saturating_mul(1_000_000)),
            _ => {
                self.seen = Some((version, at));
                true
            }
        }
    }

    fn spec(&self, present: Option<&LeaseSpec>, term: u32) -> LeaseSpec {
        let renewed = MicroTime(k8s_openapi::jiff::Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.options.holder.clone()),
            lease_duration_seconds: i32::try_from(self.options.duration.as_secs()).ok(),
            acquire_time: present.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(renewed.clone())),
            renew_time: Some(renewed),
            lease_transitions: i32::try_from(term).ok(),
            ..LeaseSpec::default()
        }
    }

    fn words(&self, error: &kube::Error) -> String {
        words(&self.options.namespace, error)
    }
}

/// Why a Lease in this namespace cannot be had, with the command that mends it where there is one.
pub(super) fn words(namespace: &str, error: &kube::Error) -> String {
    match meaning(error) {
        Meaning::Missing => {
            format!("the cluster has no namespace `{namespace}`; `kubectl create namespace {namespace}` makes it")
        }
        _ => said(error),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A Lease that is held until it is lost, without a cluster.
    pub(in crate::kubernetes) struct Held {
        state: watch::Sender<LeaseState>,
    }

    impl Held {
        pub(in crate::kubernetes) fn new() -> Self {
            Self { state: watch::Sender::new(LeaseState::Held { term: 1 }) }
        }

        pub(in crate::kubernetes) fn leadership(&self) -> Leadership {
            Leadership { state: self.state.subscribe(), until: Arc::new(AtomicU64::new(u64::MAX)) }
        }

        pub(in crate::kubernetes) fn lose(&self, why: &str) {
            self.state.send_replace(LeaseState::Waiting(why.to_owned()));
        }
    }
}
