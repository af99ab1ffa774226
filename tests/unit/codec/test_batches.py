"""Groups keep order, hold no more than they may, and an item too large for any goes alone."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from leafdb.codec.batches import batches


@given(st.lists(st.binary(max_size=12)), st.integers(1, 5), st.integers(1, 20))
def test_groups_are_bounded_and_as_large_as_they_may_be(items: list[bytes], count_max: int, bytes_max: int) -> None:
    found = list(batches(items, len, count_max=count_max, bytes_max=bytes_max))
    assert [item for batch in found for item in batch] == items
    for batch in found:
        assert 1 <= len(batch) <= count_max
        assert len(batch) == 1 or sum(map(len, batch)) <= bytes_max
    for batch, after in itertools.pairwise(found):
        assert len(batch) == count_max or sum(map(len, batch)) + len(after[0]) > bytes_max
