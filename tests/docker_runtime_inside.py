"""What `berth up` does with Docker as its runtime. Run by test_docker_runtime.py, within namespaces that hold nothing else."""

import os
import shlex
import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import docker_engine  # noqa: E402
from berth import Berth, binary, fresh_folder, run_folder, unique, until  # noqa: E402
from containers import IDLE, ended, finished, hello, host_ports, output, page, running, said, shell  # noqa: E402
from ecs_calls import describe, register, tasks_of, until_steady  # noqa: E402
from leftovers import short_name  # noqa: E402
from port_servers import asking, expected, pack_ports, serving  # noqa: E402

# Somebody without any right but to Docker's socket.
PLAIN_USER = 12345


@pytest.fixture(scope="module")
def docker():
    with docker_engine.running() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def up(docker):
    with docker_engine.berth_up(docker) as berth:
        yield berth


def pages(berth, tasks):
    return [page(port) for task in describe_all(berth, tasks) for port in host_ports(task)]


def describe_all(berth, arns):
    return [describe(berth.ecs, "default", arn) for arn in arns]


def alive(docker):
    return docker.containers("status=running")


def test_a_service_answers_and_a_killed_task_is_replaced(up, docker):
    name = unique("web")
    definition = register(up.ecs, containers=[hello()])
    up.ecs.create_service(cluster="default", serviceName=name, taskDefinition=definition, desiredCount=2)
    until_steady(up.ecs, "default", name)
    tasks = tasks_of(up.ecs, "default", serviceName=name)
    assert len(tasks) == 2 and len(pages(up, tasks)) == 2
    assert len(set(port for task in describe_all(up, tasks) for port in host_ports(task))) == 2

    victim = next(one for one in alive(docker) if tasks[0].rsplit("/", 1)[1] in one)
    docker("kill", victim)
    stopped = ended(up, tasks[0])
    assert stopped["stopCode"] == "EssentialContainerExited" and stopped["containers"][0]["exitCode"] == 137
    until("a replacement", lambda: len(now := tasks_of(up.ecs, "default", serviceName=name)) == 2 and tasks[0] not in now)
    until_steady(up.ecs, "default", name)
    tasks = tasks_of(up.ecs, "default", serviceName=name)
    assert len(pages(up, tasks)) == 2

    # The server and agent die; what they run goes on, answers, and is theirs again afterwards.
    before = alive(docker)
    up.kill()
    assert alive(docker) == before
    up.start()
    until_steady(up.ecs, "default", name)
    assert sorted(tasks_of(up.ecs, "default", serviceName=name)) == sorted(tasks)
    assert alive(docker) == before and len(pages(up, tasks)) == 2
    up.ecs.update_service(cluster="default", service=name, desiredCount=0)
    until("no task", lambda: not tasks_of(up.ecs, "default", serviceName=name))
    up.ecs.delete_service(cluster="default", service=name)


def test_output_and_exit_codes_are_told(up):
    task = finished(up, shell("echo one; echo two >&2; exit 7"))
    assert task["containers"][0]["exitCode"] == 7
    shown = output(up, task["taskArn"])
    assert "one" in shown and "two" in shown


def test_output_goes_on_over_a_killed_agent(up):
    script = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo line-$i; sleep 0.02; done"
    task = running(up, shell(script))["taskArn"]
    said(up, task, "line-20")
    up.kill()
    up.start()
    ended(up, task)
    lines = [line.rsplit(" ", 1)[-1] for line in output(up, task).splitlines() if "line-" in line]
    assert lines == [f"line-{number}" for number in range(1, 301)]


def test_links_give_a_name_an_address_and_dockers_variables(up, docker):
    db = shell(IDLE, name="db", portMappings=[{"containerPort": 5432}])
    web = shell(f"cat /etc/hosts; env; echo shown; {IDLE}", name="web", links=["db:the-db"])
    task = running(up, db, web)
    said(up, task["taskArn"], "shown")
    shown = output(up, task["taskArn"], "--container", "web").splitlines()
    variables = dict(line.split("=", 1) for line in shown if "=" in line)
    (linked,) = [one for one in docker.containers() if one.endswith(next(c["runtimeId"] for c in task["containers"] if c["name"] == "db"))]
    address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", linked).stdout.strip()
    assert variables["THE_DB_PORT"] == f"tcp://{address}:5432"
    assert ["the-db", "db"] == [name for line in shown if line.startswith(address) for name in line.split()[1:]]
    up.ecs.stop_task(cluster="default", task=task["taskArn"])
    ended(up, task["taskArn"])


def test_a_port_in_use_is_told_in_dockers_words(up):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        task = finished(up, hello(ports=[{"containerPort": 80, "hostPort": port}]))
    reason = task["containers"][0]["reason"]
    assert f"Bind for 0.0.0.0:{port} failed: port is already allocated" in reason
    task = running(up, hello(ports=[{"containerPort": 80, "hostPort": port}]))
    assert page(port)
    up.ecs.stop_task(cluster="default", task=task["taskArn"])
    ended(up, task["taskArn"])


def test_ranges_of_ports_are_published_one_after_the_other(up):
    up.run("image", "load", str(pack_ports(fresh_folder("ports") / "ports.tar")), "ports:1")
    ports = [f"tcp/{port}" for port in range(8000, 8005)] + [f"udp/{port}" for port in (8000, 8001, 8002)]
    mappings = [{"containerPortRange": "8000-8004"}, {"containerPortRange": "8000-8002", "protocol": "udp"}]
    task = running(up, serving(*ports, mappings=mappings))
    said(up, task["taskArn"], "serving")
    bindings = task["containers"][0]["networkBindings"]
    assert [(one["containerPortRange"], one["protocol"]) for one in bindings] == [("8000-8004", "tcp"), ("8000-8002", "udp")]
    wanted = [pair for binding in bindings for pair in expected(binding)]
    asked = finished(up, asking(*(host for host, _ in wanted)))
    shown = output(up, asked["taskArn"])
    assert [line for line in shown.splitlines() if "leads to" in line] and all(f"{host} leads to {inside}" in shown for host, inside in wanted), shown
    up.ecs.stop_task(cluster="default", task=task["taskArn"])
    ended(up, task["taskArn"])


def test_what_docker_cannot_execute_and_images_that_are_nowhere(up):
    task = finished(up, {"name": "app", "image": "shell:1", "memory": 64, "entryPoint": ["/no/such"]})
    assert "CannotStartContainerError" in task["containers"][0]["reason"] and "no such file" in task["containers"][0]["reason"]


def test_a_data_directory_keeps_to_its_runtime(up):
    task = running(up, shell(IDLE))["taskArn"]
    up.kill()
    arguments, up.arguments = up.arguments, [*up.arguments[:-1], "native"]
    with pytest.raises(AssertionError, match="run in docker"):
        up.start()
    # Nothing said: what it was.
    up.arguments = arguments[:-2]
    up.start()
    assert describe(up.ecs, "default", task)["lastStatus"] == "RUNNING"
    up.arguments = arguments
    up.ecs.stop_task(cluster="default", task=task)
    ended(up, task)


@pytest.fixture
def as_plain_user(docker, tmp_path_factory, monkeypatch):
    """Berth as somebody without root, who may use Docker."""
    os.chmod(docker.folder, 0o711)
    os.chmod(run_folder(), 0o711)
    os.chown(docker.folder / "docker.sock", PLAIN_USER, PLAIN_USER)
    place = fresh_folder("plain")
    os.chown(place, PLAIN_USER, PLAIN_USER)
    wrapper = place / "berth"
    drop = f"setpriv --reuid {PLAIN_USER} --regid {PLAIN_USER} --clear-groups --bounding-set -all"
    wrapper.write_text(f"#!/bin/sh\nHOME={shlex.quote(str(place))} exec {drop} {shlex.quote(str(binary()))} \"$@\"\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("BERTH_BIN", str(wrapper))
    yield place
    os.chown(docker.folder / "docker.sock", 0, 0)


def test_without_root_docker_is_found(as_plain_user, docker):
    berth = Berth("up", data_dir=as_plain_user / "data").start()
    try:
        assert f"Uid:\t{PLAIN_USER}" in Path(f"/proc/{berth.process.pid}/status").read_text()
        docker_engine.load_images(berth)
        task = running(berth, hello())
        assert page(host_ports(task)[0])
        assert finished(berth, shell("exit 3"))["containers"][0]["exitCode"] == 3
        own = f"label=berth.runtime={short_name(berth.data_dir)}"
        assert docker.containers(own)
        berth.run("down")
        assert berth.wait() == 0
        assert docker.containers(own) == []
    finally:
        berth.end()


def test_without_root_and_docker_both_ways_are_named(as_plain_user, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    berth = Berth("up", data_dir=as_plain_user / "data")
    with pytest.raises(AssertionError) as refused:
        berth.start()
    text = str(refused.value)
    assert "sudo" in text and "Docker's socket" in text and "/nonexistent/docker.sock" in text
    berth.end()
