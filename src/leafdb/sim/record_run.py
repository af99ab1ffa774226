"""The record tier: many small histories of one key on nodes that crash, forget, and hear of things late or twice.

A history: up to three primaries and two fallbacks, a few clients, mostly four to eight operations; deep ones have up to
forty. Clients write blindly, with old contexts and new ones, delete what they saw, retry what was not answered.
Coordinators mint, send the record on before it is durable, keep hints for whom they cannot reach; random pairs
exchange. Meanwhile nodes are killed, cut off, powered down, wiped, restored from backups, lose single records; which of
it, and the weather, is drawn anew for each history.

The oracle (record_oracle.py) judges every version as it appears. Then all is healed, and:

    everybody exchanges with everybody, and after a few rounds nothing moves any more (L); all hold the same bytes (I15)
    no hint is left (I11); whatever a node confirmed as durable is known, unless all that confirmed it forgot (I7)
    one client that reads, writes and chains its contexts leaves one sibling (I5)
    the laws of the merge hold on versions of the history (M)

An operation is a client's. The histories of a seed are numbered and drawn each from its own stream, so that a run of
fewer operations is a prefix of one of more.
"""

from __future__ import annotations

from functools import partial
from itertools import combinations
from random import Random
from typing import Final

from leafdb.hints.hint import decode as decode_hint
from leafdb.hints.hint import decode_key, version_of
from leafdb.model.bucket import BucketProperties
from leafdb.model.clock import EMPTY, CausalClock
from leafdb.model.record import clock_of, merge, newest_stamp
from leafdb.node.view import BucketView
from leafdb.sim.heap import CALM, Heap, Network, Weather, outcome
from leafdb.sim.outcome import NODES, OPERATIONS, Outcome, Tier
from leafdb.sim.record_faults import DOT_LOST, Faults
from leafdb.sim.record_oracle import SINGLE_DOTS, Oracle, bits
from leafdb.sim.record_put import DEADLINE_S, Client, Put
from leafdb.sim.record_store import WAITED
from leafdb.sim.record_world import ADOPTED, CHANGED, NO_LEASE, OLD_SELF, PASSED_OVER, Node
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import FIRST_BUCKET_ID, BucketId, Conflict, Durability, NodeId

PRIMARIES: Final = 3
ROUNDS_MAX: Final = 6
CONFLICT: Final = "a conflict of five or more"
DELETION: Final = "a deletion beside a live sibling"
FALLBACK: Final = "a fallback minted"
RETRIED: Final = "a retried write was minted twice"
FORGOTTEN: Final = "an acknowledged write was only on stores that forgot it"
OLD_CONTEXT: Final = "an old context over a newer record"
SURFACED: Final = "an unknown write was there after all"
PROBES: Final = (
    ADOPTED, CHANGED, CONFLICT, DELETION, DOT_LOST, FALLBACK, FORGOTTEN, NO_LEASE, OLD_CONTEXT, OLD_SELF, PASSED_OVER,
    RETRIED, SINGLE_DOTS, SURFACED, WAITED,
)  # fmt: skip


class History:
    """One history, from a fresh cluster to its judgement."""

    def __init__(self, heap: Heap, name: str, nodes: int, *, small: bool) -> None:
        self.heap = heap
        self.rng: Random = Random(f"{name}/clients")
        rng = self.rng
        self.length: int = rng.randint(4, 8) if small or rng.random() < 0.85 else rng.randint(9, 40)
        conflict = Conflict.LWW if rng.random() < 0.2 else Conflict.SIBLINGS
        durability = rng.choice((Durability.ALWAYS, Durability.PERIODIC))
        properties = BucketProperties(BucketId(FIRST_BUCKET_ID), "b", 1, conflict=conflict, durability=durability)
        bucket = BucketView(properties, min(PRIMARIES, nodes))
        self.oracle: Oracle = Oracle(conflict, heap.trace)
        self.net: Network = Network(heap, Random(f"{name}/net"), Weather.draw(rng))
        commit_s, cold = rng.choice((0.0, 0.005, 0.1)), rng.choice((0.0, 0.0, 0.5))
        disks = Random(f"{name}/disks")
        self.nodes: list[Node] = [
            Node(
                heap,
                number,
                bucket,
                self.oracle,
                rng=disks,
                commit_s=commit_s,
                cold=cold,
                skew_ms=rng.choice((0, 0, -3_000, 4_000)),
            )
            for number in range(1, nodes + 1)
        ]
        self.of_id: dict[NodeId, Node] = {node.id: node for node in self.nodes}
        self.primaries: list[Node] = self.nodes[:PRIMARIES]
        self.fallbacks: list[Node] = self.nodes[PRIMARIES : PRIMARIES + 2]
        self.clients: list[Client] = [Client() for _ in range(rng.choice((1, 2, 3)))]
        self.background: Random = Random(f"{name}/background")
        self.faults: Faults = Faults(heap, self.net, self.nodes, PRIMARIES, Random(f"{name}/nemesis"))
        self.puts: list[Put] = []
        """Those that were minted."""
        self.over: bool = False
        self.issued: int = 0
        heap.at(heap.now, self._tend)

    # -- clients

    def run(self, operations: int) -> int:
        """At most so many operations, then the judgement. Answers how many were done."""
        length = min(self.length, operations)
        self.heap.at(self.heap.now, partial(self._operate, length))
        while self.issued < length and self.heap.step():
            pass
        self.heap.run(self.heap.now + self.background.random() * 0.2)
        self.faults.stop()
        self.over = True
        self._heal()
        self._settle("after healing")
        self._check_confirmed()
        self._write_in_sequence()
        self.oracle.check_laws(self.background)
        return length

    def _operate(self, length: int) -> None:
        if self.issued >= length:
            return
        rng = self.rng
        client = rng.choice(self.clients)
        choice = rng.random()
        if choice < 0.25:
            self._read(client)
        elif client.unanswered is not None and choice < 0.45:
            self._retry(client)
        else:
            self._write(client, delete=choice > 0.85)
        self.issued += 1
        self.heap.operations += 1
        self.heap.at(self.heap.now + rng.expovariate(1 / 0.04), partial(self._operate, length))

    def _write(self, client: Client, *, delete: bool) -> None:
        rng = self.rng
        context: CausalClock | None = None
        past = seen = 0
        if client.contexts and rng.random() < 0.75:
            context, past, seen = client.contexts[-1] if rng.random() < 0.7 else rng.choice(client.contexts)
        number = self.issued + 1
        value = None if delete else b"v%d" % number
        expires = 0 if delete or rng.random() < 0.85 else rng.choice((50, 500))
        self._begin(client, number.to_bytes(16, "big"), value, expires, context, past, seen)

    def _retry(self, client: Client) -> None:
        """The same operation again, perhaps on another node: two dots of one operation."""
        put, client.unanswered = client.unanswered, None
        assert put is not None
        self.heap.trace.probe(RETRIED, put.number >= 0)
        self._begin(client, put.op_id, put.value, 0, put.context, put.past, put.seen)

    def _begin(
        self,
        client: Client,
        op_id: bytes,
        value: bytes | None,
        ttl_ms: int,
        context: CausalClock | None,
        past: int,
        seen: int,
    ) -> None:
        rng = self.rng
        at = rng.choice(self.primaries)
        stands_for: NodeId | None = None
        if self.fallbacks and (not at.host.up or rng.random() < 0.1):
            stands_for, at = at.id, rng.choice(self.fallbacks)
        if not at.host.up or at.host.stalled:
            return
        expires_ms = at.now_ms() + ttl_ms if ttl_ms else 0
        put = Put(
            client,
            at,
            spread=self._spread,
            stands_for=stands_for,
            context=context,
            past=past,
            seen=seen,
            op_id=op_id,
            value=value,
            expires_ms=expires_ms,
        )
        at.host.at(self.heap.now + DEADLINE_S, put.expired)
        if stands_for is None:
            at.replica.coordinate(put)
        else:
            self.heap.trace.probe(FALLBACK)
            at.hints.coordinate(stands_for, put)

    def _read(self, client: Client) -> None:
        """Some nodes' records, merged: what is shown, and a context that covers just that."""
        rng = self.rng
        asked = [node for node in self.primaries if node.host.up and not node.host.stalled and rng.random() < 0.7]
        found: list[bytes] = []

        def answered(left: list[int], record: bytes | None) -> None:
            if record is not None:
                found.append(record)
            left.pop()
            if not left and found:
                self._shown(client, found)

        left = [0] * len(asked)
        for node in asked:
            node.read(partial(answered, left))

    def _shown(self, client: Client, found: list[bytes]) -> None:
        oracle = self.oracle
        whole = found[0]
        for record in found[1:]:
            merged = merge(whole, record, oracle.conflict)
            oracle.merged(whole, record, merged)
            whole = merged
        oracle.check_shown(whole, self.primaries[0].now_ms())
        clock, known = clock_of(whole), oracle.of(whole).known
        alive = [oracle.writes[number].sibling.value is None for number in bits(oracle.living(oracle.of(whole)))]
        self.heap.trace.probe(DELETION, any(alive) and not all(alive))
        oracle.check_context(clock, known)
        client.contexts.append((clock, known, newest_stamp(whole)))
        self.heap.trace.tell("client", f"read {oracle.living(oracle.of(whole)):x} of {known:x}", "key")

    # -- coordinators and replicas

    def _spread(self, put: Put) -> None:
        """A copy to every other primary, or to a fallback in its place, or a note that it is owed one."""
        at, trace = put.at, self.heap.trace
        alive = self.oracle.living(self.oracle.of(put.record))
        trace.tell(at.host.name, f"mints write {put.number} after {put.past:x}; alive {alive:x}", "key")
        trace.probe(CONFLICT, alive.bit_count() >= 5)
        trace.probe(OLD_CONTEXT, bool(put.past) and alive.bit_count() > 1)
        self.puts.append(put)
        spares = [node for node in self.fallbacks if node is not at]
        for primary in self.primaries:
            if primary is at or primary.id == put.stands_for:
                continue
            if primary.host.up or not spares:
                put.waiting[primary.id] = primary.id
                self.net.send(at.host, primary.host, put.record, partial(self._take_copy, put, primary, None))
            else:
                spare = spares.pop()
                put.waiting[spare.id] = primary.id
                self.net.send(at.host, spare.host, put.record, partial(self._take_copy, put, spare, primary.id))

    def _take_copy(self, put: Put, node: Node, target: NodeId | None) -> None:
        confirm = partial(self._send_ack, put, node)
        if target is None:
            node.merge(put.record, put.durability, confirm)
        else:
            node.keep(target, put.record, confirm)

    def _send_ack(self, put: Put, node: Node) -> None:
        life = put.at.host.life
        self.net.send(
            node.host,
            put.at.host,
            b"ack",
            lambda: put.confirmed(node.id) if put.at.host.life == life else None,
        )

    def _exchange(self, a: Node, b: Node) -> None:
        """One key of an anti-entropy pass: a's record to b, and b's answer back."""

        def answer(record: bytes | None) -> None:
            if record is not None:
                merged = record
                self.net.send(b.host, a.host, merged, partial(a.merge, merged, a.bucket.durability, _nothing))

        def at_b(record: bytes | None) -> None:
            if record is None:
                b.read(answer)
            else:
                b.merge(record, b.bucket.durability, lambda: b.read(answer))

        def offer(record: bytes | None) -> None:
            self.net.send(a.host, b.host, record or b"", partial(at_b, record))

        a.read(offer)

    def _hand_over(self, holder: Node) -> None:
        """The hints of one node go home; each is removed if it is still what its target confirmed."""
        for key, value in holder.hint_items():
            target = self.of_id[decode_key(key).target]
            record = decode_hint(value).record
            self.net.send(
                holder.host, target.host, record, partial(self._take_hint, holder, target, record, version_of(value))
            )

    def _take_hint(self, holder: Node, target: Node, record: bytes, version: int) -> None:
        def taken() -> None:
            self.net.send(target.host, holder.host, b"taken", partial(holder.removal, target.id, record, version))

        target.merge(record, Durability.ALWAYS, taken)

    def _tend(self) -> None:
        """What goes on by itself: exchanges of random pairs, hints on their way home, backups."""
        if self.over:
            return
        rng = self.background
        a, b = rng.choice(self.primaries), rng.choice(self.primaries)
        if a is not b and a.host.up and not a.host.stalled:
            self._exchange(a, b)
        holder = rng.choice(self.nodes)
        if holder.host.up and not holder.host.stalled and rng.random() < 0.5:
            self._hand_over(holder)
        if rng.random() < 0.2:
            a.backup = dict(a.store.durable)
        self.heap.at(self.heap.now + rng.expovariate(1 / 0.1), self._tend)

    # -- the judgement

    def _heal(self) -> None:
        self.net.heal()
        self.net.weather = CALM
        for node in self.nodes:
            if not node.host.up:
                node.boot(clean=False)
        self.heap.run()

    def _settle(self, when: str) -> None:
        """Everybody with everybody, until a round changes nothing."""
        for _ in range(ROUNDS_MAX):
            before = [(node.record(), node.hint_items()) for node in self.nodes]
            for node in self.nodes:
                self._hand_over(node)
            for a, b in combinations(self.primaries, 2):
                if a.record() != b.record():
                    self._exchange(a, b)
                    self.heap.run()
            self.heap.run()
            if before == [(node.record(), node.hint_items()) for node in self.nodes]:
                break
        else:
            violated(Invariant.LIVENESS, f"after {ROUNDS_MAX} rounds records still change {when}", "key")
        for node in self.nodes:
            require(not node.hint_items(), Invariant.HINTS_CONSERVED, f"{node.host.name} still keeps a hint", "key")
            node.check()
        records = [node.record() for node in self.primaries]
        require(
            all(record == records[0] for record in records), Invariant.REPLICAS_EQUAL, f"replicas differ {when}", "key"
        )

    def _check_confirmed(self) -> None:
        known = self.oracle.of(self.primaries[0].record()).known
        for node in self.nodes:
            lost = node.must_hold() & ~known
            require(
                not lost, Invariant.SURVIVES_STORES, f"{node.host.name} had confirmed {lost:x}, and it is gone", "key"
            )
        for put in self.puts:
            there = bool(known >> put.number & 1)
            self.heap.trace.probe(FORGOTTEN, put.outcome == "applied" and not there)
            self.heap.trace.probe(SURFACED, put.outcome == "unknown" and there)

    def _write_in_sequence(self) -> None:
        """Nobody else writes: a client that chains what it is given leaves one sibling."""
        oracle, client = self.oracle, Client()
        record = self.primaries[0].record()
        if record is not None:
            self._shown(client, [record])
        for step, at in enumerate((self.background.choice(self.primaries), self.background.choice(self.primaries))):
            context, past, seen = client.contexts[-1] if client.contexts else (EMPTY, 0, 0)
            put = Put(
                client,
                at,
                spread=self._spread,
                stands_for=None,
                context=context,
                past=past,
                seen=seen,
                op_id=(1_000 + step).to_bytes(16, "big"),
                value=b"last %d" % step,
                expires_ms=0,
            )
            at.replica.coordinate(put)
            self.heap.run()
            if put.outcome not in ("applied", "refused"):
                violated(Invariant.LIVENESS, f"a write on a healed cluster is {put.outcome or 'not answered'}", "key")
        self._settle("after a sequence of writes")
        record = self.primaries[0].record()
        alive = oracle.living(oracle.of(record)) if client.contexts else 0
        require(alive.bit_count() <= 1, Invariant.NO_FALSE_SIBLINGS, f"one writer left the siblings {alive:x}", "key")


def _nothing() -> None:
    """Nobody waits for it."""


def count_histories(seed: int, histories: int, *, nodes: int = PRIMARIES) -> Outcome:
    """So many small histories, of four to eight operations each; stops at the first violation."""
    heap = Heap()

    def body() -> None:
        for number in range(1, histories + 1):
            heap.clear()
            history = History(heap, f"{seed}/small {number}", nodes, small=True)
            history.run(history.length)

    return outcome(Tier.RECORD, seed, nodes, heap, PROBES, body)


def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
    """So many client operations over as many histories as that takes."""
    heap = Heap(keep=keep)

    def body() -> None:
        number = 0
        while heap.operations < operations:
            number += 1
            heap.clear()
            heap.trace.tell("runner", f"history {number}")
            History(heap, f"{seed}/{number}", nodes, small=False).run(operations - heap.operations)

    return outcome(Tier.RECORD, seed, nodes, heap, PROBES, body)
