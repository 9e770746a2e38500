"""A Docker of the tests' own: Debian's packages unpacked into target/docker, never installed.

It must be started in namespaces of its own (see test_docker_runtime.py): it makes bridges, rules and mounts.
"""

import contextlib
import ctypes
import fcntl
import os
import resource
import subprocess
from pathlib import Path

from berth import ROOT, RUNS, Berth, until

PACKAGES = """docker.io containerd runc iptables tini libdevmapper1.02.1 libip4tc2 libip6tc2 libxtables12 libnetfilter-conntrack3
libnfnetlink0 libnftnl11 libmnl0""".split()
PROGRAMS = ROOT / "target/docker"
LINKS = {"iptables": "sbin/xtables-nft-multi", "ip6tables": "sbin/xtables-nft-multi", "docker-init": "bin/tini-static"}


def unpack():
    """Fetches and unpacks what is needed, once for all tests; gives why that cannot be, or None."""
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    with (PROGRAMS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (PROGRAMS / "whole").exists():
            return None
        packages = PROGRAMS / "packages"
        packages.mkdir(exist_ok=True)
        try:
            subprocess.run(["apt-get", "download", "-qq", *PACKAGES], cwd=packages, check=True, capture_output=True, timeout=300)
            for package in packages.glob("*.deb"):
                subprocess.run(["dpkg-deb", "--extract", package, PROGRAMS], check=True, capture_output=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            return f"{error} {getattr(error, 'stderr', b'')!r}"
        (PROGRAMS / "bin").mkdir(exist_ok=True)
        for name, target in LINKS.items():
            if not (PROGRAMS / "bin" / name).is_symlink():
                (PROGRAMS / "bin" / name).symlink_to(PROGRAMS / "usr" / target)
        (PROGRAMS / "whole").touch()
    return None


class Docker:
    """A daemon in this process's namespaces, with everything of it in one folder."""

    def __init__(self, folder, cgroup, *arguments):
        self.folder, self.cgroup, self.arguments, self.process = Path(folder), cgroup, arguments, None
        self.host = f"unix://{self.folder}/docker.sock"
        libraries = [PROGRAMS / "usr/lib/x86_64-linux-gnu", PROGRAMS / "lib/x86_64-linux-gnu"]
        self.environment = {
            **os.environ,
            "PATH": ":".join(str(PROGRAMS / place) for place in ("usr/sbin", "usr/bin", "bin")) + ":" + os.environ["PATH"],
            "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
            "XTABLES_LIBDIR": str(libraries[0] / "xtables"),
            "DOCKER_HOST": self.host,
        }

    def start(self):
        files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65536)
        options = {
            "data-root": self.folder / "docker-data",
            "exec-root": self.folder / "docker-exec",
            "pidfile": self.folder / "docker.pid",
            "cgroup-parent": f"/{self.cgroup}",
            "default-ulimit": f"nofile={files}:{files}",
            "host": self.host,
        }
        with (self.folder / "dockerd.log").open("ab") as log:
            command = [PROGRAMS / "usr/sbin/dockerd", *(f"--{name}={value}" for name, value in options.items()), *self.arguments]
            self.process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until("dockerd to answer", lambda: self("version", check=False).returncode == 0)
        return self

    def __call__(self, *arguments, check=True):
        """Docker's own command."""
        command = [PROGRAMS / "usr/bin/docker", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done

    def containers(self, *filters):
        """Names of containers, those too that have ended."""
        flags = [part for one in filters for part in ("--filter", one)]
        return sorted(self("ps", "--all", "--format", "{{.Names}}", *flags).stdout.split())

    def kill(self):
        """kill -9 of dockerd alone: containerd and what it runs go on."""
        self.process.kill()
        self.process.wait(60)

    def end(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)


def load_images(berth):
    """Gives a Berth inside both images that `run_inside` has put there."""
    berth.run("image", "load", os.environ["BERTH_DOCKER_HELLO"], "hello:latest")
    berth.run("image", "load", os.environ["BERTH_DOCKER_SHELL"], "shell:1")


@contextlib.contextmanager
def running(*arguments):
    """The daemon of the tests inside, with these arguments besides; `DOCKER_HOST` is its address."""
    raise_loopback()
    # Folders of other runs are none of this one's business.
    if not os.path.ismount(RUNS):
        cover(RUNS)
        os.chmod(RUNS, 0o1777)
    daemon = Docker(os.environ["BERTH_DOCKER_FOLDER"], os.environ["BERTH_DOCKER_CGROUP"], *arguments)
    try:
        daemon.start()
        os.environ["DOCKER_HOST"] = daemon.host
        yield daemon
    finally:
        daemon.end()


@contextlib.contextmanager
def berth_up(daemon):
    """`berth up` with both images, which runs its tasks in this Docker and leaves nothing there."""
    berth = Berth("up", arguments=["--runtime", "docker"]).start()
    try:
        load_images(berth)
        yield berth
    finally:
        berth.end()
    assert daemon.containers() == []


def raise_loopback():
    """In a new network namespace, lo is down."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, timeout=30)


def cover(place):
    """An empty folder over another, for this mount namespace alone: what is below belongs to others."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, None) == 0, os.strerror(ctypes.get_errno())
