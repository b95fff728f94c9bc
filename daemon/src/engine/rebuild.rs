//! The core's memory, made anew from the store: at start, at takeover, and after a failed commit.

use scheduler_core::ids::{JobId, Seq};
use scheduler_core::record::Recorded;
use scheduler_core::scheduler::{ConfigError, UsageRecord};
use scheduler_core::time::Timestamp;
use store::{Store, StoreError};

use crate::decision_log::Tapper;
use crate::objects::{Directory, LoadError, Seeds, Stored};

/// Rows taken from the store at a time. Few: what a page takes is memory that the allocator has at hand, where megabytes would be given back to
/// the system after each page and cleared by it for the next.
const PAGE: u32 = 1_000;

/// Why the core could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// Objects could not be read, or are damaged.
    #[error(transparent)]
    Objects(#[from] LoadError),
    /// What is stored and what is configured do not fit together.
    #[error("flashd.toml together with what was set over the API (and wins)")]
    Config(#[source] ConfigError),
    /// The table could not be read.
    #[error("reading unfinished jobs")]
    Read(#[source] StoreError),
    /// A row that the core cannot take.
    #[error("restoring job {job}")]
    Restore {
        /// The job.
        job: JobId,
        /// Why.
        #[source]
        source: scheduler_core::RestoreError,
    },
}

impl RebuildError {
    /// Whether the same may go through later: the database is on a server, and that is away.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Read(StoreError::Away { .. }) | Self::Objects(LoadError::Read(StoreError::Away { .. })))
    }
}

/// A core with everything that is stored, and which names there are. Use is `known`, where the caller remembers it better than the store.
pub async fn rebuild(
    seeds: &Seeds,
    tapper: Option<&Tapper>,
    store: &dyn Store,
    known: Option<Vec<UsageRecord>>,
    now: Timestamp,
) -> Result<(Recorded, Directory), RebuildError> {
    let stored = Stored::load(store).await?;
    let (config, directory) = seeds.with(&stored);
    let mut core = Recorded::new(config, tapper.map(Tapper::tap)).map_err(RebuildError::Config)?;
    for (name, mark) in &directory.nodes {
        if let Err(error) = core.set_node_state(name, mark.state.state(), now) {
            tracing::info!(%error, state = ?mark.state, "a node that is stored is not configured; it is left as it is for when it comes back");
        }
    }
    let mut page = store.live(Seq(0), PAGE).await.map_err(RebuildError::Read)?;
    while let Some(last) = page.last().map(|job| job.seq) {
        // The next page is read on another thread while this one is restored here: the first future starts that and waits.
        let restore = async {
            page.drain(..).try_for_each(|job| {
                let id = job.id;
                core.restore(job, now).map_err(|source| RebuildError::Restore { job: id, source })
            })
        };
        let (next, restored) = tokio::join!(biased; store.live(last, PAGE), restore);
        restored?;
        page = next.map_err(RebuildError::Read)?;
    }
    // After the jobs: what they hold then counts from the time of the records on, over a pause of the daemon too.
    let aside = core.restore_usage(&known.unwrap_or(stored.usage));
    if aside > 0 {
        tracing::info!(records = aside, "use of queues that do not share fairly any more is left aside");
    }
    Ok((core, directory))
}
