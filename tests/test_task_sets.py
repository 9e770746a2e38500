"""Task sets: what a service with an EXTERNAL deployment controller runs, each its share of the desired count."""

import os

import pytest

from berth import until
from containers import hello
from ecs_calls import container, describe, refused, register, service, tasks_of, texts, until_status
from test_capacity_providers import associate, group, item, member


def create(ecs, cluster, count=4, name="web", **members):
    return ecs.create_service(cluster=cluster, serviceName=name, desiredCount=count, deploymentController={"type": "EXTERNAL"}, **members)["service"]


def add(ecs, cluster, percent=None, name="web", **members):
    members.setdefault("taskDefinition", register(ecs))
    if percent is not None:
        members["scale"] = {"value": percent, "unit": "PERCENT"}
    return ecs.create_task_set(cluster=cluster, service=name, **members)["taskSet"]


def shown(ecs, cluster, *ids, name="web", **members):
    answer = ecs.describe_task_sets(cluster=cluster, service=name, **({"taskSets": list(ids)} if ids else {}), **members)
    assert answer["failures"] == [], answer
    return answer["taskSets"]


def until_stable(ecs, cluster, task_set, count, name="web"):
    def look():
        (found,) = shown(ecs, cluster, task_set["id"], name=name)
        is_stable = found["stabilityStatus"] == "STEADY_STATE" and found["computedDesiredCount"] == count
        return found if is_stable and (found["runningCount"], found["pendingCount"]) == (count, 0) else None

    return until(f"task set {task_set['id']} to have {count} tasks", look)


def until_gone(ecs, cluster, task_set, name="web"):
    def look():
        answer = ecs.describe_task_sets(cluster=cluster, service=name, taskSets=[task_set["id"]])
        return answer["failures"] == [{"arn": task_set["taskSetArn"], "reason": "MISSING"}] and not answer["taskSets"]

    until(f"task set {task_set['id']} to be gone", look)


def of(ecs, cluster, task_set):
    return tasks_of(ecs, cluster, startedBy=task_set["id"])


def test_an_external_service_begins_without_anything(ecs, cluster):
    made = create(ecs, cluster, count=2, tags=[{"key": "a", "value": "1"}])
    assert (made["deploymentController"], made["status"], made["desiredCount"]) == ({"type": "EXTERNAL"}, "ACTIVE", 2)
    assert (made["deployments"], made["taskSets"], made["currentServiceRevisions"]) == ([], [], [])
    assert not {"taskDefinition", "launchType", "currentServiceDeployment"} & set(made)
    assert ecs.list_service_deployments(cluster=cluster, service="web")["serviceDeployments"] == []
    assert service(ecs, cluster, "web")["tags"] == [{"key": "a", "value": "1"}]
    bare = ecs.create_service(cluster=cluster, serviceName="bare", deploymentController={"type": "EXTERNAL"})["service"]
    assert bare["desiredCount"] == 0, "the name alone is enough"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"taskDefinition": "web:1"}, "TaskDefinition must be blank."),
        ({"launchType": "EC2"}, "LaunchType must be blank."),
        ({"platformVersion": "LATEST"}, "PlatformVersion must be blank."),
        ({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"]}}}, "NetworkConfiguration must be blank."),
        ({"loadBalancers": [{"targetGroupArn": "a", "containerName": "app", "containerPort": 80}]}, "LoadBalancers must be blank."),
        ({"serviceRegistries": [{"registryArn": "a"}]}, "ServiceRegistries must be blank."),
        ({"capacityProviderStrategy": [{"capacityProvider": "a"}]}, "CapacityProviderStrategy must be blank."),
    ],
)
def test_what_task_sets_name_is_not_for_their_service(ecs, cluster, members, words):
    with refused("InvalidParameterException", words):
        create(ecs, cluster, **members)
    assert ecs.list_services(cluster=cluster)["serviceArns"] == []


def test_a_task_set_runs_its_share_rounded_up(ecs, cluster, agents):
    agents(cluster)
    create(ecs, cluster, count=5)
    definition = register(ecs)
    made = add(ecs, cluster, 50, taskDefinition=definition, externalId="blue", tags=[{"key": "side", "value": "blue"}])
    assert made["id"].startswith("ecs-svc/") and made["id"][8:].isdigit()
    assert made["taskSetArn"] == f"arn:aws:ecs:us-east-1:000000000000:task-set/{cluster}/web/{made['id']}"
    assert (made["serviceArn"], made["clusterArn"]) == tuple(service(ecs, cluster, "web")[name] for name in ("serviceArn", "clusterArn"))
    assert (made["status"], made["taskDefinition"], made["externalId"], made["launchType"]) == ("ACTIVE", definition, "blue", "EC2")
    assert (made["computedDesiredCount"], made["runningCount"], made["pendingCount"]) == (3, 0, 0)
    assert (made["scale"], made["stabilityStatus"]) == ({"value": 50.0, "unit": "PERCENT"}, "STABILIZING")
    assert made["tags"] == [{"key": "side", "value": "blue"}] and made["createdAt"] == made["updatedAt"] == made["stabilityStatusAt"]
    assert "startedBy" not in made
    found = until_stable(ecs, cluster, made, 3)
    assert found["stabilityStatusAt"] > made["stabilityStatusAt"] and found["tags"] == []
    arns = of(ecs, cluster, made)
    assert len(arns) == 3
    for arn in arns:
        task = describe(ecs, cluster, arn)
        assert (task["startedBy"], task["group"], task["taskDefinitionArn"]) == (made["id"], "service:web", definition)
    whole = service(ecs, cluster, "web")
    assert (whole["runningCount"], whole["taskSets"][0]["id"], whole["deployments"]) == (3, made["id"], [])
    said = texts(whole)
    assert f"(service web, taskSet {made['id']}) has reached a steady state." in said
    assert any(text.startswith(f"(service web, taskSet {made['id']}) has started ") for text in said)


def test_what_dies_is_replaced_in_its_own_task_set(ecs, cluster, agents):
    agent = agents(cluster)
    create(ecs, cluster, count=2)
    blue, green = add(ecs, cluster), add(ecs, cluster, 50)
    assert blue["scale"] == {"value": 100.0, "unit": "PERCENT"}, "all unless told otherwise"
    until_stable(ecs, cluster, blue, 2)
    until_stable(ecs, cluster, green, 1)
    (doomed,) = of(ecs, cluster, green)
    agent.report(doomed, "STOPPED", exit_code=1)
    until("a replacement", lambda: (now := of(ecs, cluster, green)) and doomed not in now)
    until_stable(ecs, cluster, green, 1)
    assert len(of(ecs, cluster, blue)) == 2


def test_scaling_a_task_set_and_its_service(ecs, cluster, agents):
    agents(cluster)
    create(ecs, cluster, count=4)
    blue, green = add(ecs, cluster, 100), add(ecs, cluster, 0)
    until_stable(ecs, cluster, blue, 4)
    until_stable(ecs, cluster, green, 0)
    changed = ecs.update_task_set(cluster=cluster, service="web", taskSet=green["taskSetArn"], scale={"value": 25.0, "unit": "PERCENT"})["taskSet"]
    assert (changed["computedDesiredCount"], changed["stabilityStatus"], changed["scale"]["value"]) == (1, "STABILIZING", 25.0)
    assert changed["updatedAt"] > green["updatedAt"]
    until_stable(ecs, cluster, green, 1)
    ecs.update_task_set(cluster=cluster, service="web", taskSet=blue["id"], scale={"value": 12.5, "unit": "PERCENT"})
    until_stable(ecs, cluster, blue, 1)
    until("three tasks to stop", lambda: len(of(ecs, cluster, blue)) == 1)
    stopped = [describe(ecs, cluster, arn) for arn in tasks_of(ecs, cluster, serviceName="web", desiredStatus="STOPPED")]
    assert {task["stoppedReason"] for task in stopped} == {f"Scaling activity initiated by (deployment {blue['id']})"}
    whole = ecs.update_service(cluster=cluster, service="web", desiredCount=8)["service"]
    assert [one["computedDesiredCount"] for one in whole["taskSets"]] == [1, 2]
    assert [one["stabilityStatus"] for one in whole["taskSets"]] == ["STABILIZING", "STABILIZING"]
    until_stable(ecs, cluster, green, 2)
    until_stable(ecs, cluster, blue, 1)
    assert ecs.list_service_deployments(cluster=cluster, service="web")["serviceDeployments"] == [], "a task set is no service deployment"


def test_the_primary_task_set_is_what_the_service_shows(ecs, cluster, agents):
    agents(cluster)
    create(ecs, cluster, count=1)
    blue, green = add(ecs, cluster), add(ecs, cluster, launchType="EC2")
    for first, second in ((blue, green), (green, blue)):
        made = ecs.update_service_primary_task_set(cluster=cluster, service="web", primaryTaskSet=first["id"])["taskSet"]
        assert (made["id"], made["status"]) == (first["id"], "PRIMARY")
        whole = service(ecs, cluster, "web")
        assert {one["id"]: one["status"] for one in whole["taskSets"]} == {first["id"]: "PRIMARY", second["id"]: "ACTIVE"}
        assert (whole["taskDefinition"], whole["launchType"]) == (first["taskDefinition"], "EC2")
    with refused("TaskSetNotFoundException"):
        ecs.update_service_primary_task_set(cluster=cluster, service="web", primaryTaskSet="ecs-svc/1")


def test_deleting_a_task_set_stops_its_tasks(ecs, cluster, agents):
    agent = agents(cluster)
    create(ecs, cluster, count=2)
    blue, green = add(ecs, cluster), add(ecs, cluster)
    until_stable(ecs, cluster, blue, 2)
    until_stable(ecs, cluster, green, 2)
    with refused("InvalidParameterException", "taskSet", "scaled above 0"):
        ecs.delete_task_set(cluster=cluster, service="web", taskSet=blue["id"])
    ecs.update_task_set(cluster=cluster, service="web", taskSet=blue["id"], scale={"value": 0, "unit": "PERCENT"})
    until_stable(ecs, cluster, blue, 0)
    gone = ecs.delete_task_set(cluster=cluster, service="web", taskSet=blue["id"])["taskSet"]
    assert (gone["status"], gone["computedDesiredCount"]) == ("DRAINING", 0)
    until_gone(ecs, cluster, blue)
    ecs.update_service_primary_task_set(cluster=cluster, service="web", primaryTaskSet=green["id"])
    ecs.update_service(cluster=cluster, service="web", desiredCount=0)
    until_stable(ecs, cluster, green, 0)
    with refused("InvalidParameterException", "taskSet", "PRIMARY"):
        ecs.delete_task_set(cluster=cluster, service="web", taskSet=green["id"])
    ecs.update_service(cluster=cluster, service="web", desiredCount=2)
    until_stable(ecs, cluster, green, 2)
    agent.stops = False
    gone = ecs.delete_task_set(cluster=cluster, service="web", taskSet=green["taskSetArn"], force=True)["taskSet"]
    assert (gone["status"], gone["stabilityStatus"]) == ("DRAINING", "STABILIZING")
    told = {"startedBy": green["id"], "desiredStatus": "STOPPED"}
    tasks = until("both to be told, after the first two", lambda: len(found := tasks_of(ecs, cluster, **told)) == 4 and found)
    assert shown(ecs, cluster, green["id"])[0]["status"] == "DRAINING"
    again = ecs.delete_task_set(cluster=cluster, service="web", taskSet=green["id"])["taskSet"]
    assert again["status"] == "DRAINING", "twice is no error"
    for call in (
        lambda: ecs.update_task_set(cluster=cluster, service="web", taskSet=green["id"], scale={"value": 1, "unit": "PERCENT"}),
        lambda: ecs.update_service_primary_task_set(cluster=cluster, service="web", primaryTaskSet=green["id"]),
    ):
        with refused("InvalidParameterException", "DRAINING"):
            call()
    for arn in tasks:
        agent.report(arn, "STOPPED", exit_code=0)
    until_gone(ecs, cluster, green)
    with refused("TaskSetNotFoundException"):
        ecs.delete_task_set(cluster=cluster, service="web", taskSet=green["id"], force=True)


def test_deleting_the_service_ends_its_task_sets(ecs, cluster, agents):
    agents(cluster)
    create(ecs, cluster, count=1)
    blue = add(ecs, cluster)
    until_stable(ecs, cluster, blue, 1)
    ecs.update_service(cluster=cluster, service="web", desiredCount=0)
    until_stable(ecs, cluster, blue, 0)
    with refused("InvalidParameterException", "deployments are active"):
        ecs.delete_service(cluster=cluster, service="web")
    ecs.update_service(cluster=cluster, service="web", desiredCount=1)
    until_stable(ecs, cluster, blue, 1)
    (task,) = of(ecs, cluster, blue)
    assert ecs.delete_service(cluster=cluster, service="web", force=True)["service"]["status"] == "DRAINING"
    until("the service to be gone", lambda: service(ecs, cluster, "web")["status"] == "INACTIVE")
    assert describe(ecs, cluster, task)["lastStatus"] == "STOPPED"
    for call in (
        lambda: ecs.describe_task_sets(cluster=cluster, service="web"),
        lambda: add(ecs, cluster),
        lambda: ecs.update_task_set(cluster=cluster, service="web", taskSet=blue["id"], scale={"value": 1, "unit": "PERCENT"}),
        lambda: ecs.delete_task_set(cluster=cluster, service="web", taskSet=blue["id"]),
        lambda: ecs.update_service_primary_task_set(cluster=cluster, service="web", primaryTaskSet=blue["id"]),
    ):
        with refused("ServiceNotActiveException"):
            call()
    again = create(ecs, cluster, count=0)
    assert again["taskSets"] == []
    ecs.delete_service(cluster=cluster, service="web")
    until("an empty one to be gone", lambda: service(ecs, cluster, "web")["status"] == "INACTIVE")


def test_a_service_has_five_task_sets_at_most(ecs, cluster):
    create(ecs, cluster, count=0)
    definition = register(ecs)
    sets = [add(ecs, cluster, taskDefinition=definition) for _ in range(5)]
    with refused("InvalidParameterException", "5 deployments exist on the service. Unable to create new TaskSet since this exceeds the maximum limit."):
        add(ecs, cluster, taskDefinition=definition)
    assert [one["id"] for one in shown(ecs, cluster)] == [one["id"] for one in sets]
    ecs.delete_task_set(cluster=cluster, service="web", taskSet=sets[0]["id"])
    until_gone(ecs, cluster, sets[0])
    add(ecs, cluster, taskDefinition=definition)


def test_a_client_token_makes_one_task_set(ecs, cluster):
    create(ecs, cluster, count=0)
    definition = register(ecs)
    made = add(ecs, cluster, 10, taskDefinition=definition, clientToken="once")
    ecs.update_task_set(cluster=cluster, service="web", taskSet=made["id"], scale={"value": 20, "unit": "PERCENT"})
    assert add(ecs, cluster, 10, taskDefinition=definition, clientToken="once")["id"] == made["id"]
    with refused("InvalidParameterException", "clientToken"):
        add(ecs, cluster, 30, taskDefinition=definition, clientToken="once")
    assert len(shown(ecs, cluster)) == 1
    for token in ("x" * 37, "a b", "ä"):
        with refused("InvalidParameterException", "clientToken"):
            add(ecs, cluster, taskDefinition=definition, clientToken=token)


def test_task_sets_are_described_by_id_and_arn(ecs, cluster):
    create(ecs, cluster, count=0)
    blue, green = add(ecs, cluster, tags=[{"key": "a", "value": "1"}]), add(ecs, cluster)
    by_arn = service(ecs, cluster, "web")["serviceArn"]
    assert [one["id"] for one in shown(ecs, cluster, name=by_arn)] == [blue["id"], green["id"]]
    assert [one["id"] for one in shown(ecs, cluster, green["taskSetArn"], blue["id"])] == [green["id"], blue["id"]]
    assert shown(ecs, cluster, blue["id"], include=["TAGS"])[0]["tags"] == [{"key": "a", "value": "1"}]
    answer = ecs.describe_task_sets(cluster=cluster, service="web", taskSets=["ecs-svc/1", blue["id"]])
    assert answer["failures"] == [{"arn": f"arn:aws:ecs:us-east-1:000000000000:task-set/{cluster}/web/ecs-svc/1", "reason": "MISSING"}]
    assert [one["id"] for one in answer["taskSets"]] == [blue["id"]]
    for wrong in ("blue", "ecs-svc/x", blue["taskSetArn"].replace("/web/", "/other/"), blue["taskSetArn"].replace("us-east-1", "eu-west-1")):
        with refused("InvalidParameterException"):
            ecs.describe_task_sets(cluster=cluster, service="web", taskSets=[wrong])
    with refused("InvalidParameterException", "taskSets"):
        ecs.describe_task_sets(cluster=cluster, service="web", taskSets=["ecs-svc/1"] * 101)


def test_a_task_sets_tags_are_its_own(ecs, cluster):
    create(ecs, cluster, count=0, tags=[{"key": "of", "value": "service"}])
    blue, green = add(ecs, cluster, tags=[{"key": "of", "value": "blue"}])["taskSetArn"], add(ecs, cluster)["taskSetArn"]
    ecs.tag_resource(resourceArn=blue, tags=[{"key": "more", "value": "1"}])
    ecs.tag_resource(resourceArn=green, tags=[{"key": "g", "value": "1"}])
    ecs.untag_resource(resourceArn=blue, tagKeys=["of"])
    assert ecs.list_tags_for_resource(resourceArn=blue)["tags"] == [{"key": "more", "value": "1"}]
    assert ecs.list_tags_for_resource(resourceArn=green)["tags"] == [{"key": "g", "value": "1"}]
    assert service(ecs, cluster, "web")["tags"] == [{"key": "of", "value": "service"}]
    nobody = blue.rsplit("/", 1)[0] + "/1"
    with refused("ResourceNotFoundException"):
        ecs.tag_resource(resourceArn=nobody, tags=[{"key": "a", "value": "1"}])
    with refused("InvalidParameterException"):
        ecs.list_tags_for_resource(resourceArn=nobody)
    with refused("LimitExceededException", "50"):
        ecs.tag_resource(resourceArn=blue, tags=[{"key": f"k{n}", "value": ""} for n in range(50)])


@pytest.mark.parametrize(
    ("code", "members", "words"),
    [
        ("InvalidParameterException", {"scale": {"value": 100.5, "unit": "PERCENT"}}, ["scale.value"]),
        ("InvalidParameterException", {"scale": {"value": -1, "unit": "PERCENT"}}, ["scale.value"]),
        ("InvalidParameterException", {"scale": {"value": 1, "unit": "TASKS"}}, ["unit"]),
        ("InvalidParameterException", {"launchType": "FARGATE"}, ["launch_type FARGATE"]),
        ("InvalidParameterException", {"externalId": "x" * 256}, ["externalId"]),
        ("InvalidParameterException", {"tags": [{"key": "aws:x", "value": ""}]}, ["aws:"]),
        ("ClientException", {"taskDefinition": "none-such"}, ["not found"]),
        ("ClientException", {"taskDefinition": ""}, ["blank"]),
        ("ServiceNotFoundException", {"service": "nobody"}, []),
        ("ClusterNotFoundException", {"cluster": "nobody"}, []),
        ("InvalidParameterException", {"platformVersion": "LATEST"}, ["platform version must be null"]),
        ("UnsupportedFeatureException", {"loadBalancers": [{"targetGroupArn": "a"}]}, ["loadBalancers"]),
    ],
)
def test_bad_task_sets_are_refused_and_change_nothing(ecs, cluster, code, members, words):
    create(ecs, cluster, count=1)
    with refused(code, *words):
        ecs.create_task_set(**{"cluster": cluster, "service": "web", "taskDefinition": register(ecs), **members})
    assert shown(ecs, cluster) == []


def test_only_external_services_have_task_sets(ecs, cluster):
    definition = register(ecs)
    ecs.create_service(cluster=cluster, serviceName="own", taskDefinition=definition, desiredCount=0)
    only = "Amazon ECS only supports task set management on services configured to use external deployment controllers."
    for call in (
        lambda: add(ecs, cluster, name="own"),
        lambda: ecs.describe_task_sets(cluster=cluster, service="own"),
        lambda: ecs.update_task_set(cluster=cluster, service="own", taskSet="ecs-svc/1", scale={"value": 1, "unit": "PERCENT"}),
        lambda: ecs.delete_task_set(cluster=cluster, service="own", taskSet="ecs-svc/1"),
        lambda: ecs.update_service_primary_task_set(cluster=cluster, service="own", primaryTaskSet="ecs-svc/1"),
    ):
        with refused("InvalidParameterException", only):
            call()
    create(ecs, cluster, count=0)
    with refused("InvalidParameterException", "scale"):
        ecs.update_task_set(cluster=cluster, service="web", taskSet="ecs-svc/1", scale={"unit": "PERCENT"})
    with refused("TaskSetNotFoundException"):
        ecs.update_task_set(cluster=cluster, service="web", taskSet="ecs-svc/1", scale={"value": 1, "unit": "PERCENT"})
    for member, value in (("taskDefinition", definition), ("forceNewDeployment", True), ("deploymentConfiguration", {"maximumPercent": 150})):
        with refused("InvalidParameterException", member):
            ecs.update_service(cluster=cluster, service="web", **{member: value})
    with refused("UnsupportedFeatureException", "deploymentController"):
        ecs.update_service(cluster=cluster, service="web", deploymentController={"type": "ECS"})


def test_a_task_set_without_room_says_so_and_goes_on_when_there_is_some(ecs, cluster, agents):
    create(ecs, cluster, count=1)
    blue = add(ecs, cluster)
    until("a word about it", lambda: any(f"taskSet {blue['id']}) was unable to place a task" in text for text in texts(service(ecs, cluster, "web"))))
    assert shown(ecs, cluster)[0]["stabilityStatus"] == "STABILIZING"
    agents(cluster)
    until_stable(ecs, cluster, blue, 1)


def test_an_unhealthy_task_set_is_not_stable(ecs, cluster, agents):
    agent = agents(cluster, runs=False)
    create(ecs, cluster, count=1)
    blue = add(ecs, cluster, taskDefinition=register(ecs, containers=[container(healthCheck={"command": ["CMD", "true"]})]))
    (task,) = until("a task", lambda: of(ecs, cluster, blue))
    agent.wait_for_task(task, "RUNNING")
    agent.report(task, "RUNNING")
    until_status(ecs, cluster, task, "RUNNING")
    until("it to count", lambda: shown(ecs, cluster)[0]["runningCount"] == 1)
    assert shown(ecs, cluster)[0]["stabilityStatus"] == "STABILIZING", "its check has not succeeded yet"
    assert not any("steady state" in text for text in texts(service(ecs, cluster, "web")))


def test_a_restart_keeps_task_sets(new_berth):
    berth = new_berth("server")
    berth.start()
    ecs = berth.ecs
    ecs.create_cluster(clusterName="c")
    create(ecs, "c", count=3)
    made = add(ecs, "c", 33.333333, externalId="blue", tags=[{"key": "a", "value": "1"}])
    ecs.update_service_primary_task_set(cluster="c", service="web", primaryTaskSet=made["id"])
    before = shown(ecs, "c", include=["TAGS"])
    berth.kill()
    berth.start()
    assert shown(berth.ecs, "c", include=["TAGS"]) == before
    assert (before[0]["scale"]["value"], before[0]["computedDesiredCount"], before[0]["status"]) == (33.333333, 1, "PRIMARY")


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED (needs root): real containers need namespaces, mounts and cgroups")
def test_blue_and_green_with_real_containers(up):
    ecs = up.ecs
    create(ecs, "default", count=2, name="real")
    blue = add(ecs, "default", name="real", taskDefinition=register(ecs, containers=[hello(ports=())]))
    until_stable(ecs, "default", blue, 2, name="real")
    ecs.update_service_primary_task_set(cluster="default", service="real", primaryTaskSet=blue["id"])
    green = add(ecs, "default", 50, name="real", taskDefinition=register(ecs, containers=[hello(ports=())]))
    until_stable(ecs, "default", green, 1, name="real")
    ecs.update_task_set(cluster="default", service="real", taskSet=green["id"], scale={"value": 100, "unit": "PERCENT"})
    until_stable(ecs, "default", green, 2, name="real")
    ecs.update_service_primary_task_set(cluster="default", service="real", primaryTaskSet=green["id"])
    old = of(ecs, "default", blue)
    ecs.delete_task_set(cluster="default", service="real", taskSet=blue["id"], force=True)
    until_gone(ecs, "default", blue, name="real")
    assert [describe(ecs, "default", arn)["lastStatus"] for arn in old] == ["STOPPED", "STOPPED"]
    assert service(ecs, "default", "real")["taskDefinition"] == green["taskDefinition"]
    ecs.delete_service(cluster="default", service="real", force=True)
    until("the service to be gone", lambda: service(ecs, "default", "real")["status"] == "INACTIVE")


def test_a_task_set_follows_a_capacity_provider_strategy(ecs, cluster, agents):
    main, spare = group(ecs), group(ecs)
    associate(ecs, cluster, main, spare)
    of_main, of_spare = member(agents, cluster, main), member(agents, cluster, spare)
    create(ecs, cluster, count=8)
    strategy = [item(main, weight=1, base=2), item(spare, weight=1)]
    made = add(ecs, cluster, capacityProviderStrategy=strategy)
    assert made["capacityProviderStrategy"] == strategy and "launchType" not in made
    found = until_stable(ecs, cluster, made, 8)
    assert found["capacityProviderStrategy"] == strategy and "launchType" not in found
    tasks = [describe(ecs, cluster, arn) for arn in of(ecs, cluster, made)]
    where = [(task["capacityProviderName"], task["containerInstanceArn"]) for task in tasks]
    assert where.count((main, of_main.arn)) == 5 and where.count((spare, of_spare.arn)) == 3
    ecs.update_service_primary_task_set(cluster=cluster, service="web", primaryTaskSet=made["id"])
    assert "launchType" not in service(ecs, cluster, "web")

    # What it uses stays with the cluster.
    with refused("ResourceInUseException", "in use"):
        associate(ecs, cluster, main)
    with refused("InvalidParameterException", "Specifying both a launch type and capacity provider strategy is not supported."):
        add(ecs, cluster, launchType="EC2", capacityProviderStrategy=strategy)
    with refused("InvalidParameterException", "not associated with the cluster"):
        add(ecs, cluster, capacityProviderStrategy=[item(group(ecs), weight=1)])
    assert [one["id"] for one in shown(ecs, cluster)] == [made["id"]]


def test_a_task_set_without_launch_type_takes_the_clusters_default_strategy(ecs, cluster, agents):
    name = group(ecs)
    associate(ecs, cluster, name, default=[item(name, weight=1)])
    member(agents, cluster, name)
    create(ecs, cluster, count=1)
    made = add(ecs, cluster)
    assert made["capacityProviderStrategy"] == [item(name, weight=1)]
    until_stable(ecs, cluster, made, 1)
    [arn] = of(ecs, cluster, made)
    assert describe(ecs, cluster, arn)["capacityProviderName"] == name
