"""Many records of this replica at once, for repair: read when they may be shown, merged when there is room.

Everything still goes record by record through `replica`; here is only the waiting, in small groups and at the pace of
background work. What is refused because the node has too much to do is tried again for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

import trio

from leafdb.errors import NotApplied, Reason, StorageError
from leafdb.model.hlc import LeaseExhausted
from leafdb.model.record import names_unleased
from leafdb.node.accords import Accord
from leafdb.node.exchanged import take
from leafdb.node.key_queue import ReplicaOverloaded
from leafdb.node.left_out import LeftOut
from leafdb.node.pace import Pace
from leafdb.node.replica import Merged, Replica
from leafdb.node.restored_record import RestoredRecord
from leafdb.node.view import BucketView
from leafdb.storage.reads import ReadsOverloaded
from leafdb.types import Durability

GROUP_KEYS_MAX: Final = 32
GROUP_BYTES_MAX: Final = 128 * 1024
TRIES_MAX: Final = 100
RETRY_S: Final = 0.1
BUSY: Final = (ReplicaOverloaded, ReadsOverloaded, LeaseExhausted)

Item = tuple[bytes, bytes]
"""A storage key and a record."""
Told = tuple[bytes, bytes | None]
"""The same, or that there is none."""
Door = Callable[[bytes, bytes | None, Merged], None]
"""Takes what was told of a key; the last is called once that is durable."""


class RecordStore:
    """The replica's records, several at a time."""

    def __init__(self, replica: Replica, pace: Pace) -> None:
        self._replica = replica
        self._pace = pace

    def require_room(self) -> None:
        """Raises DiskFull, or another StorageError, when nothing could be merged now, however long one waits."""
        with suppress(ReplicaOverloaded):
            self._replica.admit()

    async def read(
        self, bucket: BucketView, keys: Sequence[bytes], durability: Durability | None = None
    ) -> list[bytes | None]:
        """The record of each key, None where there is none, when it is as durable as its bucket promises, or as said.
        Raises StorageError."""
        durability = bucket.durability if durability is None else durability
        found: list[bytes | None] = []
        for start in range(0, len(keys), GROUP_KEYS_MAX):
            group = keys[start : start + GROUP_KEYS_MAX]
            for _ in range(TRIES_MAX):
                answers, problem = await self._read_group(bucket, group, durability)
                if problem is None:
                    found += answers
                    break
                if not isinstance(problem, BUSY):
                    raise _as_storage_error(problem)
                await trio.sleep(RETRY_S)
            else:
                raise StorageError("too many reads wait for the disk")
        return found

    async def merge(
        self, bucket: BucketView, items: Sequence[Item], durability: Durability | None = None
    ) -> list[Exception | None]:
        """Merge each record; the error of each that was not merged, None for those that are as durable as their
        bucket promises, or as said. What was left out by right has been given, and is no error."""
        durability = bucket.durability if durability is None else durability

        def merge(key: bytes, record: bytes | None, done: Merged) -> None:
            if record is None:
                done(None)
            else:
                self._replica.merge(bucket.tree, key, record, bucket.conflict, durability, done)

        return await self._taken(items, merge)

    async def restore(self, bucket: BucketView, items: Sequence[Item]) -> list[Exception | None]:
        """As `merge`, of records of a backup, synced: they are taken whole, whatever was forgotten since. Raises
        NotApplied, with none taken, if one names writes of this node that it never made."""
        identity, epochs = self._replica.minter
        if any(names_unleased(record, identity, epochs) for _, record in items):
            what = "names writes of this node that it never made: the backup is of a cluster with its number, or forged"
            raise NotApplied(f"a record {what}", reason=Reason.BAD_REQUEST)

        def taken(key: bytes, record: bytes | None, done: Merged) -> None:
            assert record is not None, "a backup has records"
            self._replica.queue.do(bucket.tree, key, RestoredRecord(self._replica, bucket, key, record, done))

        return await self._taken(items, taken)

    async def exchange(self, bucket: BucketView, items: Sequence[Told], accord: Accord) -> list[Exception | None]:
        """As `merge`, of records that belong to an exchange: by its terms, which also say what nothing means."""

        def taken(key: bytes, record: bytes | None, done: Merged) -> None:
            take(self._replica, bucket, key, record, accord, bucket.durability, done)

        return await self._taken(items, taken)

    async def _taken(self, items: Sequence[Told], door: Door) -> list[Exception | None]:
        errors: list[Exception | None] = []
        for group in _groups(items):
            results = await self._group_taken(group, door)
            for _ in range(TRIES_MAX):
                again = [place for place, error in enumerate(results) if isinstance(error, BUSY)]
                if not again:
                    break
                await trio.sleep(RETRY_S)
                retried = await self._group_taken([group[place] for place in again], door)
                for place, error in zip(again, retried, strict=True):
                    results[place] = error
            errors += results
        return errors

    async def _read_group(
        self, bucket: BucketView, keys: Sequence[bytes], durability: Durability
    ) -> tuple[list[bytes | None], Exception | None]:
        answers: list[bytes | None] = [None] * len(keys)
        problems: list[Exception] = []
        waiting = _Waiting(len(keys))

        def shown(place: int, value: bytes | None, error: Exception | None) -> None:
            answers[place] = value
            if error is not None:
                problems.append(error)
            waiting.one_less()

        began = self._pace.begin()
        for place, key in enumerate(keys):
            self._replica.read(bucket.tree, key, durability, partial(shown, place))
        await self._pace.spent(began)
        await waiting.over.wait()
        return answers, problems[0] if problems else None

    async def _group_taken(self, items: Sequence[Told], door: Door) -> list[Exception | None]:
        results: list[Exception | None] = [None] * len(items)
        waiting = _Waiting(len(items))

        def merged(place: int, error: Exception | None) -> None:
            results[place] = None if isinstance(error, LeftOut) else error
            waiting.one_less()

        try:
            self._replica.admit()
        except (ReplicaOverloaded, StorageError) as error:
            return [error] * len(items)
        began = self._pace.begin()
        for place, (key, record) in enumerate(items):
            done: Callable[[Exception | None], None] = partial(merged, place)
            door(key, record, done)
        await self._pace.spent(began)
        await waiting.over.wait()
        return results


def unpaced_store(replica: Replica) -> RecordStore:
    """For restores: somebody waits for them, as for any write; each group's sync leaves the loop to others."""
    return RecordStore(replica, Pace(lambda: 0.0, share=1.0))  # its clock stands: nothing is ever charged


class _Waiting:
    """So many callbacks are still to come."""

    __slots__ = ("_left", "over")

    def __init__(self, count: int) -> None:
        self._left = count
        self.over = trio.Event()
        if not count:
            self.over.set()

    def one_less(self) -> None:
        self._left -= 1
        if not self._left:
            self.over.set()


def _groups(items: Sequence[Told]) -> Iterator[list[Told]]:
    """Groups of bounded count and size, one item at least."""
    group: list[Told] = []
    size = 0
    for item in items:
        weight = len(item[1] or b"")
        if group and (len(group) == GROUP_KEYS_MAX or size + weight > GROUP_BYTES_MAX):
            yield group
            group, size = [], 0
        group.append(item)
        size += weight
    if group:
        yield group


def _as_storage_error(error: Exception) -> StorageError:
    return error if isinstance(error, StorageError) else StorageError(str(error))
