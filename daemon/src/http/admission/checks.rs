//! Checks of single fields: what the kernel, a file name or a label can hold.

use std::collections::{BTreeMap, HashMap};

use executors::local::runner::rlimit_names;
use scheduler_core::job::TaskGroup;

use super::{Checked, Invalid};
use crate::names;

/// Longest single argument or variable that Linux takes (`MAX_ARG_STRLEN`, its NUL included).
const STRING_MAX: usize = 128 << 10;
/// Arguments of a command.
const ARGUMENTS: usize = 16_384;
/// Arguments or variables together: half of what `execve` takes by default, so that both fit.
const BYTES_MAX: usize = 1 << 20;
/// Variables.
const VARIABLES: usize = 4_096;
/// Longest path (`PATH_MAX`, its NUL included).
const PATH_BYTES: usize = 4_096;
/// Labels, and annotations.
const ENTRIES: usize = 64;
/// Annotations together.
const ANNOTATION_BYTES: usize = 256 << 10;

/// What the daemon itself tells every task.
const OWN_VARIABLES: [&str; 7] =
    ["FLASH_JOB_ID", "FLASH_ATTEMPT", "FLASH_TASK", "FLASH_NAMESPACE", "FLASH_QUEUE", "FLASH_REPLICA", "FLASH_REPLICAS"];

/// Signals that can ask a task to end.
const SIGNALS: [(&str, i32); 12] = [
    ("SIGTERM", libc::SIGTERM),
    ("SIGINT", libc::SIGINT),
    ("SIGHUP", libc::SIGHUP),
    ("SIGQUIT", libc::SIGQUIT),
    ("SIGUSR1", libc::SIGUSR1),
    ("SIGUSR2", libc::SIGUSR2),
    ("SIGKILL", libc::SIGKILL),
    ("SIGABRT", libc::SIGABRT),
    ("SIGALRM", libc::SIGALRM),
    ("SIGCONT", libc::SIGCONT),
    ("SIGWINCH", libc::SIGWINCH),
    ("SIGXCPU", libc::SIGXCPU),
];

/// Program and arguments; errors under `command`.
pub(super) fn command(command: Option<&[String]>) -> Checked<()> {
    let Some([program, ..]) = command else {
        return Err(Invalid::new("command", "a program is needed, as in [\"python3\", \"train.py\"]"));
    };
    let command = command.unwrap_or_default();
    if program.is_empty() {
        return Err(Invalid::new("command[0]", "the name of the program is empty"));
    }
    if command.len() > ARGUMENTS {
        return Err(Invalid::new("command", format!("{} arguments; {ARGUMENTS} are taken", command.len())));
    }
    let mut total = 0;
    for (index, argument) in command.iter().enumerate() {
        string(argument).map_err(|detail| Invalid::new(format!("command[{index}]"), detail))?;
        total += argument.len() + 1;
    }
    if total > BYTES_MAX {
        return Err(Invalid::new("command", format!("{total} bytes; {BYTES_MAX} are taken")));
    }
    Ok(())
}

/// What an argument or a variable can hold.
fn string(text: &str) -> Result<(), String> {
    if text.contains('\0') {
        return Err("it has a NUL, which no argument or variable can hold".to_owned());
    }
    if text.len() >= STRING_MAX {
        return Err(format!("{} bytes; a program is given less than {STRING_MAX}", text.len()));
    }
    Ok(())
}

/// Variables.
pub(super) fn env(env: &BTreeMap<String, String>) -> Checked<()> {
    if env.len() > VARIABLES {
        return Err(Invalid::new("", format!("{} variables; {VARIABLES} are taken", env.len())));
    }
    let mut total = 0;
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || name.len() > 255 {
            let detail = format!("`{}` is not a name of a variable: 1 to 255 bytes without `=` and NUL", name.escape_debug());
            return Err(Invalid::new("", detail));
        }
        if OWN_VARIABLES.contains(&name.as_str()) {
            return Err(Invalid::new(name, format!("{name} is set by flashd for every task")));
        }
        string(value).map_err(|detail| Invalid::new(name, detail))?;
        total += name.len() + value.len() + 2;
    }
    if total > BYTES_MAX {
        return Err(Invalid::new("", format!("{total} bytes; {BYTES_MAX} are taken")));
    }
    Ok(())
}

/// Labels.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> Checked<()> {
    if labels.len() > ENTRIES {
        return Err(Invalid::new("", format!("{} labels; a job may have {ENTRIES}", labels.len())));
    }
    for (key, value) in labels {
        key_of(key)?;
        if !names::is_label_value(value) {
            return Err(Invalid::new(key, value_rule(value)));
        }
    }
    Ok(())
}

/// Annotations.
pub(super) fn annotations(annotations: &BTreeMap<String, String>) -> Checked<()> {
    if annotations.len() > ENTRIES {
        return Err(Invalid::new("", format!("{} annotations; a job may have {ENTRIES}", annotations.len())));
    }
    annotations.keys().try_for_each(|key| key_of(key))?;
    let total: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if total > ANNOTATION_BYTES {
        return Err(Invalid::new("", format!("{total} bytes; {ANNOTATION_BYTES} are taken")));
    }
    Ok(())
}

/// A label's key.
pub(super) fn key_of(key: &str) -> Checked<()> {
    if names::is_label_key(key) {
        return Ok(());
    }
    Err(Invalid::new("", format!("`{}` is not a key: {}", key.escape_debug(), names::LABEL_KEY_RULE)))
}

/// Says that this is no label's value.
pub(super) fn value_rule(value: &str) -> String {
    format!("`{}` is not a label value: {}", value.escape_debug(), names::LABEL_VALUE_RULE)
}

/// Names of resource limits.
pub(super) fn rlimits(rlimits: &BTreeMap<String, u64>) -> Checked<()> {
    match rlimits.keys().find(|name| !rlimit_names().any(|known| known == name.as_str())) {
        Some(name) => {
            let known: Vec<&str> = rlimit_names().collect();
            Err(Invalid::new("", format!("no limit `{name}`; there are: {}", known.join(", "))))
        }
        None => Ok(()),
    }
}

/// A signal's name and number, with or without `SIG`; SIGTERM where none is asked for.
pub(super) fn signal(asked: Option<&str>) -> Checked<(&'static str, i32)> {
    let Some(asked) = asked else { return Ok(SIGNALS[0]) };
    let same = |name: &str| name == asked || name.strip_prefix("SIG") == Some(asked);
    SIGNALS.into_iter().find(|(name, _)| same(name)).ok_or_else(|| {
        let there = SIGNALS.map(|(name, _)| name).join(", ");
        Invalid::new("", format!("`{asked}` is not a signal to end a task with; there are: {there}"))
    })
}

/// An absolute path.
pub(super) fn path(path: &str) -> Checked<()> {
    if path.contains('\0') {
        return Err(Invalid::new("", "it has a NUL, which no path can hold"));
    }
    if !path.starts_with('/') {
        return Err(Invalid::new("", format!("`{path}` is not an absolute path: it has to begin with `/`")));
    }
    if path.len() >= PATH_BYTES {
        return Err(Invalid::new("", format!("{} bytes; a path has less than {PATH_BYTES}", path.len())));
    }
    Ok(())
}

/// Names of tasks (`group`, or `group-N` of several) are unique in the job: they are parts of file names.
pub(super) fn task_names(groups: &[TaskGroup]) -> Checked<()> {
    let mut seen: HashMap<&str, u32> = HashMap::with_capacity(groups.len());
    for (index, group) in groups.iter().enumerate() {
        if seen.insert(group.name.as_str(), group.replicas).is_some() {
            return Err(Invalid::new(format!("tasks[{index}].name"), format!("`{}` is there twice", group.name)));
        }
    }
    for (index, group) in groups.iter().enumerate() {
        // `a-0` of one task is what the first of several tasks `a` is called.
        let clash = group.name.as_str().rsplit_once('-').filter(|(base, number)| {
            let plain = *number == "0" || !number.starts_with('0');
            let replicas = seen.get(base).copied().unwrap_or(0);
            plain && group.replicas == 1 && replicas > 1 && number.parse::<u32>().is_ok_and(|number| number < replicas)
        });
        if let Some((base, _)) = clash {
            let detail = format!("`{}` is what a task of the group `{base}` is called", group.name);
            return Err(Invalid::new(format!("tasks[{index}].name"), detail));
        }
    }
    Ok(())
}
