"""News of newer metadata: who has it, and fetching it from them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from leafdb.errors import LeafdbError
from leafdb.node.logs import Log
from leafdb.node.register import FETCH_TIMEOUT_S, Register
from leafdb.node.view import ClusterView
from leafdb.transport.calls import Reply
from leafdb.transport.peers import Peers
from leafdb.transport.session import Session
from leafdb.types import NodeId
from leafdb.wire.control import MetadataFetch
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import Lane, MessageType

log: Log = Log("news")


class News:
    """Fetches metadata from peers: from one that showed a newer epoch, or from all when a request knows more."""

    def __init__(self, view: ClusterView, register: Register, peers: Peers) -> None:
        self._view = view
        self._register = register
        self._peers = peers
        self._asking: set[NodeId] = set()

    def behind(self, node: NodeId) -> None:
        """`node` has shown a newer epoch than ours."""
        if node not in self._asking:
            self._ask(node, None)

    def is_there(self, node: NodeId, told: Callable[[bool], None]) -> bool:
        """Ask a peer anything at all: `told` hears whether it answered in time. False when it cannot be asked."""
        body = MetadataFetch(self._view.epoch).encode()

        def on_reply(reply: Reply) -> None:
            told(not isinstance(reply, LeafdbError))

        return self._peers.request(node, Lane.CONTROL, MessageType.METADATA_FETCH, body, on_reply, FETCH_TIMEOUT_S)

    def fetch(self, done: Callable[[], None]) -> None:
        """Ask every peer there is a session with; `done` once all have answered or failed, also when there is none."""
        nodes = self._peers.connected(Lane.CONTROL)
        left = [len(nodes) + 1]

        def one_less() -> None:
            left[0] -= 1
            if not left[0]:
                done()

        for node in nodes:
            self._ask(node, one_less)
        self._register.soon(one_less)

    def on_fetch(self, session: Session, node: NodeId, request_id: int, body: bytes) -> None:
        """A METADATA_FETCH of a peer."""
        session.send(encode_frame(MessageType.METADATA_REPLY, request_id, self._register.on_fetch(node, body)))

    def _ask(self, node: NodeId, done: Callable[[], None] | None, *, whole: bool = False) -> None:
        body = MetadataFetch(0 if whole else self._view.epoch).encode()
        on_reply = partial(self._answered, node, done)
        if self._peers.request(node, Lane.CONTROL, MessageType.METADATA_FETCH, body, on_reply, FETCH_TIMEOUT_S):
            self._asking.add(node)
        elif done is not None:
            done()

    def _answered(self, node: NodeId, done: Callable[[], None] | None, reply: Reply) -> None:
        self._asking.discard(node)
        if isinstance(reply, LeafdbError):
            log.debug("metadata could not be fetched", member=self._view.name_of(node), reason=str(reply))
            if done is not None:
                done()
            return
        if not self._register.on_fetched(reply.body, done):
            self._ask(node, done, whole=True)
