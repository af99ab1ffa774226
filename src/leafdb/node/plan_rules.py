"""What the driver of a plan does next, of what it knows: pure (docs/decisions/0007-ring-changes.md, "The cuts").

    WRITE_BOTH_READ_OLD   advance when every new owner, and every old one, knows this epoch and owes nothing: the copies
                          are made, and a late hint lies with the new owners too
    WRITE_BOTH_READ_NEW   finish when every old owner, and whoever leaves, knows this epoch and owes nothing: nobody
                          takes along what only it has
    RETREAT               end it when every new owner that stays a member knows this epoch

Who is given up as dead is not waited for, unless it is seen alive: then it answers reads, and has to hear first. The
same goes for newcomers in a retreat. In the first phase all newcomers are waited for, also one that will own nothing:
who has not come by the end of the plan could not be told from another store any more, since the plan says which it is.

An answer counts if it shows the epoch the driver itself believes in, or a later one with the same plan. A driver that
is behind does no harm: its step names the plan it means, and the register's value decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from leafdb.node.plan_progress import Progress
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.plan import Phase, Plan
from leafdb.ring.transitions import awaited
from leafdb.types import NodeId

LET_IN: Final = "it has just been let in"
"""Why a newcomer that was called does not answer yet: the one reason that passes by itself."""


class Wait(NamedTuple):
    """Something that the plan waits for."""

    text: str
    stuck: bool
    """Whether it needs somebody to look after it: work that goes on, and news on their way, do not."""


class Action(Enum):
    """The next step of a plan."""

    NOTHING = "nothing"
    """There is no plan."""
    WAIT = "wait"
    ADVANCE = "advance"
    FINISH = "finish"
    FINISH_ABORT = "finish abort"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now."""

    action: Action
    waiting: tuple[str, ...] = ()
    """For whom or what the plan waits, a sentence each."""
    stuck: tuple[str, ...] = ()
    """Those of the sentences that will stay true until somebody does something."""
    admit: tuple[NodeId, ...] = ()
    """Newcomers that have not come yet: to be called."""


def driver_of(control: Sequence[NodeId], alive: Collection[NodeId]) -> NodeId | None:
    """Who drives changes of the ring: the live member of the control set with the lowest number."""
    return min((node for node in control if node in alive), default=None)


def asked(metadata: ClusterMetadata, alive: Collection[NodeId]) -> frozenset[NodeId]:
    """Whose progress the next step depends on; nobody's without a plan."""
    plan = metadata.plan
    if plan is None:
        return frozenset()
    match plan.phase:
        case Phase.WRITE_BOTH_READ_OLD:
            return awaited(metadata) | frozenset(plan.joining)
        case Phase.WRITE_BOTH_READ_NEW:
            return awaited(metadata) | frozenset(plan.leaving) | (plan.given_up & frozenset(alive))
        case Phase.RETREAT:
            return awaited(metadata) | (frozenset(plan.joining) & frozenset(alive))


def decide(
    metadata: ClusterMetadata,
    *,
    alive: Collection[NodeId],
    answers: Mapping[NodeId, Progress],
    problems: Mapping[NodeId, str],
) -> Decision:
    """The next step.

    Args:
        metadata: as the driver believes them.
        alive: the members it does not hold for dead.
        answers: to `plan.progress`, of those that gave one.
        problems: why others gave none, for people.
    """
    plan = metadata.plan
    if plan is None:
        return Decision(Action.NOTHING)
    wanted = sorted(asked(metadata, alive))
    waiting = [
        said
        for node in wanted
        for said in _missing(metadata, plan, node, answers.get(node), node in alive, problems.get(node, ""))
    ]
    admit: tuple[NodeId, ...] = ()
    match plan.phase:
        case Phase.WRITE_BOTH_READ_OLD:
            step = Action.ADVANCE
            admit = tuple(node for node in plan.joining if node not in answers)
        case Phase.WRITE_BOTH_READ_NEW:
            step = Action.FINISH
            waiting += _control(metadata, plan)
        case Phase.RETREAT:
            step = Action.FINISH_ABORT
    texts = tuple(wait.text for wait in waiting)
    stuck = tuple(wait.text for wait in waiting if wait.stuck)
    return Decision(Action.WAIT if waiting else step, texts, stuck, admit)


def _missing(
    metadata: ClusterMetadata, plan: Plan, node: NodeId, answer: Progress | None, alive: bool, problem: str
) -> Iterator[Wait]:
    """What a node still has to do or to hear; nothing when it is done."""
    name = metadata.members[node].name
    why = f" ({problem})" if problem else ""
    if answer is None:
        if node in plan.joining and plan.phase is Phase.WRITE_BOTH_READ_OLD:
            yield Wait(f"{name} has not come yet{why}", stuck=problem not in ("", LET_IN))
        elif node in plan.given_up:
            yield Wait(f"{name} goes as dead but is alive, and does not answer{why}: stop it", stuck=True)
        elif alive:
            # One answer too late is none to worry about; many, and it is dead or cut off, which is said elsewhere.
            yield Wait(f"{name} does not answer{why}", stuck=False)
        else:
            yield Wait(f"{name} is down{why}", stuck=True)
    elif answer.epoch < metadata.epoch:
        behind = f"it is at epoch {answer.epoch}, not {metadata.epoch}"
        yield Wait(f"{name} has not heard of it yet: {behind}", stuck=False)
    elif answer.plan_id != plan.id:
        yield Wait(f"{name} knows more: it is at epoch {answer.epoch}", stuck=False)
    elif answer.keeps:
        yield from (Wait(text, stuck=False) for text in answer.keeps)
    elif not answer.settled and plan.phase is not Phase.RETREAT:
        names = ", ".join(_name(metadata, other) for other in answer.waiting_for)
        held_up = f"; it cannot reach {names}" if names else ""
        yield Wait(f"{name} has {answer.left} of {answer.total} exchanges to do{held_up}", stuck=bool(names))


def _control(metadata: ClusterMetadata, plan: Plan) -> Iterator[Wait]:
    names = ", ".join(
        _name(metadata, node) for node in sorted({*metadata.control, *metadata.control_next} & plan.going)
    )
    if names:
        yield Wait(f"the control set changes first: {names} will go", stuck=False)


def _name(metadata: ClusterMetadata, node: NodeId) -> str:
    member = metadata.members.get(node)
    return f"node-{node}" if member is None else member.name
