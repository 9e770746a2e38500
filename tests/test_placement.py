"""The cluster query language in ListContainerInstances and in memberOf constraints of definitions, tasks and services."""

from datetime import timezone

import pytest

from berth import until
from ecs_calls import describe, refused, register, run, service, tasks_of, texts, until_status, until_steady

UNSATISFIED = "MemberOf placement constraint unsatisfied."


def member_of(*expressions):
    return [{"type": "memberOf", "expression": expression} for expression in expressions]


def stack(value):
    return {"name": "stack", "value": value}


@pytest.fixture
def fleet(cluster, agents):
    """Three instances: one of stack prod, one of stack test, one of none."""
    prod = agents(cluster, attributes=[stack("prod"), {"name": "drain", "value": "false"}])
    test = agents(cluster, attributes=[stack("test"), {"name": "ssd"}])
    bare = agents(cluster)
    return {"prod": prod, "test": test, "bare": bare}


@pytest.fixture
def matching(ecs, cluster, fleet):
    """Names of the instances for which an expression holds."""
    names = {agent.arn: name for name, agent in fleet.items()}

    def ask(expression, **members):
        answer = ecs.list_container_instances(cluster=cluster, filter=expression, **members)
        return {names[arn] for arn in answer["containerInstanceArns"]}

    return ask


ALL = {"prod", "test", "bare"}


def test_attributes_select_by_every_operator(matching):
    for expression, expected in [
        ("attribute:stack == prod", {"prod"}),
        ("attribute:stack equals 'prod'", {"prod"}),
        ("attribute:stack != prod", {"test"}),
        ("attribute:stack not_equals prod", {"test"}),
        ("attribute:stack exists", {"prod", "test"}),
        ("attribute:stack !exists", {"bare"}),
        ("attribute:stack not_exists", {"bare"}),
        ("attribute:stack in [prod, test]", {"prod", "test"}),
        ("attribute:stack !in [prod]", {"test"}),
        ("attribute:stack not_in ['prod', \"test\"]", set()),
        ("attribute:stack =~ (p|t).*", {"prod", "test"}),
        ("attribute:stack matches pro", set()),
        ("attribute:stack !~ pr.*", {"test"}),
        ("attribute:stack not_matches pr.*", {"test"}),
        ("attribute:ssd exists", {"test"}),
        ("attribute:ssd != x", {"test"}),
        ("attribute:ecs.os-type == linux", ALL),
        ("attribute:drain !exists or attribute:drain != true", ALL),
        ("not attribute:stack == prod", {"test", "bare"}),
        ("!(attribute:stack == prod || attribute:stack == test)", {"bare"}),
        ("attribute:stack exists and not(attribute:ssd exists)", {"prod"}),
        ("attribute:stack exists && attribute:ssd !exists", {"prod"}),
        ("attribute:stack == prod or attribute:ssd exists and attribute:stack == none", {"prod"}),
        ("(attribute:stack == prod or attribute:ssd exists) and attribute:stack == none", set()),
    ]:
        assert matching(expression) == expected, expression


def test_connections_and_versions(ecs, cluster, fleet, matching):
    fleet["test"].leave()
    until("its agent is seen to be away", lambda: matching("agentConnected == false") == {"test"})
    assert matching("agentConnected != false") == {"prod", "bare"}
    assert matching("agentConnected in [true]") == matching("agentConnected =~ t.*") == {"prod", "bare"}
    assert matching("agentConnected !in [true]") == matching("agentConnected !~ true") == {"test"}
    # Every fake agent is of version 1.105.1.
    for expression in ["== 1.105.1", "> 1.99.9", ">= 1.105.1", "< 1.106", "<= 2", "!= 1.105"]:
        assert matching(f"agentVersion {expression}") == ALL, expression
    for expression in ["!= 1.105.1", "less_than 1.14.5", "greater_than 1.105.1", "less_than_equal 1.105.0", "greater_than_equal 1.105.2", "equals 1.105"]:
        assert matching(f"agentVersion {expression}") == set(), expression


def test_times_counts_and_groups(ecs, cluster, fleet, matching):
    shown = ecs.describe_container_instances(cluster=cluster, containerInstances=[fleet["prod"].arn])["containerInstances"][0]
    registered = shown["registeredAt"].astimezone(timezone.utc)
    second = registered.strftime("%Y-%m-%dT%H:%M:%S")
    for form in (second, f"{second}Z", f"{second}+00:00"):
        assert "prod" in matching(f"registeredAt == {form}")
        assert matching(f"registeredAt < {form}").isdisjoint({"prod"})
    assert matching("registeredAt > 2018-06-18") == ALL and matching("registeredAt < 2018-06-18") == set()
    definition = register(ecs)
    [task] = run(ecs, cluster, definition, group="databases", placementConstraints=member_of("attribute:stack == prod"))
    until_status(ecs, cluster, task, "RUNNING")
    assert matching("runningTasksCount == 1") == matching("runningTasksCount > 0") == {"prod"}
    assert matching("runningTasksCount <= 0") == matching("runningTasksCount != 1") == {"test", "bare"}
    assert matching("task:group == databases") == matching("task:group =~ data.*") == matching("task:group exists") == {"prod"}
    assert matching("task:group in [a, databases]") == {"prod"}
    assert matching("not(task:group == databases)") == matching("task:group !exists") == {"test", "bare"}
    assert matching("task:group != databases") == set(), "a task of another group is nowhere"
    ecs.stop_task(cluster=cluster, task=task)
    until("the task has stopped", lambda: describe(ecs, cluster, task)["lastStatus"] == "STOPPED")
    assert matching("task:group == databases") == matching("runningTasksCount > 0") == set()


def test_ec2_instance_ids(ecs, cluster, fleet, matching):
    shown = ecs.describe_container_instances(cluster=cluster, containerInstances=[fleet["prod"].arn])["containerInstances"][0]
    own = shown["ec2InstanceId"]
    assert matching(f"ec2InstanceId == {own}") == matching(f"ec2InstanceId in ['i-abcd1234', '{own}']") == {"prod"}
    assert matching(f"ec2InstanceId != {own}") == matching(f"ec2InstanceId !in [{own}]") == {"test", "bare"}
    assert matching(f"ec2InstanceId =~ {own[:-1]}.") >= {"prod"} and matching(f"ec2InstanceId =~ {own[:-1]}") == set()
    assert matching(f"ec2InstanceId !~ {own}") == {"test", "bare"}


def test_filters_go_with_status_and_pages(ecs, cluster, fleet, matching):
    assert matching("attribute:stack exists", status="DRAINING") == set()
    ecs.update_container_instances_state(cluster=cluster, containerInstances=[fleet["test"].arn], status="DRAINING")
    assert matching("attribute:stack exists", status="DRAINING") == {"test"}
    pages = ecs.get_paginator("list_container_instances").paginate(
        cluster=cluster, filter="attribute:stack exists or attribute:stack !exists", PaginationConfig={"PageSize": 1}
    )
    listed = [page["containerInstanceArns"] for page in pages]
    assert sorted(arn for page in listed for arn in page) == sorted(agent.arn for agent in fleet.values())
    assert all(len(page) <= 1 for page in listed)
    assert ecs.list_container_instances(cluster=cluster, filter="")["containerInstanceArns"], "an empty filter is none"


@pytest.mark.parametrize(
    ("expression", "column", "expected"),
    [
        ("colour == red", 1, "expected a subject"),
        ("attribute:a", 12, "expected an operator of attributes"),
        ("attribute:a = b", 13, "expected an operator"),
        ("attribute:a > 3", 13, "expected an operator of attributes"),
        ("attribute:a == b attribute:c == d", 18, "expected and, or, or the end"),
        ("attribute:a in b", 16, "expected a list"),
        ("(attribute:a == b", 18, "closing parenthesis"),
        ("attribute:a == 'b", 18, "closing quote"),
        ("attribute:a =~ (b", 16, "unclosed group"),
        ("attribute:a =~ (?!b).*", 16, "without look-around"),
        (r"attribute:a =~ (b)\1", 16, "without back references"),
        ("agentConnected == yes", 19, "expected true or false"),
        ("agentVersion =~ 1.*", 14, "expected an operator of agentVersion"),
        ("agentVersion > new", 16, "expected a version"),
        ("registeredAt > yesterday", 16, "expected a date"),
        ("runningTasksCount < few", 21, "expected a number"),
        ("attribute:a == " + "b" * 1986, 2001, "2000 characters"),
        ("!" * 40 + "agentConnected == true", 34, "nest 32 deep"),
    ],
)
def test_what_is_wrong_is_said_with_its_column_wherever_expressions_are_taken(ecs, cluster, agents, expression, column, expected):
    where = f"column {column}:"
    with refused("InvalidParameterException", "filter", where, expected):
        ecs.list_container_instances(cluster=cluster, filter=expression)
    with refused("InvalidParameterException", "placementConstraints[0].expression", where, expected):
        register(ecs, placementConstraints=member_of(expression))
    definition = register(ecs)
    second = {"placementConstraints": [{"type": "distinctInstance"}, *member_of(expression)]}
    with refused("InvalidParameterException", "placementConstraints[1].expression", where, expected):
        ecs.run_task(cluster=cluster, taskDefinition=definition, **second)
    with refused("InvalidParameterException", "placementConstraints[1].expression", where, expected):
        ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=0, **second)


def test_each_type_has_its_members(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs)
    for constraint, word in [
        ({"type": "memberOf"}, "expression must be specified"),
        ({"type": "memberOf", "expression": ""}, "expression must be specified"),
        ({"type": "distinctInstance", "expression": "attribute:a exists"}, "expression must not be specified"),
        ({"expression": "attribute:a exists"}, "type"),
        ({"type": "near", "expression": "attribute:a exists"}, "type"),
    ]:
        with refused("InvalidParameterException", "placementConstraints", word):
            ecs.run_task(cluster=cluster, taskDefinition=definition, placementConstraints=[constraint])
        with refused("InvalidParameterException", "placementConstraints", word):
            ecs.create_service(cluster=cluster, serviceName="s", taskDefinition=definition, desiredCount=0, placementConstraints=[constraint])
    with refused("InvalidParameterException", "placementConstraints[0].expression must be specified"):
        register(ecs, placementConstraints=[{"type": "memberOf"}])
    with refused("ClientException", "at most 10"):
        register(ecs, placementConstraints=member_of(*["attribute:a exists"] * 11))
    assert tasks_of(ecs, cluster) == []


def test_ten_constraints_with_those_of_the_definition(ecs, cluster, agents):
    agents(cluster, attributes=[stack("prod")])
    definition = register(ecs, placementConstraints=member_of(*["attribute:stack exists"] * 6))
    four, five = ({"placementConstraints": member_of(*["attribute:stack == prod"] * count)} for count in (4, 5))
    run(ecs, cluster, definition, **four)
    with refused("InvalidParameterException", "at most 10", "6 of its own", "placementConstraints"):
        ecs.run_task(cluster=cluster, taskDefinition=definition, **five)
    with refused("InvalidParameterException", "at most 10"):
        ecs.create_service(cluster=cluster, serviceName="s", taskDefinition=definition, desiredCount=0, **five)
    ecs.create_service(cluster=cluster, serviceName="s", taskDefinition=register(ecs), desiredCount=0, **five)
    with refused("InvalidParameterException", "at most 10"):
        ecs.update_service(cluster=cluster, service="s", taskDefinition=definition)
    ecs.update_service(cluster=cluster, service="s", taskDefinition=definition, **four)
    with refused("InvalidParameterException", "at most 10"):
        ecs.update_service(cluster=cluster, service="s", **five)
    ecs.create_service(cluster=cluster, serviceName="x", deploymentController={"type": "EXTERNAL"}, **five)
    with refused("InvalidParameterException", "at most 10"):
        ecs.create_task_set(cluster=cluster, service="x", taskDefinition=definition)


def test_strategies_name_fields_that_are_there(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs)
    for strategy in [
        {"type": "spread", "field": "attribute:"},
        {"type": "spread", "field": "attribute:a b"},
        {"type": "spread", "field": "zone"},
        {"type": "spread"},
        {"type": "binpack", "field": "disk"},
        {"type": "binpack"},
        {"field": "cpu"},
    ]:
        with refused("InvalidParameterException", "placement"):
            ecs.run_task(cluster=cluster, taskDefinition=definition, placementStrategy=[strategy])
    for strategy in [
        {"type": "spread", "field": "attribute:ecs.availability-zone"},
        {"type": "spread", "field": "instanceId"},
        {"type": "spread", "field": "host"},
        {"type": "binpack", "field": "cpu"},
        {"type": "binpack", "field": "MEMORY"},
        {"type": "random"},
    ]:
        run(ecs, cluster, definition, placementStrategy=[strategy])


def on(ecs, cluster, tasks):
    return {describe(ecs, cluster, task)["containerInstanceArn"] for task in tasks}


def test_tasks_go_where_the_constraint_says(ecs, cluster, fleet):
    definition = register(ecs)
    assert on(ecs, cluster, run(ecs, cluster, definition, 4, placementConstraints=member_of("attribute:stack == test"))) == {fleet["test"].arn}
    both = member_of("attribute:stack exists", "attribute:ssd !exists")
    assert on(ecs, cluster, run(ecs, cluster, definition, 3, placementConstraints=both)) == {fleet["prod"].arn}
    answer = ecs.run_task(cluster=cluster, taskDefinition=definition, count=2, placementConstraints=member_of("attribute:stack == dev"))
    assert answer["tasks"] == []
    assert sorted((one["arn"], one["reason"]) for one in answer["failures"]) == sorted((agent.arn, UNSATISFIED) for agent in fleet.values())


def test_affinity_and_anti_affinity_count_tasks_of_the_same_request(ecs, cluster, fleet):
    definition = register(ecs)
    alone = member_of("not(task:group == databases)")
    answer = ecs.run_task(cluster=cluster, taskDefinition=definition, count=4, group="databases", placementConstraints=alone)
    assert {task["containerInstanceArn"] for task in answer["tasks"]} == {agent.arn for agent in fleet.values()}
    assert len(answer["tasks"]) == 3 and {one["reason"] for one in answer["failures"]} == {UNSATISFIED}
    [cache] = run(ecs, cluster, definition, group="cache", placementConstraints=member_of("attribute:stack == prod"))
    beside = run(ecs, cluster, definition, 3, group="web", placementConstraints=member_of("task:group == cache"))
    assert on(ecs, cluster, beside) == on(ecs, cluster, [cache])


def test_a_definition_s_constraint_binds_tasks_started_tasks_and_services(ecs, cluster, fleet):
    constraints = member_of("attribute:stack == prod")
    definition = register(ecs, placementConstraints=constraints)
    shown = ecs.describe_task_definition(taskDefinition=definition)["taskDefinition"]
    assert shown["placementConstraints"] == constraints
    assert on(ecs, cluster, run(ecs, cluster, definition, 2)) == {fleet["prod"].arn}
    started = ecs.start_task(cluster=cluster, taskDefinition=definition, containerInstances=[fleet["prod"].arn, fleet["bare"].arn])
    assert [task["containerInstanceArn"] for task in started["tasks"]] == [fleet["prod"].arn]
    assert [(one["arn"], one["reason"]) for one in started["failures"]] == [(fleet["bare"].arn, UNSATISFIED)]
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=3)
    until("three tasks", lambda: len(tasks_of(ecs, cluster, serviceName="web")) == 3)
    assert on(ecs, cluster, tasks_of(ecs, cluster, serviceName="web")) == {fleet["prod"].arn}
    answer = ecs.run_task(cluster=cluster, taskDefinition=definition, placementConstraints=member_of("attribute:stack == test"))
    assert len(answer["failures"]) == 3, "both bind"


def test_a_definition_takes_member_of_alone(ecs):
    with refused("InvalidParameterException", "distinctInstance", "placementConstraints"):
        register(ecs, placementConstraints=[{"type": "distinctInstance"}])


def test_a_service_with_a_constraint_waits_says_why_and_goes_on(server, ecs, cluster, agents):
    agent = agents(cluster)
    constraints = member_of("attribute:stack == prod")
    made = ecs.create_service(
        cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=2, placementConstraints=constraints
    )["service"]
    assert made["placementConstraints"] == constraints == service(ecs, cluster, "web")["placementConstraints"]
    short = agent.arn.rsplit("/", 1)[1]
    words = f'The closest matching (container-instance {short}) encountered error "{UNSATISFIED}"'
    until("the event", lambda: any(words in text for text in texts(service(ecs, cluster, "web"))))
    why = server.run("why", "web", "--cluster", cluster, "--output", "json").stdout
    assert UNSATISFIED in why and "attribute:stack == prod" in why
    assert "memberOf" in server.run("why", "web", "--cluster", cluster).stdout
    ecs.put_attributes(cluster=cluster, attributes=[{**stack("prod"), "targetId": agent.arn}])
    # Once it is steady, the same words are news again.
    until_steady(ecs, cluster, "web")
    # A constraint counts when a task is placed: what runs stays where it is.
    before = set(tasks_of(ecs, cluster, serviceName="web"))
    ecs.delete_attributes(cluster=cluster, attributes=[{"name": "stack", "targetId": agent.arn}])
    ecs.update_service(cluster=cluster, service="web", desiredCount=3)
    until("the third is refused", lambda: sum(words in text for text in texts(service(ecs, cluster, "web"))) == 2)
    assert set(tasks_of(ecs, cluster, serviceName="web")) == before


def test_changed_placement_begins_no_deployment_and_holds_from_then_on(ecs, cluster, agents):
    prod, test = agents(cluster, attributes=[stack("prod")]), agents(cluster, attributes=[stack("test")])
    ecs.create_service(
        cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=2, placementConstraints=member_of("attribute:stack == prod")
    )
    until("two tasks", lambda: len(tasks_of(ecs, cluster, serviceName="web")) == 2)
    before = service(ecs, cluster, "web")
    changed = ecs.update_service(
        cluster=cluster, service="web", placementConstraints=member_of("attribute:stack == test"), placementStrategy=[{"type": "binpack", "field": "cpu"}]
    )["service"]
    assert changed["placementConstraints"] == member_of("attribute:stack == test")
    assert changed["placementStrategy"] == [{"type": "binpack", "field": "cpu"}]
    assert [one["id"] for one in changed["deployments"]] == [one["id"] for one in before["deployments"]]
    ecs.update_service(cluster=cluster, service="web", desiredCount=4)
    until("four tasks", lambda: len(tasks_of(ecs, cluster, serviceName="web")) == 4)
    where = [describe(ecs, cluster, task)["containerInstanceArn"] for task in tasks_of(ecs, cluster, serviceName="web")]
    assert sorted(where) == sorted([prod.arn] * 2 + [test.arn] * 2)
    with refused("InvalidParameterException", "placementConstraints[0].expression", "column 12"):
        ecs.update_service(cluster=cluster, service="web", placementConstraints=member_of("attribute:a"))
    cleared = ecs.update_service(cluster=cluster, service="web", placementConstraints=[], placementStrategy=[])["service"]
    assert (cleared["placementConstraints"], cleared["placementStrategy"]) == ([], [])


def test_task_sets_follow_their_service_s_constraints(ecs, cluster, agents):
    agents(cluster)
    chosen = agents(cluster, attributes=[stack("prod")])
    ecs.create_service(
        cluster=cluster, serviceName="x", desiredCount=2, deploymentController={"type": "EXTERNAL"}, placementConstraints=member_of("attribute:stack == prod")
    )
    ecs.create_task_set(cluster=cluster, service="x", taskDefinition=register(ecs), scale={"unit": "PERCENT", "value": 100})
    until("two tasks", lambda: len(tasks_of(ecs, cluster, serviceName="x")) == 2)
    assert on(ecs, cluster, tasks_of(ecs, cluster, serviceName="x")) == {chosen.arn}


def test_constraints_outlive_the_server(new_berth):
    from fake_agent import FakeAgent

    berth = new_berth("server").start()
    berth.ecs.create_cluster(clusterName="default")
    definition = register(berth.ecs, placementConstraints=member_of("attribute:stack =~ p.*"))
    constraints = member_of("attribute:stack == prod and runningTasksCount < 5")
    berth.ecs.create_service(serviceName="web", taskDefinition=definition, desiredCount=1, placementConstraints=constraints)
    berth.terminate()
    berth.start()
    agents = [FakeAgent(berth, "default", attributes=[stack(value)]).join() for value in ("test", "prod")]
    try:
        assert service(berth.ecs, "default", "web")["placementConstraints"] == constraints
        assert until_steady(berth.ecs, "default", "web")["runningCount"] == 1
        assert on(berth.ecs, "default", tasks_of(berth.ecs, "default")) == {agents[1].arn}
    finally:
        for agent in agents:
            agent.leave()
