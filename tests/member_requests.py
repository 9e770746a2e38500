"""A good request for every action, and one for every member that AWS's model lets it have."""

import copy

from berth import unique
from cloud_map_calls import ARN as CLOUD_MAP
from cloud_map_calls import cloud_map, http_namespace, service
from ecs_calls import container, register
from fake_agent import FakeAgent
from model_requests import MODEL, smallest
from test_capacity_providers import instances, managed
from test_daemons import define, sidecar
from test_express_services import own_definition, request as express

PREFIX = "arn:aws:ecs:us-east-1:000000000000:"
ROLE = "arn:aws:iam::000000000000:role/ecs"
DEPTH = 12
# Only an earlier answer has it; test_lists.py and test_model.py walk the pages.
SKIPPED = {"nextToken"}

# -- good requests -------------------------------------------------------------------------------------------------------------


def external(w):
    name = unique("ext")
    w.ecs.create_service(cluster="c", serviceName=name, deploymentController={"type": "EXTERNAL"})
    return {"cluster": "c", "service": name}


def with_set(w):
    of = external(w)
    made = w.ecs.create_task_set(**of, taskDefinition="web", scale={"value": 0, "unit": "PERCENT"})
    return {**of, "taskSet": made["taskSet"]["id"]}


def primary(w):
    of = with_set(w)
    return {"cluster": "c", "service": of["service"], "primaryTaskSet": of["taskSet"]}


def fresh_service(w):
    name = unique("s")
    w.ecs.create_service(cluster="c", serviceName=name, taskDefinition=w.definition, desiredCount=0)
    return {"cluster": "c", "service": name}


def fresh_gateway(w):
    name = unique("g")
    w.ecs.create_gateway(name=name, infrastructureRoleArn=ROLE, configuration={"hostSharedAlb": {}}, deletionProtection=False)
    return {"gateway": name}


def associated(w):
    of = {**fresh_gateway(w), "cluster": w.cluster()}
    w.ecs.associate_gateway_with_cluster(**of)
    return of


def fresh_daemon(w):
    name = unique("d")
    cluster = f"{PREFIX}cluster/c"
    made = w.ecs.create_daemon(daemonName=name, clusterArn=cluster, daemonTaskDefinitionArn="d", capacityProviderArns=[w.provider])
    return {"daemonArn": made["daemonArn"]}


def fresh_express(w):
    return {"serviceArn": w.ecs.create_express_gateway_service(**express("c", serviceName=unique("x")))["service"]["serviceArn"]}


def fresh_group(w):
    name = unique("p")
    w.ecs.create_capacity_provider(name=name, autoScalingGroupProvider={"autoScalingGroupArn": name})
    return name


def new_provider(w, path):
    if "managedInstancesProvider" in path or "cluster" in path:
        template = {"capacityOptionType": "RESERVED"} if "capacityReservations" in path else {}
        return {"name": unique("p"), "cluster": w.cluster(), "managedInstancesProvider": instances(**template)}
    scaling = {"managedScaling": {"status": "ENABLED"}} if "managedTerminationProtection" in path else {}
    return {"name": unique("p"), "autoScalingGroupProvider": {"autoScalingGroupArn": unique("g"), **scaling}}


def changed_provider(w, path):
    made = new_provider(w, path)
    w.ecs.create_capacity_provider(**made)
    if "cluster" in made:
        return {**made, "managedInstancesProvider": instances()}
    return {"name": made["name"], "autoScalingGroupProvider": {}}


def gone_provider(w, path):
    if "cluster" in path:
        cluster = w.cluster()
        return {"capacityProvider": managed(w.ecs, cluster), "cluster": cluster}
    return {"capacityProvider": fresh_group(w)}


def new_express(w, path):
    if "taskDefinitionArn" in path:
        return express("c", primaryContainer=None, executionRoleArn=None, taskDefinitionArn=own_definition(w.ecs))
    return express("c", serviceName=unique("x"))


def changed_express(w, path):
    wanted = {"taskDefinitionArn": own_definition(w.ecs)} if "taskDefinitionArn" in path else {}
    return {**fresh_express(w), **wanted}


def staged(path):
    """The deployment strategy that a member belongs to."""
    strategies = {"linearConfiguration": "LINEAR", "canaryConfiguration": "CANARY"}
    found = [strategies[name] for name in path if name in strategies]
    if path[-1] == "strategy":
        return {"deploymentConfiguration": {"bakeTimeInMinutes": 1}}
    return {"deploymentConfiguration": {"strategy": found[0]}} if found else {}


# The default VPC's first subnet: its id follows from account and region.
OWN_INTERFACES = {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-5228a842f1c30248e"]}}}


def registry(w, path):
    """What a service registry fits: one that is found by API calls alone takes any port, said outright only of a task with its own address."""
    if not any(name.startswith("serviceRegistries") for name in path):
        return {}
    if getattr(w, "registry", None) is None:
        client = cloud_map(w.berth)
        w.registry = f"{CLOUD_MAP}service/{service(client, http_namespace(client))}"
    outright = path[-1] == "port"
    web = container("app", portMappings=[{"containerPort": 80}])
    port = {} if outright else {"containerName": "app", "containerPort": 80}
    mode, interfaces = ({"networkMode": "awsvpc"}, OWN_INTERFACES) if outright else ({}, {})
    return {"taskDefinition": register(w.ecs, containers=[web], **mode), "serviceRegistries": [{"registryArn": w.registry, **port}], **interfaces}


def fargate(w):
    """What a platform version fits: tasks of Fargate."""
    definition = register(w.ecs, networkMode="awsvpc", requiresCompatibilities=["FARGATE"], cpu="256", memory="512")
    return {"taskDefinition": definition, "launchType": "FARGATE", **OWN_INTERFACES}


def fargate_service(w):
    name = unique("s")
    w.ecs.create_service(cluster="c", serviceName=name, desiredCount=0, **fargate(w))
    return {"cluster": "c", "service": name}


def network(w, path):
    """What a network configuration fits: a definition whose tasks have interfaces of their own."""
    if path[0] == "platformVersion":
        return fargate(w)
    return {"taskDefinition": register(w.ecs, networkMode="awsvpc"), **OWN_INTERFACES} if path[0] == "networkConfiguration" else {}


def new_instance(w, path):
    return {**CLUSTER, "containerInstanceArn": w.silent} if "containerInstanceArn" in path else {"cluster": "c"}


def inactive(w):
    arn = register(w.ecs)
    w.ecs.deregister_task_definition(taskDefinition=arn)
    return {"taskDefinitions": [arn]}


def instance(w):
    return {"cluster": "c", "containerInstance": FakeAgent(w.berth, "c").register().arn}


def attribute(w):
    return {"cluster": "c", "attributes": [{"name": "shelf", "value": "a", "targetId": w.agent.arn}]}


def new_definition(w, path):
    ports = [{"containerPort": 80}] if "containerPortRange" not in path else [{}]
    containers = [container("one", portMappings=ports), container("two")]
    request = {"family": "members", "containerDefinitions": containers, "volumes": [{"name": "one"}]}
    if any(part.startswith("secrets") for part in path):
        request["executionRoleArn"] = "arn:aws:iam::000000000000:role/execution"
    if path[-1] == "requiresCompatibilities":
        request.update(networkMode="awsvpc", cpu="256", memory="512")
    return request


CLUSTER = {"cluster": "c"}
PLACED = {"cluster": "c", "taskDefinition": "web"}
WHOLE = f"{PREFIX}cluster/c"
DAEMON = {"daemonTaskDefinitionArn": "d", "capacityProviderArns": ["m"]}
# Action -> a request that is answered well, or with the error that the action always ends in; from a World and the member's path.
GOOD = {
    "AssociateGatewayWithCluster": lambda w, _: {**fresh_gateway(w), "cluster": w.cluster()},
    "ContinueServiceDeployment": lambda w, _: {"serviceDeploymentArn": w.deployment, "hookId": "hook"},
    "CreateCapacityProvider": new_provider,
    "CreateCluster": lambda w, _: {"clusterName": unique("c"), "capacityProviders": ["FARGATE"]},
    "CreateDaemon": lambda w, _: {"daemonName": unique("d"), "clusterArn": WHOLE, **DAEMON},
    "CreateExpressGatewayService": new_express,
    "CreateGateway": lambda w, _: {"name": unique("g"), "infrastructureRoleArn": ROLE, "configuration": {"hostSharedAlb": {}}},
    "CreateService": lambda w, path: {**PLACED, "serviceName": unique("s"), "desiredCount": 0, **staged(path), **registry(w, path), **network(w, path)},
    "CreateTaskSet": lambda w, path: {**external(w), "taskDefinition": "web", **registry(w, path), **network(w, path)},
    "DeleteAccountSetting": lambda w, _: {"name": "containerInsights"},
    "DeleteAttributes": lambda w, _: (w.ecs.put_attributes(**attribute(w)), attribute(w))[1],
    "DeleteCapacityProvider": gone_provider,
    "DeleteCluster": lambda w, _: {"cluster": w.cluster()},
    "DeleteDaemon": lambda w, _: fresh_daemon(w),
    "DeleteDaemonTaskDefinition": lambda w, _: {"daemonTaskDefinition": define(w.ecs)},
    "DeleteExpressGatewayService": lambda w, _: fresh_express(w),
    "DeleteGateway": lambda w, _: fresh_gateway(w),
    "DeleteService": lambda w, _: fresh_service(w),
    "DeleteTaskDefinitions": lambda w, _: inactive(w),
    "DeleteTaskSet": lambda w, _: {**with_set(w), "force": True},
    "DeregisterContainerInstance": lambda w, _: instance(w),
    "DeregisterTaskDefinition": lambda w, _: {"taskDefinition": register(w.ecs)},
    "DescribeClusters": lambda w, _: {"clusters": ["c"]},
    "DescribeContainerInstances": lambda w, _: {**CLUSTER, "containerInstances": [w.agent.arn]},
    "DescribeDaemon": lambda w, _: {"daemonArn": w.daemon},
    "DescribeDaemonDeployments": lambda w, _: {"daemonDeploymentArns": [f"{PREFIX}daemon-deployment/c/d/{'0' * 32}"]},
    "DescribeDaemonRevisions": lambda w, _: {"daemonRevisionArns": [f"{PREFIX}daemon-revision/c/d/{'0' * 32}"]},
    "DescribeDaemonTaskDefinition": lambda w, _: {"daemonTaskDefinition": "d"},
    "DescribeExpressGatewayService": lambda w, _: {"serviceArn": w.express},
    "DescribeGateway": lambda w, _: {"gateway": "g"},
    "DescribeGatewayResources": lambda w, _: {"gateway": "g"},
    "DescribeGatewayRoute": lambda w, _: {"gatewayRouteArn": f"{PREFIX}gateway-route/g/1"},
    "DescribeServiceDeployments": lambda w, _: {"serviceDeploymentArns": [w.deployment]},
    "DescribeServiceRevisions": lambda w, _: {"serviceRevisionArns": [f"{PREFIX}service-revision/c/web/1234567890123456789"]},
    "DescribeServices": lambda w, _: {**CLUSTER, "services": ["web"]},
    "DescribeTaskDefinition": lambda w, _: {"taskDefinition": "web"},
    "DescribeTaskSets": lambda w, _: {**CLUSTER, "service": "ext"},
    "DescribeTasks": lambda w, _: {**CLUSTER, "tasks": ["0" * 32]},
    "DisassociateGatewayFromCluster": lambda w, _: associated(w),
    "ExecuteCommand": lambda w, _: w.exec_request(),
    "GetTaskProtection": lambda w, _: {**CLUSTER, "tasks": ["0" * 32]},
    "ListAccountSettings": lambda w, _: {"name": "containerInsights"},
    "ListAttributes": lambda w, _: {**CLUSTER, "targetType": "container-instance", "attributeName": "shelf"},
    "ListDaemonDeployments": lambda w, _: {"daemonArn": w.daemon},
    "ListDaemons": lambda w, _: {"clusterArn": WHOLE},
    "ListServiceDeployments": lambda w, _: {**CLUSTER, "service": "web"},
    "ListTagsForResource": lambda w, _: {"resourceArn": WHOLE},
    "PutAccountSetting": lambda w, _: {"name": "containerInsights", "value": "enabled"},
    "PutAccountSettingDefault": lambda w, _: {"name": "containerInsights", "value": "enabled"},
    "PutAttributes": lambda w, _: attribute(w),
    "PutClusterCapacityProviders": lambda w, _: {
        "cluster": w.cluster(), "capacityProviders": ["FARGATE"], "defaultCapacityProviderStrategy": [],
    },
    "RegisterContainerInstance": new_instance,
    "RegisterDaemonTaskDefinition": lambda w, _: {
        "family": "members", "containerDefinitions": [sidecar("one"), sidecar("two")], "volumes": [{"name": "one"}],
    },
    "RegisterTaskDefinition": new_definition,
    "RunTask": lambda w, path: {**PLACED, "overrides": {"containerOverrides": [{"name": "app"}]}, **network(w, path)},
    "StartTask": lambda w, path: {**PLACED, "containerInstances": [w.agent.arn], "overrides": {"containerOverrides": [{"name": "app"}]}, **network(w, path)},
    "StopServiceDeployment": lambda w, _: {"serviceDeploymentArn": w.deployment},
    "StopTask": lambda w, _: {**CLUSTER, "task": w.exec_request()["task"]},
    "SubmitAttachmentStateChanges": lambda w, _: {**CLUSTER, "attachments": [{"attachmentArn": "arn", "status": "ATTACHED"}]},
    "SubmitContainerStateChange": lambda w, _: CLUSTER,
    "SubmitTaskStateChange": lambda w, _: {**CLUSTER, "task": w.exec_request()["task"]},
    "TagResource": lambda w, _: {"resourceArn": WHOLE, "tags": [{"key": "a", "value": "b"}]},
    "UntagResource": lambda w, _: {"resourceArn": WHOLE, "tagKeys": ["a"]},
    "UpdateCapacityProvider": changed_provider,
    "UpdateCluster": lambda w, _: {"cluster": w.cluster()},
    "UpdateClusterSettings": lambda w, _: {"cluster": w.cluster(), "settings": [{"name": "containerInsights", "value": "enabled"}]},
    "UpdateContainerAgent": lambda w, _: {**CLUSTER, "containerInstance": w.agent.arn},
    "UpdateContainerInstancesState": lambda w, _: {**CLUSTER, "containerInstances": [w.silent], "status": "DRAINING"},
    "UpdateDaemon": lambda w, _: {**fresh_daemon(w), **DAEMON},
    "UpdateExpressGatewayService": changed_express,
    "UpdateGateway": lambda w, _: {**fresh_gateway(w), "configuration": {"hostSharedAlb": {}}},
    "UpdateService": lambda w, path: {**fargate_service(w), "forceNewDeployment": True} if path[0] == "platformVersion" else {
        **fresh_service(w), "forceNewDeployment": True, **staged(path), **registry(w, path), **network(w, path),
    },
    "UpdateServicePrimaryTaskSet": lambda w, _: primary(w),
    "UpdateTaskProtection": lambda w, _: {**CLUSTER, "tasks": ["0" * 32], "protectionEnabled": True},
    "UpdateTaskSet": lambda w, _: {**with_set(w), "scale": {"value": 1, "unit": "PERCENT"}},
}
# Where a member has to look like something: by the last names of its path, the longest that is there.
VALUES = {
    "DescribeTaskSets:taskSets": ["ecs-svc/1"],
    "ExecuteCommand:container": "app",
    "ListAccountSettings:value": "enabled",
    "ListContainerInstances:filter": "attribute:ecs.os-type == linux",
    "ListGatewayRoutes:gateway": "g",
    "ListTasks:containerInstance": "0" * 32,
    "ListTasks:serviceName": "web",
    "UpdateService:taskDefinition": "web",
    "StopServiceDeployment:stopType": "ROLLBACK",
    "SubmitTaskStateChange:status": "RUNNING",
    "autoRepairConfiguration.actionsStatus": "ENABLED",
    "bucket": "logs",
    "capacityProviderStrategy.capacityProvider": "m",
    "clientToken": lambda: unique("t"),
    "configuration.hostSharedAlb.port": 443,
    "placementConstraints.type": "memberOf",
    "resourceRequirements.value": "1",
    "configuration.hostSharedAlb.protocol": "HTTPS",
    "containerDefinitions.cpu": 10,
    "containerOverrides.cpu": 1,
    "containerOverrides.memory": 64,
    "containerPath": "/a",
    "containerPortRange": "8000-8001",
    "cpu": "256",
    "containers.status": "RUNNING",
    "defaultCapacityProviderStrategy.capacityProvider": "FARGATE",
    "dependsOn.containerName": "two",
    "ephemeralStorage.sizeInGiB": 21,
    "executionRoleArn": ROLE,
    "expression": "attribute:ecs.os-type == linux",
    "canaryPercent": 5,
    "healthCheck.interval": 30,
    "healthCheck.timeout": 5,
    "healthCheckPath": "/up",
    "healthyPercent": 100,
    "hookTargetArn": "https://127.0.0.1:1/",
    "inboundSecurityGroup": "sg-1",
    "lifecycleHooks.roleArn": ROLE,
    "infrastructureRoleArn": ROLE,
    "key": "stack",
    "maximumPercent": 150,
    "memory": "512",
    "memoryReservation": 8,
    "nvidiaMps.memory": 1,
    "placementStrategy.field": "instanceId",
    "platformVersion": "LATEST",
    "principalArn": "arn:aws:iam::000000000000:user/ann",
    "restartAttemptPeriod": 60,
    "securityGroups": ["sg-1"],
    "settings.value": "enabled",
    "sharingStrategy": {"nvidiaMps": {"memory": 1}},
    "sourceContainer": "two",
    "sourceVolume": "one",
    "stepPercent": 10,
    "awsvpcConfiguration.assignPublicIp": "DISABLED",
    "awsvpcConfiguration.securityGroups": [],
    "awsvpcConfiguration.subnets": ["subnet-5228a842f1c30248e"],
    "subnets": ["subnet-1"],
    "tags": [{"key": "stack", "value": "one"}],
    "taskRoleArn": ROLE,
    "webACLArn": "arn:aws:wafv2:us-east-1:000000000000:regional/webacl/edge/0123",
}
# What a structure must have beside what the model requires, in the same way.
BESIDE = {
    "containers": {"containerName": "app", "status": "RUNNING"},
    "dependsOn": {"containerName": "two", "condition": "START"},
    "earlySuccessCriteria": {"enable": True, "healthyPercent": 100, "sourceServiceRevisionCleanup": "BLOCKING"},
    "efsVolumeConfiguration": {"transitEncryption": "ENABLED"},
    "environment": {"name": "A", "value": "1"},
    "lifecycleHooks": {"hookTargetArn": "https://127.0.0.1:1/", "lifecycleStages": ["PRE_SCALE_UP"]},
    "managedScaling": {"status": "ENABLED"},
    "mountPoints": {"sourceVolume": "one", "containerPath": "/a"},
    "placementConstraints": {"type": "memberOf", "expression": "attribute:ecs.os-type == linux"},
    "resourceRequirements": {"type": "GPU", "value": "1"},
    "placementStrategy": {"type": "spread", "field": "instanceId"},
    "settings": {"name": "containerInsights", "value": "enabled"},
    "tags": {"key": "stack", "value": "one"},
    "volumesFrom": {"sourceContainer": "two"},
}


def good(action, world, path):
    make = GOOD.get(action)
    return copy.deepcopy(make(world, path)) if make else smallest(action) | ({"cluster": "c"} if "cluster" in members(action) else {})


def members(action):
    return MODEL.operation_model(action).input_shape.members


# -- every member ----------------------------------------------------------------------------------------------------------------


def paths(action):
    """Every member of the action's request, as a path of names with [] after a list's, and its shape."""
    yield from _paths(MODEL.operation_model(action).input_shape, (), DEPTH)


def _paths(shape, path, depth):
    while shape.type_name == "list":
        shape, path = shape.member, (*path[:-1], path[-1] + "[]")
    if shape.type_name == "structure" and depth:
        for name, inner in shape.members.items():
            if name not in SKIPPED:
                yield (*path, name), inner
                yield from _paths(inner, (*path, name), depth - 1)


def with_member(action, request, path, value=None):
    """The request with this member, and with what the model requires beside it."""
    merged = _merged(request, _sparse(MODEL.operation_model(action).input_shape, path, (), action))
    if value is not None:
        at = merged
        for name in path[:-1]:
            at = at[name.removesuffix("[]")]
            at = at[0] if name.endswith("[]") else at
        at[path[-1]] = value
    return merged


def _sparse(shape, path, at, action):
    made = _required(shape, action, at) if at else {}
    name, inner = path[0].removesuffix("[]"), shape.members[path[0].removesuffix("[]")]
    depth = path[0].count("[]")
    if len(path) == 1:
        made[name] = _value(inner, action, (*at, path[0]))
        return made
    for _ in range(depth):
        inner = inner.member
    item = _sparse(inner, path[1:], (*at, path[0]), action)
    for _ in range(depth):
        item = [item]
    made[name] = item
    return made


def _known(table, action, path):
    """What a table has for this path, or for its end."""
    names = [name.removesuffix("[]") for name in path]
    keys = [f"{action}:{'.'.join(names)}", *(".".join(names[start:]) for start in range(len(names)))]
    found = next((table[key] for key in keys if key in table), None)
    return copy.deepcopy(found() if callable(found) else found)


def _required(shape, action, path):
    return {name: _value(shape.members[name], action, (*path, name)) for name in shape.required_members} | (
        _known(BESIDE, action, path) or {}
    )


def _value(shape, action, path):
    known = _known(VALUES, action, path)
    if known is not None:
        return known
    kind, limits = shape.type_name, shape.metadata
    if kind == "structure":
        return _required(shape, action, path)
    if kind == "list":
        return [_value(shape.member, action, path)]
    if kind == "map":
        return {"key": "value"}
    if kind == "string":
        return limits["enum"][0] if "enum" in limits else path[-1].removesuffix("[]")
    if kind in ("integer", "long", "double", "float"):
        return max(limits.get("min", 1), 1)
    return {"boolean": True, "timestamp": 1700000000, "blob": "aGVsbG8="}[kind]


def _merged(base, more):
    """What the good request says already stays."""
    if isinstance(base, dict) and isinstance(more, dict):
        return {**base, **{name: _merged(base[name], value) if name in base else value for name, value in more.items()}}
    if isinstance(base, list) and isinstance(more, list) and base and more and isinstance(base[0], dict):
        return [_merged(base[0], more[0]), *base[1:]]
    return more if base in ([], {}) else base
