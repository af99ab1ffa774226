"""How a node process ends: an exit code and a sentence for whoever reads it at night.

0   stopped as it was told
1   cannot run: configuration, a port, the data directory, damage on disk. Restarting changes nothing by itself
2   called wrongly
70  a bug in leafdb; the traceback is in the log
74  the disk failed while running; the store refused to go on
77  the cluster does not have this node, or not this store: it was removed, or its disk is an old copy or a second one
130 interrupted
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from leafdb.config import Config
from leafdb.errors import (
    ConfigError,
    CorruptionError,
    DiskFull,
    LeafdbError,
    ServerBug,
    StorageError,
    StoreFailed,
    StoreLocked,
    UnknownFormat,
)

if TYPE_CHECKING:
    from leafdb.wire.hello import Refusal

STOPPED: Final = 0
CANNOT_RUN: Final = 1
BUG: Final = 70
DISK_FAILED: Final = 74
EXPELLED: Final = 77
INTERRUPTED: Final = 130
MISUSED: Final = 2

FINAL: Final = frozenset((STOPPED, CANNOT_RUN, MISUSED, DISK_FAILED, EXPELLED))
"""Codes after which starting again changes nothing, or is for a person to decide. After any other it may help."""

_WORST_FIRST: Final = (DISK_FAILED, BUG, EXPELLED, CANNOT_RUN, MISUSED, INTERRUPTED)


class Expelled(LeafdbError):
    """The cluster does not have this store, and why. The node may not serve any more."""

    def __init__(self, message: str, *, why: Refusal) -> None:
        super().__init__(message)
        self.why = why


class Ending(NamedTuple):
    """What to exit with and what to say."""

    code: int
    message: str
    details: str = ""
    """A traceback, where the message alone would not help."""


def ending_of(error: BaseException, config: Config) -> Ending:
    """The ending an error stands for. Of several at once the one that explains the others best."""
    return min((_ending(leaf, config) for leaf in leaves(error)), key=_rank)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The single errors in a tree of groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error


def worst(codes: Iterable[int]) -> int:
    """The code of several processes together: the one that says most of what is wrong. STOPPED when none does.

    A process that was killed counts as one with a bug: nobody else kills ours.
    """
    bad = [BUG if code < 0 or code not in _WORST_FIRST else code for code in codes if code != STOPPED]
    return min(bad, key=_WORST_FIRST.index, default=STOPPED)


def _rank(ending: Ending) -> int:
    # A failed disk makes everything else fail; a bug outranks a refusal that may follow from it.
    return _WORST_FIRST.index(ending.code)


def _ending(error: BaseException, config: Config) -> Ending:
    data_dir = config.node.data_dir
    match error:
        case KeyboardInterrupt():
            return Ending(INTERRUPTED, "interrupted")
        case ConfigError(problems=problems) if problems:
            return Ending(CANNOT_RUN, "\n".join(problems))
        case StoreLocked():
            return Ending(CANNOT_RUN, f"the data directory {data_dir} belongs to another process: {error}")
        case CorruptionError() if isinstance(error.__cause__, OSError):
            return Ending(DISK_FAILED, f"the disk of {data_dir} does not give what is on it: {error}")
        case CorruptionError():
            place = f"{error.path or 'a file'} at offset {error.offset}"
            return Ending(CANNOT_RUN, f"damage in the data directory {data_dir}: {place}: {error}")
        case UnknownFormat():
            return Ending(CANNOT_RUN, f"{error.path or data_dir}: {error}; nothing was changed")
        case StoreFailed():
            return Ending(DISK_FAILED, f"the store in {data_dir} failed and serves nothing any more: {error}")
        case DiskFull():
            return Ending(CANNOT_RUN, f"no room in {data_dir}: {error}")
        case StorageError():
            return Ending(DISK_FAILED, f"the store in {data_dir}: {error}")
        case ServerBug():
            return _bug(error)
        case Expelled():
            return Ending(EXPELLED, f"data directory {data_dir}: {error}")
        case LeafdbError():
            return Ending(CANNOT_RUN, str(error))
        case OSError(errno=errno.EADDRINUSE | errno.EADDRNOTAVAIL | errno.EACCES | errno.ENOSPC):
            return Ending(CANNOT_RUN, f"{error.filename}: {error.strerror}" if error.filename else str(error))
        case _:
            return _bug(error)


def _bug(error: BaseException) -> Ending:
    last = "".join(traceback.format_exception_only(error)).strip()
    return Ending(BUG, f"leafdb broke one of its own rules: {last}", "".join(traceback.format_exception(error)))
