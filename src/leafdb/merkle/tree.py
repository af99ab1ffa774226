"""The hash tree of one (bucket, partition): 1,024 leaves of 64 bits, 32 branches over them, one root.

    key       digest = xxh3_64(storage key ‖ record bytes)        leaf = xxh3_64(storage key, LEAF_SEED) mod 1,024
    leaf      XOR of its keys' digests; 0 when it has none
    branch    xxh3_64 of its 32 leaves (big-endian u64 each); 0 when all are 0
    root      xxh3_64 of the 32 branches likewise; 0 when all are 0

Records are canonical, so equal content gives equal trees whatever the order in which it came. A key's leaf comes from a
hash of the key and not from its place in the order: neighbours (one partition key's rows) then spread over all leaves,
and a leaf is about 1/1,024 of the keys whatever they look like. XOR makes leaves updatable by whoever knows the old and
the new record; the price is that adding a key twice takes it out again, so `update` must be told the truth.

Sparse: a branch exists while one of its leaves is not 0. The hashes and bytes of branches and the root are computed
when asked for, and kept until the next change. Not a defence against an adversary: XXH3 is no cryptographic hash.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from itertools import compress
from typing import Final, Self

from leafdb.codec.checksum import xxh3_64
from leafdb.limits import TREE_LEAVES

FORMAT_VERSION: Final = 1
FAN_OUT: Final = 32
BRANCHES: Final = TREE_LEAVES // FAN_OUT
LEAF_SEED: Final = 0x6C65_6166
"""Not the seed of any bucket's tokens likely to exist. Never changes: both sides of an exchange must agree."""
LEAF_MASK: Final = TREE_LEAVES - 1
DIGEST_BYTES: Final = 8
LEVEL_BYTES: Final = FAN_OUT * DIGEST_BYTES

TREE_BASE_BYTES: Final = 1_100
BRANCH_HELD_BYTES: Final = 700
"""What Python spends on a tree, and on each branch in it: the leaves, an object around them, a hash, its bytes."""

_BITS: Final = tuple(1 << index for index in range(FAN_OUT))
_SOME: Final = tuple(struct.Struct(f">{count}Q") for count in range(FAN_OUT + 1))
_LEVEL: Final = struct.Struct(f">{FAN_OUT}Q")
_BITMAP: Final = struct.Struct(">I")
_HEADER: Final = struct.Struct(">BIQ")
_NO_LEAVES: Final = bytes(LEVEL_BYTES)


def leaf_of(key: bytes) -> int:
    """The leaf that `key` belongs to."""
    return xxh3_64(key, LEAF_SEED) & LEAF_MASK


def record_digest(key: bytes, record: bytes) -> bytes:
    """What stands for one key and its record in an exchange."""
    return xxh3_64(key + record).to_bytes(DIGEST_BYTES, "big")


class Tree:
    """Built by a scan (`add`), kept by `update`. `keys` is the number of keys in it."""

    __slots__ = ("_branches", "_encoded", "_hashes", "_root", "keys")

    def __init__(self) -> None:
        self._branches: list[array[int] | None] = [None] * BRANCHES
        self._hashes: list[int | None] = [0] * BRANCHES
        """Of each branch; None where it has to be computed anew."""
        self._encoded: list[bytes | None] = [b""] * BRANCHES
        """Likewise, what stands for the branch in `encode`."""
        self._root: int | None = 0
        self.keys: int = 0

    def add(self, key: bytes, record: bytes) -> None:
        """`key` holds `record`, and was not in the tree."""
        # The hot loop of a build: `change` by hand.
        leaf = xxh3_64(key, LEAF_SEED) & LEAF_MASK
        place = leaf >> 5
        branch = self._branches[place]
        if branch is None:
            branch = self._branches[place] = array("Q", _NO_LEAVES)
        branch[leaf & 31] ^= xxh3_64(key + record)
        self._hashes[place] = self._encoded[place] = None
        self._root = None
        self.keys += 1

    def update(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        """`key` held `old` and holds `new` now; None stands for nothing."""
        delta = (0 if old is None else xxh3_64(key + old)) ^ (0 if new is None else xxh3_64(key + new))
        self.change(leaf_of(key), delta, (new is not None) - (old is not None))
        assert self.keys >= 0, "more keys left than came"

    def change(self, leaf: int, delta: int, keys: int) -> None:
        """The digests of a key before and after, 0 where it was or is not there, XOR to `delta`; `keys` is 1 when it
        came, -1 when it went, else 0."""
        place = leaf >> 5
        branch = self._branches[place]
        if branch is None:
            branch = self._branches[place] = array("Q", _NO_LEAVES)
        branch[leaf & 31] ^= delta
        self._hashes[place] = self._encoded[place] = None
        self._root = None
        self.keys += keys

    def copy(self) -> Self:
        """The tree as it is now."""
        other = type(self)()
        other._branches = [None if branch is None else branch[:] for branch in self._branches]
        other._hashes = self._hashes[:]
        other._encoded = self._encoded[:]
        other._root = self._root
        other.keys = self.keys
        return other

    def held_bytes(self) -> int:
        """About what it takes in memory."""
        return TREE_BASE_BYTES + BRANCH_HELD_BYTES * (BRANCHES - self._branches.count(None))

    def leaf(self, leaf: int) -> int:
        """The hash of one leaf."""
        branch = self._branches[leaf // FAN_OUT]
        return 0 if branch is None else branch[leaf % FAN_OUT]

    def leaves_of(self, branch: int) -> bytes:
        """The hashes of a branch's leaves."""
        leaves = self._branches[branch]
        return _NO_LEAVES if leaves is None else _LEVEL.pack(*leaves)

    def branches(self) -> bytes:
        """The hashes of all branches."""
        return _LEVEL.pack(*(self._branch_hash(place) for place in range(BRANCHES)))

    def root(self) -> int:
        """The hash of everything."""
        if self._root is None:
            branches = self.branches()
            self._root = 0 if branches == _NO_LEAVES else xxh3_64(branches)
        return self._root

    def _branch_hash(self, place: int) -> int:
        known = self._hashes[place]
        if known is None:
            leaves = self.leaves_of(place)
            if leaves == _NO_LEAVES:
                self._branches[place] = None
                known = 0
            else:
                known = xxh3_64(leaves)
            self._hashes[place] = known
        return known

    def encode(self) -> bytes:
        """The tree as bytes (docs/formats/merkle.md): equal trees, equal bytes."""
        # With every flush of a store, for hundreds of trees of which most branches are as they were.
        encoded = self._encoded
        for place, known in enumerate(encoded):
            if known is None:
                encoded[place] = self._encode_branch(place)
        present = sum(compress(_BITS, encoded))
        return _HEADER.pack(FORMAT_VERSION, present, self.keys) + b"".join(encoded)  # type: ignore[arg-type]  # all known

    def _encode_branch(self, place: int) -> bytes:
        """Which of its leaves are not 0, and those; nothing at all when there are none."""
        branch = self._branches[place]
        if branch is None:
            return b""
        filled = sum(compress(_BITS, branch))
        if not filled:
            self._branches[place], self._hashes[place] = None, 0
            return b""
        leaves = tuple(filter(None, branch))
        return _BITMAP.pack(filled) + _SOME[len(leaves)].pack(*leaves)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The tree `data` stands for; ValueError when it is malformed or of a version unknown here."""
        try:
            version, present, keys = _HEADER.unpack_from(data)
            if version != FORMAT_VERSION:
                raise ValueError(f"tree of unknown version {version}")
            tree = cls()
            tree.keys = keys
            offset = _HEADER.size
            for place in _bits(present):
                (filled,) = _BITMAP.unpack_from(data, offset)
                offset += _BITMAP.size
                some = _SOME[filled.bit_count()]
                leaves = array("Q", _NO_LEAVES)
                for index, leaf in zip(_bits(filled), some.unpack_from(data, offset), strict=True):
                    leaves[index] = leaf
                offset += some.size
                tree._branches[place] = leaves
                tree._hashes[place] = tree._encoded[place] = None
        except struct.error:
            raise ValueError("tree cut short") from None
        tree._root = None
        if offset != len(data) or tree.encode() != data:
            raise ValueError("tree is not in its canonical form")
        return tree

    def check(self) -> None:
        """Assert the invariants: shapes, and that whatever is remembered is what would be computed."""
        assert len(self._branches) == len(self._hashes) == BRANCHES
        assert self.keys >= 0
        for place, branch in enumerate(self._branches):
            assert branch is None or len(branch) == FAN_OUT
            leaves = self.leaves_of(place)
            assert self._hashes[place] in (None, 0 if leaves == _NO_LEAVES else xxh3_64(leaves))
            assert self._encoded[place] in (None, self._encode_branch(place))
        remembered = self._root
        self._root = None
        assert remembered in (None, self.root())


def _bits(bitmap: int) -> Iterable[int]:
    return (index for index in range(FAN_OUT) if bitmap >> index & 1)


assert TREE_LEAVES == FAN_OUT * BRANCHES == FAN_OUT * FAN_OUT, "both levels have the same width"
