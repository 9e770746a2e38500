"""All tasks of a service revision run the very image that the first one ran, whatever its tag means by then."""

import io
import shutil
import tarfile

import pytest

from containers import said, shell, skip_unless_root
from ecs_calls import describe, register, service, tasks_of, until_steady

skip_unless_root(__name__)


@pytest.fixture
def load(up, shell_archive, tmp_path):
    """Gives a tag a new meaning: the shell image with this word in /etc/version."""

    def put(word, tag):
        path = shutil.copy(shell_archive, tmp_path / "image.tar")
        with tarfile.open(path, "a") as tar:
            entry = tarfile.TarInfo("etc/version")
            text = f"{word}\n".encode()
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text))
        up.run("image", "load", str(path), tag)

    return put


def by_age(ecs, name):
    found = [describe(ecs, "default", arn) for arn in tasks_of(ecs, "default", serviceName=name)]
    return sorted(found, key=lambda task: task["createdAt"])


@pytest.mark.parametrize("consistency", ["enabled", "disabled", None])
def test_a_scale_out_runs_what_the_revision_began_with_unless_told_otherwise(up, load, consistency):
    ecs, name = up.ecs, f"stable-{consistency}".lower()
    tag = f"{name}:1"
    load("first", tag)
    member = {"versionConsistency": consistency} if consistency else {}
    definition = register(ecs, containers=[shell("cat /etc/version; sleep 600", image=tag, stopTimeout=2, **member)])
    ecs.create_service(cluster="default", serviceName=name, taskDefinition=definition, desiredCount=1)
    until_steady(ecs, "default", name)
    load("second", tag)
    ecs.update_service(cluster="default", service=name, desiredCount=2)
    until_steady(ecs, "default", name)
    old, new = by_age(ecs, name)
    assert new["containers"][0]["image"] == tag, "the tag is shown all the same"
    said(up, old["taskArn"], "first")
    said(up, new["taskArn"], "second" if consistency == "disabled" else "first")
    digests = {task["containers"][0]["imageDigest"] for task in (old, new)}
    assert len(digests) == (2 if consistency == "disabled" else 1)
    # The next deployment asks anew.
    ecs.update_service(cluster="default", service=name, forceNewDeployment=True)
    until_steady(ecs, "default", name)
    for task in by_age(ecs, name):
        said(up, task["taskArn"], "second")
    ecs.delete_service(cluster="default", service=name, force=True)
    assert service(ecs, "default", name)["status"] in ("DRAINING", "INACTIVE")
