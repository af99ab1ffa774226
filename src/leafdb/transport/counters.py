"""What transport counts, as plain integers: the metrics of a node read them, nothing here reads them back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TransportCounters:
    """One object per node."""

    sessions_opened_total: int = 0
    sessions_refused_total: int = 0
    """Connections refused for want of room."""
    handshakes_failed_total: int = 0
    """Connections that ended before they were established, refused proofs among them."""
    protocol_errors_total: int = 0
    """Sessions closed because the other side broke the protocol."""
    handler_errors_total: int = 0
    """Sessions closed because a handler of ours raised what it should not."""
    slow_sessions_total: int = 0
    """Sessions closed because their outbox overflowed or a frame of theirs took too long."""
    silent_sessions_total: int = 0
    """Peer sessions closed because nothing came any more."""
    outbox_refusals_total: int = 0
    """Frames not taken because an outbox was full."""
    received_bytes_total: int = 0
    received_frames_total: int = 0
    sent_bytes_total: int = 0
    sends_total: int = 0
    calls_expired_total: int = 0
    late_replies_total: int = 0
    """Answers to calls that had been given up."""
