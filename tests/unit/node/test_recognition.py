"""Promises: who answers for whom is told apart; only what a member of the cluster says in this generation counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from leafdb.errors import ConnectFailed
from leafdb.node.recognition import (
    LOOKS_MAX,
    Encounter,
    Recognition,
    State,
    answer_to,
    introduced,
    introduction,
)
from leafdb.node.view import ClusterView
from leafdb.ring import transitions
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.proposal import propose
from leafdb.ring.staging import Join
from leafdb.transport.peers import Peers
from leafdb.types import Epoch, NodeId
from leafdb.wire.body import encode_map
from leafdb.wire.control import AdminRequest
from leafdb.wire.frame import Frame
from leafdb.wire.hello import PeerFacts, Refusal
from leafdb.wire.registry import Lane, MessageType
from support.clusters import CLUSTER_ID, cluster, proposed

N1, N2, N3 = map(NodeId, (1, 2, 3))


def facts(node: int, *, cluster_id: bytes = CLUSTER_ID, nonce: bytes = b"") -> PeerFacts:
    return PeerFacts(
        cluster_id,
        NodeId(node),
        0,
        3,
        nonce or bytes([node]) * 16,
        Epoch(1),
        Lane.CONTROL,
        store=b"s" * 16,
        past=b"p" * 16,
    )


class Net:
    """Peers of which there are sessions with some; those at the addresses of the others answer what a test says."""

    def __init__(self) -> None:
        self.there: tuple[NodeId, ...] = ()
        self.answers: dict[str, Encounter | None] = {}
        self.asked: list[str] = []

    def connected(self, _: Lane) -> tuple[NodeId, ...]:
        return self.there

    async def call_stranger(self, address: tuple[str, int], number: int, body: bytes, timeout_s: float) -> Frame:
        await trio.lowlevel.checkpoint()
        where = f"{address[0]}:{address[1]}"
        self.asked.append(where)
        assert number == MessageType.PEER_ADMIN
        assert introduced(AdminRequest.decode(body).args) == facts(1)
        answer = self.answers.get(where)
        if answer is None:
            raise ConnectFailed("the peer does not answer")
        return Frame(MessageType.PEER_ADMIN_REPLY, 0, encode_map(answer.to_wire()))


class Watch:
    """A recognition, and what it found."""

    def __init__(self, metadata: ClusterMetadata, known: frozenset[int] = frozenset((1, 2, 3))) -> None:
        self.net = Net()
        self.proofs: list[tuple[Refusal, str]] = []
        view = ClusterView()
        view.install(N1, metadata)
        self.metadata = metadata
        self.recognition = Recognition(
            view=view, peers=cast(Peers, self.net), own=lambda: facts(1), known=lambda: known,
            outcast=lambda why, who: self.proofs.append((why, who)),
        )  # fmt: skip

    def answer(self, node: int, met: Encounter | None) -> None:
        self.net.answers[self.metadata.members[NodeId(node)].peer_address] = met

    def look(self, seconds: float = 2.0) -> None:
        async def main() -> None:
            with trio.move_on_after(seconds):
                await self.recognition.run()

        trio.run(main, clock=MockClock(autojump_threshold=0))


def met(
    node: int, *, refusal: str = "", cluster_id: bytes = CLUSTER_ID, name: str = "", generation: int = 1
) -> Encounter:
    return Encounter(cluster_id, NodeId(node), name or f"node-{node - 1}", b"s" * 16, generation, refusal)


def blank(name: str) -> Encounter:
    return Encounter(b"", NodeId(0), name, b"t" * 16, 0, Refusal.NOT_READY)


@pytest.mark.parametrize("refusal", [Refusal.BANNED, Refusal.ROLLED_BACK, Refusal.CLONE, Refusal.OTHER_STORE])
def test_what_one_member_says_is_proof(refusal: Refusal) -> None:
    watch = Watch(cluster(3))
    watch.answer(3, met(3, refusal=refusal))
    watch.look()
    assert watch.proofs == [(refusal, "node-2")]


@pytest.mark.parametrize("refusal", ["", Refusal.UNKNOWN_NODE, Refusal.CONTESTED, Refusal.NOT_READY, "something new"])
def test_what_passes_by_itself_is_not(refusal: str) -> None:
    watch = Watch(cluster(3))
    watch.answer(3, met(3, refusal=refusal))
    watch.look()
    assert not watch.proofs


def test_strangers_and_what_was_before_a_recovery_are_not_believed() -> None:
    watch = Watch(replace(cluster(3), generation=2))
    watch.answer(2, met(2, refusal=Refusal.BANNED, generation=1))
    watch.answer(3, met(3, refusal=Refusal.BANNED, cluster_id=b"z" * 16, generation=2))
    watch.look()
    assert not watch.proofs
    watch.answer(3, Encounter(b"", NodeId(0), "node-2", b"", 2, Refusal.BANNED))
    watch.look(20.0)
    assert not watch.proofs


def test_members_there_are_sessions_with_are_not_asked_unless_they_refused_us() -> None:
    watch = Watch(cluster(3))
    watch.net.there = (N2, N3)
    watch.look(20.0)
    assert not watch.net.asked
    watch.recognition.doubt(N3)
    watch.look(0.1)
    assert watch.net.asked == [watch.metadata.members[N3].peer_address]


def test_however_often_somebody_refuses_us_it_is_not_asked_all_the_time() -> None:
    watch = Watch(cluster(2))

    async def main() -> None:
        async def refuse() -> None:
            while True:
                watch.recognition.doubt(N2)
                await trio.sleep(0.01)

        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(refuse)
                nursery.start_soon(watch.recognition.run)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert 10 <= len(watch.net.asked) <= 21


def test_many_absent_members_are_asked_in_turn() -> None:
    watch = Watch(cluster(30))
    watch.look(1.2)
    assert len(watch.net.asked) == LOOKS_MAX
    watch.look(30.0)
    assert set(watch.net.asked) == {
        member.peer_address for number, member in watch.metadata.members.items() if number != N1
    }


def finding(watch: Watch, node: int) -> tuple[State, str] | None:
    watch.look()
    return watch.recognition.findings.get(NodeId(node))


def test_a_blank_store_under_the_name_of_a_member_that_was_met_is_a_wiped_disk() -> None:
    watch = Watch(cluster(3))
    watch.answer(2, blank("node-1"))
    found = finding(watch, 2)
    assert found is not None
    assert found[0] is State.WIPED
    assert "leafdb cluster stage replace node-1 ADDRESS" in found[1]
    assert not watch.proofs
    watch.answer(2, None)
    assert finding(watch, 2) == found, "that nobody answers now says nothing new"
    watch.recognition.met(N2)
    assert finding(watch, 2) is None


def test_one_that_was_never_met_waits_to_be_admitted() -> None:
    staged = transitions.stage(cluster(2), Join(proposed(2)))
    watch = Watch(transitions.commit(staged, propose(staged).id), known=frozenset((1, 2)))
    watch.answer(3, blank("node-2"))
    found = finding(watch, 3)
    assert found is not None
    assert found[0] is State.WAITING


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (blank("else"), "a blank node called 'else'"),
        (met(3), "node-2 (node 3) answers at its address"),
        (met(2, cluster_id=b"z" * 16), "another cluster"),
    ],
)
def test_somebody_else_at_its_address_is_named(answer: Encounter, text: str) -> None:
    watch = Watch(cluster(3))
    watch.answer(2, answer)
    found = finding(watch, 2)
    assert found is not None
    assert found[0] is State.STRANGER
    assert text in found[1]
    watch.answer(2, met(2))
    assert finding(watch, 2) is None, "it is the member itself"


# -- what is answered


def judge(_: PeerFacts) -> Refusal | None:
    return Refusal.BANNED


def test_a_node_judges_only_those_of_its_own_cluster_and_never_itself() -> None:
    asker = facts(2)
    assert answer_to(asker, facts(1), "n", 1, judge).refusal == Refusal.BANNED
    assert answer_to(asker, facts(1), "n", 1, lambda _: None).refusal == ""
    assert answer_to(asker, facts(0, cluster_id=b""), "n", 0, judge).refusal == Refusal.NOT_READY
    assert answer_to(asker, facts(1, cluster_id=b"z" * 16), "n", 1, judge).refusal == Refusal.WRONG_CLUSTER
    assert answer_to(asker, facts(2), "n", 1, judge).refusal == "", "an address that leads back to who asks"
    assert answer_to(asker, facts(2, nonce=b"x" * 16), "n", 1, judge).refusal == Refusal.CLONE


def test_introductions_and_answers_cross_the_wire_whole() -> None:
    assert introduced(introduction(facts(2))) == facts(2)
    answer = met(2, refusal=Refusal.CLONE.value)
    assert Encounter.from_wire(answer.to_wire()) == answer
    for field in answer.to_wire():
        broken: Mapping[str, Any] = {**answer.to_wire(), field: None}
        with pytest.raises(ValueError):
            Encounter.from_wire(broken)
