"""Promises of `leafdb storage dump`: what is sound is printed, damage is named, no garbage is met with a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from leafdb.model.key import encode_key
from leafdb.storage.engine import Engine
from leafdb.storage.executor import QueuedExecutor
from leafdb.storage.job_runner import InlineJobRunner
from leafdb.storage.settings import EngineConfig
from leafdb.storage.wal_format import HEADER_BYTES
from leafdb.types import Durability, TreeId
from leafdb.vfs.disk import DiskFileSystem
from support.stand_in import Ended, run_cli

Dump = Callable[..., Ended]
TREE = TreeId(300)
INTERNAL = TreeId(1)


@pytest.fixture
def dump(monkeypatch: pytest.MonkeyPatch) -> Dump:
    def one(*arguments: object) -> Ended:
        return run_cli(monkeypatch, "storage", "dump", *map(str, arguments))

    return one


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a store that was ended while it had tables, a log and a manifest."""
    root = tmp_path_factory.mktemp("store")
    executor, fs = QueuedExecutor(), DiskFileSystem(root)
    jobs = InlineJobRunner(fs)
    engine = Engine.open(
        fs, config=EngineConfig(store_id=b"s" * 16), log_executor=executor, read_executor=executor, jobs=jobs,
        now_s=lambda: 1.0, on_failure=lambda error: None,
    )  # fmt: skip
    for tree in (TREE, INTERNAL):
        engine.create_tree(tree)
    executor.run_pending()
    for part in range(2):
        for number in range(600):
            key = bytes(7) + bytes((number % 256,)) + encode_key((f"user{number:04}", "cart"))
            engine.write([(TREE, key, None if number % 50 == 0 else Random(number).randbytes(90))], Durability.ALWAYS)
            if number % 100 == 0:
                executor.run_pending()  # a frame of the log
        engine.write([(INTERNAL, b"plain", b"value")], Durability.ALWAYS, mark=b"12345678")
        if part == 0:
            large = [(INTERNAL, b"large%d" % number, Random(number).randbytes(5_000)) for number in range(6)]
            engine.write(large, Durability.ALWAYS)
            engine.flush_soon()
        while executor.run_pending() or jobs.step():
            pass
    engine.abandon()
    executor.run_pending()
    return root


def newest(data: Path, pattern: str) -> Path:
    return max(data.glob(pattern), key=lambda path: path.stat().st_size)


def lines(ended: Ended) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ended.out.splitlines()]


def copied(source: Path, target: Path, change: Callable[[bytearray], object]) -> Path:
    content = bytearray(source.read_bytes())
    change(content)
    target.write_bytes(content)
    return target


def flip(offset: int) -> Callable[[bytearray], object]:
    def change(content: bytearray) -> None:
        content[offset] ^= 0x40

    return change


def test_a_segment_is_printed_entry_by_entry(dump: Dump, data: Path) -> None:
    path = newest(data, "wal/*.log")
    found = dump("wal", path, "-o", "jsonl")
    assert found.code == 0
    header, *entries, end = lines(found)
    assert (header["what"], header["format"], header["segment"]) == ("header", 2, int(path.stem))
    assert len(entries) == end["entries"] == 601
    assert end["sound_bytes"] == end["bytes"] == path.stat().st_size
    second = entries[1]
    assert (second["key"], second["sort_key"], second["token"]) == ("user0001", "cart", "0000000000000001")
    assert (second["value_bytes"], entries[0]["value_bytes"]) == (90, None)
    assert "value" not in second
    assert (entries[-1]["stored_key"], entries[-1]["mark"]) == (b"plain".hex(), b"12345678".hex())
    assert [entry["sequence"] for entry in entries] == list(range(header["first_sequence"], end["next_sequence"]))
    text = dump("wal", path, "--limit", "3", "--values")
    assert len(text.out.splitlines()) == 4
    assert "'user0001' / 'cart'  90 B" in text.out
    assert "3 were shown, and there are more" in text.err
    document = dump("wal", path, "-o", "json", "--limit", "1", "--values").document
    assert (document["kind"], len(document["items"])) == ("WalDump", 2)


def test_a_segment_ends_where_it_is_damaged(dump: Dump, data: Path, tmp_path: Path) -> None:
    path = newest(data, "wal/*.log")
    size = path.stat().st_size
    found = dump("wal", copied(path, tmp_path / "x.log", flip(size // 2)), "-o", "jsonl")
    assert found.code == 7
    *_, damage, end = lines(found)
    assert damage["what"] == "damage"
    assert HEADER_BYTES < end["sound_bytes"] == damage["offset"] <= size // 2
    cut = dump("wal", copied(path, tmp_path / "cut.log", lambda content: content.__delitem__(slice(size - 3, None))))
    assert cut.code == 7
    assert "DAMAGED" in cut.out
    assert "is damaged: 1 place is told above" in cut.err


def test_a_table_is_printed_but_for_its_damaged_blocks(dump: Dump, data: Path, tmp_path: Path) -> None:
    path = newest(data, "tables/*.sst")
    header, *entries, end = lines(dump("sstable", path, "-o", "jsonl"))
    assert (header["entries"], header["tombstones"], header["tree"]) == (600, 12, 300)
    assert len(entries) == end["entries"] == 600
    assert header["smallest"]["key"] == entries[0]["key"]
    assert "keys 'user0000' / 'cart' to" in dump("sstable", path, "--limit", "1").out
    found = dump("sstable", copied(path, tmp_path / "moved.sst", flip(20)), "-o", "jsonl")
    assert found.code == 7
    damaged = [line for line in lines(found) if line["what"] == "damage"]
    sound = [line for line in lines(found) if line["what"] == "entry"]
    assert [line["offset"] for line in damaged] == [0]
    assert sound == entries[600 - len(sound) :]
    assert 0 < len(sound) < 600
    assert lines(found)[-1]["sound_bytes"] < path.stat().st_size


def test_a_table_whose_values_lie_elsewhere_is_printed_with_their_places(dump: Dump, data: Path) -> None:
    (value_file,) = data.glob("values/*.val")
    dumps = [dump("sstable", path, "-o", "jsonl") for path in data.glob("tables/*.sst")]
    assert [found.code for found in dumps] == [0] * len(dumps)
    entries = [line for found in dumps for line in lines(found) if line.get("value_file")]
    assert [entry["stored_key"] for entry in entries] == [(b"large%d" % number).hex() for number in range(6)]
    assert {entry["value_file"] for entry in entries} == {int(value_file.stem)}


def test_a_value_file_is_printed_but_for_its_damaged_values(dump: Dump, data: Path, tmp_path: Path) -> None:
    path = newest(data, "values/*.val")
    header, *entries, end = lines(dump("values", path, "-o", "jsonl"))
    assert (header["value_file"], header["tree"], header["entries"]) == (int(path.stem), 1, 6)
    assert [entry["stored_key"] for entry in entries] == [(b"large%d" % number).hex() for number in range(6)]
    assert (end["entries"], end["sound_bytes"]) == (6, path.stat().st_size)
    assert [entry["value_bytes"] for entry in entries] == [5_000] * 6
    (line,) = dump("values", path, "--limit", "1", "--values").out.splitlines()[1:]
    assert "4.9 KiB" in line
    second = entries[1]["offset"]
    found = dump("values", copied(path, tmp_path / "moved.val", flip(second + 100)), "-o", "jsonl")
    assert found.code == 7
    assert [line["offset"] for line in lines(found) if line["what"] == "damage"] == [second]
    assert [line for line in lines(found) if line["what"] == "entry"] == [entries[0], *entries[2:]]
    found = dump("values", copied(path, tmp_path / "length.val", flip(second + 3)), "-o", "jsonl")
    *sound, damage, end = lines(found)
    assert sound == [header, entries[0]]
    assert damage["problem"].endswith("a value beyond the end")
    assert end["sound_bytes"] < path.stat().st_size


def test_a_manifest_is_printed_edit_by_edit(dump: Dump, data: Path, tmp_path: Path) -> None:
    path = newest(data, "MANIFEST-*")
    header, *edits, end = lines(dump("manifest", path, "-o", "jsonl"))
    assert header["manifest"] == int(path.name.removeprefix("MANIFEST-"))
    assert len(edits) == end["edits"]
    (added,) = [edit["added"] for edit in edits if "added" in edit]
    assert {table["tree"] for table in added} == {1, 300}
    assert added[-1]["smallest"]["key"] == "user0000"
    text = dump("manifest", path)
    assert (text.code, "+ table" in text.out) == (0, True)
    found = dump("manifest", copied(path, tmp_path / "m", flip(path.stat().st_size - 1)), "-o", "jsonl")
    assert (found.code, lines(found)[-2]["what"]) == (7, "damage")


@pytest.mark.parametrize(
    ("kind", "pattern", "offset"),
    [
        ("wal", "wal/*.log", 8), ("manifest", "MANIFEST-*", 8), ("sstable", "tables/*.sst", -14),
        ("values", "values/*.val", 8),
    ],
)  # fmt: skip
def test_a_format_of_the_future_is_refused_in_words(
    dump: Dump, data: Path, tmp_path: Path, kind: str, pattern: str, offset: int
) -> None:
    from leafdb.codec.checksum import crc32c
    from leafdb.storage.manifest import HEADER as MANIFEST_HEADER
    from leafdb.storage.sstable_format import FOOTER_BYTES
    from leafdb.storage.value_format import HEADER_BYTES as VALUES_HEADER_BYTES
    from leafdb.storage.wal_format import HEADER as WAL_HEADER

    def age(content: bytearray) -> None:
        little = kind in ("sstable", "values")
        content[offset : offset + 2 or None] = (99).to_bytes(2, "little" if little else "big")
        if kind == "sstable":
            body = bytes(content[-FOOTER_BYTES:-12])
            content[-12:-8] = crc32c(body).to_bytes(4, "little")
        elif kind == "values":
            end = VALUES_HEADER_BYTES - 4
            content[end : end + 4] = crc32c(bytes(content[:end])).to_bytes(4, "little")
        else:
            size = WAL_HEADER.size if kind == "wal" else MANIFEST_HEADER.size
            content[size : size + 4] = crc32c(bytes(content[:size])).to_bytes(4, "big")

    found = dump(kind, copied(newest(data, pattern), tmp_path / "future", age))
    assert found.code == 1
    assert "format 99, this build knows" in found.err
    assert found.out == ""


@pytest.mark.parametrize("kind", ["wal", "sstable", "values", "manifest"])
def test_what_is_no_file_of_a_store_is_told_so(dump: Dump, tmp_path: Path, kind: str) -> None:
    assert "No such file" in dump(kind, tmp_path / "none" / "x").err
    assert not (tmp_path / "none").exists()
    assert dump(kind, tmp_path).code == 1
    os.mkfifo(tmp_path / "pipe")
    assert "no regular file" in dump(kind, tmp_path / "pipe").err
    (tmp_path / "empty").touch()
    assert dump(kind, tmp_path / "empty").code == 7


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [("wal", "wal/*.log"), ("sstable", "tables/*.sst"), ("values", "values/*.val"), ("manifest", "MANIFEST-*")],
)
def test_garbage_and_ruins_are_never_met_with_a_traceback(
    dump: Dump, data: Path, tmp_path: Path, kind: str, pattern: str
) -> None:
    rng = Random(kind)
    source = newest(data, pattern)
    size = source.stat().st_size

    def ruin(content: bytearray) -> None:
        match rng.randrange(4):
            case 0:
                content[:] = rng.randbytes(rng.randrange(600))
            case 1:
                del content[rng.randrange(size) :]
            case 2:
                at = rng.randrange(size)
                content[at : at + 40] = rng.randbytes(40)
            case _:
                del content[: rng.randrange(1, size)]

    for number in range(25):
        path = copied(source, tmp_path / str(number), ruin)
        for form in ("table", "jsonl"):
            found = dump(kind, path, "-o", form, "--limit", "2000")
            assert found.code in (0, 1, 7), found.err  # SystemExit: anything else than an exit would fail the run
            assert "Traceback" not in found.err
