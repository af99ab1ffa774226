"""A file system of its own, a tmpfs, for a directory of a real node: so that its disk can be full. Needs root."""

from __future__ import annotations

import builtins
import os
import subprocess
from pathlib import Path


class SmallDisk:
    """See the top of this file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True)

    def mount(self, *options: str) -> None:
        """Have it. Raises OSError or CalledProcessError where that cannot be."""
        flags = ",".join([*options, "mode=0700"])
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", flags, "tmpfs", str(self.directory)], check=True, capture_output=True
        )

    def enlarge(self, size: int) -> None:
        """Give it so many bytes in all."""
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.directory)], check=True, capture_output=True)

    def unmount(self) -> None:
        """Be rid of it."""
        subprocess.run(["umount", str(self.directory)], check=True, capture_output=True)

    def leave(self, bytes_free: int) -> Path:
        """A stranger's file that leaves so many bytes."""
        ballast = self._ballast
        with builtins.open(ballast, "wb", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, self.free - bytes_free)
        return ballast

    def take_the_rest(self) -> Path:
        """A stranger's file that leaves not one byte."""
        ballast = self._ballast
        with builtins.open(ballast, "wb", buffering=0) as file:
            try:
                while file.write(bytes(64 * 1024)):
                    pass
            except OSError:
                pass
        assert not self.free
        return ballast

    @property
    def free(self) -> int:
        """Bytes that are free."""
        stat = os.statvfs(self.directory)
        return stat.f_bavail * stat.f_frsize

    @property
    def _ballast(self) -> Path:
        return self.directory / "ballast"
