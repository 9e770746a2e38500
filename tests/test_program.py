"""The program itself, as the linker left it."""

import os
import platform
import subprocess

import pytest

from berth import binary


def glibc():
    """This machine's glibc, or none."""
    name, _, version = subprocess.run(["getconf", "GNU_LIBC_VERSION"], capture_output=True, text=True).stdout.strip().partition(" ")
    return tuple(int(part) for part in version.split(".")) if name == "glibc" else None


def test_relocations_are_packed_where_glibc_reads_them():
    """Else each server and agent has 1.4 MB more in memory (docs/decisions/0061)."""
    if platform.machine() != "x86_64":
        pytest.skip("not every linker packs relocations for other processors than x86-64")
    if os.environ.get("BERTH_PORTABLE") == "1":
        pytest.skip("BERTH_PORTABLE=1: built for older systems")
    dynamic = subprocess.run(["readelf", "--dynamic", "--wide", binary()], capture_output=True, text=True, check=True).stdout
    known = glibc()
    assert ("(RELR)" in dynamic) == (known is not None and known >= (2, 36)), f"glibc {known}\n{dynamic}"
