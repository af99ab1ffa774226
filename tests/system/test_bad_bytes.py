"""Garbage on every port of a node: its connection ends with a typed error, the counter rises, all others are served."""

from __future__ import annotations

import random
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from leafdb.codec import cbor
from leafdb.errors import ProtocolError
from leafdb.limits import FRAME_BYTES_MAX, FRAME_BYTES_MAX_UNAUTHENTICATED
from leafdb.wire.errors import HandshakeRefused
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import FIRST_PEER_TYPE, KNOWN_TYPES, MessageType
from support.frame_fuzz import Side, cut, honest, spoil
from support.processes import Cluster, eventually
from support.raw_wire import HELLO, RawConnection, Witness, metric

pytestmark = pytest.mark.system

SEED = 20_261_121


@pytest.fixture
def witness(cluster: Cluster) -> Iterator[Witness]:
    """Looks on during each test, and is served all the time."""
    pids = [cluster.pid(node.index) for node in cluster.nodes]
    with Witness(cluster) as witness:
        eventually("the witness is served", lambda: witness.rounds)
        yield witness
        rounds = witness.rounds
        eventually("the witness is served still", lambda: witness.rounds > rounds)
    assert [cluster.pid(node.index) for node in cluster.nodes] == pids
    assert all(cluster.runs(node.index) for node in cluster.nodes)


def header(length: int, message_type: int = MessageType.PUT, flags: int = 0, request_id: int = 1) -> bytes:
    """The head of a frame, with a checksum that fits nothing."""
    return struct.pack(">IIBBQ", length, 0, message_type, flags, request_id)


def damaged(frame: bytes) -> bytes:
    """A frame whose last byte has changed on the way."""
    return frame[:-1] + bytes([frame[-1] ^ 1])


def test_random_bytes_end_the_connection_that_sent_them(cluster: Cluster, witness: Witness) -> None:
    rng = random.Random(SEED)
    print("seed", SEED)
    node = cluster.nodes[0]
    for number in range(60):
        data = rng.randbytes(rng.choice((1, 17, 18, 19, 100, 5_000, 100_000)))
        with RawConnection(node.ports[number % 3]) as connection:
            connection.send(data)
            with suppress(OSError):  # the node may have hung up before
                connection.socket.shutdown(1)  # so that a beginning that could go on is an end
            connection.everything()
    for _ in range(40):
        with RawConnection.client(node.client_port) as connection:
            connection.send(rng.randbytes(rng.choice((18, 100, 5_000))))
            with suppress(OSError):
                connection.socket.shutdown(1)
            connection.everything()


def test_bytes_that_are_no_frames_are_answered_with_what_is_wrong(cluster: Cluster, witness: Witness) -> None:
    node = cluster.nodes[0]
    before = metric(node.http_port, "leafdb_protocol_errors_total")
    ping = encode_frame(MessageType.PING, 1, b"")
    cases = [
        (header(FRAME_BYTES_MAX + 1), "over the bound"),
        (header(0xFFFFFFFF), "over the bound"),
        (header(0, 0xEE), "unknown message type"),
        (header(0, flags=1), "unknown message type"),
        (damaged(encode_frame(MessageType.GET, 1, b"x" * 40)), "checksum"),
        (encode_frame(MessageType.GET, 1, b"short"), ""),
        (encode_frame(MessageType.PUT, 1, b""), ""),
        (encode_frame(MessageType.ADMIN, 1, b"\xff\xff"), ""),
        (encode_frame(MessageType.ADMIN, 1, cbor.dumps([1, 2])), ""),
        (encode_frame(MessageType.SCAN, 1, cbor.dumps({"bucket": "x"})), ""),
        (encode_frame(MessageType.ADMIN, 1, b"\x81" * 100 + b"\x00"), ""),
        (encode_frame(MessageType.HELLO, 0, b""), "not allowed"),
    ]
    for data, words in cases:
        with RawConnection.client(node.client_port) as connection:
            connection.send(ping)
            pong = connection.frame()
            assert pong is not None
            assert pong.type == MessageType.PONG
            connection.send(data)
            error = connection.last_words()
            assert isinstance(error, ProtocolError), data[:40]
            assert words in str(error), data[:40]
    assert metric(node.http_port, "leafdb_protocol_errors_total") >= before + len(cases)


def test_a_client_may_not_speak_as_a_peer(cluster: Cluster, witness: Witness) -> None:
    node = cluster.nodes[1]
    for number in sorted(number for number in KNOWN_TYPES if number >= FIRST_PEER_TYPE):
        with RawConnection.client(node.client_port) as connection:
            connection.send(encode_frame(number, 1, cbor.dumps({})))
            error = connection.last_words()
            assert isinstance(error, ProtocolError)
            assert MessageType(number).name in str(error)
            assert "not allowed" in str(error)


def test_the_wrong_port_is_said_to_be_wrong_and_strangers_prove_nothing(cluster: Cluster, witness: Witness) -> None:
    node = cluster.nodes[1]
    before = metric(node.http_port, "leafdb_handshakes_failed_total")
    with RawConnection(node.peer_port) as connection:
        connection.send(HELLO)
        error = connection.last_words()
        assert isinstance(error, HandshakeRefused)
        assert error.refusal == "wrong_port"
        assert "client port" in str(error)
    # What a peer says first, with a proof that is none.
    hello = {
        "kind": "peer", "min": 1, "max": 1, "cluster_id": b"", "node": 1, "incarnation": 0, "boot": 1,
        "nonce": bytes(16), "boot_nonce": bytes(16), "epoch": 1, "lane": 1,
    }  # fmt: skip
    peer_hello = encode_frame(MessageType.HELLO, 0, cbor.dumps(hello))
    with RawConnection(node.client_port) as connection:
        connection.send(peer_hello)
        error = connection.last_words()
        assert isinstance(error, HandshakeRefused)
        assert error.refusal == "wrong_port"
    for proof in (bytes(32), b"", b"\x01" * 32):
        with RawConnection(node.peer_port) as connection:
            connection.send(peer_hello)
            challenge = connection.frame()
            assert challenge is not None
            assert challenge.type == MessageType.CHALLENGE
            connection.send(encode_frame(MessageType.PROOF, 0, cbor.dumps({"mac": proof})))
            error = connection.last_words()
            assert isinstance(error, ProtocolError)
    # Nothing is taken from somebody who has not shaken hands: not a large frame, not a request.
    for data in (header(FRAME_BYTES_MAX_UNAUTHENTICATED + 1, MessageType.HELLO), encode_frame(MessageType.GET, 1, b"")):
        for port in node.ports[:2]:
            with RawConnection(port) as connection:
                connection.send(data)
                assert isinstance(connection.last_words(), ProtocolError)
    assert metric(node.http_port, "leafdb_handshakes_failed_total") >= before + 9


def test_what_is_not_http_is_refused_in_http(cluster: Cluster, witness: Witness) -> None:
    port = cluster.nodes[0].http_port
    cases = [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"GET " + b"/" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
    ]
    for data in cases:
        with RawConnection(port) as connection:
            connection.send(data)
            answer = connection.everything()
            assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")), (data[:40], answer[:80])
    with RawConnection(port) as connection:
        connection.send(b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.everything().startswith(b"HTTP/1.1 404")


def test_spoilt_conversations_on_both_ports_change_nothing(cluster: Cluster, witness: Witness) -> None:
    """A sample of what bench/fuzz_frames.py does for longer: nobody here can prove the cluster's secret."""
    rng = random.Random(SEED)
    print("seed", SEED)
    node = cluster.nodes[0]
    with cluster.connect_to(0) as client:
        before = client.status().epoch, [member["name"] for member in client.admin("node.list")["nodes"]]
        for _ in range(150):
            side, port = rng.choice(((Side.CLIENT, node.client_port), (Side.DIALER, node.peer_port)))
            with RawConnection(port) as connection:
                for piece in cut(spoil(honest(side, rng), rng), rng):
                    connection.send(piece)
                with suppress(OSError):  # the node may have hung up before
                    connection.socket.shutdown(1)
                connection.everything()
        assert (client.status().epoch, [member["name"] for member in client.admin("node.list")["nodes"]]) == before
    for member in cluster.nodes:
        assert metric(member.http_port, "leafdb_callbacks_failed_total") == 0


def test_those_who_trickle_or_say_nothing_are_let_go_and_cost_nobody_anything(
    cluster: Cluster, witness: Witness
) -> None:
    """Slow-loris on all three ports at once; each must be ended by the node."""
    node = cluster.nodes[2]
    request = b"GET /livez HTTP/1.1\r\nX-Slow: " + b"y" * 1_000
    ended = []

    def trickle(port: int, data: bytes) -> None:
        with RawConnection(port) as connection:
            connection.socket.settimeout(0.2)
            for at in range(len(data)):
                connection.send(data[at : at + 1])
                try:
                    if not connection.socket.recv(65_536):
                        break
                except TimeoutError:
                    continue
                except ConnectionError:
                    break
            else:
                return
            ended.append(port)

    # A hello that never ends; a frame of a client that never ends; a request that never ends; silence.
    slow_hello = encode_frame(MessageType.HELLO, 0, bytes(1_000))
    threads = [threading.Thread(target=trickle, args=(port, slow_hello)) for port in node.ports[:2] for _ in range(5)]
    threads += [threading.Thread(target=trickle, args=(node.http_port, request)) for _ in range(5)]
    threads += [threading.Thread(target=silent, args=(port, ended)) for port in node.ports for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90.0)
        assert not thread.is_alive(), "a slow connection was never ended"
    assert len(ended) == len(threads)


def silent(port: int, ended: list[int]) -> None:
    """Connect and say nothing until the node hangs up."""
    with RawConnection(port) as connection:
        connection.socket.settimeout(80.0)
        connection.everything()
        ended.append(port)
