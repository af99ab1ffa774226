"""A frame may come in the very moment in which a node ends: it begins nothing, and breaks nothing."""

from __future__ import annotations

from leafdb.testing.cluster import memory_cluster
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from leafdb.wire.control import AdminRequest

N1 = NodeId(1)


class Heard:
    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def send(self, frame: bytes) -> bool:
        self.frames.append(frame)
        return True


@virtual
async def test_who_ends_takes_no_request_that_needs_a_task() -> None:
    """A nursery that has closed and is still at hand raised in whoever brought the frame."""
    async with memory_cluster(3) as cluster:
        await cluster.create_bucket()
        node = cluster.nodes[N1]
        await cluster.kill(N1)
        heard = Heard()
        node.admin.on_request(heard, 1, AdminRequest("status", {}).encode())  # type: ignore[arg-type]
        assert len(heard.frames) == 1, "it is told to come again"
        assert node.anti_entropy.exchanges.nursery is None
        assert node.scans._nursery is None
