//! What an agent fetches by itself, and is only told where: secrets and registry logins. Nothing secret passes through here.

use berth_acs::messages::{Container, EcrAuth, RegistryAuthentication, Secret, SecretsManagerAuth, Task};
use berth_model::arn::Scope;
use berth_shapes::ecs;

/// A container's secrets: environment variables, and options of its log driver.
pub(super) fn secrets(scope: &Scope, defined: &ecs::ContainerDefinition) -> Vec<Secret> {
    let options = defined.log_configuration.as_ref().and_then(|log| log.secret_options.as_deref()).unwrap_or_default();
    let variables = defined.secrets.iter().flatten().map(|one| secret(scope, one, "ENVIRONMENT_VARIABLE", "CONTAINER"));
    // Of the type of a variable, the official agent would set it as one, whatever its target.
    variables.chain(options.iter().map(|one| secret(scope, one, "BOOTSTRAP", "LOG_DRIVER"))).collect()
}

/// One secret. `valueFrom` is an ARN of Secrets Manager or of a parameter, or a parameter's name in this region.
fn secret(scope: &Scope, one: &ecs::Secret, kind: &str, target: &str) -> Secret {
    let value_from = one.value_from.clone().unwrap_or_default();
    let (service, region) = place(&value_from).unwrap_or(("ssm", ""));
    Secret {
        name: one.name.clone().unwrap_or_default(),
        region: or_own(scope, region),
        provider: if service == "secretsmanager" { "asm" } else { "ssm" }.to_owned(),
        kind: kind.to_owned(),
        target: target.to_owned(),
        value_from,
        ..Default::default()
    }
}

/// How to log in to an image's registry: with a secret if the definition names one, with ECR's tokens if the registry is ECR.
pub(super) fn registry_login(scope: &Scope, image: &str, named: Option<&ecs::RepositoryCredentials>) -> Option<RegistryAuthentication> {
    if let Some(parameter) = named.and_then(|credentials| credentials.credentials_parameter.clone()) {
        let region = or_own(scope, place(&parameter).map_or("", |(_, region)| region));
        return Some(RegistryAuthentication {
            kind: "asm".to_owned(),
            asm_auth_data: Some(SecretsManagerAuth { credentials_parameter: parameter, region }),
            ecr_auth_data: None,
        });
    }
    let (account, region) = ecr(image)?;
    Some(RegistryAuthentication {
        kind: "ecr".to_owned(),
        ecr_auth_data: Some(EcrAuth { registry_id: account.to_owned(), region: region.to_owned(), ..Default::default() }),
        asm_auth_data: None,
    })
}

/// Why a task would wait for ever on the official agent, if it would: that fetches some things only with credentials of the task's
/// execution role, and does not even begin without them.
pub(super) fn unmet(task: &Task) -> Option<String> {
    if task.execution_role_credentials.is_some() {
        return None;
    }
    let member = |container: &Container| {
        let is_secret = |login: &RegistryAuthentication| login.kind == "asm";
        let members = [
            (!container.secrets.is_empty(), "secrets"),
            (!container.environment_files.is_empty(), "environmentFiles"),
            (container.registry_authentication.as_ref().is_some_and(is_secret), "repositoryCredentials"),
        ];
        members.into_iter().find(|(is_set, _)| *is_set).map(|(_, member)| member)
    };
    let (container, member) = task.containers.iter().find_map(|container| Some((&container.name, member(container)?)))?;
    Some(format!(
        "ResourceInitializationError: {member} of container {container} are fetched with credentials of the task's execution role, \
         and neither the task nor its definition names one: executionRoleArn"
    ))
}

/// Service and region of an ARN.
fn place(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.strip_prefix("arn:")?.splitn(5, ':').skip(1);
    Some((parts.next()?, parts.next()?))
}

fn or_own(scope: &Scope, region: &str) -> String {
    if region.is_empty() { scope.region.to_string() } else { region.to_owned() }
}

/// Account and region of a private ECR registry: `ACCOUNT.dkr.ecr.REGION.amazonaws.com`, or `ACCOUNT.dkr-ecr.REGION.on.aws`.
fn ecr(image: &str) -> Option<(&str, &str)> {
    let (host, _) = image.split_once('/')?;
    let labels: Vec<&str> = host.split('.').collect();
    let (account, region) = match labels.as_slice() {
        [account, "dkr", "ecr" | "ecr-fips", region, "amazonaws", "com"]
        | [account, "dkr", "ecr" | "ecr-fips", region, "amazonaws", "com", "cn"]
        | [account, "dkr-ecr" | "dkr-ecr-fips", region, "on", "aws"] => (*account, *region),
        _ => return None,
    };
    (account.len() == 12 && account.bytes().all(|digit| digit.is_ascii_digit())).then_some((account, region))
}
