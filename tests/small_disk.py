"""A file system of a few megabytes, in memory, to be filled to its last byte."""

import contextlib
import os
import subprocess


class SmallDisk:
    """Mounted at a folder, where also whoever clears up after a killed run looks for mounts."""

    def __init__(self, path, megabytes):
        self.path = path
        self.path.mkdir(mode=0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "berth-test", str(self.path)], check=True, timeout=30)
        self.ballast = self.path / "ballast"

    def fill(self, but=0):
        """Leaves so many bytes, rounded down to pages."""
        with self.ballast.open("ab", buffering=0) as file:
            for piece in (1 << 20, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(piece)) == piece:
                        pass
            file.truncate(max(0, file.tell() - but))

    def free(self):
        self.ballast.unlink(missing_ok=True)

    def remove(self):
        if os.path.ismount(self.path):
            subprocess.run(["umount", "-l", str(self.path)], check=True, timeout=30)
