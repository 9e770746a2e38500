"""Managed daemons and daemon task definitions: records with ECS's rules. No task of a daemon ever runs: there are no Managed Instances."""

import datetime

import pytest
from botocore.exceptions import WaiterError

from berth import unique
from ecs_calls import refused
from test_capacity_providers import group, managed

PREFIX = "arn:aws:ecs:us-east-1:000000000000:"


def sidecar(name="agent", **members):
    return {"name": name, "image": "hello:latest", "memory": 64, **members}


def define(ecs, family=None, containers=None, **members):
    """Registers a daemon task definition; gives its ARN."""
    answer = ecs.register_daemon_task_definition(
        family=family or unique("d"), containerDefinitions=containers or [sidecar()], **members
    )
    return answer["daemonTaskDefinitionArn"]


def definition(ecs, text):
    return ecs.describe_daemon_task_definition(daemonTaskDefinition=text)["daemonTaskDefinition"]


@pytest.fixture
def provider(ecs, cluster):
    """ARN of a Managed Instances provider of the cluster."""
    return f"{PREFIX}capacity-provider/{managed(ecs, cluster)}"


def create(ecs, cluster, provider, name=None, wanted=None, **members):
    return ecs.create_daemon(
        daemonName=name or unique("d"),
        clusterArn=f"{PREFIX}cluster/{cluster}",
        daemonTaskDefinitionArn=wanted or define(ecs),
        capacityProviderArns=[provider],
        **members,
    )


def deployment(ecs, arn):
    answer = ecs.describe_daemon_deployments(daemonDeploymentArns=[arn])
    assert not answer["failures"], answer
    return answer["daemonDeployments"][0]


def revision(ecs, arn):
    answer = ecs.describe_daemon_revisions(daemonRevisionArns=[arn])
    assert not answer["failures"], answer
    return answer["daemonRevisions"][0]


def wait(ecs, waiter, **members):
    """The waiter must end well at its first look."""
    ecs.get_waiter(waiter).wait(**members, WaiterConfig={"Delay": 1, "MaxAttempts": 1})


# -- daemon task definitions -------------------------------------------------------------------------------------------------


def test_a_definition_is_registered_with_defaults_and_counts_on_its_own(ecs):
    family = unique("d")
    ecs.register_task_definition(family=family, containerDefinitions=[sidecar()])
    health = {"command": ["CMD-SHELL", "true"]}
    arn = define(ecs, family, [sidecar(healthCheck=health), sidecar("log", essential=False)], cpu="256", memory="512", pidMode="shared")
    assert arn == f"{PREFIX}daemon-task-definition/{family}:1"
    found = definition(ecs, arn)
    assert (found["family"], found["revision"], found["status"], found["cpu"], found["memory"]) == (family, 1, "ACTIVE", "256", "512")
    assert (found["pidMode"], found["ipcMode"], found["registeredBy"]) == ("shared", "none", "arn:aws:iam::000000000000:root")
    assert datetime.datetime.now(datetime.UTC) - found["registeredAt"] < datetime.timedelta(minutes=5)
    first, second = found["containerDefinitions"]
    assert (first["essential"], first["cpu"], second["essential"]) == (True, 0, False)
    assert first["healthCheck"] == {**health, "interval": 30, "timeout": 5, "retries": 3}
    wait(ecs, "daemon_task_definition_active", daemonTaskDefinition=arn)
    assert define(ecs, family).endswith(":2")
    assert definition(ecs, family)["revision"] == 2 and definition(ecs, f"{family}:1") == found


def test_a_deleted_definition_is_deleted_and_its_number_is_not_given_again(ecs):
    family = unique("d")
    arn = define(ecs, family)
    with pytest.raises(WaiterError):
        wait(ecs, "daemon_task_definition_deleted", daemonTaskDefinition=arn)
    assert ecs.delete_daemon_task_definition(daemonTaskDefinition=f"{family}:1")["daemonTaskDefinitionArn"] == arn
    wait(ecs, "daemon_task_definition_deleted", daemonTaskDefinition=arn)
    assert "deleteRequestedAt" in definition(ecs, arn)
    with refused("ClientException", "not ACTIVE"):
        ecs.delete_daemon_task_definition(daemonTaskDefinition=arn)
    with refused("ClientException", "Unable to describe"):
        definition(ecs, family)
    assert define(ecs, family).endswith(":2")


def test_a_definition_in_use_is_deleted_when_nothing_runs_it_any_more(ecs, cluster, provider):
    arn, other = define(ecs), define(ecs)
    daemon = create(ecs, cluster, provider, wanted=arn)["daemonArn"]
    ecs.delete_daemon_task_definition(daemonTaskDefinition=arn)
    assert definition(ecs, arn)["status"] == "DELETE_IN_PROGRESS"
    with refused("ClientException", "not ACTIVE"):
        create(ecs, cluster, provider, wanted=arn)
    ecs.update_daemon(daemonArn=daemon, daemonTaskDefinitionArn=other, capacityProviderArns=[provider])
    assert definition(ecs, arn)["status"] == "DELETED"


def test_lists_of_definitions(ecs):
    family = unique("list")
    arns = [define(ecs, family) for _ in range(3)] + [define(ecs, family + "x")]
    ecs.delete_daemon_task_definition(daemonTaskDefinition=arns[2])

    def listed(**members):
        answer = ecs.list_daemon_task_definitions(**members)
        return [one["arn"] for one in answer["daemonTaskDefinitions"]]

    assert listed(familyPrefix=family) == [arns[0], arns[1], arns[3]]
    assert listed(family=family) == arns[:2]
    assert listed(family=family, sort="DESC") == [arns[1], arns[0]]
    assert listed(family=family, status="ALL") == arns[:3]
    assert listed(family=family, status="DELETE_IN_PROGRESS") == []
    assert listed(familyPrefix=family, revision="LAST_REGISTERED", status="ALL") == arns[2:]
    first = ecs.list_daemon_task_definitions(familyPrefix=family, maxResults=2)
    assert [one["status"] for one in first["daemonTaskDefinitions"]] == ["ACTIVE", "ACTIVE"]
    assert listed(familyPrefix=family, maxResults=2, nextToken=first["nextToken"]) == [arns[3]]
    with refused("InvalidParameterException", "familyPrefix"):
        listed(family=family, familyPrefix=family)
    for broken, word in [({"maxResults": 101}, "maxResults"), ({"nextToken": "x"}, "nextToken"), ({"status": "DELETED"}, "status"), ({"revision": "1"}, "revision")]:
        with refused("InvalidParameterException", word):
            listed(**broken)


@pytest.mark.parametrize(
    "members, code, word",
    [
        ({"family": ""}, "ClientException", "Family"),
        ({"family": "a b"}, "ClientException", "Family"),
        ({"containerDefinitions": []}, "ClientException", "containerDefinitions"),
        ({"containerDefinitions": [sidecar(f"c{number}") for number in range(11)]}, "ClientException", "containerDefinitions"),
        ({"containerDefinitions": [{"name": "a", "image": "i"}]}, "ClientException", "memory"),
        ({"containerDefinitions": [sidecar("a b")]}, "ClientException", "Container.name"),
        ({"containerDefinitions": [sidecar(), sidecar()]}, "ClientException", "unique"),
        ({"containerDefinitions": [sidecar(essential=False)]}, "ClientException", "essential"),
        ({"containerDefinitions": [sidecar(healthCheck={"command": ["CMD", "x"], "interval": 4})]}, "ClientException", "interval"),
        ({"containerDefinitions": [sidecar(restartPolicy={"enabled": True, "restartAttemptPeriod": 59})]}, "ClientException", "restartAttemptPeriod"),
        ({"containerDefinitions": [sidecar(dependsOn=[{"containerName": "x", "condition": "START"}])]}, "ClientException", "dependsOn"),
        ({"containerDefinitions": [sidecar(mountPoints=[{"sourceVolume": "v", "containerPath": "/v"}])]}, "ClientException", "Unknown volume"),
        ({"volumes": [{"name": "v", "logDriverVolumeConfiguration": {"driver": "syslog"}}]}, "ClientException", "json-file"),
        ({"volumes": [{"name": "v", "host": {}, "logDriverVolumeConfiguration": {"driver": "json-file"}}]}, "ClientException", "both"),
        ({"volumes": [{"name": "v"}, {"name": "v"}]}, "ClientException", "unique"),
        ({"volumes": [{"name": "a b"}]}, "ClientException", "volumes.name"),
        ({"cpu": "x"}, "ClientException", "cpu"),
        ({"memory": "0"}, "ClientException", "memory"),
        ({"pidMode": "host"}, "InvalidParameterException", "pidMode"),
        ({"tags": [{"key": "aws:a", "value": "b"}]}, "InvalidParameterException", "aws:"),
    ],
)
def test_a_bad_definition_is_refused_by_name(ecs, members, code, word):
    request = {"family": unique("d"), "containerDefinitions": [sidecar()], **members}
    with refused(code, word):
        ecs.register_daemon_task_definition(**request)
    if members.get("family") is None:
        assert ecs.list_daemon_task_definitions(family=request["family"], status="ALL")["daemonTaskDefinitions"] == []


def test_definitions_that_are_not_there(ecs):
    for call in (ecs.describe_daemon_task_definition, ecs.delete_daemon_task_definition):
        with refused("ClientException"):
            call(daemonTaskDefinition="nobody:1")
        with refused("InvalidParameterException"):
            call(daemonTaskDefinition=f"{PREFIX}task-definition/nobody:1")
    with refused("InvalidParameterException", "revision number"):
        ecs.delete_daemon_task_definition(daemonTaskDefinition="nobody")


# -- daemons -----------------------------------------------------------------------------------------------------------------


def test_a_daemon_is_created_and_its_deployment_is_done_at_once(ecs, cluster, provider):
    name, wanted = unique("d"), define(ecs)
    made = create(
        ecs, cluster, provider, name, wanted, propagateTags="DAEMON", enableExecuteCommand=True, deploymentConfiguration={"drainPercent": 25.0}
    )
    assert made["daemonArn"] == f"{PREFIX}daemon/{cluster}/{name}" and made["status"] == "ACTIVE"
    wait(ecs, "daemon_active", daemonArn=made["daemonArn"])
    wait(ecs, "daemon_deployment_successful", daemonDeploymentArns=[made["deploymentArn"]])
    shown = ecs.describe_daemon(daemonArn=made["daemonArn"])["daemon"]
    assert (shown["status"], shown["deploymentArn"], shown["createdAt"]) == ("ACTIVE", made["deploymentArn"], made["createdAt"])
    assert shown["clusterArn"].endswith(f":cluster/{cluster}")
    (current,) = shown["currentRevisions"]
    assert (current["totalRunningCount"], current["totalWithoutDaemonCount"]) == (0, 0)
    assert current["capacityProviders"] == [{"arn": provider, "runningCount": 0, "withoutDaemonCount": 0}]
    found = deployment(ecs, made["deploymentArn"])
    assert (found["status"], found["sourceDaemonRevisions"], found["targetDaemonRevision"]["arn"]) == ("SUCCESSFUL", [], current["arn"])
    assert found["deploymentConfiguration"] == {"drainPercent": 25.0, "bakeTimeInMinutes": 0, "alarms": {"alarmNames": [], "enable": False}}
    assert found["finishedAt"] == found["startedAt"] and "stoppedAt" not in found and "Managed Instances" in found["statusReason"]
    snapshot = revision(ecs, current["arn"])
    assert (snapshot["daemonArn"], snapshot["daemonTaskDefinitionArn"]) == (made["daemonArn"], wanted)
    assert snapshot["containerImages"] == [{"containerName": "agent", "image": "hello:latest"}]
    flags = ("critical", "enableExecuteCommand", "enableECSManagedTags", "propagateTags")
    assert [snapshot[flag] for flag in flags] == [True, True, False, "DAEMON"]


def test_an_update_is_another_revision_and_deployment(ecs, cluster, provider):
    made = create(ecs, cluster, provider, deploymentConfiguration={"bakeTimeInMinutes": 60})
    daemon = made["daemonArn"]
    assert deployment(ecs, made["deploymentArn"])["status"] == "IN_PROGRESS", "the bake time runs"
    before = ecs.describe_daemon(daemonArn=daemon)["daemon"]["currentRevisions"][0]["arn"]
    other = define(ecs)
    changed = ecs.update_daemon(daemonArn=daemon, daemonTaskDefinitionArn=other, capacityProviderArns=[provider], critical=False)
    assert changed["updatedAt"] >= changed["createdAt"] == made["createdAt"]
    now = ecs.describe_daemon(daemonArn=daemon)["daemon"]
    after = now["currentRevisions"][0]["arn"]
    assert after != before and now["deploymentArn"] == changed["deploymentArn"] != made["deploymentArn"]
    assert revision(ecs, after)["daemonTaskDefinitionArn"] == other and revision(ecs, after)["critical"] is False
    assert revision(ecs, before)["critical"] is True, "a revision never changes"
    found = deployment(ecs, changed["deploymentArn"])
    assert [source["arn"] for source in found["sourceDaemonRevisions"]] == [before] and found["status"] == "SUCCESSFUL"
    stopped = deployment(ecs, made["deploymentArn"])
    assert stopped["status"] == "STOPPED" and "stoppedAt" in stopped and "finishedAt" not in stopped
    wait(ecs, "daemon_deployment_stopped", daemonDeploymentArns=[made["deploymentArn"]])

    def listed(**members):
        answer = ecs.list_daemon_deployments(daemonArn=daemon, **members)
        return [one["daemonDeploymentArn"] for one in answer["daemonDeployments"]]

    assert listed() == [changed["deploymentArn"], made["deploymentArn"]]
    assert listed(status=["STOPPED"]) == [made["deploymentArn"]] and listed(status=["PENDING"]) == []
    assert listed(createdAt={"before": made["createdAt"]}) == []
    assert len(listed(createdAt={"after": made["createdAt"] - datetime.timedelta(seconds=1)})) == 2
    first = ecs.list_daemon_deployments(daemonArn=daemon, maxResults=1)
    assert first["daemonDeployments"][0]["targetDaemonRevisionArn"] == after
    assert listed(maxResults=1, nextToken=first["nextToken"]) == [made["deploymentArn"]]
    for broken, word in [({"maxResults": 0}, "maxResults"), ({"nextToken": "x"}, "nextToken"), ({"status": ["DONE"]}, "status")]:
        with refused("InvalidParameterException", word):
            listed(**broken)
    with refused("InvalidParameterException", "createdAt"):
        listed(createdAt={"after": made["createdAt"], "before": made["createdAt"] - datetime.timedelta(days=1)})


def test_a_deleted_daemon_is_gone_and_its_name_free(ecs, cluster, provider):
    name = unique("d")
    made = create(ecs, cluster, provider, name)
    daemon = made["daemonArn"]
    with refused("ClientException", name):
        ecs.delete_capacity_provider(capacityProvider=provider, cluster=cluster)
    gone = ecs.delete_daemon(daemonArn=daemon)
    assert gone["status"] == "DELETE_IN_PROGRESS" and gone["deploymentArn"] != made["deploymentArn"]
    last = deployment(ecs, gone["deploymentArn"])
    assert last["status"] == "SUCCESSFUL" and "targetDaemonRevision" not in last and len(last["sourceDaemonRevisions"]) == 1
    with refused("DaemonNotFoundException"):
        ecs.describe_daemon(daemonArn=daemon)
    with refused("DaemonNotActiveException"):
        ecs.delete_daemon(daemonArn=daemon)
    with refused("DaemonNotActiveException"):
        ecs.update_daemon(daemonArn=daemon, daemonTaskDefinitionArn=define(ecs), capacityProviderArns=[provider])
    with refused("ResourceNotFoundException"):
        ecs.tag_resource(resourceArn=daemon, tags=[{"key": "a", "value": "b"}])
    assert ecs.list_daemons(clusterArn=cluster)["daemonSummariesList"] == []
    assert create(ecs, cluster, provider, name)["daemonArn"] == daemon
    assert len(ecs.list_daemon_deployments(daemonArn=daemon)["daemonDeployments"]) == 1, "nothing is left of the old one"
    ecs.delete_daemon(daemonArn=daemon)
    ecs.delete_capacity_provider(capacityProvider=provider, cluster=cluster)


def test_lists_of_daemons(ecs, cluster, provider):
    second = f"{PREFIX}capacity-provider/{managed(ecs, cluster)}"
    names = [unique("d") for _ in range(3)]
    arns = [create(ecs, cluster, provider, name)["daemonArn"] for name in names[:2]] + [create(ecs, cluster, second, names[2])["daemonArn"]]

    def listed(**members):
        return [one["daemonArn"] for one in ecs.list_daemons(clusterArn=cluster, **members)["daemonSummariesList"]]

    assert listed() == sorted(arns)
    assert listed(capacityProviderArns=[second]) == arns[2:] and listed(capacityProviderArns=[second, provider]) == sorted(arns)
    first = ecs.list_daemons(clusterArn=cluster, maxResults=2)
    assert {one["status"] for one in first["daemonSummariesList"]} == {"ACTIVE"}
    assert listed(maxResults=2, nextToken=first["nextToken"]) == sorted(arns)[2:]
    with refused("InvalidParameterException", "maxResults"):
        listed(maxResults=101)
    with refused("ClusterNotFoundException"):
        ecs.list_daemons(clusterArn="nobody")
    assert ecs.list_tasks(cluster=cluster, daemonName=names[0])["taskArns"] == []
    with refused("InvalidParameterException", "daemonName"):
        ecs.list_tasks(cluster=cluster, daemonName="a b")
    with refused("InvalidParameterException", "startedBy"):
        ecs.list_tasks(cluster=cluster, daemonName=names[0], startedBy="me")


def test_a_token_makes_a_creation_repeatable(ecs, cluster, provider):
    name, wanted, token = unique("d"), define(ecs), unique("t")
    made = create(ecs, cluster, provider, name, wanted, clientToken=token)
    again = create(ecs, cluster, provider, name, wanted, clientToken=token)
    assert {part: made[part] for part in ("daemonArn", "deploymentArn")} == {part: again[part] for part in ("daemonArn", "deploymentArn")}
    for other in ({"clientToken": unique("t")}, {}):
        with refused("InvalidParameterException", "idempotent"):
            create(ecs, cluster, provider, name, wanted, **other)


def test_tags_of_daemons_and_definitions(ecs, cluster, provider):
    tags = [{"key": "a", "value": "1"}]
    for arn in (create(ecs, cluster, provider, tags=tags)["daemonArn"], define(ecs, tags=tags)):
        assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == tags
        ecs.tag_resource(resourceArn=arn, tags=[{"key": "b", "value": "2"}])
        ecs.untag_resource(resourceArn=arn, tagKeys=["a"])
        assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "b", "value": "2"}]
        with refused("ResourceNotFoundException"):
            # Another daemon's name, another revision's number.
            ecs.tag_resource(resourceArn=arn + "1", tags=tags)


@pytest.mark.parametrize(
    "members, code, word",
    [
        ({"daemonName": "a b"}, "InvalidParameterException", "daemonName"),
        ({"daemonName": "x" * 256}, "InvalidParameterException", "daemonName"),
        ({"capacityProviderArns": []}, "InvalidParameterException", "capacityProviderArns"),
        ({"capacityProviderArns": ["nobody"]}, "InvalidParameterException", "capacityProviderArns"),
        ({"capacityProviderArns": ["FARGATE"]}, "InvalidParameterException", "Managed Instances"),
        ({"daemonTaskDefinitionArn": "nobody:1"}, "ClientException", "not found"),
        ({"daemonTaskDefinitionArn": f"{PREFIX}task-definition/x:1"}, "InvalidParameterException", "arn"),
        ({"deploymentConfiguration": {"drainPercent": 100.5}}, "InvalidParameterException", "drainPercent"),
        ({"deploymentConfiguration": {"bakeTimeInMinutes": -1}}, "InvalidParameterException", "bakeTimeInMinutes"),
        ({"deploymentConfiguration": {"alarms": {"enable": True, "alarmNames": ["a"]}}}, "UnsupportedFeatureException", "alarms"),
        ({"propagateTags": "SERVICE"}, "InvalidParameterException", "propagateTags"),
        ({"clientToken": "x" * 37}, "InvalidParameterException", "clientToken"),
        ({"clientToken": "a b"}, "InvalidParameterException", "clientToken"),
        ({"tags": [{"key": "aws:a", "value": "b"}]}, "InvalidParameterException", "aws:"),
        ({"clusterArn": "nobody"}, "ClusterNotFoundException", ""),
    ],
)
def test_a_bad_daemon_is_refused_by_name(ecs, cluster, provider, members, code, word):
    request = {"daemonName": unique("d"), "clusterArn": cluster, "daemonTaskDefinitionArn": define(ecs), "capacityProviderArns": [provider], **members}
    with refused(code, word):
        ecs.create_daemon(**request)
    assert ecs.list_daemons(clusterArn=cluster)["daemonSummariesList"] == []


def test_a_daemons_providers_are_managed_instances_of_its_cluster(ecs, cluster, provider):
    other = unique("c")
    ecs.create_cluster(clusterName=other)
    with refused("InvalidParameterException", "another cluster"):
        create(ecs, other, provider)
    with refused("InvalidParameterException", "Managed Instances"):
        create(ecs, cluster, group(ecs))
    with refused("InvalidParameterException", "more than once"):
        ecs.create_daemon(daemonName="d", clusterArn=cluster, daemonTaskDefinitionArn=define(ecs), capacityProviderArns=[provider, provider])
    with refused("InvalidParameterException", "20"):
        ecs.create_daemon(daemonName="d", clusterArn=cluster, daemonTaskDefinitionArn=define(ecs), capacityProviderArns=[f"p{n}" for n in range(21)])


def test_daemons_that_are_not_there(ecs, cluster, provider):
    nobody = f"{PREFIX}daemon/{cluster}/nobody"
    nowhere = f"{PREFIX}daemon/nowhere/nobody"
    update = {"daemonTaskDefinitionArn": define(ecs), "capacityProviderArns": [provider]}
    for call, more in ((ecs.describe_daemon, {}), (ecs.update_daemon, update), (ecs.delete_daemon, {})):
        with refused("DaemonNotFoundException"):
            call(daemonArn=nobody, **more)
        with refused("ClusterNotFoundException"):
            call(daemonArn=nowhere, **more)
        with refused("InvalidParameterException", "arn"):
            call(daemonArn="nobody", **more)
    with refused("InvalidParameterException", "daemonArn"):
        ecs.list_daemon_deployments(daemonArn=nobody)
    with refused("ClusterNotFoundException"):
        ecs.list_daemon_deployments(daemonArn=nowhere)
    for call, member, kind in (
        (ecs.describe_daemon_deployments, "daemonDeploymentArns", "daemon-deployment"),
        (ecs.describe_daemon_revisions, "daemonRevisionArns", "daemon-revision"),
    ):
        missing = f"{PREFIX}{kind}/{cluster}/nobody/{'0' * 32}"
        assert call(**{member: [missing]})["failures"] == [{"arn": missing, "reason": "MISSING"}]
        with refused("ClusterNotFoundException"):
            call(**{member: [missing.replace(cluster, "nowhere")]})
        for broken in ([], [missing] * 21):
            with refused("InvalidParameterException", member):
                call(**{member: broken})
        with refused("InvalidParameterException"):
            call(**{member: ["nobody"]})


def test_a_restart_keeps_everything(new_berth):
    berth = new_berth().start()
    ecs = berth.ecs
    ecs.create_cluster(clusterName="c")
    provider = f"{PREFIX}capacity-provider/{managed(ecs, 'c')}"
    wanted = define(ecs, "fluent")
    made = create(ecs, "c", provider, "logs", wanted, deploymentConfiguration={"bakeTimeInMinutes": 60})
    changed = ecs.update_daemon(daemonArn=made["daemonArn"], daemonTaskDefinitionArn=wanted, capacityProviderArns=[provider])

    def seen():
        shown = ecs.describe_daemon(daemonArn=made["daemonArn"])["daemon"]
        return (
            shown,
            revision(ecs, shown["currentRevisions"][0]["arn"]),
            [deployment(ecs, arn) for arn in (made["deploymentArn"], changed["deploymentArn"])],
            definition(ecs, wanted),
        )

    before = seen()
    berth.kill()
    ecs = berth.start().ecs
    assert seen() == before
    assert define(ecs, "fluent").endswith(":2"), "the family goes on counting"
