"""How stores look to a person: what is in them, how far a task is, what is damaged and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from leafdb_cli.render import Column, bytes_fields, human_bytes, human_seconds

Line = Mapping[str, Any]

TREE_COLUMNS: Final = [
    Column("node"), Column("tree"), Column("levels", "tables by level"),
    Column("bytes", "size", human_bytes, right=True),
    Column("entries", right=True, spare=1), Column("tombstones", right=True, spare=2),
]  # fmt: skip
TASK_COLUMNS: Final = [
    Column("node"), Column("kind", "task"), Column("state"), Column("progress"),
    Column("elapsed_s", "for", human_seconds, right=True, spare=1), Column("error", spare=2),
]  # fmt: skip
BEGUN_COLUMNS: Final = [Column("node"), Column("task", right=True)]
LEVEL_FIELDS: Final = ("level", "tables", "bytes", "entries", "tombstones")


def store_items(nodes: Mapping[str, Line]) -> list[dict[str, Any]]:
    """A store each, as JSON has it."""
    return [
        {
            "node": name,
            **store,
            "trees": [
                {**tree, "levels": [dict(zip(LEVEL_FIELDS, level, strict=False)) for level in tree["levels"]]}
                for tree in store["trees"]
            ],
        }
        for name, store in nodes.items()
    ]


def tree_rows(stores: Iterable[Line]) -> list[dict[str, Any]]:
    """A row of the table for each tree that has tables."""
    return [
        {
            "node": store["node"],
            "tree": tree["tree"],
            "levels": " ".join(f"L{level['level']}:{level['tables']}" for level in tree["levels"]),
            "bytes": tree["bytes"],
            "entries": sum(level["entries"] for level in tree["levels"]),
            "tombstones": sum(level["tombstones"] for level in tree["levels"]),
        }
        for store in stores
        for tree in store["trees"]
        if tree["levels"]
    ]


def store_text(store: Line) -> Iterator[str]:
    """What is no tree: one line of figures, and one for each thing to know."""
    name = store["node"]
    if store["more_trees"]:
        yield f"{name}: and {store['more_trees']} more trees with {human_bytes(store['more_bytes'])}"
    looked = store["cache_hits"] + store["cache_misses"]
    hits = f"{100 * store['cache_hits'] / looked:.0f} % of {looked}" if looked else "none yet"
    memory = store["memtable_bytes"] + store["frozen_bytes"]
    yield (
        f"{name}: {human_bytes(memory)} in memory, log {human_bytes(store['wal_bytes'])} in {store['wal_segments']} "
        f"segments, cache {human_bytes(store['cache_bytes'])}, hits {hits}, "
        f"{human_bytes(store['disk_free_bytes'])} free"
    )
    if running := store["compacting"]:
        asked = "as somebody asked" if running["asked"] else "as is due"
        yield (
            f"{name}: compacts {running['tree']} to level {running['level']}, {asked}: {running['tables']} tables, "
            f"{human_bytes(running['bytes'])}, for {human_seconds(running['elapsed_s'])}, "
            f"in {running['share']:.0%} of the time"
        )
    if store.get("dropped_tables"):
        size = human_bytes(store["dropped_bytes"])
        yield f"{name}: dropped whole, since all of it had expired: {store['dropped_tables']} tables, {size}"
    if store["debt_bytes"]:
        yield f"{name}: compaction is behind by {human_bytes(store['debt_bytes'])}"
    if store["slowed"]:
        yield f"! {name}: writes are slowed ({store['slowed']:.0%}): flushes and compactions do not keep up with them"
    if store["disk_full"]:
        yield f"! {name}: its disk is full: it takes no writes"
    if store["failed_jobs"]:
        yield f"! {name}: {store['failed_jobs']} flushes or compactions failed since it started: its log says why"


def task_items(tasks: Iterable[Line]) -> list[dict[str, Any]]:
    """Tasks as JSON has them: keys are text or base64."""
    items = []
    for task in tasks:
        item = dict(task)
        if "damages" in task:
            item["damages"] = [
                {
                    **{name: value for name, value in damage.items() if name not in ("smallest", "largest")},
                    **bytes_fields("smallest", bytes(damage["smallest"])),
                    **bytes_fields("largest", bytes(damage["largest"])),
                }
                for damage in task["damages"]
            ]
        items.append(item)
    return items


def task_rows(tasks: Iterable[Line]) -> list[dict[str, Any]]:
    """Tasks as the table has them."""
    return [{**task, "progress": progress_text(task)} for task in tasks]


def progress_text(task: Line) -> str:
    """How far a task is."""
    match task["kind"]:
        case "verify" if "files" in task:
            found = f", {task['damages_found']} damaged" if task["damages_found"] else ""
            of = human_bytes(task["bytes_total"])
            return f"{task['files']}/{task['files_total']} files, {human_bytes(task['bytes_read'])} of {of}{found}"
        case "compact" if "trees" in task:
            at = ""
            if task["tree"] and task["state"] == "running":
                at = f", {task['tree']} L{task['level']} in {task['share']:.0%} of the time"
            left = f", {task['skipped']} tables left as they are" if task["skipped"] else ""
            done = f"{task['trees']}/{task['trees_total']} trees, {task['jobs']} jobs"
            return f"{done}, {human_bytes(task['bytes_written'])} written{at}{left}"
        case _:
            return "-"


def damage_text(tasks: Sequence[Line]) -> list[str]:
    """What verifications have found, a sentence each."""
    lines = []
    for task in tasks:
        damages = task.get("damages") or ()
        lines += [f"! {task['node']}: {_damage(damage)}" for damage in damages]
        more = int(task.get("damages_found") or 0) - len(damages)
        if more > 0:
            lines.append(f"! {task['node']}: and {more} damaged places more: its log names the first hundred")
    return lines


def _damage(damage: Line) -> str:
    where = f" in {damage['tree']}" if damage["tree"] else ""
    if damage["partitions"]:
        first, last = damage["partitions"]
        where += f", partition {first}" if first == last else f", partitions {first} to {last}"
    return f"{damage['what']}{where}"
