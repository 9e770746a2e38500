//! Placement constraints and strategies of requests: read and checked whole, before anything changes.

use berth_control::Constraints;
use berth_model::task_definition::TaskDefinition;
use berth_scheduler::placement::{Constraint, Strategy};
use berth_scheduler::query::Expression;
use berth_shapes::ecs;

use crate::failure::Failure;

/// Most constraints of a task: its definition's and those of the request or service together.
const MOST_CONSTRAINTS: usize = 10;
/// Most strategies of a task.
const MOST_STRATEGIES: usize = 5;

/// Reads `placementConstraints`.
pub(crate) fn constraints(known: &Constraints, list: Option<&[ecs::PlacementConstraint]>) -> Result<Vec<Constraint>, Failure> {
    let list = list.unwrap_or_default();
    if list.len() > MOST_CONSTRAINTS {
        return Err(Failure::invalid(format!("placementConstraints can have at most {MOST_CONSTRAINTS} items.")));
    }
    let read =
        |(number, constraint)| known.read(constraint).map_err(|error| Failure::invalid(format!("placementConstraints[{number}].{error}")));
    list.iter().enumerate().map(read).collect()
}

/// The constraints that come with a definition; they were checked when it was registered.
pub(crate) fn of_definition(known: &Constraints, definition: &TaskDefinition) -> Result<Vec<Constraint>, Failure> {
    known
        .of_definition(&definition.document)
        .map_err(|error| Failure::invalid(format!("The placementConstraints of {} cannot be read: {error}", definition.id)))
}

/// Checks the `placementConstraints` of a definition that is about to be registered, of which it may have memberOf alone.
pub(crate) fn check_definition(list: &[ecs::TaskDefinitionPlacementConstraint]) -> Result<(), Failure> {
    if list.len() > MOST_CONSTRAINTS {
        return Err(Failure::client(format!("A task definition can have at most {MOST_CONSTRAINTS} placement constraints.")));
    }
    for (number, constraint) in list.iter().enumerate() {
        let kind = constraint.r#type.as_ref().map_or("", |kind| kind.as_str());
        if kind != "memberOf" {
            return Err(Failure::client(format!("constraint.type '{kind}' is not supported: placementConstraints[{number}].type")));
        }
        let member = format!("placementConstraints[{number}].expression");
        match constraint.expression.as_deref().filter(|text| !text.is_empty()) {
            None => return Err(Failure::invalid(format!("{member} must be specified for a constraint of type memberOf"))),
            Some(text) => Expression::parse(text).map_err(|error| Failure::invalid(format!("{member} is invalid: {error}")))?,
        };
    }
    Ok(())
}

/// A task has at most ten constraints, those of its definition included.
pub(crate) fn check_together(list: &[ecs::PlacementConstraint], definition: &TaskDefinition) -> Result<(), Failure> {
    let own = definition.document.placement_constraints.as_ref().map_or(0, Vec::len);
    if list.len() + own > MOST_CONSTRAINTS {
        return Err(Failure::invalid(format!(
            "A task can have at most {MOST_CONSTRAINTS} placement constraints; {} has {own} of its own: placementConstraints",
            definition.id
        )));
    }
    Ok(())
}

/// Reads `placementStrategy`.
pub(crate) fn strategies(list: Option<&[ecs::PlacementStrategy]>) -> Result<Vec<Strategy>, Failure> {
    let list = list.unwrap_or_default();
    if list.len() > MOST_STRATEGIES {
        return Err(Failure::invalid(format!("placementStrategy can have at most {MOST_STRATEGIES} items.")));
    }
    list.iter()
        .map(|strategy| {
            berth_control::parse_strategy(strategy).ok_or_else(|| {
                let kind = strategy.r#type.as_ref().map_or("", |kind| kind.as_str());
                let field = strategy.field.as_deref().unwrap_or_default();
                Failure::invalid(format!("Invalid placement strategy: type '{kind}', field '{field}'"))
            })
        })
        .collect()
}
