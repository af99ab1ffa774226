"""Promise (I1, I2, I3): no dot is ever attached to two values and no acknowledged write is silently lost, although
replicas crash uncleanly, lose the key's record, and messages are late, lost and repeated.

A small model of three replicas of one key around the real `put` and `accept` (reliability.md 1b, riak_kv#679: the
coordinator path and the replica path). What is not modelled is the network and the disk: a message is bytes in a list,
a store is a record in memory and the older one that is on the disk.

The whole truth is known outside: every dot minted, and what each write's context covered. At the end the join of every
version that ever existed must show exactly the dots that no context covered. Then the rules are switched off one by
one, and the same runs must find the loss: a model that could not would prove nothing.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

import pytest

from leafdb.model import record
from leafdb.model.actor import ActorIdentity
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.epochs import EpochLease
from leafdb.types import Conflict, NodeId

SEEDS: Final = range(1_000, 1_250)
STEPS: Final = 40
BLOCK: Final = 8
"""A short lease, so that renewals happen."""


class Violation(Exception):
    """A promise was broken."""


@dataclass(frozen=True)
class Rules:
    """Each False is a historical bug of the family."""

    floor: bool = True
    """After an unclean stop, entries below the epoch floor are not incremented."""
    adopt: bool = True
    """A replica that is told of dots it forgot takes a fresh epoch at once (PR 1643)."""
    fresh_epochs: bool = True
    """A replica whose record is missing takes a fresh epoch (PR 1094)."""
    whole_context: bool = True
    """The coordinator looks for its own actor in the writer's context, too."""


class Replica:
    """One store: the record in memory, the one on disk, the durable ceiling and floor of its lease."""

    def __init__(self, number: int, rules: Rules) -> None:
        self.identity = ActorIdentity(1, NodeId(number), 1)
        self.rules = rules
        self.record: bytes | None = None
        self.durable: bytes | None = None
        self.epochs = EpochLease.recovered(ceiling=0, floor=0, clean=True)
        self._grant()

    def _grant(self) -> None:
        if self.epochs.ceiling - self.epochs.next_epoch < 2:
            self.epochs.grant(self.epochs.ceiling + BLOCK)

    def put(self, context: CausalClock | None, value: bytes) -> tuple[bytes, Dot]:
        self._grant()
        epochs = self.epochs if self.rules.fresh_epochs else EpochLease(1, 1 << 40)
        doubted = context
        if context is not None and not self.rules.whole_context:
            prefix = self.identity.prefix
            doubted = CausalClock.from_dots(
                (actor, n)
                for actor, top in (*context.vector.items(), *context.cloud)
                for n in range(1 if actor in context.vector else top, top + 1)
                if not actor.startswith(prefix) or (self.record and record.clock_of(self.record).covers((actor, n)))
            )
        data, dot = record.put(
            self.record, doubted, identity=self.identity, epochs=epochs, stamp=1, expires_ms=0, op_id=value,
            value=value, conflict=Conflict.SIBLINGS,
        )  # fmt: skip
        self.record = data
        return data, dot

    def accept(self, incoming: bytes) -> None:
        self._grant()
        if self.rules.adopt:
            self.record = record.accept(
                self.record, incoming, Conflict.SIBLINGS, identity=self.identity, epochs=self.epochs
            )
        elif self.record is None:
            self.record = incoming
        else:
            self.record = record.merge(self.record, incoming, Conflict.SIBLINGS)

    def restart(self, *, clean: bool) -> None:
        if clean:
            self.durable = self.record
        self.record = self.durable
        before = self.epochs
        self.epochs = EpochLease.recovered(
            ceiling=before.ceiling, floor=before.floor, clean=clean or not self.rules.floor
        )
        self._grant()

    def lose(self) -> None:
        """One bad block: this key's record is gone, the incarnation is not."""
        self.record = self.durable = None


@dataclass
class World:
    """Three replicas, messages under way, what clients remember, and the truth."""

    rng: random.Random
    rules: Rules
    replicas: list[Replica] = field(default_factory=list)
    messages: list[tuple[int, bytes]] = field(default_factory=list)
    contexts: list[CausalClock | None] = field(default_factory=lambda: [None])
    versions: list[bytes] = field(default_factory=list)
    minted: dict[Dot, bytes] = field(default_factory=dict)
    covered: set[Dot] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.replicas = [Replica(number, self.rules) for number in (1, 2, 3)]

    def step(self) -> None:
        at = self.rng.randrange(3)
        replica = self.replicas[at]
        choice = self.rng.random()
        if choice < 0.30:
            self.write(at)
        elif choice < 0.40:
            if replica.record is not None:
                self.contexts.append(record.clock_of(replica.record))
        elif choice < 0.65:
            if self.messages:
                to, data = self.rng.choice(self.messages)
                self.replicas[to].accept(data)
        elif choice < 0.80:
            if replica.record is not None:
                self.replicas[self.rng.randrange(3)].accept(replica.record)
        elif choice < 0.88:
            replica.durable = replica.record
        elif choice < 0.93:
            replica.restart(clean=False)
        elif choice < 0.95:
            replica.restart(clean=True)
        else:
            replica.lose()
        self.versions += [each.record for each in self.replicas if each.record is not None]

    def write(self, at: int) -> None:
        context = self.rng.choice(self.contexts[-6:])
        value = len(self.minted).to_bytes(16, "big")
        data, dot = self.replicas[at].put(context, value)
        if dot in self.minted:
            raise Violation(f"dot {dot} minted twice")
        saw = context or EMPTY
        self.covered |= {each for each in self.minted if saw.covers(each)}
        self.minted[dot] = value
        self.versions.append(data)
        self.contexts.append(saw.add(dot))
        for to in range(3):
            if to != at and self.rng.random() < 0.7:
                self.messages.append((to, data))

    def check(self) -> None:
        if not self.versions:
            return
        whole = self.versions[0]
        for version in set(self.versions):
            record.decode(version).check()
            whole = record.merge(whole, version, Conflict.SIBLINGS)
        siblings = record.decode(whole).siblings
        alive = set(self.minted) - self.covered
        if set(siblings) != alive:
            raise Violation(f"lost {sorted(alive - set(siblings))}, undone {sorted(set(siblings) - alive)}")
        if any(sibling.value != self.minted[dot] for dot, sibling in siblings.items()):
            raise Violation("a dot says something else than was written")

    def heal(self) -> None:
        """Everybody hears of everything; in a few rounds all hold the same bytes and nothing moves any more."""
        for version in set(self.versions):
            self.replicas[0].accept(version)
        for _ in range(6):
            before = [replica.record for replica in self.replicas]
            for replica in self.replicas:
                for other in self.replicas:
                    if other.record is not None:
                        replica.accept(other.record)
            if before == [replica.record for replica in self.replicas]:
                break
        if len({replica.record for replica in self.replicas}) != 1:
            raise Violation("replicas differ after healing")


def run(seed: int, rules: Rules) -> World:
    world = World(random.Random(seed), rules)
    for _ in range(STEPS):
        world.step()
    world.check()
    return world


def test_no_dot_twice_and_nothing_lost() -> None:
    writes = 0
    for seed in SEEDS:
        try:
            world = run(seed, Rules())
            world.heal()
            world.check()
        except (Violation, AssertionError) as error:
            pytest.fail(f"seed {seed}: {error}")
        writes += len(world.minted)
    assert writes > 10 * len(SEEDS)


@pytest.mark.parametrize(
    "rules",
    [Rules(floor=False), Rules(adopt=False), Rules(fresh_epochs=False), Rules(whole_context=False)],
    ids=["no floor", "no adoption", "no fresh epochs", "own actor not sought in the context"],
)
def test_without_one_of_the_rules_the_model_finds_the_loss(rules: Rules) -> None:
    assert any(breaks(seed, rules) for seed in SEEDS), "the model is blind to this bug"


def breaks(seed: int, rules: Rules) -> bool:
    try:
        run(seed, rules)
    except Violation:
        return True
    except AssertionError as error:
        return "identity reused" in str(error)
    return False
