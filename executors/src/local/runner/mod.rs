//! The runner: a small process that starts, watches and ends tasks, and outlives the daemon that started it.
//!
//! Threads, all blocking, none polling:
//! | thread | waits for | does |
//! |---|---|---|
//! | main (`reap`) | orphans | takes their exits: as a subreaper it is the parent of every one |
//! | spawn (`spawn`), a few | orders, and short tasks of a line | makes processes |
//! | watch (`watch`) | process descriptors | takes the exits of tasks; after a crash also watches what an earlier runner had started |
//! | crowd (`crowd`) | children | takes the exits of tasks beyond those |
//! | commit (`commit`) | ends | makes them durable, then tells them |
//! | keeper (`keeper`) | deadlines | kills what outlives its grace; ends an idle runner |
//! | listen, daemon, writer (`serve`) | the socket | orders in, reports out |
//!
//! A thread that panics ends the process: tasks go on, and the next runner takes over from the journal (`recover`). That is safer
//! than a runner that lives on without, say, its reaper.

mod bpf;
mod cgroup;
mod clock;
mod commit;
mod crowd;
mod devices;
mod family;
mod held;
mod journal;
mod keeper;
mod launch;
mod lifecycle;
mod lines;
mod output;
mod prepare;
mod procfs;
mod reap;
mod recover;
mod serve;
mod shared;
mod spawn;
mod sys;
mod table;
mod tell;
mod texts;
mod watch;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode};
use rustix::process::{Resource, Rlimit};

pub use self::cgroup::detect_cgroup_root;
pub use self::prepare::rlimit_names;
use self::shared::{Parts, Shared};
use super::socket::SocketPath;

/// Most spawn threads.
const MAX_SPAWN_THREADS: usize = 64;
/// Bytes of stack of a thread; only what is touched is resident.
const THREAD_STACK_BYTES: usize = 256 << 10;

/// How a runner is to run.
#[derive(Clone, Debug)]
pub struct RunnerOptions {
    /// Its folder: lock, socket and journal. One runner a folder.
    pub dir: PathBuf,
    /// How long it stays when no daemon is connected and it knows of no run.
    pub idle_exit: Duration,
    /// How long an end may wait for others to be made durable with it, while starts wait too.
    pub gather: Duration,
    /// The same while orders wait in lines.
    pub gather_held: Duration,
    /// How long the news that a run has started may wait for its end, while orders wait in lines.
    pub fresh: Duration,
    /// Between SIGTERM and SIGKILL for what is left when a run's task has ended.
    pub leftover_grace: Duration,
    /// A journal of at least this many bytes is rewritten when it is mostly about runs that are forgotten.
    pub compact_bytes: u64,
    /// Threads that make processes, 1 to 64.
    pub spawn_threads: usize,
    /// Most tasks that are watched through descriptors of their own; the exits of others cost a little more.
    pub descriptors: usize,
    /// A cgroup v2 folder that is ours, with nothing but groups in it; none to use no cgroups. See [`detect_cgroup_root`].
    pub cgroup_root: Option<PathBuf>,
    /// A folder of cgroup v1's devices controller or of cgroup v2, to keep runs from devices in; else one is found.
    pub device_root: Option<PathBuf>,
    /// Name of this boot of the machine, instead of the kernel's: for tests.
    pub boot_id: Option<String>,
}

impl RunnerOptions {
    /// The defaults, with this folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            idle_exit: Duration::from_mins(1),
            gather: Duration::from_millis(3),
            gather_held: Duration::from_millis(20),
            fresh: Duration::from_millis(10),
            leftover_grace: Duration::from_secs(5),
            compact_bytes: 4 << 20,
            spawn_threads: std::thread::available_parallelism().map_or(2, usize::from).max(2),
            descriptors: 128,
            cgroup_root: None,
            device_root: None,
            boot_id: None,
        }
    }
}

/// Why a runner could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Another runner has the folder. It serves whoever wanted this one.
    #[error("another runner has the folder {}", dir.display())]
    Busy {
        /// The folder.
        dir: PathBuf,
    },
    /// It was called from a thread other than the main one, to which the kernel gives orphans.
    #[error("the runner has to be the main thread of its process")]
    NotMainThread,
    /// The system refused something.
    #[error("runner: {op} {subject}")]
    System {
        /// What was done.
        op: &'static str,
        /// With what.
        subject: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn failed<E: Into<io::Error>>(op: &'static str, subject: impl std::fmt::Display) -> impl FnOnce(E) -> RunnerError {
    move |source| RunnerError::System { op, subject: subject.to_string(), source: source.into() }
}

/// Runs a runner in this process, which becomes its own: new session, signals, subreaper, umask, working folder, and no
/// descriptors but the standard three. Call it on the main thread, before any other thread is started or file opened. Returns when the runner is idle for long enough, or could not begin.
pub fn runner_main(options: RunnerOptions) -> Result<(), RunnerError> {
    if rustix::thread::gettid() != rustix::process::getpid() {
        return Err(RunnerError::NotMainThread);
    }
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        hook(info);
        std::process::abort();
    }));
    let options = become_runner(options)?;
    let _lock = take_lock(&options.dir)?;
    let limits = raise_descriptor_limit();
    let socket = SocketPath::new(&options.dir).map_err(failed("opening", options.dir.display()))?;
    let (shared, adopted) = take_over(options, socket.as_path())?;
    let shared = Arc::new(shared);

    let with = |name: &str, body: Box<dyn FnOnce() + Send>| {
        let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(THREAD_STACK_BYTES);
        builder.spawn(body).map(drop).map_err(failed("starting the thread", name))
    };
    // One more, because the others may wait for short tasks.
    for _ in 0..=shared.options.spawn_threads {
        let spawner = spawn::Spawner::new(limits.clone()).map_err(failed("opening", "/dev/null"))?;
        let shared = Arc::clone(&shared);
        with("spawn", Box::new(move || spawner.run(&shared)))?;
    }
    for run in adopted {
        shared.lock().resume(&shared, run);
    }
    for (name, body) in [
        ("commit", commit::commit_all as fn(&Shared)),
        ("keeper", keeper::keep_time),
        ("watch", watch::watch_all),
        ("crowd", crowd::wait_for_all),
    ] {
        let shared = Arc::clone(&shared);
        with(name, Box::new(move || body(&shared)))?;
    }
    // Last: who connects finds everything in its place.
    let listener = bind(socket.as_path())?;
    {
        let shared = Arc::clone(&shared);
        with("listen", Box::new(move || serve::listen(&shared, &listener)))?;
    }
    reap::reap_all(&shared);
    Ok(())
}

/// Makes this process independent of who started it.
fn become_runner(mut options: RunnerOptions) -> Result<RunnerOptions, RunnerError> {
    sys::close_inherited();
    sys::reset_signals();
    // It fails for who leads a process group already; a shell's job, for instance. Then there is a terminal, which may stay.
    let _ = rustix::process::setsid();
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(failed("becoming", "a subreaper"))?;
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(options.dir.join("runner"))
        .map_err(failed("making the folder", options.dir.display()))?;
    options.spawn_threads = options.spawn_threads.clamp(1, MAX_SPAWN_THREADS);
    options.dir = std::fs::canonicalize(&options.dir).map_err(failed("finding", options.dir.display()))?;
    std::env::set_current_dir("/").map_err(failed("entering", "/"))?;
    Ok(options)
}

/// Takes the folder for this process, for as long as the file is open.
fn take_lock(dir: &Path) -> Result<File, RunnerError> {
    let path = dir.join("runner.lock");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("opening", path.display()))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(RunnerError::Busy { dir: dir.to_owned() }),
        Err(error) => return Err(failed("locking", path.display())(error)),
    }
    // For people who look; nothing reads it.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// The runner may have many descriptors; its tasks get the limit that it was started with.
fn raise_descriptor_limit() -> Vec<prepare::Limit> {
    let before = rustix::process::getrlimit(Resource::Nofile);
    if before.current == before.maximum
        || rustix::process::setrlimit(Resource::Nofile, Rlimit { current: before.maximum, ..before }).is_err()
    {
        return Vec::new();
    }
    let number = |value: Option<u64>| value.unwrap_or(libc::RLIM_INFINITY);
    let limit = libc::rlimit { rlim_cur: number(before.current), rlim_max: number(before.maximum) };
    vec![(libc::RLIMIT_NOFILE, limit)]
}

/// Reads what an earlier runner left, and opens the journal for what comes. Gives the runs that may have processes.
fn take_over(options: RunnerOptions, socket: &Path) -> Result<(Shared, Vec<scheduler_core::ids::RunId>), RunnerError> {
    let boot_id = match &options.boot_id {
        Some(boot_id) => boot_id.clone(),
        None => clock::boot_id().map_err(failed("reading", "the boot id"))?,
    };
    let path = options.dir.join("runner").join("journal");
    let recover::Recovered { table, adopted, replayed } =
        recover::recover(&path, &boot_id).map_err(failed("reading", path.display()))?;
    if replayed.skipped > 0 {
        note(&format!("journal: {} of {} records could not be read", replayed.skipped, replayed.skipped + replayed.records));
    }
    let journal = journal::Journal::open(&path, replayed.end).map_err(failed("opening", path.display()))?;
    let watcher = watch::Watcher::new(options.descriptors).map_err(failed("making", "an event descriptor"))?;
    let cgroups = match &options.cgroup_root {
        Some(root) => Some(cgroup::Cgroups::new(root).map_err(failed("using the cgroup", root.display()))?),
        None => None,
    };
    let gate = devices::Gate::find(options.device_root.as_deref(), options.cgroup_root.as_deref());
    let access = gate.access();
    note(&format!("devices: {} ({})", if access.enforced { "enforced" } else { "by environment only" }, access.detail));
    let parts = Parts { options, boot_id, journal, watcher, cgroups, gate, socket: socket.to_owned() };
    let shared = Shared::new(parts, table);
    shared.journal.append([&commit::boot_record(&shared)]).map_err(failed("writing", path.display()))?;
    Ok((shared, adopted))
}

fn bind(path: &Path) -> Result<UnixListener, RunnerError> {
    // Whoever left it is gone: the lock is ours.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("removing", path.display())(error)),
        _ => {}
    }
    // The umask makes it 0700: nobody else may connect; mode 0600 says so plainly.
    let listener = UnixListener::bind(path).map_err(failed("listening on", path.display()))?;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .map_err(failed("protecting", path.display()))?;
    Ok(listener)
}

/// Says something to whoever reads `runner.log`.
fn note(message: &str) {
    let at = clock::now().0;
    // Where nobody can be told there is nothing to do about it.
    let _ = writeln!(io::stderr(), "{}.{:06} runner {}: {message}", at / 1_000_000, at % 1_000_000, std::process::id());
}
