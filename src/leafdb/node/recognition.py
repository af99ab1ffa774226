"""Whether the others still know this node, and whether those at their addresses are the ones we know.

Of two members one dials, so a node that nobody dials any more, or that has moved to where nobody looks, hears nothing
by itself: a removed member that comes back, an old copy of a disk, a clone on another machine. Nor does anybody notice
that a member's disk is gone when the blank node in its place dials nobody. So members without a session ask each
other, as strangers, by address: here is who I am; who are you, and what do you say of me? Both have proved that they
know the secret, so the answer is to be believed: see `expulsion` for what follows from it.

Members with whom there are sessions are not asked. A few at a time are, one look every LOOK_S, at once when somebody
has refused us.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

import trio

from leafdb.codec.fields import bytes_field, int_field
from leafdb.config import parse_address
from leafdb.errors import LeafdbError
from leafdb.limits import NODE_ID_MAX
from leafdb.node.expulsion import FINAL
from leafdb.node.logs import Log
from leafdb.node.view import ClusterView
from leafdb.ring.member import Member
from leafdb.ring.metadata import ClusterMetadata
from leafdb.transport.peers import Peers
from leafdb.types import Epoch, NodeId
from leafdb.wire.body import decode_map, text_field
from leafdb.wire.control import AdminRequest
from leafdb.wire.hello import (
    BOOT_NONCE_BYTES,
    CLUSTER_ID_BYTES,
    NAME_CHARS_MAX,
    STARTS_TOLD,
    STORE_ID_BYTES,
    PeerFacts,
    Refusal,
)
from leafdb.wire.registry import Lane, MessageType

LOOK_S: Final = 5.0
FIRST_LOOK_S: Final = 1.0
LOOK_AGAIN_S: Final = 0.5
"""However often somebody refuses us."""
LOOK_TIMEOUT_S: Final = 2.0
LOOKS_MAX: Final = 8
"""How many members are asked at a time."""

log: Log = Log("recognition")


class State(Enum):
    """What was found at a member's address that is not the member."""

    WIPED = "wiped"
    WAITING = "waiting"
    """It has not been admitted yet."""
    STRANGER = "stranger"


class Finding(NamedTuple):
    """What was found, in words that say what to do."""

    state: State
    text: str


class Encounter(NamedTuple):
    """What a node answers to who meets it: who it is, and why it would not have the other; nothing when it would."""

    cluster_id: bytes
    node: NodeId
    name: str
    store: bytes
    generation: int
    """Of its metadata; 0 while it has none."""
    refusal: str

    def to_wire(self) -> dict[str, Any]:
        """As an answer."""
        return self._asdict()

    @classmethod
    def from_wire(cls, answer: Mapping[str, Any]) -> Encounter:
        """Of an answer. ValueError."""
        return cls(
            bytes_field(answer, "cluster_id", high=CLUSTER_ID_BYTES),
            NodeId(int_field(answer, "node", high=NODE_ID_MAX)),
            text_field(answer, "name", chars_max=NAME_CHARS_MAX),
            bytes_field(answer, "store", high=STORE_ID_BYTES),
            int_field(answer, "generation"),
            text_field(answer, "refusal", chars_max=64),
        )


def introduction(own: PeerFacts) -> dict[str, Any]:
    """The arguments of "node.meet": who is asking."""
    return {
        "cluster_id": own.cluster_id, "node": int(own.node), "incarnation": own.incarnation, "boot": own.boot,
        "boot_nonce": own.boot_nonce, "past": own.past, "store": own.store, "epoch": int(own.epoch),
    }  # fmt: skip


def introduced(args: Mapping[str, Any]) -> PeerFacts:
    """Who is asking. ValueError."""
    return PeerFacts(
        cluster_id=bytes_field(args, "cluster_id", high=CLUSTER_ID_BYTES),
        node=NodeId(int_field(args, "node", high=NODE_ID_MAX)),
        incarnation=int_field(args, "incarnation"),
        boot=int_field(args, "boot"),
        boot_nonce=bytes_field(args, "boot_nonce", low=BOOT_NONCE_BYTES, high=BOOT_NONCE_BYTES),
        epoch=Epoch(int_field(args, "epoch")),
        lane=Lane.CONTROL,
        store=bytes_field(args, "store", high=STORE_ID_BYTES),
        past=bytes_field(args, "past", high=STARTS_TOLD * BOOT_NONCE_BYTES),
    )


def answer_to(
    asker: PeerFacts, own: PeerFacts, name: str, generation: int, judge: Callable[[PeerFacts], Refusal | None]
) -> Encounter:
    """What this node, of the facts `own`, says to who asks."""
    refusal: Refusal | None
    if not own.cluster_id:
        refusal = Refusal.NOT_READY
    elif asker.cluster_id != own.cluster_id:
        refusal = Refusal.WRONG_CLUSTER
    elif asker.node == own.node:
        # An address may lead back to the node itself.
        refusal = None if asker.boot_nonce == own.boot_nonce else Refusal.CLONE
    else:
        refusal = judge(asker)
    return Encounter(own.cluster_id, own.node, name, own.store, generation, str(refusal or ""))


class Recognition:
    """See the module. `known` answers whom this node has ever had a session with; `outcast` is told, with the name of
    who says so, what there is proof of."""

    def __init__(
        self,
        *,
        view: ClusterView,
        peers: Peers,
        own: Callable[[], PeerFacts],
        known: Callable[[], frozenset[int]],
        outcast: Callable[[Refusal, str], None],
    ) -> None:
        self._view = view
        self._peers = peers
        self._own = own
        self._known = known
        self._outcast = outcast
        self._doubted: dict[NodeId, None] = {}
        self._woken = trio.Event()
        self._asked_last = NodeId(0)
        self.findings: dict[NodeId, Finding] = {}
        """Of members that are not there."""

    def doubt(self, node: NodeId) -> None:
        """A member, or who sits at its address, would not have us: ask it soon."""
        self._doubted[node] = None
        self._woken.set()

    def met(self, node: NodeId) -> None:
        """There is a session with the member itself."""
        self.findings.pop(node, None)

    async def run(self) -> None:
        """Look now and then until cancelled."""
        wait_s = FIRST_LOOK_S
        while True:
            with trio.move_on_after(wait_s):
                await self._woken.wait()
            wait_s = LOOK_S
            self._woken = trio.Event()
            metadata = self._view.metadata
            if metadata is not None:
                async with trio.open_nursery() as nursery:
                    for node in self._next(metadata):
                        nursery.start_soon(self._look, metadata.members[node], metadata)
            await trio.sleep(LOOK_AGAIN_S)

    def _next(self, metadata: ClusterMetadata) -> list[NodeId]:
        """Whom to ask this time: those who refused us first, then the others in turn."""
        there = set(self._peers.connected(Lane.CONTROL))
        for node in self.findings.keys() - metadata.members.keys():
            del self.findings[node]
        there.difference_update(self._doubted)
        absent = sorted(node for node in metadata.members if node != self._view.self_id and node not in there)
        absent.sort(key=lambda node: (node not in self._doubted, node <= self._asked_last))
        self._doubted.clear()
        chosen = absent[:LOOKS_MAX]
        self._asked_last = chosen[-1] if len(absent) > LOOKS_MAX else NodeId(0)
        return chosen

    async def _look(self, member: Member, metadata: ClusterMetadata) -> None:
        own = self._own()
        body = AdminRequest("node.meet", introduction(own)).encode()
        try:
            address = parse_address(member.peer_address)
            frame = await self._peers.call_stranger(
                (address.host, address.port), MessageType.PEER_ADMIN, body, LOOK_TIMEOUT_S
            )
            met = Encounter.from_wire(decode_map(frame.body, "the answer to node.meet"))
        except (LeafdbError, ValueError) as error:
            # Nobody there, or of a version that does not know the question: what was found before may still hold.
            log.debug("a member could not be asked", member=member.name, reason=str(error))
            return
        is_peer = met.node and met.cluster_id == own.cluster_id and met.generation >= metadata.generation
        if is_peer and met.refusal in FINAL:
            self._outcast(Refusal(met.refusal), met.name)
        self._find(member, metadata, met)

    def _find(self, member: Member, metadata: ClusterMetadata, met: Encounter) -> None:
        finding = self._judge(member, metadata, met)
        if finding is None:
            self.findings.pop(member.id, None)
        elif finding != self.findings.get(member.id):
            self.findings[member.id] = finding
            say = log.info if finding.state is State.WAITING else log.error
            say("another node than the member is at its address", member=member.name, found=finding.text)

    def _judge(self, member: Member, metadata: ClusterMetadata, met: Encounter) -> Finding | None:
        if met.cluster_id == metadata.cluster_id:
            if met.node == member.id:
                return None
            return Finding(State.STRANGER, f"{met.name} (node {met.node}) answers at its address {member.peer_address}")
        if met.cluster_id:
            return Finding(State.STRANGER, f"a node of another cluster answers at its address {member.peer_address}")
        if met.name != member.name:
            return Finding(State.STRANGER, f"a blank node called {met.name!r} answers at {member.peer_address}")
        if member.id in self._known():
            return Finding(
                State.WIPED,
                "its disk was wiped: a blank store runs under its name. Start it on its own data directory; if that is "
                "lost, start a node with a name and addresses of its own and replace this one: "
                f"leafdb cluster stage replace {member.name} ADDRESS",
            )
        return Finding(State.WAITING, "it runs and is blank: it has not been admitted yet")
