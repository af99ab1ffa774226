"""What exchanging one range with its peers, one after the other, would find and move. Pure: it is told what differs.

The first exchange changes our copy, and the next peer is compared with that. So the forecast keeps what our copy of
each key would be, as outlines, and counts each exchange from there. It is exact as long as nobody writes, up to the
bytes of merged records and to KEYS_MAX keys that would change in one range; past that it counts what each peer differs
from our copy of now, which is more.

Below a purge horizon a record may be left out or dropped: the terms of each exchange say so (`exchange_terms`). Of a
loss that an exchange would prove it foretells what comes of it in the end, and not the attempt that fails before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from leafdb.model.admission import admitted
from leafdb.model.outline import Outline, told
from leafdb.model.record import merge
from leafdb.node.exchange_terms import Terms
from leafdb.types import Conflict

KEYS_MAX: Final = 20_000
SAMPLES_PER_PEER: Final = 3


@dataclass(slots=True)
class Found:
    """Of the exchange with one peer. The first three are as the copies are now, the rest as they would be then."""

    only_here: int = 0
    only_there: int = 0
    different: int = 0
    keys_differing: int = 0
    keys_sent: int = 0
    keys_received: int = 0
    size: int = 0
    samples: list[tuple[bytes, dict[str, Any] | None, dict[str, Any] | None]] = field(default_factory=list)
    """(storage key, our version, theirs)."""


class RangeForecast:
    """Of one range. Between `begin` and `end` it is told of one peer."""

    def __init__(self, conflict: Conflict, keys_max: int = KEYS_MAX) -> None:
        self._conflict = conflict
        self._keys_max = keys_max
        self._terms = Terms.WHOLE
        self._horizon = 0
        self._tells_nothing = False
        self._then: dict[bytes, tuple[Outline | None, Outline | None]] = {}
        """Keys that would have changed here: our copy now, and then."""
        self._changes: dict[bytes, tuple[Outline | None, Outline | None]] = {}
        """What this peer adds to that."""
        self._told: set[bytes] = set()
        self.found: Found = Found()

    def begin(self) -> None:
        """The next peer, or the same one once more because the exchange was given up."""
        self._told.clear()
        self._changes.clear()
        self.found = Found()

    def agreed(self, terms: Terms, horizon: int, *, tells_nothing: bool) -> None:
        """By these terms this side takes records. `tells_nothing`: the peer is made whole by us, so it is told also
        where we have nothing."""
        self._terms, self._horizon, self._tells_nothing = terms, horizon, tells_nothing

    def theirs(self, key: bytes, ours: Outline | None, theirs: Outline | None) -> None:
        """We have not what the peer has; None: it has nothing, and we do as it has it."""
        if ours is not None and theirs is not None and ours.version == theirs.version:
            return  # it was being written when the lists were made
        found = self.found
        found.only_there += ours is None
        found.only_here += theirs is None
        found.different += ours is not None and theirs is not None
        self._sample(key, ours, theirs)
        self._note(key)
        self._exchanged(key, ours, self._then[key][1] if key in self._then else ours, theirs)

    def ours(self, key: bytes, ours: Outline) -> None:
        """The peer has no record of the key, and we have."""
        self.found.only_here += 1
        self._sample(key, ours, None)
        self._note(key)
        self._exchanged(key, ours, self._then[key][1] if key in self._then else ours, None)

    def end(self) -> Found:
        """That was all of this peer: what would have changed here before, and was not told of, is as it is here now."""
        for key, (now, then) in self._then.items():
            if key not in self._told:
                self._exchanged(key, now, then, now)
        self._then.update(self._changes)
        return self.found

    def _exchanged(self, key: bytes, now: Outline | None, then: Outline | None, theirs: Outline | None) -> None:
        """What comes of a key that is `now` here, would be `then`, and is `theirs` at the peer."""
        if _same(then, theirs):
            return
        found = self.found
        found.keys_differing += 1
        if theirs is not None:
            found.keys_received += 1
            found.size += theirs.size
        after = self._after(then, theirs)
        if after is not None and not _same(after, theirs) and (then is not None or self._tells_nothing):
            found.keys_sent += 1
            found.size += after.size
        if not _same(after, then):
            self._change(key, now, after)

    def _note(self, key: bytes) -> None:
        if len(self._told) < self._keys_max:
            self._told.add(key)

    def _change(self, key: bytes, now: Outline | None, then: Outline | None) -> None:
        if key in self._then or len(self._then) + len(self._changes) < self._keys_max:
            self._changes[key] = (now, then)

    def _after(self, ours: Outline | None, theirs: Outline | None) -> Outline | None:
        """What this store would make of the two."""
        own, other = (None if each is None else each.hollow for each in (ours, theirs))
        if self._terms is Terms.MADE_WHOLE and own is not None:
            own = admitted(other, own, self._horizon)
        elif self._terms is Terms.MESSAGE and other is not None:
            other = admitted(own, other, self._horizon)
        if own is None or other is None:
            hollow = own or other
        else:
            hollow = merge(own, other, self._conflict)
        if hollow is None:
            return None
        for each in (theirs, ours):
            if each is not None and each.hollow == hollow:
                return each
        return Outline(0, max(each.size for each in (ours, theirs) if each is not None), hollow)

    def _sample(self, key: bytes, ours: Outline | None, theirs: Outline | None) -> None:
        if len(self.found.samples) < SAMPLES_PER_PEER:
            self.found.samples.append((key, told(ours), told(theirs)))


def _same(one: Outline | None, other: Outline | None) -> bool:
    return one is other or (one is not None and other is not None and one.hollow == other.hollow)
