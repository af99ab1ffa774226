"""Merging keeps one entry a key, the newest, whatever the order of sources and the cut of chunks."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from leafdb.storage.block import Columns, Entry
from leafdb.storage.merge_iterator import merge, merge_columns


def sources_of(rng: Random, count: int) -> tuple[list[list[Entry]], list[Entry]]:
    """Sorted sources, newest first with sequences that overlap, and what merging them must give."""
    sources: list[list[Entry]] = []
    newest: dict[bytes, tuple[int, bytes | None]] = {}
    sequence = 1_000_000
    for _ in range(count):
        keys = sorted({b"%03d" % rng.randrange(150) for _ in range(rng.randrange(60))})
        source: list[Entry] = []
        for key in keys:
            sequence -= 1
            value = None if rng.random() < 0.2 else b"v%d" % sequence
            source.append((key, sequence, value))
            newest.setdefault(key, (sequence, value))
        sources.append(source)
    return sources, [(key, *newest[key]) for key in sorted(newest)]


def chunks(rng: Random, source: list[Entry]) -> Iterator[Columns]:
    while source:
        cut = rng.randrange(0, 20)
        part, source = source[:cut], source[cut:]
        yield [key for key, _, _ in part], [seq for _, seq, _ in part], [value for _, _, value in part]


@pytest.mark.parametrize("seed", range(40))
def test_merging_entries_keeps_the_newest_in_both_directions(seed: int) -> None:
    rng = Random(seed)
    sources, expected = sources_of(rng, rng.randrange(6))
    assert list(merge([iter(source) for source in sources])) == expected
    assert list(merge([reversed(source) for source in sources], reverse=True)) == expected[::-1]


@pytest.mark.parametrize("seed", range(40))
def test_merging_columns_keeps_the_newest(seed: int) -> None:
    rng = Random(seed)
    sources, expected = sources_of(rng, rng.randrange(6))
    if seed % 2:
        rng.shuffle(sources)  # the sequence decides, not the order of the sources
    runs = [run for run in merge_columns([chunks(rng, source) for source in sources]) if run is not None]
    assert [entry for run in runs for entry in zip(*run, strict=True)] == expected


def test_one_chunk_is_read_at_a_time() -> None:
    chunks_read = 0

    def counted(source: int) -> Iterator[Columns]:
        nonlocal chunks_read
        for first in range(source, 1_000, 100):
            chunks_read += 1
            yield [b"%04d" % first, b"%04d" % (first + 10)], [2 * source + 2, 2 * source + 1], [b"", b""]

    seen = entries = 0
    for run in merge_columns([counted(source) for source in range(10)]):
        assert chunks_read - seen <= (run is None), "more than a chunk between two chances to give way"
        seen = chunks_read
        entries += 0 if run is None else len(run[0])
    assert (chunks_read, entries) == (100, 200)


def test_copies_of_one_entry_become_one() -> None:
    source: list[Entry] = [(b"a", 5, b"x"), (b"b", 6, None)]
    assert list(merge([iter(source), iter(source)])) == source
    assert list(merge([reversed(source), reversed(source)], reverse=True)) == source[::-1]
