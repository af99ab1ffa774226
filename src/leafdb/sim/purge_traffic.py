"""Who uses the cluster of the purge model, and what goes on in it by itself: puts, deletes and reads with contexts old
and new, hints on their way, exchanges, sweeps, proofs. Each method is one thing that happens; chance says which is
next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from itertools import combinations
from random import Random
from typing import Final

from leafdb.model.clock import EMPTY, CausalClock
from leafdb.model.record import clock_of, merge, newest_stamp
from leafdb.sim.purge_node import Place, PurgeNode, hint_of, record_of
from leafdb.sim.purge_oracle import PurgeOracle
from leafdb.sim.purge_world import KEYS, Mail, PurgeWorld
from leafdb.sim.trace import Trace
from leafdb.types import NodeId

FORGOTTEN: Final = "a record was forgotten"
LEFT_OUT: Final = "something below the horizon was left out"
RECREATED: Final = "a key was written again after it had been forgotten"

Context = tuple[CausalClock, int, int]
"""Clock, greatest stamp, and the writes that it covers."""
Seen = tuple[CausalClock | None, int, int]
"""What a writer has seen; None: nothing."""
UNSEEN: Final[Seen] = (None, 0, 0)


class Reach(Enum):
    """Whom a coordinator tells of a write at once."""

    ALL = auto()
    NONE = auto()
    LATE = auto()
    """Everybody, when nobody thinks of it any more."""


@dataclass(slots=True)
class Offer:
    """A hint that is to go home: where it is kept, who has not taken it yet, and who has, in which life."""

    holder: PurgeNode
    place: Place
    record: bytes
    left: set[NodeId]
    takers: list[tuple[PurgeNode, int]] = field(default_factory=list)


class PurgeTraffic:
    """Clients and background of one history."""

    def __init__(self, world: PurgeWorld, rng: Random) -> None:
        self.world = world
        self.rng = rng
        self.trace: Trace = world.trace
        self.oracle: PurgeOracle = world.oracle
        self.contexts: list[list[Context]] = [[] for _ in range(KEYS)]
        self.cut: float = rng.choice((0.0, 0.3, 0.6))
        """How often a coordinator reaches nobody else."""
        self.keys_used = rng.choice((1, 1, KEYS))

    # -- clients

    def _key(self) -> int:
        return self.rng.randrange(self.keys_used)

    def late(self) -> None:
        for _ in range(self.rng.randint(1, 4)):
            self.world.deliver(self.world.late)

    def begin(self) -> None:
        at = self.world.nodes[self.rng.choice(self.world.owners)]
        if self.world.may_begin(at):
            self.world.begin_proof(at)

    def write(self, key: int | None = None, *, delete: bool | None = None, cut: bool | None = None) -> None:
        """A client's put or delete, at whatever node it asks."""
        rng, world = self.rng, self.world
        key = self._key() if key is None else key
        deleted = rng.random() < 0.45 if delete is None else delete
        expires_ms = world.now_ms() + rng.choice((50, 500)) if not deleted and rng.random() < 0.15 else 0
        at, target = world.nodes[rng.choice(world.owners)], None
        others = self.stand_ins()
        if others and (not at.up or rng.random() < 0.1):
            target, at = at, rng.choice(others)
        if at.up:
            reach = Reach.NONE if (rng.random() < self.cut if cut is None else cut) else Reach.ALL
            self.put(at, key, self._context(key, at), deleted, expires_ms, rng.choice((1, 2, 2)), reach, target=target)

    def stand_ins(self) -> list[PurgeNode]:
        """Members that may keep copies for owners."""
        world = self.world
        taken = {*world.owners, *world.pending, *world.leftover}
        return [world.nodes[number] for number in world.members if number not in taken and world.nodes[number].up]

    def put(
        self,
        at: PurgeNode,
        key: int,
        seen: Seen,
        deleted: bool,
        expires_ms: int,
        w: int,
        reach: Reach,
        *,
        target: PurgeNode | None = None,
    ) -> None:
        """A write that `at` coordinates, as an owner or in the place of one, and who of the others is to hear of it."""
        rng, world = self.rng, self.world
        context, floor, past = seen
        value = None if deleted else b"v%d" % len(self.oracle.writes)
        place = hint_of(key, target.id) if target else record_of(key)
        self.trace.note(f"n{at.id}", f"write {len(self.oracle.writes)}: {value!r} after {past:b}", f"key {key}")
        forgotten = place[0] == "r" and at.record(key) is None and at.horizon > 0
        result = at.mint(place, context, floor, value, expires_ms, len(self.oracle.writes) + 1)
        number = self.oracle.minted(key, result.data, result.dot, past)
        self.trace.probe(RECREATED, forgotten)
        floor = max(floor, self.oracle.writes[number].stamp)
        clock = (context or EMPTY).add(result.dot)
        put = _Put(self, at, key, number, w, (clock, floor, past | 1 << number))
        self._durable(at, partial(put.acked, at.id), always=target is not None)
        spare = [node for node in self.stand_ins() if node is not at]
        for node in world.owners_now() if reach is not Reach.NONE else ():
            if node is at or node is target:
                continue
            if node.up or not spare or rng.random() < 0.3:
                heir, kept = node, record_of(key)
            else:
                heir, kept = spare.pop(), hint_of(key, node.id)
            action = partial(self._replicate, put, heir, kept, result.data)
            if reach is Reach.LATE:
                world.late.append(Mail(heir, action))
            else:
                world.send(heir, action)

    def shown(self, key: int, at: PurgeNode) -> Seen:
        """What is at the coordinator."""
        if (local := at.record(key)) is None:
            return UNSEEN
        self.world.reveal(at)
        clock = clock_of(local)
        return clock, newest_stamp(local), self.oracle.known(key, clock)

    def _context(self, key: int, at: PurgeNode) -> Seen:
        """What the writer has seen: what is at the coordinator, what it was once shown, or nothing."""
        rng, known = self.rng, self.contexts[key]
        if rng.random() < 0.6 and at.record(key) is not None:
            return self.shown(key, at)
        if known and rng.random() < 0.8:
            return known[-1] if rng.random() < 0.7 else rng.choice(known)
        return UNSEEN

    def _replicate(self, put: _Put, node: PurgeNode, place: Place, record: bytes) -> None:
        owner = any(node is each for each in self.world.owners_now())
        if place[0] == "r" and not owner:
            return
        whole = node.take(place, record) if owner and place[0] == "r" else node.keep(place, record)
        self.trace.probe(LEFT_OUT, not whole)
        if whole:
            self.oracle.check_known(put.number, node.store.data.get(place), f"n{node.id}")
            self._durable(node, partial(put.acked, node.id), always=place[0] == "h")

    def _durable(self, node: PurgeNode, done: Callable[[], None], *, always: bool) -> None:
        if always:
            node.store.sync()
        if always or self.world.periodic:
            done()
        else:
            node.store.when_synced(done)

    def read(self, key: int | None = None) -> None:
        """Two owners that are sure of what they do not have; now and then with what somebody less sure still has."""
        rng, world = self.rng, self.world
        key = self._key() if key is None else key
        strict = self.oracle.acked(strict=True)
        asked = [world.nodes[number] for number in world.owners]
        rng.shuffle(asked)
        asked = [node for node in asked if node.up]
        definitive = [node for node in asked if node.complete][:2]
        if len(definitive) < 2:
            return
        answers = [(node, node.record(key), True) for node in definitive]
        others = [(node, node.record(key), True) for node in asked if node not in definitive]
        others += [
            (node, record, False)
            for node in world.nodes.values()
            if node.up
            for place, record in node.hints()
            if place[1] == key
        ]
        answers += [answer for answer in others if rng.random() < 0.4]
        horizon = world.named([node for node, _, _ in answers])
        found = [node.answer(record, horizon, owner=owner) for node, record, owner in answers]
        for node in definitive:
            world.reveal(node)
        whole: bytes | None = None
        for record in found:
            if record is not None:
                whole = record if whole is None else merge(whole, record, self.oracle.conflict)
        self.oracle.check_seen(key, self.oracle.visible(key, whole, world.now_ms()), strict)
        if whole is not None:
            clock = clock_of(whole)
            self.contexts[key].append((clock, newest_stamp(whole), self.oracle.known(key, clock)))
            for node in definitive:
                world.send(node, partial(self._take, node, record_of(key), whole))

    def _take(self, node: PurgeNode, place: Place, record: bytes) -> None:
        if node.id in (*self.world.owners, *self.world.pending):
            self.trace.probe(LEFT_OUT, not node.take(place, record))

    # -- what goes on by itself

    def deliver(self) -> None:
        world = self.world
        for _ in range(4):
            world.deliver(world.mail if not world.late or self.rng.random() < 0.96 else world.late)

    def sync(self) -> None:
        self.rng.choice(list(self.world.nodes.values())).store.sync()

    def exchange(self) -> None:
        world = self.world
        proof, nodes = world.proof, world.owners_now()
        if proof is not None and not proof.over and proof.barrier is not None:
            wanted = [pair for pair in combinations(sorted(world.owners), 2) if pair not in proof.pairs]
            if wanted:
                a, b = self.rng.choice(wanted)
                if (
                    any(not e.over and {e.a.id, e.b.id} == {a, b} for e in world.exchanges[-6:])
                    and self.rng.random() < 0.8
                ):
                    return
                world.exchange(world.nodes[a], world.nodes[b])
                return
        a_node = self.rng.choice([*nodes, *(world.nodes[number] for number in world.leftover)])
        b_node = self.rng.choice(nodes)
        if a_node is not b_node:
            world.exchange(a_node, b_node)

    def hand_over(self, holder: PurgeNode | None = None) -> None:
        """Somebody offers what it keeps for others to them."""
        holder = holder or self.rng.choice(list(self.world.nodes.values()))
        if not holder.up:
            return
        for (_, key, target), record in holder.hints():
            owners = self.world.owners_now()
            targets = [node for node in owners if node.id == target] or owners
            offer = Offer(holder, hint_of(key, target), record, {node.id for node in targets})
            for node in targets:
                self.world.send(node, partial(self.hint_arrives, offer, node))

    def hint_arrives(self, offer: Offer, node: PurgeNode) -> None:
        if node.id not in (*self.world.owners, *self.world.pending):
            return
        self.trace.probe(LEFT_OUT, not node.take(record_of(offer.place[1]), offer.record))
        taken = partial(self._hint_taken, offer, node, node.incarnation)
        self._durable(node, partial(self.world.send, offer.holder, taken), always=True)

    def _hint_taken(self, offer: Offer, node: PurgeNode, incarnation: int) -> None:
        offer.left.discard(node.id)
        offer.takers.append((node, incarnation))
        store, place = offer.holder.store, offer.place
        if not offer.left and store.data.get(place) == offer.record:
            destroyed = any(taker.incarnation != life for taker, life in offer.takers)
            self.world.let_go(lambda: store.write(place, None), destroyed=destroyed)

    def drain_hints(self) -> None:
        """Somebody drains: what it keeps for others goes to another member."""
        world = self.world
        up = [world.nodes[number] for number in world.members if world.nodes[number].up]
        up = [node for node in up if node.id not in world.owners]
        if len(up) > 1:
            self.move_hints(*self.rng.sample(up, 2))

    def move_hints(self, holder: PurgeNode, heir: PurgeNode) -> None:
        """All that one keeps is kept by another."""
        for place, record in holder.hints():
            heir.keep(place, record)
            heir.store.sync()
            holder.store.write(place, None)

    def sweep(self) -> None:
        for node in self.world.owners_now():
            if node.up and self.rng.random() < 0.6:
                self.swept(node)

    def swept(self, node: PurgeNode) -> None:
        before = [node.record(key) for key in range(KEYS)]
        node.sweep()
        self.trace.probe(FORGOTTEN, [node.record(key) for key in range(KEYS)] != before)

    def learn(self) -> None:
        for node in self.world.nodes.values():
            if node.up and self.rng.random() < 0.6:
                node.learn(self.world.horizon)

    def proof(self) -> None:
        world = self.world
        if world.proof is not None and not world.proof.over:
            for _ in range(self.rng.randint(1, 12)):
                world.advance_proof()
                self.exchange()
                self.deliver()
            if self.rng.random() < 0.99:
                return
        self.begin()


class _Put:
    """A write that waits for its acknowledgements."""

    __slots__ = ("_acks", "_at", "_boots", "_context", "_history", "_key", "_w", "number")

    def __init__(self, history: PurgeTraffic, at: PurgeNode, key: int, number: int, w: int, context: Context) -> None:
        self._at, self._boots = at, at.boots
        self._history, self._key, self.number, self._w = history, key, number, w
        self._context = context
        self._acks: set[int] = set()

    def acked(self, node: int) -> None:
        """A distinct node has it as durable as the bucket promises."""
        history, number = self._history, self.number
        if not self._at.up or self._at.boots != self._boots:
            return
        self._acks.add(node)
        write = history.oracle.writes[number]
        if not write.strict:
            write.strict = history.world.met_by_two(self._acks)
        if not write.acked and history.world.counted(self._acks, self._w):
            write.acked = True
            history.contexts[self._key].append(self._context)
