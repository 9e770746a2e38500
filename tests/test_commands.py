"""Berth's own commands against a server alone: settings, env, ps, image load, down, signals."""

import base64
import json
import os
import shlex
import signal
import socket
import subprocess

import pytest

from berth import aws_binary, binary, clean_environment, unique
from ecs_calls import register, run, until_status
from fake_agent import FakeAgent
from http_call import exchange


def berth(*arguments, **environment):
    return subprocess.run(
        [str(binary()), *arguments], capture_output=True, text=True, timeout=120, env=clean_environment(NO_COLOR="1", **environment), check=False
    )


def test_version_and_help():
    done = berth("version")
    assert done.returncode == 0 and done.stdout.startswith("berth ")
    assert berth("--version").stdout.startswith("berth ")
    for command in ("up", "server", "agent", "env", "image", "backup", "restore", "doctor", "ps", "logs", "down", "version"):
        assert command in berth("--help").stdout
        done = berth(command, "--help")
        assert done.returncode == 0 and done.stdout, command


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "Usage"),
        (("server", "--listen", "nonsense"), "--listen"),
        (("server", "--region", "US EAST"), "--region"),
        (("server", "--account", "123"), "--account"),
        (("server", "--healthy-after", "soon"), "--healthy-after"),
        (("server", "--nonsense"), "--nonsense"),
        (("sail",), "sail"),
        (("server", "--data-dir", "/proc/none/such"), "--data-dir"),
    ],
)
def test_bad_arguments_end_with_2_and_name_the_setting(arguments, word):
    done = berth(*arguments)
    assert done.returncode == 2, done
    assert word in done.stderr, done.stderr
    assert not done.stdout


def test_doctor_says_what_this_machine_has_and_changes_nothing(server, tmp_path):
    done = berth("doctor", "--data-dir", str(tmp_path / "d"), "--listen", "127.0.0.1:0", "--output", "json")
    report = json.loads(done.stdout)
    found = {finding["check"]: finding for finding in report["findings"]}
    assert {"privileges", "kernel", "cgroups", "disk room", "clock", "server port", "programs"} <= set(found)
    assert all(("mend" in finding) == (finding["verdict"] != "good") for finding in report["findings"])
    assert done.returncode == (1 if report["verdict"] == "bad" else 0), done.stderr
    if os.geteuid() == 0:
        # What runs these tests runs containers, so the trials must come out well.
        assert {found[check]["verdict"] for check in ("overlay", "network", "cgroup trial")} == {"good"}, report
    assert list(tmp_path.iterdir()) == []
    left = [name for folder in ("/sys/class/net", "/sys/fs/cgroup") for name in os.listdir(folder) if "doctor" in name]
    assert left == []

    address = server.endpoint.removeprefix("http://")
    done = berth("doctor", "--data-dir", str(tmp_path), "--listen", address)
    assert f"a Berth serves at {address}" in done.stdout
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        done = berth("doctor", "--data-dir", str(tmp_path), "--listen", f"127.0.0.1:{stranger.getsockname()[1]}")
        assert done.returncode == 1 and "--listen" in done.stdout and "FAIL  server port" in done.stdout, done


def test_a_port_in_use_is_told_with_its_setting(server, tmp_path):
    address = server.endpoint.removeprefix("http://")
    done = berth("server", "--data-dir", str(tmp_path / "d"), "--listen", address)
    assert done.returncode == 2
    assert "--listen" in done.stderr and address in done.stderr


def test_region_and_account_are_in_every_arn(new_berth):
    started = new_berth(arguments=["--region", "eu-west-3", "--account", "123456789012"]).start()
    file = json.loads((started.data_dir / "endpoint.json").read_text())
    assert (file["region"], file["account"], file["pid"]) == ("eu-west-3", "123456789012", started.process.pid)
    assert started.ecs.list_clusters()["clusterArns"] == ["arn:aws:ecs:eu-west-3:123456789012:cluster/default"]


def test_env_exports_what_every_aws_tool_reads(server):
    lines = server.run("env").stdout
    values = dict(word.split("=", 1) for line in lines.splitlines() for word in shlex.split(line) if "=" in word)
    key, secret = server.credentials
    assert values["AWS_ENDPOINT_URL"] == server.endpoint
    assert (values["AWS_ACCESS_KEY_ID"], values["AWS_SECRET_ACCESS_KEY"]) == (key, secret)
    assert values["AWS_REGION"] == values["AWS_DEFAULT_REGION"] == "us-east-1"
    script = f'eval "$({binary()} env --data-dir {server.data_dir})" && {aws_binary()} ecs list-clusters --output text'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=120, env=clean_environment(), check=False)
    assert done.returncode == 0 and "cluster/default" in done.stdout, done
    assert json.loads(server.run("env", "--output", "json").stdout)["AWS_ENDPOINT_URL"] == server.endpoint
    assert f"AWS_ENDPOINT_URL={server.endpoint}" in server.run("env", "--output", "dotenv").stdout.replace('"', "")


def test_commands_without_a_berth_say_what_to_do(tmp_path):
    for command in (["env"], ["ps"], ["logs", "web"]):
        done = berth(*command, "--data-dir", str(tmp_path))
        assert done.returncode != 0 and "berth up" in done.stderr, (command, done)
    done = berth("down", "--data-dir", str(tmp_path))
    assert done.returncode == 0 and "nothing to stop" in done.stdout


def test_ps_shows_tasks_and_json_is_describe_tasks(server, cluster, agents):
    agents(cluster)
    arns = run(server.ecs, cluster, register(server.ecs), count=2)
    for arn in arns:
        until_status(server.ecs, cluster, arn, "RUNNING")
    server.ecs.stop_task(cluster=cluster, task=arns[1])
    until_status(server.ecs, cluster, arns[1], "STOPPED")
    shown = server.run("ps", "--cluster", cluster).stdout
    ids = [arn.rsplit("/", 1)[1] for arn in arns]
    assert ids[0][:8] in shown and ids[1][:8] not in shown and "RUNNING" in shown
    assert ids[1][:8] in server.run("ps", "--all", "--cluster", cluster).stdout
    tasks = json.loads(server.run("ps", "--all", "--cluster", cluster, "--output", "json").stdout)["tasks"]
    assert {task["taskArn"] for task in tasks} == set(arns)
    assert {task["lastStatus"] for task in tasks} == {"RUNNING", "STOPPED"}


def test_ps_of_an_unknown_cluster_fails(server):
    done = server.run("ps", "--cluster", "none-such", check=False)
    assert done.returncode == 1 and "Cluster not found" in done.stderr


def test_images_are_loaded_into_the_registry(server, hello_archive, shell_archive):
    name = unique("hello")
    loaded = json.loads(server.run("image", "load", str(hello_archive), f"{name}:1", "--output", "json").stdout)
    assert name in json.dumps(loaded)
    server.run("image", "load", str(shell_archive), f"{name}-sh:1")
    catalogue = _registry(server, "/v2/_catalog")
    assert {name, f"{name}-sh"} <= set(catalogue["repositories"])
    assert _registry(server, f"/v2/{name}/tags/list")["tags"] == ["1"]
    # Loading again is harmless.
    server.run("image", "load", str(hello_archive), f"{name}:1")


def _registry(server, path):
    pair = base64.b64encode(":".join(server.credentials).encode()).decode()
    answer = exchange(server.endpoint, "GET", path, {"Authorization": f"Basic {pair}"})
    assert answer.status == 200, answer
    return answer.json


def test_the_registry_wants_credentials(server):
    answer = exchange(server.endpoint, "GET", "/v2/")
    assert answer.status == 401 and "www-authenticate" in answer.headers


@pytest.mark.parametrize("content", [b"", b"this is no archive", b"\x1f\x8b broken gzip"])
def test_a_file_that_is_no_image_is_refused(server, tmp_path, content):
    file = tmp_path / "broken.tar"
    file.write_bytes(content)
    done = server.run("image", "load", str(file), "broken:1", check=False)
    assert done.returncode == 1 and str(file) in done.stderr, done
    assert "broken" not in _registry(server, "/v2/_catalog")["repositories"]


def test_an_image_file_that_is_not_there_and_a_bad_name_are_bad_arguments(server, tmp_path, hello_archive):
    assert server.run("image", "load", str(tmp_path / "none.tar"), "x:1", check=False).returncode == 2
    assert server.run("image", "load", str(hello_archive), "UPPER CASE:1", check=False).returncode == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_a_server_with_0_and_withdraw_its_endpoint(new_berth, number):
    started = new_berth().start()
    started.signal(number)
    assert started.wait() == 0
    assert not (started.data_dir / "endpoint.json").exists()
    assert (started.data_dir / "credentials").exists()


def test_down_stops_tasks_and_server(new_berth):
    started = new_berth().start()
    agent = FakeAgent(started, "default").join()
    (arn,) = run(started.ecs, "default", register(started.ecs))
    until_status(started.ecs, "default", arn, "RUNNING")
    done = started.run("down")
    assert started.wait() == 0
    assert "stopped" in done.stdout
    agent.wait_for_task(arn, "STOPPED")
    started.start()
    task = started.ecs.describe_tasks(cluster="default", tasks=[arn])["tasks"][0]
    assert (task["lastStatus"], task["desiredStatus"]) == ("STOPPED", "STOPPED")
    agent.leave()


def test_down_leaves_a_process_alone_that_is_no_berth(tmp_path):
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        file = {"endpoint": "http://127.0.0.1:1", "region": "us-east-1", "account": "000000000000", "pid": sleeper.pid}
        (tmp_path / "endpoint.json").write_text(json.dumps(file))
        done = berth("down", "--data-dir", str(tmp_path))
        assert done.returncode != 0 and "left alone" in done.stderr
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_ephemeral_belongs_to_up(tmp_path):
    done = berth("server", "--ephemeral", "--data-dir", str(tmp_path / "d"))
    assert done.returncode == 2 and "--ephemeral" in done.stderr


def test_up_without_root_says_what_to_do(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("SKIPPED (needs a user other than root)")
    done = berth("up", "--data-dir", str(tmp_path / "d"), "--listen", "127.0.0.1:0")
    assert done.returncode == 1 and "sudo" in done.stderr and "berth server" in done.stderr


def test_idle_connections_do_not_hold_up_the_end(new_berth):
    started = new_berth().start()
    host, port = started.endpoint.removeprefix("http://").split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(20)]
    started.signal(signal.SIGTERM)
    assert started.wait() == 0
    for connection in idle:
        connection.close()
