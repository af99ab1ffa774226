"""What metadata say about the acceptors of their register, and this node's own seat among them: the one place that
knows which fields name them.

A node that is named has a seat: the state of an acceptor in its store, from the moment on at which it believes the
metadata that name it. Without one it has forgotten, and its store has no vote any more, in whatever control set;
FORGOTTEN in place of a state remembers that. A register that is begun anew (`cluster recover`) begins with new seats.
"""

from __future__ import annotations

from typing import Final

from leafdb.codec import cbor
from leafdb.consensus.acceptor import Acceptor
from leafdb.consensus.acceptor_state import AcceptorState
from leafdb.consensus.acceptor_state import decode as decode_state
from leafdb.consensus.ballot import AcceptorId, Ballot
from leafdb.consensus.control_set import ControlSet
from leafdb.node.logs import Log
from leafdb.ring.metadata import FIRST_EPOCH, ClusterMetadata, decode
from leafdb.types import NodeId

REGISTER: Final = b"metadata"
FORGOTTEN: Final = cbor.dumps({"format": 0})
"""No acceptor state: reading it fails, as it is meant to."""

log: Log = Log("register")


def control_of(metadata: ClusterMetadata) -> ControlSet:
    """Whose votes count in rounds that build on this value."""
    return ControlSet.of(
        (AcceptorId(node, incarnation) for node, incarnation in metadata.acceptors()),
        (AcceptorId(node, incarnation) for node, incarnation in metadata.next_acceptors()),
    )


def named(value: bytes) -> ControlSet:
    """The same of an encoded value. Raises MetadataError."""
    return control_of(decode(value))


def has_seat(node: NodeId, metadata: ClusterMetadata) -> bool:
    """Whether the node is an acceptor, or becomes one by the change under way."""
    return any(acceptor.node == node for acceptor in control_of(metadata).everyone)


def acceptor_of(node: NodeId, metadata: ClusterMetadata) -> AcceptorId:
    """The id under which a member votes, or would."""
    return AcceptorId(node, metadata.members[node].incarnation)


def first_state(node: NodeId, metadata: ClusterMetadata) -> AcceptorState:
    """What an acceptor begins with at founding, and when the register is begun anew: that value, accepted."""
    first = Ballot(1, metadata.control[0], 0)
    return AcceptorState(REGISTER, acceptor_of(node, metadata), first, first, metadata.encode())


def opening_state(node: NodeId, metadata: ClusterMetadata) -> AcceptorState:
    """What an acceptor begins with that is named in the first metadata it knows: `first_state` at the founding; of one
    that comes later, that it has promised nothing and accepted nothing."""
    if metadata.epoch == FIRST_EPOCH:
        return first_state(node, metadata)
    return Acceptor(REGISTER, acceptor_of(node, metadata), config=metadata.generation).state


class Seat:
    """This node's acceptor, if it has one, through all that may become of it."""

    def __init__(self) -> None:
        self.acceptor: Acceptor | None = None
        self._forgot = False
        """What this store remembered of its promises is gone, and its vote with them, also in control sets to come."""

    def load(self, node: NodeId, metadata: ClusterMetadata, stored: bytes | None) -> bytes | None:
        """Take what the store remembers. A promise that cannot be read costs the vote, nothing else. Answers what has
        to be written in its place, if anything."""
        try:
            return self.begin(node, metadata, None if stored is None else decode_state(stored))
        except ValueError as error:
            log.error("the acceptor's state cannot be read", reason=str(error))
            self._forgot = True
            return self.begin(node, metadata, None)

    def begin(self, node: NodeId, metadata: ClusterMetadata, state: AcceptorState | None) -> bytes | None:
        """As `load`, with a state that is there or is not."""
        seated = has_seat(node, metadata)
        if state is not None and not seated:
            # Of a former control set. It keeps its word, and shows those who never heard of the change what is new.
            self.acceptor = Acceptor(REGISTER, state.acceptor, config=metadata.generation, state=state)
        elif seated:
            me = acceptor_of(node, metadata)
            self._forgot = state is None or state.acceptor != me
            complete = not self._forgot
            self.acceptor = Acceptor(REGISTER, me, config=metadata.generation, state=state, complete=complete)
            if not complete:
                log.error("this node's promises are gone: it has no vote in the control set any more")
            if state is None:
                return FORGOTTEN
        return None

    def take(self, node: NodeId, metadata: ClusterMetadata) -> Acceptor:
        """Become an acceptor: of promises nobody was given yet, unless it forgot.

        Metadata that name it are written along with the empty state. A request may come before, of a proposer that
        found a change under way: it may not be chosen yet, and cannot be without the votes of those who come in.
        """
        me = acceptor_of(node, metadata)
        self.acceptor = Acceptor(REGISTER, me, config=metadata.generation, complete=not self._forgot)
        return self.acceptor

    def be_named(self, node: NodeId, metadata: ClusterMetadata) -> bytes:
        """Metadata name this node that did not before. Answers the state to be written along with them."""
        seat = self.acceptor
        if seat is None or seat.state.acceptor != acceptor_of(node, metadata):
            seat = self.take(node, metadata)
        return FORGOTTEN if self._forgot else seat.state.encode()

    def begin_generation(self, node: NodeId, metadata: ClusterMetadata) -> bytes | None:
        """The register begins anew: nothing of the former one counts. Answers the state to be written along, if any.

        Who is named begins with the value accepted, whichever of the new generation it is: it was chosen, and under the
        first ballot it gives way to all that was chosen after it. In memory it is so at once, so that no promise of the
        former generation follows the new state into the log.
        """
        self._forgot, self.acceptor = False, None
        if not has_seat(node, metadata):
            return None
        state = first_state(node, metadata)
        self.acceptor = Acceptor(REGISTER, state.acceptor, config=metadata.generation, state=state)
        return state.encode()
