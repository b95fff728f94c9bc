//! What the API server's answers mean for an executor, and the command that mends them.

use kube::Error;
use kube::core::Status;
use kube::runtime::watcher;

use crate::contract::ExecutorError;

pub(super) const KIND: &str = "job";
/// What installs everything that is needed in a cluster.
pub const INSTALL: &str = "kubectl apply --server-side -k k8s";

/// What an error says of the order that got it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Meaning {
    /// It is there already.
    Exists,
    /// It is not there.
    Missing,
    /// The order itself is wrong: it will never be taken.
    Refused(String),
    /// We may not do that, or not now (rights, quota).
    Forbidden(String),
    /// Nobody answered, or too busy, or changed meanwhile: the same order may be taken later.
    Later(String),
}

/// Reads an error.
pub(super) fn meaning(error: &Error) -> Meaning {
    match error {
        Error::Api(status) => of_status(status),
        // Whatever lies between us and the server says what was wrong itself.
        Error::Service(inner) => Meaning::Later(chain(&**inner)),
        other => Meaning::Later(chain(other)),
    }
}

fn of_status(status: &Status) -> Meaning {
    let message = status.message.clone();
    match (status.code, status.reason.as_str()) {
        (409, "AlreadyExists") => Meaning::Exists,
        // What was asked for, or the namespace that it is to be in.
        (404, _) => Meaning::Missing,
        (400 | 413 | 422, _) => Meaning::Refused(message),
        (401, _) => Meaning::Forbidden(format!(
            "{message}; the credentials are not taken: `kubectl get nodes` has to work with the same kubeconfig; in a pod, `{INSTALL}` makes the \
             service account"
        )),
        (403, _) if is_of_rights(status) => Meaning::Forbidden(format!("{message}; `{INSTALL}` gives the rights")),
        (403, _) => Meaning::Forbidden(message),
        _ => Meaning::Later(message),
    }
}

/// A right is missing; a quota or a policy refuses in other words.
fn is_of_rights(status: &Status) -> bool {
    status.code == 403 && status.message.contains("cannot ")
}

/// Whether a right is missing.
pub(super) fn lacks_right(error: &Error) -> bool {
    matches!(error, Error::Api(status) if is_of_rights(status))
}

/// In one line, with the command that mends it where there is one.
pub(super) fn said(error: &Error) -> String {
    match meaning(error) {
        Meaning::Refused(detail) | Meaning::Forbidden(detail) | Meaning::Later(detail) => detail,
        Meaning::Exists | Meaning::Missing => chain(error),
    }
}

/// Why these objects cannot be watched, in one line, with the command that mends it where there is one.
pub(super) fn watch_error(what: &str, error: &watcher::Error) -> String {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    let why = match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => match meaning(error) {
            Meaning::Missing => format!("the cluster does not know them; `{INSTALL}` installs what is needed"),
            _ => said(error),
        },
        WatchError(status) => status.message.clone(),
        NoResourceVersion => error.to_string(),
    };
    format!("{what}: {why}")
}

/// As the executor `job` says it.
pub(super) fn executor_error(op: &'static str, error: &Error) -> ExecutorError {
    error_of(KIND, op, error)
}

/// As an executor says it.
pub(super) fn error_of(executor: &'static str, op: &'static str, error: &Error) -> ExecutorError {
    match meaning(error) {
        Meaning::Later(detail) => ExecutorError::Unreachable { op, executor, detail },
        Meaning::Refused(detail) | Meaning::Forbidden(detail) => ExecutorError::Other { op, executor, detail },
        Meaning::Exists => ExecutorError::Other { op, executor, detail: "it is there already".to_owned() },
        Meaning::Missing => {
            ExecutorError::Other { op, executor, detail: format!("not found: {error}; `{INSTALL}` installs what is needed") }
        }
    }
}

/// An error with its sources, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        // Some repeat their source in their own text.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    text
}
