//! The load of a soak: submits that arrive by the clock, what users do to their jobs, lists and reasons, and watchers that never leave.
//!
//! What must hold: a submit carries a key and is repeated until it is answered, and so is an action, so that a daemon that is away costs
//! time and nothing else; an answer that a daemon should never give is a fault; a watcher resumes where it was, and finds no gap.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::cluster::JobEvent;
use bytes::Bytes;
use hyper::Method;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::book::Book;
use super::mix::{self, Asked, Wish};
use crate::body::Random;
use crate::control::Client;

/// Submits and their users at one time, at most; arrivals beyond wait, and their latency counts from when they were due.
const AT_ONCE: usize = 512;
/// Until something is tried again.
const PAUSE: Duration = Duration::from_millis(25);
/// Tries until a daemon is taken for dead.
const TRIES: u32 = 2_400;
/// Between two looks of the reader.
const LOOK: Duration = Duration::from_millis(500);

/// What all of the load shares.
pub(crate) struct Load {
    /// The daemon.
    pub(crate) client: Client,
    /// Submits a second.
    pub(crate) rate: f64,
    /// Of everything that is drawn.
    pub(crate) seed: u64,
    /// Where jobs stamp.
    pub(crate) stamps: std::path::PathBuf,
    /// What is remembered.
    pub(crate) book: Mutex<Book>,
    /// No more submits.
    pub(crate) closing: AtomicBool,
    /// Nothing at all any more.
    pub(crate) over: AtomicBool,
    /// Submits whose user is not done.
    pub(crate) open: AtomicU64,
}

impl Load {
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends until there is an answer. Returns its status, its body, and whether it had to be repeated.
    async fn insist(&self, method: Method, path: &str, headers: &[(&str, String)], body: Bytes) -> Result<(u16, Bytes, bool)> {
        for attempt in 0..TRIES {
            match self.client.ask(method.clone(), path, headers, body.clone()).await {
                // 503 while it starts or drains.
                Ok((status, answer)) if status != 503 => return Ok((status, answer, attempt > 0)),
                _ => sleep(PAUSE).await,
            }
            if self.over.load(Ordering::Relaxed) {
                bail!("{path}: the soak is over");
            }
        }
        bail!("{path}: no answer over {TRIES} tries");
    }

    async fn act(&self, job: Uuid, verb: &str) -> Result<()> {
        let path = format!("/api/v1/jobs/{job}/{verb}");
        let (status, body, _) = self.insist(Method::POST, &path, &[], Bytes::new()).await?;
        let mut book = self.book();
        book.counts.acted += 1;
        // 404: retention has removed it; 409: it has ended, or is not in a state for it.
        if !matches!(status, 200 | 404 | 409) {
            book.fault(format!("{path} answered {status}: {}", String::from_utf8_lossy(&body)));
        }
        Ok(())
    }

    /// A job and its user: submits, then does what it wants.
    async fn user(&self, number: u64, due: Instant) -> Result<()> {
        let mut random = Random::new(self.seed.wrapping_mul(1_000_003).wrapping_add(number));
        let (body, asked) = mix::job(&mut random, &self.stamps);
        let key = [("idempotency-key", format!("soak-{}-{number}", self.seed))];
        let (status, answer, repeated) = self.insist(Method::POST, "/api/v1/jobs", &key, body.to_string().into()).await?;
        let id = serde_json::from_slice::<serde_json::Value>(&answer).ok().and_then(|value| value["id"].as_str()?.parse().ok());
        let Some(id) = id.filter(|_| status == 201) else {
            self.book().fault(format!("a submit was answered {status}: {}", String::from_utf8_lossy(&answer)));
            return Ok(());
        };
        {
            let mut book = self.book();
            book.acknowledge(id, asked);
            if repeated {
                book.counts.repeated += 1;
            } else {
                book.window.add(due.elapsed());
                book.submits.add(due.elapsed());
            }
        }
        self.wish(id, asked).await
    }

    async fn wish(&self, id: Uuid, asked: Asked) -> Result<()> {
        match asked.wish {
            Wish::Leave => Ok(()),
            Wish::Cancel(after) => {
                sleep(after).await;
                self.act(id, "cancel").await
            }
            Wish::Hold(after) => {
                self.act(id, "hold").await?;
                sleep(after).await;
                self.act(id, "release").await
            }
            Wish::Release(after) => {
                sleep(after).await;
                self.act(id, "release").await
            }
            Wish::Requeue(after) => {
                sleep(after).await;
                self.act(id, "requeue").await
            }
        }
    }
}

/// Submits until it is closing, then waits for the users that are left.
async fn submitter(load: Arc<Load>) -> Result<()> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let (begun, mut number) = (Instant::now(), 0_u64);
    let mut users = JoinSet::new();
    while !load.closing.load(Ordering::Relaxed) {
        let due = begun + Duration::from_secs_f64(number as f64 / load.rate);
        sleep_until(due).await;
        let permit = Arc::clone(&permits).acquire_owned().await.context("the soak is closed")?;
        let one = Arc::clone(&load);
        load.open.fetch_add(1, Ordering::Relaxed);
        users.spawn(async move {
            let _permit = permit;
            let done = one.user(number, due).await;
            one.open.fetch_sub(1, Ordering::Relaxed);
            done
        });
        number += 1;
        while let Some(done) = users.try_join_next() {
            done.context("a user panicked")??;
        }
    }
    while let Some(done) = users.join_next().await {
        done.context("a user panicked")??;
    }
    Ok(())
}

/// Lists, reasons, logs, queues: what people and dashboards look at.
async fn reader(load: Arc<Load>) -> Result<()> {
    let mut random = Random::new(load.seed ^ 0x5eed);
    let mut latest: Vec<Uuid> = Vec::new();
    while !load.over.load(Ordering::Relaxed) {
        let some = latest.get(random.below(latest.len().max(1) as u64) as usize).copied().unwrap_or_default();
        let path = match random.below(10) {
            0 => "/api/v1/jobs?limit=100".to_owned(),
            1 => format!("/api/v1/jobs?limit=50&labelSelector=team%3Dt{}", random.below(5)),
            2 => "/api/v1/jobs?limit=20&state=queued".to_owned(),
            3 => "/api/v1/jobs?limit=20&state=running".to_owned(),
            4 | 5 => format!("/api/v1/jobs/{some}/why"),
            6 => format!("/api/v1/jobs/{some}"),
            7 => format!("/api/v1/jobs/{some}/logs"),
            8 => "/api/v1/queues".to_owned(),
            _ => "/metrics".to_owned(),
        };
        let begun = Instant::now();
        let (status, body, repeated) = load.insist(Method::GET, &path, &[], Bytes::new()).await?;
        let took = begun.elapsed();
        if let Ok(list) = serde_json::from_slice::<api::job::JobList>(&body) {
            let ids = list.items.iter().map(|job| job.id);
            latest = if list.items.is_empty() { latest } else { ids.collect() };
        }
        {
            let mut book = load.book();
            book.counts.read += 1;
            if !repeated {
                book.reads.add(took);
            }
            // 404: retention has removed it. Of logs: 409, it has not begun; 422, which of its tasks was not said.
            let is_about_logs = matches!(status, 409 | 422) && path.ends_with("/logs");
            if !is_about_logs && !matches!(status, 200 | 404) {
                book.fault(format!("{path} answered {status}: {}", String::from_utf8_lossy(&body)));
            }
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// Watches all events from `revision` on, over any number of restarts; the first watcher keeps the book.
async fn watcher(load: Arc<Load>, number: usize, revision: u64) -> Result<()> {
    let mut last = revision;
    while !load.over.load(Ordering::Relaxed) {
        let from = last;
        let take = |data: &[u8]| {
            let event: JobEvent = serde_json::from_slice(data).context("reading an event")?;
            let mut book = load.book();
            book.counts.events += 1;
            if event.revision != last + 1 {
                book.fault(format!("watcher {number}: revision {} came after {last}", event.revision));
            }
            last = event.revision;
            if number == 0 {
                book.enter(&event);
            }
            Ok(!load.over.load(Ordering::Relaxed))
        };
        // It ends when the daemon is killed; why is told by the daemon's log.
        if let Err(error) = load.client.follow(from, take).await
            && format!("{error:#}").contains("410")
        {
            bail!("watcher {number} was too late: {error:#}");
        }
        load.book().counts.resumed += 1;
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Runs all of it until it is over.
pub(crate) async fn run(load: Arc<Load>, watchers: usize, revision: u64) -> Result<()> {
    let mut tasks = JoinSet::new();
    for number in 0..watchers.max(1) {
        tasks.spawn(watcher(Arc::clone(&load), number, revision));
    }
    tasks.spawn(reader(Arc::clone(&load)));
    tasks.spawn(submitter(Arc::clone(&load)));
    while !load.over.load(Ordering::Relaxed) {
        tokio::select! {
            Some(done) = tasks.join_next() => done.context("a part of the load panicked")??,
            () = sleep(PAUSE) => {}
        }
    }
    Ok(())
}
