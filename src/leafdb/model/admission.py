"""Admission: what of an arriving record a replica takes in, where things may have been forgotten below a horizon.

At the horizon every owner had everything older. So of a sibling with a stamp below it that an owner neither holds nor
covers, that owner can say: it was here, was covered, and has been forgotten by right. Such a sibling comes from a
message that was late, a copy of long ago, a store that went back in time. It is *left out*. Judging by the key alone
would not do: a key that was deleted, forgotten and written again is there, and its old value must not join the new one.

- **What is left out is not covered either.** The incoming clock is taken without the dots of what is left out: if this
  store has lost the record without noticing, its clock must not make others drop what they rightly hold.
- **Older than something held here is not forgotten.** A record is forgotten whole, so whatever is held here that is
  older than the arriving sibling would have gone with it. Then the sibling is news that came late, and is taken; left
  out, what only it replaced would be gone with it.

`restored` is the same, seen from the other side: a store that cannot vouch for what lies below the horizon becomes
what the store that can would be after admitting it.
"""

from __future__ import annotations

from typing import Final

from leafdb.model.clock import CausalClock, Dot
from leafdb.model.hlc import STAMP_MAX
from leafdb.model.purge import death_of
from leafdb.model.record_format import Header, Record, RecordError, any_below, encode, header

SINGLES_MAX: Final = 4_096
"""Single dots that leaving something out may make of a clock. A record that would need more is refused as a whole."""


class Inadmissible(RecordError):
    """Leaving out what is too old would make a clock beyond all bounds: the record has to come in an exchange."""


def left_out(local: bytes | None, incoming: bytes, horizon: int) -> list[Dot]:
    """The dots of `incoming` that a replica with `local` does not take in. Raises RecordError."""
    if not horizon or not any_below(incoming, horizon):
        return []
    return _left_out(local, header(incoming), horizon)


def admitted(local: bytes | None, incoming: bytes, horizon: int) -> bytes | None:
    """`incoming` as if it had never heard of what is left out: that object itself when nothing is, None when nothing
    remains. Raises RecordError, Inadmissible among them."""
    if not horizon or not any_below(incoming, horizon):
        return incoming
    theirs = header(incoming)
    dots = _left_out(local, theirs, horizon)
    if not dots:
        return incoming
    if len(dots) == len(theirs.heads):
        return None
    gone = set(dots)
    clock = _without(theirs.clock, gone)
    return encode(Record(clock, {dot: theirs.sibling(dot) for dot in theirs.heads if dot not in gone}))


def proves_loss(local: bytes | None, incoming: bytes, horizon: int) -> bool:
    """Whether `local` must have lost something, if both are of owners that vouch for what lies below the horizon:
    something that lives is on one side only. Raises RecordError."""
    if not horizon:
        return False
    theirs = header(incoming)
    return any(death_of(theirs.heads[dot]) >= horizon for dot in _left_out(local, theirs, horizon))


def _left_out(local: bytes | None, theirs: Header, horizon: int) -> list[Dot]:
    old = [dot for dot, head in theirs.heads.items() if head.stamp < horizon]
    if not old or local is None:
        return old
    ours = header(local)
    oldest = min((head.stamp for head in ours.heads.values()), default=STAMP_MAX)
    covers, heads = ours.clock.covers, theirs.heads
    return [dot for dot in old if not covers(dot) and heads[dot].stamp < oldest]


def _without(clock: CausalClock, gone: set[Dot]) -> CausalClock:
    """The clock without those dots. An actor of whom nothing else is named is not named at all."""
    vector, cloud = dict(clock.vector), set(clock.cloud) - gone
    for actor, counter in sorted(gone - clock.cloud):
        known = clock.vector[actor]
        vector[actor] = min(vector[actor], counter - 1)
        if len(cloud) + known - counter > SINGLES_MAX:
            raise Inadmissible(f"leaving out dot {counter} of {known} would leave too many single dots")
        cloud.update((actor, single) for single in range(counter + 1, known + 1))
    cloud -= gone
    for actor in {dot[0] for dot in gone}:
        if not vector.get(actor, 1):
            del vector[actor]
    return CausalClock(vector, frozenset(cloud))
