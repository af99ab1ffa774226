"""Minting: turning a client's write into a record with a new dot. Only the coordinating replica does it.

    put(local, context, value) = local without the writes that the context covers, plus the value under a new dot;
                                 clock = local's + the context's + the new dot

**No dot twice.** The dot is the next one of our own actor with the highest epoch named anywhere, and only if nothing
says that we may have forgotten some of it: its epoch is not below `epochs.floor`, the local record has its entry,
and joining the context to the local clock teaches nothing about it. In every other case, a missing local
record included, a fresh epoch is taken. On the replica path the same doubt is settled at once by `adopt`: an entry at 0
of a fresh epoch becomes the one that the next put increments.

**Limits act here and never in merge**, where refusing would make replicas diverge for ever. A put that lowers what it
finds too high is always admitted, so reading and resolving always work.

**No operation twice.** A put whose operation id a sibling here bears already is that write, sent again: the record
stays as it is, and the answer is the dot that the write has. (One that was replaced since: node/op_memory.py.) And who
has seen a write that has two dots has seen it under either.

**Stamps follow what was seen.** The new sibling's stamp is the clock's (`hlc.py`), raised, if it must be, above every
stamp in the local record and above `floor`, the greatest that the writer was shown: his context's, and his session's.
So a sibling's stamp exceeds those of whatever it covers: purging rests on that (`purge.py`), and `lww`. This is the one
door: nothing else raises a stamp, in no kind of bucket. Only the write is raised, never the clock. So a stamp that is
far ahead, from a node whose clock was fast, drags nobody, uses up no lease and refuses no put, however far ahead it is:
writes over it count on from it, one by one, until time has caught up.

**lww**: the new sibling replaces all. A context only adds what it knows to the clock: `merge` decides by stamps.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from leafdb.limits import HLC_DRIFT_MS_MAX, RECORD_BYTES_MAX, SIBLINGS_MAX, SIBLINGS_STORED_MAX, VALUE_BYTES_MAX
from leafdb.model.actor import Actor, ActorIdentity, epoch_of
from leafdb.model.clock import COUNTER_MAX, EMPTY, CausalClock, Dot
from leafdb.model.epochs import EpochLease
from leafdb.model.hlc import STAMP_MAX, stamp_ms
from leafdb.model.live import NO_OPERATION, shown
from leafdb.model.record_format import (
    Head,
    Header,
    Record,
    RecordError,
    Sibling,
    clock_of,
    encode,
    first,
    header,
    knows_same,
)
from leafdb.types import Conflict

_NOTHING: Final = Header(EMPTY, {}, b"")


Named = tuple[bytes, Dot]
"""(operation id, dot): a sibling by both of its names."""


class PutRefused(ValueError):
    """The put breaks a limit; nothing was minted that anyone saw."""


class ConflictLimit(PutRefused):
    """It would leave more than SIBLINGS_MAX siblings: read, resolve, write with the context."""


class RecordTooLarge(PutRefused):
    """The value, or the record with it, is over its bound."""


class PutResult(NamedTuple):
    """The merged record to store and send, and the dot it minted; the very object `local`, and the dot that the write
    has, when it is there already."""

    data: bytes
    dot: Dot


def put(
    local: bytes | None,
    context: CausalClock | None,
    *,
    identity: ActorIdentity,
    epochs: EpochLease,
    stamp: int,
    expires_ms: int,
    op_id: bytes,
    value: bytes | None,
    conflict: Conflict,
    floor: int = 0,
    replaced: list[Named] | None = None,
) -> PutResult:
    """Write `value` (None: delete) over `local`; `context` is what the writer had seen (None: blind), `floor` the
    greatest stamp in that, `stamp` the clock's new one. The siblings that it covers are added to `replaced`.

    Raises ConflictLimit, RecordTooLarge, LeaseExhausted; RecordError when `local` is malformed.
    """
    if value is not None and len(value) > VALUE_BYTES_MAX:
        raise RecordTooLarge(f"a value of {len(value)} bytes is over {VALUE_BYTES_MAX}")
    own = stamp
    if floor >= stamp:
        stamp = floor + 1
    if local is None and not context and stamp <= STAMP_MAX:
        actor = identity.actor(epochs.next())
        return PutResult(first(actor, stamp, expires_ms, op_id, value), (actor, 1))

    found = _NOTHING if local is None else header(local)
    heads = found.heads
    for dot, head in heads.items():
        if head.op_id == op_id and op_id != NO_OPERATION:
            return PutResult(found.data, dot)
    known = found.clock if context is None else found.clock.merge(context)
    for head in heads.values():
        if head.stamp >= stamp:
            stamp = head.stamp + 1
    if stamp > STAMP_MAX:
        raise RecordError("the record's stamp leaves no room above it")
    if conflict is Conflict.LWW:
        siblings: dict[Dot, Sibling] = {}
    elif context is None:
        siblings = {dot: found.sibling(dot) for dot in heads}
    else:
        siblings = {dot: found.sibling(dot) for dot in heads if not context.covers(dot)}

    if len(siblings) < len(heads):
        if siblings:
            _drop_twins(heads, siblings)
        if replaced is not None:
            replaced.extend([(head.op_id, dot) for dot, head in heads.items() if dot not in siblings])
    if len(siblings) >= SIBLINGS_MAX:
        _limit_siblings(found, siblings, stamp_ms(own), added=value is not None)
    dot = _mint(found.clock, known, identity, epochs)
    siblings[dot] = Sibling(stamp, expires_ms, op_id, value)
    data = encode(Record(known.add(dot), siblings))
    if len(data) > RECORD_BYTES_MAX and (local is None or len(data) >= len(local)):
        raise RecordTooLarge(f"the record would have {len(data)} bytes, over {RECORD_BYTES_MAX}")
    return PutResult(data, dot)


def adopt(merged: bytes, incoming: bytes, local: bytes | None, identity: ActorIdentity, epochs: EpochLease) -> bytes:
    """`merged` (of local and incoming); where incoming shows that we forgot dots of our own, with a fresh entry added.

    Without it the next put here would increment an entry whose later dots exist elsewhere. The entry is not needed
    when the put would not use the entry in doubt anyway: one with a higher epoch exists, or it is below the floor.
    """
    return merged if merged is local else readopt(merged, incoming, local, identity, epochs)


def readopt(merged: bytes, incoming: bytes, local: bytes | None, identity: ActorIdentity, epochs: EpochLease) -> bytes:
    """As `adopt`, where not all of `incoming` may be in `merged`: it tells of our dots all the same."""
    if knows_same(incoming, identity.prefix, local or b""):
        return merged
    theirs = clock_of(incoming)
    ours = EMPTY if local is None else clock_of(local)
    newest = _newest_own(theirs, identity)
    if newest is None or epoch_of(newest) < epochs.floor or theirs.knows_of(newest) <= ours.knows_of(newest):
        return merged
    remembered = _newest_own(ours, identity)
    if remembered is not None and remembered > newest:
        return merged
    found = header(merged)
    clock = found.clock.add_entry(_fresh(newest, identity, epochs))
    return encode(Record(clock, {dot: found.sibling(dot) for dot in found.heads}))


def names_unleased(data: bytes, identity: ActorIdentity, epochs: EpochLease) -> bool:
    """Whether a record names an epoch of ours that was never leased: it is of somebody who was given our identity, by
    chance or on purpose, and must not be taken. Raises RecordError."""
    newest = _newest_own(clock_of(data), identity)
    return newest is not None and epoch_of(newest) >= epochs.next_epoch


def _drop_twins(heads: dict[Dot, Head], siblings: dict[Dot, Sibling]) -> None:
    """Of a write that the context covers under one dot, drop the other dots too."""
    seen = {head.op_id for dot, head in heads.items() if dot not in siblings} - {NO_OPERATION}
    for dot in [dot for dot, sibling in siblings.items() if sibling.op_id in seen]:
        del siblings[dot]


def _mint(clock: CausalClock, known: CausalClock, identity: ActorIdentity, epochs: EpochLease) -> Dot:
    """The new dot, given the local clock and that joined with the writer's context."""
    newest = _newest_own(known, identity)
    if newest is not None and epoch_of(newest) >= epochs.floor:
        counter = clock.vector.get(newest, -1)
        if 0 <= counter < COUNTER_MAX and known.knows_of(newest) == counter:
            return newest, counter + 1
    return _fresh(newest, identity, epochs), 1


def _fresh(newest: Actor | None, identity: ActorIdentity, epochs: EpochLease) -> Actor:
    actor = identity.actor(epochs.next())
    assert newest is None or newest < actor, "a record names an epoch of ours that was never leased: identity reused"
    return actor


def _newest_own(clock: CausalClock, identity: ActorIdentity) -> Actor | None:
    """Our actor of the highest epoch that the clock names anywhere."""
    prefix = identity.prefix
    newest: Actor | None = None
    for actor in clock.vector:
        if actor.startswith(prefix) and (newest is None or actor > newest):
            newest = actor
    for actor, _ in clock.cloud:
        if actor.startswith(prefix) and (newest is None or actor > newest):
            newest = actor
    return newest


def _limit_siblings(found: Header, siblings: dict[Dot, Sibling], now_ms: int, *, added: int) -> None:
    """Raises ConflictLimit; drops hidden siblings where a record has collected very many of them.

    `now_ms` is our clock's, and not from the stamp of the write: that may be raised to far in the future, where values
    have expired that have not.
    """
    kept = len(shown(siblings.items(), now_ms))
    if kept + added > SIBLINGS_MAX:
        before = shown(((dot, found.sibling(dot)) for dot in found.heads), now_ms)
        if kept + added >= len(before):
            raise ConflictLimit(f"the key has {len(before)} siblings, the limit is {SIBLINGS_MAX}")
    if len(siblings) >= SIBLINGS_STORED_MAX:
        # Blind deletes and blind writes with an expiry add siblings that nobody is shown and hence nobody resolves.
        # No reader can tell a hidden sibling from a covered one, so here, and only here, a write covers what its
        # writer has not seen. The drift bound is left for peers whose clocks are behind ours.
        expired_ms = now_ms - HLC_DRIFT_MS_MAX
        for dot, sibling in list(siblings.items()):
            if sibling.value is None or 0 < sibling.expires_ms <= expired_ms:
                del siblings[dot]
