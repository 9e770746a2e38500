"""Rolling updates: at no instant fewer healthy tasks than the minimum, never more than the maximum.

A watcher samples the service from its own connections for the whole deployment. A sample is one DescribeServices, which the
server answers from one state, so each is an instant.
"""

import math
import threading
import time

import pytest

from berth import Berth, until
from ecs_calls import container, describe, register, service, tasks_of, texts, until_steady

HEALTHY_AFTER = 1.0


@pytest.fixture(scope="module")
def server():
    """A server of the module's own: --healthy-after 1, and no other test's load."""
    berth = Berth("server", healthy_after=HEALTHY_AFTER)
    try:
        yield berth.start()
    finally:
        berth.end()


class Watcher:
    """Samples a service until told to stop."""

    def __init__(self, berth, cluster, name):
        self.samples, self.errors = [], []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._watch, args=(berth.ecs, cluster, name), daemon=True) for _ in range(2)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        until("the first samples", lambda: len(self.samples) > 4)
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert not self.errors, self.errors

    def _watch(self, ecs, cluster, name):
        while not self._stop.is_set():
            try:
                found = service(ecs, cluster, name)
                self.samples.append((found["runningCount"], found["pendingCount"], len(found["deployments"])))
            except Exception as error:  # noqa: BLE001 - the test's own thread reports it
                self.errors.append(error)
                return
            time.sleep(0.002)

    @property
    def least_running(self):
        return min(running for running, _, _ in self.samples)

    @property
    def most_live(self):
        return max(running + pending for running, pending, _ in self.samples)


def deploy(ecs, cluster, **members):
    """Starts a deployment of a new revision of service `web`; gives its definition."""
    definition = register(ecs)
    ecs.update_service(cluster=cluster, service="web", taskDefinition=definition, **members)
    return definition


@pytest.mark.parametrize(
    ("desired", "minimum", "maximum"),
    [(4, 100, 200), (4, 100, 150), (4, 50, 100), (5, 50, 100), (3, 0, 100), (4, 75, 125), (1, 100, 200), (1, 0, 100), (7, 60, 130), (6, 100, 117)],
)
def test_a_rolling_update_honours_both_percentages_at_every_instant(server, ecs, cluster, agents, desired, minimum, maximum):
    for _ in range(2):
        agents(cluster)
    percentages = {"minimumHealthyPercent": minimum, "maximumPercent": maximum}
    ecs.create_service(
        cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=desired, deploymentConfiguration=percentages
    )
    first = until_steady(ecs, cluster, "web")["deployments"][0]["id"]
    old = set(tasks_of(ecs, cluster, serviceName="web"))
    with Watcher(server, cluster, "web") as seen:
        definition = deploy(ecs, cluster)
        found = until_steady(ecs, cluster, "web")
    assert seen.least_running >= math.ceil(desired * minimum / 100), seen.samples
    assert seen.most_live <= math.floor(desired * maximum / 100), seen.samples
    assert found["taskDefinition"] == definition
    live = tasks_of(ecs, cluster, serviceName="web")
    assert len(live) == desired and not old & set(live)
    assert all(describe(ecs, cluster, arn)["taskDefinitionArn"] == definition for arn in live)
    # Where nothing of the old need stay, both are there for milliseconds only, and the watcher may miss them.
    assert max(deployments for _, _, deployments in seen.samples) <= 2
    assert [one["id"] != first for one in found["deployments"]] == [True]


def test_one_hundred_and_one_hundred_percent_deadlocks_as_in_ecs_until_the_maximum_is_raised(ecs, cluster, agents):
    agents(cluster)
    full = {"minimumHealthyPercent": 100, "maximumPercent": 100}
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=2, deploymentConfiguration=full)
    until_steady(ecs, cluster, "web")
    old = set(tasks_of(ecs, cluster, serviceName="web"))
    deploy(ecs, cluster)
    until("two deployments", lambda: len(service(ecs, cluster, "web")["deployments"]) == 2)
    time.sleep(2 * HEALTHY_AFTER)
    assert set(tasks_of(ecs, cluster, serviceName="web")) == old
    ecs.update_service(cluster=cluster, service="web", deploymentConfiguration={"maximumPercent": 200})
    until_steady(ecs, cluster, "web")
    assert not old & set(tasks_of(ecs, cluster, serviceName="web"))


def test_old_tasks_stay_until_new_ones_have_run_for_healthy_after(ecs, cluster, agents):
    agents(cluster)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=2)
    until_steady(ecs, cluster, "web")
    old = tasks_of(ecs, cluster, serviceName="web")
    deploy(ecs, cluster)
    until_steady(ecs, cluster, "web")
    new = [describe(ecs, cluster, arn) for arn in tasks_of(ecs, cluster, serviceName="web")]
    stopped = [describe(ecs, cluster, arn) for arn in old]
    # The first old task may go when one new task is healthy, the second when both are.
    healthy_at = sorted(task["startedAt"].timestamp() + HEALTHY_AFTER for task in new)
    gone_at = sorted(task["stoppingAt"].timestamp() for task in stopped)
    assert gone_at[0] >= healthy_at[0] - 0.002 and gone_at[1] >= healthy_at[1] - 0.002, (gone_at, healthy_at)


def test_a_deployment_that_cannot_start_leaves_the_old_tasks_alone(ecs, cluster, agents):
    agent = agents(cluster)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=3)
    until_steady(ecs, cluster, "web")
    old = set(tasks_of(ecs, cluster, serviceName="web"))
    agent.runs = False
    deploy(ecs, cluster)
    failed = set()

    def fail_new_ones():
        for arn in set(tasks_of(ecs, cluster, serviceName="web")) - old - failed:
            agent.wait_for_task(arn, "RUNNING")
            agent.report(arn, "STOPPED", containers=[{"containerName": "app", "status": "STOPPED", "reason": "CannotPullContainerError: no"}])
            failed.add(arn)
        return len(failed) >= 6

    until("six failures", fail_new_ones)
    found = service(ecs, cluster, "web")
    assert old <= set(tasks_of(ecs, cluster, serviceName="web"))
    assert found["deployments"][0]["status"] == "PRIMARY"
    # The service's next plan counts them.
    until("them to be counted", lambda: service(ecs, cluster, "web")["deployments"][0]["failedTasks"] >= 6)
    # Going back to the old revision is another deployment, and completes.
    agent.runs = True
    ecs.update_service(cluster=cluster, service="web", taskDefinition=found["deployments"][1]["taskDefinition"])
    until_steady(ecs, cluster, "web")


def test_force_new_deployment_replaces_every_task_with_the_same_definition(server, ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs)
    made = ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=3)["service"]
    until_steady(ecs, cluster, "web")
    old = set(tasks_of(ecs, cluster, serviceName="web"))
    with Watcher(server, cluster, "web") as seen:
        forced = ecs.update_service(cluster=cluster, service="web", forceNewDeployment=True)["service"]
        assert [d["status"] for d in forced["deployments"]] == ["PRIMARY", "ACTIVE"]
        found = until_steady(ecs, cluster, "web")
    assert seen.least_running >= 3 and seen.most_live <= 6
    assert found["taskDefinition"] == definition
    assert found["deployments"][0]["id"] == forced["deployments"][0]["id"] != made["deployments"][0]["id"]
    assert not old & set(tasks_of(ecs, cluster, serviceName="web"))


def test_services_stable_waits_for_the_old_deployment_to_be_gone(ecs, cluster, agents):
    agents(cluster)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=2)
    until_steady(ecs, cluster, "web")
    definition = deploy(ecs, cluster)
    ecs.get_waiter("services_stable").wait(cluster=cluster, services=["web"], WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    found = service(ecs, cluster, "web")
    assert len(found["deployments"]) == 1 and found["taskDefinition"] == definition
    assert "(service web) has reached a steady state." in texts(found)


def test_the_same_definition_without_force_makes_no_deployment(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=1)
    before = until_steady(ecs, cluster, "web")["deployments"][0]["id"]
    after = ecs.update_service(cluster=cluster, service="web", taskDefinition=definition)["service"]
    assert [d["id"] for d in after["deployments"]] == [before]


def test_a_third_deployment_in_the_middle_of_a_second_wins(server, ecs, cluster, agents):
    agents(cluster)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=4)
    until_steady(ecs, cluster, "web")
    with Watcher(server, cluster, "web") as seen:
        deploy(ecs, cluster)
        until("the second to begin", lambda: service(ecs, cluster, "web")["deployments"][0]["runningCount"] > 0)
        last = deploy(ecs, cluster)
        found = until_steady(ecs, cluster, "web")
    assert seen.least_running >= 4 and seen.most_live <= 8
    assert found["taskDefinition"] == last
    assert {describe(ecs, cluster, arn)["taskDefinitionArn"] for arn in tasks_of(ecs, cluster, serviceName="web")} == {last}


def test_a_scale_out_in_the_middle_of_a_deployment_is_reached(ecs, cluster, agents):
    agents(cluster)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=2)
    until_steady(ecs, cluster, "web")
    last = deploy(ecs, cluster)
    ecs.update_service(cluster=cluster, service="web", desiredCount=6)
    found = until_steady(ecs, cluster, "web")
    assert (found["runningCount"], found["taskDefinition"]) == (6, last)


def test_host_ports_that_only_fit_once_are_rolled_by_stopping_first(server, ecs, cluster, agents):
    """A static host port on one instance: the new task has no place until the old one is gone."""
    agents(cluster)
    ports = [container(portMappings=[{"containerPort": 80, "hostPort": 8081}])]
    ecs.create_service(
        cluster=cluster,
        serviceName="web",
        taskDefinition=register(ecs, containers=ports),
        desiredCount=1,
        deploymentConfiguration={"minimumHealthyPercent": 0, "maximumPercent": 200},
    )
    until_steady(ecs, cluster, "web")
    definition = register(ecs, containers=ports)
    ecs.update_service(cluster=cluster, service="web", taskDefinition=definition)
    assert until_steady(ecs, cluster, "web")["taskDefinition"] == definition
