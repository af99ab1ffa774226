"""Who the command line is to a node: from the environment and files, never from the line, where others could read it.

    LEAFDB_TOKEN_FILE      a file with a token                                  before all others
    LEAFDB_SECRET_FILE     the cluster's own secret: everything is allowed; how the first user is made
    LEAFDB_USER            a user, with LEAFDB_PASSWORD_FILE; without one the password is asked for on a terminal

A file that others may read is refused: what is in it is no secret.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from leafdb.errors import ConfigError

if TYPE_CHECKING:
    from leafdb.client.auth import Auth

USER_VARIABLE: Final = "LEAFDB_USER"
PASSWORD_VARIABLE: Final = "LEAFDB_PASSWORD_FILE"  # noqa: S105 - names of variables
TOKEN_VARIABLE: Final = "LEAFDB_TOKEN_FILE"  # noqa: S105
SECRET_VARIABLE: Final = "LEAFDB_SECRET_FILE"  # noqa: S105
FILE_BYTES_MAX: Final = 4_096


def auth_of(environment: Mapping[str, str] = os.environ) -> Auth | None:
    """What to say to nodes; None: nothing. Raises ConfigError."""
    named = [name for name in (TOKEN_VARIABLE, SECRET_VARIABLE, USER_VARIABLE) if environment.get(name)]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} each say who you are: set one of them")
    if not named:
        return None
    from leafdb.client.auth import Scram, Token, cluster_login

    value = environment[named[0]]
    if named[0] == TOKEN_VARIABLE:
        return Token(text_in(value, TOKEN_VARIABLE))
    if named[0] == SECRET_VARIABLE:
        return cluster_login(secret_in(value, SECRET_VARIABLE))
    if path := environment.get(PASSWORD_VARIABLE):
        return Scram(value, text_in(path, PASSWORD_VARIABLE))
    return Scram(value, asked(f"password of {value}: ", PASSWORD_VARIABLE))


def new_password(path: str) -> str:
    """The password that somebody shall have: in a file, or typed twice. Raises ConfigError."""
    if path:
        return text_in(path, "--password-file")
    first = asked("new password: ", "--password-file")
    if asked("once more: ", "--password-file") != first:
        raise ConfigError("the two passwords differ: nothing was done")
    return first


def text_in(path: str, named: str) -> str:
    """The text of a secret file, without the newline at its end. Raises ConfigError, which quotes nothing of it."""
    try:
        return secret_in(path, named).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{named}: {path} is no text") from None


def secret_in(path: str, named: str) -> bytes:
    """The bytes of a secret file, without white space at their ends. Raises ConfigError."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(f"{named}: {path} cannot be read: {error.strerror or error}") from None
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"{named}: others can read {path}; run chmod 600 {path}")
    if len(content) > FILE_BYTES_MAX:
        raise ConfigError(f"{named}: {path} has more than {FILE_BYTES_MAX} bytes")
    if not content.strip():
        raise ConfigError(f"{named}: {path} is empty")
    return content.strip()


def asked(prompt: str, instead: str) -> str:
    """A password typed on a terminal, not shown. Raises ConfigError where there is none."""
    if not sys.stdin.isatty():
        raise ConfigError(f"there is no terminal to type a password at: name a file with {instead}")
    from getpass import getpass

    return getpass(prompt)
