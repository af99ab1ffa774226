"""Progress on stderr: a bar on a terminal, silence elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from leafdb_cli.render import Output

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """One line of progress; without a terminal it only remembers."""

    def __init__(self, progress: Progress | None, task: TaskID | None) -> None:
        self._progress = progress
        self._task = task
        self.done = 0.0

    def move(self, done: float, note: str = "") -> None:
        """So much of the total is done."""
        self.done = done
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, note=note)


@contextmanager
def bar(output: Output, title: str, total: float | None) -> Iterator[Bar]:
    """A bar that runs to `total`, or pulses when nobody knows the total."""
    with bars(output) as make:
        yield make(title, total)


class _Bars:
    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def __call__(self, title: str, total: float | None) -> Bar:
        if self._progress is None:
            return Bar(None, None)
        return Bar(self._progress, self._progress.add_task(title, total=total, note=""))


@contextmanager
def bars(output: Output) -> Iterator[_Bars]:
    """Several bars below one another."""
    if not output.err.isatty():
        yield _Bars(None)
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=output.console(output.err), refresh_per_second=5) as progress:
        yield _Bars(progress)
