"""kill -9 of the server under load: whatever was acknowledged is there afterwards, and goes on."""

import subprocess
import threading

from botocore.exceptions import BotoCoreError, ClientError

from berth import binary, clean_environment, unique, until
from ecs_calls import container, describe, register, run, service, tasks_of, until_status, until_steady
from fake_agent import FakeAgent


class Load:
    """Threads that make things until the server is gone, and note what was acknowledged."""

    def __init__(self, berth, cluster):
        self.tasks, self.services, self.definitions, self.clusters, self.tags = [], [], [], [], []
        self.definition = register(berth.ecs)
        ecs = berth.ecs

        def one_task():
            self.tasks += run(ecs, cluster, self.definition, startedBy="load")

        def one_service():
            name = unique("s")
            ecs.create_service(cluster=cluster, serviceName=name, taskDefinition=self.definition, desiredCount=1)
            self.services.append(name)

        def one_definition():
            self.definitions.append(register(ecs, "load", containers=[container(command=[unique("x")])]))

        def one_cluster():
            self.clusters.append(ecs.create_cluster(clusterName=unique("load"))["cluster"]["clusterArn"])

        def one_tag():
            key = unique("k")
            ecs.tag_resource(resourceArn=self.definition, tags=[{"key": "last", "value": key}])
            self.tags.append(key)

        self.threads = [
            threading.Thread(target=self._forever, args=(make,), daemon=True)
            for make in (one_task, one_task, one_service, one_definition, one_cluster, one_tag)
        ]

    @staticmethod
    def _forever(make):
        try:
            while True:
                make()
        except (BotoCoreError, ClientError):
            return

    def until_killed(self, berth, acknowledged):
        for thread in self.threads:
            thread.start()
        until("load", lambda: len(self.tasks) >= acknowledged and len(self.services) > 5 and len(self.definitions) > 5 and len(self.tags) > 5)
        berth.kill()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive()


def test_everything_acknowledged_survives_kill_9_under_load(new_berth):
    berth = new_berth().start()
    cluster = "default"
    agent = FakeAgent(berth, cluster, cpu=10_000_000, memory=10_000_000).join()
    arns = []
    for round_ in range(3):
        load = Load(berth, cluster)
        load.until_killed(berth, acknowledged=40 * (round_ + 1))
        agent.leave()
        berth.start()
        ecs = berth.ecs
        arns += load.tasks
        known = set(tasks_of(ecs, cluster)) | set(tasks_of(ecs, cluster, desiredStatus="STOPPED"))
        assert set(arns) <= known
        listed = {arn for page in ecs.get_paginator("list_task_definitions").paginate(familyPrefix="load") for arn in page["taskDefinitionArns"]}
        assert set(load.definitions) <= listed
        assert {int(arn.rsplit(":", 1)[1]) for arn in listed} == set(range(1, len(listed) + 1)), "revisions have gaps or doubles"
        names = {arn.rsplit("/", 1)[1] for page in ecs.get_paginator("list_services").paginate(cluster=cluster) for arn in page["serviceArns"]}
        assert set(load.services) <= names
        clusters = {arn for page in ecs.get_paginator("list_clusters").paginate() for arn in page["clusterArns"]}
        assert set(load.clusters) <= clusters
        (tag,) = ecs.list_tags_for_resource(resourceArn=load.definition)["tags"]
        # At most the one call that was cut off may have come after the last acknowledged.
        assert tag["value"] == load.tags[-1] or tag["value"] not in load.tags
        agent.register(containerInstanceArn=agent.arn)
        agent = _reconnected(agent)
    for name in load.services[:5]:
        until_steady(ecs, cluster, name)
    agent.leave()


def _reconnected(agent):
    """The same instance by a new connection."""
    fresh = FakeAgent(agent.berth, agent.cluster)
    fresh.arn, fresh.resources, fresh.attributes, fresh.known = agent.arn, agent.resources, agent.attributes, agent.known
    fresh.connect(sendCredentials="false")
    threading.Thread(target=fresh._report_all, daemon=True).start()
    until("the agent to be back", fresh.is_connected)
    return fresh


def test_a_restarted_server_keeps_its_port_credentials_and_names(new_berth):
    berth = new_berth().start()
    endpoint, credentials = berth.endpoint, berth.credentials
    assert berth.terminate() == 0
    assert not (berth.data_dir / "endpoint.json").exists()
    berth.start()
    assert (berth.endpoint, berth.credentials) == (endpoint, credentials)
    assert (berth.data_dir / "credentials").stat().st_mode & 0o777 == 0o600
    assert berth.data_dir.stat().st_mode & 0o077 == 0


def test_running_tasks_stay_running_over_a_restart_and_an_exit_in_between_is_taken(new_berth):
    berth = new_berth().start()
    ecs = berth.ecs
    agent = FakeAgent(berth, "default").join()
    definition = register(ecs)
    stays, ends = run(ecs, "default", definition, count=2)
    for arn in (stays, ends):
        until_status(ecs, "default", arn, "RUNNING")
    berth.kill()
    berth.start()
    ecs = berth.ecs
    assert describe(ecs, "default", stays)["connectivity"] == "DISCONNECTED"
    agent.register(containerInstanceArn=agent.arn)
    agent = _reconnected(agent)
    agent.report(ends, "STOPPED", exit_code=7)
    task = describe(ecs, "default", ends)
    assert (task["lastStatus"], task["containers"][0]["exitCode"], task["stopCode"]) == ("STOPPED", 7, "EssentialContainerExited")
    assert describe(ecs, "default", stays)["lastStatus"] == "RUNNING"
    agent.leave()


def test_a_deployment_goes_on_after_a_restart_in_its_middle(new_berth):
    berth = new_berth(healthy_after=1).start()
    ecs = berth.ecs
    agent = FakeAgent(berth, "default").join()
    ecs.create_service(cluster="default", serviceName="web", taskDefinition=register(ecs), desiredCount=4)
    until_steady(ecs, "default", "web")
    definition = register(ecs)
    ecs.update_service(cluster="default", service="web", taskDefinition=definition)
    berth.kill()
    berth.start()
    agent.register(containerInstanceArn=agent.arn)
    agent = _reconnected(agent)
    found = until_steady(berth.ecs, "default", "web")
    assert (found["taskDefinition"], found["runningCount"]) == (definition, 4)
    agent.leave()


def test_a_client_token_is_remembered_over_a_restart(new_berth):
    berth = new_berth().start()
    agent = FakeAgent(berth, "default").join()
    definition = register(berth.ecs)
    first = run(berth.ecs, "default", definition, count=2, clientToken="once")
    berth.kill()
    berth.start()
    agent.register(containerInstanceArn=agent.arn)
    agent = _reconnected(agent)
    assert sorted(run(berth.ecs, "default", definition, count=2, clientToken="once")) == sorted(first)
    agent.leave()


def test_events_of_a_service_survive_a_restart(new_berth):
    berth = new_berth().start()
    agent = FakeAgent(berth, "default").join()
    berth.ecs.create_service(cluster="default", serviceName="web", taskDefinition=register(berth.ecs), desiredCount=1)
    events = until_steady(berth.ecs, "default", "web")["events"]
    berth.kill()
    berth.start()
    after = service(berth.ecs, "default", "web")["events"]
    assert after[-len(events) :] == events
    agent.leave()


def test_two_servers_on_one_data_directory_are_refused(new_berth):
    berth = new_berth().start()
    command = [str(binary()), "server", "--data-dir", str(berth.data_dir), "--listen", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean_environment(), check=False)
    assert done.returncode == 2
    assert "--data-dir" in done.stderr and str(berth.data_dir) in done.stderr
    assert berth.ecs.list_clusters()["clusterArns"]
