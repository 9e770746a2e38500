"""Service deployments and revisions: every deployment leaves a record that says how it went, and can be gone back on."""

import datetime
import os

import pytest

from berth import until
from containers import hello
from ecs_calls import container, describe, refused, register, service, tasks_of, texts, until_steady

ONGOING = {"PENDING", "IN_PROGRESS", "STOP_REQUESTED", "ROLLBACK_REQUESTED", "ROLLBACK_IN_PROGRESS"}


def create(ecs, cluster, count=1, name="web", **members):
    members.setdefault("taskDefinition", register(ecs))
    return ecs.create_service(cluster=cluster, serviceName=name, desiredCount=count, **members)["service"]


def briefs(ecs, cluster, name="web", **filters):
    return ecs.list_service_deployments(cluster=cluster, service=name, **filters)["serviceDeployments"]


def deployment(ecs, arn):
    answer = ecs.describe_service_deployments(serviceDeploymentArns=[arn])
    assert answer["failures"] == [], answer
    return answer["serviceDeployments"][0]


def revision(ecs, arn):
    answer = ecs.describe_service_revisions(serviceRevisionArns=[arn])
    assert answer["failures"] == [], answer
    return answer["serviceRevisions"][0]


def until_deployment(ecs, arn, status):
    """Waits until a service deployment has this status; another final one ends the wait."""

    def look():
        found = deployment(ecs, arn)
        assert found["status"] in {status, *ONGOING}, found
        return found if found["status"] == status else None

    return until(f"a service deployment to be {status}", look)


def current(ecs, cluster, name="web"):
    """The ARN of the service's current deployment."""
    return service(ecs, cluster, name)["currentServiceDeployment"]


def test_creation_records_a_deployment_and_a_revision(ecs, cluster, agents):
    agents(cluster)
    definition = register(ecs, containers=[container(), container("side", image="shell:1", essential=False)])
    made = create(ecs, cluster, count=2, taskDefinition=definition)
    prefix = "arn:aws:ecs:us-east-1:000000000000"
    arn = made["currentServiceDeployment"]
    assert arn.startswith(f"{prefix}:service-deployment/{cluster}/web/") and len(arn.rsplit("/", 1)[1]) == 21
    (summary,) = made["currentServiceRevisions"]
    assert summary["arn"].startswith(f"{prefix}:service-revision/{cluster}/web/") and summary["arn"].rsplit("/", 1)[1].isdigit()
    assert (summary["requestedTaskCount"], summary["runningTaskCount"], summary["pendingTaskCount"]) == (2, 0, 0)
    found = until_deployment(ecs, arn, "SUCCESSFUL")
    assert found["serviceArn"] == made["serviceArn"] and found["clusterArn"] == made["clusterArn"]
    assert found["sourceServiceRevisions"] == []
    target = found["targetServiceRevision"]
    assert target == {"arn": summary["arn"], "requestedTaskCount": 2, "runningTaskCount": 2, "pendingTaskCount": 0}
    assert found["createdAt"] <= found["startedAt"] <= found["finishedAt"] == found["updatedAt"]
    assert "stoppedAt" not in found and "rollback" not in found
    assert found["deploymentConfiguration"]["maximumPercent"] == 200
    assert (found["deploymentCircuitBreaker"]["status"], found["alarms"]["status"]) == ("DISABLED", "DISABLED")
    assert service(ecs, cluster, "web")["currentServiceDeployment"] == arn, "it stays the current one when it has ended"
    snapshot = revision(ecs, summary["arn"])
    assert (snapshot["serviceArn"], snapshot["clusterArn"]) == (made["serviceArn"], made["clusterArn"])
    assert (snapshot["taskDefinition"], snapshot["launchType"]) == (definition, "EC2")
    assert snapshot["containerImages"] == [
        {"containerName": "app", "image": "hello:latest"},
        {"containerName": "side", "image": "shell:1"},
    ]
    (brief,) = briefs(ecs, cluster)
    assert brief == {
        **{name: found[name] for name in ("serviceDeploymentArn", "serviceArn", "clusterArn", "createdAt", "startedAt", "finishedAt", "status")},
        "targetServiceRevisionArn": summary["arn"],
    }


def test_what_makes_a_deployment_and_what_does_not(ecs, cluster, agents):
    agents(cluster)
    create(ecs, cluster)
    first = current(ecs, cluster)
    until_deployment(ecs, first, "SUCCESSFUL")
    ecs.update_service(cluster=cluster, service="web", desiredCount=2)
    ecs.update_service(cluster=cluster, service="web", deploymentConfiguration={"maximumPercent": 150}, healthCheckGracePeriodSeconds=3)
    assert [one["serviceDeploymentArn"] for one in briefs(ecs, cluster)] == [first]
    until_steady(ecs, cluster, "web")
    arns = [first]
    for change in ({"forceNewDeployment": True}, {"taskDefinition": register(ecs)}, {"propagateTags": "SERVICE"}):
        arns.insert(0, ecs.update_service(cluster=cluster, service="web", **change)["service"]["currentServiceDeployment"])
        until_deployment(ecs, arns[0], "SUCCESSFUL")
    found = briefs(ecs, cluster)
    assert [one["serviceDeploymentArn"] for one in found] == arns, "newest first"
    assert len({one["targetServiceRevisionArn"] for one in found}) == 4, "each has a revision of its own"
    last = deployment(ecs, arns[0])
    assert [source["arn"] for source in last["sourceServiceRevisions"]] == [found[1]["targetServiceRevisionArn"]]
    assert last["sourceServiceRevisions"][0]["runningTaskCount"] == 0, "counted when it ended"
    assert deployment(ecs, first)["targetServiceRevision"]["runningTaskCount"] == 1, "as it was then, before the scale-out"
    assert last["deploymentConfiguration"]["maximumPercent"] == 150


def test_a_newer_deployment_stops_the_one_before(ecs, cluster, agents):
    agent = agents(cluster)
    create(ecs, cluster)
    until_steady(ecs, cluster, "web")
    agent.runs = False
    second = ecs.update_service(cluster=cluster, service="web", forceNewDeployment=True)["service"]
    going = until_deployment(ecs, second["currentServiceDeployment"], "IN_PROGRESS")
    assert "finishedAt" not in going
    until("its task to be pending", lambda: deployment(ecs, second["currentServiceDeployment"])["targetServiceRevision"]["pendingTaskCount"] == 1)
    agent.runs = True
    third = ecs.update_service(cluster=cluster, service="web", forceNewDeployment=True)["service"]
    assert len(third["currentServiceRevisions"]) == 3
    stopped = until_deployment(ecs, second["currentServiceDeployment"], "STOPPED")
    assert stopped["stoppedAt"] == stopped["finishedAt"] and stopped["statusReason"]
    found = until_deployment(ecs, third["currentServiceDeployment"], "SUCCESSFUL")
    assert len(found["sourceServiceRevisions"]) == 2, "both older revisions had deployments"
    assert [one["status"] for one in briefs(ecs, cluster)] == ["SUCCESSFUL", "STOPPED", "SUCCESSFUL"]


def test_a_rollback_brings_the_earlier_revision_back_and_makes_none(ecs, cluster, agents):
    agent = agents(cluster)
    good = register(ecs)
    create(ecs, cluster, count=2, taskDefinition=good)
    until_deployment(ecs, current(ecs, cluster), "SUCCESSFUL")
    before = service(ecs, cluster, "web")
    agent.runs = False
    bad = register(ecs)
    changed = ecs.update_service(
        cluster=cluster, service="web", taskDefinition=bad, placementStrategy=[{"type": "random"}], enableExecuteCommand=True, healthCheckGracePeriodSeconds=7
    )["service"]
    arn = changed["currentServiceDeployment"]
    until_deployment(ecs, arn, "IN_PROGRESS")
    agent.stops = False
    assert ecs.stop_service_deployment(serviceDeploymentArn=arn)["serviceDeploymentArn"] == arn
    found = until("the way back", lambda: (one := deployment(ecs, arn))["status"] == "ROLLBACK_IN_PROGRESS" and one)
    assert found["rollback"]["serviceRevisionArn"] == before["currentServiceRevisions"][0]["arn"]
    assert found["rollback"]["reason"] == found["statusReason"] and found["rollback"]["startedAt"] >= found["createdAt"]
    going = service(ecs, cluster, "web")
    assert going["taskDefinition"] == good
    ids = [one["id"] for one in going["deployments"]]
    assert len(set(ids) - {changed["deployments"][0]["id"], before["deployments"][0]["id"]}) == 1, "a deployment of its own"
    ecs.stop_service_deployment(serviceDeploymentArn=arn, stopType="ROLLBACK")
    agent.runs = agent.stops = True
    for task in tasks_of(ecs, cluster, serviceName="web", desiredStatus="STOPPED"):
        if describe(ecs, cluster, task)["lastStatus"] != "STOPPED":
            agent.wait_for_task(task, "STOPPED")
            agent.report(task, "STOPPED")
    done = until_deployment(ecs, arn, "ROLLBACK_SUCCESSFUL")
    assert done["finishedAt"] >= done["rollback"]["startedAt"]
    after = until_steady(ecs, cluster, "web")
    assert (after["taskDefinition"], after["currentServiceDeployment"]) == (good, arn)
    assert [one["arn"] for one in after["currentServiceRevisions"]] == [before["currentServiceRevisions"][0]["arn"]]
    assert after["enableExecuteCommand"] is False
    assert (after["healthCheckGracePeriodSeconds"], after["placementStrategy"]) == (7, [{"type": "random"}]), "what needs no deployment is not gone back on"
    assert any("rolling back to deployment ecs-svc/" in text for text in texts(after))
    assert all(describe(ecs, cluster, task)["taskDefinitionArn"] == good for task in tasks_of(ecs, cluster, serviceName="web"))
    assert len(briefs(ecs, cluster)) == 2, "the rollback is part of its deployment"
    with refused("ConflictException", "ROLLBACK_SUCCESSFUL"):
        ecs.stop_service_deployment(serviceDeploymentArn=arn)


def test_a_rollback_skips_revisions_that_never_came_out(ecs, cluster, agents):
    agent = agents(cluster)
    good = create(ecs, cluster)["currentServiceRevisions"][0]["arn"]
    until_steady(ecs, cluster, "web")
    agent.runs = False
    ecs.update_service(cluster=cluster, service="web", forceNewDeployment=True)
    arn = ecs.update_service(cluster=cluster, service="web", forceNewDeployment=True)["service"]["currentServiceDeployment"]
    ecs.stop_service_deployment(serviceDeploymentArn=arn)
    found = until("the way back", lambda: deployment(ecs, arn).get("rollback"))
    assert found["serviceRevisionArn"] == good


def test_without_an_earlier_revision_a_rollback_fails_and_nothing_more_starts(ecs, cluster, agents):
    agent = agents(cluster, runs=False)
    arn = create(ecs, cluster)["currentServiceDeployment"]
    (task,) = until("a task", lambda: tasks_of(ecs, cluster, serviceName="web"))
    ecs.stop_service_deployment(serviceDeploymentArn=arn)
    found = until_deployment(ecs, arn, "ROLLBACK_FAILED")
    assert found["statusReason"] == "No rollback candidate was found to run the rollback."
    assert found["finishedAt"] and "serviceRevisionArn" not in found["rollback"]
    assert service(ecs, cluster, "web")["deployments"][0]["rolloutState"] == "FAILED"
    agent.wait_for_task(task, "RUNNING")
    agent.report(task, "STOPPED", containers=[{"containerName": "app", "status": "STOPPED", "reason": "no"}])
    until("the task to have failed", lambda: service(ecs, cluster, "web")["deployments"][0]["failedTasks"] == 1)
    assert tasks_of(ecs, cluster, serviceName="web") == []
    agent.runs = True
    ecs.update_service(cluster=cluster, service="web", forceNewDeployment=True)
    until_steady(ecs, cluster, "web")


def test_finished_deployments_and_unknown_ones_cannot_be_stopped_or_continued(ecs, cluster, agents):
    agents(cluster)
    arn = create(ecs, cluster)["currentServiceDeployment"]
    until_deployment(ecs, arn, "SUCCESSFUL")
    with refused("ConflictException", "SUCCESSFUL"):
        ecs.stop_service_deployment(serviceDeploymentArn=arn)
    with refused("InvalidParameterException", "stopType", "ABORT"):
        ecs.stop_service_deployment(serviceDeploymentArn=arn, stopType="ABORT")
    with refused("InvalidParameterException", "hookId"):
        ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId="ecs-pause-1", action="CONTINUE")
    with refused("InvalidParameterException", "action"):
        ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId="ecs-pause-1", action="PERHAPS")
    nobody = arn.rsplit("/", 1)[0] + "/" + "A" * 21
    for call in (
        lambda arn: ecs.stop_service_deployment(serviceDeploymentArn=arn),
        lambda arn: ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId="ecs-pause-1"),
    ):
        with refused("ServiceDeploymentNotFoundException"):
            call(nobody)
        for wrong in ("web", arn[:-1], arn.replace("service-deployment", "service-revision"), arn.replace("us-east-1", "eu-west-1")):
            with refused("InvalidParameterException"):
                call(wrong)


def test_lists_are_paged_and_filtered(ecs, cluster):
    create(ecs, cluster, count=0)
    arns = [current(ecs, cluster)]
    until_deployment(ecs, arns[0], "SUCCESSFUL")
    for _ in range(24):
        arns.insert(0, ecs.update_service(cluster=cluster, service="web", forceNewDeployment=True)["service"]["currentServiceDeployment"])
        until_deployment(ecs, arns[0], "SUCCESSFUL")
    answer = ecs.list_service_deployments(cluster=cluster, service="web")
    assert [one["serviceDeploymentArn"] for one in answer["serviceDeployments"]] == arns[:20], "twenty unless told otherwise"
    rest = ecs.list_service_deployments(cluster=cluster, service="web", nextToken=answer["nextToken"])
    assert [one["serviceDeploymentArn"] for one in rest["serviceDeployments"]] == arns[20:] and "nextToken" not in rest
    walked, token = [], {}
    while True:
        page = ecs.list_service_deployments(cluster=cluster, service="web", maxResults=7, **token)
        walked += [one["serviceDeploymentArn"] for one in page["serviceDeployments"]]
        if "nextToken" not in page:
            break
        token = {"nextToken": page["nextToken"]}
    assert walked == arns
    everything = briefs(ecs, cluster, maxResults=100)
    middle = everything[10]["createdAt"]
    newer = [one["serviceDeploymentArn"] for one in everything if one["createdAt"] > middle]
    older = [one["serviceDeploymentArn"] for one in everything if one["createdAt"] < middle]
    assert [one["serviceDeploymentArn"] for one in briefs(ecs, cluster, maxResults=100, createdAt={"after": middle})] == newer
    assert [one["serviceDeploymentArn"] for one in briefs(ecs, cluster, maxResults=100, createdAt={"before": middle})] == older
    hour = datetime.timedelta(hours=1)
    assert briefs(ecs, cluster, createdAt={"after": middle + hour}) == []
    assert briefs(ecs, cluster, status=["IN_PROGRESS", "STOPPED"]) == []
    assert len(briefs(ecs, cluster, status=["STOPPED", "SUCCESSFUL"], maxResults=100)) == 25
    name = service(ecs, cluster, "web")["serviceArn"]
    assert len(briefs(ecs, cluster, name=name)) == 20, "a service by its ARN"
    with refused("InvalidParameterException", "maxResults"):
        briefs(ecs, cluster, maxResults=101)
    with refused("InvalidParameterException", "maxResults"):
        briefs(ecs, cluster, maxResults=0)
    with refused("InvalidParameterException", "nextToken"):
        briefs(ecs, cluster, nextToken="x")
    with refused("InvalidParameterException", "status"):
        briefs(ecs, cluster, status=["DONE"])
    with refused("ServiceNotFoundException"):
        briefs(ecs, cluster, name="nobody")
    with refused("ClusterNotFoundException"):
        briefs(ecs, "nobody")
    answer = ecs.describe_service_deployments(serviceDeploymentArns=arns[:20])
    assert [one["serviceDeploymentArn"] for one in answer["serviceDeployments"]] == arns[:20]


def test_a_hundred_deployments_are_kept_with_the_revisions_that_they_name(ecs, cluster):
    made = create(ecs, cluster, count=0)
    first, first_revision = made["currentServiceDeployment"], made["currentServiceRevisions"][0]["arn"]
    until_deployment(ecs, first, "SUCCESSFUL")
    for _ in range(102):
        last = ecs.update_service(cluster=cluster, service="web", forceNewDeployment=True)["service"]["currentServiceDeployment"]
    until_deployment(ecs, last, "SUCCESSFUL")
    found = briefs(ecs, cluster, maxResults=100)
    assert len(found) == 100 and found[0]["serviceDeploymentArn"] == last
    assert ecs.describe_service_deployments(serviceDeploymentArns=[first])["failures"][0]["reason"] == "MISSING"
    oldest = found[-1]["targetServiceRevisionArn"]
    answer = ecs.describe_service_revisions(serviceRevisionArns=[oldest, first_revision])
    assert [one["serviceRevisionArn"] for one in answer["serviceRevisions"]] == [oldest]
    assert answer["failures"] == [{"arn": first_revision, "reason": "MISSING"}]
    ecs.delete_service(cluster=cluster, service="web")
    until("the service to be gone", lambda: service(ecs, cluster, "web")["status"] == "INACTIVE")


@pytest.mark.parametrize(
    ("call", "member"),
    [("describe_service_deployments", "serviceDeploymentArns"), ("describe_service_revisions", "serviceRevisionArns")],
)
def test_describing_is_bounded_and_names_what_is_not_there(ecs, cluster, call, member):
    describe_them = getattr(ecs, call)
    with refused("InvalidParameterException", member):
        describe_them(**{member: []})
    kind = "service-deployment" if "Deployment" in member else "service-revision"
    arn = f"arn:aws:ecs:us-east-1:000000000000:{kind}/{cluster}/web/" + ("A" * 21 if "Deployment" in member else "1" * 19)
    with refused("InvalidParameterException", member, "20"):
        describe_them(**{member: [arn] * 21})
    assert describe_them(**{member: [arn]})["failures"] == [{"arn": arn, "reason": "MISSING"}]
    for wrong in ("web", arn.replace(kind, "service"), arn.replace("000000000000", "111111111111"), arn.rsplit("/", 1)[0]):
        with refused("InvalidParameterException"):
            describe_them(**{member: [wrong]})


def test_the_history_ends_with_the_service(ecs, cluster, agents):
    agents(cluster)
    made = create(ecs, cluster)
    arn, snapshot = made["currentServiceDeployment"], made["currentServiceRevisions"][0]["arn"]
    until_deployment(ecs, arn, "SUCCESSFUL")
    ecs.delete_service(cluster=cluster, service="web", force=True)
    until("the service to be gone", lambda: service(ecs, cluster, "web")["status"] == "INACTIVE")
    assert ecs.describe_service_deployments(serviceDeploymentArns=[arn])["failures"] == [{"arn": arn, "reason": "MISSING"}]
    assert ecs.describe_service_revisions(serviceRevisionArns=[snapshot])["failures"] == [{"arn": snapshot, "reason": "MISSING"}]
    with refused("ServiceNotFoundException"):
        briefs(ecs, cluster)
    with refused("ServiceDeploymentNotFoundException"):
        ecs.stop_service_deployment(serviceDeploymentArn=arn)
    again = create(ecs, cluster)
    assert [one["serviceDeploymentArn"] for one in briefs(ecs, cluster)] == [again["currentServiceDeployment"]]
    assert len(again["currentServiceRevisions"]) == 1


def test_a_digest_is_what_the_first_task_told(ecs, cluster, agents):
    agent = agents(cluster, runs=False)
    snapshot = create(ecs, cluster, count=2)["currentServiceRevisions"][0]["arn"]
    tasks = until("both tasks", lambda: len(found := tasks_of(ecs, cluster, serviceName="web")) == 2 and found)
    digests = ["sha256:" + digit * 64 for digit in "ab"]
    for task, digest in zip(tasks, digests, strict=True):
        agent.wait_for_task(task, "RUNNING")
        agent.report(task, "RUNNING", containers=[{"containerName": "app", "status": "RUNNING", "imageDigest": digest}])
        until("a digest", lambda: "imageDigest" in revision(ecs, snapshot)["containerImages"][0])
    until_steady(ecs, cluster, "web")
    assert revision(ecs, snapshot)["containerImages"] == [{"containerName": "app", "image": "hello:latest", "imageDigest": digests[0]}]


def test_a_restart_keeps_the_history_and_goes_on_with_a_rollback(new_berth):
    berth = new_berth("server")
    berth.start()
    ecs = berth.ecs
    ecs.create_cluster(clusterName="c")
    create(ecs, "c", count=0)
    first = until_deployment(ecs, current(ecs, "c"), "SUCCESSFUL")
    arn = ecs.update_service(cluster="c", service="web", desiredCount=1, forceNewDeployment=True)["service"]["currentServiceDeployment"]
    until_deployment(ecs, arn, "IN_PROGRESS")
    ecs.stop_service_deployment(serviceDeploymentArn=arn)
    until("the way back", lambda: deployment(ecs, arn)["status"] == "ROLLBACK_IN_PROGRESS")
    kept = [revision(ecs, one["targetServiceRevisionArn"]) for one in briefs(ecs, "c")]
    berth.kill()
    berth.start()
    ecs = berth.ecs
    assert deployment(ecs, first["serviceDeploymentArn"]) == first
    assert [revision(ecs, one["targetServiceRevisionArn"]) for one in briefs(ecs, "c")] == kept
    ecs.update_service(cluster="c", service="web", desiredCount=0)
    found = until_deployment(ecs, arn, "ROLLBACK_SUCCESSFUL")
    assert found["rollback"]["serviceRevisionArn"] == first["targetServiceRevision"]["arn"]


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED (needs root): real containers need namespaces, mounts and cgroups")
def test_real_tasks_tell_their_images_digest(up):
    definition = register(up.ecs, containers=[hello(ports=())])
    made = create(up.ecs, "default", name="digests", taskDefinition=definition)
    until_steady(up.ecs, "default", "digests")
    (task,) = tasks_of(up.ecs, "default", serviceName="digests")
    told = describe(up.ecs, "default", task)["containers"][0]["imageDigest"]
    assert told.startswith("sha256:")
    (image,) = revision(up.ecs, made["currentServiceRevisions"][0]["arn"])["containerImages"]
    assert image == {"containerName": "web", "image": "hello:latest", "imageDigest": told}
    up.ecs.delete_service(cluster="default", service="digests", force=True)
    until("the service to be gone", lambda: service(up.ecs, "default", "digests")["status"] == "INACTIVE")
