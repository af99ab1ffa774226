"""What the model costs per call, in microseconds: the best of several runs, each long enough for the clock.

    python bench/micro/model.py

For orientation when something in leafdb/model changes; nothing is asserted, and machines differ. Values have 100 bytes.
"""

from __future__ import annotations

import platform
import timeit
from collections.abc import Callable
from typing import Final

from leafdb.model import record
from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import EMPTY, CausalClock
from leafdb.model.context import ContextSealer
from leafdb.model.epochs import EpochLease
from leafdb.model.key import decode_key, encode_key, partition_part
from leafdb.types import BucketId, Conflict, NodeId

CALLS: Final = 4_000
RUNS: Final = 5
VALUE: Final = bytes(range(100))
OP_ID: Final = bytes(range(16))
STAMP: Final = 1_700_000_000_000 << 16
BUCKET: Final = BucketId(300)

NODES: Final = tuple(ActorIdentity(1, NodeId(number), 1) for number in (1, 2, 3))
EPOCHS: Final = EpochLease(1, 1 << 40)


def put(local: bytes | None, context: CausalClock | None, node: int = 0, value: bytes | None = VALUE) -> bytes:
    return record.put(
        local, context, identity=NODES[node], epochs=EPOCHS, stamp=STAMP, expires_ms=0, op_id=OP_ID, value=value,
        conflict=Conflict.SIBLINGS,
    ).data  # fmt: skip


def merge(local: bytes, incoming: bytes) -> Callable[[], object]:
    return lambda: record.merge(local, incoming, Conflict.SIBLINGS)


def accept(local: bytes | None, incoming: bytes, node: int) -> Callable[[], object]:
    identity = NODES[node]
    return lambda: record.accept(local, incoming, Conflict.SIBLINGS, identity=identity, epochs=EPOCHS)


def cases() -> list[tuple[str, Callable[[], object]]]:
    actor = NODES[0].actor(1)
    one = put(None, None)
    read = record.clock_of(one)
    two = put(one, read)
    chain = two
    for node in (1, 2, 0):
        chain = put(chain, record.clock_of(chain), node)
    longer = put(chain, record.clock_of(chain), 1)
    concurrent = put(one, None, 1)
    ten = put(None, None)
    for node in range(9):
        ten = put(ten, None, node % 3)
    sealer = ContextSealer(bytes(32))
    key = encode_key("user:1234567")
    sealed = sealer.seal(read, BUCKET, key)
    decoded_ten = record.decode(ten)
    return [
        ("encode_key, text of 12 bytes", lambda: encode_key("user:1234567")),
        ("decode_key", lambda: decode_key(key)),
        ("partition_part", lambda: partition_part(key)),
        ("first", lambda: record.first(actor, STAMP, 0, OP_ID, VALUE)),
        ("decode, 1 sibling", lambda: record.decode(one)),
        ("decode, 3 entries, 1 sibling", lambda: record.decode(chain)),
        ("decode, 10 siblings", lambda: record.decode(ten)),
        ("encode, 10 siblings", lambda: record.encode(decoded_ten)),
        ("header, 1 sibling", lambda: record.header(one)),
        ("header, 3 entries, 1 sibling", lambda: record.header(chain)),
        ("clock_of, 3 entries", lambda: record.clock_of(chain)),
        ("merge, equal bytes", merge(one, bytes(bytearray(one)))),
        ("merge, incoming covers local", merge(one, two)),
        ("merge, local covers incoming", merge(two, one)),
        ("merge, incoming covers, 3 entries", merge(chain, longer)),
        ("merge, two siblings come of it", merge(two, concurrent)),
        ("accept, nothing here", accept(None, two, 1)),
        ("accept, incoming covers local", accept(one, two, 1)),
        ("accept, same, 3 entries, ours among them", accept(chain, longer, 0)),
        ("put, nothing here, blind", lambda: put(None, None)),
        ("put, over 1 sibling, with its context", lambda: put(one, read)),
        ("put, over 1 sibling, blind", lambda: put(one, None)),
        ("put, 3 entries, with the context", lambda: put(longer, record.clock_of(longer))),
        ("context of a write: add", lambda: EMPTY.add((actor, 1))),
        ("seal", lambda: sealer.seal(read, BUCKET, key)),
        ("open", lambda: sealer.open(sealed, BUCKET, key)),
        ("live, 1 sibling, decoded before", lambda: record.live(record.decode(one), 0, Conflict.SIBLINGS)),
    ]


def main() -> None:
    print(
        f"{platform.python_implementation()} {platform.python_version()}, best of {RUNS} x {CALLS} calls, us per call"
    )
    for name, call in cases():
        best_s = min(timeit.repeat(call, number=CALLS, repeat=RUNS))
        print(f"{best_s / CALLS * 1e6:8.2f}  {name}")


if __name__ == "__main__":
    main()
