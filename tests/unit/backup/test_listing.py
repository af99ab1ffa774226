"""Promises: a list has the bytes of its page; every other way to write it, every damage, every name that leads out of a
store is refused with a typed error; what was written is read again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from leafdb.backup.listing import BackedFile, Listing, decode
from leafdb.errors import CorruptionError, UnknownFormat
from support.backups import CARTS, listing_of
from support.source_tree import ROOT

GOLDEN = """\
{"kind": "leafdb backup", "version": 1, "name": "first", "cluster": "test", "cluster_id": "000102030405060708090a0b0c0d0e0f", "epoch": 3, "partitions": 8, "begun_ms": 1790000000000, "ended_ms": 1790000004000, "missing": []}
{"bucket": {"id": 256, "name": "carts", "generation": 1, "n": 3, "r": 254, "w": 254, "pr": 0, "pw": 0, "dw": 0, "conflict": 1, "durability": 1, "ttl_ms": 0, "sloppy": true}}
{"node": 1, "name": "n1", "taken_ms": 1790000001000}
{"file": "node-1/CURRENT", "size": 20, "sha256": "9a83b7a4fc53a7528c0da7c07bd0b4716769285d19d609d2e218a68e08a19587"}
{"end": "0595b3eba1f2e2ab4df38cefa5232b204a61f17229c4df76cb5f5cf5d3f4772c"}
"""  # noqa: E501


def small() -> Listing:
    return listing_of({1: {"CURRENT": b"MANIFEST-0000000007\n"}}, [CARTS])


def test_bytes_are_those_of_the_format_page() -> None:
    assert small().encode().decode() == GOLDEN
    page = (ROOT / "docs" / "formats" / "backup.md").read_text(encoding="utf-8")
    assert all(f"    {line}\n" in page for line in GOLDEN.splitlines())


def test_what_was_written_is_read_again() -> None:
    made = replace(small(), missing=("n2", "n3"))
    assert decode(made.encode()) == made
    assert made.size == 20


def sealed(lines: list[Any]) -> bytes:
    """Lines with a right end, however wrong they are."""
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return body + json.dumps({"end": hashlib.sha256(body).hexdigest()}).encode() + b"\n"


def plain() -> list[Any]:
    return [json.loads(line) for line in small().encode().splitlines()[:-1]]


def changed(number: int, **fields: Any) -> Callable[[list[Any]], None]:
    return lambda lines: lines[number].update(fields)


@pytest.mark.parametrize(
    "change",
    [
        changed(0, kind="something"),
        changed(0, partitions=7),
        changed(0, cluster_id="zz" * 16),
        changed(0, name=""),
        changed(0, name="a\nb"),
        changed(0, missing="n2"),
        changed(0, unknown=1),
        changed(0, epoch=-1),
        changed(0, epoch=True),
        changed(1, bucket={}),
        changed(2, node=0),
        changed(2, node=65_536),
        changed(3, file="node-1/../../etc/passwd"),
        changed(3, file="/etc/passwd"),
        changed(3, file="node-2/CURRENT"),
        changed(3, file="node-1/LOCK"),
        changed(3, file="node-1/tables/1.sst"),
        changed(3, file="node-1/CURRENT\n"),
        changed(3, size=-1),
        changed(3, size=1.5),
        changed(3, sha256="00"),
        lambda lines: lines.append(lines[3]),
        lambda lines: lines.insert(3, {"node": 1, "name": "again", "taken_ms": 1}),
        lambda lines: lines.insert(1, lines[3]),
        lambda lines: lines.append([]),
        lambda lines: lines.append({"other": 1}),
        lambda lines: lines.clear(),
    ],
)
def test_what_no_list_says_is_refused(change: Callable[[list[Any]], None]) -> None:
    lines = plain()
    assert decode(sealed(lines)) == small()
    change(lines)
    with pytest.raises(CorruptionError):
        decode(sealed(lines))


def test_another_version_is_refused_as_such() -> None:
    lines = plain()
    lines[0]["version"] = 2
    with pytest.raises(UnknownFormat, match="backup format 2"):
        decode(sealed(lines))


def test_a_list_that_would_nest_without_end_is_refused() -> None:
    with pytest.raises(CorruptionError):
        decode(b"[" * 200_000 + b"\n")
    with pytest.raises(CorruptionError):
        decode(b'{"a": ' * 100_000 + b"\n")


def test_every_flipped_bit_and_every_cut_is_refused() -> None:
    data = small().encode()
    rng = Random(1)
    for _ in range(300):
        at = rng.randrange(len(data))
        damaged = bytearray(data)
        damaged[at] ^= 1 << rng.randrange(8)
        with pytest.raises((CorruptionError, UnknownFormat)):
            decode(bytes(damaged))
    for cut in range(len(data)):
        with pytest.raises(CorruptionError):
            decode(data[:cut])


def test_check_knows_a_file_of_no_store() -> None:
    made = replace(small(), files=(BackedFile("node-1/notes.txt", 1, "0" * 64),))
    with pytest.raises(AssertionError):
        made.check()
