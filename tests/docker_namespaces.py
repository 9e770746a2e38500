"""Runs a file of tests in network, mount and process namespaces of their own, where it starts a Docker of its own; whatever that leaves ends
with the namespaces."""

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


def make_folder(module):
    """For the tests' Docker; skips, and says so, where there can be none. Whoever asks removes it."""
    name = Path(module).name
    if os.geteuid() != 0:
        pytest.skip(f"SKIPPED (needs root): {name}: a dockerd of its own needs namespaces, mounts and cgroups")
    problem = docker_engine.unpack()
    if problem:
        pytest.skip(f"SKIPPED (needs Debian's docker.io): {name}: {problem}")
    # Not among the folders of runs: those are covered inside, where their processes cannot be seen.
    return Path(tempfile.mkdtemp(prefix="berth-docker-"))


def run_inside(file, folder, hello_archive, shell_archive):
    """All of its tests must pass."""
    inside = Path(__file__).parent / file
    cgroup = folder.name.replace("_", "")
    # Where somebody without root can read it.
    shell, hello = folder / "shell.tar", folder / "hello.tar"
    shutil.copyfile(shell_archive, shell)
    shutil.copyfile(hello_archive, hello)
    environment = clean_environment(
        BERTH_BIN=str(binary()),
        BERTH_DOCKER_FOLDER=str(folder),
        BERTH_DOCKER_CGROUP=cgroup,
        BERTH_DOCKER_HELLO=str(hello),
        BERTH_DOCKER_SHELL=str(shell),
    )
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # A first process that buries the dead: a containerd that died with its dockerd must not be taken for a living one.
    command += [docker_engine.PROGRAMS / "bin/docker-init", "--"]
    # Without the suite's fixtures: they would take runs of other processes, which are not seen from inside, for dead ones.
    command += [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "--rootdir", str(inside.parent), str(inside)]
    RUNS.mkdir(mode=0o1777, exist_ok=True)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    left = leftovers.cgroups(cgroup)
    for place in sorted(left, key=len, reverse=True):
        os.rmdir(place)
    log = (folder / "dockerd.log").read_text(errors="replace").splitlines()[-20:] if (folder / "dockerd.log").exists() else []
    assert done.returncode == 0, "\n".join([done.stdout, done.stderr, "dockerd:", *log])
    assert "passed" in done.stdout and "skipped" not in done.stdout, done.stdout
    print(done.stdout)
