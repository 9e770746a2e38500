//! The credentials of tasks' roles. All of them follow from the server's key, the task's record and the time: nothing is kept, every server
//! gives out the same, and a restart changes nothing. Why so: docs/decisions/0056-role-credentials.md.

use std::time::Duration;

use berth_acs::messages::{self as acs, IamRoleCredentialsMessage, RoleCredentials, RoleType};
use berth_identity::role_sessions::{RolePurpose, Term, term};
use berth_identity::{RoleKeys, RoleSession};
use berth_model::arn::Scope;
use berth_model::task::Task;
use berth_model::task_definition::TaskDefinition;
use berth_model::time::UnixMillis;
use berth_shapes::timestamp::Timestamp;

/// Issues credentials.
pub struct Issuer {
    keys: RoleKeys,
    /// Milliseconds from issue to end.
    life: i64,
}

/// The ARNs of a task's roles.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Roles {
    /// `taskRoleArn`.
    pub task: Option<String>,
    /// `executionRoleArn`.
    pub execution: Option<String>,
}

impl Roles {
    /// Those of its RunTask, else those of its definition. ECS takes a role's name for its ARN.
    /// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RegisterTaskDefinition.html>
    #[must_use]
    pub fn of(scope: &Scope, task: &Task, definition: &TaskDefinition) -> Self {
        let overrides = task.overrides.as_deref();
        let role = |own: Option<&String>, defined: Option<&String>| {
            let role = own.filter(|role| !role.is_empty()).or(defined).filter(|role| !role.is_empty())?;
            let is_arn = role.starts_with("arn:");
            Some(if is_arn { role.clone() } else { format!("arn:aws:iam::{}:role/{role}", scope.account) })
        };
        let document = &definition.document;
        Self {
            task: role(overrides.and_then(|own| own.task_role_arn.as_ref()), document.task_role_arn.as_ref()),
            execution: role(overrides.and_then(|own| own.execution_role_arn.as_ref()), document.execution_role_arn.as_ref()),
        }
    }
}

impl Issuer {
    /// An issuer of credentials that are good for `life`, in whole seconds.
    #[must_use]
    pub fn new(keys: RoleKeys, life: Duration) -> Self {
        Self { keys, life: i64::try_from(life.as_secs()).unwrap_or(i64::MAX / 1_000_000).saturating_mul(1000) }
    }

    /// Gives a task that is about to be sent the credentials of now; when the next are due, if it has any role.
    pub fn equip(
        &self,
        sent: &mut acs::Task,
        scope: &Scope,
        task: &Task,
        definition: &TaskDefinition,
        now: UnixMillis,
    ) -> Option<UnixMillis> {
        let roles = Roles::of(scope, task, definition);
        let term = self.term(task, now);
        sent.role_credentials = self.issue(roles.task, &sent.arn, RolePurpose::Task, term);
        sent.execution_role_credentials = self.issue(roles.execution, &sent.arn, RolePurpose::Execution, term);
        (sent.role_credentials.is_some() || sent.execution_role_credentials.is_some()).then_some(UnixMillis(term.renewed_at))
    }

    /// The credentials of now in messages of their own, and when the next are due; no messages of a task without roles.
    pub fn messages(
        &self,
        scope: &Scope,
        task: &Task,
        definition: &TaskDefinition,
        now: UnixMillis,
    ) -> (Vec<IamRoleCredentialsMessage>, UnixMillis) {
        let roles = Roles::of(scope, task, definition);
        let (arn, term) = (scope.task(&task.cluster, task.id), self.term(task, now));
        let each = [
            (RoleType::TaskApplication, self.issue(roles.task, &arn, RolePurpose::Task, term)),
            (RoleType::TaskExecution, self.issue(roles.execution, &arn, RolePurpose::Execution, term)),
        ];
        let message = |(role_type, credentials): (_, Option<_>)| {
            Some(IamRoleCredentialsMessage {
                task_arn: arn.clone(),
                task_cluster_arn: scope.cluster(&task.cluster),
                role_type,
                role_credentials: credentials?,
                ..Default::default()
            })
        };
        (each.into_iter().filter_map(message).collect(), UnixMillis(term.renewed_at))
    }

    /// Tasks that were started together are spread by their ids, which are random.
    fn term(&self, task: &Task, now: UnixMillis) -> Term {
        term(task.created_at.0, self.life, task.id.0 as u64, now.0)
    }

    fn issue(&self, role: Option<String>, task_arn: &str, purpose: RolePurpose, term: Term) -> Option<RoleCredentials> {
        let role_arn = role?;
        let (issued_at, expires_at) = (term.issued_at.div_euclid(1000), term.expires_at.div_euclid(1000));
        let session = RoleSession { role_arn: role_arn.clone(), task_arn: task_arn.to_owned(), issued_at, expires_at };
        let Some(key) = self.keys.issue(&session) else {
            tracing::warn!(task = task_arn, "a role's ARN is longer than any of AWS's: the task gets no credentials of it");
            return None;
        };
        Some(RoleCredentials {
            credentials_id: self.keys.credentials_id(task_arn, purpose),
            role_arn,
            access_key_id: key.id,
            secret_access_key: key.secret.expose().to_owned().into(),
            session_token: key.session_token.map(|token| token.expose().to_owned()).unwrap_or_default().into(),
            expiration: Timestamp::from_millis(expires_at.saturating_mul(1000)).render_iso8601(),
            credential_scope: String::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use berth_identity::keys::Secret;
    use berth_model::ids::{ClusterName, ContainerInstanceId, DefinitionId, Family, TaskId};
    use berth_model::needs::TaskNeeds;
    use berth_model::tags::Tags;
    use berth_model::task_definition::TaskDefinitionStatus;
    use serde_json::{Value, json};

    use super::*;

    const LIFE: i64 = 21_600_000;

    fn scope() -> Scope {
        Scope { region: "eu-west-1".into(), account: "111122223333".into() }
    }

    fn task(id: u128, document: Value, overrides: Option<Value>) -> (Task, TaskDefinition) {
        let definition = DefinitionId { family: Family::parse("web").unwrap(), revision: 1 };
        let cluster = ClusterName::parse("c").unwrap();
        let task = Task {
            overrides: overrides.map(|overrides| Box::new(serde_json::from_value(overrides).unwrap())),
            ..Task::placed(TaskId(id), cluster, definition.clone(), "family:web".into(), ContainerInstanceId(1), UnixMillis(1_000_000))
        };
        let definition = TaskDefinition {
            id: definition,
            status: TaskDefinitionStatus::Active,
            registered_at: UnixMillis(0),
            registered_by: String::new(),
            deregistered_at: None,
            delete_requested_at: None,
            tags: Tags::new(),
            document: serde_json::from_value(document).unwrap(),
            needs: TaskNeeds::default(),
        };
        (task, definition)
    }

    fn issuer() -> Issuer {
        Issuer::new(RoleKeys::new(&Secret::new("the root's")), Duration::from_millis(LIFE as u64))
    }

    #[test]
    fn a_roles_name_does_for_its_arn_and_an_override_comes_first() {
        let roles = |document, overrides| {
            let (task, definition) = task(1, document, overrides);
            let Roles { task, execution } = Roles::of(&scope(), &task, &definition);
            (task.unwrap_or_default(), execution.unwrap_or_default())
        };
        let arn = "arn:aws:iam::444455556666:role/a/b";
        let pair = |task: &str, execution: &str| (task.to_owned(), execution.to_owned());
        assert_eq!(roles(json!({}), None), pair("", ""));
        assert_eq!(roles(json!({"taskRoleArn": arn, "executionRoleArn": ""}), Some(json!({}))), pair(arn, ""));
        assert_eq!(roles(json!({"taskRoleArn": "app"}), None), pair("arn:aws:iam::111122223333:role/app", ""));
        let overrides = json!({"taskRoleArn": arn, "executionRoleArn": arn});
        assert_eq!(roles(json!({"taskRoleArn": "app", "executionRoleArn": "x"}), Some(overrides)), pair(arn, arn));
    }

    #[test]
    fn a_payload_and_messages_of_the_same_moment_say_the_same() {
        let (record, definition) = task(7, json!({"taskRoleArn": "app", "executionRoleArn": "execution"}), None);
        let arn = scope().task(&record.cluster, record.id);
        let at = |now: i64| {
            let mut sent = acs::Task { arn: arn.clone(), ..Default::default() };
            let due = issuer().equip(&mut sent, &scope(), &record, &definition, UnixMillis(now)).unwrap();
            let (messages, also_due) = issuer().messages(&scope(), &record, &definition, UnixMillis(now));
            assert_eq!(due, also_due);
            let own: Vec<_> = messages.iter().map(|message| (message.role_type, Some(message.role_credentials.clone()))).collect();
            let expected =
                [(RoleType::TaskApplication, sent.role_credentials.clone()), (RoleType::TaskExecution, sent.execution_role_credentials)];
            assert_eq!(own, expected);
            assert!(messages.iter().all(|message| message.task_arn == arn && !message.task_cluster_arn.is_empty()));
            (sent.role_credentials.unwrap(), due)
        };
        let (first, due) = at(1_000_000);
        assert_eq!(first.expiration, "1970-01-01T06:16:40Z", "six hours after the task was made");
        assert_eq!(at(due.0 - 1), (first.clone(), due));
        let (second, next) = at(due.0);
        assert!(next > due && second.credentials_id == first.credentials_id && second.session_token != first.session_token);
        assert!((LIFE / 4..=LIFE * 3 / 8).contains(&(1_000_000 + LIFE - due.0)), "while the first are good yet");
    }

    #[test]
    fn tasks_that_began_together_are_renewed_apart() {
        let due = |id: u128| {
            let (record, definition) = task(id, json!({"taskRoleArn": "app"}), None);
            issuer().messages(&scope(), &record, &definition, record.created_at).1
        };
        let moments: std::collections::BTreeSet<_> = (1..=100).map(|number| due(number * 0x9e37_79b9_7f4a_7c15)).collect();
        assert!(moments.len() > 90, "{}", moments.len());
        let (without, definition) = task(1, json!({}), None);
        assert!(issuer().messages(&scope(), &without, &definition, UnixMillis(0)).0.is_empty());
    }
}
