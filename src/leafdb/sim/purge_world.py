"""The cluster of the purge model: its ring and register, exchanges that take their time, proofs of the horizon.

Who owns the one partition everybody knows at once (ring changes have a tier of their own); of the horizon each node
hears when it does. Messages are late, doubled, or lost, each by itself; those of an exchange belong to it and die with
it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import Final

from leafdb.sim.purge_node import DOUBT, MARK, PurgeNode, record_of
from leafdb.sim.purge_oracle import PurgeOracle
from leafdb.sim.trace import Trace
from leafdb.types import Conflict

KEYS: Final = 3
OWNERS: Final = 3
STEP_MS: Final = 10
START_MS: Final = 1_000_000
SKEWS_MS: Final = (0, 0, 0, -400, 400, -3_000, 3_000)
"""How far a node's clock may be off."""

ALL_LOST: Final = "nobody vouched, and all gave everything"
LOSS_PROVED: Final = "an owner learned that it had lost something"
MADE_WHOLE: Final = "a store was made whole by one that vouched"
PROOF_BEGUN: Final = "a proof was begun"
PROOF_REFUSED: Final = "a proof came to nothing"
PROVED: Final = "a horizon was proved"


@dataclass(slots=True)
class Mail:
    """Something under way to a node; nothing comes of it while that is down."""

    target: PurgeNode
    action: Callable[[], None]


@dataclass(slots=True)
class Exchange:
    """Two owners compare key by key. Whatever changes about either ends it."""

    a: PurgeNode
    b: PurgeNode
    facts: tuple[object, ...]
    begun: int
    mutual: bool
    left: list[int]
    """The keys to come, the next one last."""
    over: bool = False


@dataclass(slots=True)
class Proof:
    """One attempt to raise the horizon, at the node that runs it."""

    number: int
    horizon: int
    at: PurgeNode
    boots: int
    members: tuple[int, ...]
    lives: dict[int, int]
    """The members' incarnations."""
    epoch: int
    begun: set[int] = field(default_factory=set)
    barrier: int | None = None
    """The step at which all had begun."""
    pairs: set[tuple[int, int]] = field(default_factory=set)
    ended: set[int] = field(default_factory=set)
    over: bool = False


class PurgeWorld:
    """Nodes, ring, register, mail."""

    def __init__(self, rng: Random, trace: Trace, *, members: int, periodic: bool, conflict: Conflict) -> None:
        self.rng = rng
        self.trace = trace
        self.periodic = periodic
        self.step = 0
        self.oracle: PurgeOracle = PurgeOracle(conflict)
        self.nodes: dict[int, PurgeNode] = {
            number: PurgeNode(number, self.now_ms, conflict, skew_ms=rng.choice(SKEWS_MS))
            for number in range(1, members + 1)
        }
        self.members: tuple[int, ...] = tuple(self.nodes)[: members if rng.random() < 0.7 else members - 1]
        """The last may come later."""
        self.owners: tuple[int, ...] = self.members[:OWNERS]
        self.pending: tuple[int, ...] = ()
        self.leaving: int = 0
        """Whom the pending one replaces."""
        self.leftover: tuple[int, ...] = ()
        """Who has been replaced, and has not offered all it has to the owners."""
        self.epoch: int = 1
        self.horizon: int = 0
        self.mail: list[Mail] = []
        self.late: list[Mail] = []
        """What is to come when nobody thinks of it any more."""
        self.hushed: set[int] = set()
        """Whose mail waits."""
        self.exchanges: list[Exchange] = []
        self.proof: Proof | None = None
        self.proofs: int = 0
        self.weather: float = rng.choice((0.0, 0.3, 0.6))

    def now_ms(self) -> int:
        """Everybody's wall clock, but for the skew."""
        return START_MS + self.step * STEP_MS

    def owners_now(self) -> list[PurgeNode]:
        """Those of the ring, and those to be."""
        return [self.nodes[number] for number in (*self.owners, *self.pending)]

    def start(self, node: PurgeNode) -> None:
        """Up again. A store that may have forgotten something hears of the register before it serves. What it has
        confirmed to have was in its life before: who is to let go of its copies asks again."""
        node.start()
        for number in self.leftover:
            self.nodes[number].exchanged.discard(node.id)
        if node.store.data.get(DOUBT):
            node.learn(self.horizon)

    def change_ring(self, *, begin: bool = False) -> None:
        """One step of a change of the ring, if it can be done; a new one only if asked for."""
        if self.pending:
            new = self.nodes[self.pending[0]]
            if new.up and new.complete and new.exchanged >= set(self.owners):
                self.let_go(self._cut_over)
        elif self.leftover:
            old = self.nodes[self.leftover[0]]
            if all(self.nodes[number].up for number in (old.id, *self.owners)) and old.exchanged >= set(self.owners):
                self.let_go(lambda: self._drop(old))
        elif begin and len(self.members) < len(self.nodes) and self.rng.random() < 0.5:
            self.join()
        elif begin:
            spare = [self.nodes[number] for number in self.members if number not in self.owners]
            spare = [node for node in spare if node.up]
            if spare:
                new = self.rng.choice(spare)
                new.doubt(vouches=False)
                new.store.sync()
                self.pending, self.leaving = (new.id,), self.rng.choice(self.owners)

    def _cut_over(self) -> None:
        self.owners = tuple(self.pending[0] if each == self.leaving else each for each in self.owners)
        self.leftover, self.pending = (self.leaving,), ()
        self.nodes[self.leaving].exchanged.clear()
        self.epoch += 1

    def _drop(self, old: PurgeNode) -> None:
        for key in range(KEYS):
            old.store.write(record_of(key), None)
        old.store.write(MARK, None)
        self.leftover = ()

    def join(self) -> None:
        """Whoever is no member yet becomes one, and hears of the register."""
        for node in self.nodes.values():
            if node.id not in self.members:
                node.learn(self.horizon)
        self.members = tuple(self.nodes)

    def counted(self, acks: set[int], w: int) -> bool:
        """Whether that many of the old owners and of the new have it, or stand in for one."""
        return len(acks - set(self.pending)) >= w and len(acks - ({self.leaving} if self.pending else set())) >= w

    def met_by_two(self, acks: set[int]) -> bool:
        """Whether two of the owners have it, before the change of the ring and after."""
        owners = set(self.owners)
        after = (owners | set(self.pending)) - ({self.leaving} if self.pending else set())
        return len(acks & owners) >= 2 and len(acks & after) >= 2

    def named(self, nodes: Sequence[PurgeNode]) -> int:
        """The newest horizon of which one of these has heard."""
        return max(node.horizon for node in nodes)

    def send(self, target: PurgeNode, action: Callable[[], None], *, once: bool = False) -> None:
        """It comes, later; now and then twice, much later, or not at all."""
        chance = self.rng.random() if self.weather else 1.0
        mail = Mail(target, action)
        if chance < self.weather / 3 and not once:
            self.late.append(mail)
            self.mail.append(mail)
        elif chance < self.weather * 2 / 3 and not once:
            self.late.append(mail)
        elif chance >= self.weather or once:
            self.mail.append(mail)

    def deliver(self, mail: list[Mail]) -> bool:
        """One of these, of those whose target is up and hears it; whether there was one."""
        hushed = self.hushed
        ready = [at for at, one in enumerate(mail) if one.target.up and one.target.id not in hushed]
        if ready:
            mail.pop(self.rng.choice(ready)).action()
        return bool(ready)

    # -- exchanges

    def can_exchange(self, a: PurgeNode, b: PurgeNode) -> bool:
        """Both are up, know one horizon, and have forgotten all that it lets them."""
        return a.up and b.up and a.horizon == b.horizon == a.swept == b.swept

    def exchange(self, a: PurgeNode, b: PurgeNode, *, first: int | None = None) -> None:
        """Begin one, if the two may; with the key `first`, if that matters."""
        if self.can_exchange(a, b):
            keys = self.rng.sample(range(KEYS), KEYS)
            if first is not None:
                keys.remove(first)
                keys.append(first)
            running = Exchange(a, b, self._facts(a, b), self.step, self._nobody_vouches(), keys)
            self.exchanges.append(running)
            self._next_key(running)

    def under_way(self, a: int, b: int) -> bool:
        """Whether the two are at it."""
        self.exchanges = [running for running in self.exchanges if not running.over]
        return any({running.a.id, running.b.id} == {a, b} for running in self.exchanges)

    def _facts(self, a: PurgeNode, b: PurgeNode) -> tuple[object, ...]:
        return a.boots, b.boots, a.horizon, b.horizon, a.vouches, b.vouches, self.owners, self.pending, self.leftover

    def _valid(self, running: Exchange) -> bool:
        if not running.over and running.facts != self._facts(running.a, running.b):
            running.over = True
        return not running.over

    def _nobody_vouches(self) -> bool:
        """All owners, present and to be, are there to say so."""
        return all(node.up and not node.vouches and node.horizon == self.horizon for node in self.owners_now())

    def _next_key(self, running: Exchange) -> None:
        a, b = running.a, running.b
        if not running.left:
            running.over = True
            self._exchanged(running)
            return
        key = running.left.pop()
        self.reveal(a)
        theirs = a.record(key)
        self.send(b, lambda: self._offered(running, key, theirs), once=True)

    def _offered(self, running: Exchange, key: int, theirs: bytes | None) -> None:
        a, b = running.a, running.b
        if self._valid(running):
            self._compare(running, b, a, key, theirs)
            self.reveal(b)
            record = b.record(key)
            self.send(a, lambda: self._answered(running, key, record), once=True)

    def _answered(self, running: Exchange, key: int, theirs: bytes | None) -> None:
        if self._valid(running):
            self._compare(running, running.a, running.b, key, theirs)
            self._next_key(running)

    def _compare(self, running: Exchange, here: PurgeNode, there: PurgeNode, key: int, theirs: bytes | None) -> None:
        if not {there.id, here.id} & set(self.leftover):
            self.trace.probe(LOSS_PROVED, here.compared(key, theirs, vouched=there.vouches, mutual=running.mutual))
        elif theirs is not None and here.id not in self.leftover:
            here.take(record_of(key), theirs)

    def _exchanged(self, running: Exchange) -> None:
        a, b = running.a, running.b
        owners = {*self.owners, *self.pending}
        if a.vouches != b.vouches and not {a.id, b.id} & set(self.leftover):
            whole = b if a.vouches else a
            whole.vouch(whole.horizon)
            self.trace.probe(MADE_WHOLE)
        a.met(b.id, owners)
        b.met(a.id, owners)
        if running.mutual:
            a.levelled.add(b.id)
            b.levelled.add(a.id)
            if a.levelled >= owners - {a.id}:
                self.oracle.nobody_can_tell(self.horizon, self.owners_now(), KEYS)
                a.vouch(a.horizon)
                a.met(b.id, owners)
                self.trace.probe(ALL_LOST)
        proof = self.proof
        if proof is not None and self.counts(proof, running):
            proof.pairs.add((min(a.id, b.id), max(a.id, b.id)))

    def reveal(self, node: PurgeNode) -> None:
        """What is shown to others is as safe as the bucket promises."""
        if not self.periodic:
            node.store.sync()

    def held(self) -> int:
        """The writes that some store holds as safely as the bucket promises."""
        owners = (*self.owners, *self.pending)
        return self.oracle.held(self.nodes.values(), owners, self.leftover, self.horizon, periodic=self.periodic)

    def let_go(self, how: Callable[[], None], *, destroyed: bool = False) -> None:
        """A store gives up what others have confirmed; one of them may have lost it since, and not know. `destroyed`:
        who confirmed it has had another disk since, and its word was under way."""
        if destroyed or (unsure := self.oracle.unsure_writes()):
            before = self.held()
            how()
            gone = before & ~self.held()
            self.oracle.lost(gone if destroyed else gone & unsure)
        else:
            how()

    # -- proofs

    def may_begin(self, at: PurgeNode) -> bool:
        """Not while an owner is to be another."""
        return at.up and not self.pending

    def begin_proof(self, at: PurgeNode) -> None:
        """A live owner begins; what it ran before is given up."""
        self.proofs += 1
        self.proof = proof = Proof(self.proofs, at.stamp(), at, at.boots, self.members, self.lives(), self.epoch)
        self.trace.probe(PROOF_BEGUN)
        for number in self.asked(proof):
            self.send(self.nodes[number], lambda number=number: self._begin(proof, number), once=True)  # type: ignore[misc]

    def advance_proof(self) -> None:
        """The next stage, as soon as all of this one have answered."""
        proof = self.proof
        if proof is None or proof.over:
            return
        if not proof.at.up or proof.at.boots != proof.boots:
            self._refuse(proof)
        elif proof.barrier is None:
            if proof.begun >= set(self.asked(proof)):
                proof.barrier = self.step
        elif proof.pairs >= set(combinations(sorted(self.provers(proof)), 2)) and not proof.ended:
            proof.ended.add(0)
            for number in self.asked(proof):
                self.send(self.nodes[number], lambda number=number: self._end(proof, number), once=True)  # type: ignore[misc]
        elif proof.ended >= {0, *self.asked(proof)}:
            self._register(proof)

    def asked(self, proof: Proof) -> tuple[int, ...]:
        """Who has to answer: every member."""
        return proof.members

    def provers(self, proof: Proof) -> tuple[int, ...]:
        """Who has to exchange: every owner."""
        return self.owners

    def counts(self, proof: Proof, running: Exchange) -> bool:
        """Whether the exchange belongs to the proof: it began when all had answered."""
        return proof.barrier is not None and running.begun >= proof.barrier

    def _begin(self, proof: Proof, number: int) -> None:
        node = self.nodes[number]
        if not proof.over and node.begin(proof.number, proof.horizon) and number not in self.leftover:
            proof.begun.add(number)
        else:
            self._refuse(proof)

    def _end(self, proof: Proof, number: int) -> None:
        if not proof.over and self.nodes[number].end(proof.number, owner=number in self.owners):
            proof.ended.add(number)
        else:
            self._refuse(proof)

    def _register(self, proof: Proof) -> None:
        proof.over = True
        if self.registered(proof) and proof.horizon > self.horizon:
            self.horizon = proof.horizon
            self.trace.probe(PROVED)

    def registered(self, proof: Proof) -> bool:
        """The register takes it if ring and members are still those of the beginning, in the same lives."""
        same = proof.epoch == self.epoch and proof.members == self.members and proof.lives == self.lives()
        return same and not self.pending and not self.leftover

    def lives(self) -> dict[int, int]:
        """The members' incarnations."""
        return {number: self.nodes[number].incarnation for number in self.members}

    def _refuse(self, proof: Proof) -> None:
        if not proof.over:
            proof.over = True
            self.trace.probe(PROOF_REFUSED)
