//! ARNs, names and ids, alone and with an account's scope: read or refused; what is read as a resource is its own ARN again.
#![no_main]

use berth_model::arn::{Resource, Scope, parse_cluster, parse_container_instance, parse_resource, parse_service, parse_task, parse_task_definition};
use berth_model::ids::ClusterName;
use berth_model::record::Key;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let scope = Scope { region: "us-east-1".into(), account: "000000000000".into() };
    let cluster = ClusterName::parse("default").expect("a name");
    let _ = parse_cluster(&scope, Some(text));
    let _ = parse_task(&scope, &cluster, text);
    let _ = parse_container_instance(&scope, &cluster, text);
    let _ = parse_service(&scope, &cluster, text);
    let _ = parse_task_definition(&scope, text);
    if let Ok(resource) = parse_resource(&scope, text) {
        let again = match &resource {
            Resource::Cluster(name) => scope.cluster(name),
            Resource::Task(cluster, id) => scope.task(cluster, *id),
            Resource::Service(cluster, name) => scope.service(cluster, name),
            Resource::ContainerInstance(cluster, id) => scope.container_instance(cluster, *id),
            _ => return,
        };
        assert_eq!(parse_resource(&scope, &again).as_ref(), Ok(&resource));
    }
    if let Ok(key) = text.parse::<Key>() {
        assert_eq!(key.to_string().parse::<Key>().as_ref(), Ok(&key));
    }
});
