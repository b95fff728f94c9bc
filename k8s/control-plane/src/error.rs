//! What can go wrong with a cluster.

use std::path::PathBuf;

use crate::part::Part;
use crate::programs::Missing;

/// Why a cluster does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There are no programs to run.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A file or folder of the cluster.
    #[error("{op} {}", path.display())]
    File {
        /// What was being done.
        op: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A certificate or key could not be made.
    #[error("making certificates")]
    Certificates(#[from] rcgen::Error),
    /// No ports are free, or they could not be tried.
    #[error("no free port between {first} and {last}")]
    Ports {
        /// First one tried.
        first: u16,
        /// Last one tried.
        last: u16,
    },
    /// A program could not be started.
    #[error("starting {part}")]
    Start {
        /// Which one.
        part: Part,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ended that should have gone on.
    #[error("{part} ended with {status}; the last lines of {}:\n{tail}", log.display())]
    Died {
        /// Which one.
        part: Part,
        /// How.
        status: std::process::ExitStatus,
        /// What it wrote.
        log: PathBuf,
        /// The end of that.
        tail: String,
    },
    /// The API server does not answer.
    #[error("the API server is not ready after {seconds} s: {answer}")]
    NotReady {
        /// How long was waited.
        seconds: u64,
        /// What it said last.
        answer: String,
    },
    /// kubectl failed.
    #[error("kubectl {args}: {said}")]
    Kubectl {
        /// Its arguments.
        args: String,
        /// What it wrote to standard error.
        said: String,
    },
    /// The cluster was not started by us, so its programs are not ours to stop.
    #[error("{part} belongs to a cluster that was there before; it is not stopped or started from here")]
    NotOurs {
        /// Which one.
        part: Part,
    },
}

/// Adds what was being done with which file.
pub(crate) fn file(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> ClusterError {
    let path = path.into();
    move |source| ClusterError::File { op, path, source }
}
