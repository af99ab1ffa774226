"""What exchanging one range with its peers, one after the other, would find and move. Pure: it is told what differs.

The first exchange changes our copy, and the next peer is compared with that. So the forecast keeps what our copy of
each key would be, as outlines, and counts each exchange from there. It is exact as long as nobody writes, up to the
bytes of merged records and to KEYS_MAX keys that would change in one range; past that it counts what each peer differs
from our copy of now, which is more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from leafdb.model.outline import Outline, told
from leafdb.model.record import merge
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
        self._then: dict[bytes, tuple[Outline | None, Outline]] = {}
        """Keys that would have changed here: our copy now, and then."""
        self._changes: dict[bytes, tuple[Outline | None, Outline]] = {}
        """What this peer adds to that."""
        self._told: set[bytes] = set()
        self.found = Found()

    def begin(self) -> None:
        """The next peer, or the same one once more because the exchange was given up."""
        self._told.clear()
        self._changes.clear()
        self.found = Found()

    def theirs(self, key: bytes, ours: Outline | None, theirs: Outline) -> None:
        """The peer has a record of the key that we have not, or not so."""
        if ours is not None and ours.version == theirs.version:
            return  # it was being written when the lists were made
        found = self.found
        found.only_there += ours is None
        found.different += ours is not None
        self._sample(key, ours, theirs)
        self._note(key)
        then = self._then[key][1] if key in self._then else ours
        if then is not None and then.hollow == theirs.hollow:
            return
        found.keys_differing += 1
        found.keys_received += 1
        found.size += theirs.size
        after = self._merged(then, theirs)
        if after.hollow != theirs.hollow:
            found.keys_sent += 1
            found.size += after.size
        self._change(key, ours, after)

    def ours(self, key: bytes, ours: Outline) -> None:
        """The peer has no record of the key, and we have."""
        found = self.found
        found.only_here += 1
        self._sample(key, ours, None)
        self._note(key)
        then = self._then[key][1] if key in self._then else ours
        found.keys_differing += 1
        found.keys_sent += 1
        found.size += then.size

    def end(self) -> Found:
        """That was all of this peer: what would have changed here before, and was not told of, is as it is here now."""
        found = self.found
        for key, (now, then) in self._then.items():
            if key not in self._told and (now is None or now.hollow != then.hollow):
                found.keys_differing += 1
                found.keys_sent += 1
                found.size += then.size
                if now is not None:
                    found.keys_received += 1
                    found.size += now.size
        self._then.update(self._changes)
        return found

    def _note(self, key: bytes) -> None:
        if len(self._told) < self._keys_max:
            self._told.add(key)

    def _change(self, key: bytes, now: Outline | None, then: Outline) -> None:
        if key in self._then or len(self._then) + len(self._changes) < self._keys_max:
            self._changes[key] = (now, then)

    def _merged(self, ours: Outline | None, theirs: Outline) -> Outline:
        if ours is None:
            return theirs
        hollow = merge(ours.hollow, theirs.hollow, self._conflict)
        if hollow == theirs.hollow:
            return theirs
        return ours if hollow == ours.hollow else Outline(0, max(ours.size, theirs.size), hollow)

    def _sample(self, key: bytes, ours: Outline | None, theirs: Outline | None) -> None:
        if len(self.found.samples) < SAMPLES_PER_PEER:
            self.found.samples.append((key, told(ours), told(theirs)))
