"""Services with fake agents: the desired count is kept, events say why, deletion frees the name."""

import pytest

from berth import unique, until
from ecs_calls import container, describe, refused, register, run, service, tasks_of, texts, until_steady, until_status

QUICK = {"Delay": 1, "MaxAttempts": 60}


def create(ecs, cluster, count=2, definition=None, name="web", **members):
    answer = ecs.create_service(
        cluster=cluster, serviceName=name, taskDefinition=definition or register(ecs), desiredCount=count, **members
    )
    return answer["service"]


def test_a_new_service_has_ecs_defaults_and_a_primary_deployment(ecs, cluster):
    made = create(ecs, cluster, count=0, tags=[{"key": "a", "value": "1"}])
    assert made["serviceArn"] == f"arn:aws:ecs:us-east-1:000000000000:service/{cluster}/web"
    assert (made["status"], made["desiredCount"], made["launchType"], made["schedulingStrategy"]) == ("ACTIVE", 0, "EC2", "REPLICA")
    assert made["deploymentController"] == {"type": "ECS"}
    configuration = made["deploymentConfiguration"]
    assert (configuration["maximumPercent"], configuration["minimumHealthyPercent"]) == (200, 100)
    assert configuration["deploymentCircuitBreaker"] == {"enable": False, "rollback": False}
    assert made["availabilityZoneRebalancing"] == "ENABLED"
    assert (made["loadBalancers"], made["serviceRegistries"], made["placementStrategy"], made["placementConstraints"]) == ([], [], [], [])
    assert made["tags"] == [{"key": "a", "value": "1"}]
    assert (made["propagateTags"], made["enableECSManagedTags"], made["enableExecuteCommand"]) == ("NONE", False, False)
    assert made["createdBy"] == "arn:aws:iam::000000000000:root"
    (deployment,) = made["deployments"]
    assert deployment["status"] == "PRIMARY"
    assert deployment["id"].startswith("ecs-svc/") and deployment["id"][8:].isdigit()
    assert deployment["rolloutState"] == "IN_PROGRESS"
    assert deployment["rolloutStateReason"] == f"ECS deployment {deployment['id']} in progress."


def test_a_service_reaches_its_count_and_says_so(ecs, cluster, agents):
    agents(cluster)
    made = create(ecs, cluster, count=3)
    ecs.get_waiter("services_stable").wait(cluster=cluster, services=["web"], WaiterConfig=QUICK)
    found = until_steady(ecs, cluster, "web")
    (deployment,) = found["deployments"]
    assert (found["runningCount"], found["pendingCount"], deployment["runningCount"]) == (3, 0, 3)
    assert deployment["rolloutState"] == "COMPLETED"
    assert deployment["rolloutStateReason"] == f"ECS deployment {deployment['id']} completed."
    assert deployment["id"] == made["deployments"][0]["id"]
    arns = tasks_of(ecs, cluster, serviceName="web")
    for arn in arns:
        task = describe(ecs, cluster, arn)
        assert (task["group"], task["startedBy"], task["lastStatus"]) == ("service:web", deployment["id"], "RUNNING")
    said = texts(found)
    assert said[0] == "(service web) has reached a steady state."
    assert f"(service web) (deployment {deployment['id']}) deployment completed." in said
    started = [text for text in said if "has started" in text]
    assert sum(text.count("(task ") for text in started) == 3
    for arn in arns:
        assert any(f"(task {arn.rsplit('/', 1)[1]})" in text for text in started)
    assert started[-1].startswith("(service web) has started ") and " tasks: (task " in started[-1] and started[-1].endswith(").")
    assert [event["createdAt"] for event in found["events"]] == sorted((e["createdAt"] for e in found["events"]), reverse=True)
    assert len({event["id"] for event in found["events"]}) == len(found["events"])


def test_a_task_that_ends_by_itself_or_is_stopped_is_replaced(ecs, cluster, agents):
    agent = agents(cluster)
    create(ecs, cluster, count=2)
    until_steady(ecs, cluster, "web")
    before = set(tasks_of(ecs, cluster, serviceName="web"))
    one, other = before
    agent.report(one, "STOPPED", exit_code=1)
    until("a replacement", lambda: len(set(tasks_of(ecs, cluster, serviceName="web")) - before) == 1)
    until_steady(ecs, cluster, "web")
    assert describe(ecs, cluster, one)["stopCode"] == "EssentialContainerExited"
    ecs.stop_task(cluster=cluster, task=other)
    until("another replacement", lambda: len(set(tasks_of(ecs, cluster, serviceName="web")) - before) == 2)
    found = until_steady(ecs, cluster, "web")
    assert found["deployments"][0]["rolloutState"] == "COMPLETED"


def test_scaling_up_and_down_makes_no_deployment(ecs, cluster, agents):
    agents(cluster)
    deployment = create(ecs, cluster, count=1)["deployments"][0]["id"]
    until_steady(ecs, cluster, "web")
    first = tasks_of(ecs, cluster, serviceName="web")
    ecs.update_service(cluster=cluster, service="web", desiredCount=5)
    found = until_steady(ecs, cluster, "web")
    assert found["runningCount"] == 5
    assert set(first) < set(tasks_of(ecs, cluster, serviceName="web"))
    ecs.update_service(cluster=cluster, service="web", desiredCount=2)
    found = until_steady(ecs, cluster, "web")
    until("the surplus to stop", lambda: len(tasks_of(ecs, cluster, serviceName="web")) == 2)
    assert [d["id"] for d in found["deployments"]] == [deployment]
    stopped = [describe(ecs, cluster, arn) for arn in tasks_of(ecs, cluster, serviceName="web", desiredStatus="STOPPED")]
    assert len(stopped) == 3
    for task in stopped:
        assert task["stopCode"] == "ServiceSchedulerInitiated"
        assert task["stoppedReason"] == f"Scaling activity initiated by (deployment {deployment})"
    assert any("has stopped 3 running tasks: (task " in text for text in texts(service(ecs, cluster, "web")))


def test_scaling_in_stops_where_most_tasks_are(ecs, cluster, agents):
    first = agents(cluster)
    create(ecs, cluster, count=2)
    until_steady(ecs, cluster, "web")
    second = agents(cluster)
    ecs.update_service(cluster=cluster, service="web", desiredCount=4)
    until_steady(ecs, cluster, "web")

    def places():
        found = [describe(ecs, cluster, arn)["containerInstanceArn"] for arn in tasks_of(ecs, cluster, serviceName="web")]
        return sorted(found.count(agent.arn) for agent in (first, second))

    assert places() == [2, 2]
    ecs.update_service(cluster=cluster, service="web", desiredCount=2)
    until_steady(ecs, cluster, "web")
    until("two tasks", lambda: sum(places()) == 2)
    assert places() == [1, 1]


def test_an_absent_desired_count_keeps_the_count_and_zero_is_a_count(ecs, cluster, agents):
    agents(cluster)
    create(ecs, cluster, count=2)
    assert ecs.update_service(cluster=cluster, service="web", healthCheckGracePeriodSeconds=7)["service"]["desiredCount"] == 2
    found = ecs.update_service(cluster=cluster, service="web", desiredCount=0)["service"]
    assert (found["desiredCount"], found["healthCheckGracePeriodSeconds"]) == (0, 7)
    until("no task", lambda: service(ecs, cluster, "web")["runningCount"] == 0)


def test_a_service_without_room_says_why_once_and_starts_when_there_is_room(ecs, cluster, agents):
    small = agents(cluster, cpu=5)
    create(ecs, cluster, count=1)
    wanted = "was unable to place a task because no container instance met all of its requirements."

    def said():
        return [text for text in texts(service(ecs, cluster, "web")) if wanted in text]

    (text,) = until("the event", said)
    assert small.arn.rsplit("/", 1)[1] in text and "has insufficient CPU units available" in text
    ecs.update_service(cluster=cluster, service="web", desiredCount=2)
    until("the new count", lambda: service(ecs, cluster, "web")["desiredCount"] == 2)
    assert len(said()) == 1
    agents(cluster)
    assert until_steady(ecs, cluster, "web")["runningCount"] == 2


def test_a_service_in_a_cluster_without_instances_says_so(ecs, cluster):
    create(ecs, cluster, count=1)
    until("the event", lambda: any("No Container Instances were found in your cluster" in t for t in texts(service(ecs, cluster, "web"))))


def test_tasks_that_never_start_are_throttled_and_the_service_says_so(ecs, cluster, agents):
    agent = agents(cluster, runs=False)
    create(ecs, cluster, count=1)
    failed = set()

    def fail_whatever_comes():
        for arn in tasks_of(ecs, cluster, serviceName="web"):
            if arn not in failed:
                agent.wait_for_task(arn, "RUNNING")
                agent.report(arn, "STOPPED", containers=[{"containerName": "app", "status": "STOPPED", "reason": "CannotPullContainerError: no"}])
                failed.add(arn)
        return any("is unable to consistently start tasks successfully." in text for text in texts(service(ecs, cluster, "web")))

    until("the event", fail_whatever_comes)
    assert 3 <= len(failed) <= 5
    assert service(ecs, cluster, "web")["deployments"][0]["failedTasks"] == len(failed)
    # A new definition resets the throttle at once.
    agent.runs = True
    ecs.update_service(cluster=cluster, service="web", taskDefinition=register(ecs))
    until_steady(ecs, cluster, "web")


def test_deleting_needs_count_zero_or_force(ecs, cluster, agents):
    agents(cluster)
    create(ecs, cluster, count=1)
    until_steady(ecs, cluster, "web")
    with refused("InvalidParameterException", "scaled above 0"):
        ecs.delete_service(cluster=cluster, service="web")
    gone = ecs.delete_service(cluster=cluster, service="web", force=True)["service"]
    assert (gone["status"], gone["desiredCount"]) == ("DRAINING", 0)
    assert ecs.list_services(cluster=cluster)["serviceArns"] == []
    ecs.get_waiter("services_inactive").wait(cluster=cluster, services=["web"], WaiterConfig=QUICK)
    assert tasks_of(ecs, cluster) == []


def test_a_draining_service_is_not_active_and_its_name_is_not_free(ecs, cluster, agents):
    agent = agents(cluster, stops=False)
    create(ecs, cluster, count=1)
    until_steady(ecs, cluster, "web")
    (arn,) = tasks_of(ecs, cluster, serviceName="web")
    ecs.delete_service(cluster=cluster, service="web", force=True)
    agent.wait_for_task(arn, "STOPPED")
    with refused("ServiceNotActiveException"):
        ecs.update_service(cluster=cluster, service="web", desiredCount=1)
    with refused("InvalidParameterException", "Draining"):
        create(ecs, cluster, count=1)
    assert ecs.delete_service(cluster=cluster, service="web")["service"]["status"] == "DRAINING"
    agent.report(arn, "STOPPED", exit_code=0)
    until("INACTIVE", lambda: service(ecs, cluster, "web")["status"] == "INACTIVE")


def test_a_name_is_free_again_once_inactive_and_the_new_service_starts_clean(ecs, cluster, agents):
    agents(cluster)
    create(ecs, cluster, count=1)
    until_steady(ecs, cluster, "web")
    ecs.delete_service(cluster=cluster, service="web", force=True)
    until("INACTIVE", lambda: service(ecs, cluster, "web")["status"] == "INACTIVE")
    with refused("ServiceNotFoundException"):
        ecs.delete_service(cluster=cluster, service="web")
    made = create(ecs, cluster, count=0)
    assert (made["status"], made["desiredCount"], made["events"]) == ("ACTIVE", 0, [])


def test_creating_a_service_twice_is_refused_unless_the_token_is_the_same(ecs, cluster):
    definition = register(ecs)
    first = create(ecs, cluster, count=0, definition=definition, clientToken="t1")
    again = create(ecs, cluster, count=0, definition=definition, clientToken="t1")
    assert again["createdAt"] == first["createdAt"]
    for token in ({"clientToken": "t2"}, {}):
        with refused("InvalidParameterException", "not idempotent"):
            create(ecs, cluster, count=0, definition=definition, **token)


def test_unknown_services_are_missing_or_not_found(ecs, cluster):
    answer = ecs.describe_services(cluster=cluster, services=["ghost"])
    assert answer["failures"] == [{"arn": f"arn:aws:ecs:us-east-1:000000000000:service/{cluster}/ghost", "reason": "MISSING"}]
    with refused("ServiceNotFoundException", "Service not found."):
        ecs.update_service(cluster=cluster, service="ghost", desiredCount=1)
    with refused("ServiceNotFoundException", "Service not found."):
        ecs.delete_service(cluster=cluster, service="ghost")


def test_services_are_found_by_name_short_arn_and_long_arn(ecs, cluster):
    long = create(ecs, cluster, count=0)["serviceArn"]
    short = "arn:aws:ecs:us-east-1:000000000000:service/web"
    answer = ecs.describe_services(cluster=cluster, services=["web", short, long])
    assert [found["serviceArn"] for found in answer["services"]] == [long] * 3
    with refused("InvalidParameterException"):
        ecs.describe_services(cluster=cluster, services=["arn:aws:ecs:us-east-1:000000000000:service/other/web"])


def test_describe_services_takes_one_to_ten(ecs, cluster):
    with refused("InvalidParameterException", "empty"):
        ecs.describe_services(cluster=cluster, services=[])
    with refused("InvalidParameterException", "10"):
        ecs.describe_services(cluster=cluster, services=["a"] * 11)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 256])
def test_bad_service_names_are_refused(ecs, cluster, name):
    with refused("InvalidParameterException", "serviceName"):
        create(ecs, cluster, count=0, name=name)


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"desiredCount": -1}, "desiredCount"),
        ({"desiredCount": 5001}, "desiredCount"),
        ({"deploymentConfiguration": {"maximumPercent": 99}}, "maximumPercent"),
        ({"deploymentConfiguration": {"minimumHealthyPercent": 101}}, "minimumHealthyPercent"),
        ({"deploymentConfiguration": {"minimumHealthyPercent": -1}}, "minimumHealthyPercent"),
        ({"placementStrategy": [{"type": "random"}] * 6}, "placementStrategy"),
        ({"deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": True, "rollback": True, "thresholdConfiguration": {"type": "COUNT", "value": 0}}}}, "thresholdConfiguration.value"),
        ({"deploymentConfiguration": {"deploymentCircuitBreaker": {"enable": True, "rollback": True, "thresholdConfiguration": {"type": "BOUNDED_PERCENT", "value": 101}}}}, "thresholdConfiguration.value"),
        ({"deploymentConfiguration": {"earlySuccessCriteria": {"enable": True, "healthyPercent": 99, "sourceServiceRevisionCleanup": "BLOCKING"}}}, "healthyPercent"),
        ({"deploymentConfiguration": {"earlySuccessCriteria": {"enable": True, "sourceServiceRevisionCleanup": "BLOCKING"}}}, "healthyPercent"),
        ({"deploymentConfiguration": {"earlySuccessCriteria": {"enable": True, "healthyPercent": 100}}}, "sourceServiceRevisionCleanup"),
        ({"deploymentConfiguration": {"bakeTimeInMinutes": 1441}}, "bakeTimeInMinutes"),
    ],
)
def test_bad_settings_are_refused_at_creation_and_at_update(ecs, cluster, members, word):
    definition = register(ecs)
    with refused("InvalidParameterException", word):
        ecs.create_service(**{"cluster": cluster, "serviceName": "a", "taskDefinition": definition, "desiredCount": 0, **members})
    create(ecs, cluster, count=0, definition=definition)
    before = until("the service to be at rest", lambda: (found := service(ecs, cluster, "web"))["events"] and found)
    with refused("InvalidParameterException", word):
        ecs.update_service(cluster=cluster, service="web", **members)
    assert service(ecs, cluster, "web") == before


def test_creating_needs_a_definition_and_a_count(ecs, cluster):
    with refused("InvalidParameterException", "desiredCount"):
        ecs.create_service(cluster=cluster, serviceName="a", taskDefinition=register(ecs))
    with refused("ClientException", "blank"):
        ecs.create_service(cluster=cluster, serviceName="a", desiredCount=1)
    with refused("ClientException", "not found"):
        ecs.create_service(cluster=cluster, serviceName="a", desiredCount=1, taskDefinition="none-such")


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"deploymentController": {"type": "CODE_DEPLOY"}}, "deploymentController"),
        ({"loadBalancers": [{"targetGroupArn": "a", "containerName": "app", "containerPort": 80}]}, "loadBalancers"),
    ],
)
def test_what_berth_cannot_honour_yet_is_refused_not_ignored(ecs, cluster, members, word):
    with refused("UnsupportedFeatureException", word):
        create(ecs, cluster, count=0, **members)
    assert ecs.list_services(cluster=cluster)["serviceArns"] == []


def test_tags_of_service_tasks_come_from_the_service_or_the_definition(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs, tags=[{"key": "of", "value": "definition"}])
    cases = {"SERVICE": {"of": "service"}, "TASK_DEFINITION": {"of": "definition"}}
    for source, expected in cases.items():
        name = unique("s")
        members = {"tags": [{"key": "of", "value": "service"}], "propagateTags": source, "enableECSManagedTags": True}
        create(ecs, cluster, count=1, definition=definition, name=name, **members)
        until_steady(ecs, cluster, name)
        (arn,) = tasks_of(ecs, cluster, serviceName=name)
        tags = {tag["key"]: tag["value"] for tag in describe(ecs, cluster, arn)["tags"]}
        assert tags == {**expected, "aws:ecs:clusterName": cluster, "aws:ecs:serviceName": name}


def test_a_service_spreads_over_instances(ecs, cluster, agents):
    for _ in range(3):
        agents(cluster)
    create(ecs, cluster, count=6)
    until_steady(ecs, cluster, "web")
    places = [describe(ecs, cluster, arn)["containerInstanceArn"] for arn in tasks_of(ecs, cluster, serviceName="web")]
    assert sorted(places.count(arn) for arn in set(places)) == [2, 2, 2]


def test_tasks_of_a_deregistered_instance_are_replaced_elsewhere(ecs, cluster, agents):
    doomed = agents(cluster)
    create(ecs, cluster, count=2)
    until_steady(ecs, cluster, "web")
    before = tasks_of(ecs, cluster, serviceName="web")
    agents(cluster)
    ecs.deregister_container_instance(cluster=cluster, containerInstance=doomed.arn, force=True)
    found = until_steady(ecs, cluster, "web")
    assert found["runningCount"] == 2
    for arn in before:
        task = describe(ecs, cluster, arn)
        assert (task["lastStatus"], task["stopCode"]) == ("STOPPED", "TerminationNotice")
        assert task["stoppedReason"] == "Container instance deregistration forced by user"


def test_a_service_goes_on_with_a_deregistered_revision_it_already_uses(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs)
    create(ecs, cluster, count=1, definition=definition)
    until_steady(ecs, cluster, "web")
    ecs.deregister_task_definition(taskDefinition=definition)
    ecs.update_service(cluster=cluster, service="web", desiredCount=2)
    assert until_steady(ecs, cluster, "web")["runningCount"] == 2


def test_standalone_tasks_and_services_do_not_mix(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs, containers=[container()])
    create(ecs, cluster, count=1, definition=definition)
    until_steady(ecs, cluster, "web")
    (alone,) = run(ecs, cluster, definition)
    until_status(ecs, cluster, alone, "RUNNING")
    assert service(ecs, cluster, "web")["runningCount"] == 1
    ecs.delete_service(cluster=cluster, service="web", force=True)
    until("INACTIVE", lambda: service(ecs, cluster, "web")["status"] == "INACTIVE")
    assert tasks_of(ecs, cluster) == [alone]
