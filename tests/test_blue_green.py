"""Blue/green, linear and canary deployments: both revisions whole until the last stage, hooks, pauses, bake times, and the way back.

A minute of the server's takes a tenth of a second where nothing has to be seen before it ends, and ten minutes where everything has.
"""

import json
import threading

import pytest

from berth import Berth, unique, until
from ecs_calls import describe, refused, register, service, tasks_of, texts, until_steady
from hook_server import HookServer
from test_service_deployments import create, deployment, until_deployment

ROLE = "arn:aws:iam::000000000000:role/hooks"
FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:"
BAKED = {"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 5}
# Seconds of a minute that is longer than any test.
SLOW = "600"


@pytest.fixture(scope="module")
def hooks():
    server = HookServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """A command that answers SUCCEEDED, and keeps what it was sent."""
    folder = tmp_path_factory.mktemp("hook")
    path = folder / "hook.sh"
    path.write_text(f"#!/bin/sh\ncat > {folder}/event\nenv > {folder}/env\necho '{{\"hookStatus\": \"SUCCEEDED\"}}'\n")
    path.chmod(0o755)
    return path


def settings(hooks, script, minute):
    return ["--deployment-minute", minute, "--hook", f"check={hooks.url('/check')}", "--hook", f"script=command:{script}"]


@pytest.fixture(scope="module")
def server(hooks, script):
    berth = Berth("server", healthy_after=0.2, arguments=settings(hooks, script, "0.1"))
    try:
        yield berth.start()
    finally:
        berth.end()


@pytest.fixture(scope="module")
def slow(hooks, script):
    """A server whose bake times and timeouts never end by themselves."""
    berth = Berth("server", healthy_after=0.2, arguments=settings(hooks, script, SLOW))
    try:
        yield berth.start()
    finally:
        berth.end()


@pytest.fixture
def quiet(slow, agents):
    """(ECS client, cluster) of that server, with an agent."""
    name = unique("c")
    slow.ecs.create_cluster(clusterName=name)
    agents(name, berth=slow)
    return slow.ecs, name


def first(ecs, cluster, count=2, **configuration):
    """A service whose first deployment is over; gives what it was."""
    made = create(ecs, cluster, count=count, deploymentConfiguration={**BAKED, **configuration})
    until_deployment(ecs, made["currentServiceDeployment"], "SUCCESSFUL")
    return made


def deploy(ecs, cluster, **members):
    """Begins another; gives its ARN."""
    members.setdefault("taskDefinition", register(ecs))
    return ecs.update_service(cluster=cluster, service="web", **members)["service"]["currentServiceDeployment"]


def until_stage(ecs, arn, stage):
    def look():
        found = deployment(ecs, arn)
        assert found["status"] in ("PENDING", "IN_PROGRESS"), found
        return found["lifecycleStage"] == stage and found

    return until(f"stage {stage}", look)


def waiting(ecs, arn, status="AWAITING_ACTION"):
    """The pause that is waited for, once there is one; or a hook of another status."""

    def look():
        return next((hook for hook in deployment(ecs, arn)["lifecycleHookDetails"] if hook["status"] == status), None)

    return until(f"a hook that is {status}", look)


def weights(found):
    names = ("requestedTestTrafficWeight", "requestedProductionTrafficWeight")
    (source,) = found["sourceServiceRevisions"]
    return tuple(found["targetServiceRevision"][name] for name in names), tuple(source[name] for name in names)


def pause(*stages, **members):
    return {"targetType": "PAUSE", "lifecycleStages": list(stages), **members}


def function(name, *stages, **members):
    return {"targetType": "AWS_LAMBDA", "hookTargetArn": FUNCTION + name, "roleArn": ROLE, "lifecycleStages": list(stages), **members}


def test_both_revisions_are_whole_until_blue_is_cleaned_up(quiet):
    ecs, cluster = quiet
    made = first(ecs, cluster, maximumPercent=100, lifecycleHooks=[])
    blue = set(tasks_of(ecs, cluster, serviceName="web"))
    arn = deploy(ecs, cluster)
    found = until_stage(ecs, arn, "BAKE_TIME")
    green = set(tasks_of(ecs, cluster, serviceName="web")) - blue
    assert len(green) == 2 and blue <= set(tasks_of(ecs, cluster, serviceName="web")), "maximumPercent is for rolling updates"
    assert weights(found) == ((100.0, 100.0), (0.0, 0.0))
    counts = lambda one: (one["requestedTaskCount"], one["runningTaskCount"])  # noqa: E731
    assert counts(found["targetServiceRevision"]) == (2, 2) and counts(found["sourceServiceRevisions"][0]) == (2, 2)
    assert found["sourceServiceRevisions"][0]["arn"] == made["currentServiceRevisions"][0]["arn"]
    shown = service(ecs, cluster, "web")
    assert [(one["status"], one["rolloutState"]) for one in shown["deployments"]] == [("PRIMARY", "IN_PROGRESS"), ("ACTIVE", "COMPLETED")]
    assert shown["runningCount"] == 4 and shown["currentServiceDeployment"] == arn
    # What dies is replaced in its own revision, and a new count is both's.
    ecs.stop_task(cluster=cluster, task=sorted(blue)[0])
    until("blue to be whole again", lambda: deployment(ecs, arn)["sourceServiceRevisions"][0]["runningTaskCount"] == 2)
    ecs.update_service(cluster=cluster, service="web", desiredCount=3)
    until("three each", lambda: service(ecs, cluster, "web")["runningCount"] == 6)
    found = deployment(ecs, arn)
    assert counts(found["targetServiceRevision"]) == (3, 3) and counts(found["sourceServiceRevisions"][0]) == (3, 3)
    assert found["status"] == "IN_PROGRESS" and found["lifecycleStage"] == "BAKE_TIME"
    blue_definition = describe(ecs, cluster, sorted(blue)[1])["taskDefinitionArn"]
    ran = [describe(ecs, cluster, task)["taskDefinitionArn"] for task in tasks_of(ecs, cluster, serviceName="web")]
    assert ran.count(blue_definition) == 3


def test_a_deployment_bakes_and_cleans_up(server, ecs, cluster, agents):
    agents(cluster)
    first(ecs, cluster)
    blue = set(tasks_of(ecs, cluster, serviceName="web"))
    definition = register(ecs)
    found = until_deployment(ecs, deploy(ecs, cluster, taskDefinition=definition), "SUCCESSFUL")
    assert found["lifecycleStage"] == "CLEAN_UP" and found["lifecycleHookDetails"] == []
    assert weights(found) == ((100.0, 100.0), (0.0, 0.0))
    assert found["deploymentConfiguration"]["strategy"] == "BLUE_GREEN" and found["deploymentConfiguration"]["bakeTimeInMinutes"] == 5
    shown = until_steady(ecs, cluster, "web")
    live = set(tasks_of(ecs, cluster, serviceName="web"))
    assert len(live) == 2 and not live & blue and shown["taskDefinition"] == definition
    said = texts(shown)
    assert any("deployment completed." in text for text in said) and said[0].endswith("has reached a steady state.")


def test_a_strategy_counts_from_the_next_deployment_on(server, ecs, cluster, agents):
    agents(cluster)
    made = create(ecs, cluster, count=1)
    assert made["deploymentConfiguration"]["strategy"] == "ROLLING"
    until_deployment(ecs, made["currentServiceDeployment"], "SUCCESSFUL")
    shown = ecs.update_service(cluster=cluster, service="web", deploymentConfiguration={"strategy": "CANARY", "bakeTimeInMinutes": 0})["service"]
    assert shown["deploymentConfiguration"]["canaryConfiguration"] == {"canaryPercent": 5.0, "canaryBakeTimeInMinutes": 10}
    assert shown["currentServiceDeployment"] == made["currentServiceDeployment"], "it begins none"
    found = until_deployment(ecs, deploy(ecs, cluster), "SUCCESSFUL")
    assert found["deploymentConfiguration"]["strategy"] == "CANARY" and found["lifecycleStage"] == "CLEAN_UP"
    ecs.update_service(cluster=cluster, service="web", deploymentConfiguration={"strategy": "ROLLING"})
    found = until_deployment(ecs, deploy(ecs, cluster), "SUCCESSFUL")
    assert "lifecycleStage" not in found and "canaryConfiguration" not in found["deploymentConfiguration"]


def test_hooks_are_told_what_ecs_tells_them(server, ecs, cluster, agents, hooks, script):
    agents(cluster)
    stages = ["PRE_SCALE_UP", "POST_SCALE_UP", "TEST_TRAFFIC_SHIFT", "POST_TEST_TRAFFIC_SHIFT", "PRE_PRODUCTION_TRAFFIC_SHIFT"]
    stages += ["PRODUCTION_TRAFFIC_SHIFT", "POST_PRODUCTION_TRAFFIC_SHIFT"]
    made = first(ecs, cluster, count=1)
    url = hooks.url("/" + cluster)
    configured = [
        {"hookTargetArn": url, "lifecycleStages": stages, "hookDetails": {"bucket": "b"}},
        function("script", "POST_SCALE_UP"),
        function("check:live", "POST_SCALE_UP"),
    ]
    shown = ecs.update_service(cluster=cluster, service="web", deploymentConfiguration={"lifecycleHooks": configured})["service"]
    hook = shown["deploymentConfiguration"]["lifecycleHooks"][0]
    assert hook["targetType"] == "AWS_LAMBDA" and hook["timeoutConfiguration"] == {"timeoutInMinutes": 1440, "action": "ROLLBACK"}
    hooks.say("/" + cluster, {"hookStatus": "IN_PROGRESS", "callBackDelay": 1, "hookDetails": {"seen": 1}}, {"hookStatus": "SUCCEEDED"})
    arn = deploy(ecs, cluster)
    found = until_deployment(ecs, arn, "SUCCESSFUL")
    events = hooks.events("/" + cluster)
    assert [event["lifecycleStage"] for event in events] == ["PRE_SCALE_UP", *stages]
    again, once_more = events[:2]
    assert again["executionId"] == once_more["executionId"] and once_more["hookDetails"] == {"bucket": "b", "seen": 1}
    green, blue = found["targetServiceRevision"]["arn"], made["currentServiceRevisions"][0]["arn"]
    assert again == {
        "executionId": again["executionId"], "lifecycleStage": "PRE_SCALE_UP", "resourceArn": arn, "hookDetails": {"bucket": "b"},
        "executionDetails": {
            "serviceArn": made["serviceArn"], "targetServiceRevisionArn": green, "testTrafficWeights": {}, "productionTrafficWeights": {},
        },
    }  # fmt: skip
    told = {event["lifecycleStage"]: event["executionDetails"] for event in events}
    assert told["TEST_TRAFFIC_SHIFT"]["testTrafficWeights"] == {green: 100, blue: 0}
    assert told["PRE_PRODUCTION_TRAFFIC_SHIFT"]["productionTrafficWeights"] == {green: 0, blue: 100}
    assert told["PRODUCTION_TRAFFIC_SHIFT"]["productionTrafficWeights"] == {green: 100, blue: 0}
    assert told["POST_PRODUCTION_TRAFFIC_SHIFT"]["productionTrafficWeights"] == {}
    details = found["lifecycleHookDetails"]
    assert len(details) == 9 and {one["status"] for one in details} == {"SUCCEEDED"} and len({one["hookId"] for one in details}) == 9
    assert {one["targetArn"] for one in details} == {url, FUNCTION + "script", FUNCTION + "check:live"}
    assert hooks.events("/check", made["serviceArn"])[0]["lifecycleStage"] == "POST_SCALE_UP"
    assert '"POST_SCALE_UP"' in (script.parent / "event").read_text()
    assert "BERTH_" not in (script.parent / "env").read_text()


@pytest.mark.parametrize(
    ("answer", "word"),
    [({"hookStatus": "FAILED"}, "FAILED"), ({}, "hookStatus"), (b"x", "JSON"), (500, "500"), (b" " * 20000, "larger")],
    ids=["failed", "nothing", "nonsense", "error", "large"],
)
def test_a_hook_that_does_not_succeed_sends_it_back(server, ecs, cluster, agents, hooks, answer, word):
    agents(cluster)
    made = first(ecs, cluster)
    blue = set(tasks_of(ecs, cluster, serviceName="web"))
    hooks.say("/" + cluster, answer)
    url = hooks.url("/" + cluster)
    arn = deploy(ecs, cluster, deploymentConfiguration={"lifecycleHooks": [{"hookTargetArn": url, "lifecycleStages": ["POST_TEST_TRAFFIC_SHIFT"]}]})
    found = until_deployment(ecs, arn, "ROLLBACK_SUCCESSFUL")
    assert word in found["rollback"]["reason"] and "lifecycle hook" in found["statusReason"]
    assert found["rollback"]["serviceRevisionArn"] == made["currentServiceRevisions"][0]["arn"]
    assert found["lifecycleHookDetails"][0]["status"] == "FAILED"
    shown = until_steady(ecs, cluster, "web")
    assert set(tasks_of(ecs, cluster, serviceName="web")) == blue and shown["taskDefinition"] == made["taskDefinition"]
    assert shown["currentServiceDeployment"] == arn and len(shown["currentServiceRevisions"]) == 1
    assert any("rolling back" in text for text in texts(shown))


def test_a_hook_that_nobody_answers_fails_and_one_that_takes_too_long_times_out(server, ecs, cluster, agents, hooks):
    agents(cluster)
    first(ecs, cluster, count=1)
    gone = HookServer()
    url = gone.url("/")
    gone.close()
    target = {"hookTargetArn": url, "lifecycleStages": ["PRE_SCALE_UP"]}
    found = until_deployment(ecs, deploy(ecs, cluster, deploymentConfiguration={"lifecycleHooks": [target]}), "ROLLBACK_SUCCESSFUL")
    assert "cannot be reached" in found["rollback"]["reason"]
    hooks.say("/" + cluster, {"hookStatus": "IN_PROGRESS"})
    target = {"hookTargetArn": hooks.url("/" + cluster), "lifecycleStages": ["PRE_SCALE_UP"], "timeoutConfiguration": {"timeoutInMinutes": 10}}
    found = until_deployment(ecs, deploy(ecs, cluster, deploymentConfiguration={"lifecycleHooks": [target]}), "ROLLBACK_SUCCESSFUL")
    assert "timed out" in found["rollback"]["reason"] and found["lifecycleHookDetails"][0]["status"] == "TIMED_OUT"
    target["timeoutConfiguration"]["action"] = "CONTINUE"
    found = until_deployment(ecs, deploy(ecs, cluster, deploymentConfiguration={"lifecycleHooks": [target]}), "SUCCESSFUL")
    assert [(one["status"], one["timeoutAction"]) for one in found["lifecycleHookDetails"]] == [("TIMED_OUT", "CONTINUE")]


def test_a_pause_waits_for_continue(quiet):
    ecs, cluster = quiet
    first(ecs, cluster, count=1)
    arn = deploy(ecs, cluster, deploymentConfiguration={"bakeTimeInMinutes": 0, "lifecycleHooks": [pause("PRE_SCALE_UP", "POST_TEST_TRAFFIC_SHIFT")]})
    hook = waiting(ecs, arn)
    found = deployment(ecs, arn)
    assert (found["status"], found["lifecycleStage"]) == ("IN_PROGRESS", "PRE_SCALE_UP") and weights(found) == ((0.0, 0.0), (100.0, 100.0))
    assert hook["hookId"].startswith("ecs-pause-") and len(hook["hookId"]) == 53 and "targetArn" not in hook
    assert (hook["targetType"], hook["status"], hook["timeoutAction"]) == ("PAUSE", "AWAITING_ACTION", "ROLLBACK")
    assert hook["expiresAt"] > found["updatedAt"]
    assert len(tasks_of(ecs, cluster, serviceName="web")) == 1, "green has not started"
    with refused("InvalidParameterException", "hookId", "AWAITING_ACTION"):
        ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId="ecs-pause-other")
    answer = ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"])
    assert answer["serviceDeploymentArn"] == arn, "CONTINUE unless told otherwise"
    with refused("InvalidParameterException", "hookId", "AWAITING_ACTION"):
        ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"])
    found = until_stage(ecs, arn, "POST_TEST_TRAFFIC_SHIFT")
    assert weights(found) == ((100.0, 0.0), (0.0, 100.0))
    ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=waiting(ecs, arn)["hookId"], action="CONTINUE")
    found = until_deployment(ecs, arn, "SUCCESSFUL")
    assert [one["status"] for one in found["lifecycleHookDetails"]] == ["SUCCEEDED", "SUCCEEDED"]


def test_a_pause_can_be_ended_by_a_rollback_or_by_time(server, quiet, ecs, cluster, agents):
    slow, own = quiet
    first(slow, own, count=1)
    arn = deploy(slow, own, deploymentConfiguration={"lifecycleHooks": [pause("POST_PRODUCTION_TRAFFIC_SHIFT")]})
    hook = waiting(slow, arn)
    slow.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"], action="ROLLBACK")
    found = until_deployment(slow, arn, "ROLLBACK_SUCCESSFUL")
    assert hook["hookId"] in found["rollback"]["reason"] and found["lifecycleHookDetails"][0]["status"] == "FAILED"
    assert weights(found) == ((0.0, 0.0), (100.0, 100.0))
    agents(cluster)
    first(ecs, cluster, count=1)
    hook = pause("PRE_PRODUCTION_TRAFFIC_SHIFT", timeoutConfiguration={"timeoutInMinutes": 3})
    found = until_deployment(ecs, deploy(ecs, cluster, deploymentConfiguration={"lifecycleHooks": [hook]}), "ROLLBACK_SUCCESSFUL")
    assert found["lifecycleHookDetails"][0]["status"] == "TIMED_OUT"


def test_a_rolling_update_can_pause(quiet):
    ecs, cluster = quiet
    made = create(ecs, cluster, count=1)
    until_deployment(ecs, made["currentServiceDeployment"], "SUCCESSFUL")
    old = tasks_of(ecs, cluster, serviceName="web")
    arn = deploy(ecs, cluster, deploymentConfiguration={"lifecycleHooks": [pause("PRE_SCALE_UP", "POST_SCALE_UP")]})
    hook = waiting(ecs, arn)
    assert tasks_of(ecs, cluster, serviceName="web") == old and deployment(ecs, arn)["lifecycleStage"] == "PRE_SCALE_UP"
    ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"])
    found = until_stage(ecs, arn, "POST_SCALE_UP")
    assert "requestedProductionTrafficWeight" not in found["targetServiceRevision"], "a rolling update shifts none"
    assert service(ecs, cluster, "web")["deployments"][0]["rolloutState"] == "IN_PROGRESS"
    ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=waiting(ecs, arn)["hookId"])
    until_deployment(ecs, arn, "SUCCESSFUL")
    arn = deploy(ecs, cluster)
    ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=waiting(ecs, arn)["hookId"], action="ROLLBACK")
    until_deployment(ecs, arn, "ROLLBACK_SUCCESSFUL")


@pytest.mark.parametrize("stage", ["PRE_SCALE_UP", "POST_SCALE_UP", "POST_TEST_TRAFFIC_SHIFT", "POST_PRODUCTION_TRAFFIC_SHIFT", "BAKE_TIME"])
def test_a_deployment_can_be_stopped_at_any_stage(quiet, slow, hooks, stage):
    ecs, cluster = quiet
    made = first(ecs, cluster)
    blue = set(tasks_of(ecs, cluster, serviceName="web"))
    url = hooks.url("/" + cluster)
    shifts = {"hookTargetArn": url, "lifecycleStages": ["PRODUCTION_TRAFFIC_SHIFT", "TEST_TRAFFIC_SHIFT"]}
    stops = [pause(stage)] if stage != "BAKE_TIME" else []
    arn = deploy(ecs, cluster, deploymentConfiguration={"lifecycleHooks": [shifts, *stops]})
    found = until_stage(ecs, arn, stage)
    shifted = ["TEST_TRAFFIC_SHIFT" for _ in range(weights(found)[0][0] > 0)] + ["PRODUCTION_TRAFFIC_SHIFT" for _ in range(weights(found)[0][1] > 0)]
    ecs.stop_service_deployment(serviceDeploymentArn=arn)
    found = until_deployment(ecs, arn, "ROLLBACK_SUCCESSFUL")
    assert weights(found) == ((0.0, 0.0), (100.0, 100.0)) and found["rollback"]["serviceRevisionArn"] == made["currentServiceRevisions"][0]["arn"]
    events = hooks.events("/" + cluster)
    assert [event["lifecycleStage"] for event in events] == [*shifted, *reversed(shifted)], "the shifts' hooks run on the way back"
    for event in events[len(shifted) :]:
        told = {**event["executionDetails"]["testTrafficWeights"], **event["executionDetails"]["productionTrafficWeights"]}
        assert told[found["targetServiceRevision"]["arn"]] == 0 and told[found["rollback"]["serviceRevisionArn"]] == 100
        assert event["executionDetails"]["targetServiceRevisionArn"] == found["targetServiceRevision"]["arn"]
    shown = until_steady(ecs, cluster, "web")
    assert set(tasks_of(ecs, cluster, serviceName="web")) == blue, "blue was never touched"
    assert shown["taskDefinition"] == made["taskDefinition"] and shown["currentServiceDeployment"] == arn
    # The next one begins from there.
    nxt = deploy(ecs, cluster, deploymentConfiguration={"bakeTimeInMinutes": 0, "lifecycleHooks": []})
    assert until_deployment(ecs, nxt, "SUCCESSFUL")["sourceServiceRevisions"][0]["arn"] == made["currentServiceRevisions"][0]["arn"]


def test_a_newer_deployment_reconciles_first(quiet):
    ecs, cluster = quiet
    made = first(ecs, cluster)
    stopped = deploy(ecs, cluster)
    until_stage(ecs, stopped, "BAKE_TIME")
    arn = deploy(ecs, cluster, deploymentConfiguration={"lifecycleHooks": [pause("RECONCILE_SERVICE")]})
    hook = waiting(ecs, arn)
    found = deployment(ecs, arn)
    assert found["lifecycleStage"] == "RECONCILE_SERVICE" and len(found["sourceServiceRevisions"]) == 2
    until("the one that never came out to be gone", lambda: len(service(ecs, cluster, "web")["deployments"]) == 2)
    assert deployment(ecs, stopped)["status"] == "STOPPED"
    blue = next(one for one in deployment(ecs, arn)["sourceServiceRevisions"] if one["arn"] == made["currentServiceRevisions"][0]["arn"])
    assert blue["requestedProductionTrafficWeight"] == 100.0 and blue["runningTaskCount"] == 2
    ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"])
    until_stage(ecs, arn, "BAKE_TIME")
    ecs.stop_service_deployment(serviceDeploymentArn=arn)
    until_deployment(ecs, arn, "ROLLBACK_SUCCESSFUL")


@pytest.mark.parametrize(
    ("configuration", "steps"),
    [
        ({"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 30.0, "stepBakeTimeInMinutes": 0}}, [30, 60, 90, 100]),
        ({"strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 0.5, "canaryBakeTimeInMinutes": 1}}, [0.5, 100]),
    ],
    ids=["linear", "canary"],
)
def test_traffic_goes_over_in_steps_with_a_hook_and_a_pause_at_each(server, ecs, cluster, agents, hooks, configuration, steps):
    agents(cluster)
    first(ecs, cluster, count=1)
    url = hooks.url("/" + cluster)
    configuration["lifecycleHooks"] = [{"hookTargetArn": url, "lifecycleStages": ["PRODUCTION_TRAFFIC_SHIFT"]}, pause("PRE_PRODUCTION_TRAFFIC_SHIFT")]
    arn = deploy(ecs, cluster, deploymentConfiguration=configuration)
    before = [0, *steps]
    for weight in before[:-1]:
        hook = waiting(ecs, arn)
        assert weights(deployment(ecs, arn)) == ((100.0, float(weight)), (0.0, 100.0 - weight))
        ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"])
        hooks.wait("/" + cluster, before.index(weight) + 1)
    found = until_deployment(ecs, arn, "SUCCESSFUL")
    green = found["targetServiceRevision"]["arn"]
    assert [event["executionDetails"]["productionTrafficWeights"][green] for event in hooks.events("/" + cluster)] == steps
    assert len({hook["hookId"] for hook in found["lifecycleHookDetails"]}) == 2 * len(steps), "each visit has its own"


def test_green_that_cannot_start_leaves_blue_alone(quiet, agents, slow):
    ecs, cluster = quiet
    first(ecs, cluster)
    blue = set(tasks_of(ecs, cluster, serviceName="web"))
    arn = deploy(ecs, cluster, taskDefinition=register(ecs, containers=[{"name": "app", "image": "x", "memory": 500000}]))
    until_stage(ecs, arn, "SCALE_UP")
    until("the service to say so", lambda: any("unable to place" in text for text in texts(service(ecs, cluster, "web"))))
    assert set(tasks_of(ecs, cluster, serviceName="web")) == blue
    why = slow.run("why", "web", "--cluster", cluster, check=False).stdout
    assert "SCALE_UP" in why and "green" in why, why
    ecs.stop_service_deployment(serviceDeploymentArn=arn)
    until_deployment(ecs, arn, "ROLLBACK_SUCCESSFUL")
    assert set(tasks_of(ecs, cluster, serviceName="web")) == blue


def test_hooks_run_at_a_services_first_deployment_which_shifts_nothing(quiet):
    ecs, cluster = quiet
    configuration = {"strategy": "LINEAR", "bakeTimeInMinutes": 60, "lifecycleHooks": [pause("PRE_SCALE_UP")]}
    arn = create(ecs, cluster, count=1, deploymentConfiguration=configuration)["currentServiceDeployment"]
    hook = waiting(ecs, arn)
    assert tasks_of(ecs, cluster, serviceName="web") == []
    ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"])
    found = until_deployment(ecs, arn, "SUCCESSFUL")
    assert found["sourceServiceRevisions"] == [] and found["targetServiceRevision"]["requestedProductionTrafficWeight"] == 100.0


def test_the_aws_cli_deploys_and_continues(slow, quiet):
    ecs, cluster = quiet
    first(ecs, cluster, count=1)
    hook = "lifecycleHooks=[{targetType=PAUSE,lifecycleStages=[POST_SCALE_UP],timeoutConfiguration={timeoutInMinutes=30,action=ROLLBACK}}]"
    configuration = f"strategy=CANARY,bakeTimeInMinutes=0,canaryConfiguration={{canaryPercent=100,canaryBakeTimeInMinutes=0}},{hook}"
    of = ["--cluster", cluster, "--service", "web"]
    made = slow.aws("ecs", "update-service", *of, "--force-new-deployment", "--deployment-configuration", configuration)["service"]
    arn = made["currentServiceDeployment"]
    waiting(ecs, arn)
    (found,) = slow.aws("ecs", "describe-service-deployments", "--service-deployment-arns", arn)["serviceDeployments"]
    (shown,) = found["lifecycleHookDetails"]
    assert shown["status"] == "AWAITING_ACTION" and found["lifecycleStage"] == "POST_SCALE_UP"
    ended = ["--service-deployment-arn", arn, "--hook-id", shown["hookId"], "--action", "CONTINUE"]
    assert slow.aws("ecs", "continue-service-deployment", *ended) == {"serviceDeploymentArn": arn}
    until_deployment(ecs, arn, "SUCCESSFUL")


def planned(berth, cluster, **members):
    request = json.dumps({"cluster": cluster, "service": "web", **members})
    return json.loads(berth.run("plan", "update-service", "--cli-input-json", request, "--output", "json").stdout)


def held(said):
    """Where it would wait, and how much of the production traffic the new revision has there."""
    return [(stage["stage"], stage["productionTrafficPercent"]) for stage in said["stages"]]


def test_a_deployment_waits_where_its_plan_says(slow, quiet):
    ecs, cluster = quiet
    made = first(ecs, cluster)
    members = {
        "taskDefinition": register(ecs),
        "deploymentConfiguration": {**BAKED, "lifecycleHooks": [pause("POST_SCALE_UP", timeoutConfiguration={"timeoutInMinutes": 9})]},
    }
    before = (service(ecs, cluster, "web"), tasks_of(ecs, cluster))
    said = planned(slow, cluster, **members)
    assert said["fits"] and [(step["start"], step["stop"], step["tasks"]) for step in said["steps"]] == [(2, 0, 4), (0, 2, 2)], said
    assert held(said) == [("SCALE_UP", 0), ("POST_SCALE_UP", 0), ("BAKE_TIME", 100), ("CLEAN_UP", 100)]
    stages = {stage["stage"]: stage for stage in said["stages"]}
    assert stages["POST_SCALE_UP"]["waitsFor"] == ["lifecycle hook 1: ContinueServiceDeployment, at most 9 minutes, then ROLLBACK"]
    assert stages["BAKE_TIME"]["seconds"] == 5 * int(SLOW) and stages["BAKE_TIME"]["testTrafficPercent"] == 100
    assert said["steps"][1]["afterSeconds"] >= 5 * int(SLOW), "blue stays whole until all has baked"
    assert "1 lifecycle hook is thought to succeed at once" in [reason["text"] for reason in said["reasons"]]
    assert (service(ecs, cluster, "web"), tasks_of(ecs, cluster)) == before, "asking changes nothing"
    # And then it happens.
    arn = deploy(ecs, cluster, **members)
    waiting(ecs, arn)
    found = until_stage(ecs, arn, "POST_SCALE_UP")
    rest = planned(slow, cluster)
    assert held(rest) == held(said)[1:] and [step["stop"] for step in rest["steps"]] == [2]
    ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=found["lifecycleHookDetails"][0]["hookId"], action="CONTINUE")
    until_stage(ecs, arn, "BAKE_TIME")
    assert held(planned(slow, cluster)) == held(said)[2:]
    shown = slow.run("plan", "update-service", "--cluster", cluster, "--service", "web").stdout
    assert "BAKE_TIME after 0 s" in shown and "waits for: 100.0 % of the production traffic bake" in shown, shown
    assert made["serviceArn"] == service(ecs, cluster, "web")["serviceArn"]


@pytest.mark.parametrize(
    "configuration, shares",
    [
        ({"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 40.0, "stepBakeTimeInMinutes": 2}}, [40, 80]),
        ({"strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 12.5, "canaryBakeTimeInMinutes": 3}}, [12.5]),
    ],
)
def test_a_plan_shifts_in_the_steps_of_its_strategy(slow, quiet, configuration, shares):
    ecs, cluster = quiet
    first(ecs, cluster, count=1)
    hooks = [function("check", "PRODUCTION_TRAFFIC_SHIFT")]
    said = planned(slow, cluster, taskDefinition=register(ecs), deploymentConfiguration={**configuration, "lifecycleHooks": hooks})
    shifts = [stage for stage in said["stages"] if stage["stage"] == "PRODUCTION_TRAFFIC_SHIFT"]
    assert [stage["productionTrafficPercent"] for stage in shifts] == [*shares, 100], said
    minutes = 2 if len(shares) == 2 else 3
    assert [stage["seconds"] for stage in shifts] == [minutes * int(SLOW)] * len(shares) + [0]
    assert all(stage["waitsFor"][0] == f"lifecycle hook 1: {FUNCTION}check to answer, at most 1440 minutes, then ROLLBACK" for stage in shifts)
    assert said["fits"] and [step["stop"] for step in said["steps"]] == [0, 1]
    again = planned(slow, cluster, desiredCount=2)
    assert again["fits"] and "stages" not in again, "a new count is no deployment"


def test_a_plan_says_that_it_would_go_back(slow, quiet):
    ecs, cluster = quiet
    first(ecs, cluster, count=1)
    large = register(ecs, containers=[{"name": "app", "image": "x", "memory": 500000}])
    said = planned(slow, cluster, taskDefinition=large)
    assert not said["fits"] and said["steps"] == [] and held(said) == [("SCALE_UP", 0)]
    codes = {reason["code"]: reason for reason in said["reasons"]}
    assert codes["PLACEMENT"]["rule"] == "RESOURCE:MEMORY"
    assert "lifecycle stage SCALE_UP timed out" in codes["ROLLBACK"]["text"], said


def test_a_deleted_service_takes_its_deployment_with_it(quiet):
    ecs, cluster = quiet
    first(ecs, cluster)
    arn = deploy(ecs, cluster, deploymentConfiguration={"lifecycleHooks": [pause("POST_SCALE_UP")]})
    waiting(ecs, arn)
    ecs.delete_service(cluster=cluster, service="web", force=True)
    until("the service to be gone", lambda: service(ecs, cluster, "web")["status"] == "INACTIVE")
    assert tasks_of(ecs, cluster) == []
    with refused("ServiceDeploymentNotFoundException"):
        ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId="ecs-pause-x")


def test_a_restart_goes_on_in_mid_stage(new_berth, agents, hooks, script):
    berth = new_berth("server", healthy_after=0.2, arguments=settings(hooks, script, SLOW))
    berth.start()
    berth.ecs.create_cluster(clusterName="c")
    agents("c", berth=berth)
    first(berth.ecs, "c", bakeTimeInMinutes=0)
    answers = threading.Event()
    hooks.say("/restart", answers, {"hookStatus": "IN_PROGRESS", "callBackDelay": 600})
    stages = [pause("POST_SCALE_UP"), {"hookTargetArn": hooks.url("/restart"), "lifecycleStages": ["PRODUCTION_TRAFFIC_SHIFT"]}]
    arn = deploy(berth.ecs, "c", deploymentConfiguration={"lifecycleHooks": stages})
    hook = waiting(berth.ecs, arn)
    before = deployment(berth.ecs, arn)
    berth.kill()
    berth.start()
    found = deployment(berth.ecs, arn)
    kept = ("lifecycleStage", "lifecycleHookDetails", "status", "startedAt")
    assert {name: found[name] for name in kept} == {name: before[name] for name in kept}
    agents("c", berth=berth)
    berth.ecs.continue_service_deployment(serviceDeploymentArn=arn, hookId=hook["hookId"])
    hooks.wait("/restart", 1)
    berth.kill()
    answers.set()
    berth.start()
    agents("c", berth=berth)
    # A call whose answer the server did not live to see is made again.
    one, other = hooks.wait("/restart", 2)
    assert one == other and one["lifecycleStage"] == "PRODUCTION_TRAFFIC_SHIFT"
    assert waiting(berth.ecs, arn, "IN_PROGRESS")["hookId"] == one["executionId"]
    assert weights(deployment(berth.ecs, arn)) == ((100.0, 100.0), (0.0, 0.0))
    berth.ecs.stop_service_deployment(serviceDeploymentArn=arn)
    hooks.say("/restart", {"hookStatus": "SUCCEEDED"})
    until_deployment(berth.ecs, arn, "ROLLBACK_SUCCESSFUL")


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ({"strategy": "BLUE_GREEN"}, ["bakeTimeInMinutes"]),
        ({"strategy": "BLUE_GREEN", "bakeTimeInMinutes": 1441}, ["bakeTimeInMinutes", "1440"]),
        ({"strategy": "GREEN"}, ["strategy"]),
        ({"linearConfiguration": {"stepPercent": 10}}, ["linearConfiguration", "LINEAR"]),
        ({"strategy": "LINEAR", "canaryConfiguration": {}}, ["canaryConfiguration", "CANARY"]),
        ({"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 2.9}}, ["stepPercent", "3.0"]),
        ({"strategy": "LINEAR", "linearConfiguration": {"stepPercent": 10.05}}, ["stepPercent", "0.1"]),
        ({"strategy": "LINEAR", "linearConfiguration": {"stepBakeTimeInMinutes": 1441}}, ["stepBakeTimeInMinutes"]),
        ({"strategy": "CANARY", "canaryConfiguration": {"canaryPercent": 0}}, ["canaryPercent"]),
        ({"strategy": "CANARY", "canaryConfiguration": {"canaryBakeTimeInMinutes": -1}}, ["canaryBakeTimeInMinutes"]),
        ({"lifecycleHooks": [pause()]}, ["lifecycleHooks[0].lifecycleStages"]),
        ({"lifecycleHooks": [pause("BAKE_TIME")]}, ["ifecycleStages"]),
        ({"lifecycleHooks": [pause("PRE_SCALE_UP", "PRE_SCALE_UP")]}, ["lifecycleStages", "twice"]),
        ({"lifecycleHooks": [pause("TEST_TRAFFIC_SHIFT")]}, ["lifecycleStages", "PAUSE"]),
        ({"lifecycleHooks": [pause("PRODUCTION_TRAFFIC_SHIFT")]}, ["lifecycleStages", "PAUSE"]),
        ({"lifecycleHooks": [pause("PRE_SCALE_UP", hookTargetArn=FUNCTION + "check")]}, ["hookTargetArn", "PAUSE"]),
        ({"lifecycleHooks": [pause("PRE_SCALE_UP", timeoutConfiguration={"timeoutInMinutes": 0})]}, ["timeoutInMinutes"]),
        ({"lifecycleHooks": [pause("PRE_SCALE_UP", timeoutConfiguration={"timeoutInMinutes": 20161})]}, ["timeoutInMinutes", "20160"]),
        ({"lifecycleHooks": [pause("PRE_SCALE_UP", timeoutConfiguration={"action": "STOP"})]}, ["action"]),
        ({"lifecycleHooks": [pause("PRE_SCALE_UP")] * 11}, ["lifecycleHooks", "10"]),
        ({"lifecycleHooks": [{"lifecycleStages": ["PRE_SCALE_UP"]}]}, ["lifecycleHooks[0].hookTargetArn"]),
        ({"lifecycleHooks": [pause("PRE_SCALE_UP"), function("nobody", "PRE_SCALE_UP")]}, ["--hook nobody=URL", "lifecycleHooks[1].hookTargetArn"]),
        ({"lifecycleHooks": [{"hookTargetArn": "http://example.com/", "lifecycleStages": ["PRE_SCALE_UP"]}]}, ["hookTargetArn", "https://"]),
        ({"lifecycleHooks": [function("check", "PRE_SCALE_UP", timeoutConfiguration={"timeoutInMinutes": 1441})]}, ["timeoutInMinutes", "1440"]),
        ({"lifecycleHooks": [{**function("check", "PRE_SCALE_UP"), "roleArn": "hooks"}]}, ["roleArn"]),
        ({"lifecycleHooks": [function("check", "PRE_SCALE_UP", hookDetails={"a": "x" * 5000})]}, ["hookDetails", "4096"]),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[0],
)
def test_what_is_wrong_is_named(server, cluster, configuration, words):
    ecs = server.loose
    definition = register(ecs)
    with refused("InvalidParameterException", *words):
        ecs.create_service(cluster=cluster, serviceName="no", taskDefinition=definition, desiredCount=0, deploymentConfiguration=configuration)
    create(ecs, cluster, count=0)
    with refused("InvalidParameterException", *words):
        ecs.update_service(cluster=cluster, service="web", deploymentConfiguration=configuration)


def test_only_the_ecs_controller_has_other_strategies(server, ecs, cluster):
    with refused("InvalidParameterException", "strategy", "ECS deployment controller"):
        ecs.create_service(cluster=cluster, serviceName="ext", deploymentController={"type": "EXTERNAL"}, deploymentConfiguration=BAKED)


def test_settings_that_are_none_end_the_server_with_their_name(new_berth):
    for wrong in (["--hook", "x"], ["--hook", "x=http://example.com/"], ["--hook", "x=command:true"], ["--deployment-minute", "no"]):
        berth = new_berth("server", arguments=wrong)
        berth.start(wait=False)
        assert berth.wait() == 2 and wrong[0] in berth.tail(), berth.tail()
    berth = new_berth("server", arguments=["--hook", "x=command:/a", "--hook", "x=command:/b"])
    berth.start(wait=False)
    assert berth.wait() == 2 and "--hook" in berth.tail() and "twice" in berth.tail()
