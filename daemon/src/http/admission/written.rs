//! Where in a job, as it was sent, stands what its tasks ask for: what is refused by the core is told at the place where it was written.
//!
//! Invariants: of a job in the short form, and for what a task takes from its job, that is at the top; else it is at the task. A job in the
//! short form, which most are, costs nothing.

use std::sync::Arc;

use api::{JobSpec, NodeExpression, NodeSelector, Resources};
use scheduler_core::job::Shape;

use crate::backend::Refused;
use crate::http::problem::ApiError;

/// What a job, or one of its tasks, says itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Said {
    resources: bool,
    nodes: bool,
}

impl Said {
    const fn new(
        resources: Option<&Resources>,
        selector: Option<&NodeSelector>,
        expressions: Option<&Vec<NodeExpression>>,
        terms: Option<&Vec<Vec<NodeExpression>>>,
    ) -> Self {
        Self { resources: resources.is_some(), nodes: selector.is_some() || expressions.is_some() || terms.is_some() }
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    job: Said,
    /// Empty in the short form.
    tasks: Vec<Said>,
}

impl Written {
    /// Of a job that is not completed yet.
    pub fn of(spec: &JobSpec) -> Self {
        let job = Said::new(
            spec.resources.as_ref(),
            spec.node_selector.as_ref(),
            spec.node_expressions.as_ref(),
            spec.node_terms.as_ref(),
        );
        let tasks = spec.tasks.iter();
        let of = tasks.map(|task| {
            Said::new(
                task.resources.as_ref(),
                task.node_selector.as_ref(),
                task.node_expressions.as_ref(),
                task.node_terms.as_ref(),
            )
        });
        Self { job, tasks: of.collect() }
    }

    /// Which task to look at, where the core refuses the job of this shape for what a task says itself.
    fn task(&self, refused: &Refused, shape: &Shape) -> Option<usize> {
        let name = refused.task()?;
        let at = shape.tasks.iter().position(|group| group.name == *name)?;
        let own = self.tasks.get(at)?;
        let from_job = match refused {
            Refused::NoNode { .. } | Refused::NoNodeForAll { .. } => self.job.nodes && !own.nodes,
            _ => self.job.resources && !own.resources,
        };
        (!from_job).then_some(at)
    }
}

/// What is kept of a job while the core decides on it, to say where a refusal belongs.
#[derive(Clone, Debug)]
pub struct Sent {
    written: Written,
    shape: Arc<Shape>,
}

impl Sent {
    /// As it was written, and what became of it.
    pub fn new(written: Written, shape: &Arc<Shape>) -> Self {
        Self { written, shape: Arc::clone(shape) }
    }

    /// The error of a refusal, at the place where the job says what is refused.
    #[must_use]
    pub fn place(&self, refused: &Refused, error: ApiError) -> ApiError {
        match self.written.task(refused, &self.shape) {
            Some(at) => error.under(&format!("tasks[{at}]")),
            None => error,
        }
    }
}
