"""Verbs about repair: begin it, follow it, take it back, and when it comes by itself.

repair.run          {bucket?, node?, range?: [first, last]}  -> {task, tasks, errors}
repair.dry          {bucket?, node?, range?: [first, last]}  -> {tasks, errors}   begins to look, moves nothing
repair.findings     {tasks}                                  -> {findings, errors}    of dry runs, by node
repair.status       {}                                       -> {repairs, schedules, losses, purges, errors}
repair.cancel       {task}                                   -> {task}            task: NODE/NUMBER
repair.schedule     {age_s?, paused?, node?}                 -> {schedules, errors}   without both: only shown
repair.acknowledge  {node?}                                  -> {nodes, errors}   partitions by node
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from leafdb.codec.fields import as_bool, as_int, as_list, as_map
from leafdb.errors import NotApplied, Reason
from leafdb.node.admin import Verb, ask_member, gather
from leafdb.node.admin_cluster import metadata_of
from leafdb.node.admin_data import bucket_view, text
from leafdb.node.ring_requests import member_asked
from leafdb.types import BucketId, NodeId

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]


def asked_number(node: Node, args: Args) -> int:
    """The number of the member that `node` names; 0 when none is named. Raises NotApplied."""
    return int(member_asked(metadata_of(node), args["node"])) if args.get("node") else 0


def only_of(node: Node, wanted: int, errors: dict[str, str]) -> dict[str, str]:
    """The errors that concern who was asked for."""
    return (
        {name: why for name, why in errors.items() if name == node.view.name_of(NodeId(wanted))} if wanted else errors
    )


def is_meant(node: Node, args: Args) -> bool:
    """Whether a peer verb that names a member, or nobody, means this node. Older versions send names."""
    return args.get("node", 0) in (0, "", int(node.view.self_id), node.config.node.name)


async def scope(node: Node, args: Args) -> Answer:
    """What of the cluster a request is about, as peer verbs take it. Raises NotApplied."""
    bucket = await bucket_view(node, text(args, "bucket")) if args.get("bucket") else None
    partitions = metadata_of(node).partitions
    first, last = -1, -1
    if args.get("range"):
        first, last = (as_int(each, "partition") for each in as_list(args["range"], "range", items_max=2))
        if not first <= last < partitions:
            raise NotApplied(f"partitions are 0 to {partitions - 1}", reason=Reason.BAD_REQUEST)
    return {
        "bucket_id": int(bucket.id) if bucket else 0,
        "node": asked_number(node, args),
        "first": first,
        "last": last,
    }


def within(args: Args) -> tuple[BucketId | None, int]:
    """The bucket and the partitions that such a peer verb is about; None and 0 for all of them."""
    bucket, first, last = int(args["bucket_id"]), int(args.get("first", -1)), int(args.get("last", -1))
    partitions = 0 if first < 0 else (1 << last + 1) - (1 << first)
    return BucketId(bucket) if bucket else None, partitions


async def run(node: Node, args: Args) -> Answer:
    """Start an exchange of every range, or of some, on all members or one."""
    asked = await scope(node, args)
    answers, errors = await gather(node, "repair.start", start, asked)
    tasks = {name: found["task"] for name, found in answers.items() if found["task"]}
    return {
        "task": ",".join(f"{name}/{task}" for name, task in tasks.items()),
        "tasks": tasks,
        "errors": only_of(node, asked["node"], errors),
    }


async def start(node: Node, args: Args) -> Answer:
    """Peer verb: start a repair here, unless it is wanted elsewhere only."""
    if not is_meant(node, args):
        return {"task": 0}
    return {"task": node.anti_entropy.runs.start(*within(args))}


async def dry(node: Node, args: Args) -> Answer:
    """Begin to look what that would do."""
    asked = await scope(node, args)
    answers, errors = await gather(node, "repair.look", look, asked)
    tasks = {name: found["task"] for name, found in answers.items() if found["task"]}
    return {"tasks": tasks, "errors": only_of(node, asked["node"], errors)}


async def look(node: Node, args: Args) -> Answer:
    """Peer verb: a dry run here, unless it is wanted elsewhere only. When all are asked, of each pair one looks."""
    if not is_meant(node, args):
        return {"task": 0}
    runs, own = node.anti_entropy.runs, node.view.self_id
    masks = runs.ranges(*within(args))
    if not args.get("node"):
        masks = {slot: mask for slot, mask in masks.items() if own < slot[0]}
    return {"task": node.anti_entropy.dry_runs.begin(masks, runs.what(*within(args)))}


async def findings(node: Node, args: Args) -> Answer:
    """What dry runs have found."""
    tasks = {name: as_int(number, "task") for name, number in as_map(args["tasks"], "tasks").items()}
    answers, errors = await gather(node, "repair.looked", looked, {"tasks": tasks})
    found = {name: answer for name, answer in answers.items() if answer}
    return {"findings": found, "errors": {name: why for name, why in errors.items() if name in tasks}}


async def looked(node: Node, args: Args) -> Answer:
    """Peer verb: what a dry run of this node's has found; nothing when it is none, or long ago."""
    number = args["tasks"].get(node.config.node.name, 0)
    return node.anti_entropy.dry_runs.findings(number) or {}


async def status(node: Node, args: Args) -> Answer:
    """Every repair the cluster knows of, the schedules, what may be lost, who cannot say what is absent, and what waits
    to be forgotten."""
    answers, errors = await gather(node, "repair.local", local, {})
    return {
        "repairs": [{"node": name, **line} for name, found in answers.items() for line in found["repairs"]],
        "schedules": [{"node": name, **found["schedule"]} for name, found in answers.items() if "schedule" in found],
        "losses": [{"node": name, **line} for name, found in answers.items() for line in found.get("losses", ())],
        "purges": [{"node": name, **found["purge"]} for name, found in answers.items() if "purge" in found],
        "unsure": [
            {"node": name, "why": why, "partitions": partitions}
            for name, found in answers.items()
            for why, partitions in found.get("unsure", {}).items()
        ],
        "errors": errors,
    }


async def local(node: Node, args: Args) -> Answer:
    """Peer verb: this node's repairs."""
    repair = node.anti_entropy
    return {
        "repairs": repair.report(),
        "schedule": repair.schedule.report(),
        "losses": repair.losses.report(),
        "unsure": repair.unsure,
        "purge": node.purge.driver.report(),
    }


async def cancel(node: Node, args: Args) -> Answer:
    """Take back a repair that somebody asked for."""
    name, _, number = text(args, "task").rpartition("/")
    if not name or not number.isascii() or not number.isdigit():
        raise ValueError("a task is NODE/NUMBER, as leafdb repair status shows it")
    member = member_asked(metadata_of(node), name)
    asked = {"number": int(number)}
    if member == node.view.self_id:
        await stop(node, asked)
    else:
        await ask_member(node, member, "repair.stop", asked)
    return {"task": f"{name}/{number}"}


async def stop(node: Node, args: Args) -> Answer:
    """Peer verb: take back a repair of this node's."""
    number = as_int(args["number"], "number")
    if not node.anti_entropy.runs.cancel(number) and not node.anti_entropy.dry_runs.cancel(number):
        raise NotApplied(f"no repair {number} is running on {node.config.node.name}", reason=Reason.NO_SUCH_TASK)
    return {}


async def schedule(node: Node, args: Args) -> Answer:
    """Show when repair comes by itself, after changing that if asked to, on all members or one."""
    wanted = asked_number(node, args)
    asked = {name: args[name] for name in ("age_s", "paused") if name in args} | {"node": wanted}
    answers, errors = await gather(node, "repair.set", set_schedule, asked)
    schedules = [{"node": name, **found["schedule"]} for name, found in answers.items() if found["schedule"]]
    return {"schedules": schedules, "errors": only_of(node, wanted, errors)}


async def set_schedule(node: Node, args: Args) -> Answer:
    """Peer verb: the same here, unless another one is meant."""
    if not is_meant(node, args):
        return {"schedule": {}}
    kept = node.anti_entropy.schedule
    if "age_s" in args:
        kept.set_age(as_int(args["age_s"], "age_s"))
    if "paused" in args:
        kept.pause(as_bool(args["paused"], "paused"))
    return {"schedule": kept.report()}


async def acknowledge(node: Node, args: Args) -> Answer:
    """Somebody has read that writes may be lost."""
    wanted = asked_number(node, args)
    answers, errors = await gather(node, "repair.acknowledged", acknowledged, {"node": wanted})
    nodes = {name: found["partitions"] for name, found in answers.items() if found["partitions"]}
    return {"nodes": nodes, "errors": only_of(node, wanted, errors)}


async def acknowledged(node: Node, args: Args) -> Answer:
    """Peer verb: the same here, unless another one is meant."""
    return {"partitions": node.anti_entropy.losses.acknowledge() if is_meant(node, args) else 0}


VERBS: Final[Mapping[str, Verb]] = {
    "repair.run": run,
    "repair.dry": dry,
    "repair.findings": findings,
    "repair.status": status,
    "repair.cancel": cancel,
    "repair.schedule": schedule,
    "repair.acknowledge": acknowledge,
}
PEER_VERBS: Final[Mapping[str, Verb]] = {
    "repair.start": start,
    "repair.look": look,
    "repair.looked": looked,
    "repair.local": local,
    "repair.stop": stop,
    "repair.set": set_schedule,
    "repair.acknowledged": acknowledged,
}
