//! The edge: REST v1 over a Unix socket and over TCP.
//!
//! Invariants: nothing but validated, typed requests leaves this module towards the engine; every request has a caller, or its route is
//! listed as public; every body, head, wait and connection has a bound; reads come from the store or a snapshot.

pub mod admission;
pub mod auth;
pub mod body;
pub mod cluster_auth;
pub mod cursor;
pub mod dirs;
pub mod gpu_metrics;
pub mod io;
pub mod listen;
pub mod problem;
pub mod routes;
pub mod selector;
pub mod service;
pub mod text;
pub mod view;
pub mod why;

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::backend::Backend;
use crate::config::{Config, Limits};
use crate::metrics::Metrics;
use crate::objects::SharedDirectory;
use crate::users::Users;
use admission::Admission;
use auth::Auth;
use cluster_auth::ClusterAuth;

pub use listen::{BindError, Listeners};
pub use routes::{openapi_json, router};

/// Batches that are read and checked at once; more wait.
const BATCHES: usize = 8;

/// What every handler can reach.
pub struct App {
    /// The rest of the daemon.
    pub backend: Arc<dyn Backend>,
    /// Recognises callers.
    pub auth: Auth,
    /// Checks and completes jobs.
    pub admission: Admission,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bounds.
    pub limits: Limits,
    /// Where log files of tasks lie.
    pub log_dir: PathBuf,
    /// One permit for each event stream and each followed log.
    pub watchers: Arc<Semaphore>,
    /// One permit for each batch body that is held in memory.
    pub batches: Arc<Semaphore>,
    /// Cancelled when the daemon goes down: streams end.
    pub shutdown: CancellationToken,
}

impl App {
    /// The edge of a daemon; users of a cluster are recognised where one can be asked. Streams end when `shutdown` is cancelled.
    pub fn new(
        config: &Config,
        log_dir: PathBuf,
        backend: Arc<dyn Backend>,
        directory: SharedDirectory,
        metrics: Arc<Metrics>,
        cluster_auth: Option<ClusterAuth>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let users = Arc::new(Users::default());
        let own_uid = rustix::process::geteuid().as_raw();
        let watchers = usize::try_from(config.limits.watchers).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            backend,
            auth: Auth::new(Arc::clone(&users), own_uid, config.metrics.public, cluster_auth),
            admission: Admission::new(config, directory, users, own_uid),
            metrics,
            limits: config.limits.clone(),
            log_dir,
            watchers: Arc::new(Semaphore::new(watchers)),
            batches: Arc::new(Semaphore::new(BATCHES)),
            shutdown,
        })
    }
}
