"""Random histories: the checker agrees with one that tries every order, and generated histories of one copy pass (I25).

The brute force here shares nothing with the checker but the meaning of the operations, written down a second time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from itertools import combinations, permutations
from math import inf
from random import Random

import pytest

from leafdb.testing.linearizability import Operation, Verdict, check
from leafdb.testing.linearizability_models import UNKNOWN, CompareAndSet, Get, IsImpossible, Put, Register

SEEDS = 3_000


class Plain:
    """A register whose model does not say what only reads: the search must do without knowing."""

    def initial(self, key: Hashable) -> Hashable:
        return None

    def step(self, state: Hashable, argument: object, result: object) -> Hashable | IsImpossible:
        return Register().step(state, argument, result)


def does(state: object, argument: object) -> tuple[object, object]:
    """The state after an operation, and its answer."""
    if isinstance(argument, Get):
        return state, state
    if isinstance(argument, Put):
        return argument.value, None
    assert isinstance(argument, CompareAndSet)
    return (argument.value, True) if state == argument.expected else (state, False)


def explains(order: tuple[Operation, ...]) -> bool:
    """Whether one copy that did these in this order, each within its time, would have answered so."""
    for place, each in enumerate(order):
        if any(later.returned_at < each.called_at for later in order[place + 1 :]):
            return False
    state: object = None
    for each in order:
        state, answer = does(state, each.argument)
        if each.returned_at != inf and answer != each.result:
            return False
    return True


def brute_force(operations: list[Operation]) -> bool:
    """Every order of the answered operations and of every selection of the others."""
    answered = [each for each in operations if each.returned_at != inf]
    others = [each for each in operations if each.returned_at == inf]
    return any(
        explains(order)
        for count in range(len(others) + 1)
        for chosen in combinations(others, count)
        for order in permutations([*answered, *chosen])
    )


def small_history(rng: Random) -> list[Operation]:
    """Up to six operations with answers that are likely, but need not be right; few values, so that they collide."""
    values: list[int | None] = [None, 1, 2, 3][: rng.randint(2, 4)]
    moments = rng.choice((4, 8, 16))
    operations = []
    for client in range(rng.randint(1, 6)):
        argument = draw(rng, values)
        start = rng.randrange(moments)
        end = start + rng.randint(0, moments // 2) if rng.random() < 0.75 else inf
        result: object = UNKNOWN
        if end != inf:
            result = rng.choice(values) if isinstance(argument, Get) else None
            if isinstance(argument, CompareAndSet):
                result = rng.random() < 0.5
        operations.append(Operation(client, "k", start, end, argument, result))
    return operations


def draw(rng: Random, values: list[int | None]) -> Get | Put | CompareAndSet:
    kind = rng.random()
    if kind < 0.4:
        return Get()
    if kind < 0.75:
        return Put(rng.choice(values))
    return CompareAndSet(rng.choice(values), rng.choice(values))


def test_random_histories_agree_with_every_order_tried() -> None:
    verdicts: Counter[bool] = Counter()
    with_unanswered = 0
    print(f"seeds 0 to {SEEDS - 1}")
    for seed in range(SEEDS):
        operations = small_history(Random(f"{seed}/small"))
        expected = brute_force(operations)
        verdict = Verdict.LINEARIZABLE if expected else Verdict.VIOLATION
        assert check(operations, Plain()).verdict is verdict, f"seed {seed}: {operations}"
        report = check(operations, Register())
        assert report.verdict is verdict, f"seed {seed}: {operations}"
        if expected:
            (only,) = report.keys
            assert explains(only.order), f"seed {seed}: {only.order}"
            assert all(each in only.order for each in operations if each.returned_at != inf), f"seed {seed}"
        verdicts[expected] += 1
        with_unanswered += any(each.returned_at == inf for each in operations)
    assert min(verdicts.values()) > SEEDS // 5, verdicts
    assert with_unanswered > SEEDS // 2


def one_copy(
    rng: Random, count: int, clients: int, *, unanswered: float = 0.03, unique: bool = True
) -> list[Operation]:
    """A history of one copy: each operation takes effect at a moment between its call and its return, or never.

    A client that was not answered goes on under another name, as one does after a timeout.
    """
    plans: list[tuple[float, float, float, str, Get | Put | CompareAndSet]] = []
    free = {client: rng.random() for client in range(clients)}
    known: object = None
    for number in range(count):
        client = min(free, key=lambda each: free[each])
        start = free[client]
        end = start + rng.expovariate(1)
        free[client] = end + rng.expovariate(2)
        value = number if unique else rng.randrange(3)
        argument = rng.choice((Get(), Get(), Put(value), CompareAndSet(known, value)))
        if not isinstance(argument, Get):
            known = value
        moment = rng.uniform(start, end)
        if rng.random() < unanswered:
            moment, end = rng.choice((moment, end + rng.expovariate(0.1), inf)), inf
        plans.append((moment, start, end, f"c{client}", argument))
    state: object = None
    operations = []
    for moment, start, end, client_name, argument in sorted(plans, key=lambda plan: plan[0]):
        result: object = UNKNOWN
        if moment != inf:
            state, answer = does(state, argument)
            result = answer if end != inf else UNKNOWN
        operations.append(Operation(client_name, "k", start, end, argument, result))
    rng.shuffle(operations)
    return operations


@pytest.mark.parametrize("seed", range(60))
def test_what_one_copy_answered_is_accepted(seed: int) -> None:
    rng = Random(f"{seed}/one copy")
    operations = one_copy(rng, rng.randint(100, 300), rng.randint(2, 8), unique=seed % 3 != 0)
    report = check(operations, Register())
    assert report.verdict is Verdict.LINEARIZABLE, f"seed {seed}"
    assert report.steps < 50_000


def falsified(rng: Random, operations: list[Operation]) -> list[Operation]:
    """One answer changed into another that an operation of its kind could have."""
    changeable = [place for place, each in enumerate(operations) if each.returned_at != inf and each.result is not None]
    place = rng.choice(changeable)
    each = operations[place]
    told: object = not each.result
    if isinstance(each.argument, Get):
        others = [other.argument.value for other in operations if isinstance(other.argument, Put | CompareAndSet)]
        told = rng.choice([value for value in others if value != each.result])
    changed = Operation(each.process, each.key, each.called_at, each.returned_at, each.argument, told)
    return [*operations[:place], changed, *operations[place + 1 :]]


def test_one_false_answer_in_a_long_history_is_mostly_found() -> None:
    """Mostly: a read may also have been before or after the write beside it. What is accepted has been explained."""
    rejected, seeds = 0, 100
    print(f"seeds 0 to {seeds - 1}")
    for seed in range(seeds):
        rng = Random(f"{seed}/falsified")
        operations = falsified(rng, one_copy(rng, rng.randint(100, 300), rng.randint(2, 8)))
        report = check(operations, Register())
        assert report.verdict is not Verdict.UNDECIDED, f"seed {seed}"
        (only,) = report.keys
        if report.verdict is Verdict.LINEARIZABLE:
            assert explains(only.order), f"seed {seed}"
        else:
            rejected += 1
            assert only.overdue is not None
            assert cannot_be_up_to(only.overdue, operations), f"seed {seed}: {only.overdue}"
    assert rejected > seeds * 3 // 4, rejected


def cannot_be_up_to(overdue: Operation, operations: list[Operation]) -> bool:
    """What was called before the overdue operation returned is enough to be rejected; without its answer, it is not."""
    until = overdue.returned_at
    begun = [each for each in operations if each.called_at <= until]

    def verdict(answered: Callable[[Operation], bool]) -> Verdict:
        history = [
            each
            if answered(each)
            else Operation(each.process, each.key, each.called_at, inf, each.argument, each.result)
            for each in begun
        ]
        return check(history, Register()).verdict

    return (
        verdict(lambda each: True) is Verdict.VIOLATION
        and verdict(lambda each: each.returned_at < until) is Verdict.LINEARIZABLE
    )
