"""The verb behind `leafdb doctor`: what every member says of itself, for somebody to compare. It judges nothing.

doctor   {} -> {nodes, errors}    by node: now_ms, version, epoch, settings, warnings, problems, machine,
                                           disk_free_bytes, stored_bytes, certificates

`settings` are all of them by their path, as a configuration file would have them: files that hold secrets are named,
never read. `warnings` are those of the configuration, such as listening without protection. `certificates`: when those
of TLS run out, in unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from leafdb.node.admin import Verb, gather
from leafdb.node.admin_cluster import metadata_of
from leafdb.node.config_rules import warnings
from leafdb.node.described import described
from leafdb.node.self_report import problems
from leafdb.node.settings_page import written

if TYPE_CHECKING:
    from leafdb.node.node import Node

Args = Mapping[str, Any]
Answer = dict[str, Any]


async def doctor(node: Node, args: Args) -> Answer:
    """What every member says."""
    metadata_of(node)
    answers, errors = await gather(node, "doctor.own", own, {})
    return {"nodes": answers, "errors": errors}


async def own(node: Node, args: Args) -> Answer:
    """Peer verb: what this one says."""
    config, stats = node.config, node.engine.stats()
    return {
        "now_ms": node.world.now_ms(),
        "version": node.version,
        "epoch": node.view.epoch,
        "settings": {
            entry.path: written(getattr(getattr(config, entry.section), entry.attribute), entry.setting.kind)
            for entry in described()
        },
        "warnings": warnings(config),
        "problems": problems(node),
        "machine": dict(node.world.machine()),
        "disk_free_bytes": stats.disk_free_bytes,
        "stored_bytes": stats.table_bytes,
        "certificates": node.tls.expiry(),
    }


VERBS: Final[Mapping[str, Verb]] = {"doctor": doctor}
PEER_VERBS: Final[Mapping[str, Verb]] = {"doctor.own": own}
