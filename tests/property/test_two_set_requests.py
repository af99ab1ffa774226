"""A put and a get on their coordinator in any phase, with any owners away and any answers: what was said is true.

Acknowledged: each set of owners has what the counts ask for, in person or by a stand-in that was told for whom. Shown:
R of each set hold it. At the end every owner has the record, or somebody keeps it for them.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.errors import LeafdbError
from leafdb.node.coordinator import Place
from leafdb.quorum.messages import ReplicaStatus, decode_replica_put
from leafdb.types import NodeId
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_STRICT, GetReply, PutReply
from support.lone_coordinator import NODES, RECORD, Lone, Phase, changing_key

K = changing_key()
PHASES = st.sampled_from(Phase)
COUNTS = st.sampled_from((1, 2, 3, 254, 255))
ANSWERS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from("yyynl")), min_size=12, max_size=12)
"""Which of those asked answers next: yes, no, or it is lost."""


def lone(own: NodeId, phase: Phase, away: set[NodeId]) -> tuple[Lone, Place]:
    made = Lone(own, phase, away=away - {own})
    assert made.view.ring is not None
    return made, Place(made.bucket, K.encoded, made.view.ring)


def sets_of(place: Place) -> tuple[tuple[NodeId, ...], ...]:
    return (place.primaries,) if place.joint is None else (place.joint.old, place.joint.new)


def count_of(wire: int, owners: tuple[NodeId, ...]) -> int:
    return {254: len(owners) // 2 + 1, 255: len(owners)}.get(wire, wire)


class Copies:
    """Who confirmed that it holds the record, and for whom."""

    def __init__(self, made: Lone) -> None:
        self.made = made
        self.of: set[tuple[NodeId, NodeId]] = set()
        self._answered: set[tuple[NodeId, int]] = set()

    def pending(self) -> list[tuple[NodeId, NodeId]]:
        """Copies sent and not answered: to whom, for whom."""
        found = []
        for node, lane in self.made.lanes.items():
            for at, frame in enumerate(lane.frames):
                if frame.type == MessageType.REPLICA_PUT and (node, at) not in self._answered:
                    target = decode_replica_put(frame.body).hint_target
                    found.append((node, NodeId(target or node)))
        return sorted(found)

    def answer(self, node: NodeId, stands_for: NodeId, how: str) -> None:
        """One of them is answered."""
        lane = self.made.lanes[node]
        self._answered |= {(node, at) for at in range(len(lane.frames))}
        number = lane.frames[-1].request_id
        if how == "l":
            self.made.coordinator.on_peer_lost(node)
            return
        if how == "y":
            self.of.add((node, stands_for))
        status = ReplicaStatus.APPLIED if how == "y" else ReplicaStatus.REFUSED_OVERLOADED
        self.made.coordinator.on_replica_put_reply(node, number, bytes([status]))

    def reached(self, owners: tuple[NodeId, ...], *, in_person: bool = False) -> int:
        """How many of these owners have it, or have somebody who keeps it for them."""
        return len({owner for node, owner in self.of if owner in owners and (node == owner or not in_person)})


@settings(max_examples=300, deadline=None)
@given(PHASES, st.sampled_from(NODES), st.sets(st.sampled_from(NODES), max_size=4), COUNTS, st.integers(0, 2),
       st.booleans(), ANSWERS)  # fmt: skip
def test_what_a_put_acknowledges_each_set_has(
    phase: Phase, own: NodeId, away: set[NodeId], w: int, pw: int, strict: bool, answers: list[tuple[int, str]]
) -> None:
    made, place = lone(own, phase, away)
    made.put(K, w=w, pw=pw, strict=strict)
    if isinstance(made.reply(), LeafdbError) or made.sent(MessageType.FORWARD_PUT):
        assert made.coordinated == 0
        assert not made.hints.coordinated
        assert not made.sent(MessageType.REPLICA_PUT)
        return
    copies = Copies(made)
    copies.of.add((own, made.hints.coordinated[0] if made.hints.coordinated else own))
    for which, how in answers:
        if isinstance(made.reply(), PutReply):
            break
        pending = copies.pending()
        if pending:
            copies.answer(*pending[which % len(pending)], how)
    reply = made.reply()
    if isinstance(reply, PutReply):
        for owners in sets_of(place):
            assert copies.reached(owners) >= min(count_of(w, owners), len(owners))
            assert copies.reached(owners, in_person=True) >= min(pw, len(owners))
            assert copies.reached(owners, in_person=True) >= min(reply.primaries, len(owners))
        assert reply.acks == len({node for node, _ in copies.of})
    while pending := copies.pending():
        copies.answer(*pending[0], "n")
    if not made.coordinator.operations:
        kept = {owner for _, owner in copies.of} | {*made.hints.owed}
        assert {*place.holders} <= kept | {own}, "nobody is forgotten"


@settings(max_examples=300, deadline=None)
@given(PHASES, st.sampled_from(NODES), st.sets(st.sampled_from(NODES), max_size=3), COUNTS, st.booleans(),
       st.sets(st.sampled_from(NODES)), ANSWERS)  # fmt: skip
def test_what_a_get_shows_each_set_holds(
    phase: Phase, own: NodeId, away: set[NodeId], r: int, strict: bool, have: set[NodeId],
    answers: list[tuple[int, str]],
) -> None:  # fmt: skip
    made, place = lone(own, phase, away)
    made.stored = RECORD if own in have else None
    made.get(K, r=r, flags=FLAG_STRICT if strict else 0)
    copies = Copies(made)
    copies.of |= {(node, node) for node in have}
    asked: set[NodeId] = set()
    for which, how in answers:
        for node in made.sent(MessageType.REPLICA_GET):
            if node not in asked:
                asked.add(node)
                holder = node in place.holders
                nothing = ReplicaStatus.ABSENT if holder else ReplicaStatus.UNKNOWN
                status = ReplicaStatus.FOUND if node in have else nothing
                frame = next(f for f in made.lanes[node].frames if f.type == MessageType.REPLICA_GET)
                body = bytes([status]) + (RECORD if node in have else b"")
                made.coordinator.on_replica_get_reply(node, frame.request_id, body)
        pending = copies.pending()
        if pending:
            copies.answer(*pending[which % len(pending)], how)
    reply = made.reply()
    if not isinstance(reply, GetReply):
        return
    copies.of |= {(own, target) for target in made.hints.kept} | ({(own, own)} if made.merged else set())
    assert not asked - {*place.primaries} or not strict
    if reply.siblings:
        for owners in sets_of(place):
            held = {node for node, _ in copies.of if node in owners}
            stand_ins = {node for node, _ in copies.of if node not in place.holders}
            assert len(held) + len(stand_ins) >= min(count_of(r, owners), len(owners))
            if strict:
                assert len(held) >= min(count_of(r, owners), len(owners))
    else:
        assert len([node for node in {*asked, own} - have if node in place.primaries]) >= count_of(r, place.primaries)
