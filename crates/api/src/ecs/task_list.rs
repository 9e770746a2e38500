//! Many tasks as JSON, written straight from the records: up to a hundred in one answer would be thousands of small strings first.
//! It must write byte for byte what `render::task` and serde would; a test compares them.

use berth_model::arn::Scope;
use berth_model::fargate;
use berth_model::ids::{ClusterName, ContainerId, ContainerInstanceId, DefinitionId, HexDigits, TaskId};
use berth_model::lifecycle;
use berth_model::needs;
use berth_model::task::{Container, LaunchType, Task};
use berth_model::task_definition::TaskDefinition;
use berth_model::time::UnixMillis;
use berth_shapes::ecs;
use berth_store::{Entry, State};
use bytes::Bytes;

use super::render;
use crate::json_text::JsonText;

/// What a task of one container takes, a little more than most.
const BYTES_OF_TASK: usize = 1_536;

/// Characters of an id, and of one with dashes.
const ID: usize = 32;
const UUID: usize = 36;

fn quoted(text: String) -> String {
    serde_json::Value::from(text).to_string()
}

/// An answer's `tasks`, all of one cluster.
pub(super) struct TaskList<'a> {
    state: &'a State,
    scope: &'a Scope,
    json: JsonText,
    with_tags: bool,
    is_empty: bool,
    /// `"ARN"` of the cluster, and `"ARN/` that a task's, an instance's and a container's id follow.
    cluster: String,
    task: String,
    instance: String,
    container: String,
    /// Of the task before: most of a list have the same.
    defined: Option<Defined<'a>>,
}

/// What all tasks of a definition have in common.
struct Defined<'a> {
    id: &'a DefinitionId,
    definition: Option<&'a TaskDefinition>,
    /// `"ARN"`.
    arn: String,
    cpu: Option<String>,
    memory: Option<String>,
}

impl<'a> TaskList<'a> {
    /// Begins a list that so many tasks are expected in.
    pub(super) fn begin(state: &'a State, scope: &'a Scope, cluster: &ClusterName, with_tags: bool, expected: usize) -> Self {
        let mut json = JsonText::with_room(expected * BYTES_OF_TASK + 256);
        json.raw("{\"tasks\":[");
        // Ids need no escapes; those before which the ARNs are cut off are as long as any.
        let before = |arn: String, behind: usize| {
            let mut arn = quoted(arn);
            arn.truncate(arn.len() - behind - 1);
            arn
        };
        let cluster_arn = quoted(scope.cluster(cluster));
        let task = before(scope.task(cluster, TaskId(0)), ID);
        let instance = before(scope.container_instance(cluster, ContainerInstanceId(0)), ID);
        let container = before(scope.container(cluster, TaskId(0), ContainerId(0)), ID + 1 + UUID);
        Self { state, scope, json, with_tags, is_empty: true, cluster: cluster_arn, task, instance, container, defined: None }
    }

    /// Adds a task.
    pub(super) fn push(&mut self, entry: &'a Entry<Task>) -> Result<(), serde_json::Error> {
        if !std::mem::replace(&mut self.is_empty, false) {
            self.json.raw(",");
        }
        let task = &*entry.value;
        let defined = match self.defined.take() {
            Some(defined) if *defined.id == task.definition => defined,
            _ => self.define(&task.definition),
        };
        let outcome = self.write(entry, &defined);
        self.defined = Some(defined);
        outcome
    }

    fn define(&self, id: &'a DefinitionId) -> Defined<'a> {
        let definition = self.state.definition(id).map(|entry| &*entry.value);
        let document = definition.map(|definition| &definition.document);
        let size = |text: Option<&String>, parse: render::Parse| text.map(|text| render::size(text, parse));
        Defined {
            id,
            definition,
            arn: quoted(self.scope.task_definition(id)),
            cpu: size(document.and_then(|document| document.cpu.as_ref()), needs::parse_cpu),
            memory: size(document.and_then(|document| document.memory.as_ref()), needs::parse_memory),
        }
    }

    fn write(&mut self, entry: &Entry<Task>, defined: &Defined<'_>) -> Result<(), serde_json::Error> {
        let task = &*entry.value;
        let instance = self.state.instance(task.container_instance).map(|instance| &*instance.value);
        self.json.raw("{\"attachments\":");
        self.json.value(&task.interface.iter().map(|interface| interface.to_wire()).collect::<Vec<_>>())?;
        self.json.raw(",\"attributes\":[{\"name\":\"ecs.cpu-architecture\",\"value\":\"");
        self.json.raw(render::architecture(defined.definition));
        self.json.raw("\"}]");
        self.text(",\"availabilityZone\":", task.availability_zone.as_deref());
        self.text(",\"capacityProviderName\":", task.capacity_provider.as_ref().map(|name| name.as_str()));
        self.json.raw(",\"clusterArn\":");
        self.json.raw(&self.cluster);
        self.text(",\"connectivity\":", render::connectivity(task, instance));
        self.time(",\"connectivityAt\":", task.connected_at);
        let is_fargate = task.launch_type == LaunchType::Fargate;
        if !is_fargate {
            self.json.raw(",\"containerInstanceArn\":");
            self.json.raw(&self.instance);
            self.json.id(task.container_instance.0);
            self.json.raw("\"");
        }
        self.json.raw(",\"containers\":[");
        for (at, container) in task.containers.iter().enumerate() {
            if at > 0 {
                self.json.raw(",");
            }
            self.container(task, container, defined.definition);
        }
        self.json.raw("]");
        let overrides = task.overrides.as_deref();
        self.size(",\"cpu\":", overrides.and_then(|o| o.cpu.as_ref()), defined.cpu.as_ref(), task.demand.cpu, needs::parse_cpu);
        self.time(",\"createdAt\":", Some(task.created_at));
        self.word(",\"desiredStatus\":\"", task.desired_status.as_str());
        self.json.raw(if task.enable_execute_command { ",\"enableExecuteCommand\":true" } else { ",\"enableExecuteCommand\":false" });
        self.time(",\"executionStoppedAt\":", task.execution_stopped_at);
        self.text(",\"group\":", Some(&task.group));
        let checked = |name: &str| defined.definition.is_some_and(|definition| render::is_checked_essential(definition, name));
        self.word(",\"healthStatus\":\"", lifecycle::health(task, checked).as_str());
        self.word(",\"lastStatus\":\"", task.last_status.as_str());
        self.word(",\"launchType\":\"", task.launch_type.as_str());
        self.size(
            ",\"memory\":",
            overrides.and_then(|o| o.memory.as_ref()),
            defined.memory.as_ref(),
            task.demand.memory,
            needs::parse_memory,
        );
        self.overrides(task)?;
        if is_fargate {
            self.text(",\"platformVersion\":", Some(fargate::PLATFORM_VERSION));
            self.text(",\"platformFamily\":", Some(fargate::PLATFORM_FAMILY));
        }
        self.time(",\"pullStartedAt\":", task.pull_started_at);
        self.time(",\"pullStoppedAt\":", task.pull_stopped_at);
        self.time(",\"startedAt\":", task.started_at);
        match &task.service {
            Some(membership) => {
                self.json.raw(",\"startedBy\":\"ecs-svc/");
                self.json.natural(membership.deployment.0);
                self.json.raw("\"");
            }
            None => self.text(",\"startedBy\":", task.started_by.as_deref()),
        }
        self.text(",\"stopCode\":", task.stop_code.map(|code| code.as_str()));
        self.time(",\"stoppedAt\":", task.stopped_at);
        self.text(",\"stoppedReason\":", task.stopped_reason.as_deref());
        self.time(",\"stoppingAt\":", task.stopping_at);
        self.json.raw(",\"tags\":");
        let tags = self.with_tags.then_some(&task.tags);
        self.json.list(tags.into_iter().flatten(), |json, (key, value)| {
            json.raw("{\"key\":");
            json.string(key);
            json.raw(",\"value\":");
            json.string(value);
            json.raw("}");
        });
        self.json.raw(",\"taskArn\":");
        self.json.raw(&self.task);
        self.json.id(task.id.0);
        self.json.raw("\",\"taskDefinitionArn\":");
        self.json.raw(&defined.arn);
        self.json.raw(",\"version\":");
        self.json.integer(i64::try_from(entry.version).unwrap_or(i64::MAX));
        if is_fargate {
            let size = fargate::storage_gib(task, defined.definition.map(|definition| &definition.document));
            for member in [",\"ephemeralStorage\"", ",\"fargateEphemeralStorage\""] {
                self.json.raw(member);
                self.json.raw(":{\"sizeInGiB\":");
                self.json.natural(size.into());
                self.json.raw("}");
            }
        }
        self.json.raw("}");
        Ok(())
    }

    fn container(&mut self, task: &Task, container: &Container, definition: Option<&TaskDefinition>) {
        let defined = definition.into_iter().flat_map(|d| d.document.container_definitions.iter().flatten());
        let defined = defined.into_iter().find(|defined| defined.name.as_deref() == Some(&*container.name));
        let own = task.overrides.iter().flat_map(|o| o.container_overrides.iter().flatten());
        let own = own.into_iter().find(|own| own.name.as_deref() == Some(&*container.name));
        let id = HexDigits::of(task.id.0);
        self.json.raw("{\"containerArn\":");
        self.json.raw(&self.container);
        self.json.raw(id.as_str());
        self.json.raw("/");
        self.json.uuid(container.id.0);
        self.json.raw("\",\"taskArn\":");
        self.json.raw(&self.task);
        self.json.raw(id.as_str());
        self.json.raw("\"");
        self.text(",\"name\":", Some(&container.name));
        self.text(",\"image\":", Some(&container.image));
        self.text(",\"imageDigest\":", container.image_digest.as_deref());
        self.text(",\"runtimeId\":", container.runtime_id.as_deref());
        self.word(",\"lastStatus\":\"", container.last_status.as_str());
        if let Some(code) = container.exit_code {
            self.json.raw(",\"exitCode\":");
            self.json.integer(code.into());
        }
        self.text(",\"reason\":", container.reason.as_deref());
        self.json.raw(",\"networkBindings\":");
        self.json.list(&container.network_bindings, |json, binding| {
            json.raw("{\"bindIP\":");
            json.string(&binding.bind_ip);
            // As `network_binding` in render.rs: a range has no numbers of its own.
            let ranges = binding.ranges();
            if ranges.is_none() {
                json.raw(",\"containerPort\":");
                json.natural(binding.container_port.into());
                json.raw(",\"hostPort\":");
                json.natural(binding.host_port.into());
            }
            json.raw(",\"protocol\":");
            json.string(&binding.protocol);
            if let Some((inside, on_host)) = &ranges {
                json.raw(",\"containerPortRange\":");
                json.string(inside);
                json.raw(",\"hostPortRange\":");
                json.string(on_host);
            }
            json.raw("}");
        });
        self.json.raw(",\"networkInterfaces\":");
        self.json.list(&task.interface, |json, interface| {
            json.raw("{\"attachmentId\":\"");
            json.uuid(interface.attachment.0);
            json.raw("\",\"privateIpv4Address\":");
            json.string(&interface.private_address.to_string());
            json.raw("}");
        });
        self.word(",\"healthStatus\":\"", container.health_status.as_str());
        let cpu = own.and_then(|o| o.cpu).or(defined.and_then(|d| d.cpu)).unwrap_or(0);
        self.quantity(",\"cpu\":\"", Some(cpu));
        self.quantity(",\"memory\":\"", own.and_then(|o| o.memory).or(defined.and_then(|d| d.memory)));
        self.quantity(",\"memoryReservation\":\"", own.and_then(|o| o.memory_reservation).or(defined.and_then(|d| d.memory_reservation)));
        if !container.gpu_ids.is_empty() {
            self.json.raw(",\"gpuIds\":");
            self.json.list(&container.gpu_ids, |json, id| json.string(id));
        }
        self.json.raw("}");
    }

    fn overrides(&mut self, task: &Task) -> Result<(), serde_json::Error> {
        self.json.raw(",\"overrides\":");
        if task.overrides.is_some() {
            return self.json.value(&render::task_overrides(task));
        }
        self.json.raw("{\"containerOverrides\":");
        self.json.list(&task.containers, |json, container| {
            json.raw("{\"name\":");
            json.string(&container.name);
            json.raw("}");
        });
        self.json.raw(",\"inferenceAcceleratorOverrides\":[]}");
        Ok(())
    }

    /// A member that may be missing.
    fn text(&mut self, member: &str, text: Option<&str>) {
        if let Some(text) = text {
            self.json.raw(member);
            self.json.string(text);
        }
    }

    /// A member whose value is one of AWS's words; `member` ends with the opening quote.
    fn word(&mut self, member: &str, word: &str) {
        self.json.raw(member);
        self.json.raw(word);
        self.json.raw("\"");
    }

    fn time(&mut self, member: &str, at: Option<UnixMillis>) {
        if let Some(at) = at {
            self.json.raw(member);
            self.json.time(at);
        }
    }

    /// A number that AWS shows as text; `member` ends with the opening quote.
    fn quantity(&mut self, member: &str, value: Option<i32>) {
        if let Some(value) = value {
            self.json.raw(member);
            self.json.integer(value.into());
            self.json.raw("\"");
        }
    }

    fn size(&mut self, member: &str, own: Option<&String>, defined: Option<&String>, demand: u32, parse: render::Parse) {
        self.json.raw(member);
        match (own, defined) {
            (Some(own), _) => self.json.string(&render::size(own, parse)),
            (None, Some(defined)) => self.json.string(defined),
            (None, None) => {
                self.json.raw("\"");
                self.json.natural(demand.into());
                self.json.raw("\"");
            }
        }
    }

    /// Ends the list, and the answer with what was not found.
    pub(super) fn end(mut self, failures: &[ecs::Failure]) -> Result<Bytes, serde_json::Error> {
        self.json.raw("],\"failures\":");
        if failures.is_empty() {
            self.json.raw("[]");
        } else {
            self.json.value(&failures)?;
        }
        self.json.raw("}");
        Ok(self.json.into_bytes())
    }
}

#[cfg(test)]
mod tests;
