"""Ports for servers that must be told theirs before they bind it.

A port that the system gave out, and that was let go, may be given to the next test before the server comes to bind it. These lie below the range that
the system gives out, and are held by the name of an abstract socket until this process ends, against whoever asks here and in
crates/store/tests/servers/ports.rs.
"""

import itertools
import os
import socket

FIRST = 10_240
COUNT = 9_760

_next = itertools.count(os.getpid() * 7)
_held = []


def free_port():
    for _ in range(COUNT):
        port = FIRST + next(_next) % COUNT
        name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            name.bind(f"\0berth-test-port-{port}")
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            name.close()
            continue
        _held.append(name)
        return port
    raise RuntimeError("none of thousands of ports is free")
