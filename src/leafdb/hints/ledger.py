"""How much is kept for whom, and whether there is room for more.

The ledger mirrors the hints tree in a few numbers per target: records and bytes by kind, and how old the oldest may be.
It is loaded by one scan at start and told of each write and removal, so it needs no memory per hint. A creation time is
kept as a lower bound: removing the oldest hint does not raise it, a whole pass over the target's hints (`begin_pass`,
`end_pass`) does.

What does not fit is refused before it is written. A refused coordinator hint is made good by the MarkRange returned; a
refused fallback copy is also no acknowledgement, so the write it belonged to does not count it.

Invariant: `bytes` never exceeds `bytes_max` by admission, and all sums equal those of a scan (`check`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from leafdb.hints.effects import MarkRange
from leafdb.hints.hint import Hint, Kind, decode, decode_key
from leafdb.limits import HINTS_BYTES_MAX
from leafdb.types import NodeId, PartitionId


@dataclass(frozen=True, slots=True)
class TargetSummary:
    """What is kept for one target; `oldest_ms` is at most the oldest hint's creation time."""

    target: NodeId
    records: int
    fallback_records: int
    bytes: int
    oldest_ms: int


class Account:
    """The sums of one target. Creation times are lower bounds, by kind."""

    __slots__ = ("bytes", "oldest_ms", "passing_ms", "records")

    def __init__(self) -> None:
        self.records: dict[Kind, int] = dict.fromkeys(Kind, 0)
        self.bytes: int = 0
        self.oldest_ms: dict[Kind, int] = {}
        self.passing_ms: dict[Kind, int] | None = None
        """During a pass: the creation times of what the pass saw stay and of what came since it began."""

    def saw(self, hint: Hint) -> None:
        """A hint of this creation time is in the tree."""
        for known in (self.oldest_ms, self.passing_ms):
            if known is not None:
                known[hint.kind] = min(known.get(hint.kind, hint.created_ms), hint.created_ms)


class Ledger:
    """The sums over all targets. `partitions` is the cluster's number of partitions."""

    __slots__ = ("_accounts", "_kept", "bytes", "bytes_max", "partitions")

    def __init__(self, *, partitions: int, bytes_max: int = HINTS_BYTES_MAX) -> None:
        self.partitions: int = partitions
        self.bytes_max: int = bytes_max
        self.bytes: int = 0
        self._accounts: dict[NodeId, Account] = {}
        self._kept: dict[PartitionId, int] = {}
        """How many hints there are by partition. Never 0."""

    def load(self, key: bytes, value: bytes) -> None:
        """A hint found in the tree at start."""
        self._replace(key, None, value)

    def admit(self, key: bytes, old: bytes | None, new: bytes) -> MarkRange | None:
        """`new` is about to replace `old` (None: nothing) under `key`: None if there is room, and then write it.

        Otherwise write nothing, count no acknowledgement, and perform the effect returned.
        """
        growth = len(new) - len(old) if old is not None else len(key) + len(new)
        if growth > 0 and self.bytes + growth > self.bytes_max:
            return self.mark(key)
        self._replace(key, old, new)
        return None

    def has_room(self, size: int) -> bool:
        """Whether hints of so many bytes, keys included, would be admitted."""
        return self.bytes + size <= self.bytes_max

    def removed(self, key: bytes, value: bytes) -> None:
        """The hint `value` under `key` is gone from the tree."""
        self._replace(key, value, None)

    def mark(self, key: bytes) -> MarkRange:
        """The effect that makes good the loss of the hint under `key`."""
        parts = decode_key(key)
        return MarkRange(parts.target, parts.bucket, parts.partition(self.partitions))

    def records(self, target: NodeId) -> int:
        """How many hints are kept for `target`."""
        account = self._accounts.get(target)
        return sum(account.records.values()) if account else 0

    def target_bytes(self, target: NodeId) -> int:
        """How many bytes are kept for `target`."""
        account = self._accounts.get(target)
        return account.bytes if account else 0

    def may_hold_older(self, target: NodeId, cutoff_ms: int) -> bool:
        """Whether a coordinator hint for `target` may be older than `cutoff_ms`."""
        account = self._accounts.get(target)
        return account is not None and account.oldest_ms.get(Kind.COORDINATOR, cutoff_ms) < cutoff_ms

    def kept(self) -> int:
        """The partitions of which anything is kept for anybody: bit p stands for partition p."""
        mask = 0
        for partition in self._kept:
            mask |= 1 << partition
        return mask

    def targets(self) -> list[NodeId]:
        """Those for whom anything is kept."""
        return sorted(self._accounts)

    def summaries(self) -> list[TargetSummary]:
        """For `hints list`, in order of targets."""
        return [
            TargetSummary(
                target=target,
                records=sum(account.records.values()),
                fallback_records=account.records[Kind.FALLBACK] + account.records[Kind.MINTED],
                bytes=account.bytes,
                oldest_ms=min(account.oldest_ms.values()),
            )
            for target, account in sorted(self._accounts.items())
        ]

    def begin_pass(self, target: NodeId) -> None:
        """All hints of `target` are going to be read, from the first."""
        account = self._accounts.get(target)
        if account is not None:
            account.passing_ms = {}

    def passed(self, target: NodeId, hint: Hint) -> None:
        """The pass read `hint`, and it stays."""
        account = self._accounts.get(target)
        if account is not None and account.passing_ms is not None:
            account.saw(hint)

    def end_pass(self, target: NodeId) -> None:
        """The pass has read all hints of `target`: the creation times are exact again, or earlier than the truth."""
        account = self._accounts.get(target)
        if account is not None and account.passing_ms is not None:
            account.oldest_ms = {
                kind: account.passing_ms.get(kind, oldest_ms) for kind, oldest_ms in account.oldest_ms.items()
            }
            account.passing_ms = None

    def _replace(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        parts = decode_key(key)
        target = parts.target
        account = self._accounts.get(target)
        if account is None:
            account = self._accounts[target] = Account()
        if (old is None) != (new is None):
            self._count(parts.partition(self.partitions), -1 if new is None else 1)
        growth = 0
        if old is not None:
            account.records[decode(old).kind] -= 1
            growth -= len(key) + len(old)
        if new is not None:
            hint = decode(new)
            account.records[hint.kind] += 1
            account.saw(hint)
            growth += len(key) + len(new)
        account.bytes += growth
        self.bytes += growth
        assert account.bytes >= 0, "more was removed than was kept"
        for kind, count in account.records.items():
            assert count >= 0, "more was removed than was kept"
            if count == 0:
                account.oldest_ms.pop(kind, None)
        if account.bytes == 0:
            del self._accounts[target]

    def _count(self, partition: PartitionId, change: int) -> None:
        count = self._kept.get(partition, 0) + change
        assert count >= 0, "more was removed than was kept"
        if count:
            self._kept[partition] = count
        else:
            del self._kept[partition]

    def check(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Assert that the ledger says of the tree's `items` what a ledger loaded from them would, times at most."""
        fresh = Ledger(partitions=self.partitions, bytes_max=self.bytes_max)
        for key, value in items:
            fresh.load(key, value)
        assert self.bytes == fresh.bytes
        assert self._kept == fresh._kept
        assert self._accounts.keys() == fresh._accounts.keys()
        for target, account in self._accounts.items():
            truth = fresh._accounts[target]
            assert (account.records, account.bytes) == (truth.records, truth.bytes)
            assert account.oldest_ms.keys() == truth.oldest_ms.keys()
            assert all(account.oldest_ms[kind] <= oldest for kind, oldest in truth.oldest_ms.items())
