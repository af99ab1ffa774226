"""Spoilt conversations into all four sides of a connection: a sample; bench/fuzz_frames.py runs millions."""

from __future__ import annotations

import tracemalloc
from random import Random

import pytest

from leafdb.errors import LeafdbError
from leafdb.wire.connection import ConnectionState
from leafdb.wire.frame import encode_frame
from support.frame_fuzz import Listener, Side, cut, greeting_of, honest, run, spoil

SEED = 20_261_122
CONVERSATIONS = 600
MEMORY_BYTES_MAX = 4 << 20


@pytest.mark.parametrize("side", list(Side))
def test_a_spoilt_conversation_ends_with_a_typed_error_or_goes_on(side: Side) -> None:
    print("seed", SEED)
    rng = Random(f"{SEED} {side.name}")
    assert sum(run(side, rng) for _ in range(CONVERSATIONS)) > CONVERSATIONS


@pytest.mark.parametrize("side", list(Side))
def test_what_spoilt_conversations_leave_in_memory_is_nothing(side: Side) -> None:
    rng = Random(SEED)
    for _ in range(50):
        run(side, rng)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(200):
            run(side, rng)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < MEMORY_BYTES_MAX
    assert after - before < MEMORY_BYTES_MAX // 8


@pytest.mark.parametrize("side", list(Side))
def test_an_honest_conversation_goes_through_in_any_pieces(side: Side) -> None:
    """Else the others would prove little."""
    for seed in range(40):
        rng = Random(seed)
        frames = honest(side, rng)
        listener = Listener(side)
        came = []
        for piece in cut(b"".join(encode_frame(*frame) for frame in frames), rng):
            came += listener.connection.receive(piece)
        assert listener.connection.state is ConnectionState.ESTABLISHED
        assert [tuple(frame) for frame in came] == [tuple(frame) for frame in frames[len(greeting_of(side)) :]]
        assert len(listener.asked) == (side in (Side.DIALER, Side.ACCEPTOR))


def test_spoiling_reaches_every_end() -> None:
    """Of many spoilt conversations some end in the handshake, some after it, and some not at all."""
    ends = set()
    for seed in range(300):
        rng = Random(seed)
        listener = Listener(Side.CLIENT)
        raised = False
        try:
            for piece in cut(spoil(honest(Side.CLIENT, rng), rng), rng):
                listener.connection.receive(piece)
        except LeafdbError:
            raised = True
        ends.add((listener.connection.state, raised))
    assert {(state, raised) for state, raised in ends} >= {
        (ConnectionState.FAILED, True),
        (ConnectionState.ESTABLISHED, True),
        (ConnectionState.ESTABLISHED, False),
        (ConnectionState.HANDSHAKE, False),
    }
