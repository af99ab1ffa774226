"""Repairs that only look: real exchanges of hashes and key lists, ended before a record moves.

A dry run compares each range with every peer as a repair would, and for what differs asks for outlines of records
instead of the records (`record_looker`); `repair_forecast` says what a repair would then do. Nothing is written, no
debt is made or settled by this side. A responder is told that the exchange was given up; where roots are equal, it has
its proof.

They run one after the other, one range at a time, at the pace of background work; what they found is kept, bounded, for
as long as they are among the last KEPT_MAX.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import trio

from leafdb.errors import NotApplied, Overloaded, Reason, StorageError
from leafdb.merkle.effects import Done
from leafdb.node.accords import Accord
from leafdb.node.debts import Claim, bits
from leafdb.node.exchanges import Exchanges
from leafdb.node.record_looker import RecordLooker
from leafdb.node.record_mover import Fetched
from leafdb.node.repair_forecast import Found, RangeForecast
from leafdb.node.repair_tasks import RepairTasks, Slot, Why
from leafdb.node.tree_rebuild import TreeRebuild
from leafdb.node.view import ClusterView
from leafdb.ring.token import split_storage_key
from leafdb.types import BucketId, NodeId, PartitionId

ACTIVE_MAX: Final = 4
KEPT_MAX: Final = 8
RANGES_KEPT_MAX: Final = 256
SAMPLES_KEPT_MAX: Final = 64
FIGURES: Final = ("only_here", "only_there", "different", "keys_differing", "keys_sent", "keys_received", "size")
TRIES: Final = 4
TRY_AGAIN_S: Final = 0.5


class Looking(NamedTuple):
    """In place of a mover of records: tells a forecast what would move."""

    looker: RecordLooker
    forecast: RangeForecast

    async def fetch(self, accord: Accord, keys: Iterable[bytes]) -> Fetched:
        """What the peer has of these differs from what we have. For the exchange they are done with."""
        asked = list(keys)
        ours = await self.looker.own(accord.bucket, asked)
        theirs = await self.looker.theirs(accord.peer, accord.bucket, asked)
        self._agree(accord)
        for key, own, other in zip(asked, ours, theirs, strict=True):
            if other is not None or (own is not None and accord.is_restored):
                self.forecast.theirs(key, own, other)
        return Fetched(0, 0, asked)

    def _agree(self, accord: Accord) -> None:
        assert accord.terms is not None, "nothing moves before both sides have said where they stand"
        self.forecast.agreed(accord.terms, accord.ours.horizon, tells_nothing=accord.restores)

    async def offer(self, accord: Accord, keys: Iterable[bytes]) -> tuple[int, int]:
        """We have these, and the peer has not."""
        asked = list(keys)
        self._agree(accord)
        for key, own in zip(asked, await self.looker.own(accord.bucket, asked), strict=True):
            if own is not None:
                self.forecast.ours(key, own)
        return 0, 0


class DryRun:
    """One of them."""

    def __init__(self, number: int, what: str, masks: dict[Slot, int], started_ms: int) -> None:
        self.number = number
        self.what = what
        self.masks = masks
        self.started_ms = started_ms
        self.state = "waiting"
        self.total: int = sum(mask.bit_count() for mask in masks.values())
        self.done: int = 0
        self.sums: Found = Found()
        self.ranges: list[dict[str, Any]] = []
        self.ranges_differing: int = 0
        self.samples: list[dict[str, Any]] = []
        self.last_error = ""
        self.failed = 0
        self.scope: trio.CancelScope = trio.CancelScope()

    def add(self, partition: int, found: Found, name: str, bucket: str) -> None:
        """A range was compared with one peer."""
        self.done += 1
        for figure in FIGURES:
            setattr(self.sums, figure, getattr(self.sums, figure) + getattr(found, figure))
        if not (found.only_here or found.only_there or found.different):
            return
        self.ranges_differing += 1
        where = {"bucket": bucket, "partition": partition, "peer": name}
        if len(self.ranges) < RANGES_KEPT_MAX:
            self.ranges.append(
                {**where, "only_here": found.only_here, "only_there": found.only_there, "different": found.different}
            )
        for key, here, there in found.samples:
            if len(self.samples) < SAMPLES_KEPT_MAX:
                self.samples.append({**where, "key": split_storage_key(key)[1], "here": here, "there": there})


class DryRuns:
    """Those of one node, numbered among its `tasks`."""

    def __init__(
        self,
        view: ClusterView,
        tasks: RepairTasks,
        trees: TreeRebuild,
        exchanges: Exchanges,
        looker: RecordLooker,
        now_ms: Callable[[], int],
    ) -> None:
        self._view = view
        self._tasks = tasks
        self._trees = trees
        self._exchanges = exchanges
        self._looker = looker
        self._now_ms = now_ms
        self._runs: deque[DryRun] = deque(maxlen=KEPT_MAX)
        self._turn = trio.Lock()

    def begin(self, masks: dict[Slot, int], what: str) -> int:
        """Look at these ranges; answers the task's number. Raises Overloaded, NotApplied."""
        nursery = self._exchanges.nursery
        if nursery is None:
            raise NotApplied("this node is stopping", reason=Reason.DRAINING)
        if sum(run.state in ("waiting", "running") for run in self._runs) >= ACTIVE_MAX:
            raise Overloaded("so many dry runs are under way here already", retry_after=5.0)
        run = DryRun(self._tasks.number(), what, masks, self._now_ms())
        self._runs.append(run)
        nursery.start_soon(self._run, run, name="dry run")
        return run.number

    def cancel(self, number: int) -> bool:
        """End it; False when there is none of that number that runs."""
        for run in self._runs:
            if run.number == number and run.state in ("waiting", "running"):
                run.scope.cancel()
                run.state = "cancelled"
                return True
        return False

    async def _run(self, run: DryRun) -> None:
        with run.scope:
            async with self._turn:
                run.state = "running"
                partitions = sorted(
                    {(bucket, partition) for (_, bucket), mask in run.masks.items() for partition in bits(mask)}
                )
                for bucket, partition in partitions:
                    peers = [
                        peer for (peer, b), mask in sorted(run.masks.items()) if b == bucket and mask >> partition & 1
                    ]
                    await self._look(run, bucket, PartitionId(partition), peers)
                run.state = "failed" if run.failed else "done"

    async def _look(self, run: DryRun, number: BucketId, partition: PartitionId, peers: list[NodeId]) -> None:
        """Compare one range with each of these peers."""
        bucket = self._view.buckets.get(number)
        if bucket is None:
            run.total -= len(peers)
            return
        forecast = RangeForecast(bucket.conflict)
        looking = Looking(self._looker, forecast)
        for peer in peers:
            claim = Claim(peer, number, partition)
            problem = ""
            for attempt in range(TRIES):
                if attempt:
                    await trio.sleep(TRY_AGAIN_S * attempt)
                forecast.begin()
                try:
                    tree = await self._trees.tree(bucket, partition)
                    end = await self._exchanges.look(claim, bucket, tree, looking)
                except StorageError as error:
                    problem = str(error)
                    continue
                if isinstance(end, Done):
                    run.add(partition, forecast.end(), self._view.name_of(peer), bucket.properties.name)
                    run.sums.size += end.counts.compared_bytes
                    break
                problem = end.reason
            else:
                run.failed += 1
                run.last_error = f"{self._view.name_of(peer)}: {problem}"

    # -- for people

    def report(self, why: Why) -> list[dict[str, Any]]:
        """A line per dry run, as tasks have them."""
        return [self._line(run, why) for run in self._runs]

    def _line(self, run: DryRun, why: Why) -> dict[str, Any]:
        elapsed_s = max(0.001, (self._now_ms() - run.started_ms) / 1000)
        left = run.total - run.done - run.failed
        running = run.state == "running"
        reasons = {self._view.name_of(peer): why(peer) for peer, _ in run.masks} if running else {}
        return {
            "task": run.number,
            "kind": "dry run",
            "reason": f"dry run of a repair of {run.what}",
            "asked": True,
            "state": run.state,
            "partitions_total": run.total,
            "partitions_done": run.done,
            "keys_differing": run.sums.keys_differing,
            "keys_sent": run.sums.keys_sent,
            "keys_received": run.sums.keys_received,
            "bytes": run.sums.size,
            "bytes_per_s": 0,
            "eta_s": elapsed_s * left / run.done if run.done and running else None,
            "started_at": run.started_ms,
            "waiting_for": {name: reason for name, reason in reasons.items() if reason},
            "last_error": run.last_error,
        }

    def findings(self, number: int) -> dict[str, Any] | None:
        """What one of them has found so far; None when it is not known any more."""
        for run in self._runs:
            if run.number == number:
                return {
                    "state": run.state,
                    "ranges_compared": run.done,
                    "ranges_failed": run.failed,
                    "ranges_differing": run.ranges_differing,
                    "only_here": run.sums.only_here,
                    "only_there": run.sums.only_there,
                    "different": run.sums.different,
                    "keys_differing": run.sums.keys_differing,
                    "keys_sent": run.sums.keys_sent,
                    "keys_received": run.sums.keys_received,
                    "bytes": run.sums.size,
                    "last_error": run.last_error,
                    "ranges": list(run.ranges),
                    "samples": list(run.samples),
                }
        return None
