//! What the users of services do who have read what those say: some deployments only they can help. It makes no call that a user could not.

use berth_model::service::ServiceStatus;
use berth_shapes::ecs::Operation;
use serde_json::{Value, json};

use crate::world::World;

impl World {
    /// Where the percentages, rounded, allow a deployment neither one task more nor one less, only the user can help. He does so once
    /// the service has told him.
    pub async fn loosen(&self) {
        for service in self.checker.services().iter().filter(|service| service.status == ServiceStatus::Active) {
            let (desired, percentages) = (service.desired_count, service.percentages);
            if service.deployments.len() < 2 || percentages.lower(desired) < desired || percentages.upper(desired) > desired {
                continue;
            }
            let name = service.name.to_string();
            let shown = self.desk.insist(Operation::DescribeServices, json!({"services": [name]})).await.unwrap_or_default();
            let events = shown["services"][0]["events"].as_array().cloned().unwrap_or_default();
            let told = |event: &Value| event["message"].as_str().unwrap_or_default().contains("is unable to");
            if events.iter().any(told) {
                self.trace.line(format_args!("operator: loosens the percentages of {name}"));
                let loose = json!({"minimumHealthyPercent": 0, "maximumPercent": if service.is_daemon() { 100 } else { 200 }});
                let _ = self.desk.insist(Operation::UpdateService, json!({"service": name, "deploymentConfiguration": loose})).await;
            }
        }
    }

    /// A service whose tasks never start, with no circuit breaker at work that will end that, waits for its user, who has seen it and
    /// deploys what works.
    pub async fn cure(&self) {
        for service in self.checker.services() {
            if self.checker.is_incurable(&service) {
                self.trace.line(format_args!("operator: gives {} a revision that works", service.name));
                let request = json!({"service": service.name.to_string(), "taskDefinition": "web"});
                let _ = self.desk.insist(Operation::UpdateService, request).await;
            }
        }
    }
}
