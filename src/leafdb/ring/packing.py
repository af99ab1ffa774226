"""Tables with an entry for each partition, as byte strings.

As CBOR lists, those of 65,536 partitions would be more items than the decoder accepts. Owners are u16 big-endian, one
per partition: nearly random, so nothing shorter pays. Range epochs are runs of varint pairs (length, epoch): most
partitions last changed in the same few epochs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from leafdb.codec.varint import decode_varint, encode_varint
from leafdb.types import Epoch, NodeId

EPOCH_MAX: Final = (1 << 32) - 1


def pack_owners(owners: Sequence[NodeId]) -> bytes:
    """Two bytes per partition."""
    return struct.pack(f">{len(owners)}H", *owners)


def unpack_owners(data: bytes, partitions: int) -> tuple[NodeId, ...]:
    """The owners of `partitions` partitions. ValueError when the length is another."""
    if len(data) != 2 * partitions:
        raise ValueError(f"owners are {len(data)} bytes, not {2 * partitions}")
    return tuple(map(NodeId, struct.unpack(f">{partitions}H", data)))


def pack_epochs(epochs: Sequence[Epoch]) -> bytes:
    """Runs of (length, epoch), both varints."""
    return b"".join(encode_varint(len(list(run))) + encode_varint(epoch) for epoch, run in groupby(epochs))


def unpack_epochs(data: bytes, partitions: int) -> tuple[Epoch, ...]:
    """The epochs of `partitions` partitions. ValueError when the runs do not add up to that."""
    epochs: list[Epoch] = []
    offset = 0
    while offset < len(data):
        length, offset = decode_varint(data, offset)
        epoch, offset = decode_varint(data, offset)
        if not 1 <= length <= partitions - len(epochs):
            raise ValueError(f"a run of {length} partitions where {partitions - len(epochs)} are left")
        epochs.extend([Epoch(epoch)] * length)
    if len(epochs) != partitions:
        raise ValueError(f"epochs of {len(epochs)} partitions, not {partitions}")
    return tuple(epochs)
