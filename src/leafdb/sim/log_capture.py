"""What nodes say while they are simulated: into the trace instead of onto the terminal, and counted.

All nodes of a run share one process and so the loggers of `leafdb.node.logs`. Which of them speaks is known by the task
that speaks: `stage.NODE` is set where a node is started, and every task it starts inherits it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from leafdb.node.logs import ROOT
from leafdb.sim.stage import NODE
from leafdb.sim.trace import Trace


class Captured(logging.Handler):
    """Counts lines by their event, and feeds them to a trace."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace
        self.events: Counter[str] = Counter()
        """Lines, by event."""
        self.facts: Counter[tuple[str, str]] = Counter()
        """Facts that were told as true or not zero, by event and name of the fact."""

    def emit(self, record: logging.LogRecord) -> None:
        """As logging wants it."""
        event = str(record.msg)
        facts = getattr(record, "facts", {})
        self.events[event] += 1
        for name, value in facts.items():
            if value:
                self.facts[event, name] += 1
        told = " ".join(f"{name}={value}" for name, value in facts.items())
        self._trace.tell(NODE.get(), f"{event} {told}".rstrip())


@contextmanager
def captured_logs(trace: Trace) -> Iterator[Captured]:
    """While this lasts, nothing that nodes log goes anywhere else."""
    logger = logging.getLogger(ROOT)
    before = logger.handlers[:], logger.level, logger.propagate
    captured = Captured(trace)
    logger.handlers[:], logger.propagate = [captured], False
    logger.setLevel(logging.INFO)
    try:
        yield captured
    finally:
        logger.handlers[:], logger.propagate = before[0], before[2]
        logger.setLevel(before[1])
