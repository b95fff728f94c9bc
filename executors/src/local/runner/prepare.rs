//! From an order to what a process is made of, and from what went wrong to words for its user.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use scheduler_core::event::RunResult;
use scheduler_core::ids::RunId;

use super::launch::{Credentials, LaunchError, Step};
use super::output::STREAMS;
use super::sys;
use super::table::{lost, not_startable};
use super::texts::Texts;
use crate::contract::{StartOrder, TaskOrder, log_file_name};

/// Where a program is looked for if the task's environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A `setrlimit` number and its value, soft and hard.
pub(super) type Limit = (libc::__rlimit_resource_t, libc::rlimit);

/// What a task is made of.
pub(super) struct Program {
    /// Paths to try.
    pub programs: Texts,
    /// Name and arguments.
    pub args: Texts,
    /// `NAME=value`.
    pub env: Texts,
    /// Where it starts.
    pub working_dir: CString,
}

fn has_nul(what: &str, parts: &[&str]) -> RunResult {
    let shown = parts.concat().replace('\0', "\\0");
    not_startable(format!("{what} {shown:?} contains a NUL character"))
}

/// All of these, each of which is one of `what`.
fn texts<'a>(what: &str, list: impl Iterator<Item = &'a str> + Clone) -> Result<Texts, RunResult> {
    let mut texts = Texts::with_room(list.clone().count(), list.clone().map(str::len).sum());
    for text in list {
        if !texts.add(&[text]) {
            return Err(has_nul(what, &[text]));
        }
    }
    Ok(texts)
}

/// The strings of a task. `FLASH_JOB_ID`, `FLASH_ATTEMPT` and `FLASH_TASK` are always set: the task's descendants are found by them.
pub(super) fn program(run: RunId, task: &TaskOrder) -> Result<Program, RunResult> {
    let Some(name) = task.command.first().filter(|name| !name.is_empty()) else {
        return Err(not_startable(format!("task {}: the command is empty", task.name)));
    };
    if task.name.as_str().contains(['/', '\0']) || task.name.as_str().is_empty() {
        return Err(not_startable(format!("task {:?}: not a name for a task", task.name)));
    }
    let markers = [
        ("FLASH_JOB_ID", run.job.to_string()),
        ("FLASH_ATTEMPT", run.attempt.to_string()),
        ("FLASH_TASK", task.name.to_string()),
    ];
    let given = task.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let given = given.filter(|(name, _)| markers.iter().all(|(marker, _)| marker != name));
    let all = given.chain(markers.iter().map(|(name, value)| (*name, value.as_str())));
    let bytes = all.clone().map(|(name, value)| name.len() + value.len() + 1).sum();
    let mut env = Texts::with_room(task.env.len() + markers.len(), bytes);
    for (name, value) in all {
        if name.is_empty() || name.contains('=') {
            return Err(not_startable(format!("environment variable {name:?}: not a name for a variable")));
        }
        let parts = [name, "=", value];
        if !env.add(&parts) {
            return Err(has_nul("environment variable", &parts));
        }
    }
    let programs = texts("program", candidates(task, name).iter().map(String::as_str))?;
    let args = texts("argument", task.command.iter().map(String::as_str))?;
    let working_dir = CString::new(task.working_dir.as_str());
    let working_dir = working_dir.map_err(|_| has_nul("working folder", &[&task.working_dir]))?;
    Ok(Program { programs, args, env, working_dir })
}

/// Where a program may be, in the order in which a shell would look.
fn candidates(task: &TaskOrder, name: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let folders = search_path(task).split(':');
    folders.map(|folder| if folder.is_empty() { format!("./{name}") } else { format!("{folder}/{name}") }).collect()
}

fn search_path(task: &TaskOrder) -> &str {
    task.env.get("PATH").map_or(DEFAULT_PATH, String::as_str)
}

/// As whom the order runs, if not as the runner itself.
pub(super) fn credentials(order: &StartOrder) -> Result<Option<Credentials>, RunResult> {
    let Some(uid) = order.uid.filter(|uid| *uid != rustix::process::getuid().as_raw()) else { return Ok(None) };
    let (gid, groups) =
        sys::groups_of(uid).map_err(|error| lost(&format!("the groups of user {uid} could not be looked up: {error}")))?;
    Ok(Some(Credentials { uid, gid, groups }))
}

/// The order's resource limits.
pub(super) fn limits(order: &StartOrder) -> Result<Vec<Limit>, RunResult> {
    let limit = |(name, value): (&String, &u64)| {
        let resource = resource(name).ok_or_else(|| {
            let known: Vec<&str> = rlimit_names().collect();
            not_startable(format!("resource limit {name:?} is not known; there are {}", known.join(", ")))
        })?;
        Ok((resource, libc::rlimit { rlim_cur: *value, rlim_max: *value }))
    };
    order.rlimits.iter().map(limit).collect()
}

/// Resource limits that a task can be given: names of `setrlimit` in lower case, without `RLIMIT_`.
pub fn rlimit_names() -> impl Iterator<Item = &'static str> {
    RESOURCES.iter().map(|(name, _)| *name)
}

const RESOURCES: [(&str, libc::__rlimit_resource_t); 16] = [
    ("as", libc::RLIMIT_AS),
    ("core", libc::RLIMIT_CORE),
    ("cpu", libc::RLIMIT_CPU),
    ("data", libc::RLIMIT_DATA),
    ("fsize", libc::RLIMIT_FSIZE),
    ("locks", libc::RLIMIT_LOCKS),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("nofile", libc::RLIMIT_NOFILE),
    ("nproc", libc::RLIMIT_NPROC),
    ("rss", libc::RLIMIT_RSS),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("rttime", libc::RLIMIT_RTTIME),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("stack", libc::RLIMIT_STACK),
];

fn resource(name: &str) -> Option<libc::__rlimit_resource_t> {
    RESOURCES.iter().find(|(known, _)| *known == name).map(|(_, resource)| *resource)
}

/// Opens a task's log files, as the task's user's.
pub(super) fn open_logs(
    log_dir: &str,
    run: RunId,
    task: &TaskOrder,
    owner: Option<&Credentials>,
) -> Result<[File; 2], RunResult> {
    let [out, err] = STREAMS;
    Ok([open_log(log_dir, run, task, out, owner)?, open_log(log_dir, run, task, err, owner)?])
}

fn open_log(log_dir: &str, run: RunId, task: &TaskOrder, stream: &str, owner: Option<&Credentials>) -> Result<File, RunResult> {
    let path = Path::new(log_dir).join(log_file_name(run, task.name.as_str(), stream));
    let open = || -> io::Result<File> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(&path)?;
        if let Some(owner) = owner {
            std::os::unix::fs::fchown(&file, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(file)
    };
    open().map_err(|error| lost(&format!("log file {}: {error}", path.display())))
}

/// What a failed start means: the user's to mend, or nobody's fault and worth another try.
pub(super) fn explain(order: &StartOrder, task: &TaskOrder, failed: &LaunchError) -> RunResult {
    let LaunchError { step, error } = failed;
    let errno = error.raw_os_error().unwrap_or(0);
    let said = std::io::Error::from_raw_os_error(errno);
    let name = &task.name;
    let program = task.command.first().map_or("", String::as_str);
    match step {
        Step::WorkingDir => {
            let message = format!("task {name}: working folder {}: {said}{}", task.working_dir, as_user(order));
            if is_users(errno) { not_startable(message) } else { lost(&message) }
        }
        Step::Execute => {
            let message = format!("task {name}: {}{}", program_problem(task, program, errno), as_user(order));
            if is_users(errno) { not_startable(message) } else { lost(&message) }
        }
        Step::Limit => not_startable(format!("task {name}: resource limits {:?}: {said}", order.rlimits)),
        Step::Credentials if errno == libc::EPERM => {
            let uid = order.uid.unwrap_or_default();
            not_startable(format!("task {name}: cannot run as user {uid}: the runner has not the right to change users"))
        }
        Step::Clone | Step::Session | Step::Nice | Step::Cgroup | Step::Stdio | Step::Credentials => {
            lost(&format!("task {name}: no process could be made ({step:?}): {said}"))
        }
    }
}

/// Whether the user can mend it; otherwise the machine is short of something, or a file system is away.
fn is_users(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENOENT
            | libc::ENOTDIR
            | libc::EACCES
            | libc::EPERM
            | libc::ENOEXEC
            | libc::ELOOP
            | libc::ENAMETOOLONG
            | libc::E2BIG
            | libc::EISDIR
            | libc::EINVAL
            | libc::ELIBBAD
    )
}

fn as_user(order: &StartOrder) -> String {
    order.uid.map_or_else(String::new, |uid| format!(" (as user {uid})"))
}

fn program_problem(task: &TaskOrder, program: &str, errno: i32) -> String {
    let by_path = program.contains('/');
    let exists = candidates(task, program).iter().any(|path| Path::new(&task.working_dir).join(path).is_file());
    match errno {
        libc::ENOENT if exists => {
            format!("program {program:?} names an interpreter (its first line, #!) that does not exist")
        }
        libc::ENOENT if by_path => format!("program {program:?} does not exist"),
        libc::ENOENT => {
            let folders = search_path(task).split(':').count();
            let folders = if folders == 1 { "1 folder".to_owned() } else { format!("{folders} folders") };
            format!("program {program:?} was not found in PATH ({folders}): name it by its path, or set PATH in the job's env")
        }
        libc::EACCES => format!("program {program:?} is not executable: permission denied"),
        libc::ENOEXEC => {
            format!("program {program:?} is not executable: neither a binary of this machine nor a script that begins with #!")
        }
        libc::E2BIG => format!("program {program:?}: arguments and environment are longer than the system allows"),
        other => format!("program {program:?}: {}", std::io::Error::from_raw_os_error(other)),
    }
}
