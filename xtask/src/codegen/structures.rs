//! Renders a service's structures: requests, responses, and what stands inside them.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    names,
    plan::{Plan, Role, Structure},
};

/// The module for the structures of one role.
pub fn render(plan: &Plan<'_>, role: Role) -> String {
    let header = match role {
        Role::Request => "//! The requests of the service, one structure per operation.",
        Role::Response => "//! The responses of the service, one structure per operation.",
        Role::Nested => "//! The structures that stand inside requests and responses.",
    };
    let mut body = String::new();
    for structure in plan.structures.iter().filter(|structure| structure.role == role) {
        render_structure(plan, structure, &mut body);
    }
    // Only what is used, so that no blanket `allow` is needed.
    let mut uses = String::new();
    let mut crate_names = Vec::new();
    for name in ["Blob", "Document", "Timestamp"] {
        if mentions(&body, name) {
            crate_names.push(name);
        }
    }
    if body.contains("BTreeMap<") {
        uses.push_str("use std::collections::BTreeMap;\n\n");
    }
    let nested: Vec<&str> = plan.names.values().map(String::as_str).filter(|name| mentions(&body, name)).collect();
    let enums: BTreeSet<&str> = plan.enums.iter().map(|shape| plan.names[shape].as_str()).collect();
    let foreign: Vec<&str> = nested.iter().copied().filter(|name| role != Role::Nested || enums.contains(name)).collect();
    if !foreign.is_empty() {
        writeln!(uses, "use super::{{{}}};", foreign.join(", ")).expect("a string takes all");
    }
    if !body.is_empty() {
        crate_names.push("structure");
        writeln!(uses, "use crate::{{{}}};", crate_names.join(", ")).expect("a string takes all");
    }
    format!("{header}\n\n{uses}{body}")
}

/// Whether a member has the type, alone or inside `Vec`, `Box` or `BTreeMap`.
fn mentions(body: &str, name: &str) -> bool {
    body.match_indices(name).any(|(at, _)| {
        let before = body[..at].chars().next_back();
        let after = body[at + name.len()..].chars().next();
        // Types are followed by ` =` or `>`; docs and struct headers are not preceded like a type.
        (before == Some('<') || body[..at].ends_with(": ") || body[..at].ends_with("String, "))
            && (after == Some('>') || body[at + name.len()..].starts_with(" = "))
    })
}

fn render_structure(plan: &Plan<'_>, structure: &Structure<'_>, out: &mut String) {
    write!(out, "\nstructure! {{\n    /// {}\n    pub struct {} {{\n", doc(plan, structure), structure.name).expect("a string takes all");
    let mut taken = BTreeSet::new();
    for (wire, member) in plan.members(structure) {
        let mut field = names::field(wire);
        while !taken.insert(field.clone()) {
            field.push('_');
        }
        let required = if plan.required(structure).contains(wire) { "; required" } else { "" };
        let plain = plan.rust_type(&member.shape);
        let rust_type = if plan.is_boxed(structure.shape, &member.shape) { format!("Box<{plain}>") } else { plain };
        writeln!(out, "        /// Wire name `{wire}`{required}.\n        pub {field}: {rust_type} = {wire:?},")
            .expect("a string takes all");
    }
    out.push_str("    }\n}\n");
}

fn doc(plan: &Plan<'_>, structure: &Structure<'_>) -> String {
    match (structure.operation, structure.role) {
        (Some(operation), Role::Request) => format!("`{operation}` request{}.", reference(plan, "API_", operation)),
        (Some(operation), _) => format!("`{operation}` response{}.", reference(plan, "API_", operation)),
        (None, _) => {
            let shape = structure.shape.expect("only operations lack a shape");
            format!("`{shape}`{}.", reference(plan, "API_", shape))
        }
    }
}

/// The page of AWS's reference, where the service's pages have addresses that can be made from names.
fn reference(plan: &Plan<'_>, prefix: &str, name: &str) -> String {
    let guide = match plan.model.service.metadata.service_id.as_str() {
        "ECS" => "AmazonECS/latest/APIReference",
        "ECR" => "AmazonECR/latest/APIReference",
        "EC2" => "AWSEC2/latest/APIReference",
        "STS" => "STS/latest/APIReference",
        "IAM" => "IAM/latest/APIReference",
        "CloudWatch" => "AmazonCloudWatch/latest/APIReference",
        "CloudWatch Logs" => "AmazonCloudWatchLogs/latest/APIReference",
        "Elastic Load Balancing v2" => "elasticloadbalancing/latest/APIReference",
        "Application Auto Scaling" => "autoscaling/application/APIReference",
        "CodeDeploy" => "codedeploy/latest/APIReference",
        "Secrets Manager" => "secretsmanager/latest/apireference",
        "SSM" => "systems-manager/latest/APIReference",
        "EventBridge" => "eventbridge/latest/APIReference",
        "Scheduler" => "scheduler/latest/APIReference",
        "ServiceDiscovery" => "cloud-map/latest/api",
        _ => return String::new(),
    };
    format!(" (<https://docs.aws.amazon.com/{guide}/{prefix}{name}.html>)")
}
