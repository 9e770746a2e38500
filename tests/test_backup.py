"""Backups of a server that goes on, and servers made of them."""

import base64
import contextlib
import json
import os
import socket
import subprocess
import threading
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from berth import binary, clean_environment, unique, until
from containers import IDLE, hello, host_ports, page, pids_of, running, shell
from etcd_servers import EtcdCluster
from ecs_calls import container, describe, register, run, service, tasks_of, until_status, until_steady
from fake_agent import FakeAgent
from http_call import exchange
from test_restart import _reconnected


def berth(*arguments):
    return subprocess.run(
        [str(binary()), *map(str, arguments)], capture_output=True, text=True, timeout=120, env=clean_environment(NO_COLOR="1"), check=False
    )


def restore(file, data_dir, *arguments):
    done = berth("restore", file, "--data-dir", data_dir, "--output", "json", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def paged(ecs, operation, member, **arguments):
    return [found for page in ecs.get_paginator(operation).paginate(**arguments) for found in page[member]]


def picture(ecs):
    """All that the API shows, but for what changes with connections."""
    found = {}
    for cluster in sorted(paged(ecs, "list_clusters", "clusterArns")):
        found[cluster] = ecs.describe_clusters(clusters=[cluster], include=["TAGS", "SETTINGS"])["clusters"]
        for arn in paged(ecs, "list_services", "serviceArns", cluster=cluster):
            found[arn] = ecs.describe_services(cluster=cluster, services=[arn], include=["TAGS"])["services"]
        for status in ("RUNNING", "STOPPED"):
            for arn in tasks_of(ecs, cluster, desiredStatus=status):
                found[arn] = describe(ecs, cluster, arn)
                found[arn].pop("connectivity", None)
                found[arn].pop("connectivityAt", None)
        for arn in paged(ecs, "list_container_instances", "containerInstanceArns", cluster=cluster):
            (found[arn],) = ecs.describe_container_instances(cluster=cluster, containerInstances=[arn], include=["TAGS"])["containerInstances"]
            # It counts connections and their ends, too.
            found[arn] = {name: value for name, value in found[arn].items() if name not in ("agentConnected", "version")}
    for status in ("ACTIVE", "INACTIVE"):
        for arn in paged(ecs, "list_task_definitions", "taskDefinitionArns", status=status):
            answer = ecs.describe_task_definition(taskDefinition=arn, include=["TAGS"])
            found[arn] = answer["taskDefinition"], answer.get("tags")
    return found


class Load:
    """Threads that write and read until they are told to stop; whatever fails is kept."""

    def __init__(self, ecs, cluster):
        self.ecs, self.cluster = ecs, cluster
        self.definition = register(ecs)
        self.made, self.failed = [], []
        self._stop = threading.Event()
        works = (self._definition, self._cluster, self._task, self._task, self._read)
        self.threads = [threading.Thread(target=self._forever, args=(work,), daemon=True) for work in works]

    def _definition(self):
        self.made.append(register(self.ecs, containers=[container(command=[unique("x")])]))

    def _cluster(self):
        self.made.append(self.ecs.create_cluster(clusterName=unique("load"))["cluster"]["clusterArn"])

    def _task(self):
        self.made += run(self.ecs, self.cluster, self.definition)

    def _read(self):
        self.ecs.describe_clusters(clusters=[self.cluster])

    def _forever(self, work):
        try:
            while not self._stop.is_set():
                work()
        except Exception as error:  # noqa: BLE001 - nothing at all may fail
            self.failed.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self.threads:
            thread.join(60)


@pytest.fixture
def filled(new_berth):
    """A server with some of everything, and the agent it runs on."""
    started = new_berth().start()
    ecs = started.ecs
    agent = FakeAgent(started, "default").join()
    ecs.create_cluster(clusterName="blue", tags=[{"key": "team", "value": "blue"}])
    ecs.create_cluster(clusterName="gone")
    ecs.delete_cluster(cluster="gone")
    definition = register(ecs, "web", tags=[{"key": "of", "value": "web"}])
    ecs.deregister_task_definition(taskDefinition=register(ecs, "web"))
    ecs.create_service(cluster="default", serviceName="web", taskDefinition=definition, desiredCount=2, tags=[{"key": "s", "value": "t"}])
    until_steady(ecs, "default", "web")
    stopped, running = run(ecs, "default", definition, count=2, startedBy="me", tags=[{"key": "a", "value": "b"}])
    until_status(ecs, "default", running, "RUNNING")
    ecs.stop_task(cluster="default", task=stopped)
    until_status(ecs, "default", stopped, "STOPPED")
    yield started, agent
    agent.leave()


def test_a_new_server_of_a_backup_shows_the_same_and_goes_on(filled, new_berth, tmp_path):
    old, agent = filled
    file = tmp_path / "berth.backup"
    before = picture(old.ecs)
    done = json.loads(old.run("backup", str(file), "--output", "json").stdout)
    assert picture(old.ecs) == before, "the backup changed something"
    assert (done["file"], done["bytes"]) == (str(file), file.stat().st_size)
    assert file.stat().st_mode & 0o777 == 0o600 and os.listdir(tmp_path) == ["berth.backup"]
    old.kill()

    new = new_berth(listen=old.listen)
    restored = restore(file, new.data_dir)
    assert (restored["records"], restored["revision"], restored["region"]) == (done["records"], done["revision"], "us-east-1")
    assert restored["kinds"]["clusters"] == 3 and restored["kinds"]["tasks"] == 4 and restored["kinds"]["taskDefinitions"] == 2
    assert [(part["what"], part["present"]) for part in restored["notInBackup"]] == [("images", False), ("rootKey", False)]
    # The key is not in a backup; whoever wants the old one brings it along.
    (new.data_dir / "credentials").write_bytes((old.data_dir / "credentials").read_bytes())
    new.start()
    assert picture(new.ecs) == before

    agent.berth = new
    agent.register(containerInstanceArn=agent.arn)
    agent = _reconnected(agent)
    arn = run(new.ecs, "default", "web:1")[0]
    until_status(new.ecs, "default", arn, "RUNNING")
    assert register(new.ecs, "web").endswith(":3"), "revisions go on where they were"
    new.ecs.update_service(cluster="default", service="web", desiredCount=3)
    assert until_steady(new.ecs, "default", "web")["runningCount"] == 3
    new.kill()
    new.start()
    assert service(new.ecs, "default", "web")["desiredCount"] == 3
    assert describe(new.ecs, "default", arn)["taskArn"] == arn
    agent.leave()


@pytest.fixture
def etcd():
    cluster = EtcdCluster(1)
    try:
        yield cluster.start()
    finally:
        cluster.end()


def _without_versions(found):
    """etcd counts changes by itself, from one on."""
    if isinstance(found, dict):
        return {name: _without_versions(value) for name, value in found.items() if name != "version"}
    return [_without_versions(each) for each in found] if isinstance(found, list | tuple) else found


def test_a_backup_becomes_a_store_in_etcd(filled, new_berth, etcd, tmp_path):
    old, agent = filled
    file = tmp_path / "berth.backup"
    before = _without_versions(picture(old.ecs))
    done = json.loads(old.run("backup", str(file), "--output", "json").stdout)
    store = etcd.url + "/restored"
    restored = restore(file, tmp_path / "data", "--store", store)
    assert (restored["records"], restored["store"]) == (done["records"], store)
    agent.leave()
    old.kill()
    # Two servers, so that both are seen to be of one store.
    first, second = (new_berth(arguments=["--store", store]).start() for _ in range(2))
    for new in (first, second):
        assert _without_versions(picture(new.ecs)) == before
    agent.berth = first
    agent.register(containerInstanceArn=agent.arn)
    agent = _reconnected(agent)
    arn = run(first.ecs, "default", "web:1")[0]
    until_status(first.ecs, "default", arn, "RUNNING")
    assert register(first.ecs, "web").endswith(":3"), "revisions go on where they were"
    agent.leave()
    again = berth("restore", file, "--data-dir", tmp_path / "data", "--store", store)
    assert again.returncode == 2 and "is not empty" in again.stderr and store in again.stderr, again


def test_a_restore_into_etcd_that_broke_off_is_never_served_and_can_go_on(filled, new_berth, etcd, tmp_path):
    old, _ = filled
    for _ in range(300):
        register(old.ecs, "many", containers=[container(environment=[{"name": "X", "value": "x" * 20_000}])])
    file, other = tmp_path / "berth.backup", tmp_path / "other.backup"
    done = json.loads(old.run("backup", str(file), "--output", "json").stdout)
    old.ecs.create_cluster(clusterName="later")
    old.run("backup", str(other))
    expected = old.ecs.list_task_definitions(familyPrefix="many")["taskDefinitionArns"]
    store = etcd.url + "/half"
    command = [str(binary()), "restore", str(file), "--data-dir", str(tmp_path / "data"), "--store", store]
    # Killed ever later, until one was killed while it wrote.
    for milliseconds in range(10, 2_000, 5):
        broken = subprocess.Popen(command, env=clean_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            broken.wait(milliseconds / 1000)
        broken.kill()
        broken.wait()
        if schema := etcd.get("/half/schema"):
            break
    assert schema.startswith(b"restoring "), f"it was never seen half done: {schema}"
    data = tmp_path / "server"
    served = berth("server", "--data-dir", data, "--listen", "127.0.0.1:0", "--store", store)
    assert served.returncode == 2 and "did not end" in served.stderr and "--store" in served.stderr, served
    wrong = berth("restore", other, "--data-dir", data, "--store", store)
    assert wrong.returncode == 2 and "did not end" in wrong.stderr, wrong
    assert restore(file, data, "--store", store)["records"] == done["records"]
    assert etcd.get("/half/schema") == b"1"
    new = new_berth(arguments=["--store", store]).start()
    assert new.ecs.list_task_definitions(familyPrefix="many")["taskDefinitionArns"] == expected


def test_backups_under_load_hold_what_was_acknowledged_before_and_disturb_nothing(new_berth, tmp_path):
    started = new_berth().start()
    agent = FakeAgent(started, "default", cpu=10_000_000, memory=10_000_000).join()
    with Load(started.ecs, "default") as load:
        backups = []
        for number in range(4):
            goal = 30 * (number + 1)
            until("load", lambda goal=goal: len(load.made) >= goal or load.failed)
            file = tmp_path / f"{number}.backup"
            acknowledged = list(load.made)
            # With a peer beside it: nobody waits for the other.
            beside = threading.Thread(target=started.run, args=("backup", str(tmp_path / f"{number}.other")))
            beside.start()
            started.run("backup", str(file))
            beside.join(60)
            backups.append((file, acknowledged))
    assert not load.failed, load.failed
    assert len(list(tmp_path.glob("*.other"))) == 4
    for file, acknowledged in backups:
        new = new_berth()
        restore(file, new.data_dir)
        assert set(acknowledged) <= set(picture(new.start().ecs)), f"{file} lacks something"
        new.end()
    agent.leave()


def test_the_standard_streams_and_curl(filled, new_berth):
    old, _ = filled
    new = new_berth()
    script = f"{binary()} backup - --data-dir {old.data_dir} | {binary()} restore - --data-dir {new.data_dir}"
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, timeout=120, env=clean_environment(), check=False)
    assert done.returncode == 0 and "Restored" in done.stdout and "Backed up" in done.stderr, done
    assert picture(new.start().ecs) == picture(old.ecs)
    token = base64.b64encode(":".join(old.credentials).encode()).decode()
    answer = exchange(old.endpoint, "GET", "/backup", {"Authorization": f"Basic {token}"})
    assert (answer.status, answer.headers["content-type"], answer.body[:4]) == (200, "application/zstd", b"\x28\xb5\x2f\xfd")


def test_nobody_without_a_key_gets_one(server):
    for headers in ({}, {"Authorization": "Basic " + base64.b64encode(b"AKIAX:y").decode()}, {"Authorization": "Bearer x"}):
        answer = exchange(server.endpoint, "GET", "/backup", headers)
        assert answer.status in (400, 403) and answer.code.endswith("Exception"), answer
    assert exchange(server.endpoint, "DELETE", "/backup").status == 404


def test_what_is_no_whole_backup_is_refused_and_nothing_touched(filled, tmp_path):
    file = tmp_path / "berth.backup"
    filled[0].run("backup", str(file))
    whole, bad, target = file.read_bytes(), tmp_path / "bad", tmp_path / "data"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for content, word in (
        (whole[:-1], "truncated"),
        (whole[: len(whole) // 2], "truncated"),
        (bytes(flipped), "damaged at line"),
        (whole + b"x", "damaged"),
        (b"", "not a backup"),
        (b"hello", "not a backup"),
    ):
        bad.write_bytes(content)
        done = berth("restore", bad, "--data-dir", target)
        assert done.returncode == 2 and word in done.stderr and str(bad) in done.stderr, done
        assert not target.exists()
    assert berth("restore", tmp_path / "none", "--data-dir", target).returncode == 2


def test_a_store_with_something_in_it_is_left_alone(filled, tmp_path):
    old, _ = filled
    file = tmp_path / "berth.backup"
    old.run("backup", str(file))
    done = berth("restore", file, "--data-dir", old.data_dir)
    assert done.returncode == 2 and "in use by another Berth" in done.stderr and "--data-dir" in done.stderr
    before = picture(old.ecs)
    old.kill()
    done = berth("restore", file, "--data-dir", old.data_dir)
    assert done.returncode == 2 and "not empty" in done.stderr and "move it away" in done.stderr, done.stderr
    old.start()
    assert picture(old.ecs) == before


def test_another_region_or_account_needs_a_word(filled, new_berth, tmp_path):
    file, new = tmp_path / "berth.backup", new_berth(arguments=["--region", "eu-west-3", "--account", "123456789012"])
    filled[0].run("backup", str(file))
    scope = ("--region", "eu-west-3", "--account", "123456789012")
    done = berth("restore", file, "--data-dir", new.data_dir, *scope)
    assert done.returncode == 2 and not new.data_dir.exists()
    for word in ("us-east-1", "000000000000", "eu-west-3", "--new-arns"):
        assert word in done.stderr, done.stderr
    assert restore(file, new.data_dir, *scope, "--new-arns")["account"] == "123456789012"
    assert "arn:aws:ecs:eu-west-3:123456789012:cluster/blue" in new.start().ecs.list_clusters()["clusterArns"]


def test_a_file_that_is_there_is_kept_unless_forced(server, tmp_path):
    file = tmp_path / "berth.backup"
    file.write_text("precious")
    done = server.run("backup", str(file), check=False)
    assert done.returncode == 2 and "--force" in done.stderr and file.read_text() == "precious"
    server.run("backup", str(file), "--force")
    assert file.read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    done = server.run("backup", str(tmp_path / "no/such/folder"), check=False)
    assert done.returncode == 1 and "no/such/folder" in done.stderr
    done = berth("backup", tmp_path / "x", "--data-dir", tmp_path)
    assert done.returncode == 1 and "berth up" in done.stderr and not (tmp_path / "x").exists()


def test_a_damaged_store_says_what_to_do_and_that_helps(filled, tmp_path):
    old, agent = filled
    file, before = tmp_path / "berth.backup", picture(old.ecs)
    old.run("backup", str(file))
    agent.leave()
    assert old.terminate() == 0
    for part in old.data_dir.glob("state.db*"):
        # Wherever it stands, in use or not: still legal JSON.
        part.write_bytes(part.read_bytes().replace(b'"name":"blue"', b'"name":"blud"'))
    done = berth("server", "--data-dir", old.data_dir, "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    for word in ("damaged at", "checksum", "state.db*", f"berth restore FILE --data-dir {old.data_dir}"):
        assert word in done.stderr, done.stderr
    for part in old.data_dir.glob("state.db*"):
        part.rename(tmp_path / part.name)
    assert restore(file, old.data_dir)["records"]
    assert picture(old.start().ecs) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED (needs root): real containers need namespaces, mounts and cgroups")
def test_containers_go_on_under_a_server_of_a_backup_and_what_it_does_not_know_is_stopped(new_up, tmp_path):
    up = new_up()
    known = running(up, shell(IDLE))
    up.ecs.create_service(cluster="default", serviceName="web", taskDefinition=register(up.ecs, containers=[hello()]), desiredCount=1)
    until_steady(up.ecs, "default", "web")
    (served,) = tasks_of(up.ecs, "default", serviceName="web")
    up.run("backup", str(tmp_path / "berth.backup"))
    later = running(up, shell(IDLE, stopTimeout=1))
    init = pids_of(known["containers"][0])[0]
    up.kill()
    for part in up.data_dir.glob("state.db*"):
        part.rename(tmp_path / part.name)
    present = restore(tmp_path / "berth.backup", up.data_dir)["notInBackup"]
    assert [part["present"] for part in present] == [True, True]
    up.start()
    until("what the server does not know to be stopped", lambda: not pids_of(later["containers"][0]))
    until_status(up.ecs, "default", known["taskArn"], "RUNNING")
    assert pids_of(known["containers"][0])[0] == init
    until_steady(up.ecs, "default", "web")
    assert tasks_of(up.ecs, "default", serviceName="web") == [served]
    assert "Hello from Berth" in page(host_ports(describe(up.ecs, "default", served))[0])
    running(up, shell(IDLE))


class Deaf:
    """Asks for a backup and never reads it."""

    def __init__(self, started):
        address = urlsplit(started.endpoint)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect((address.hostname, address.port))
        token = base64.b64encode(":".join(started.credentials).encode()).decode()
        self.socket.sendall(f"GET /backup HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {token}\r\n\r\n".encode())
        assert self.socket.recv(12) == b"HTTP/1.1 200"


def test_readers_that_do_not_read_stop_nobody(new_berth, tmp_path):
    started = new_berth().start()
    for _ in range(250):
        # Not to be compressed, and more than what lies in sockets.
        value = base64.b64encode(os.urandom(40_000)).decode()
        register(started.ecs, "large", containers=[container(environment=[{"name": "X", "value": value}])])
    deaf = [Deaf(started), Deaf(started)]
    with Load(started.ecs, "default") as load:
        until("writes beside them", lambda: sum("task-definition" in arn for arn in load.made) > 20 or len(load.failed) > 2)
    # Without a container instance its tasks find no place; all else goes on.
    assert not [error for error in load.failed if isinstance(error, ClientError) and "InvalidParameter" not in str(error)], load.failed
    done = started.run("backup", str(tmp_path / "third"), check=False)
    assert done.returncode == 1 and "ThrottlingException" in done.stderr and not (tmp_path / "third").exists()
    deaf[0].socket.close()
    until("a place", lambda: started.run("backup", str(tmp_path / "third"), check=False).returncode == 0)
    # One that breaks off leaves nothing behind.
    slow = subprocess.Popen(
        [str(binary()), "backup", str(tmp_path / "cut"), "--data-dir", str(started.data_dir)],
        env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    started.kill()
    slow.communicate(timeout=120)
    assert (tmp_path / "cut").exists() == (slow.returncode == 0)
    assert not list(tmp_path.glob(".berth-backup-*"))
    with contextlib.suppress(OSError):
        deaf[1].socket.close()
