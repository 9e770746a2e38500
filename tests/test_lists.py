"""Every served paginator: nothing twice, nothing lost, also while items come and go between pages."""

import pytest

from berth import unique
from ecs_calls import refused, register, run, tasks_of, until_steady

LISTS = {
    "list_clusters": "clusterArns",
    "list_task_definitions": "taskDefinitionArns",
    "list_task_definition_families": "families",
    "list_services": "serviceArns",
    "list_tasks": "taskArns",
    "list_container_instances": "containerInstanceArns",
}


@pytest.fixture(scope="module")
def many(server):
    """A cluster with five of everything; gives for each list its arguments and what it should hold."""
    from fake_agent import FakeAgent

    ecs, mark = server.ecs, unique("many")
    names = [f"{mark}-{n}" for n in range(5)]
    for name in names:
        ecs.create_cluster(clusterName=name)
    families = [f"{mark}-f{n}" for n in range(5)]
    definitions = [register(ecs, families[0]) for _ in range(12)]
    for family in families[1:]:
        register(ecs, family)
    cluster = names[0]
    agent = FakeAgent(server, cluster, runs=False).join()
    others = [FakeAgent(server, cluster).register() for _ in range(4)]
    services = [
        ecs.create_service(cluster=cluster, serviceName=f"s{n}", taskDefinition=definitions[0], desiredCount=0)["service"]["serviceArn"]
        for n in range(5)
    ]
    tasks = run(ecs, cluster, definitions[0], count=5)
    yield {
        "list_clusters": ({}, [f"arn:aws:ecs:us-east-1:000000000000:cluster/{name}" for name in names]),
        "list_task_definitions": ({"familyPrefix": families[0]}, definitions),
        "list_task_definition_families": ({"familyPrefix": mark}, families),
        "list_services": ({"cluster": cluster}, services),
        "list_tasks": ({"cluster": cluster}, sorted(tasks)),
        "list_container_instances": ({"cluster": cluster}, sorted([agent.arn, *(a.arn for a in others)])),
    }
    agent.leave()


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_pages_of_any_size_hold_everything_once_and_in_order(ecs, many, name, size):
    arguments, expected = many[name]
    pages = list(ecs.get_paginator(name).paginate(**arguments, PaginationConfig={"PageSize": size}))
    listed = [item for page in pages for item in page[LISTS[name]]]
    ours = [item for item in listed if item in expected]
    assert ours == expected
    assert len(listed) == len(set(listed))
    assert all(len(page[LISTS[name]]) <= size for page in pages)
    assert "nextToken" not in pages[-1] and all(page.get("nextToken") for page in pages[:-1])


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("size", [0, 101, -1])
def test_page_sizes_outside_1_to_100_are_refused(ecs, many, name, size):
    with refused("InvalidParameterException", "maxResults"):
        getattr(ecs, name)(**many[name][0], maxResults=size)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("token", ["nonsense", "bm9uc2Vuc2U", "=", "ü", "x" * 5000])
def test_bad_tokens_are_refused(ecs, many, name, token):
    with refused("InvalidParameterException", "oken"):
        getattr(ecs, name)(**many[name][0], nextToken=token)


@pytest.mark.parametrize("name", LISTS)
def test_a_token_of_another_list_is_refused(ecs, many, name):
    other = "list_tasks" if name != "list_tasks" else "list_services"
    token = getattr(ecs, other)(**many[other][0], maxResults=1)["nextToken"]
    with refused("InvalidParameterException", "oken"):
        getattr(ecs, name)(**many[name][0], nextToken=token)


def test_items_made_and_removed_between_pages_harm_nothing(ecs):
    """The page after an item that is gone begins where it was; what was inserted behind the page is not lost."""
    mark = unique("between")

    def make(letter):
        register(ecs, f"{mark}-{letter}")

    for letter in "bdfh":
        make(letter)
    seen = []
    token = {}
    steps = {0: lambda: (make("a"), make("c")), 1: lambda: ecs.deregister_task_definition(taskDefinition=f"{mark}-d:1"), 2: lambda: make("g")}
    for step in range(10):
        page = ecs.list_task_definition_families(familyPrefix=mark, maxResults=1, **token)
        seen += page["families"]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
        steps.get(step, lambda: None)()
    # b, then c (inserted behind), then d is deregistered only after it was listed or skipped, and so on: never a, never one twice.
    assert seen == [f"{mark}-{letter}" for letter in "bcfgh"], (seen, arn)


def test_services_come_ten_a_page_unless_told_otherwise(ecs, cluster):
    definition = register(ecs)
    for n in range(12):
        ecs.create_service(cluster=cluster, serviceName=f"s{n:02}", taskDefinition=definition, desiredCount=0)
    page = ecs.list_services(cluster=cluster)
    assert len(page["serviceArns"]) == 10
    assert len(ecs.list_services(cluster=cluster, nextToken=page["nextToken"])["serviceArns"]) == 2


def test_definitions_are_listed_by_full_family_name_and_by_revision_number(ecs):
    family = unique("f")
    arns = [register(ecs, family) for _ in range(11)]
    register(ecs, family + "-longer")
    assert ecs.list_task_definitions(familyPrefix=family)["taskDefinitionArns"] == arns
    assert ecs.list_task_definitions(familyPrefix=family, sort="DESC")["taskDefinitionArns"] == arns[::-1]
    pages = ecs.get_paginator("list_task_definitions").paginate(familyPrefix=family, sort="DESC", PaginationConfig={"PageSize": 1})
    assert [arn for page in pages for arn in page["taskDefinitionArns"]] == arns[::-1]
    assert ecs.list_task_definitions(familyPrefix=family[:-1])["taskDefinitionArns"] == []


def test_definitions_and_families_are_listed_by_status(ecs):
    mark = unique("f")
    kept, gone = register(ecs, f"{mark}-kept"), register(ecs, f"{mark}-gone")
    old = register(ecs, f"{mark}-kept")
    for arn in (gone, old):
        ecs.deregister_task_definition(taskDefinition=arn)

    def definitions(family, status):
        return ecs.list_task_definitions(familyPrefix=f"{mark}-{family}", status=status)["taskDefinitionArns"]

    assert (definitions("kept", "ACTIVE"), definitions("kept", "INACTIVE")) == ([kept], [old])
    assert (definitions("gone", "ACTIVE"), definitions("gone", "INACTIVE")) == ([], [gone])

    def families(status):
        return ecs.list_task_definition_families(familyPrefix=mark, status=status)["families"]

    assert families("ACTIVE") == [f"{mark}-kept"]
    assert families("INACTIVE") == [f"{mark}-gone"]
    assert families("ALL") == [f"{mark}-gone", f"{mark}-kept"]


def test_container_instances_are_listed_by_status(ecs, cluster, agents):
    kept, gone = agents(cluster), agents(cluster)
    ecs.deregister_container_instance(cluster=cluster, containerInstance=gone.arn)
    assert ecs.list_container_instances(cluster=cluster)["containerInstanceArns"] == [kept.arn]
    assert ecs.list_container_instances(cluster=cluster, status="ACTIVE")["containerInstanceArns"] == [kept.arn]
    assert ecs.list_container_instances(cluster=cluster, status="DRAINING")["containerInstanceArns"] == []


def test_services_are_listed_by_launch_type_and_strategy(ecs, cluster):
    definition = register(ecs)
    made = ecs.create_service(cluster=cluster, serviceName="ec2", taskDefinition=definition, desiredCount=0)["service"]["serviceArn"]
    external = ecs.create_service(cluster=cluster, serviceName="ext", taskDefinition=definition, desiredCount=0, launchType="EXTERNAL")

    def listed(**filters):
        return ecs.list_services(cluster=cluster, **filters)["serviceArns"]

    assert listed(launchType="EC2") == [made]
    assert listed(launchType="EXTERNAL") == [external["service"]["serviceArn"]]
    assert listed(schedulingStrategy="DAEMON") == []
    assert len(listed(schedulingStrategy="REPLICA")) == 2
    assert listed(resourceManagementType="ECS") == []


def test_tasks_are_listed_by_every_filter(ecs, cluster, agents):
    first, second = agents(cluster), agents(cluster)
    one, two = register(ecs), register(ecs)
    family = one.rsplit("/", 1)[1].split(":")[0]
    a = run(ecs, cluster, one, startedBy="ann")[0]
    b = run(ecs, cluster, two, startedBy="bob")[0]
    started = ecs.start_task(cluster=cluster, taskDefinition=two, containerInstances=[second.arn], startedBy="bob")
    c = started["tasks"][0]["taskArn"]
    stopped = run(ecs, cluster, one)[0]
    ecs.stop_task(cluster=cluster, task=stopped)
    service = ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=one, desiredCount=2)["service"]
    until_steady(ecs, cluster, "web")
    of_service = tasks_of(ecs, cluster, serviceName="web")
    assert len(of_service) == 2
    assert set(tasks_of(ecs, cluster)) == {a, b, c, *of_service}
    assert set(tasks_of(ecs, cluster, family=family)) == {a, *of_service}
    assert tasks_of(ecs, cluster, startedBy="ann") == [a]
    assert set(tasks_of(ecs, cluster, startedBy="bob")) == {b, c}
    assert set(tasks_of(ecs, cluster, startedBy=service["deployments"][0]["id"])) == set(of_service)
    assert set(tasks_of(ecs, cluster, serviceName=service["serviceArn"])) == set(of_service)
    assert tasks_of(ecs, cluster, desiredStatus="STOPPED") == [stopped]
    assert tasks_of(ecs, cluster, desiredStatus="PENDING") == []
    on = {agent.arn: set(tasks_of(ecs, cluster, containerInstance=agent.arn)) for agent in (first, second)}
    assert c in on[second.arn]
    assert on[first.arn] | on[second.arn] == {a, b, c, *of_service} and not on[first.arn] & on[second.arn]
    assert tasks_of(ecs, cluster, launchType="FARGATE") == []
    assert set(tasks_of(ecs, cluster, launchType="EC2")) == {a, b, c, *of_service}
    assert tasks_of(ecs, cluster, family="none-such") == []
    with refused("InvalidParameterException", "startedBy"):
        ecs.list_tasks(cluster=cluster, startedBy="ann", family=family)
    with refused("ServiceNotFoundException"):
        ecs.list_tasks(cluster=cluster, serviceName="none-such")
