"""Sessions between nodes: for every other member three streams, so that liveness never queues behind bytes.

Who dials: of two nodes the one with the lower number, always. So there is one session per pair and lane, used by both
sides for what they ask and what they answer (types tell a request from a reply), and there is never a race between two
dials to settle. One session instead of one per direction saves a read and a send per batch and peer on the request
path. The price: a node that returns waits for the lower ones to notice, at most DIAL_BACKOFF_S_MAX; a connection that
can only be opened the other way is not made. When a second session for a pair and lane is established the newer one
wins: its dialler would not have dialled had it not lost the older.

Before a node has a number it dials nobody and is dialled as a stranger: sessions of node 0 belong to no member, and
carry nothing but verbs. `call_stranger` is such a session for one call, by address: founding and joining begin with it.

Frames go to the node's `on_frame`, except answers to calls made here. What the node sends by itself uses request ids
below `CALL_ID_BASE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from random import Random
from typing import Final

import trio

from leafdb.errors import ConnectFailed, DeadlineExceeded, LeafdbError, Overloaded
from leafdb.limits import HANDSHAKE_TIMEOUT_S
from leafdb.transport.calls import CALL_ID_BASE, CallTable, OnReply, PeerLost, Reply
from leafdb.transport.dialler import Address, Dialler
from leafdb.transport.greet import greet
from leafdb.transport.pump import Pump
from leafdb.transport.session import OnFrame, Session
from leafdb.transport.stream import Network
from leafdb.types import NodeId
from leafdb.wire.errors import HandshakeRefused
from leafdb.wire.frame import Frame, encode_frame
from leafdb.wire.handshake import Admit, PeerAcceptor, PeerDialer
from leafdb.wire.hello import LASTING, PeerFacts, Refusal
from leafdb.wire.registry import REPLY_TYPES, Lane

NO_NODE: Final = NodeId(0)

OnSession = Callable[[NodeId, Lane], None]
OnRefused = Callable[[NodeId], None]


class Peers:
    """All of a node's sessions with other nodes.

    `own()` answers this node's facts as of now (their lane is replaced); `admit` is asked about every peer whose proof
    has verified; `nonce()` draws 16 random bytes; `rng` spreads the dialling. `on_refused` hears who would not have us,
    which whoever sits at that address may say without proof.
    """

    def __init__(
        self,
        network: Network,
        pump: Pump,
        *,
        own: Callable[[], PeerFacts],
        secret: bytes,
        admit: Admit,
        nonce: Callable[[], bytes],
        rng: Random,
        on_frame: OnFrame,
        on_session_up: OnSession = lambda *_: None,
        on_session_down: OnSession = lambda *_: None,
        on_refused: OnRefused = lambda _: None,
    ) -> None:
        self._network = network
        self._pump = pump
        self._own = own
        self._secret = secret
        self._admit = admit
        self._nonce = nonce
        self._rng = rng
        self._handler = on_frame
        self._on_session_up = on_session_up
        self._on_session_down = on_session_down
        self._on_refused = on_refused
        self._book: dict[NodeId, Address] = {}
        self._lanes: dict[Lane, dict[NodeId, Session]] = {lane: {} for lane in Lane}
        self._dialler = Dialler(self._dial, rng)
        self._calls = CallTable(pump.counters)
        self._calls_changed = trio.Event()

    # -- who there is

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep sessions up and end calls whose time is over, until cancelled; then all peer sessions close."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._dialler.run, name="dialler")
                nursery.start_soon(self._expire, name="peer call deadlines")
                task_status.started()
        finally:
            for lane in Lane:
                for session in list(self._lanes[lane].values()):
                    session.close()

    def set_members(self, book: Mapping[NodeId, Address]) -> None:
        """The members and their peer addresses, as of now. Sessions with nodes that left are closed."""
        own = self._own().node
        self._book = {node: address for node, address in book.items() if node != own}
        for lane in Lane:
            for node, session in list(self._lanes[lane].items()):
                if node not in self._book:
                    session.close()
        self._dialler.set_targets(
            {
                (node, lane): address
                for node, address in self._book.items()
                for lane in Lane
                if own != NO_NODE and own < node
            }
        )

    def session(self, node: NodeId, lane: Lane) -> Session | None:
        """The open session with a node on a lane."""
        return self._lanes[lane].get(node)

    def lane(self, lane: Lane) -> Mapping[NodeId, Session]:
        """The open sessions of a lane: a live view, for the request path."""
        return self._lanes[lane]

    def connected(self, lane: Lane) -> tuple[NodeId, ...]:
        """The nodes there is a session with on this lane."""
        return tuple(self._lanes[lane])

    def problem(self, node: NodeId) -> str:
        """Why there is no session with a node that is ours to dial; "" when there is one, or nothing is known."""
        return "" if node in self._lanes[Lane.CONTROL] else self._dialler.problem((node, Lane.CONTROL))

    # -- sessions come and go

    def accepting(self) -> PeerAcceptor:
        """The near side of an incoming connection's handshake: for the peer port's `Acceptor`."""
        return PeerAcceptor(self._own(), self._secret, self._nonce(), self._admit)

    def adopt(self, session: Session) -> None:
        """An incoming session: for the peer port's `Acceptor`, as `on_session`."""
        assert isinstance(session.facts, PeerFacts)
        if session.facts.node != NO_NODE:
            self._up(session, session.facts)

    def on_closed(self, session: Session, error: LeafdbError | None) -> None:
        """A session has closed: for the peer port's `Acceptor`, and for sessions dialled here."""
        assert isinstance(session.facts, PeerFacts)
        node, lane = session.facts.node, session.facts.lane
        if isinstance(error, HandshakeRefused) and error.refusal in LASTING and node in self._book:
            self._on_refused(node)
        self._calls.lost(session, session.remote)
        if self._lanes[lane].get(node) is session:
            del self._lanes[lane][node]
            self._dialler.wake((node, lane))
            self._on_session_down(node, lane)

    def on_frame(self, session: Session, message_type: int, request_id: int, body: bytes) -> None:
        """A frame of any peer session: for the peer port's `Acceptor`, and for sessions dialled here."""
        if request_id >= CALL_ID_BASE and message_type in REPLY_TYPES:
            self._calls.answer(session, message_type, request_id, body)
        else:
            self._handler(session, message_type, request_id, body)

    def _up(self, session: Session, facts: PeerFacts) -> None:
        if session.closed:
            return
        older = self._lanes[facts.lane].pop(facts.node, None)
        if older is not None:
            older.close()
            self._on_session_down(facts.node, facts.lane)
        self._lanes[facts.lane][facts.node] = session
        self._on_session_up(facts.node, facts.lane)

    async def _dial(self, target: tuple[NodeId, Lane], address: Address) -> None:
        """One attempt of the dialler: returns when the session it made has ended; raises what made none."""
        node, lane = target
        try:
            session, frames = await self._connect(address, replace(self._own(), lane=lane), node)
        except HandshakeRefused as error:
            if error.refusal in LASTING:
                self._on_refused(node)
            raise
        assert isinstance(session.facts, PeerFacts)
        self._up(session, session.facts)
        session.begin(frames)
        while self._lanes[lane].get(node) is session:
            await self._dialler.woken(target)

    async def _connect(self, address: Address, own: PeerFacts, wanted: NodeId) -> tuple[Session, list[Frame]]:
        """A session with whoever answers at `address`, who must be `wanted` if that is a number."""

        def admit(facts: PeerFacts) -> str | None:
            if wanted == NO_NODE:
                return None  # whoever it is: it has proved that it knows the secret
            return self._admit(facts) if facts.node == wanted else Refusal.UNKNOWN_NODE

        with trio.fail_after(HANDSHAKE_TIMEOUT_S):
            stream = await self._network.dial(*address)
            connection, frames = await greet(stream, PeerDialer(own, self._secret, self._nonce(), admit))
        session = Session(stream, connection, self._pump, on_frame=self.on_frame, on_closed=self.on_closed)
        self._pump.attach(session)
        return session, frames

    # -- what is sent

    def send(self, node: NodeId, lane: Lane, frame: bytes) -> bool:
        """Queue a frame for a node; False when there is no session or its outbox is full."""
        session = self._lanes[lane].get(node)
        return session is not None and session.send(frame)

    def request(
        self, node: NodeId, lane: Lane, message_type: int, body: bytes, on_reply: OnReply, timeout_s: float
    ) -> bool:
        """Ask a node something; `on_reply` gets the answer's frame, or the error that came instead, exactly once and
        never from inside this call. False, and `on_reply` is not kept, when nothing was sent."""
        session = self._lanes[lane].get(node)
        return session is not None and self._ask(session, message_type, body, on_reply, timeout_s) is not None

    def _ask(self, session: Session, message_type: int, body: bytes, on_reply: OnReply, timeout_s: float) -> int | None:
        deadline = trio.current_time() + timeout_s
        earlier = deadline < self._calls.next_deadline()
        call_id = self._calls.open(session, on_reply, deadline)
        if call_id is None:
            return None
        if not session.send(encode_frame(message_type, call_id, body)):
            self._calls.forget(call_id)
            return None
        if earlier:
            self._calls_changed.set()
        return call_id

    async def call(self, node: NodeId, lane: Lane, message_type: int, body: bytes, timeout_s: float) -> Frame:
        """Ask a node something and wait for the answer. Raises ConnectFailed when there is no session, Overloaded when
        it is full, DeadlineExceeded, PeerLost, or what the peer answered."""
        session = self._lanes[lane].get(node)
        if session is None:
            raise ConnectFailed(self.problem(node) or f"there is no session with node {node}")
        return await self._call(session, message_type, body, timeout_s)

    async def call_stranger(
        self, address: Address, message_type: int, body: bytes, timeout_s: float, lane: Lane = Lane.CONTROL
    ) -> Frame:
        """Ask whoever listens at `address`, as a node without a number, over a connection for this call alone. Raises
        as `call` does, and HandshakeRefused."""
        with trio.move_on_after(timeout_s):
            own = replace(self._own(), lane=lane, node=NO_NODE, cluster_id=b"")
            try:
                session, frames = await self._connect(address, own, NO_NODE)
            except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
                attempts = {f"{address[0]}:{address[1]}": str(error)}
                raise ConnectFailed("the peer does not answer", attempts=attempts) from error
            try:
                session.begin(frames)
                return await self._call(session, message_type, body, timeout_s)
            finally:
                session.close()
        raise DeadlineExceeded("no answer in time", stage="connecting to a peer")

    async def _call(self, session: Session, message_type: int, body: bytes, timeout_s: float) -> Frame:
        replies: list[Reply] = []
        answered = trio.Event()

        def on_reply(reply: Reply) -> None:
            replies.append(reply)
            answered.set()

        call_id = self._ask(session, message_type, body, on_reply, timeout_s)
        if call_id is None:
            if session.closed:
                raise PeerLost("the session to this peer is gone", node=session.remote)
            raise Overloaded("too much is queued for this peer", retry_after=1.0)
        try:
            await answered.wait()
        finally:
            self._calls.forget(call_id)
        reply = replies[0]
        if isinstance(reply, LeafdbError):
            raise reply
        return reply

    async def _expire(self) -> None:
        while True:
            with trio.move_on_at(self._calls.next_deadline()):
                await self._calls_changed.wait()
            self._calls_changed = trio.Event()
            self._calls.expire(trio.current_time())

    def check(self) -> None:
        """Sessions are filed under who they are, and are open; targets are the higher members."""
        self._calls.check()
        self._dialler.check()
        for lane, sessions in self._lanes.items():
            for node, session in sessions.items():
                assert isinstance(session.facts, PeerFacts)
                assert (session.facts.node, session.facts.lane) == (node, lane)
                assert not session.closed
