"""Who holds what, as the stores were told: an acknowledgement by k nodes is k nodes that have a copy (I7), and a hint
goes when its target has what it says, or has another who keeps the hint; a coordinator's note also when its target is
owed an exchange of the range, but never the copy of a stand-in, which may be all that is left of a write (I11).

Clients cannot see whether a count is honest until stores are lost, and then seldom; and a hint that is lost is mostly
made good by anti-entropy. From outside of the cluster both can be seen at once: every write of every store passes by
here, and what a node has written to its own copy of the bucket, or keeps as a fallback, it holds. A coordinator's note
that somebody missed a write is no copy.

What a node wrote is certain while it runs. After a death its store may hold any state it went through, so a hint from
an earlier run says what any write of an earlier run said.

A record may also be forgotten, where all of it died below the horizon that its node believes in; or dropped since the
node cannot vouch for what is that old, and others do not know it. And nobody has to have what is gone by right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from leafdb.hints.hint import HintKey, Kind
from leafdb.hints.hint import decode as decode_hint
from leafdb.hints.hint import decode_key as decode_hint_key
from leafdb.hints.hint import encode_key as encode_hint_key
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.purge import NEVER, record_death
from leafdb.model.record import clock_of, newest_stamp
from leafdb.node.boot import CHECKPOINTS_TREE
from leafdb.node.debts import OWED, owed_key
from leafdb.node.heirs import goers
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.ring.token import split_storage_key
from leafdb.testing.cluster import MemoryCluster
from leafdb.testing.cluster_process import Process
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import BucketId, NodeId, TreeId


class Copies:
    """Of one bucket, from the moment it is made."""

    def __init__(self, cluster: MemoryCluster, bucket: BucketId, n: int, partitions: int) -> None:
        self._bucket = bucket
        self._n = n
        self._partitions = partitions
        self._tree = TreeId(bucket)
        self._known: dict[bytes, dict[NodeId, CausalClock]] = {}
        """By storage key: what each member has ever been given to keep, and has not given away since."""
        self._stands: dict[bytes, dict[NodeId, set[NodeId]]] = {}
        """By storage key: for whom each member has kept a fallback's copy."""
        self._records: dict[tuple[NodeId, bytes], Said] = {}
        """What the record of a key may be, by the machine of the store."""
        self._let_go: dict[bytes, dict[NodeId, CausalClock]] = {}
        """By storage key: what each member has given away."""
        self._hints: dict[tuple[NodeId, bytes], Said] = {}
        """What each hint says, by the node that keeps it and its key."""
        self._targets: dict[tuple[NodeId, bytes], set[NodeId]] = {}
        """For whom each machine keeps a hint, by storage key."""
        self._debts: dict[tuple[NodeId, bytes], int] = {}
        """The partitions each node owes, by the key under which it notes that."""
        self._overflowed: dict[NodeId, tuple[Process, int]] = {}
        """How many hints each node has had no room for, when it was asked last."""
        self._noted: set[NodeId] = set()
        """Who has noted a debt since."""
        self._lost: tuple[Invariant, str] | None = None
        self.excuse: Callable[[bytes, CausalClock, CausalClock], bool] = lambda storage_key, wanted, has: False
        """Whether all that is wanted of a key, and is not in what somebody has of it, is gone by right."""
        self.forgotten: dict[bytes, set[NodeId]] = {}
        """By storage key: the members that have ever forgotten it by right."""
        self._processes = cluster.processes
        cluster.observe_writes(self._written)

    def check(self, storage_key: bytes, dot: Dot, acks: int, text: str, key: str) -> None:
        """`acks` nodes were said to hold the write of this dot. By the time the client hears of it, one that holds the
        range no longer may have given its copy away."""
        self.check_hints()
        given = [*self._known.get(storage_key, {}).items(), *self._let_go.get(storage_key, {}).items()]
        holders = {node for node, clock in given if clock.covers(dot)}
        told = " ".join(f"n{node}" for node in sorted(holders)) or "nobody"
        what = f"{text} is acknowledged by {acks}, and {told} has been given a copy"
        gone = self.excuse(storage_key, CausalClock.from_dots((dot,)), EMPTY)
        require(len(holders) >= acks or gone, Invariant.SURVIVES_STORES, what, key)

    def has(self, member: NodeId, storage_key: bytes, dot: Dot) -> bool:
        """Whether a member has been given the write of this dot, or it is gone by right."""
        has = self._known.get(storage_key, {}).get(member, EMPTY)
        return has.covers(dot) or self.excuse(storage_key, CausalClock.from_dots((dot,)), has)

    def holders(self, storage_key: bytes, clock: CausalClock) -> dict[NodeId, set[NodeId]]:
        """The members that have been given all of this of a key, but for what is gone by right, each with all for whom
        its copy counts."""
        stands = self._stands.get(storage_key, {})
        known = dict.fromkeys(self.forgotten.get(storage_key, ()), EMPTY) | self._known.get(storage_key, {})
        return {
            node: {node, *stands.get(node, ())} for node, has in known.items() if self._has(storage_key, has, clock)
        }

    def held_by(self, member: NodeId) -> Iterator[tuple[bytes, CausalClock, CausalClock]]:
        """Of each key that a member was given: its storage key, what the member has, and what all others have."""
        for storage_key, known in self._known.items():
            if member in known:
                others = EMPTY
                for other, clock in known.items():
                    others = others if other == member else others.merge(clock)
                yield storage_key, known[member], others

    def check_hints(self) -> None:
        """No hint has been removed before its time, or refused without a debt, and nobody keeps more than it may.
        Raised here, and not inside the node."""
        if self._lost is not None:
            violated(*self._lost)
        for node, process in self._processes.items():
            self._check_refusals(node, process)
        self._noted.clear()

    def _check_refusals(self, node: NodeId, process: Process) -> None:
        """A node that has no room for a hint owes its range an exchange: it does now, or noted so in between."""
        refused = int(process.node.metrics.hints_overflowed_total)
        before, count = self._overflowed.get(node, (process, 0))
        self._overflowed[node] = process, refused
        if refused > (count if before is process else 0) and node not in self._noted:
            owes = any(mask for (debtor, _), mask in self._debts.items() if debtor == node)
            require(owes, Invariant.HINTS_CONSERVED, f"n{node} had no room for a hint, and owes nobody an exchange")

    def _written(self, machine: NodeId, tree: TreeId, key: bytes, value: bytes | None) -> None:
        """A machine has the number of the member that lives on it, until that becomes another."""
        if tree == self._tree:
            self._record(machine, key, value)
        elif tree == HINTS_TREE:
            self._hint(machine, key, value)
        elif tree == CHECKPOINTS_TREE and key[:1] == bytes((OWED,)):
            self._noted.add(machine)
            self._debts[machine, key] = int.from_bytes(value or b"", "little")

    def has_let_go(self, member: NodeId, storage_key: bytes) -> bool:
        """Whether a member has ever given its record of a key away."""
        return member in self._let_go.get(storage_key, {})

    def member_on(self, machine: NodeId) -> NodeId:
        """The number of the member that lives on a machine; that of the machine while none does."""
        return self._processes[machine].node.view.self_id or machine

    def _record(self, machine: NodeId, key: bytes, value: bytes | None) -> None:
        said = self._records.setdefault((machine, key), Said())
        member = self.member_on(machine)
        if value is not None:
            clock = clock_of(value)
            said.write(self._processes[machine], clock, value)
            self._gives(member, key, clock)
            return
        if self._may_forget(machine, key, said):
            self.forgotten.setdefault(key, set()).add(member)
            self._known.get(key, {}).pop(member, None)
            return
        gone = self._let_go.setdefault(key, {})
        gone[member] = self._known.get(key, {}).pop(member, EMPTY).merge(gone.get(member, EMPTY))
        holders = self._holders(machine, key)
        if member in holders:
            self._lose(Invariant.NOTHING_LEFT_BEHIND, f"n{member} drops a record of a range that it holds")
        says = said.now(self._processes[machine])
        if missing := self._missing(key, says, holders):
            text = f"n{member} drops a record that n{missing} does not have, which holds its range with {holders}"
            self._lose(Invariant.NOTHING_LEFT_BEHIND, text)

    def _may_forget(self, machine: NodeId, storage_key: bytes, said: Said) -> bool:
        """Whether its record of a key may go since it is dead below the horizon it believes in; or as the machine
        vouches for nothing there, and all of it is as old as that."""
        process = self._processes[machine]
        ring = process.node.view.ring
        assert ring is not None, "nobody writes to a bucket before there is one"
        partition = ring.partition_of(split_storage_key(storage_key)[0])
        horizons = ring.metadata.horizons
        horizon = horizons[partition].stamp if horizons else 0
        if said.dies(process) < horizon:
            return True
        return said.newest(process) < horizon and not process.node.horizons.vouches(partition)

    def _has(self, storage_key: bytes, has: CausalClock, wanted: CausalClock) -> bool:
        return has.descends(wanted) or self.excuse(storage_key, wanted, has)

    def _holders(self, machine: NodeId, storage_key: bytes) -> tuple[NodeId, ...]:
        """Who holds the range, as a machine believes."""
        ring = self._processes[machine].node.view.ring
        assert ring is not None, "nobody writes to a bucket before there is one"
        return ring.holders(ring.partition_of(split_storage_key(storage_key)[0]), self._n)

    def _missing(self, storage_key: bytes, says: list[CausalClock], holders: tuple[NodeId, ...]) -> NodeId | None:
        """One of the holders that has nothing of what may have been said; None: all have."""
        known = self._known.get(storage_key, {})
        for holder in holders:
            if not any(self._has(storage_key, known.get(holder, EMPTY), clock) for clock in says):
                return holder
        return None

    def _lose(self, invariant: Invariant, text: str) -> None:
        self._lost = self._lost or (invariant, text)

    def _gives(self, member: NodeId, storage_key: bytes, clock: CausalClock) -> None:
        known = self._known.setdefault(storage_key, {})
        before = known.get(member)
        known[member] = clock if before is None else before.merge(clock)

    def _hint(self, machine: NodeId, key: bytes, value: bytes | None) -> None:
        of = decode_hint_key(key)
        if of.bucket != self._bucket:
            return
        said = self._hints.setdefault((machine, key), Said())
        targets = self._targets.setdefault((machine, of.storage_key), set())
        (targets.discard if value is None else targets.add)(of.target)
        if value is not None:
            hint = decode_hint(value)
            clock = clock_of(hint.record)
            ledger = self._processes[machine].node.hints.ledger
            if ledger.bytes > ledger.bytes_max:
                text = f"n{machine} keeps {ledger.bytes} bytes of hints, and {ledger.bytes_max} are its bound"
                self._lose(Invariant.HINTS_BOUNDED, text)
            said.write(self._processes[machine], clock, kind=hint.kind)
            if hint.kind is not Kind.COORDINATOR:
                member = self.member_on(machine)
                self._gives(member, of.storage_key, clock)
                self._stands.setdefault(of.storage_key, {}).setdefault(member, set()).add(of.target)
            return
        says = said.now(self._processes[machine])
        has = self._known.get(of.storage_key, {}).get(of.target, EMPTY)
        if any(self._has(of.storage_key, has, clock) for clock in says):
            return
        owed = self._debts.get((machine, owed_key(of.target, self._bucket)), 0)
        if owed >> of.partition(self._partitions) & 1 and said.may_be_note(self._processes[machine]):
            return
        if self._is_handed_on(machine, key, says):
            return
        holders = self._holders(machine, of.storage_key)
        elsewhere = tuple(
            holder for holder in holders if holder not in targets and not self._is_kept(machine, holder, of, says)
        )
        missing = of.target if of.target in holders else self._missing(of.storage_key, says, elsewhere)
        if missing is None:
            return
        text = (
            f"n{machine} removed a hint for n{of.target}, which has {has!r} and not {says!r}, and so has n{missing} not"
        )
        self._lose(Invariant.HINTS_CONSERVED, text)

    def hints_on(self, machine: NodeId) -> int:
        """How many hints the present run of a machine has written and not removed."""
        process = self._processes[machine]
        mine = ((decode_hint_key(key), said) for (node, key), said in self._hints.items() if node == machine)
        return sum(said.is_of(process) and of.target in self._targets[machine, of.storage_key] for of, said in mine)

    def _is_handed_on(self, machine: NodeId, key: bytes, says: list[CausalClock]) -> bool:
        """Whether the hint may go because its node goes, or stops: another that stays keeps it for the same target; or
        that goes too, and all other holders have it. (An orphan goes likewise, holder by holder.)"""
        of = decode_hint_key(key)
        if self._is_kept(machine, of.target, of, says):
            return True
        ring = self._processes[machine].node.view.ring
        assert ring is not None
        gone = goers(ring.metadata)
        if of.target not in gone:
            return False
        holders = tuple(holder for holder in self._holders(machine, of.storage_key) if holder not in gone)
        return self._missing(of.storage_key, says, holders) is None

    def _is_kept(self, machine: NodeId, target: NodeId, of: HintKey, says: list[CausalClock]) -> bool:
        """Whether another than `machine`, which stays, keeps what it says as a hint for a target."""
        ring = self._processes[machine].node.view.ring
        assert ring is not None
        gone = goers(ring.metadata)
        key = encode_hint_key(target, of.bucket, of.storage_key)
        for other, process in self._processes.items():
            said = self._hints.get((other, key))
            kept = target in self._targets.get((other, of.storage_key), ())
            if other == machine or said is None or not kept or self.member_on(other) in gone:
                continue
            if all(any(self._has(of.storage_key, clock, each) for each in says) for clock in said.now(process)):
                return True
        return False


class Said:
    """What one hint may say: all that was written of it, and by which run of its node the last of that."""

    __slots__ = ("_clocks", "_deaths", "_kinds", "_newest", "_process")

    def __init__(self) -> None:
        self._clocks: list[CausalClock] = []
        self._deaths: list[int] = []
        self._kinds: list[Kind] = []
        self._newest: list[int] = []
        self._process: Process | None = None

    def write(
        self, process: Process, clock: CausalClock, record: bytes | None = None, *, kind: Kind = Kind.COORDINATOR
    ) -> None:
        """This run of the node has written it; of what may be forgotten, the record; of a hint, its kind."""
        self._process = process
        self._clocks.append(clock)
        self._kinds.append(kind)
        if record is not None:
            self._deaths.append(record_death(record))
            self._newest.append(newest_stamp(record))

    def is_of(self, process: Process) -> bool:
        """Whether it was written by this run, so that nothing of it is in doubt."""
        return process is self._process

    def now(self, process: Process) -> list[CausalClock]:
        """What this run may find in its store."""
        return self._clocks[-1:] if process is self._process else self._clocks

    def may_be_note(self, process: Process) -> bool:
        """Whether what this run may find in its store may be a note that never counted."""
        return Kind.COORDINATOR in (self._kinds[-1:] if process is self._process else self._kinds)

    def dies(self, process: Process) -> int:
        """When what this run may find in its store dies, at the earliest."""
        return min(self._deaths[-1:] if process is self._process else self._deaths, default=NEVER)

    def newest(self, process: Process) -> int:
        """The stamp of the newest write in it, at the earliest."""
        return min(self._newest[-1:] if process is self._process else self._newest, default=NEVER)
