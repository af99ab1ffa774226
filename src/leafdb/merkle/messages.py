"""What the two sides of an exchange say (wire numbers EXCHANGE from the initiator, EXCHANGE_REPLY from the responder;
bulk lane; one map each). `exchange` is the initiator's number for it.

    compare    bucket, partition, root, keys      initiator: here is my root
    equal                                         responder: mine is the same; both are done
    refuse     reason                             responder: not now, or not me
    branches   hashes, keys                       responder: my branches
    leaves     branches [place, hashes]           initiator: my leaves below the branches that differ
    differing  leaves                             responder: these of them differ
    want       leaves, after                      initiator: list me these; of the first, what follows the key `after`
    keys       lists [leaf, whole, keys, digests] responder: keys and record digests, in order, as much as fits
    finish     keys, sent, received               initiator: repaired; the counts are for your records
    cancel                                        initiator: given up; nothing is proved
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Final, Self

from leafdb.codec.fields import (
    as_bool,
    as_bytes,
    as_int,
    as_list,
    as_map,
    bytes_field,
    int_field,
    list_field,
    map_field,
)
from leafdb.limits import EXCHANGE_KEYS_MAX, KEY_BYTES_MAX, PARTITIONS_MAX, TREE_LEAVES
from leafdb.merkle.tree import BRANCHES, DIGEST_BYTES, LEVEL_BYTES
from leafdb.types import BucketId, PartitionId

STORAGE_KEY_BYTES_MAX: Final = 8 + 2 * KEY_BYTES_MAX + 4
"""Token, and a key of which every byte had to be escaped, with both ends."""
BUCKET_ID_MAX: Final = (1 << 32) - 1


class Refusal(IntEnum):
    """Why a responder does not take part. The numbers cross the wire."""

    BUSY = 1
    NOT_OWNER = 2
    INCOMPLETE = 3
    NO_BUCKET = 4
    OTHER_OWNERS = 5
    """The two sides do not know the same last change of the range's owners."""
    OTHER_HORIZON = 6
    """They do not know the same purge horizon of the range."""


@dataclass(frozen=True, slots=True)
class Message:
    """What all have in common. `kind` is the name on the wire and never changes its meaning."""

    kind: ClassVar[str] = ""

    exchange: int

    def to_wire(self) -> dict[str, Any]:
        """The message as a plain map."""
        return {"kind": self.kind, "exchange": self.exchange, **self._own_fields()}

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """The message of this class that `value` stands for; ValueError when it is malformed."""
        fields = as_map(value, "message")
        if map_field(fields, "kind") != cls.kind:
            raise ValueError(f"kind is not {cls.kind}")
        return cls(exchange=int_field(fields, "exchange"), **cls._read_own_fields(fields))

    def _own_fields(self) -> dict[str, Any]:
        return {}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class Compare(Message):
    """Opens an exchange."""

    kind: ClassVar[str] = "compare"

    bucket: BucketId
    partition: PartitionId
    root: int
    keys: int

    def _own_fields(self) -> dict[str, Any]:
        return {"bucket": self.bucket, "partition": self.partition, "root": self.root, "keys": self.keys}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "bucket": BucketId(int_field(fields, "bucket", high=BUCKET_ID_MAX)),
            "partition": PartitionId(int_field(fields, "partition", high=PARTITIONS_MAX - 1)),
            "root": int_field(fields, "root"),
            "keys": int_field(fields, "keys"),
        }


@dataclass(frozen=True, slots=True)
class Equal(Message):
    """The roots are the same."""

    kind: ClassVar[str] = "equal"


@dataclass(frozen=True, slots=True)
class Refuse(Message):
    """The responder takes no part. A driver may send it without ever building a machine."""

    kind: ClassVar[str] = "refuse"

    reason: Refusal

    def _own_fields(self) -> dict[str, Any]:
        return {"reason": int(self.reason)}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"reason": Refusal(int_field(fields, "reason", low=1, high=len(Refusal)))}


@dataclass(frozen=True, slots=True)
class Branches(Message):
    """All branch hashes of the responder's tree."""

    kind: ClassVar[str] = "branches"

    hashes: bytes
    keys: int

    def _own_fields(self) -> dict[str, Any]:
        return {"hashes": self.hashes, "keys": self.keys}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        hashes = bytes_field(fields, "hashes", low=LEVEL_BYTES, high=LEVEL_BYTES)
        return {"hashes": hashes, "keys": int_field(fields, "keys")}


@dataclass(frozen=True, slots=True)
class Leaves(Message):
    """The leaf hashes below some branches of the initiator's tree: (branch, hashes) each."""

    kind: ClassVar[str] = "leaves"

    branches: tuple[tuple[int, bytes], ...]

    def _own_fields(self) -> dict[str, Any]:
        return {"branches": [[place, hashes] for place, hashes in self.branches]}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        branches = []
        for item in list_field(fields, "branches", items_max=BRANCHES):
            place, hashes = _parts(item, 2, "branch")
            branches.append(
                (
                    as_int(place, "branch's place", high=BRANCHES - 1),
                    as_bytes(hashes, "branch's leaves", low=LEVEL_BYTES, high=LEVEL_BYTES),
                )
            )
        return {"branches": tuple(branches)}


@dataclass(frozen=True, slots=True)
class Differing(Message):
    """The leaves that differ."""

    kind: ClassVar[str] = "differing"

    leaves: tuple[int, ...]

    def _own_fields(self) -> dict[str, Any]:
        return {"leaves": list(self.leaves)}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"leaves": _leaves(fields)}


@dataclass(frozen=True, slots=True)
class Want(Message):
    """Asks for key lists; the answer may cover only the first of them."""

    kind: ClassVar[str] = "want"

    leaves: tuple[int, ...]
    after: bytes

    def _own_fields(self) -> dict[str, Any]:
        return {"leaves": list(self.leaves), "after": self.after}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"leaves": _leaves(fields), "after": bytes_field(fields, "after", high=STORAGE_KEY_BYTES_MAX)}


@dataclass(frozen=True, slots=True)
class KeyList:
    """A leaf's keys, ascending, and the digests of their records. `whole`: nothing follows in this leaf."""

    leaf: int
    whole: bool
    entries: tuple[tuple[bytes, bytes], ...]

    def to_wire(self) -> list[Any]:
        """As a plain list."""
        keys = [key for key, _ in self.entries]
        return [self.leaf, self.whole, keys, b"".join(digest for _, digest in self.entries)]

    @classmethod
    def from_wire(cls, value: object) -> Self:
        """ValueError when it is malformed."""
        leaf, whole, keys, digests = _parts(value, 4, "key list")
        keys = [
            as_bytes(key, "key", low=9, high=STORAGE_KEY_BYTES_MAX)
            for key in as_list(keys, "keys", items_max=EXCHANGE_KEYS_MAX)
        ]
        size = len(keys) * DIGEST_BYTES
        digests = as_bytes(digests, "digests", low=size, high=size)
        starts = range(0, size, DIGEST_BYTES)
        return cls(
            leaf=as_int(leaf, "key list's leaf", high=TREE_LEAVES - 1),
            whole=as_bool(whole, "key list's end"),
            entries=tuple(zip(keys, (digests[start : start + DIGEST_BYTES] for start in starts), strict=True)),
        )


@dataclass(frozen=True, slots=True)
class Keys(Message):
    """Answers Want: lists for its leaves in its order; all but the last are whole."""

    kind: ClassVar[str] = "keys"

    lists: tuple[KeyList, ...]

    def _own_fields(self) -> dict[str, Any]:
        return {"lists": [each.to_wire() for each in self.lists]}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"lists": tuple(KeyList.from_wire(each) for each in list_field(fields, "lists", items_max=TREE_LEAVES))}


@dataclass(frozen=True, slots=True)
class Finish(Message):
    """Ends an exchange."""

    kind: ClassVar[str] = "finish"

    keys: int
    sent: int
    received: int

    def _own_fields(self) -> dict[str, Any]:
        return {"keys": self.keys, "sent": self.sent, "received": self.received}

    @classmethod
    def _read_own_fields(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {name: int_field(fields, name) for name in ("keys", "sent", "received")}


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    """Gives an exchange up."""

    kind: ClassVar[str] = "cancel"


Request = Compare | Leaves | Want | Finish | Cancel
Reply = Equal | Refuse | Branches | Differing | Keys
AnyMessage = Request | Reply

_CLASSES: Final[Mapping[str, type[AnyMessage]]] = {
    each.kind: each for each in (Compare, Equal, Refuse, Branches, Leaves, Differing, Want, Keys, Finish, Cancel)
}


def from_wire(value: object) -> AnyMessage:
    """The message `value` stands for, whichever it is; ValueError when it is malformed."""
    kind = map_field(as_map(value, "message"), "kind")
    found = _CLASSES.get(kind) if isinstance(kind, str) else None
    if found is None:
        raise ValueError("unknown kind of exchange message")
    return found.from_wire(value)


def _parts(value: object, count: int, what: str) -> list[Any]:
    parts = as_list(value, what, items_max=count)
    if len(parts) != count:
        raise ValueError(f"{what} has not {count} parts")
    return list(parts)


def _leaves(fields: Mapping[str, Any]) -> tuple[int, ...]:
    leaves = list_field(fields, "leaves", items_max=TREE_LEAVES)
    return tuple(as_int(leaf, "leaf", high=TREE_LEAVES - 1) for leaf in leaves)
