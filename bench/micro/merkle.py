"""What anti-entropy costs: microseconds per key when a tree is built, and the bytes of an exchange by what differs.

    python bench/micro/merkle.py [KEYS]

100,000 keys of about 30 bytes in one range, records of 200 bytes. An exchange's bytes are those of its encoded messages
with their frame headers, both ways, without the records moved. Nothing is asserted; machines differ.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable
from random import Random
from time import perf_counter
from typing import Final

from leafdb.codec import cbor
from leafdb.merkle.effects import Effect, ExchangeConfig, Fetch, NeedLeaves, Offer, Send
from leafdb.merkle.exchange import Initiator
from leafdb.merkle.responder import Responder
from leafdb.merkle.tree import Tree, leaf_of, record_digest
from leafdb.types import BucketId, NodeId, PartitionId

KEYS_DEFAULT: Final = 100_000
RECORD_BYTES: Final = 200
FRAME_HEADER_BYTES: Final = 20
RUNS: Final = 3
ME, PEER = NodeId(1), NodeId(2)
Store = dict[bytes, bytes]
Lists = dict[int, list[tuple[bytes, bytes]]]


def a_store(count: int) -> Store:
    rng = Random(1)
    keys = sorted(rng.randbytes(8) + b"customer-%08d\x00\x01" % number for number in range(count))
    return {key: rng.randbytes(RECORD_BYTES) for key in keys}


def a_tree(store: Store) -> Tree:
    tree = Tree()
    add = tree.add
    for key, record in store.items():
        add(key, record)
    return tree


def lists_of(store: Store) -> Lists:
    lists: Lists = {}
    for key, record in store.items():
        lists.setdefault(leaf_of(key), []).append((key, record_digest(key, record)))
    return lists


class Meter:
    """Runs one exchange and weighs its messages."""

    def __init__(self, mine: Store, theirs: Store) -> None:
        config = ExchangeConfig()
        self.lists = {ME: lists_of(mine), PEER: lists_of(theirs)}
        self.initiator = Initiator(
            config, peer=PEER, exchange=1, bucket=BucketId(300), partition=PartitionId(3), tree=a_tree(mine)
        )
        self.responder = Responder(config, peer=ME, exchange=1, tree=a_tree(theirs), now=0.0)
        self.messages = 0
        self.bytes = 0
        self.seconds = 0.0

    def run(self) -> None:
        started = perf_counter()
        self.perform(ME, self.initiator.start(0.0))
        self.seconds = perf_counter() - started

    def perform(self, side: NodeId, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    self.messages += 1
                    self.bytes += FRAME_HEADER_BYTES + len(cbor.dumps(message.to_wire()))
                    receiver = self.responder if to == PEER else self.initiator
                    self.perform(to, receiver.on_message(side, message, 0.0))
                case NeedLeaves(leaves=leaves):
                    machine = self.initiator if side == ME else self.responder
                    for leaf in leaves:
                        self.perform(side, machine.on_leaf(leaf, self.lists[side].get(leaf, []), 0.0))
                case Fetch(keys=keys):
                    self.perform(ME, self.initiator.on_fetched(len(keys), 0, 0.0))
                case Offer(keys=keys):
                    self.perform(ME, self.initiator.on_offered(len(keys), 0, 0.0))
                case _:
                    pass


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else KEYS_DEFAULT
    print(f"Python {platform.python_version()}, {count:,} keys, records of {RECORD_BYTES} bytes")
    store = a_store(count)
    best = float("inf")
    for _ in range(RUNS):
        started = perf_counter()
        tree = a_tree(store)
        best = min(best, perf_counter() - started)
    print(f"build                {best / count * 1e6:8.2f} us per key")
    started = perf_counter()
    lists_of(store)
    print(f"key lists            {(perf_counter() - started) / count * 1e6:8.2f} us per key")
    print(f"encoded tree         {len(tree.encode()):8,} bytes")
    keys = list(store)
    for differing in (0, 1, 10, 100, 1_000):
        theirs = dict(store)
        for key in Random(differing).sample(keys, min(count, differing)):
            theirs[key] = b"another record"
        meter = Meter(store, theirs)
        meter.run()
        assert meter.initiator.counts.keys == min(count, differing)
        print(
            f"{differing:6,} keys differ  {meter.bytes:9,} bytes in {meter.messages:3} messages, "
            f"{meter.initiator.counts.leaves:4} leaves, {meter.seconds * 1e3:7.1f} ms"
        )


if __name__ == "__main__":
    main()
