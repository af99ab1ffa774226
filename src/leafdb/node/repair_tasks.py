"""Repairs as people see them: why each was begun, how far it is, what it moved, what it waits for, what went wrong.

A task is a view of the debts it was begun for, never the debts themselves: it goes when it is done or the node stops,
they do not. One reason has one running task: more debts for the same reason make it longer.

Only what somebody asked for can be cancelled: then the debts go that no other task has. What is owed because something
happened stays owed until it is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from leafdb.merkle.effects import Counts
from leafdb.node.debts import Claim, Masks
from leafdb.types import BucketId, NodeId

FINISHED_KEPT_MAX: Final = 32

Slot = tuple[NodeId, BucketId]
Why = Callable[[NodeId], str]
"""What keeps exchanges with a peer from being begun now; empty when nothing does."""


class RepairTask:
    """One of them. `remaining`: what has not been exchanged since the task was begun."""

    __slots__ = (
        "asked", "bytes", "cancelled", "done", "dropped", "ended_ms", "keys_differing", "keys_received", "keys_sent",
        "last_error", "number", "reason", "remaining", "started_ms",
    )  # fmt: skip

    def __init__(self, number: int, reason: str, started_ms: int, *, asked: bool) -> None:
        self.number: int = number
        self.reason: str = reason
        self.asked: bool = asked
        self.started_ms: int = started_ms
        self.ended_ms: int = 0
        self.cancelled: bool = False
        self.dropped: int = 0
        """Ranges that were left when it was cancelled."""
        self.remaining: dict[Slot, int] = {}
        self.done: int = 0
        self.keys_differing: int = 0
        self.keys_sent: int = 0
        self.keys_received: int = 0
        self.bytes: int = 0
        self.last_error: str = ""

    @property
    def left(self) -> int:
        """How many ranges remain."""
        return sum(mask.bit_count() for mask in self.remaining.values())

    def includes(self, claim: Claim) -> bool:
        """Whether the range is among those that remain."""
        return bool(self.remaining.get((claim.peer, claim.bucket), 0) >> claim.partition & 1)

    def cut(self, slot: Slot, kept: int) -> None:
        """Of this peer and bucket only `kept` remains; the rest is done."""
        before = self.remaining.get(slot, 0)
        self.done += (before & ~kept).bit_count()
        if before & kept:
            self.remaining[slot] = before & kept
        else:
            self.remaining.pop(slot, None)

    def line(self, why: Why, name_of: Callable[[NodeId], str], now_ms: int) -> dict[str, Any]:
        """For `repair status`."""
        reasons = {peer: why(peer) for peer in sorted({peer for peer, _ in self.remaining})}
        waiting = {name_of(peer): reason for peer, reason in reasons.items() if reason}
        state = "cancelled" if self.cancelled else "done"
        if self.remaining:
            state = "running" if len(waiting) < len(reasons) else "waiting"
        elapsed_s = max(0.001, ((self.ended_ms or now_ms) - self.started_ms) / 1000)
        return {
            "task": self.number,
            "kind": "repair",
            "reason": self.reason,
            "asked": self.asked,
            "state": state,
            "partitions_total": self.done + self.left + self.dropped,
            "partitions_done": self.done,
            "keys_differing": self.keys_differing,
            "keys_sent": self.keys_sent,
            "keys_received": self.keys_received,
            "bytes": self.bytes,
            "bytes_per_s": int(self.bytes / elapsed_s),
            "eta_s": elapsed_s * self.left / self.done if self.done and state == "running" else None,
            "started_at": self.started_ms,
            "waiting_for": waiting,
            "last_error": self.last_error,
        }


class RepairTasks:
    """All tasks of one node since its start."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._active: dict[str, RepairTask] = {}
        self._finished: deque[RepairTask] = deque(maxlen=FINISHED_KEPT_MAX)
        self._last_number = 0

    def number(self) -> int:
        """The next one, for a task that is kept elsewhere."""
        self._last_number += 1
        return self._last_number

    def begin(self, reason: str, masks: Masks, *, asked: bool = False) -> int:
        """These ranges are owed for this reason; answers the task's number. `asked`: somebody asked for it."""
        task = self._active.get(reason)
        if task is None:
            task = self._active[reason] = RepairTask(self.number(), reason, self._now_ms(), asked=asked)
        for slot, mask in masks.items():
            if mask:
                task.remaining[slot] = task.remaining.get(slot, 0) | mask
        self._retire()
        return task.number

    def cancel(self, number: int) -> dict[Slot, int] | None:
        """End a task that somebody asked for; answers the ranges that nobody else has a reason for. None: there is no
        such task. ValueError when it is not one to be cancelled."""
        task = next((task for task in self._active.values() if task.number == number), None)
        if task is None:
            return None
        if not task.asked:
            raise ValueError(f"that is owed whoever asks: {task.reason}")
        task.cancelled, task.dropped = True, task.left
        wanted, task.remaining = task.remaining, {}
        self._retire()
        for other in self._active.values():
            for slot, mask in other.remaining.items():
                if slot in wanted:
                    wanted[slot] &= ~mask
        return {slot: mask for slot, mask in wanted.items() if mask}

    def moved(self, claim: Claim, counts: Counts) -> None:
        """What an exchange of this range found and moved, whether it came to its end or not."""
        for task in self._active.values():
            if task.includes(claim):
                task.keys_differing += counts.keys
                task.keys_sent += counts.sent
                task.keys_received += counts.received
                task.bytes += counts.bytes + counts.compared_bytes

    def settled(self, claim: Claim) -> None:
        """This range was exchanged to its end."""
        slot = (claim.peer, claim.bucket)
        for task in self._active.values():
            if task.includes(claim):
                task.cut(slot, task.remaining[slot] ^ 1 << claim.partition)
        self._retire()

    def failed(self, claim: Claim, reason: str) -> None:
        """An exchange of this range was given up; it will be tried again."""
        for task in self._active.values():
            if task.includes(claim):
                task.last_error = reason

    def keep(self, allowed: Callable[[NodeId, BucketId], int]) -> None:
        """Nothing outside `allowed` needs to be done any more."""
        for task in self._active.values():
            for slot in list(task.remaining):
                task.cut(slot, allowed(*slot))
        self._retire()

    def report(self, why: Why, name_of: Callable[[NodeId], str]) -> list[dict[str, Any]]:
        """A line per task, in order of their numbers."""
        tasks = sorted((*self._finished, *self._active.values()), key=lambda task: task.number)
        now_ms = self._now_ms()
        return [task.line(why, name_of, now_ms) for task in tasks]

    def covered(self, slot: Slot) -> int:
        """The ranges of a peer and bucket that some task is about."""
        mask = 0
        for task in self._active.values():
            mask |= task.remaining.get(slot, 0)
        return mask

    def _retire(self) -> None:
        for reason, task in list(self._active.items()):
            if not task.remaining:
                task.ended_ms = self._now_ms()
                del self._active[reason]
                self._finished.append(task)

    def check(self) -> None:
        """Finished tasks have nothing left, active ones have."""
        assert all(task.remaining and all(task.remaining.values()) for task in self._active.values())
        assert not any(task.remaining for task in self._finished)
