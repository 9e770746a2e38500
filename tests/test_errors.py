"""Every error that AWS's model documents for an action: provoked here with a real request, or explained in cannot_happen.json."""

import json
import re
from pathlib import Path

import pytest

from berth import Berth, unique, until
from ecs_calls import container, register, run, service
from fake_agent import FakeAgent
from http_call import call
from member_requests import fargate, fargate_service
from model_requests import MODEL, OPERATIONS, broken, smallest
from test_capacity_providers import instances, item, managed
from test_daemons import define, sidecar
from test_express_services import request as express

PREFIX = "arn:aws:ecs:us-east-1:000000000000:"
ROLE = "arn:aws:iam::000000000000:role/ecs"
NOBODY = "0" * 32
TABLE = Path(__file__).parent / "cannot_happen.json"


class World:
    """A server of this file's own, with one of everything, and one of everything that has ended."""

    def __init__(self, berth):
        self.berth, self.ecs, self.exec, self.others = berth, berth.ecs, None, []
        ecs = self.ecs
        ecs.create_cluster(clusterName="c")
        self.agent = FakeAgent(berth, "c").join()
        # No agent has ever connected from this one.
        self.silent = FakeAgent(berth, "c").register().arn
        self.definition = register(ecs, "web")
        self.old = register(ecs, "old")
        ecs.deregister_task_definition(taskDefinition=self.old)
        self.gateway, self.kept = "g", "kept"
        for name, protected in ((self.gateway, False), (self.kept, True)):
            ecs.create_gateway(name=name, infrastructureRoleArn=ROLE, configuration={"hostSharedAlb": {}}, deletionProtection=protected)
        self.provider = f"{PREFIX}capacity-provider/{managed(ecs, 'c', 'm')}"
        self.daemon_definition, self.used = define(ecs, "d"), define(ecs, "gone-d")
        ecs.delete_daemon_task_definition(daemonTaskDefinition=self.used)
        self.daemon, self.daemon_gone = self._daemon("d"), self._daemon("gone")
        ecs.delete_daemon(daemonArn=self.daemon_gone)
        self._services()

    def _daemon(self, name):
        cluster = f"{PREFIX}cluster/c"
        return self.ecs.create_daemon(
            daemonName=name, clusterArn=cluster, daemonTaskDefinitionArn=self.daemon_definition, capacityProviderArns=[self.provider]
        )["daemonArn"]

    def _services(self):
        ecs = self.ecs
        for name in ("web", "gone"):
            ecs.create_service(cluster="c", serviceName=name, taskDefinition=self.definition, desiredCount=0)
        for name in ("ext", "ext-gone"):
            ecs.create_service(cluster="c", serviceName=name, deploymentController={"type": "EXTERNAL"})
        self.set = ecs.create_task_set(cluster="c", service="ext", taskDefinition=self.definition)["taskSet"]["id"]
        self.express, self.express_gone = (
            ecs.create_express_gateway_service(**express("c", serviceName=name))["service"]["serviceArn"] for name in ("x", "x-gone")
        )
        ecs.delete_express_gateway_service(serviceArn=self.express_gone)
        for name in ("gone", "ext-gone"):
            ecs.delete_service(cluster="c", service=name)
        for name in ("gone", "ext-gone", "x-gone"):
            until(f"service {name} to be gone", lambda name=name: service(ecs, "c", name)["status"] == "INACTIVE")
        look = lambda: ecs.list_service_deployments(cluster="c", service="web", status=["SUCCESSFUL"])["serviceDeployments"]  # noqa: E731
        self.deployment = until("the deployment's end", look)[0]["serviceDeploymentArn"]

    def cluster(self, **members):
        name = unique("c")
        self.ecs.create_cluster(clusterName=name, **members)
        return name

    # -- what takes more than one step ------------------------------------------------------------------------------------

    def with_instance(self):
        name = self.cluster()
        FakeAgent(self.berth, name).register()
        return {"cluster": name}

    def with_service(self):
        name = self.cluster()
        self.ecs.create_service(cluster=name, serviceName="web", taskDefinition=self.definition, desiredCount=0)
        return {"cluster": name}

    def with_provider(self):
        name = self.cluster()
        managed(self.ecs, name)
        return {"cluster": name}

    def full_of_providers(self):
        name = self.cluster()
        for _ in range(20):
            managed(self.ecs, name)
        return {"name": unique("p"), "cluster": name, "managedInstancesProvider": instances()}

    def provider_in_use(self):
        name, provider = self.cluster(), unique("p")
        self.ecs.create_capacity_provider(name=provider, autoScalingGroupProvider={"autoScalingGroupArn": provider})
        self.ecs.put_cluster_capacity_providers(cluster=name, capacityProviders=[provider], defaultCapacityProviderStrategy=[])
        strategy = [item(provider, weight=1)]
        self.ecs.create_service(
            cluster=name, serviceName="web", taskDefinition=self.definition, desiredCount=0, capacityProviderStrategy=strategy
        )
        return {"cluster": name, "capacityProviders": [], "defaultCapacityProviderStrategy": []}

    def task_with_exec(self):
        (task,) = run(self.ecs, "c", self.definition, enableExecuteCommand=True)
        until("the task to run", lambda: self.ecs.describe_tasks(cluster="c", tasks=[task])["tasks"][0]["lastStatus"] == "RUNNING")
        return {"cluster": "c", "task": task, "command": "sh", "interactive": True}

    def exec_request(self):
        """The same for a task that is made once."""
        if self.exec is None:
            self.exec = self.task_with_exec()
        return self.exec

    def token_used(self):
        token = unique("t")
        run(self.ecs, "c", self.definition, clientToken=token)
        return {"cluster": "c", "taskDefinition": self.definition, "clientToken": token, "count": 2}

    def full_of_tags(self):
        arn = f"{PREFIX}cluster/{self.cluster(tags=[{'key': f'k{n}', 'value': ''} for n in range(50)])}"
        return {"resourceArn": arn, "tags": [{"key": "one-more", "value": ""}]}

    def full_of_attributes(self):
        target = FakeAgent(self.berth, self.cluster()).register()
        attributes = [{"name": f"a{n}", "targetId": target.arn} for n in range(10)]
        self.ecs.put_attributes(cluster=target.cluster, attributes=attributes)
        return {"cluster": target.cluster, "attributes": [{"name": "one-more", "targetId": target.arn}]}

    def cluster_with_a_task(self):
        """Only a Fargate task has no container instance in its cluster, which would be named first."""
        takes = [{"name": f"ecs.capability.{name}"} for name in ("task-eni", "task-cpu-mem-limit")]
        machine = FakeAgent(self.berth, self.cluster(), attributes=[{"name": "berth.fargate", "value": "true"}, *takes]).register()
        # Berth's own agents alone take interfaces of Berth's.
        self.others.append(machine.connect(agentVersion="berth"))
        until("the machine to be there", machine.is_connected)
        name, members = self.cluster(), fargate(self)
        run(self.ecs, name, members.pop("taskDefinition"), **members)
        return {"cluster": name}

    def fargate_service(self):
        return {**fargate_service(self), "platformVersion": "1.0.0"}

    def definition_without_fargate(self):
        main = container("Main", portMappings=[{"containerPort": 80, "name": "web"}])
        arn = register(self.ecs, containers=[main])
        return express("c", primaryContainer=None, executionRoleArn=None, taskDefinitionArn=arn)


@pytest.fixture(scope="module")
def world():
    berth = Berth("server")
    made = None
    try:
        made = World(berth.start())
        yield made
    finally:
        if made:
            for agent in (made.agent, *made.others):
                agent.leave()
        berth.end()


# (action, error) -> how to provoke it (the request, or what gives it of a World) and words that the message must have.
CASES = {}


def old_platform(w):
    return {**fargate(w), "platformVersion": "1.0.0"}


def case(action, error, request, *words):
    assert (action, error + "Exception") not in CASES, (action, error)
    CASES[action, error + "Exception"] = (request, words)


def smallest_with(action, **members):
    return {**smallest(action), **members}


# What a request must have right before its cluster is looked for.
BEFORE_CLUSTER = {
    "AssociateGatewayWithCluster": {"gateway": "g"},
    "CreateCapacityProvider": {"managedInstancesProvider": instances()},
    "CreateExpressGatewayService": express("x"),
    "CreateService": {"serviceName": "web"},
    "DeregisterContainerInstance": {"containerInstance": NOBODY},
    "DisassociateGatewayFromCluster": {"gateway": "g"},
    "PutClusterCapacityProviders": {"capacityProviders": [], "defaultCapacityProviderStrategy": []},
    "UpdateCapacityProvider": {"managedInstancesProvider": instances()},
    "UpdateClusterSettings": {"settings": [{"name": "containerInsights", "value": "enabled"}]},
}
# Actions that name the cluster inside of an ARN.
IN_ARN = {
    "DeleteDaemon": {"daemonArn": "daemon/nobody/d"},
    "DescribeDaemon": {"daemonArn": "daemon/nobody/d"},
    "UpdateDaemon": {"daemonArn": "daemon/nobody/d"},
    "ListDaemonDeployments": {"daemonArn": "daemon/nobody/d"},
    "CreateDaemon": {"clusterArn": "cluster/nobody"},
    "ListDaemons": {"clusterArn": "cluster/nobody"},
    "DescribeDaemonDeployments": {"daemonDeploymentArns": ["daemon-deployment/nobody/d/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]},
    "DescribeDaemonRevisions": {"daemonRevisionArns": ["daemon-revision/nobody/d/00000000000000000000000000000000"]},
    "DeleteExpressGatewayService": {"serviceArn": "service/nobody/x"},
    "DescribeExpressGatewayService": {"serviceArn": "service/nobody/x"},
    "UpdateExpressGatewayService": {"serviceArn": "service/nobody/x"},
    "DescribeServiceDeployments": {"serviceDeploymentArns": ["service-deployment/nobody/web/aaaaaaaaaaaaaaaaaaaaa"]},
    "DescribeServiceRevisions": {"serviceRevisionArns": ["service-revision/nobody/web/1234567890123456789"]},
    "ListTagsForResource": {"resourceArn": "cluster/nobody"},
    "TagResource": {"resourceArn": "cluster/nobody", "tags": [{"key": "a", "value": "b"}]},
    "UntagResource": {"resourceArn": "cluster/nobody"},
}


def in_full(value):
    if isinstance(value, list):
        return [in_full(one) for one in value]
    return PREFIX + value if isinstance(value, str) else value


for action in OPERATIONS:
    operation = MODEL.operation_model(action)
    if "ClusterNotFoundException" in {shape.name for shape in operation.error_shapes}:
        if action in IN_ARN:
            case(action, "ClusterNotFound", smallest_with(action, **{k: in_full(v) for k, v in IN_ARN[action].items()}), "Cluster not found.")
        else:
            members = {**BEFORE_CLUSTER.get(action, {}), "cluster": "nobody"}
            case(action, "ClusterNotFound", smallest_with(action, **members), "Cluster not found.")
    for request, code, named in broken(action):
        if code == "InvalidParameterException":
            case(action, "InvalidParameter", request, named)
            break
case("ListClusters", "InvalidParameter", {"maxResults": 101}, "maxResults")
case("ListDaemons", "InvalidParameter", {"maxResults": 101}, "maxResults")

for action in ("DeleteGateway", "DescribeGateway", "DescribeGatewayResources", "ListGatewayRoutes", "UpdateGateway"):
    case(action, "GatewayNotFound", {"gateway": "none"}, "Gateway not found.")
for action in ("AssociateGatewayWithCluster", "DisassociateGatewayFromCluster"):
    case(action, "GatewayNotFound", {"gateway": "none", "cluster": "c"}, "Gateway not found.")
case("DisassociateGatewayFromCluster", "ResourceNotFound", {"gateway": "g", "cluster": "c"}, "gateway", "cluster")

SCALE = {"scale": {"value": 1, "unit": "PERCENT"}}
for action in ("CreateTaskSet", "DeleteTaskSet", "DescribeTaskSets", "UpdateServicePrimaryTaskSet", "UpdateTaskSet"):
    known = {**smallest(action), **({} if action != "UpdateTaskSet" else SCALE)}
    case(action, "ServiceNotFound", {**known, "cluster": "c", "service": "none"}, "Service not found.")
    case(action, "ServiceNotActive", {**known, "cluster": "c", "service": "ext-gone"}, "Service was not ACTIVE.")
for action, member in (("DeleteTaskSet", "taskSet"), ("UpdateServicePrimaryTaskSet", "primaryTaskSet"), ("UpdateTaskSet", "taskSet")):
    known = {**smallest(action), "cluster": "c", "service": "ext", member: "ecs-svc/1", **({} if action != "UpdateTaskSet" else SCALE)}
    case(action, "TaskSetNotFound", known, "task set was not found")
for action in ("DeleteService", "UpdateService", "ListServiceDeployments"):
    case(action, "ServiceNotFound", {"cluster": "c", "service": "none"}, "Service not found.")
case("ListTasks", "ServiceNotFound", {"cluster": "c", "serviceName": "none"}, "Service not found.")
case("UpdateService", "ServiceNotActive", {"cluster": "c", "service": "gone"}, "Service was not ACTIVE.")
for action in ("DeleteExpressGatewayService", "UpdateExpressGatewayService"):
    case(action, "ServiceNotFound", {"serviceArn": f"{PREFIX}service/c/none"}, "Service not found.")
    case(action, "ServiceNotActive", lambda w: {"serviceArn": w.express_gone}, "Service was not ACTIVE.")
case("DescribeExpressGatewayService", "ResourceNotFound", {"serviceArn": f"{PREFIX}service/c/none"}, "serviceArn")
case("DescribeGatewayRoute", "ResourceNotFound", {"gatewayRouteArn": f"{PREFIX}gateway-route/g/1"}, "gatewayRouteArn")
for action, more in (("TagResource", {"tags": [{"key": "a", "value": "b"}]}), ("UntagResource", {"tagKeys": ["a"]})):
    case(action, "ResourceNotFound", {"resourceArn": f"{PREFIX}service/c/none", **more}, "resourceArn")

ABSENT = {"serviceDeploymentArn": f"{PREFIX}service-deployment/c/web/{'a' * 21}"}
case("ContinueServiceDeployment", "ServiceDeploymentNotFound", {**ABSENT, "hookId": "h"}, "Service deployment not found.")
case("StopServiceDeployment", "ServiceDeploymentNotFound", ABSENT, "Service deployment not found.")
case("StopServiceDeployment", "Conflict", lambda w: {"serviceDeploymentArn": w.deployment}, "SUCCESSFUL", "serviceDeploymentArn")
case("DeleteCluster", "ClusterContainsTasks", World.cluster_with_a_task, "Tasks are active")
case("CreateService", "PlatformUnknown", lambda w: {"cluster": "c", "serviceName": "new", "desiredCount": 0, **old_platform(w)}, "platformVersion")
case("UpdateService", "PlatformUnknown", World.fargate_service, "platformVersion")
case("CreateTaskSet", "PlatformUnknown", lambda w: {"cluster": "c", "service": "ext", **old_platform(w)}, "platformVersion")
case("RunTask", "PlatformUnknown", lambda w: {"cluster": "c", **old_platform(w)}, "platformVersion")
case("RunTask", "Conflict", World.token_used, "different parameters")

for action, more in (("DeleteDaemon", {}), ("DescribeDaemon", {}), ("UpdateDaemon", {"daemonTaskDefinitionArn": "d"})):
    known = {**smallest(action), **more, "daemonArn": f"{PREFIX}daemon/c/none"}
    case(action, "DaemonNotFound", known, "daemon was not found")
for action in ("DeleteDaemon", "UpdateDaemon"):
    more = {"daemonTaskDefinitionArn": "d", "capacityProviderArns": ["m"]} if action == "UpdateDaemon" else {}
    case(action, "DaemonNotActive", lambda w, more=more: {"daemonArn": w.daemon_gone, **more}, "daemon is not active")

case("DeleteCluster", "ClusterContainsContainerInstances", World.with_instance, "Container Instances are active")
case("DeleteCluster", "ClusterContainsServices", World.with_service, "Services are active")
case("DeleteCluster", "ClusterContainsCapacityProvider", World.with_provider, "Capacity Providers are active")
case("PutClusterCapacityProviders", "ResourceInUse", World.provider_in_use, "in use")
case("CreateCapacityProvider", "LimitExceeded", World.full_of_providers, "20", "cluster")
case("TagResource", "LimitExceeded", World.full_of_tags, "50", "resourceArn")
TARGET = {"name": "a", "targetId": NOBODY, "targetType": "container-instance"}
for action in ("PutAttributes", "DeleteAttributes"):
    case(action, "TargetNotFound", {"cluster": "c", "attributes": [TARGET]}, NOBODY)
case("PutAttributes", "AttributeLimitExceeded", World.full_of_attributes, "10")
NAMESPACE = {"serviceConnectDefaults": {"namespace": "arn:aws:servicediscovery:us-east-1:000000000000:namespace/ns-0000000000000000"}}
case("CreateCluster", "NamespaceNotFound", {"clusterName": "connected", **NAMESPACE}, "serviceConnectDefaults.namespace")
case("UpdateCluster", "NamespaceNotFound", {"cluster": "c", **NAMESPACE}, "serviceConnectDefaults.namespace")
case("ListServicesByNamespace", "NamespaceNotFound", {"namespace": "none"}, "Namespace not found.")
case("UpdateContainerAgent", "NoUpdateAvailable", lambda w: {"cluster": "c", "containerInstance": w.agent.arn}, "no update available")
case("UpdateContainerAgent", "MissingVersion", lambda w: {"cluster": "c", "containerInstance": w.silent}, "version")
case("ExecuteCommand", "TargetNotConnected", World.task_with_exec, "execute command failed")
case("CreateExpressGatewayService", "PlatformTaskDefinitionIncompatibility", World.definition_without_fargate, "FARGATE", "taskDefinitionArn")

# What Berth refuses in AWS's word for that.
BALANCED = {"loadBalancers": [{"targetGroupArn": "a", "containerName": "app", "containerPort": 80}]}
VOLUMES = {"volumeConfigurations": [{"name": "v"}]}
ALARMED = {"deploymentConfiguration": {"alarms": {"enable": True, "alarmNames": ["a"]}}}
WEB = {"cluster": "c", "taskDefinition": "web"}
case("CreateService", "UnsupportedFeature", {**WEB, "serviceName": "new", "desiredCount": 0, **BALANCED}, "loadBalancers")
case("UpdateService", "UnsupportedFeature", {"cluster": "c", "service": "web", **BALANCED}, "loadBalancers")
case("CreateTaskSet", "UnsupportedFeature", {**WEB, "service": "ext", **BALANCED}, "loadBalancers")
case("RunTask", "UnsupportedFeature", {**WEB, **VOLUMES}, "volumeConfigurations")
case("StartTask", "UnsupportedFeature", {**WEB, "containerInstances": [NOBODY], **VOLUMES}, "volumeConfigurations")
DEPLOYED = {"daemonTaskDefinitionArn": "d", "capacityProviderArns": ["m"], **ALARMED}
case("CreateDaemon", "UnsupportedFeature", {"clusterArn": f"{PREFIX}cluster/c", "daemonName": "new", **DEPLOYED}, "alarms")
case("UpdateDaemon", "UnsupportedFeature", lambda w: {"daemonArn": w.daemon, **DEPLOYED}, "alarms")

# ClientException: what is named by a definition, a provider or a gateway cannot be used so.
case("AssociateGatewayWithCluster", "Client", lambda w: full_of_gateways(w), "gateways")
case("CreateCapacityProvider", "Client", {"name": "m", "cluster": "c", "managedInstancesProvider": instances()}, "already exists")
case("UpdateCapacityProvider", "Client", {"name": "none", "autoScalingGroupProvider": {}}, "does not exist")
case("DeleteCapacityProvider", "Client", {"capacityProvider": "FARGATE"}, "FARGATE")
UNDEFINED = {**DEPLOYED, "daemonTaskDefinitionArn": "none", "deploymentConfiguration": {}}
case("CreateDaemon", "Client", {"clusterArn": f"{PREFIX}cluster/c", "daemonName": "new", **UNDEFINED}, "daemon task definition was not found")
case("UpdateDaemon", "Client", lambda w: {"daemonArn": w.daemon, **UNDEFINED}, "daemon task definition was not found")
case("CreateExpressGatewayService", "Client", express("c", cpu="much"), "'cpu'")
case("UpdateExpressGatewayService", "Client", lambda w: {"serviceArn": w.express, "cpu": "much"}, "'cpu'")
GATEWAY = {"name": "g", "infrastructureRoleArn": ROLE, "configuration": {"hostSharedAlb": {}}}
case("CreateGateway", "Client", GATEWAY, "already exists")
case("DeleteGateway", "Client", {"gateway": "kept"}, "deletionProtection")
case("CreateService", "Client", {"cluster": "c", "serviceName": "new", "desiredCount": 0, "taskDefinition": "none"}, "TaskDefinition not found.")
case("UpdateService", "Client", {"cluster": "c", "service": "web", "taskDefinition": "old:1"}, "inactive")
case("CreateTaskSet", "Client", {"cluster": "c", "service": "ext", "taskDefinition": "none"}, "TaskDefinition not found.")
case("RunTask", "Client", {"cluster": "c", "taskDefinition": "old:1"}, "inactive")
case("StartTask", "Client", {"cluster": "c", "taskDefinition": "none", "containerInstances": [NOBODY]}, "TaskDefinition not found.")
case("DescribeTaskDefinition", "Client", {"taskDefinition": "none"}, "Unable to describe task definition.")
case("DeregisterTaskDefinition", "Client", {"taskDefinition": "none:1"}, "does not exist")
case("RegisterTaskDefinition", "Client", {"family": "f", "containerDefinitions": [{"name": "a", "image": "b"}]}, "'a'", "'memory'")
case("RegisterDaemonTaskDefinition", "Client", {"family": "f", "containerDefinitions": [sidecar(image="")]}, "image")
case("DescribeDaemonTaskDefinition", "Client", {"daemonTaskDefinition": "none"}, "Unable to describe")
case("DeleteDaemonTaskDefinition", "Client", lambda w: {"daemonTaskDefinition": w.used}, "not ACTIVE")
case("RegisterContainerInstance", "Client", {"cluster": "c", "containerInstanceArn": f"{PREFIX}container-instance/c/{NOBODY}"}, "containerInstanceArn")


def full_of_gateways(world):
    """A cluster with as many gateways as it can have, and one more."""
    name = world.cluster()
    for number in range(6):
        gateway = unique("g")
        world.ecs.create_gateway(**{**GATEWAY, "name": gateway}, deletionProtection=False)
        if number < 5:
            world.ecs.associate_gateway_with_cluster(gateway=gateway, cluster=name)
    return {"gateway": gateway, "cluster": name}


@pytest.mark.parametrize(("action", "error"), sorted(CASES))
def test_the_error_is_provoked(world, action, error):
    request, words = CASES[action, error]
    answer = call(world.berth, action, request(world) if callable(request) else request)
    assert (answer.status, answer.code) == (400, error), answer
    assert set(answer.json) - {"resourceIds"} == {"__type", "message"}, answer
    # A sentence for people, not a program's inside.
    assert re.match(r"[A-Z0-9'{]", answer.message) and len(answer.message) < 1000, answer
    assert not re.search(r"Some\(|None\b|Err\(|::|panicked", answer.message), answer
    for word in words:
        assert word in answer.message, answer


def explained():
    """The pairs that cannot happen, each with its reason."""
    pairs = {}
    for row in json.loads(TABLE.read_text()):
        actions = row.get("actions") or [action for action in OPERATIONS if row["error"] in documented(action)]
        for action in actions:
            assert (action, row["error"]) not in pairs, f"explained twice: {action} {row['error']}"
            pairs[action, row["error"]] = row["why"]
    return pairs


def documented(action):
    return {shape.name for shape in MODEL.operation_model(action).error_shapes}


def test_every_documented_error_is_provoked_or_cannot_happen():
    every = {(action, error) for action in OPERATIONS for error in documented(action)}
    assert len(every) > 500
    reasons = explained()
    assert all(reasons.values()), "each has a reason"
    assert set(CASES) <= every, sorted(set(CASES) - every)
    assert set(reasons) <= every, sorted(set(reasons) - every)
    assert not set(CASES) & set(reasons), f"cannot happen, but does: {sorted(set(CASES) & set(reasons))}"
    left = every - set(CASES) - set(reasons)
    assert not left, f"neither provoked nor explained: {sorted(left)}"
