"""JSON documents as snapshots: the keys exactly, values where they are the same in every run, else their types.

A leaf is the name of its type unless its key is in STABLE; a value is stable where it was written (it has a dot), not
where it was counted or set. A list is the shapes of its elements, each once; a map
whose keys are names of nodes is the one shape of what they map to. What is null or empty in one run may be there in
another, so it matches anything: a command that never shows a thing proves nothing about it.
"""

from __future__ import annotations

import re
from typing import Any, Final

STABLE: Final = frozenset(
    {
        "apiVersion",
        "kind",
        "bucket",
        "key",
        "sort_key",
        "value",
        "conflict",
        "durability",
        "n",
        "pr",
        "pw",
        "dw",
        "sloppy",
    }
)
NODE: Final = re.compile(r"dev-\d+")
ANY: Final[tuple[Any, ...]] = (None, [], {})


def shape(value: Any, key: str = "") -> Any:
    """What of a document is the same in every run."""
    match value:
        case dict():
            named = {NODE.sub("NODE", name): inner for name, inner in value.items()}
            loose = () if "dot" in value else ("value",)
            return {name: shape(inner, "" if name in loose else name) for name, inner in sorted(named.items())}
        case list():
            found: list[Any] = []
            for each in value:
                one = shape(each)
                if not any(difference(one, other) == [] for other in found):
                    found.append(one)
            return found
        case None:
            return None
        case _ if key in STABLE:
            return value
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case _:
            return "text"


def difference(was: Any, now: Any, where: str = "$") -> list[str]:
    """Where two shapes differ, in words; empty when they are alike."""
    if was in ANY or now in ANY:
        return []
    if isinstance(was, dict) and isinstance(now, dict):
        lines = [f"{where}.{name} is gone" for name in was if name not in now]
        lines += [f"{where}.{name} is new" for name in now if name not in was]
        return lines + [
            line for name in was if name in now for line in difference(was[name], now[name], f"{where}.{name}")
        ]
    if isinstance(was, list) and isinstance(now, list):
        strangers = [each for each in now if not any(difference(each, other) == [] for other in was)]
        return difference(was[0], strangers[0], f"{where}[]") if strangers else []
    return [] if was == now else [f"{where} was {was!r} and is {now!r}"]
