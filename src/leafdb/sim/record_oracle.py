"""The truth about one key, kept outside: which writes there were, and which of them each version of the record knows.

Every mint is a write with a number. What its writer had seen is a set of numbers, its causal past; a set is an integer
with a bit for each. From that follows, without a dot or a clock, what any version must be: a put knows what the local
copy and the writer's context knew, and itself; a merge knows what both sides knew; and alive is whatever no known
write has in its past. Every version that ever exists is compared with that as it appears:

    the clock covers exactly the dots of the writes the version knows, no dot more, none less
    the siblings are exactly the living ones of these, word for word as they were written
    no dot is ever given to a second write

So a lost write, a deletion undone, a context that covers too much and a dot given twice are found in the step that
makes them, not when replicas happen to meet.

In an `lww` bucket the living one is that of the greatest (stamp, dot) among the writes whose records were merged; what
only a context has told of does not compete.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from random import Random
from typing import Final, NamedTuple

from leafdb.model.actor import node_of
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.live import NO_OPERATION, live
from leafdb.model.record import Record, RecordError, Sibling, decode, merge
from leafdb.sim.trace import Trace
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import Conflict, NodeId

SINGLE_DOTS: Final = "a record with single dots"
TRIPLES: Final = 2
"""How many triples of versions the laws of the merge are tried on in each history."""
FOLDED: Final = 6
"""How many versions are folded in two orders."""


class Write(NamedTuple):
    """One mint: what it said, and the writes its writer had seen."""

    dot: Dot
    sibling: Sibling
    past: int


class Knowledge(NamedTuple):
    """What a version knows: every write it covers, and those whose records went into it; of these the twins that a put
    has dropped with what it covered. Who knows of such a put by a context alone need not know that it dropped any."""

    known: int
    merged: int
    dropped: int = 0

    def joined(self, other: Knowledge) -> Knowledge:
        """What the merge of two versions knows."""
        return Knowledge(self.known | other.known, self.merged | other.merged, self.dropped | other.dropped)


NOTHING: Final = Knowledge(0, 0)


def bits(numbers: int) -> Iterator[int]:
    """The numbers in the set, ascending."""
    while numbers:
        lowest = numbers & -numbers
        yield lowest.bit_length() - 1
        numbers ^= lowest


class Oracle:
    """One key's history in one bucket."""

    def __init__(self, conflict: Conflict, trace: Trace) -> None:
        self.conflict = conflict
        self._trace = trace
        self.writes: list[Write] = []
        self.versions: dict[bytes, Knowledge] = {}
        """Every version that there ever was, in the order they appeared."""
        self._number: dict[Dot, int] = {}
        self._alive: dict[tuple[int, int], int] = {}

    def of(self, data: bytes | None) -> Knowledge:
        """What a version knows."""
        return NOTHING if data is None else self.versions[data]

    # -- what happens

    def minted(self, local: bytes | None, past: int, data: bytes, dot: Dot) -> int:
        """A put over `local` by a writer who had seen `past` made `data`, with `dot`. Answers the write's number."""
        number, twins = len(self.writes), self._twins(local, past)
        before = self._number.setdefault(dot, number)
        require(before == number, Invariant.DOTS_UNIQUE, f"writes {before} and {number} were given one dot")
        sibling = decode(data).siblings.get(dot)
        if sibling is None:
            violated(Invariant.NOTHING_LOST, f"write {number} is not in the record it made")
        ours = self.of(local)
        newest = max((self.writes[seen].sibling.stamp for seen in bits(ours.known | past)), default=-1)
        text = f"write {number} at {sibling.stamp} is not newer than all that its writer and its coordinator saw"
        require(sibling.stamp > newest, Invariant.CAUSAL_STAMPS, text)
        self.writes.append(Write(dot, sibling, past))
        made = Knowledge(ours.known | past | 1 << number, ours.merged | 1 << number, ours.dropped | twins)
        if self.conflict is Conflict.LWW:
            won = self.living(made) == 1 << number
            require(won, Invariant.NOTHING_LOST, f"write {number} is older than what it was made over")
        self._appeared(data, made)
        return number

    def _twins(self, local: bytes | None, past: int) -> int:
        """The writes alive in `local` that are the same operation as one of those alive there and in `past`."""
        if self.conflict is Conflict.LWW:
            return 0
        alive = self.living(self.of(local))
        seen = {self.writes[number].sibling.op_id for number in bits(alive & past)} - {NO_OPERATION}
        return sum(1 << number for number in bits(alive & ~past) if self.writes[number].sibling.op_id in seen)

    def merged(self, local: bytes | None, incoming: bytes, result: bytes) -> None:
        """A replica that held `local` was sent `incoming` and holds `result` now."""
        ours, theirs = self.of(local), self.of(incoming)
        self._appeared(result, ours.joined(theirs))

    def number_of(self, dot: Dot) -> int:
        """The number of the write that was given this dot."""
        return self._number[dot]

    def minted_by(self, number: int) -> NodeId:
        """The node that minted a write."""
        return node_of(self.writes[number].dot[0])

    # -- what must hold

    def living(self, knowledge: Knowledge) -> int:
        """The writes that are to be alive in a version."""
        writes = self.writes
        if self.conflict is Conflict.LWW:
            ranks = [(writes[n].sibling.stamp, writes[n].dot, n) for n in bits(knowledge.merged)]
            return 1 << max(ranks)[2] if ranks else 0
        alive = self._alive.get((knowledge.known, knowledge.dropped))
        if alive is None:
            alive = knowledge.known & ~knowledge.dropped
            for number in bits(knowledge.known):
                alive &= ~writes[number].past
            self._alive[knowledge.known, knowledge.dropped] = alive
        return alive

    def check_context(self, clock: CausalClock, past: int) -> None:
        """A context covers the writes its holder was shown, and nothing else."""
        self._check_clock(clock, past, "a context")

    def check_shown(self, data: bytes, now_ms: int) -> None:
        """What a reader of the version is shown: the living that are values and have not expired, one per operation."""
        expected = []
        operations = set()
        alive = [self.writes[number] for number in bits(self.living(self.of(data)))]
        for dot, sibling, _ in sorted(alive):
            if sibling.value is None or (sibling.expires_ms and sibling.expires_ms <= now_ms):
                continue
            if sibling.op_id != NO_OPERATION and sibling.op_id in operations:
                continue
            operations.add(sibling.op_id)
            expected.append((dot, sibling))
        shown = live(decode(data), now_ms, self.conflict)
        require(shown == expected, Invariant.HONEST_OUTCOMES, f"a reader is shown {shown}, not {expected}")

    def check_laws(self, rng: Random) -> None:
        """The merge is a join on versions of this history; in any order they fold to the same bytes."""
        versions = list(self.versions)
        if not versions:
            return
        conflict = self.conflict
        for _ in range(TRIPLES):
            a, b, c = rng.choice(versions), rng.choice(versions), rng.choice(versions)
            ab = merge(a, b, conflict)
            _law(merge(b, a, conflict) == ab, "a+b = b+a")
            _law(merge(ab, c, conflict) == merge(a, merge(b, c, conflict), conflict), "(a+b)+c = a+(b+c)")
            _law(merge(a, bytes(bytearray(a)), conflict) is a, "a+a = a")
            _law(merge(ab, b, conflict) is ab, "(a+b)+b = a+b")
        some = rng.sample(versions, min(len(versions), FOLDED))
        whole = _fold(some, conflict)
        _law(_fold(some[::-1], conflict) == whole, "the same versions in another order give the same bytes")
        self._check_version(whole, reduce(Knowledge.joined, (self.versions[version] for version in some)))

    def _appeared(self, data: bytes, knowledge: Knowledge) -> None:
        before = self.versions.get(data)
        if before is None:
            self._check_version(data, knowledge)
            self.versions[data] = knowledge
        elif before != knowledge and (before.known != knowledge.known or self.living(before) != self.living(knowledge)):
            violated(Invariant.MERGE_IS_A_JOIN, "two versions that know different writes have the same bytes")

    def _check_version(self, data: bytes, knowledge: Knowledge) -> None:
        try:
            record: Record = decode(data)
        except RecordError as error:
            violated(Invariant.MERGE_IS_A_JOIN, f"a record that cannot be read was made: {error}")
        record.check()
        self._trace.probe(SINGLE_DOTS, bool(record.clock.cloud))
        self._check_clock(record.clock, knowledge.known, "a record")
        alive = self.living(knowledge)
        there = 0
        for dot, sibling in record.siblings.items():
            number = self._number.get(dot)
            if number is None:
                violated(Invariant.HONEST_OUTCOMES, "a record shows what nobody wrote")
            require(
                sibling == self.writes[number].sibling, Invariant.DOTS_UNIQUE, f"write {number} says something else now"
            )
            there |= 1 << number
        lost, back = alive & ~there, there & ~alive
        require(not lost, Invariant.NOTHING_LOST, f"writes {list(bits(lost))} are not covered, and gone from a record")
        require(not back, Invariant.DELETIONS_STAY, f"writes {list(bits(back))} are covered, and in a record")

    def _check_clock(self, clock: CausalClock, known: int, whose: str) -> None:
        covers = clock.covers
        for number in bits(known):
            require(
                covers(self.writes[number].dot), Invariant.DELETIONS_STAY, f"{whose} has forgotten the write {number}"
            )
        dots = sum(clock.vector.values()) + len(clock.cloud)
        if dots != known.bit_count():
            extra = [number for dot, number in self._number.items() if covers(dot) and not known >> number & 1]
            violated(Invariant.NOTHING_LOST, f"{whose} covers {dots - known.bit_count()} unseen writes: {extra}")


def _fold(versions: list[bytes], conflict: Conflict) -> bytes:
    whole = versions[0]
    for version in versions:
        whole = merge(whole, version, conflict)
    return whole


def _law(holds: bool, law: str) -> None:
    require(holds, Invariant.MERGE_IS_A_JOIN, f"not so: {law}")
