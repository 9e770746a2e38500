"""etcd clusters of a test's own, on free loopback ports. They die with the test process, however that ends."""

import base64
import ctypes
import json
import os
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from berth import ROOT, fresh_folder, http_text, until
from ports import free_port

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def etcd_binary():
    """The server program; skips the test, loudly, where there is none."""
    for path in (os.environ.get("BERTH_ETCD"), shutil.which("etcd"), ROOT / "target/etcd/usr/bin/etcd"):
        if path and Path(path).is_file():
            return str(path)
    reason = "SKIPPED (needs etcd): the program etcd is not installed; `make test` as root fetches Debian's etcd-server"
    print(reason)
    pytest.skip(reason)


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class EtcdCluster:
    """`size` members; `url` is what `berth server --store` takes. `options`: more of what a member is started with."""

    scheme = "http"

    def __init__(self, size=3, options=()):
        self.options = list(options)
        self.program = etcd_binary()
        self.folder = fresh_folder("etcd")
        ports = [free_port() for _ in range(size * 2)]
        self.ports = list(zip(ports[::2], ports[1::2], strict=True))
        self.members = [None] * size

    @property
    def url(self):
        return "etcd://" + ",".join(f"127.0.0.1:{client}" for client, _ in self.ports)

    def start(self):
        for number in range(len(self.ports)):
            self.revive(number)
        for number in range(len(self.ports)):
            self.until_healthy(number)
        return self

    def revive(self, number):
        client, peer = (f"{scheme}://127.0.0.1:{port}" for scheme, port in zip((self.scheme, "http"), self.ports[number], strict=True))
        everybody = ",".join(f"m{each}=http://127.0.0.1:{port}" for each, (_, port) in enumerate(self.ports))
        command = [self.program, "--name", f"m{number}", "--data-dir", str(self.folder / str(number))]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client]
        command += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        command += ["--initial-cluster", everybody, "--initial-cluster-token", str(self.ports[0][0])]
        command += ["--logger", "zap", "--log-level", "error", *self.options]
        with (self.folder / f"{number}.log").open("ab") as log:
            self.members[number] = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent
            )

    def get(self, key):
        """A key's value, `None` if there is none; by etcd's gateway for JSON."""
        body = json.dumps({"key": base64.b64encode(key.encode()).decode()}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports[0][0]}/v3/kv/range", data=body)
        with urllib.request.urlopen(request, timeout=10) as answer:
            found = json.load(answer).get("kvs")
        return base64.b64decode(found[0].get("value", "")) if found else None

    def until_healthy(self, number):
        url = f"http://127.0.0.1:{self.ports[number][0]}/health"
        until(f"etcd's member {number}", lambda: '"true"' in (http_text(url) or ""))

    def kill(self, number):
        self.members[number].kill()
        self.members[number].wait()

    def end(self):
        for member in self.members:
            if member is not None:
                member.kill()
                member.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
