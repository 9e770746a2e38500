"""Health checks of real containers: who is how, who is told, and what is done about it."""

import contextlib
from pathlib import Path

import pytest

from berth import unique, until
from containers import IDLE, finished, pids_of, running, shell, skip_unless_root, start, stop
from ecs_calls import describe, register, until_status, until_steady

skip_unless_root(__file__)
DEFAULT = "default"
# Well until somebody writes /sick into its root file system.
WELL = "[ ! -e /sick ]"


def check(command=WELL, **members):
    command = ["CMD-SHELL", command] if isinstance(command, str) else command
    return {"command": command, "interval": 5, "timeout": 2, "retries": 1, **members}


def health(up, arn):
    return describe(up.ecs, DEFAULT, arn)["healthStatus"]


def until_health(up, arn, wanted):
    return until(f"{wanted} of {arn[-8:]}", lambda: health(up, arn) == wanted)


def root_of(task, name="app"):
    """A container's root file system, from outside."""
    container = next(container for container in task["containers"] if container["name"] == name)
    return Path(f"/proc/{pids_of(container)[0]}/root")


def probes(root):
    with contextlib.suppress(FileNotFoundError):
        return (root / "probes").read_text().count("x")
    return 0


def test_health_goes_with_the_check_and_nobody_is_stopped_for_it(up):
    task = running(up, shell(IDLE, healthCheck=check()))
    arn, root = task["taskArn"], root_of(task)
    assert task["healthStatus"] in ("UNKNOWN", "HEALTHY")
    until_health(up, arn, "HEALTHY")
    (root / "sick").touch()
    until_health(up, arn, "UNHEALTHY")
    (root / "sick").unlink()
    until_health(up, arn, "HEALTHY")
    now = describe(up.ecs, DEFAULT, arn)
    assert (now["lastStatus"], now["containers"][0]["healthStatus"]) == ("RUNNING", "HEALTHY")
    stop(up, arn)


def test_a_check_runs_with_the_containers_environment_user_and_folder(up):
    command = ["CMD", "/bin/sh", "-c", 'echo "$A $(id -u)" > seen']
    task = running(up, shell(IDLE, healthCheck=check(command), environment=[{"name": "A", "value": "one"}], user="65534", workingDirectory="/tmp"))
    until_health(up, task["taskArn"], "HEALTHY")
    assert (root_of(task) / "tmp/seen").read_text() == "one 65534\n"
    stop(up, task["taskArn"])


@pytest.mark.parametrize("command", [["CMD", "/no/such/program"], "exit 3", "sleep 60"])
def test_a_check_that_fails_cannot_run_or_takes_too_long_is_a_failure(up, command):
    task = running(up, shell(IDLE, healthCheck=check(command)))
    until_health(up, task["taskArn"], "UNHEALTHY")
    stop(up, task["taskArn"])


def test_failures_in_the_start_period_do_not_count_but_a_success_does(up):
    counted = "echo x >> /probes; [ -e /well ]"
    task = running(up, shell(IDLE, healthCheck=check(counted, startPeriod=300)))
    arn, root = task["taskArn"], root_of(task)
    until("three probes", lambda: probes(root) >= 3)
    assert health(up, arn) == "UNKNOWN"
    (root / "well").touch()
    until_health(up, arn, "HEALTHY")
    stop(up, arn)


def test_it_takes_as_many_failures_in_a_row_as_retries(up):
    # Every third probe succeeds: never three failures in a row.
    script = "echo x >> /probes; n=0; while read -r _; do n=$((n+1)); done < /probes; [ $((n % 3)) = 1 ]"
    task = running(up, shell(IDLE, healthCheck=check(script, retries=3)))
    arn, root = task["taskArn"], root_of(task)
    until_health(up, arn, "HEALTHY")
    seen = set()
    until("seven probes", lambda: (seen.add(health(up, arn)), probes(root) >= 7)[1])
    assert seen == {"HEALTHY"}
    stop(up, arn)


def test_a_tasks_health_is_that_of_its_essential_containers(up):
    side = shell(IDLE, name="side", essential=False, healthCheck=check("exit 1"))
    task = running(up, shell(IDLE, name="main", healthCheck=check()), side, shell(IDLE, name="unchecked"))
    arn = task["taskArn"]
    until_health(up, arn, "HEALTHY")

    def of():
        return {container["name"]: container["healthStatus"] for container in describe(up.ecs, DEFAULT, arn)["containers"]}

    until("the side container to be UNHEALTHY", lambda: of()["side"] == "UNHEALTHY")
    assert of() == {"main": "HEALTHY", "side": "UNHEALTHY", "unchecked": "UNKNOWN"}
    assert health(up, arn) == "HEALTHY"
    (root_of(task, "main") / "sick").touch()
    until_health(up, arn, "UNHEALTHY")
    stop(up, arn)


def test_who_waits_for_health_starts_when_it_is_there(up, tmp_path):
    tmp_path.chmod(0o777)
    mounts, volumes = [{"sourceVolume": "v", "containerPath": "/v"}], [{"name": "v", "host": {"sourcePath": str(tmp_path)}}]
    after = [{"containerName": "db", "condition": "HEALTHY"}]
    db = shell(IDLE, name="db", mountPoints=mounts, healthCheck=check("echo x >> /v/probes; [ -e /v/well ]", retries=10))
    arn = start(up, db, shell(IDLE, name="app", dependsOn=after), volumes=volumes)
    until("a failed probe", lambda: probes(tmp_path) >= 1)
    assert describe(up.ecs, DEFAULT, arn)["lastStatus"] == "PENDING"
    (tmp_path / "well").touch()
    until_status(up.ecs, DEFAULT, arn, "RUNNING")
    stop(up, arn)


def test_who_waits_for_health_gives_up_at_the_start_timeout(up):
    after = [{"containerName": "db", "condition": "HEALTHY"}]
    db = shell(IDLE, name="db", essential=False, startTimeout=7, healthCheck=check("exit 1"))
    task = finished(up, db, shell(IDLE, name="app", dependsOn=after))
    reason = next(container for container in task["containers"] if container["name"] == "app")["reason"]
    assert reason == "dependency db did not become HEALTHY within its startTimeout"


def test_a_service_replaces_a_task_that_became_unhealthy(up):
    name = unique("s")
    definition = register(up.ecs, containers=[shell(IDLE, healthCheck=check())])
    up.ecs.create_service(cluster=DEFAULT, serviceName=name, taskDefinition=definition, desiredCount=1)
    until_steady(up.ecs, DEFAULT, name)
    (arn,) = up.ecs.list_tasks(cluster=DEFAULT, serviceName=name)["taskArns"]
    until_health(up, arn, "HEALTHY")
    (root_of(describe(up.ecs, DEFAULT, arn)) / "sick").touch()
    until("the sick task to be stopped", lambda: describe(up.ecs, DEFAULT, arn)["lastStatus"] == "STOPPED")
    assert describe(up.ecs, DEFAULT, arn)["stoppedReason"] == "Task failed container health checks"

    def another():
        found = up.ecs.list_tasks(cluster=DEFAULT, serviceName=name)["taskArns"]
        return len(found) == 1 and found[0] != arn and health(up, found[0]) == "HEALTHY"

    until("a healthy task in its place", another)
    up.ecs.delete_service(cluster=DEFAULT, service=name, force=True)
    until("the service's tasks to end", lambda: not up.ecs.list_tasks(cluster=DEFAULT, serviceName=name)["taskArns"])


def test_health_goes_on_being_watched_after_a_kill_of_the_agent(new_up):
    up = new_up()
    task = running(up, shell(IDLE, healthCheck=check()))
    arn, root = task["taskArn"], root_of(task)
    until_health(up, arn, "HEALTHY")
    up.kill()
    up.start()
    (root / "sick").touch()
    until_health(up, arn, "UNHEALTHY")
    (root / "sick").unlink()
    until_health(up, arn, "HEALTHY")
    stop(up, arn)
