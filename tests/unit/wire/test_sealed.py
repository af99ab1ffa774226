"""TLS without sockets: bytes come out as they went in, however little the socket takes, and nothing is left unread."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leafdb.errors import Overloaded
from leafdb.transport.tls_contexts import Contexts
from leafdb.wire.errors import encode_error
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType
from leafdb.wire.sealed import SEAL_BYTES, Sealed
from leafdb.wire.tls_fault import TlsFault, Why
from support.certificates import Pki


@cache
def contexts() -> Contexts:
    with TemporaryDirectory() as directory:
        return Pki(Path(directory)).contexts()


def pair() -> tuple[Sealed, Sealed]:
    """Both sides, before the handshake."""
    made = contexts()
    return Sealed(made.to_peers, server_side=False, name="127.0.0.1"), Sealed(made.from_peers, server_side=True)


def shaken() -> tuple[Sealed, Sealed]:
    near, far = pair()
    near.shake(b"")
    assert not far.hear(near.take())
    assert near.hear(far.take())
    assert far.hear(near.take())
    assert far.take() == b"", "no tickets: nothing is to be read when the handshake is over"
    return near, far


def test_both_sides_know_whom_they_speak_to() -> None:
    near, far = shaken()
    for side in (near, far):
        assert ("URI", "urn:leafdb:node:n1") in side.certificate()["subjectAltName"]


class Pipe:
    """A socket's buffer with room for so much, and the bytes in it."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.held = b""

    def put(self, data: bytes) -> int:
        taken = data[: self.room - len(self.held)]
        self.held += taken
        return len(taken)

    def drain(self, size: int) -> bytes:
        data, self.held = self.held[:size], self.held[size:]
        return data


@settings(max_examples=30, deadline=None)
@given(
    frames=st.lists(st.integers(2, 3 * SEAL_BYTES), min_size=1, max_size=4),
    room=st.sampled_from([1, 23, 1_000, 16_384, 100_000, 1 << 20]),
    reads=st.sampled_from([7, 4_096, 65_536]),
)
def test_what_goes_in_comes_out_whatever_the_socket_takes(frames: list[int], room: int, reads: int) -> None:
    near, far = shaken()
    pipe = Pipe(room)
    outbox = b"".join(bytes([index + 1]) * size for index, size in enumerate(frames))
    if room < 1_000 or reads < 100:
        outbox = outbox[:20_000]
    sent, got = outbox, bytearray()
    while len(got) < len(sent):
        if outbox:
            done = near.send(outbox, pipe.put)
            assert 0 <= done <= len(outbox)
            outbox = outbox[done:]
            near.check()
            assert bool(near.waiting_bytes) <= bool(outbox), "whoever has something left to send comes back"
        while data := pipe.drain(reads):
            got += far.open(data) or b""
        assert not far.open(b""), "everything that could be read was"
    assert bytes(got) == sent
    assert not near.waiting_bytes


def test_a_full_socket_keeps_one_byte_back_and_no_more_than_a_chunk() -> None:
    near, _far = shaken()
    pipe = Pipe(10)
    data = bytes(5 * SEAL_BYTES)
    done = near.send(data, pipe.put)
    assert done == SEAL_BYTES - 1
    assert SEAL_BYTES < near.waiting_bytes < SEAL_BYTES + 1_000
    assert near.send(data[done:], pipe.put) == 0, "nothing more is encrypted while that waits"
    near.check()


def test_an_incomplete_record_is_no_end() -> None:
    near, far = shaken()
    pipe = Pipe(1 << 20)
    near.send(b"a frame", pipe.put)
    assert far.open(pipe.drain(5)) is None
    assert far.open(pipe.drain(1_000)) == b"a frame"


def test_bytes_that_were_changed_on_the_way_end_it() -> None:
    near, far = shaken()
    pipe = Pipe(1 << 20)
    near.send(b"pay alice", pipe.put)
    with pytest.raises(TlsFault) as caught:
        far.open(pipe.held[:-1] + bytes([pipe.held[-1] ^ 1]))
    assert caught.value.why is Why.BROKEN


def test_who_answers_in_the_clear_is_told_apart_and_quoted() -> None:
    near, _ = pair()
    near.shake(b"")
    words = encode_frame(MessageType.ERROR, 0, encode_error(Overloaded("too many connections", retry_after=1.0)))
    with pytest.raises(TlsFault, match="too many connections") as caught:
        near.hear(words)
    assert caught.value.why is Why.PLAIN
    for other in (b"HTTP/1.1 400 Bad Request\r\n", b"\0" * 50, words[:10]):
        near, _ = pair()
        near.shake(b"")
        with pytest.raises(TlsFault, match="leafdb://") as caught:
            near.hear(other)
        assert caught.value.why is Why.PLAIN


def test_an_end_in_the_middle_is_said_to_be_one() -> None:
    near, far = pair()
    near.shake(b"")
    far.hear(near.take())
    with pytest.raises(TlsFault, match="during the TLS handshake"):
        near.hear(b"")


@pytest.mark.parametrize("name", ["", ".x", "a" * 300])
def test_a_name_no_certificate_can_have_is_refused(name: str) -> None:
    made = contexts()
    with pytest.raises(TlsFault):
        sealed = Sealed(made.to_peers, server_side=False, name=name)
        sealed.shake(b"")
        _, far = pair()
        far.hear(sealed.take())
        sealed.hear(far.take())
