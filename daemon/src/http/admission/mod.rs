//! From a job as it was sent to a job that can be queued: checked, completed, typed.
//!
//! Invariants: what passes here can be started as far as the edge can tell; what does not is refused with the path of the field, what was
//! wrong and what is allowed. The completed spec says everything: defaults of a later version do not change a job that is waiting.
//! Whether the machine is large enough is the core's to say.

mod checks;
mod interned;
mod place;
mod pods;
#[cfg(test)]
mod tests;
mod update;
mod written;

use std::sync::Arc;

use api::quantity::{Cpu, Duration};
use api::{JobSpec, NodeExpression, NodeSelector, Resources, Retry, Stop, TaskSpec};
use scheduler_core::amounts::{CpuMillis, MemoryBytes, Request};
use scheduler_core::ids::Name;
use scheduler_core::job::{Arrangement, Policy, Shape, StopPolicy, TaskGroup};
use scheduler_core::time::{Span, Timestamp};

use super::dirs::Dirs;
use super::problem::ApiError;
use crate::backend::{Caller, NewSubmit};
use crate::config::values::ExecutorKind;
use crate::config::{Config, DEFAULT_QUEUE};
use crate::names;
use crate::objects::{Directory, SharedDirectory};
use crate::users::Users;
use interned::Interned;
pub use update::FIELDS;
pub use written::{Sent, Written};

/// Groups of tasks in a job.
const GROUPS: usize = 256;
/// `startAfter` lies at most this far ahead: 10 years.
const AHEAD: Span = Span::from_secs(3_653 * 86_400);
/// A default that is given to every task, so that a machine is not overrun by forgotten requests: one CPU.
const DEFAULT_CPU: Cpu = Cpu(1_000);
/// Default number of tries.
const DEFAULT_ATTEMPTS: u32 = 3;
/// Default time between the signal and SIGKILL.
const DEFAULT_GRACE: Duration = Duration(30_000_000);
/// Longest such time.
const GRACE_MAX: Duration = Duration(86_400_000_000);
/// Names that an answer lists, where another one was asked for.
const NAMES_TOLD: usize = 50;

/// A field that is not allowed as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// Its path within what was checked.
    pub path: String,
    /// What is wrong, and what is allowed.
    pub detail: String,
}

impl Invalid {
    fn new(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { path: path.into(), detail: detail.into() }
    }

    /// The same, seen from outside of `parent`.
    #[must_use]
    pub fn under(mut self, parent: &str) -> Self {
        self.path = match self.path.as_bytes().first() {
            None => parent.to_owned(),
            Some(b'[') => format!("{parent}{}", self.path),
            Some(_) => format!("{parent}.{}", self.path),
        };
        self
    }
}

impl From<Invalid> for ApiError {
    fn from(invalid: Invalid) -> Self {
        Self::invalid(invalid.path, invalid.detail)
    }
}

type Checked<T> = Result<T, Invalid>;

/// What a job says for all of its tasks that do not say it themselves.
struct Defaults {
    dir: String,
    resources: Resources,
    selector: Option<NodeSelector>,
    expressions: Option<Vec<NodeExpression>>,
    terms: Option<Vec<Vec<NodeExpression>>>,
    /// Whose folder it has to be; nobody's, where it is in an image.
    uid: Option<u32>,
}

/// Checks and completes jobs.
pub struct Admission {
    namespaces: Vec<Name>,
    directory: SharedDirectory,
    tasks: u64,
    spec_bytes: u64,
    dirs: Dirs,
    executor: ExecutorKind,
    /// A daemon that is not root can run jobs as itself alone.
    own_uid: u32,
    shapes: Interned<Shape>,
    policies: Interned<Policy>,
}

impl Admission {
    /// By this configuration, in the daemon that runs as `own_uid`.
    pub fn new(config: &Config, directory: SharedDirectory, users: Arc<Users>, own_uid: u32) -> Self {
        Self {
            namespaces: config.namespaces.iter().map(|name| Name::from(name.as_str())).collect(),
            directory,
            tasks: config.limits.tasks,
            spec_bytes: config.limits.body,
            executor: config.executors.first().copied().unwrap_or(ExecutorKind::Local),
            own_uid,
            dirs: Dirs::new(users, own_uid),
            shapes: Interned::default(),
            policies: Interned::default(),
        }
    }

    /// What makes runs real here.
    pub const fn executor(&self) -> ExecutorKind {
        self.executor
    }

    /// Whether [`Self::admit`] can answer for this job without asking a disk.
    pub fn is_quick(&self, spec: &JobSpec, caller: &Caller) -> bool {
        if self.executor.is_cluster() {
            return true;
        }
        let default = default_dir(spec, caller);
        let mut own = spec.tasks.iter().filter_map(|task| task.working_dir.as_deref());
        let uses_default = spec.tasks.is_empty() || spec.tasks.iter().any(|task| task.working_dir.is_none());
        own.all(|path| self.dirs.is_known(path, caller.uid)) && (!uses_default || self.dirs.is_known(default, caller.uid))
    }

    /// The job, ready for the engine. Asks the disk for working folders that were not asked for lately.
    pub fn admit(&self, spec: JobSpec, caller: &Caller, now: Timestamp) -> Checked<NewSubmit> {
        match self.executor {
            ExecutorKind::Local => pods::not_for_processes(&spec)?,
            ExecutorKind::Job => pods::fits_a_job(&spec)?,
            ExecutorKind::FlashJob => pods::fits_a_flash_job(&spec)?,
        }
        self.admit_any(spec, caller, now)
    }

    /// The job of a FlashJob that somebody made in the cluster: what its pods are to be like stands there.
    pub fn admit_flash_job(&self, spec: JobSpec, caller: &Caller, now: Timestamp) -> Checked<NewSubmit> {
        self.admit_any(spec, caller, now)
    }

    fn admit_any(&self, mut spec: JobSpec, caller: &Caller, now: Timestamp) -> Checked<NewSubmit> {
        if self.executor == ExecutorKind::Local && self.own_uid != 0 && caller.uid != self.own_uid {
            let detail = format!("this daemon runs as uid {} and cannot run jobs as {}", self.own_uid, caller.user);
            return Err(Invalid::new("", detail));
        }
        let namespace = spec.namespace.as_deref().unwrap_or_else(|| self.namespaces.first().map_or("", Name::as_str));
        let namespace = known(self.namespaces.iter(), namespace, "namespace");
        let namespace = namespace.cloned().map_err(|Invalid { path, detail }| Invalid {
            path,
            // Queues and classes are made while the daemon runs; these are not.
            detail: format!("{detail}; `namespaces` in flashd.toml names them"),
        })?;
        let directory = self.directory.get();
        let queue = known(directory.queues.keys(), spec.queue.as_deref().unwrap_or(DEFAULT_QUEUE), "queue")?.clone();
        takes(&directory, &queue, &namespace)?;
        resolve_class(&mut spec, &directory)?;
        let own = self.executor.to_string();
        if let Some(executor) = spec.executor.as_deref().filter(|executor| *executor != own) {
            return Err(Invalid::new("executor", format!("no executor `{}` here; there is: {own}", executor.escape_debug())));
        }
        checks::env(&spec.env).map_err(|invalid| invalid.under("env"))?;
        checks::labels(&spec.labels).map_err(|invalid| invalid.under("labels"))?;
        checks::annotations(&spec.annotations).map_err(|invalid| invalid.under("annotations"))?;
        checks::rlimits(&spec.rlimits).map_err(|invalid| invalid.under("rlimits"))?;
        let mut groups = self.complete_tasks(&mut spec, caller)?;
        if self.executor.is_cluster() {
            pods::counted_gpus(&mut groups)?;
        }
        let name = match spec.name.take() {
            Some(name) if names::is_label(&name) => name,
            Some(name) => return Err(Invalid::new("name", format!("`{name}` is not a name: {}", names::LABEL_RULE))),
            None => default_name(&spec),
        };
        let policy = complete_policy(&mut spec)?;
        let start_after = spec.start_after.map(|at| Timestamp(at.as_microsecond()));
        if start_after.is_some_and(|at| at > now + AHEAD) {
            return Err(Invalid::new("startAfter", "more than 10 years ahead"));
        }
        let mut shape = Shape::new(namespace.clone(), queue.clone(), groups);
        shape.min_available = min_available(&spec, &shape)?;
        shape.arrangement = match spec.placement {
            None | Some(api::Arrangement::Pack) => Arrangement::Pack,
            Some(api::Arrangement::Spread) => Arrangement::Spread,
        };
        spec.namespace = Some(namespace.as_str().to_owned());
        spec.queue = Some(queue.as_str().to_owned());
        spec.executor = Some(own);
        let job_name = Name::from(name.as_str());
        spec.name = Some(name);
        let written = serde_json::to_vec(&spec).map_err(|error| Invalid::new("", error.to_string()))?;
        if written.len() as u64 > self.spec_bytes {
            let detail = format!("the job, completed with defaults, has {} bytes; {} are taken", written.len(), self.spec_bytes);
            return Err(Invalid::new("", detail));
        }
        Ok(NewSubmit {
            shape: self.shapes.share(shape),
            policy: self.policies.share(policy),
            start_after,
            hold: spec.hold,
            owner: caller.owner(),
            name: job_name,
            labels: spec.labels.into_iter().collect(),
            spec: written.into(),
        })
    }

    /// Fills `tasks` from the short forms at the top, which are then empty; gives the core's side of them.
    fn complete_tasks(&self, spec: &mut JobSpec, caller: &Caller) -> Checked<Vec<TaskGroup>> {
        let short = spec.tasks.is_empty();
        if short {
            let command = spec.command.take();
            spec.tasks.push(TaskSpec { command, ..TaskSpec::default() });
        } else if spec.command.is_some() {
            return Err(Invalid::new("command", "not together with `tasks`: each task has its own command"));
        } else if spec.tasks.len() > GROUPS {
            return Err(Invalid::new("tasks", format!("{} groups; a job may have {GROUPS}", spec.tasks.len())));
        }
        let dir = match self.executor {
            ExecutorKind::Local => default_dir(spec, caller).to_owned(),
            // An image knows where its programs start.
            ExecutorKind::Job | ExecutorKind::FlashJob => spec.working_dir.clone().unwrap_or_default(),
        };
        let dir_is_default = spec.working_dir.take().is_none();
        let defaults = Defaults {
            dir,
            resources: spec.resources.take().unwrap_or_default(),
            selector: spec.node_selector.take(),
            expressions: spec.node_expressions.take(),
            terms: spec.node_terms.take(),
            uid: (self.executor == ExecutorKind::Local).then_some(caller.uid),
        };
        let several = spec.tasks.len() > 1;
        let mut groups = Vec::with_capacity(spec.tasks.len());
        for (index, task) in spec.tasks.iter_mut().enumerate() {
            let inherited = [
                ("workingDir", task.working_dir.is_none()),
                ("resources", task.resources.is_none()),
                ("nodeSelector", task.node_selector.is_none()),
                ("nodeExpressions", task.node_expressions.is_none()),
                ("nodeTerms", task.node_terms.is_none()),
            ];
            let group = self.complete_task(task, index, several, &defaults).map_err(|invalid| {
                // The path is the one that the user wrote.
                let from_top = short || inherited.iter().any(|(field, inherited)| *inherited && invalid.path.starts_with(field));
                let mut invalid = if from_top { invalid } else { invalid.under(&format!("tasks[{index}]")) };
                if invalid.path == "workingDir" && dir_is_default {
                    invalid.detail.push_str("; it is the default, your home folder: say `workingDir`");
                }
                invalid
            })?;
            groups.push(group);
        }
        checks::task_names(&groups)?;
        let total: u64 = groups.iter().map(|group| u64::from(group.replicas)).sum();
        if total > self.tasks {
            return Err(Invalid::new("tasks", format!("{total} tasks in all; a job may have {}", self.tasks)));
        }
        Ok(groups)
    }

    fn complete_task(&self, task: &mut TaskSpec, index: usize, several: bool, defaults: &Defaults) -> Checked<TaskGroup> {
        checks::command(task.command.as_deref())?;
        checks::env(&task.env).map_err(|invalid| invalid.under("env"))?;
        let name = task.name.get_or_insert_with(|| if several { format!("task-{index}") } else { "task".to_owned() });
        if !names::is_label(name) {
            return Err(Invalid::new("name", format!("`{name}` is not a name: {}", names::LABEL_RULE)));
        }
        let replicas = *task.replicas.get_or_insert(1);
        if replicas == 0 || u64::from(replicas) > self.tasks {
            return Err(Invalid::new("replicas", format!("`{replicas}` is not 1 to {}", self.tasks)));
        }
        if defaults.uid.is_some() || !defaults.dir.is_empty() {
            task.working_dir.get_or_insert_with(|| defaults.dir.clone());
        }
        if let Some(dir) = &task.working_dir {
            checks::path(dir).map_err(|invalid| invalid.under("workingDir"))?;
            if let Some(fault) = defaults.uid.and_then(|uid| self.dirs.fault(dir, uid)) {
                return Err(Invalid::new("workingDir", fault.as_ref()));
            }
        }
        let resources = task.resources.get_or_insert_with(|| defaults.resources.clone());
        place::spell_out(resources).map_err(|invalid| invalid.under("resources"))?;
        let cpu = *resources.cpu.get_or_insert(DEFAULT_CPU);
        if cpu.0 == 0 {
            return Err(Invalid::new("resources.cpu", "a task needs some CPU: at least 1m"));
        }
        let request = Request {
            cpu: CpuMillis(cpu.0),
            memory: MemoryBytes(resources.memory.map_or(0, |memory| memory.0)),
            gpus: place::gpu_count(resources).map_err(|invalid| invalid.under("resources"))?.0,
        };
        // What is taken as nothing is nothing; saying so is how a task does without the job's.
        let selector = task.node_selector.take().or_else(|| defaults.selector.clone()).unwrap_or_default();
        let expressions = task.node_expressions.take().or_else(|| defaults.expressions.clone()).unwrap_or_default();
        let terms = task.node_terms.take().or_else(|| defaults.terms.clone()).unwrap_or_default();
        let constraints = place::constraints(&selector, &expressions, &terms, resources)?;
        task.node_selector = (!selector.is_empty()).then_some(selector);
        task.node_expressions = (!expressions.is_empty()).then_some(expressions);
        task.node_terms = (!terms.is_empty()).then_some(terms);
        Ok(TaskGroup { constraints, ..TaskGroup::new(Name::from(name.as_str()), replicas, request) })
    }
}

/// How many tasks have to start together; 0 where that is all of them, so that both ways of saying so are one shape.
fn min_available(spec: &JobSpec, shape: &Shape) -> Checked<u32> {
    let total = shape.task_count();
    match spec.min_available {
        None => Ok(0),
        Some(least) if least == 0 || u64::from(least) > total => {
            Err(Invalid::new("minAvailable", format!("`{least}` is not 1 to {total}, the number of the job's tasks")))
        }
        Some(least) if u64::from(least) == total => Ok(0),
        Some(least) => Ok(least),
    }
}

/// The folder that tasks start in which name none.
fn default_dir<'a>(spec: &'a JobSpec, caller: &'a Caller) -> &'a str {
    spec.working_dir.as_deref().or_else(|| caller.home.as_ref().map(Name::as_str)).unwrap_or("/")
}

/// The program's name as a job's name.
fn default_name(spec: &JobSpec) -> String {
    let program = spec.tasks.first().and_then(|task| task.command.as_deref()?.first());
    let base = program.map_or("", |program| program.rsplit('/').next().unwrap_or(program));
    names::to_label(base, "job")
}

/// One of the names there are.
fn known<'a>(mut names: impl Iterator<Item = &'a Name> + Clone, asked: &str, field: &str) -> Checked<&'a Name> {
    let all = names.clone();
    names.find(|name| name.as_str() == asked).ok_or_else(|| {
        let there: Vec<_> = all.take(NAMES_TOLD).map(Name::as_str).collect();
        let there = if there.is_empty() { "there are none".to_owned() } else { format!("there are: {}", there.join(", ")) };
        Invalid::new(field, format!("no {field} `{}`; {there}", asked.escape_debug()))
    })
}

/// A queue of the cluster may be for some namespaces alone.
fn takes(directory: &Directory, queue: &Name, namespace: &Name) -> Checked<()> {
    match directory.owned.get(queue) {
        Some(owned) if !owned.takes(namespace.as_str()) => {
            let own = owned.namespaces.join(", ");
            Err(Invalid::new("queue", format!("queue `{queue}` takes jobs of the namespaces {own}, and not of `{namespace}`")))
        }
        _ => Ok(()),
    }
}

/// Gives a job that names a priority class the number that the class has now. Both may stand beside each other where they agree, so that
/// a job that came back from here can be sent again.
fn resolve_class(spec: &mut JobSpec, directory: &Directory) -> Checked<()> {
    let Some(class) = spec.priority_class.as_deref() else { return Ok(()) };
    let name = known(directory.classes.keys(), class, "priorityClass")?;
    let number = directory.classes.get(name).map_or(0, |(priority, _)| *priority);
    match spec.priority.replace(number) {
        Some(other) if other != number => {
            let detail = format!("`{other}` besides priorityClass `{class}` (which is {number}): say one of them");
            Err(Invalid::new("priority", detail))
        }
        _ => Ok(()),
    }
}

/// Completes all that says how the job is treated; gives the core's side of it.
fn complete_policy(spec: &mut JobSpec) -> Checked<Policy> {
    let range = |field: &str, value: i64, low: i64, high: i64| {
        if (low..=high).contains(&value) { Ok(()) } else { Err(Invalid::new(field, format!("`{value}` is not {low} to {high}"))) }
    };
    let priority = *spec.priority.get_or_insert(0);
    range("priority", priority.into(), -1_000_000, 1_000_000)?;
    let max_attempts = *spec.retry.get_or_insert_with(Retry::default).max_attempts.get_or_insert(DEFAULT_ATTEMPTS);
    range("retry.maxAttempts", max_attempts.into(), 1, 100)?;
    if let Some(nice) = spec.nice {
        range("nice", nice.into(), 0, 19)?;
    }
    if spec.time_limit == Some(Duration(0)) {
        return Err(Invalid::new("timeLimit", "a job needs some time: at least 1ms"));
    }
    let stop = spec.stop.get_or_insert_with(Stop::default);
    let (signal, number) = checks::signal(stop.signal.as_deref()).map_err(|invalid| invalid.under("stop.signal"))?;
    stop.signal = Some(signal.to_owned());
    let grace = *stop.grace.get_or_insert(DEFAULT_GRACE);
    if grace > GRACE_MAX {
        return Err(Invalid::new("stop.grace", format!("`{grace}` is more than {GRACE_MAX}")));
    }
    Ok(Policy {
        priority,
        max_attempts,
        time_limit: spec.time_limit.map(|limit| Span(limit.0)),
        stop: StopPolicy { signal: number, grace: Span(grace.0) },
        checkpointable: spec.checkpointable,
    })
}
