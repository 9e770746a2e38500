"""Task definitions: defaults as ECS shows them, every check, revisions, deregistration."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from berth import unique
from ecs_calls import container, refused, register
from http_call import call

ARN = "arn:aws:ecs:us-east-1:000000000000:task-definition"


def one(ecs, **members):
    """Registers a definition of one container with these members; gives the container as answered."""
    answer = ecs.register_task_definition(family=unique("f"), containerDefinitions=[container(**members)])
    return answer["taskDefinition"]["containerDefinitions"][0]


def test_defaults_are_filled_in_as_ecs_shows_them(ecs):
    answer = ecs.register_task_definition(
        family="f-defaults", containerDefinitions=[{"name": "web", "image": "hello", "memory": 64, "portMappings": [{"containerPort": 80}]}]
    )
    definition = answer["taskDefinition"]
    assert definition["containerDefinitions"] == [
        {
            "name": "web",
            "image": "hello",
            "cpu": 0,
            "memory": 64,
            "portMappings": [{"containerPort": 80, "hostPort": 0, "protocol": "tcp"}],
            "essential": True,
            "environment": [],
            "mountPoints": [],
            "volumesFrom": [],
            "systemControls": [],
        }
    ]
    assert definition["taskDefinitionArn"] == f"{ARN}/f-defaults:{definition['revision']}"
    assert (definition["family"], definition["status"]) == ("f-defaults", "ACTIVE")
    assert (definition["volumes"], definition["placementConstraints"]) == ([], [])
    assert definition["compatibilities"] == ["EXTERNAL", "EC2"]
    assert definition["registeredBy"] == "arn:aws:iam::000000000000:root"
    assert definition["registeredAt"].year >= 2024
    assert "networkMode" not in definition
    assert answer.get("tags", []) == []


def test_describe_answers_what_register_answered(ecs):
    made = ecs.register_task_definition(family=unique("f"), containerDefinitions=[container(command=["a"])])["taskDefinition"]
    assert ecs.describe_task_definition(taskDefinition=made["taskDefinitionArn"])["taskDefinition"] == made


def test_every_member_comes_back_as_it_was_given(ecs):
    given = container(
        command=["serve", "--port", "80"],
        entryPoint=["/hello"],
        environment=[{"name": "A", "value": "1"}, {"name": "B", "value": ""}],
        memoryReservation=12,
        portMappings=[{"containerPort": 80, "hostPort": 8080, "protocol": "tcp"}],
        stopTimeout=5,
        startTimeout=30,
        workingDirectory="/srv",
        user="65534",
        hostname="h",
        dockerLabels={"com.example": "x"},
        ulimits=[{"name": "nofile", "softLimit": 10, "hardLimit": 20}],
        readonlyRootFilesystem=True,
        privileged=False,
        linuxParameters={"initProcessEnabled": True, "capabilities": {"add": ["NET_ADMIN"], "drop": ["CHOWN"]}},
        logConfiguration={"logDriver": "json-file", "options": {"max-size": "1m"}},
        mountPoints=[{"sourceVolume": "v", "containerPath": "/v", "readOnly": True}],
        extraHosts=[{"hostname": "db", "ipAddress": "10.0.0.1"}],
        dnsServers=["10.0.0.2"],
        healthCheck={"command": ["CMD", "true"], "interval": 7, "timeout": 3, "retries": 2, "startPeriod": 1},
        systemControls=[{"namespace": "net.core.somaxconn", "value": "100"}],
        essential=True,
        volumesFrom=[],
    )
    made = ecs.register_task_definition(
        family=unique("f"),
        containerDefinitions=[given],
        volumes=[{"name": "v", "host": {"sourcePath": "/tmp"}}],
        runtimePlatform={"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"},
        taskRoleArn="arn:aws:iam::000000000000:role/t",
        executionRoleArn="arn:aws:iam::000000000000:role/e",
    )["taskDefinition"]
    assert made["containerDefinitions"] == [given]
    assert made["volumes"] == [{"name": "v", "host": {"sourcePath": "/tmp"}}]
    assert made["runtimePlatform"] == {"cpuArchitecture": "X86_64", "operatingSystemFamily": "LINUX"}
    assert (made["taskRoleArn"], made["executionRoleArn"]) == ("arn:aws:iam::000000000000:role/t", "arn:aws:iam::000000000000:role/e")


def test_a_health_check_gets_ecs_defaults(ecs):
    check = one(ecs, healthCheck={"command": ["CMD-SHELL", "true"]})["healthCheck"]
    assert check == {"command": ["CMD-SHELL", "true"], "interval": 30, "timeout": 5, "retries": 3}


def test_host_mode_shows_the_container_port_as_host_port(ecs):
    made = ecs.register_task_definition(
        family=unique("f"), networkMode="host", containerDefinitions=[container(portMappings=[{"containerPort": 8080}])]
    )["taskDefinition"]
    assert made["networkMode"] == "host"
    assert made["containerDefinitions"][0]["portMappings"] == [{"containerPort": 8080, "hostPort": 8080, "protocol": "tcp"}]


@pytest.mark.parametrize(
    ("cpu", "memory", "shown"),
    [("256", "512", ("256", "512")), ("1 vCPU", "1GB", ("1024", "1024")), (".5 vCPU", "2 GB", ("512", "2048")), ("0.25 vcpu", "0.5GB", ("256", "512"))],
)
def test_task_sizes_are_kept_as_integer_texts(ecs, cpu, memory, shown):
    made = ecs.register_task_definition(
        family=unique("f"), cpu=cpu, memory=memory, containerDefinitions=[{"name": "a", "image": "i"}]
    )["taskDefinition"]
    assert (made["cpu"], made["memory"]) == shown


@pytest.mark.parametrize(("member", "text"), [("cpu", "many"), ("memory", "-5"), ("cpu", "0"), ("memory", "1 XB")])
def test_a_bad_task_size_is_named(ecs, member, text):
    with refused("ClientException", f"'{member}'"):
        ecs.register_task_definition(family=unique("f"), containerDefinitions=[container()], **{member: text})


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"name": ""}, ["Container.name"]),
        ({"name": "a b"}, ["Container.name"]),
        ({"name": "x" * 256}, ["Container.name"]),
        ({"image": ""}, ["Container.image"]),
        ({"cpu": -1}, ["'cpu'"]),
        ({"memory": 3}, ["'memory'", "6"]),
        ({"memoryReservation": 17}, ["memoryReservation"]),
        ({"memoryReservation": 1}, ["memoryReservation"]),
        ({"essential": False}, ["essential"]),
        ({"environment": [{"value": "x"}]}, ["Environment"]),
        ({"ulimits": [{"name": "nofile", "softLimit": 2, "hardLimit": 1}]}, ["softLimit"]),
        ({"portMappings": [{}]}, ["containerPort"]),
        ({"portMappings": [{"containerPort": 0}]}, ["containerPort"]),
        ({"portMappings": [{"containerPort": 70000}]}, ["containerPort"]),
        ({"portMappings": [{"containerPort": 80, "hostPort": 70000}]}, ["hostPort"]),
        ({"portMappings": [{"containerPort": 80, "hostPort": -1}]}, ["hostPort"]),
        ({"portMappings": [{"containerPort": 80, "hostPort": 90}, {"containerPort": 81, "hostPort": 90}]}, ["90/tcp"]),
        ({"portMappings": [{"containerPort": 80, "containerPortRange": "80-90"}]}, ["containerPortRange"]),
        ({"portMappings": [{"containerPortRange": "90-80"}]}, ["containerPortRange '90-80'", "the first less than the last"]),
        ({"portMappings": [{"containerPortRange": "80-90"}, {"containerPortRange": "90-95"}]}, ["'90-95' overlaps"]),
        ({"portMappings": [{"containerPortRange": "80-90"}, {"containerPort": 85}]}, ["85/tcp"]),
        ({"mountPoints": [{"sourceVolume": "v", "containerPath": "/v"}]}, ["Unknown volume 'v'"]),
        ({"volumesFrom": [{"sourceContainer": "b"}]}, ["Unknown container 'b'"]),
        ({"dependsOn": [{"containerName": "b", "condition": "START"}]}, ["unknown container 'b'"]),
        ({"dependsOn": [{"containerName": "app", "condition": "START"}]}, ["dependsOn"]),
    ],
)
def test_what_is_wrong_with_a_container_is_named(ecs, members, words):
    with refused("ClientException", *words):
        ecs.register_task_definition(family=unique("f"), containerDefinitions=[container(**members)])


def test_memory_is_needed_in_the_container_or_the_task(ecs):
    bare = {"name": "a", "image": "i"}
    with refused("ClientException", "'memory' or 'memoryReservation'"):
        ecs.register_task_definition(family=unique("f"), containerDefinitions=[bare])
    assert register(ecs, containers=[bare], memory="64")
    assert register(ecs, containers=[{**bare, "memoryReservation": 8}])


def test_containers_must_be_there_and_at_most_ten_and_named_apart(ecs):
    with refused("ClientException", "Container list cannot be empty."):
        ecs.register_task_definition(family=unique("f"), containerDefinitions=[])
    with refused("ClientException", "10"):
        register(ecs, containers=[container(f"c{n}") for n in range(11)])
    assert register(ecs, containers=[container(f"c{n}") for n in range(10)])
    with refused("ClientException", "unique", "'app'"):
        register(ecs, containers=[container(), container()])


def test_dependencies_in_a_circle_are_refused(ecs):
    def waits(name, on):
        return container(name, dependsOn=[{"containerName": on, "condition": "START"}])

    with refused("ClientException", "Cyclic"):
        register(ecs, containers=[waits("a", "b"), waits("b", "c"), waits("c", "a")])
    assert register(ecs, containers=[container("a"), waits("b", "a"), waits("c", "b")])


def test_host_ports_in_host_mode_must_match(ecs):
    with refused("ClientException", "networkMode=host"):
        register(ecs, networkMode="host", containers=[container(portMappings=[{"containerPort": 80, "hostPort": 81}])])


def test_links_need_bridge_mode(ecs):
    with refused("ClientException", "Links"):
        register(ecs, networkMode="host", containers=[container("a"), container("b", links=["a"])])


def test_the_same_port_for_tcp_and_udp_is_no_conflict(ecs):
    ports = [{"containerPort": 53, "hostPort": 53, "protocol": "tcp"}, {"containerPort": 53, "hostPort": 53, "protocol": "udp"}]
    assert register(ecs, containers=[container(portMappings=ports)])


@pytest.mark.parametrize("family", ["", "a b", "a/b", "x" * 256, "a:1"])
def test_a_bad_family_is_refused(ecs, family):
    with refused("ClientException", "Family"):
        ecs.register_task_definition(family=family, containerDefinitions=[container()])


def test_a_definition_beyond_64_kib_is_refused(ecs):
    with refused("ClientException", "65536"):
        register(ecs, containers=[container(environment=[{"name": f"N{n}", "value": "x" * 600} for n in range(110)])])


@pytest.mark.parametrize(
    ("member", "value"),
    [("networkMode", "overlay"), ("pidMode", "none"), ("requiresCompatibilities", ["MARS"])],
)
def test_values_outside_an_enum_are_refused_by_name(server, member, value):
    with refused("InvalidParameterException", member):
        server.loose.register_task_definition(family=unique("f"), containerDefinitions=[container()], **{member: value})


def test_fargate_needs_awsvpc_and_sizes(ecs):
    with refused("ClientException", "awsvpc"):
        register(ecs, requiresCompatibilities=["FARGATE"], cpu="256", memory="512")
    with refused("ClientException", "'cpu' and 'memory'"):
        register(ecs, requiresCompatibilities=["FARGATE"], networkMode="awsvpc")


def test_registering_again_makes_the_next_revision_and_the_family_means_the_newest(ecs):
    family = unique("f")
    arns = [register(ecs, family) for _ in range(3)]
    assert arns == [f"{ARN}/{family}:{n}" for n in (1, 2, 3)]
    assert ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]["revision"] == 3
    assert ecs.describe_task_definition(taskDefinition=f"{family}:2")["taskDefinition"]["revision"] == 2
    assert ecs.describe_task_definition(taskDefinition=arns[0])["taskDefinition"]["revision"] == 1


def test_registering_at_once_from_many_threads_gives_each_its_own_revision(ecs):
    family = unique("f")
    with ThreadPoolExecutor(16) as pool:
        arns = list(pool.map(lambda _: register(ecs, family), range(40)))
    assert sorted(int(arn.rsplit(":", 1)[1]) for arn in arns) == list(range(1, 41))


def test_nobody_who_registers_in_a_family_that_others_register_in_is_turned_away(server):
    """The clients above would try again where the server gives up; these do not."""
    family = unique("f")
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda _: call(server, "RegisterTaskDefinition", {"family": family, "containerDefinitions": [container()]}), range(600)))
    assert [answer for answer in answers if answer.status != 200] == []


def test_a_deregistered_definition_is_inactive_and_revision_numbers_are_never_reused(ecs):
    family = unique("f")
    register(ecs, family)
    arn = register(ecs, family)
    gone = ecs.deregister_task_definition(taskDefinition=arn)["taskDefinition"]
    assert gone["status"] == "INACTIVE"
    assert gone["deregisteredAt"] >= gone["registeredAt"]
    assert ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"]["status"] == "INACTIVE"
    assert ecs.describe_task_definition(taskDefinition=family)["taskDefinition"]["revision"] == 1
    assert register(ecs, family).endswith(":3")
    with refused("ClientException", "inactive"):
        ecs.deregister_task_definition(taskDefinition=arn)


def test_a_family_without_active_revisions_is_not_found_by_its_name(ecs):
    family = unique("f")
    ecs.deregister_task_definition(taskDefinition=register(ecs, family))
    with refused("ClientException", "Unable to describe task definition."):
        ecs.describe_task_definition(taskDefinition=family)


def test_deregistering_needs_a_revision_that_exists(ecs):
    with refused("InvalidParameterException", "revision"):
        ecs.deregister_task_definition(taskDefinition="no-revision")
    with refused("ClientException", "does not exist"):
        ecs.deregister_task_definition(taskDefinition="none-such:1")


@pytest.mark.parametrize("text", ["none-such", "none-such:4", f"{ARN}/none-such:4"])
def test_describing_an_unknown_definition_is_a_client_exception(ecs, text):
    with refused("ClientException", "Unable to describe task definition."):
        ecs.describe_task_definition(taskDefinition=text)


@pytest.mark.parametrize("text", ["a:0", "a:x", "a b", "arn:aws:ecs:eu-west-1:000000000000:task-definition/a:1", "a:1:2", ""])
def test_a_garbled_definition_reference_is_refused(ecs, text):
    with refused("InvalidParameterException"):
        ecs.describe_task_definition(taskDefinition=text)


def test_a_deregistered_definition_starts_no_task_and_no_service(ecs, cluster, agents):
    agent = agents(cluster)
    arn = register(ecs)
    ecs.deregister_task_definition(taskDefinition=arn)
    with refused("ClientException", "inactive"):
        ecs.run_task(cluster=cluster, taskDefinition=arn)
    with refused("ClientException", "inactive"):
        ecs.start_task(cluster=cluster, taskDefinition=arn, containerInstances=[agent.arn])
    with refused("ClientException", "inactive"):
        ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=arn, desiredCount=1)
    live = register(ecs)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=live, desiredCount=0)
    with refused("ClientException", "inactive"):
        ecs.update_service(cluster=cluster, service="web", taskDefinition=arn)


def test_required_attributes_follow_from_what_the_definition_uses(ecs):
    made = ecs.register_task_definition(
        family=unique("f"),
        containerDefinitions=[container(healthCheck={"command": ["CMD", "true"]}, logConfiguration={"logDriver": "awslogs", "options": {}})],
    )["taskDefinition"]
    names = {attribute["name"] for attribute in made.get("requiresAttributes", [])}
    assert "ecs.capability.container-health-check" in names
    assert "com.amazonaws.ecs.capability.logging-driver.awslogs" in names
    plain = ecs.register_task_definition(family=unique("f"), containerDefinitions=[container()])["taskDefinition"]
    assert "ecs.capability.container-health-check" not in {a["name"] for a in plain.get("requiresAttributes", [])}
