"""What the two kinds of connection have in common: how the client names itself, and how it reads a goodbye."""

from __future__ import annotations

from typing import Final

from leafdb.errors import ProtocolError
from leafdb.wire.errors import decode_error
from leafdb.wire.frame import Frame

AGENT: Final = "leafdb-python/0.1.0"


def farewell_of(frame: Frame) -> str:
    """Why the node ends the connection, from an ERROR frame that answers no request."""
    try:
        return f"the node ended the connection: {decode_error(frame.body)}"
    except ProtocolError:
        return "the node ended the connection with an error that cannot be read"
