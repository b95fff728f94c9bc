//! How queues, tenants and cohorts stand, for people: what they hold, what of it is borrowed, and their shares as parts of the cluster.
//!
//! Nothing here decides anything. Shares that order are wide integers that nobody can read; these say the same in millionths.

use crate::ids::Name;
use crate::scheduler::config::Resource;
use crate::scheduler::policy::Weight;
use crate::scheduler::tree::share::Amounts;
use crate::scheduler::tree::{QueueIx, Tree};
use crate::slab::Index;
use crate::time::{Span, Timestamp};

/// How somebody stands among those that he shares with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Held now: thousandths of a core, bytes, GPUs.
    pub held: [u64; 3],
    /// The dominant share of all nodes that is held now, divided by the weight; in millionths.
    pub held_share: u64,
    /// The same of what was used, older use counting less: 1,000,000 is what holding all nodes for ever comes to. `None` where use is not
    /// kept.
    pub used_share: Option<u64>,
    /// What it is divided by.
    pub weight: Weight,
}

impl Standing {
    /// Of whoever has nothing.
    pub const NONE: Self = Self { held: [0; 3], held_share: 0, used_share: None, weight: Weight::ONE };
}

/// How a queue stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueStanding {
    /// Among the queues of its cohort.
    pub standing: Standing,
    /// What it holds beyond its guarantee, of what its cohort's pool counts; in the units of [`Standing::held`].
    pub borrowed: [u64; 3],
}

/// How a tenant of a queue stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantStanding<'a> {
    /// The tenant.
    pub namespace: &'a Name,
    /// Its jobs that hold resources.
    pub jobs: u32,
    /// Among the tenants of its queue.
    pub standing: Standing,
}

/// How a cohort stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CohortStanding<'a> {
    /// Its name.
    pub name: &'a Name,
    /// What the queues under it hold; in the units of [`Standing::held`].
    pub held: [u64; 3],
    /// What they hold together at most.
    pub bound: [Option<u64>; 3],
    /// What they are guaranteed together.
    pub guaranteed: [Option<u64>; 3],
}

const MILLION: u128 = 1_000_000;
/// `ln 2`: use that is held for ever comes to the half-life divided by this.
const LN_2_MILLIONTHS: u128 = 693_147;

fn narrow(amounts: Amounts) -> [u64; 3] {
    amounts.map(|amount| u64::try_from(amount).unwrap_or(u64::MAX))
}

/// The largest part of any resource, divided by a weight.
fn dominant(parts: impl IntoIterator<Item = u128>, weight: Weight) -> u64 {
    let largest = parts.into_iter().max().unwrap_or(0);
    u64::try_from(largest.saturating_mul(1000) / u128::from(weight.thousandths())).unwrap_or(u64::MAX)
}

impl Tree {
    fn stand(&self, held: Amounts, used: Option<(Amounts, Span)>, weight: Weight) -> Standing {
        let has = self.capacity;
        let part = |at: usize| held[at].saturating_mul(MILLION).checked_div(has[at]).unwrap_or(0);
        let used_share = used.map(|(used, half_life)| {
            let whole = |at: usize| has[at].saturating_mul(u128::from(half_life.0));
            let part = |at: usize| used[at].saturating_mul(LN_2_MILLIONTHS).checked_div(whole(at)).unwrap_or(0);
            dominant([part(0), part(1), part(2)], weight)
        });
        Standing { held: narrow(held), held_share: dominant([part(0), part(1), part(2)], weight), used_share, weight }
    }

    /// How a queue stands.
    pub(crate) fn queue_standing(&self, index: QueueIx, now: Timestamp) -> QueueStanding {
        let queue = self.queue(index);
        let root = queue.root.map(|root| self.cohort(root));
        let used = root.and_then(|root| root.config.fair_share).map(|half_life| (queue.usage.at(now, half_life), half_life));
        let borrowed = Resource::ALL.map(|resource| {
            let own = queue.config.guaranteed.of(resource).map_or(0, u128::from);
            let pooled = root.is_some_and(|root| root.bound[resource as usize].is_some());
            if pooled { queue.held[resource as usize].saturating_sub(own) } else { 0 }
        });
        QueueStanding { standing: self.stand(queue.held, used, queue.config.weight), borrowed: narrow(borrowed) }
    }

    /// How each tenant of a queue stands, in no particular order.
    pub(crate) fn tenant_standings(&self, index: QueueIx, now: Timestamp) -> impl Iterator<Item = TenantStanding<'_>> {
        let half_life = self.queue(index).config.fair_share.as_ref().map(|fair| fair.half_life);
        self.tenants.iter().filter(move |(_, tenant)| tenant.queue == index).map(move |(_, tenant)| {
            let used = half_life.map(|half_life| (tenant.usage.at(now, half_life), half_life));
            let standing = self.stand(tenant.held, used, tenant.weight);
            TenantStanding { namespace: &tenant.namespace, jobs: tenant.jobs, standing }
        })
    }

    /// How each cohort stands, in the order of the configuration.
    pub(crate) fn cohort_standings(&self) -> impl Iterator<Item = CohortStanding<'_>> {
        self.cohorts.iter().enumerate().map(|(at, cohort)| {
            let mut guaranteed = [None; 3];
            for queue in &self.queues {
                if !self.chain(queue.cohort).any(|above| above.position() == at) {
                    continue;
                }
                for (resource, sum) in Resource::ALL.into_iter().zip(&mut guaranteed) {
                    let own = queue.config.guaranteed.of(resource);
                    *sum = own.map_or(*sum, |own| Some(sum.unwrap_or(0_u64).saturating_add(own)));
                }
            }
            let bound = cohort.bound.map(|bound| bound.map(|bound| u64::try_from(bound).unwrap_or(u64::MAX)));
            CohortStanding { name: &cohort.config.name, held: narrow(cohort.held), bound, guaranteed }
        })
    }

    /// Whether anything is lent that could be claimed back.
    pub(crate) fn lends(&self) -> bool {
        self.lends
    }
}
