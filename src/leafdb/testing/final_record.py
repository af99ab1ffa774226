"""Whether a record, after everything was mended, is one that its history allows.

The record is the same on every replica by then. Of an acknowledged write it knows (its clock covers the dot) and shows
it unless a write that may be there covers it (I2); it shows nothing that a write it knows has covered (I6, I5), nothing
that was refused and nothing that nobody wrote (I10), and knows whatever a quorum had acknowledged or read (I8). What no
more stores acknowledged than were lost at once may be lost (I7). Each write is newer than all its writer saw (C).

Where records may be forgotten, *knows* reads: knows, or is gone by right (forgetting.py). What the record does not know
any more counts all the same against what it shows: nothing is there that a write has covered which everybody once knew.
"""

from __future__ import annotations

from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.record import Record, Sibling, decode
from leafdb.testing.history import History
from leafdb.testing.history_values import KeyHistory, Write
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import Conflict

HIDDEN_MAX = 256
"""From so many siblings on, a record gives up deletions and expired values that nobody is shown."""


def check_final(history: History, key: str, data: bytes | None) -> None:
    """Raise Violation unless `data` may be the record of the key in the end."""
    record = Record(EMPTY, {}) if data is None else decode(data)
    of_key = history.of_key(key)
    present = {dot: _written(history, key, dot, sibling) for dot, sibling in record.siblings.items()}
    _check_known(history, of_key, key, record.clock)
    known = _once_known(history, of_key, record.clock)
    for dot, back in present.items():
        for other, by in history.forgetting.beaters(key, dot):
            if known.covers(other) and not record.clock.covers(other):
                text = f"{back.text} is there, though {by.text if by else 'another'}, now forgotten, had replaced it"
                violated(Invariant.DELETIONS_STAY, text, key)
    if history.conflict is Conflict.LWW:
        _check_winner(history, of_key, key, record, present)
        return
    _check_nothing_lost(history, of_key, key, record.clock, present)
    _check_nothing_back(of_key, key, record.clock, present)


def _written(history: History, key: str, dot: Dot, sibling: Sibling) -> Write:
    """The write that a sibling comes from."""
    write = history.writes.get(sibling.op_id)
    if write is None:
        violated(Invariant.HONEST_OUTCOMES, f"nobody wrote operation {sibling.op_id.hex()}", key)
    if (write.key, write.value) != (key, sibling.value):
        violated(Invariant.HONEST_OUTCOMES, f"{write.text} is there with other bytes or under another key", key)
    require(write.outcome != "refused", Invariant.HONEST_OUTCOMES, f"{write.text} was refused and is there", key)
    expires = bool(sibling.expires_ms) == bool(write.ttl_ms)
    require(expires, Invariant.DELETIONS_STAY, f"{write.text} has lost or got an expiry", key)
    newer = sibling.stamp > write.seen
    require(newer, Invariant.CAUSAL_STAMPS, f"{write.text} is there with a stamp below what its writer saw", key)
    history.name(write, dot)
    return write


def _once_known(history: History, of_key: KeyHistory, clock: CausalClock) -> CausalClock:
    """What the record knows, and what it surely knew before it was forgotten."""
    known = clock
    if history.stores_lost < history.quorum:
        known = known.merge(of_key.floors[history.quorum])
    lasting = [write.dots for write in of_key.acked if write.acks > history.stores_lost]
    return known.merge(CausalClock.from_dots(dot for dots in lasting for dot in dots))


def _check_known(history: History, of_key: KeyHistory, key: str, clock: CausalClock) -> None:
    whole = clock.merge(history.forgetting.gone(key))
    for write in of_key.acked:
        if write.acks > history.stores_lost and not any(whole.covers(dot) for dot in write.dots):
            broken = Invariant.SURVIVES_STORES if history.stores_lost else Invariant.NOTHING_LOST
            violated(broken, f"the acknowledged {write.text} with {write.acks} acks is lost without a trace", key)
    for write in of_key.writes:
        if write.told > history.stores_lost and not any(whole.covers(dot) for dot in write.dots):
            text = f"{write.text}, known to {write.told} when its outcome was asked, is lost without a trace"
            violated(Invariant.HONEST_OUTCOMES, text, key)
    floor = of_key.floors[history.quorum]
    if history.stores_lost < history.quorum:
        text = "what quorum reads had covered is forgotten"
        require(not history.forgetting.missing(key, floor, clock), Invariant.READS_MONOTONIC, text, key)


def _check_nothing_lost(
    history: History, of_key: KeyHistory, key: str, clock: CausalClock, present: dict[Dot, Write]
) -> None:
    """I2. A write's own context never covers its own dot, so one clock of all contexts will do. Nothing is forgotten
    piece by piece: what the record knows is there, or somebody has covered it."""
    claimed, gone = EMPTY, history.forgetting.gone(key)
    for write in of_key.writes:
        if write.outcome != "refused" and write.context:
            claimed = claimed.merge(write.context)
    there = {write.op_id for write in present.values()}
    for write in of_key.acked:
        if write.op_id in there or write.acks <= history.stores_lost:
            continue
        # Of one sent twice, what a writer covered unseen may have been the other dot, which nobody was ever told of.
        hidden = not write.lasting and (write.attempts > 1 or len(of_key.writes) >= HIDDEN_MAX)
        forgotten = any(gone.covers(dot) for dot in write.dots) and not any(clock.covers(dot) for dot in write.dots)
        if not hidden and not forgotten and not any(claimed.covers(dot) for dot in write.dots):
            violated(Invariant.NOTHING_LOST, f"the acknowledged {write.text} is lost; nobody has covered it", key)


def _check_nothing_back(of_key: KeyHistory, key: str, clock: CausalClock, present: dict[Dot, Write]) -> None:
    """I6 and I5. A record knows a write together with its context, acknowledged or not."""
    applied = [write for write in of_key.writes if write.context and any(clock.covers(dot) for dot in write.dots)]
    covered = EMPTY
    for write in applied:
        covered = covered.merge(write.context)
    for dot, back in present.items():
        if covered.covers(dot):
            by = next(write for write in applied if write.context.covers(dot))
            broken = Invariant.DELETIONS_STAY if by.value is None else Invariant.NO_FALSE_SIBLINGS
            violated(broken, f"{back.text} is there, though {by.text} has covered it", key)


def _check_winner(history: History, of_key: KeyHistory, key: str, record: Record, present: dict[Dot, Write]) -> None:
    """An lww record holds the write of the greatest stamp, alone."""
    require(len(present) < 2, Invariant.NO_FALSE_SIBLINGS, "an lww record has two siblings", key)
    if not present:
        gone = history.forgetting.gone(key)
        lasting = [
            write.text
            for write in of_key.acked
            if write.acks > history.stores_lost and not any(gone.covers(dot) for dot in write.dots)
        ]
        require(not lasting, Invariant.NOTHING_LOST, f"nothing is there, but acknowledged were {lasting[:5]}", key)
        return
    ((dot, winner),) = present.items()
    later = of_key.newest.get(dot[0], 0)
    if later > dot[1] and record.clock.covers((dot[0], later)):
        violated(Invariant.NOTHING_LOST, f"{winner.text} won, though its coordinator had written over it", key)
    stamp_ms = record.siblings[dot].stamp >> 16
    if history.stores_lost < history.quorum and stamp_ms < of_key.stamps[history.quorum]:
        violated(Invariant.NOTHING_LOST, f"{winner.text} won over a newer write that a quorum read had shown", key)
