"""A store that is emptied is blank and another store afterwards, wherever power goes meanwhile; no other is touched."""

from __future__ import annotations

from random import Random

import pytest

from leafdb.errors import StorageError, StoreLocked
from leafdb.storage.engine import Engine
from leafdb.storage.executor import QueuedExecutor
from leafdb.storage.identity import WIPE_PATH, Identity, read_identity
from leafdb.storage.job_runner import InlineJobRunner
from leafdb.storage.settings import EngineConfig
from leafdb.storage.wipe import wipe
from leafdb.types import Durability, TreeId
from leafdb.vfs.memory import Fault, MemoryFileSystem

OLD, FRESH, THIRD = b"o" * 16, b"f" * 16, b"t" * 16
TREE = TreeId(300)


def opened(
    fs: MemoryFileSystem, store_id: bytes = THIRD, jobs: InlineJobRunner | None = None
) -> tuple[Engine, QueuedExecutor]:
    executor = QueuedExecutor()
    failures: list[StorageError] = []
    engine = Engine.open(
        fs,
        config=EngineConfig(store_id=store_id, memtable_bytes=1 << 12, value_inline_bytes_max=400),
        log_executor=executor,
        read_executor=executor,
        jobs=jobs or InlineJobRunner(fs),
        now_s=lambda: 0.0,
        on_failure=failures.append,
    )
    return engine, executor


def filled(*, tables: bool = True, clean: bool = True) -> tuple[MemoryFileSystem, Identity]:
    """A closed store with a log, tables and a stamp, and that stamp."""
    fs = MemoryFileSystem()
    jobs = InlineJobRunner(fs)
    engine, executor = opened(fs, OLD, jobs)
    engine.create_tree(TREE)
    engine.stamp(cluster_id=b"c" * 16, node_id=4, incarnation=2)
    for number in range(20):
        engine.write(((TREE, b"%d" % number, b"x" * 500),), Durability.ALWAYS, None)
        executor.run_pending()
    if tables:
        engine.snapshot_soon("kept", lambda answer: None)
        while jobs.step() or executor.run_pending():
            pass
        assert engine.snapshots()
    identity = engine.identity
    if clean:
        engine.close()
    else:
        fs.locks.clear()
        fs = fs.copy()
    return fs, identity


def assert_holds(engine: Engine, executor: QueuedExecutor) -> None:
    """A value of `filled` is there, wherever it lies."""
    answers: list[object] = []
    engine.get_soon(TREE, b"7", answers.append)
    executor.run_pending()
    assert answers == [(b"x" * 500, answers[0][1])]  # type: ignore[index]


def assert_blank(fs: MemoryFileSystem) -> None:
    """It opens as a store nobody has ever written to, under the identity it was given."""
    fs.locks.clear()
    engine, executor = opened(fs)
    assert engine.identity == Identity(store_id=FRESH, boot=1)
    assert engine.recovery.created
    assert engine.recovery.replayed_records == 0
    assert TREE not in engine.trees()
    assert not fs.exists(WIPE_PATH)
    assert not fs.list("values")
    engine.create_tree(TREE)
    engine.write(((TREE, b"k", b"v"),), Durability.ALWAYS, None)
    executor.run_pending()
    engine.close()


@pytest.mark.parametrize("tables", [False, True])
@pytest.mark.parametrize("clean", [False, True])
def test_an_emptied_store_is_blank_and_has_another_identity(*, tables: bool, clean: bool) -> None:
    fs, identity = filled(tables=tables, clean=clean)
    assert any(path.endswith(".sst") for path in fs.paths()) or not tables
    wipe(fs, identity, FRESH)
    assert read_identity(fs) == Identity(store_id=FRESH)
    assert sorted(fs.paths()) == ["IDENTITY", "LOCK"]
    assert_blank(fs)


def test_power_may_go_at_any_point_and_whatever_opens_it_next_finishes() -> None:
    fs, identity = filled()
    left: list[MemoryFileSystem] = []
    fs.on_call = lambda kind, path: left.extend(fs.power_cut(Random(f"{kind}{path}{seed}")) for seed in range(4))
    wipe(fs, identity, FRESH)
    fs.on_call = None
    assert len(left) > 40
    begun = 0
    for disk in left:
        if disk.exists(WIPE_PATH) or (found := read_identity(disk)) is None or found.store_id == FRESH:
            begun += 1
            assert_blank(disk)
            continue
        # The mark was not durable yet: it is the store it was, whole.
        engine, executor = opened(disk)
        assert engine.identity.store_id == OLD
        assert_holds(engine, executor)
        engine.close()
    assert 0 < begun < len(left)


def test_power_may_go_again_while_the_next_open_finishes() -> None:
    fs, identity = filled()
    fs.faults.append(Fault("unlink", at=3))
    with pytest.raises(OSError, match="Input/output"):
        wipe(fs, identity, FRESH)
    fs.faults.clear()
    assert fs.exists(WIPE_PATH)
    left: list[MemoryFileSystem] = []
    fs.on_call = lambda kind, path: left.append(fs.power_cut(Random(f"{kind}{path}")))
    opened(fs)[0].close()
    fs.on_call = None
    for disk in left:
        found = read_identity(disk)
        if found is not None and found.store_id == FRESH and found.boot:
            continue  # opened, and no more wiping to do
        assert_blank(disk)


def test_another_store_than_the_one_named_is_not_touched() -> None:
    fs, identity = filled()
    before = {path: fs.used_bytes() for path in fs.paths()}
    with pytest.raises(StorageError, match="another store"):
        wipe(fs, Identity(store_id=THIRD), FRESH)
    assert {path: fs.used_bytes() for path in fs.paths()} == before
    with pytest.raises(StorageError, match="another store"):
        wipe(MemoryFileSystem(), identity, FRESH)


def test_a_store_that_is_open_is_not_emptied() -> None:
    fs, identity = filled()
    engine, executor = opened(fs)
    with pytest.raises(StoreLocked):
        wipe(fs, identity, FRESH)
    assert_holds(engine, executor)
    engine.close()


def test_files_that_are_not_the_stores_stay() -> None:
    fs, identity = filled()
    fs.mkdir("quarantine")
    fs.create("quarantine/0000000007.sst").close()
    for path in ("SECRET", "tables/notes.txt", "wal/README"):
        fs.create(path).close()
    wipe(fs, identity, FRESH)
    assert sorted(fs.paths()) == ["IDENTITY", "LOCK", "SECRET", "tables/notes.txt", "wal/README"]
    assert_blank(fs)
