"""`berth plan`: what it says is what then happens, and saying it changes nothing."""

import json
import re
from collections import Counter

import pytest

from berth import http_text, unique, until
from ecs_calls import container, register, run, service, tasks_of, until_steady
from fake_agent import signed_headers
from http_call import exchange


def plan(berth, *arguments):
    return json.loads(berth.run("plan", *arguments, "--output", "json").stdout)


def starts(answer):
    """How many tasks would start on which container instance."""
    return {one.get("arn", one["name"]): one["start"] for one in answer["instances"] if one["start"]}


def steps(answer):
    return [(step["start"], step["stop"], step["tasks"]) for step in answer["steps"]]


def one_of(berth, name):
    return int(re.search(rf"^{name} (\d+)", http_text(f"{berth.endpoint}/metrics"), re.M)[1])


def stack(value):
    return {"name": "stack", "value": value}


def zone(value):
    return {"name": "ecs.availability-zone", "value": value}


@pytest.mark.parametrize(
    "strategy",
    [
        ["type=spread,field=instanceId"],
        ["type=spread,field=attribute:ecs.availability-zone", "type=binpack,field=memory"],
        ["type=binpack,field=cpu"],
        ["type=binpack,field=memory"],
    ],
)
def test_tasks_go_where_the_plan_says(server, ecs, cluster, agents, strategy):
    for number, memory in enumerate((500, 300, 400)):
        agents(cluster, memory=memory, cpu=1000 + number, attributes=[zone("ab"[number % 2])])
    definition = register(ecs, containers=[container(memory=100)])
    run(ecs, cluster, definition, 2, placementStrategy=[{"type": "binpack", "field": "memory"}])
    arguments = ["run-task", "--cluster", cluster, "--task-definition", definition, "--count", "10", "--placement-strategy", *strategy]
    said = plan(server, *arguments)
    parsed = [dict(part.split("=", 1) for part in text.split(",")) for text in strategy]
    done = ecs.run_task(cluster=cluster, taskDefinition=definition, count=10, placementStrategy=parsed)
    assert starts(said) == Counter(task["containerInstanceArn"] for task in done["tasks"])
    refused = {(arn, reason["rule"]) for reason in said["reasons"] for arn in reason["arns"]}
    assert refused == {(failure["arn"], failure["reason"]) for failure in done["failures"]}
    assert said["fits"] is (not done["failures"])


def test_what_does_not_fit_is_named_with_its_constraint(server, ecs, cluster, agents):
    prod, other = agents(cluster, memory=250, attributes=[stack("prod")]), agents(cluster)
    definition = register(ecs, containers=[container(memory=100)])
    constraint = "type=memberOf,expression=attribute:stack in [prod, test]"
    said = plan(server, "run-task", "--cluster", cluster, "--task-definition", definition, "--count", "4", "--placement-constraints", constraint)
    assert starts(said) == {prod.arn: 2} and said["fits"] is False
    assert said["summary"].startswith("2 of 4 tasks of ")
    rules = {reason["rule"]: reason for reason in said["reasons"]}
    assert rules["RESOURCE:MEMORY"]["arns"] == [prod.arn]
    assert rules["MemberOf placement constraint unsatisfied."]["arns"] == [other.arn]
    assert "attribute:stack in [prod, test]" in rules["MemberOf placement constraint unsatisfied."]["text"]
    [one] = [one for one in said["instances"] if one["arn"] == prod.arn]
    assert (one["before"], one["after"]["tasks"], one["after"]["freeMemory"]) == ({"tasks": 0, "freeCpu": 8192, "freeMemory": 250}, 2, 50)
    assert said["otherInstances"] == 1
    text = ("plan", "run-task", "--cluster", cluster, "--task-definition", definition, "--count", "4", "--placement-constraints", constraint)
    shown = server.run(*text).stdout
    assert "INSTANCE" in shown and "0 -> 2" in shown and "250 -> 50" in shown and prod.arn.rsplit("/", 1)[1][:12] in shown
    assert "too little memory" in shown and "1 other container instance: as now" in shown


def test_machines_more_and_fewer(server, ecs, cluster, agents):
    small, large = agents(cluster, memory=200), agents(cluster, memory=1000, attributes=[stack("prod")])
    definition = register(ecs, containers=[container(memory=100)])
    arguments = ["run-task", "--cluster", cluster, "--task-definition", definition, "--count", "10", "--placement-strategy", "type=binpack,field=memory"]
    base = plan(server, *arguments)
    assert base["fits"] and starts(base) == {small.arn: 2, large.arn: 8}
    many = plan(server, *[{"10": "25"}.get(word, word) for word in arguments])
    assert many["summary"].startswith("12 of 25 tasks") and starts(many) == {small.arn: 2, large.arn: 10}, "more than one RunTask may ask for"
    without = plan(server, *arguments, "--remove", large.arn)
    assert not without["fits"] and starts(without) == {small.arn: 2}
    assert [one["arn"] for one in without["instances"] if one["removed"]] == [large.arn]
    more = plan(server, *arguments, "--remove", large.arn, "--add-instances", f"3={small.arn.rsplit('/', 1)[1][:10]}")
    assert starts(more) == {small.arn: 2, "added 1": 2, "added 2": 2, "added 3": 2}
    newest = plan(server, *arguments, "--remove", small.arn, "--remove", large.arn, "--add-instances", "1")
    assert newest["fits"] and starts(newest) == {"added 1": 10}, "like the one that registered last"
    chosen = ["--placement-constraints", "type=memberOf,expression=attribute:stack == prod", "--remove", large.arn]
    assert not plan(server, *arguments, *chosen)["fits"]
    assert plan(server, *arguments, *chosen, "--add-instances", f"1=like {large.arn}")["fits"], "with its attributes"


def test_a_deployment_goes_on_in_the_steps_that_were_said(server, ecs, cluster, agents):
    for _ in range(2):
        agents(cluster)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=4)
    until_steady(ecs, cluster, "web")
    fresh = register(ecs)
    said = plan(server, "update-service", "--cluster", cluster, "--service", "web", "--task-definition", fresh)
    assert steps(said) == [(4, 0, 8), (0, 4, 4)] and said["fits"], said
    assert sum(one["stop"] for one in said["instances"]) == sum(one["start"] for one in said["instances"]) == 4
    assert [one["id"] for one in service(ecs, cluster, "web")["deployments"]] == [service(ecs, cluster, "web")["deployments"][0]["id"]]
    half = ["--minimum-healthy-percent", "50", "--maximum-percent", "100"]
    slow = plan(server, "update-service", "--cluster", cluster, "--service", "web", "--task-definition", fresh, *half)
    assert slow["fits"] and max(step["tasks"] for step in slow["steps"]) <= 4 and min(step["tasks"] for step in slow["steps"]) >= 2
    assert sum(step["start"] for step in slow["steps"]) == sum(step["stop"] for step in slow["steps"]) == 4
    assert [step["afterSeconds"] for step in slow["steps"]] == sorted(step["afterSeconds"] for step in slow["steps"])
    stuck = plan(
        server, "update-service", "--cluster", cluster, "--service", "web", "--task-definition", fresh, "--minimum-healthy-percent", "100", "--maximum-percent", "100"
    )
    assert not stuck["fits"] and steps(stuck) == []
    assert any("is unable to stop or start tasks during a deployment" in reason["text"] for reason in stuck["reasons"])
    # And then it happens.
    ecs.update_service(cluster=cluster, service="web", taskDefinition=fresh)
    until("the new tasks", lambda: until_steady(ecs, cluster, "web")["taskDefinition"] == fresh)
    assert len(tasks_of(ecs, cluster, serviceName="web")) == 4
    calm = plan(server, "update-service", "--cluster", cluster, "--service", "web")
    assert calm["fits"] and calm["steps"] == [] and calm["summary"].startswith("nothing would change")


def test_a_scaled_service_goes_where_its_plan_says(server, ecs, cluster, agents):
    for value in "aab":
        agents(cluster, attributes=[zone(value)])
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=2)
    until_steady(ecs, cluster, "web")
    before = Counter(where(ecs, cluster, "web"))
    said = plan(server, "update-service", "--cluster", cluster, "--service", "web", "--desired-count", "9")
    assert said["fits"] and steps(said) == [(7, 0, 9)]
    ecs.update_service(cluster=cluster, service="web", desiredCount=9)
    until_steady(ecs, cluster, "web")
    assert starts(said) == Counter(where(ecs, cluster, "web")) - before
    less = plan(server, "update-service", "--cluster", cluster, "--service", "web", "--desired-count", "4")
    assert less["fits"] and steps(less) == [(0, 5, 4)]
    lots = plan(server, "update-service", "--cluster", cluster, "--service", "web", "--desired-count", "4000")
    assert not lots["fits"] and lots["summary"].startswith("it would not come to rest: ")
    assert {"RESOURCE:CPU", "RESOURCE:MEMORY"} & {reason.get("rule") for reason in lots["reasons"]}


def test_capacity_providers_count(server, ecs, cluster, agents):
    names = [unique("p"), unique("p")]
    for name in names:
        ecs.create_capacity_provider(name=name, autoScalingGroupProvider={"autoScalingGroupArn": unique("asg")})
    ecs.put_cluster_capacity_providers(cluster=cluster, capacityProviders=names, defaultCapacityProviderStrategy=[])
    [first] = [agents(cluster, memory=250, attributes=[{"name": "berth.capacity-provider", "value": names[0]}])]
    strategy = [{"capacityProvider": name, "weight": weight} for name, weight in zip(names, (3, 1))]
    definition = register(ecs, containers=[container(memory=100)])
    request = json.dumps({"cluster": cluster, "taskDefinition": definition, "count": 8, "capacityProviderStrategy": strategy})
    said = plan(server, "run-task", "--cli-input-json", request)
    done = ecs.run_task(**json.loads(request))
    assert starts(said) == Counter(task["containerInstanceArn"] for task in done["tasks"]) == {first.arn: 2}
    assert sorted(reason["rule"] for reason in said["reasons"]) == sorted({failure["reason"] for failure in done["failures"]})
    assert "EMPTY CAPACITY PROVIDER" in {reason["rule"] for reason in said["reasons"]}
    name = "web"
    ecs.create_service(cluster=cluster, serviceName=name, taskDefinition=definition, desiredCount=0, capacityProviderStrategy=strategy[:1])
    enough = plan(server, "update-service", "--cluster", cluster, "--service", name, "--desired-count", "4", "--add-instances", "2")
    assert enough["fits"] and starts(enough) == {"added 1": 2, "added 2": 2}


def where(ecs, cluster, name):
    tasks = tasks_of(ecs, cluster, serviceName=name)
    return [task["containerInstanceArn"] for task in ecs.describe_tasks(cluster=cluster, tasks=tasks)["tasks"]]


def test_a_machine_that_goes(server, ecs, cluster, agents):
    first, second = agents(cluster), agents(cluster)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=4)
    until_steady(ecs, cluster, "web")
    [other] = run(ecs, cluster, register(ecs), placementConstraints=[{"type": "memberOf", "expression": "not(task:group == other)"}], group="other")
    [described] = ecs.describe_tasks(cluster=cluster, tasks=[other])["tasks"]
    gone, stays = (first, second) if described["containerInstanceArn"] == first.arn else (second, first)
    said = plan(server, "update-service", "--cluster", cluster, "--service", "web", "--remove", gone.arn)
    assert said["fits"] and steps(said) == [(2, 0, 4)] and starts(said) == {stays.arn: 2}
    assert "1 task of others would go" in next(reason["text"] for reason in said["reasons"] if reason["code"] == "OTHERS")
    nowhere = plan(server, "update-service", "--cluster", cluster, "--service", "web", "--remove", gone.arn, "--remove", stays.arn)
    assert not nowhere["fits"] and "no container instance is in the cluster" in [reason["text"] for reason in nowhere["reasons"]]


def test_nothing_is_changed_by_asking(new_berth):
    from fake_agent import FakeAgent

    berth = new_berth("server").start()
    ecs = berth.ecs
    ecs.create_cluster(clusterName="default")
    agent = FakeAgent(berth, "default").join()
    try:
        definition = register(ecs)
        ecs.create_service(serviceName="web", taskDefinition=definition, desiredCount=2)
        until_steady(ecs, "default", "web")
        before = (ecs.describe_services(services=["web"])["services"], tasks_of(ecs, "default"), one_of(berth, "berth_store_commits_total"))
        for arguments in [
            ("run-task", "--task-definition", definition, "--count", "5"),
            ("run-task", "--task-definition", definition, "--cli-input-json", '{"count": 3, "clientToken": "t", "tags": [{"key": "a", "value": "b"}]}'),
            ("update-service", "--service", "web", "--task-definition", register(ecs), "--desired-count", "7"),
            ("update-service", "--service", "web", "--force-new-deployment", "--add-instances", "3"),
            ("update-service", "--service", "web", "--remove", agent.arn),
        ]:
            commits = one_of(berth, "berth_store_commits_total")
            assert plan(berth, *arguments) == plan(berth, *arguments)
            assert one_of(berth, "berth_store_commits_total") == commits, arguments
        after = (ecs.describe_services(services=["web"])["services"], tasks_of(ecs, "default"), one_of(berth, "berth_store_commits_total"))
        assert after[:2] == before[:2] and after[2] == before[2] + 1, "but for the definition that was registered"
    finally:
        agent.leave()


def test_errors_are_those_of_the_request_or_name_the_option(server, ecs, cluster, agents):
    definition = register(ecs)

    def fails(*arguments):
        ended = server.run("plan", *arguments, check=False)
        assert ended.returncode == 1, ended
        return ended.stderr

    here = ("run-task", "--cluster", cluster, "--task-definition", definition)
    assert "No Container Instances were found in your cluster." in fails(*here)
    assert "no container instance that those to add could be like: addInstances" in fails(*here, "--add-instances", "1")
    agents(cluster)
    assert "There is no container instance 'beef' in the cluster: removeInstances" in fails(*here, "--remove", "beef")
    assert "There is no container instance 'nobody' in the cluster: addInstances" in fails(*here, "--add-instances", "1=nobody")
    assert "At most 1000 container instances" in fails(*here, "--add-instances", "1001")
    assert "count must be between 1 and 1000." in fails(*here, "--count", "1001")
    assert "placementConstraints[0].expression is invalid: column 12" in fails(*here, "--placement-constraints", "type=memberOf,expression=attribute:a")
    assert "TaskDefinition not found." in fails("run-task", "--cluster", cluster, "--task-definition", "none-such")
    assert "Cluster not found." in fails("run-task", "--cluster", "none-such", "--task-definition", definition)
    assert "Service not found." in fails("update-service", "--cluster", cluster, "--service", "none-such")
    ecs.create_service(cluster=cluster, serviceName="x", deploymentController={"type": "EXTERNAL"})
    assert "EXTERNAL" in fails("update-service", "--cluster", cluster, "--service", "x")


def test_the_question_itself_is_checked(server):
    for body, code, words in [
        (b"{", "SerializationException", ""),
        (b'{"action": "StopTask", "request": {}}', "InvalidParameterException", "action"),
        (b'{"action": "RunTask"}', "SerializationException", "request"),
        (b'{"action": "RunTask", "request": {}}', "InvalidParameterException", "taskDefinition"),
        (b'{"action": "RunTask", "request": [], "x": 1}', "SerializationException", "x"),
    ]:
        answer = exchange(server.endpoint, "POST", "/plan", signed_headers(server, "POST", f"{server.endpoint}/plan", body), body)
        assert (answer.status, answer.code) == (400, code) and words in answer.message, answer
    unsigned = exchange(server.endpoint, "POST", "/plan", body=b"{}")
    assert unsigned.status in (400, 403) and unsigned.code == "MissingAuthenticationTokenException", unsigned
