//! What can go wrong in the client, how it is told to a person, and the exit code that tells it to a program.
//!
//! Invariants: every error names what it was about; the exit codes are a contract: 2 bad usage, 3 not found, 4 refused, 5 no answer
//! from the server. An error goes to stderr, never to stdout.

use std::io;

use api::Problem;
use hyper::StatusCode;

/// How people start a server, for errors that have none to talk to.
pub(crate) const HOW_TO_START: &str =
    "start one with `flashd serve`, or name one with --server or FLASH_SERVER (unix:///path/flashd.sock, http://host:port)";

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Something on the command line, in the environment or in a file is not allowed.
    #[error("{0}")]
    Usage(String),
    /// The server answered with a problem.
    #[error("{}", problem_text(.0))]
    Problem(Box<Problem>),
    /// Nobody answered, or what answered was cut off or made no sense.
    #[error("{what}")]
    NoAnswer {
        /// What was tried, where, and what came of it.
        what: String,
        /// What to do about it.
        hint: Option<&'static str>,
    },
    /// The system under us refused something that every program may expect.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Output could not be written.
    #[error("writing the output: {0}")]
    Output(#[from] io::Error),
}

/// `field: detail`, or the title where there is no more.
fn problem_text(problem: &Problem) -> String {
    let detail = problem.detail.as_deref().unwrap_or(&problem.title);
    match &problem.field {
        // Some details already begin with the field's path.
        Some(field) if !detail.starts_with(field.as_str()) => format!("{field}: {detail}"),
        _ => detail.to_owned(),
    }
}

impl Error {
    /// Something that the caller wrote is not allowed.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// The connection broke, or the answer was none.
    pub(crate) fn lost(what: impl Into<String>) -> Self {
        Self::NoAnswer { what: what.into(), hint: None }
    }

    /// `map_err` for what the system refuses.
    pub(crate) fn system<E: Into<Box<dyn std::error::Error + Send + Sync>>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: io::Error::other(source) }
    }

    /// Nobody listens.
    pub(crate) fn no_server(what: impl Into<String>) -> Self {
        Self::NoAnswer { what: what.into(), hint: Some(HOW_TO_START) }
    }

    /// HTTP status of the problem, if the server sent one.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Problem(problem) => Some(problem.status),
            _ => None,
        }
    }

    /// Whether the same request may get an answer a little later: nobody answered, or the server is busy, starting or draining.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::NoAnswer { .. } => true,
            Self::Problem(problem) => matches!(problem.status, 429 | 502 | 503 | 504),
            Self::Usage(_) | Self::System { .. } | Self::Output(_) => false,
        }
    }

    /// Whether whoever read our stdout has gone.
    pub(crate) fn is_closed_stdout(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code of the contract.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Problem(problem) if problem.status == StatusCode::NOT_FOUND => 3,
            Self::Problem(_) => 4,
            Self::NoAnswer { .. } => 5,
            Self::Output(_) if self.is_closed_stdout() => 0,
            Self::System { .. } | Self::Output(_) => 1,
        }
    }

    /// What a person may do next.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoAnswer { hint, .. } => *hint,
            Self::Problem(problem) if problem.status == StatusCode::UNAUTHORIZED => Some(
                "set FLASH_TOKEN or say --token-file; `flash token create NAME` on the server's own machine makes one, \
                     in a cluster `kubectl create token ACCOUNT`",
            ),
            _ => None,
        }
    }

    /// Tells it on stderr; a closed stdout is no error and is not told.
    pub(crate) fn report(&self) {
        if self.is_closed_stdout() {
            return;
        }
        crate::output::note(&format!("error: {self}"));
        if let Some(hint) = self.hint() {
            crate::output::note(&format!("hint: {hint}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16, field: Option<&str>, detail: Option<&str>) -> Error {
        Error::Problem(Box::new(Problem {
            kind: "about:blank".into(),
            title: "Not allowed".into(),
            status,
            code: "invalid".into(),
            detail: detail.map(str::to_owned),
            field: field.map(str::to_owned),
        }))
    }

    #[test]
    fn exit_codes_are_the_contract() {
        assert_eq!(Error::usage("x").exit_code(), 2);
        assert_eq!(problem(404, None, None).exit_code(), 3);
        for status in [400, 401, 403, 409, 410, 413, 422, 429, 500, 503] {
            assert_eq!(problem(status, None, None).exit_code(), 4, "{status}");
        }
        assert_eq!(Error::lost("x").exit_code(), 5);
        assert_eq!(Error::no_server("x").exit_code(), 5);
        assert_eq!(Error::Output(io::ErrorKind::BrokenPipe.into()).exit_code(), 0);
        assert_eq!(Error::Output(io::ErrorKind::StorageFull.into()).exit_code(), 1);
    }

    #[test]
    fn a_problem_names_its_field_once() {
        let text = |field, detail| problem(422, field, detail).to_string();
        assert_eq!(text(Some("tasks[0].resources.cpu"), Some("too many")), "tasks[0].resources.cpu: too many");
        assert_eq!(text(Some("queue"), Some("queue: no such queue")), "queue: no such queue");
        assert_eq!(text(None, Some("too many")), "too many");
        assert_eq!(text(None, None), "Not allowed");
    }

    #[test]
    fn what_passes_is_told_from_what_stays() {
        assert!(Error::lost("x").is_passing() && problem(503, None, None).is_passing());
        assert!(!problem(404, None, None).is_passing() && !Error::usage("x").is_passing());
    }
}
