"""Machines as network namespaces of our own: each has its links, addresses, routes and packet filters, and nothing of this machine's network.

A namespace is held open by a process that dies with the test process, so that a killed run leaves none.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
from pathlib import Path

from berth import until

CLONE_NEWNET = 0x4000_0000
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _alone():
    """In the child: a network namespace of its own, and an end with its parent's."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def _enter(descriptor):
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Host:
    """A machine. What the test's own thread and the processes that it starts do inside `with host:` they do there."""

    def __init__(self, name):
        self.name = name
        self._holder = subprocess.Popen(["sleep", "infinity"], preexec_fn=_alone, stdin=subprocess.DEVNULL)
        self._before = []
        self.ip("link set lo up")

    @property
    def namespace(self):
        return f"/proc/{self._holder.pid}/ns/net"

    def __enter__(self):
        self._before.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        with open(self.namespace, "rb") as there:
            _enter(there.fileno())
        return self

    def __exit__(self, *_):
        before = self._before.pop()
        _enter(before)
        os.close(before)

    def run(self, *command, check=True):
        """Runs a program there; gives its output."""
        with self:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, f"{self.name}: {' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def ip(self, line):
        return self.run("ip", *line.split())

    def sysctl(self, name, value):
        with self:
            Path("/proc/sys", name).write_text(value)

    def end(self):
        self._holder.kill()
        self._holder.wait()


class Wires:
    """Several machines on one link, and others behind a router of it: `wires.host("one", "10.90.0.11")`.

    All addresses of 10.90.0.0/24 are on the link; any other /24 of 10.0.0.0/8 is a link of its own behind the router.
    """

    def __init__(self):
        self.router = Host("router")
        self.hosts = {}
        self.router.sysctl("net/ipv4/ip_forward", "1")
        # With an address of its own: else the bridge takes the lowest of its links', and who knew the router by another finds it only seconds later.
        self.router.ip("link add shared address 02:00:00:00:00:fe type bridge")
        self.router.ip("addr add 10.90.0.254/24 dev shared")
        self.router.ip("link set shared up")

    def host(self, name, address):
        made = Host(name)
        self.hosts[name] = made
        network = address.rsplit(".", 1)[0]
        self.router.ip(f"link add {name} type veth peer name wire netns {made._holder.pid}")
        if network == "10.90.0":
            self.router.ip(f"link set {name} master shared")
        else:
            self.router.ip(f"addr add {network}.254/24 dev {name}")
        self.router.ip(f"link set {name} up")
        made.ip(f"addr add {address}/24 dev wire")
        made.ip("link set wire up")
        made.ip(f"route add default via {network}.254")
        made.address = address
        until(f"{name} to reach the router", lambda: self._answers(made, f"{network}.254"))
        return made

    def _answers(self, host, address):
        """By the kernel's own question to a neighbour: no program for pinging is needed."""
        with host, contextlib.suppress(OSError):
            with socket.socket() as probe:
                probe.settimeout(1)
                return probe.connect_ex((address, 9)) == 111
        return False

    def cut(self, name):
        """Nothing passes between a machine and the others any more."""
        self.router.ip(f"link set {name} down")

    def mend(self, name):
        self.router.ip(f"link set {name} up")

    def end(self):
        for host in [*self.hosts.values(), self.router]:
            host.end()
