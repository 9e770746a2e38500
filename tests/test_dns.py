"""The DNS server of a container instance, asked by the resolver inside real containers: names of others by way of it, the last table it was
given without a control plane, an address that somebody else has, and containers that it is not for."""

import contextlib
import json
import socket
import threading
from pathlib import Path

import pytest

from berth import Berth, fresh_folder, unique, until, with_images
from cloud_map_calls import clear, cloud_map, private_namespace, registered, service
from containers import ended, output, running, said, shell, skip_unless_root, start, stop
from ecs_calls import register, run, until_status
from machine_agent import MachineAgent

skip_unless_root(__file__)
DEFAULT = "default"
MACHINE = Path("/etc/resolv.conf").read_text()
# Asks again and again, and keeps the last answer where the test can read it.
ASKING = "while :; do getent ahostsv4 hello.ns.local > /out/new && /bin/cat /out/new > /out/answer; sleep 0.1; done"


class OtherNameServer:
    """Somebody else's name server: every name has the address 192.0.2.7, and it keeps which were asked for."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.asked = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.socket.getsockname()[1]}"

    def _serve(self):
        while True:
            request, peer = self.socket.recvfrom(4096)
            if not request:
                return
            labels, at = [], 12
            while request[at]:
                labels.append(request[at + 1 : at + 1 + request[at]].decode())
                at += 1 + request[at]
            self.asked.append(".".join(labels))
            question = request[12 : at + 5]
            is_a = question[-4:-2] == b"\x00\x01"
            answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x07" if is_a else b""
            head = request[:2] + b"\x81\x80\x00\x01" + bytes([0, int(is_a)]) + b"\x00\x00\x00\x00"
            self.socket.sendto(head + question + answer, peer)

    def end(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self.socket.getsockname())
        self.thread.join(30)
        self.socket.close()


@pytest.fixture(scope="module")
def other():
    server = OtherNameServer()
    yield server
    server.end()


@pytest.fixture(scope="module")
def up(both_images, other):
    with with_images(Berth("up", environment={"BERTH_DNS_UPSTREAM": other.address}), both_images) as berth:
        until("names to be answered", lambda: "names are answered" in berth.log.read_text())
        yield berth


def name_servers(text):
    return [line.split()[1] for line in text.splitlines() if line.startswith("nameserver")]


def resolv_conf(up, **members):
    return output(up, ended(up, start(up, shell("cat /etc/resolv.conf", **members)))["taskArn"])


def test_a_container_asks_its_instance_and_that_asks_others(up, other):
    task = ended(up, start(up, shell("cat /etc/resolv.conf; getent ahostsv4 www.example.test")))
    shown = output(up, task["taskArn"])
    assert "192.0.2.7" in shown, f"{shown}\n{up.tail()}"
    first, *others = name_servers(shown)
    assert first not in name_servers(MACHINE)
    assert others == [server for server in name_servers(MACHINE) if not server.startswith("127.")]
    assert "www.example.test" in other.asked


def test_what_a_definition_says_of_name_servers_is_stronger(up):
    assert name_servers(resolv_conf(up, dnsServers=["10.9.8.7"])) == ["10.9.8.7"]
    with_search = resolv_conf(up, dnsSearchDomains=["ns.local"])
    assert "search ns.local\n" in with_search and name_servers(with_search)[0] not in name_servers(MACHINE)


def test_host_mode_has_the_machines_name_servers(up):
    definition = register(up.ecs, containers=[shell("cat /etc/resolv.conf")], networkMode="host")
    task = ended(up, run(up.ecs, DEFAULT, definition)[0])
    assert name_servers(output(up, task["taskArn"])) == name_servers(MACHINE)


def test_off_is_off(both_images):
    with with_images(Berth("up", environment={"BERTH_DNS": "off"}), both_images) as berth:
        shown = resolv_conf(berth)
        assert name_servers(shown) == [server for server in name_servers(MACHINE) if not server.startswith("127.")]
        assert "names are answered" not in berth.log.read_text()


def test_the_last_table_is_answered_from_while_the_control_plane_is_away(both_images, other):
    with contextlib.ExitStack() as stack:
        berth = stack.enter_context(with_images(Berth("server"), both_images))
        agent = MachineAgent(berth, BERTH_DNS_UPSTREAM=other.address)
        stack.callback(agent.end)
        agent.start().until_connected()
        out = fresh_folder("out")
        volume = {"name": "out", "host": {"sourcePath": str(out)}}
        container = shell(f"cat /etc/resolv.conf > /out/resolv.conf; {ASKING}", mountPoints=[{"sourceVolume": "out", "containerPath": "/out"}])
        until("names to be answered", lambda: "names are answered" in agent.tail())
        definition = register(berth.ecs, containers=[container], volumes=[volume])
        arn = run(berth.ecs, DEFAULT, definition)[0]
        until_status(berth.ecs, DEFAULT, arn, "RUNNING")
        until("an answer of others", lambda: "192.0.2.7" in answer(out))

        # Agent and server go; what the agent was last told stays.
        agent.kill()
        berth.terminate()
        record = {"name": "hello", "ttl_seconds": 10, "routing": "MULTIVALUE", "answers": [{"A": "198.51.100.9"}]}
        (agent.data_dir / "dns.json").write_text(json.dumps({"revision": 1, "zones": [{"name": "ns.local", "records": [record]}]}))
        bridge = name_servers((out / "resolv.conf").read_text())[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind((bridge, 53))
            agent.start()
            until("it to say that the address is taken", lambda: "names are not answered here" in agent.tail())
        asked = len(other.asked)
        until("the answer of the last table", lambda: "198.51.100.9" in answer(out))
        assert "hello.ns.local" not in other.asked[asked:], "a name of ours is never asked for elsewhere"

        berth.start()
        agent.until_connected()
        stop(berth, arn)


def answer(folder):
    file = folder / "answer"
    return file.read_text() if file.exists() else ""


def test_a_task_that_runs_asks_an_address_of_its_own_machine(up):
    task = running(up, shell("cat /etc/resolv.conf; while :; do sleep 1; done"))
    server = until("the file", lambda: name_servers(output(up, task["taskArn"])))[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        # A name of somebody else's, asked by the machine itself: refused, since that is how a ring of resolvers looks.
        client.settimeout(30)
        client.sendto(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x04test\x00\x00\x01\x00\x01", (server, 53))
        assert client.recv(512)[:4] == b"\x12\x34\x81\x85"
    stop(up, task["taskArn"])


def test_what_cloud_map_registers_is_found_from_inside_a_container_at_once(up, other):
    client = cloud_map(up)
    namespace = private_namespace(client, name=f"{unique('ns')}.local")
    zone = client.get_namespace(Id=namespace)["Namespace"]["Name"]
    found = service(client, namespace, "A", name="hello")
    until("the namespace to be known", lambda: zone in (up.data_dir / "agent" / "dns.json").read_text())
    # Made after the namespace: the instance is its only name server. It looks until the name is there, and says so, then until it is gone.
    script = (
        f"/bin/cat /etc/resolv.conf; until getent ahostsv4 hello.{zone}; do sleep 0.1; done; echo it is there;"
        f" while getent ahostsv4 hello.{zone} > /tmp/found; do sleep 0.1; done; echo it is gone"
    )
    arn = start(up, shell(script, stopTimeout=2))
    until_status(up.ecs, DEFAULT, arn, "RUNNING")
    registered(client, found, "i-1", AWS_INSTANCE_IPV4="10.1.2.3")
    shown = said(up, arn, "it is there")
    assert "10.1.2.3" in shown and len(name_servers(shown)) == 1
    client.deregister_instance(ServiceId=found, InstanceId="i-1")
    said(up, arn, "it is gone")
    assert not [name for name in other.asked if name.endswith(zone)]
    clear(client, namespace)
