//! Cohorts: which queues lend to each other, and how much there is to lend.
//!
//! What must hold: a cohort's books are the sums of those of the queues under it; bounds are those of the configuration. All of it is
//! worked out anew when queues or cohorts change, which is seldom.

use crate::scheduler::config::Resource;
use crate::scheduler::policy::{CohortConfig, Limits, TenantLimits};
use crate::scheduler::tree::heap::Heap;
use crate::scheduler::tree::key::QueueTurn;
use crate::scheduler::tree::share::Amounts;
use crate::scheduler::tree::{QueueIx, Tree, Unit};
use crate::slab::{Index, index};
use crate::time::Timestamp;

index! {
    /// A cohort.
    CohortIx
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Cohort {
    pub(crate) config: CohortConfig,
    pub(crate) parent: Option<CohortIx>,
    /// What the queues under it hold.
    pub(crate) held: Amounts,
    /// What they hold together at most.
    pub(crate) bound: [Option<u128>; 3],
    /// Where it shares fairly: the queues under it that have somebody to start.
    pub(crate) queues: Heap<QueueIx, QueueTurn>,
}

impl Tree {
    pub(crate) fn cohort(&self, index: CohortIx) -> &Cohort {
        &self.cohorts[index.position()]
    }

    pub(crate) fn cohort_configs(&self) -> impl Iterator<Item = &CohortConfig> {
        self.cohorts.iter().map(|cohort| &cohort.config)
    }

    /// A cohort and all above it.
    pub(crate) fn chain(&self, cohort: Option<CohortIx>) -> impl Iterator<Item = CohortIx> {
        std::iter::successors(cohort, |&cohort| self.cohort(cohort).parent)
    }

    /// Works out everything that follows from the configuration of cohorts and queues. The caller has checked it.
    pub(crate) fn relate(&mut self, configs: Vec<CohortConfig>, now: Timestamp) {
        let find = |name: &_| configs.iter().position(|other| other.name == *name).map(CohortIx::new);
        let parents: Vec<_> = configs.iter().map(|config| config.parent.as_ref().and_then(find)).collect();
        let own: Vec<_> = self.queues.iter().map(|queue| queue.config.cohort.as_ref().and_then(find)).collect();
        let cohort = |(config, parent)| Cohort { config, parent, held: [0; 3], bound: [None; 3], queues: Heap::default() };
        self.cohorts = configs.into_iter().zip(parents).map(cohort).collect();
        let mut guaranteed = vec![[None; 3]; self.cohorts.len()];
        self.units.clear();
        for (at, cohort) in own.into_iter().enumerate() {
            let line: Vec<_> = self.chain(cohort).collect();
            let queue = &mut self.queues[at];
            queue.cohort = cohort;
            queue.root = line.last().copied();
            let any = |limits: &Limits| *limits != Limits::NONE;
            let config = &queue.config;
            queue.limited = cohort.is_some()
                || any(&config.limit)
                || config.max_concurrent.is_some()
                || config.tenant != TenantLimits::default();
            for &above in &line {
                for (resource, sum) in Resource::ALL.into_iter().zip(&mut guaranteed[above.position()]) {
                    let own = queue.config.guaranteed.of(resource).map(u128::from);
                    *sum = sum.map_or(own, |sum: u128| Some(sum + own.unwrap_or(0)));
                }
                for (sum, held) in self.cohorts[above.position()].held.iter_mut().zip(queue.held) {
                    *sum += held;
                }
            }
            let fair = line.last().map(|root| &mut self.cohorts[root.position()]).filter(|root| root.config.fair_share.is_some());
            queue.slot = fair.map(|root| root.queues.open());
            if queue.slot.is_none() {
                self.units.push(Unit::Queue(QueueIx::new(at)));
            }
        }
        for (at, cohort) in self.cohorts.iter_mut().enumerate() {
            let limit = Resource::ALL.map(|resource| cohort.config.limit.of(resource).map(u128::from));
            cohort.bound = limit;
            if cohort.parent.is_none() {
                cohort.bound = std::array::from_fn(|resource| limit[resource].or(guaranteed[at][resource]));
                if cohort.config.fair_share.is_some() {
                    self.units.push(Unit::Cohort(CohortIx::new(at)));
                }
            }
        }
        self.lends = self.queues.iter().any(|queue| queue.cohort.is_some() && queue.config.guaranteed != Limits::NONE);
        for at in 0..self.queues.len() {
            // A queue whose use was not kept so far begins with what it holds now.
            let is_kept = self.root_half_life(QueueIx::new(at)).is_some();
            let queue = &mut self.queues[at];
            queue.usage.hold(queue.held, now);
            if !is_kept {
                queue.usage.forget_waiting();
            }
            queue.share = 0;
            self.share_queue(QueueIx::new(at), now);
            self.settle_queue(QueueIx::new(at));
        }
    }
}
