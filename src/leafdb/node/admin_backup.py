"""Verbs about backups. A backup is made by its client: it asks every node for its files itself, so that no node stands
between another's disk and the backup, and bulk never travels on the lanes of liveness.

backup.state     {}                                   of the whole cluster
                 -> {cluster, cluster_id, cluster_number, epoch, partitions, ring, buckets, members, changing, busy,
                    errors}
backup.snapshot  {name, hints}                        of the node asked: all of it, or only what it keeps for others
                 -> {sequence}
backup.files     {name, after}                        -> {files: [[path, size]], more}
backup.read      {name, path, offset, size}           -> {data}
backup.drop      {name}                               -> {}
backup.restore   {bucket, generation, keys, records}  to all holders; who has not taken them, and why
                 -> {restored, errors}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from leafdb.codec.fields import as_bool, as_bytes, as_int, as_list
from leafdb.errors import NotApplied, Reason, StorageError
from leafdb.limits import (
    BACKUP_CHUNK_BYTES_MAX,
    BACKUP_PAGE_FILES_MAX,
    FRAME_BYTES_MAX,
    RESTORE_BYTES_MAX,
    RESTORE_KEYS_MAX,
)
from leafdb.node.admin import Verb, gather
from leafdb.node.admin_cluster import metadata_of
from leafdb.node.admin_data import bucket_view, text
from leafdb.node.engine_reads import Awaited
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.node.restoring import Restored, Restoring
from leafdb.storage.identity import IDENTITY_PATH
from leafdb.storage.manifest import CURRENT_PATH, current_manifest, manifest_name
from leafdb.storage.snapshot_files import Snapshot, SnapshotRefused, read_snapshot, snapshot_path
from leafdb.storage.store_files import is_store_file
from leafdb.vfs.base import FileSystem
from leafdb.vfs.below import Below
from leafdb.wire.control import ENCODED_KEY_BYTES_MAX

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]
T = TypeVar("T")

FILE_BYTES_MAX: Final = 1 << 48


async def state(node: Node, args: Args) -> Answer:
    """What a backup is of, and what speaks against beginning one now."""
    metadata = metadata_of(node)
    answers, errors = await gather(node, "backup.local", local, {})
    return {
        "cluster": metadata.cluster_name,
        "cluster_id": metadata.cluster_id,
        "cluster_number": metadata.cluster_number,
        "epoch": int(metadata.epoch),
        "partitions": metadata.partitions,
        "ring": max(map(int, metadata.range_epochs)),
        "buckets": [bucket.to_wire() for bucket in metadata.buckets.values()],
        "members": [
            {"id": int(member.id), "name": member.name, "client": member.client_address}
            for member in metadata.members.values()
        ],
        "changing": metadata.plan is not None,
        "busy": {name: known["busy"] for name, known in answers.items() if known["busy"]},
        "errors": errors,
    }


async def local(node: Node, args: Args) -> Answer:
    """Peer verb: why records may leave this node just now for another reason than that their target is back; empty when
    they do not."""
    if node.draining:
        return {"busy": "it is draining"}
    if not node.estate.quiet or not node.estate.leftovers.looked:
        return {"busy": "it gives away what the last change of the ring left with it, or still looks for it"}
    return {"busy": ""}


async def snapshot(node: Node, args: Args) -> Answer:
    """Make a snapshot of this node's store; answers when it is durable."""
    metadata_of(node)
    name, hints = text(args, "name"), as_bool(args["hints"], "hints")
    waiting: Awaited[Snapshot | StorageError] = Awaited()
    trees = (HINTS_TREE,) if hints else None
    try:
        node.engine.snapshot_soon(name, waiting.done, trees, taken_ms=node.world.now_ms())
    except StorageError as error:
        raise _refusal(error) from None
    made = await waiting.result()
    if isinstance(made, StorageError):
        raise _refusal(made)
    return {"sequence": made.sequence}


async def drop(node: Node, args: Args) -> Answer:
    """Drop it; no error when it is not there."""
    name = text(args, "name")
    if any(each.name == name for each in node.engine.snapshots()):
        waiting: Awaited[StorageError | None] = Awaited()
        try:
            node.engine.drop_snapshot_soon(name, waiting.done)
        except StorageError as error:
            raise _refusal(error) from None
        if (failure := await waiting.result()) is not None:
            raise _refusal(failure)
    return {}


async def files(node: Node, args: Args) -> Answer:
    """The files of a snapshot with their sizes, in order of paths: those behind `after`, as many as one answer has."""
    name, after = _snapshot_name(node, args), text(args, "after")
    listed = await _read(node, partial(_files, Below(node.world.fs, snapshot_path(name))))
    behind = [[path, size] for path, size in sorted(listed.items()) if path > after]
    return {"files": behind[:BACKUP_PAGE_FILES_MAX], "more": len(behind) > BACKUP_PAGE_FILES_MAX}


async def read(node: Node, args: Args) -> Answer:
    """A piece of a file of a snapshot; shorter than asked only at its end."""
    name, path = _snapshot_name(node, args), text(args, "path")
    offset = as_int(args["offset"], "offset", high=FILE_BYTES_MAX)
    size = as_int(args["size"], "size", low=1, high=BACKUP_CHUNK_BYTES_MAX)
    if not is_store_file(path):
        raise ValueError(f"{path!r:.80} is no file of a store")
    return {"data": await _read(node, partial(_piece, Below(node.world.fs, snapshot_path(name)), path, offset, size))}


async def restore(node: Node, args: Args) -> Answer:
    """Give records of a backup to all who hold them."""
    bucket = await bucket_view(node, text(args, "bucket"))
    if bucket.properties.generation != as_int(args["generation"], "generation"):
        raise NotApplied("the bucket was dropped and made again since", reason=Reason.NO_SUCH_BUCKET)
    keys = as_list(args["keys"], "keys", items_max=RESTORE_KEYS_MAX)
    records = as_list(args["records"], "records", items_max=RESTORE_KEYS_MAX)
    items = [
        Restored(
            as_bytes(key, "key", low=1, high=ENCODED_KEY_BYTES_MAX),
            as_bytes(record, "record", low=1, high=FRAME_BYTES_MAX),
        )
        for key, record in zip(keys, records, strict=True)
    ]
    if len(items) > 1 and sum(len(item.key) + len(item.record) for item in items) > RESTORE_BYTES_MAX:
        raise NotApplied(f"more than {RESTORE_BYTES_MAX} bytes at once", reason=Reason.TOO_LARGE)
    repair = node.anti_entropy
    problems = await Restoring(node.view, repair.record_server, repair.mover).restore(bucket, items)
    errors = {node.view.name_of(holder): problem for holder, problem in problems.items()}
    return {"restored": 0 if errors else len(items), "errors": errors}


def _snapshot_name(node: Node, args: Args) -> str:
    name = text(args, "name")
    if not any(each.name == name for each in node.engine.snapshots()):
        raise NotApplied(f"there is no snapshot {name!r:.80} here", reason=Reason.BAD_REQUEST)
    return name


def _files(fs: FileSystem) -> dict[str, int]:
    """Every file of the snapshot that `fs` is."""
    _, version = read_snapshot(fs)
    number = current_manifest(fs)
    assert number is not None, "read_snapshot has read it"
    found = dict(version.files())
    for path in (IDENTITY_PATH, CURRENT_PATH, manifest_name(number)):
        found[path] = _size(fs, path)
    return found


def _size(fs: FileSystem, path: str) -> int:
    file = fs.open_read(path)
    try:
        return file.size()
    finally:
        file.close()


def _piece(fs: FileSystem, path: str, offset: int, size: int) -> bytes:
    file = fs.open_read(path)
    try:
        return file.read_at(offset, size)
    finally:
        file.close()


async def _read(node: Node, work: Callable[[], T]) -> T:
    """Do what waits for the disk beside the loop. Raises NotApplied."""
    waiting: Awaited[T | BaseException] = Awaited()
    node.world.read_executor.submit(work, waiting.done)
    found = await waiting.result()
    if isinstance(found, BaseException):
        raise _refusal(found)
    return found


def _refusal(error: BaseException) -> BaseException:
    """What the client is told of what the store or the disk said; anything else is a bug, and stays one."""
    match error:
        case SnapshotRefused():
            return NotApplied(error.message, reason=Reason.BAD_REQUEST)
        case StorageError() | OSError():
            return NotApplied(f"this node could not: {error}", reason=Reason.FAILED)
        case _:
            return error


VERBS: Final[Mapping[str, Verb]] = {
    "backup.state": state,
    "backup.snapshot": snapshot,
    "backup.files": files,
    "backup.read": read,
    "backup.drop": drop,
    "backup.restore": restore,
}
PEER_VERBS: Final[Mapping[str, Verb]] = {"backup.local": local}
