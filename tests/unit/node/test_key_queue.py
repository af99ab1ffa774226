"""One read-modify-write per key at a time: in one call when the value is at hand, else in the order of arrival."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from leafdb.errors import StorageError
from leafdb.limits import PENDING_KEYS_MAX, PENDING_PER_KEY_MAX
from leafdb.node.key_queue import Current, KeyQueue, ReplicaOverloaded
from leafdb.storage.reads import ReadsOverloaded
from leafdb.types import TreeId

TREE = TreeId(300)


class FakeEngine:
    """Values on a disk that answers when the test says so, and those in memory."""

    def __init__(self) -> None:
        self.disk: dict[bytes, bytes] = {}
        self.memory: dict[bytes, tuple[bytes | None, int]] = {}
        self.sequence = 0
        self.asked: list[tuple[bytes, Callable[[Current | StorageError], None]]] = []
        self.refuse: StorageError | None = None

    def get_now(self, tree: TreeId, key: bytes) -> Current | None:
        return self.memory.get(key)

    def get_soon(self, tree: TreeId, key: bytes, done: Callable[[Current | StorageError], None]) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.asked.append((key, done))

    def write(self, key: bytes, value: bytes) -> None:
        self.sequence += 1
        self.memory[key] = (value, self.sequence)

    def answer(self, error: StorageError | None = None) -> None:
        key, done = self.asked.pop(0)
        done(error or (self.disk.get(key), 0))


class Append:
    """A read-modify-write: adds its letter to the value."""

    def __init__(self, engine: FakeEngine, key: bytes, letter: bytes, *, writes: bool = True) -> None:
        self.engine, self.key, self.letter, self.writes = engine, key, letter, writes
        self.saw: Current | None = None
        self.error: Exception | None = None

    def run(self, value: bytes | None, sequence: int) -> None:
        self.saw = value, sequence
        if self.writes:
            self.engine.write(self.key, (value or b"") + self.letter)

    def refuse(self, error: Exception) -> None:
        self.error = error


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def queue(engine: FakeEngine) -> KeyQueue:
    return KeyQueue(engine)  # type: ignore[arg-type]  # what the queue uses of one


def test_a_value_at_hand_is_worked_on_in_the_call(engine: FakeEngine, queue: KeyQueue) -> None:
    engine.write(b"k", b"a")
    work = Append(engine, b"k", b"b")
    queue.do(TREE, b"k", work)
    assert work.saw == (b"a", 1)
    assert engine.memory[b"k"] == (b"ab", 2)
    assert len(queue) == 0


def test_a_value_on_disk_is_fetched_once_and_each_sees_what_the_one_before_left(
    engine: FakeEngine, queue: KeyQueue
) -> None:
    engine.disk[b"k"] = b"0"
    works = [Append(engine, b"k", letter, writes=letter != b"c") for letter in (b"a", b"b", b"c", b"d")]
    for work in works:
        queue.do(TREE, b"k", work)
    queue.check()
    assert len(engine.asked) == 1
    engine.answer()
    assert [work.saw for work in works] == [(b"0", 0), (b"0a", 1), (b"0ab", 2), (b"0ab", 2)]
    assert engine.memory[b"k"] == (b"0abd", 3)
    assert len(queue) == 0


def test_nobody_overtakes_who_waits_even_when_the_value_came_into_memory(engine: FakeEngine, queue: KeyQueue) -> None:
    engine.disk[b"k"] = b"0"
    first, second = Append(engine, b"k", b"a"), Append(engine, b"k", b"b")
    queue.do(TREE, b"k", first)
    engine.memory[b"k"] = (b"0", 0)
    assert queue.now(TREE, b"k") is None
    queue.do(TREE, b"k", second)
    assert second.saw is None
    engine.answer()
    assert engine.memory[b"k"][0] == b"0ab"


def test_work_that_comes_while_the_queue_runs_is_run_behind_it(engine: FakeEngine, queue: KeyQueue) -> None:
    late = Append(engine, b"k", b"z")

    class Calls(Append):
        def run(self, value: bytes | None, sequence: int) -> None:
            super().run(value, sequence)
            queue.do(TREE, b"k", late)
            assert late.saw is None, "in the middle of another's turn"

    queue.do(TREE, b"k", Calls(engine, b"k", b"a"))
    queue.do(TREE, b"k", Append(engine, b"k", b"b"))
    engine.answer()
    assert engine.memory[b"k"][0] == b"abz"
    assert len(queue) == 0


def test_a_read_that_fails_is_told_to_all_who_waited(engine: FakeEngine, queue: KeyQueue) -> None:
    works = [Append(engine, b"k", b"a") for _ in range(3)]
    for work in works:
        queue.do(TREE, b"k", work)
    engine.answer(StorageError("rotten"))
    assert [str(work.error) for work in works] == ["rotten"] * 3
    assert len(queue) == 0


def test_a_read_that_cannot_be_asked_for_is_refused_and_leaves_nothing(engine: FakeEngine, queue: KeyQueue) -> None:
    engine.refuse = ReadsOverloaded("full")
    work = Append(engine, b"k", b"a")
    queue.do(TREE, b"k", work)
    assert work.error is engine.refuse
    assert len(queue) == 0


def test_both_bounds_refuse_as_overload(engine: FakeEngine, queue: KeyQueue) -> None:
    works = [Append(engine, b"k", b"a") for _ in range(PENDING_PER_KEY_MAX + 1)]
    for work in works:
        queue.do(TREE, b"k", work)
    assert isinstance(works[-1].error, ReplicaOverloaded)
    assert works[-2].error is None
    for number in range(PENDING_KEYS_MAX):
        queue.do(TREE, b"%d" % number, Append(engine, b"", b""))
    queue.check()
    assert len(queue) == PENDING_KEYS_MAX
    over = Append(engine, b"", b"")
    queue.do(TREE, b"one more", over)
    assert isinstance(over.error, ReplicaOverloaded)


def is_older_waiting(queue: KeyQueue) -> bool:
    return queue.older_waiting


def test_what_waited_at_a_turn_is_older_until_it_is_done(engine: FakeEngine, queue: KeyQueue) -> None:
    assert not is_older_waiting(queue)
    queue.do(TREE, b"k", Append(engine, b"k", b"a"))
    assert not is_older_waiting(queue)
    queue.turn()
    queue.do(TREE, b"later", Append(engine, b"later", b"b"))
    queue.check()
    assert is_older_waiting(queue)
    engine.answer()
    assert not is_older_waiting(queue), "what came after the turn is not waited for"
    queue.turn()
    assert is_older_waiting(queue)
    engine.answer(StorageError("gone"))
    assert not is_older_waiting(queue)
    queue.check()


def test_a_key_that_waits_again_after_it_was_done_is_not_older(engine: FakeEngine, queue: KeyQueue) -> None:
    queue.do(TREE, b"k", Append(engine, b"k", b"a", writes=False))
    queue.turn()
    engine.answer()
    queue.do(TREE, b"k", Append(engine, b"k", b"b"))
    assert not queue.older_waiting
