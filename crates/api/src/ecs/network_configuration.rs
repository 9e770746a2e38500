//! `networkConfiguration`: read, and checked against the task definition and the VPC model.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_AwsVpcConfiguration.html>

use std::collections::BTreeSet;

use berth_model::task::LaunchType;
use berth_model::task_definition::TaskDefinition;
use berth_model::task_interface::{AwsvpcConfiguration, MAX_SUBNETS};
use berth_model::vpc::security_group::MAX_GROUPS_OF_INTERFACE;
use berth_model::vpc::{SecurityGroupId, SubnetId, VpcId};
use berth_shapes::ecs;
use berth_store::State;

use crate::failure::Failure;

/// Where tasks of this definition get their interfaces; none in the other network modes, which can have no such configuration.
pub(crate) fn read(
    state: &State,
    definition: &TaskDefinition,
    launch_type: LaunchType,
    given: Option<&ecs::NetworkConfiguration>,
) -> Result<Option<AwsvpcConfiguration>, Failure> {
    let given = given.and_then(|given| given.awsvpc_configuration.as_ref());
    let Some(given) = given else { return fits(definition, None).map(|()| None) };
    let configuration = checked(state, launch_type, given)?;
    fits(definition, Some(&configuration))?;
    Ok(Some(configuration))
}

/// Says whether tasks of this definition have interfaces exactly where there is a configuration for them.
pub(crate) fn fits(definition: &TaskDefinition, configuration: Option<&AwsvpcConfiguration>) -> Result<(), Failure> {
    let has_interfaces = definition.document.network_mode.as_ref().is_some_and(|mode| mode.as_str() == "awsvpc");
    match (has_interfaces, configuration) {
        (true, None) => Err(Failure::invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")),
        (false, Some(_)) => Err(Failure::invalid("Network Configuration is not valid for the given networkMode of this task definition.")),
        _ => Ok(()),
    }
}

/// Reads a configuration whose task definition is not known yet.
pub(crate) fn checked(state: &State, launch_type: LaunchType, given: &ecs::AwsVpcConfiguration) -> Result<AwsvpcConfiguration, Failure> {
    let subnets = given.subnets.as_deref().unwrap_or_default();
    let groups = given.security_groups.as_deref().unwrap_or_default();
    if subnets.is_empty() {
        return Err(Failure::invalid("subnets can not be empty."));
    }
    if subnets.len() > MAX_SUBNETS {
        return Err(Failure::invalid(format!("subnets can have at most {MAX_SUBNETS} items.")));
    }
    if groups.len() > MAX_GROUPS_OF_INTERFACE {
        return Err(Failure::invalid(format!("securityGroups can have at most {MAX_GROUPS_OF_INTERFACE} items.")));
    }
    let assign_public_ip = match given.assign_public_ip.as_ref().map(ecs::AssignPublicIp::as_str) {
        None | Some("DISABLED") => false,
        Some("ENABLED") if launch_type == LaunchType::Fargate => true,
        Some("ENABLED") => {
            return Err(Failure::invalid("Assign public IP is not supported for this launch type."));
        }
        Some(other) => return Err(Failure::invalid(format!("assignPublicIp must be ENABLED or DISABLED, not {other}."))),
    };
    let resources = state.vpc_resources();
    let mut vpcs = BTreeSet::<VpcId>::new();
    let mut read = AwsvpcConfiguration { subnets: Vec::new(), security_groups: Vec::new(), assign_public_ip };
    for text in subnets {
        let subnet = text.parse::<SubnetId>().ok().and_then(|id| resources.subnet(id));
        let subnet = subnet.ok_or_else(|| Failure::invalid(format!("The subnet ID '{}' does not exist", clip(text))))?;
        vpcs.insert(subnet.vpc);
        read.subnets.push(subnet.id);
    }
    if vpcs.len() > 1 {
        return Err(Failure::invalid("All subnets must belong to the same VPC: subnets"));
    }
    for text in groups {
        let group = text.parse::<SecurityGroupId>().ok().and_then(|id| resources.group(id));
        let group = group.ok_or_else(|| Failure::invalid(format!("The security group '{}' does not exist", clip(text))))?;
        if !vpcs.contains(&group.vpc) {
            return Err(Failure::invalid("Security groups and subnets must belong to the same VPC: securityGroups"));
        }
        read.security_groups.push(group.id);
    }
    let is_repeated = distinct(&read.subnets) < read.subnets.len() || distinct(&read.security_groups) < read.security_groups.len();
    if is_repeated {
        return Err(Failure::invalid("subnets and securityGroups must not name an item twice."));
    }
    Ok(read)
}

fn distinct<T: Ord>(items: &[T]) -> usize {
    items.iter().collect::<BTreeSet<_>>().len()
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
