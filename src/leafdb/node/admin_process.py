"""Verbs about the process that answers: its settings, what it logs, what it spends its time with.

config.show     {}          -> {settings}            each with its value, default, origin, and what waits for a restart
node.loglevel   {level?}    -> {level, was}          until the next reload or restart
node.profile    {seconds}   -> {samples, stacks}     one at a time
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from leafdb.errors import NotApplied, Overloaded, Reason
from leafdb.node import logs, profiler
from leafdb.node.admin import Verb
from leafdb.node.described import described
from leafdb.node.settings_in_force import value_of
from leafdb.node.settings_page import written

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]

PROFILE_STACKS_TOLD: Final = 1_000

log: logs.Log = logs.Log("admin")


async def config_show(node: Node, args: Args) -> Answer:
    """Every setting as it is in force here. Secrets are not among them: settings name the files that hold them."""
    settings = node.world.settings
    config = node.config if settings is None else settings.config
    origins = {} if settings is None else settings.origins
    waiting = {} if settings is None else settings.waiting
    shown = []
    for entry in described():
        value, kind = value_of(config, entry), entry.setting.kind
        shown.append(
            {
                "path": entry.path,
                "value": written(value, kind),
                "default": written(entry.default, kind),
                "differs": value != entry.default,
                "origin": origins.get(entry.path, "program" if value != entry.default else "default"),
                "reloadable": entry.setting.reloadable,
                "waiting": written(waiting[entry.path], kind) if entry.path in waiting else "",
            }
        )
    return {"node": node.config.node.name, "settings": shown}


async def node_loglevel(node: Node, args: Args) -> Answer:
    """What this process writes from now on; without a level, what it writes."""
    was = logs.level()
    wanted = args.get("level", was)
    if wanted not in logs.LEVELS:
        raise NotApplied(f"{wanted!r} is none of {', '.join(logs.LEVELS)}", reason=Reason.BAD_REQUEST)
    if wanted != was:
        logs.set_level(wanted)
        log.warning("the log level was changed", level=wanted, was=was)
    return {"node": node.config.node.name, "level": wanted, "was": was}


async def node_profile(node: Node, args: Args) -> Answer:
    """Where the time of this process goes, by stack; the most seen first."""
    seconds = float(args["seconds"])
    if not 0 < seconds <= profiler.SECONDS_MAX:
        most = f"a profile takes up to {profiler.SECONDS_MAX:.0f} seconds"
        raise NotApplied(most, reason=Reason.BAD_REQUEST)
    if not node.admin.begin_alone("profile"):
        raise Overloaded("this node is being profiled already", retry_after=seconds)
    stop = threading.Event()
    try:
        seen = await trio.to_thread.run_sync(profiler.sample, seconds, stop, abandon_on_cancel=True)
    finally:
        stop.set()
        node.admin.end_alone("profile")
    told = sorted(seen.items(), key=lambda line: (-line[1], line[0]))[:PROFILE_STACKS_TOLD]
    return {
        "node": node.config.node.name,
        "samples": sum(seen.values()),
        "stacks": [{"stack": stack, "seen": count} for stack, count in told],
    }


VERBS: Final[Mapping[str, Verb]] = {
    "config.show": config_show,
    "node.loglevel": node_loglevel,
    "node.profile": node_profile,
}
