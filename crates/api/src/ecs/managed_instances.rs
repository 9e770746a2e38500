//! `managedInstancesProvider`: ECS's defaults and rules. Berth launches no instances: what is said of them is checked, kept and shown.

use berth_shapes::ecs::{
    CreateManagedInstancesProviderConfiguration, InstanceLaunchTemplate, InstanceRequirementsRequest, ManagedInstancesProvider,
    UpdateManagedInstancesProviderConfiguration,
};

use crate::failure::Failure;

/// Most subnets, and most security groups. <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-quotas.html>
const MOST_SUBNETS: usize = 16;
const MOST_SECURITY_GROUPS: usize = 5;

/// A new provider's, with defaults filled in.
pub(crate) fn create(given: CreateManagedInstancesProviderConfiguration) -> Result<ManagedInstancesProvider, Failure> {
    filled(ManagedInstancesProvider {
        infrastructure_role_arn: given.infrastructure_role_arn,
        instance_launch_template: given.instance_launch_template,
        propagate_tags: given.propagate_tags,
        infrastructure_optimization: given.infrastructure_optimization,
        auto_repair_configuration: given.auto_repair_configuration,
    })
}

/// A provider's after a change: absent members stay as they are.
pub(crate) fn update(
    before: &ManagedInstancesProvider,
    given: UpdateManagedInstancesProviderConfiguration,
) -> Result<ManagedInstancesProvider, Failure> {
    let known = before.instance_launch_template.clone().unwrap_or_default();
    let change = given.instance_launch_template.unwrap_or_default();
    let template = InstanceLaunchTemplate {
        ec2_instance_profile_arn: change.ec2_instance_profile_arn.or(known.ec2_instance_profile_arn),
        network_configuration: change.network_configuration.or(known.network_configuration),
        storage_configuration: change.storage_configuration.or(known.storage_configuration),
        local_storage_configuration: change.local_storage_configuration.or(known.local_storage_configuration),
        monitoring: change.monitoring.or(known.monitoring),
        capacity_option_type: known.capacity_option_type,
        instance_metadata_tags_propagation: change.instance_metadata_tags_propagation.or(known.instance_metadata_tags_propagation),
        instance_requirements: change.instance_requirements.or(known.instance_requirements),
        fips_enabled: known.fips_enabled,
        capacity_reservations: change.capacity_reservations.or(known.capacity_reservations),
        nitro_enclaves_enabled: known.nitro_enclaves_enabled,
    };
    filled(ManagedInstancesProvider {
        infrastructure_role_arn: given.infrastructure_role_arn.or_else(|| before.infrastructure_role_arn.clone()),
        instance_launch_template: Some(template),
        propagate_tags: given.propagate_tags.or_else(|| before.propagate_tags.clone()),
        infrastructure_optimization: given.infrastructure_optimization.or_else(|| before.infrastructure_optimization.clone()),
        auto_repair_configuration: given.auto_repair_configuration.or_else(|| before.auto_repair_configuration.clone()),
    })
}

fn filled(mut provider: ManagedInstancesProvider) -> Result<ManagedInstancesProvider, Failure> {
    check_arn("infrastructureRoleArn", provider.infrastructure_role_arn.as_deref())?;
    let seconds = provider.infrastructure_optimization.as_ref().and_then(|optimization| optimization.scale_in_after);
    if seconds.is_some_and(|seconds| !(-1..=3_600).contains(&seconds)) {
        return Err(invalid("infrastructureOptimization.scaleInAfter", "must be -1 or between 0 and 3600"));
    }
    provider.propagate_tags.get_or_insert_with(|| "NONE".into());
    let template = provider.instance_launch_template.get_or_insert_default();
    check_template(template)?;
    template.monitoring.get_or_insert_with(|| "BASIC".into());
    template.capacity_option_type.get_or_insert_with(|| "ON_DEMAND".into());
    Ok(provider)
}

fn check_template(template: &InstanceLaunchTemplate) -> Result<(), Failure> {
    check_arn("instanceLaunchTemplate.ec2InstanceProfileArn", template.ec2_instance_profile_arn.as_deref())?;
    let network = template.network_configuration.clone().unwrap_or_default();
    let subnets = network.subnets.map_or(0, |list| list.len());
    if !(1..=MOST_SUBNETS).contains(&subnets) {
        return Err(invalid("instanceLaunchTemplate.networkConfiguration.subnets", &format!("must have 1 to {MOST_SUBNETS} items")));
    }
    if network.security_groups.is_some_and(|list| list.len() > MOST_SECURITY_GROUPS) {
        let rule = format!("can have at most {MOST_SECURITY_GROUPS} items");
        return Err(invalid("instanceLaunchTemplate.networkConfiguration.securityGroups", &rule));
    }
    let is_local = template.local_storage_configuration.as_ref().is_some_and(|storage| storage.use_local_storage == Some(true));
    if template.nitro_enclaves_enabled == Some(true) && is_local {
        return Err(invalid("instanceLaunchTemplate.nitroEnclavesEnabled", "cannot be enabled together with useLocalStorage"));
    }
    let is_reserved = template.capacity_option_type.as_ref().is_some_and(|kind| kind.as_str() == "RESERVED");
    if template.capacity_reservations.is_some() && !is_reserved {
        return Err(invalid("instanceLaunchTemplate.capacityReservations", "needs capacityOptionType RESERVED"));
    }
    match &template.instance_requirements {
        Some(requirements) => check_requirements(requirements),
        None => Ok(()),
    }
}

fn check_requirements(requirements: &InstanceRequirementsRequest) -> Result<(), Failure> {
    fn whole(range: Option<(Option<i32>, Option<i32>)>) -> (Option<f64>, Option<f64>) {
        let (min, max) = range.unwrap_or_default();
        (min.map(f64::from), max.map(f64::from))
    }
    let r = requirements;
    let ranges = [
        ("vCpuCount", whole(r.vcpu_count.as_ref().map(|range| (range.min, range.max)))),
        ("memoryMiB", whole(r.memory_mib.as_ref().map(|range| (range.min, range.max)))),
        ("memoryGiBPerVCpu", r.memory_gib_per_vcpu.as_ref().map(|range| (range.min, range.max)).unwrap_or_default()),
        ("networkInterfaceCount", whole(r.network_interface_count.as_ref().map(|range| (range.min, range.max)))),
        ("totalLocalStorageGB", r.total_local_storage_gb.as_ref().map(|range| (range.min, range.max)).unwrap_or_default()),
        ("baselineEbsBandwidthMbps", whole(r.baseline_ebs_bandwidth_mbps.as_ref().map(|range| (range.min, range.max)))),
        ("acceleratorCount", whole(r.accelerator_count.as_ref().map(|range| (range.min, range.max)))),
        ("acceleratorTotalMemoryMiB", whole(r.accelerator_total_memory_mib.as_ref().map(|range| (range.min, range.max)))),
        ("networkBandwidthGbps", r.network_bandwidth_gbps.as_ref().map(|range| (range.min, range.max)).unwrap_or_default()),
    ];
    for (member, (min, max)) in ranges {
        let member = format!("instanceLaunchTemplate.instanceRequirements.{member}");
        if [min, max].into_iter().flatten().any(|bound| bound < 0.0) {
            return Err(invalid(&member, "must not be negative"));
        }
        if let (Some(min), Some(max)) = (min, max)
            && min > max
        {
            return Err(invalid(&member, "must have a min that is not greater than its max"));
        }
    }
    let has = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if has(&r.allowed_instance_types) && has(&r.excluded_instance_types) {
        let member = "instanceLaunchTemplate.instanceRequirements.allowedInstanceTypes";
        return Err(invalid(member, "cannot be given together with excludedInstanceTypes"));
    }
    Ok(())
}

fn check_arn(member: &str, text: Option<&str>) -> Result<(), Failure> {
    if text.is_some_and(|text| text.starts_with("arn:") && text.chars().count() <= 2_048) {
        return Ok(());
    }
    Err(invalid(member, "must be an ARN"))
}

fn invalid(member: &str, rule: &str) -> Failure {
    Failure::invalid(format!("managedInstancesProvider.{member} {rule}."))
}
