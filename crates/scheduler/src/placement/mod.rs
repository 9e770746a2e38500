//! Which container instance a task goes to.
//!
//! The process that ECS documents: resources, attributes and constraints are binding, strategies are best effort and narrow
//! the choice in order. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement.html>

mod class;
mod index;
mod kinds;
mod level;
pub mod oracle;
mod order;
mod refusal;
mod reservations;
mod shape;
mod shapes;
mod slot;

use std::collections::BTreeSet;
use std::sync::Arc;

use berth_model::container_instance::FARGATE;
use berth_model::ids::{ContainerInstanceId, TaskId};
use berth_model::needs::Demand;

use crate::query::Expression;

pub use index::Index;
pub use refusal::{Refusal, Rule};

/// A binding condition beyond resources and attributes.
#[derive(Debug, Clone, Eq)]
pub enum Constraint {
    /// No two tasks of the group on one container instance.
    DistinctInstance,
    /// Only instances for which the expression holds, when the task is placed.
    MemberOf(Arc<Expression>),
}

impl PartialEq for Constraint {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::DistinctInstance, Self::DistinctInstance) => true,
            // Mostly they were read once and are shared.
            (Self::MemberOf(one), Self::MemberOf(other)) => Arc::ptr_eq(one, other) || one == other,
            _ => false,
        }
    }
}

/// A best-effort preference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Strategy {
    /// Any.
    Random,
    /// Evenly over the values of a field.
    Spread(SpreadField),
    /// On the fullest instance that still fits, by CPU.
    BinpackCpu,
    /// On the fullest instance that still fits, by memory.
    BinpackMemory,
}

/// What `spread` spreads over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpreadField {
    /// `instanceId` or `host`.
    Instance,
    /// `attribute:NAME`.
    Attribute(String),
}

impl Strategy {
    /// Fargate's: on the machine where most memory is free. Over what all machines of an index have in common nothing is spread, and of those
    /// that strategies leave alike the one with most room takes the task.
    #[must_use]
    pub fn roomiest() -> Vec<Self> {
        vec![Self::Spread(SpreadField::Attribute(FARGATE.to_owned()))]
    }

    /// What a service without a strategy gets: over zones, then over instances.
    #[must_use]
    pub fn service_default() -> Vec<Self> {
        vec![Self::Spread(SpreadField::Attribute("ecs.availability-zone".to_owned())), Self::Spread(SpreadField::Instance)]
    }
}

/// Tasks of one kind to place.
#[derive(Debug, Clone)]
pub struct PlaceRequest<'a> {
    /// Their ids; one task each.
    pub tasks: &'a [TaskId],
    /// What each takes.
    pub demand: &'a Demand,
    /// Attributes that the instance must have.
    pub attributes: &'a BTreeSet<String>,
    /// Their group: spread and distinctInstance count its tasks.
    pub group: &'a str,
    /// Binding conditions.
    pub constraints: &'a [Constraint],
    /// Only instances of this capacity provider, if there is one.
    pub capacity_provider: Option<&'a str>,
    /// Preferences, in order; none means random.
    pub strategies: &'a [Strategy],
    /// Randomness for [`Strategy::Random`].
    pub seed: u64,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Placement {
    /// Placed tasks with their instances, in the order of the request; the rest found no place.
    pub placed: Vec<(TaskId, ContainerInstanceId)>,
    /// Why each instance refused the first task that found no place; empty if all were placed.
    pub refusals: Vec<Refusal>,
}
