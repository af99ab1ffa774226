"""Acceptors with disks and clients with proposers, around the real machines of consensus/, in a heap of events.

Disks take their time: states become durable in order, and what may not be said before is said then. Acceptors crash
and come back with what was durable, find their state unreadable, or have their disk wiped and are another acceptor
then, whose vote counts once a control set names it. Proposers crash and count ballots from one again, under another
nonce; some hear of changes of the control set, some never do and go on asking those they began with.

The value is the list of the numbers of all operations applied, so every answer shows the whole history it believes in.
`Rules` switches off one rule of the driver's part each, so that a test can see that its breach is noticed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final, assert_never

from leafdb.consensus.acceptor import Acceptor
from leafdb.consensus.acceptor_state import AcceptorState
from leafdb.consensus.ballot import AcceptorId, Ballot, BallotSource
from leafdb.consensus.control_set import ControlSet
from leafdb.consensus.effects import (
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
from leafdb.consensus.proposer import Proposer
from leafdb.sim.heap import Heap, Host, Network
from leafdb.sim.register_control import Ballots, Controls
from leafdb.testing.violation import Invariant, require
from leafdb.types import NodeId

REGISTER: Final = b"model"
FOREVER: Final = float("inf")
KINDS: Final = ("read", "cas", "cas", "once", "plain")
STEPS: Final = ("begin", "finish")
CAUGHT_UP: Final = "a proposer learnt of a change of the control set from a promise"
MET_JOINT: Final = "a proposer of the old control set met a change under way"
LOST_NEXT: Final = "a joint round had its old majority and not the next"
OLD_ANSWERED: Final = "an acceptor of a former control set answered"
RESTART_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Rules:
    """Which rules of the drivers and the clients are kept."""

    remember: bool = True
    """An acceptor that lost its state does not vote with an empty one."""
    persist_first: bool = True
    """What an acceptor says waits until its state is durable."""
    fresh_ballots: bool = True
    """A new life of a proposer has a new nonce."""
    finish_reads: bool = True
    """A read has what it saw chosen before it answers."""
    ask_again_carefully: bool = True
    """Only a change that recognises itself says that it does."""


SOUND: Final = Rules()


@dataclass(slots=True)
class Asked:
    """One call of a client: what it asked, when, and what it was told."""

    number: int
    client: str
    kind: str
    expected: int
    start: float
    controls: Controls
    following: tuple[AcceptorId, ...] = ()
    """Of a `begin`: the control set to come."""
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
        if self.kind in STEPS:
            control = self.controls.named(held)
            if control.joint == (self.kind == "begin") or control.old == self.following:
                return Refusal("no such step")
        return held + bytes([self.number])


class AcceptorNode:
    """An acceptor and its disk."""

    def __init__(
        self, heap: Heap, network: Network, clients: dict[NodeId, Client], ballots: Ballots, node: int, *,
        rng: Random, disk_s: float, rules: Rules,
    ) -> None:  # fmt: skip
        self.heap = heap
        self.network = network
        self.clients = clients
        self.ballots = ballots
        self.rng = rng
        self.disk_s = disk_s
        self.rules = rules
        self.host: Host = Host(heap, f"a{node}")
        self.identity: AcceptorId = AcceptorId(NodeId(node), 1)
        self.durable: AcceptorState | None = None
        self.synced_at: float = 0.0
        self.said: Ballot | None = None
        """The highest ballot it has promised to somebody."""
        self.acceptor: Acceptor = Acceptor(REGISTER, self.identity, config=1)
        self.votes: bool = True

    def receive(self, sender: NodeId, message: Prepare | Accept) -> None:
        """A proposer asks."""
        former = self.acceptor.state.accepted is not None and self.identity not in self.ballots.control.everyone
        self.heap.trace.probe(OLD_ANSWERED, former)
        waiting = False
        for effect in self.acceptor.on_message(sender, message):
            if isinstance(effect, Persist):
                waiting = True
                self.synced_at = max(self.synced_at, self.heap.now + self.rng.random() * self.disk_s)
                self.host.at(self.synced_at, partial(self._sync, effect.state))
            elif waiting and self.rules.persist_first:
                self.host.at(self.synced_at, partial(self._say, effect))
            else:
                self._say(effect)
        self.acceptor.check()

    def crash(self) -> None:
        """Die with what was not durable yet; come back soon."""
        self.host.crash()
        if not self.rules.remember:
            self.durable = None
        life = self.host.life
        self.heap.at(self.heap.now + self.rng.random() * RESTART_S, lambda: self._again(life))

    def lose_state(self) -> None:
        """The disk's copy cannot be read: no vote from now on."""
        self.votes = False
        self.durable = None
        self.crash()

    def wipe(self) -> None:
        """Another disk: another acceptor, of which no control set knows anything yet."""
        self.votes = True
        self.said = None
        self.identity = AcceptorId(self.identity.node, self.identity.incarnation + 1)
        self.durable = None
        self.crash()

    def start(self) -> None:
        """Come up with what is durable."""
        self.host.start()
        self.synced_at = self.heap.now
        self.acceptor = Acceptor(REGISTER, self.identity, config=1, state=self.durable, complete=self.votes)

    def _again(self, life: int) -> None:
        if life == self.host.life and not self.host.up:
            self.start()

    def _sync(self, state: AcceptorState) -> None:
        before, self.durable = self.durable, state
        self.ballots.voted(self.identity, before, state)

    def _say(self, effect: AcceptorEffect) -> None:
        assert isinstance(effect, Send)
        client = self.clients[effect.to]
        message = effect.message
        assert isinstance(message, Promise | Accepted | Nack)
        if isinstance(message, Promise):
            self.said = max(self.said or message.ballot, message.ballot)
        if isinstance(message, Accepted) and self.said is not None:
            kept = message.ballot >= self.said
            require(kept, Invariant.PROMISES_DURABLE, f"{self.host.name} went back on a promise it had given")
        mail = summary(message)
        self.network.send(self.host, client.host, mail, partial(client.receive, self.identity.node, message))


class Client:
    """A proposer and the client that uses it, one operation after the other.

    `ask` gives the next operation, None when there are no more; `told` is what came of it.
    """

    def __init__(
        self,
        heap: Heap,
        network: Network,
        acceptors: dict[NodeId, AcceptorNode],
        ballots: Ballots,
        controls: Controls,
        node: int,
        *,
        rng: Random,
        rules: Rules,
        ask: Callable[[Client], Asked | None],
        told: Callable[[Asked], None],
    ) -> None:
        self.heap = heap
        self.network = network
        self.acceptors = acceptors
        self.ballots = ballots
        self.controls = controls
        self.control: ControlSet = controls.first
        """The control set it has heard of."""
        self.node: NodeId = NodeId(node)
        self.rng = rng
        self.rules = rules
        self.host: Host = Host(heap, f"c{node}")
        self.known: int = 0
        self.asked: Asked | None = None
        self.patience_s: tuple[float, float] = (0.02, 1.5)
        self._ask = ask
        self._told = told
        self._deaf = rng.random() < 0.5
        self.thin: float = 0.0
        """How many of its rounds reach one acceptor only with their accepts, most of them since the proposer died
        meanwhile: values that lie about and may be found."""
        self.beyond: NodeId | None = None
        """Its messages never arrive there: clients that see other majorities than one another."""
        self._reached: NodeId | None = None
        self._ballot: Ballot | None = None
        self._nonces = itertools.count(node * 1_000)
        self._woken_for = -1.0
        self._last: Asked | None = None
        self._boot()
        self._soon(0.05)

    def receive(self, sender: NodeId, message: Promise | Accepted | Nack) -> None:
        """An acceptor answers."""
        self._perform(self.proposer.on_message(sender, message, self.heap.now))

    def crash(self) -> None:
        """Die; what was asked stays unknown."""
        self.host.crash()
        if self.asked is not None:
            self._told(self.asked)
            self.asked = None
        life = self.host.life
        self.heap.at(self.heap.now + self.rng.random() * RESTART_S, lambda: self._again(life))

    def ask_last(self, asked: Asked, patience_s: float) -> None:
        """Ask this now, with so much patience, knowing whom to ask. Nothing else is under way."""
        self._deaf, self.control = False, self.ballots.control
        self.thin, self.beyond = 0.0, None
        self.patience_s = (patience_s, patience_s)
        self._last = asked
        self._begin()

    def _again(self, life: int) -> None:
        if life == self.host.life:
            self.host.start()
            self._boot()
            self._begin()

    def _boot(self) -> None:
        nonce = next(self._nonces) if self.rules.fresh_ballots else int(self.node)
        self._ballots = BallotSource(self.node, nonce)
        self._renew()

    def _renew(self) -> None:
        if not self._deaf and self.rng.random() < 0.3:
            self.control = self.ballots.control
        self.proposer: Proposer = Proposer(
            REGISTER, self.control, config=1, ballots=self._ballots, rng=self.rng, names=self.controls.named
        )

    def _soon(self, seconds: float) -> None:
        self.host.at(self.heap.now + self.rng.random() * seconds, self._begin)

    def _begin(self) -> None:
        if self.asked is not None:
            return
        asked = self.asked = self._last or self._ask(self)
        self._last = None
        if asked is None:
            return
        self._renew()
        careless = asked.kind == "plain" and not self.rules.ask_again_carefully
        self._perform(
            self.proposer.propose(
                asked.change,
                now=self.heap.now,
                deadline=self.heap.now + self.rng.uniform(*self.patience_s),
                deduplicates=asked.kind == "once" or careless,
            )
        )

    def _wake(self) -> None:
        due = self.proposer.deadline()
        if due is not None and due <= self.heap.now:
            self._perform(self.proposer.on_time(self.heap.now))

    def _perform(self, effects: tuple[ProposerEffect, ...]) -> None:
        self.proposer.check()
        for effect in effects:
            match effect:
                case Decided(outcome=outcome):
                    self._finish(outcome)
                case Send(to=to, message=message):
                    if self._takes_shortcut(message):
                        return
                    self._send(to, message)
                case unreachable:
                    assert_never(unreachable)
        due = self.proposer.deadline()
        if due is not None and (effects or due != self._woken_for):
            self._woken_for = due
            self.host.at(due, self._wake)

    def _send(self, to: NodeId, message: Message) -> None:
        assert isinstance(message, Prepare | Accept)
        acceptor = self.acceptors[to]
        if isinstance(message, Accept) and message.ballot != self._ballot:
            self._ballot, counted = message.ballot, self.proposer.control
            self.ballots.proposed(message.ballot, message.value, counted)
            self.heap.trace.probe(CAUGHT_UP, counted != self.control)
            self.heap.trace.probe(MET_JOINT, counted.joint and not self.control.joint)
            thin = self.thin > 0.0 and self.rng.random() < self.thin
            self._reached = self.rng.choice(counted.everyone).node if thin else None
            if thin and self.rng.random() < 0.7:
                self.host.at(self.heap.now, self.crash)
        if isinstance(message, Accept) and self._reached not in (None, to):
            self.heap.trace.faults["accept reached one acceptor only"] += 1
            return
        if to == self.beyond:
            self.heap.trace.faults["acceptor out of a proposer's reach"] += 1
            return
        self.network.send(self.host, acceptor.host, summary(message), partial(acceptor.receive, self.node, message))

    def _takes_shortcut(self, message: Message) -> bool:
        """The broken rule: a read that answers what it saw, without having it chosen."""
        asked = self.asked
        if self.rules.finish_reads or asked is None or asked.kind != "read" or not isinstance(message, Accept):
            return False
        self._finish(Refused("seen", message.value))
        self._renew()
        return True

    def _finish(self, outcome: Outcome) -> None:
        asked, self.asked = self.asked, None
        assert asked is not None
        asked.end, asked.outcome = self.heap.now, outcome
        self.heap.trace.probe(LOST_NEXT, self._ballot is not None and self.ballots.half_chosen(self._ballot))
        match outcome:
            case Chosen(value=seen) | Refused(current=seen):
                self.known = len(seen or b"") if self.rng.random() < 0.9 else self.known
                self.control = self.control if seen is None or self._deaf else self.controls.named(seen)
        self._told(asked)
        self._soon(0.05)


def summary(message: Message) -> bytes:
    """A message for the trace."""
    ballot = message.ballot
    return b"%s %d %d %d" % (type(message).__name__.encode(), ballot.counter, ballot.node, ballot.nonce)
