"""The linearizability checker accepts what one copy could have answered, and rejects what it could not (I25).

A case is a list of operations: client, called at, returned at (`E`: never answered), what it asked, what it was told.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

import pytest

from leafdb.testing.linearizability import Operation, Recording, Verdict, check
from leafdb.testing.linearizability_models import (
    IMPOSSIBLE,
    NOT_APPLIED,
    UNKNOWN,
    Append,
    CompareAndSet,
    Create,
    Drop,
    Get,
    IsImpossible,
    Log,
    Lookup,
    NameRegistry,
    Put,
    ReadAll,
    Register,
)
from leafdb.testing.linearizability_report import explain, require_linearizable
from leafdb.testing.violation import Invariant, Violation

E = inf
Row = tuple[str, float, float, object, object]


def history(rows: list[Row], key: Hashable = "k") -> list[Operation]:
    return [Operation(client, key, start, end, asked, told) for client, start, end, asked, told in rows]


def swap(expected: Hashable, value: Hashable) -> CompareAndSet:
    return CompareAndSet(expected, value)


GOOD: dict[str, list[Row]] = {
    "nothing happened": [],
    "one after the other": [
        ("a", 0, 1, Put(1), None), ("b", 2, 3, Get(), 1), ("a", 4, 5, Put(2), None), ("b", 6, 7, Get(), 2),
    ],
    "a read beside a write sees it": [("a", 0, 10, Put(1), None), ("b", 2, 3, Get(), 1)],
    "a read beside a write does not see it yet": [("a", 0, 10, Put(1), None), ("b", 2, 3, Get(), None)],
    "two reads beside a write, old then new": [
        ("a", 0, 10, Put(1), None), ("b", 1, 2, Get(), None), ("b", 3, 4, Get(), 1),
    ],
    "two writes side by side in the order that the reads tell": [
        ("a", 0, 10, Put(1), None), ("b", 0, 10, Put(2), None), ("c", 11, 12, Get(), 1),
    ],
    "the later call comes first": [
        ("a", 0, 10, Put(1), None), ("b", 1, 9, Put(2), None), ("c", 2, 3, Get(), 2), ("c", 4, 5, Get(), 1),
    ],
    "a return and a call at one time are side by side": [("a", 0, 5, Put(1), None), ("b", 5, 6, Get(), None)],
    "one of two swaps from the same value wins": [
        ("a", 0, 5, swap(None, 1), True), ("b", 1, 6, swap(None, 2), False), ("c", 7, 8, Get(), 1),
    ],
    "a swap fails beside the write that lets it": [
        ("a", 0, 9, swap(1, 2), False), ("b", 1, 8, Put(1), None), ("c", 10, 11, Get(), 1),
    ],
    "a chain of swaps that was answered in another order": [
        ("a", 0, 9, swap(2, 3), True), ("b", 0, 9, swap(1, 2), True), ("c", 0, 9, swap(None, 1), True),
        ("d", 10, 11, Get(), 3),
    ],
    "an unanswered write that never was": [
        ("a", 0, E, Put(1), UNKNOWN), ("b", 5, 6, Get(), None), ("b", 7, 8, Get(), None),
    ],
    "an unanswered write that appears late": [
        ("a", 0, E, Put(1), UNKNOWN), ("b", 5, 6, Get(), None), ("b", 7, 8, Put(2), None), ("b", 9, 10, Get(), 2),
        ("b", 11, 12, Get(), 1),
    ],
    "an unanswered write that was overwritten unseen": [
        ("a", 0, E, Put(1), UNKNOWN), ("b", 2, 3, swap(1, 2), True), ("b", 4, 5, Get(), 2),
    ],
    "two unanswered writes that appear in either order": [
        ("a", 0, E, Put(1), UNKNOWN), ("b", 0, E, Put(2), UNKNOWN), ("c", 2, 3, Get(), 2), ("c", 4, 5, Get(), 1),
    ],
    "a write without an answer that did return counts as unanswered": [
        ("a", 0, 1, Put(1), UNKNOWN), ("b", 5, 6, Get(), None),
    ],
    "an unanswered swap that won and makes another fail": [
        ("a", 0, E, swap(None, 1), UNKNOWN), ("b", 2, 3, swap(None, 2), False), ("b", 4, 5, Get(), 1),
    ],
    "a refused write is no write": [("a", 0, 1, Put(1), NOT_APPLIED), ("b", 2, 3, Get(), None)],
    "one value written twice may be read twice": [
        ("a", 0, 1, Put(1), None), ("b", 2, 3, Put(2), None), ("c", 4, 5, Get(), 2), ("a", 6, 7, Put(1), None),
        ("c", 8, 9, Get(), 1),
    ],
    "a deletion": [("a", 0, 1, Put(1), None), ("a", 2, 3, Put(None), None), ("b", 4, 5, Get(), None)],
}  # fmt: skip

BAD: dict[str, list[Row]] = {
    "a stale read": [("a", 0, 1, Put(1), None), ("a", 2, 3, Put(2), None), ("b", 4, 5, Get(), 1)],
    "a lost write": [("a", 0, 1, Put(1), None), ("b", 2, 3, Get(), None)],
    "a read of what nobody wrote": [("a", 0, 1, Put(1), None), ("b", 2, 3, Get(), 7)],
    "a read from the future": [("b", 0, 1, Get(), 1), ("a", 2, 3, Put(1), None)],
    "a write that is seen, then not": [
        ("a", 0, 10, Put(1), None), ("b", 1, 2, Get(), 1), ("b", 3, 4, Get(), None),
    ],
    "two readers that disagree on the order": [
        ("a", 0, 10, Put(1), None), ("b", 0, 10, Put(2), None),
        ("c", 1, 2, Get(), 1), ("c", 3, 4, Get(), 2), ("d", 1, 2, Get(), 2), ("d", 3, 4, Get(), 1),
    ],
    "two swaps from one value that both win": [
        ("a", 0, 5, swap(None, 1), True), ("b", 0, 5, swap(None, 2), True),
    ],
    "one swap that wins twice": [
        ("a", 0, 1, Put(1), None), ("a", 2, 3, swap(1, 2), True), ("b", 4, 5, swap(1, 3), True),
    ],
    "a swap that fails though the value was there all along": [
        ("a", 0, 1, Put(1), None), ("b", 2, 3, swap(1, 2), False),
    ],
    "a failed swap that wrote": [("a", 0, 1, Put(1), None), ("b", 2, 3, swap(5, 2), False), ("a", 4, 5, Get(), 2)],
    "a lost update: a read and a swap over a write between": [
        ("a", 0, 1, Put(0), None), ("a", 2, 3, swap(0, 1), True), ("b", 4, 5, swap(0, 2), True), ("c", 6, 7, Get(), 2),
    ],
    "split brain: each side reads its own": [
        ("a", 0, 1, Put(1), None), ("b", 0, 1, Put(2), None),
        ("a", 2, 3, Get(), 1), ("b", 2, 3, Get(), 2), ("a", 4, 5, Get(), 1),
    ],
    "an unanswered write that appears and is gone again": [
        ("a", 0, E, Put(1), UNKNOWN), ("b", 2, 3, Get(), 1), ("b", 4, 5, Get(), None),
    ],
    "an unanswered write that appears, is overwritten, reappears": [
        ("a", 0, E, Put(1), UNKNOWN), ("b", 2, 3, Get(), 1), ("b", 4, 5, Put(2), None), ("b", 6, 7, Get(), 1),
    ],
    "an unanswered write that is seen before it was called": [("b", 0, 1, Get(), 1), ("a", 2, E, Put(1), UNKNOWN)],
    "an unanswered swap that cannot have won": [
        ("a", 0, 1, Put(5), None), ("b", 2, E, swap(1, 9), UNKNOWN), ("c", 4, 5, Get(), 9),
    ],
    "an unanswered write that takes effect for two swaps": [
        ("a", 0, E, Put(1), UNKNOWN), ("b", 2, 3, swap(1, 2), True), ("b", 4, 5, swap(1, 3), True),
    ],
    "a refused write that appears": [("a", 0, 1, Put(1), NOT_APPLIED), ("b", 2, 3, Get(), 1)],
    "a deletion that is undone": [
        ("a", 0, 1, Put(1), None), ("a", 2, 3, Put(None), None), ("b", 4, 5, Get(), None), ("b", 6, 7, Get(), 1),
    ],
    "a write that is late for its own client": [
        ("a", 0, 1, Put(1), None), ("a", 2, 3, Put(2), None), ("a", 4, 5, Get(), None),
    ],
    "a value that is back without a second write": [
        ("a", 0, 1, Put(1), None), ("a", 2, 3, Put(2), None), ("b", 4, 5, Get(), 2), ("b", 6, 7, Get(), 1),
    ],
    "a read beside writes that sees none of them": [
        ("x", 0, 1, Put(0), None), ("a", 2, 9, Put(1), None), ("b", 2, 9, Put(2), None), ("c", 10, 11, Get(), 0),
    ],
}  # fmt: skip

GOOD_NAMES: dict[str, list[Row]] = {
    "created, dropped, created anew": [
        ("a", 0, 1, Create(), 7), ("b", 2, 3, Lookup(), 7), ("a", 4, 5, Drop(), True), ("b", 6, 7, Lookup(), None),
        ("a", 8, 9, Create(), 8),
    ],
    "of two creations one wins": [("a", 0, 5, Create(), 7), ("b", 0, 5, Create(), None), ("b", 6, 7, Lookup(), 7)],
    "an unanswered creation that is looked up": [
        ("a", 0, E, Create(), UNKNOWN), ("b", 2, 3, Lookup(), None), ("b", 4, 5, Lookup(), 7),
        ("b", 6, 7, Create(), None),
    ],
    "an unanswered drop": [
        ("a", 0, 1, Create(), 7), ("a", 2, E, Drop(), UNKNOWN), ("b", 4, 5, Lookup(), 7), ("b", 6, 7, Create(), 8),
    ],
    "dropping nothing": [("a", 0, 1, Drop(), False), ("a", 2, 3, Create(), 7)],
}  # fmt: skip

BAD_NAMES: dict[str, list[Row]] = {
    "two creations win": [("a", 0, 5, Create(), 7), ("b", 0, 5, Create(), 8)],
    "a dropped name is back": [("a", 0, 1, Create(), 7), ("a", 2, 3, Drop(), True), ("b", 4, 5, Lookup(), 7)],
    "an identity is reused": [("a", 0, 1, Create(), 7), ("a", 2, 3, Drop(), True), ("b", 4, 5, Create(), 7)],
    "an unanswered creation takes the old identity": [
        ("a", 0, 1, Create(), 7), ("a", 2, 3, Drop(), True), ("b", 4, E, Create(), UNKNOWN), ("b", 6, 7, Lookup(), 7),
    ],
    "an unanswered creation has two identities": [
        ("a", 0, E, Create(), UNKNOWN), ("b", 2, 3, Lookup(), 7), ("b", 4, 5, Lookup(), 8),
    ],
    "one thing is dropped twice": [("a", 0, 1, Create(), 7), ("a", 2, 5, Drop(), True), ("b", 2, 5, Drop(), True)],
    "a name is forgotten": [("a", 0, 1, Create(), 7), ("b", 2, 3, Lookup(), None)],
    "a free name is said to be taken": [("a", 0, 1, Create(), None)],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_one_copy_could_have_answered_is_accepted(name: str) -> None:
    operations = history(GOOD[name])
    report = check(operations, Register())
    assert report.verdict is Verdict.LINEARIZABLE
    for each in report.keys:
        assert_explains(each.operations, each.order)


@pytest.mark.parametrize("name", BAD)
def test_what_no_copy_could_have_answered_is_rejected(name: str) -> None:
    report = check(history(BAD[name]), Register())
    assert report.verdict is Verdict.VIOLATION
    assert report.violation is not None
    assert explain(report.violation)


@pytest.mark.parametrize("name", GOOD_NAMES)
def test_names_created_and_dropped_are_accepted(name: str) -> None:
    assert check(history(GOOD_NAMES[name]), NameRegistry()).verdict is Verdict.LINEARIZABLE


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_come_back_are_rejected(name: str) -> None:
    assert check(history(BAD_NAMES[name]), NameRegistry()).verdict is Verdict.VIOLATION


def test_names_without_identities_merely_exist() -> None:
    model = NameRegistry(identities=False)
    rows: list[Row] = [("a", 0, 1, Create(), True), ("a", 2, 3, Drop(), True), ("a", 4, 5, Create(), True)]
    assert check(history(rows), model).verdict is Verdict.LINEARIZABLE
    rows.append(("b", 6, 7, Lookup(), None))
    assert check(history(rows), model).verdict is Verdict.VIOLATION


def test_a_log_keeps_order_and_loses_nothing() -> None:
    rows: list[Row] = [("a", 0, 9, Append("x"), 2), ("b", 0, 9, Append("y"), 1), ("c", 1, E, Append("z"), UNKNOWN)]
    for values, verdict in [
        (("y", "x"), Verdict.LINEARIZABLE),
        (("y", "x", "z"), Verdict.LINEARIZABLE),
        (("y", "z", "x"), Verdict.VIOLATION),  # x was told that it is the second
        (("x", "y"), Verdict.VIOLATION),
        (("y",), Verdict.VIOLATION),
        (("y", "x", "x"), Verdict.VIOLATION),
    ]:
        assert check(history([*rows, ("d", 10, 11, ReadAll(), values)]), Log()).verdict is verdict, values


def test_keys_are_judged_apart() -> None:
    good, bad = history(GOOD["one after the other"], "good"), history(BAD["a stale read"], "bad")
    report = check([*good, *bad], Register())
    assert [(each.key, each.verdict) for each in report.keys] == [
        ("good", Verdict.LINEARIZABLE),
        ("bad", Verdict.VIOLATION),
    ]
    assert report.verdict is Verdict.VIOLATION
    assert check(good, Register()).verdict is Verdict.LINEARIZABLE


def test_the_initial_value_is_the_models() -> None:
    operations = history([("a", 0, 1, Get(), 7)])
    assert check(operations, Register(7)).verdict is Verdict.LINEARIZABLE
    assert check(operations, Register()).verdict is Verdict.VIOLATION


def test_the_budget_ends_a_search_undecided() -> None:
    writes: list[Row] = [(f"c{each}", 0, 100, Put(each), None) for each in range(12)]
    reads: list[Row] = [("r", 101, 102, Get(), "nobody wrote this")]
    report = check(history(writes + reads), Register(), steps_max=1_000)
    assert report.verdict is Verdict.UNDECIDED
    assert report.steps == 1_000
    assert "undecided" in explain(report.keys[0])
    rejected = check([*history(writes + reads), *history(BAD["a stale read"], "other")], Register(), steps_max=1_000)
    assert rejected.verdict is Verdict.VIOLATION, "a violation of one key outweighs an undecided one"


def test_many_unanswered_writes_cost_little() -> None:
    """Each may be anywhere, but only the one that a read has seen matters, and only just before that read."""
    rows: list[Row] = [("u", start, E, Put(f"u{start}"), UNKNOWN) for start in range(40)]
    for number in range(40):
        rows.append(("a", 100 + 4 * number, 101 + 4 * number, Put(number), None))
        rows.append(("b", 102 + 4 * number, 103 + 4 * number, Get(), f"u{number}"))
    assert check(history(rows), Register(), steps_max=100_000).verdict is Verdict.LINEARIZABLE
    rows.append(("b", 1_000, 1_001, Get(), "u0"))
    assert check(history(rows), Register(), steps_max=100_000).verdict is Verdict.VIOLATION


def test_a_violation_tells_its_story() -> None:
    rows: list[Row] = [(f"w{each}", each, each + 0.5, Put(each), None) for each in range(40)]
    rows += [("slow", 38, E, Put("late"), UNKNOWN), ("reader", 50, 51, Get(), 3), ("after", 60, 61, Get(), 39)]
    with pytest.raises(Violation) as caught:
        require_linearizable(history(rows, "users/7"), Register())
    assert (caught.value.invariant, caught.value.key) == (Invariant.LINEARIZABLE, "users/7")
    lines = caught.value.message.splitlines()
    assert lines[0].startswith("users/7: not linearizable (43 operations")
    assert lines[1] == "no order explains all answers up to: reader Get() = 3"
    assert "  ... 28 before" in lines
    assert any("#40" in line and "Put(value=39) = None  ->  state 39" in line for line in lines)
    assert "  !!   reader     Get() = 3" in lines
    assert "  ?    slow       Put(value='late') = ?" in lines
    assert not any("after" in line for line in lines), "what came later has nothing to do with it"
    assert any(line.startswith("  !!   reader ") and line.endswith("||") for line in lines)
    assert any(line.startswith("  ?    slow ") and line.endswith("->") for line in lines)
    assert all(len(line) <= 120 for line in lines)


def test_the_first_answer_that_nothing_explains_is_named() -> None:
    report = check(history(BAD["an unanswered write that appears, is overwritten, reappears"]), Register())
    assert report.violation is not None
    assert report.violation.overdue == Operation("b", "k", 6, 7, Get(), 1)
    assert [each.argument for each in report.violation.order] == [Put(1), Get(), Put(2)]
    assert report.violation.states == (None, 1, 1, 2)
    assert report.violation.left == (report.violation.overdue,)


def test_a_recording_orders_what_happens_at_one_instant() -> None:
    recording = Recording()
    recording.returned(recording.call("a", "k", Put(1)), None)
    recording.call("b", "k", Put(2))
    recording.returned(recording.call("c", "k", Put(3)), NOT_APPLIED)
    recording.returned(recording.call("d", "k", Put(4)), UNKNOWN)
    read = recording.call("e", "k", Get())
    assert check(recording.operations(), Register()).verdict is Verdict.LINEARIZABLE
    verdicts = {}
    for told in (None, 1, 2, 3, 4):
        recording.returned(read, told)
        verdicts[told] = check(recording.operations(), Register()).verdict is Verdict.LINEARIZABLE
    assert verdicts == {None: False, 1: True, 2: True, 3: False, 4: True}


def test_an_operation_cannot_return_before_its_call() -> None:
    with pytest.raises(ValueError, match="before it is called"):
        Operation("a", "k", 5, 4, Get(), None)


def test_a_model_is_asked_only_what_it_knows() -> None:
    nonsense = history([("a", 0, 1, "nonsense", None)])
    with pytest.raises(TypeError, match="a register knows no 'nonsense'"):
        check(nonsense, Register())
    with pytest.raises(TypeError, match="a name registry knows no 'nonsense'"):
        check(nonsense, NameRegistry())
    with pytest.raises(TypeError, match="a log knows no 'nonsense'"):
        check(nonsense, Log())


def test_a_model_of_ones_own() -> None:
    class Counter:
        """Adds, and answers the sum."""

        def initial(self, key: Hashable) -> int:
            return 0

        def step(self, state: int, argument: object, result: object) -> int | IsImpossible:
            assert isinstance(argument, int)
            return state + argument if result in (UNKNOWN, state + argument) else IMPOSSIBLE

    rows: list[Row] = [("a", 0, 5, 1, 3), ("b", 0, 5, 2, 2), ("c", 0, E, 10, UNKNOWN), ("a", 6, 7, 1, 14)]
    assert check(history(rows), Counter()).verdict is Verdict.LINEARIZABLE
    rows.append(("a", 8, 9, 1, 5))
    assert check(history(rows), Counter()).verdict is Verdict.VIOLATION


def assert_explains(operations: tuple[Operation, ...], order: tuple[Operation, ...]) -> None:
    """`order` is a proof: each answered operation once, in the order of time where there is one, answered rightly."""
    assert [each for each in operations if not each.unanswered and each not in order] == []
    assert all(order.count(each) <= operations.count(each) for each in order)
    state: Hashable = None
    for place, each in enumerate(order):
        assert all(each.returned_at >= later.called_at or later is each for later in order[:place])
        assert all(later.returned_at >= each.called_at for later in order[place:])
        state = Register().step(state, each.argument, UNKNOWN if each.unanswered else each.result)
        assert state is not IMPOSSIBLE
