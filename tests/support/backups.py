"""Backups as tests make them: a store is filled, brought to rest, and copied as a snapshot would be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from leafdb.backup.listing import LIST_PATH, BackedFile, BackedNode, Listing
from leafdb.backup.merging import Merger
from leafdb.backup.store_copy import HINTS_TREE, MARK, META_TREE, METADATA_KEY, PURGE_TREE
from leafdb.backup.verifying import open_stores
from leafdb.codec.varint import encode_varint
from leafdb.hints.hint import Hint, Kind, encode, encode_key
from leafdb.model.actor import Actor, ActorIdentity
from leafdb.model.bucket import BucketProperties
from leafdb.model.clock import CausalClock
from leafdb.model.key import encode_key as encode_user_key
from leafdb.model.record import Record, Sibling
from leafdb.model.record import encode as encode_record
from leafdb.ring.horizons import Horizon
from leafdb.ring.member import ProposedMember
from leafdb.ring.metadata import ClusterMetadata, found
from leafdb.ring.token import storage_key
from leafdb.storage.identity import IDENTITY_PATH
from leafdb.storage.manifest import CURRENT_PATH, current_manifest, manifest_name, read_manifest
from leafdb.types import BucketId, Conflict, Epoch, NodeId, TreeId
from leafdb.vfs.base import read_file
from leafdb.vfs.disk import DiskFileSystem
from leafdb.vfs.memory import MemoryFileSystem
from support.store import Store

CLUSTER_ID = bytes(range(16))
PARTITIONS = 8
CARTS = BucketProperties(BucketId(256), "carts", 1)
NEWEST = BucketProperties(BucketId(257), "newest", 1, conflict=Conflict.LWW)
NODES = (NodeId(1), NodeId(2), NodeId(3))


def metadata(horizon: int = 0, nodes: int = 3) -> ClusterMetadata:
    """What every node knows, with one horizon in all partitions."""
    members = [
        ProposedMember(name=f"n{at}", host=f"h{at}", peer_address=f"h{at}:1", client_address=f"h{at}:2",
                       http_address=f"h{at}:3")
        for at in range(1, nodes + 1)
    ]  # fmt: skip
    made = found("test", CLUSTER_ID, members, partitions=PARTITIONS)
    for bucket in (CARTS, NEWEST):
        made = made.create_bucket(bucket)
    if not horizon:
        return made
    fields = {name: getattr(made, name) for name in ClusterMetadata.__dataclass_fields__}
    return ClusterMetadata(**{**fields, "horizons": (Horizon(horizon, Epoch(1)),) * PARTITIONS})


def actor(node: int) -> Actor:
    return ActorIdentity(7, NodeId(node), 1).actor(1)


def record(
    *siblings: tuple[int, int, int, bytes | None], knows: Iterable[tuple[int, int]] = (), expires_ms: int = 0
) -> bytes:
    """Siblings as (node, counter, stamp, value); `knows` are further dots of the clock."""
    dots = {(actor(node), counter): (stamp, value) for node, counter, stamp, value in siblings}
    clock = CausalClock.from_dots([*dots, *((actor(node), counter) for node, counter in knows)])
    made = {
        dot: Sibling(stamp, 0 if value is None else expires_ms, bytes(16), value)
        for dot, (stamp, value) in dots.items()
    }
    return encode_record(Record(clock, made))


def place(key: str, bucket: BucketProperties = CARTS) -> bytes:
    return storage_key(bucket.id, encode_user_key(key))


class NodeStore:
    """The store of a node, being filled."""

    def __init__(self, node: int, known: ClusterMetadata | None = None, mark: int = 0, *, empty: bool = False) -> None:
        self.node = node
        self.store = Store()
        for tree in (META_TREE, HINTS_TREE, PURGE_TREE, TreeId(CARTS.id), TreeId(NEWEST.id)):
            self.store.engine.create_tree(tree)
        self.store.engine.stamp(cluster_id=CLUSTER_ID, node_id=NodeId(node), incarnation=1)
        if not empty:
            self.put(META_TREE, METADATA_KEY, (known or metadata()).encode())
        for partition in range(PARTITIONS if mark else 0):
            self.put(PURGE_TREE, bytes((MARK,)) + partition.to_bytes(2, "big"), encode_varint(mark))

    def put(self, tree: TreeId, key: bytes, value: bytes | None) -> None:
        self.store.put(key, value, tree=tree)

    def has(self, key: str, data: bytes, bucket: BucketProperties = CARTS) -> NodeStore:
        self.put(TreeId(bucket.id), place(key, bucket), data)
        return self

    def hints(self, target: int, key: str, data: bytes, bucket: BucketProperties = CARTS) -> NodeStore:
        place_ = encode_key(NodeId(target), bucket.id, place(key, bucket))
        self.put(HINTS_TREE, place_, encode(Hint(Kind.FALLBACK, 1, data)))
        return self

    def flush(self) -> NodeStore:
        self.store.engine.flush_soon()
        self.store.settle()
        return self

    def at_rest(self) -> dict[str, bytes]:
        """Its files, as a snapshot has them."""
        self.flush()
        self.store.close()
        return files_at_rest(self.store.fs)


def files_at_rest(fs: MemoryFileSystem) -> dict[str, bytes]:
    """What a snapshot of a flushed store has."""
    number = current_manifest(fs)
    assert number is not None
    version = read_manifest(fs, number)
    paths = [IDENTITY_PATH, CURRENT_PATH, manifest_name(number), *version.files()]
    return {path: read_file(fs, path) for path in paths}


Files = Mapping[int, Mapping[str, bytes]]
"""Of each node the bytes of each file."""


def write_backup(root: Path, stores: Files, buckets: Sequence[BucketProperties], hints: Files | None = None) -> Listing:
    """A finished backup below `root`; `hints` are stores without anything, unless given."""
    hints = {node: NodeStore(node, empty=True).at_rest() for node in stores} if hints is None else hints
    for directory, files in _directories(stores, hints).items():
        for path, data in files.items():
            target = root / directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    made = listing_of(stores, buckets, hints)
    (root / LIST_PATH).write_bytes(made.encode())
    return made


def _directories(stores: Files, hints: Files) -> dict[str, Mapping[str, bytes]]:
    named = {f"node-{node}": files for node, files in stores.items()}
    return named | {f"hints-{node}": files for node, files in hints.items()}


def listing_of(stores: Files, buckets: Sequence[BucketProperties], hints: Files | None = None) -> Listing:
    files = [
        BackedFile(f"{directory}/{path}", len(data), hashlib.sha256(data).hexdigest())
        for directory, found_ in _directories(stores, hints or {}).items()
        for path, data in found_.items()
    ]
    return Listing(
        name="first",
        cluster="test",
        cluster_id=CLUSTER_ID.hex(),
        epoch=3,
        partitions=PARTITIONS,
        begun_ms=1_790_000_000_000,
        ended_ms=1_790_000_004_000,
        buckets=tuple(buckets),
        nodes=tuple(BackedNode(node, f"n{node}", 1_790_000_001_000) for node in sorted(stores)),
        files=tuple(sorted(files, key=lambda file: file.path)),
    )


def opened_below(root: Path, listing: Listing) -> Merger:
    """What the stores of a backup say together."""
    stores = open_stores(DiskFileSystem(root), listing)
    return Merger(stores.whole, stores.hints, listing.partitions)
