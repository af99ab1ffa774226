"""The record: everything known of one key, and THE merge. This module is the door to its neighbours.

A record is a causal clock and the siblings that nothing known has covered. `merge` keeps the siblings present in both
records and those of either side that the other's clock does not cover; the clock of the result is the union. That is
a join: commutative, associative, idempotent; encodings are canonical, so replicas that merged the same records in any
order hold the same bytes. It rests on one premise, which `put.py` defends: no dot ever names two writes.

In an `lww` bucket the clock still joins, but the one sibling with the greatest (stamp, dot) is kept, whatever clocks
cover. Since a write's stamp exceeds every stamp in the record it read, coverage could not decide otherwise; and
"the greater of two" is a join for any two records, where "the greater of what is not covered" is not.

    record_format.py  bytes         put.py   minting, and what a replica does on finding that it forgot
    record.py         merge         live.py  what a reader sees
    admission.py      what is taken in where something may have been forgotten     purge.py  what may be forgotten
"""

from __future__ import annotations

from collections.abc import Callable

from leafdb.model.actor import ActorIdentity
from leafdb.model.actor import describe as describe_actor
from leafdb.model.admission import admitted
from leafdb.model.clock import CausalClock, Dot
from leafdb.model.epochs import EpochLease
from leafdb.model.hlc import stamp_ms
from leafdb.model.live import NO_OPERATION, live, winner
from leafdb.model.put import (
    ConflictLimit,
    Named,
    PutRefused,
    PutResult,
    RecordTooLarge,
    adopt,
    names_unleased,
    put,
    readopt,
)
from leafdb.model.record_format import (
    Head,
    Header,
    Record,
    RecordError,
    Sibling,
    clock_of,
    decode,
    encode,
    first,
    header,
    newest_stamp,
)
from leafdb.types import Conflict


def merge(
    local: bytes,
    incoming: bytes,
    conflict: Conflict,
    *,
    replaced: list[Named] | None = None,
    was_replaced: Callable[[bytes, Header], bool] | None = None,
) -> bytes:
    """The join of two encoded records. Raises RecordError when either is malformed.

    Returns the object `local` when that is the join already, the object `incoming` when that is; else a new encoding.
    What of `local` is not in it is added to `replaced`. A store that remembers operations gives `was_replaced`: what
    comes of an operation of which that is true, given the header of `local`, is covered as it comes (op_memory.py).
    """
    if local is incoming or local == incoming:
        return local
    ours, theirs = header(local), header(incoming)
    clock = ours.clock.merge(theirs.clock)
    if conflict is Conflict.LWW:
        kept = _greatest(ours, theirs)
    else:
        kept = _uncovered(ours, theirs)
        if was_replaced is not None and len(kept) > 1:
            kept = _not_replaced(kept, ours, theirs, was_replaced) or kept
    heads = ours.heads
    if replaced is not None:
        for dot, head in heads.items():
            if dot not in kept:
                replaced.append((head.op_id, dot))
    if clock is ours.clock:
        if len(kept) == len(heads) and all(dot in heads for dot in kept):
            return local
        if clock != theirs.clock:
            return _join(clock, kept, ours, theirs)
    elif clock is not theirs.clock:
        return _join(clock, kept, ours, theirs)
    heads = theirs.heads
    if len(kept) == len(heads) and all(dot in heads for dot in kept):
        return incoming
    return _join(clock, kept, ours, theirs)


def accept(
    local: bytes | None,
    incoming: bytes,
    conflict: Conflict,
    *,
    identity: ActorIdentity,
    epochs: EpochLease,
    replaced: list[Named] | None = None,
    was_replaced: Callable[[bytes, Header], bool] | None = None,
) -> bytes:
    """What a replica stores when `incoming` arrives: the merge, plus the fresh entry that `adopt` may find necessary.

    Every store that `put` may read from (the bucket's own, and a fallback's copies for others) takes arriving records
    through here and not through `merge`: two copies of one key on a node, each incremented alone, would mint a dot
    twice. Returns the object `local` when nothing is to be stored. Raises RecordError, LeaseExhausted. `replaced` and
    `was_replaced` are those of `merge`.
    """
    if local is None:
        header(incoming)
        return adopt(incoming, incoming, None, identity, epochs)
    merged = merge(local, incoming, conflict, replaced=replaced, was_replaced=was_replaced)
    return merged if merged is local else adopt(merged, incoming, local, identity, epochs)


def accept_above(
    local: bytes | None,
    incoming: bytes,
    conflict: Conflict,
    *,
    identity: ActorIdentity,
    epochs: EpochLease,
    horizon: int,
    replaced: list[Named] | None = None,
    was_replaced: Callable[[bytes, Header], bool] | None = None,
) -> bytes | None:
    """As `accept`, of a replica where things may have been forgotten below `horizon`; None: nothing is to be stored.

    Of our own dots also what is left out tells: they were minted, and are not minted again.
    """
    kept = admitted(local, incoming, horizon)
    if kept is incoming:
        return accept(
            local,
            incoming,
            conflict,
            identity=identity,
            epochs=epochs,
            replaced=replaced,
            was_replaced=was_replaced,
        )
    if local is None:
        return None if kept is None else readopt(kept, incoming, None, identity, epochs)
    merged = local
    if kept is not None:
        merged = merge(local, kept, conflict, replaced=replaced, was_replaced=was_replaced)
    return readopt(merged, incoming, local, identity, epochs)


def restored(
    local: bytes | None,
    vouched: bytes | None,
    conflict: Conflict,
    *,
    identity: ActorIdentity,
    epochs: EpochLease,
    horizon: int,
) -> bytes | None:
    """What a replica that cannot vouch for what lies below `horizon` makes of `local`, told what one that can has.

    That is what the other would hold after admitting `local`, whatever it does not know of being dropped here. None:
    nothing is to be kept. Returns the object `local` when that stays as it is.
    """
    if local is None:
        return None if vouched is None else accept(None, vouched, conflict, identity=identity, epochs=epochs)
    kept = admitted(vouched, local, horizon)
    if vouched is None:
        return kept if kept is None or kept is local else readopt(kept, local, kept, identity, epochs)
    merged = vouched if kept is None else merge(kept, vouched, conflict)
    if merged is local:
        return local
    merged = readopt(merged, vouched, local, identity, epochs)
    return readopt(merged, local, merged, identity, epochs)


def dots_of(data: bytes, op_id: bytes) -> list[Dot]:
    """The dots of the record's siblings that bear this operation id, ascending. Raises RecordError."""
    return [dot for dot, head in header(data).heads.items() if head.op_id == op_id]


def describe(data: bytes) -> str:
    """The record for people, one line for the clock and one for each sibling; damage is told, not raised."""
    try:
        record = decode(data)
    except RecordError as error:
        return f"unreadable record of {len(data)} bytes: {error}"
    lines = [f"record of {len(data)} bytes, {len(record.siblings)} siblings, {record.clock!r}"]
    for (actor, counter), sibling in record.siblings.items():
        what = "tombstone" if sibling.value is None else f"{len(sibling.value)} bytes {sibling.value[:32]!r}"
        expiry = f" expires {sibling.expires_ms} ms" if sibling.expires_ms else ""
        when = f"{stamp_ms(sibling.stamp)} ms +{sibling.stamp & 0xFFFF}"
        lines.append(f"  {describe_actor(actor)}:{counter} at {when}{expiry} op {sibling.op_id.hex()} {what}")
    return "\n".join(lines)


def _uncovered(ours: Header, theirs: Header) -> list[Dot]:
    """The dots in both, and those of either that the other's clock does not cover."""
    our_heads, their_heads = ours.heads, theirs.heads
    covered = theirs.clock.covers
    kept = [dot for dot in our_heads if dot in their_heads or not covered(dot)]
    covered = ours.clock.covers
    kept += [dot for dot in their_heads if dot not in our_heads and not covered(dot)]
    return kept


def _not_replaced(
    kept: list[Dot], ours: Header, theirs: Header, was_replaced: Callable[[bytes, Header], bool]
) -> list[Dot]:
    """`kept` without what comes of operations that are remembered as replaced, and without the other dots of those that
    are being replaced right now. What replaced them is in one of the records; the last sibling is never one of them."""
    our_heads, their_heads = ours.heads, theirs.heads
    kept = [dot for dot in kept if dot in our_heads or not was_replaced(their_heads[dot].op_id, ours)]
    gone = {head.op_id for heads in (our_heads, their_heads) for dot, head in heads.items() if dot not in kept}
    gone.discard(NO_OPERATION)
    return [dot for dot in kept if (our_heads.get(dot) or their_heads[dot]).op_id not in gone]


def _greatest(ours: Header, theirs: Header) -> list[Dot]:
    """The dot of the sibling with the greatest (stamp, dot) of all."""
    ranks = [(head.stamp, dot) for dot, head in ours.heads.items()]
    ranks += [(head.stamp, dot) for dot, head in theirs.heads.items()]
    return [max(ranks)[1]] if ranks else []


def _join(clock: CausalClock, kept: list[Dot], ours: Header, theirs: Header) -> bytes:
    heads = ours.heads
    return encode(Record(clock, {dot: (ours if dot in heads else theirs).sibling(dot) for dot in kept}))


__all__ = [
    "ConflictLimit",
    "Head",
    "Header",
    "Named",
    "PutRefused",
    "PutResult",
    "Record",
    "RecordError",
    "RecordTooLarge",
    "Sibling",
    "accept",
    "accept_above",
    "adopt",
    "clock_of",
    "decode",
    "describe",
    "dots_of",
    "encode",
    "first",
    "header",
    "live",
    "merge",
    "names_unleased",
    "newest_stamp",
    "put",
    "restored",
    "winner",
]
