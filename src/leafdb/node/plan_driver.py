"""Drives a plan from its commit to its end: one task on every node, of which one acts.

It acts on the live member of the control set with the lowest number. Each turn it asks whose progress matters
(`plan_rules`), calls newcomers that have not come, and takes the step that is due, if any. Nothing is kept here between
turns: the plan is in the register, the copies are in the receivers' stores. So a driver that dies is replaced by the
next one's clock, and two that act at once do no harm, since each step names the plan and the phase it belongs to, and
the register's value decides.

The plan's id alone would not do for that: a plan that was aborted, staged and committed again may have the same one.
So a step names the epoch of the commit as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import trio

from leafdb.errors import ConnectFailed, LeafdbError, NotApplied, Reason
from leafdb.node.admin import ask_member, ask_stranger
from leafdb.node.admin_data import CHANGE_TIMEOUT_S, offer
from leafdb.node.logs import Log
from leafdb.node.plan_progress import Progress, own_progress
from leafdb.node.plan_rules import LET_IN, Action, Decision, asked, decide, driver_of
from leafdb.node.register_change import Change
from leafdb.ring import transitions
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Plan
from leafdb.types import Liveness, NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

POLL_S: Final = 1.0
BACKOFF_S_MAX: Final = 30.0
ADMIT_TIMEOUT_S: Final = 10.0
CALLS_MAX: Final = 16
"""Members asked at a time."""

log: Log = Log("plan")

Step = Callable[[ClusterMetadata, bytes, bytes], ClusterMetadata]


class PlanDriver:
    """See the top of this file."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wake = trio.Event()
        self._backoff_s = POLL_S
        self.waiting: tuple[str, ...] = ()
        """For whom the plan waits; empty on nodes that do not drive."""
        self.stuck: tuple[str, ...] = ()
        """Those of them for whom somebody has to do something."""
        node.view.on_install.append(lambda _: self._wake.set())
        node.view.on_judged.append(self._judged)

    async def run(self) -> None:
        """Drive until cancelled."""
        while True:
            self._wake = trio.Event()
            pause_s = await self._turn()
            with trio.move_on_after(pause_s):
                await self._wake.wait()

    @property
    def drives(self) -> bool:
        """Whether a plan is in progress, and this node is the one to drive it."""
        view = self._node.view
        metadata = view.metadata
        if metadata is None or metadata.plan is None:
            return False
        return driver_of(metadata.control, view.not_dead()) == view.self_id

    def _judged(self, node: NodeId, liveness: Liveness) -> None:
        metadata = self._node.view.metadata
        if metadata is not None and metadata.plan is not None and node in metadata.control:
            self._wake.set()  # the driver may be another one now

    async def _turn(self) -> float:
        """Do what is due; answers after how many seconds to look again, unless something happens before."""
        metadata = self._node.view.metadata
        if metadata is None or metadata.plan is None or not self.drives:
            self.waiting = self.stuck = ()
            return math.inf
        alive = self._node.view.not_dead()
        answers, problems = await self._ask(asked(metadata, alive))
        decision = decide(metadata, alive=alive, answers=answers, problems=problems)
        if decision.admit:
            decision = await self._admit(metadata, metadata.plan, decision, answers, problems)
        self.waiting, self.stuck = decision.waiting, decision.stuck
        step = STEPS.get(decision.action)
        if step is None:
            return POLL_S
        return await self._take(step, metadata.plan, decision.action)

    # -- asking

    async def _ask(self, nodes: Iterable[NodeId]) -> tuple[dict[NodeId, Progress], dict[NodeId, str]]:
        answers: dict[NodeId, Progress] = {}
        problems: dict[NodeId, str] = {}
        limit = trio.CapacityLimiter(CALLS_MAX)

        async def ask(member: NodeId) -> None:
            try:
                if member == self._node.view.self_id:
                    answers[member] = own_progress(self._node)
                    return
                async with limit:
                    answers[member] = Progress.from_wire(await ask_member(self._node, member, "plan.progress", {}))
            except ConnectFailed:
                problems[member] = self._node.admission.refusals.get(member) or self._node.peers.problem(member)
            except (LeafdbError, ValueError) as error:
                problems[member] = str(error)

        async with trio.open_nursery() as nursery:
            for member in nodes:
                nursery.start_soon(ask, member)
        return answers, problems

    # -- newcomers

    async def _admit(
        self,
        metadata: ClusterMetadata,
        plan: Plan,
        decision: Decision,
        answers: dict[NodeId, Progress],
        problems: dict[NodeId, str],
    ) -> Decision:
        """Call newcomers in; what they say instead becomes the reason why they are not there."""
        encoded = metadata.encode()
        limit = trio.CapacityLimiter(CALLS_MAX)

        async def call(node: NodeId) -> None:
            member = metadata.members[node]
            args = {"metadata": encoded, "node": int(node), "plan_id": plan.id}
            try:
                async with limit:
                    await ask_stranger(self._node, member.peer_address, "cluster.admit", args, ADMIT_TIMEOUT_S)
            except (LeafdbError, ValueError) as error:
                problems[node] = str(error)
            else:
                problems[node] = LET_IN
                log.info("a newcomer was let in", member=member.name, number=int(node))

        async with trio.open_nursery() as nursery:
            for node in decision.admit:
                nursery.start_soon(call, node)
        return decide(metadata, alive=self._node.view.not_dead(), answers=answers, problems=problems)

    # -- steps

    async def _take(self, step: Step, plan: Plan, action: Action) -> float:
        try:
            chosen = await self._node.register.change(_on_plan(plan, step), CHANGE_TIMEOUT_S, gives_way=True)
        except LeafdbError as error:
            self.waiting = self.stuck = (f"the step is due ({action.value}) but could not be made: {error}",)
            log.warning("a step of the plan could not be made", step=action.value, reason=str(error))
            return self._pause()
        self._backoff_s = POLL_S
        self.waiting = self.stuck = ()
        log.info("a step of the plan is made", step=action.value, plan=plan.id.hex(), epoch=int(chosen.epoch))
        await offer(self._node, chosen)
        return 0.0

    def _pause(self) -> float:
        """How long to wait after a step that failed: longer each time, and not in step with others."""
        pause_s = self._backoff_s * (0.5 + self._node.world.rng.random())
        self._backoff_s = min(2 * self._backoff_s, BACKOFF_S_MAX)
        return pause_s


def _on_plan(plan: Plan, step: Step) -> Change:
    """That step, of the plan that was looked at and of no later one with the same id."""

    def change(current: ClusterMetadata, change_id: bytes) -> ClusterMetadata:
        if current.epoch_of_change(change_id) is not None:
            return current
        if current.plan is None or current.plan.epoch != plan.epoch:
            raise NotApplied(f"plan {plan.id.hex()} of epoch {plan.epoch} is over", reason=Reason.PLAN_STALE)
        return step(current, plan.id, change_id)

    return change


def _stepping(transition: Callable[..., ClusterMetadata]) -> Step:
    return lambda current, plan_id, change_id: transition(current, plan_id, change_id=change_id)


STEPS: Final[dict[Action, Step]] = {
    Action.ADVANCE: _stepping(transitions.advance),
    Action.FINISH: _stepping(transitions.finish),
    Action.FINISH_ABORT: _stepping(transitions.finish_abort),
}
