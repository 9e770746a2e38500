"""Services with `serviceRegistries`: their tasks come and go in Cloud Map as ECS has it."""


import pytest

import cloud_map_calls as calls
from berth import unique, until
from cloud_map_calls import ARN, cloud_map, private_namespace, registered
from containers import hello, page, skip_unless_root
from ecs_calls import container, describe, refused, register, service, tasks_of, texts, until_steady

MACHINE = {"name": "berth.host-ipv4", "value": "203.0.113.7"}
ZONE = {"name": "ecs.availability-zone", "value": "us-east-1b"}


class Registry:
    """A Cloud Map service in a namespace of its own."""

    def __init__(self, berth, *records, custom=True, name="api"):
        self.client, self.namespace_name, self.name = cloud_map(berth), f"{unique('ns')}.local", name
        self.namespace = private_namespace(self.client, self.namespace_name)
        self.id = calls.service(self.client, self.namespace, *records, name=name, custom=custom)
        self.arn = f"{ARN}service/{self.id}"

    @property
    def instances(self):
        return calls.instances(self.client, self.id)

    def until(self, *tasks):
        """Waits until exactly these tasks are registered."""
        wanted = {arn.rsplit("/", 1)[1] for arn in tasks}
        until(f"{len(wanted)} tasks to be registered", lambda: set(self.instances) == wanted)

    def discovered(self, **more):
        answer = self.client.discover_instances(NamespaceName=self.namespace_name, ServiceName=self.name, **more)
        return {one["InstanceId"]: one for one in answer["Instances"]}

    def health(self):
        return self.client.get_instances_health_status(ServiceId=self.id)["Status"]

    def of(self, **members):
        """As `serviceRegistries` names it."""
        return [{"registryArn": self.arn, **members}]


@pytest.fixture
def new_registry(server):
    made = []

    def make(*records, berth=server, **settings):
        made.append(Registry(berth, *(records or ("SRV",)), **settings))
        return made[-1]

    yield make
    for registry in made:
        if registry.id not in {one["Id"] for one in registry.client.list_services()["Services"]}:
            registry.client.delete_namespace(Id=registry.namespace)
            continue
        for cluster in {one["ECS_CLUSTER_NAME"] for one in registry.instances.values() if "ECS_CLUSTER_NAME" in one}:
            for name in {one["ECS_SERVICE_NAME"] for one in registry.instances.values() if one.get("ECS_CLUSTER_NAME") == cluster}:
                server.ecs.delete_service(cluster=cluster, service=name, force=True)
        calls.clear(registry.client, registry.namespace)


def web(**members):
    return container("web", portMappings=[{"containerPort": 80}], **members)


def create(ecs, cluster, registries, count=1, definition=None, **members):
    name = unique("s")
    definition = definition or register(ecs, containers=[web()])
    ecs.create_service(
        cluster=cluster, serviceName=name, taskDefinition=definition, desiredCount=count, serviceRegistries=registries, **members
    )
    return name


PORT = {"containerName": "web", "containerPort": 80}


def test_tasks_are_registered_with_ecs_attributes_and_deregistered_when_they_are_to_stop(ecs, cluster, agents, new_registry):
    agent, registry = agents(cluster, attributes=(MACHINE, ZONE), stops=False), new_registry("SRV", "A")
    definition = register(ecs, family=unique("web"), containers=[web()])
    name = create(ecs, cluster, registry.of(**PORT), count=2, definition=definition)
    until_steady(ecs, cluster, name)
    arns = tasks_of(ecs, cluster, serviceName=name)
    registry.until(*arns)
    assert service(ecs, cluster, name)["serviceRegistries"] == registry.of(**PORT)
    for arn in arns:
        task = describe(ecs, cluster, arn)
        assert registry.instances[arn.rsplit("/", 1)[1]] == {
            "AWS_INSTANCE_IPV4": "203.0.113.7",
            "AWS_INSTANCE_PORT": str(task["containers"][0]["networkBindings"][0]["hostPort"]),
            "AWS_INIT_HEALTH_STATUS": "HEALTHY",
            "AVAILABILITY_ZONE": "us-east-1b",
            "EC2_INSTANCE_ID": agent.registered["ec2InstanceId"],
            "ECS_CLUSTER_NAME": cluster,
            "ECS_SERVICE_NAME": name,
            "ECS_TASK_DEFINITION_FAMILY": definition.split("/")[1].split(":")[0],
            "REGION": "us-east-1",
        }
    assert set(registry.discovered()) == {arn.rsplit("/", 1)[1] for arn in arns}
    assert set(registry.health().values()) == {"HEALTHY"}
    # The agent stops nothing: the task that is to stop still runs, and nobody finds it any more, from the answer on.
    ecs.stop_task(cluster=cluster, task=arns[0])
    assert arns[0].rsplit("/", 1)[1] not in registry.discovered(HealthStatus="ALL")
    until("its end in Cloud Map", lambda: arns[0].rsplit("/", 1)[1] not in registry.instances)
    assert describe(ecs, cluster, arns[0])["lastStatus"] == "RUNNING"
    agent.stops = True
    agent.report(arns[0], "STOPPED", exit_code=0)
    ecs.delete_service(cluster=cluster, service=name, force=True)
    registry.until()


def test_others_instances_are_left_alone_and_a_tasks_own_is_put_right(ecs, cluster, agents, new_registry):
    agents(cluster, attributes=(MACHINE,))
    registry = new_registry("SRV")
    registered(registry.client, registry.id, "mine", AWS_INSTANCE_IPV4="10.0.0.1", AWS_INSTANCE_PORT=1)
    name = create(ecs, cluster, registry.of(**PORT))
    until_steady(ecs, cluster, name)
    [arn] = tasks_of(ecs, cluster, serviceName=name)
    task = arn.rsplit("/", 1)[1]
    until("the task to be registered", lambda: set(registry.instances) == {"mine", task})
    proper = registry.instances[task]
    registry.client.deregister_instance(ServiceId=registry.id, InstanceId=task)
    until("the task to be there again", lambda: registry.instances.get(task) == proper)
    registered(registry.client, registry.id, task, AWS_INSTANCE_IPV4="10.9.9.9", AWS_INSTANCE_PORT=9)
    until("the task to be as it was", lambda: registry.instances.get(task) == proper)
    ecs.delete_service(cluster=cluster, service=name, force=True)
    until("the task to be gone", lambda: set(registry.instances) == {"mine"})


def test_a_registry_is_changed_and_removed_by_a_deployment(ecs, cluster, agents, new_registry):
    agents(cluster, attributes=(MACHINE,))
    one, other = new_registry("SRV"), new_registry("SRV", custom=False)
    name = create(ecs, cluster, one.of(**PORT))
    until_steady(ecs, cluster, name)
    [first] = tasks_of(ecs, cluster, serviceName=name)
    one.until(first)
    before = service(ecs, cluster, name)["deployments"][0]["id"]
    same = ecs.update_service(cluster=cluster, service=name, serviceRegistries=one.of(**PORT))["service"]
    assert [deployment["id"] for deployment in same["deployments"]] == [before]
    changed = ecs.update_service(cluster=cluster, service=name, serviceRegistries=other.of(**PORT))["service"]
    assert len(changed["deployments"]) == 2 and changed["serviceRegistries"] == other.of(**PORT)
    until_steady(ecs, cluster, name)
    [second] = tasks_of(ecs, cluster, serviceName=name)
    assert second != first
    other.until(second)
    one.until()
    revision = service(ecs, cluster, name)["currentServiceRevisions"][0]["arn"]
    [shown] = ecs.describe_service_revisions(serviceRevisionArns=[revision])["serviceRevisions"]
    assert shown["serviceRegistries"] == other.of(**PORT)
    removed = ecs.update_service(cluster=cluster, service=name, serviceRegistries=[])["service"]
    assert removed["serviceRegistries"] == [] and len(removed["deployments"]) == 2
    until_steady(ecs, cluster, name)
    other.until()
    ecs.delete_service(cluster=cluster, service=name, force=True)


def test_each_task_set_has_its_own_registry(ecs, cluster, agents, new_registry):
    agents(cluster, attributes=(MACHINE,))
    blue, green = new_registry("SRV"), new_registry("SRV")
    definition, name = register(ecs, containers=[web()]), unique("s")
    ecs.create_service(cluster=cluster, serviceName=name, desiredCount=2, deploymentController={"type": "EXTERNAL"})

    def add(registries, **members):
        return ecs.create_task_set(cluster=cluster, service=name, taskDefinition=definition, serviceRegistries=registries, **members)["taskSet"]

    with refused("InvalidParameterException", "could not be found in AWS Cloud Map: serviceRegistries.registryArn"):
        add([{"registryArn": f"{ARN}service/srv-aaaaaaaaaaaaaaaa", **PORT}])
    with refused("InvalidParameterException", "does not exist in the task definition"):
        add(blue.of(containerName="none", containerPort=80))
    first, second = add(blue.of(**PORT)), add(green.of(**PORT), scale={"value": 50, "unit": "PERCENT"})
    assert first["serviceRegistries"] == blue.of(**PORT)
    until("three tasks", lambda: len(tasks_of(ecs, cluster, serviceName=name)) == 3)
    blue.until(*tasks_of(ecs, cluster, startedBy=first["id"]))
    green.until(*tasks_of(ecs, cluster, startedBy=second["id"]))
    namespace = ecs.list_services_by_namespace(namespace=blue.namespace_name)["serviceArns"]
    assert namespace == [service(ecs, cluster, name)["serviceArn"]]
    ecs.delete_task_set(cluster=cluster, service=name, taskSet=first["id"], force=True)
    blue.until()
    assert len(green.instances) == 1
    ecs.delete_service(cluster=cluster, service=name, force=True)
    green.until()


def test_what_cannot_be_registered_is_an_event_once(ecs, cluster, agents, new_registry):
    agents(cluster)
    registry = new_registry("SRV")
    name = create(ecs, cluster, registry.of(**PORT), count=2)
    until_steady(ecs, cluster, name)

    def told():
        return [text for text in texts(service(ecs, cluster, name)) if registry.arn in text]

    until("an event", told)
    assert "was unable to register tasks" in told()[0] and "berth.host-ipv4" in told()[0]
    ecs.update_service(cluster=cluster, service=name, desiredCount=3)
    until_steady(ecs, cluster, name)
    assert len(told()) == 1 and registry.instances == {}
    [instance] = ecs.list_container_instances(cluster=cluster)["containerInstanceArns"]
    ecs.put_attributes(cluster=cluster, attributes=[{**MACHINE, "targetId": instance}])
    registry.until(*tasks_of(ecs, cluster, serviceName=name))
    ecs.delete_service(cluster=cluster, service=name, force=True)
    registry.until()


def test_registrations_survive_a_restart_and_follow_what_happened_meanwhile(new_berth):
    from fake_agent import FakeAgent

    berth = new_berth("server").start()
    berth.ecs.create_cluster(clusterName="c")
    agent = FakeAgent(berth, "c", attributes=(MACHINE,)).join()
    registry = Registry(berth, "SRV")
    name = create(berth.ecs, "c", registry.of(**PORT), count=2)
    until_steady(berth.ecs, "c", name)
    arns = tasks_of(berth.ecs, "c", serviceName=name)
    registry.until(*arns)
    before = registry.instances
    berth.kill()
    berth.start()
    registry.client = cloud_map(berth)
    assert registry.instances == before
    agent.connect()
    # Both were there all the time; now one is to stop.
    berth.ecs.update_service(cluster="c", service=name, desiredCount=1)
    until("one task", lambda: len(registry.instances) == 1)
    assert set(registry.instances) < set(before)
    agent.leave()


MODES = {
    "bridge": {"networkMode": "bridge"},
    "host": {"networkMode": "host"},
    "awsvpc": {"networkMode": "awsvpc"},
    "none": {"networkMode": "none"},
}


@pytest.mark.parametrize(
    "mode, records, members, words",
    [
        ("bridge", ["SRV"], {}, ["'host' or 'bridge'", "'containerName' and 'containerPort'", "Registry: arn:"]),
        ("host", ["SRV"], {"port": 80}, ["'host' or 'bridge'", "'containerName' and 'containerPort'"]),
        ("bridge", ["A"], PORT, ["SRV"]),
        ("bridge", ["SRV"], {"containerName": "nobody", "containerPort": 80}, ["nobody", "does not exist"]),
        ("bridge", ["SRV"], {"containerName": "web", "containerPort": 81}, ["web", "81"]),
        ("bridge", ["SRV"], {**PORT, "port": 80}, ["either 'port' or", "not both"]),
        ("bridge", ["SRV"], {**PORT, "containerPort": 0}, ["between 1 and 65535"]),
        ("awsvpc", ["A"], PORT, ["do not require a value for 'containerPort'"]),
        ("awsvpc", ["A"], {"port": 80}, ["do not require a value for 'port'"]),
        ("awsvpc", ["SRV"], {}, ["requires either 'port'"]),
        ("awsvpc", ["SRV"], {"containerName": "web"}, ["together"]),
        ("awsvpc", ["CNAME"], {}, ["CNAME"]),
        ("none", ["A"], {}, ["'none'"]),
    ],
)
def test_registries_must_fit_the_task_definition(server, ecs, cluster, new_registry, mode, records, members, words):
    registry = new_registry(*records)
    network = {}
    if mode == "awsvpc":
        subnet = server.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
        network = {"networkConfiguration": {"awsvpcConfiguration": {"subnets": [subnet]}}}
    ports = {} if mode == "none" else {"portMappings": [{"containerPort": 80}]}
    definition = register(ecs, containers=[container("web", **ports)], **MODES[mode])
    with refused("InvalidParameterException", *words):
        create(ecs, cluster, registry.of(**members), definition=definition, **network)
    assert ecs.list_services(cluster=cluster)["serviceArns"] == []


def test_registries_must_be_one_that_is_there(ecs, cluster, new_registry):
    registry = new_registry("SRV")
    [good] = registry.of(**PORT)
    gone = f"{ARN}service/srv-0123456789abcdef"
    for wrong, word in (
        ([good, good], "Multiple service registries"),
        ([PORT], "registryArn"),
        ([{**good, "registryArn": gone}], gone),
        ([{**good, "registryArn": registry.id}], registry.id),
    ):
        with refused("InvalidParameterException", word):
            create(ecs, cluster, wrong)
    assert ecs.list_services(cluster=cluster)["serviceArns"] == []
    name = create(ecs, cluster, [good], count=0)
    before = service(ecs, cluster, name)
    with refused("InvalidParameterException", gone):
        ecs.update_service(cluster=cluster, service=name, serviceRegistries=[{**good, "registryArn": gone}])
    with refused("InvalidParameterException", "does not exist"):
        ecs.update_service(cluster=cluster, service=name, taskDefinition=register(ecs, containers=[container("other")]))
    after = service(ecs, cluster, name)
    assert [one["id"] for one in after["deployments"]] == [one["id"] for one in before["deployments"]]
    assert (after["taskDefinition"], after["serviceRegistries"]) == (before["taskDefinition"], [good])
    with refused("InvalidParameterException", "ServiceRegistries"):
        ecs.create_service(
            cluster=cluster, serviceName=unique("s"), deploymentController={"type": "EXTERNAL"}, serviceRegistries=[good]
        )
    # A registry that is deleted meanwhile keeps nobody from changing the rest.
    registry.client.delete_service(Id=registry.id)
    ecs.update_service(cluster=cluster, service=name, desiredCount=0, enableExecuteCommand=False)
    ecs.delete_service(cluster=cluster, service=name, force=True)


def test_real_containers_are_registered_where_they_listen_and_health_follows_their_checks(request):
    skip_unless_root(__file__)
    up = request.getfixturevalue("up")
    ecs, registry = up.ecs, Registry(up, "SRV")
    [instance] = ecs.list_container_instances(cluster="default")["containerInstanceArns"]
    found = ecs.describe_container_instances(cluster="default", containerInstances=[instance])["containerInstances"][0]
    if not any(attribute["name"] == MACHINE["name"] for attribute in found["attributes"]):
        # A machine without a way out has no address that it could say by itself.
        ecs.put_attributes(cluster="default", attributes=[{**MACHINE, "targetId": instance}])
    one = hello()
    port = one["portMappings"][0]["containerPort"]
    check = {"command": ["CMD", "/no/such/program"], "interval": 5, "timeout": 2, "retries": 1}
    plain = register(ecs, containers=[one])
    sick = register(ecs, containers=[{**one, "healthCheck": check}])
    of = registry.of(containerName=one["name"], containerPort=port)
    name = create(ecs, "default", of, count=2, definition=plain)
    until_steady(ecs, "default", name)
    registry.until(*tasks_of(ecs, "default", serviceName=name))
    for attributes in registry.instances.values():
        assert page(int(attributes["AWS_INSTANCE_PORT"]))
    ill = create(ecs, "default", of, definition=sick)
    until("a third instance", lambda: len(registry.instances) == 3)
    assert len(registry.discovered()) == 2 and sorted(registry.health().values()) == ["HEALTHY", "HEALTHY", "UNHEALTHY"]
    for service_name in (name, ill):
        ecs.delete_service(cluster="default", service=service_name, force=True)
    registry.until()
    calls.clear(registry.client, registry.namespace)
