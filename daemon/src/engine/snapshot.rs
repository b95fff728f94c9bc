//! The core as HTTP shows it: queues, cohorts and nodes, in the words of the seam.

use api::Origin;
use scheduler_core::Scheduler;
use scheduler_core::ids::{JobId, Name, Revision};
use scheduler_core::scheduler::{self as core, QueueConfig, QueueUse, Standing};
use scheduler_core::time::Timestamp;
use uuid::Uuid;

use super::nodes::Seen;
use super::{SharedCore, lock, nodes};
use crate::backend::Snapshot;
use crate::clock;
use crate::objects::{Directory, convert};

/// Tenants that are shown of one queue.
const TENANTS: usize = 100;

/// Queues, cohorts and nodes as they are now.
pub(super) fn take(shared: &SharedCore, directory: &Directory, revision: Revision, seen: &Seen<'_>) -> Snapshot {
    let board = seen.board;
    let now = clock::now();
    let core = lock(shared);
    let mut queues: Vec<_> = core.queues().map(|queue| view(&core, directory, &queue, now)).collect();
    queues.sort_by(|one, other| one.name.cmp(&other.name));
    let mut nodes: Vec<api::Node> = core.nodes().map(|node| nodes::view(&core, &node, directory, seen)).collect();
    for gpu in nodes.iter_mut().flat_map(|node| &mut node.gpus) {
        name_jobs(&core, gpu);
    }
    let fragmentation = nodes::fragmentation(&core);
    let cohorts = cohorts(&core, directory);
    let driver = board.driver.clone();
    Snapshot { queues, cohorts, nodes, fragmentation, revision, driver, gpu_note: board.note.clone() }
}

/// Says of the jobs of a GPU what people know them by.
fn name_jobs(core: &Scheduler, gpu: &mut api::Gpu) {
    let named = |job: Option<Uuid>| {
        let view = job.and_then(|job| core.view(JobId(job)));
        view.map(|view| (view.seq.0, view.shape.namespace.to_string())).unzip()
    };
    (gpu.job_number, gpu.namespace) = named(gpu.job);
    for sharer in &mut gpu.sharers {
        (sharer.job_number, sharer.namespace) = named(Some(sharer.job));
    }
    for process in &mut gpu.processes {
        process.job_number = named(process.job).0;
    }
}

/// One queue with its tenants.
pub(super) fn queue(shared: &SharedCore, directory: &Directory, name: &Name) -> Option<api::Queue> {
    let now = clock::now();
    let core = lock(shared);
    let found = core.queues().find(|queue| queue.name == name)?;
    let mut shown = view(&core, directory, &found, now);
    let mut tenants: Vec<_> = core.tenant_standings(name, now).collect();
    tenants.sort_by(|one, other| {
        let share = |tenant: &core::TenantStanding<'_>| (tenant.standing.used_share, tenant.standing.held_share);
        share(other).cmp(&share(one)).then_with(|| one.namespace.cmp(other.namespace))
    });
    let tenant = |tenant: core::TenantStanding<'_>| api::TenantUse {
        namespace: tenant.namespace.to_string(),
        active: tenant.jobs.into(),
        used: convert::counted(tenant.standing.held),
        share: share(&tenant.standing),
    };
    shown.tenants = tenants.into_iter().take(TENANTS).map(tenant).collect();
    Some(shown)
}

fn share(standing: &Standing) -> api::Share {
    let weight = convert::wire_weight(standing.weight);
    api::Share { held: standing.held_share, used: standing.used_share, weight }
}

fn view(core: &Scheduler, directory: &Directory, queue: &QueueUse<'_>, now: Timestamp) -> api::Queue {
    let config = core.queue_configs().find(|config| config.name == *queue.name);
    // Of one that only its jobs know nothing is said.
    let spec = config.map_or_else(|| convert::queue_spec(&QueueConfig::named(queue.name.clone())), convert::queue_spec);
    let standing = core.queue_standing(queue.name, now);
    let standing =
        standing.map_or(([0; 3], [0; 3], share(&Standing::NONE)), |of| (of.standing.held, of.borrowed, share(&of.standing)));
    let (used, borrowed, share) = standing;
    api::Queue {
        name: queue.name.to_string(),
        spec,
        origin: directory.queues.get(queue.name).copied().unwrap_or(Origin::Removed),
        waiting: queue.waiting,
        queued: queue.queued,
        active: queue.active,
        used: convert::counted(used),
        borrowed: convert::counted(borrowed),
        share,
        tenant_count: core.tenant_standings(queue.name, now).count() as u64,
        tenants: Vec::new(),
    }
}

fn cohorts(core: &Scheduler, directory: &Directory) -> Vec<api::Cohort> {
    let cohort = |(config, standing): (&core::CohortConfig, core::CohortStanding<'_>)| api::Cohort {
        name: config.name.to_string(),
        spec: convert::cohort_spec(config),
        origin: directory.cohorts.get(&config.name).copied().unwrap_or(Origin::Removed),
        queues: {
            let own = core.queue_configs().filter(|queue| queue.cohort.as_ref() == Some(&config.name));
            let mut names: Vec<_> = own.map(|queue| queue.name.to_string()).collect();
            names.sort();
            names
        },
        guaranteed: convert::known(standing.guaranteed),
        pool: convert::known(standing.bound),
        used: convert::counted(standing.held),
    };
    let mut cohorts: Vec<_> = core.cohort_configs().zip(core.cohort_standings()).map(cohort).collect();
    cohorts.sort_by(|one, other| one.name.cmp(&other.name));
    cohorts
}
