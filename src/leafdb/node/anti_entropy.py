"""Anti-entropy: makes replicas of a range equal whatever happened, by comparing hash trees and merging what differs.

    unclean start here, a peer back, hints given up, a new ring, `repair run`  ->  debts  ->  exchanges  ->  records

This object knows the reasons: each becomes debts (`debts`), durable before anything relies on them, with a task that
people can watch (`repair_tasks`). Two workers take the next debt that can be worked off (`exchange_queue`), build the
tree of its range (`range_scanner`) and exchange it with every peer that is owed (`exchanges`). A debt that cannot be
worked off stays, over restarts too: nothing is ever given up.

A peer that was away owes and is owed everything it shares with us; both sides may begin, and an exchange settles the
debts of both. Equal ranges cost a scan on either side and two small messages.

What has not been compared for long becomes a debt as well (`repair_schedule`), and what is incomplete is complete again
when every debt in it is settled (`proofs`).

What a change of the ring asks for, and when it is done, `transfers` knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import trio

from leafdb.errors import CorruptionError, StorageError
from leafdb.hints.effects import MarkRange
from leafdb.limits import DIVERGENCE_AGE_S_DEFAULT
from leafdb.merkle.effects import Done, Failed
from leafdb.node.afterthoughts import Afterthoughts
from leafdb.node.changing_ranges import ChangingRanges
from leafdb.node.completeness import Completeness
from leafdb.node.debts import BOOT, OWED, Claim, Debts, Entry, Masks, bits, boot_key
from leafdb.node.dry_runs import DryRuns
from leafdb.node.engine_reads import read_page
from leafdb.node.exchange_queue import ExchangeQueue
from leafdb.node.exchange_terms import Terms
from leafdb.node.exchanges import Exchanges
from leafdb.node.horizons import Horizons
from leafdb.node.logs import Log
from leafdb.node.metrics import Metrics
from leafdb.node.pace import Pace
from leafdb.node.possible_losses import LOSSES, PossibleLosses
from leafdb.node.proofs import FORGOTTEN, Proofs
from leafdb.node.range_scanner import RangeScanner
from leafdb.node.range_source import RangeSource
from leafdb.node.record_looker import RecordLooker
from leafdb.node.record_mover import Peer, PeerCalls, RecordMover
from leafdb.node.record_server import RecordServer
from leafdb.node.record_service import MarkTaker, RecordService
from leafdb.node.record_store import RecordStore, unpaced_store
from leafdb.node.repair_ages import AGES, RepairAges
from leafdb.node.repair_runs import RepairRuns
from leafdb.node.repair_schedule import SCHEDULE, RepairSchedule
from leafdb.node.repair_tasks import RepairTasks
from leafdb.node.repair_workers import WORKERS, RepairWorkers
from leafdb.node.replica import Replica
from leafdb.node.shared_ranges import SharedRanges
from leafdb.node.standings import Standings
from leafdb.node.transfer_progress import KINDS, TransferProgress
from leafdb.node.transfers import Transfers
from leafdb.node.tree_rebuild import TreeRebuild
from leafdb.node.view import ClusterView
from leafdb.node.wholeness import REASON
from leafdb.ring.metadata import ClusterMetadata
from leafdb.storage.engine import Engine
from leafdb.types import BucketId, Durability, Epoch, NodeId, TreeId
from leafdb.wire.hello import PeerFacts
from leafdb.wire.registry import Lane

log: Log = Log("anti_entropy")


class AntiEntropy:
    """See the top of this file. `hints_for` counts what is kept here for a node; `tree` is the CHECKPOINTS tree."""

    afterthoughts: Afterthoughts

    def __init__(
        self,
        *,
        engine: Engine,
        view: ClusterView,
        replica: Replica,
        trees: TreeRebuild,
        completeness: Completeness,
        horizons: Horizons,
        metrics: Metrics,
        peers: PeerCalls,
        hints_for: Callable[[NodeId], int],
        paused: Callable[[NodeId], bool] = lambda _: False,
        behind: Callable[[NodeId], None],
        now: Callable[[], float],
        now_ms: Callable[[], int],
        tree: TreeId,
        age_max_s: float = DIVERGENCE_AGE_S_DEFAULT,
    ) -> None:
        self._engine = engine
        self._view = view
        self._replica = replica
        self._completeness = completeness
        self._metrics = metrics
        self._peers = peers
        self._tree = tree
        self._boots: dict[NodeId, int] = {}
        self.losses: PossibleLosses = PossibleLosses(self._write, now_ms)
        self._closed = False
        self._last_sequence = 0
        self._range_epochs: tuple[Epoch, ...] = ()
        self._generation = 0
        self.pace: Pace = trees.pace
        self.debts: Debts = Debts(self._write, now_ms=now_ms)
        self.tasks: RepairTasks = RepairTasks(now_ms)
        self._shared = shared = SharedRanges(view)
        self.proofs: Proofs = Proofs(view, shared, completeness, self.debts, self.losses, self._owe, horizons.vouches)
        self.ages: RepairAges = RepairAges(self._note)
        self.scanner: RangeScanner = RangeScanner(engine, self.pace)
        self.store: RecordStore = RecordStore(replica, self.pace)
        looker = RecordLooker(self.store, peers, lambda number: view.buckets.get(number))
        self.mover: RecordMover = RecordMover(view, self.store, peers, metrics)
        self.transfers: Transfers = Transfers(
            view=view, ranges=ChangingRanges(view), shared=shared, progress=TransferProgress(self._write, self._note),
            completeness=completeness, queue=replica.queue, mover=self.mover, metrics=metrics, now=now,
            owe=self._owe, connected=self._connected, horizons=horizons,
            agreed=lambda source, slot: self.standings.accords.with_source(source, slot),
        )  # fmt: skip
        self.standings: Standings = Standings(
            view=view, shared=shared, horizons=horizons, completeness=completeness, debts=self.debts,
            losses=self.losses, metrics=metrics, gate=self.transfers, owe=self._owe, whole=self.proofs.prove,
            wake=lambda: self._workers.wake(),
        )  # fmt: skip
        self.queue: ExchangeQueue = ExchangeQueue(self.debts, self._shared, connected=self._connected, now=now,
                                   hints_for=hints_for, gate=self.standings.gate, paused=paused)  # fmt: skip
        self.exchanges: Exchanges = Exchanges(
            view=view, debts=self.debts, transfers=self.transfers, scanner=self.scanner, trees=trees, mover=self.mover,
            pace=self.pace, peers=peers, now=now, complete=completeness.definitive_in, behind=behind, ended=self._ended,
            admit=lambda peer: not self.queue.hints_first(peer), horizons=horizons, accords=self.standings.accords,
        )  # fmt: skip
        self._records = self._record_service(looker, behind)
        self.schedule: RepairSchedule = RepairSchedule(
            ages=self.ages, shared=shared, debts=self.debts, self_id=lambda: view.self_id, name_of=view.name_of,
            owe=self._owe_in_turn, why=self.queue.why, write=self._write, now=now, now_ms=now_ms, age_max_s=age_max_s,
        )  # fmt: skip
        self.dry_runs: DryRuns = DryRuns(view, self.tasks, trees, self.exchanges, looker, now_ms)
        self.runs: RepairRuns = RepairRuns(view, shared, self.debts, self.tasks, self.proofs, self._owe)
        self.afterthoughts = Afterthoughts(view, shared, self.debts, self._owe, lambda: self._workers.wake())
        replica.says_more = self.afterthoughts.note
        self._workers = RepairWorkers(
            view=view, debts=self.debts, tasks=self.tasks, queue=self.queue, trees=trees,
            exchanges=self.exchanges, transfers=self.transfers, mover=self.mover, connected=self._connected,
            afterthoughts=self.afterthoughts.make,
        )  # fmt: skip
        view.on_install.append(self._installed)

    def _record_service(self, looker: RecordLooker, behind: Callable[[NodeId], None]) -> RecordService:
        source = RangeSource(
            engine=self._engine, view=self._view, metrics=self._metrics, horizons=self.standings.horizons,
            complete=self._completeness.definitive_in, older_waiting=lambda: self._replica.queue.older_waiting,
            behind=behind,
        )  # fmt: skip
        marks = MarkTaker(self._view, self._shared, owe=self._owe, safe=self._safe)
        self.record_server: RecordServer = RecordServer(
            view=self._view, store=self.store, metrics=self._metrics, marked=marks.take, pulled=source.page,
            looked=looker.serve, accord=self.exchanges.accord, restores=unpaced_store(self._replica),
        )  # fmt: skip
        return RecordService(self.record_server, lambda: self.exchanges.nursery)

    # -- life

    async def load(self) -> None:
        """Take what the store remembers. Raises StorageError."""
        start = b""
        while True:
            page = await read_page(self._engine, self._tree, start, None, durability=Durability.ALWAYS)
            for key, value in page.items:
                self._load(key, value)
            if page.next_key is None:
                break
            start = page.next_key
        self.transfers.progress.loaded()
        self.debts.add(self.transfers.progress.copies.all())
        if self.debts.pending:
            self.tasks.begin("left from before the restart", self.debts.all())

    def _load(self, key: bytes, value: bytes) -> None:
        try:
            if key[0] == OWED:
                self.debts.load(key, value)
            elif key[0] == BOOT:
                self._boots[NodeId(int.from_bytes(key[1:], "big"))] = int.from_bytes(value, "big")
            elif key[0] in KINDS:
                self.transfers.progress.load(key, value)
            elif key[0] == AGES:
                self.ages.load(key, value)
            elif key[0] == SCHEDULE:
                self.schedule.load(value)
            elif key[0] == LOSSES:
                self.losses.load(value)
        except ValueError as error:
            raise CorruptionError(f"the debts of this store cannot be read: {error}") from None

    async def run(self) -> None:
        """Work off debts, and answer peers, until cancelled."""
        async with trio.open_nursery() as nursery:
            self.exchanges.nursery = nursery
            self.proofs.require()
            self.standings.wholeness.begin()
            nursery.start_soon(self.schedule.run, name="repair schedule")
            for number in range(WORKERS):
                nursery.start_soon(self._workers.run, name=f"anti-entropy worker {number}")
            try:
                await trio.sleep_forever()
            finally:
                self.exchanges.nursery = None  # before it closes: a message may come in this very moment

    def close(self) -> None:
        """This node ends: sessions that break from now on break because of it and are no news of any peer."""
        self._closed = True
        self.afterthoughts.make(at_once=True)

    # -- reasons

    def mark(self, effect: MarkRange) -> None:
        """Hints were refused or given up: the range owes the target an exchange. In the log before this returns, so
        before whatever is dropped for it."""
        masks = {(target, effect.bucket): 1 << effect.partition for target in self._concerned(effect)}
        self._owe(masks, f"hints for {self._view.name_of(effect.target)} were given up")

    def hint_taken(self, bucket: BucketId, storage_key: bytes, done: Callable[[StorageError | None], None]) -> None:
        """A hint was merged here; `done` once what this node owes for it is on the disk."""
        if self.transfers.hint_taken(bucket, storage_key):
            self._safe(done)
        else:
            done(None)

    def _concerned(self, effect: MarkRange) -> list[NodeId]:
        """The target of hints; where it holds their range no more, the others that do."""

        def holds(node: NodeId) -> bool:
            return bool(self._shared.held(node, effect.bucket) >> effect.partition & 1)

        if holds(effect.target):
            return [effect.target]
        members = self._view.metadata.members if self._view.metadata is not None else ()
        return [node for node in members if node != self._view.self_id and holds(node)]

    def distrust(self) -> None:
        """This store was not shut down cleanly: everything it shares with anybody is to be compared."""
        self._owe(self._shared.with_all(), "this node was not shut down cleanly")

    def lost(self, partitions: Iterable[int]) -> None:
        """The store has lost something of these, which are incomplete now. Before `run`, that begins with them."""
        if self.exchanges.nursery is not None:
            self.proofs.lost(partitions)

    def start_repair(self, bucket: BucketId | None) -> int:
        """Compare everything this node shares with others, or that in one bucket; answers the task's number."""
        return self.runs.start(bucket)

    def on_session_up(self, node: NodeId) -> None:
        """The bulk lane to a peer is up: what it is owed can begin. If it was started anew, it is owed everything."""
        self.queue.up(node)
        self.transfers.on_session_up(node)
        session = self._peers.session(node, Lane.BULK)
        facts = session.facts if session is not None else None
        if isinstance(facts, PeerFacts) and self._boots.get(node) != facts.boot:
            if node in self._boots:
                self._away(node)
            self._boots[node] = facts.boot
            self._write([(boot_key(node), facts.boot.to_bytes(8, "big"))])
        self._workers.wake()

    def on_session_down(self, node: NodeId) -> None:
        """The bulk lane to a peer broke: from now on it may miss something, and we may."""
        self.debts.spoil(node)
        self.standings.lose(node)
        self.transfers.on_session_down(node)
        if not self._closed:
            self._away(node)

    def _away(self, node: NodeId) -> None:
        self._owe(self._shared.with_peer(node), f"{self._view.name_of(node)} was away")

    def _owe(self, masks: Masks, reason: str) -> None:
        if any(masks.values()):
            self.tasks.begin(reason, masks)
            self.schedule.taken_over(masks)
            self._owe_in_turn(masks)

    def _owe_in_turn(self, masks: Masks) -> None:
        """Nothing has happened; the last comparison is long ago."""
        self.debts.add(masks)
        self._workers.wake()

    # -- messages

    def on_message(self, node: NodeId, body: bytes) -> None:
        """An EXCHANGE or EXCHANGE_REPLY frame of a peer. Raises ProtocolError."""
        self.exchanges.on_message(node, body)

    def on_records(self, session: Peer, node: NodeId, request_id: int, body: bytes) -> None:
        """A RECORDS frame of a peer. Raises ProtocolError."""
        self._records.on_frame(session, node, request_id, body)

    def _safe(self, done: Callable[[StorageError | None], None]) -> None:
        """`done` when every debt made so far is on the disk."""
        self._engine.when_safe(self._last_sequence, Durability.ALWAYS, done)

    # -- ends

    def _ended(self, claim: Claim, end: Done | Failed, peer_complete: bool, terms: Terms | None) -> None:
        """An exchange, ours or theirs, is over."""
        self.tasks.moved(claim, end.counts)
        if isinstance(end, Failed):
            if claim.bucket in self._view.buckets:
                self.transfers.failed(claim, end.reason)
                self.tasks.failed(claim, end.reason)
                log.debug("exchange given up", member=self._view.name_of(claim.peer), reason=end.reason)
            return
        self._metrics.exchanges_total += 1
        self._metrics.exchange_keys_differing_total += end.counts.keys
        if self.debts.settle(claim):
            self.ages.proved((claim.peer, claim.bucket), 1 << claim.partition, claim.began_ms)
            self.transfers.made(claim)
            self.standings.wholeness.ended(claim, terms)
            if peer_complete:
                self.proofs.vouched(claim.partition)
            self.tasks.settled(claim)
            self.proofs.prove((claim.partition,))

    # -- what else changes

    def _installed(self, metadata: ClusterMetadata) -> None:
        begun = self._generation not in (0, metadata.generation)
        self._generation = metadata.generation
        self._turn(metadata.range_epochs)
        lost = self.transfers.installed(metadata, again=begun)

        def kept(peer: NodeId, bucket: BucketId) -> int:
            # What this node has and holds no more it offers to who does: comparing those with each other is no help.
            return self._shared.held(peer, bucket) & ~lost.get(bucket, 0)

        self.debts.keep(kept)
        self.tasks.keep(kept)
        if begun:
            # What it did since the value that the cluster was recovered with nobody else may know of.
            self._owe(self._shared.with_all(), "the cluster was recovered")
            self._completeness.release()
        if self.exchanges.nursery is not None:
            self.proofs.prove_all()
        self._workers.wake()

    def _turn(self, epochs: tuple[Epoch, ...]) -> None:
        """Where owners have changed, nothing that began before that counts, and what waits is older."""
        before, self._range_epochs = self._range_epochs, epochs
        if before and before != epochs:
            pairs = enumerate(zip(before, epochs, strict=True))
            changed = sum(1 << partition for partition, (old, new) in pairs if old != new)
            self.debts.spoil_partitions(changed)
            self._replica.queue.turn()

    def _connected(self, peer: NodeId) -> bool:
        return self._peers.session(peer, Lane.BULK) is not None

    def _write(self, entries: Sequence[Entry]) -> None:
        writes = [(self._tree, key, value) for key, value in entries]
        try:
            self._last_sequence = self._engine.write(writes, Durability.ALWAYS, None)
        except StorageError as error:
            # The store has failed for good and the node is ending; what it did not store it does not confirm either.
            log.error("debts cannot be stored", reason=str(error))

    def _note(self, entries: Sequence[Entry]) -> None:
        """As `_write`, for what may be lost with the last moment before a power cut."""
        try:
            self._engine.write([(self._tree, key, value) for key, value in entries], Durability.PERIODIC, None)
        except StorageError as error:
            log.error("the place of a copy cannot be stored", reason=str(error))

    # -- for people

    @property
    def pending(self) -> int:
        """Exchanges still owed for a reason, to peers that can be reached or not; the schedule's turns are none."""
        return self.debts.pending - self.schedule.pending + self.afterthoughts.pending

    @property
    def unsure(self) -> dict[str, list[int]]:
        """The partitions of which this store cannot say what is absent from them, by the reason."""
        found = {FORGOTTEN: list(self._completeness.incomplete), REASON: bits(self.standings.wholeness.unvouched())}
        return {why: partitions for why, partitions in found.items() if partitions}

    @property
    def possible_losses(self) -> int:
        """Partitions that became complete although no owner remembered everything, unless that was acknowledged."""
        return self.losses.partitions

    def report(self) -> list[dict[str, Any]]:
        """A line per repair since the start."""
        lines = self.tasks.report(self.queue.why, self._view.name_of) + self.dry_runs.report(self.queue.why)
        return sorted(lines, key=lambda line: int(line["task"]))

    def check(self) -> None:
        """The invariants of the parts."""
        self.debts.check()
        self.tasks.check()
        self.ages.check()
        for slot, mask in self.debts.all().items():
            assert not mask & ~(self.tasks.covered(slot) | self.schedule.made(slot)), "owed for no reason"
        self.exchanges.check()
        self.transfers.check()
