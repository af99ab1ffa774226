"""Clients learn that their process has forked from Python, once, and so need not ask the system on every call.

A fork leaves the child with descriptors that its parent goes on using and with locks that nobody may hold. What made
the copy says so after every fork (`os.register_at_fork`), and each client that lives is told.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Watched(Protocol):
    """Told in the child of a fork."""

    def forked(self) -> None:
        """This is a copy in another process."""


_watched: WeakSet[Watched] = WeakSet()


def watch(one: Watched) -> None:
    """Tell it of a fork for as long as it lives."""
    _watched.add(one)


def _tell() -> None:
    for one in list(_watched):
        one.forked()


os.register_at_fork(after_in_child=_tell)
