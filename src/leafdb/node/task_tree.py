"""What every task of the process is doing, as text: who started it and the line it waits at. For SIGUSR1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import trio

TASKS_MAX: Final = 1_000
"""Lines beyond are counted, not written: a node with ten thousand sessions must stay able to say so."""


def render() -> str:
    """The tree of tasks, one line each, of the loop that calls; children stand under the holder of their nursery."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    lines: list[str] = []
    left_out = 0
    for depth, task in _walk(root):
        if len(lines) < TASKS_MAX:
            lines.append(f"{'  ' * depth}{task.name} {_place(task)}")
        else:
            left_out += 1
    if left_out:
        lines.append(f"and {left_out} more")
    return "\n".join(lines)


def _walk(root: trio.lowlevel.Task) -> Iterator[tuple[int, trio.lowlevel.Task]]:
    waiting = [(0, root)]
    while waiting:
        depth, task = waiting.pop()
        yield depth, task
        children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        waiting += [(depth + 1, child) for child in sorted(children, key=lambda child: child.name, reverse=True)]


def _place(task: trio.lowlevel.Task) -> str:
    """The innermost line of our own the task waits at, or the innermost of all."""
    place = "(running)"
    code: Any = task.coro
    while code is not None:
        frame = getattr(code, "cr_frame", None) or getattr(code, "gi_frame", None)
        if frame is None:
            break
        where = f"at {frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno} in {frame.f_code.co_name}"
        if "/trio/" not in frame.f_code.co_filename or place == "(running)":
            place = where
        code = getattr(code, "cr_await", None) or getattr(code, "gi_yieldfrom", None)
    return place
