//! What a request may do that is signed with the credentials of a task's role. Roles have no policies here yet, so that is what AWS lets a
//! role do that has none: nothing; but a task may ask for and change its own protection, which agents do for it in its role's name.

use berth_identity::{Identity, RoleSession};
use berth_model::arn::parse_task;
use berth_shapes::ecs::{Operation, Request};

use crate::context::Api;
use crate::failure::Failure;

/// Lets a request through unless a role signed it. `action` as IAM spells it, such as `ecs:ListClusters`.
///
/// # Errors
/// `AccessDeniedException`.
pub(crate) fn authorize(identity: &Identity, action: &str) -> Result<(), Failure> {
    match identity.role_session() {
        None => Ok(()),
        Some(_) => Err(denied(identity.principal_arn(), action)),
    }
}

/// The same for an action of ECS's, with what a task may do for itself.
///
/// # Errors
/// `AccessDeniedException`.
pub(crate) fn authorize_ecs(api: &Api, identity: &Identity, operation: Operation, body: &[u8]) -> Result<(), Failure> {
    match identity.role_session() {
        Some(session) if is_about_itself(api, session, operation, body) => Ok(()),
        Some(_) => Err(denied(identity.principal_arn(), &format!("ecs:{}", operation.name()))),
        None => Ok(()),
    }
}

/// Whether a request is about the protection of the task alone that has the role.
fn is_about_itself(api: &Api, session: &RoleSession, operation: Operation, body: &[u8]) -> bool {
    if !matches!(operation, Operation::GetTaskProtection | Operation::UpdateTaskProtection) {
        return false;
    }
    let (cluster, tasks) = match Request::decode(operation, body) {
        Ok(Request::GetTaskProtection(request)) => (request.cluster, request.tasks),
        Ok(Request::UpdateTaskProtection(request)) => (request.cluster, request.tasks),
        _ => return false,
    };
    let Ok(cluster) = api.cluster_name(cluster.as_deref()) else { return false };
    let is_own = |text: &String| parse_task(api.scope(), &cluster, text).is_ok_and(|id| api.scope().task(&cluster, id) == session.task_arn);
    tasks.is_some_and(|tasks| !tasks.is_empty() && tasks.iter().all(is_own))
}

/// In the words of AWS's JSON services. On what is not told apart: `*`.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html>
fn denied(principal: &str, action: &str) -> Failure {
    Failure::common("AccessDeniedException", 400, format!("{} on resource: * because {}", whose(principal, action), why(action)))
}

/// In EC2's words.
pub(crate) fn denied_by_ec2(principal: &str, action: &str) -> Failure {
    let text = format!("You are not authorized to perform this operation. {} because {}", whose(principal, action), why(action));
    Failure::common("UnauthorizedOperation", 403, text)
}

fn whose(principal: &str, action: &str) -> String {
    format!("User: {principal} is not authorized to perform: {action}")
}

fn why(action: &str) -> String {
    format!("no identity-based policy allows the {action} action")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn awss_words() {
        let who = "arn:aws:sts::000000000000:assumed-role/app/0123";
        assert_eq!(
            denied(who, "ecs:ListClusters").message,
            "User: arn:aws:sts::000000000000:assumed-role/app/0123 is not authorized to perform: ecs:ListClusters on resource: * because no \
             identity-based policy allows the ecs:ListClusters action"
        );
        assert_eq!(
            denied_by_ec2(who, "ec2:DescribeVpcs").message,
            "You are not authorized to perform this operation. User: arn:aws:sts::000000000000:assumed-role/app/0123 is not authorized to \
             perform: ec2:DescribeVpcs because no identity-based policy allows the ec2:DescribeVpcs action"
        );
    }
}
