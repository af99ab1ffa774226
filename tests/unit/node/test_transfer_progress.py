"""How far copies are, over restarts, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from leafdb.node.debts import Entry
from leafdb.node.transfer_progress import CURSORS_MAX, TransferProgress
from leafdb.node.transfer_sizes import RATE_OVER_S, TransferSizes
from leafdb.ring.token import partition_range
from leafdb.types import BucketId, NodeId, PartitionId

ONE, TWO = NodeId(1), NodeId(2)
BUCKET, OTHER = BucketId(256), BucketId(257)


def slot(partition: int, bucket: BucketId = BUCKET) -> tuple[BucketId, PartitionId]:
    return bucket, PartitionId(partition)


class Kept:
    """What progress wrote, as a store would keep it."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}

    def write(self, entries: Sequence[Entry]) -> None:
        for key, value in entries:
            if value is None:
                self.entries.pop(key, None)
            else:
                self.entries[key] = value

    def progress(self) -> TransferProgress:
        made = TransferProgress(self.write, self.write)
        for key, value in self.entries.items():
            made.load(key, value)
        made.loaded()
        made.check()
        return made


def made(progress: TransferProgress, peer: NodeId, partition: int) -> None:
    claim = progress.copies.claim(peer, BUCKET, PartitionId(partition))
    progress.made(claim)
    progress.copies.release(claim)


def test_a_restart_goes_on_where_it_was() -> None:
    kept = Kept()
    progress = kept.progress()
    progress.begin(7, {(ONE, BUCKET): 0b111, (TWO, BUCKET): 0b11})
    progress.moved(500)
    progress.advance(slot(0), b"place")
    progress.finish(slot(1))
    made(progress, TWO, 0)
    made(progress, TWO, 1)
    again = kept.progress()
    assert (again.plan_epoch, again.total, again.bytes_done) == (7, 5, 500)
    assert again.copies.all() == {(ONE, BUCKET): 0b111}
    assert (again.cursor(slot(0)), again.cursor(slot(1)), again.pulled(BUCKET)) == (b"place", None, 0b10)


def test_another_plan_begins_with_nothing_and_its_end_leaves_nothing() -> None:
    kept = Kept()
    progress = kept.progress()
    progress.begin(7, {(ONE, BUCKET): 0b111})
    progress.advance(slot(0), b"place")
    progress.finish(slot(1))
    progress.begin(9, {(TWO, BUCKET): 0b1})
    for each in (progress, kept.progress()):
        assert (each.plan_epoch, each.total, each.copies.all()) == (9, 1, {(TWO, BUCKET): 1})
        assert (each.cursor(slot(0)), each.pulled(BUCKET)) == (None, 0)
    progress.end()
    progress.check()
    assert kept.entries == {}


def test_what_is_owed_again_counts_once_and_what_is_new_is_added() -> None:
    kept = Kept()
    progress = kept.progress()
    progress.begin(7, {(ONE, BUCKET): 0b11})
    made(progress, ONE, 0)
    progress.owe({(ONE, BUCKET): 0b10})
    assert (progress.copies.pending, progress.total) == (1, 2)
    progress.owe({(TWO, BUCKET): 0b1})
    assert (progress.copies.pending, progress.total) == (2, 3)
    assert kept.progress().total == 3


def test_cursors_are_bounded_and_the_oldest_goes() -> None:
    kept = Kept()
    progress = kept.progress()
    progress.begin(7, {(ONE, BUCKET): (1 << CURSORS_MAX + 1) - 1})
    for partition in range(CURSORS_MAX):
        progress.advance(slot(partition), b"a")
    progress.advance(slot(0), b"b")
    progress.advance(slot(CURSORS_MAX), b"a")
    progress.check()
    assert (progress.cursor(slot(0)), progress.cursor(slot(1))) == (b"b", None)
    assert kept.progress().cursor(slot(1)) is None


def test_a_bucket_that_is_dropped_is_forgotten() -> None:
    kept = Kept()
    progress = kept.progress()
    progress.begin(7, {(ONE, BUCKET): 1, (ONE, OTHER): 1})
    progress.advance(slot(1), b"a")
    progress.advance(slot(1, OTHER), b"a")
    progress.finish(slot(0))
    assert progress.buckets() == {BUCKET, OTHER}
    progress.forget_bucket(BUCKET)
    assert kept.progress().buckets() == {OTHER}


@pytest.mark.parametrize("key", [b"\x03", b"\x04\0", b"\x05\0", b"\x06\0"])
def test_entries_that_cannot_be_read_are_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        Kept().progress().load(key, b"x")


# -- sizes


SPAN = partition_range(PartitionId(3), 16)


def place(share: float) -> bytes:
    low, high = (int.from_bytes(key[:8], "big") for key in SPAN)
    return int(low + (high - low) * share).to_bytes(8, "big")


def test_a_range_is_estimated_by_the_tokens_that_were_passed_and_others_by_it() -> None:
    sizes = TransferSizes(lambda: 0.0)
    assert sizes.left({BUCKET: 4}) is None, "nobody can say yet"
    assert sizes.left({BUCKET: 0, OTHER: 0}) == 0
    sizes.begin(slot(3), SPAN[0], SPAN)
    assert sizes.left({BUCKET: 4}) is None
    sizes.moved(1_000, place(0.25))
    assert sizes.left({BUCKET: 4}) == 3_000 + 3 * 4_000
    assert sizes.left({BUCKET: 4, OTHER: 1}) is None
    sizes.moved(3_400, SPAN[1])
    sizes.finish()
    assert sizes.left({BUCKET: 3}) == 3 * 4_400
    assert (sizes.is_known(BUCKET), sizes.is_known(OTHER)) == (True, False)


def test_a_range_that_is_gone_on_with_is_measured_by_the_part_that_was_seen() -> None:
    sizes = TransferSizes(lambda: 0.0)
    sizes.begin(slot(3), place(0.5), SPAN)
    sizes.moved(500, place(0.75))
    assert sizes.left({BUCKET: 1}) == 500
    sizes.moved(500, SPAN[1])
    sizes.finish()
    assert sizes.left({BUCKET: 1}) == 2_000


def test_the_last_partition_ends_where_tokens_end() -> None:
    sizes = TransferSizes(lambda: 0.0)
    span = partition_range(PartitionId(15), 16)
    sizes.begin(slot(15), span[0], span)
    sizes.moved(100, b"\xf8" + bytes(7))
    assert sizes.left({BUCKET: 1}) == 100


def test_speed_is_of_the_last_seconds() -> None:
    now = [0.0]
    sizes = TransferSizes(lambda: now[0])
    rng = Random(1)
    for _ in range(600):
        now[0] += 0.1
        sizes.count(rng.randrange(900, 1_100))
    assert 9_000 < sizes.bytes_per_s() < 11_000
    now[0] += 10 * RATE_OVER_S
    assert sizes.bytes_per_s() == 0
