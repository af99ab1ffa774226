"""A steady load on a cluster in memory whose ring changes, and what it may rely on (I2, I8, I19)."""

from __future__ import annotations

from itertools import count
from typing import NamedTuple

import trio

from leafdb.errors import LeafdbError, NotApplied, Reason
from leafdb.model.bucket import BucketProperties
from leafdb.testing.cluster import MemoryCluster
from leafdb.testing.raw_client import RawClient, Severed
from leafdb.types import NodeId
from leafdb.wire.requests import GetReply

QUORUM, ALL = 254, 255
VALUES = 6
"""Of each key."""


class Counts(NamedTuple):
    """How clients write and read; w + r > n."""

    w: int
    r: int


COUNTS = (Counts(1, ALL), Counts(QUORUM, QUORUM), Counts(ALL, 1))


class Load:
    """Writers and readers through all nodes that run, and what they may rely on."""

    def __init__(
        self, cluster: MemoryCluster, bucket: BucketProperties, counts: Counts, *, sloppy: bool, pause_s: float = 0.03
    ) -> None:
        self.cluster = cluster
        self.bucket = bucket
        self.counts = counts
        self.sloppy = sloppy
        self.pause_s = pause_s
        self.acknowledged: dict[str, set[bytes]] = {}
        """By key, what was written."""
        self.sure: dict[str, set[bytes]] = {}
        """By key, what every read that begins now must show: what enough primaries have of that, and what was shown."""
        self.written = self.read = 0
        self.failures: list[LeafdbError | Severed] = []
        self.over = self.pauses = False
        self.under_way = 0
        """Lanes that are at work."""
        self._numbers = count()
        self._turn = 0
        self._clients: dict[NodeId, RawClient] = {}

    async def client(self) -> RawClient:
        """A connection to the next node in turn."""
        while True:
            nodes = sorted(node for node, it in self.cluster.nodes.items() if it.view.metadata is not None)
            self._turn += 1
            node = nodes[self._turn % len(nodes)]
            known = self._clients.get(node)
            if known is not None and not known.closed:
                return known
            try:
                made = self._clients[node] = await self.cluster.client(node)
            except Severed:
                await trio.sleep(0.01)
            else:
                return made

    async def write(self, key: str) -> None:
        """A blind write of a value of its own."""
        value = b"%d" % next(self._numbers)
        client = await self.client()
        try:
            reply = await client.put(self.bucket, key, value, w=self.counts.w, sloppy=self.sloppy, timeout_s=1.0)
        except (LeafdbError, Severed) as error:
            self.failures.append(error)
            return
        self.written += 1
        self.acknowledged.setdefault(key, set()).add(value)
        if reply.primaries >= self.needed(self.counts.w):
            self.sure.setdefault(key, set()).add(value)

    async def look(self, key: str) -> None:
        """A read: it must show what was sure when it began, and makes sure what it shows."""
        client = await self.client()
        sure = set(self.sure.get(key, ()))
        try:
            reply = await client.get(self.bucket, key, r=self.counts.r, sloppy=False, timeout_s=1.0)
        except (LeafdbError, Severed) as error:
            self.failures.append(error)
            return
        self.read += 1
        shown = {sibling.value for sibling in reply.siblings}
        assert sure <= shown, (key, sorted(sure - shown), self.counts)
        if 2 * self.needed(self.counts.r) > self.size:
            self.sure.setdefault(key, set()).update(shown)

    @property
    def size(self) -> int:
        """How many copies there may be."""
        ring = self.cluster.ring
        return self.bucket.n if ring.in_plan else ring.effective_n(self.bucket.n)

    def needed(self, wire: int) -> int:
        """A count, of so many."""
        return {QUORUM: self.size // 2 + 1, ALL: self.size}.get(wire, wire)

    async def lane(self, lane: int) -> None:
        """Write to a key a few times, then to the next; read it, and some key of before."""
        for number in count():
            while self.pauses and not self.over:  # noqa: ASYNC110
                await trio.sleep(self.pause_s)
            if self.over:
                return
            key = f"{lane} {number // VALUES}"
            self.under_way += 1
            await self.write(key)
            await self.look(key)
            await self.look(f"{lane} {number // VALUES // 2}")
            self.under_way -= 1
            await trio.sleep(self.pause_s)

    async def pause(self) -> None:
        """Rest until `pauses` is taken back: nothing is under way then."""
        self.pauses = True
        while self.under_way:  # noqa: ASYNC110
            await trio.sleep(self.pause_s)

    async def check(self) -> None:
        """At the end everything is there, whoever is asked and however."""
        for key, sure in self.acknowledged.items():
            for r in (self.counts.r, ALL):
                reply = await self._shown(key, r)
                shown = {sibling.value for sibling in reply.siblings}
                assert sure <= shown, (key, sorted(sure - shown), r)

    async def _shown(self, key: str, r: int) -> GetReply:
        """What a node shows that takes work of clients."""
        while True:
            try:
                return await (await self.client()).get(self.bucket, key, r=r)
            except NotApplied as error:
                if error.reason is not Reason.DRAINING:
                    raise
