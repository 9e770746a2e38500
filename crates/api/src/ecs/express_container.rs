//! An Express service's primary container: merged, checked, and to and from the container of a task definition.

use std::collections::BTreeMap;

use berth_model::express_service::MAIN_CONTAINER;
use berth_shapes::ecs::{
    self, ContainerDefinition, ExpressGatewayContainer, ExpressGatewayRepositoryCredentials, ExpressGatewayServiceAwsLogsConfiguration,
};

use crate::failure::Failure;

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ExpressGatewayContainer.html>
const DEFAULT_PORT: i32 = 80;
/// Longest name of a log group. <https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_CreateLogGroup.html>
const MAX_LOG_GROUP: usize = 512;

/// What is given over what was; absent members stay, empty ones go. `None` if there was nothing and is nothing.
pub(crate) fn merged(given: Option<&ExpressGatewayContainer>, before: Option<&ExpressGatewayContainer>) -> Option<ExpressGatewayContainer> {
    let Some(given) = given else { return before.cloned() };
    let before = before.cloned().unwrap_or_default();
    let credentials = given.repository_credentials.clone().or(before.repository_credentials);
    Some(ExpressGatewayContainer {
        image: given.image.clone().or(before.image),
        container_port: given.container_port.or(before.container_port).or(Some(DEFAULT_PORT)),
        aws_logs_configuration: given.aws_logs_configuration.clone().or(before.aws_logs_configuration),
        repository_credentials: credentials.filter(|credentials| credentials.credentials_parameter.as_ref().is_some_and(|p| !p.is_empty())),
        command: given.command.clone().or(before.command).filter(|list| !list.is_empty()),
        environment: given.environment.clone().or(before.environment).filter(|list| !list.is_empty()),
        secrets: given.secrets.clone().or(before.secrets).filter(|list| !list.is_empty()),
    })
}

/// Refuses what could not run.
pub(crate) fn check(container: &ExpressGatewayContainer) -> Result<(), Failure> {
    let wrong = |text: &str| Err(Failure::invalid(text));
    let image = container.image.as_deref().unwrap_or_default();
    if image.is_empty() || !image.bytes().all(|b| b.is_ascii_graphic()) {
        return wrong("The image must be named, without spaces: primaryContainer.image");
    }
    if !container.container_port.is_some_and(|port| (1..=65_535).contains(&port)) {
        return wrong("The container port must be between 1 and 65535: primaryContainer.containerPort");
    }
    if let Some(logs) = &container.aws_logs_configuration {
        let group = logs.log_group.as_deref().unwrap_or_default();
        let legal = group.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/#".contains(&b));
        if !legal || !(1..=MAX_LOG_GROUP).contains(&group.len()) {
            return wrong("A log group's name has 1 to 512 letters, digits, and ._-/#: primaryContainer.awsLogsConfiguration.logGroup");
        }
        let prefix = logs.log_stream_prefix.as_deref().unwrap_or_default();
        if !(1..=MAX_LOG_GROUP).contains(&prefix.len()) || prefix.contains([':', '*']) {
            return wrong(
                "A log stream's prefix has 1 to 512 characters, but no colon or asterisk: primaryContainer.awsLogsConfiguration.logStreamPrefix",
            );
        }
    }
    if container.environment.iter().flatten().any(|pair| pair.name.as_deref().unwrap_or_default().is_empty()) {
        return wrong("Environment variable name must not be null or empty: primaryContainer.environment");
    }
    for secret in container.secrets.iter().flatten() {
        if secret.name.as_deref().unwrap_or_default().is_empty() || secret.value_from.as_deref().unwrap_or_default().is_empty() {
            return wrong("A secret's name and valueFrom must not be empty: primaryContainer.secrets");
        }
    }
    Ok(())
}

/// The container of the task definition that ECS makes.
pub(crate) fn definition(region: &str, main: ExpressGatewayContainer) -> ContainerDefinition {
    let port = main.container_port.unwrap_or(DEFAULT_PORT);
    let options = |logs: ExpressGatewayServiceAwsLogsConfiguration| {
        BTreeMap::from([
            ("awslogs-group".to_owned(), logs.log_group.unwrap_or_default()),
            ("awslogs-region".to_owned(), region.to_owned()),
            ("awslogs-stream-prefix".to_owned(), logs.log_stream_prefix.unwrap_or_default()),
        ])
    };
    let log_configuration = main.aws_logs_configuration.map(|logs| ecs::LogConfiguration {
        log_driver: Some("awslogs".into()),
        options: Some(options(logs).into_iter().collect()),
        ..Default::default()
    });
    ContainerDefinition {
        name: Some(MAIN_CONTAINER.to_owned()),
        image: main.image,
        essential: Some(true),
        port_mappings: Some(vec![ecs::PortMapping {
            container_port: Some(port),
            host_port: Some(port),
            protocol: Some("tcp".into()),
            name: Some(format!("main-{port}-tcp")),
            app_protocol: Some("http".into()),
            ..Default::default()
        }]),
        log_configuration,
        repository_credentials: main
            .repository_credentials
            .map(|credentials| ecs::RepositoryCredentials { credentials_parameter: credentials.credentials_parameter }),
        command: main.command,
        environment: main.environment,
        secrets: main.secrets,
        ..Default::default()
    }
}

/// The primary container as a task definition has it; `None` unless it has just one port, a named one of TCP.
pub(crate) fn of_definition(container: &ContainerDefinition) -> Option<ExpressGatewayContainer> {
    let [mapping] = container.port_mappings.as_deref()? else { return None };
    let is_tcp = mapping.protocol.as_ref().is_none_or(|protocol| protocol.as_str() == "tcp");
    let port = mapping.container_port.filter(|_| is_tcp && mapping.name.as_ref().is_some_and(|name| !name.is_empty()))?;
    let logs = container.log_configuration.as_ref().filter(|logs| logs.log_driver.as_ref().is_some_and(|d| d.as_str() == "awslogs"));
    let option = |name: &str| logs.and_then(|logs| logs.options.as_ref()).and_then(|options| options.get(name).cloned());
    let group = option("awslogs-group");
    Some(ExpressGatewayContainer {
        image: container.image.clone(),
        container_port: Some(port),
        aws_logs_configuration: group.map(|group| ExpressGatewayServiceAwsLogsConfiguration {
            log_group: Some(group),
            log_stream_prefix: option("awslogs-stream-prefix"),
        }),
        repository_credentials: container
            .repository_credentials
            .as_ref()
            .map(|credentials| ExpressGatewayRepositoryCredentials { credentials_parameter: credentials.credentials_parameter.clone() }),
        command: container.command.clone().filter(|list| !list.is_empty()),
        environment: container.environment.clone().filter(|list| !list.is_empty()),
        secrets: container.secrets.clone().filter(|list| !list.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn main() -> ExpressGatewayContainer {
        let logs = ExpressGatewayServiceAwsLogsConfiguration { log_group: Some("/app".into()), log_stream_prefix: Some("ecs".into()) };
        let given = ExpressGatewayContainer {
            image: Some("web:1".into()),
            aws_logs_configuration: Some(logs),
            command: Some(vec!["serve".into()]),
            ..Default::default()
        };
        merged(Some(&given), None).unwrap()
    }

    #[test]
    fn what_becomes_a_definition_comes_back_out_of_it() {
        check(&main()).unwrap();
        assert_eq!(of_definition(&definition("us-east-1", main())), Some(main()));
    }

    #[test]
    fn absent_members_stay_and_empty_ones_go() {
        let update = ExpressGatewayContainer { image: Some("web:2".into()), command: Some(Vec::new()), ..Default::default() };
        let expected = ExpressGatewayContainer { image: Some("web:2".into()), command: None, ..main() };
        assert_eq!(merged(Some(&update), Some(&main())), Some(expected));
        assert_eq!(merged(None, Some(&main())), Some(main()));
    }

    #[test]
    fn a_definition_needs_one_named_port_of_tcp() {
        let mut other = definition("us-east-1", main());
        let mapping = other.port_mappings.clone().unwrap().remove(0);
        for mappings in [
            vec![],
            vec![mapping.clone(), mapping.clone()],
            vec![ecs::PortMapping { name: None, ..mapping.clone() }],
            vec![ecs::PortMapping { protocol: Some("udp".into()), ..mapping }],
        ] {
            other.port_mappings = Some(mappings);
            assert_eq!(of_definition(&other), None, "{:?}", other.port_mappings);
        }
    }
}
