"""Deployment alarms: somebody says that one is in ALARM, and the deployment ends and goes back."""

import json
import urllib.error
import urllib.request

import pytest

from berth import Berth, until
from ecs_calls import refused, register, service, tasks_of, texts, until_steady
from fake_agent import signed_headers
from test_service_deployments import deployment, until_deployment

REASON = "Service deployment rolled back because a CloudWatch alarm went into the ALARM state."


@pytest.fixture(scope="module")
def server():
    """A server of the module's own: a minute of a deployment takes a second, and tasks count as healthy after one."""
    berth = Berth("server", arguments=["--deployment-minute", "1"], healthy_after=1)
    try:
        yield berth.start()
    finally:
        berth.end()


def watching(*names, **members):
    return {"alarms": {"alarmNames": list(names), "enable": True, "rollback": True, **members}}


def create(ecs, cluster, configuration, count=2):
    definition = register(ecs)
    ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=definition, desiredCount=count, deploymentConfiguration=configuration)
    until_steady(ecs, cluster, "web")
    return definition


def post(server, body):
    """POST /alarms: the status and the answer."""
    url, data = server.endpoint + "/alarms", json.dumps(body).encode()
    headers = signed_headers(server, "POST", url, data)
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_an_alarm_sends_a_deployment_back_and_keeps_every_task(server, ecs, cluster, agents):
    agents(cluster)
    # It needs an hour to notice, a minute here, so there is time while the deployment bakes.
    server.run("alarm", "set", "slow/p99", "OK", "--window", "3600")
    first = create(ecs, cluster, {"maximumPercent": 200})
    old = set(tasks_of(ecs, cluster, serviceName="web"))
    changed = ecs.update_service(cluster=cluster, service="web", taskDefinition=register(ecs), deploymentConfiguration=watching("slow/p99", "errors"))
    arn = changed["service"]["currentServiceDeployment"]
    failed = changed["service"]["deployments"][0]["id"]
    until("the new tasks to be all", lambda: (found := tasks_of(ecs, cluster, serviceName="web")) and len(found) == 2 and not old & set(found))
    going = deployment(ecs, arn)
    assert going["status"] == "IN_PROGRESS"
    assert going["alarms"] == {"status": "MONITORING", "alarmNames": ["slow/p99", "errors"], "triggeredAlarmNames": []}
    def why():
        return json.loads(server.run("why", "web", "--cluster", cluster, "--output", "json").stdout)["reasons"]

    until("it to bake", lambda: any("alarms' window" in reason["text"] for reason in why()))
    # One that nobody watches.
    server.run("alarm", "set", "another", "ALARM")
    said = server.run("alarm", "set", "slow/p99", "ALARM", "--reason", "p99 is 3 s").stdout
    assert said == "slow/p99 is ALARM\n"
    done = until_deployment(ecs, arn, "ROLLBACK_SUCCESSFUL")
    assert done["alarms"] == {"status": "TRIGGERED", "alarmNames": ["slow/p99", "errors"], "triggeredAlarmNames": ["slow/p99"]}
    assert done["rollback"]["reason"] == REASON
    after = until_steady(ecs, cluster, "web")
    assert after["taskDefinition"] == first
    assert f"(service web) (deployment {failed}) deployment failed: alarm detected." in texts(after)
    # The alarm is still in ALARM: the next deployment may be what mends it.
    server.run("alarm", "set", "slow/p99", "ALARM", "--window", "1")
    ecs.update_service(cluster=cluster, service="web", taskDefinition=register(ecs))
    assert deployment(ecs, until_steady(ecs, cluster, "web")["currentServiceDeployment"])["alarms"]["status"] == "MONITORING_COMPLETE"
    shown = server.run("alarm", "list").stdout.splitlines()
    assert shown[0].split() == ["ALARM", "STATE", "WINDOW"] and any(line.startswith("slow/p99  ALARM") for line in shown)
    for name in ("slow/p99", "another"):
        server.run("alarm", "delete", name)
    assert "There are no alarms" in server.run("alarm", "list").stdout


def test_without_rollback_the_deployment_ends_where_it_is(server, ecs, cluster, agents):
    agents(cluster)
    server.run("alarm", "set", "errors", "OK", "--window", "3600")
    create(ecs, cluster, {"maximumPercent": 200})
    changed = ecs.update_service(
        cluster=cluster, service="web", taskDefinition=register(ecs), deploymentConfiguration=watching("errors", rollback=False)
    )["service"]
    old = changed["deployments"][1]["id"]
    until("a task of the new one", lambda: service(ecs, cluster, "web")["deployments"][0]["runningCount"] > 0)
    server.run("alarm", "set", "errors", "ALARM")
    done = until_deployment(ecs, changed["currentServiceDeployment"], "STOPPED")
    assert done["alarms"]["triggeredAlarmNames"] == ["errors"] and "alarm" in done["statusReason"]
    primary = service(ecs, cluster, "web")["deployments"][0]
    assert (primary["rolloutState"], primary["id"] != old) == ("FAILED", True)
    server.run("alarm", "delete", "errors")


def test_alarms_are_echoed_kept_and_survive_a_restart(server, ecs, cluster):
    ecs.create_service(
        cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=0, deploymentConfiguration=watching("a", enable=False)
    )
    assert service(ecs, cluster, "web")["deploymentConfiguration"]["alarms"] == watching("a", enable=False)["alarms"]
    ecs.update_service(cluster=cluster, service="web", deploymentConfiguration={"maximumPercent": 150})
    assert service(ecs, cluster, "web")["deploymentConfiguration"]["alarms"] == watching("a", enable=False)["alarms"]
    server.run("alarm", "set", "kept", "ALARM", "--reason", "why not")
    server.kill()
    server.start()
    status, answer = post(server, {"list": {}})
    assert status == 200
    (kept,) = [alarm for alarm in answer["alarms"] if alarm["name"] == "kept"]
    assert (kept["state"], kept["reason"], kept["windowSeconds"]) == ("ALARM", "why not", 60) and kept["alarmedAt"] == kept["updatedAt"]
    server.run("alarm", "delete", "kept")


@pytest.mark.parametrize(
    ("alarms", "named"),
    [
        (watching(), "alarms.alarmNames"),
        (watching(""), "alarms.alarmNames[0]"),
        (watching("a", "b" * 256), "alarms.alarmNames[1]"),
        (watching(*(str(n) for n in range(101))), "alarms.alarmNames"),
    ],
)
def test_bad_alarms_of_a_service_are_refused(ecs, cluster, alarms, named):
    with refused("InvalidParameterException", named):
        ecs.create_service(cluster=cluster, serviceName="web", taskDefinition=register(ecs), desiredCount=0, deploymentConfiguration=alarms)
    assert ecs.list_services(cluster=cluster)["serviceArns"] == []


@pytest.mark.parametrize(
    ("body", "code", "word"),
    [
        ({"set": {"name": "", "state": "OK"}}, "InvalidParameterException", "name"),
        ({"set": {"name": "a" * 256, "state": "OK"}}, "InvalidParameterException", "name"),
        ({"set": {"name": "a", "state": "FINE"}}, "InvalidParameterException", "state"),
        ({"set": {"name": "a", "state": "OK", "reason": "x" * 1024}}, "InvalidParameterException", "reason"),
        ({"set": {"name": "a", "state": "OK", "windowSeconds": 0}}, "InvalidParameterException", "windowSeconds"),
        ({"set": {"name": "a", "state": "OK", "colour": "red"}}, "SerializationException", "colour"),
        ({"delete": {"name": "none"}}, "ResourceNotFoundException", "none"),
        ({"forget": {}}, "SerializationException", "forget"),
    ],
)
def test_bad_questions_are_refused_and_change_nothing(server, body, code, word):
    status, answer = post(server, body)
    assert status == 400 and answer["__type"].endswith(code) and word in answer["message"], answer
    assert post(server, {"list": {}})[1] == {"alarms": []}


def test_nobody_without_a_key_says_anything(server):
    request = urllib.request.Request(server.endpoint + "/alarms", b'{"list": {}}')
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request)
    assert error.value.code in (400, 403)
