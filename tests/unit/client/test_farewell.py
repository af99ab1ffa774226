"""What becomes of requests in flight when a node ends the connection: after "draining" they were never touched and go
to another node, after anything else nobody knows.
"""

from __future__ import annotations

import pytest
import trio

import leafdb
from leafdb import BLIND, Found
from leafdb.errors import LeafdbError, NotApplied, OutcomeUnknown, ProtocolError, Reason
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType
from unit.client.fake_node import Action, FakeCluster, Session

DRAINING = NotApplied("this node is stopping", reason=Reason.DRAINING)


def leave_saying(error: LeafdbError) -> Action:
    def act(session: Session, frame: Frame) -> None:
        session.refuse(0, error)
        session.hang_up()

    return act


def test_a_write_that_a_leaving_node_did_not_answer_is_made_elsewhere() -> None:
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.grow(2)
        cluster.create("b")
        db.bucket("b").get("k")
        cluster.node.script(MessageType.PUT, *[leave_saying(DRAINING)] * 20)
        for number in range(20):
            db.bucket("b").put(f"k{number}", b"v", after=BLIND)
            assert isinstance(db.bucket("b").get(f"k{number}"), Found)
        assert cluster.node.asked(MessageType.PUT), "nobody asked the node that leaves"


def test_so_it_is_in_the_asynchronous_client() -> None:
    async def main() -> None:
        with FakeCluster() as cluster:
            cluster.grow(2)
            cluster.create("b")
            async with leafdb.connect_async(cluster.url) as db:
                await db.bucket("b").get("k")
                cluster.node.script(MessageType.PUT, *[leave_saying(DRAINING)] * 20)
                for number in range(20):
                    await db.bucket("b").put(f"k{number}", b"v", after=BLIND)
                assert cluster.node.asked(MessageType.PUT), "nobody asked the node that leaves"

    trio.run(main)


def test_with_nobody_else_to_ask_it_is_not_applied() -> None:
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        db.bucket("b").get("k")
        cluster.node.script(MessageType.PUT, *[leave_saying(DRAINING)] * 10)
        with pytest.raises(leafdb.ConnectFailed, match="this node is stopping") as caught:
            db.bucket("b").put("k", b"v", after=BLIND, timeout=1.0)
        assert caught.value.outcome == "not_applied"


@pytest.mark.parametrize("error", [ProtocolError("a frame that takes too long"), leafdb.ServerBug("a handler failed")])
def test_after_any_other_farewell_the_outcome_of_a_write_is_unknown(error: LeafdbError) -> None:
    with FakeCluster() as cluster, leafdb.connect(cluster.url) as db:
        cluster.create("b")
        db.bucket("b").get("k")
        cluster.node.script(MessageType.PUT, *[leave_saying(error)] * 4)
        with pytest.raises(OutcomeUnknown, match=str(error)):
            db.bucket("b").put("k", b"v", after=BLIND)
