"""Images that nothing needs go, and those that something needs stay: cycles, budget, room, what is pulled before it is asked for."""

import contextlib
import io
import json
import os
import subprocess
import tarfile

import ledger
import pytest

from berth import Berth, fresh_folder, until
from containers import IDLE, ended, finished, output, running, shell, skip_unless_root, start, stop
from images import pack_shell

skip_unless_root(__file__)
# Cycles follow each other, an image may go as soon as nothing has it, and what has ended is removed at once.
AT_ONCE = {
    "BERTH_IMAGE_CLEANUP_INTERVAL": "300ms",
    "ECS_IMAGE_MINIMUM_CLEANUP_AGE": "0s",
    "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION": "1s",
}
# No cycle comes while a test lasts.
NEVER = {"ECS_IMAGE_CLEANUP_INTERVAL": "24h", "ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION": "1s"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Makes root file systems that differ: each image has a layer of its own. `more` bytes of content are added."""
    folder = tmp_path_factory.mktemp("images")

    def make(name, more=b""):
        path = pack_shell(folder / f"{name}.tar")
        with tarfile.open(path, "a") as tar:
            for file, content in (("name", name.encode()), ("more", more)):
                entry = tarfile.TarInfo(file)
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))
        return path

    return make


@contextlib.contextmanager
def berth_up(data_dir=None, **environment):
    up = Berth("up", data_dir=data_dir, environment=environment)
    try:
        yield up.start()
    finally:
        up.end()


def records(up):
    """What the agent remembers: reference -> record."""
    try:
        images = json.loads((up.data_dir / "agent/images.json").read_text())
    except FileNotFoundError:
        return {}
    return {reference: record for record in images.values() for reference in record["references"]}


def assert_whole(up):
    """Every image has all its layers, every layer has an image, and every link leads somewhere."""
    folder = up.data_dir / "agent/images"
    images = [json.loads(path.read_text()) for path in (folder / "images").iterdir()]
    wanted = {layer.removeprefix("sha256:") for image in images for layer in image["diff_ids"]}
    assert {path.name for path in (folder / "layers").iterdir()} == wanted
    # One more is no layer of an image's: it lies below them all.
    links = [link for link in (folder / "links").iterdir() if link.name != "base"]
    assert len(links) == len(wanted) and all(link.exists() for link in links)


def shows(name, **members):
    return shell("cat /name", image=f"{name}:1", **members)


def test_what_nothing_uses_goes_and_what_runs_stays(archive):
    with berth_up(**AT_ONCE, ECS_EXCLUDE_UNTRACKED_IMAGE="spared:1") as up:
        for name in ("used", "unused", "spared"):
            up.run("image", "load", str(archive(name)), f"{name}:1")
        task = running(up, shell(IDLE, image="used:1"))
        for name in ("unused", "spared"):
            assert output(up, finished(up, shows(name))["taskArn"]).strip() == name
        until("the unused image to go", lambda: "unused@1" not in records(up))
        until("its layer to go", lambda: len(list((up.data_dir / "agent/images/layers").iterdir())) == 2)
        assert_whole(up)
        assert set(records(up)) == {"used@1", "spared@1"}
        # The running container has its files still, and another can be made of its image.
        assert up.ecs.describe_tasks(tasks=[task["taskArn"]])["tasks"][0]["lastStatus"] == "RUNNING"
        assert finished(up, shows("used"))["containers"][0]["exitCode"] == 0
        # What is gone comes again when it is asked for.
        assert finished(up, shows("unused"))["containers"][0]["exitCode"] == 0
        stop(up, task["taskArn"])
        until("all but the spared one to go", lambda: set(records(up)) == {"spared@1"})


def test_a_crowd_of_tasks_while_images_come_and_go(archive):
    with berth_up(**AT_ONCE) as up:
        for name in ("one", "two"):
            up.run("image", "load", str(archive(name)), f"{name}:1")
        # Between a task's pull and its container nothing but the agent knows that its image is needed.
        for _ in range(5):
            for arn in [start(up, shows(name)) for name in ("one", "two", "one", "two")]:
                task = ended(up, arn)
                assert task["containers"][0].get("exitCode") == 0, task
        until("all of it to go", lambda: records(up) == {})
        assert_whole(up)


def test_records_survive_the_agent(archive):
    with berth_up(**NEVER) as up:
        for name in ("runs", "ran"):
            up.run("image", "load", str(archive(name)), f"{name}:1")
        task = running(up, shell(IDLE, image="runs:1"))
        finished(up, shows("ran"))
        before = records(up)
        assert set(before) == {"runs@1", "ran@1"}
        up.kill()
        assert records(up) == before
        up.variables = AT_ONCE
        up.start()
        until("what was pulled by the earlier agent to go", lambda: set(records(up)) == {"runs@1"})
        assert records(up)["runs@1"]["pulledAt"] == before["runs@1"]["pulledAt"]
        assert up.ecs.describe_tasks(tasks=[task["taskArn"]])["tasks"][0]["lastStatus"] == "RUNNING"
        assert_whole(up)


def test_images_to_be_here_are_pulled_before_they_are_asked_for_and_stay(archive):
    with berth_up(**AT_ONCE, BERTH_PREPULL_IMAGES="early:1, 127.0.0.1:1/never:1") as up:
        until("the agent to say that it is not there yet", lambda: up.log.read_text().count("BERTH_PREPULL_IMAGES cannot be pulled") >= 2)
        for name in ("early", "other"):
            up.run("image", "load", str(archive(name)), f"{name}:1")
        until("it to be tried again", lambda: "early@1" in records(up))
        finished(up, shows("other"))
        until("the other to go", lambda: set(records(up)) == {"early@1"})
        assert_whole(up)


@pytest.mark.parametrize("setting", [{"ECS_DISABLE_IMAGE_CLEANUP": "true"}, {"ECS_IMAGE_PULL_BEHAVIOR": "prefer-cached"}])
def test_nothing_goes_where_that_is_said(archive, setting):
    with berth_up(**AT_ONCE, **setting, BERTH_IMAGE_DISK_BUDGET="1") as up:
        for name in ("a", "b"):
            up.run("image", "load", str(archive(name)), f"{name}:1")
            finished(up, shows(name))
        # The loop has said that it does nothing and has ended; only then is there nothing more to wait for.
        until("the agent to say why", lambda: "images are not cleaned up" in up.log.read_text())
        until("the containers to be gone", lambda: not any((up.data_dir / "agent/containers").iterdir()))
        assert set(records(up)) == {"a@1", "b@1"}
        assert_whole(up)


def test_a_budget_is_kept_at_once(archive):
    size = os.path.getsize(archive("a"))
    with berth_up(**NEVER, BERTH_IMAGE_DISK_BUDGET=str(size * 5 // 2)) as up:
        for name in ("a", "b", "c"):
            up.run("image", "load", str(archive(name)), f"{name}:1")
            finished(up, shows(name))
            until("its container to be gone", lambda: not any((up.data_dir / "agent/containers").iterdir()))
        until("the oldest to go", lambda: set(records(up)) == {"b@1", "c@1"})
        until("its layer to go", lambda: len(list((up.data_dir / "agent/images/layers").iterdir())) == 2)
        assert_whole(up)
        assert "images take" in up.log.read_text()


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of so many bytes at `folder`."""
    folder.mkdir(parents=True, mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def free(folder):
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def test_a_pull_that_does_not_fit_says_so_leaves_nothing_or_makes_room(archive):
    size = os.path.getsize(archive("small"))
    data_dir = fresh_folder("up") / "data"
    images = data_dir / "agent/images"
    with small_disk(images, size * 3), berth_up(data_dir=data_dir, **NEVER) as up:
        noise = os.urandom(size * 3)
        for name, more in (("small", b""), ("noise", noise), ("zeros", bytes(size * 4)), ("large", os.urandom(size * 3 // 2))):
            up.run("image", "load", str(archive(name, more)), f"{name}:1")
        task = running(up, shell(IDLE, image="small:1"))
        before = free(images)
        # Incompressible, so its size says that it does not fit; and one whose layer is small until it is unpacked.
        for name in ("noise", "zeros"):
            reason = finished(up, shows(name))["containers"][0]["reason"]
            assert reason.startswith("CannotPullContainerError: no space left for the image: it needs at least "), reason
            assert reason.endswith(" bytes are free"), reason
            assert_whole(up)
            assert abs(free(images) - before) < 64 * 1024, "something is left of it"
        assert up.ecs.describe_tasks(tasks=[task["taskArn"]])["tasks"][0]["lastStatus"] == "RUNNING"
        stop(up, task["taskArn"])
        until("its container to be gone", lambda: not any((data_dir / "agent/containers").iterdir()))
        # It does not fit beside the other, which nothing uses now: that goes, long before any cycle.
        assert finished(up, shows("large"))["containers"][0].get("exitCode") == 0
        assert set(records(up)) == {"large@1"}
        assert_whole(up)


def test_what_belongs_to_no_task_goes_with_the_next_start(archive):
    """Volumes, networks and layers whose owners nobody knows any more; what is found by name stays."""
    with berth_up(**NEVER) as up:
        up.run("image", "load", str(archive("app")), "app:1")
        shared = {"name": "s", "dockerVolumeConfiguration": {"scope": "shared", "autoprovision": True}}
        mounts = [{"sourceVolume": "s", "containerPath": "/s"}, {"sourceVolume": "t", "containerPath": "/t"}]
        container = shell(IDLE, image="app:1", mountPoints=mounts, portMappings=[{"containerPort": 80}])
        lost = running(up, container, volumes=[shared, {"name": "t"}])["taskArn"].rsplit("/", 1)[1]
        kept = running(up, container, volumes=[shared, {"name": "t"}])["taskArn"].rsplit("/", 1)[1]
        # It has ended, or the server would ask for it again.
        stop(up, lost)
        up.kill()
        agent = up.data_dir / "agent"
        assert (agent / f"volumes/{lost}/t").is_dir()
        ledger.forget(agent, lost)
        (agent / "volumes/unknown/v").mkdir(parents=True)
        stray = agent / "images/layers" / ("ab" * 32)
        (stray / "fs").mkdir(parents=True)
        up.start()
        until("the lost task's volume to go", lambda: not (agent / f"volumes/{lost}").exists())
        assert not (agent / "volumes/unknown").exists() and not stray.exists()
        assert (agent / f"volumes/{kept}/t").is_dir() and (agent / "volumes/_shared/s").is_dir()
        until("its container to go", lambda: len(list((agent / "containers").iterdir())) == 1)
        until("its network to go", lambda: len(list((agent / "network/attachments").iterdir())) == 1)
        assert_whole(up)
