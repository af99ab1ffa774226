"""From a data directory to a store that knows what it may have forgotten.

The order matters: the engine recovers its log; then it is decided whether this is still the same store; leases are
renewed, synced, before anything is minted; only then is what the store remembers of its cluster believed.

A store is a new incarnation when writes it acknowledged may be gone: it was not shut down cleanly, the machine was
started anew since (so what stood in the page cache is lost), and some bucket is `periodic`. It keeps its records, and
may not say "absent" until its ranges have been exchanged with their other owners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from leafdb.codec import cbor
from leafdb.codec.fields import as_bytes, as_int, as_list
from leafdb.config import Config
from leafdb.errors import ConfigError, CorruptionError, StorageError
from leafdb.hints.ledger import Ledger
from leafdb.node.completeness import KEY as COMPLETENESS_KEY
from leafdb.node.completeness import encode_partitions
from leafdb.node.control_seats import REGISTER
from leafdb.node.endings import Expelled
from leafdb.node.engine_reads import read_page, read_value
from leafdb.node.expulsion import EXPELLED_KEY
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.node.hint_pauses import KEY as PAUSES_KEY
from leafdb.node.hint_pauses import HintPauses
from leafdb.node.horizons import PURGE_TREE
from leafdb.node.joining import JOINING_KEY, Invitation
from leafdb.node.kept_trees import TREES_TREE
from leafdb.node.leases import EPOCH_KEY, STAMP_KEY, Leases
from leafdb.node.logs import Log
from leafdb.node.register import META_TREE, METADATA_KEY, REGISTERS_TREE
from leafdb.ring.metadata import ClusterMetadata, MetadataError, decode
from leafdb.storage.engine import Engine
from leafdb.storage.identity import Identity
from leafdb.types import Durability, NodeId, TreeId
from leafdb.wire.hello import BOOT_NONCE_BYTES, STARTS_TOLD, Refusal

CHECKPOINTS_TREE: Final = TreeId(4)
INTERNAL_TREES: Final = (META_TREE, REGISTERS_TREE, HINTS_TREE, CHECKPOINTS_TREE, TREES_TREE, PURGE_TREE)
BOOT_ID_KEY: Final = b"boot_id"
STARTS_KEY: Final = b"starts"
"""In the META tree: the nonces of the last starts, by their numbers."""

log: Log = Log("boot")


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the store says of itself before anything runs."""

    metadata: ClusterMetadata | None
    acceptor_state: bytes | None
    forgot: bool
    """This start made it a new incarnation: its ranges are incomplete."""
    past: bytes = b""
    """The nonces of the starts before this one, as `PeerFacts.past`."""
    invitation: Invitation | None = None
    """What it was asked to be when it was cut off."""


async def open_leases(engine: Engine, now_ms: Callable[[], int]) -> Leases:
    """The leases of this store, with durable epochs and stamps to mint with. Raises StorageError."""
    epochs = await read_value(engine, META_TREE, EPOCH_KEY)
    stamps = await read_value(engine, META_TREE, STAMP_KEY)
    leases = Leases(engine, META_TREE, now_ms, epochs=epochs, stamps=stamps, clean=engine.recovery.clean)
    granted = trio.Event()
    errors: list[StorageError | None] = []

    def done(error: StorageError | None) -> None:
        errors.append(error)
        granted.set()

    leases.renew(done)
    await granted.wait()
    if errors[0] is not None:
        raise errors[0]
    return leases


async def remember(engine: Engine, boot_id: str, boot_nonce: bytes) -> Remembered:
    """Read what the store remembers; make it a new incarnation where it may have forgotten something.

    Raises StorageError; Expelled when it remembers that its number is banned.
    """
    found = engine.recovery
    log.info("store opened", clean=found.clean, boot=found.boot, replayed=found.replayed_records, torn=found.torn_bytes)
    stored = await read_value(engine, META_TREE, METADATA_KEY)
    metadata: ClusterMetadata | None = None
    if stored is not None:
        try:
            metadata = decode(stored)
        except MetadataError as error:
            raise CorruptionError(f"the cluster metadata of this store cannot be read: {error}") from None
    await _check_not_expelled(engine, metadata)
    state = await read_value(engine, REGISTERS_TREE, REGISTER)
    known_boot_id = await read_value(engine, META_TREE, BOOT_ID_KEY)
    restarted = known_boot_id is not None and known_boot_id != boot_id.encode()
    periodic = metadata is not None and any(
        bucket.durability is Durability.PERIODIC for bucket in metadata.buckets.values()
    )
    forgot = not engine.recovery.clean and restarted and periodic
    if forgot:
        identity = engine.identity
        log.warning("the machine lost its power: periodic buckets may have lost their newest writes here")
        engine.stamp(cluster_id=identity.cluster_id, node_id=identity.node_id, incarnation=identity.incarnation + 1)
    starts = read_starts(await read_value(engine, META_TREE, STARTS_KEY))
    starts[engine.recovery.boot] = boot_nonce
    writes: list[tuple[TreeId, bytes, bytes | None]] = [(META_TREE, STARTS_KEY, encode_starts(starts))]
    if known_boot_id != boot_id.encode():
        writes.append((META_TREE, BOOT_ID_KEY, boot_id.encode()))
        if forgot and metadata is not None:
            # In one write: once the new boot id stands here, the next start has no other way to know.
            writes.append((META_TREE, COMPLETENESS_KEY, encode_partitions(range(metadata.partitions))))
    synced = trio.Event()
    engine.write(writes, Durability.ALWAYS, lambda _: synced.set())
    await synced.wait()
    invitation = None if metadata is not None else await _invitation(engine)
    return Remembered(metadata, state, forgot, past_of(starts, engine.recovery.boot), invitation)


async def _check_not_expelled(engine: Engine, metadata: ClusterMetadata | None) -> None:
    reason = await read_value(engine, META_TREE, EXPELLED_KEY)
    if reason is None and metadata is not None and engine.identity.node_id in metadata.bans:
        reason = f"node {engine.identity.node_id} was removed from cluster {metadata.cluster_name!r} for good".encode()
    if reason is not None:
        raise Expelled(reason.decode(errors="replace"), why=Refusal.BANNED)


async def _invitation(engine: Engine) -> Invitation | None:
    """The invitation this store accepted, if a start may go on with it."""
    kept = await read_value(engine, META_TREE, JOINING_KEY)
    if kept is None:
        return None
    try:
        invitation = Invitation.decode(kept)
    except ValueError as error:
        raise CorruptionError(f"the invitation this store accepted cannot be read: {error}") from None
    return invitation if invitation.is_of(engine.identity) else None


def read_starts(stored: bytes | None) -> dict[int, bytes]:
    """The nonces of starts by their numbers. Raises CorruptionError."""
    if stored is None:
        return {}
    try:
        return {
            as_int(boot, "boot"): as_bytes(nonce, "nonce", low=BOOT_NONCE_BYTES, high=BOOT_NONCE_BYTES)
            for boot, nonce in (
                as_list(pair, "start", items_max=2)
                for pair in as_list(cbor.loads(stored), "starts", items_max=STARTS_TOLD + 1)
            )
        }
    except ValueError as error:
        raise CorruptionError(f"what this store remembers of its starts cannot be read: {error}") from None


def encode_starts(starts: dict[int, bytes]) -> bytes:
    """The newest of them, as they are kept."""
    return cbor.dumps([[boot, starts[boot]] for boot in sorted(starts)[-STARTS_TOLD - 1 :]])


def past_of(starts: dict[int, bytes], boot: int) -> bytes:
    """The nonces of the starts before `boot`, the last first; zeros for one that is not known."""
    oldest = max(1, boot - STARTS_TOLD)
    return b"".join(starts.get(before, bytes(BOOT_NONCE_BYTES)) for before in range(boot - 1, oldest - 1, -1))


def check_names(config: Config, identity: Identity, metadata: ClusterMetadata | None) -> None:
    """That this is the store the configuration means, not one that was mounted in its place. Raises ConfigError."""
    if metadata is None:
        return
    data_dir = config.node.data_dir
    problems = []
    if config.cluster.name not in ("", metadata.cluster_name):
        problems.append(
            f"cluster.name: it is {config.cluster.name!r}, and {data_dir} belongs to {metadata.cluster_name!r}"
        )
    member = metadata.members.get(NodeId(identity.node_id))
    if member is not None and member.name != config.node.name:
        problems.append(f"node.name: it is {config.node.name!r}, and {data_dir} belongs to {member.name!r}")
    if problems:
        raise ConfigError("; ".join(problems), problems=problems)


async def load_hints(engine: Engine, ledger: Ledger) -> HintPauses:
    """Fill the ledger from the hints tree; answers to whom nothing is delivered."""
    start = b""
    while True:
        page = await read_page(engine, HINTS_TREE, start, None, durability=Durability.ALWAYS)
        for key, value in page.items:
            ledger.load(key, value)
        if page.next_key is None:
            break
        start = page.next_key

    def write(value: bytes) -> None:
        engine.write(((CHECKPOINTS_TREE, PAUSES_KEY, value),), Durability.ALWAYS, None)

    try:
        return HintPauses(await read_value(engine, CHECKPOINTS_TREE, PAUSES_KEY), write)
    except ValueError as error:
        raise CorruptionError(f"the pauses of hints cannot be read: {error}") from None
