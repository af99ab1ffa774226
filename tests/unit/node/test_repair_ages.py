"""Promises: every shared range has one newest proof, coarse and never younger than the truth, also after a restart."""

from __future__ import annotations

from random import Random

import pytest

from leafdb.node.debts import Entry
from leafdb.node.repair_ages import RepairAges, Slot
from leafdb.types import BucketId, NodeId

TWO, THREE = NodeId(2), NodeId(3)
BUCKET = BucketId(256)
HOUR_MS = 3_600_000
BEGIN_MS = 1_700_000_000_000


class Stored:
    """A tree."""

    def __init__(self) -> None:
        self.tree: dict[bytes, bytes] = {}
        self.writes = 0

    def write(self, entries: object) -> None:
        assert isinstance(entries, list)
        for key, value in entries:
            self.writes += 1
            if value is None:
                self.tree.pop(key, None)
            else:
                self.tree[key] = value

    def loaded(self) -> RepairAges:
        ages = RepairAges(self.write)
        for key, value in self.tree.items():
            ages.load(key, value)
        ages.check()
        return ages


def nowhere(entries: object) -> None:
    """Writes are of no interest."""


def test_a_model_of_single_ranges_says_the_same() -> None:
    rng = Random(1)
    stored = Stored()
    ages = RepairAges(stored.write)
    ages.promise(24 * HOUR_MS)
    slots: list[Slot] = [(TWO, BUCKET), (THREE, BUCKET), (TWO, BucketId(257))]
    truth: dict[tuple[Slot, int], int] = {}
    now_ms = BEGIN_MS
    ages.keep(dict.fromkeys(slots, 0xFFFF), now_ms)
    for slot in slots:
        truth.update({(slot, partition): now_ms for partition in range(16)})
    for step in range(2_000):
        now_ms += rng.randrange(HOUR_MS)
        slot, partition = rng.choice(slots), rng.randrange(16)
        began_ms = now_ms - rng.randrange(HOUR_MS)
        ages.proved(slot, 1 << partition, began_ms)
        truth[slot, partition] = max(truth[slot, partition], began_ms)
        ages.check()
        if step % 50 == 0:
            ages.save()
            ages = stored.loaded()
            ages.promise(24 * HOUR_MS)
        cutoff_ms = now_ms - rng.randrange(48 * HOUR_MS)
        said = {(slot, p) for slot, mask in ages.older_than(cutoff_ms).items() for p in range(16) if mask >> p & 1}
        late = {place for place, moment in truth.items() if moment < cutoff_ms}
        early = {place for place, moment in truth.items() if moment < cutoff_ms + ages.grain_ms}
        assert late <= said <= early, "coarse, and never younger than the truth"
    assert sum(mask.bit_count() for mask in ages.older_than(now_ms * 2).values()) == 48


def test_an_older_proof_that_ends_later_changes_nothing() -> None:
    ages = RepairAges(nowhere)
    ages.proved((TWO, BUCKET), 0b1, BEGIN_MS + HOUR_MS)
    ages.proved((TWO, BUCKET), 0b1, BEGIN_MS)
    assert ages.oldest_ms() == BEGIN_MS + HOUR_MS - (BEGIN_MS + HOUR_MS) % ages.grain_ms


def test_ranges_that_come_count_from_now_and_those_that_go_are_forgotten() -> None:
    stored = Stored()
    ages = RepairAges(stored.write)
    ages.keep({(TWO, BUCKET): 0b11}, BEGIN_MS)
    ages.keep({(TWO, BUCKET): 0b110, (THREE, BUCKET): 0b1}, BEGIN_MS + HOUR_MS)
    assert ages.older_than(BEGIN_MS + 1) == {(TWO, BUCKET): 0b10}
    assert ages.older_than(BEGIN_MS + HOUR_MS + 1) == {(TWO, BUCKET): 0b110, (THREE, BUCKET): 0b1}
    ages.keep({(THREE, BUCKET): 0b1}, BEGIN_MS + HOUR_MS)
    ages.save()
    assert stored.loaded().older_than(BEGIN_MS + 2 * HOUR_MS) == {(THREE, BUCKET): 0b1}


def test_what_a_wrong_clock_proved_in_the_future_counts_from_now() -> None:
    ages = RepairAges(nowhere)
    ages.proved((TWO, BUCKET), 0b1, BEGIN_MS + 1_000 * HOUR_MS)
    ages.keep({(TWO, BUCKET): 0b1}, BEGIN_MS)
    assert ages.oldest_ms() == BEGIN_MS


def test_it_can_be_asked_with_whom_a_partition_is_not_proved_since_a_moment() -> None:
    ages = RepairAges(nowhere)
    ages.keep({(TWO, BUCKET): 0b11, (THREE, BUCKET): 0b11}, BEGIN_MS)
    since_ms = BEGIN_MS + HOUR_MS
    assert ages.unproved(1, since_ms) == [(TWO, BUCKET), (THREE, BUCKET)]
    ages.proved((TWO, BUCKET), 0b10, since_ms + ages.grain_ms)
    ages.proved((THREE, BUCKET), 0b10, since_ms - 1)
    assert ages.unproved(1, since_ms) == [(THREE, BUCKET)]
    assert ages.unproved(2, since_ms) == [], "nobody shares it"


def test_little_is_written() -> None:
    stored = Stored()
    ages = RepairAges(stored.write)
    ages.promise(24 * HOUR_MS)
    everything = (1 << 256) - 1
    ages.keep({(TWO, BUCKET): everything}, BEGIN_MS)
    for partition in range(256):
        ages.proved((TWO, BUCKET), 1 << partition, BEGIN_MS + partition * 20 * HOUR_MS // 256)
    assert stored.writes == 0
    ages.save()
    ages.save()
    assert stored.writes == 1
    (value,) = stored.tree.values()
    assert len(value) < 64 * 42


@pytest.mark.parametrize(
    "value", [b"\0", bytes(10), bytes(8) + b"\0\1\1" + bytes(8) + b"\0\1\1", bytes(8) + b"\0\2\1", bytes(8) + b"\0\1\0"]
)
def test_malformed_ages_are_refused(value: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        RepairAges(nowhere).load(b"\x10" + bytes(6), value)


def test_an_entry_is_what_docs_formats_repair_says() -> None:
    written: list[Entry] = []
    ages = RepairAges(written.extend)
    ages.proved((TWO, BUCKET), 1 << 3 | 1 << 9, BEGIN_MS)
    ages.save()
    assert written == [(bytes.fromhex("10 0002 00000100"), bytes.fromhex("0000018bcfe56800 0002 0802"))]
