"""Express services: records with validation, ECS's defaults, revisions and statuses, beside the other services of a cluster."""

import datetime

import pytest

from berth import unique, until
from ecs_calls import container, refused, register, service, tasks_of

INFRASTRUCTURE = "arn:aws:iam::000000000000:role/ecs-infrastructure"
EXECUTION = "arn:aws:iam::000000000000:role/ecs-execution"
TASK = "arn:aws:iam::000000000000:role/app"
PREFIX = "arn:aws:ecs:us-east-1:000000000000:"


def request(cluster, /, **members):
    given = {
        "cluster": cluster,
        "infrastructureRoleArn": INFRASTRUCTURE,
        "executionRoleArn": EXECUTION,
        "primaryContainer": {"image": "registry.example/team/web:1"},
        **members,
    }
    return {name: value for name, value in given.items() if value is not None}


def create(ecs, cluster, /, **members):
    return ecs.create_express_gateway_service(**request(cluster, **members))["service"]


def described(ecs, arn):
    return ecs.describe_express_gateway_service(serviceArn=arn, include=["TAGS"])["service"]


def update(ecs, arn, **members):
    return ecs.update_express_gateway_service(serviceArn=arn, **members)["service"]


def only_configuration(ecs, arn):
    """The one active configuration that is left when the last revision has replaced the one before."""

    def look():
        found = described(ecs, arn)["activeConfigurations"]
        return found if len(found) == 1 else None

    return until("one active configuration", look)[0]


def until_inactive(ecs, arn):
    def look():
        found = described(ecs, arn)
        return found if found["status"]["statusCode"] == "INACTIVE" else None

    return until("the service to be INACTIVE", look)


def own_definition(ecs, name="Main", **members):
    """A task definition of the user's that suits an Express service; members replace those of the container."""
    ports = [{"containerPort": 8080, "name": "web"}]
    main = container(name, **{"portMappings": ports, "environment": [{"name": "A", "value": "1"}], **members})
    return register(
        ecs,
        containers=[main, container("sidecar")],
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="512",
        memory="1024",
        taskRoleArn=TASK,
    )


# -- making and showing ------------------------------------------------------------------------------------------------


def test_a_service_of_little_gets_ecs_defaults(ecs, cluster):
    found = create(ecs, cluster, serviceName="web", tags=[{"key": "a", "value": "b"}])
    assert (found["cluster"], found["serviceName"], found["serviceArn"]) == (cluster, "web", f"{PREFIX}service/{cluster}/web")
    assert found["infrastructureRoleArn"] == INFRASTRUCTURE
    assert found["status"] == {"statusCode": "ACTIVE"}
    assert found["tags"] == [{"key": "a", "value": "b"}]
    assert isinstance(found["createdAt"], datetime.datetime) and found["createdAt"] == found["updatedAt"]
    shown = dict(found["activeConfigurations"][0])
    assert len(found["activeConfigurations"]) == 1
    head, number = shown.pop("serviceRevisionArn").rsplit("/", 1)
    assert head == f"{PREFIX}service-revision/{cluster}/web" and len(number) == 19 and number.isdigit()
    definition = shown.pop("taskDefinitionArn")
    assert shown.pop("createdAt") == found["createdAt"]
    assert shown == {
        "executionRoleArn": EXECUTION,
        "cpu": "256",
        "memory": "512",
        "cpuArchitecture": "X86_64",
        "healthCheckPath": "/ping",
        "primaryContainer": {"image": "registry.example/team/web:1", "containerPort": 80},
        "scalingTarget": {"minTaskCount": 1, "maxTaskCount": 20, "autoScalingMetric": "AVERAGE_CPU", "autoScalingTargetValue": 60},
        "ingressPaths": [],
    }
    assert described(ecs, found["serviceArn"]) == found
    bare = ecs.describe_express_gateway_service(serviceArn=found["serviceArn"])["service"]
    assert "tags" not in bare and {**bare, "tags": found["tags"]} == found
    # The definition that ECS would make is a real one.
    made = ecs.describe_task_definition(taskDefinition=definition)["taskDefinition"]
    assert (made["cpu"], made["memory"], made["networkMode"], made["requiresCompatibilities"]) == ("256", "512", "awsvpc", ["FARGATE"])
    assert made["runtimePlatform"] == {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"}
    (main,) = made["containerDefinitions"]
    assert (main["name"], main["image"], main["essential"]) == ("Main", "registry.example/team/web:1", True)
    (port,) = main["portMappings"]
    assert (port["containerPort"], port["protocol"]) == (80, "tcp") and port["name"]


def test_everything_that_is_asked_for_is_shown(ecs, cluster):
    members = {
        "healthCheckPath": "/health?format=json",
        "primaryContainer": {
            "image": "web:2",
            "containerPort": 8080,
            "awsLogsConfiguration": {"logGroup": "/app/web", "logStreamPrefix": "ecs"},
            "repositoryCredentials": {"credentialsParameter": "arn:aws:secretsmanager:us-east-1:000000000000:secret:pull"},
            "command": ["serve", "--all"],
            "environment": [{"name": "A", "value": "1"}],
            "secrets": [{"name": "S", "valueFrom": "arn:aws:ssm:us-east-1:000000000000:parameter/s"}],
        },
        "networkConfiguration": {"securityGroups": ["sg-1"], "subnets": ["subnet-1", "subnet-2"]},
        "cpu": "1024",
        "memory": "2048",
        "cpuArchitecture": "ARM64",
        "scalingTarget": {"minTaskCount": 2, "maxTaskCount": 4, "autoScalingMetric": "REQUEST_COUNT_PER_TARGET", "autoScalingTargetValue": 1000},
    }
    found = create(ecs, cluster, serviceName="web", taskRoleArn=TASK, **members)
    (shown,) = found["activeConfigurations"]
    assert members.items() <= shown.items() and shown["taskRoleArn"] == TASK
    made = ecs.describe_task_definition(taskDefinition=shown["taskDefinitionArn"])["taskDefinition"]
    assert (made["executionRoleArn"], made["taskRoleArn"], made["runtimePlatform"]["cpuArchitecture"]) == (EXECUTION, TASK, "ARM64")
    (main,) = made["containerDefinitions"]
    given = members["primaryContainer"]
    for member in ("image", "command", "environment", "secrets", "repositoryCredentials"):
        assert main[member] == given[member], member
    options = {"awslogs-group": "/app/web", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "ecs"}
    assert main["logConfiguration"] == {"logDriver": "awslogs", "options": options}


def test_sizes_may_be_written_as_words(ecs, cluster):
    (shown,) = create(ecs, cluster, cpu="1 vCPU", memory="3 GB")["activeConfigurations"]
    assert (shown["cpu"], shown["memory"]) == ("1024", "3072")


def test_a_service_without_a_name_gets_one(ecs, cluster):
    names = [create(ecs, cluster)["serviceName"] for _ in range(2)]
    assert names[0] != names[1] and all(name.startswith("web-") for name in names)


def test_the_default_cluster_is_assumed(ecs):
    name = unique("express")
    made = create(ecs, None, serviceName=name)
    assert made["serviceArn"] == f"{PREFIX}service/default/{name}"
    # The form of ARNs before 2018 has no cluster.
    assert described(ecs, f"{PREFIX}service/{name}")["serviceName"] == name
    ecs.delete_express_gateway_service(serviceArn=made["serviceArn"])


@pytest.mark.parametrize(
    ("code", "word", "members"),
    [
        ("InvalidParameterException", "infrastructureRoleArn", {"infrastructureRoleArn": None}),
        ("InvalidParameterException", "infrastructureRoleArn", {"infrastructureRoleArn": "admin"}),
        ("InvalidParameterException", "executionRoleArn", {"executionRoleArn": None}),
        ("InvalidParameterException", "executionRoleArn", {"executionRoleArn": "arn:aws:iam::000000000000:user/me"}),
        ("InvalidParameterException", "taskRoleArn", {"taskRoleArn": "app"}),
        ("InvalidParameterException", "primaryContainer", {"primaryContainer": None}),
        ("InvalidParameterException", "image", {"primaryContainer": {}}),
        ("InvalidParameterException", "image", {"primaryContainer": {"image": ""}}),
        ("InvalidParameterException", "image", {"primaryContainer": {"image": "a b"}}),
        ("InvalidParameterException", "containerPort", {"primaryContainer": {"image": "a", "containerPort": 0}}),
        ("InvalidParameterException", "containerPort", {"primaryContainer": {"image": "a", "containerPort": 65536}}),
        ("InvalidParameterException", "logStreamPrefix", {"primaryContainer": {"image": "a", "awsLogsConfiguration": {"logGroup": "g"}}}),
        (
            "InvalidParameterException",
            "logGroup",
            {"primaryContainer": {"image": "a", "awsLogsConfiguration": {"logGroup": "a b", "logStreamPrefix": "ecs"}}},
        ),
        (
            "InvalidParameterException",
            "logStreamPrefix",
            {"primaryContainer": {"image": "a", "awsLogsConfiguration": {"logGroup": "g", "logStreamPrefix": "a:b"}}},
        ),
        ("InvalidParameterException", "environment", {"primaryContainer": {"image": "a", "environment": [{"value": "1"}]}}),
        ("InvalidParameterException", "secrets", {"primaryContainer": {"image": "a", "secrets": [{"name": "S", "valueFrom": ""}]}}),
        ("InvalidParameterException", "healthCheckPath", {"healthCheckPath": "ping"}),
        ("InvalidParameterException", "healthCheckPath", {"healthCheckPath": "/a b"}),
        ("InvalidParameterException", "healthCheckPath", {"healthCheckPath": "/" * 1025}),
        ("InvalidParameterException", "subnets", {"networkConfiguration": {"subnets": ["a"]}}),
        ("InvalidParameterException", "securityGroups", {"networkConfiguration": {"securityGroups": ["a"]}}),
        ("InvalidParameterException", "securityGroups", {"networkConfiguration": {"securityGroups": [f"sg-{n}" for n in range(6)]}}),
        ("ClientException", "cpu", {"cpu": "much"}),
        ("ClientException", "memory", {"memory": "much"}),
        ("ClientException", "No Fargate configuration exists for given values", {"cpu": "1024"}),
        ("ClientException", "No Fargate configuration exists for given values", {"memory": "513"}),
        ("InvalidParameterException", "cpuArchitecture", {"cpuArchitecture": "RISCV"}),
        ("InvalidParameterException", "minTaskCount", {"scalingTarget": {"minTaskCount": -1}}),
        ("InvalidParameterException", "maxTaskCount", {"scalingTarget": {"minTaskCount": 0, "maxTaskCount": 0}}),
        ("InvalidParameterException", "maxTaskCount", {"scalingTarget": {"minTaskCount": 3, "maxTaskCount": 2}}),
        ("InvalidParameterException", "maxTaskCount", {"scalingTarget": {"maxTaskCount": 5001}}),
        ("InvalidParameterException", "autoScalingTargetValue", {"scalingTarget": {"autoScalingTargetValue": 101}}),
        ("InvalidParameterException", "autoScalingTargetValue", {"scalingTarget": {"autoScalingTargetValue": 0}}),
        ("InvalidParameterException", "autoScalingMetric", {"scalingTarget": {"autoScalingMetric": "LOVE"}}),
        ("InvalidParameterException", "serviceName", {"serviceName": "a b"}),
        ("InvalidParameterException", "serviceName", {"serviceName": "n" * 256}),
        ("InvalidParameterException", "tags", {"tags": [{"key": f"k{n}", "value": ""} for n in range(51)]}),
        ("InvalidParameterException", "taskDefinitionArn", {"taskDefinitionArn": f"{PREFIX}task-definition/a:1"}),
        ("ClusterNotFoundException", "", {"cluster": "none-such"}),
    ],
)
def test_a_wrong_creation_is_refused_and_makes_nothing(server, cluster, code, word, members):
    with refused(code, word):
        create(server.loose, cluster, **members)
    assert server.ecs.list_services(cluster=cluster)["serviceArns"] == []
    assert server.ecs.list_task_definition_families(familyPrefix=cluster)["families"] == []


# -- task definitions of the user's ------------------------------------------------------------------------------------


def test_a_definition_of_ones_own(ecs, cluster):
    definition = own_definition(ecs)
    found = create(ecs, cluster, serviceName="web", primaryContainer=None, executionRoleArn=None, taskDefinitionArn=definition)
    (shown,) = found["activeConfigurations"]
    assert shown["taskDefinitionArn"] == definition
    assert (shown["cpu"], shown["memory"], shown["taskRoleArn"]) == ("512", "1024", TASK)
    assert shown["primaryContainer"] == {"image": "hello:latest", "containerPort": 8080, "environment": [{"name": "A", "value": "1"}]}
    assert "cpuArchitecture" not in shown and "executionRoleArn" not in shown
    # A newer revision of it, then back to one that ECS makes: that needs the container.
    newer = own_definition(ecs)
    assert update(ecs, found["serviceArn"], taskDefinitionArn=newer)["targetConfiguration"]["taskDefinitionArn"] == newer
    assert update(ecs, found["serviceArn"], healthCheckPath="/up")["targetConfiguration"]["taskDefinitionArn"] == newer
    with refused("InvalidParameterException", "primaryContainer", "cpu"):
        update(ecs, found["serviceArn"], cpu="1024")
    back = update(ecs, found["serviceArn"], primaryContainer={"image": "web:3"}, executionRoleArn=EXECUTION)["targetConfiguration"]
    assert back["taskDefinitionArn"] not in (definition, newer)
    assert back["primaryContainer"] == {"image": "web:3", "containerPort": 80}
    assert (back["cpu"], back["taskRoleArn"], back["healthCheckPath"], back["cpuArchitecture"]) == ("512", TASK, "/up", "X86_64")


def test_definitions_that_do_not_suit(ecs, cluster):
    alone = {"primaryContainer": None, "executionRoleArn": None}
    for wrong in (
        {"name": "main"},
        {"portMappings": []},
        {"portMappings": [{"containerPort": 80}]},
        {"portMappings": [{"containerPort": 80, "name": "a", "protocol": "udp"}]},
        {"portMappings": [{"containerPort": 80, "name": "a"}, {"containerPort": 81, "name": "b"}]},
    ):
        with refused("InvalidParameterException", "taskDefinitionArn", "Main"):
            create(ecs, cluster, **alone, taskDefinitionArn=own_definition(ecs, **wrong))
    other = register(ecs, containers=[container("Main", portMappings=[{"containerPort": 80, "name": "web"}])])
    with refused("PlatformTaskDefinitionIncompatibilityException", "FARGATE"):
        create(ecs, cluster, **alone, taskDefinitionArn=other)
    with refused("ClientException", "not found"):
        create(ecs, cluster, **alone, taskDefinitionArn=f"{PREFIX}task-definition/none-such:1")
    inactive = own_definition(ecs)
    ecs.deregister_task_definition(taskDefinition=inactive)
    with refused("ClientException", "inactive"):
        create(ecs, cluster, **alone, taskDefinitionArn=inactive)
    arn = create(ecs, cluster)["serviceArn"]
    with refused("InvalidParameterException", "FARGATE"):
        update(ecs, arn, taskDefinitionArn=other)
    for member, value in {
        "primaryContainer": {"image": "a"},
        "executionRoleArn": EXECUTION,
        "taskRoleArn": TASK,
        "cpu": "256",
        "memory": "512",
        "cpuArchitecture": "X86_64",
    }.items():
        with refused("InvalidParameterException", member, "taskDefinitionArn"):
            update(ecs, arn, taskDefinitionArn=own_definition(ecs), **{member: value})


def test_a_definition_in_use_is_not_forgotten(ecs, cluster):
    (shown,) = create(ecs, cluster)["activeConfigurations"]
    definition = shown["taskDefinitionArn"]
    ecs.deregister_task_definition(taskDefinition=definition)
    ecs.delete_task_definitions(taskDefinitions=[definition])
    assert ecs.describe_task_definition(taskDefinition=definition)["taskDefinition"]["status"] == "DELETE_IN_PROGRESS"


# -- updates -----------------------------------------------------------------------------------------------------------


def test_an_update_makes_a_revision_that_replaces_the_one_before(ecs, cluster):
    environment = [{"name": "A", "value": "1"}]
    made = create(ecs, cluster, serviceName="web", primaryContainer={"image": "web:1", "containerPort": 8080, "environment": environment})
    arn, (first,) = made["serviceArn"], made["activeConfigurations"]
    answer = update(ecs, arn, primaryContainer={"image": "web:2"}, scalingTarget={"maxTaskCount": 5}, taskRoleArn=TASK)
    assert {name: answer[name] for name in ("serviceArn", "cluster", "serviceName", "status", "createdAt")} == {
        name: made[name] for name in ("serviceArn", "cluster", "serviceName", "status", "createdAt")
    }
    target = answer["targetConfiguration"]
    # Absent members stay, inside of structures too.
    assert target["primaryContainer"] == {"image": "web:2", "containerPort": 8080, "environment": environment}
    assert target["scalingTarget"] == {**first["scalingTarget"], "maxTaskCount": 5}
    assert (target["taskRoleArn"], target["executionRoleArn"], target["cpu"]) == (TASK, EXECUTION, "256")
    assert target["serviceRevisionArn"] != first["serviceRevisionArn"]
    assert target["taskDefinitionArn"].rsplit(":", 1) == [first["taskDefinitionArn"].rsplit(":", 1)[0], "2"]
    assert only_configuration(ecs, arn) == target
    found = described(ecs, arn)
    assert found["createdAt"] == made["createdAt"] and found["updatedAt"] == answer["updatedAt"] >= made["updatedAt"]
    # Empty ones go.
    answer = update(ecs, arn, primaryContainer={"image": "web:2", "environment": []}, taskRoleArn="")
    assert answer["targetConfiguration"]["primaryContainer"] == {"image": "web:2", "containerPort": 8080}
    assert "taskRoleArn" not in answer["targetConfiguration"]


def test_what_is_outside_of_the_definition_needs_no_new_one(ecs, cluster):
    made = create(ecs, cluster)
    network = {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}
    target = update(ecs, made["serviceArn"], healthCheckPath="/up", networkConfiguration=network)["targetConfiguration"]
    (first,) = made["activeConfigurations"]
    assert target["taskDefinitionArn"] == first["taskDefinitionArn"] and target["serviceRevisionArn"] != first["serviceRevisionArn"]
    target = update(ecs, made["serviceArn"], networkConfiguration={"subnets": [], "securityGroups": []})["targetConfiguration"]
    assert "networkConfiguration" not in target and target["healthCheckPath"] == "/up"


def test_an_update_that_changes_nothing_makes_no_revision(ecs, cluster):
    made = create(ecs, cluster)
    (first,) = made["activeConfigurations"]
    for members in ({}, {"cpu": "256", "healthCheckPath": "/ping", "primaryContainer": {"image": "registry.example/team/web:1"}}):
        assert update(ecs, made["serviceArn"], **members)["targetConfiguration"] == first
    assert described(ecs, made["serviceArn"]) == made


@pytest.mark.parametrize(
    ("code", "word", "members"),
    [
        ("InvalidParameterException", "healthCheckPath", {"healthCheckPath": "ping"}),
        ("InvalidParameterException", "executionRoleArn", {"executionRoleArn": ""}),
        ("InvalidParameterException", "image", {"primaryContainer": {"containerPort": 80}}),
        ("InvalidParameterException", "maxTaskCount", {"scalingTarget": {"minTaskCount": 21}}),
        ("ClientException", "No Fargate configuration", {"cpu": "2048"}),
    ],
)
def test_a_wrong_update_is_refused_and_changes_nothing(server, cluster, code, word, members):
    made = create(server.ecs, cluster)
    with refused(code, word):
        update(server.loose, made["serviceArn"], **members)
    assert described(server.ecs, made["serviceArn"]) == made


# -- among the other services ------------------------------------------------------------------------------------------


def test_lists_tell_both_kinds_of_services_apart(ecs, cluster):
    definition = register(ecs)
    plain = [f"s{n}" for n in (0, 2, 4)]
    express = [f"s{n}" for n in (1, 3)]
    for name in plain:
        ecs.create_service(cluster=cluster, serviceName=name, taskDefinition=definition, desiredCount=0)
    for name in express:
        create(ecs, cluster, serviceName=name)

    def listed(size=2, **filters):
        pages = ecs.get_paginator("list_services").paginate(cluster=cluster, PaginationConfig={"PageSize": size}, **filters)
        return [arn.rsplit("/", 1)[1] for page in pages for arn in page["serviceArns"]]

    assert listed() == listed(10) == sorted(plain + express)
    assert listed(resourceManagementType="ECS") == listed(launchType="FARGATE") == express
    assert listed(resourceManagementType="CUSTOMER") == listed(launchType="EC2") == plain
    assert listed(schedulingStrategy="REPLICA") == sorted(plain + express)
    assert listed(schedulingStrategy="DAEMON") == []
    assert ecs.describe_clusters(clusters=[cluster])["clusters"][0]["activeServicesCount"] == 5


def test_describe_services_shows_what_there_is_of_it(ecs, cluster):
    tags = [{"key": "a", "value": "b"}]
    made = create(ecs, cluster, serviceName="web", tags=tags, scalingTarget={"minTaskCount": 2})
    found = service(ecs, cluster, "web")
    assert (found["serviceArn"], found["status"], found["resourceManagementType"]) == (made["serviceArn"], "ACTIVE", "ECS")
    assert (found["desiredCount"], found["runningCount"], found["pendingCount"], found["launchType"]) == (2, 0, 0, "FARGATE")
    assert found["taskDefinition"] == made["activeConfigurations"][0]["taskDefinitionArn"]
    assert found["tags"] == tags
    (deployment,) = found["deployments"]
    assert deployment["status"] == "PRIMARY" and "records" in deployment["rolloutStateReason"]
    assert tasks_of(ecs, cluster, serviceName="web") == []


def test_a_name_belongs_to_one_service_of_either_kind(ecs, cluster):
    plain = {"cluster": cluster, "taskDefinition": register(ecs), "desiredCount": 0}
    ecs.create_service(serviceName="plain", **plain)
    arn = create(ecs, cluster, serviceName="express")["serviceArn"]
    for name in ("plain", "express"):
        with refused("InvalidParameterException", "not idempotent"):
            create(ecs, cluster, serviceName=name)
    with refused("InvalidParameterException", "not idempotent"):
        ecs.create_service(serviceName="express", **plain)
    # Each is changed by its own actions only.
    with refused("InvalidParameterException", "Express"):
        ecs.update_service(cluster=cluster, service="express", desiredCount=1)
    with refused("InvalidParameterException", "Express"):
        ecs.delete_service(cluster=cluster, service="express", force=True)
    plain_arn = f"{PREFIX}service/{cluster}/plain"
    with refused("ServiceNotFoundException"):
        update(ecs, plain_arn, cpu="512")
    with refused("ServiceNotFoundException"):
        ecs.delete_express_gateway_service(serviceArn=plain_arn)
    with refused("ResourceNotFoundException"):
        described(ecs, plain_arn)
    # What ended leaves its name to either kind.
    ecs.delete_express_gateway_service(serviceArn=arn)
    until_inactive(ecs, arn)
    ecs.create_service(serviceName="express", **plain)
    assert service(ecs, cluster, "express")["resourceManagementType"] == "CUSTOMER"
    with refused("ResourceNotFoundException"):
        described(ecs, arn)
    ecs.delete_service(cluster=cluster, service="plain")
    until("the plain service's end", lambda: service(ecs, cluster, "plain")["status"] == "INACTIVE")
    create(ecs, cluster, serviceName="plain")
    assert service(ecs, cluster, "plain")["resourceManagementType"] == "ECS"


# -- what is not there, tags, deletion, restart ------------------------------------------------------------------------


def test_what_is_not_there_is_not_found(ecs, cluster):
    for arn in (f"{PREFIX}service/{cluster}/none-such", f"{PREFIX}service/none-such"):
        with refused("ResourceNotFoundException", "serviceArn"):
            described(ecs, arn)
        for call in (ecs.update_express_gateway_service, ecs.delete_express_gateway_service):
            with refused("ServiceNotFoundException"):
                call(serviceArn=arn)
    for call in (ecs.describe_express_gateway_service, ecs.update_express_gateway_service, ecs.delete_express_gateway_service):
        with refused("ClusterNotFoundException"):
            call(serviceArn=f"{PREFIX}service/none-such/web")
        for arn in ("", "web", f"{PREFIX}cluster/{cluster}", f"{PREFIX}service/a/b/c", f"{PREFIX}service/a/b".replace("us-east-1", "eu-west-1")):
            with refused("InvalidParameterException", "serviceArn"):
                call(serviceArn=arn)


def test_required_members_are_named(server):
    for call in ("describe_express_gateway_service", "update_express_gateway_service", "delete_express_gateway_service"):
        with refused("InvalidParameterException", "serviceArn"):
            getattr(server.loose, call)()
    with refused("InvalidParameterException", "include"):
        server.loose.describe_express_gateway_service(serviceArn=f"{PREFIX}service/default/a", include=["ALL"])


def test_tags(ecs, cluster):
    arn = create(ecs, cluster)["serviceArn"]
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
    ecs.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == described(ecs, arn)["tags"] == [{"key": "b", "value": "2"}]


def test_a_service_drains_and_is_inactive_and_its_name_is_free(ecs, cluster):
    made = create(ecs, cluster, serviceName="web")
    arn = made["serviceArn"]
    with refused("ClusterContainsServicesException"):
        ecs.delete_cluster(cluster=cluster)
    answer = ecs.delete_express_gateway_service(serviceArn=arn)["service"]
    assert answer["status"] == {"statusCode": "DRAINING"} and answer["updatedAt"] >= made["updatedAt"]
    found = until_inactive(ecs, arn)
    assert found["activeConfigurations"] == [] and found["createdAt"] == made["createdAt"]
    assert ecs.list_services(cluster=cluster)["serviceArns"] == []
    shown = service(ecs, cluster, "web")
    assert (shown["status"], shown["desiredCount"]) == ("INACTIVE", 0)
    for call in (ecs.update_express_gateway_service, ecs.delete_express_gateway_service):
        with refused("ServiceNotActiveException"):
            call(serviceArn=arn)
    with refused("ServiceNotFoundException"):
        ecs.update_service(cluster=cluster, service="web", desiredCount=1)
    again = create(ecs, cluster, serviceName="web")
    assert again["serviceArn"] == arn and again["status"] == {"statusCode": "ACTIVE"}
    # The family's revisions go on.
    assert again["activeConfigurations"][0]["taskDefinitionArn"].endswith(":2")
    ecs.delete_express_gateway_service(serviceArn=arn)
    until_inactive(ecs, arn)
    ecs.delete_cluster(cluster=cluster)


def test_a_restart_keeps_services_and_ends_what_was_begun(new_berth):
    berth = new_berth("server").start()
    arns = [create(berth.ecs, None, serviceName=name, tags=[{"key": "n", "value": name}])["serviceArn"] for name in ("a", "b", "c")]
    update(berth.ecs, arns[0], cpu="512", memory="1024")
    only_configuration(berth.ecs, arns[0])
    before = described(berth.ecs, arns[0])
    target = update(berth.ecs, arns[1], healthCheckPath="/up")["targetConfiguration"]
    berth.ecs.delete_express_gateway_service(serviceArn=arns[2])
    berth.kill()
    berth.start()
    assert described(berth.ecs, arns[0]) == before
    assert only_configuration(berth.ecs, arns[1]) == target
    until_inactive(berth.ecs, arns[2])
    assert berth.ecs.list_services()["serviceArns"] == arns[:2]
