"""Docker as the runtime: the tests in docker_runtime_inside.py, run in network, mount and process namespaces of their own.

There they start a Docker of their own; whatever they leave ends with the namespaces.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import docker_engine
import leftovers
from berth import RUNS, binary, clean_environment

INSIDE = Path(__file__).parent / "docker_runtime_inside.py"


@pytest.fixture(scope="module")
def folder():
    if os.geteuid() != 0:
        pytest.skip("SKIPPED (needs root): test_docker_runtime.py: a dockerd of its own needs namespaces, mounts and cgroups")
    problem = docker_engine.unpack()
    if problem:
        pytest.skip(f"SKIPPED (needs Debian's docker.io): test_docker_runtime.py: {problem}")
    # Not among the folders of runs: those are covered inside, where their processes cannot be seen.
    place = Path(tempfile.mkdtemp(prefix="berth-docker-"))
    yield place
    shutil.rmtree(place, ignore_errors=True)


def test_services_and_restarts_in_docker(folder, hello_archive, shell_archive):
    cgroup = folder.name.replace("_", "")
    # Where somebody without root can read it.
    shell = folder / "shell.tar"
    shutil.copyfile(shell_archive, shell)
    environment = clean_environment(
        BERTH_BIN=str(binary()),
        BERTH_DOCKER_FOLDER=str(folder),
        BERTH_DOCKER_CGROUP=cgroup,
        BERTH_DOCKER_HELLO=str(hello_archive),
        BERTH_DOCKER_SHELL=str(shell),
    )
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # Without the suite's fixtures: they would take runs of other processes, which are not seen from inside, for dead ones.
    command += [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "--rootdir", str(INSIDE.parent), str(INSIDE)]
    RUNS.mkdir(mode=0o1777, exist_ok=True)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    left = leftovers.cgroups(cgroup)
    for place in sorted(left, key=len, reverse=True):
        os.rmdir(place)
    log = (folder / "dockerd.log").read_text(errors="replace").splitlines()[-20:] if (folder / "dockerd.log").exists() else []
    assert done.returncode == 0, "\n".join([done.stdout, done.stderr, "dockerd:", *log])
    assert "passed" in done.stdout and "skipped" not in done.stdout, done.stdout
    print(done.stdout)
