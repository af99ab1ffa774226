"""Keys come out as `sorted` has them, whatever their order was, and never too many at a time."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from leafdb.limits import SORT_SLICE_KEYS
from leafdb.storage.job_execution import run_slices
from leafdb.storage.sliced_sort import sort_slices

MANY = 20 * SORT_SLICE_KEYS + 7


def orders() -> Iterator[tuple[str, list[bytes]]]:
    rng = Random(6)
    yield "none", []
    yield "one", [b"a"]
    yield "random", [rng.randbytes(8) for _ in range(MANY)]
    ascending = [b"%08d" % n for n in range(MANY)]
    yield "ascending", ascending
    yield "descending", ascending[::-1]
    yield "the sample says nothing", [(b"a%08d" if n % 64 == 0 else b"b%08d") % n for n in range(MANY)]


@pytest.mark.parametrize(("name", "keys"), list(orders()))
def test_keys_come_out_in_order_and_some_at_a_time(name: str, keys: list[bytes]) -> None:
    parts = list(run_slices(sort_slices(keys)))
    assert [key for part in parts for key in part] == sorted(keys), name
    assert all(0 < len(part) <= SORT_SLICE_KEYS for part in parts)
    assert sum(1 for _ in sort_slices(keys)) == -(-len(keys) // SORT_SLICE_KEYS), "steps in which they are spread"


def test_random_keys_are_sorted_in_small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, sizes = Random(7), list[int]()

    def noted(keys: list[bytes]) -> list[bytes]:
        sizes.append(len(keys))
        return sorted(keys)

    slices = sort_slices({rng.randbytes(8): None for _ in range(MANY)})
    next(slices)
    monkeypatch.setattr("leafdb.storage.sliced_sort.sorted", noted, raising=False)
    for _ in run_slices(slices):
        pass
    assert sum(sizes) == MANY
    assert max(sizes) <= 4 * SORT_SLICE_KEYS
