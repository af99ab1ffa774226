"""The verb `outcome`: what became of a write, given nothing but its operation id.

An id begins with the token of its key, so every member can look where the write would be: at the records with that
token in each bucket, at the hints it keeps for others, and into what it remembers of operations that were replaced
since (op_memory.py). All members are asked, not only the owners: after an accident a stand-in's copy may be the only
one, and in a plan there are owners of two sets. Then all are asked who knows the dots that were found: who shows the
write, and who has it covered by something later.

*Applied* is said when somebody has it or remembers it. Otherwise the answer is *unknown*, with the names of those who
could not be asked. That a write was *not* applied is never said: a copy may be with a member that is away, a request on
its way, and a memory too short; nobody could prove the contrary (decision 0008).

With *applied* comes a context that covers the dots. Its stamp is the newest in the records that know one of them, so
that what is written over it is newer than the write was, wherever that had its stamp from.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

import trio

from leafdb.codec.fields import as_list
from leafdb.errors import DeadlineExceeded, NotApplied, Overloaded, Reason, StorageError
from leafdb.hints.hint import decode as decode_hint
from leafdb.hints.hint import prefix as hint_prefix
from leafdb.limits import SIBLINGS_STORED_MAX
from leafdb.model.actor import Actor
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.live import NO_OPERATION
from leafdb.model.record import dots_of, header
from leafdb.model.record_format import OP_ID_BYTES
from leafdb.node.admin import PEER_TIMEOUT_S, Verb, gather
from leafdb.node.engine_reads import read_page
from leafdb.node.hint_keeper import HINTS_TREE
from leafdb.node.view import BucketView
from leafdb.ring.token import TOKEN_BYTES
from leafdb.storage.reads import ReadsOverloaded
from leafdb.types import Conflict, Durability

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]

SEARCH_S_MAX: Final = PEER_TIMEOUT_S - 0.5
PAGE_KEYS_MAX: Final = 256

assert SEARCH_S_MAX > 0


async def outcome(node: Node, args: Args) -> Answer:
    """What became of the write with this operation id."""
    op_id = _op_id(args)
    found, errors = await gather(node, "outcome.find", outcome_find, {"op_id": op_id})
    places = sorted({(int(each["bucket_id"]), bytes(each["key"])) for each in found.values() if each["dots"]})
    bucket = node.view.buckets.get(places[0][0]) if places else None
    if bucket is None:
        return {"outcome": "unknown", "replicas": [], "replaced": False, "errors": errors}
    storage_key = places[0][1]
    here = [each for each in found.values() if each["dots"] and bytes(each["key"]) == storage_key]
    dots = sorted({dot for each in here for dot in _dots(each["dots"])})
    asked = {"bucket_id": int(bucket.id), "key": storage_key, "dots": _plain(dots)}
    seen, later_errors = await gather(node, "outcome.look", outcome_look, asked)
    key = storage_key[TOKEN_BYTES:]
    newest = max((int(each["newest"]) for each in seen.values()), default=0)
    context = node.coordinator.sealer.seal(CausalClock.from_dots(dots), newest, bucket.id, key)
    return {
        "outcome": "applied",
        "bucket": bucket.properties.name,
        "key": key,
        "context": b"" if bucket.conflict is Conflict.LWW else context,
        "replicas": sorted(
            name
            for name in {*found, *seen}
            if (name in found and found[name]["dots"]) or (name in seen and seen[name]["known"])
        ),
        "replaced": any(each["replaced"] for each in here) or any(each["covered"] for each in seen.values()),
        "errors": {**later_errors, **errors},
    }


async def outcome_find(node: Node, args: Args) -> Answer:
    """Peer verb: whether this node has the operation, or remembers it: the key it wrote and the dots it has."""
    op_id = _op_id(args)
    remembered = node.replica.operations.find(op_id)
    if remembered is not None:
        place = (int(remembered.tree), remembered.storage_key)
        return _found(*place, [remembered.dot], replaced=True)
    with trio.move_on_after(SEARCH_S_MAX):
        for bucket in list(node.view.buckets.values()):
            async with aclosing(_records(node, bucket, op_id[:TOKEN_BYTES])) as records:
                async for storage_key, record in records:
                    # A look at the bytes first: most records with this token are other keys of the same partition key.
                    dots = dots_of(record, op_id) if op_id in record else []
                    if dots:
                        return _found(int(bucket.id), storage_key, dots, replaced=False)
        return {"bucket_id": 0, "key": b"", "dots": [], "replaced": False}
    raise DeadlineExceeded("there is too much to look through for one operation", stage="search")


async def outcome_look(node: Node, args: Args) -> Answer:
    """Peer verb: whether this node's record of a key knows one of these dots, and has one covered; and the newest
    stamp in what knows one."""
    bucket = node.view.buckets.get(int(args["bucket_id"]))
    key, dots = bytes(args["key"]), _dots(args["dots"])
    known = covered = False
    newest = 0
    if bucket is not None:
        async with aclosing(_records(node, bucket, key)) as records:
            async for storage_key, record in records:
                if storage_key != key:
                    continue  # a longer one
                head = header(record)
                has = [dot for dot in dots if head.clock.covers(dot)]
                known = known or bool(has)
                covered = covered or any(dot not in head.heads for dot in has)
                if has:
                    newest = max([newest, *[each.stamp for each in head.heads.values()]])
    return {"known": known, "covered": covered, "newest": newest}


async def _records(node: Node, bucket: BucketView, prefix: bytes) -> AsyncGenerator[tuple[bytes, bytes], None]:
    """(storage key, record) of what this node has under a prefix, its own and what it keeps for others.

    Raises NotApplied, Overloaded.
    """
    spans = [(bucket.tree, b"", bucket.durability)]
    for summary in node.hints.ledger.summaries():
        spans.append((HINTS_TREE, hint_prefix(summary.target, bucket.id), Durability.ALWAYS))
    for tree, before, durability in spans:
        start: bytes | None = before + prefix
        stop = _end(before + prefix)
        while start is not None:
            try:
                page = await read_page(node.engine, tree, start, stop, limit=PAGE_KEYS_MAX, durability=durability)
            except ReadsOverloaded as error:
                raise Overloaded(str(error), retry_after=0.2) from None
            except StorageError as error:
                raise NotApplied(str(error), reason=Reason.FAILED) from None
            for key, value in page.items:
                yield key[len(before) :], decode_hint(value).record if before else value
            start = page.next_key


def _end(prefix: bytes) -> bytes | None:
    """The first key above all that begin with a prefix; None: there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else None


def _op_id(args: Args) -> bytes:
    op_id = bytes(args["op_id"])
    if len(op_id) != OP_ID_BYTES or op_id == NO_OPERATION:
        raise ValueError("an operation id has 16 bytes, not all of them zero")
    return op_id


def _found(bucket: int, storage_key: bytes, dots: Iterable[Dot], *, replaced: bool) -> Answer:
    return {"bucket_id": bucket, "key": storage_key, "dots": _plain(dots), "replaced": replaced}


def _plain(dots: Iterable[Dot]) -> list[list[Any]]:
    return [[actor, counter] for actor, counter in dots]


def _dots(plain: Any) -> list[Dot]:
    return [
        (Actor(bytes(actor)), int(counter)) for actor, counter in as_list(plain, "dots", items_max=SIBLINGS_STORED_MAX)
    ]


VERBS: Mapping[str, Verb] = {"outcome": outcome}
PEER_VERBS: Mapping[str, Verb] = {"outcome.find": outcome_find, "outcome.look": outcome_look}
