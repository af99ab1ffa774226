"""What happened in a run, in order: a running hash, the counts of what was done, and the story when somebody wants it.

The hash is the fingerprint of a run (invariant I39): everything that could differ goes into it as bytes, from every
source of it, so two runs with one fingerprint went the same way. The story is kept for replays only, since a run of a
thousand operations has a hundred thousand events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import xxhash

LINES_MAX: Final = 200_000


@dataclass(frozen=True, slots=True)
class Line:
    """One event of the story: virtual seconds, who (`n1`, `client 3`, `nemesis`), about which key (None: about all)."""

    at_s: float
    who: str
    key: str | None
    text: str


class Trace:
    """`now` is virtual seconds. With `keep` the story is kept, at most LINES_MAX lines of it."""

    def __init__(self, now: Callable[[], float], *, keep: bool = False) -> None:
        self._now = now
        self._hash = xxhash.xxh3_128()
        self.keep = keep
        self.lines: list[Line] = []
        self.faults: Counter[str] = Counter()
        """Faults that were injected, by name."""
        self.probes: Counter[str] = Counter()
        """Rare things that happened, by name."""

    def feed(self, kind: bytes, data: bytes | bytearray | memoryview = b"") -> None:
        """An event that happens often: into the hash with the time, and nowhere else."""
        self._hash.update(b"%s %r " % (kind, self._now()))
        self._hash.update(data)

    def tell(self, who: str, text: str, key: str | None = None) -> None:
        """An event a person would want to read; the text must be the same in every run of the seed."""
        self._hash.update(f"{self._now()!r} {who} {key} {text}\n".encode())
        self.note(who, text, key)

    def note(self, who: str, text: str, key: str | None = None) -> None:
        """An event that follows from others in the hash: for the story only, so it costs nothing where none is kept."""
        if self.keep and len(self.lines) < LINES_MAX:
            self.lines.append(Line(self._now(), who, key, text))

    def fault(self, name: str, text: str = "") -> None:
        """The nemesis did something."""
        self.faults[name] += 1
        self.tell("nemesis", f"{name} {text}".rstrip())

    def probe(self, name: str, count: int = 1) -> None:
        """Something rare happened."""
        if count:
            self.probes[name] += count

    def hexdigest(self) -> str:
        """The fingerprint so far: 32 hex digits."""
        return self._hash.hexdigest()
