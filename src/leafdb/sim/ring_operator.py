"""People who change the ring while clients work and things break: each stages, looks, commits, gives up.

They ask whatever node they come by, on whatever side of a partition, and do not talk to each other; what they see when
they decide may be wrong by the time they ask. They ask again with the same plan id when nobody told them what came of
it, commit plans that are stale by then, two at once, and lose patience in any phase. What they are told about commits
is kept, and held against the history of the ring in the end (`ring_commits`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, Final

import trio

from leafdb.errors import LeafdbError, NotApplied, Reason
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Phase, Plan
from leafdb.sim.clients import DirectClient, Setting
from leafdb.sim.recorder import NotConnected
from leafdb.sim.ring_commits import Commits
from leafdb.sim.ring_machines import Machines
from leafdb.sim.ring_rules import phase_of
from leafdb.testing.cluster import address_of
from leafdb.testing.raw_client import Severed

ASK_S: Final = 8.0
TRIES: Final = 4
"""How often a commit is asked for when nobody says what came of it."""

Act = Callable[[], Awaitable[None]]
Answer = Mapping[str, Any] | Reason | None
"""Why it was refused; None when nobody knows what came of it."""


class Operator(DirectClient):
    """One of them. `act` does one thing."""

    def __init__(self, setting: Setting, machines: Machines, commits: Commits, name: str, rng: Random) -> None:
        super().__init__(setting, name)
        self._machines = machines
        self._stage = machines.stage
        self._commits = commits
        self._rng = rng
        rings = setting.plan.rings
        assert rings is not None
        self._rings = rings
        self._old_ids: list[bytes] = []
        """Plans that were looked at once."""

    async def run(self) -> None:
        """Act now and then until cancelled."""
        while True:
            await trio.sleep(self._rng.expovariate(1 / self._rings.gap_s))
            await self.act()

    async def act(self) -> None:
        """Do one thing that makes sense as things are."""
        choices = self._amid_a_plan() if self._machines.metadata.plan is not None else self._without_a_plan()
        if self._rings.losses and not self._machines.lost():
            choices.append((0.25, self.lose_a_machine))
        await self._rng.choices([act for _, act in choices], [weight for weight, _ in choices])[0]()

    def _amid_a_plan(self) -> list[tuple[float, Act]]:
        plan = self._machines.metadata.plan
        assert plan is not None
        stuck = set(self._machines.lost()) - plan.given_up
        return [
            (1.0, self.look),
            (3.0 if stuck else self._rings.aborts, self.abort),
            (0.15, self.commit_an_old_one),
            (0.1, self.stage_join),
        ]

    def _without_a_plan(self) -> list[tuple[float, Act]]:
        staged = bool(self._machines.metadata.staged)
        return [
            (4.0 if self._machines.lost() else 0.0, self.make_up),
            (5.0 if staged else 0.0, self.commit),
            (0.5 if staged else 0.0, self.commit_two),
            (0.2 if staged else 0.0, self.clear),
            (0.5 if staged else 2.0, self.stage_join),
            ((0.4 if staged else 1.2) if self._machines.may_leave() else 0.0, self.stage_leave),
            (0.2, self.commit_an_old_one),
            (0.2, self.look),
            (0.05, self.abort),
        ]

    # -- machines

    async def lose_a_machine(self) -> None:
        """One with a member on it is gone for good, as far as the promises go: not with the last copy of anything, nor
        with the majority of the control set."""
        losable = self._machines.may_lose()
        candidates = [machine for machine in self._stage.may_destroy() if machine in losable]
        if candidates and len(self._stage.cluster.nodes) > 2 and not self._stage.alone:
            victim = self._rng.choice(candidates)
            self.setting.trace.fault("lost_machine", f"n{victim}")
            with self._stage.claimed(victim):
                await self._stage.lose(victim)

    async def make_up(self) -> None:
        """For a member that is lost: another takes its place, or none."""
        lost = self._machines.lost()
        removable = self._machines.may_remove()
        if not lost:
            return
        member = self._rng.choice(removable or lost)
        if removable and self._rng.random() < 0.5:
            self._machines.going(member)
            await self._staged({"change": "force-remove", "node": int(member)})
        else:
            machine = await self._machines.fetch(self._rng, must=True)
            if machine is not None:
                await self._staged({"change": "replace", "node": int(member), "address": address_of(machine)})

    # -- staging

    async def stage_join(self) -> None:
        """A blank node is to join."""
        machine = await self._machines.fetch(self._rng)
        if machine is not None:
            await self._staged({"change": "join", "address": address_of(machine)})

    async def stage_leave(self) -> None:
        """A member is to leave."""
        candidates = self._machines.may_leave()
        if candidates:
            member = self._rng.choice(candidates)
            self._machines.going(member)
            await self._staged({"change": "leave", "node": int(member)})

    async def _staged(self, args: Mapping[str, Any]) -> None:
        if await self.ask("cluster.stage", args) is Reason.PLAN_IN_PROGRESS:
            self.setting.trace.probe("staged_too_late")

    async def clear(self) -> None:
        """Nothing is to be done after all."""
        if isinstance(await self.ask("cluster.clear", {}), Mapping):
            self.setting.trace.probe("staged_cleared")

    # -- plans

    async def look(self) -> None:
        """Ask how things are."""
        verb = self._rng.choice(("cluster.plan", "cluster.staged", "transfer.list", "ring.history"))
        await self.ask(verb, {})

    async def planned(self) -> bytes | None:
        """Look at the plan that a commit would make: its id."""
        answer = await self.ask("cluster.plan", {})
        if not isinstance(answer, Mapping) or answer["in_progress"]:
            return None
        plan_id = bytes(answer["plan_id"])
        self._old_ids.append(plan_id)
        return plan_id

    async def commit(self) -> None:
        """Look at the plan, and commit it."""
        plan_id = await self.planned()
        if plan_id is not None:
            await trio.sleep(self._rng.choice((0.0, 0.1, 1.0)))
            await self._commit(plan_id)

    async def commit_two(self) -> None:
        """Two plans at once, by two nodes: the one that was shown first, and one with more in it."""
        first = await self.planned()
        await self._rng.choice((self.stage_join, self.stage_leave))()
        second = await self.planned()
        if first is None or second is None:
            return
        if first != second:
            self.setting.trace.probe("two_commits")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._commit, first)
            nursery.start_soon(self._commit, second)

    async def commit_an_old_one(self) -> None:
        """Commit a plan that was looked at once."""
        if self._old_ids:
            await self._commit(self._rng.choice(self._old_ids))

    async def _commit(self, plan_id: bytes) -> None:
        """Commit, and ask again with the same id while nobody says what came of it."""
        trace = self.setting.trace
        for attempt in range(TRIES):
            since = self._commits.asked(plan_id)
            answer = await self.ask("cluster.commit", {"plan_id": plan_id})
            if isinstance(answer, Mapping):
                self._commits.won(plan_id, since, int(answer["epoch"]))
                trace.probe("commit_retried", int(attempt > 0))
                return
            if answer is Reason.PLAN_STALE:
                self._commits.stale(plan_id)
                trace.probe("stale_commit_refused")
                return
            if answer is not None:
                trace.probe("unsafe_commit_refused", int(answer is Reason.UNSAFE))
                return
            await trio.sleep(self._rng.expovariate(1 / 0.5))

    async def abort(self) -> None:
        """Give the plan up that is in progress, whichever it is, or by its name."""
        metadata = self._machines.metadata
        phase = phase_of(metadata)
        named: dict[str, Any] = (
            {} if metadata.plan is None or self._rng.random() < 0.5 else {"plan_id": metadata.plan.id}
        )
        lost = self._machines.lost()
        if lost and phase is Phase.RETREAT:
            # Nobody waits for them: that they are gone for good is for the operator to know, and true.
            self._commits.excuse(lost)
            named = {**named, "without": [int(member) for member in lost]}
            self.setting.trace.probe("abort_forced")
        answer = await self.ask("cluster.abort", named)
        if isinstance(answer, Mapping) and phase is Phase.RETREAT:
            self.setting.trace.probe("aborted_twice")

    # -- asking

    async def ask(self, verb: str, args: Mapping[str, Any]) -> Answer:
        """One verb, of a member."""
        node = self._rng.choice(self.setting.nodes)
        told = " ".join(_text(value) for value in args.values())
        self.tell(f"{verb} {told} through n{node}")
        try:
            answer = await (await self._connected(node)).admin(verb, ASK_S, **args)
        except NotApplied as error:
            self.tell(f"{verb} refused: {error.reason}")
            return error.reason
        except (LeafdbError, Severed, NotConnected) as error:
            self.tell(f"{verb} failed: {self.judged(error, None)}")
            return None
        self.tell(f"{verb} done{_outcome(answer)}")
        return answer

    async def until_over(self) -> None:
        """Everything was mended: do what is left, so that no plan is in progress, nothing staged, and nobody lost."""
        gives_up = self._rings.aborts_last
        while True:
            metadata = self._machines.metadata
            plan = metadata.plan
            if plan is not None and self._is_unheard(metadata):
                await self.clear()  # it was chosen, and who made it died before anybody heard: the next round shows it
            elif plan is not None:
                stuck = set(self._machines.lost()) - plan.given_up
                if gives_up or stuck or self._never_comes(plan):
                    await self.abort()
                gives_up = False
            elif self._machines.lost():
                await (self.commit if metadata.staged else self.make_up)()
            elif metadata.staged:
                await self.clear()
            else:
                return
            await trio.sleep(1.0)

    def _never_comes(self, plan: Plan) -> bool:
        """Whether a newcomer was staged with a store that is there no more: whoever staged it had seen it before it
        joined by another plan, was sent away, and was emptied."""
        machines, nodes = self._stage.cluster.watch.machines, self._stage.cluster.nodes
        for member, store in zip(plan.joining, plan.stores, strict=False):
            node = nodes.get(machines[member])
            if store and node is not None and node.view.metadata is None and node.engine.identity.store_id != store:
                return True
        return False

    def _is_unheard(self, metadata: ClusterMetadata) -> bool:
        """Whether nobody who runs believes in that version, or a later one."""
        return all(node.view.epoch < metadata.epoch for node in self._stage.cluster.nodes.values())


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _outcome(answer: Mapping[str, Any]) -> str:
    return f" in epoch {answer['epoch']}" if "epoch" in answer else ""
