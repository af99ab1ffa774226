"""The cluster secret: a file every node has and nobody else may read. Peers prove to each other that they know it.

Only the bytes matter, without white space at the ends, so that an editor's newline does not divide a cluster.
"""

from __future__ import annotations

import os
import stat
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
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"cluster.secret_file: others can read {path}; run chmod 600 {path}")
    if len(content) > SECRET_BYTES_MAX:
        raise ConfigError(f"cluster.secret_file: {path} has more than {SECRET_BYTES_MAX} bytes")
    secret = content.strip()
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(f"cluster.secret_file: {path} has fewer than {SECRET_BYTES_MIN} bytes")
    return secret
