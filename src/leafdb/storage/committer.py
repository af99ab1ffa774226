"""Group commit: writes gather in a batch while the log works on the one before, and one append and at most one sync
serve them all.

Writes get their sequence number (lsn) at once and their callback when the batch that holds them is written (PERIODIC)
or synced (ALWAYS). A batch is handed to the log thread
- when the loop comes round (`auto_commit`) or its owner says so (`flush_batch`), if the log is idle;
- when the commit before it returns;
- when it has grown to its bound, or ends a segment, whatever the log does: the log's one thread keeps the order.

A batch with one ALWAYS write is synced as a whole, so a PERIODIC write in it waits for that sync: one more trip from
the log thread to the loop would cost all of them more.

A batch that needs no sync is a write() into the page cache of a few microseconds; a trip to the log thread and back
costs tens. So when the log is idle such a batch is appended on the loop, at the moment it would have been handed over
(docs/decisions/0005). So it is while the log thread does nothing but sync what was appended before: a slow disk makes
only those wait who asked for it. While a batch with writes is on its way, or a manifest edit that later writes rely on
(`precede`), it waits for the log like any other, and the order is kept.

Callbacks run in the order of their batches, and in each in the order in which they came; only those who wait for a
sync alone may hear after writes that came later. The first error is final: everyone who waits gets StoreFailed, and no
later batch reaches the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from leafdb.errors import StorageError, StoreFailed
from leafdb.storage.executor import Callback, Executor
from leafdb.storage.wal import WalWriter
from leafdb.storage.wal_format import CONTINUES, DELETION, ENTRY, MARK_BYTES, MARKED, WalEntry
from leafdb.types import Durability

Waiter = Callable[[StorageError | None], None]

_ENTRY_BYTES: Final = ENTRY.size
_pack = ENTRY.pack


class Batch:
    """The writes of one commit."""

    __slots__ = (
        "bytes_used", "first_lsn", "given_s", "outcome", "parts", "seal_as", "sync", "synced_in_s", "waiters", "writes",
    )  # fmt: skip

    def __init__(self, first_lsn: int) -> None:
        self.first_lsn: int = first_lsn
        self.given_s: float = 0.0  # when the log thread was given it
        self.writes: int = 0
        self.parts: list[bytes] = []
        self.bytes_used: int = 0
        self.sync: bool = False
        self.synced_in_s: float = 0.0  # set by the log thread
        self.seal_as: int = 0  # number of the segment to start after this batch; 0: go on with the present one
        self.waiters: list[Waiter] = []
        self.outcome: BaseException | bool = False  # set by the log thread: an error, or True

    @property
    def last_lsn(self) -> int:
        return self.first_lsn + self.writes - 1


class Committer:
    """Lives on the loop; only `_commit` runs on the log thread."""

    def __init__(
        self,
        executor: Executor,
        writer: WalWriter,
        *,
        next_lsn: int,
        batch_bytes_max: int,
        auto_commit: bool,
        lost_before: Callable[[], BaseException | None],
        on_sealed: Callable[[int], None],
        on_failure: Callable[[StoreFailed], None],
        now_s: Callable[[], float],
        on_wait: Callable[[float], None],
    ) -> None:
        self._executor = executor
        self._writer = writer
        self._batch_bytes_max = batch_bytes_max
        self._auto_commit = auto_commit
        self._lost_before = lost_before  # what ended the work on the log thread that `precede` speaks of
        self._on_sealed = on_sealed
        self._on_failure = on_failure
        self._now_s = now_s
        self._on_wait = on_wait  # told how long each batch took to the log thread and back
        self.on_synced: Callable[[float], None] = lambda seconds: None
        """Told, on the loop, how long each sync took on the log thread."""
        self._in_flight: deque[Batch] = deque()
        self._batch = Batch(next_lsn)
        self._scheduled = False
        self._sync_next = False  # one was asked for while the log was at work
        self._preceding = 0  # pieces of other work on the log thread that must be done before a later batch is
        self._lost: BaseException | None = None  # what ended the log; set where `_commit` runs
        self._failure: StoreFailed | None = None
        self.next_lsn: int = next_lsn
        self.written_lsn: int = next_lsn - 1
        self.synced_lsn: int = next_lsn - 1
        self.backlog_bytes: int = 0
        self.segment_bytes: int = 0
        self.commits: int = 0

    @property
    def unsynced(self) -> bool:
        """Something was appended that no sync has covered yet."""
        return self.synced_lsn < self.next_lsn - 1

    def append(self, writes: Sequence[WalEntry], durability: Durability, done: Waiter | None, mark: bytes = b"") -> int:
        """Add one atomic write to the batch, with the mark of its first entry; answers its sequence number."""
        assert not mark or len(mark) == MARK_BYTES
        batch = self._batch
        lsn = self.next_lsn
        if len(writes) == 1:
            tree_id, key, value = writes[0]
            flags = MARKED if mark else 0
            if value is None:
                batch.parts += (_pack(flags | DELETION, tree_id, len(key), 0), key, mark)
                size = _ENTRY_BYTES + len(key) + len(mark)
            else:
                batch.parts += (_pack(flags, tree_id, len(key), len(value)), key, value, mark)
                size = _ENTRY_BYTES + len(key) + len(value) + len(mark)
        else:
            many = _encode(writes, mark)
            size = sum(map(len, many))
            batch.parts += many
        self.next_lsn = lsn + 1
        batch.writes += 1
        batch.bytes_used += size
        self.backlog_bytes += size
        self.segment_bytes += size
        if durability is Durability.ALWAYS:
            batch.sync = True
        if done is not None:
            batch.waiters.append(done)
        if batch.bytes_used >= self._batch_bytes_max:
            self._hand_over()
        elif self._auto_commit and not self._scheduled and self._may_append:
            self._schedule()
        return lsn

    def flush_batch(self) -> None:
        """Append the batch, or hand it over, if it has anything to do and the log is not in its way."""
        batch = self._batch
        if self._failure is not None:
            return
        if batch.sync or self._preceding:
            if not self._in_flight and (batch.sync or batch.writes):
                self._hand_over()
        elif batch.writes and self._may_append:
            self._commit_here()

    @property
    def _may_append(self) -> bool:
        """Whether the end of the log is not the log thread's: it is idle, or syncs what is there and no more."""
        flying = self._in_flight
        return not flying or (len(flying) == 1 and not flying[0].writes and not flying[0].seal_as)

    def precede(self, done: Callback | None) -> Callback:
        """The caller gives the log thread something that must be durable before whatever is appended from now on; it
        calls what it gets here when it is, and that calls `done`."""
        self._preceding += 1

        def durable() -> None:
            self._preceding -= 1
            if done is not None:
                done()

        return durable

    def sync_soon(self) -> None:
        """Have everything appended so far synced, now or after what the log thread is at."""
        if not self.unsynced:
            return
        if self._in_flight:
            self._sync_next = True
            return
        self.flush_batch()  # what needs no sync is not to wait for this one
        self._batch.sync = True
        self.flush_batch()

    def seal(self, number: int) -> None:
        """End the segment after what was appended so far; later writes go to segment `number`."""
        batch = self._batch
        batch.seal_as = number
        batch.sync = True
        self.segment_bytes = 0
        self._hand_over()

    def safe_lsn(self, durability: Durability) -> int:
        return self.synced_lsn if durability is Durability.ALWAYS else self.written_lsn

    def when_safe(self, lsn: int, durability: Durability, done: Waiter) -> None:
        """Call `done` once the commit has passed `lsn`: now, if it has."""
        assert lsn < self.next_lsn, f"sequence {lsn} was never given out"
        if self._failure is not None:
            done(self._failure)
            return
        always = durability is Durability.ALWAYS
        if lsn <= (self.synced_lsn if always else self.written_lsn):
            done(None)
            return
        for batch in self._in_flight:
            if lsn <= batch.last_lsn and (batch.sync or not always):
                batch.waiters.append(done)
                return
        batch = self._batch
        batch.waiters.append(done)
        if always:
            batch.sync = True
        if self._auto_commit and not self._in_flight and not self._scheduled:
            self._schedule()

    def finish(self) -> None:
        """Commit and sync all there is, on this thread; for closing. Every waiter is answered on return."""
        self._executor.drain()  # manifest edits, too: what is committed last may be for a tree that one of them makes
        while self._in_flight and self._failure is None:
            self._executor.drain()  # each time: settling one batch may have handed over the next
            if not self._in_flight:
                break  # an executor without threads has settled it inside the drain
            batch = self._in_flight[0]
            assert batch.outcome is not False, "a batch is answered for that nobody has written"
            self._settle(batch, batch.outcome if isinstance(batch.outcome, BaseException) else None)
        if self._failure is not None:
            return
        batch, self._batch = self._batch, Batch(self.next_lsn)
        batch.sync = True
        self._in_flight.append(batch)
        try:
            self._commit(batch)
        except Exception as error:
            self._settle(batch, error)
        else:
            self._settle(batch, None)

    def fail(self, failure: StoreFailed) -> None:
        """Nothing is committed any more; everyone who waits is told."""
        if self._failure is not None:
            return
        self._failure = failure
        batches = [*self._in_flight, self._batch]
        self._in_flight.clear()
        self._batch = Batch(self.next_lsn)
        _call_all([waiter for batch in batches for waiter in batch.waiters], failure)

    def _make_durable(self) -> None:
        """Have the segment synced that was just made, before the log thread is given anything else: an edit of the
        manifest that lets go of the one before, say. What needs no sync does not wait for this one."""
        if self._batch.sync:
            self._hand_over()
            return
        batch = Batch(self._batch.first_lsn)
        batch.sync = True
        self._submit(batch)

    def _schedule(self) -> None:
        self._scheduled = True
        self._executor.call_soon(self._scheduled_flush)

    def _scheduled_flush(self) -> None:
        self._scheduled = False
        self.flush_batch()

    def _hand_over(self) -> None:
        if self._failure is not None:
            return
        batch, self._batch = self._batch, Batch(self.next_lsn)
        self._submit(batch)

    def _submit(self, batch: Batch) -> None:
        self._in_flight.append(batch)
        batch.given_s = self._now_s()
        self._executor.submit(partial(self._commit, batch), partial(self._committed, batch))

    def _commit_here(self) -> None:
        """Append a batch without a sync on the loop: nothing else appends (`_may_append`)."""
        batch, self._batch = self._batch, Batch(self.next_lsn)
        self._in_flight.append(batch)
        error: BaseException | None = None
        try:
            self._commit(batch)
        except OSError as problem:
            error = problem
        self._settle(batch, error)

    def _commit(self, batch: Batch) -> None:
        """On the log thread, or on the loop while the end of the log is not that thread's."""
        lost = self._lost or self._lost_before()
        if lost is not None:
            self._lost = lost  # only ever set: two threads may be here, and what one has found must stand
            raise lost
        writer = self._writer
        try:
            if batch.writes:
                writer.append(batch.first_lsn, batch.writes, batch.parts)
            if batch.sync:
                began_s = self._now_s()
                writer.sync()
                batch.synced_in_s = self._now_s() - began_s
            if batch.seal_as:
                writer.seal()
                writer.start_segment(batch.seal_as, batch.first_lsn + batch.writes)
        except BaseException as error:
            self._lost = batch.outcome = error
            raise
        batch.outcome = True

    def _committed(self, batch: Batch, result: BaseException | None) -> None:
        if self._in_flight and self._in_flight[0] is batch:  # else settled by `finish` or `fail`
            self._on_wait(self._now_s() - batch.given_s)
            if batch.sync and result is None:
                self.on_synced(batch.synced_in_s)
            self._settle(batch, result)

    def _settle(self, batch: Batch, error: BaseException | None) -> None:
        if error is not None:
            path = getattr(error, "filename", None) or ""
            failure = StoreFailed(f"the log cannot be written: {error}", path=str(path))
            failure.__cause__ = error
            self.fail(failure)
            self._on_failure(failure)
            return
        self._in_flight.remove(batch)  # the first, or the one behind a sync
        self.commits += 1
        self.backlog_bytes -= batch.bytes_used
        self.written_lsn = max(self.written_lsn, batch.last_lsn)
        if batch.sync:
            self.synced_lsn = batch.last_lsn
        # first: the log works on the next batch while the callbacks run
        if batch.seal_as:
            self._make_durable()
            self._on_sealed(batch.last_lsn)
        elif self._batch.sync:
            self.flush_batch()
        _call_all(batch.waiters, None)
        if self._sync_next and not self._in_flight:
            self._sync_next = False
            self.sync_soon()
        if self._batch.writes and self._may_append and not self._scheduled:
            if self._auto_commit:
                self._schedule()
            else:
                self.flush_batch()

    def check(self) -> None:
        assert self.synced_lsn <= self.written_lsn < self.next_lsn
        expected = self.written_lsn + 1
        for batch in [*self._in_flight, self._batch]:
            assert batch.first_lsn == expected or not batch.writes, f"batch starts at {batch.first_lsn}, not {expected}"
            expected += batch.writes
        assert expected == self.next_lsn or self._failure is not None
        assert self.backlog_bytes >= 0
        assert self._preceding >= 0


def _encode(writes: Sequence[WalEntry], mark: bytes) -> list[bytes]:
    """The entries of one write that has not exactly one; the mark is the first one's."""
    assert writes, "a write without entries"
    parts: list[bytes] = []
    last = len(writes) - 1
    for index, (tree_id, key, value) in enumerate(writes):
        flags = (CONTINUES if index < last else 0) | (DELETION if value is None else 0)
        body = value or b""
        if mark:
            flags |= MARKED
        parts += (_pack(flags, tree_id, len(key), len(body)), key, body, mark)
        mark = b""
    return parts


def _call_all(waiters: list[Waiter], result: StorageError | None) -> None:
    """Call each, whatever the others do; then let the first error out, as it is its owner's bug."""
    first: Exception | None = None
    for waiter in waiters:
        try:
            waiter(result)
        except Exception as error:
            first = first or error
    if first is not None:
        raise first
