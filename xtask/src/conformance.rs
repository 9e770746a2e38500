//! `cargo xtask conformance`: writes CONFORMANCE.md out of what is there: the model's operations, the list of served actions at the
//! edge, and what the black-box tests have shown of each.

mod evidence;

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use evidence::Evidence;

/// Arguments of `cargo xtask conformance`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only check that the file is what would be written
    #[arg(long)]
    check: bool,
}

const CAPACITY: &str = "strategies act: tasks go to instances whose attribute berth.capacity-provider names the provider; managed scaling, \
                        protection, draining and Managed Instances are a record only";
const DAEMONS: &str = "a record only: there are no Managed Instances, so a deployment places nothing and succeeds after its bake time; alarms \
                       are refused";
const DAEMON_DEFINITIONS: &str = "a record only: nothing runs it";

/// What is only half there, in words, by operation.
const NOTES: &[(&str, &str)] = &[
    ("CreateCapacityProvider", CAPACITY),
    ("CreateDaemon", DAEMONS),
    (
        "CreateService",
        "REPLICA services with rolling, blue/green, linear and canary deployments and their hooks, or with task sets (EXTERNAL); DAEMON services \
         with rolling deployments; tasks are registered in Cloud Map; load balancers, FARGATE, CODE_DEPLOY are refused; alarms say what \
         `berth alarm set` says",
    ),
    ("DeleteCapacityProvider", "complete at once"),
    ("DeleteDaemon", DAEMONS),
    ("DeleteDaemonTaskDefinition", DAEMON_DEFINITIONS),
    ("DescribeCapacityProviders", CAPACITY),
    ("DescribeDaemon", DAEMONS),
    ("DescribeDaemonDeployments", DAEMONS),
    ("DescribeDaemonRevisions", DAEMONS),
    ("DescribeDaemonTaskDefinition", DAEMON_DEFINITIONS),
    ("CreateTaskSet", "its tasks run; load balancers, registries, capacityProviderStrategy, platformVersion are refused"),
    ("DeleteTaskSet", "acts; without force refuses the PRIMARY task set and one that is scaled above 0"),
    (
        "DescribeServiceDeployments",
        "records for 90 days, the newest 100 of a service; lifecycleStage for rolling updates with hooks only; without \
         load balancers the traffic weights are what would be asked for",
    ),
    ("DescribeServiceRevisions", "records; kept as long as a service deployment names them"),
    ("ExecuteCommand", "checks everything; no task has a listening agent yet, so it ends with TargetNotConnectedException"),
    ("ListDaemonDeployments", DAEMONS),
    ("ListDaemonTaskDefinitions", DAEMON_DEFINITIONS),
    ("ListDaemons", DAEMONS),
    ("AssociateGatewayWithCluster", "a record: services cannot use the gateway yet, gatewayConnectors are refused"),
    (
        "CreateExpressGatewayService",
        "a record with its task definition: checked, named, listed, tagged; no tasks, load balancer, certificate or scaling yet, so there are no ingressPaths and no currentDeployment",
    ),
    ("CreateGateway", "a record: load balancers come with the first connector, and gatewayConnectors are refused"),
    ("DeleteExpressGatewayService", "DRAINING, then INACTIVE: there are no tasks to wait for"),
    ("DescribeGatewayResources", "no load balancer is made yet: always empty"),
    ("DescribeGatewayRoute", "no service has a connector yet: ResourceNotFoundException"),
    ("DescribeServices", "Express services are shown with no tasks running"),
    ("DisassociateGatewayFromCluster", "there are no routes to wait for"),
    ("ListGatewayRoutes", "no service has a connector yet: always empty"),
    ("ListServicesByNamespace", "services with serviceRegistries; none has Service Connect"),
    ("PutClusterCapacityProviders", "the default strategy acts; no scaling policy is made"),
    ("RegisterDaemonTaskDefinition", DAEMON_DEFINITIONS),
    ("RegisterTaskDefinition", "trusted execution is refused; what no agent announces is a missing attribute at placement"),
    ("RunTask", "launch types EC2, FARGATE and EXTERNAL; volumeConfigurations are refused"),
    ("StartTask", "volumeConfigurations are refused"),
    ("StopServiceDeployment", "ROLLBACK acts; ABORT is refused, as AWS documents ROLLBACK alone"),
    ("SubmitContainerStateChange", "acknowledged; agents of today report containers inside SubmitTaskStateChange"),
    ("UpdateCapacityProvider", CAPACITY),
    ("UpdateContainerAgent", "Berth's agent is its server's program: NoUpdateAvailableException"),
    ("UpdateDaemon", DAEMONS),
    ("UpdateExpressGatewayService", "a new revision replaces the last one at once: there are no tasks to deploy"),
    ("UpdateGateway", "a record: UPDATE_IN_PROGRESS, then UPDATE_COMPLETE; no load balancer is there to be changed"),
    ("UpdateService", "as CreateService; another deploymentController is refused"),
    ("UpdateServicePrimaryTaskSet", "acts on what DescribeServices shows; there is no traffic to shift yet"),
    ("UpdateTaskSet", "acts"),
];

/// A service beside ECS.
struct Other {
    /// Its name in ids of actions, and the folder of its shapes.
    name: &'static str,
    title: &'static str,
    /// What its section says first, before where a reader finds more.
    about: &'static str,
}

const OTHERS: [Other; 2] = [
    Other {
        name: "servicediscovery",
        title: "AWS Cloud Map",
        about: "Every action of the model is served, at ECS's endpoint, over AWS JSON 1.1. Errors are those of the model. What differs from \
                AWS stands in docs/service-discovery.md.",
    },
    Other {
        name: "ec2",
        title: "Amazon EC2",
        about: "Served are the actions below, over the query protocol, at ECS's endpoint; every other one answers `InvalidAction`. EC2's model \
                documents no errors, so every code that a test saw is counted. Parameters without effect are refused by name \
                (`UnsupportedOperation`). What differs from AWS stands in docs/networking.md.",
    },
];

/// Runs the chore.
///
/// # Errors
/// If a source cannot be read, or with `--check` the file is out of date.
pub fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let root = crate::workspace();
    let path = root.join("CONFORMANCE.md");
    let text = render(&root)?;
    if !arguments.check {
        fs::write(&path, text)?;
        return Ok(());
    }
    if fs::read_to_string(&path).unwrap_or_default() == text {
        return Ok(());
    }
    Err("CONFORMANCE.md is out of date; run `cargo xtask conformance` and commit it".into())
}

fn render(root: &Path) -> Result<String, Box<dyn Error>> {
    let operations = operations(&fs::read_to_string(root.join("crates/shapes/src/ecs/operation.rs"))?);
    let edge = fs::read_to_string(root.join("crates/api/src/aws_json.rs"))?;
    let mut others = Vec::new();
    for other in &OTHERS {
        let source = fs::read_to_string(root.join("crates/shapes/src").join(other.name).join("operation.rs"))?;
        others.push((other, self::operations(&source).iter().map(|name| format!("{}:{name}", other.name)).collect::<Vec<_>>()));
    }
    let known: Vec<_> = operations.iter().chain(others.iter().flat_map(|(_, names)| names)).cloned().collect();
    let evidence = Evidence::read(&root.join("tests"), &known)?;
    let served = |operation: &str| edge.contains(&format!("    {operation} => "));
    let count = operations.iter().filter(|operation| served(operation)).count();
    let mut text = String::from("<!-- Written by `cargo xtask conformance`; do not edit. -->\n# Conformance\n\n");
    writeln!(
        text,
        "Amazon ECS has {} actions; Berth serves {count}. What of an action acts and what is only a record is said beside it. Every error that \
         AWS documents for an action is provoked by a test, or cannot happen for a reason that is given below. Members that Berth does not honour \
         yet are refused by name, never ignored; which these are is measured: `tests/test_members.py` sends every member of every request. \
         `tests/test_model.py` gets every action of the model wrong in every way it allows. Which action is called and which error is seen in \
         which file is what a whole run of the tests showed.\n",
        operations.len()
    )?;
    text.push_str("| action | state | provoked | tests |\n| --- | --- | --- | --- |\n");
    for operation in &operations {
        let state = match (served(operation), NOTES.iter().find(|(name, _)| name == operation)) {
            (true, Some((_, note))) => format!("served; {note}"),
            (true, None) => "served".to_owned(),
            (false, _) => "not served yet".to_owned(),
        };
        writeln!(text, "| {operation} | {state} | {} | {} |", evidence.errors(operation), evidence.tests(operation))?;
    }
    text.push_str("\n## Errors that cannot happen\nOf any action that documents them:\n\n");
    text.push_str(&evidence.general()?);
    text.push_str("\n## Action by action\nMembers that are neither refused nor only stored are honoured.\n\n");
    for operation in &operations {
        text.push_str(&evidence.section(operation)?);
    }
    for (other, names) in &others {
        write!(text, "## {}\n{}\n\n| action | provoked | tests |\n| --- | --- | --- |\n", other.title, other.about)?;
        for name in names {
            let action = name.rsplit(':').next().unwrap_or(name);
            writeln!(text, "| {action} | {} | {} |", evidence.errors_named(name), evidence.tests(name))?;
        }
        text.push('\n');
    }
    Ok(text.trim_end().to_owned() + "\n")
}

/// The operations' names, out of the generated enum.
fn operations(source: &str) -> Vec<String> {
    let body = source.split_once("pub enum Operation {").map_or("", |(_, rest)| rest.split_once('}').map_or(rest, |(body, _)| body));
    body.lines()
        .map(str::trim)
        .filter(|line| line.ends_with(',') && !line.starts_with("//"))
        .map(|line| line.trim_end_matches(',').to_owned())
        .collect()
}
