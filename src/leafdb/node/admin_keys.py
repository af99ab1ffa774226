"""Verbs about single keys: where one lives and who is behind, what is known of its past, why it is still stored.

All three ask every member what it holds of the key, and differ in what they make of the answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from leafdb.errors import NotApplied, Reason, StorageError
from leafdb.hints import hint
from leafdb.limits import KEY_HINTS_MAX
from leafdb.model.actor import node_of
from leafdb.model.key import partition_part
from leafdb.model.record import RecordError
from leafdb.node.admin import Verb, gather
from leafdb.node.admin_cluster import metadata_of
from leafdb.node.admin_data import bucket_view, text
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.node.key_facts import NOTHING, Facts, facts_of
from leafdb.node.key_history import history
from leafdb.node.key_standing import Copy, behind_of, sentences
from leafdb.node.roles import FALLBACK, PENDING, roles_of
from leafdb.node.versions import dot_text
from leafdb.node.view import BucketView
from leafdb.node.why_kept import horizon_of, why_kept
from leafdb.ring.token import token_of
from leafdb.storage.memtable import Slot
from leafdb.types import Durability, NodeId, PartitionId, TreeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Survey:
    """What everybody said of one key."""

    bucket: BucketView
    key: bytes
    token: int
    partition: PartitionId
    roles: dict[NodeId, str]
    answers: Mapping[str, Mapping[str, Any]]
    errors: dict[str, str]
    copies: list[Copy]
    """Of all who hold something or should, own copies first."""

    def head(self, epoch: int) -> Answer:
        """What all verbs answer of the key itself."""
        return {
            "bucket": self.bucket.properties.name,
            "key": self.key,
            "token": f"{self.token:016x}",
            "partition": int(self.partition),
            "epoch": epoch,
            "errors": self.errors,
        }


async def survey(node: Node, args: Args) -> Survey:
    """Ask every member."""
    metadata_of(node)
    bucket = await bucket_view(node, text(args, "bucket"))
    key = bytes(args["key"])
    ring = node.view.ring
    assert ring is not None
    token = token_of(bucket.id, partition_part(key))
    partition = ring.partition_of(token)
    roles = roles_of(ring, partition, bucket.properties.n)
    asked = {"bucket_id": int(bucket.id), "key": token.to_bytes(8, "big") + key, "partition": int(partition)}
    answers, errors = await gather(node, "kv.version", kv_version, asked)
    owners = [node.view.name_of(member) for member in roles]
    return Survey(bucket, key, token, partition, roles, answers, errors, _copies(owners, answers))


def _copies(owners: Sequence[str], answers: Mapping[str, Mapping[str, Any]]) -> list[Copy]:
    own, kept = [], []
    for name in dict.fromkeys((*owners, *answers)):
        found = answers.get(name)
        if found is None:
            continue
        facts = Facts.from_map(found)
        if name in owners or facts.version is not None:
            complete = bool(found["complete"]) or name not in owners
            vouches = bool(found["vouches"]) or name not in owners
            own.append(Copy(name, facts, "", complete, bool(found["synced"]), vouches))
        kept += [Copy(name, Facts.from_map(each), str(each["target"])) for each in found["hints"]]
    return own + kept


async def kv_where(node: Node, args: Args) -> Answer:
    """Where a key lives, which version each replica holds, and who is behind whom."""
    seen = await survey(node, args)
    ring = node.view.ring
    assert ring is not None
    behind = behind_of(seen.copies)
    replicas = []
    for member in dict.fromkeys((*seen.roles, *ring.walk(seen.partition))):
        name = node.view.name_of(member)
        found = seen.answers.get(name)
        if member not in seen.roles and (found is None or (found["version"] is None and not found["hints"])):
            continue
        entry = {"node": name, "role": seen.roles.get(member, FALLBACK), **_entry(node, found)}
        entry["behind"] = behind.get(name, 0) if found is not None else None
        if name in seen.errors:
            entry["error"] = seen.errors[name]
        replicas.append(entry)
    lines = sentences(seen.copies, seen.errors)
    key_hash = node.coordinator.sealer.key_hash(seen.key)
    return {**seen.head(node.view.epoch), "key_hash": key_hash, "replicas": replicas, "summary": lines}


async def kv_history(node: Node, args: Args) -> Answer:
    """What can be known of a key's past."""
    seen = await survey(node, args)
    lines = history(seen.copies, node.view.name_of) if seen.copies else []
    return {**seen.head(node.view.epoch), "history": lines, "summary": sentences(seen.copies, seen.errors)}


async def kv_why_kept(node: Node, args: Args) -> Answer:
    """Why the record of a deleted or expired key is still stored."""
    seen = await survey(node, args)
    kept = why_kept(
        seen.copies,
        seen.errors,
        partition=int(seen.partition),
        horizon=horizon_of(metadata_of(node), seen.partition),
        pending=[node.view.name_of(member) for member, role in seen.roles.items() if role == PENDING],
    )
    return {
        **seen.head(node.view.epoch),
        "kept": kept.kept,
        "verdict": kept.verdict,
        "horizon": kept.horizon,
        "writes": list(kept.writes),
        "held_back_by": list(kept.held_back_by),
    }


def _entry(node: Node, found: Mapping[str, Any] | None) -> Answer:
    """What one member said, for people and programs; of one that keeps only a hint, what that is."""
    if found is None:
        return {"alive": False, **_described(node, NOTHING), "complete": False, "synced": False, "hints": []}
    shown = found if found["version"] is not None or not found["hints"] else found["hints"][0]
    return {
        "alive": True,
        **_described(node, Facts.from_map(shown)),
        "complete": bool(found["complete"]),
        "synced": bool(found["synced"]),
        "hints": [
            {
                "target": each["target"],
                "kind": each["kind"],
                "created_ms": each["created_ms"],
                **_described(node, Facts.from_map(each)),
            }
            for each in found["hints"]
        ],
    }


def _described(node: Node, facts: Facts) -> Answer:
    """A copy for people and programs."""
    return {
        "version": facts.version,
        "siblings": facts.siblings,
        "tombstone": facts.tombstone,
        "bytes": facts.size,
        "writes": [
            {
                "dot": dot_text(each.dot),
                "node": node.view.name_of(node_of(each.dot[0])),
                "stamp": each.stamp,
                "expires_ms": each.expires_ms,
                "op_id": each.op_id.hex(),
                "state": each.state,
                "bytes": each.size,
            }
            for each in facts.writes
        ],
        "more_writes": facts.more_writes,
    }


async def kv_version(node: Node, args: Args) -> Answer:
    """Peer verb: this node's own copy of a key, and what it keeps of it for others."""
    bucket = node.view.buckets.get(int(args["bucket_id"]))
    if bucket is None:
        raise NotApplied("the bucket is not known here", reason=Reason.NO_SUCH_BUCKET)
    key = bytes(args["key"])
    now_ms = node.world.now_ms()
    # Asked before the read: what becomes complete meanwhile may have been read before it was.
    complete = node.completeness.definitive(bucket, PartitionId(int(args["partition"])))
    stored, sequence = await _read(node, bucket.tree, key)
    synced = sequence <= node.engine.safe_sequence(Durability.ALWAYS)
    hints = []
    for target in node.hints.ledger.targets()[:KEY_HINTS_MAX]:
        value, _ = await _read(node, HINTS_TREE, hint.encode_key(target, bucket.id, key))
        if value is not None:
            hints.append(_hint(node, target, bucket, value, now_ms))
    try:
        facts = facts_of(stored, now_ms, bucket.conflict)
    except RecordError as error:
        raise NotApplied(f"the record here cannot be read: {error}", reason=Reason.FAILED) from None
    vouches = node.horizons.vouches(int(args["partition"]))
    return {**facts.to_map(), "complete": complete, "vouches": vouches, "synced": synced, "hints": hints}


def _hint(node: Node, target: NodeId, bucket: BucketView, value: bytes, now_ms: int) -> Answer:
    """A hint of the key, as it is told."""
    kept = hint.decode(value)
    return {
        "target": node.view.name_of(target),
        "kind": kept.kind.name.lower(),
        "created_ms": kept.created_ms,
        **facts_of(kept.record, now_ms, bucket.conflict).to_map(),
    }


async def _read(node: Node, tree: TreeId, key: bytes) -> Slot:
    """A stored value and its sequence number. Raises StorageError."""
    ready = trio.Event()
    found: list[Slot | StorageError] = []

    def done(result: Slot | StorageError) -> None:
        found.append(result)
        ready.set()

    node.engine.get_soon(tree, key, done)
    await ready.wait()
    (result,) = found
    if isinstance(result, StorageError):
        raise result
    return result


VERBS: Mapping[str, Verb] = {"kv.where": kv_where, "kv.history": kv_history, "kv.why_kept": kv_why_kept}
PEER_VERBS: Mapping[str, Verb] = {"kv.version": kv_version}
