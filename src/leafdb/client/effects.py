"""What an operation may ask of the driver that runs it, and how the driver says that it could not.

An operation is a generator: it yields an `Exchange` and is sent the answering frame, or yields a `Sleep` and is sent
None. A failure is thrown into it as one of three, told apart by the one thing that matters for a write: can any byte
of the request have reached the node?

    Unsent    no: the connection could not be made, or was dead before the first byte; or the node has said that it did
              nothing of what it left unanswered; Denied among them: the node would not have this user
    Severed   it may have: the connection ended while the answer was awaited
    Expired   the deadline passed; `sent` says whether anything can have gone
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple, TypeVar

from leafdb.client.routing import NodeState, Place
from leafdb.errors import LeafdbError
from leafdb.wire.frame import Frame

T = TypeVar("T")


class Exchange(NamedTuple):
    """Send one message to a node, connecting first if need be, and wait for its answer until `deadline`.

    A read that is not answered by `hedge_at` may be asked of another node of its `place` as well (0: it may not); the
    first answer counts.
    """

    node: NodeState
    message_type: int
    body: bytes
    deadline: float
    hedge_at: float = 0.0
    place: Place | None = None


class Sleep(NamedTuple):
    """Do nothing for a while."""

    seconds: float


Effect = Exchange | Sleep
Operation = Generator[Effect, Frame | None, T]


class ExchangeFailed(Exception):
    """Base of what a driver throws into an operation; never shown to users."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unsent(ExchangeFailed):
    """Nothing of the request left this machine, or nothing of it was done."""


class Denied(Unsent):
    """No connection, and the caller is told `error` at once: every node goes by the same accounts, so another would say
    the same, and count it as one more failed login."""

    def __init__(self, error: LeafdbError) -> None:
        super().__init__(str(error))
        self.error = error

    def told_by(self, address: str) -> LeafdbError:
        """The error, with the node it is about."""
        self.error.node = self.error.node or address
        return self.error


class Ended(Unsent):
    """The connection was found to have ended before anything was sent on it: another to the same node may do."""


class Severed(ExchangeFailed):
    """The connection ended after the request may have gone out."""


class Expired(ExchangeFailed):
    """The deadline passed; the answer, should it come, is dropped."""

    def __init__(self, stage: str, *, sent: bool) -> None:
        super().__init__(f"the deadline passed in stage {stage}")
        self.stage = stage
        self.sent = sent
