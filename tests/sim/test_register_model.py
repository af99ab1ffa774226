"""A register under everything at once: agreement (I24), linearizability (I25), durable promises (I26), honesty (I10).

Three acceptors and two to four proposers in a plain event heap. Messages are lost, doubled and reordered, some by much;
disks take their time; acceptors crash and come back with what was durable; proposers crash and count ballots from one
again; deadlines are short, so that many proposals end unknown. The value is the list of all operations applied, so
that every answer shows the whole history it believes in and the check is linear.

The mutations at the end are the register's part of the bug museum: each breaks one rule from outside the machines, and
the check must notice.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

import pytest

from leafdb.consensus.acceptor import Acceptor
from leafdb.consensus.acceptor_state import AcceptorState
from leafdb.consensus.ballot import AcceptorId, Ballot, BallotSource
from leafdb.consensus.effects import (
    NO_QUORUM,
    AcceptorEffect,
    Chosen,
    Decided,
    Outcome,
    Persist,
    ProposerEffect,
    Refusal,
    Refused,
    Send,
    Unknown,
)
from leafdb.consensus.messages import Accept, Accepted, Message, Nack, Prepare, Promise
from leafdb.consensus.proposer import Change, Proposer
from leafdb.types import NodeId

REGISTER = b"model"
FOREVER = float("inf")
HISTORIES = 2_500


@dataclass(frozen=True)
class Mutation:
    """Which rule is broken."""

    forget_on_crash: bool = False
    send_before_persist: bool = False
    reuse_ballots: bool = False
    reads_skip_accept: bool = False
    change_runs_again: bool = False


SOUND = Mutation()


@dataclass
class Operation:
    """One call of a client: what it asked, when, and what it was told."""

    number: int
    kind: str
    expected: int
    start: float
    end: float = FOREVER
    outcome: Outcome = field(default_factory=lambda: Unknown("crashed"))

    def change(self, current: bytes | None) -> bytes | Refusal | None:
        """The change function."""
        held = current or b""
        if self.kind == "read":
            return current
        if self.kind == "cas" and len(held) != self.expected:
            return Refusal("version")
        if self.kind == "once" and self.number in held:
            return current
        return held + bytes([self.number])


class AcceptorNode:
    """An acceptor and its disk: states become durable in order, after a while; what waits for them is sent then."""

    def __init__(self, world: World, node: int) -> None:
        self.world = world
        self.identity = AcceptorId(NodeId(node), 1)
        self.durable: AcceptorState | None = None
        self.life = 0
        self.up = True
        self.synced_at = 0.0
        self.acceptor = Acceptor(REGISTER, self.identity, config=1)

    def receive(self, sender: NodeId, message: Message) -> None:
        assert isinstance(message, Prepare | Accept)
        if self.up:
            self.perform(self.acceptor.on_message(sender, message))
            self.acceptor.check()

    def perform(self, effects: tuple[AcceptorEffect, ...]) -> None:
        world = self.world
        waiting = False
        for effect in effects:
            if isinstance(effect, Persist):
                waiting = True
                self.synced_at = max(self.synced_at, world.now + world.rng.random() * world.disk_s)
                world.at(self.synced_at, self.sync, self.life, effect.state)
                continue
            if waiting and not world.mutation.send_before_persist:
                world.at(self.synced_at, self.send, self.life, effect)
            else:
                self.send(self.life, effect)

    def sync(self, life: int, state: AcceptorState) -> None:
        if life == self.life:
            if self.durable is not None and self.durable.promised is not None:
                assert state.promised is not None
                assert state.promised >= self.durable.promised, "I26: a durable promise went back"
            self.durable = state
            self.world.accepted(self.identity, state)

    def send(self, life: int, effect: Send) -> None:
        if life == self.life:
            self.world.transmit(self.identity.node, effect.to, effect.message)

    def crash(self) -> None:
        self.life += 1
        self.up = False
        self.world.at(self.world.now + self.world.rng.random() * 0.2, self.restart, self.life)

    def restart(self, life: int) -> None:
        if life != self.life:
            return  # crashed again meanwhile; that crash brings its own restart
        state = None if self.world.mutation.forget_on_crash else self.durable
        self.up = True
        self.synced_at = self.world.now
        if self.world.mutation.forget_on_crash:
            self.durable = None
        self.acceptor = Acceptor(REGISTER, self.identity, config=1, state=state)


class Client:
    """A proposer and the client that uses it, one operation after the other."""

    def __init__(self, world: World, node: int, operations: int) -> None:
        self.world = world
        self.node = NodeId(node)
        self.left = operations
        self.nonces = itertools.count(node * 1000)
        self.known = 0
        self.operation: Operation | None = None
        self.boot()
        world.at(world.rng.random() * 0.05, self.begin, self.life)

    life = 0

    def boot(self) -> None:
        nonce = self.node if self.world.mutation.reuse_ballots else next(self.nonces)
        self.life += 1
        self.ballots = BallotSource(self.node, nonce)
        self.renew()

    def renew(self) -> None:
        identities = [acceptor.identity for acceptor in self.world.acceptors.values()]
        self.proposer = Proposer(REGISTER, identities, config=1, ballots=self.ballots, rng=self.world.rng)

    def begin(self, life: int) -> None:
        world = self.world
        if life != self.life or self.left == 0:
            return
        self.left -= 1
        kind = world.rng.choice(("read", "cas", "cas", "once", "plain"))
        self.operation = Operation(len(world.operations) + 1, kind, self.known, world.now)
        world.operations.append(self.operation)
        change: Change = self.operation.change
        self.perform(
            self.proposer.propose(
                change,
                now=world.now,
                deadline=world.now + world.rng.uniform(0.02, 1.5),
                deduplicates=kind == "once" or (kind == "plain" and world.mutation.change_runs_again),
            )
        )

    def receive(self, sender: NodeId, message: Message) -> None:
        assert isinstance(message, Promise | Accepted | Nack)
        self.perform(self.proposer.on_message(sender, message, self.world.now))

    def wake(self, life: int) -> None:
        if life == self.life:
            due = self.proposer.deadline()
            if due is not None and due <= self.world.now:
                self.perform(self.proposer.on_time(self.world.now))

    def perform(self, effects: tuple[ProposerEffect, ...]) -> None:
        world = self.world
        self.proposer.check()
        for effect in effects:
            if isinstance(effect, Decided):
                self.finish(effect.outcome)
            elif self.operation is not None:
                if self.takes_shortcut(effect.message):
                    return
                world.transmit(self.node, effect.to, effect.message)
        due = self.proposer.deadline()
        if effects and due is not None:
            world.at(due, self.wake, self.life)
        elif due is not None and due > world.now and due != self.woken_for:
            self.woken_for = due
            world.at(due, self.wake, self.life)

    woken_for = -1.0

    def takes_shortcut(self, message: Message) -> bool:
        """The mutation: a read that answers what it saw, without having it chosen."""
        if not (self.world.mutation.reads_skip_accept and isinstance(message, Accept)):
            return False
        assert self.operation is not None
        if self.operation.kind != "read":
            return False
        self.finish(Refused("seen", message.value))
        self.renew()
        return True

    def finish(self, outcome: Outcome) -> None:
        operation = self.operation
        assert operation is not None
        operation.end, operation.outcome = self.world.now, outcome
        self.operation = None
        match outcome:
            case Chosen(value=seen) | Refused(current=seen):
                self.known = len(seen or b"") if self.world.rng.random() < 0.9 else self.known
        self.world.at(self.world.now + self.world.rng.random() * 0.05, self.begin, self.life)

    def crash(self) -> None:
        if self.operation is not None:
            self.operation = None
        self.boot()
        self.world.at(self.world.now + self.world.rng.random() * 0.2, self.begin, self.life)


class World:
    """One history: everything drawn from one seed, fault rates among it."""

    def __init__(self, seed: int, mutation: Mutation = SOUND) -> None:
        self.rng = rng = Random(seed)
        self.mutation = mutation
        self.now = 0.0
        self.count = itertools.count()
        self.heap: list[tuple[float, int, object, tuple[object, ...]]] = []
        self.loss = rng.choice((0.0, 0.05, 0.25))
        self.doubling = rng.choice((0.0, 0.1, 0.4))
        self.straggling = rng.choice((0.0, 0.05, 0.3))
        self.disk_s = rng.choice((0.0, 0.002, 0.02))
        self.operations: list[Operation] = []
        self.votes: dict[Ballot, tuple[bytes | None, set[AcceptorId]]] = {}
        self.chosen: dict[Ballot, bytes] = {}
        self.acceptors = {NodeId(node): AcceptorNode(self, node) for node in (1, 2, 3)}
        clients = rng.choice((2, 2, 3, 4))
        self.clients = {NodeId(node): Client(self, node, rng.choice((2, 3, 4))) for node in range(1, clients + 1)}
        for _ in range(rng.choice((0, 1, 3, 6))):
            self.at(rng.random() * 1.0, rng.choice(list(self.acceptors.values())).crash)
        for _ in range(rng.choice((0, 0, 1, 3))):
            self.at(rng.random() * 1.0, rng.choice(list(self.clients.values())).crash)

    def at(self, when: float, call: object, *arguments: object) -> None:
        heapq.heappush(self.heap, (when, next(self.count), call, arguments))

    def transmit(self, sender: NodeId, to: NodeId, message: Message) -> None:
        rng = self.rng
        node = self.acceptors[to] if isinstance(message, Prepare | Accept) else self.clients[to]
        for _ in range(2 if rng.random() < self.doubling else 1):
            if rng.random() >= self.loss:
                slow = 1.0 if rng.random() < self.straggling else 0.01
                self.at(self.now + rng.random() * slow, node.receive, sender, message)

    def accepted(self, acceptor: AcceptorId, state: AcceptorState) -> None:
        """A vote became durable."""
        if state.accepted is None:
            return
        value, voters = self.votes.setdefault(state.accepted, (state.value, set()))
        assert value == state.value, f"I24: two values under ballot {state.accepted}"
        voters.add(acceptor)
        if len(voters) == 2:
            self.chosen[state.accepted] = value or b""

    def run(self) -> None:
        while self.heap:
            self.now, _, call, arguments = heapq.heappop(self.heap)
            call(*arguments)  # type: ignore[operator]  # what `at` was given
        check_history(self)


def check_history(world: World) -> None:
    """All promises, from what was chosen and what clients were told."""
    final = b""
    for ballot in sorted(world.chosen):
        assert world.chosen[ballot].startswith(final), f"I24: the value chosen at {ballot} is not built on the last"
        final = world.chosen[ballot]
    assert len(set(final)) == len(final), "a change was applied twice"
    for operation in world.operations:
        check_outcome(operation, world.chosen, final)
    check_order(world.operations, final)


def check_outcome(operation: Operation, chosen: dict[Ballot, bytes], final: bytes) -> None:
    """One client was told the truth (I10)."""
    applied = operation.number in final
    match operation.outcome:
        case Chosen(value=value, ballot=ballot):
            assert chosen.get(ballot) == (value or b""), "told of a value that no majority holds"
            assert applied == (operation.kind != "read"), "told of a change that is not there"
            if operation.kind == "cas":
                assert final.index(operation.number) == operation.expected, "a compare-and-set of another version"
        case Refused(reason=reason, current=current):
            assert not applied, "told of a refusal, but the change is there"
            assert final.startswith(current or b""), "told of a value outside the one history"
            assert reason != "version" or len(current or b"") != operation.expected
        case Unknown():
            pass


def point_of(operation: Operation, final: bytes) -> int | None:
    """How much of the final history had happened, at least, when the operation ended."""
    applied = final.index(operation.number) + 1 if operation.number in final else 0
    match operation.outcome:
        case Chosen(value=value):
            return max(applied, len(value or b""))
        case Refused(reason=reason, current=current) if reason != NO_QUORUM:
            return len(current or b"")
    return applied or None


def check_order(operations: Iterable[Operation], final: bytes) -> None:
    """I25: what ended before another began comes before it in the one history."""
    points = [(operation, point) for operation in operations if (point := point_of(operation, final)) is not None]
    for later, later_point in points:
        if later.number in final:
            least, strict = final.index(later.number) + 1, 1
        else:
            least, strict = later_point, 0
        for earlier, point in points:
            if earlier.end < later.start:
                assert point + strict <= least, (
                    f"I25: operation {later.number} began after {earlier.number} had ended and saw less"
                )


def test_agreement_and_linearizability_under_every_fault() -> None:
    tally = {"chosen": 0, "refused": 0, "unknown": 0, "overtaken": 0}
    for seed in range(HISTORIES):
        world = World(seed)
        try:
            world.run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        for operation in world.operations:
            tally[type(operation.outcome).__name__.lower()] += 1
            tally["overtaken"] += operation.outcome == Unknown("overtaken")
    # The faults must bite, and the register must get work done all the same.
    assert tally["unknown"] > 200, tally
    assert tally["refused"] > 200, tally
    assert tally["overtaken"] > 10, tally
    assert tally["chosen"] > HISTORIES, tally


@pytest.mark.parametrize(
    "mutation",
    [
        pytest.param(Mutation(forget_on_crash=True), id="wiped acceptor votes"),
        pytest.param(Mutation(send_before_persist=True), id="promise sent before it is durable"),
        pytest.param(Mutation(reuse_ballots=True), id="ballot reused after a restart"),
        pytest.param(Mutation(reads_skip_accept=True), id="read without accept (12126)"),
        pytest.param(Mutation(change_runs_again=True), id="retry applies twice"),
    ],
)
def test_a_broken_rule_is_noticed(mutation: Mutation) -> None:
    for seed in range(5_000):
        try:
            World(seed, mutation).run()
        except AssertionError:
            return
    pytest.fail("no history showed the broken rule")
