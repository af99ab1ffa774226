"""What an acceptor must never forget (docs/formats/metadata.md draws the bytes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from leafdb.codec import cbor
from leafdb.codec.fields import as_bytes, as_map, bytes_field, int_field, map_field
from leafdb.consensus.ballot import AcceptorId, Ballot
from leafdb.consensus.messages import VALUE_BYTES_MAX
from leafdb.limits import REGISTER_NAME_BYTES_MAX

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class AcceptorState:
    """One register at one acceptor: the promise, and the last value accepted with its ballot."""

    register: bytes
    acceptor: AcceptorId
    promised: Ballot | None = None
    accepted: Ballot | None = None
    value: bytes | None = None

    def check(self) -> None:
        """What holds between the parts."""
        assert self.accepted is None or (self.promised is not None and self.accepted <= self.promised)
        assert self.accepted is not None or self.value is None

    def encode(self) -> bytes:
        """Canonical bytes."""
        return cbor.dumps(
            {
                "format": FORMAT,
                "register": self.register,
                "acceptor": self.acceptor.to_wire(),
                "promised": self.promised.to_wire() if self.promised else None,
                "accepted": self.accepted.to_wire() if self.accepted else None,
                "value": self.value,
            }
        )


def decode(data: bytes) -> AcceptorState:
    """The state of its encoding. Raises ValueError: then the acceptor has forgotten, and has no vote."""
    fields = as_map(cbor.loads(data), "acceptor state")
    if int_field(fields, "format") != FORMAT:
        raise ValueError("an acceptor state of an unknown format")
    promised, accepted, value = (map_field(fields, name) for name in ("promised", "accepted", "value"))
    state = AcceptorState(
        register=bytes_field(fields, "register", high=REGISTER_NAME_BYTES_MAX),
        acceptor=AcceptorId.from_wire(map_field(fields, "acceptor")),
        promised=None if promised is None else Ballot.from_wire(promised),
        accepted=None if accepted is None else Ballot.from_wire(accepted),
        value=None if value is None else as_bytes(value, "value", high=VALUE_BYTES_MAX),
    )
    if state.accepted is not None and (state.promised is None or state.accepted > state.promised):
        raise ValueError("an acceptor that accepted above its promise")
    if state.accepted is None and state.value is not None:
        raise ValueError("a value that was never accepted")
    return state
