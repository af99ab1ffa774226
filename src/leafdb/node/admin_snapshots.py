"""Verbs about snapshots: each member makes one of its own store, beside it; what they are is in `storage.snapshots`.

snapshots.create  {name, bucket?, node?}  -> {snapshots, errors}   those made now; of all buckets and what nodes keep
snapshots.list    {}                      -> {snapshots, held, errors}    held: bytes on disk for snapshots alone
snapshots.drop    {name, node?}           -> {dropped, errors}     dropped: names of members

What one member could not do stands under `errors`, and the others have done it. A member that has not answered in time
may still do it: the list says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from leafdb.codec.fields import as_int
from leafdb.errors import DeadlineExceeded, DiskFull, NotApplied, Reason, StorageError
from leafdb.node.admin import Verb, gather
from leafdb.node.admin_cluster import metadata_of
from leafdb.node.admin_data import bucket_view, text
from leafdb.node.admin_repair import asked_number, is_meant, only_of
from leafdb.node.engine_reads import Awaited
from leafdb.node.logs import Log
from leafdb.storage.snapshot_files import Snapshot, SnapshotRefused
from leafdb.storage.snapshots import DropDone, SnapshotDone
from leafdb.types import TreeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]
T = TypeVar("T")

MADE_TIMEOUT_S: Final = 30.0
"""A snapshot waits for what is in memory to be in tables."""
ASKED_TIMEOUT_S: Final = MADE_TIMEOUT_S + 5.0

log: Log = Log("snapshots")


async def create(node: Node, args: Args) -> Answer:
    """A snapshot of that name of every member's store, or of one's; of one bucket, or of everything."""
    bucket = await bucket_view(node, text(args, "bucket")) if args.get("bucket") else None
    wanted = asked_number(node, args)
    asked = {"name": text(args, "name"), "bucket_id": int(bucket.id) if bucket else 0, "node": wanted}
    answers, errors = await gather(node, "snapshots.make", make, asked, ASKED_TIMEOUT_S)
    made = [{"node": name, **found["snapshot"]} for name, found in answers.items() if found["snapshot"]]
    return {"snapshots": made, "errors": only_of(node, wanted, errors)}


async def make(node: Node, args: Args) -> Answer:
    """Peer verb: one of this node's store, unless another one is meant."""
    if not is_meant(node, args):
        return {"snapshot": None}
    name, bucket = text(args, "name"), as_int(args["bucket_id"], "bucket_id")
    trees = {TreeId(bucket)} & set(node.engine.trees()) if bucket else None
    now_ms = node.world.now_ms()

    def ask(done: SnapshotDone) -> None:
        node.engine.snapshot_soon(name, done, trees, taken_ms=now_ms)

    snapshot = await _outcome(f"snapshot {name}", ask)
    log.info("snapshot made", name=name, files=len(snapshot.files), bytes=snapshot.bytes_named)
    return {"snapshot": line_of(snapshot, now_ms)}


async def list_(node: Node, args: Args) -> Answer:
    """Every snapshot of the cluster, one line per member and name."""
    answers, errors = await gather(node, "snapshots.local", local, {})
    snapshots = [{"node": name, **line} for name, found in answers.items() for line in found["snapshots"]]
    held = {name: found["held"] for name, found in answers.items()}
    return {"snapshots": snapshots, "held": held, "errors": errors}


async def local(node: Node, args: Args) -> Answer:
    """Peer verb: those of this node."""
    metadata_of(node)
    now_ms = node.world.now_ms()
    lines = [line_of(snapshot, now_ms) for snapshot in node.engine.snapshots()]
    return {"snapshots": lines, "held": node.engine.stats().snapshot_bytes_held}


def line_of(snapshot: Snapshot, now_ms: int) -> Answer:
    """One snapshot, as it is listed. `age_s` is None where nobody knows it."""
    return {
        "name": snapshot.name,
        "age_s": max(0.0, (now_ms - snapshot.taken_ms) / 1000) if snapshot.taken_ms else None,
        "sequence": snapshot.sequence,
        "trees": len(snapshot.trees),
        "files": len(snapshot.files),
        "bytes": snapshot.bytes_named,
        "problem": snapshot.problem,
    }


async def drop(node: Node, args: Args) -> Answer:
    """Take the snapshots of that name away, on every member that has one, or on one member."""
    wanted = asked_number(node, args)
    asked = {"name": text(args, "name"), "node": wanted}
    answers, errors = await gather(node, "snapshots.remove", remove, asked, ASKED_TIMEOUT_S)
    dropped = [name for name, found in answers.items() if found["dropped"]]
    left = only_of(node, wanted, errors)
    if not dropped and not left:
        raise NotApplied(f"nobody has a snapshot {asked['name']!r:.80}", reason=Reason.BAD_REQUEST)
    return {"dropped": dropped, "errors": left}


async def remove(node: Node, args: Args) -> Answer:
    """Peer verb: this node's, if it has one and is meant."""
    name = text(args, "name")
    if not is_meant(node, args) or name not in {snapshot.name for snapshot in node.engine.snapshots()}:
        return {"dropped": False}

    def ask(done: DropDone) -> None:
        node.engine.drop_snapshot_soon(name, done)

    await _outcome(f"dropping snapshot {name}", ask)
    log.info("snapshot dropped", name=name)
    return {"dropped": True}


async def _outcome(what: str, ask: Callable[[Callable[[T | StorageError], None]], None]) -> T:
    """What the engine calls back with. Raises NotApplied, DiskFull, or DeadlineExceeded: then it still goes on."""
    told: Awaited[T | StorageError] = Awaited()
    try:
        ask(told.done)
    except SnapshotRefused as error:
        raise NotApplied(error.message, reason=Reason.BAD_REQUEST) from error
    try:
        with trio.fail_after(MADE_TIMEOUT_S):
            result = await told.result()
    except trio.TooSlowError:
        late = f"{what} takes longer than {MADE_TIMEOUT_S:.0f} s: it goes on"
        raise DeadlineExceeded(late, stage="snapshot") from None
    if not isinstance(result, StorageError):
        return result
    if isinstance(result, DiskFull):
        raise result
    log.warning("a snapshot could not be made or dropped", what=what, error=result.message)
    reason = Reason.BAD_REQUEST if isinstance(result, SnapshotRefused) else Reason.FAILED
    why = result.message if isinstance(result, SnapshotRefused) else "its disk failed it; the log of the node says how"
    raise NotApplied(f"{what}: {why}", reason=reason) from result


VERBS: Final[Mapping[str, Verb]] = {"snapshots.create": create, "snapshots.list": list_, "snapshots.drop": drop}
PEER_VERBS: Final[Mapping[str, Verb]] = {"snapshots.make": make, "snapshots.local": local, "snapshots.remove": remove}
