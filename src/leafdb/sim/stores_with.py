"""Which stores show a write, seen from outside of the cluster: for what is judged of its operation id."""

from __future__ import annotations

from typing import Final

import trio

from leafdb.errors import StorageError
from leafdb.model.clock import Dot
from leafdb.model.record import RecordError, dots_of
from leafdb.sim.setting import Setting, key_of
from leafdb.testing.cluster_process import Process
from leafdb.testing.history_values import Write
from leafdb.types import NodeId

ANSWERED_S: Final = 30.0


async def stores_with(setting: Setting, write: Write) -> dict[tuple[NodeId, Process], list[Dot]]:
    """The machines of primaries that serve and whose own records show the write, each with the run it is in, and the
    dots it goes by there. Only while the ring is at rest."""
    cluster = setting.cluster
    found: dict[tuple[NodeId, Process], list[Dot]] = {}
    if setting.plan.rings is not None or not cluster.nodes:
        return found
    for node in cluster.primaries(setting.bucket, key_of(write.key)):
        process = cluster.processes.get(node)
        if process is None or node not in cluster.nodes or cluster.is_paused(node):
            continue
        dots: list[Dot] = []
        try:
            with trio.move_on_after(ANSWERED_S):  # the disk of one that is killed meanwhile never answers
                data = await cluster.record(node, setting.bucket, key_of(write.key))
                dots = [] if data is None else dots_of(data, write.op_id)
        except (StorageError, RecordError):
            continue
        if dots and cluster.processes.get(node) is process:
            found[node, process] = dots
    return found
