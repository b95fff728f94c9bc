//! How many submits a second the SQLite store makes durable, and how long a restart takes to read them back.
//!
//! `cargo run --release -p store --example commit_rate -- [ROWS] [DIR]`: for batches of 1, 32 and 1,000 jobs it fills a fresh
//! database (the batches of 1,000 up to ROWS, 1,000,000 unless told otherwise; the others a part of that) and prints each slice's
//! rate, so that growth shows. Bodies, names, labels, queues, priorities and owners vary: a benchmark of one body hides what an
//! index in random order costs. Callers wait for each acknowledgement; one batch is in flight, as the daemon's engine has it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
use scheduler_core::event::{Event, Transition};
use scheduler_core::ids::{Attempt, JobId, Name, Seq};
use scheduler_core::job::{NewJob, Policy, Shape, TaskGroup};
use scheduler_core::state::{JobState, Lifecycle, Outcome, Placement, Slot, StateKind};
use scheduler_core::time::{Span, Timestamp};
use store::{Batch, JobQuery, KeyRecord, Owner, SqliteStore, Store, Submit};
use uuid::Uuid;

const NOW: Timestamp = Timestamp(1_790_000_000_000_000);

/// Numbers without order, the same in every run.
struct Mixer(u64);

impl Mixer {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn id(seq: u64, mixer: &mut Mixer) -> JobId {
    let mut rest = [0; 10];
    rest[..8].copy_from_slice(&mixer.next().to_be_bytes());
    // Ten ids a millisecond; within one the sequence leads, as the daemon's ids count within one.
    rest[0] = (seq % 10) as u8;
    JobId(uuid::Builder::from_unix_timestamp_millis(1_790_000_000_000 + seq / 10, &rest).into_uuid())
}

fn job(seq: u64, mixer: &mut Mixer) -> Submit {
    let request = Request { cpu: CpuMillis(1_000 * (1 + mixer.below(4))), memory: MemoryBytes(mixer.below(8) << 30), gpus: 0 };
    let tasks = vec![TaskGroup::new("main".into(), 1, request)];
    let namespace = Name::from(format!("team-{}", mixer.below(10)));
    let shape = Shape::new(namespace, Name::from(format!("queue-{}", mixer.below(5))), tasks);
    let policy = Policy { priority: mixer.below(10) as i32, ..Policy::default() };
    let user = mixer.below(50);
    let (a, b) = (mixer.next(), mixer.next());
    let at = NOW + Span(seq * 50);
    Submit {
        job: NewJob {
            id: id(seq, mixer),
            seq: Seq(seq),
            shape: Arc::new(shape),
            policy: Arc::new(policy),
            submitted_at: at,
            start_after: None,
            hold: false,
        },
        lifecycle: Lifecycle { state: JobState::Queued { since: at }, attempt: Attempt(0), lost: 0 },
        owner: Owner { user: Name::from(format!("user-{user}")), uid: 1_000 + user as u32 },
        name: Name::from(format!("train-{a:x}")),
        labels: vec![("app".to_owned(), format!("model-{}", mixer.below(20))), ("run".to_owned(), format!("{b:x}"))],
        spec: Bytes::from(format!(
            r#"{{"name":"train-{a:x}","command":["python","train.py","--seed","{b}","--lr","0.{}"],"env":{{"SEED":"{b}"}},"workingDir":"/data/{a:x}","resources":{{"cpu":"1"}},"labels":{{"run":"{b:x}"}}}}"#,
            mixer.below(1_000_000)
        )),
    }
}

fn batch(store: &SqliteStore) -> Batch {
    Batch { term: store.head().term, ..Batch::default() }
}

/// Idempotency keys that come with the submits, one each.
#[derive(Clone, Copy, PartialEq)]
enum Keys {
    None,
    /// As of UUIDv7: each larger than the one before.
    Timed,
    /// As of UUIDv4.
    Random,
}

impl Keys {
    fn make(self, submit: &Submit, mixer: &mut Mixer) -> Option<KeyRecord> {
        let key = match self {
            Self::None => return None,
            Self::Timed => submit.job.id.to_string(),
            Self::Random => Uuid::from_u64_pair(mixer.next(), mixer.next()).to_string(),
        };
        let (jobs, at) = (vec![submit.job.id], submit.job.submitted_at);
        Some(KeyRecord { scope: submit.owner.user.to_string(), key, fingerprint: [1; 32], jobs, at })
    }
}

async fn fill(store: &SqliteStore, rows: u64, size: u64, keys: Keys) -> Result<(), Box<dyn Error>> {
    let mut mixer = Mixer(size);
    let slice = (rows / 10).max(size);
    let (mut done, mut in_slice, mut spent) = (0, 0, std::time::Duration::ZERO);
    let (mut slowest, mut rates) = (std::time::Duration::ZERO, Vec::new());
    while done < rows {
        let submits: Vec<Submit> = (done + 1..=done + size).map(|seq| job(seq, &mut mixer)).collect();
        let keys = submits.iter().filter_map(|submit| keys.make(submit, &mut mixer)).collect();
        let began = Instant::now();
        store.commit(Batch { submits, keys, ..batch(store) }).await?;
        let took = began.elapsed();
        slowest = slowest.max(took);
        spent += took;
        done += size;
        in_slice += size;
        if in_slice >= slice || done >= rows {
            rates.push(format!("{:.0}k", in_slice as f64 / spent.as_secs_f64() / 1_000.0));
            (in_slice, spent) = (0, std::time::Duration::ZERO);
        }
    }
    let keys = match keys {
        Keys::None => "",
        Keys::Timed => ", each with a key that grows with time",
        Keys::Random => ", each with a random key",
    };
    println!("submits, {size} a batch{keys}: {} rows/s by tenth of {rows}; slowest commit {slowest:?}", rates.join(" "));
    Ok(())
}

/// The way of a job after its submit: placed, running, finished, in batches of 32.
async fn run_jobs(store: &SqliteStore, count: u32) -> Result<(), Box<dyn Error>> {
    let live = store.live(Seq(0), count).await?;
    let slot = Slot { group: 0, replica: 0, node: "localhost".into(), gpus: smallvec::smallvec![], share: None };
    let placement = std::sync::Arc::new(Placement::new(vec![slot]));
    let began = Instant::now();
    for jobs in live.chunks(32) {
        let mut changes = Vec::with_capacity(96);
        for job in jobs {
            let one = Attempt(1);
            let steps = [
                (StateKind::Queued, Attempt(0), JobState::Starting { placement: placement.clone() }, Event::Due),
                (
                    StateKind::Starting,
                    one,
                    JobState::Running { placement: placement.clone(), since: NOW },
                    Event::Started { attempt: one, at: NOW },
                ),
                (
                    StateKind::Running,
                    one,
                    JobState::Finished { outcome: Box::new(Outcome::Succeeded), at: NOW },
                    Event::TimeLimit,
                ),
            ];
            changes.extend(steps.map(|(from, attempt, state, event)| Transition {
                job: job.id,
                seq: job.seq,
                from: (from, attempt),
                to: Lifecycle { state, attempt: one, lost: 0 },
                event,
                at: NOW,
                effects: smallvec::smallvec![],
            }));
        }
        store.commit(Batch { changes, ..batch(store) }).await?;
    }
    let jobs = live.len() as f64 / began.elapsed().as_secs_f64();
    println!("placed, started, finished in one batch of 32 jobs: {jobs:.0} jobs/s ({:.0} changes/s)", jobs * 3.0);
    Ok(())
}

async fn read_back(dir: &Path) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let store = SqliteStore::open(dir, NOW).await?;
    println!("open: {:?}", began.elapsed());
    let began = Instant::now();
    let mut after = Seq(0);
    let mut count = 0;
    loop {
        let jobs = store.live(after, 10_000).await?;
        let Some(last) = jobs.last() else { break };
        after = last.seq;
        count += jobs.len();
    }
    println!("live(): {count} jobs in {:?}", began.elapsed());
    let began = Instant::now();
    let counts = store.counts().await?;
    println!("counts(): {counts:?} in {:?}", began.elapsed());
    let began = Instant::now();
    let page = store.jobs(&JobQuery { limit: 100, ..JobQuery::default() }).await?;
    println!("jobs(): newest {} in {:?}", page.jobs.len(), began.elapsed());
    let began = Instant::now();
    let page = store.jobs(&JobQuery { limit: 100, states: vec![StateKind::Finished], ..JobQuery::default() }).await?;
    println!("jobs(): newest {} finished in {:?}", page.jobs.len(), began.elapsed());
    let began = Instant::now();
    let page = store.jobs(&JobQuery { limit: 100, namespaces: vec!["none".to_owned()], ..JobQuery::default() }).await?;
    println!(
        "jobs(): {} of a namespace without any, goes on: {}, in {:?}",
        page.jobs.len(),
        page.next.is_some(),
        began.elapsed()
    );
    if let Some(job) =
        store.jobs(&JobQuery { limit: 1, states: vec![StateKind::Finished], ..JobQuery::default() }).await?.jobs.first()
    {
        let began = Instant::now();
        let events = store.events(store.head().floor, Some(job.id), 100).await?;
        println!("events() of one job: {} in {:?}", events.len(), began.elapsed());
    }
    let bytes = std::fs::metadata(SqliteStore::file(dir))?.len();
    println!("file: {} MB", bytes / 1_000_000);
    store.close().await;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let rows: u64 = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let base = args.next().map_or_else(std::env::temp_dir, PathBuf::from).join(format!("commit_rate-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let series = [
            ("1", rows / 100, 1, Keys::None),
            ("32", rows / 2, 32, Keys::None),
            ("timed", rows / 2, 32, Keys::Timed),
            ("random", rows / 2, 32, Keys::Random),
            ("1000", rows, 1_000, Keys::None),
        ];
        for (name, rows, size, keys) in series {
            let dir = base.join(name);
            let store = SqliteStore::open(&dir, NOW).await?;
            fill(&store, rows.next_multiple_of(size), size, keys).await?;
            if size == 1_000 {
                run_jobs(&store, (rows / 10) as u32).await?;
            }
            store.close().await;
            if size == 1_000 {
                read_back(&dir).await?;
            }
        }
        Ok::<_, Box<dyn Error>>(())
    })?;
    std::fs::remove_dir_all(&base)?;
    Ok(())
}
