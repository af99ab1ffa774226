"""Whether a history could be that of one copy: the per-key linearizability checker.

A history is linearizable when every operation can be given a moment between its call and its return so that, done one
by one at these moments, all would have answered as they did. The search is that of Wing and Gong ("Testing and
Verifying Concurrent Objects", 1993): calls and returns lie in a list in the order of time; any operation whose call no
return precedes may be next; taking it removes it from the list; a return that is met means that its operation is
overdue, and the search goes back. Lowe ("Testing for linearizability", 2017) remembers every pair of (operations taken,
state) so that none is searched twice. Keys are judged one by one, which is enough (P-compositionality: Horn and
Kroening, "Faster linearizability checking via P-compositionality", 2015).

A read that can be next is taken without an alternative, where the model knows its reads. An operation that nobody
answered returns at infinity: it may take effect at any time after its call, or never. Such ones are tried last, and
only where they matter to the operation taken next: one that changes nothing for its successor could as well have been
left out. So neither readers nor unanswered operations make the search much longer.

Time is whatever orders calls and returns; at equal times calls come first, which never accuses wrongly but excuses
much. Under virtual time, where much happens at one instant, record with `Recording`, which counts events.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Final, Generic

from leafdb.testing.linearizability_models import IMPOSSIBLE, NOT_APPLIED, UNKNOWN, KnowsReads, Model, S

STEPS_MAX: Final = 500_000
"""Questions to the model for one key, about a second's worth."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one client, and what it was told.

    `returned_at` is infinite when it was never answered; a result UNKNOWN says the same. A result NOT_APPLIED says that
    it is known to have had no effect: it is left out.
    """

    process: Hashable
    key: Hashable
    called_at: float
    returned_at: float
    argument: object
    result: object = UNKNOWN

    def __post_init__(self) -> None:
        if self.returned_at < self.called_at:
            raise ValueError(f"{self} returns before it is called")

    @property
    def unanswered(self) -> bool:
        """Whether nobody knows what came of it."""
        return self.returned_at == inf or self.result is UNKNOWN


class Recording:
    """Collects a history while it happens. Its time is the number of the event, so there are no equal times."""

    def __init__(self) -> None:
        self._events = 0
        self._operations: list[Operation] = []

    def call(self, process: Hashable, key: Hashable, argument: object) -> int:
        """An operation is about to be sent. Unless `returned` is told otherwise, nobody knows what came of it."""
        self._events += 1
        self._operations.append(Operation(process, key, self._events, inf, argument))
        return len(self._operations) - 1

    def returned(self, call: int, result: object) -> None:
        """It was answered; NOT_APPLIED for an error that proves that it had, and will have, no effect."""
        self._events += 1
        begun = self._operations[call]
        ended_at = inf if result is UNKNOWN else self._events
        self._operations[call] = Operation(begun.process, begun.key, begun.called_at, ended_at, begun.argument, result)

    def operations(self) -> tuple[Operation, ...]:
        """The history so far, in the order of calls."""
        return tuple(self._operations)


class Verdict(StrEnum):
    """What the checker says."""

    LINEARIZABLE = "linearizable"
    VIOLATION = "not linearizable"
    UNDECIDED = "undecided"
    """The budget of steps is spent."""


@dataclass(frozen=True, slots=True)
class KeyReport:
    """The verdict on one key. `operations` are in the order of calls, without those that were not applied."""

    key: Hashable
    verdict: Verdict
    operations: tuple[Operation, ...]
    order: tuple[Operation, ...]
    """An order that explains the history; after a violation, the longest that was found before `overdue`."""
    states: tuple[Hashable, ...]
    """The state before the first of `order`, and after each."""
    overdue: Operation | None
    """The first operation by whose return nothing explains all answers up to there."""
    left: tuple[Operation, ...]
    """What is not in `order`: after a violation, of the operations called before `overdue` returned; else unanswered
    ones that nobody has seen an effect of."""
    steps: int


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on a history: a violation if there is one in any key, else undecided if any is."""

    verdict: Verdict
    keys: tuple[KeyReport, ...]
    """In the order in which keys first occur."""

    @property
    def violation(self) -> KeyReport | None:
        """The first key that is not linearizable."""
        return next((each for each in self.keys if each.verdict is Verdict.VIOLATION), None)

    @property
    def steps(self) -> int:
        """Questions to the model."""
        return sum(each.steps for each in self.keys)


def check(operations: Iterable[Operation], model: Model[S], *, steps_max: int = STEPS_MAX) -> Report:
    """Judge a history, spending at most `steps_max` questions to the model on each key."""
    of_key: dict[Hashable, list[Operation]] = {}
    for operation in operations:
        mine = of_key.setdefault(operation.key, [])
        if operation.result is not NOT_APPLIED:
            mine.append(operation)
    reports = tuple(_Search(key, mine, model).run(steps_max) for key, mine in of_key.items())
    verdicts = [report.verdict for report in reports]
    for verdict in (Verdict.VIOLATION, Verdict.UNDECIDED):
        if verdict in verdicts:
            return Report(verdict, reports)
    return Report(Verdict.LINEARIZABLE, reports)


READS: Final = 0
WRITES: Final = 1
UNANSWERED: Final = 2
RETURNS: Final = 3
"""The lanes, in the order in which they are tried; nothing is taken from the last."""


@dataclass(slots=True)
class _Taken(Generic[S]):
    """A decision: this call, of this lane, was taken next from this state."""

    node: int
    lane: int
    before: S


class _Search(Generic[S]):
    """The search in one key.

    Nodes are calls and returns, numbered from 1 in the order of time, in four linked lists, the lanes. Candidates are
    the calls before the first return (the `limit`): answered reads, then other answered calls, then unanswered ones. A
    read that can be next is taken without an alternative, for having it later is never better.
    """

    def __init__(self, key: Hashable, operations: list[Operation], model: Model[S]) -> None:
        self.key = key
        self.model = model
        self.operations = sorted(operations, key=lambda each: each.called_at)
        events = [(each.called_at, 0, index) for index, each in enumerate(self.operations)]
        events += [(each.returned_at, 1, index) for index, each in enumerate(self.operations) if not each.unanswered]
        events.sort()
        self.heads = tuple(len(events) + 1 + lane for lane in range(4))
        self.end = len(events) + 5
        self.called = [-1] * (self.end + 1)
        """The operation that is called at a node."""
        self.returns: dict[int, int] = {}
        """The node of the return of each answered operation, by that of its call."""
        self.returning: dict[int, int] = {}
        """The operation that returns at a node."""
        self.after = [self.end] * (self.end + 1)
        self.before = [0] * (self.end + 1)
        self._link(events)
        self.rank = (0, -1, 0)
        self.best: list[_Taken[S]] = []

    def _link(self, events: list[tuple[float, int, int]]) -> None:
        call_of: dict[int, int] = {}
        last = list(self.heads)
        for node, (_, is_return, index) in enumerate(events, 1):
            if is_return:
                self.returns[call_of[index]] = node
                self.returning[node] = index
                lane = RETURNS
            else:
                self.called[node] = index
                call_of[index] = node
                operation = self.operations[index]
                reads = isinstance(self.model, KnowsReads) and self.model.only_reads(
                    operation.argument, operation.result
                )
                if reads and operation.unanswered:
                    continue
                lane = UNANSWERED if operation.unanswered else READS if reads else WRITES
            self.after[last[lane]], self.before[node] = node, last[lane]
            last[lane] = node

    def run(self, steps_max: int) -> KeyReport:
        """Search until an order is found, none can be, or the budget is spent."""
        model, called, after, heads = self.model, self.called, self.after, self.heads
        arguments = [each.argument for each in self.operations]
        results = [UNKNOWN if each.unanswered else each.result for each in self.operations]
        state = model.initial(self.key)
        waiting, steps, taken_bits = len(self.returns), 0, 0
        taken: list[_Taken[S]] = []
        seen: set[tuple[int, S]] = set()
        lane, node, limit = READS, after[heads[READS]], after[heads[RETURNS]]
        while waiting:
            if node > limit:
                lane += 1
                if lane == WRITES:
                    lane = RETURNS if (taken_bits, state) in seen else WRITES
                    seen.add((taken_bits, state))
                if lane < RETURNS:
                    node = after[heads[lane]]
                    continue
                self._stuck(limit, len(self.returns) - waiting, taken)
                if not taken:
                    return self._report(Verdict.VIOLATION, steps)
                last = taken.pop()
                lane, node, state = last.lane, last.node, last.before
                taken_bits ^= 1 << called[node]
                waiting += lane != UNANSWERED
                self._put_back(node)
                limit, node = after[heads[RETURNS]], after[node]
                if lane == READS:
                    lane, node = UNANSWERED, self.end
                continue
            if steps >= steps_max:
                self._stuck(limit, len(self.returns) - waiting, taken)
                return self._report(Verdict.UNDECIDED, steps)
            steps += 1
            index = called[node]
            new = model.step(state, arguments[index], results[index])
            if new is IMPOSSIBLE or (lane == UNANSWERED and new == state):
                node = after[node]
                continue
            if taken and taken[-1].lane == UNANSWERED and lane != READS:
                without = model.step(taken[-1].before, arguments[index], results[index])
                if without == new:
                    node = after[node]
                    continue
            taken.append(_Taken(node, lane, state))
            taken_bits, state = taken_bits | 1 << index, new
            waiting -= lane != UNANSWERED
            self._take(node)
            lane, node, limit = READS, after[heads[READS]], after[heads[RETURNS]]
        self.best, self.rank = taken, (0, 0, 0)
        return self._report(Verdict.LINEARIZABLE, steps)

    def _take(self, node: int) -> None:
        after, before = self.after, self.before
        after[before[node]], before[after[node]] = after[node], before[node]
        end = self.returns.get(node)
        if end is not None:
            after[before[end]], before[after[end]] = after[end], before[end]

    def _put_back(self, node: int) -> None:
        after, before = self.after, self.before
        end = self.returns.get(node)
        if end is not None:
            after[before[end]] = before[after[end]] = end
        after[before[node]] = before[after[node]] = node

    def _stuck(self, limit: int, answered: int, taken: list[_Taken[S]]) -> None:
        """The return at `limit` cannot be passed from here: keep the best attempt at the latest such return.

        The best has the most answered operations, and of the unanswered only those that mattered to it.
        """
        rank = (limit, answered, answered - len(taken))
        if rank > self.rank:
            self.rank, self.best = rank, list(taken)

    def _report(self, verdict: Verdict, steps: int) -> KeyReport:
        order = tuple(self.operations[self.called[each.node]] for each in self.best)
        states: list[Hashable] = [self.model.initial(self.key)]
        for operation in order:
            result = UNKNOWN if operation.unanswered else operation.result
            states.append(self.model.step(states[-1], operation.argument, result))  # type: ignore[arg-type]
        reached = self.rank[0]
        overdue = self.operations[self.returning[reached]] if reached else None
        taken = {each.node for each in self.best}
        calls = [node for node in range(1, reached or self.heads[0]) if self.called[node] >= 0 and node not in taken]
        left = tuple(self.operations[self.called[node]] for node in calls)
        return KeyReport(self.key, verdict, tuple(self.operations), order, tuple(states), overdue, left, steps)
