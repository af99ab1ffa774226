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
from enum import Enum
from itertools import accumulate, chain, pairwise
from struct import Struct, error, pack, unpack_from
from typing import Final

from leafdb.limits import BLOCK_RESTART_INTERVAL
from leafdb.storage.value_files import Place

Stored = bytes | Place | None
"""What a table holds under a key: a value, the place of one, or None for a tombstone."""


class Absent(Enum):
    """The answer to a key that has no entry: None says that it has one, a tombstone."""

    ABSENT = 1


ABSENT: Final = Absent.ABSENT

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
_GROUP_ENDS: Final = {
    width: tuple(Struct(f"<{members + 1}{_LETTERS[width]}").unpack_from for members in range(_GROUP + 1))
    for width in (2, 4)
}
"""What reads where the keys of a group begin, and where the last one ends: by width and members of the group."""
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


def _read(kind: int, value: bytes) -> Stored:
    """The reverse: what an entry of that kind holds."""
    return value if kind == _VALUE else None if kind == _TOMBSTONE else Place(*PLACE.unpack(value))


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
    """A decoded block as the cache keeps it: the raw bytes and the restart keys.

    Immutable, so threads share it, but for `used`: the cache's mark on what was read since it last looked.
    """

    __slots__ = (
        "_ends",
        "_ends_at",
        "_flags_at",
        "_group_bytes",
        "_keys_at",
        "_last_ends",
        "_last_group",
        "_prefixes",
        "_raw",
        "_restarts",
        "_value_ends_at",
        "_value_pair",
        "_value_width",
        "_values_at",
        "count",
        "memory_bytes",
        "used",
    )

    def __init__(self, raw: bytes) -> None:
        try:
            count, _, key_width, value_width, sequence_width, flags = _HEADER.unpack_from(raw)
            groups = -(-count // _GROUP)
            prefixes: tuple[int, ...] = unpack_from(f"<{groups}H", raw, _HEADER.size)
            ends_at = _HEADER.size + 2 * groups
            self._value_ends_at = ends_at + (count + 1) * key_width
            sequences_at = self._value_ends_at + (count + 1) * value_width
            flags_at = sequences_at + count * sequence_width
            keys_at = flags_at + (count if flags else 0)
            ends = unpack_from(f"<{count + 1}{_LETTERS[key_width]}", raw, ends_at)
            self._values_at = keys_at + ends[-1]
            self._value_pair = _PAIRS[value_width]
            (values_end,) = unpack_from(f"<{_LETTERS[value_width]}", raw, sequences_at - value_width)
            self._ends = _GROUP_ENDS[key_width][_GROUP]
            self._last_ends = _GROUP_ENDS[key_width][count - (groups - 1) * _GROUP]
        except (error, KeyError, IndexError) as problem:
            raise ValueError(f"malformed block: {problem}") from problem
        known = sequence_width in _LETTERS and not flags & ~(_TOMBSTONES | _PLACES)
        if not count or not key_width or not value_width or not known:
            raise ValueError("malformed block header")
        if flags and max(raw[flags_at : flags_at + count]) > flags:
            raise ValueError("a block with an entry of a kind that its header denies")
        if self._values_at + values_end != len(raw):
            raise ValueError(f"a block of {len(raw)} bytes speaks of {self._values_at + values_end}")
        self._restarts = [
            raw[keys_at + start : keys_at + stop]
            for start, stop in zip(ends[:count:_GROUP], ends[1::_GROUP], strict=True)
        ]
        self._raw = raw
        self._prefixes = prefixes
        self._ends_at = ends_at
        self._keys_at = keys_at
        self._group_bytes: int = _GROUP * key_width
        self._value_width: int = value_width
        self._flags_at = flags_at if flags else 0
        self._last_group = groups - 1
        self.count: int = count
        # What holding this block costs, Python's own overhead included: this object, each restart key, each number.
        self.memory_bytes: int = len(raw) + 41 * groups + sum(map(len, self._restarts)) + 8 * groups + 400
        self.used: bool = False

    def find(self, key: bytes) -> Stored | Absent:
        """What the block holds under `key`: value, place or, for a tombstone, None."""
        restarts = self._restarts
        group = bisect_right(restarts, key) - 1
        if group < 0:
            return ABSENT
        restart = restarts[group]
        if key == restart:
            return self._stored(group * _GROUP)
        suffix = key
        shared = self._prefixes[group]
        if shared:
            if key[:shared] != restart[:shared]:
                return ABSENT
            suffix = key[shared:]
        raw, keys_at = self._raw, self._keys_at
        unpack_ends = self._ends if group < self._last_group else self._last_ends
        ends = unpack_ends(raw, self._ends_at + group * self._group_bytes)
        # One call searches the keys of the group; what it finds need not be one of them from its start to its end.
        stop = keys_at + ends[-1]
        at = raw.find(suffix, keys_at + ends[1], stop)
        while at >= 0:
            start = at - keys_at
            member = bisect_right(ends, start) - 1
            if ends[member] == start and ends[member + 1] - start == len(suffix):
                return self._stored(group * _GROUP + member)
            at = raw.find(suffix, at + 1, stop)
        return ABSENT

    def _stored(self, index: int) -> Stored:
        """What entry `index` holds."""
        raw, values_at = self._raw, self._values_at
        begin, end = self._value_pair(raw, self._value_ends_at + index * self._value_width)
        value = raw[values_at + begin : values_at + end]
        return _read(raw[self._flags_at + index], value) if self._flags_at else value

    def columns(self) -> Columns:
        """All entries."""
        raw = self._raw
        count, base, key_width, value_width, width, _ = _HEADER.unpack_from(raw)
        offsets = unpack_from(f"<{count + 1}{_LETTERS[key_width]}", raw, self._ends_at)
        text = raw[self._keys_at : self._values_at]
        keys = [text[start:stop] for start, stop in pairwise(offsets)]
        for group, shared in enumerate(self._prefixes):
            if shared:
                first = group * _GROUP
                prefix = keys[first][:shared]
                keys[first + 1 : first + _GROUP] = [prefix + rest for rest in keys[first + 1 : first + _GROUP]]
        offsets = unpack_from(f"<{count + 1}{_LETTERS[value_width]}", raw, self._value_ends_at)
        text = raw[self._values_at :]
        found = [text[start:stop] for start, stop in pairwise(offsets)]
        values: Sequence[Stored] = found
        if self._flags_at:
            values = list(map(_read, raw[self._flags_at : self._flags_at + count], found))
        if not width:
            return keys, [base] * count, values
        deltas = unpack_from(f"<{count}{_LETTERS[width]}", raw, self._value_ends_at + (count + 1) * value_width)
        return keys, [base + delta for delta in deltas], values

    def check(self) -> None:
        keys, sequences, values = self.columns()
        assert len(keys) == len(sequences) == len(values) == self.count
        assert all(left < right for left, right in pairwise(keys)), "keys do not ascend"
        assert self._restarts == keys[::_GROUP]
        for key, value in zip(keys, values, strict=True):
            assert self.find(key) == value


def concatenate(runs: Sequence[Columns]) -> Columns:
    """Several runs, each above the one before it, as one."""
    if len(runs) == 1:
        return runs[0]
    return (
        list(chain.from_iterable(run[0] for run in runs)),
        list(chain.from_iterable(run[1] for run in runs)),
        list(chain.from_iterable(run[2] for run in runs)),
    )
