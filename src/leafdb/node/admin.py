"""Admin verbs: what clients and the command line ask about the cluster, and change in it.

A verb is an async function of (node, arguments) that answers a map. Cluster verbs answer for all members: they run the
like-named local verb on every member over the control lanes and put those that did not answer under `errors`, with the
reason. Everything here is off the request path: each request is a task, and there are never more than VERBS_MAX of
clients, nor of peers. Each has places of its own: else clients that wait for a change of the ring would keep out the
peers whose answers it waits for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from leafdb.config import parse_address
from leafdb.errors import LeafdbError, NotApplied, Overloaded, Reason
from leafdb.node.logs import Log
from leafdb.transport.session import Session
from leafdb.types import NodeId
from leafdb.wire.body import decode_map, encode_map
from leafdb.wire.control import AdminRequest
from leafdb.wire.errors import encode_error
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import Lane, MessageType

if TYPE_CHECKING:
    from leafdb.node.node import Node

VERBS_MAX: Final = 64
PEER_TIMEOUT_S: Final = 3.0

log: Log = Log("admin")

Verb = Callable[["Node", Mapping[str, Any]], Awaitable[dict[str, Any]]]


class _Table:
    """Verbs, and how many of them run."""

    def __init__(self, verbs: Mapping[str, Verb]) -> None:
        self.verbs = dict(verbs)
        self.running = 0


class Admin:
    """The tables of verbs and the tasks that run them."""

    def __init__(self, node: Node, verbs: Mapping[str, Verb], peer_verbs: Mapping[str, Verb]) -> None:
        self._node = node
        self._clients = _Table(verbs)
        self._peers = _Table(peer_verbs)
        self._nursery: trio.Nursery | None = None
        self._alone: set[str] = set()

    @property
    def running(self) -> int:
        """Verbs that clients wait for."""
        return self._clients.running

    def begin_alone(self, what: str) -> bool:
        """Whether nobody does this at the moment; then the caller does, until `end_alone`."""
        if what in self._alone:
            return False
        self._alone.add(what)
        return True

    def end_alone(self, what: str) -> None:
        """Somebody else may."""
        self._alone.remove(what)

    async def run(self) -> None:
        """Own the tasks of verbs until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None  # before it closes: a request may come in this very moment

    def on_request(self, session: Session, request_id: int, body: bytes) -> None:
        """An ADMIN frame of a client."""
        answer = partial(self._answer, session, MessageType.ADMIN_REPLY, request_id)
        self._begin(self._clients, AdminRequest.decode(body), answer)

    def on_peer_request(self, session: Session, _: NodeId, request_id: int, body: bytes) -> None:
        """A PEER_ADMIN frame of another node."""
        answer = partial(self._answer, session, MessageType.PEER_ADMIN_REPLY, request_id)
        self._begin(self._peers, AdminRequest.decode(body), answer)

    def _begin(
        self, table: _Table, request: AdminRequest, answer: Callable[[dict[str, Any] | LeafdbError], None]
    ) -> None:
        verb = table.verbs.get(request.verb)
        if verb is None:
            answer(NotApplied(f"this version has no admin verb {request.verb!r}", reason=Reason.UNSUPPORTED))
        elif self._nursery is None or table.running >= VERBS_MAX:
            answer(Overloaded("too many admin verbs are running", retry_after=1.0))
        else:
            table.running += 1
            self._nursery.start_soon(self._run, table, verb, request, answer, name=f"admin {request.verb}")

    async def _run(
        self, table: _Table, verb: Verb, request: AdminRequest, answer: Callable[[dict[str, Any] | LeafdbError], None]
    ) -> None:
        node = self._node
        began = node.world.now()
        try:
            answer(await verb(node, request.args))
            if table is self._clients:
                node.metrics.admin_duration.observe(node.world.now() - began)
        except LeafdbError as error:
            answer(error)
        except (KeyError, TypeError, ValueError) as error:
            problem = f"{request.verb}: {type(error).__name__}: {error}"
            answer(NotApplied(problem, reason=Reason.BAD_REQUEST))
        finally:
            table.running -= 1

    def _answer(
        self, session: Session, number: MessageType, request_id: int, reply: dict[str, Any] | LeafdbError
    ) -> None:
        self._node.metrics.admin_total += 1
        name = self._node.config.node.name
        if isinstance(reply, LeafdbError):
            session.send(encode_frame(MessageType.ERROR, request_id, encode_error(reply, node=name)))
        else:
            session.send(encode_frame(number, request_id, encode_map(reply)))


async def ask_member(
    node: Node, member: NodeId, verb: str, args: Mapping[str, Any], timeout_s: float = PEER_TIMEOUT_S
) -> Mapping[str, Any]:
    """Run a peer verb on one other member. Raises LeafdbError."""
    body = AdminRequest(verb, args).encode()
    frame = await node.peers.call(member, Lane.CONTROL, MessageType.PEER_ADMIN, body, timeout_s)
    return decode_map(frame.body, f"the answer to {verb}")


async def ask_stranger(
    node: Node, address: str, verb: str, args: Mapping[str, Any], timeout_s: float
) -> Mapping[str, Any]:
    """Run a peer verb on whoever listens at a peer address, member or not. Raises LeafdbError, and ValueError for what
    is no address."""
    host, port = parse_address(address)
    body = AdminRequest(verb, args).encode()
    frame = await node.peers.call_stranger((host, port), MessageType.PEER_ADMIN, body, timeout_s)
    return decode_map(frame.body, f"the answer to {verb}")


async def gather(
    node: Node, verb: str, local: Verb, args: Mapping[str, Any], timeout_s: float = PEER_TIMEOUT_S
) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
    """Run a peer verb on every member, this one included: answers and errors, by member name, in order of numbers."""
    metadata = node.view.metadata
    if metadata is None:
        raise NotApplied("this node is not part of a cluster yet", reason=Reason.NOT_READY)
    answers: dict[NodeId, Mapping[str, Any]] = {}
    errors: dict[NodeId, str] = {}

    async def ask(member: NodeId) -> None:
        try:
            if member == node.view.self_id:
                answers[member] = await local(node, args)
            else:
                answers[member] = await ask_member(node, member, verb, args, timeout_s)
        except LeafdbError as error:
            errors[member] = node.belonging.why_absent(member) or str(error)

    async with trio.open_nursery() as nursery:
        for member in metadata.members:
            nursery.start_soon(ask, member)
    name = node.view.name_of
    return (
        {name(member): answers[member] for member in sorted(answers)},
        {name(member): errors[member] for member in sorted(errors)},
    )
