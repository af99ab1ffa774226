"""In the middle of a ring change a read shows what both sets of owners hold, whichever it asks (I8, I19)."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from leafdb.quorum.get_operation import GetOperation, GetStep
from leafdb.quorum.joint_get_operation import JointGetOperation
from leafdb.quorum.owner_set import OwnerSet, appoint
from leafdb.types import NodeId

A, B, C, D, E, F = (NodeId(number) for number in range(1, 7))


def union(one: bytes, other: bytes) -> bytes:
    """A merge that is a join: the sorted union of letters."""
    return bytes(sorted({*one, *other}))


def operation(
    read: tuple[NodeId, ...] = (A, B, C),
    other: tuple[NodeId, ...] = (B, C, D),
    *,
    asked: tuple[NodeId, ...],
    spares: tuple[NodeId, ...] = (),
    others: dict[NodeId, NodeId] | None = None,
    r: tuple[int, int] = (2, 2),
    pr: tuple[int, int] = (0, 0),
) -> JointGetOperation:
    get = JointGetOperation(
        r=r[0],
        pr=pr[0],
        asked=set(asked),
        spares=list(spares),
        primaries=read,
        merge=union,
        other=OwnerSet(other, w=r[1], pw=pr[1]),
        others=others if others is not None else {node: node for node in other},
    )
    get.check()
    return get


def test_owners_of_both_sets_that_agree_need_no_write_back() -> None:
    get = operation(asked=(B, C))
    assert get.answered(B, b"x") is GetStep.NOTHING
    assert get.answered(C, b"x") is GetStep.DECIDED
    assert get.repairs == []
    assert get.finished


def test_old_owners_that_agree_are_not_believed_until_the_new_ones_hold_it() -> None:
    get = operation(asked=(A, B))
    get.answered(A, b"x")
    assert get.answered(B, b"x") is GetStep.NOTHING
    assert sorted(get.repairs) == [C, D]
    assert get.written_back(D) is GetStep.DECIDED
    assert not get.finished
    assert get.written_back(C) is GetStep.NOTHING
    assert get.finished


def test_growing_from_one_to_three_shows_what_two_of_the_three_hold() -> None:
    get = operation((A,), (A, B, C), asked=(A,), r=(1, 2))
    assert get.answered(A, b"x") is GetStep.NOTHING
    assert get.repairs == [B, C]
    assert get.lost(B) is GetStep.NOTHING
    assert get.written_back(C) is GetStep.DECIDED


def test_missing_needs_no_confirmation() -> None:
    get = operation((A,), (B,), asked=(A,), r=(1, 1))
    assert get.answered(A, None) is GetStep.DECIDED
    assert get.merged is None
    assert get.repairs == []


def test_each_set_is_brought_up_with_one_write_back() -> None:
    get = operation(asked=(A, B))
    get.answered(A, b"xy")
    assert get.answered(B, b"x") is GetStep.NOTHING
    assert get.repairs == [B, C, D]
    assert get.written_back(D) is GetStep.NOTHING, "of those asked only one holds it"
    assert get.written_back(B) is GetStep.DECIDED


def test_an_owner_of_both_sets_that_was_not_asked_counts_in_both() -> None:
    get = operation(asked=(A, B))
    get.answered(A, b"x")
    get.answered(B, b"xy")
    assert get.repairs == [A, C, D]
    assert get.written_back(C) is GetStep.DECIDED


def test_a_set_that_cannot_be_brought_up_fails_the_read_and_is_named() -> None:
    get = operation((A, B), (C, D), asked=(A, B))
    get.answered(A, b"x")
    assert get.answered(B, b"x") is GetStep.NOTHING
    assert get.lost(C) is GetStep.FAILED
    assert get.progress == (0, 2)
    assert get.written_back(D) is GetStep.NOTHING


def test_nobody_to_write_back_to_fails_at_once() -> None:
    get = operation((A, B), (B, C), asked=(A, B), others={B: B})
    get.answered(A, b"x")
    assert get.answered(B, b"x") is GetStep.FAILED


def test_a_stand_in_counts_for_the_other_set_by_a_write_back_that_names_its_primary() -> None:
    get = operation((A, B), (B, C), asked=(A, E), others={B: B, E: C})
    get.answered(A, b"x")
    assert get.answered(E, b"x") is GetStep.NOTHING
    assert get.repairs == [B, E]
    assert get.written_back(E) is GetStep.NOTHING
    assert get.written_back(B) is GetStep.DECIDED


def test_a_stand_in_of_a_primary_of_the_other_set_alone_is_no_holder_of_the_set_asked() -> None:
    get = operation((A, B), (C, D), asked=(A, E), spares=(B,), others={E: C, D: D}, r=(2, 2))
    get.answered(A, b"xy")
    assert get.answered(E, b"x") is GetStep.FAILED
    assert get.progress == (0, 2)


def test_pr_counts_primaries_of_either_set_in_person() -> None:
    get = operation((A, B), (B, C), asked=(A, B), others={B: B, E: C}, pr=(0, 2))
    get.answered(A, b"x")
    assert get.answered(B, b"x") is GetStep.FAILED
    get = operation((A, B), (B, C), asked=(A, B), pr=(0, 2))
    get.answered(A, b"x")
    assert get.answered(B, b"x") is GetStep.NOTHING
    assert get.written_back(C) is GetStep.DECIDED


def test_one_that_has_not_answered_yet_may_confirm_all_the_same() -> None:
    get = operation(asked=(A, B, C))
    get.answered(A, b"x")
    get.answered(B, b"x")
    assert get.unknown(C) is GetStep.NOTHING, "it cannot say, and has been sent the merge"
    assert get.written_back(C) is GetStep.DECIDED
    get = operation(asked=(A, B, C), others={B: B, C: C})
    get.answered(A, b"x")
    get.answered(B, b"x")
    assert get.lost(C) is GetStep.FAILED
    assert get.finished


def test_a_late_answer_that_knows_more_is_repaired_and_changes_no_answer() -> None:
    get = operation(asked=(B, C, A))
    get.answered(B, b"x")
    assert get.answered(C, b"x") is GetStep.DECIDED
    assert get.answered(A, b"xy") is GetStep.NOTHING
    assert get.repairs == [B, C]
    assert get.merged == b"x"


def test_the_deadline_ends_it_once() -> None:
    get = operation(asked=(A, B))
    get.answered(A, b"x")
    get.answered(B, b"x")
    assert get.expired() is GetStep.FAILED
    assert get.finished
    assert get.expired() is GetStep.NOTHING
    assert get.written_back(D) is GetStep.NOTHING


class World:
    """Stores that answer and take write-backs, in any order, some of them lost."""

    def __init__(self, seed: int) -> None:
        rng = self.rng = random.Random(seed)
        nodes = [NodeId(number) for number in range(1, 8)]
        self.read, self.other = (tuple(rng.sample(nodes, rng.randint(1, 4))) for _ in range(2))
        self.r, self.r_other = rng.randint(1, len(self.read)), rng.randint(1, len(self.other))
        both = list(dict.fromkeys((*self.read, *self.other)))
        self.loss = rng.choice((0.0, 0.0, 0.1, 0.3))
        away = [node for node in both if rng.random() < self.loss]
        stand_ins = [NodeId(number) for number in range(10, 10 + rng.randint(0, 2))]
        self.stores: dict[NodeId, bytes | None] = {
            node: bytes(sorted(rng.sample(b"abc", rng.randint(1, 3)))) if rng.random() < 0.7 else None
            for node in (*both, *stand_ins)
        }
        targets = {node: node for node in both if node not in away}
        counts = [OwnerSet(self.read, w=self.r), OwnerSet(self.other, w=self.r_other)]
        appoint(targets, away, stand_ins, counts)
        self.candidates = [node for node, primary in targets.items() if primary in self.read]
        rng.shuffle(self.candidates)
        self.get = JointGetOperation(
            r=self.r,
            pr=0,
            asked=set(self.candidates[: self.r]),
            spares=self.candidates[self.r :],
            primaries=self.read,
            merge=union,
            other=OwnerSet(self.other, w=self.r_other),
            others={node: primary for node, primary in targets.items() if primary in self.other},
        )
        self.todo = [("answer", node) for node in self.candidates[: self.r]]
        self.ends: list[GetStep] = []
        self.hinted: dict[NodeId, bytes] = {}
        """By primary, what a stand-in keeps for it."""

    def run(self) -> None:
        rng, get = self.rng, self.get
        while self.todo:
            kind, node = self.todo.pop(rng.randrange(len(self.todo)))
            if rng.random() < self.loss / 2:
                step = get.lost(node)
            elif kind == "answer":
                step = self._answers(node)
            else:
                step = self._takes(node)
            if rng.random() < 0.1:
                get.hedge()
            self.todo += [("answer", each) for each in get.asks] + [("write", each) for each in get.repairs]
            get.asks.clear()
            get.repairs.clear()
            get.check()
            if step is not GetStep.NOTHING:
                self.ends.append(step)
                if step is GetStep.DECIDED and get.merged is not None:
                    self.assert_held(get.merged)
        if not self.ends:
            self.ends.append(get.expired())
        assert get.finished

    def _answers(self, node: NodeId) -> GetStep:
        record = self.stores[node]
        if self.rng.random() < self.loss / 2 or (record is None and node not in self.read):
            return self.get.unknown(node, record)
        return self.get.answered(node, record)

    def _takes(self, node: NodeId) -> GetStep:
        best = self.get.best
        assert best is not None
        old = self.stores[node]
        self.stores[node] = best if old is None else union(old, best)
        if primary := self.get.others.get(node):
            self.hinted[primary] = best
        return self.get.written_back(node)

    def assert_held(self, shown: bytes) -> None:
        def has(record: bytes | None) -> bool:
            return record is not None and union(record, shown) == record

        there = {node for node in self.stores if has(self.stores[node])}
        assert len(there.intersection(self.candidates)) >= self.r
        reached = there | {primary for primary, record in self.hinted.items() if has(record)}
        for set_, r in ((self.read, self.r), (self.other, self.r_other)):
            if 2 * r > len(set_) and (set_ == self.other or set(self.candidates) <= set(self.read)):
                for asked in combinations(set_, r):
                    assert reached.intersection(asked), "the next such read, of either set, sees it"


@pytest.mark.parametrize("seed", range(400))
def test_what_a_read_shows_every_later_read_of_either_set_finds(seed: int) -> None:
    world = World(seed)
    if len(world.candidates) < world.r:
        return
    world.run()
    assert len(world.ends) == 1
    if not world.loss:
        assert world.ends == [GetStep.DECIDED], "with everybody there a read is answered"


@pytest.mark.parametrize("seed", range(200))
def test_with_two_equal_sets_it_is_the_machine_of_one(seed: int) -> None:
    rng = random.Random(seed)
    nodes = [NodeId(number) for number in range(1, rng.randint(2, 6))]
    r = rng.randint(1, len(nodes))
    one = GetOperation(r=r, pr=0, asked=set(nodes[:r]), spares=nodes[r:], primaries=nodes, merge=union)
    two = JointGetOperation(
        r=r,
        pr=0,
        asked=set(nodes[:r]),
        spares=nodes[r:],
        primaries=nodes,
        merge=union,
        other=OwnerSet(nodes, w=r),
        others={node: node for node in nodes[:r]},
    )
    while not one.finished and not one.ended:
        awaiting = sorted(one.waiting) or sorted(one.writing_back or ())
        node = rng.choice(awaiting)
        if one.writing_back is not None and node in one.writing_back:
            assert one.written_back(node) is two.written_back(node)
        else:
            record = bytes(rng.sample(b"abc", 1)) if rng.random() < 0.7 else None
            assert one.answered(node, record) is two.answered(node, record)
        assert (one.ended, one.merged, one.asks, one.writing_back) == (
            two.ended,
            two.merged,
            two.asks,
            two.writing_back,
        )
        assert one.progress == two.progress or one.writing_back is None
