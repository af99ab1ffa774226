"""Group commit: one append and one sync serve a burst, callbacks keep their order, the first error is the last word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, TypeVar

import pytest

from leafdb.errors import StorageError, StoreFailed
from leafdb.storage.committer import Committer
from leafdb.storage.executor import QueuedExecutor
from leafdb.storage.wal import WalWriter, read_segment, segment_numbers, segment_path
from leafdb.types import Durability, TreeId
from leafdb.vfs.memory import Fault, MemoryFileSystem

T = TypeVar("T")

TREE = TreeId(1)
ALWAYS, PERIODIC = Durability.ALWAYS, Durability.PERIODIC


class Log:
    def __init__(self, *, auto_commit: bool = False, batch_bytes_max: int = 1 << 20, tells_later: bool = False) -> None:
        self.fs = MemoryFileSystem()
        self.fs.mkdir("wal")
        self.fs.sync_dir("")
        writer = WalWriter(self.fs)
        writer.start_segment(1, 1)
        writer.sync()
        self.calls: Counter[str] = Counter()
        self.fs.on_call = lambda kind, path: self.calls.update([kind])
        self.executor = QueuedExecutor(tells_later=tells_later)
        self.lost_before: Callable[[], BaseException | None] = lambda: None
        self.sealed: list[int] = []
        self.failures: list[StoreFailed] = []
        self.told: list[Any] = []
        self.waits: list[float] = []
        self.now_s = 0.0
        self.committer = Committer(
            self.executor,
            writer,
            next_lsn=1,
            batch_bytes_max=batch_bytes_max,
            auto_commit=auto_commit,
            lost_before=lambda: self.lost_before(),
            on_sealed=self.sealed.append,
            on_failure=self.failures.append,
            now_s=lambda: self.now_s,
            on_wait=self.waits.append,
        )

    def write(self, name: str, durability: Durability, size: int = 10) -> int:
        def done(error: StorageError | None) -> None:
            self.told.append(name if error is None else (name, type(error)))

        return self.committer.append([(TREE, name.encode(), b"v" * size)], durability, done)


def test_a_burst_costs_one_append_and_one_sync_and_callbacks_keep_their_order() -> None:
    log = Log()
    for number in range(20):
        log.write(f"{number}", ALWAYS if number % 3 else PERIODIC)
    assert log.executor.pending == 0
    log.committer.flush_batch()
    assert log.told == []
    log.executor.run_pending()
    assert log.told == [f"{number}" for number in range(20)]
    assert log.calls == {"append": 1, "sync": 1}
    log.committer.check()


def test_writes_that_come_while_the_log_works_go_together_into_the_next_batch() -> None:
    log = Log()
    log.write("a", ALWAYS)
    log.committer.flush_batch()
    for name in "bcd":
        log.write(name, ALWAYS)
        log.committer.flush_batch()
    assert log.executor.pending == 1, "only one commit is under way"
    log.executor.run_pending()
    assert log.told == ["a", "b", "c", "d"]
    assert log.calls == {"append": 2, "sync": 2}


def test_what_the_log_thread_takes_is_told_of_each_batch_it_was_given() -> None:
    log = Log()
    log.write("a", PERIODIC)
    log.committer.flush_batch()
    assert log.waits == [], "appended on the loop: nobody waited"
    log.write("b", ALWAYS)
    log.committer.flush_batch()
    log.now_s = 0.25
    log.executor.run_pending()
    assert log.waits == [0.25]


def test_with_auto_commit_nobody_needs_to_ask() -> None:
    log = Log(auto_commit=True)
    log.write("a", PERIODIC)
    log.write("b", PERIODIC)
    log.executor.run_pending()
    assert log.told == ["a", "b"]
    assert log.calls == {"append": 1}


def test_a_batch_without_a_sync_is_appended_at_once_when_the_log_is_idle() -> None:
    log = Log()
    log.write("a", PERIODIC)
    log.committer.flush_batch()
    assert log.told == ["a"]
    assert log.executor.pending == 0
    log.write("b", ALWAYS)
    log.committer.flush_batch()
    log.write("c", PERIODIC)
    log.committer.flush_batch()
    assert log.told == ["a"], "the log is at work: the order is kept"
    log.executor.run_pending()
    assert log.told == ["a", "b", "c"]


def test_what_needs_no_sync_does_not_wait_for_one_that_is_under_way() -> None:
    log = Log()
    log.write("a", PERIODIC)
    log.committer.sync_soon()
    assert log.told == ["a"], "it is appended before the log is given the sync"
    assert log.executor.pending == 1
    log.write("b", PERIODIC)
    log.committer.flush_batch()
    assert log.told == ["a", "b"]
    assert (log.committer.safe_lsn(PERIODIC), log.committer.safe_lsn(ALWAYS)) == (2, 0)
    log.committer.check()
    log.write("c", ALWAYS)
    log.write("d", PERIODIC)
    log.committer.flush_batch()
    assert log.told == ["a", "b"], "a batch with a sync waits for the log, and what is behind it for both"
    log.executor.run_pending(1)
    assert log.committer.safe_lsn(ALWAYS) == 1, "the sync says nothing of what was appended after it was asked for"
    log.executor.run_pending()
    assert log.told == ["a", "b", "c", "d"]
    assert [lsn for lsn, _ in read_segment(log.fs, segment_path(1))] == [1, 2, 3, 4]
    log.committer.check()


def test_a_sync_that_is_asked_for_during_one_follows_it() -> None:
    log = Log()
    log.write("a", PERIODIC)
    log.committer.sync_soon()
    log.write("b", PERIODIC)
    log.committer.sync_soon()
    log.committer.flush_batch()
    assert log.told == ["a", "b"], "nobody waits for the second either"
    assert log.executor.pending == 1, "one at a time"
    log.executor.run_pending(1)
    assert log.committer.unsynced, "what came after the first sync was asked for"
    assert log.executor.pending == 1
    log.executor.run_pending()
    assert not log.committer.unsynced


def test_a_sync_that_fails_is_the_end_for_what_was_appended_meanwhile_as_well() -> None:
    log = Log()
    log.write("a", PERIODIC)
    log.committer.sync_soon()
    log.committer.when_safe(1, ALWAYS, lambda error: log.told.append(("a synced", type(error))))
    log.fs.faults.append(Fault("sync"))
    log.write("b", PERIODIC)
    log.committer.flush_batch()
    log.write("c", ALWAYS)
    log.executor.run_pending()
    assert log.told == ["a", "b", ("a synced", StoreFailed), ("c", StoreFailed)]
    assert len(log.failures) == 1
    assert log.committer.safe_lsn(ALWAYS) == 0


def test_an_append_on_the_loop_does_not_wipe_out_that_the_sync_beside_it_failed() -> None:
    """While the loop asks whether other work has ended the log, the log's thread finds that its sync has failed. That
    must stand: what the thread is given before the store hears of it must not reach the file."""
    log = Log(batch_bytes_max=1_000, tells_later=True)

    def sync_fails_meanwhile() -> None:
        log.executor.run_pending(1)

    log.write("a", PERIODIC)
    log.committer.sync_soon()
    log.fs.faults.append(Fault("sync"))
    log.lost_before = sync_fails_meanwhile
    log.write("b", PERIODIC)
    log.committer.flush_batch()
    log.lost_before = lambda: None
    log.write("large", ALWAYS, size=2_000)
    log.executor.run_pending()
    assert ("large", StoreFailed) in log.told
    assert [lsn for lsn, _ in read_segment(log.fs, segment_path(1))] == [1, 2]


def test_periodic_writes_are_told_after_write_and_synced_by_the_next_sync() -> None:
    log = Log()
    log.write("a", PERIODIC)
    log.committer.flush_batch()
    log.executor.run_pending()
    assert log.told == ["a"]
    assert (log.committer.safe_lsn(PERIODIC), log.committer.safe_lsn(ALWAYS)) == (1, 0)
    assert log.committer.unsynced
    log.committer.sync_soon()
    log.executor.run_pending()
    assert log.committer.safe_lsn(ALWAYS) == 1
    assert log.calls == {"append": 1, "sync": 1}
    log.committer.sync_soon()
    assert log.executor.pending == 0, "nothing to sync"


def test_when_safe_waits_for_exactly_what_was_asked() -> None:
    log = Log()
    first = log.write("first", PERIODIC)
    log.committer.flush_batch()
    second = log.write("second", PERIODIC)
    told: list[str] = []
    log.committer.when_safe(first, PERIODIC, lambda error: told.append("first written"))
    log.committer.when_safe(first, ALWAYS, lambda error: told.append("first synced"))
    log.committer.when_safe(second, PERIODIC, lambda error: told.append("second written"))
    assert told == ["first written"]
    log.committer.flush_batch()
    log.executor.run_pending()
    assert told == ["first written", "first synced", "second written"]
    log.committer.when_safe(second, ALWAYS, lambda error: told.append("at once"))
    assert told[-1] == "at once"
    assert log.calls["sync"] == 1
    third = log.write("third", PERIODIC)
    log.committer.flush_batch()
    log.executor.run_pending()
    log.committer.when_safe(third, ALWAYS, lambda error: told.append("third synced"))
    log.committer.flush_batch()
    log.executor.run_pending()
    assert told[-1] == "third synced"
    assert log.committer.safe_lsn(ALWAYS) == third
    with pytest.raises(AssertionError):
        log.committer.when_safe(99, ALWAYS, print)


def test_a_large_batch_is_handed_over_while_the_log_works() -> None:
    log = Log(batch_bytes_max=1000)
    log.write("a", ALWAYS)
    log.committer.flush_batch()
    log.write("b", PERIODIC, size=2000)
    assert log.executor.pending == 2
    assert log.committer.backlog_bytes > 2000
    log.executor.run_pending()
    assert log.told == ["a", "b"]
    assert log.committer.backlog_bytes == 0


def test_sealing_ends_the_segment_synced_and_later_writes_go_to_the_next_one() -> None:
    log = Log()
    log.write("a", PERIODIC)
    log.committer.flush_batch()
    log.write("b", PERIODIC)
    log.committer.seal(2)
    log.write("c", PERIODIC)
    log.committer.flush_batch()
    log.executor.run_pending()
    assert log.told == ["a", "b", "c"]
    assert log.sealed == [2]
    assert [lsn for lsn, _ in read_segment(log.fs, segment_path(1))] == [1, 2]
    assert [lsn for lsn, _ in read_segment(log.fs, segment_path(2))] == [3]
    assert log.committer.safe_lsn(ALWAYS) == 2
    log.committer.check()


def test_a_segment_that_was_just_made_is_synced_at_once_and_periodic_writes_do_not_wait_for_it() -> None:
    log = Log()
    log.write("a", PERIODIC)
    log.committer.seal(2)
    log.write("b", PERIODIC)
    log.executor.run_pending(1)
    assert log.told == ["a", "b"], "what came during the seal was not appended right behind it"
    assert log.executor.pending == 1, "the new segment's sync was not asked for"
    log.write("c", PERIODIC)
    log.committer.flush_batch()
    assert log.told == ["a", "b", "c"], "a write that asked for no sync waited for that of the new segment"
    assert len(segment_numbers(log.fs.power_cut(Random(0), keep=0.0))) == 1, (
        "the seal waited for the new segment's name"
    )
    log.executor.run_pending(1)
    assert len(segment_numbers(log.fs.power_cut(Random(0), keep=0.0))) == 2
    log.committer.check()
    assert [lsn for lsn, _ in read_segment(log.fs, segment_path(2))] == [2, 3]


def test_a_write_that_asks_for_a_sync_behind_a_seal_makes_the_new_segment_durable_itself() -> None:
    log = Log()
    log.committer.seal(2)
    log.write("a", ALWAYS)
    log.executor.run_pending()
    assert log.told == ["a"]
    assert [lsn for lsn, _ in read_segment(log.fs.power_cut(Random(0), keep=0.0), segment_path(2))] == [1]
    assert log.calls["sync_dir"] == 1


@pytest.mark.parametrize("kind", ["append", "sync"])
def test_an_error_is_final_for_all_who_wait_and_for_what_was_queued(kind: str) -> None:
    log = Log(batch_bytes_max=100)
    log.fs.faults.append(Fault(kind, count=1))
    log.write("a", ALWAYS)
    log.committer.flush_batch()
    log.write("b", ALWAYS, size=500)  # queued behind, in a batch of its own
    log.write("c", PERIODIC)
    log.committer.when_safe(1, ALWAYS, lambda error: log.told.append(type(error)))
    log.executor.run_pending()
    assert log.told == [("a", StoreFailed), StoreFailed, ("b", StoreFailed), ("c", StoreFailed)]
    assert len(log.failures) == 1
    assert isinstance(log.failures[0].__cause__, OSError)
    after = dict(log.calls)
    log.committer.flush_batch()
    log.committer.sync_soon()
    log.executor.run_pending()
    assert dict(log.calls) == after, "nothing is tried again"
    log.committer.when_safe(3, PERIODIC, lambda error: log.told.append(error))
    assert isinstance(log.told[-1], StoreFailed)


def test_finish_commits_and_syncs_everything_and_answers_everyone() -> None:
    log = Log()
    log.write("a", PERIODIC)
    log.committer.flush_batch()
    log.write("b", PERIODIC)
    log.committer.finish()
    assert log.told == ["a", "b"]
    assert log.committer.safe_lsn(ALWAYS) == 2
    assert [lsn for lsn, _ in read_segment(log.fs, segment_path(1))] == [1, 2]


class Apart:
    """An executor whose work runs when it is drained, and whose reports never come: the loop is at its end."""

    def __init__(self) -> None:
        self.work: list[Callable[[], object]] = []

    def submit(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        self.work.append(work)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Nothing comes round any more."""

    def rest(self) -> None:
        """Nobody waits."""

    def drain(self) -> None:
        while self.work:
            self.work.pop(0)()

    def close(self) -> None:
        """Nothing to close."""


def test_finish_never_answers_for_a_batch_that_it_handed_over_itself_and_that_is_not_written() -> None:
    log = Log()
    apart = Apart()
    writer = WalWriter(log.fs)
    writer.start_segment(2, 1)
    committer = log.committer = Committer(
        apart, writer, next_lsn=1, batch_bytes_max=1 << 20, auto_commit=False,
        lost_before=lambda: None,
        on_sealed=log.sealed.append, on_failure=log.failures.append, now_s=lambda: 0.0, on_wait=log.waits.append,
    )  # fmt: skip

    def told(name: str) -> Callable[[StorageError | None], None]:
        return lambda error: log.told.append((name, error, [lsn for lsn, _ in read_segment(log.fs, segment_path(2))]))

    for name in ("a", "b"):
        committer.append([(TREE, name.encode(), b"v")], ALWAYS, told(name))
        committer.flush_batch()  # "b" waits: the log is at work on "a"
    committer.finish()
    assert [name for name, _, _ in log.told] == ["a", "b"]
    assert log.told[1] == ("b", None, [1, 2]), "told before it was in the log"


def test_finish_reports_a_last_failure() -> None:
    log = Log()
    log.write("a", ALWAYS)
    log.fs.faults.append(Fault("sync"))
    log.committer.finish()
    assert log.told == [("a", StoreFailed)]
    assert len(log.failures) == 1


def test_one_callback_that_raises_does_not_silence_the_others() -> None:
    log = Log()

    def broken(error: StorageError | None) -> None:
        raise ZeroDivisionError("its owner's bug")

    log.committer.append([(TREE, b"x", b"")], ALWAYS, broken)
    log.write("b", ALWAYS)
    log.committer.flush_batch()
    with pytest.raises(ZeroDivisionError):
        log.executor.run_pending()
    assert log.told == ["b"]


def test_writes_of_several_entries_are_one_record() -> None:
    log = Log()
    log.committer.append([(TREE, b"a", b"1"), (TREE, b"b", None), (TREE, b"c", b"")], ALWAYS, None)
    log.committer.append([(TREE, b"d", None)], ALWAYS, None)
    log.committer.finish()
    assert list(read_segment(log.fs, segment_path(1))) == [
        (1, [(TREE, b"a", b"1"), (TREE, b"b", None), (TREE, b"c", b"")]),
        (2, [(TREE, b"d", None)]),
    ]
