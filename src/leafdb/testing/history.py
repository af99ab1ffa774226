"""What clients did and were told, and whether the cluster may have told them so (2-semantics sections 2, 3 and 7).

One history is that of one bucket. Every write has an operation id and bytes of its own, so what is found later can be
told apart. A write is `acked`, `refused` (the node said: not applied) or `unknown`, which it also is while it is open.
The rules, each checked as early as it can be seen:

- I1: a dot never names two writes. I5: a write never has two dots, unless its client sent it twice. One of those may
  be covered because the other was (node/op_memory.py), so what is said of a single dot is not judged of such a write.
- I2, I6: a record that knows a write shows it, unless a write that may be there covers it; and shows nothing that a
  write it knows has covered. In the end every acknowledged write is known.
- I8: a quorum read covers every write that enough primaries had acknowledged before it began, and every quorum read
  that had ended before it began. *Enough*: the primaries it asks and those that acknowledged overlap; so each read and
  write comes with the number of primaries it is sure of, and one that is sure of none promises nothing.
- I10: nothing of a refused write is ever seen, and nothing that nobody wrote.
- In an `lww` bucket one value is shown. A write may be gone without a trace of who beat it, but what a coordinator
  wrote over its own older write has a greater stamp, and what quorum reads have shown is beaten by greater stamps only.
- I6 where records may be forgotten: what a write has covered is not shown once a read must know that write, be it that
  every trace of it is gone; and what a read does not know must be gone by right (forgetting.py says what is).
- C: a context's stamp is no less than that of any write it covers, and a write's exceeds that of its context.

All of it costs time in proportion to the operations: a set of writes is kept as one clock wherever it can be.
Its parts are in history_values.py; final records are judged in final_record.py, scans in scan_history.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from leafdb.client.context import Context
from leafdb.client.results import Written
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.model.hlc import stamp_ms
from leafdb.ring.token import OPERATION_CHANCE_BYTES, TOKEN_BYTES
from leafdb.testing.forgetting import Forgetting
from leafdb.testing.history_values import Answer, KeyHistory, Known, Seen, Write, past_of, shown_by
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import Conflict
from leafdb.wire.requests import PutReply

REPLICAS: Final = 3


class History:
    """See the top of this file. `n` is the bucket's; `ttl_ms` its own, for writes that state none."""

    def __init__(self, n: int = REPLICAS, *, conflict: Conflict = Conflict.SIBLINGS, ttl_ms: int = 0) -> None:
        self.n = n
        self.quorum: int = n // 2 + 1
        self.conflict = conflict
        self.ttl_ms = ttl_ms
        self.writes: dict[bytes, Write] = {}
        self.by_value: dict[bytes, Write] = {}
        self.keys: dict[str, KeyHistory] = {}
        self.shown: dict[bytes, Write] = {}
        self.log: list[tuple[str, str, str]] = []
        """(what, key, how it ended): two runs of one seed have the same."""
        self.reads: int = 0
        self.events: int = 0
        self.facts: Counter[str] = Counter()
        """Rare things that were seen, by name."""
        self.stores_lost = 0
        """How many stores may have been lost at once, so far: what no more stores than that acknowledged may be lost
        with them (I7)."""
        self.expiry_slack_ms: int | None = None
        """By how much any two wall clocks may differ at most; None: nobody knows, and expiry is not judged."""
        self.token: Callable[[str], bytes] = lambda key: bytes(TOKEN_BYTES)
        """The first half of the operation ids of a key's writes."""
        self.forgetting: Forgetting = Forgetting(conflict, lambda key: self.of_key(key).writes)
        """What may be missing since it was forgotten by right, and what beats what is shown."""
        self._dots: dict[tuple[str, Dot], bytes] = {}

    # -- writes

    def begin_write(
        self, key: str, *, delete: bool = False, context: bytes | Context | None, ttl_ms: int = 0, size: int = 0
    ) -> Write:
        """A write is about to be sent. Its value has at least `size` bytes."""
        number = len(self.writes) + 1
        value = None if delete else (b"%d" % number).ljust(size, b".")
        clock, stamp = (EMPTY, 0) if context is None else past_of(context)
        op_id = self.token(key) + number.to_bytes(OPERATION_CHANCE_BYTES, "big")
        write = Write(key, op_id, value, clock, stamp, 0 if delete else ttl_ms or self.ttl_ms)
        self.writes[write.op_id] = write
        if value is not None:
            self.by_value[value] = write
        of_key = self.of_key(key)
        of_key.writes.append(write)
        if clock:
            gone = self.forgetting.gone(key)
            self.facts["a write over what was forgotten"] += bool(gone) and gone.covers_writes(clock)
        if not write.lasting:
            of_key.spoiled = True
            of_key.gone = of_key.gone.merge(clock)
        if clock:
            of_key.claimed = of_key.claimed.merge(clock)
            if of_key.bare:
                of_key.bare = {dot: bare for dot, bare in of_key.bare.items() if not clock.covers(dot)}
        self.events += 1
        return write

    def again(self, write: Write) -> None:
        """The same write, with the same operation id, is about to be sent once more."""
        write.attempts += 1
        write.open = True
        if write.outcome == "refused":
            write.outcome = "unknown"

    def acked(self, write: Write, reply: PutReply | Written, now_ms: int | None = None) -> None:
        """The node said that it is written."""
        clock, stamp = past_of(reply.context)
        text = f"the stamp of {write.text} is {stamp}, and its writer had been shown {write.seen}"
        require(stamp > write.seen, Invariant.CAUSAL_STAMPS, text, write.key)
        new = [dot for dot in (*clock.vector.items(), *clock.cloud) if dot[1] and not write.context.covers(dot)]
        if not 1 <= len(new) <= write.attempts or clock != write.context.merge(CausalClock.from_dots(new)):
            violated(
                Invariant.NOTHING_LOST,
                f"the context of {write.text} covers more or less than its `after` and its own dot: "
                f"{clock!r} after {write.context!r}",
                write.key,
            )
        write.outcome, write.open = "acked", False
        write.acks, write.primaries = max(write.acks, reply.acks), max(write.primaries, reply.primaries)
        write.ended_ms = now_ms
        for dot in new:
            self._name(write, dot)
        dot = new[0]
        of_key = self.of_key(write.key)
        of_key.acked.append(write)
        for level in range(1, min(reply.primaries, self.n) + 1):
            of_key.floors[level] = of_key.floors[level].add(dot)
            if write.attempts == 1:
                of_key.stamps[level] = max(of_key.stamps[level], stamp_ms(stamp))
        if write.attempts == 1 and (of_key.latest is None or stamp > of_key.latest[0]):
            of_key.latest = stamp, dot
        of_key.newest[dot[0]] = max(of_key.newest.get(dot[0], 0), dot[1])
        self.events += 1
        if write.lasting and write.attempts == 1:
            if not of_key.claimed.covers(dot):
                of_key.bare[dot] = write
            if reply.primaries >= self.quorum:
                of_key.steady.append((self.events, dot))
        self.facts["a write that a stand-in acknowledged"] += reply.acks > reply.primaries
        self.log.append(("put", write.key, f"acked {reply.acks}"))

    def failed(self, write: Write, outcome: str, why: str) -> None:
        """The node, or nobody, said something else. What was unknown stays so, whatever became of another attempt."""
        write.open = False
        if outcome == "not_applied" and write.attempts == 1:
            write.outcome = "refused"
        self.facts["a write that was refused" if write.outcome == "refused" else "a write of unknown outcome"] += 1
        self.log.append(("put", write.key, why))

    # -- reads

    def begin_read(self, key: str, primaries: int | None = None, now_ms: int | None = None) -> Known:
        """What a read must cover that begins now and is sure to ask `primaries` of them (None: a quorum)."""
        of_key = self.of_key(key)
        sure = self.quorum if primaries is None else min(primaries, self.n)
        if sure < 1:
            return Known(EMPTY, 0, 0, now_ms)
        meets = max(self.n - sure, self.stores_lost) + 1
        if meets > self.n:
            return Known(EMPTY, 0, 0, now_ms)
        return Known(of_key.floors[meets], of_key.stamps[meets], sure, now_ms)

    def read(self, key: str, known: Known | None, answer: Answer, *, held: bool = True, heard: int = 0) -> CausalClock:
        """A read has ended; `known` is what `begin_read` said, or None when it promised nothing. Its clock.

        `held`: what it shows is held by as many primaries as it asked, as that of a get is, and not that of a scan.
        `heard`: every member's store had been told of a horizon of this key's partition that is no less, before it
        began; below that nobody shows what was covered, whomever it asked.
        """
        self.reads += 1
        of_key = self.of_key(key)
        clock, stamp = past_of(answer.context)
        seen = shown_by(answer)
        self._check_stamp(of_key, key, clock, stamp, seen)
        once = len({each.value for each in seen}) == len(seen)
        require(once, Invariant.NO_FALSE_SIBLINGS, "a read shows one write as two siblings", key)
        for each in seen:
            self._check_seen(of_key, key, each, None if known is None else known.now_ms)
            if each.dot is not None:
                text = f"a read's context leaves out {self.by_value[each.value].text}"
                require(clock.covers(each.dot), Invariant.NO_FALSE_SIBLINGS, text, key)
                self.check_back(key, each.dot, clock, "which it knows")
                if known is not None and known.primaries:
                    self.check_back(key, each.dot, known.clock, "which it must know")
                if heard:
                    self._check_below(key, each.dot, heard)
        self._check_bare(of_key, key, clock, seen)
        if self.conflict is Conflict.LWW:
            self._check_lww(of_key, key, known, clock, seen)
        if known is not None and known.primaries:
            self._check_quorum(of_key, key, known, clock, stamp, held=held)
        self.facts["siblings"] += len(seen) > 1
        self.facts["expired"] += not seen and bool(of_key.acked) and of_key.acked[-1].ttl_ms > 0
        self.facts["a read of what had been deleted"] += not seen and bool(clock)
        self.log.append(("get", key, ",".join(sorted(str(each.value) for each in seen))))
        return clock

    def _check_stamp(self, of_key: KeyHistory, key: str, clock: CausalClock, stamp: int, seen: list[Seen]) -> None:
        newest_ms = max((each.stamp_ms for each in seen), default=0)
        text = f"a read shows a value of {newest_ms} ms, and its context has the stamp {stamp}"
        require(stamp_ms(stamp) >= newest_ms, Invariant.CAUSAL_STAMPS, text, key)
        if of_key.latest is not None and clock.covers(of_key.latest[1]):
            text = f"the context of a read has the stamp {stamp} and covers a write of {of_key.latest[0]}"
            require(stamp >= of_key.latest[0], Invariant.CAUSAL_STAMPS, text, key)

    def _check_seen(self, of_key: KeyHistory, key: str, seen: Seen, now_ms: int | None) -> None:
        write = self.by_value.get(seen.value)
        if write is None or write.key != key:
            violated(Invariant.HONEST_OUTCOMES, f"nobody wrote {seen.value[:64]!r} there, and a read showed it", key)
        self.facts["a write of unknown outcome that was seen"] += write.outcome == "unknown" and not write.open
        self.shown[write.op_id] = write
        slack_ms, ended_ms = self.expiry_slack_ms, write.ended_ms
        if write.ttl_ms and now_ms is not None and slack_ms is not None and ended_ms is not None:
            late_ms = now_ms - (ended_ms + write.ttl_ms + slack_ms)
            require(late_ms <= 0, Invariant.DELETIONS_STAY, f"{write.text} was shown {late_ms} ms too late", key)
        if seen.dot is None:
            return
        self._name(write, seen.dot)

    def check_back(self, key: str, dot: Dot, known: CausalClock, why: str) -> None:
        """Raise Violation when this dot is shown to somebody who knows a write that beats it."""
        for other, by in self.forgetting.beaters(key, dot):
            if known.covers(other):
                self._is_back(key, dot, by, why)

    def _check_below(self, key: str, dot: Dot, heard: int) -> None:
        """What beats it was proved to be everywhere, and everybody has heard of that."""
        for other, by in self.forgetting.beaters(key, dot):
            stamp = self.forgetting.stamp_of(key, other)
            if stamp is not None and stamp < heard and by is not None and by.acks > self.stores_lost:
                self._is_back(key, dot, by, "which lies below a horizon that everybody has heard of")

    def _is_back(self, key: str, dot: Dot, by: Write | None, why: str) -> None:
        shown = self.writes[self._dots[key, dot]]
        broken = Invariant.NO_FALSE_SIBLINGS if by is not None and by.value is not None else Invariant.DELETIONS_STAY
        if self.conflict is Conflict.LWW:
            broken = Invariant.NOTHING_LOST
        beaten = "another write" if by is None else by.text
        violated(broken, f"a read shows {shown.text}, and {beaten} had replaced it, {why}", key)

    def _check_bare(self, of_key: KeyHistory, key: str, clock: CausalClock, seen: list[Seen]) -> None:
        if self.conflict is Conflict.LWW or not of_key.bare:
            return
        shown = {each.value for each in seen}
        for dot, write in of_key.bare.items():
            if clock.covers(dot) and write.value not in shown:
                violated(Invariant.NOTHING_LOST, f"a read knows {write.text}, does not show it, nobody covered it", key)

    def _check_lww(
        self, of_key: KeyHistory, key: str, known: Known | None, clock: CausalClock, seen: list[Seen]
    ) -> None:
        require(len(seen) < 2, Invariant.NO_FALSE_SIBLINGS, "a read of an lww bucket shows two values", key)
        for value, dot in ((each.value, each.dot) for each in seen if each.dot is not None):
            later = of_key.newest.get(dot[0], 0)
            if later > dot[1] and clock.covers((dot[0], later)):
                text = self.by_value[value].text
                violated(Invariant.NOTHING_LOST, f"{text} is shown, though its coordinator had written over it", key)
        if known is not None and known.primaries:
            if seen and seen[0].stamp_ms:
                older = seen[0].stamp_ms < known.stamp_ms
                require(not older, Invariant.READS_MONOTONIC, "a quorum read shows an older write than one before", key)
            if not seen and not of_key.spoiled:
                require(not known.clock, Invariant.NOTHING_LOST, "a value that nobody deleted is not there", key)

    def _check_quorum(
        self, of_key: KeyHistory, key: str, known: Known, clock: CausalClock, stamp: int, *, held: bool
    ) -> None:
        lost = self.forgetting.missing(key, known.clock, clock)
        if lost:
            violated(
                Invariant.READS_MONOTONIC,
                f"a read that asked {known.primaries} primaries has forgotten {CausalClock({}, frozenset(lost))!r}, "
                f"which was acknowledged or read before it began: {clock!r}",
                key,
            )
        self.facts["a read of what was forgotten"] += not clock.descends(known.clock)
        for level in range(1, known.primaries + 1) if held else ():
            of_key.floors[level] = of_key.floors[level].merge(clock)
            of_key.stamps[level] = max(of_key.stamps[level], stamp_ms(stamp))

    # -- what came of it

    def of_key(self, key: str) -> KeyHistory:
        """What is known of a key."""
        found = self.keys.get(key)
        if found is None:
            found = KeyHistory(floors=[EMPTY] * (self.n + 1), stamps=[0] * (self.n + 1))
            self.keys[key] = found
        return found

    def check_honest(self) -> None:
        """Nothing that was refused was ever shown."""
        for write in self.shown.values():
            if write.outcome == "refused":
                violated(Invariant.HONEST_OUTCOMES, f"{write.text} was refused, and yet shown", write.key)

    def written_keys(self) -> list[str]:
        """All keys that were written."""
        return sorted(key for key, of_key in self.keys.items() if of_key.writes)

    def count(self, outcome: str) -> int:
        """How many writes ended so."""
        return sum(1 for write in self.writes.values() if write.outcome == outcome)

    def name(self, write: Write, dot: Dot) -> None:
        """The write goes by this dot."""
        self._name(write, dot)

    def _name(self, write: Write, dot: Dot) -> None:
        if dot in write.dots:
            return
        named = self._dots.setdefault((write.key, dot), write.op_id)
        if named != write.op_id:
            other = self.writes[named]
            violated(Invariant.DOTS_UNIQUE, f"the dot {dot} names {other.text} and {write.text}", write.key)
        write.dots.append(dot)
        if len(write.dots) > write.attempts:
            text = f"{write.text} was sent {write.attempts} times and has the dots {write.dots}"
            violated(Invariant.NO_FALSE_SIBLINGS, text, write.key)
