"""A change of the metadata register as its proposer runs it, and what its end is to who asked for it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, assert_never

from leafdb.consensus.effects import NO_STEP, STALE_CONFIG, Refusal, Refused, Unknown
from leafdb.errors import LeafdbError, NotApplied, OutcomeUnknown, Reason
from leafdb.ring.metadata import ClusterMetadata, decode

Change = Callable[[ClusterMetadata, bytes], ClusterMetadata]
"""(current, change id) to next; pure; may run several times; raises NotApplied to refuse. Equal: nothing to do."""

_REFUSED: Final = Reason.BAD_REQUEST


def proposed(
    change: Change, change_id: bytes, refusals: list[LeafdbError], current: bytes | None
) -> bytes | Refusal | None:
    """The change, of the encoded value; why it refuses is added to `refusals`."""
    if current is None:
        return Refusal("the register was never written")
    try:
        return change(decode(current), change_id).encode()
    except NotApplied as error:
        refusals.append(error)
        return Refusal(str(_REFUSED))


def problem_of(outcome: Refused | Unknown, refusals: list[LeafdbError]) -> LeafdbError:
    """Why nothing was changed, or that it is not known."""
    match outcome:
        case Refused(reason=reason):
            if refusals and reason == str(_REFUSED):
                return refusals[-1]
            if reason == STALE_CONFIG:
                told = "the cluster was recovered, and this node has not heard of it yet: nothing was changed"
                return NotApplied(told, reason=Reason.NO_QUORUM)
            if reason == NO_STEP:
                return NotApplied("the control set changes one step at a time", reason=Reason.BAD_REQUEST)
            told = "the control set has no majority: buckets and topology cannot be changed until it is back"
            return NotApplied(told, reason=Reason.NO_QUORUM)
        case Unknown(reason=reason):
            told = f"the change may have been made ({reason}); look before repeating it"
            return OutcomeUnknown(told, acks=0, required=1)
        case _:
            assert_never(outcome)
