"""After tasks and Berth have ended nothing is left: mounts, namespaces, cgroups, links, nftables, processes, files."""

import os
import signal

import leftovers
from berth import until
from containers import IDLE, ended, finished, hello, host_ports, page, running, shell, skip_unless_root, start
from ecs_calls import register, service, tasks_of, until_steady
from ports import free_port

skip_unless_root(__file__)
DEFAULT = "default"


def do_everything(up):
    """Tasks of every kind and every kind of end."""
    ecs = up.ecs
    ecs.create_service(cluster=DEFAULT, serviceName="web", taskDefinition=register(ecs, containers=[hello()]), desiredCount=3)
    until_steady(ecs, DEFAULT, "web")
    ecs.update_service(cluster=DEFAULT, service="web", forceNewDeployment=True)
    until_steady(ecs, DEFAULT, "web")
    running(up, hello(ports=[{"containerPort": 80, "hostPort": free_port()}, {"containerPort": 53, "protocol": "udp"}]))
    running(up, shell(IDLE), networkMode="host")
    running(up, shell(IDLE), networkMode="none")
    running(up, shell(IDLE, mountPoints=[{"sourceVolume": "v", "containerPath": "/v"}]), volumes=[{"name": "v"}])
    finished(up, shell("exit 3"))
    finished(up, shell("a=xxxxxxxxxxxxxxxx; while :; do a=$a$a; done", memory=16))
    finished(up, {"name": "app", "image": "127.0.0.1:1/none:1", "memory": 16})
    finished(up, {"name": "app", "image": "shell:1", "memory": 16, "entryPoint": ["/none"]})
    arn = start(up, shell(IDLE))
    ecs.stop_task(cluster=DEFAULT, task=arn)
    ended(up, arn)


def assert_nothing_of(data_dir):
    # The kernel takes namespaces and cgroups down in the background.
    until("nothing to be left", lambda: not any(leftovers.of(data_dir).values()) or print(leftovers.of(data_dir)), 30, 0.5)


def test_after_down_nothing_is_left(new_up):
    up = new_up()
    do_everything(up)
    busy = leftovers.of(up.data_dir)
    # The counting counts: all of these are there while tasks run.
    assert all(busy[kind] for kind in ("mounts", "cgroups", "links", "namespaces", "nft tables", "processes")), busy
    veths = [link for link in leftovers.links() if _is_on_bridge_of(up, link)]
    assert len(veths) >= 5
    done = up.run("down")
    assert "stopped" in done.stdout
    assert up.wait() == 0
    assert_nothing_of(up.data_dir)
    assert not set(veths) & set(leftovers.links())
    assert os.listdir(up.data_dir / "agent" / "containers") == []
    assert not list((up.data_dir / "agent" / "network" / "attachments").iterdir())


def _is_on_bridge_of(up, link):
    try:
        return os.path.basename(os.readlink(f"/sys/class/net/{link}/master")) == f"br-{leftovers.short_name(up.data_dir)}"
    except OSError:
        return False


def test_tasks_that_end_leave_nothing_while_berth_goes_on(new_up):
    up = new_up()
    finished(up, shell("exit 0"))

    def state():
        name = leftovers.short_name(up.data_dir)
        # Only what bears the cgroup's name: how many shims Berth holds ready is its own affair.
        # Nor when the agent asks, as a container would, whether names are answered on the bridge.
        spaces = [path for path in leftovers.namespaces(name) if not path.endswith("berth-dns-probe")]
        mounts = [mount for mount in leftovers.mounts(name, str(up.data_dir.parent)) if "berth-dns-probe" not in mount]
        return mounts, spaces, leftovers.processes(f"berth-{name}/"), _task_cgroups(up)

    idle = state()
    do_everything(up)
    assert state() != idle
    up.ecs.delete_service(cluster=DEFAULT, service="web", force=True)
    until("INACTIVE", lambda: service(up.ecs, DEFAULT, "web")["status"] == "INACTIVE")
    for arn in tasks_of(up.ecs, DEFAULT):
        up.ecs.stop_task(cluster=DEFAULT, task=arn)
    until("no task", lambda: up.ecs.describe_clusters()["clusters"][0]["runningTasksCount"] == 0)
    until("only what an idle Berth has", lambda: state() == idle or print(state()), pause=0.5)
    assert [link for link in leftovers.links() if _is_on_bridge_of(up, link)] == []


def _task_cgroups(up):
    """Cgroups below Berth's own."""
    own = f"berth-{leftovers.short_name(up.data_dir)}"
    return [folder for folder in leftovers.cgroups(own) if not folder.endswith(own)]


def test_after_a_crash_and_a_down_nothing_is_left(new_up):
    up = new_up()
    do_everything(up)
    up.kill()
    assert leftovers.of(up.data_dir)["processes"]
    up.start()
    up.run("down")
    assert up.wait() == 0
    assert_nothing_of(up.data_dir)


def test_a_start_sweeps_what_a_crash_left_of_tasks_that_are_gone(new_up):
    up = new_up()
    arns = [running(up, hello())["taskArn"] for _ in range(3)]
    up.kill()
    for pid in leftovers.processes(f"berth-{leftovers.short_name(up.data_dir)}"):
        os.kill(pid, signal.SIGKILL)
    up.start()
    for arn in arns:
        assert ended(up, arn)["lastStatus"] == "STOPPED"
    until("the namespaces to be gone", lambda: not [p for p in leftovers.mounts(leftovers.short_name(up.data_dir))])
    until("the cgroups to be gone", lambda: not _task_cgroups(up), 30)


def test_two_berths_on_one_machine_do_not_touch_each_other(new_up):
    first, second = new_up(), new_up()
    kept = running(first, hello())
    running(second, hello())
    second.run("down")
    assert second.wait() == 0
    assert_nothing_of(second.data_dir)
    assert "Hello from Berth" in page(host_ports(kept)[0])
