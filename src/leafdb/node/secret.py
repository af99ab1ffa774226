"""Files that hold secrets: others may not read them. The cluster secret, which every node has, is one.

Peers prove to each other that they know it. Only its bytes matter, without white space at the ends, so that an editor's
newline does not divide a cluster.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Final

from leafdb.errors import ConfigError

SECRET_BYTES_MIN: Final = 16
SECRET_BYTES_MAX: Final = 4_096


def read_secret(path: str) -> bytes:
    """The secret in the file; ConfigError that says what is wrong with it."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(SECRET_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"cluster.secret_file: {path} cannot be read: {error.strerror or error}") from None
    _refuse_mode(mode, path, "cluster.secret_file")
    if len(content) > SECRET_BYTES_MAX:
        raise ConfigError(f"cluster.secret_file: {path} has more than {SECRET_BYTES_MAX} bytes")
    secret = content.strip()
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(f"cluster.secret_file: {path} has fewer than {SECRET_BYTES_MIN} bytes")
    return secret


def refuse_open_to_others(path: str, setting: str) -> None:
    """ConfigError for a file that others than its owner can read, or that is not there."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {error.strerror or error}") from None
    _refuse_mode(mode, path, setting)


def stamps_of(paths: Iterable[str]) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes about a file whenever somebody writes it or puts another in its place; None for one that is gone."""
    return tuple(_stamp(path) for path in paths)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _refuse_mode(mode: int, path: str, setting: str) -> None:
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"{setting}: others can read {path}; run chmod 600 {path}")
