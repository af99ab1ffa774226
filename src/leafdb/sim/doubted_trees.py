"""Hash trees that are built anew while clients write to their ranges.

A node builds a tree that it does not know by a scan beside traffic (`node/tree_rebuild`). By itself that hardly ever
happens: trees are kept, and come back with their node. So here a node is made to doubt a tree that is right, again and
again, while clients write to the rows of one part, of which the tree is. Rows are large, so that a scan takes more than
a page when enough of them are there.

What comes out is judged at the end: every tree equals its rebuild (`tree_truth`), and no node has doubted one by
itself. All of it has chance of its own, so that what else a seed draws stays as it is.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final

import trio

from leafdb.errors import StorageError
from leafdb.merkle.building import Building
from leafdb.node.node import Node
from leafdb.ring.token import split_storage_key
from leafdb.sim.clients import DirectClient
from leafdb.sim.recorder import WriteHow
from leafdb.sim.setting import Setting
from leafdb.sim.stage import NODE, Stage
from leafdb.sim.stalled import running
from leafdb.types import NodeId, PartitionId, TreeId

NAME: Final = "doubted_tree"
"""In stories and counts."""
PROBE: Final = "rebuilt_beside_writes"
GAP_S: Final = 3.0
PARTS: Final = ("pile0", "pile1", "pile2")
WRITERS: Final = 5
ROWS: Final = 8
"""Of each writer in each part."""
WRITES_MAX: Final = 12
"""Of each writer, one after the other."""
REST_S: Final = 0.01
DOUBTS_MAX: Final = 3
APART_S: Final = 0.1
SLOWNESS: Final = (1.0, 10.0, 100.0)
"""So many times slower than usual is the disk of the node that scans."""
SIZE_MAX: Final = 20_000
TIMEOUT_S: Final = 0.5


class DoubtedTrees:
    """See the top of this file. For as long as clients work."""

    def __init__(self, stage: Stage, setting: Setting) -> None:
        self._stage = stage
        self._setting = setting
        self._rng = Random(f"{stage.plan.seed}/doubted trees")
        self._client = DirectClient(setting, "piler")
        self._contexts: dict[str, bytes] = {}
        """Of the last write of each row that was acknowledged."""
        self.in_vain: Counter[Node] = Counter()
        """How many trees each run of a node was made to doubt."""
        self._written_to: dict[tuple[NodeId, int], Building] = {}
        """By machine and range, the last building of a tree that was written beside."""
        setting.cluster.observe_writes(self._written)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await trio.sleep(self._rng.uniform(0.0, 2 * GAP_S))
                await self._pile(self._rng.choice(PARTS))
        finally:
            self._client.close()

    async def _pile(self, part: str) -> None:
        """Many writes to a part, while one of its owners builds its tree."""
        owners = self._owners(part)
        if not owners:
            return
        rng, slowness, over = self._rng, self._stage.cluster.slowness, trio.Event()
        builder, times = rng.choice(owners), rng.choice(SLOWNESS)
        slowness[builder] *= times
        try:
            async with trio.open_nursery() as writers:
                for number in range(WRITERS):
                    writers.start_soon(self._write_on, f"{part}/{number:x}", owners, over)
                for _ in range(rng.randint(1, DOUBTS_MAX)):
                    await trio.sleep(rng.expovariate(1 / APART_S))
                    self._doubt(builder, self._partition(part))
                over.set()
        finally:
            slowness[builder] /= times

    async def _write_on(self, rows: str, through: list[NodeId], over: trio.Event) -> None:
        rng = self._rng
        for _ in range(WRITES_MAX):
            key = f"{rows}{rng.randrange(ROWS):x}"
            how = WriteHow(w=rng.choice((0, 1)), timeout_s=TIMEOUT_S, size=rng.randrange(SIZE_MAX))
            delete = rng.random() < 0.1
            sent = await self._client.put(rng.choice(through), key, self._contexts.get(key), how, delete=delete)
            if sent.context is not None:
                self._contexts[key] = sent.context
            if over.is_set():
                return
            await trio.sleep(rng.expovariate(1 / REST_S))

    def _doubt(self, machine: NodeId, partition: PartitionId) -> None:
        node = running(self._stage).get(machine)
        if node is None or self._stage.cluster.is_paused(machine):
            return
        before, token = node.metrics.hash_trees_doubted_total, NODE.set(f"n{machine}")
        try:
            node.trees.kept.doubt(TreeId(self._setting.bucket.id), partition, "a simulation says so")
        except StorageError:
            pass  # the store has failed, and the node ends
        finally:
            NODE.reset(token)
        if node.metrics.hash_trees_doubted_total > before:
            self.in_vain[node] += 1
            self._stage.trace.fault(NAME, f"n{machine} partition {partition}")

    def _written(self, machine: NodeId, tree: TreeId, key: bytes, value: bytes | None) -> None:
        """A node writes to its store, and tells its trees of it next."""
        trees = self._stage.cluster.processes[machine].node.trees.kept
        if tree not in trees.buckets:
            return
        place = trees.place(tree, int.from_bytes(key[:2], "big"))
        kept = trees.ranges.get(place)
        if kept is None or kept.building is None or self._written_to.get((machine, place)) is kept.building:
            return
        self._written_to[machine, place] = kept.building
        self._stage.trace.probe(PROBE)

    def _partition(self, part: str) -> PartitionId:
        token, _ = split_storage_key(self._setting.stored_key(f"{part}/0"))
        return self._stage.cluster.ring.partition_of(token)

    def _owners(self, part: str) -> list[NodeId]:
        """Of a part, those that run; machines."""
        ring, setting = self._stage.cluster.ring, self._setting
        machines = map(setting.machine, ring.primaries(self._partition(part), setting.bucket.n))
        return [machine for machine in sorted(machines) if machine in running(self._stage)]
