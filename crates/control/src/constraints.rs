//! Placement constraints as placement wants them: read once, kept compiled while they are in use, shared by whoever asks. It must never
//! let a constraint pass that it cannot read.

use std::collections::HashMap;
use std::sync::Arc;

use berth_scheduler::placement::Constraint;
use berth_scheduler::query::{Expression, QueryError};
use berth_shapes::ecs;
use parking_lot::Mutex;

/// Expressions kept at most. A fleet has a few dozen; what is beyond is read again.
const MOST_KEPT: usize = 512;

/// Why a constraint is none; its text begins with the member at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// Its type is none of ECS's.
    #[error("type must be distinctInstance or memberOf")]
    Kind,
    /// A memberOf without an expression.
    #[error("expression must be specified for a constraint of type memberOf")]
    NoExpression,
    /// A distinctInstance with one.
    #[error("expression must not be specified for a constraint of type distinctInstance")]
    Unwanted,
    /// The expression is none.
    #[error("expression is invalid: {0}")]
    Expression(#[from] QueryError),
}

/// The expressions in use; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Constraints {
    known: Arc<Mutex<HashMap<Box<str>, Arc<Expression>>>>,
}

impl Constraints {
    /// An expression, compiled if it is not known.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn expression(&self, text: &str) -> Result<Arc<Expression>, QueryError> {
        if let Some(known) = self.known.lock().get(text) {
            return Ok(Arc::clone(known));
        }
        let fresh = Arc::new(Expression::parse(text)?);
        let mut known = self.known.lock();
        if known.len() >= MOST_KEPT {
            // All of them at once, which is rare, instead of a list by age, which costs with each use.
            known.clear();
        }
        known.insert(text.into(), Arc::clone(&fresh));
        Ok(fresh)
    }

    /// Reads a constraint of a request or a service.
    ///
    /// # Errors
    /// [`ConstraintError`].
    pub fn read(&self, constraint: &ecs::PlacementConstraint) -> Result<Constraint, ConstraintError> {
        let expression = constraint.expression.as_deref().filter(|text| !text.is_empty());
        match (constraint.r#type.as_ref().map(ecs::PlacementConstraintType::as_str), expression) {
            (Some("distinctInstance"), None) => Ok(Constraint::DistinctInstance),
            (Some("distinctInstance"), Some(_)) => Err(ConstraintError::Unwanted),
            (Some("memberOf"), Some(text)) => Ok(Constraint::MemberOf(self.expression(text)?)),
            (Some("memberOf"), None) => Err(ConstraintError::NoExpression),
            _ => Err(ConstraintError::Kind),
        }
    }

    /// The constraints of a task definition: its own, and the processor and system that its `runtimePlatform` names. An instance that says
    /// nothing of its own is not refused.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RuntimePlatform.html>
    ///
    /// # Errors
    /// [`ConstraintError`].
    pub fn of_definition(&self, document: &ecs::TaskDefinition) -> Result<Vec<Constraint>, ConstraintError> {
        let list = document.placement_constraints.as_deref().unwrap_or_default();
        let read = |one: &ecs::TaskDefinitionPlacementConstraint| match one.expression.as_deref().filter(|text| !text.is_empty()) {
            Some(text) => Ok(Constraint::MemberOf(self.expression(text)?)),
            None => Err(ConstraintError::NoExpression),
        };
        let platform = document.runtime_platform.as_ref();
        let processor = platform.and_then(|platform| platform.cpu_architecture.as_ref()).map(|name| name.as_str().to_ascii_lowercase());
        // LINUX, or WINDOWS_SERVER_2022_CORE and its like.
        let system = platform.and_then(|platform| platform.operating_system_family.as_ref());
        let system = system.map(|name| name.as_str().split('_').next().unwrap_or_default().to_ascii_lowercase());
        let says = |(name, value): (&str, Option<String>)| {
            let value = value?;
            Some(Ok(Constraint::MemberOf(self.expression(&format!("attribute:{name} == {value} or attribute:{name} !exists")).ok()?)))
        };
        let of_platform = [("ecs.cpu-architecture", processor), ("ecs.os-type", system)].into_iter().filter_map(says);
        list.iter().map(read).chain(of_platform).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_not_read_again_and_what_is_kept_is_bounded() {
        let constraints = Constraints::default();
        let first = constraints.expression("attribute:a == b").unwrap();
        assert!(Arc::ptr_eq(&first, &constraints.clone().expression("attribute:a == b").unwrap()));
        assert_eq!(constraints.expression("attribute:a = b").unwrap_err().column, 13);
        for number in 0..MOST_KEPT * 2 {
            constraints.expression(&format!("attribute:a == {number}")).unwrap();
        }
        assert!(constraints.known.lock().len() <= MOST_KEPT);
    }

    #[test]
    fn a_runtime_platform_is_a_constraint() {
        let read = |json: serde_json::Value| {
            let document: ecs::TaskDefinition = serde_json::from_value(json).unwrap();
            let all = Constraints::default().of_definition(&document).unwrap();
            let texts =
                all.iter().map(|one| if let Constraint::MemberOf(expression) = one { expression.to_string() } else { String::new() });
            texts.collect::<Vec<_>>()
        };
        assert_eq!(read(serde_json::json!({})), [""; 0]);
        let windows = read(serde_json::json!({"placementConstraints": [{"type": "memberOf", "expression": "attribute:a exists"}],
            "runtimePlatform": {"cpuArchitecture": "ARM64", "operatingSystemFamily": "WINDOWS_SERVER_2022_CORE"}}));
        assert_eq!(windows.len(), 3);
        assert!(windows[1].contains("ecs.cpu-architecture == arm64") && windows[2].contains("ecs.os-type == windows"), "{windows:?}");
    }

    #[test]
    fn each_type_has_its_members() {
        let read = |json: serde_json::Value| {
            Constraints::default().read(&serde_json::from_value(json).unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!(read(serde_json::json!({"type": "distinctInstance"})), Ok(Constraint::DistinctInstance));
        for (json, named) in [
            (serde_json::json!({}), "type"),
            (serde_json::json!({"type": "near"}), "type"),
            (serde_json::json!({"type": "distinctInstance", "expression": "attribute:a exists"}), "must not be specified"),
            (serde_json::json!({"type": "memberOf"}), "must be specified"),
            (serde_json::json!({"type": "memberOf", "expression": ""}), "must be specified"),
            (serde_json::json!({"type": "memberOf", "expression": "attribute:a"}), "column 12"),
        ] {
            assert!(read(json.clone()).unwrap_err().contains(named), "{json}");
        }
    }
}
