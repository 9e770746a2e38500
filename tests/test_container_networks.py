"""Real containers on the network: bridge and host mode, dynamic and static ports, ports in use, services that answer."""

import os
import signal
import socket

import pytest

from berth import http_text, until
from containers import ended, finished, hello, host_ports, output, page, pids_of, running, shell, skip_unless_root, stop
from ecs_calls import describe, register, run, service, tasks_of, until_status, until_steady
from ports import free_port

skip_unless_root(__file__)
DEFAULT = "default"


def test_a_service_of_two_answers_on_both_ports_and_a_killed_one_is_replaced(up):
    ecs = up.ecs
    ecs.create_service(cluster=DEFAULT, serviceName="web", taskDefinition=register(ecs, containers=[hello()]), desiredCount=2)
    until_steady(ecs, DEFAULT, "web")
    tasks = {arn: describe(ecs, DEFAULT, arn) for arn in tasks_of(ecs, DEFAULT, serviceName="web")}
    ports = {arn: host_ports(task)[0] for arn, task in tasks.items()}
    assert len(set(ports.values())) == 2
    for port in ports.values():
        assert "Hello from Berth" in page(port)
    killed, kept = tasks
    os.kill(pids_of(tasks[killed]["containers"][0])[0], signal.SIGKILL)
    until("the replacement", lambda: killed not in tasks_of(ecs, DEFAULT, serviceName="web"))
    until_steady(ecs, DEFAULT, "web")
    (fresh,) = set(tasks_of(ecs, DEFAULT, serviceName="web")) - {kept}
    assert "Hello from Berth" in page(host_ports(describe(ecs, DEFAULT, fresh))[0])
    assert "Hello from Berth" in page(ports[kept])
    assert ended(up, killed)["containers"][0]["exitCode"] == 137
    until("the old port to be closed", lambda: ports[killed] in _live_ports(up) or http_text(f"http://127.0.0.1:{ports[killed]}/") is None)
    ecs.delete_service(cluster=DEFAULT, service="web", force=True)
    until("INACTIVE", lambda: service(ecs, DEFAULT, "web")["status"] == "INACTIVE")


def _live_ports(up):
    return [port for arn in tasks_of(up.ecs, DEFAULT) for port in host_ports(describe(up.ecs, DEFAULT, arn))]


def test_bridge_mode_with_a_static_port_answers_there(up):
    port = free_port()
    task = running(up, hello(ports=[{"containerPort": 80, "hostPort": port}]))
    assert task["containers"][0]["networkBindings"] == [{"bindIP": "0.0.0.0", "containerPort": 80, "hostPort": port, "protocol": "tcp"}]
    assert "Hello from Berth" in page(port)
    stop(up, task["taskArn"])
    until("the port to be closed", lambda: http_text(f"http://127.0.0.1:{port}/") is None)


def test_a_task_answers_on_the_machines_own_addresses(up):
    task = running(up, hello())
    (port,) = host_ports(task)
    page(port)
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses:
        assert "Hello from Berth" in until(f"an answer on {address}", lambda address=address: http_text(f"http://{address}:{port}/"))
    stop(up, task["taskArn"])


def test_host_mode_uses_the_machines_network(up):
    port = free_port()
    container = hello(ports=[{"containerPort": port}], environment=[{"name": "PORT", "value": str(port)}])
    task = running(up, container, networkMode="host")
    assert "Hello from Berth" in page(port)
    assert os.readlink(f"/proc/{pids_of(task['containers'][0])[0]}/ns/net") == os.readlink("/proc/self/ns/net")
    stop(up, task["taskArn"])


def test_bridge_mode_has_a_network_namespace_of_its_own(up):
    first, second = running(up, hello()), running(up, hello())
    spaces = [os.readlink(f"/proc/{pids_of(task['containers'][0])[0]}/ns/net") for task in (first, second)]
    assert len({*spaces, os.readlink("/proc/self/ns/net")}) == 3
    for task in (first, second):
        stop(up, task["taskArn"])


def test_none_mode_has_only_a_loopback(up):
    script = "while read -r line; do case $line in *:*) echo ${line%%:*};; esac; done < /proc/net/dev"
    task = finished(up, shell(script), networkMode="none")
    assert output(up, task["taskArn"]).split() == ["lo"]


@pytest.mark.parametrize("mode", ["bridge", "host"])
def test_a_port_in_use_on_the_machine_ends_the_task_with_that_reason(up, mode):
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        if mode == "bridge":
            task = finished(up, hello(ports=[{"containerPort": 80, "hostPort": port}]))
            assert task["stopCode"] == "TaskFailedToStart", task
            assert str(port) in task["stoppedReason"], task["stoppedReason"]
            assert task["stoppedReason"].startswith("CannotStartContainerError"), task["stoppedReason"]
        else:
            # The program itself finds the port taken.
            environment = [{"name": "PORT", "value": str(port)}]
            task = finished(up, hello(ports=[{"containerPort": port}], environment=environment), networkMode="host")
            assert task["containers"][0]["exitCode"] == 1
    # Freed, it works.
    task = running(up, hello(ports=[{"containerPort": 80, "hostPort": port}]))
    assert "Hello from Berth" in page(port)
    stop(up, task["taskArn"])


def test_a_static_port_of_a_running_task_is_refused_at_placement(up):
    port = free_port()
    definition = register(up.ecs, containers=[hello(ports=[{"containerPort": 80, "hostPort": port}])])
    (arn,) = run(up.ecs, DEFAULT, definition)
    until_status(up.ecs, DEFAULT, arn, "RUNNING")
    answer = up.ecs.run_task(cluster=DEFAULT, taskDefinition=definition)
    assert (answer["tasks"], [f["reason"] for f in answer["failures"]]) == ([], ["RESOURCE:PORTS"])
    stop(up, arn)


def test_no_capacity_on_the_real_machine_is_a_failure(up):
    answer = up.ecs.run_task(cluster=DEFAULT, taskDefinition=register(up.ecs, containers=[hello(memory=50_000_000)]))
    assert (answer["tasks"], [f["reason"] for f in answer["failures"]]) == ([], ["RESOURCE:MEMORY"])
    answer = up.ecs.run_task(cluster=DEFAULT, taskDefinition=register(up.ecs, containers=[hello(cpu=5_000_000)]))
    assert (answer["tasks"], [f["reason"] for f in answer["failures"]]) == ([], ["RESOURCE:CPU"])


def test_several_ports_and_protocols_of_one_container(up):
    ports = [{"containerPort": 80}, {"containerPort": 81}, {"containerPort": 53, "protocol": "udp"}]
    task = running(up, hello(ports=ports))
    bindings = {(b["containerPort"], b["protocol"]): b["hostPort"] for b in task["containers"][0]["networkBindings"]}
    assert set(bindings) == {(80, "tcp"), (81, "tcp"), (53, "udp")}
    assert "Hello from Berth" in page(bindings[80, "tcp"])
    stop(up, task["taskArn"])


def test_two_containers_of_a_bridge_task_have_their_own_ports(up):
    task = running(up, hello("a"), hello("b"))
    first, second = host_ports(task)
    assert first != second
    for port in (first, second):
        assert "Hello from Berth" in page(port)
    stop(up, task["taskArn"])


def test_a_rolling_update_of_real_containers_never_stops_answering(up):
    """Every request during the deployment goes to a port that DescribeTasks just showed RUNNING; at least one must answer."""
    ecs = up.ecs
    ecs.create_service(cluster=DEFAULT, serviceName="roll", taskDefinition=register(ecs, containers=[hello()]), desiredCount=2)
    until_steady(ecs, DEFAULT, "roll")
    definition = register(ecs, containers=[hello(environment=[{"name": "NEW", "value": "yes"}])])
    ecs.update_service(cluster=DEFAULT, service="roll", taskDefinition=definition)
    rounds = 0

    def done():
        nonlocal rounds
        rounds += 1
        live = [describe(ecs, DEFAULT, arn) for arn in tasks_of(ecs, DEFAULT, serviceName="roll")]
        ports = [port for task in live if task["lastStatus"] == "RUNNING" for port in host_ports(task)]
        assert any(http_text(f"http://127.0.0.1:{port}/healthz") for port in ports), (rounds, ports)
        found = service(ecs, DEFAULT, "roll")
        return len(found["deployments"]) == 1 and found["deployments"][0]["rolloutState"] == "COMPLETED"

    until("the deployment", done)
    ports = [port for arn in tasks_of(ecs, DEFAULT, serviceName="roll") for port in host_ports(describe(ecs, DEFAULT, arn))]
    assert all("NEW=yes" in page(port, "/env") for port in ports)
    ecs.delete_service(cluster=DEFAULT, service="roll", force=True)
    until("INACTIVE", lambda: service(ecs, DEFAULT, "roll")["status"] == "INACTIVE")
