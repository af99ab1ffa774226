"""A store that cannot be believed refuses to open, says where, and refuses again; what can be believed opens whole."""

from __future__ import annotations

import errno
from dataclasses import replace
from random import Random

import pytest

from leafdb.errors import CorruptionError, DiskFull, StorageError, StoreFailed, UnknownFormat
from leafdb.storage.manifest import manifest_name
from leafdb.storage.wal import WalWriter, segment_path
from leafdb.storage.wal_format import ENTRY, HEADER_BYTES
from leafdb.types import Durability
from leafdb.vfs.base import read_file, replace_file
from leafdb.vfs.memory import Fault, MemoryFileSystem
from support.store import SMALL, TREE, Store

BIG = replace(SMALL, memtable_bytes=1 << 20)


def filled(count: int = 100, *, closed: bool = False) -> Store:
    """A store with several segments that are not flushed: no job ever runs."""
    store = Store()
    store.engine.create_tree(TREE)
    for number in range(count):
        store.put(b"%04d" % number, Random(number).randbytes(300))
        store.commit()
    assert len(store.fs.list("wal")) >= min(3, count // 30)
    if closed:
        store.close()
    return store


def expected(count: int = 100) -> list[tuple[bytes, bytes]]:
    return [(b"%04d" % number, Random(number).randbytes(300)) for number in range(count)]


def killed(store: Store) -> MemoryFileSystem:
    return store.fs.power_cut(Random(0), keep=1.0)


def refuses(fs: MemoryFileSystem, match: str) -> StorageError:
    """Opening fails twice, in the same way, and leaves nothing open or locked."""
    files = fs.open_files
    with pytest.raises(StorageError, match=match) as first:
        Store(fs)
    with pytest.raises(StorageError, match=match) as second:
        Store(fs)
    assert type(first.value) is type(second.value)
    assert fs.open_files == files
    fs.lock("LOCK").release()
    return first.value


def test_several_unflushed_segments_are_replayed_flushed_and_freed() -> None:
    again = Store(killed(filled()))
    assert again.engine.recovery.replayed_records == 100
    assert again.engine.stats().frozen_memtables >= 2
    assert again.items() == expected()
    again.settle()
    assert again.engine.stats().frozen_memtables == 0
    assert again.items() == expected()
    assert len(again.fs.list("wal")) == 1


def test_replay_flushes_on_the_spot_what_would_not_fit_in_memory() -> None:
    store = filled(400)
    config = replace(SMALL, memtable_bytes=15_000, frozen_memtables_max=2, file_number_lease=1)
    again = Store(killed(store), config)
    stats = again.engine.stats()
    assert stats.tables > 2
    assert stats.frozen_bytes <= 2 * 21_000 + 15_000
    again.engine.check()
    assert again.items(limit=100) == expected(400)
    again.settle()
    again.engine.check()
    assert again.items(limit=100) == expected(400)


def test_small_segments_of_many_restarts_become_one_memtable() -> None:
    fs = MemoryFileSystem()
    store = Store(fs)
    store.engine.create_tree(TREE)
    store.commit()
    for number in range(6):
        store.put(b"%d" % number, b"v")
        store.commit()
        fs = fs.power_cut(Random(number), keep=1.0)
        store = Store(fs)
    assert store.engine.stats().frozen_memtables == 1
    assert store.engine.recovery.replayed_records == 6
    assert store.items() == [(b"%d" % number, b"v") for number in range(6)]
    store.settle()
    assert store.engine.stats().tables == 1


def test_a_torn_tail_is_cut_reported_and_gone() -> None:
    store = Store(config=BIG)
    store.engine.create_tree(TREE)
    store.put(b"safe", b"v")
    store.commit()
    store.put(b"torn", b"v", Durability.PERIODIC)
    store.commit()
    fs = killed(store)
    path = segment_path(1)
    size = fs.open_read(path).size()
    fs.open_append(path).truncate(size - 3)
    again = Store(fs)
    assert again.engine.recovery.torn_bytes > 0
    assert again.items() == [(b"safe", b"v")]
    assert again.engine.write([(TREE, b"next", b"v")]) == 2
    again.commit()
    assert Store(killed(again)).items() == [(b"next", b"v"), (b"safe", b"v")]


def made_and_never_synced(*, then_synced: bool) -> MemoryFileSystem:
    """A log whose last segment lost its header: the power went before its first sync, or it is damaged."""
    store = filled()
    store.fs.sync_dir("wal")
    number = int(store.fs.list("wal")[-1].removesuffix(".log")) + 1
    writer = WalWriter(store.fs)
    writer.start_segment(number, 101 + 1)  # the tree was made in the first write
    parts = [ENTRY.pack(0, TREE, 1, 1), b"k", b"v"]
    writer.append(102, 1, parts)
    if then_synced:
        writer.sync()
        writer.append(103, 1, parts)
    fs = killed(store)
    fs.open_append(segment_path(number)).write_at(0, bytes(HEADER_BYTES))
    return fs


def test_a_last_segment_that_was_never_synced_may_lose_its_header_and_nothing_else_is_lost() -> None:
    again = Store(made_and_never_synced(then_synced=False))
    assert again.items() == expected()
    assert again.engine.recovery.torn_bytes > HEADER_BYTES
    again.put(b"more", b"v")
    again.commit()
    assert len(Store(killed(again)).items()) == 101


def test_a_last_segment_that_knows_of_a_sync_may_not_lose_its_header() -> None:
    refuses(made_and_never_synced(then_synced=True), "damaged segment header")


def test_damage_in_a_segment_is_refused_with_file_and_offset() -> None:
    store = filled()
    path = f"wal/{store.fs.list('wal')[1]}"
    fs = killed(store)
    fs.flip(path, 700)
    error = refuses(fs, "and later segments exist")
    assert isinstance(error, CorruptionError)
    assert error.path == path
    assert 0 < error.offset <= 700


def test_a_missing_segment_is_refused() -> None:
    store = filled()
    names = store.fs.list("wal")
    for missing in range(len(names) - 1):
        fs = killed(store)
        fs.unlink(f"wal/{names[missing]}")
        refuses(fs, "a segment is missing" if missing == 0 else "was due")
    fs = killed(store)
    for name in names:
        fs.unlink(f"wal/{name}")
    refuses(fs, "the log is missing")


def test_a_segment_with_the_header_of_another_is_refused() -> None:
    """Also where that other one is still there, and in tables: it would be replayed in the place of the damaged one."""
    store = filled()
    old = killed(store)
    store.settle()
    store.put(b"later", b"value")
    store.commit()
    last = f"wal/{store.fs.list('wal')[-1]}"
    for name in old.list("wal")[:-1]:
        fs = killed(store)
        other = read_file(old, f"wal/{name}")
        replace_file(fs, f"wal/{name}", other)
        replace_file(fs, last, other[:HEADER_BYTES] + read_file(fs, last)[HEADER_BYTES:])
        assert refuses(fs, "is segment").path == last


def test_segments_that_were_flushed_may_reappear_in_any_selection() -> None:
    store = filled(200)
    old = killed(store)
    store.settle()
    fs = killed(store)
    for name in old.list("wal")[:-1:2]:
        if not fs.exists(f"wal/{name}"):
            replace_file(fs, f"wal/{name}", read_file(old, f"wal/{name}"))
    again = Store(fs)
    assert again.items(limit=100) == expected(200)
    again.settle()
    assert len(fs.list("wal")) == 1


def test_after_a_clean_shutdown_any_flipped_byte_of_the_log_is_refused() -> None:
    store = Store()
    store.engine.create_tree(TREE)
    for number in range(4):
        store.put(b"%d" % number, b"v", Durability.PERIODIC)
        store.commit()
    store.close()
    path = segment_path(1)
    for offset in range(len(read_file(store.fs, path))):
        fs = killed(store)
        fs.flip(path, offset)
        assert isinstance(refuses(fs, segment_path(1)), CorruptionError)
    fs = killed(store)
    fs.open_append(path).truncate(100)
    refuses(fs, "had been synced")
    fs = killed(store)
    fs.open_append(path).append(b"more")
    refuses(fs, "a clean shutdown left")
    fs = killed(store)
    fs.create(segment_path(2)).append(b"begun")
    refuses(fs, "damaged segment header")
    assert Store(killed(store)).engine.recovery.clean


def test_a_store_opens_with_missing_and_damaged_tables_and_answers_nothing_for_them() -> None:
    store = filled()
    store.settle()
    name = store.fs.list("tables")[0]
    for gone in (True, False):
        fs = killed(store)
        if gone:
            fs.unlink(f"tables/{name}")
        else:
            fs.flip(f"tables/{name}", fs.open_read(f"tables/{name}").size() - 3)
        again = Store(fs)
        meta = again.engine._tables.version.tables[int(name[:10])]
        for key, value in expected():
            if meta.smallest <= key <= meta.largest:
                with pytest.raises(CorruptionError, match=name):
                    again.get(key)
            else:
                assert again.get(key) == value
        with pytest.raises(CorruptionError, match=name):
            again.items()
        again.settle()
        assert [(lost.smallest, lost.largest) for lost in again.engine.lost] == [(meta.smallest, meta.largest)]
        assert again.items() == [item for item in expected() if not meta.smallest <= item[0] <= meta.largest]
        assert fs.list("quarantine") == ([] if gone else [name])
        again.engine.check()


def test_a_process_that_cannot_get_at_a_table_does_not_call_it_lost() -> None:
    store = filled()
    store.settle()
    fs = killed(store)
    fs.faults.append(Fault("open", error=errno.EMFILE, path_prefix="tables/"))
    with pytest.raises(CorruptionError, match="cannot be opened"):
        Store(fs)
    assert Store(fs).items() == expected()


def test_orphans_are_swept_and_strangers_left_alone() -> None:
    store = filled()
    store.settle()
    fs = killed(store)
    for path in ("tables/0000009999.sst", "tables/notes.txt", "CURRENT.tmp", manifest_name(99), "stranger"):
        fs.create(path).close()
    again = Store(fs)
    assert not fs.exists("tables/0000009999.sst")
    assert not fs.exists("CURRENT.tmp")
    assert not fs.exists(manifest_name(99))
    assert fs.exists("tables/notes.txt")
    assert fs.exists("stranger")
    assert again.items() == expected()


def test_nothing_is_swept_when_the_store_refuses() -> None:
    store = filled()
    store.settle()
    fs = killed(store)
    fs.flip(manifest_name(int(fs.list("")[3][-10:])), 40)
    before = (fs.list("tables"), fs.list("wal"))
    refuses(fs, "MANIFEST")
    assert (fs.list("tables"), fs.list("wal")) == before


def test_a_directory_with_data_and_no_stamp_is_refused_and_so_is_one_without_manifest() -> None:
    store = filled()
    fs = killed(store)
    fs.unlink("IDENTITY")
    refuses(fs, "holds data and no stamp")
    fs = killed(store)
    fs.unlink("CURRENT")
    refuses(fs, "CURRENT is missing")


def test_newer_formats_are_refused_and_left_alone() -> None:
    store = filled(3)
    fs = killed(store)
    data = bytearray(read_file(fs, "IDENTITY"))
    data[9] = 9
    replace_file(fs, "IDENTITY", bytes(data))
    refuses(fs, "IDENTITY")
    assert not isinstance(refuses(fs, "damaged"), UnknownFormat), "a damaged file is damaged, whatever it claims"


def test_file_numbers_are_never_used_twice() -> None:
    store = filled()
    store.settle()
    used = {int(name[:10]) for name in store.fs.list("tables")}
    fs = killed(store)
    for _ in range(3):
        store = Store(fs)
        for number in range(100):
            store.put(b"%04d" % number, b"new" * 100)
        store.settle()
        now = {int(name[:10]) for name in fs.list("tables")}
        assert not (now - used) & set(range(min(used)))
        assert min(now - used) > max(used)
        used |= now
        fs = killed(store)


@pytest.mark.parametrize(("error", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, StoreFailed)])
def test_errors_of_the_world_while_opening_are_typed_and_passing(error: int, kind: type[StorageError]) -> None:
    store = filled(40)
    for name in ("create", "append", "sync", "sync_dir", "rename", "unlink", "open"):
        fs = killed(store)
        fs.faults.append(Fault(name, error=error))
        with pytest.raises(kind, match="cannot be opened"):
            Store(fs)
        assert Store(fs).items() == expected(40)
