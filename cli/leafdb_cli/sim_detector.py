"""`leafdb sim detector`: how soon a crash is known to all, and how often a living node is called dead."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING, Any, Final

from leafdb_cli.render import Column
from leafdb_cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leafdb.sim.membership_measure import Detection, Setting, Watched

QUANTILES: Final = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (1.0, "max"))


def run_detector(session: Session, setting: Setting, *, crashes: int, node_hours: float) -> bool:
    """Measure and print; True when every crash was found and nobody who lives was called dead.

    Nothing here makes cycles, and the collector would take a tenth of the time: it rests meanwhile.
    """
    from leafdb.sim import membership_measure as measure

    was_enabled = gc.isenabled()
    gc.disable()
    started = time.process_time()
    try:
        found = measure.crashes(setting, crashes) if crashes else []
        watched = measure.watch(setting, node_hours) if node_hours else None
    finally:
        if was_enabled:
            gc.enable()
    item = detector_item(setting, found, watched)
    item["cpu_s"] = round(time.process_time() - started, 1)
    if session.options.output == "table":
        _print(session, item)
    else:
        session.output.items("SimDetector", [item], [])
    return not (item["missed"] or item["false_deaths"])


def detector_item(setting: Setting, found: Sequence[Detection], watched: Watched | None) -> dict[str, Any]:
    """What was measured, as one item."""
    from leafdb.sim.membership_measure import MISSED_S, quantile

    item: dict[str, Any] = {
        "nodes": setting.nodes,
        "loss": setting.loss,
        "stalled": setting.stalled,
        "seed": setting.seed,
        "crashes": len(found),
        "missed": sum(each.known_s >= MISSED_S for each in found),
        "detection_s": {},
        "node_hours": 0.0,
        "false_deaths": [],
    }
    if found:
        item["detection_s"] = {
            name: {label: round(quantile([getattr(each, field) for each in found], q), 2) for q, label in QUANTILES}
            for name, field in (("suspected", "suspected_s"), ("dead", "dead_s"), ("known_to_all", "known_s"))
        }
    if watched is not None:
        item.update(
            node_hours=watched.node_hours,
            messages=watched.sent,
            suspicions=watched.suspicions,
            suspicions_of_stalled=watched.suspicions_of_stalled,
            deserved_deaths=watched.deserved,
            false_deaths=[
                {"at_s": round(each.when, 3), "observer": each.observer, "victim": each.about} for each in watched.false
            ],
        )
    return item


def _print(session: Session, item: dict[str, Any]) -> None:
    out = session.output.out
    out.write(f"{item['nodes']} nodes, {item['loss']:.0%} of the messages lost, {item['stalled']} nodes stall")
    out.write(f", seed {item['seed']}, {item['cpu_s']} s of CPU\n")
    if item["crashes"]:
        out.write(f"\n{item['crashes']} crashes, {item['missed']} not found; seconds until\n\n")
        rows = [{"until": name.replace("_", " "), **values} for name, values in item["detection_s"].items()]
        columns = [Column("until", "it is"), *(Column(label, right=True) for _, label in QUANTILES)]
        session.output.items("SimDetector", rows, columns)
    if item["node_hours"]:
        per_hour = item["suspicions"] / item["node_hours"]
        out.write(
            f"\n{item['node_hours']:g} node-hours without a crash: {len(item['false_deaths'])} false deaths, "
            f"{item['deserved_deaths']} of nodes that stood still,\n"
            f"{per_hour:.1f} suspicions of steady nodes per node-hour, "
            f"{item['messages'] / item['node_hours'] / 3600:.1f} messages a node and second\n"
        )
        for each in item["false_deaths"]:
            out.write(f"  at {each['at_s']} s node {each['observer']} called node {each['victim']} dead\n")
    out.flush()
