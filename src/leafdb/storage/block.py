"""The inside of a table block: a sorted run of entries, laid out by column.

An entry is (key, sequence, value), where the value may be None, a tombstone, or a `Place`: the value itself lies in a
value file then. Where LevelDB writes entry after entry, a block here holds
all key ends, then all value ends, then all sequences, then all keys, then all values: `struct`, `join` and slices then
handle a whole block in a few C calls, and one entry is reached without decoding the others. Keys come in groups of
BLOCK_RESTART_INTERVAL; the first key of a group is whole (the restart point), the others leave out the prefix that all
of the group share. docs/formats/sstable.md draws it.

Invariants: keys ascend strictly; a block is never empty. The checksum around a block is the table's business: here,
malformed bytes raise ValueError.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from struct import Struct, error, pack, unpack_from
from typing import Final

from leafdb.limits import BLOCK_RESTART_INTERVAL
from leafdb.storage.value_files import Place

Stored = bytes | Place | None
"""What a table holds under a key: a value, the place of one, or None for a tombstone."""

Entry = tuple[bytes, int, Stored]
"""Key, sequence, value."""

Columns = tuple[list[bytes], Sequence[int], Sequence[Stored]]
"""Entries as three parallel runs: keys (ascending), sequences, values."""

ENTRY_OVERHEAD_BYTES: Final = 8
"""What an entry costs in a block beside its key and value: two ends of 16 bits and a sequence of 32."""

_HEADER: Final = Struct("<IQBBBB")
_TOMBSTONES: Final = 1
_PLACES: Final = 2
"""Flags of a block: it has such entries. With either there is a column that says of each entry what it is."""
_VALUE, _TOMBSTONE, _PLACE = 0, 1, 2
PLACE: Final = Struct("<QQI")
"""A place as it stands among the values: file number, offset, size."""
_LETTERS: Final = {0: "", 2: "H", 4: "I", 8: "Q"}
_PREFIX_BYTES_MIN: Final = 4
"""A shared prefix shorter than this is not worth the slicing, there and back."""
_PREFIX_BYTES_MAX: Final = 0xFFFF
_GROUP: Final = BLOCK_RESTART_INTERVAL
_GROUP_OFFSETS: Final = {width: Struct(f"<{_GROUP + 1}{_LETTERS[width]}").unpack_from for width in (2, 4)}
_PAIRS: Final = {width: Struct(f"<2{_LETTERS[width]}").unpack_from for width in (2, 4)}


def encode_block(keys: Sequence[bytes], sequences: Sequence[int], values: Sequence[Stored]) -> bytes:
    """The bytes of a block of these entries, which ascend strictly by key."""
    count = len(keys)
    assert count == len(sequences) == len(values) > 0
    prefixes: list[int] = []
    parts: list[bytes] = []
    for start in range(0, count, _GROUP):
        group = keys[start : start + _GROUP]
        first = group[0]
        shared = _prefix_bytes(first, group[-1]) if len(group) > 1 else 0
        prefixes.append(shared)
        if shared:
            parts.append(first)
            parts.extend([key[shared:] for key in group[1:]])
        else:
            parts.extend(group)
    key_bytes = b"".join(parts)
    flags, flag_bytes = 0, b""
    try:
        value_bytes = b"".join(values)  # type: ignore[arg-type]  # another kind in it is what the except is for
        value_ends = accumulate(map(len, values), initial=0)  # type: ignore[arg-type]  # only bytes, as just seen
    except TypeError:
        flag_bytes = bytes([_kind(value) for value in values])
        flags = (_TOMBSTONES if _TOMBSTONE in flag_bytes else 0) | (_PLACES if _PLACE in flag_bytes else 0)
        filled = [_stored_bytes(value) for value in values]
        value_bytes = b"".join(filled)
        value_ends = accumulate(map(len, filled), initial=0)
    base = min(sequences)
    spread = max(sequences) - base
    sequence_width = 0 if not spread else 2 if spread <= 0xFFFF else 4 if spread <= 0xFFFF_FFFF else 8
    key_width = 2 if len(key_bytes) <= 0xFFFF else 4
    value_width = 2 if len(value_bytes) <= 0xFFFF else 4
    return b"".join(
        (
            _HEADER.pack(count, base, key_width, value_width, sequence_width, flags),
            pack(f"<{len(prefixes)}H", *prefixes),
            pack(f"<{count + 1}{_LETTERS[key_width]}", *accumulate(map(len, parts), initial=0)),
            pack(f"<{count + 1}{_LETTERS[value_width]}", *value_ends),
            pack(f"<{count}{_LETTERS[sequence_width]}", *[s - base for s in sequences]) if sequence_width else b"",
            flag_bytes,
            key_bytes,
            value_bytes,
        )
    )


def _kind(value: Stored) -> int:
    return _TOMBSTONE if value is None else _PLACE if isinstance(value, Place) else _VALUE


def _stored_bytes(value: Stored) -> bytes:
    if isinstance(value, Place):
        return PLACE.pack(value.file_number, value.offset, value.size)
    return value or b""


def shared_bytes(first: bytes, last: bytes) -> int:
    """Length of the prefix two keys share; all keys between them share it too."""
    length = min(len(first), len(last))
    difference = int.from_bytes(first[:length], "big") ^ int.from_bytes(last[:length], "big")
    return length - (difference.bit_length() + 7) // 8


def _prefix_bytes(first: bytes, last: bytes) -> int:
    """Length of the prefix a group of keys, from first to last, leaves out; 0 when it is too short to be of use."""
    if first[:_PREFIX_BYTES_MIN] != last[:_PREFIX_BYTES_MIN]:
        return 0
    shared = min(shared_bytes(first, last), _PREFIX_BYTES_MAX)
    return shared if shared >= _PREFIX_BYTES_MIN else 0


class Block:
    """A decoded block as the cache keeps it: the raw bytes and the restart keys. Immutable, so threads share it."""

    __slots__ = (
        "_flags_at",
        "_key_letter",
        "_key_width",
        "_keys_at",
        "_offsets_at",
        "_prefixes",
        "_raw",
        "_restarts",
        "_sequence_base",
        "_sequence_width",
        "_sequences_at",
        "_value_pair",
        "_value_width",
        "_values_at",
        "_values_ends_at",
        "count",
        "memory_bytes",
    )

    def __init__(self, raw: bytes) -> None:
        try:
            count, base, key_width, value_width, sequence_width, flags = _HEADER.unpack_from(raw)
            groups = -(-count // _GROUP)
            self._key_letter = _LETTERS[key_width]
            self._prefixes: tuple[int, ...] = unpack_from(f"<{groups}H", raw, _HEADER.size)
            self._offsets_at = _HEADER.size + 2 * groups
            self._values_ends_at = self._offsets_at + (count + 1) * key_width
            self._sequences_at = self._values_ends_at + (count + 1) * value_width
            flags_at = self._sequences_at + count * sequence_width
            self._keys_at = flags_at + (count if flags else 0)
            offsets = unpack_from(f"<{count + 1}{self._key_letter}", raw, self._offsets_at)
            self._values_at = self._keys_at + offsets[-1]
            self._value_pair = _PAIRS[value_width]
            (values_end,) = unpack_from(f"<{_LETTERS[value_width]}", raw, self._sequences_at - value_width)
        except (error, KeyError, IndexError) as problem:
            raise ValueError(f"malformed block: {problem}") from problem
        if not count or not key_width or not value_width or flags & ~(_TOMBSTONES | _PLACES):
            raise ValueError("malformed block header")
        if flags and max(raw[flags_at : flags_at + count]) > flags:
            raise ValueError("a block with an entry of a kind that its header denies")
        if self._values_at + values_end != len(raw):
            raise ValueError(f"a block of {len(raw)} bytes speaks of {self._values_at + values_end}")
        keys_at = self._keys_at
        self._restarts = [
            raw[keys_at + start : keys_at + stop]
            for start, stop in zip(offsets[:count:_GROUP], offsets[1::_GROUP], strict=True)
        ]
        self._raw = raw
        self._key_width = key_width
        self._value_width = value_width
        self._sequence_base = base
        self._sequence_width = sequence_width
        self._flags_at = flags_at if flags else 0
        self.count = count
        # What holding this block costs, Python's own overhead included: this object, each restart key, each number.
        self.memory_bytes = len(raw) + 41 * groups + sum(map(len, self._restarts)) + 8 * groups + 400

    def find(self, key: bytes) -> tuple[Stored, int] | None:
        """Value and sequence of `key`, or None when the block has no such entry."""
        group = bisect_right(self._restarts, key) - 1
        if group < 0:
            return None
        first = group * _GROUP
        restart = self._restarts[group]
        if restart == key:
            return self._at(first)
        shared = self._prefixes[group]
        if shared and key[:shared] != restart[:shared]:
            return None
        suffix = key[shared:]
        members = min(_GROUP, self.count - first)
        raw, keys_at = self._raw, self._keys_at
        offsets_at = self._offsets_at + first * self._key_width
        if members == _GROUP:
            offsets = _GROUP_OFFSETS[self._key_width](raw, offsets_at)
        else:
            offsets = unpack_from(f"<{members + 1}{self._key_letter}", raw, offsets_at)
        low, high = 1, members
        while low < high:
            middle = (low + high) >> 1
            if raw[keys_at + offsets[middle] : keys_at + offsets[middle + 1]] < suffix:
                low = middle + 1
            else:
                high = middle
        if low < members and raw[keys_at + offsets[low] : keys_at + offsets[low + 1]] == suffix:
            return self._at(first + low)
        return None

    def _at(self, index: int) -> tuple[Stored, int]:
        """Value and sequence of entry `index`."""
        raw = self._raw
        sequence: int = self._sequence_base
        width = self._sequence_width
        if width:
            start = self._sequences_at + index * width
            sequence += int.from_bytes(raw[start : start + width], "little")
        kind = raw[self._flags_at + index] if self._flags_at else _VALUE
        if kind == _TOMBSTONE:
            return None, sequence
        begin, end = self._value_pair(raw, self._values_ends_at + index * self._value_width)
        value = raw[self._values_at + begin : self._values_at + end]
        return (Place(*PLACE.unpack(value)) if kind == _PLACE else value), sequence

    def columns(self) -> Columns:
        """All entries."""
        count, raw = self.count, self._raw
        offsets = unpack_from(f"<{count + 1}{self._key_letter}", raw, self._offsets_at)
        text = raw[self._keys_at : self._values_at]
        keys = [text[start:stop] for start, stop in pairwise(offsets)]
        for group, shared in enumerate(self._prefixes):
            if shared:
                first = group * _GROUP
                prefix = keys[first][:shared]
                keys[first + 1 : first + _GROUP] = [prefix + rest for rest in keys[first + 1 : first + _GROUP]]
        letter = _LETTERS[self._value_width]
        offsets = unpack_from(f"<{count + 1}{letter}", raw, self._values_ends_at)
        text = raw[self._values_at :]
        found = [text[start:stop] for start, stop in pairwise(offsets)]
        values: Sequence[Stored] = found
        if self._flags_at:
            kinds = raw[self._flags_at : self._flags_at + count]
            values = [
                value if kind == _VALUE else None if kind == _TOMBSTONE else Place(*PLACE.unpack(value))
                for kind, value in zip(kinds, found, strict=True)
            ]
        base, width = self._sequence_base, self._sequence_width
        if not width:
            return keys, [base] * count, values
        deltas = unpack_from(f"<{count}{_LETTERS[width]}", raw, self._sequences_at)
        return keys, [base + delta for delta in deltas], values

    def check(self) -> None:
        keys, sequences, values = self.columns()
        assert len(keys) == len(sequences) == len(values) == self.count
        assert all(left < right for left, right in pairwise(keys)), "keys do not ascend"
        assert self._restarts == keys[::_GROUP]
        for key, sequence, value in zip(keys, sequences, values, strict=True):
            assert self.find(key) == (value, sequence)


def concatenate(runs: Sequence[Columns]) -> Columns:
    """Several runs, each above the one before it, as one."""
    if len(runs) == 1:
        return runs[0]
    return (
        list(chain.from_iterable(run[0] for run in runs)),
        list(chain.from_iterable(run[1] for run in runs)),
        list(chain.from_iterable(run[2] for run in runs)),
    )
