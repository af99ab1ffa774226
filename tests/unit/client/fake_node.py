"""A small node for the client's tests: the real wire, a toy store, and a script of misbehaviour.

Every node of a `FakeCluster` shares one store, so any may answer. A value's dot is one global count and a context the
list of dots seen: enough for siblings, deletions and last-writer-wins to behave as they should. With
`script(type, *actions)` the next messages of that type meet an action instead of the usual answer.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Literal

from leafdb.client.url import Address
from leafdb.errors import LeafdbError, NotApplied, ProtocolError, Reason
from leafdb.explanation import Explanation, Policy, Replica, Status
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import encode_key, partition_part
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata, found
from leafdb.ring.ring import Ring
from leafdb.ring.token import storage_key, token_of
from leafdb.types import Conflict, NodeId
from leafdb.wire import explanations
from leafdb.wire.body import encode_map
from leafdb.wire.connection import Connection
from leafdb.wire.control import AdminRequest, ScanReply, ScanRequest
from leafdb.wire.errors import encode_error
from leafdb.wire.frame import Frame, encode_frame
from leafdb.wire.handshake import ServerHello
from leafdb.wire.hello import ServerFacts
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import (
    FLAG_DELETE,
    FLAG_EXPLAIN,
    FLAG_LWW,
    decode_get,
    decode_put,
    encode_get_reply,
    encode_put_reply,
)

STAMP = 1_700_000_000_000 << 16
Records = dict[tuple[int, bytes], dict[int, bytes | None]]


class Session:
    """One accepted connection."""

    def __init__(self, node: FakeNode, sock: socket.socket) -> None:
        self.node = node
        self.socket = sock
        self._lock = threading.Lock()

    def send(self, message_type: int, request_id: int, body: bytes) -> None:
        self.send_raw(encode_frame(message_type, request_id, body))

    def send_raw(self, data: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):
            self.socket.sendall(data)

    def refuse(self, request_id: int, error: LeafdbError) -> None:
        self.send(MessageType.ERROR, request_id, encode_error(error, node=self.node.name))

    def hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def serve(self) -> None:
        wire = Connection(ServerHello(self.node.facts()))
        try:
            while data := self.socket.recv(65_536):
                while self.node.frozen.is_set():
                    time.sleep(0.005)
                frames = wire.receive(data)
                self.send_raw(wire.take_output())
                for frame in frames:
                    self.node.handle(self, frame)
        except (OSError, ProtocolError):
            pass
        finally:
            self.socket.close()


Action = Callable[[Session, Frame], None]


def refuse(error: LeafdbError) -> Action:
    """Answer with an error."""
    return lambda session, frame: session.refuse(frame.request_id, error)


def silence(session: Session, frame: Frame) -> None:
    """Never answer."""


def hang_up(session: Session, frame: Frame) -> None:
    """Close the connection instead of answering."""
    session.hang_up()


def carry_out_and_hang_up(session: Session, frame: Frame) -> None:
    """Do what is asked and close the connection before saying so."""
    session.node.cluster.reply_to(frame)
    session.hang_up()


def when(event: threading.Event) -> Action:
    """Answer as usual, but only once `event` is set."""

    def act(session: Session, frame: Frame) -> None:
        def wait() -> None:
            event.wait(10.0)
            session.node.answer(session, frame)

        threading.Thread(target=wait, daemon=True).start()

    return act


class FakeNode:
    """A listener on a free loopback port."""

    def __init__(self, cluster: FakeCluster, node_id: int) -> None:
        self.cluster = cluster
        self.id = node_id
        self.name = f"node-{node_id}"
        self.log: list[Frame] = []
        self.sessions: list[Session] = []
        self.frozen = threading.Event()
        """While set it takes connections and bytes and answers nothing, like a stopped process."""
        self._script: defaultdict[int, deque[Action]] = defaultdict(deque)
        self._listener: socket.socket | None = None
        self.address = self.start()

    def start(self) -> Address:
        host = self.cluster.host
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        port = self.address.port if self._listener is not None else 0
        listener = socket.create_server((host, port), family=family)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return Address(*listener.getsockname()[:2])

    def stop(self) -> None:
        """As a killed process: nobody listens, every connection ends."""
        assert self._listener is not None
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.frozen.clear()
        for session in self.sessions:
            session.hang_up()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                session = Session(self, sock)
                self.sessions.append(session)
                threading.Thread(target=session.serve, daemon=True).start()

    def facts(self) -> ServerFacts:
        metadata = self.cluster.metadata
        return ServerFacts(
            NodeId(self.id), self.name, metadata.cluster_name, metadata.cluster_id, self.cluster.facts_epoch()
        )

    def script(self, message_type: int, *actions: Action) -> None:
        """What the next messages of a type meet, in order."""
        self._script[message_type].extend(actions)

    def asked(self, message_type: int) -> list[Frame]:
        """The frames of a type that came."""
        return [frame for frame in self.log if frame.type == message_type]

    def handle(self, session: Session, frame: Frame) -> None:
        self.log.append(frame)
        script = self._script[frame.type]
        if script:
            script.popleft()(session, frame)
        else:
            self.answer(session, frame)

    def answer(self, session: Session, frame: Frame) -> None:
        try:
            reply_type, body = self.cluster.reply_to(frame)
        except LeafdbError as error:
            session.refuse(frame.request_id, error)
        else:
            session.send(reply_type, frame.request_id, body)


class FakeCluster:
    """Nodes over one store. A context manager: nothing listens after the block."""

    def __init__(self, *, cluster_id: bytes = b"c" * 16, host: str = "127.0.0.1") -> None:
        self.host = host
        self.lock = threading.Lock()
        self.records: Records = {}
        self.dots = 0
        self.applied: dict[bytes, bytes] = {}
        """What each write was answered, by its operation id."""
        self.in_cluster = True
        self.cluster_id = cluster_id
        self.nodes: list[FakeNode] = []
        self.metadata: ClusterMetadata
        self.grow(1)

    def grow(self, nodes: int, *, zones: tuple[str, ...] = ()) -> None:
        """Found the cluster anew, with so many nodes and no bucket."""
        while len(self.nodes) < nodes:
            self.add_node()
        members = [_member(node.id, node.address, zones[at] if zones else "") for at, node in enumerate(self.nodes)]
        self.metadata = found("fake", self.cluster_id, members, partitions=16)

    def add_node(self) -> FakeNode:
        """A node that answers like the others and owns nothing."""
        node = FakeNode(self, len(self.nodes) + 1)
        self.nodes.append(node)
        return node

    def owners(self, bucket: BucketProperties, key: bytes) -> list[int]:
        """The primaries of an encoded key."""
        ring = Ring(self.metadata)
        return list(ring.primaries(ring.partition_of(token_of(bucket.id, partition_part(key))), bucket.n))

    def verbs(self) -> list[str]:
        """The admin verbs that came, to any node."""
        return [AdminRequest.decode(frame.body).verb for frame in self.asked(MessageType.ADMIN)]

    def __enter__(self) -> FakeCluster:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.stop()

    @property
    def url(self) -> str:
        """All addresses."""
        return "leafdb://" + ",".join(str(node.address) for node in self.nodes)

    @property
    def node(self) -> FakeNode:
        """The first node."""
        return self.nodes[0]

    def facts_epoch(self) -> Any:
        return self.metadata.epoch if self.in_cluster else 0

    def asked(self, message_type: int) -> list[Frame]:
        """The frames of a type that came to any node."""
        return [frame for node in self.nodes for frame in node.asked(message_type)]

    def create(self, name: str, **properties: Any) -> BucketProperties:
        """A bucket, without a client."""
        wanted = BucketProperties(id=self.metadata.next_bucket_id, name=name, generation=0, **properties)
        self.metadata = self.metadata.create_bucket(wanted, exist_ok=True)
        bucket = self.metadata.bucket_named(name)
        assert bucket is not None
        return bucket

    def reply_to(self, frame: Frame) -> tuple[MessageType, bytes]:
        with self.lock:
            if frame.type == MessageType.GET:
                if decode_get(frame.body).flags & FLAG_EXPLAIN:
                    return MessageType.GET_EXPLAINED, explanations.join(_explained("get"), self._get(frame.body))
                return MessageType.GET_REPLY, self._get(frame.body)
            if frame.type == MessageType.PUT:
                if decode_put(frame.body).flags & FLAG_EXPLAIN:
                    return MessageType.PUT_EXPLAINED, explanations.join(_explained("put"), self._put(frame.body))
                return MessageType.PUT_REPLY, self._put(frame.body)
            if frame.type == MessageType.SCAN:
                return MessageType.SCAN_REPLY, self._scan(ScanRequest.decode(frame.body))
            request = AdminRequest.decode(frame.body)
            return MessageType.ADMIN_REPLY, encode_map(self._admin(request.verb, dict(request.args)))

    def _bucket(self, bucket_id: int, generation: int) -> BucketProperties:
        for bucket in self.metadata.buckets.values():
            if bucket.id == bucket_id and bucket.generation == generation:
                return bucket
        raise NotApplied(f"no bucket has the number {bucket_id}", reason=Reason.NO_SUCH_BUCKET)

    def _get(self, body: bytes) -> bytes:
        request = decode_get(body)
        self._bucket(request.bucket_id, request.generation)
        return self._reply(self.records.get((request.bucket_id, request.key), {}))

    def _reply(self, record: dict[int, bytes | None]) -> bytes:
        siblings = [
            (b"actor-of-14-by", dot, STAMP + (dot << 16), value)
            for dot, value in sorted(record.items())
            if value is not None
        ]
        return encode_get_reply(self.metadata.epoch, _context(record), siblings)

    def _put(self, body: bytes) -> bytes:
        request = decode_put(body)
        bucket = self._bucket(request.bucket_id, request.generation)
        if bool(request.flags & FLAG_LWW) != (bucket.conflict is Conflict.LWW):
            raise NotApplied("the other kind of handle", reason=Reason.WRONG_BUCKET_KIND)
        if request.op_id in self.applied:
            return self.applied[request.op_id]
        record = self.records.setdefault((request.bucket_id, request.key), {})
        seen = {int(dot) for dot in request.context.split(b",") if dot}
        for dot in list(record):
            if dot in seen or bucket.conflict is Conflict.LWW:
                del record[dot]
        self.dots += 1
        record[self.dots] = None if request.flags & FLAG_DELETE else request.value
        reply = encode_put_reply(self.metadata.epoch, 2, 2, _context(dict.fromkeys([*seen, self.dots])))
        self.applied[request.op_id] = reply
        return reply

    def _scan(self, request: ScanRequest) -> bytes:
        bucket = self._bucket(request.bucket_id, request.generation)
        found_keys = sorted(
            (storage_key(bucket.id, key), record)
            for (bucket_id, key), record in self.records.items()
            if bucket_id == bucket.id
        )
        inside = [
            (key, record)
            for key, record in found_keys
            if request.start <= key and (not request.stop or key < request.stop)
        ]
        if request.reverse:
            inside.reverse()
        page, rest = inside[: request.limit], inside[request.limit :]
        items = tuple((key, self._reply(record)) for key, record in page)
        return ScanReply(items, rest[0][0] if rest else b"", self.metadata.epoch).encode()

    def _admin(self, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        match verb:
            case "ping":
                return {"node": 1, "name": "node-1", "epoch": self.metadata.epoch}
            case "ring":
                if not self.in_cluster:
                    raise NotApplied("in no cluster", reason=Reason.NOT_READY)
                return {"epoch": self.metadata.epoch, "metadata": self.metadata.encode()}
            case "status":
                return {
                    "cluster": "fake", "epoch": self.metadata.epoch, "healthy": True, "nodes_up": len(self.nodes),
                    "nodes_total": len(self.nodes), "hints_pending": 0, "repair_pending": 0, "problems": [],
                    "errors": {},
                }  # fmt: skip
            case "bucket.get":
                return self._named(args["name"]).to_wire()
            case "bucket.list":
                return {"buckets": [bucket.to_wire() for bucket in self.metadata.buckets.values()]}
            case "bucket.create":
                wanted = BucketProperties.from_wire(args["properties"])
                self.metadata = self.metadata.create_bucket(wanted, exist_ok=args["exist_ok"])
                return self._named(wanted.name).to_wire()
            case "bucket.drop":
                self.metadata = self.metadata.drop_bucket(self._named(args["name"]).id)
                return {}
            case "outcome":
                return self._outcome(bytes(args["op_id"]))
        raise NotApplied(f"no such verb {verb!r}", reason=Reason.UNSUPPORTED)

    def _outcome(self, op_id: bytes) -> dict[str, Any]:
        bucket = next(iter(self.metadata.buckets.values()), None)
        if op_id not in self.applied or bucket is None:
            return {"outcome": "unknown", "replicas": [], "replaced": False, "errors": {"node-9": "away"}}
        return {
            "outcome": "applied", "bucket": bucket.name, "key": encode_key("k"), "context": b"1",
            "replicas": ["node-1"], "replaced": True, "errors": {},
        }  # fmt: skip

    def _named(self, name: str) -> BucketProperties:
        bucket = self.metadata.bucket_named(name)
        if bucket is None:
            raise NotApplied(f"no bucket is called {name!r}", reason=Reason.NO_SUCH_BUCKET)
        return bucket


def _context(record: dict[int, Any]) -> bytes:
    return b",".join(b"%d" % dot for dot in sorted(record))


def _member(number: int, address: Address, zone: str) -> ProposedMember:
    return ProposedMember(
        name=f"node-{number}",
        host=f"host-{number}",
        zone=zone,
        client_address=str(address),
        peer_address=str(address),
    )


@contextlib.contextmanager
def dead_address() -> Iterator[Address]:
    """An address nobody listens on, kept from being given to anybody else meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield Address(*sock.getsockname())


def _explained(operation: Literal["get", "put"]) -> bytes:
    """One replica answered and counts."""
    status = Status.FOUND if operation == "get" else Status.APPLIED
    replica = Replica("node-1", "primary", status, cause="first", asked_ms=0.0, answered_ms=0.5, counted=True)
    policy = Policy(n=1, r=1) if operation == "get" else Policy(n=1, w=1)
    return explanations.encode(
        Explanation(operation, True, "b", "node-1", (), "", 1, 1, 0, policy, None, (replica,), 0, None, 1.0, ())
    )
