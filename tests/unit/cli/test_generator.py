"""Promises of the load generator's loop, against a node in a thread: one request in flight each, contexts chained, no
two writes of one key at once, refusals counted and not hammered, big answers put together from pieces."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import pytest

from leafdb.client import bare
from leafdb.client.auth import Scram, Token
from leafdb.errors import ConfigError, ConnectFailed, LeafdbError, NotApplied, Reason
from leafdb.limits import SCRAM_ITERATIONS_MIN
from leafdb.model.bucket import BucketProperties
from leafdb.model.scram import Verifier, verifier_of
from leafdb.types import BucketId, Conflict, Epoch, NodeId
from leafdb.wire.connection import Connection
from leafdb.wire.errors import encode_error
from leafdb.wire.frame import Frame, encode_frame
from leafdb.wire.handshake import ServerHello
from leafdb.wire.hello import ServerFacts
from leafdb.wire.login import Gate, Mechanism, wanted
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_BLIND, decode_get, decode_put, encode_get_reply, encode_put_reply
from leafdb_cli.workloads.connections import Connections, Manner
from leafdb_cli.workloads.generator import Generator
from leafdb_cli.workloads.keyspace import Keyspace
from leafdb_cli.workloads.mixes import MIXES, Mix

ACTOR = bytes(14)
KEYS = 40


class Node:
    """Answers puts and gets from a dict. `chops` sends byte by byte; `refuse` says which requests to refuse."""

    def __init__(
        self,
        *,
        chops: bool = False,
        refuse: Callable[[int], bool] = lambda count: False,
        gate: Gate | None = None,
    ) -> None:
        self.values: dict[bytes, tuple[bytes, bytes]] = {}
        self.puts = 0
        self.gets = 0
        self.flying_max = 0
        self.stale = 0
        self._chops = chops
        self._refuse = refuse
        self._gate = gate
        self._count = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        accepting = threading.Thread(target=self._accept, daemon=True)
        accepting.start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        facts = ServerFacts(node=NodeId(1), name="n", cluster="c", cluster_id=bytes(16), epoch=Epoch(1))
        connection = Connection(ServerHello(facts, gate=self._gate))
        with sock:
            while True:
                try:
                    data = sock.recv(65536)
                    if not data:
                        return
                    try:
                        frames = connection.receive(data)
                    except LeafdbError as error:
                        sock.sendall(connection.farewell(error))
                        return
                    with self._lock:
                        self.flying_max = max(self.flying_max, len(frames))
                        answer = connection.take_output() + b"".join(self._answer(frame) for frame in frames)
                    if self._chops:
                        for index in range(len(answer)):
                            sock.sendall(answer[index : index + 1])
                    else:
                        sock.sendall(answer)
                except OSError:
                    return

    def _answer(self, frame: Frame) -> bytes:
        self._count += 1
        if self._refuse(self._count):
            body = encode_error(NotApplied("no", reason=Reason.NOT_ENOUGH_REPLICAS))
            return encode_frame(MessageType.ERROR, frame.request_id, body)
        if frame.type == MessageType.PUT:
            put = decode_put(frame.body)
            self.puts += 1
            _, current = self.values.get(put.key, (b"", b""))
            if put.context != current or bool(put.flags & FLAG_BLIND) != (not current):
                self.stale += 1
            context = struct.pack(">Q", self._count)
            self.values[put.key] = (put.value, context)
            return encode_frame(MessageType.PUT_REPLY, frame.request_id, encode_put_reply(1, 2, 2, context))
        get = decode_get(frame.body)
        self.gets += 1
        value, context = self.values.get(get.key, (b"", b""))
        siblings = [(ACTOR, 1, 0, value)] if context else []
        return encode_frame(MessageType.GET_REPLY, frame.request_id, encode_get_reply(1, context, siblings))


class Door:
    """A gate that knows alice."""

    def __init__(self) -> None:
        self.let_in = 0

    def anonymous(self) -> None:
        raise wanted()

    def begin(self, mechanism: str) -> None:
        """Welcome."""

    def hold_up(self) -> None:
        """Never."""

    def nonce(self) -> str:
        return "node"

    def verifier(self, user: str) -> Verifier:
        return verifier_of(b"pencil", b"s" * 16, SCRAM_ITERATIONS_MIN)

    def by_password(self, user: str) -> object:
        self.let_in += 1
        return user

    def by_token(self, text: str) -> tuple[object, str]:
        return None, ""

    def failed(self, mechanism: Mechanism, user: str) -> None:
        """No matter."""


def test_every_connection_logs_in() -> None:
    door = Door()
    node = Node(gate=door)
    try:
        links = Connections([node.address], 3, 1, Manner(auth=Scram("alice", "pencil")))
        links.close()
        assert door.let_in == 3
        for auth, told in ((None, "asks who you are"), (Scram("alice", "pen"), "rejected"), (Token("x"), "rejected")):
            with pytest.raises(NotApplied, match=told):
                Connections([node.address], 1, 1, Manner(auth=auth))
        with pytest.raises(ConfigError, match="over TLS"):
            Connections([("10.255.255.1", 1)], 1, 1, Manner(auth=Token("x")))
    finally:
        node.close()


@contextmanager
def generator(node: Node, connections: int = 8, lanes: int = 1) -> Iterator[tuple[Generator, Keyspace]]:
    wire = BucketProperties(id=BucketId(300), name="b", generation=1, conflict=Conflict.SIBLINGS).to_wire()
    bucket = bare.Bucket(wire, epoch=1, r=2, w=2, deadline_ms=1000)
    address = f"{node.address[0]}:{node.address[1]}"

    class Everywhere(bare.Placement):
        def __init__(self) -> None:
            self.epoch = 1

        def primaries(self, bucket: bare.Bucket, encoded_key: bytes) -> tuple[str, ...]:
            return (address,)

    keys = Keyspace(bucket, Everywhere(), [address], KEYS)
    links = Connections([node.address], connections, lanes)
    try:
        yield Generator(links, bucket, keys, 100, Random(1)), keys
    finally:
        links.close()
        node.close()


def quiet(done: int) -> None:
    """Nobody watches."""


def test_preloading_puts_every_key_once() -> None:
    node = Node()
    with generator(node, lanes=4) as (load, keys):
        load.preload(quiet)
        assert node.puts == len(node.values) == KEYS
        assert all(keys.contexts)
        assert not any(keys.busy)
        assert {len(value) for value, _ in node.values.values()} == {100}


@pytest.mark.parametrize("name", ["put", "mixed", "ycsb-a", "ycsb-d", "ycsb-f"])
def test_a_run_chains_contexts_and_makes_no_siblings(name: str) -> None:
    node = Node()
    with generator(node) as (load, keys):
        load.preload(quiet)
        load.run(MIXES[name], 0.15, quiet)
        load.drain()
        assert load.histogram.count > 0
        assert not load.errors
        assert node.stale == 0, "every put came after the last one of its key"
        assert node.flying_max == 1, "one request in flight on each connection"
        assert not any(keys.busy)


def test_the_shares_of_a_mix_are_kept() -> None:
    node = Node()
    with generator(node) as (load, _):
        load.preload(quiet)
        before = node.puts
        load.run(MIXES["ycsb-b"], 0.3, quiet)
        load.drain()
        share = (node.puts - before) / (node.puts - before + node.gets)
        assert 0.01 < share < 0.12


def test_refusals_are_counted_and_do_not_end_a_run() -> None:
    node = Node(refuse=lambda count: count > 2 * KEYS and count % 10 == 0)
    with generator(node) as (load, keys):
        load.preload(quiet)
        load.run(MIXES["put"], 0.2, quiet)
        load.drain()
        assert load.errors["not_enough_replicas"] > 0
        assert set(load.errors) == {"not_enough_replicas"}
        assert node.stale == 0
        assert not any(keys.busy)


def test_preloading_tries_again_what_was_refused() -> None:
    node = Node(refuse=lambda count: count < KEYS // 2)
    with generator(node) as (load, _):
        load.preload(quiet)
        assert len(node.values) == KEYS


def test_answers_in_pieces() -> None:
    node = Node(chops=True)
    with generator(node, connections=2, lanes=3) as (load, _):
        load.preload(quiet)
        load.run(Mix("get", get=1.0), 0.1, quiet)
        assert load.histogram.count > 0
        assert not load.errors


def test_a_node_that_hangs_up_ends_the_run_with_its_name_in_the_error() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()

    def hang_up() -> None:
        sock, _ = listener.accept()
        sock.close()

    thread = threading.Thread(target=hang_up, daemon=True)
    thread.start()
    with pytest.raises(ConnectFailed, match=str(address[1])):
        Connections([address], 1, 1)
    thread.join(5)
    listener.close()
    with pytest.raises(ConnectFailed, match=str(address[1])):
        Connections([address], 1, 1)
