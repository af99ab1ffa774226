"""What the two kinds of connection have in common: how the client names itself, and how it reads a goodbye."""

from __future__ import annotations

from typing import Final, NamedTuple

from leafdb.client.effects import Denied, Severed, Unsent
from leafdb.errors import NotApplied, ProtocolError, Reason
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import Frame

AGENT: Final = "leafdb-python/0.1.0"


class Farewell(NamedTuple):
    """Why the node ends the connection, and what became of the requests it has not answered."""

    reason: str
    waiting: type[Severed | Unsent]


def no_handshake(error: Exception) -> Unsent:
    """What a handshake that failed means to who wanted to send something."""
    if isinstance(error, NotApplied) and error.reason is Reason.UNAUTHORIZED:
        return Denied(error)
    return Unsent(f"the handshake failed: {error}")


def farewell_of(frame: Frame) -> Farewell:
    """The farewell in an ERROR frame that answers no request.

    A node that says "draining" has done nothing of what it has not answered (docs/formats/wire.md): those requests are
    as good as never sent, and go to another node.
    """
    try:
        error = decode_error(frame.body)
    except ProtocolError:
        return Farewell("the node ended the connection with an error that cannot be read", Severed)
    untouched = isinstance(error, NotApplied) and error.reason is Reason.DRAINING
    return Farewell(f"the node ended the connection: {error}", Unsent if untouched else Severed)
