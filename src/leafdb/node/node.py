"""One node: builds every part, starts and stops them in order, and does nothing else.

    engine  leases  replica | view  register  gossiper | pump  peers  acceptors | coordinator  service | hints  repair

Parts know each other only through what they are given here. Nothing in this file decides anything about data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from importlib.metadata import version as metadata_version
from typing import Final

import trio

from leafdb.config import Config
from leafdb.errors import StorageError
from leafdb.hints.config import HintsConfig
from leafdb.hints.credits import CreditGrantor
from leafdb.hints.ledger import Ledger
from leafdb.hints.schedule import Schedule
from leafdb.limits import PARTITIONS_DEFAULT
from leafdb.model.actor import ActorIdentity
from leafdb.model.context import ContextSealer
from leafdb.node import admin_join
from leafdb.node.admin import Admin
from leafdb.node.admin_tables import PEER_VERBS, VERBS
from leafdb.node.admission import PEERS_KEY, Admission
from leafdb.node.anti_entropy import AntiEntropy
from leafdb.node.belonging import Belonging
from leafdb.node.boot import (
    CHECKPOINTS_TREE,
    INTERNAL_TREES,
    Remembered,
    check_names,
    load_hints,
    open_leases,
    remember,
)
from leafdb.node.catch_up import CatchUp
from leafdb.node.completeness import KEY as COMPLETENESS_KEY
from leafdb.node.completeness import Completeness
from leafdb.node.coordinator import Coordinator
from leafdb.node.dispatch import ClientDispatch, PeerDispatch
from leafdb.node.drain import Drain
from leafdb.node.engine_clock import BatchEndExecutor, drive_engine
from leafdb.node.engine_reads import read_value
from leafdb.node.engine_settings import engine_config, keep_by_time
from leafdb.node.estate import Estate
from leafdb.node.front_door import FrontDoor
from leafdb.node.gossiper import Gossiper
from leafdb.node.hash_trees import HashTrees
from leafdb.node.hint_keeper import HintKeeper
from leafdb.node.hint_pauses import HintPauses
from leafdb.node.hinted_handoff import HintedHandoff
from leafdb.node.holdings import account
from leafdb.node.horizons import Horizons
from leafdb.node.leases import Leases
from leafdb.node.logs import Log
from leafdb.node.lost_tables import follow_losses
from leafdb.node.memory import MemoryLedger
from leafdb.node.metrics import Metrics
from leafdb.node.news import News
from leafdb.node.parting import Parting
from leafdb.node.purge import Purge
from leafdb.node.register import META_TREE, Register
from leafdb.node.replica import Replica
from leafdb.node.replica_service import ReplicaService
from leafdb.node.ring_changes import RingChanges, open_ring_changes
from leafdb.node.scan_driver import ScanDriver
from leafdb.node.scrubber import Scrubber
from leafdb.node.self_report import peer_facts
from leafdb.node.storage_tasks import StorageTasks
from leafdb.node.sweeper import Sweeper
from leafdb.node.tenure import Tenure
from leafdb.node.timers import TimingWheel
from leafdb.node.tls import NodeTls
from leafdb.node.transfers import Transfers
from leafdb.node.view import ClusterView
from leafdb.node.vouching import begins, open_sweeper
from leafdb.node.world import World
from leafdb.ring.metadata import ClusterMetadata
from leafdb.storage.engine import Engine
from leafdb.transport.listener import Acceptor, Places
from leafdb.transport.peers import Peers
from leafdb.transport.pump import Pump
from leafdb.types import FIRST_BUCKET_ID, BucketId, NodeId, TreeId
from leafdb.wire.registry import Lane, MessageType

SEAL_PERSON: Final = b"leafdb contexts 1"

log: Log = Log("node")


class Node:
    """A running node. `run` does everything; the attributes are for admin verbs, health pages and tests."""

    def __init__(self, config: Config, world: World, secret: bytes) -> None:
        self.config = config
        self.world = world
        self.metrics: Metrics = Metrics()
        self.view: ClusterView = ClusterView()
        self.started_at: float = world.now()
        self.version: str = metadata_version("leafdb")
        self.ready: bool = False
        self.tls: NodeTls = NodeTls(config, world)
        self.tenure: Tenure = Tenure(self)
        self.belonging: Belonging = Belonging(self, world.random_bytes(16))
        self.drain: Drain = Drain(self)
        self.parting: Parting = Parting(self)
        self._secret = secret
        self._client_dispatch = ClientDispatch()
        self._peer_dispatch = PeerDispatch()

    @property
    def draining(self) -> bool:
        """It takes no work of clients."""
        return self.drain.active

    # -- life

    async def run(self, *, drain: trio.Event, stop: trio.Event, on_ready: Callable[[], None]) -> None:
        """Start, serve until `drain` or `stop`, stop; or until it is to begin anew (`Tenure.begins_anew`).

        Raises StorageError when the store fails or cannot be opened, Expelled when the cluster does not have this node.
        """
        world = self.world
        self.pump: Pump = Pump(clock=world.now)
        self.metrics.follow_transport(self.pump.counters)
        self.trees: HashTrees = HashTrees(self.metrics, world.now)
        async with trio.open_nursery() as nursery:
            await nursery.start(self.pump.run)
            self.engine: Engine = self._open_engine()
            try:
                nursery.start_soon(drive_engine, self.engine, self._batch_end, world.now, name="engine clock")
                await self._build()
                await self._serve(nursery, drain, stop, on_ready)
            except BaseException:
                # Killed, or a bug: what was written last is for the next start to judge, so no clean mark.
                self.pump.close_all(None)
                self.engine.abandon()
                raise
            self.anti_entropy.close()
            nursery.cancel_scope.cancel()
            self.pump.close_all(None)
            self.engine.close()
        if self.tenure.failure is not None:
            raise self.tenure.failure

    def _open_engine(self) -> Engine:
        self._batch_end = BatchEndExecutor(self.world.log_executor, self.pump)
        return Engine.open(
            self.world.fs,
            config=engine_config(self.config.storage, self.world.random_bytes(16)),
            log_executor=self._batch_end,
            read_executor=self.world.read_executor,
            jobs=self.world.jobs,
            now_s=self.world.now,
            on_failure=self.tenure.store_failed,
            replayed=self.trees.kept.replayed,
            before_flush=self.trees.saver.before_flush,
        )

    async def _build(self) -> None:
        world, view, engine = self.world, self.view, self.engine
        for tree in INTERNAL_TREES:
            engine.create_tree(tree)
        remembered = await remember(engine, world.boot_id, self.belonging.boot_nonce)
        self.belonging.past = remembered.past
        await self.trees.load(engine, remembered.metadata)
        check_names(self.config, engine.identity, remembered.metadata)
        self.horizons: Horizons = Horizons(engine)
        await self.horizons.load()
        view.on_install += [self.horizons.installed, partial(keep_by_time, engine)]
        self.leases: Leases = await open_leases(engine, world.now_ms)
        self.wheel: TimingWheel = TimingWheel(world.now)
        self.replica: Replica = Replica(
            engine, self.leases, self.trees.kept, horizon_at=self.horizons.at, doubted=self.horizons.doubted
        )
        self.sweeper: Sweeper = open_sweeper(self)
        self.completeness: Completeness = Completeness(engine, META_TREE, view, self.horizons.vouches_below)
        self.completeness.load(await read_value(engine, META_TREE, COMPLETENESS_KEY))
        seen = await read_value(engine, META_TREE, PEERS_KEY)
        self.admission: Admission = Admission(engine, view, self.belonging.contests, seen)
        self.peers: Peers = Peers(
            self.tls.peers, self.pump, own=partial(peer_facts, self), secret=self._secret, admit=self.admission.admit,
            nonce=lambda: world.random_bytes(16), rng=world.rng, on_frame=self._peer_dispatch,
            on_session_up=self._session_up, on_session_down=self._session_down, on_refused=self.belonging.doubt,
        )  # fmt: skip
        self.belonging.recognise()
        self.register: Register = Register(
            engine=engine, view=view, wheel=self.wheel, now=world.now, rng=world.rng,
            random_bytes=world.random_bytes, send=self._on_lane(Lane.CONTROL), expelled=self.belonging.unnamed,
            begins=partial(begins, self),
        )  # fmt: skip
        self.news: News = News(view, self.register, self.peers)
        self.catch_up: CatchUp = CatchUp(self.news.fetch)
        self.gossiper: Gossiper = Gossiper(
            view=view, wheel=self.wheel, now=world.now, rng=world.rng, boot=engine.recovery.boot,
            send=self._on_lane(Lane.CONTROL), behind=self.news.behind,
            expelled=lambda: self.belonging.unnamed(view.metadata),
        )  # fmt: skip
        await self._build_repair(remembered)
        self.purge: Purge = Purge(self)
        self._build_request_path()
        self.ring_changes: RingChanges = await open_ring_changes(self)
        view.on_install.append(self._installed)
        self._remember(remembered)
        if remembered.invitation is not None:
            await admin_join.resume(self, remembered.invitation)
        follow_losses(self)
        self.scrubber: Scrubber = Scrubber(engine, self.config.storage.scrub_interval_s, world.now_ms)
        await self.scrubber.load()

    async def _build_repair(self, remembered: Remembered) -> None:
        world, view, engine = self.world, self.view, self.engine
        metadata = remembered.metadata
        ledger = Ledger(
            partitions=metadata.partitions if metadata else PARTITIONS_DEFAULT,
            bytes_max=self.config.repair.hints_bytes_max,
        )
        self.hint_pauses: HintPauses = await load_hints(engine, ledger)
        self.anti_entropy: AntiEntropy = AntiEntropy(
            engine=engine, view=view, replica=self.replica, trees=self.trees.rebuild, completeness=self.completeness,
            horizons=self.horizons, hints_for=ledger.records, paused=self.hint_pauses.paused, metrics=self.metrics,
            now=world.now, now_ms=world.now_ms, peers=self.peers,
            tree=CHECKPOINTS_TREE, behind=self.news.behind, age_max_s=self.config.repair.divergence_age_max_s,
        )  # fmt: skip
        await self.anti_entropy.load()
        self.transfers: Transfers = self.anti_entropy.transfers
        hints_config = HintsConfig(age_s_max=self.config.repair.hint_age_max_s)
        self.handoff: HintedHandoff = HintedHandoff(
            engine=engine, view=view, replica=self.replica, metrics=self.metrics, wheel=self.wheel,
            schedule=Schedule(hints_config, ledger, rng=world.rng, paused=self.hint_pauses.paused),
            grantor=CreditGrantor(hints_config), now=world.now, now_ms=world.now_ms,
            send=self._on_lane(Lane.BULK), mark=self.anti_entropy.mark, taken=self.anti_entropy.hint_taken,
        )  # fmt: skip
        self.hints: HintKeeper = HintKeeper(
            engine=engine, view=view, replica=self.replica, ledger=ledger, metrics=self.metrics,
            now_ms=world.now_ms, mark=self.anti_entropy.mark, kept=self._hint_kept,
        )  # fmt: skip
        self.estate: Estate = Estate(
            engine=engine, view=view, replica=self.replica, repair=self.anti_entropy, keeper=self.hints,
            handoff=self.handoff, metrics=self.metrics, peers=self.peers, forget=self.leases.forget,
            retract=self.horizons.retract, now=world.now, paused=self.hint_pauses.paused,
        )  # fmt: skip

    def _build_request_path(self) -> None:
        view = self.view
        self.memory: MemoryLedger = account(self)
        self.storage_tasks: StorageTasks = StorageTasks(self)
        sealer = ContextSealer(hashlib.blake2b(self._secret, digest_size=32, person=SEAL_PERSON[:16]).digest())
        self.coordinator: Coordinator = Coordinator(
            view=view, replica=self.replica, hints=self.hints, lanes=self.peers.lane(Lane.REQUESTS), sealer=sealer,
            wheel=self.wheel, catch_up=self.catch_up, completeness=self.completeness, memory=self.memory,
            metrics=self.metrics, now=self.world.now, now_ms=self.world.now_ms,
        )  # fmt: skip
        service = ReplicaService(
            view=view, replica=self.replica, hints=self.hints, completeness=self.completeness, catch_up=self.catch_up,
            now=self.world.now,
        )  # fmt: skip
        self.scans: ScanDriver = ScanDriver(self.coordinator, self.engine, self.peers)
        self.admin: Admin = Admin(self, VERBS, PEER_VERBS)
        self.front_door: FrontDoor = FrontDoor(self, self._secret)
        others = {MessageType.SCAN: self.scans.on_scan, MessageType.ADMIN: self.admin.on_request}
        self._client_dispatch.bind(self.coordinator, self.front_door.guard, others)
        self._peer_dispatch.bind(
            self.coordinator,
            service,
            {
                MessageType.PUT_REPLY: self._forwarded(MessageType.PUT_REPLY),
                MessageType.GET_REPLY: self._forwarded(MessageType.GET_REPLY),
                MessageType.PUT_EXPLAINED: self._forwarded(MessageType.PUT_EXPLAINED),
                MessageType.GET_EXPLAINED: self._forwarded(MessageType.GET_EXPLAINED),
                MessageType.ERROR: self._forwarded(MessageType.ERROR),
                MessageType.REPLICA_SCAN: self.scans.on_replica_scan,
                MessageType.MEMBERSHIP: lambda _, node, __, body: self.gossiper.on_message(node, body),
                MessageType.METADATA_FETCH: self.news.on_fetch,
                MessageType.REGISTER: lambda _, node, __, body: self.register.on_request(node, body),
                MessageType.REGISTER_REPLY: lambda _, node, __, body: self.register.on_reply(node, body),
                MessageType.PEER_ADMIN: self.admin.on_peer_request,
                MessageType.HINTS: lambda _, node, __, body: self.handoff.on_message(node, body),
                MessageType.HINTS_REPLY: lambda _, node, __, body: self.handoff.on_message(node, body),
                MessageType.EXCHANGE: lambda _, node, __, body: self.anti_entropy.on_message(node, body),
                MessageType.EXCHANGE_REPLY: lambda _, node, __, body: self.anti_entropy.on_message(node, body),
                MessageType.RECORDS: self.anti_entropy.on_records,
            },
        )

    async def _serve(
        self, nursery: trio.Nursery, drain: trio.Event, stop: trio.Event, on_ready: Callable[[], None]
    ) -> None:
        listen, limits = self.config.listen, self.config.limits
        nursery.start_soon(self.wheel.run, name="timing wheel")
        nursery.start_soon(self.memory.run, name="memory ledger")
        nursery.start_soon(self.leases.run, name="leases")
        nursery.start_soon(self.trees.run, name="hash trees")
        nursery.start_soon(self.anti_entropy.run, name="anti-entropy")
        nursery.start_soon(self.estate.run, name="estate")
        nursery.start_soon(self.sweeper.run, name="sweeper")
        nursery.start_soon(self.scrubber.run, name="scrub")
        nursery.start_soon(self.admin.run, name="admin verbs")
        nursery.start_soon(self.scans.run, name="scans")
        nursery.start_soon(self.ring_changes.run, name="ring changes")
        nursery.start_soon(self.purge.run, name="proofs of horizons")
        nursery.start_soon(self.belonging.recognition.run, name="recognition")
        await nursery.start(self.peers.run)
        # Each acceptor owns its listener from the moment there is one: a start that fails leaves no port taken.
        peer_port = Acceptor(
            await self.tls.peers.listen(*listen.peer),
            self.pump,
            handshake=lambda _: self.peers.accepting(),
            on_frame=self.peers.on_frame,
            on_session=self.peers.adopt,
            on_closed=self.peers.on_closed,
            places=Places(greetings_max=limits.greetings_max),
        )
        await nursery.start(peer_port.run)
        self.clients: Acceptor = Acceptor(
            await self.tls.clients.listen(*listen.client),
            self.pump,
            handshake=self.front_door.handshake,
            on_frame=self._client_dispatch,
            places=Places(sessions_max=limits.client_sessions_max, greetings_max=limits.greetings_max),
        )
        await nursery.start(self.clients.run)
        self.ready = True
        on_ready()
        await self.tenure.run_out(drain, stop)
        self.ready = False

    # -- glue

    def _on_lane(self, lane: Lane) -> Callable[[NodeId, bytes], bool]:
        return lambda node, frame: self.peers.send(node, lane, frame)

    def _forwarded(self, number: MessageType) -> Callable[..., None]:
        return lambda _, __, request_id, body: self.coordinator.on_forwarded_reply(number, request_id, body)

    def _hint_kept(self, target: NodeId) -> None:
        self.handoff.kept(target)
        self.estate.orphans.kept(target)

    def _session_up(self, node: NodeId, lane: Lane) -> None:
        match lane:
            case Lane.REQUESTS:
                self.view.connected(node)
            case Lane.CONTROL:
                self.drain.met(node)
                self.belonging.recognition.met(node)
                self.gossiper.on_session_up(node)
            case Lane.BULK:
                self.handoff.on_session_up(node)
                self.anti_entropy.on_session_up(node)
                self.estate.wake()

    def _session_down(self, node: NodeId, lane: Lane) -> None:
        match lane:
            case Lane.REQUESTS:
                self.view.disconnected(node)
                self.coordinator.on_peer_lost(node)
            case Lane.CONTROL:
                self.gossiper.on_session_down(node)
            case Lane.BULK:
                self.handoff.on_session_down(node)
                self.anti_entropy.on_session_down(node)
                self.estate.lost(node)

    def _remember(self, remembered: Remembered) -> None:
        """Be the member the store says it is."""
        identity = self.engine.identity
        if remembered.metadata is None or not identity.node_id:
            return
        self.register.load(NodeId(identity.node_id), remembered.metadata, remembered.acceptor_state)
        unclean = not self.engine.recovery.clean
        if remembered.forgot:
            self.completeness.doubt(range(remembered.metadata.partitions))
        if unclean or remembered.forgot:
            self.anti_entropy.distrust()

    def founded(self, metadata: ClusterMetadata, node: NodeId, done: Callable[[StorageError | None], None]) -> None:
        """Become member `node` of a cluster that is being founded; `done` once it is synced."""
        self.engine.stamp(cluster_id=metadata.cluster_id, node_id=node, incarnation=self.engine.identity.incarnation)
        self.register.found(node, metadata, done)

    def _installed(self, metadata: ClusterMetadata) -> None:
        """New metadata is in force: trees for its buckets, sessions for its members."""
        node = self.view.self_id
        if self.view.first:
            cluster = metadata.cluster_number
            self.replica.identify(ActorIdentity(cluster, node, self.engine.identity.incarnation))
        wanted = {TreeId(bucket) for bucket in metadata.buckets}
        present = {tree for tree in self.engine.trees() if tree >= FIRST_BUCKET_ID}
        for tree in sorted(wanted - present):
            self.engine.create_tree(tree)
        for tree in sorted(present - wanted):
            log.info("bucket dropped", bucket=int(BucketId(tree)))
            self.engine.drop_tree(tree)
        self.trees.kept.installed(metadata.partitions, wanted, wanted - present)
        self.hints.ledger.partitions = metadata.partitions
        self.parting.installed(metadata)
        self.peers.set_members({member.id: split_address(member.peer_address) for member in metadata.members.values()})
        self.metrics.metadata_installed_total += 1


def split_address(text: str) -> tuple[str, int]:
    """(host, port) of "host:port"; brackets around an IPv6 host are taken off."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)
