//! The EC2 actions that users of ECS call: VPCs, subnets, security groups, and what else stands beside them in tutorials and tools.
//! They read and change records only; whoever sets up addresses and filters follows the records.

mod choice;
mod failures;
mod filters;
mod instances;
mod internet_gateways;
mod network_interfaces;
mod pages;
mod permissions;
mod places;
mod query;
mod route_tables;
mod security_group_rules;
mod security_groups;
mod start;
mod subnets;
mod tags;
#[cfg(test)]
mod tests;
mod turn;
mod vpcs;

pub(crate) use query::Ec2Query;
pub use start::make_default_vpc;
