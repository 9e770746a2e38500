//! Task definitions: the user's document in AWS's shape, and what decisions need of it.

use berth_shapes::ecs;
use serde::{Deserialize, Serialize};

use crate::ids::{DefinitionId, Family};
use crate::needs::TaskNeeds;
use crate::tags::Tags;
use crate::time::UnixMillis;

wire_enum!(
    /// A task definition's status.
    TaskDefinitionStatus {
        /// Usable.
        Active = "ACTIVE",
        /// Deregistered: what runs goes on, nothing new starts.
        Inactive = "INACTIVE",
        /// To be deleted once nothing uses it.
        DeleteInProgress = "DELETE_IN_PROGRESS",
    }
);

/// A revision of a task definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskDefinition {
    /// Family and revision.
    pub id: DefinitionId,
    /// Its status.
    pub status: TaskDefinitionStatus,
    /// When it was registered.
    pub registered_at: UnixMillis,
    /// ARN of who registered it.
    pub registered_by: String,
    /// When it was deregistered.
    pub deregistered_at: Option<UnixMillis>,
    /// When its deletion was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_requested_at: Option<UnixMillis>,
    /// Its tags. ECS shows them beside the definition, never inside.
    pub tags: Tags,
    /// The document with ECS's defaults filled in; without ARN, revision, status and times, which are rendered.
    pub document: ecs::TaskDefinition,
    /// What decisions need of the document.
    pub needs: TaskNeeds,
}

impl TaskDefinition {
    /// As `DescribeTaskDefinition` shows it.
    #[must_use]
    pub fn render(&self, scope: &crate::arn::Scope) -> ecs::TaskDefinition {
        ecs::TaskDefinition {
            task_definition_arn: Some(scope.task_definition(&self.id)),
            revision: Some(i32::try_from(self.id.revision).unwrap_or(i32::MAX)),
            status: Some(self.status.as_str().into()),
            registered_at: Some(self.registered_at.to_wire()),
            registered_by: Some(self.registered_by.clone()),
            deregistered_at: self.deregistered_at.map(UnixMillis::to_wire),
            delete_requested_at: self.delete_requested_at.map(UnixMillis::to_wire),
            ..self.document.clone()
        }
    }
}

/// What is remembered of a family even after its revisions are deleted: revision numbers are never given twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilyCounter {
    /// The family.
    pub family: Family,
    /// The last revision given.
    pub last_revision: u32,
}
