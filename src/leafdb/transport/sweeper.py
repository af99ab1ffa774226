"""Which sessions have stopped: a frame that never ends, a peer that says nothing.

Judged once per second per session, by what has changed since, so the hot path keeps no times: a session counts its
reads, and the sweeper compares. Sweeps are counted, not clock time: a process that was stopped for a minute does not
find all its peers silent when it goes on.

    frame    one frame may take FRAME_SWEEPS_MAX sweeps, and one more per FRAME_BYTES_PER_SWEEP of its length
    stuck    an outbox may be full for STUCK_SWEEPS_MAX sweeps without the other side taking a byte
    silence  a peer that sent nothing for PEER_PING_SWEEPS is asked; after PEER_SILENCE_SWEEPS it is given up
"""

from __future__ import annotations

from typing import Final

from leafdb.errors import LeafdbError, ProtocolError
from leafdb.transport.counters import TransportCounters
from leafdb.transport.session import Session
from leafdb.wire.frame import encode_frame
from leafdb.wire.registry import MessageType

FRAME_SWEEPS_MAX: Final = 10
FRAME_BYTES_PER_SWEEP: Final = 256 * 1024
STUCK_SWEEPS_MAX: Final = 30
PEER_PING_SWEEPS: Final = 2
PEER_SILENCE_SWEEPS: Final = 6

assert PEER_PING_SWEEPS < PEER_SILENCE_SWEEPS


class _Seen:
    """What the last sweeps saw of one session."""

    __slots__ = ("frames", "gathering_sweeps", "progress", "reads", "silent_sweeps", "stuck_sweeps")

    def __init__(self) -> None:
        self.frames = 0
        self.reads = 0
        self.progress = 0
        self.gathering_sweeps = 0
        self.stuck_sweeps = 0
        self.silent_sweeps = 0


class Sweeper:
    """Remembers per session what it saw last."""

    def __init__(self, counters: TransportCounters) -> None:
        self._counters = counters
        self._seen: dict[Session, _Seen] = {}

    def judge(self, session: Session) -> LeafdbError | None:
        """One sweep over one session: why to close it, if it is to be closed."""
        seen = self._seen.get(session)
        if seen is None:
            seen = self._seen[session] = _Seen()
        return (
            self._judge_frame(session, seen) or self._judge_outbox(session, seen) or self._judge_silence(session, seen)
        )

    def _judge_frame(self, session: Session, seen: _Seen) -> LeafdbError | None:
        wanted = session.connection.reader.wanted_bytes
        if wanted == 0 or session.frames != seen.frames or not session.reading:
            seen.frames = session.frames
            seen.gathering_sweeps = 0
            return None
        seen.gathering_sweeps += 1
        if seen.gathering_sweeps <= FRAME_SWEEPS_MAX + wanted // FRAME_BYTES_PER_SWEEP:
            return None
        self._counters.slow_sessions_total += 1
        return ProtocolError("a frame that takes too long")

    def _judge_outbox(self, session: Session, seen: _Seen) -> LeafdbError | None:
        if not session.blocked or session.progress != seen.progress:
            seen.progress = session.progress
            seen.stuck_sweeps = 0
            return None
        seen.stuck_sweeps += 1
        if seen.stuck_sweeps <= STUCK_SWEEPS_MAX:
            return None
        self._counters.slow_sessions_total += 1
        return ProtocolError("answers are not being read")

    def _judge_silence(self, session: Session, seen: _Seen) -> LeafdbError | None:
        if session.kind != "peer" or session.starved or session.reads != seen.reads:
            seen.reads = session.reads
            seen.silent_sweeps = 0
            return None
        seen.silent_sweeps += 1
        if seen.silent_sweeps >= PEER_SILENCE_SWEEPS:
            self._counters.silent_sessions_total += 1
            return ProtocolError("nothing comes from this peer any more")
        if seen.silent_sweeps >= PEER_PING_SWEEPS:
            session.send(encode_frame(MessageType.PING, 0, b""))
        return None

    def forget_closed(self) -> None:
        """Drop what is known of sessions that are gone."""
        for session in [session for session in self._seen if session.closed]:
            del self._seen[session]

    def check(self) -> None:
        """Nobody is past a bound and still open."""
        for seen in self._seen.values():
            assert seen.silent_sweeps <= PEER_SILENCE_SWEEPS
            assert seen.stuck_sweeps <= STUCK_SWEEPS_MAX + 1
