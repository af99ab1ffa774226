"""Reads files of the store again, to the last byte, and says which of them are damaged. It changes nothing.

One run at a time, off the loop in slices of bounded size, at a pace in bytes a second: whatever is spent is waited for
afterwards, and time nobody used is not saved up. What is read comes from the file, never from the block cache, and goes
into none. The kernel's page cache is not avoided: a disk that lost what is still in it is found out later.

A table is held (pinned) while it is read, and no longer: a run may take days, and must not keep what compaction has
replaced. A file that leaves the store before its turn, or while it is read, is passed over.

A damaged file never fails the store. Of each the first damage goes the way of damage that a read meets (`on_damage`),
and all of them, up to a bound, are in the result.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final

from leafdb.errors import CorruptionError, StorageError
from leafdb.limits import VERIFY_DAMAGES_MAX, VERIFY_SLICE_BYTES
from leafdb.storage.executor import Executor
from leafdb.storage.inspection import Target
from leafdb.storage.sstable_reader import Part
from leafdb.storage.tables import Pin, Tables
from leafdb.types import TreeId

CREDIT_S: Final = 0.05
"""The clock comes by every few milliseconds: so much of the pace may be used at once."""


class VerifyState(Enum):
    """Where a run stands."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Damage:
    """A place where a file is not what was written. Keys and tree are those of a table: a closed range around what
    cannot be read; both empty, and no tree, for log and manifest."""

    path: str
    offset: int
    what: str
    tree_id: TreeId | None = None
    smallest: bytes = b""
    largest: bytes = b""


@dataclass(frozen=True, slots=True)
class Verified:
    """How far a run is, or how far it came."""

    state: VerifyState
    files: int
    """Read to the end."""
    files_total: int
    bytes_read: int
    bytes_total: int
    """About: a segment's size is not known before it is read, and files leave the store meanwhile."""
    damages: tuple[Damage, ...]
    """The first VERIFY_DAMAGES_MAX of them."""
    damages_found: int
    damaged_files: int


VerifyDone = Callable[[Verified | StorageError], None]


class _Reading:
    """The file that is being read, and what it takes to do so."""

    __slots__ = ("parts", "pin", "target", "told")

    def __init__(self, target: Target, pin: Pin) -> None:
        self.target = target
        self.pin = pin
        self.parts = target.parts()
        self.told = False
        """Damage of it was passed on."""


class _Run:
    """One run: what is left, what is being read, what was found."""

    __slots__ = (
        "bytes_per_s", "bytes_read", "bytes_total", "cancelled", "damaged_files", "damages", "damages_found", "done",
        "due_s", "files", "files_total", "in_flight", "left", "reading",
    )  # fmt: skip

    def __init__(self, left: Iterable[Target], bytes_per_s: int, now_s: float, done: VerifyDone) -> None:
        self.left = deque(left)
        self.files_total = len(self.left)
        self.bytes_total = sum(target.size for target in self.left)
        self.bytes_per_s = bytes_per_s
        self.due_s = now_s
        self.done = done
        self.reading: _Reading | None = None
        self.in_flight = False
        self.cancelled = False
        self.files = self.bytes_read = self.damages_found = self.damaged_files = 0
        self.damages: list[Damage] = []

    def verified(self, state: VerifyState) -> Verified:
        return Verified(
            state=state,
            files=self.files,
            files_total=self.files_total,
            bytes_read=self.bytes_read,
            bytes_total=max(self.bytes_total, self.bytes_read),
            damages=tuple(self.damages),
            damages_found=self.damages_found,
            damaged_files=self.damaged_files,
        )


class Verifier:
    """See the module. Lives on the loop, but for the slices."""

    def __init__(
        self,
        executor: Executor,
        tables: Tables,
        *,
        now_s: Callable[[], float],
        on_damage: Callable[[CorruptionError], None],
    ) -> None:
        self._executor = executor
        self._tables = tables
        self._now_s = now_s
        self._on_damage = on_damage
        self._run: _Run | None = None
        self._last: Verified | None = None
        self.bytes_read: int = 0
        """By all runs."""
        self.damages_found: int = 0

    @property
    def running(self) -> bool:
        return self._run is not None

    def progress(self) -> Verified | None:
        """Of the run under way; else how the last one ended. None: there was none."""
        return self._last if self._run is None else self._run.verified(VerifyState.RUNNING)

    def start(self, targets: Iterable[Target], *, bytes_per_s: int, done: VerifyDone) -> None:
        """Read these files, in their order; 0 bytes a second: as fast as it goes.

        `done` comes later, with what was found, or with the error that ended the store. StorageError: a run is under
        way already.
        """
        assert bytes_per_s >= 0
        if self._run is not None:
            raise StorageError("the files of this store are being read again already")
        self._run = _Run(targets, bytes_per_s, self._now_s(), done)
        self._executor.call_soon(self._pump)

    def cancel(self) -> None:
        """End the run under way; its `done` gets what was found so far. No-op when there is none."""
        if self._run is not None:
            self._run.cancelled = True
            self._executor.call_soon(self._pump)

    def fail(self, failure: StorageError) -> None:
        """The store has ended: nothing more is read, and who waits is told."""
        run, self._run = self._run, None
        if run is not None:
            if not run.in_flight:
                self._leave(run)
            run.done(failure)

    def on_time(self, now_s: float) -> None:
        """Go on, when what was read is paid for."""
        if self._run is not None and now_s >= self._run.due_s:
            self._pump()

    def deadline(self) -> float | None:
        """When `on_time` is wanted."""
        return None if self._run is None or self._run.in_flight else self._run.due_s

    def _pump(self) -> None:
        """Hand the next slice over, if one is due."""
        run = self._run
        if run is None or run.in_flight:
            return
        while not run.cancelled and run.reading is None and run.left:
            self._enter(run, run.left.popleft())
        if run.cancelled or run.reading is None:
            self._end(run)
        elif self._now_s() >= run.due_s:
            run.in_flight = True
            self._executor.submit(partial(_slice, run.reading.parts), partial(self._sliced, run, run.reading))

    def _enter(self, run: _Run, target: Target) -> None:
        if target.in_use():
            run.reading = _Reading(target, self._tables.pin())
        else:
            run.bytes_total -= target.size
            run.files_total -= 1

    def _leave(self, run: _Run) -> None:
        """Let go of the file that is being read."""
        reading, run.reading = run.reading, None
        if reading is not None:
            reading.parts.close()
            self._tables.release(reading.pin)

    def _sliced(self, run: _Run, reading: _Reading, result: tuple[list[Part], bool] | BaseException) -> None:
        run.in_flight = False
        if isinstance(result, BaseException) or run is not self._run:
            self._leave(run)
            if isinstance(result, BaseException):
                raise result  # a bug: what the world does to a file comes as a part's problem
            return
        parts, ended = result
        read = sum(part.size for part in parts)
        run.bytes_read += read
        self.bytes_read += read
        if run.bytes_per_s:
            run.due_s = max(run.due_s, self._now_s() - CREDIT_S) + read / run.bytes_per_s
        for part in parts if reading.target.in_use() else ():
            if part.problem is not None:
                self._found(run, reading, part, part.problem)
        if ended:
            run.files += 1
            self._leave(run)
        self._pump()

    def _found(self, run: _Run, reading: _Reading, part: Part, problem: StorageError) -> None:
        target = reading.target
        offset = problem.offset if isinstance(problem, CorruptionError) else 0
        run.damages_found += 1
        self.damages_found += 1
        if len(run.damages) < VERIFY_DAMAGES_MAX:
            damage = Damage(target.path, offset, problem.message, target.tree_id, part.smallest, part.largest)
            run.damages.append(damage)
        if not reading.told:
            reading.told = True
            run.damaged_files += 1
            self._on_damage(CorruptionError(problem.message, path=target.path, offset=offset))

    def _end(self, run: _Run) -> None:
        self._leave(run)
        self._run = None
        self._last = run.verified(VerifyState.CANCELLED if run.cancelled else VerifyState.DONE)
        run.done(self._last)

    def check(self) -> None:
        run = self._run
        if run is not None:
            assert run.in_flight <= (run.reading is not None), "a slice of no file"
            assert run.files + (run.reading is not None) + len(run.left) == run.files_total
            assert run.damaged_files <= run.damages_found


def _slice(parts: Generator[Part, None, None]) -> tuple[list[Part], bool]:
    """On a reader thread: parts of about one slice's bytes; and whether they were the last."""
    taken: list[Part] = []
    size = 0
    for part in parts:
        taken.append(part)
        size += part.size
        if size >= VERIFY_SLICE_BYTES:
            return taken, False
    return taken, True
