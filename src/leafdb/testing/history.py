"""What clients did and were told, and whether the cluster may have told them so (2-semantics section 7).

Every write has an operation id and bytes of its own, so what is found later can be told apart. A write is `acked`,
`refused` (the node said: not applied) or `unknown`. The rules:

- I1: a dot never names two writes.
- I2, I6: an acknowledged write (a deletion is one) is there, or covered by the context of a write that may be there;
  nothing is there that the context of an acknowledged write covers.
- I8, I9: a quorum read covers every write that enough primaries had acknowledged before it began, and every quorum
  read that had ended before it began.
- I10: nothing of a refused write is ever seen, and nothing that nobody wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.context import SEAL_BYTES
from leafdb.model.record import decode
from leafdb.wire.requests import GetReply, PutReply


@dataclass
class Write:
    """One put or delete."""

    key: str
    op_id: bytes
    value: bytes | None
    context: CausalClock
    outcome: str = "unknown"
    dot: Dot | None = None
    primaries: int = 0


@dataclass
class Known:
    """What every quorum read of a key that begins now must cover."""

    dots: list[Dot] = field(default_factory=list)
    clocks: list[CausalClock] = field(default_factory=list)


def clock_of(sealed: bytes) -> CausalClock:
    """The clock in a context."""
    return CausalClock.decode(sealed[1:-SEAL_BYTES])


class History:
    """See the top of this file. `quorum` is what R and W overlap with: reads and writes of so many primaries meet."""

    def __init__(self, quorum: int = 2) -> None:
        self.quorum = quorum
        self.writes: dict[bytes, Write] = {}
        self.by_value: dict[bytes, Write] = {}
        self.shown: set[bytes] = set()
        self.log: list[tuple[str, str, str]] = []
        """(what, key, how it ended): two runs of one seed have the same."""
        self.reads = 0
        self._dots: dict[tuple[str, Dot], bytes] = {}
        self._known: dict[str, Known] = {}

    def begin_write(self, key: str, *, delete: bool, context: bytes | None) -> Write:
        """A write is about to be sent."""
        number = len(self.writes) + 1
        op_id = number.to_bytes(16, "big")
        value = None if delete else b"%d" % number
        write = Write(key, op_id, value, EMPTY if context is None else clock_of(context))
        self.writes[op_id] = write
        if value is not None:
            self.by_value[value] = write
        return write

    def acked(self, write: Write, reply: PutReply) -> None:
        """The node said that it is written."""
        clock = clock_of(reply.context)
        new = [dot for dot in (*clock.vector.items(), *clock.cloud) if not write.context.covers(dot) and dot[1]]
        assert len(new) == 1, f"a put's context covers its own dot and nothing else that is new: {new}"
        write.outcome, write.dot, write.primaries = "acked", new[0], reply.primaries
        self._name(write.key, new[0], write.op_id)
        if reply.primaries >= self.quorum:
            self._known_of(write.key).dots.append(new[0])
        self.log.append(("put", write.key, f"acked {reply.acks}"))

    def failed(self, write: Write, outcome: str, why: str) -> None:
        """The node, or nobody, said something else."""
        write.outcome = "refused" if outcome == "not_applied" else "unknown"
        self.log.append(("put", write.key, why))

    def begin_read(self, key: str) -> Known:
        """What a quorum read that begins now must cover."""
        known = self._known_of(key)
        return Known(list(known.dots), list(known.clocks))

    def read(self, key: str, known: Known | None, reply: GetReply) -> None:
        """A read has ended; `known` is what it must cover, None when it promised nothing of that kind."""
        self.reads += 1
        if known is not None:
            self._check_quorum(key, known, clock_of(reply.context))
        for sibling in reply.siblings:
            assert sibling.value in self.by_value, f"{key}: nobody wrote {sibling.value!r}"
            write = self.by_value[sibling.value]
            assert write.key == key
            self.shown.add(sibling.value)
            self._name(key, (sibling.actor, sibling.counter), write.op_id)  # type: ignore[arg-type]
        self.log.append(("get", key, ",".join(sorted(str(sibling.value) for sibling in reply.siblings))))

    def _check_quorum(self, key: str, known: Known, clock: CausalClock) -> None:
        for dot in known.dots:
            assert clock.covers(dot), f"{key}: a read has forgotten the acknowledged write {dot}"
        for earlier in known.clocks:
            assert clock.descends(earlier), f"{key}: a read knows less than one before it"
        latest = self._known_of(key)
        latest.clocks = [earlier for earlier in latest.clocks if not clock.descends(earlier)] + [clock]

    def check_final(self, key: str, data: bytes | None) -> None:
        """The record of a key after everything was mended, the same on every replica."""
        siblings = {} if data is None else decode(data).siblings
        present = {}
        for dot, sibling in siblings.items():
            write = self.writes.get(sibling.op_id)
            assert write is not None, f"{key}: nobody wrote operation {sibling.op_id.hex()}"
            assert (write.key, write.value) == (key, sibling.value)
            assert write.outcome != "refused", f"{key}: {write.op_id.hex()} was refused and is there"
            self._name(key, dot, write.op_id)
            present[write.op_id] = dot
        writes = [write for write in self.writes.values() if write.key == key]
        for write in writes:
            covering = [
                other.op_id.hex()
                for other in writes
                if write.dot is not None and other.outcome != "refused" and other.context.covers(write.dot)
            ]
            if write.outcome == "acked" and write.op_id not in present:
                assert covering, f"{key}: the acknowledged write {write.op_id.hex()} at {write.dot} is lost"
        for op_id, dot in present.items():
            for write in writes:
                gone = write.outcome == "acked" and write.context.covers(dot)
                assert not gone, f"{key}: {op_id.hex()} is there, though {write.op_id.hex()} has covered it"

    def check_honest(self) -> None:
        """Nothing that was refused was ever shown."""
        lies = [value for value in self.shown if self.by_value[value].outcome == "refused"]
        assert not lies, f"refused and yet shown: {lies}"

    def written_keys(self) -> list[str]:
        """All keys that were written."""
        return sorted({write.key for write in self.writes.values()})

    def count(self, outcome: str) -> int:
        """How many writes ended so."""
        return sum(1 for write in self.writes.values() if write.outcome == outcome)

    def _name(self, key: str, dot: Dot, op_id: bytes) -> None:
        named = self._dots.setdefault((key, dot), op_id)
        assert named == op_id, f"{key}: the dot {dot} names two writes"

    def _known_of(self, key: str) -> Known:
        return self._known.setdefault(key, Known())
