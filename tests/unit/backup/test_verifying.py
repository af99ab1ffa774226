"""Promises: a sound backup verifies; whatever is damaged, missing, exchanged or added is named by its file; forged
lists do not make damaged tables sound; nothing but typed problems comes of any bytes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from leafdb.backup.listing import LIST_PATH, Listing
from leafdb.backup.verifying import read_listing, verify
from leafdb.errors import CorruptionError, UnknownFormat
from leafdb.vfs.disk import DiskFileSystem
from support.backups import CARTS, NEWEST, NodeStore, opened_below, record, write_backup


def stores() -> dict[int, dict[str, bytes]]:
    """Two nodes, each with a few tables."""
    found = {}
    for node in (1, 2):
        store = NodeStore(node)
        for at in range(200):
            store.has(f"k{at}", record((node, 1, at + 1, b"v%d" % at * 20)))
        store.flush().hints(3, "k1", record((node, 2, 9, b"hint")))
        found[node] = store.at_rest()
    return found


@pytest.fixture(scope="module")
def files() -> dict[int, dict[str, bytes]]:
    return stores()


@pytest.fixture
def backup(tmp_path: Path, files: dict[int, dict[str, bytes]]) -> Listing:
    return write_backup(tmp_path, files, [CARTS, NEWEST])


def problems(root: Path) -> dict[str, str]:
    return {problem.path: problem.what for problem in verify(DiskFileSystem(root), read_listing(DiskFileSystem(root)))}


def first_table(root: Path) -> str:
    return min(str(path.relative_to(root)) for path in (root / "node-1/tables").iterdir())


def test_a_sound_backup_has_no_problem_and_every_byte_was_read(tmp_path: Path, backup: Listing) -> None:
    read: list[int] = []
    assert list(verify(DiskFileSystem(tmp_path), backup, read.append)) == []
    assert sum(read) >= backup.size


@pytest.mark.parametrize("path", ["node-1/CURRENT", "node-1/IDENTITY", "node-2/MANIFEST-0000000001", "table"])
def test_a_damaged_file_is_named(tmp_path: Path, backup: Listing, path: str) -> None:
    path = first_table(tmp_path) if path == "table" else path
    damaged = bytearray((tmp_path / path).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / path).write_bytes(damaged)
    assert list(problems(tmp_path)) == [path]
    assert "SHA-256" in problems(tmp_path)[path]


def test_a_cut_a_missing_and_an_added_file_are_named(tmp_path: Path, backup: Listing) -> None:
    table = first_table(tmp_path)
    whole = (tmp_path / table).read_bytes()
    (tmp_path / table).write_bytes(whole[:-1])
    (tmp_path / "node-2/CURRENT").unlink()
    (tmp_path / "node-2/tables/0000009999.sst").write_bytes(b"x")
    (tmp_path / "notes").write_bytes(b"x")
    (tmp_path / "node-9").mkdir()
    assert problems(tmp_path) == {
        table: f"{len(whole) - 1} bytes long, not {len(whole)}",
        "node-2/CURRENT": "missing",
        "node-2/tables/0000009999.sst": "not in the list",
        "notes": "not in the list",
        "node-9": "not in the list",
    }


def test_a_directory_without_a_list_is_no_backup(tmp_path: Path, backup: Listing) -> None:
    (tmp_path / LIST_PATH).unlink()
    with pytest.raises(CorruptionError, match="not finished") as caught:
        read_listing(DiskFileSystem(tmp_path))
    assert caught.value.path == LIST_PATH


def test_stores_that_were_exchanged_are_named(tmp_path: Path, files: dict[int, dict[str, bytes]]) -> None:
    write_backup(tmp_path, {1: files[2], 2: files[1]}, [CARTS])
    assert set(problems(tmp_path)) == {"node-1/IDENTITY", "node-2/IDENTITY"}


def forge(root: Path, path: str, change: Callable[[bytearray], None]) -> None:
    """Damage a file and make the list agree."""
    listing = read_listing(DiskFileSystem(root))
    data = bytearray((root / path).read_bytes())
    change(data)
    (root / path).write_bytes(data)
    forged = tuple(
        replace(file, size=len(data), sha256=hashlib.sha256(data).hexdigest()) if file.path == path else file
        for file in listing.files
    )
    (root / LIST_PATH).write_bytes(replace(listing, files=forged).encode())


def test_a_forged_list_does_not_make_a_table_sound(tmp_path: Path, backup: Listing) -> None:
    table = first_table(tmp_path)
    forge(tmp_path, table, lambda data: data.__setitem__(30, data[30] ^ 1))
    assert list(problems(tmp_path)) == [table]


def test_a_table_that_the_manifest_does_not_know_is_named(tmp_path: Path, files: dict[int, dict[str, bytes]]) -> None:
    extra = {**files[1], "tables/0000009999.sst": b"x"}
    write_backup(tmp_path, {1: extra}, [CARTS])
    assert problems(tmp_path) == {"node-1/tables/0000009999.sst": "in the list, and not in the manifest"}


def test_whatever_the_bytes_are_only_typed_problems_come_of_them(tmp_path: Path, backup: Listing) -> None:
    rng = Random(7)
    paths = [file.path for file in backup.files]
    for _ in range(120):
        path = rng.choice(paths)
        before = {LIST_PATH: (tmp_path / LIST_PATH).read_bytes(), path: (tmp_path / path).read_bytes()}

        def change(data: bytearray) -> None:
            kind = rng.randrange(3)
            if kind == 0:
                del data[rng.randrange(len(data)) :]
            elif kind == 1:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            else:
                at = rng.randrange(len(data))
                data[at : at + 8] = rng.randbytes(8)

        forge(tmp_path, path, change)
        # The last edit of a manifest may have been torn by a crash: without it the manifest is sound.
        assert problems(tmp_path) or "MANIFEST" in path, f"a change of {path} went unnoticed"
        listing = read_listing(DiskFileSystem(tmp_path))
        with suppress(CorruptionError, UnknownFormat):
            for bucket in listing.buckets:
                list(opened_below(tmp_path, listing).records(bucket))
        for name, data in before.items():
            (tmp_path / name).write_bytes(data)


def test_a_file_where_a_directory_was_is_named(tmp_path: Path, backup: Listing) -> None:
    shutil.rmtree(tmp_path / "node-1" / "tables")
    (tmp_path / "node-1" / "tables").write_bytes(b"no directory")
    shutil.rmtree(tmp_path / "hints-2")
    (tmp_path / "hints-2").write_bytes(b"no directory")
    found = problems(tmp_path)
    assert any(path.startswith("node-1/tables/") for path in found)
    assert {"node-1", "hints-2", "hints-2/CURRENT"} <= set(found)
