//! The workload as objects: what is created, when, and whether all of it succeeded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use http::Request;
use kube::Client;
use serde_json::{Value, json};
use simulator::{Scale, kueue};
use tokio::sync::Semaphore;

use crate::{Options, What};

/// Where everything is created.
pub(crate) const NAMESPACE: &str = "default";
/// Label of a pod: the number of its job.
pub(crate) const NUMBER: &str = "number";
/// Objects that are created at the same time, at most.
const AT_ONCE: usize = 64;
/// How often one is tried that was not taken.
const TRIES: u32 = 20;
/// Objects of one page of a list.
const PAGE: u32 = 500;

/// The classes, by their priority.
pub(crate) const CLASSES: [(&str, i32); 3] = [("small", 50), ("medium", 100), ("large", 200)];

/// One job.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// From the start of the workload.
    pub(crate) at: Duration,
    pub(crate) runs: Duration,
    pub(crate) cores: u64,
    /// Index into [`CLASSES`].
    pub(crate) class: usize,
    /// Index into [`Load::queues`].
    pub(crate) queue: usize,
}

/// A queue's quota in cores.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    pub(crate) name: String,
    pub(crate) cohort: String,
    /// What it brings into its cohort.
    pub(crate) nominal: u64,
    /// The most that it may have.
    pub(crate) most: u64,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Load {
    what: What,
    pub(crate) jobs: Vec<Job>,
    pub(crate) queues: Vec<Queue>,
}

/// How creating went.
#[derive(Debug, Default)]
pub(crate) struct Created {
    /// How late the latest was taken.
    pub(crate) latest: Duration,
    pub(crate) last_at: Duration,
    /// Tries that were not taken.
    pub(crate) refused: u64,
}

fn cores(limits: Option<scheduler_core::amounts::CpuMillis>) -> u64 {
    limits.map_or(0, |millis| millis.0 / 1_000)
}

impl Load {
    pub(crate) fn new(options: &Options) -> Self {
        let workload = kueue(Scale::Baseline, options.seed);
        let mut all: BTreeMap<(usize, i32), (u64, u64)> = BTreeMap::new();
        for job in &workload.jobs {
            all.entry((job.queue, job.priority)).or_default().0 += 1;
        }
        let micros = |span: scheduler_core::time::Span| Duration::from_micros(span.0);
        let mut jobs = Vec::new();
        for job in &workload.jobs {
            let Some((count, taken)) = all.get_mut(&(job.queue, job.priority)) else { continue };
            if *taken >= count.div_ceil(options.scale.max(1)) {
                continue;
            }
            *taken += 1;
            let class = CLASSES.iter().position(|(_, priority)| *priority == job.priority).unwrap_or_default();
            jobs.push(Job {
                at: micros(job.at),
                runs: micros(job.duration),
                cores: job.request.cpu.0 / 1_000,
                class,
                queue: job.queue,
            });
        }
        let queues = workload.queues.iter().map(|queue| Queue {
            name: queue.config.name.to_string(),
            cohort: queue.config.cohort.as_ref().map(ToString::to_string).unwrap_or_default(),
            nominal: cores(queue.config.guaranteed.cpu),
            most: cores(queue.config.limit.cpu),
        });
        Self { what: options.what, jobs, queues: queues.collect() }
    }

    /// Cores of all quotas together.
    pub(crate) fn cores(&self) -> u64 {
        self.queues.iter().map(|queue| queue.nominal).sum()
    }

    /// Cores of a cohort.
    pub(crate) fn cohorts(&self) -> BTreeMap<&str, u64> {
        let mut cohorts = BTreeMap::new();
        for queue in &self.queues {
            *cohorts.entry(queue.cohort.as_str()).or_default() += queue.nominal;
        }
        cohorts
    }

    /// Core-seconds that are worked.
    pub(crate) fn work(&self) -> f64 {
        self.jobs.iter().map(|job| job.cores as f64 * job.runs.as_secs_f64()).sum()
    }

    /// No schedule is shorter.
    pub(crate) fn bound(&self) -> f64 {
        let last = self.jobs.iter().map(|job| (job.at + job.runs).as_secs_f64()).fold(0.0, f64::max);
        last.max(self.work() / self.cores() as f64)
    }

    /// Path of the collection.
    fn path(&self) -> String {
        match self.what {
            What::Flashjobs => format!("/apis/scheduling.flash-sched.io/v1alpha1/namespaces/{NAMESPACE}/flashjobs"),
            What::Jobs => format!("/apis/batch/v1/namespaces/{NAMESPACE}/jobs"),
        }
    }

    /// What is created, in the order of time.
    pub(crate) fn bodies(&self) -> Vec<(Duration, String, Vec<u8>)> {
        let path = self.path();
        let body = |(number, job): (usize, &Job)| {
            let (class, priority) = CLASSES[job.class];
            let mut pod = json!({"containers": [{"name": "c", "image": "i",
                "env": [{"name": "SIM_DURATION", "value": format!("{}ms", job.runs.as_millis())}],
                "resources": {"requests": {"cpu": job.cores.to_string()}}}]});
            let labels = json!({NUMBER: number.to_string()});
            let name = format!("{class}-{number}");
            let object = match self.what {
                What::Flashjobs => json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": "FlashJob",
                    "metadata": {"name": name},
                    "spec": {"queueName": self.queues[job.queue].name, "priority": priority,
                        "tasks": [{"metadata": {"labels": labels}, "spec": pod}]}}),
                What::Jobs => {
                    pod["restartPolicy"] = json!("Never");
                    pod["priorityClassName"] = json!(class);
                    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
                        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": pod}}})
                }
            };
            (job.at, path.clone(), object.to_string().into_bytes())
        };
        self.jobs.iter().enumerate().map(body).collect()
    }

    /// Whether any object does not say yet that it succeeded.
    pub(crate) async fn left(&self, client: &Client) -> Result<bool> {
        let selector = match self.what {
            What::Flashjobs => "status.phase!=Succeeded",
            What::Jobs => "status.successful!=1",
        };
        let list = get(client, &format!("{}?limit=1&fieldSelector={selector}", self.path())).await?;
        Ok(list["items"].as_array().is_none_or(|items| !items.is_empty()))
    }

    /// # Errors
    /// Some did not succeed, or are not there.
    pub(crate) async fn check(&self, client: &Client) -> Result<()> {
        let (mut good, mut token) = (0, String::new());
        loop {
            let list = get(client, &format!("{}?limit={PAGE}&continue={token}", self.path())).await?;
            for object in list["items"].as_array().into_iter().flatten() {
                let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
                let complete = conditions.filter(|one| one["type"] == "Complete" && one["status"] == "True").count() == 1;
                let succeeded = object["status"]["succeeded"] == 1 && complete;
                ensure!(succeeded, "{} did not succeed: {}", object["metadata"]["name"], object["status"]);
                good += 1;
            }
            list["metadata"]["continue"].as_str().unwrap_or_default().clone_into(&mut token);
            if token.is_empty() {
                break;
            }
        }
        ensure!(good == self.jobs.len(), "{good} of {} objects are there", self.jobs.len());
        Ok(())
    }
}

/// An answer as JSON.
pub(crate) async fn get(client: &Client, path: &str) -> Result<Value> {
    let request = Request::get(path).body(Vec::new()).context("a path")?;
    client.request(request).await.with_context(|| format!("GET {path}"))
}

/// Creates everything, each at its time. One that is not taken is tried again.
pub(crate) async fn create(client: Client, bodies: Vec<(Duration, String, Vec<u8>)>, begun: Instant) -> Result<Created> {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = tokio::task::JoinSet::new();
    let mut created = Created::default();
    for (at, path, body) in bodies {
        tokio::time::sleep_until((begun + at).into()).await;
        let permit = permits.clone().acquire_owned().await?;
        let client = client.clone();
        tasks.spawn_local(async move {
            let refused = create_one(&client, &path, body).await;
            drop(permit);
            (at, begun.elapsed(), refused)
        });
        while let Some(done) = tasks.try_join_next() {
            created.add(done.context("creating")?)?;
        }
    }
    while let Some(done) = tasks.join_next().await {
        created.add(done.context("creating")?)?;
    }
    Ok(created)
}

impl Created {
    fn add(&mut self, (at, taken, refused): (Duration, Duration, Result<u64>)) -> Result<()> {
        self.refused += refused?;
        self.latest = self.latest.max(taken.saturating_sub(at));
        self.last_at = self.last_at.max(taken);
        Ok(())
    }
}

async fn create_one(client: &Client, path: &str, body: Vec<u8>) -> Result<u64> {
    for tries in 0..TRIES {
        let request = Request::post(path).header("Content-Type", "application/json").body(body.clone()).context("a request")?;
        match client.request_text(request).await {
            Ok(_) => return Ok(tries.into()),
            Err(kube::Error::Api(status)) if status.code == 409 && tries > 0 => return Ok(tries.into()),
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                bail!("creating: {status}");
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100 << tries.min(6))).await,
        }
    }
    bail!("not taken in {TRIES} tries: {}", String::from_utf8_lossy(&body))
}
