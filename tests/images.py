"""Images made without Docker: a shell and a few tools of this machine, with the libraries they need."""

import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

TOOLS = {"sh": "bin/sh", "sleep": "bin/sleep", "cat": "bin/cat", "env": "bin/env", "id": "bin/id", "getent": "bin/getent"}


def libraries(program):
    """Where the loader finds a program's libraries."""
    done = subprocess.run(["ldd", program], capture_output=True, text=True, timeout=30, check=False)
    return re.findall(r"(/\S+) \(0x", done.stdout)


def pack_shell(path, more=()):
    """Writes a root file system tar, as `docker export` or `tar -C rootfs` would; with more tools of this machine, places by names."""
    files = {}
    for tool, place in {**TOOLS, **dict(more)}.items():
        source = shutil.which(tool)
        assert source, f"this machine has no {tool}"
        files[place] = source
        for library in libraries(source):
            files[library.lstrip("/")] = library
    with tarfile.open(path, "w") as tar:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        passwd = b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size, entry.mode = len(passwd), 0o644
        tar.addfile(entry, io.BytesIO(passwd))
        for place, source in sorted(files.items()):
            content = Path(source).resolve().read_bytes()
            entry = tarfile.TarInfo(place)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    return path
