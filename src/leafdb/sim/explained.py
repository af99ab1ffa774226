"""Some calls of a real client are explained ones, and their explanations are held against what happened.

What is judged: everybody named is or was a member; who counted has answered in time, and they are enough; who is said
to hold what was read has been given it; a read shows what its merge says; a failure did not reach its counts. Whether a
call is explained is drawn by a generator of its own, so that the workload is what it would be without.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Final

from leafdb.client.async_bucket import AsyncLwwBucket, AsyncSiblingBucket
from leafdb.client.context import Blind, Context
from leafdb.client.results import Conflict, Explained, Found, Written
from leafdb.errors import DeadlineExceeded, LeafdbError, OutcomeUnknown
from leafdb.explanation import Explanation, Replica, Status
from leafdb.model.clock import CausalClock
from leafdb.ring.token import storage_key
from leafdb.sim.recorder import ReadHow, WriteHow
from leafdb.sim.setting import Setting, encoded, key_of
from leafdb.testing.history_values import Answer, clock_of, sealed_of
from leafdb.testing.violation import Invariant, require
from leafdb.types import NodeId

SHARE: Final = 0.2
Handle = AsyncSiblingBucket[bytes] | AsyncLwwBucket[bytes]
OF_NODES: Final = ("replicas", "write_back")
"""Stages of a deadline that a node tells of."""


class ExplainedCalls:
    """Of one client."""

    def __init__(self, setting: Setting, name: str) -> None:
        self._setting = setting
        self._rng = Random(f"{setting.plan.seed}/{name}/explained")

    def wanted(self) -> bool:
        """Whether the next call is an explained one."""
        return self._rng.random() < SHARE

    async def get(self, handle: Handle, key: str, how: ReadHow) -> Answer:
        """Read, and judge."""
        read = handle.get_explained if isinstance(handle, AsyncSiblingBucket) else handle.read_explained
        try:
            explained = await read(
                key_of(key), r=how.r or None, pr=how.pr or None, sloppy=how.sloppy, timeout=how.timeout_s,
                local=how.local,
            )  # fmt: skip
        except LeafdbError as error:
            self._failed(error, key)
            raise
        self._read(explained, key)
        return explained.answer

    async def put(self, handle: Handle, key: str, value: bytes, after: Context | Blind, how: WriteHow) -> Written:
        """Write, and judge."""
        ttl, w, pw, dw = how.ttl_ms / 1000 or None, how.w or None, how.pw or None, how.dw or None
        sloppy, timeout = how.sloppy, how.timeout_s
        at = key_of(key)
        try:
            if isinstance(handle, AsyncLwwBucket):
                explained = await handle.put_explained(
                    at, value, ttl=ttl, w=w, pw=pw, dw=dw, sloppy=sloppy, timeout=timeout
                )
            else:
                explained = await handle.put_explained(
                    at, value, after=after, ttl=ttl, w=w, pw=pw, dw=dw, sloppy=sloppy, timeout=timeout
                )
        except LeafdbError as error:
            self._failed(error, key)
            raise
        self._wrote(explained, key)
        return explained.answer

    # -- what must hold

    def _read(self, explained: Explained[Answer], key: str) -> None:
        told, answer = explained.explanation, explained.answer
        self._common(told, key)
        policy, merged = told.policy, told.merged
        counted = [each for each in told.replicas if each.counted]
        self._holds(all(each.status in (Status.FOUND, Status.ABSENT) for each in counted), told, key, "who counted")
        shown = len(answer.siblings) if isinstance(answer, Conflict) else int(isinstance(answer, Found))
        self._holds((merged.siblings if merged else 0) == shown, told, key, f"a read that shows {shown}")
        for each in counted:
            if each.version is not None and merged is not None:
                same = each.version.digest == merged.digest
                self._holds(same is not each.behind, told, key, f"whether {each.node} is behind")
        if policy is None:  # one store's word
            return
        self._holds(len(counted) >= policy.r, told, key, f"r={policy.r}")
        if merged is not None:
            # Also who holds it and does not count: an incomplete store's value is as good as any.
            having = [each for each in told.replicas if each.version and each.version.digest == merged.digest]
            having += [each for each in told.replicas if each.write_back == "confirmed" and each not in having]
            self._holds(len(having) >= policy.r, told, key, f"that r={policy.r} hold what was shown")
            self._given(told, having, clock_of(sealed_of(answer.context)), key)

    def _wrote(self, explained: Explained[Written], key: str) -> None:
        told, written = explained.explanation, explained.answer
        self._common(told, key)
        counted = [each for each in told.replicas if each.counted]
        self._holds(all(each.status is Status.APPLIED for each in counted), told, key, "who counted")
        self._holds(len(counted) == written.acks, told, key, f"acks={written.acks}")
        policy = told.policy
        assert policy is not None
        self._holds(len(counted) >= policy.w, told, key, f"w={policy.w}")
        if told.other_policy is None:
            primaries = sum(each.role == "primary" for each in counted)
            self._holds(primaries == written.primaries, told, key, f"primaries={written.primaries}")
        versions = {each.version.digest for each in counted if each.version is not None}
        self._holds(told.merged is not None and versions == {told.merged.digest}, told, key, "the version written")

    def _failed(self, error: LeafdbError, key: str) -> None:
        told = error.explanation
        if told is None:
            of_nodes = isinstance(error, OutcomeUnknown) and bool(error.replicas)
            of_nodes = of_nodes or (isinstance(error, DeadlineExceeded) and error.stage in OF_NODES)
            require(not of_nodes, Invariant.EXPLAINED, f"a node did not explain {error!r}", key)
            return
        self._common(told, key, answered=False)
        policy = told.policy
        if policy is None or told.other_policy is not None or told.forwarded_to:
            return
        counted = [each for each in told.replicas if each.counted]
        primaries = sum(each.role == "primary" for each in counted)
        if isinstance(error, OutcomeUnknown):
            self._holds(len(counted) < policy.w or primaries < policy.pw, told, key, "a write that fell short")
        elif isinstance(error, DeadlineExceeded) and error.stage == "replicas":
            self._holds(len(counted) < policy.r or primaries < policy.pr, told, key, "a read that fell short")
        elif isinstance(error, DeadlineExceeded) and error.stage == "write_back":
            self._holds(any(each.write_back for each in told.replicas), told, key, "a write-back that fell short")

    def _common(self, told: Explanation, key: str, *, answered: bool = True) -> None:
        self._holds(told.answered is answered, told, key, "how it ended")
        members = self._members()
        named = [told.node, *(hop.node for hop in told.forwarded_by), *filter(None, [told.forwarded_to])]
        for each in told.replicas:
            named += [each.node, *filter(None, [each.stands_for])]
            asked = each.asked_ms is not None
            self._holds(asked is (each.cause != ""), told, key, f"whether {each.node} was asked")
            self._holds(asked or not each.counted, told, key, f"{each.node}, who was not asked")
            times = [at for at in (0.0, each.asked_ms, each.answered_ms, told.decided_ms) if at is not None]
            self._holds(times == sorted(times), told, key, f"the times of {each.node}")
        strangers = [name for name in named if name not in members and not name.startswith("node-")]
        self._holds(not strangers, told, key, f"{strangers}, who are no members")
        self._holds(len({each.node for each in told.replicas}) == len(told.replicas), told, key, "each replica once")

    def _given(self, told: Explanation, having: Iterable[Replica], clock: CausalClock, key: str) -> None:
        """Who is said to have what was read has been given it. If the ring has changed, copies may be gone by now."""
        watch = self._setting.ring
        if watch is not None and watch.steps:
            return
        members = self._members()
        holders = self._setting.copies.holders(storage_key(self._setting.bucket.id, encoded(key)), clock)
        for each in having:
            self._holds(bool(members[each.node] & holders.keys()), told, key, f"that {each.node} has what was read")

    def _members(self) -> dict[str, set[NodeId]]:
        """Everybody who is a member, as anybody believes, or was one, by name. Who is asked may be gone when it
        answers."""
        watch = self._setting.ring
        found = {} if watch is None else {name: set(numbers) for name, numbers in watch.names.items()}
        for process in self._setting.cluster.processes.values():
            metadata = process.node.view.metadata
            for number, member in ({} if metadata is None else metadata.members).items():
                found.setdefault(member.name, set()).add(number)
        return found

    def _holds(self, condition: bool, told: Explanation, key: str, what: str) -> None:
        require(condition, Invariant.EXPLAINED, f"an explanation is wrong about {what}:\n{told}", key)
