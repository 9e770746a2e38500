"""Tasks of several machines: `berth agent` three times, each in a network namespace of its own, and `berth server` in another. Two machines share
a link, the third is behind a router; so there are host routes and VXLAN."""

import contextlib
import json
import socket
import subprocess
import threading

import pytest

import leftovers
from awsvpc import address, details, fetched, inside, interfaces, network, subnet_of
from berth import Berth, binary, until
from containers import IDLE, hello, shell, skip_unless_root
from ec2_calls import default_vpc
from ecs_calls import describe, register, run, tasks_of, until_status, until_steady
from etcd_servers import EtcdCluster
from hosts import Wires
from machine_agent import MachineAgent

skip_unless_root(__file__)
DEFAULT = "default"
MACHINES = {"one": "10.90.0.11", "two": "10.90.0.12", "three": "10.91.0.13"}
APART = [{"type": "distinctInstance"}]


class Fleet:
    """Servers on one host, agents on the others."""

    def __init__(self, wires, servers):
        self.wires, self.servers, self.agents = wires, servers, {}

    @property
    def berth(self):
        return self.servers[0]

    @property
    def ecs(self):
        return self.berth.ecs

    @property
    def ec2(self):
        return self.berth.client("ec2")

    def join(self, name, order=1):
        """Starts a machine's agent; `order` -1: it asks the servers from the last one on."""
        agent = MachineAgent(self.berth, backends=",".join([from_afar(berth) for berth in self.servers][::order]))
        self.agents[name] = agent
        before = set(self.machines())
        with self.wires.hosts[name]:
            agent.start()
        until(f"{name} to be connected", lambda: name in self.machines() or agent.process.poll() is not None)
        assert agent.process.poll() is None, agent.tail()
        assert len(self.machines()) == len(before) + 1

    def machines(self):
        """ARNs of container instances with their agents connected, by the machines' names."""
        arns = self.ecs.list_container_instances(cluster=DEFAULT)["containerInstanceArns"]
        found = self.ecs.describe_container_instances(cluster=DEFAULT, containerInstances=arns)["containerInstances"] if arns else []
        names = {address: name for name, address in MACHINES.items()}
        by_name = {}
        for one in found:
            said = {attribute["name"]: attribute.get("value") for attribute in one["attributes"]}
            if one["agentConnected"]:
                by_name[names[said["berth.host-ipv4"]]] = one["containerInstanceArn"]
        return by_name

    def run_apart(self, container, count, on):
        """Runs tasks, one a machine, and waits for them; gives them by the machines' names."""
        definition = register(self.ecs, containers=[container], networkMode="awsvpc")
        arns = run(self.ecs, DEFAULT, definition, count=count, networkConfiguration=on, placementConstraints=APART)
        names = {arn: name for name, arn in self.machines().items()}
        tasks = [until_status(self.ecs, DEFAULT, arn, "RUNNING") for arn in arns]
        return {names[task["containerInstanceArn"]]: task for task in tasks}

    def group(self, name):
        return self.ec2.create_security_group(GroupName=name, Description="none", VpcId=default_vpc(self.ec2)["VpcId"])["GroupId"]

    def stop_all(self):
        arns = tasks_of(self.ecs, DEFAULT)
        for arn in arns:
            self.ecs.stop_task(cluster=DEFAULT, task=arn)
        for arn in arns:
            until_status(self.ecs, DEFAULT, arn, "STOPPED")
        until("all addresses to be free", lambda: not interfaces(self.ec2))

    def end(self):
        with contextlib.ExitStack() as stack:
            for name, agent in self.agents.items():
                stack.callback(self._end, name, agent)

    def _end(self, name, agent):
        with self.wires.hosts[name]:
            agent.end()


@pytest.fixture
def wires():
    made = Wires()
    try:
        made.host("control", "10.90.0.1")
        for name, own in MACHINES.items():
            made.host(name, own)
        yield made
    finally:
        made.end()


def from_afar(berth):
    """The URL by which other machines reach a server."""
    return f"http://10.90.0.1:{berth.listen.rsplit(':', 1)[1]}"


def loaded(berth, images):
    """Gives a server images; by loopback, since a password does not go anywhere else unencrypted."""
    there = {**berth.environment(), "AWS_ENDPOINT_URL": from_afar(berth).replace("10.90.0.1", "127.0.0.1")}
    for name, archive in images.items():
        done = subprocess.run([str(binary()), "image", "load", str(archive), name], env=there, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def fleet_of(wires, images, *arguments):
    """Servers on the host `control`, one for each of the lists of arguments. The test's own thread is there, too."""
    with wires.hosts["control"]:
        servers = [Berth("server", listen="0.0.0.0:0", arguments=given) for given in arguments]
        fleet = Fleet(wires, servers)
        try:
            for berth in servers:
                berth.arguments += ["--endpoint", from_afar(berth)]
                loaded(berth.start(), images)
            yield fleet
        finally:
            try:
                fleet.end()
            finally:
                for berth in servers:
                    berth.end()


@pytest.fixture
def fleet(wires, both_images):
    with fleet_of(wires, both_images, ()) as made:
        for name in MACHINES:
            made.join(name)
        yield made


def by_reference(fleet):
    """A group of clients, and one of servers that lets it in at port 80; and one of neither."""
    clients, servers, strangers = fleet.group("clients"), fleet.group("servers"), fleet.group("strangers")
    rule = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": [{"GroupId": clients}]}
    fleet.ec2.authorize_security_group_ingress(GroupId=servers, IpPermissions=[rule])
    return clients, servers, strangers


def way(wires, name, to):
    """The link and the next hop by which a machine reaches an address."""
    [route] = json.loads(wires.hosts[name].run("ip", "-j", "route", "get", to))
    return route["dev"], route.get("gateway")


def largest(task, to, size):
    """The largest packet that passes from a task to an address, if one of this size does not; `None` if that does."""
    script = f"""
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
s.connect(('{to}', 80))
for _ in range(20):
    try:
        s.send(b'x' * ({size} - 28))
    except OSError:
        print(s.getsockopt(socket.IPPROTO_IP, 14))  # IP_MTU
        break
    time.sleep(0.1)
"""
    done = inside(task, "python3", "-c", script)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) if done.stdout else None


def greeted(task, other):
    return "Hello from Berth" in (fetched(task, address(other)) or "")


def test_tasks_of_three_machines_reach_each_other_as_their_groups_let_them(fleet, wires):
    clients, servers, strangers = by_reference(fleet)
    subnet = subnet_of(fleet.ec2)
    web = fleet.run_apart(hello(), 3, network(subnet, groups=[servers]))
    asking = fleet.run_apart(shell(IDLE), 3, network(subnet, groups=[clients]))
    foreign = fleet.run_apart(shell(IDLE), 3, network(subnet, groups=[strangers]))
    assert web.keys() == asking.keys() == foreign.keys() == MACHINES.keys()
    assert len({address(task) for tasks in (web, asking, foreign) for task in tasks.values()}) == 9
    for name, client in asking.items():
        for other, server in web.items():
            until(f"{name} to reach {other}", lambda client=client, server=server: greeted(client, server))
    for name, stranger in foreign.items():
        for other, server in web.items():
            assert fetched(stranger, address(server), patience=1) is None, f"{name} reaches {other} and is of no group that may"

    # The ways are host routes where the machines share a link, and the overlay where they do not.
    assert way(wires, "one", address(web["two"])) == ("wire", MACHINES["two"])
    far, _ = way(wires, "one", address(web["three"]))
    assert far != "wire", "by the overlay"
    assert "vxlan" in wires.hosts["one"].run("ip", "-d", "link", "show", far)

    # A packet that fits the link does not fit the overlay; whoever sends it is told what does.
    assert largest(asking["one"], address(web["two"]), 1500) is None
    assert largest(asking["one"], address(web["three"]), 1500) == 1450
    assert largest(asking["three"], address(web["two"]), 1500) == 1450

    # A rule that goes and comes holds on all machines.
    rule = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": [{"GroupId": clients}]}
    fleet.ec2.revoke_security_group_ingress(GroupId=servers, IpPermissions=[rule])
    for name, client in asking.items():
        for server in web.values():
            until(f"{name} to be let in no more", lambda client=client, server=server: fetched(client, address(server), patience=1) is None)
    fleet.ec2.authorize_security_group_ingress(GroupId=servers, IpPermissions=[rule])
    until("it to be back", lambda: greeted(asking["one"], web["three"]) and greeted(asking["three"], web["one"]))
    fleet.stop_all()
    for name in MACHINES:
        until(f"no way to be left on {name}", lambda name=name: not wires.hosts[name].ip("route show proto 190"))


def test_much_passes_whole_through_the_overlay(fleet):
    subnet = subnet_of(fleet.ec2)
    tasks = fleet.run_apart(shell(IDLE), 3, network(subnet))
    giver, taker = tasks["three"], tasks["one"]
    size = 5_000_000
    give = f"import socket; s = socket.create_server(('', 8000)); c, _ = s.accept(); c.sendall(bytes({size})); c.close()"
    take = f"""
import socket, time
for _ in range(100):
    try:
        c = socket.create_connection(('{address(giver)}', 8000), 10)
        break
    except OSError:
        time.sleep(0.1)
total = 0
while (piece := c.recv(1 << 16)):
    total += len(piece)
print(total)
"""
    serving = threading.Thread(target=inside, args=(giver, "python3", "-c", give))
    serving.start()
    taken = inside(taker, "python3", "-c", take)
    serving.join()
    assert taken.stdout.strip() == str(size), taken.stderr
    fleet.stop_all()


def test_a_machine_that_is_cut_off(fleet, wires):
    ecs = fleet.ecs
    clients, servers, _ = by_reference(fleet)
    subnet = subnet_of(fleet.ec2)
    definition = register(ecs, containers=[hello()], networkMode="awsvpc")
    on = network(subnet, groups=[servers])
    ecs.create_service(cluster=DEFAULT, serviceName="web", taskDefinition=definition, desiredCount=3, networkConfiguration=on)
    until_steady(ecs, DEFAULT, "web")
    asking = fleet.run_apart(shell(IDLE), 3, network(subnet, groups=[clients]))
    names = {arn: name for name, arn in fleet.machines().items()}
    web = {names[task["containerInstanceArn"]]: task for task in (describe(ecs, DEFAULT, arn) for arn in tasks_of(ecs, DEFAULT, serviceName="web"))}
    assert web.keys() == MACHINES.keys(), "one a machine"
    for name, client in asking.items():
        for other, server in web.items():
            until(f"{name} to reach {other}", lambda client=client, server=server: greeted(client, server))

    wires.cut("two")
    assert fetched(asking["one"], address(web["two"])) is None
    assert greeted(asking["two"], web["two"]), "on the machine itself all goes on"
    assert greeted(asking["one"], web["three"]), "and between the others"

    def replaced():
        tasks = [describe(ecs, DEFAULT, arn) for arn in tasks_of(ecs, DEFAULT, serviceName="web")]
        known = {task["taskArn"] for task in web.values()}
        return next((task for task in tasks if task["taskArn"] not in known and task["lastStatus"] == "RUNNING"), None)

    fresh = until("another in place of the lost one", replaced)
    assert names[fresh["containerInstanceArn"]] != "two"
    assert address(fresh) != address(web["two"]), "the lost machine's task may still have its address"
    assert address(web["two"]) in interfaces(fleet.ec2, subnet)
    for name in ("one", "three"):
        until(f"{name} to reach it", lambda name=name: greeted(asking[name], fresh))

    wires.mend("two")
    until_status(ecs, DEFAULT, web["two"]["taskArn"], "STOPPED")
    until("its address to be free", lambda: address(web["two"]) not in interfaces(fleet.ec2, subnet))
    until("two to reach what was started meanwhile", lambda: greeted(asking["two"], fresh))
    assert describe(ecs, DEFAULT, asking["two"]["taskArn"])["lastStatus"] == "RUNNING", "a task of no service went on"
    ecs.delete_service(cluster=DEFAULT, service="web", force=True)
    fleet.stop_all()
    for name, agent in fleet.agents.items():
        own = f"berth-{leftovers.short_name(agent.data_dir)}"
        # The agent's own stay while it runs; what is below them was a task's.
        until(f"no cgroup to be left on {name}", lambda own=own: all(path.endswith(own) for path in leftovers.cgroups(own)))


def test_two_servers_give_addresses_of_one_subnet_and_neither_is_missed(wires, both_images):
    with contextlib.ExitStack() as stack:
        with wires.hosts["control"]:
            etcd = EtcdCluster(size=1)
            stack.callback(etcd.end)
            etcd.start()
        fleet = stack.enter_context(fleet_of(wires, both_images, ["--store", etcd.url], ["--store", etcd.url]))
        first, second = fleet.servers
        fleet.join("one")
        fleet.join("three", order=-1)
        clients, servers, _ = by_reference(fleet)
        subnet = subnet_of(fleet.ec2)
        web = fleet.run_apart(hello(), 2, network(subnet, groups=[servers]))
        # Both are asked at once, for tasks of one subnet.
        definition = register(first.ecs, containers=[shell(IDLE)], networkMode="awsvpc")
        on = network(subnet, groups=[clients])
        arns = [arn for _ in range(5) for berth in (first, second) for arn in run(berth.ecs, DEFAULT, definition, networkConfiguration=on)]
        asking = [until_status(second.ecs, DEFAULT, arn, "RUNNING") for arn in arns]
        assert len({address(task) for task in [*asking, *web.values()]}) == len(asking) + 2
        assert {details(task)["subnetId"] for task in asking} == {subnet}
        for server in web.values():
            for task in asking:
                until("each to reach each", lambda task=task, server=server: greeted(task, server))

        first.kill()
        fleet.servers = [second]
        until("both agents to be with the other server", lambda: fleet.machines().keys() == {"one", "three"})
        later = fleet.run_apart(shell(IDLE), 2, on)
        for task in later.values():
            for server in web.values():
                until("those started since to reach them", lambda task=task, server=server: greeted(task, server))
        rule = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "UserIdGroupPairs": [{"GroupId": clients}]}
        fleet.ec2.revoke_security_group_ingress(GroupId=servers, IpPermissions=[rule])
        for task in later.values():
            until("the rule to be gone", lambda task=task: fetched(task, address(web["three"]), patience=1) is None)
        fleet.stop_all()


class PublicMachine:
    """A machine of Fargate's with public addresses of the shared link to give, and two that are none of Berth's."""

    def __init__(self, fleet, wires, addresses):
        self.fleet, self.host = fleet, wires.hosts["one"]
        self.near, self.far = wires.host("near", "10.90.0.99"), wires.host("far", "10.92.0.99")
        self.agent = MachineAgent(
            fleet.berth, backends=from_afar(fleet.berth), BERTH_FARGATE="true", BERTH_PUBLIC_ADDRESSES=addresses
        )
        self.start()

    def start(self):
        with self.host:
            self.agent.start()
        connected = lambda: [one for one in json.loads(self.fleet.berth.run("fargate", "list", "--output", "json").stdout)["machines"] if one["agentConnected"]]
        until("the machine to be there", lambda: self.agent.process.poll() is not None or connected())
        assert self.agent.process.poll() is None, self.agent.tail()

    def answered_for(self):
        """Public addresses that the machine takes for its own."""
        listed = self.host.run("ip", "-4", "route", "show", "table", "local", "proto", "190")
        return sorted(line.split()[1] for line in listed.splitlines())

    def end(self):
        with self.host:
            self.agent.end()


def greeting(host, to, patience=2):
    """What somebody who is none of Berth's is answered over HTTP; `None` if nothing comes."""
    script = f"import urllib.request as r; print(r.urlopen('http://{to}/', timeout={patience}).read().decode())"
    return host.run("python3", "-c", script, check=False) or None


def association(fleet, task):
    [shown] = fleet.ec2.describe_network_interfaces(NetworkInterfaceIds=[details(task)["networkInterfaceId"]])["NetworkInterfaces"]
    assert shown["PrivateIpAddresses"][0].get("Association") == shown.get("Association")
    return shown.get("Association")


def fargate_of(ecs, container):
    return register(ecs, containers=[container], networkMode="awsvpc", requiresCompatibilities=["FARGATE"], cpu="256", memory="512")


def test_a_task_with_a_public_address_is_reached_from_outside_as_its_groups_let(wires, both_images):
    with fleet_of(wires, both_images, ()) as fleet, contextlib.ExitStack() as stack:
        ecs, ec2 = fleet.ecs, fleet.ec2
        ecs.create_cluster(clusterName=DEFAULT)
        machine = PublicMachine(fleet, wires, "10.90.0.70-10.90.0.71")
        stack.callback(machine.end)
        web, closed = fleet.group("web"), fleet.group("closed")
        ec2.authorize_security_group_ingress(
            GroupId=web, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        )

        def on(group, public="ENABLED"):
            return {"awsvpcConfiguration": {"subnets": [subnet_of(ec2)], "securityGroups": [group], "assignPublicIp": public}}

        def started(container, group, public="ENABLED"):
            definition = fargate_of(ecs, container)
            [arn] = run(ecs, DEFAULT, definition, launchType="FARGATE", networkConfiguration=on(group, public))
            return until_status(ecs, DEFAULT, arn, "RUNNING")

        served, shut, private = started(hello(), web), started(hello(), closed), started(shell(IDLE), closed, "DISABLED")
        assert association(fleet, private) is None
        shown = association(fleet, served)
        assert (shown["PublicIp"], shown["IpOwnerId"]) == ("10.90.0.70", "amazon")
        assert association(fleet, shut)["PublicIp"] == "10.90.0.71"
        by_filter = ec2.describe_network_interfaces(Filters=[{"Name": "association.public-ip", "Values": ["10.90.0.70"]}])["NetworkInterfaces"]
        assert [one["PrivateIpAddress"] for one in by_filter] == [address(served)]
        assert machine.answered_for() == ["10.90.0.70", "10.90.0.71"]

        # From the link, from behind a router, from the machine itself and from a task beside it; never past the groups.
        for host in (machine.near, machine.far, machine.host):
            until(f"{host.name} to be answered", lambda host=host: "Hello from Berth" in (greeting(host, "10.90.0.70") or ""))
            assert greeting(host, "10.90.0.71", patience=1) is None, f"{host.name} reaches a task whose group lets nobody in"
        assert "Hello from Berth" in fetched(private, "10.90.0.70")
        # It goes out with the same address.
        with machine.far:
            beyond = stack.enter_context(socket.create_server(("10.92.0.99", 9)))
        beyond.settimeout(30)
        assert inside(shut, "python3", "-c", "import socket; socket.create_connection(('10.92.0.99', 9), 10)").returncode == 0
        assert beyond.accept()[1][0] == "10.90.0.71"

        # No third one: the task runs nowhere, and a service says why.
        definition = fargate_of(ecs, shell(IDLE))
        answer = ecs.run_task(cluster=DEFAULT, launchType="FARGATE", taskDefinition=definition, networkConfiguration=on(web))
        assert [(one["reason"][:23], one["detail"]) for one in answer["failures"]] == [("Capacity is unavailable", "A machine has no public address left.")]
        ecs.create_service(
            cluster=DEFAULT, serviceName="third", launchType="FARGATE", taskDefinition=definition, desiredCount=1, networkConfiguration=on(web)
        )
        said = lambda: [event["message"] for event in ecs.describe_services(cluster=DEFAULT, services=["third"])["services"][0]["events"]]
        until("the service to say why", lambda: any("has a public address left" in text for text in said()))

        # Server and agent come again, and all is as it was.
        machine.agent.kill()
        with wires.hosts["control"]:
            fleet.berth.kill()
            fleet.berth.start()
        machine.start()
        assert association(fleet, describe(ecs, DEFAULT, served["taskArn"]))["PublicIp"] == "10.90.0.70"
        assert "Hello from Berth" in greeting(machine.far, "10.90.0.70")

        # What one gives up the next one gets.
        ecs.stop_task(cluster=DEFAULT, task=shut["taskArn"])
        until_steady(ecs, DEFAULT, "third")
        [third] = tasks_of(ecs, DEFAULT, serviceName="third")
        assert association(fleet, describe(ecs, DEFAULT, third))["PublicIp"] == "10.90.0.71"
        ecs.delete_service(cluster=DEFAULT, service="third", force=True)
        fleet.stop_all()
        until("the machine to give all of them up", lambda: machine.answered_for() == [])
        assert greeting(machine.near, "10.90.0.70", patience=1) is None
