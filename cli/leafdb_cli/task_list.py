"""Long jobs of all kinds as one list: what each is called, how far it is, what can be done about it. Pure.

    repair/NODE/NUMBER                            comparing replicas
    flush|compact|verify/NODE/NUMBER              of a node's store
    transfer/PLAN_ID                              the copies of a ring change, all nodes together

A name is what is typed to show, wait for or cancel it. Backups are no tasks: whoever makes one is its own process.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from leafdb_cli.render import Column, human_seconds
from leafdb_cli.storage_view import progress_text
from leafdb_cli.transfer_progress import line_of, plan_of

Line = Mapping[str, Any]

TRANSFER: Final = "transfer"
ENDED: Final = frozenset({"done", "failed", "cancelled"})
STYLES: Final = {"running": "green", "waiting": "yellow", "failed": "bold red"}
PLAN_DIGITS: Final = 12

_NAME: Final = re.compile(r"(repair|flush|compact|verify)/([^/]+)/([0-9]{1,18})|transfer/([0-9a-f]{12,32})")


def share_text(share: float | None) -> str:
    """How much is done."""
    return "-" if share is None else f"{100 * share:.0f} %"


COLUMNS: Final = [
    Column("id"),
    Column("state", style=lambda state: STYLES.get(str(state), "")),
    Column("share", "done", share_text, right=True),
    Column("eta_s", "left", human_seconds, right=True, spare=2),
    Column("what", spare=1),
]


def is_task_name(text: str) -> bool:
    """Whether it has the form of one."""
    return _NAME.fullmatch(text) is not None


def task_items(repairs: Sequence[Line], storage: Sequence[Line], transfer: Line | None) -> list[dict[str, Any]]:
    """Every job that the nodes tell of: those that go on before those that have ended."""
    items = [*_transfers(transfer), *map(_of_repair, repairs), *map(_of_storage, storage)]
    return sorted(items, key=lambda item: item["state"] in ENDED)


def found(items: Sequence[Line], name: str) -> Line | None:
    """The task of this name; a plan may be named by more of its digits."""
    for item in items:
        if item["id"] == name or (item["kind"] == TRANSFER and name.startswith(item["id"])):
            return item
    return None


def _transfers(reply: Line | None) -> Iterator[dict[str, Any]]:
    if reply is None or not plan_of(reply):
        return
    receivers = reply["items"]
    left, total = (sum(int(item[field]) for item in receivers) for field in ("left", "total"))
    etas = [float(item["eta_s"]) for item in receivers if item.get("eta_s") is not None]
    yield {
        "id": f"{TRANSFER}/{plan_of(reply)[:PLAN_DIGITS]}",
        "kind": TRANSFER,
        "node": None,
        "state": "running",
        "share": round(1 - left / total, 4) if total else None,
        "eta_s": max(etas, default=None),
        "what": line_of(reply),
        "waiting_for": {},
        "error": "",
        "cancellable": False,
    }


def _of_repair(line: Line) -> dict[str, Any]:
    total, done = int(line["partitions_total"]), int(line["partitions_done"])
    return {
        "id": f"repair/{line['node']}/{line['task']}",
        "kind": "repair",
        "node": line["node"],
        "state": line["state"],
        "share": round(done / total, 4) if total else None,
        "eta_s": line["eta_s"],
        "what": line["reason"],
        "waiting_for": dict(line["waiting_for"]),
        "error": line["last_error"],
        "cancellable": bool(line["asked"]) and line["state"] not in ENDED,
    }


def _of_storage(line: Line) -> dict[str, Any]:
    return {
        "id": f"{line['kind']}/{line['node']}/{line['task']}",
        "kind": line["kind"],
        "node": line["node"],
        "state": line["state"],
        "share": _share_of(line),
        "eta_s": None,
        "what": progress_text(line),
        "waiting_for": {},
        "error": line["error"],
        "cancellable": line["kind"] == "verify" and line["state"] not in ENDED,
    }


def _share_of(line: Line) -> float | None:
    """How much of a store's task is done, where it can be said."""
    if line["state"] == "done":
        return 1.0
    part, whole = ("bytes_read", "bytes_total") if line["kind"] == "verify" else ("trees", "trees_total")
    return round(int(line[part]) / int(line[whole]), 4) if line.get(whole) else None


def detail_lines(item: Line) -> list[str]:
    """What a table has no room for."""
    lines = [f"{item['id']} waits for {name}: {why}" for name, why in item["waiting_for"].items()]
    return [*lines, *([f"{item['id']}: the last error: {item['error']}"] if item["error"] else [])]
