"""RunTask, StartTask, StopTask, DescribeTasks: placement, refusals, overrides, idempotency, a task's life."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from berth import unique, until
from ecs_calls import container, describe, refused, register, run, until_status

ZEROS = "0" * 32


def failures_of(ecs, cluster, definition, count=1, **members):
    """Runs tasks; gives `failures[]` as (arn, reason), and how many tasks there are."""
    answer = ecs.run_task(cluster=cluster, taskDefinition=definition, count=count, **members)
    return [(f["arn"], f["reason"]) for f in answer["failures"]], len(answer["tasks"])


def test_a_task_is_pending_at_once_then_running_then_stopped_on_wish(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs, containers=[container(portMappings=[{"containerPort": 80}])])
    answer = ecs.run_task(cluster=cluster, taskDefinition=definition)
    task = answer["tasks"][0]
    assert (task["lastStatus"], task["desiredStatus"], task["launchType"]) == ("PENDING", "RUNNING", "EC2")
    assert task["group"] == "family:" + definition.rsplit("/", 1)[1].split(":")[0]
    assert (task["cpu"], task["memory"], task["attachments"], task["healthStatus"]) == ("10", "16", [], "UNKNOWN")
    assert task["taskArn"].startswith(f"arn:aws:ecs:us-east-1:000000000000:task/{cluster}/")
    assert [c["name"] for c in task["containers"]] == ["app"]
    assert task["containers"][0]["containerArn"].startswith(f"arn:aws:ecs:us-east-1:000000000000:container/{cluster}/")
    assert task["overrides"]["containerOverrides"] == [{"name": "app"}]
    arn = task["taskArn"]
    running = until_status(ecs, cluster, arn, "RUNNING")
    assert running["connectivity"] == "CONNECTED"
    assert running["startedAt"] >= running["createdAt"]
    assert running["version"] > task["version"]
    assert running["containers"][0]["lastStatus"] == "RUNNING"
    assert running["containers"][0]["runtimeId"].startswith("fake-")
    (binding,) = running["containers"][0]["networkBindings"]
    assert (binding["containerPort"], binding["protocol"], binding["bindIP"]) == (80, "tcp", "0.0.0.0")
    stopping = ecs.stop_task(cluster=cluster, task=arn, reason="because")["task"]
    assert (stopping["desiredStatus"], stopping["stopCode"], stopping["stoppedReason"]) == ("STOPPED", "UserInitiated", "because")
    stopped = until_status(ecs, cluster, arn, "STOPPED")
    assert stopped["stoppedAt"] >= stopped["stoppingAt"] >= stopped["startedAt"]
    assert stopped["containers"][0]["exitCode"] == 137
    assert stopped["executionStoppedAt"] <= stopped["stoppedAt"]


def test_waiters_tasks_running_and_tasks_stopped(ecs, cluster, agents):
    agents(cluster)
    arns = run(ecs, cluster, register(ecs), count=3)
    ecs.get_waiter("tasks_running").wait(cluster=cluster, tasks=arns, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    for arn in arns:
        ecs.stop_task(cluster=cluster, task=arn)
    ecs.get_waiter("tasks_stopped").wait(cluster=cluster, tasks=arns, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def test_a_container_that_exits_ends_the_task_with_its_code(ecs, cluster, agents):
    agent = agents(cluster)
    definition = register(ecs, containers=[container("main"), container("side", essential=False)])
    (arn,) = run(ecs, cluster, definition)
    until_status(ecs, cluster, arn, "RUNNING")
    side = [{"containerName": "side", "status": "STOPPED", "exitCode": 3}]
    agent.report(arn, "RUNNING", containers=side)
    task = describe(ecs, cluster, arn)
    assert (task["lastStatus"], task["desiredStatus"]) == ("RUNNING", "RUNNING")
    assert {c["name"]: c.get("exitCode") for c in task["containers"]} == {"main": None, "side": 3}
    agent.report(arn, "STOPPED", containers=[{"containerName": "main", "status": "STOPPED", "exitCode": 5, "reason": "x"}])
    task = describe(ecs, cluster, arn)
    assert (task["lastStatus"], task["desiredStatus"]) == ("STOPPED", "STOPPED")
    assert (task["stopCode"], task["stoppedReason"]) == ("EssentialContainerExited", "Essential container in task exited")
    assert {c["name"]: c.get("exitCode") for c in task["containers"]} == {"main": 5, "side": 3}


def test_a_task_that_never_ran_failed_to_start_with_the_containers_reason(ecs, cluster, agents):
    agent = agents(cluster, runs=False)
    (arn,) = run(ecs, cluster, register(ecs))
    agent.wait_for_task(arn, "RUNNING")
    reason = "CannotPullContainerError: no such image"
    agent.report(arn, "STOPPED", containers=[{"containerName": "app", "status": "STOPPED", "reason": reason}])
    task = describe(ecs, cluster, arn)
    assert (task["lastStatus"], task["stopCode"]) == ("STOPPED", "TaskFailedToStart")
    assert task["stoppedReason"] == reason == task["containers"][0]["reason"]
    assert "startedAt" not in task and "exitCode" not in task["containers"][0]


@pytest.mark.parametrize("count", [0, 11, -1])
def test_count_outside_1_to_10_is_refused(ecs, cluster, agents, count):
    agents(cluster)
    with refused("InvalidParameterException", "count"):
        ecs.run_task(cluster=cluster, taskDefinition=register(ecs), count=count)


def test_ten_tasks_at_once(ecs, cluster, agents):
    agents(cluster)
    assert len(set(run(ecs, cluster, register(ecs), count=10))) == 10


def test_a_cluster_without_instances_is_an_invalid_parameter(ecs, cluster):
    with refused("InvalidParameterException", "No Container Instances were found in your cluster."):
        ecs.run_task(cluster=cluster, taskDefinition=register(ecs))


def test_no_cpu_no_memory_no_port_no_attribute_are_failures_that_name_the_instance(ecs, cluster, agents):
    agent = agents(cluster, cpu=100, memory=100)

    def refusals(**members):
        return failures_of(ecs, cluster, register(ecs, containers=[container(**members)]))

    assert refusals(cpu=101) == ([(agent.arn, "RESOURCE:CPU")], 0)
    assert refusals(memory=101) == ([(agent.arn, "RESOURCE:MEMORY")], 0)
    # Port 22 is one of those that the instance registered as taken.
    assert refusals(portMappings=[{"containerPort": 80, "hostPort": 22}]) == ([(agent.arn, "RESOURCE:PORTS")], 0)
    assert refusals(logConfiguration={"logDriver": "splunk"}) == ([(agent.arn, "ATTRIBUTE")], 0)


def test_an_instance_whose_agent_is_away_is_a_failure_agent(ecs, cluster, agents):
    agent = agents(cluster)
    agent.drop()
    until("the agent to be away", lambda: not agent.is_connected())
    assert failures_of(ecs, cluster, register(ecs)) == ([(agent.arn, "AGENT")], 0)


def test_some_tasks_find_room_and_the_rest_are_failures(ecs, cluster, agents):
    agent = agents(cluster, cpu=100)
    definition = register(ecs, containers=[container(cpu=40)])
    failures, placed = failures_of(ecs, cluster, definition, count=5)
    assert placed == 2
    assert set(failures) == {(agent.arn, "RESOURCE:CPU")}


def test_room_comes_back_when_a_task_has_stopped(ecs, cluster, agents):
    agents(cluster, cpu=100)
    definition = register(ecs, containers=[container(cpu=100)])
    (arn,) = run(ecs, cluster, definition)
    assert failures_of(ecs, cluster, definition)[1] == 0
    ecs.stop_task(cluster=cluster, task=arn)
    until_status(ecs, cluster, arn, "STOPPED")
    assert run(ecs, cluster, definition)


def test_a_static_port_is_given_once_per_instance(ecs, cluster, agents):
    first, second = agents(cluster), agents(cluster)
    definition = register(ecs, containers=[container(portMappings=[{"containerPort": 80, "hostPort": 8080}])])
    failures, placed = failures_of(ecs, cluster, definition, count=3)
    assert placed == 2
    assert {reason for _, reason in failures} == {"RESOURCE:PORTS"}
    shown = ecs.describe_container_instances(cluster=cluster, containerInstances=[first.arn, second.arn])["containerInstances"]
    for instance in shown:
        ports = next(r for r in instance["remainingResources"] if r["name"] == "PORTS")["stringSetValue"]
        assert "8080" in ports


def test_capacity_is_never_oversold_by_callers_at_the_same_time(ecs, cluster, agents):
    agents(cluster, cpu=1000)
    definition = register(ecs, containers=[container(cpu=100)])
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: failures_of(ecs, cluster, definition, count=3), range(10)))
    assert sum(placed for _, placed in answers) == 10
    assert all(reason == "RESOURCE:CPU" for failures, _ in answers for _, reason in failures)


def test_remaining_resources_and_counts_of_an_instance_follow_its_tasks(ecs, cluster, agents):
    agent = agents(cluster, cpu=1000, memory=1000)
    (arn,) = run(ecs, cluster, register(ecs, containers=[container(cpu=100, memory=200)]))
    until_status(ecs, cluster, arn, "RUNNING")

    def look():
        (shown,) = ecs.describe_container_instances(cluster=cluster, containerInstances=[agent.arn])["containerInstances"]
        left = {r["name"]: r.get("integerValue") for r in shown["remainingResources"]}
        return left["CPU"], left["MEMORY"], shown["runningTasksCount"], shown["pendingTasksCount"]

    assert look() == (900, 800, 1, 0)
    ecs.stop_task(cluster=cluster, task=arn)
    until_status(ecs, cluster, arn, "STOPPED")
    assert look() == (1000, 1000, 0, 0)


# -- StartTask -----------------------------------------------------------------------------------------------------------


def test_start_task_puts_one_on_each_named_instance_and_reports_the_rest(ecs, cluster, agents):
    small, big = agents(cluster, cpu=5), agents(cluster)
    unknown = f"arn:aws:ecs:us-east-1:000000000000:container-instance/{cluster}/{ZEROS}"
    answer = ecs.start_task(
        cluster=cluster, taskDefinition=register(ecs), containerInstances=[small.arn, big.arn.rsplit("/", 1)[1], unknown], group="g", startedBy="me"
    )
    (task,) = answer["tasks"]
    assert (task["containerInstanceArn"], task["group"], task["startedBy"]) == (big.arn, "g", "me")
    assert {(f["arn"], f["reason"]) for f in answer["failures"]} == {(small.arn, "RESOURCE:CPU"), (unknown, "MISSING")}


def test_start_task_takes_one_to_ten_instances(ecs, cluster, agents):
    agent = agents(cluster)
    definition = register(ecs)
    with refused("InvalidParameterException", "empty"):
        ecs.start_task(cluster=cluster, taskDefinition=definition, containerInstances=[])
    with refused("InvalidParameterException", "10"):
        ecs.start_task(cluster=cluster, taskDefinition=definition, containerInstances=[agent.arn] * 11)


# -- idempotency -----------------------------------------------------------------------------------------------------------


def test_a_client_token_gives_the_same_tasks_again(ecs, cluster, agents):
    agents(cluster)
    definition, token = register(ecs), unique("token")
    first = sorted(run(ecs, cluster, definition, count=2, clientToken=token))
    assert sorted(run(ecs, cluster, definition, count=2, clientToken=token)) == first
    assert sorted(run(ecs, cluster, definition, count=2, clientToken=unique("token"))) != first


def test_one_client_token_from_many_threads_makes_one_set_of_tasks(ecs, cluster, agents):
    agents(cluster)
    definition, token = register(ecs), unique("token")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: frozenset(run(ecs, cluster, definition, count=2, clientToken=token)), range(24)))
    assert len(set(answers)) == 1


def test_a_client_token_for_another_request_is_a_conflict_that_names_the_tasks(ecs, cluster, agents):
    agents(cluster)
    definition, token = register(ecs), unique("token")
    arns = run(ecs, cluster, definition, count=2, clientToken=token)
    with refused("ConflictException") as caught:
        ecs.run_task(cluster=cluster, taskDefinition=definition, count=1, clientToken=token)
    assert sorted(caught.value.response["resourceIds"]) == sorted(arns)


def test_a_client_token_beyond_64_characters_is_refused(ecs, cluster, agents):
    agents(cluster)
    with refused("InvalidParameterException", "clientToken"):
        ecs.run_task(cluster=cluster, taskDefinition=register(ecs), clientToken="x" * 65)


# -- overrides -------------------------------------------------------------------------------------------------------------


def test_overrides_are_echoed_and_reach_the_agent(ecs, cluster, agents):
    agent = agents(cluster)
    definition = register(ecs, containers=[container(environment=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], command=["old"])])
    own = {"name": "app", "command": ["new", "words"], "environment": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}], "cpu": 20, "memory": 32}
    (arn,) = run(ecs, cluster, definition, overrides={"containerOverrides": [own]})
    task = describe(ecs, cluster, arn)
    assert task["overrides"]["containerOverrides"] == [own]
    assert (task["containers"][0]["cpu"], task["containers"][0]["memory"]) == ("20", "32")
    (sent,) = agent.wait_for_task(arn, "RUNNING")["containers"]
    environment = sent["environment"]
    assert {name: environment[name] for name in "ABC"} == {"A": "1", "B": "3", "C": "4"}
    assert sent["command"] == ["new", "words"]
    assert (sent["cpu"], sent["memory"]) == (20, 32)


def test_overridden_sizes_count_for_placement(ecs, cluster, agents):
    agent = agents(cluster, cpu=100)
    own = {"containerOverrides": [{"name": "app", "cpu": 101}]}
    assert failures_of(ecs, cluster, register(ecs), overrides=own) == ([(agent.arn, "RESOURCE:CPU")], 0)


def test_bad_overrides_are_refused(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs)

    def override(**members):
        ecs.run_task(cluster=cluster, taskDefinition=definition, overrides=members)

    with refused("InvalidParameterException", "ghost", "not a container in the TaskDefinition"):
        override(containerOverrides=[{"name": "ghost"}])
    with refused("InvalidParameterException", "8192"):
        override(containerOverrides=[{"name": "app", "command": ["x" * 8192]}])
    with refused("InvalidParameterException", "'cpu'"):
        override(cpu="many")
    with refused("InvalidParameterException", "'memory'"):
        override(memory="lots")


# -- other members -----------------------------------------------------------------------------------------------------------


def test_group_and_started_by_are_kept_and_bounded(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs)
    task = describe(ecs, cluster, run(ecs, cluster, definition, group="batch", startedBy="x" * 128)[0])
    assert (task["group"], task["startedBy"]) == ("batch", "x" * 128)
    with refused("InvalidParameterException", "startedBy"):
        ecs.run_task(cluster=cluster, taskDefinition=definition, startedBy="x" * 129)
    with refused("InvalidParameterException", "group"):
        ecs.run_task(cluster=cluster, taskDefinition=definition, group="x" * 256)


def test_distinct_instance_and_spread_use_every_instance(ecs, cluster, agents):
    arns = {agents(cluster).arn for _ in range(3)}
    definition = register(ecs)

    def places(**members):
        answer = ecs.run_task(cluster=cluster, taskDefinition=definition, count=3, **members)
        return {task["containerInstanceArn"] for task in answer["tasks"]}, answer["failures"]

    assert places(placementConstraints=[{"type": "distinctInstance"}], group="d") == (arns, [])
    assert places(placementStrategy=[{"type": "spread", "field": "instanceId"}], group="s") == (arns, [])
    full = ecs.run_task(cluster=cluster, taskDefinition=definition, placementConstraints=[{"type": "distinctInstance"}], group="d")
    assert full["tasks"] == [] and len(full["failures"]) >= 1


def test_binpack_fills_one_instance(ecs, cluster, agents):
    for _ in range(2):
        agents(cluster, memory=500)
    strategy = [{"type": "binpack", "field": "memory"}]
    arns = run(ecs, cluster, register(ecs), count=6, placementStrategy=strategy)
    assert len({describe(ecs, cluster, arn)["containerInstanceArn"] for arn in arns}) == 1


def test_bad_placement_is_refused(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs)
    with refused("InvalidParameterException", "placementStrategy"):
        ecs.run_task(cluster=cluster, taskDefinition=definition, placementStrategy=[{"type": "random"}] * 6)
    with refused("InvalidParameterException", "placementConstraints"):
        ecs.run_task(cluster=cluster, taskDefinition=definition, placementConstraints=[{"type": "distinctInstance"}] * 11)
    with refused("InvalidParameterException", "nonsense"):
        ecs.run_task(cluster=cluster, taskDefinition=definition, placementStrategy=[{"type": "binpack", "field": "nonsense"}])


def test_an_unknown_definition_is_a_client_exception(ecs, cluster, agents):
    agents(cluster)
    with refused("ClientException", "TaskDefinition not found."):
        ecs.run_task(cluster=cluster, taskDefinition="none-such")
    with refused("ClientException", "blank"):
        ecs.run_task(cluster=cluster, taskDefinition="")


# -- DescribeTasks, StopTask -----------------------------------------------------------------------------------------------


def test_tasks_are_found_by_id_long_arn_and_old_uuid_and_unknown_ones_are_missing(ecs, cluster, agents):
    agents(cluster)
    (arn,) = run(ecs, cluster, register(ecs))
    plain = arn.rsplit("/", 1)[1]
    dashed = f"{plain[:8]}-{plain[8:12]}-{plain[12:16]}-{plain[16:20]}-{plain[20:]}"
    short = f"arn:aws:ecs:us-east-1:000000000000:task/{plain}"
    answer = ecs.describe_tasks(cluster=cluster, tasks=[arn, plain, dashed, short, ZEROS])
    assert [task["taskArn"] for task in answer["tasks"]] == [arn] * 4
    assert answer["failures"] == [{"arn": f"arn:aws:ecs:us-east-1:000000000000:task/{cluster}/{ZEROS}", "reason": "MISSING"}]


def test_bad_task_references_are_refused(ecs, cluster):
    for text in ("nonsense", "arn:aws:ecs:us-east-1:000000000000:task/other/" + ZEROS, "arn:aws:ecs:eu-west-1:000000000000:task/" + ZEROS, "z" * 32):
        with refused("InvalidParameterException"):
            ecs.describe_tasks(cluster=cluster, tasks=[text])
    with refused("InvalidParameterException", "Tasks cannot be empty."):
        ecs.describe_tasks(cluster=cluster, tasks=[])
    with refused("InvalidParameterException", "100"):
        ecs.describe_tasks(cluster=cluster, tasks=[ZEROS] * 101)


def test_a_task_of_another_cluster_is_missing(ecs, cluster, agents):
    agents(cluster)
    (arn,) = run(ecs, cluster, register(ecs))
    other = unique("c")
    ecs.create_cluster(clusterName=other)
    assert ecs.describe_tasks(cluster=other, tasks=[arn.rsplit("/", 1)[1]])["failures"][0]["reason"] == "MISSING"


def test_stopping_an_unknown_task_is_an_invalid_parameter(ecs, cluster):
    with refused("InvalidParameterException", "The referenced task was not found."):
        ecs.stop_task(cluster=cluster, task=ZEROS)


def test_stopping_twice_keeps_the_first_reason(ecs, cluster, agents):
    agents(cluster, stops=False)
    (arn,) = run(ecs, cluster, register(ecs))
    until_status(ecs, cluster, arn, "RUNNING")
    first = ecs.stop_task(cluster=cluster, task=arn, reason="first")["task"]
    again = ecs.stop_task(cluster=cluster, task=arn, reason="second")["task"]
    assert (again["stoppedReason"], again["stoppingAt"]) == ("first", first["stoppingAt"])
    assert describe(ecs, cluster, arn)["lastStatus"] == "RUNNING"


def test_stopping_without_a_reason_says_so(ecs, cluster, agents):
    agents(cluster)
    (arn,) = run(ecs, cluster, register(ecs))
    assert ecs.stop_task(cluster=cluster, task=arn)["task"]["stoppedReason"] == "Task stopped by user"


def test_a_stop_reason_beyond_1024_characters_is_refused(ecs, cluster, agents):
    agents(cluster)
    (arn,) = run(ecs, cluster, register(ecs))
    with refused("InvalidParameterException", "reason"):
        ecs.stop_task(cluster=cluster, task=arn, reason="x" * 1025)


def test_what_berth_cannot_honour_is_refused_not_ignored(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs)
    with refused("InvalidParameterException", "platform version must be null"):
        ecs.run_task(cluster=cluster, taskDefinition=definition, platformVersion="1.4.0")
    with refused("InvalidParameterException", "launch_type FARGATE"):
        ecs.run_task(cluster=cluster, taskDefinition=definition, launchType="FARGATE")
