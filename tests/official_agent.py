"""The official amazon-ecs-agent with a dockerd of its own, in a network namespace of their own, where Berth runs as well.

What it needs is not part of this repository: BERTH_OFFICIAL_AGENT names the agent's binary, and dockerd, containerd and runc are found
in PATH or in $BERTH_DOCKER, a folder with usr/bin and usr/sbin.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from berth import clean_environment, fresh_folder, until
from images import pack_shell

NEW_NETWORK = 0x40000000
PROGRAMS = ("dockerd", "containerd", "runc", "docker", "docker-init", "docker-proxy", "containerd-shim-runc-v2", "ip")


def search_path():
    given = os.environ.get("BERTH_DOCKER")
    folders = [f"{given}/usr/bin", f"{given}/usr/sbin"] if given else []
    return os.pathsep.join([*folders, os.environ["PATH"]])


def missing():
    """What the tests lack, in words; None if nothing."""
    if os.geteuid() != 0:
        return "root"
    if not os.environ.get("BERTH_OFFICIAL_AGENT"):
        return "BERTH_OFFICIAL_AGENT, the path of an amazon-ecs-agent binary"
    lacking = [name for name in PROGRAMS if not shutil.which(name, path=search_path())]
    return f"{', '.join(lacking)} in PATH or BERTH_DOCKER" if lacking else None


class Namespace:
    """A network namespace with nothing but loopback. Inside the block this thread, and what it starts, is in it."""

    def __init__(self):
        self.name = f"berth-agent-{os.getpid()}"
        self.libc = ctypes.CDLL(None, use_errno=True)

    def _join(self, descriptor):
        if self.libc.setns(descriptor, NEW_NETWORK):
            raise OSError(ctypes.get_errno(), "setns")

    def __enter__(self):
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        subprocess.run(["ip", "-n", self.name, "link", "set", "lo", "up"], check=True)
        self.home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        with open(f"/run/netns/{self.name}") as inside:
            self._join(inside.fileno())
        return self

    def __exit__(self, *_):
        self._join(self.home)
        os.close(self.home)
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


class Docker:
    """A dockerd of the tests' own. It makes a bridge in the namespace and no firewall rules: its proxy publishes ports."""

    def __init__(self):
        self.folder = fresh_folder("docker")
        self.host = f"unix://{self.folder}/docker.sock"
        self.environment = clean_environment(PATH=search_path(), DOCKER_HOST=self.host)
        self.log = self.folder / "dockerd.log"
        self.cgroup = f"/berth-docker-{os.getpid()}"
        self.process = None

    def start(self):
        options = {
            "data-root": f"{self.folder}/data",
            "exec-root": f"{self.folder}/exec",
            "host": self.host,
            "pidfile": f"{self.folder}/docker.pid",
            "cgroup-parent": self.cgroup,
        }
        command = ["dockerd", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
        command += [f"--{name}={value}" for name, value in options.items()]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        until("dockerd to answer", lambda: self._alive() and self.run("version", check=False).returncode == 0)
        archive = pack_shell(self.folder / "shell.tar")
        self.run("import", str(archive), "shell:1")
        return self

    def _alive(self):
        assert self.process.poll() is None, f"dockerd ended:\n{self.log.read_text(errors='replace')[-3000:]}"
        return True

    def run(self, *arguments, check=True):
        done = subprocess.run(["docker", *arguments], env=self.environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stderr}"
        return done

    def inspect(self, runtime_id):
        return json.loads(self.run("inspect", runtime_id).stdout)[0]

    def end(self):
        if self.process is None:
            return
        if self.process.poll() is None:
            containers = self.run("ps", "-aq", check=False).stdout.split()
            if containers:
                self.run("rm", "--force", "--volumes", *containers, check=False)
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
        # dockerd keeps its own namespace mounted there, and leaves that behind.
        own = self.folder / "exec/netns/default"
        if own.exists():
            subprocess.run(["umount", str(own)], check=False)
        for hierarchy in Path("/sys/fs/cgroup").glob(f"*{self.cgroup}"):
            hierarchy.rmdir()


class OfficialAgent:
    """The agent's process, with docs/official-agent.md's environment."""

    def __init__(self, berth, docker):
        self.berth, self.docker = berth, docker
        self.folder = fresh_folder("agent")
        self.log = self.folder / "agent.log"
        self.process = None

    def start(self):
        key, secret = self.berth.credentials
        registry = self.berth.endpoint.removeprefix("http://")
        environment = clean_environment(
            ECS_BACKEND_HOST=self.berth.endpoint,
            AWS_DEFAULT_REGION="us-east-1",
            AWS_ACCESS_KEY_ID=key,
            AWS_SECRET_ACCESS_KEY=secret,
            ECS_CLUSTER="default",
            ECS_EXTERNAL="true",
            ECS_DATADIR=str(self.folder),
            DOCKER_HOST=self.docker.host,
            ECS_AUDIT_LOGFILE=str(self.folder / "audit.log"),
            ECS_ENABLE_TASK_CPU_MEM_LIMIT="false",
            ECS_IMAGE_PULL_BEHAVIOR="prefer-cached",
            ECS_DISABLE_IMAGE_CLEANUP="true",
            ECS_ENGINE_TASK_CLEANUP_WAIT_DURATION="1m",
            ECS_ENGINE_AUTH_TYPE="docker",
            ECS_ENGINE_AUTH_DATA=json.dumps({registry: {"username": key, "password": secret}}),
            NO_PROXY="127.0.0.1",
        )
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [os.environ["BERTH_OFFICIAL_AGENT"]], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        until("the official agent to be connected", self.is_connected)
        return self

    def is_connected(self):
        assert self.process.poll() is None, f"the agent ended with {self.process.returncode}:\n{self.log.read_text(errors='replace')[-3000:]}"
        return any(instance["agentConnected"] for instance in self.instances())

    def instances(self):
        ecs = self.berth.ecs
        arns = ecs.list_container_instances(cluster="default")["containerInstanceArns"]
        return ecs.describe_container_instances(cluster="default", containerInstances=arns)["containerInstances"] if arns else []

    def end(self):
        """SIGTERM: it saves its state and leaves containers running."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)
