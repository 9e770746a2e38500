"""What infrastructure tools compare: each member that was sent is shown as it was sent, and applying what was read changes nothing."""

import json
import re
from pathlib import Path

import pytest

from berth import unique, until
from http_call import call
from member_requests import PREFIX, good, members, paths, with_member
from test_capacity_providers import instances
from test_daemons import define
from test_errors import world  # noqa: F401 - the fixture
from test_express_services import request as express

REFUSED = json.loads((Path(__file__).parent / "members.json").read_text())["refused"]

# -- reading back, under the names that the request has ----------------------------------------------------------------------


def cluster(w, name):
    include = ["ATTACHMENTS", "CONFIGURATIONS", "SETTINGS", "STATISTICS", "TAGS"]
    (found,) = w.ecs.describe_clusters(clusters=[name], include=include)["clusters"]
    # A namespace is sent by name and shown by ARN, which has an id of its own.
    namespaces = {one["Arn"]: {"namespace": one["Name"]} for one in w.berth.client("servicediscovery").list_namespaces()["Namespaces"]}
    connected = namespaces.get(found.get("serviceConnectDefaults", {}).get("namespace"))
    return {**found, "cluster": found["clusterArn"], "serviceConnectDefaults": connected}


def service(w, of, name):
    (found,) = w.ecs.describe_services(cluster=of, services=[name], include=["TAGS"])["services"]
    return {**found, "cluster": found["clusterArn"], "service": found["serviceArn"], "role": found.get("roleArn")}


def task_set(w, of, name, arn):
    (found,) = w.ecs.describe_task_sets(cluster=of, service=name, taskSets=[arn], include=["TAGS"])["taskSets"]
    return {**found, "cluster": found["clusterArn"], "service": found["serviceArn"]}


def provider(w, name):
    (found,) = w.ecs.describe_capacity_providers(capacityProviders=[name], include=["TAGS"])["capacityProviders"]
    return found


def task_definition(w, arn):
    found = w.ecs.describe_task_definition(taskDefinition=arn, include=["TAGS"])
    return {**found["taskDefinition"], "tags": found.get("tags", [])}


def daemon_definition(w, arn):
    return {**w.ecs.describe_daemon_task_definition(daemonTaskDefinition=arn)["daemonTaskDefinition"], "tags": tags(w, arn)}


def daemon(w, arn):
    found = w.ecs.describe_daemon(daemonArn=arn)["daemon"]
    (deployment,) = w.ecs.describe_daemon_deployments(daemonDeploymentArns=[found["deploymentArn"]])["daemonDeployments"]
    target = deployment["targetDaemonRevision"]
    (revision,) = w.ecs.describe_daemon_revisions(daemonRevisionArns=[target["arn"]])["daemonRevisions"]
    return {
        **found,
        **revision,
        "daemonName": arn.rsplit("/", 1)[1],
        "capacityProviderArns": [one["arn"] for one in target["capacityProviders"]],
        "deploymentConfiguration": deployment["deploymentConfiguration"],
        "tags": tags(w, arn),
    }


def tags(w, arn):
    return w.ecs.list_tags_for_resource(resourceArn=arn)["tags"]


def gateway(w, name):
    def look():
        found = w.ecs.describe_gateway(gateway=name)["gateway"]
        return None if found["status"] == "UPDATE_IN_PROGRESS" else found

    found = until("the gateway to be updated", look)
    return {**found, "gateway": found["gatewayArn"]}


def express_service(w, arn):
    found = w.ecs.describe_express_gateway_service(serviceArn=arn, include=["TAGS"])["service"]
    # The newest revision comes last or first until the one before is gone.
    newest = max(found["activeConfigurations"], key=lambda one: one["createdAt"])
    return {**found, **newest, "cluster": f"{PREFIX}cluster/{found['cluster']}"}


def setting(w, request):
    principal = request.get("principalArn", "arn:aws:iam::000000000000:root")
    return w.ecs.list_account_settings(name=request["name"], principalArn=principal, effectiveSettings=True)["settings"][0]


def attributes(w, request):
    (wanted,) = request["attributes"]
    found = w.ecs.list_attributes(cluster=request["cluster"], targetType="container-instance", attributeName=wanted["name"])["attributes"]
    return {"attributes": [{**one, "targetType": "container-instance"} for one in found], "cluster": f"{PREFIX}cluster/c"}


# Action -> what of Describe answers to the request's members; from a World, the request and the answer.
READ = {
    "CreateCapacityProvider": lambda w, r, a: provider(w, r["name"]),
    "CreateCluster": lambda w, r, a: cluster(w, r["clusterName"]),
    "CreateDaemon": lambda w, r, a: daemon(w, a["daemonArn"]),
    "CreateExpressGatewayService": lambda w, r, a: express_service(w, a["service"]["serviceArn"]),
    "CreateGateway": lambda w, r, a: gateway(w, r["name"]),
    "CreateService": lambda w, r, a: service(w, r["cluster"], r["serviceName"]),
    "CreateTaskSet": lambda w, r, a: task_set(w, r["cluster"], r["service"], a["taskSet"]["id"]),
    "PutAccountSetting": lambda w, r, a: setting(w, r),
    "PutAccountSettingDefault": lambda w, r, a: setting(w, r),
    "PutAttributes": lambda w, r, a: attributes(w, r),
    "PutClusterCapacityProviders": lambda w, r, a: cluster(w, r["cluster"]),
    "RegisterDaemonTaskDefinition": lambda w, r, a: daemon_definition(w, a["daemonTaskDefinitionArn"]),
    "RegisterTaskDefinition": lambda w, r, a: task_definition(w, a["taskDefinition"]["taskDefinitionArn"]),
    "UpdateCapacityProvider": lambda w, r, a: provider(w, r["name"]),
    "UpdateCluster": lambda w, r, a: cluster(w, r["cluster"]),
    "UpdateClusterSettings": lambda w, r, a: cluster(w, r["cluster"]),
    "UpdateDaemon": lambda w, r, a: daemon(w, r["daemonArn"]),
    "UpdateExpressGatewayService": lambda w, r, a: express_service(w, r["serviceArn"]),
    "UpdateGateway": lambda w, r, a: gateway(w, r["gateway"]),
    "UpdateService": lambda w, r, a: service(w, r["cluster"], r["service"]),
}
# What no answer of ECS has a member for.
NOT_SHOWN = {"clientToken", "forceNewDeployment"}


def differences(sent, shown, at=""):
    """Members that are not shown as they were sent. ECS shows names as ARNs, and lists of tags and providers in its own order."""
    if isinstance(sent, dict):
        if not isinstance(shown, dict):
            if shown is None and says_nothing(sent):
                return []
            return [f"{at}: {sent!r} is shown as {shown!r}"]
        return [
            text
            for name, value in sent.items()
            if name not in NOT_SHOWN
            for text in differences(value, shown.get(name), f"{at}.{name}" if at else name)
        ]
    if isinstance(sent, list) and isinstance(shown, list) and len(sent) == len(shown):
        return [text for n, (one, other) in enumerate(zip(sent, shown)) for text in differences(one, other, f"{at}[{n}]")]
    is_arn = isinstance(shown, str) and shown.startswith("arn:") and re.search(rf"/{re.escape(str(sent))}(:\d+)?$", shown)
    # A task set shows which one that is.
    is_latest = sent == "LATEST" and shown == "1.4.0"
    return [] if sent == shown or is_arn or is_latest else [f"{at}: {sent!r} is shown as {shown!r}"]


def says_nothing(value):
    """An empty structure, as far down as it goes, asks for nothing."""
    return isinstance(value, dict) and all(says_nothing(inner) for inner in value.values())


@pytest.mark.parametrize("action", sorted(READ))
def test_every_member_is_shown_as_it_was_sent(world, action):  # noqa: F811
    refused, lost, count = {name.replace("[]", "") for name in REFUSED.get(action, {})}, [], 0
    for path, _ in paths(action):
        names = ".".join(path).replace("[]", "").split(".")
        if any(".".join(names[:end]) in refused for end in range(1, len(names) + 1)):
            continue
        request = with_member(action, good(action, world, path), path)
        answer = call(world.berth, action, request)
        assert answer.status == 200, (path, request, answer)
        lost += [f"{'.'.join(path)}: {text}" for text in differences(request, READ[action](world, request, answer.json))]
        count += 1
    assert count and not lost, "\n".join(sorted(set(lost)))


def test_the_comparison_sees_what_differs():
    shown = {"a": [{"b": 1, "c": 2}], "name": f"{PREFIX}cluster/c", "x": None}
    assert differences({"a": [{"b": 1}], "name": "c", "x": {"y": {}}}, shown) == []
    for sent in ({"a": [{"b": 2}]}, {"a": []}, {"a": [{"d": 0}]}, {"name": "d"}, {"x": {"y": 1}}, {"new": False}, {"a": {"b": 1}}):
        assert len(differences(sent, shown)) == 1, sent


# -- applied again -------------------------------------------------------------------------------------------------------------------


def without(found, *names):
    return {name: value for name, value in found.items() if name not in names}


def wanted(action, found):
    """The members of the action's request that are in what was read."""
    return {name: found[name] for name in members(action) if found.get(name) not in (None, [], {})}


def test_a_cluster_applied_twice(world):  # noqa: F811
    ecs, name = world.ecs, unique("c")
    group = unique("p")
    ecs.create_capacity_provider(name=group, autoScalingGroupProvider={"autoScalingGroupArn": group})
    logs = {"cloudWatchLogGroupName": "exec", "cloudWatchEncryptionEnabled": True, "s3BucketName": "b", "s3EncryptionEnabled": False, "s3KeyPrefix": "k"}
    sent = {
        "clusterName": name,
        "tags": [{"key": "a", "value": "1"}, {"key": "b", "value": ""}],
        "settings": [{"name": "containerInsights", "value": "enhanced"}],
        "configuration": {
            "executeCommandConfiguration": {"kmsKeyId": "key", "logging": "OVERRIDE", "logConfiguration": logs},
            "managedStorageConfiguration": {"kmsKeyId": "key", "fargateEphemeralStorageKmsKeyId": "key"},
        },
        "capacityProviders": ["FARGATE", group],
        "defaultCapacityProviderStrategy": [{"capacityProvider": "FARGATE", "weight": 2, "base": 1}],
    }
    ecs.create_cluster(**sent)
    before = cluster(world, name)
    assert differences(sent, before) == []
    ecs.create_cluster(**wanted("CreateCluster", before))
    ecs.update_cluster(**wanted("UpdateCluster", before))
    ecs.update_cluster_settings(cluster=name, settings=before["settings"])
    ecs.put_cluster_capacity_providers(**wanted("PutClusterCapacityProviders", before))
    ecs.tag_resource(resourceArn=before["clusterArn"], tags=before["tags"])
    assert cluster(world, name) == before


def test_a_task_definition_applied_twice(world):  # noqa: F811
    ecs, family = world.ecs, unique("f")
    main = {
        "name": "main", "image": "hello:latest", "cpu": 10, "memory": 64, "memoryReservation": 32, "essential": True,
        "portMappings": [{"containerPort": 80, "hostPort": 8080, "protocol": "tcp", "name": "web", "appProtocol": "http"}],
        "environment": [{"name": "A", "value": "1"}], "command": ["serve"], "entryPoint": ["sh"], "user": "1000", "workingDirectory": "/",
        "mountPoints": [{"sourceVolume": "data", "containerPath": "/data", "readOnly": True}],
        "healthCheck": {"command": ["CMD", "true"], "interval": 10, "timeout": 3, "retries": 2, "startPeriod": 1},
        "logConfiguration": {"logDriver": "json-file", "options": {"max-size": "1m"}}, "stopTimeout": 5, "dockerLabels": {"a": "b"},
        "ulimits": [{"name": "nofile", "softLimit": 10, "hardLimit": 20}], "linuxParameters": {"capabilities": {"drop": ["ALL"]}},
    }
    sent = {
        "family": family, "containerDefinitions": [main], "networkMode": "bridge", "cpu": "1 vCPU", "memory": "1GB", "taskRoleArn": "r",
        "volumes": [{"name": "data", "host": {"sourcePath": "/srv"}}], "tags": [{"key": "a", "value": "1"}],
        "runtimePlatform": {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
    }
    first = ecs.register_task_definition(**sent)["taskDefinition"]["taskDefinitionArn"]
    before = task_definition(world, first)
    assert differences({**sent, "cpu": "1024", "memory": "1024"}, before) == [], "sizes are shown as integers"
    again = ecs.register_task_definition(**wanted("RegisterTaskDefinition", before))["taskDefinition"]["taskDefinitionArn"]
    assert again == first.removesuffix(":1") + ":2"
    changing = ("taskDefinitionArn", "revision", "registeredAt")
    assert without(task_definition(world, again), *changing) == without(before, *changing)


BREAKER = {"enable": True, "rollback": True, "resetOnHealthyTask": False, "thresholdConfiguration": {"type": "COUNT", "value": 7}}
EARLY = {"enable": True, "healthyPercent": 80, "sourceServiceRevisionCleanup": "DEFERRED"}


def test_a_service_applied_twice(world):  # noqa: F811
    ecs, name = world.ecs, unique("s")
    sent = {
        "cluster": "c", "serviceName": name, "taskDefinition": "web:1", "desiredCount": 0, "launchType": "EC2", "role": "ecs",
        "deploymentConfiguration": {"maximumPercent": 150, "minimumHealthyPercent": 50, "bakeTimeInMinutes": 3, "strategy": "ROLLING", "deploymentCircuitBreaker": BREAKER, "earlySuccessCriteria": EARLY},
        "placementConstraints": [{"type": "distinctInstance"}],
        "placementStrategy": [{"type": "spread", "field": "instanceId"}, {"type": "binpack", "field": "MEMORY"}],
        "healthCheckGracePeriodSeconds": 30, "schedulingStrategy": "REPLICA", "deploymentController": {"type": "ECS"},
        "availabilityZoneRebalancing": "DISABLED", "enableECSManagedTags": True, "propagateTags": "SERVICE", "enableExecuteCommand": True,
        "tags": [{"key": "a", "value": "1"}],
    }
    ecs.create_service(**sent)
    look = lambda: (found := service(world, "c", name))["deployments"][0]["rolloutState"] == "COMPLETED" and found  # noqa: E731
    before = until("the deployment to be done", look)
    assert {kind for text in differences(sent, before) for kind in [text.split(":")[0]]} <= {"placementStrategy[1].field"}
    apply = wanted("UpdateService", before)
    assert {"desiredCount", "taskDefinition", "placementStrategy", "deploymentConfiguration", "deploymentController"} <= set(apply)
    ecs.update_service(**apply)
    assert service(world, "c", name) == before, "no deployment, no event"
    ecs.update_service(**apply, forceNewDeployment=True)
    after = service(world, "c", name)
    moved = ("deployments", "events", "currentServiceDeployment", "currentServiceRevisions", "updatedAt")
    assert without(after, *moved) == without(before, *moved)
    assert after["deployments"][0]["id"] != before["deployments"][0]["id"]


def test_a_task_set_applied_twice(world):  # noqa: F811
    ecs, name = world.ecs, unique("s")
    ecs.create_service(cluster="c", serviceName=name, deploymentController={"type": "EXTERNAL"})
    sent = {
        "cluster": "c", "service": name, "taskDefinition": "web:1", "externalId": "blue", "launchType": "EC2",
        "scale": {"value": 25.0, "unit": "PERCENT"}, "tags": [{"key": "a", "value": "1"}], "clientToken": unique("t"),
    }
    made = ecs.create_task_set(**sent)["taskSet"]
    look = lambda: (found := task_set(world, "c", name, made["id"]))["stabilityStatus"] == "STEADY_STATE" and found  # noqa: E731
    before = until("the task set to be steady", look)
    assert differences(sent, before) == []
    assert ecs.create_task_set(**sent)["taskSet"]["id"] == made["id"]
    ecs.update_task_set(cluster="c", service=name, taskSet=made["id"], scale=before["scale"])
    assert without(until("it to be steady again", look), "updatedAt", "stabilityStatusAt") == without(before, "updatedAt", "stabilityStatusAt")


def test_capacity_providers_applied_twice(world):  # noqa: F811
    ecs, group, own, where = world.ecs, unique("p"), unique("m"), world.cluster()
    scaling = {"status": "ENABLED", "targetCapacity": 80, "minimumScalingStepSize": 2, "maximumScalingStepSize": 9, "instanceWarmupPeriod": 60}
    of_group = {"managedScaling": scaling, "managedTerminationProtection": "ENABLED", "managedDraining": "ENABLED"}
    template = {"monitoring": "DETAILED", "storageConfiguration": {"storageSizeGiB": 50}}
    for sent in (
        {"name": group, "autoScalingGroupProvider": {"autoScalingGroupArn": group, **of_group}, "tags": [{"key": "a", "value": "1"}]},
        {"name": own, "cluster": where, "managedInstancesProvider": {**instances(**template), "propagateTags": "CAPACITY_PROVIDER"}},
    ):
        ecs.create_capacity_provider(**sent)
        before = provider(world, sent["name"])
        assert differences(sent, before) == []
        apply = wanted("UpdateCapacityProvider", before)
        if "autoScalingGroupProvider" in apply:
            apply["autoScalingGroupProvider"] = without(apply["autoScalingGroupProvider"], "autoScalingGroupArn")
        else:
            # What the update's request has no member for cannot be changed.
            settled = ("capacityOptionType", "fipsEnabled", "nitroEnclavesEnabled")
            launch = without(apply["managedInstancesProvider"]["instanceLaunchTemplate"], *settled)
            apply["managedInstancesProvider"] = {**apply["managedInstancesProvider"], "instanceLaunchTemplate": launch}
        ecs.update_capacity_provider(**apply)
        assert without(provider(world, sent["name"]), "updateStatus") == without(before, "updateStatus")


def test_settings_and_attributes_applied_twice(world):  # noqa: F811
    ecs, principal = world.ecs, "arn:aws:iam::000000000000:user/twice"
    for name, value in (("containerInsights", "enhanced"), ("fargateTaskRetirementWaitPeriod", "14"), ("awsvpcTrunking", "enabled")):
        sent = {"name": name, "value": value, "principalArn": principal}
        ecs.put_account_setting(**sent)
        before = setting(world, sent)
        assert differences(sent, before) == []
        ecs.put_account_setting(**without(before, "type"))
        assert setting(world, sent) == before
        ecs.delete_account_setting(name=name, principalArn=principal)
    sent = {"cluster": "c", "attributes": [{"name": "rack", "value": "r1", "targetType": "container-instance", "targetId": world.agent.arn}]}
    ecs.put_attributes(**sent)
    before = attributes(world, sent)
    assert differences(sent, before) == []
    ecs.put_attributes(cluster="c", attributes=before["attributes"])
    assert attributes(world, sent) == before


def test_a_daemon_applied_twice(world):  # noqa: F811
    ecs, name = world.ecs, unique("d")
    definition = define(ecs, unique("df"), tags=[{"key": "a", "value": "1"}])
    sent = {
        "daemonName": name, "clusterArn": f"{PREFIX}cluster/c", "daemonTaskDefinitionArn": definition, "capacityProviderArns": [world.provider],
        "deploymentConfiguration": {"drainPercent": 20.0, "bakeTimeInMinutes": 0, "alarms": {"alarmNames": ["a"], "enable": False}},
        "tags": [{"key": "a", "value": "1"}], "propagateTags": "DAEMON", "enableECSManagedTags": True, "enableExecuteCommand": True, "critical": False,
    }
    arn = ecs.create_daemon(**sent)["daemonArn"]
    before = daemon(world, arn)
    assert differences(sent, before) == []
    ecs.update_daemon(**wanted("UpdateDaemon", before))
    moved = ("createdAt", "updatedAt", "currentRevisions", "deploymentArn", "daemonRevisionArn")
    assert without(daemon(world, arn), *moved) == without(before, *moved)


def test_a_gateway_applied_twice(world):  # noqa: F811
    ecs, name = world.ecs, unique("g")
    alb = {
        "networkConfiguration": {"inboundSecurityGroup": "sg-01", "subnets": ["subnet-01"], "ipAddressType": "ipv4"}, "scheme": "internal",
        "webACLArn": "arn:aws:wafv2:us-east-1:000000000000:regional/webacl/edge/0123", "port": 443, "protocol": "HTTPS", "maxAlbCount": 3,
        "accessLogs": {"destination": {"s3": {"bucket": "logs", "prefix": "edge"}}}, "httpDesync": "strictest",
        "testTrafficRules": {"header": {"name": "x-test", "values": ["1"]}},
    }
    sent = {
        "name": name, "infrastructureRoleArn": "arn:aws:iam::000000000000:role/ecs", "configuration": {"hostSharedAlb": alb},
        "deletionProtection": True, "propagateTags": "NONE", "tags": [{"key": "a", "value": "1"}],
    }
    ecs.create_gateway(**sent)
    before = gateway(world, name)
    assert differences(sent, before) == []
    apply = wanted("UpdateGateway", before)
    shown = apply["configuration"]["hostSharedAlb"]
    kept = without(shown, "scheme", "port", "protocol", "currentAlbCount")
    kept["networkConfiguration"] = {"inboundSecurityGroup": shown["networkConfiguration"]["inboundSecurityGroup"]}
    ecs.update_gateway(**{**apply, "configuration": {"hostSharedAlb": kept}})
    assert without(gateway(world, name), "updatedAt", "status") == without(before, "updatedAt", "status")


def test_an_express_service_applied_twice(world):  # noqa: F811
    main = {
        "image": "web:1", "containerPort": 8080, "awsLogsConfiguration": {"logGroup": "/app", "logStreamPrefix": "ecs"}, "command": ["serve"],
        "environment": [{"name": "A", "value": "1"}], "secrets": [{"name": "S", "valueFrom": "arn:aws:ssm:us-east-1:000000000000:parameter/s"}],
    }
    scaling = {"minTaskCount": 2, "maxTaskCount": 4, "autoScalingMetric": "AVERAGE_MEMORY", "autoScalingTargetValue": 70}
    network = {"securityGroups": ["sg-1"], "subnets": ["subnet-1"]}
    sent = express(
        "c", serviceName=unique("x"), primaryContainer=main, cpu="512", memory="1024", cpuArchitecture="ARM64", healthCheckPath="/up",
        scalingTarget=scaling, networkConfiguration=network, tags=[{"key": "a", "value": "1"}], taskRoleArn="arn:aws:iam::000000000000:role/app",
    )
    arn = world.ecs.create_express_gateway_service(**sent)["service"]["serviceArn"]
    before = express_service(world, arn)
    assert differences(sent, before) == []
    apply = without(wanted("UpdateExpressGatewayService", before), "taskDefinitionArn")
    assert set(apply) > {"primaryContainer", "scalingTarget", "networkConfiguration"}
    world.ecs.update_express_gateway_service(**apply)
    assert express_service(world, arn) == before, "no new revision"
