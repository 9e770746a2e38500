"""Real containers: how they start, what they see, how they end, and what is said of them."""

import os
import signal

import pytest

from berth import until
from containers import IDLE, ended, finished, hello, output, page, pids_of, running, said, shell, skip_unless_root, start, stop
from ecs_calls import describe, register, run, until_status

skip_unless_root(__file__)
DEFAULT = "default"


# -- ends ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_the_exit_code_of_a_container_is_reported(up, code):
    task = finished(up, shell(f"exit {code}"))
    assert task["containers"][0]["exitCode"] == code
    assert (task["stopCode"], task["stoppedReason"]) == ("EssentialContainerExited", "Essential container in task exited")
    assert task["containers"][0]["lastStatus"] == "STOPPED"
    assert task["createdAt"] <= task["pullStartedAt"] <= task["pullStoppedAt"] <= task["startedAt"] <= task["stoppedAt"]
    assert task["executionStoppedAt"] <= task["stoppedAt"]


def test_a_container_killed_by_a_signal_has_128_and_its_number(up):
    task = running(up, shell(IDLE))
    os.kill(pids_of(task["containers"][0])[0], signal.SIGKILL)
    task = ended(up, task["taskArn"])
    assert task["containers"][0]["exitCode"] == 137
    assert task["stopCode"] == "EssentialContainerExited"


def test_hello_exits_on_demand_with_the_code_asked_for(up):
    task = running(up, hello())
    port = task["containers"][0]["networkBindings"][0]["hostPort"]
    page(port, "/exit?code=9")
    assert ended(up, task["taskArn"])["containers"][0]["exitCode"] == 9


def test_a_side_container_may_end_and_the_task_goes_on(up):
    task = running(up, shell(IDLE, name="main"), shell("exit 5", name="side", essential=False))
    arn = task["taskArn"]

    def side():
        return next(c for c in describe(up.ecs, DEFAULT, arn)["containers"] if c["name"] == "side").get("exitCode") == 5

    until("the side container's exit code", side)
    assert describe(up.ecs, DEFAULT, arn)["lastStatus"] == "RUNNING"
    stop(up, arn)


def test_the_end_of_an_essential_container_ends_the_others(up):
    task = finished(up, shell("sleep 1; exit 3", name="main"), shell("trap 'exit 6' TERM; while :; do sleep 0.1; done", name="other"))
    assert {c["name"]: c.get("exitCode") for c in task["containers"]} == {"main": 3, "other": 6}


def test_stop_task_sends_sigterm_first(up):
    script = "trap 'echo asked to stop; exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    arn = running(up, shell(script))["taskArn"]
    said(up, arn, "ready")
    task = stop(up, arn)
    assert task["containers"][0]["exitCode"] == 7
    assert task["stopCode"] == "UserInitiated"
    assert "asked to stop" in output(up, arn)


def test_a_container_that_ignores_sigterm_is_killed_after_its_stop_timeout(up):
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    arn = running(up, shell(script, stopTimeout=2))["taskArn"]
    said(up, arn, "ready")
    task = stop(up, arn)
    assert task["containers"][0]["exitCode"] == 137
    # It was given its time: the end is not before the timeout.
    assert (task["stoppedAt"] - task["stoppingAt"]).total_seconds() >= 2


def test_out_of_memory_is_named(up):
    task = finished(up, shell("a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done", memory=16))
    container = task["containers"][0]
    assert container["exitCode"] == 137
    assert container["reason"].startswith("OutOfMemoryError"), container


# -- what cannot start -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    ["127.0.0.1:1/none/such:1", "000000000000.dkr.ecr.us-east-1.amazonaws.com/none-such:1", "000000000000.dkr.ecr.us-east-1.amazonaws.com/hello:none"],
)
def test_an_image_that_cannot_be_pulled_is_named(up, image):
    task = finished(up, {"name": "app", "image": image, "memory": 16})
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["stoppedReason"].startswith("CannotPull"), task["stoppedReason"]
    assert task["containers"][0]["reason"].startswith("CannotPull")
    assert "exitCode" not in task["containers"][0]
    assert "startedAt" not in task


def test_a_task_starts_when_its_image_comes_later(up, shell_archive):
    assert finished(up, shell("exit 0", image="000000000000.dkr.ecr.us-east-1.amazonaws.com/later:1"))["stopCode"] == "TaskFailedToStart"
    up.run("image", "load", str(shell_archive), "later:1")
    for image in ("later:1", "000000000000.dkr.ecr.us-east-1.amazonaws.com/later:1"):
        assert finished(up, shell("exit 0", image=image))["containers"][0]["exitCode"] == 0


@pytest.mark.parametrize("command", [["/none/such"], ["no-such-program"], ["/etc/passwd"]])
def test_a_program_that_is_not_there_cannot_start(up, command):
    task = finished(up, {"name": "app", "image": "shell:1", "memory": 16, "entryPoint": command})
    assert task["stopCode"] == "TaskFailedToStart", task
    assert task["stoppedReason"].startswith("CannotStartContainerError") or task["stoppedReason"].startswith("CannotCreateContainerError")
    assert command[0] in task["stoppedReason"]


def test_a_user_that_is_not_there_cannot_start(up):
    task = finished(up, shell("exit 0", user="nobody-such"))
    assert task["stopCode"] == "TaskFailedToStart" and "nobody-such" in task["stoppedReason"]


def test_one_container_that_cannot_start_ends_the_whole_task(up):
    task = finished(up, shell(IDLE, name="good"), {"name": "bad", "image": "127.0.0.1:1/none:1", "memory": 16})
    assert task["stoppedReason"].startswith("CannotPull")
    assert task["lastStatus"] == "STOPPED"
    assert not [pid for c in task["containers"] if "runtimeId" in c for pid in pids_of(c)]


# -- what a container sees -----------------------------------------------------------------------------------------------------


def test_environment_comes_from_the_definition_and_overrides_win(up):
    environment = [{"name": "A", "value": "one"}, {"name": "B", "value": "two"}]
    definition = register(up.ecs, containers=[shell("env", environment=environment)])
    own = {"name": "app", "environment": [{"name": "B", "value": "over"}, {"name": "C", "value": "spaces and = signs"}]}
    (arn,) = run(up.ecs, DEFAULT, definition, overrides={"containerOverrides": [own]})
    ended(up, arn)
    lines = output(up, arn).splitlines()
    assert {"A=one", "B=over", "C=spaces and = signs", "AWS_REGION=us-east-1"} <= set(lines)


def test_a_command_override_replaces_the_command(up):
    definition = register(up.ecs, containers=[shell("echo old")])
    (arn,) = run(up.ecs, DEFAULT, definition, overrides={"containerOverrides": [{"name": "app", "command": ["echo new; exit 4"]}]})
    assert ended(up, arn)["containers"][0]["exitCode"] == 4
    assert output(up, arn) == "new\n"


def test_working_directory_user_and_hostname(up):
    task = finished(up, shell("pwd; id -u; id -g; cat /proc/sys/kernel/hostname", workingDirectory="/tmp", user="65534:65534", hostname="berth-host"))
    assert output(up, task["taskArn"]) == "/tmp\n65534\n65534\nberth-host\n"


def test_a_read_only_root_and_a_writable_one(up):
    write = "echo x > /file && cat /file"
    assert output(up, finished(up, shell(write))["taskArn"]) == "x\n"
    task = finished(up, shell(write, readonlyRootFilesystem=True))
    assert task["containers"][0]["exitCode"] != 0


def test_writes_of_one_task_are_not_seen_by_the_next(up):
    finished(up, shell("echo x > /left-behind"))
    assert finished(up, shell("cat /left-behind"))["containers"][0]["exitCode"] != 0


def test_it_sees_only_its_own_processes_and_is_pid_1(up):
    task = finished(up, shell("echo $$; for p in /proc/[0-9]*; do echo $p; done"))
    lines = output(up, task["taskArn"]).splitlines()
    assert lines[0] == "1"
    assert len(lines) <= 3


def test_it_has_no_new_privileges_of_the_machine(up):
    """Seccomp is on, capabilities are Docker's default set."""
    task = finished(up, shell("while read -r line; do case $line in Seccomp:*|CapEff:*) echo $line;; esac; done < /proc/self/status"))
    status = dict(line.split(":") for line in output(up, task["taskArn"]).splitlines())
    assert status["Seccomp"].strip() == "2"
    assert int(status["CapEff"].strip(), 16) == 0x00000000A80425FB


def test_dropped_and_added_capabilities(up):
    script = "while read -r line; do case $line in CapEff:*) echo $line;; esac; done < /proc/self/status"
    task = finished(up, shell(script, linuxParameters={"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}))
    assert int(output(up, task["taskArn"]).split(":")[1], 16) == 1 << 12


def test_ulimits(up):
    task = finished(up, shell("ulimit -n; ulimit -Hn", ulimits=[{"name": "nofile", "softLimit": 123, "hardLimit": 456}]))
    assert output(up, task["taskArn"]) == "123\n456\n"


def test_the_memory_limit_is_the_cgroups(up):
    task = running(up, shell(IDLE, memory=48))
    runtime_id = task["containers"][0]["runtimeId"]
    found = [
        os.path.join(folder, name)
        for folder, _, files in os.walk("/sys/fs/cgroup")
        if runtime_id in folder
        for name in files
        if name in ("memory.limit_in_bytes", "memory.max")
    ]
    assert found and {int(open(file).read()) for file in found} == {48 * 1024 * 1024}
    stop(up, task["taskArn"])


def test_a_host_folder_as_a_volume_is_shared_and_read_only_where_asked(up, tmp_path):
    (tmp_path / "in").write_text("from the host\n")
    tmp_path.chmod(0o755)
    mounts = [{"sourceVolume": "v", "containerPath": "/v"}]
    volumes = [{"name": "v", "host": {"sourcePath": str(tmp_path)}}]
    task = finished(up, shell("cat /v/in; echo from the container > /v/out", mountPoints=mounts), volumes=volumes)
    assert output(up, task["taskArn"]) == "from the host\n"
    assert (tmp_path / "out").read_text() == "from the container\n"
    mounts[0]["readOnly"] = True
    assert finished(up, shell("echo x > /v/out", mountPoints=mounts), volumes=volumes)["containers"][0]["exitCode"] != 0
    assert (tmp_path / "out").read_text() == "from the container\n"


def test_a_volume_of_the_task_is_shared_by_its_containers(up):
    mounts = [{"sourceVolume": "scratch", "containerPath": "/s"}]
    writer = shell("echo shared > /s/file", name="writer", mountPoints=mounts, essential=False)
    after = [{"containerName": "writer", "condition": "SUCCESS"}]
    task = finished(up, writer, shell("cat /s/file", name="reader", mountPoints=mounts, dependsOn=after), volumes=[{"name": "scratch"}])
    assert "shared" in output(up, task["taskArn"], "--container", "reader")


# -- order -----------------------------------------------------------------------------------------------------------------------


def test_a_container_waits_for_the_success_of_another(up):
    first = shell("sleep 1; echo first", name="first", essential=False)
    second = shell("echo second", name="second", dependsOn=[{"containerName": "first", "condition": "SUCCESS"}])
    task = finished(up, first, second)
    assert {c["name"]: c["exitCode"] for c in task["containers"]} == {"first": 0, "second": 0}


def test_a_dependency_that_fails_ends_what_waits_for_its_success(up):
    first = shell("exit 1", name="first", essential=False)
    second = shell("echo never", name="second", dependsOn=[{"containerName": "first", "condition": "SUCCESS"}])
    task = finished(up, first, second)
    assert task["lastStatus"] == "STOPPED"
    assert "exitCode" not in next(c for c in task["containers"] if c["name"] == "second")


def test_a_health_check_is_run_or_refused_but_never_ignored(up):
    check = {"command": ["CMD-SHELL", "cat /tmp/well"], "interval": 5, "timeout": 2, "retries": 1}
    definition = register(up.ecs, containers=[shell("echo > /tmp/well; " + IDLE, healthCheck=check)])
    answer = up.ecs.run_task(cluster=DEFAULT, taskDefinition=definition)
    if answer["failures"]:
        # The agent does not announce ecs.capability.container-health-check, so nothing may be placed on it.
        assert [f["reason"] for f in answer["failures"]] == ["ATTRIBUTE"] and answer["tasks"] == []
        return
    arn = answer["tasks"][0]["taskArn"]
    until("HEALTHY", lambda: describe(up.ecs, DEFAULT, arn)["healthStatus"] == "HEALTHY")
    stop(up, arn)


# -- logs and ps -------------------------------------------------------------------------------------------------------------------


def test_logs_show_what_each_container_wrote_in_order(up):
    task = finished(up, shell("for i in 1 2 3; do echo line $i; done; echo to stderr >&2", name="a"), shell("echo other; sleep 1", name="b"))
    arn = task["taskArn"]
    assert output(up, arn, "--container", "a").splitlines()[:3] == ["line 1", "line 2", "line 3"]
    assert "to stderr" in output(up, arn, "--container", "a")
    both = output(up, arn)
    assert "other" in both and "line 3" in both
    assert output(up, arn, "--container", "a", "--tail", "1").count("\n") == 1


def test_long_lines_and_bytes_that_are_no_text_survive(up):
    task = finished(up, shell("i=0; l=; while [ $i -lt 2000 ]; do l=${l}0123456789; i=$((i+1)); done; echo $l; printf 'no newline'"))
    lines = output(up, task["taskArn"]).splitlines()
    assert lines == ["0123456789" * 2000, "no newline"]


def test_ps_shows_where_a_task_listens(up):
    task = running(up, hello())
    port = task["containers"][0]["networkBindings"][0]["hostPort"]
    line = next(line for line in up.run("ps").stdout.splitlines() if line.startswith(task["taskArn"].rsplit("/", 1)[1][:8]))
    assert "RUNNING" in line and f"{port}->80/tcp" in line
    stop(up, task["taskArn"])


def test_the_same_image_starts_many_tasks_at_once(up):
    definition = register(up.ecs, containers=[shell(IDLE, memory=8, cpu=1)])
    arns = [arn for _ in range(3) for arn in run(up.ecs, DEFAULT, definition, count=10)]
    for arn in arns:
        until_status(up.ecs, DEFAULT, arn, "RUNNING")
    for arn in arns:
        up.ecs.stop_task(cluster=DEFAULT, task=arn)
    for arn in arns:
        ended(up, arn)


def test_a_stop_right_after_the_start_ends_the_task(up):
    for _ in range(5):
        arn = start(up, shell(IDLE))
        up.ecs.stop_task(cluster=DEFAULT, task=arn)
        assert ended(up, arn)["stopCode"] == "UserInitiated"
