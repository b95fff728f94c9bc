//! Nodes come, change, are taken out of service and get lost, while jobs run.
//!
//! What must hold: whatever changes, what runs keeps what it has on the books until its end is known, and none of it is promised to anybody
//! else meanwhile.

use hashbrown::HashSet;

use crate::event::{Event, RunResult, Transition};
use crate::hash::Build;
use crate::ids::{Name, RunId};
use crate::scheduler::Scheduler;
use crate::scheduler::config::{NodeConfig, NodeState, check_gpus};
use crate::scheduler::errors::{ChangeError, ConfigError};
use crate::scheduler::nodes::Part;
use crate::scheduler::table::JobIx;
use crate::time::Timestamp;

/// What became of the runs of a node that was lost.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LostRuns {
    /// Runs that were nowhere else have ended, as lost by infrastructure: they are tried again or have failed, as their policies say, or are
    /// what somebody had ordered before. To be made durable as any other transition.
    pub ended: Vec<Transition>,
    /// Runs that also have tasks on nodes that are not lost. They hold all they have until whoever can reach these tasks has ended them and
    /// reports the run as [`RunResult::Lost`].
    pub elsewhere: Vec<RunId>,
}

impl Scheduler {
    /// Enters a node, or changes the one of this name; its state stays, a new one is ready. GPUs that it does not list any more are
    /// not promised any more, and are on the books until their runs end; where less is left than is taken, nothing is promised
    /// until enough has been given back.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`]: a GPU is there twice or on another node, too many GPUs or kinds of them.
    pub fn set_node(&mut self, config: NodeConfig) -> Result<(), ChangeError> {
        check_gpus(&config)?;
        if let Some(uuid) = self.listed_twice(&config) {
            return Err(ConfigError::DuplicateGpu { uuid: uuid.clone(), node: config.name }.into());
        }
        self.nodes.configure(config);
        self.nodes_changed();
        Ok(())
    }

    /// The first GPU of a node that it lists twice, or that another one lists.
    fn listed_twice<'a>(&self, config: &'a NodeConfig) -> Option<&'a Name> {
        let elsewhere = |uuid: &Name| {
            let device = self.nodes.find_device(uuid).map(|device| self.nodes.device(device)).filter(|device| device.configured);
            device.is_some_and(|device| self.nodes.all()[device.node].name != config.name)
        };
        let mut listed = HashSet::<&Name, Build>::default();
        config.gpus.iter().map(|gpu| &gpu.uuid).find(|uuid| !listed.insert(uuid) || elsewhere(uuid))
    }

    /// Takes a node out of the configuration. What runs there goes on and is shown, as on a node that is not configured, until it ends.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`].
    pub fn remove_node(&mut self, name: &Name) -> Result<(), ChangeError> {
        let node = self.configured_node(name)?;
        self.nodes.remove(node);
        self.nodes_changed();
        Ok(())
    }

    /// Says what may be done with a node. What runs there goes on, unless the node is lost: then it ends as lost by infrastructure.
    /// Saying that again ends what has been restored there meanwhile. States are not kept over a restart by the core.
    ///
    /// Before a node that was lost is ready again, whoever says so has made sure that nothing of its earlier runs is left there.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`].
    pub fn set_node_state(&mut self, name: &Name, state: NodeState, now: Timestamp) -> Result<LostRuns, ChangeError> {
        let node = self.configured_node(name)?;
        self.nodes.set_state(node, state);
        self.nodes_changed();
        if state != NodeState::Lost {
            return Ok(LostRuns::default());
        }
        let is_lost = |part: &Part| {
            let node = &self.nodes.all()[part.node as usize];
            node.configured && node.state == NodeState::Lost
        };
        let here = self.active.values().filter(|active| active.held.parts.iter().any(|part| part.node as usize == node));
        let (gone, elsewhere): (Vec<_>, Vec<_>) =
            here.map(|active| (active.job, active.held.parts.iter().all(is_lost))).partition(|(_, all)| *all);
        let run = |job: JobIx| RunId { job: self.jobs[job].id, attempt: self.jobs[job].lifecycle.attempt };
        let elsewhere = elsewhere.into_iter().map(|(job, _)| run(job)).collect();
        let message = Name::from(format!("node {name} was lost"));
        let ended = gone.into_iter().filter_map(|(job, _)| self.lose(job, &message, now)).collect();
        Ok(LostRuns { ended, elsewhere })
    }

    /// Sets a GPU aside: it is promised to nobody from now on, and whoever has it keeps it. Without a reason it may be promised again. That is
    /// kept while its node is changed, and not over a restart or while the GPU is not configured.
    ///
    /// # Errors
    /// [`ChangeError::Unknown`].
    pub fn set_gpu_aside(&mut self, uuid: &Name, why: Option<Name>) -> Result<(), ChangeError> {
        let found = self.nodes.find_device(uuid).filter(|&device| self.nodes.device(device).configured);
        let device = found.ok_or_else(|| ChangeError::Unknown { name: uuid.clone() })?;
        if self.nodes.set_aside(device, why) {
            self.nodes_changed();
        }
        Ok(())
    }

    /// A run is over, and nobody could say how it went.
    fn lose(&mut self, job: JobIx, message: &Name, now: Timestamp) -> Option<Transition> {
        let run = RunId { job: self.jobs[job].id, attempt: self.jobs[job].lifecycle.attempt };
        let result = RunResult::Lost { message: message.clone() };
        let retry_at = self.retry_at(run, now);
        self.change(job, Event::Ended { attempt: run.attempt, result, at: now, retry_at }, now).ok()
    }

    fn configured_node(&self, name: &Name) -> Result<usize, ChangeError> {
        let found = self.nodes.find_node(name).filter(|&node| self.nodes.all()[node].configured);
        found.ok_or_else(|| ChangeError::Unknown { name: name.clone() })
    }

    /// What was decided before may be decided otherwise now.
    fn nodes_changed(&mut self) {
        self.tree.set_capacity(self.nodes.capacity());
        self.lineup.forget_paces();
        self.look_again();
    }
}
