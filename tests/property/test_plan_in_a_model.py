"""A plan from beginning to end in a model: puts and gets of one key by the quorum machines, phases that advance.

Nodes keep sets of writes. Copies, answers and confirmations come in any order, late, or never; every node and every
coordinator learns of a phase when it does, and a replica refuses who is behind it. Asserted: a read sees every write
acknowledged before it began, and all that an earlier read has shown, whatever phases the two were in; w + r > n and
2 r > n, and answers come from primaries. Left out one at a time, each rule of the walk is missed by some history.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from itertools import chain
from random import Random

import pytest

from leafdb.quorum.get_operation import GetOperation, GetStep
from leafdb.quorum.joint_get_operation import JointGetOperation
from leafdb.quorum.joint_put_operation import JointPutOperation
from leafdb.quorum.owner_set import OwnerSet
from leafdb.quorum.put_operation import PutOperation, Step
from leafdb.types import NodeId

Nodes = tuple[NodeId, ...]


class Phase(Enum):
    """Of the plan."""

    BEFORE = "before"
    READ_OLD = "write both, read old"
    READ_NEW = "write both, read new"
    DONE = "done"
    RETREAT = "write both, read old, on the way back"
    ABORTED = "as before"

    @property
    def joint(self) -> bool:
        return self in (Phase.READ_OLD, Phase.READ_NEW, Phase.RETREAT)

    @property
    def reads_new(self) -> bool:
        return self in (Phase.READ_NEW, Phase.DONE)


PATHS = (
    (Phase.BEFORE, Phase.READ_OLD, Phase.READ_NEW, Phase.DONE),
    (Phase.BEFORE, Phase.READ_OLD, Phase.ABORTED),
    (Phase.BEFORE, Phase.READ_OLD, Phase.READ_NEW, Phase.RETREAT, Phase.ABORTED),
)


class Rule(Enum):
    """What the walk needs, each left out in one test."""

    COPY = "every owner that is new has taken the key from old ones before the new are read"
    SOURCES = "from so many of them that every w of them are met: a majority, and n - w + 1 if that is more"
    RETAINED = "so has an owner that stays, for it may have missed what the others acknowledged"
    BOTH_HOLD = "a read shows what both sets hold"
    COUNT_BOTH = "a write is counted in both sets"
    FENCE = "a set is given up only when all of it know that it is not read any more"


def union(one: bytes, other: bytes) -> bytes:
    return bytes(sorted({*one, *other}))


def covers(record: bytes | None, part: bytes) -> bool:
    return set(part) <= set(record or b"")


def majority(nodes: Nodes) -> int:
    return len(nodes) // 2 + 1


def one(nodes: Nodes) -> int:
    return 1


COUNTS: tuple[tuple[Callable[[Nodes], int], Callable[[Nodes], int]], ...] = (
    (majority, majority),
    (majority, majority),
    (one, len),
)
"""w and r, whose sum is above n."""


class Model:
    """One key, one plan, coordinators everywhere. `known` and `epoch` are places in the plan's path."""

    def __init__(self, seed: int, left_out: Rule | None = None) -> None:
        rng = self.rng = Random(seed)
        nodes = [NodeId(number) for number in range(1, 7)]
        self.left_out = left_out
        self.old, self.new = (tuple(rng.sample(nodes, rng.choice((1, 2, 3, 3)))) for _ in range(2))
        self.path = rng.choice(PATHS)
        self.w, self.r = COUNTS[-1] if left_out is Rule.SOURCES else rng.choice(COUNTS)
        self.stores: dict[NodeId, bytes] = dict.fromkeys(nodes, b"")
        self.known: dict[NodeId, int] = dict.fromkeys(nodes, 0)
        self.epoch = 0
        self.uncopied = [] if left_out is Rule.COPY else list(self.new)
        if left_out is Rule.RETAINED:
            self.uncopied = [node for node in self.new if node not in self.old]
        self.incomplete = {node for node in self.uncopied if node not in self.old}
        self.loss = rng.choice((0.0, 0.1, 0.3))
        self.slow = {node for node in nodes if rng.random() < 0.3}
        """They learn of a phase from requests, and hardly otherwise."""
        self.quiet_until = rng.choice((0, 0, 1, len(self.path) - 1))
        """The first write comes no earlier: until then every answer is "missing"."""
        self.pending: list[Callable[[], None]] = []
        self.writes = 0
        self.settled = b""
        """Acknowledged or shown: every read that begins now must show it."""
        self.reads = [0] * len(self.path)

    def run(self) -> None:
        rng = self.rng
        steps: tuple[Callable[[], None], ...] = (self.put, self.get, self.learn, self.advance)
        for _ in range(250):
            if self.pending and rng.random() < 0.8:
                self.pending.pop(rng.randrange(len(self.pending)))()
            else:
                rng.choice(steps)()
        while self.pending:
            self.pending.pop(rng.randrange(len(self.pending)))()

    # -- the plan

    @property
    def phase(self) -> Phase:
        return self.path[self.epoch]

    def learn(self) -> None:
        node = self.rng.choice(list(self.known))
        if node not in self.slow or self.rng.random() < 0.1:
            self.known[node] = self.epoch

    def advance(self) -> None:
        """What the next phase needs is tried, or done."""
        if self.epoch + 1 == len(self.path) or self.rng.random() < 0.5:
            return
        following = self.path[self.epoch + 1]
        if following is Phase.READ_NEW and self.uncopied:
            self.copy()
            return
        given_up: Nodes = ()
        if following is Phase.DONE:
            given_up = self.old
        elif self.phase is Phase.RETREAT:
            given_up = self.new
        if self.left_out is Rule.FENCE or all(self.known[node] == self.epoch for node in given_up):
            self.epoch += 1

    def copy(self) -> None:
        """One new owner takes the key from some of the old ones: from whoever knows that writes go to both."""
        enough = majority(self.old)
        if self.left_out is not Rule.SOURCES:
            enough = max(enough, len(self.old) - self.w(self.old) + 1)
        sources = [node for node in self.old if self.known[node] >= 1]
        node = self.rng.choice(self.uncopied)
        if len(sources) >= enough and self.known[node] >= 1:
            for source in self.rng.sample(sources, enough):
                self.stores[node] = union(self.stores[node], self.stores[source])
            self.uncopied.remove(node)
            self.incomplete.discard(node)

    # -- messages

    def send(self, node: NodeId, epoch: int, arrives: Callable[[], None], fails: Callable[[], None]) -> None:
        """A request of a coordinator in `epoch`: carried out and answered some time, refused, or lost on either way."""

        def deliver() -> None:
            if self.rng.random() < self.loss or self.known[node] > epoch:
                self.pending.append(fails)
            else:
                self.known[node] = epoch  # a replica behind catches up before it answers
                arrives()

        self.pending.append(deliver)

    def merge(self, node: NodeId, record: bytes, confirmed: Callable[[], None], lost: Callable[[], None]) -> None:
        self.stores[node] = union(self.stores[node], record)
        self.pending.append(lost if self.rng.random() < self.loss else confirmed)

    # -- operations

    def put(self) -> None:
        if self.writes == 60 or self.epoch < self.quiet_until:
            return
        self.writes += 1
        record = bytes((self.writes,))
        epoch = self.known[self.rng.choice(list(self.known))]
        phase = self.path[epoch]
        put: PutOperation
        if phase.joint and self.left_out is not Rule.COUNT_BOTH:
            nodes = tuple(dict.fromkeys(chain(self.old, self.new)))
            old, new = (OwnerSet(each, w=self.w(each)) for each in (self.old, self.new))
            put = JointPutOperation(old=old, new=new, targets={node: node for node in nodes}, spares=())
        else:
            nodes = self.new if phase.reads_new else self.old
            put = PutOperation(w=self.w(nodes), pw=0, targets={node: node for node in nodes}, spares=())

        def stepped(step: Step) -> None:
            if step is Step.DECIDED:
                self.settled = union(self.settled, record)

        def copy_to(node: NodeId) -> None:
            def arrives() -> None:
                self.merge(node, record, lambda: stepped(put.acked(node)), lambda: stepped(put.lost(node)))

            self.send(node, epoch, arrives, lambda: stepped(put.lost(node)))

        for node in nodes:
            copy_to(node)

    def get(self) -> None:
        epoch = self.known[self.rng.choice(list(self.known))]
        phase = self.path[epoch]
        asked, other = (self.new, self.old) if phase.reads_new else (self.old, self.new)
        order = self.rng.sample(asked, len(asked))
        r = self.r(asked)
        get: GetOperation
        if not phase.joint or self.left_out is Rule.BOTH_HOLD:
            get = GetOperation(r=r, pr=0, asked=set(order[:r]), spares=order[r:], primaries=asked, merge=union)
        else:
            get = JointGetOperation(
                r=r,
                pr=0,
                asked=set(order[:r]),
                spares=order[r:],
                primaries=asked,
                merge=union,
                other=OwnerSet(other, w=self.r(other)),
                others={node: node for node in other},
            )
        Reading(self, get, epoch).go(order[:r])


class Reading:
    """A read under way."""

    def __init__(self, model: Model, get: GetOperation, epoch: int) -> None:
        self.model = model
        self.get = get
        self.epoch = epoch
        self.must_show = model.settled

    def go(self, asked: list[NodeId]) -> None:
        for node in asked:
            self.ask(node)

    def ask(self, node: NodeId) -> None:
        model = self.model

        def arrives() -> None:
            record = model.stores[node] or None
            complete = node not in model.incomplete
            answer = self.get.answered if complete else self.get.unknown
            model.pending.append(lambda: self.stepped(answer(node, record)))

        model.send(node, self.epoch, arrives, lambda: self.stepped(self.get.lost(node)))

    def write_back(self, node: NodeId) -> None:
        model, get, best = self.model, self.get, self.get.best
        assert best is not None

        def arrives() -> None:
            model.merge(node, best, lambda: self.stepped(get.written_back(node)), lambda: self.stepped(get.lost(node)))

        model.send(node, self.epoch, arrives, lambda: self.stepped(get.lost(node)))

    def stepped(self, step: GetStep) -> None:
        get, model = self.get, self.model
        get.check()
        asks, get.asks = get.asks, []
        repairs, get.repairs = get.repairs, []
        for node in asks:
            self.ask(node)
        for node in repairs:
            self.write_back(node)
        if step is GetStep.DECIDED:
            told = f"{model.path[self.epoch].name}: {self.must_show!r} is not in {get.merged!r}"
            assert covers(get.merged, self.must_show), told
            model.settled = union(model.settled, get.merged or b"")
            model.reads[self.epoch] += 1


@pytest.mark.parametrize("block", range(10))
def test_through_a_whole_plan_reads_are_monotonic_and_see_what_was_acknowledged(block: int) -> None:
    late = 0
    for seed in range(block * 60, block * 60 + 60):
        model = Model(seed)
        model.run()
        late += sum(model.reads[2:])
    assert late > 100, "the histories are worth something"


@pytest.mark.parametrize("rule", Rule)
def test_no_rule_of_the_walk_can_be_left_out(rule: Rule) -> None:
    with pytest.raises(AssertionError, match="is not in"):
        for seed in range(2_000):
            Model(seed, left_out=rule).run()
