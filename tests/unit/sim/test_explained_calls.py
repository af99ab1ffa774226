"""Whom an explanation may name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from leafdb.client.context import BLIND
from leafdb.errors import LeafdbError
from leafdb.explanation import Explanation
from leafdb.node.register import META_TREE, METADATA_KEY
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata, found
from leafdb.ring.staging import Join
from leafdb.ring.transitions import abort
from leafdb.sim.explained import ExplainedCalls
from leafdb.sim.recorder import WriteHow
from leafdb.sim.ring_watch import RingWatch
from leafdb.testing.violation import Violation
from leafdb.testing.virtual_time import virtual
from leafdb.types import NodeId
from support.ring_changes import committed, plan_of, staged


def member(number: int) -> ProposedMember:
    return ProposedMember(
        name=f"n{number}", host=f"host-{number}", client_address=f"host-{number}:1", peer_address=f"host-{number}:2"
    )


def versions() -> tuple[ClusterMetadata, ...]:
    """A fourth member joins, and its plan is given up."""
    founded = found("test", bytes(16), [member(number) for number in (1, 2, 3)], partitions=16)
    joining = staged(founded, Join(member(4)))
    under_way = committed(founded, Join(member(4)))
    return founded, joining, under_way, abort(under_way, plan_of(under_way).id)


def failed_through(node: str) -> LeafdbError:
    error = LeafdbError("no answer came")
    error.explanation = Explanation(
        operation="put", answered=False, bucket="data", node=node, forwarded_by=(), forwarded_to="n1", epoch=3,
        range_epoch=1, partition=None, policy=None, other_policy=None, replicas=(), more_replicas=0, merged=None,
        decided_ms=12.7, notes=(),
    )  # fmt: skip
    return error


class Handle:
    """Fails with an explanation."""

    def __init__(self, error: LeafdbError) -> None:
        self._error = error

    async def put_explained(self, *_: object, **__: object) -> object:
        raise self._error


@pytest.mark.parametrize(("node", "stranger"), [("n1", False), ("n4", False), ("n5", True)])
def test_who_was_a_member_when_it_was_asked_may_be_none_when_it_answers(node: str, stranger: bool) -> None:
    """Seed 7012 of tier HUNT: a newcomer had handed a put on when its plan was given up, and told of it."""
    believes = versions()
    process = SimpleNamespace(node=SimpleNamespace(view=SimpleNamespace(metadata=believes[-1])))
    watchers: list[Any] = []
    cluster = cast(Any, SimpleNamespace(processes={NodeId(1): process}, observe_writes=watchers.append))
    watch = RingWatch(cluster)
    for metadata in believes:
        watchers[0](NodeId(1), META_TREE, METADATA_KEY, metadata.encode())
    watch.check()
    calls = ExplainedCalls(cast(Any, SimpleNamespace(cluster=cluster, ring=watch, plan=SimpleNamespace(seed=1))), "me")

    @virtual
    async def judged() -> None:
        await calls.put(cast(Any, Handle(failed_through(node))), "key", b"value", BLIND, WriteHow())

    with pytest.raises(Violation if stranger else LeafdbError) as caught:
        judged()
    assert isinstance(caught.value, Violation) is stranger
