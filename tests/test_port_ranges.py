"""`containerPortRange`: ports of a container on as many ports of the machine, one after the other; or the task does not start."""

import os
import socket

import pytest

from berth import Berth, http_text, with_images
from containers import IDLE, ended, finished, hello, output, page, running, said, shell, skip_unless_root, stop
from ecs_calls import refused, register, run
from port_servers import asking, ends, expected, pack_ports, serving

skip_unless_root(__file__)
DEFAULT = "default"
CAPABILITY = "ecs.capability.network.container-port-range"


@pytest.fixture(scope="module")
def up(both_images, tmp_path_factory):
    images = {**both_images, "ports:1": pack_ports(tmp_path_factory.mktemp("image") / "ports.tar")}
    with with_images(Berth("up"), images) as berth:
        yield berth


@pytest.fixture(scope="module")
def narrow(shell_archive, hello_archive):
    """A machine with ten ports to give."""
    images = {"shell:1": shell_archive, "hello:latest": hello_archive}
    first = free_run(10)
    with with_images(Berth("up", environment={"ECS_DYNAMIC_HOST_PORT_RANGE": f"{first}-{first + 9}"}), images) as berth:
        berth.first_port = first
        yield berth


def free_run(count):
    """The first of so many free ports in a row, below those that the machine gives to whoever wants any port."""

    def is_free(port):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                try:
                    probe.bind(("0.0.0.0", port))
                except OSError:
                    return False
        return True

    # Two runs at a time begin at different places.
    for first in range(20_000 + os.getpid() % 500 * 20, 32_000, 20):
        if all(is_free(port) for port in range(first, first + count)):
            return first
    raise AssertionError(f"this machine has no {count} free ports in a row")


def ranges(task):
    bindings = [binding for container in task["containers"] for binding in container["networkBindings"]]
    return [ends(binding["hostPortRange"]) for binding in bindings if "hostPortRange" in binding]


def test_every_port_of_a_range_is_reached_over_tcp_and_udp_from_another_container(up):
    ports = [f"tcp/{port}" for port in (80, *range(8000, 8011))] + [f"udp/{port}" for port in range(8000, 8004)]
    mappings = [
        {"containerPortRange": "8000-8010", "name": "many"},
        {"containerPortRange": "8000-8003", "protocol": "udp"},
        {"containerPort": 80},
    ]
    task = running(up, serving(*ports, mappings=mappings))
    said(up, task["taskArn"], "serving")
    one, many, datagrams = task["containers"][0]["networkBindings"]
    assert (one["containerPort"], one["protocol"]) == (80, "tcp")
    for binding, inside, protocol in ((many, "8000-8010", "tcp"), (datagrams, "8000-8003", "udp")):
        assert binding.keys() == {"bindIP", "containerPortRange", "hostPortRange", "protocol"}
        assert (binding["bindIP"], binding["containerPortRange"], binding["protocol"]) == ("0.0.0.0", inside, protocol)
    wanted = [(f"tcp/{one['hostPort']}", "tcp/80"), *expected(many), *expected(datagrams)]
    asked = finished(up, asking(*(host for host, _ in wanted)))
    shown = output(up, asked["taskArn"])
    for host, inside in wanted:
        assert f"{host} leads to {inside}" in shown, shown
    # And from the machine itself.
    first, last = ends(many["hostPortRange"])
    for port in (first, last):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            assert client.recv(64).decode() == f"tcp/{8000 + port - first}"
    assert f"0.0.0.0:{many['hostPortRange']}->8000-8010/tcp" in up.run("ps").stdout
    # Two tasks of it have ports of their own.
    other = running(up, serving(*ports, mappings=mappings))
    (begin, end), _ = ranges(other)
    assert end < first or begin > last
    over = stop(up, task["taskArn"])
    assert ranges(over) == ranges(task), "what was bound is still told"
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", first), timeout=5)
    stop(up, other["taskArn"])


def test_a_range_is_a_capability_and_reserves_nothing_before_it_runs(up):
    definition = register(up.ecs, containers=[shell(IDLE, portMappings=[{"containerPortRange": "8000-8010"}])])
    needed = up.ecs.describe_task_definition(taskDefinition=definition)["taskDefinition"]["requiresAttributes"]
    assert CAPABILITY in [attribute["name"] for attribute in needed]
    (arn,) = up.ecs.list_container_instances(cluster=DEFAULT)["containerInstanceArns"]

    def instance():
        return up.ecs.describe_container_instances(cluster=DEFAULT, containerInstances=[arn])["containerInstances"][0]

    def used():
        return next(set(one["stringSetValue"]) for one in instance()["remainingResources"] if one["name"] == "PORTS")

    assert CAPABILITY in [attribute["name"] for attribute in instance()["attributes"]]
    before = used()
    task = running(up, shell(IDLE, portMappings=[{"containerPortRange": "8000-8010"}]))
    ((first, last),) = ranges(task)
    assert used() - before == {str(port) for port in range(first, last + 1)}, "once it runs, its ports are shown as used"
    stop(up, task["taskArn"])
    assert used() == before
    with refused("ClientException", "networkMode", "host"):
        register(up.ecs, containers=[shell(IDLE, portMappings=[{"containerPortRange": "8000-8010"}])], networkMode="host")


def test_a_task_does_not_start_without_enough_ports_in_a_row_and_says_so(narrow):
    first = narrow.first_port
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", first + 5))
        holder.listen()
        over = finished(narrow, shell(IDLE, portMappings=[{"containerPortRange": "8000-8005"}]))
        assert over["stopCode"] == "TaskFailedToStart", over
        why = f"6 contiguous host ports are unavailable in the dynamic host port range {first}-{first + 9}"
        assert over["containers"][0]["reason"] == f"HostConfigError: error retrieving docker port map: {why}"
        assert over["stoppedReason"].endswith(why), over["stoppedReason"]
        assert over["containers"][0].get("networkBindings", []) == []
        # UDP's ports are others, and five fit before the one that is taken.
        datagrams = running(narrow, shell(IDLE, portMappings=[{"containerPortRange": "8000-8009", "protocol": "udp"}]))
        assert ranges(datagrams) == [(first, first + 9)]
        task = running(narrow, shell(IDLE, portMappings=[{"containerPortRange": "8000-8004"}]))
        assert ranges(task) == [(first, first + 4)]
        stop(narrow, task["taskArn"])
        stop(narrow, datagrams["taskArn"])
    task = running(narrow, shell(IDLE, portMappings=[{"containerPortRange": "8000-8009"}]))
    assert ranges(task) == [(first, first + 9)], "freed, all of them are to be had"
    stop(narrow, task["taskArn"])


def test_a_range_is_kept_over_a_killed_agent(narrow):
    first = narrow.first_port
    port = first + 3
    container = hello(ports=[{"containerPort": 80, "hostPort": port}, {"containerPortRange": "90-95"}])
    task = running(narrow, container)
    assert ranges(task) == [(first + 4, first + 9)], "a port that the task itself names is not in it"
    assert "Hello from Berth" in page(port)
    narrow.kill()
    narrow.start()
    # Another one does not get any of them, and what is left suffices it.
    (small,) = ranges(running(narrow, shell(IDLE, portMappings=[{"containerPortRange": "8000-8002"}])))
    assert small == (first, first + 2)
    definition = register(narrow.ecs, containers=[shell(IDLE, portMappings=[{"containerPortRange": "8000-8001"}])])
    (third,) = run(narrow.ecs, DEFAULT, definition)
    assert "2 contiguous host ports" in ended(narrow, third)["stoppedReason"]
    assert ranges(stop(narrow, task["taskArn"])) == [(first + 4, first + 9)]
    assert http_text(f"http://127.0.0.1:{port}/") is None
