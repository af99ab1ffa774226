"""Drives consensus/ for the one register that holds the cluster metadata, and keeps this node's copy of it.

Every member keeps the newest copy it has seen, synced before it is believed. The control set's members are acceptors as
well. A change is one round of CASPaxos; what was chosen is offered to every member that can be reached before the
caller is answered, and gossip tells the others, who fetch. Losing the control set's majority freezes changes and
nothing else.

The acceptor's identity is the node with the incarnation it was founded with: promises are always synced, so a power cut
that costs a `periodic` bucket its tail, and the store a new incarnation, forgets none of them.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, assert_never

import trio

from leafdb.codec import cbor
from leafdb.consensus.acceptor_state import AcceptorState
from leafdb.consensus.ballot import Ballot, BallotSource
from leafdb.consensus.effects import (
    AcceptorEffect,
    Chosen,
    Decided,
    Outcome,
    Persist,
    ProposerEffect,
    Refused,
    Send,
)  # fmt: skip
from leafdb.consensus.messages import Accept, Message, Prepare, from_wire, to_wire
from leafdb.consensus.proposer import Proposer
from leafdb.errors import LeafdbError, NotApplied, ProtocolError, Reason, StorageError
from leafdb.node.control_seats import REGISTER, Seat, acceptor_of, control_of, has_seat, named, opening_state
from leafdb.node.logs import Log
from leafdb.node.register_change import Change, problem_of, proposed
from leafdb.node.register_turns import Turns
from leafdb.node.timers import TimingWheel
from leafdb.node.view import ClusterView
from leafdb.ring.difference import apply, difference
from leafdb.ring.metadata import ClusterMetadata, decode
from leafdb.storage.engine import Engine
from leafdb.types import Durability, NodeId, TreeId
from leafdb.wire.control import MetadataFetch, MetadataReply
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType

log: Log = Log("register")

META_TREE: Final = TreeId(1)
REGISTERS_TREE: Final = TreeId(2)
METADATA_KEY: Final = b"metadata"
VERSIONS_KEPT: Final = 8
FETCH_TIMEOUT_S: Final = 2.0

Version = tuple[int, int]
"""(generation, epoch) of metadata: the later generation holds, whatever its epoch."""
Ask = Callable[[NodeId, int, bytes, Callable[[object], None], float], bool]


class Standing(NamedTuple):
    """What one node knows of the register."""

    metadata: ClusterMetadata
    """That it believes: chosen."""
    ballot: Ballot | None = None
    accepted: ClusterMetadata | None = None
    """What its acceptor has accepted last, under that ballot: perhaps chosen."""


class Register:
    """The metadata register as this node sees it."""

    def __init__(
        self,
        *,
        engine: Engine,
        view: ClusterView,
        wheel: TimingWheel,
        now: Callable[[], float],
        rng: random.Random,
        random_bytes: Callable[[int], bytes],
        send: Callable[[NodeId, bytes], bool],
        expelled: Callable[[ClusterMetadata], None],
        begins: Callable[[ClusterMetadata], None],
    ) -> None:
        """`begins` hears of another generation before it is written here; what it writes is synced with it."""
        self._engine = engine
        self._view = view
        self._wheel = wheel
        self._now = now
        self._rng = rng
        self._random_bytes = random_bytes
        self._send = send
        self._seat = Seat()
        self._expelled = expelled
        self._begins = begins
        self._proposer: Proposer | None = None
        self._ballots: BallotSource | None = None
        self._decided: Callable[[Outcome], None] | None = None
        self._turns = Turns(now, self._hurry)
        self._fetch_done: Callable[[], None] | None = None
        self._newest: Version = (0, 0)
        """The newest this node has taken, which may be on its way to the disk."""
        self._versions: deque[ClusterMetadata] = deque(maxlen=VERSIONS_KEPT)
        """The versions this node has believed in, for those who are a little behind."""
        self._waiting: list[tuple[Version, Callable[[], None]]] = []
        """Who waits for a copy of this version that is on its way to the disk."""
        self.slot = 0
        view.on_install.append(self._installed)

    # -- start

    def load(self, self_id: NodeId, current: ClusterMetadata, state: bytes | None) -> None:
        """Take what the store remembers. A promise that cannot be read costs the vote, nothing else."""
        replaced = self._seat.load(self_id, current, state)
        if replaced is not None:
            self._engine.write(((REGISTERS_TREE, REGISTER, replaced),), Durability.ALWAYS, lambda _: None)
        self._begin(self_id)
        self._newest = current.version
        self._view.install(self_id, current)

    def found(self, self_id: NodeId, metadata: ClusterMetadata, done: Callable[[StorageError | None], None]) -> None:
        """Take the first metadata of all: epoch 1, as every founding member does, with which acceptors begin as
        accepted; or a later one, as a member that joins: a seat it has by then is empty. `done` once it is synced."""
        assert self._view.metadata is None
        writes: list[tuple[TreeId, bytes, bytes | None]] = [(META_TREE, METADATA_KEY, metadata.encode())]
        state: AcceptorState | None = None
        if has_seat(self_id, metadata):
            state = opening_state(self_id, metadata)
            writes.append((REGISTERS_TREE, REGISTER, state.encode()))

        def written(error: StorageError | None) -> None:
            if error is None:
                self._seat.begin(self_id, metadata, state)
                self._begin(self_id)
                self._newest = metadata.version
                self._view.install(self_id, metadata)
            done(error)

        self._engine.write(writes, Durability.ALWAYS, written)

    def _begin(self, self_id: NodeId) -> None:
        self._ballots = BallotSource(self_id, int.from_bytes(self._random_bytes(8), "big"))

    def _installed(self, metadata: ClusterMetadata) -> None:
        self._newest = max(self._newest, metadata.version)
        self._versions.append(metadata)

    # -- this node's copy

    def learn(self, metadata: ClusterMetadata, done: Callable[[], None] | None = None) -> None:
        """Take a copy that some member believes in: sync it, then believe it. `done` once this or a newer one is
        believed here, also when it is old news. One of which this node is no member is not taken: what it knew as one
        decides what becomes of it (`expulsion`)."""
        current = self._view.metadata
        assert current is not None
        if metadata.cluster_id != current.cluster_id:
            raise ProtocolError("metadata of another cluster")
        if metadata.version <= self._newest:
            if done is not None:
                self._when_believed(metadata.version, done)
            return
        me = self._view.self_id
        if me not in metadata.members:
            self._expelled(metadata)
            if done is not None:
                done()
            return
        begun = metadata.generation > self._newest[0]
        self._newest = metadata.version
        writes: list[tuple[TreeId, bytes, bytes | None]] = [(META_TREE, METADATA_KEY, metadata.encode())]
        if begun:
            self._begins(metadata)
            writes.append((REGISTERS_TREE, REGISTER, self._seat.begin_generation(me, metadata)))
        elif has_seat(me, metadata) and acceptor_of(me, metadata) not in control_of(current).everyone:
            writes.append((REGISTERS_TREE, REGISTER, self._seat.be_named(me, metadata)))
        self._engine.write(writes, Durability.ALWAYS, partial(self._kept, metadata, done))

    def _when_believed(self, version: Version, done: Callable[[], None]) -> None:
        """The same copy often comes twice at once, from who made it and from gossip: the second waits for the first."""
        current = self._view.metadata
        if current is not None and current.version >= version:
            done()
        else:
            self._waiting.append((version, done))

    def _kept(self, metadata: ClusterMetadata, done: Callable[[], None] | None, error: StorageError | None) -> None:
        if error is not None:
            return  # a failed store stops the node by another way
        current = self._view.metadata
        if current is None or metadata.version > current.version:
            log.info("metadata in force", epoch=int(metadata.epoch))
            self._view.install(self._view.self_id, metadata)
        if done is not None:
            done()
        waiting, self._waiting = self._waiting, []
        for version, callback in waiting:
            self._when_believed(version, callback)

    def standing(self) -> Standing:
        """What this node knows of the register, for whoever has to begin it anew."""
        assert self._view.metadata is not None
        state = None if self._seat.acceptor is None else self._seat.acceptor.state
        if state is None or state.accepted is None or state.value is None:
            return Standing(self._view.metadata)
        return Standing(self._view.metadata, state.accepted, decode(state.value))

    @property
    def accepted_under(self) -> Ballot | None:
        """The ballot of what this node's acceptor has accepted last."""
        return None if self._seat.acceptor is None else self._seat.acceptor.state.accepted

    @property
    def has_vote(self) -> bool:
        """Whether this node's acceptor, if it is to have one, has forgotten nothing."""
        return self._seat.acceptor is not None and self._seat.acceptor.complete

    @property
    def newest(self) -> Version:
        """Of the newest metadata this node has taken, which it may be about to believe."""
        return self._newest

    # -- changing it

    async def change(self, change: Change, timeout_s: float, *, gives_way: bool = False) -> ClusterMetadata:
        """Change the metadata; returns what was chosen, which this node already believes. Waits so long for its turn at
        most, and then so long for an end, or less when it `gives_way` to who waits.

        Raises NotApplied (the change's own, `no_quorum` when the control set has no majority, or Overloaded when its
        turn did not come) or OutcomeUnknown.
        """
        async with self._turns.turn(timeout_s, gives_way=gives_way) as deadline:
            current = self._view.metadata
            if current is None or self._ballots is None:
                raise NotApplied("this node is not part of a cluster yet", reason=Reason.NOT_READY)
            ended = trio.Event()
            outcomes: list[Outcome] = []

            def decided(outcome: Outcome) -> None:
                outcomes.append(outcome)
                ended.set()

            refusals: list[LeafdbError] = []
            made = partial(proposed, change, self._random_bytes(16), refusals)
            self._proposer = Proposer(
                REGISTER,
                control_of(current),
                config=current.generation,
                ballots=self._ballots,
                rng=self._rng,
                names=named,
            )
            self._decided = decided
            self._perform(self._proposer.propose(made, now=self._now(), deadline=deadline, deduplicates=True))
            try:
                await ended.wait()
            finally:
                self._wheel.remove(self)
                self._proposer = self._decided = None
            return await self._conclude(outcomes[0], refusals)

    @property
    def busy(self) -> bool:
        """Whether a change by this node is under way."""
        return self._turns.taken

    def _hurry(self, deadline: float) -> None:
        if self._proposer is not None:
            self._proposer.hurry(deadline)
            self._perform(())  # the wheel has to know

    async def _conclude(self, outcome: Outcome, refusals: list[LeafdbError]) -> ClusterMetadata:
        if isinstance(outcome, Chosen):
            assert outcome.value is not None
            return await self._believe(outcome.value)
        if isinstance(outcome, Refused) and outcome.current is not None:
            # Its proposer may have died before anybody heard: else "staged already", and nobody shows it.
            await self._believe(outcome.current)
        raise problem_of(outcome, refusals)

    async def _believe(self, value: bytes) -> ClusterMetadata:
        """A value that is chosen; returns when it is in force here, or a later one is."""
        chosen = decode(value)
        believed = trio.Event()
        self.learn(chosen, believed.set)
        await believed.wait()
        return chosen

    # -- messages

    def on_request(self, node: NodeId, body: bytes) -> None:
        """A REGISTER frame: a proposer speaks to our acceptor."""
        message = _message(body)
        if not isinstance(message, Prepare | Accept) or message.register != REGISTER:
            raise ProtocolError("no request to the metadata register")
        acceptor, current, me = self._seat.acceptor, self._view.metadata, self._view.self_id
        if acceptor is None and current is not None and me in current.members:
            acceptor = self._seat.take(me, current)
        if acceptor is not None:
            self._perform_acceptor(acceptor.on_message(node, message))

    def on_reply(self, node: NodeId, body: bytes) -> None:
        """A REGISTER_REPLY frame: an acceptor answers our proposer."""
        message = _message(body)
        if isinstance(message, Prepare | Accept):
            raise ProtocolError("a request where a register's answer is due")
        if self._proposer is not None:
            self._perform(self._proposer.on_message(node, message, self._now()))

    def expired(self) -> None:
        """The proposer's deadline."""
        if self._proposer is not None:
            self._perform(self._proposer.on_time(self._now()))

    def _perform(self, effects: tuple[ProposerEffect, ...]) -> None:
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    self._post(to, message)
                case Decided(outcome=outcome):
                    if self._decided is not None:
                        self._decided(outcome)
                case _:
                    assert_never(effect)
        self._wheel.remove(self)
        deadline = self._proposer.deadline() if self._proposer is not None else None
        if deadline is not None:
            self._wheel.add(self, deadline)

    def _perform_acceptor(self, effects: tuple[AcceptorEffect, ...]) -> None:
        """Persist precedes Send: what was promised is synced before anybody hears of it."""
        sends = [effect for effect in effects if isinstance(effect, Send)]
        states = [effect.state for effect in effects if isinstance(effect, Persist)]
        if not states:
            self._say(sends, None)
            return
        writes = ((REGISTERS_TREE, REGISTER, states[-1].encode()),)
        self._engine.write(writes, Durability.ALWAYS, partial(self._say, sends))

    def _say(self, sends: list[Send], error: StorageError | None) -> None:
        if error is None:
            for effect in sends:
                self._post(effect.to, effect.message)

    def _post(self, to: NodeId, message: Message) -> None:
        request = isinstance(message, Prepare | Accept)
        body = cbor.dumps(to_wire(message))
        if to != self._view.self_id:
            number = MessageType.REGISTER if request else MessageType.REGISTER_REPLY
            self._send(to, encode_frame(number, 0, body))
        elif request:
            self.on_request(to, body)
        else:
            self.on_reply(to, body)

    def soon(self, callback: Callable[[], None]) -> None:
        """Call once everything written so far is synced: never from inside this call unless it is already."""
        self._engine.when_safe(self._engine.safe_sequence(Durability.ALWAYS), Durability.ALWAYS, lambda _: callback())

    # -- fetching

    def on_fetch(self, node: NodeId, body: bytes) -> bytes:
        """The METADATA_REPLY body to a METADATA_FETCH."""
        known = MetadataFetch.decode(body).epoch
        current = self._view.metadata
        if current is None or current.epoch <= known:
            return MetadataReply(self._view.epoch, b"").encode()
        old = next((version for version in self._versions if version.epoch == known), None)
        if old is not None:
            return MetadataReply(int(current.epoch), difference(old, current), difference=True).encode()
        return MetadataReply(int(current.epoch), current.encode()).encode()

    def on_fetched(self, body: bytes, done: Callable[[], None] | None = None) -> bool:
        """A peer's METADATA_REPLY. False: it was a difference from something that is not ours (any more), `done` is not
        kept, and the whole must be fetched."""
        reply = MetadataReply.decode(body)
        if not reply.metadata:
            if done is not None:
                done()
            return True
        current = self._view.metadata
        try:
            if not reply.difference:
                metadata = decode(reply.metadata)
            elif current is not None:
                metadata = apply(current, reply.metadata)
            else:
                return False
        except ValueError as error:
            if reply.difference:
                return False
            raise ProtocolError(f"a peer's metadata cannot be read: {error}") from None
        self.learn(metadata, done)
        return True


def _message(body: bytes) -> Message:
    try:
        return from_wire(cbor.loads(body))
    except ValueError as error:
        raise ProtocolError(f"a malformed register message: {error}") from None
