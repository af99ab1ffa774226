"""How the node says something: an event and its facts, through the standard library's logging.

    log = Log("gossip")
    log.warning("peer suspected", peer=name, after_s=2.0)

No structlog here, so that an embedded node needs no extra and its host application decides where lines go: without a
handler of its own nothing below WARNING is shown. `log_output` gives the server its JSON lines.

A node in trouble says the same thing a thousand times a second. `RepeatFilter` lets the first few of each event through
and then one a while, with the number left out.
"""

from __future__ import annotations

import logging
from typing import Any, Final

ROOT: Final = "leafdb"
AUDIT: Final = f"{ROOT}.audit"
"""The logger of the audit log (`audit`), whose lines are all written."""
EVENTS_REMEMBERED_MAX: Final = 1_024
LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Log:
    """A logger for one part of the node. A disabled level costs one check."""

    __slots__ = ("_logger",)

    def __init__(self, part: str) -> None:
        self._logger = logging.getLogger(f"{ROOT}.{part}")

    def debug(self, event: str, /, **facts: Any) -> None:
        """For whoever hunts a bug."""
        if self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug(event, extra={"facts": facts})

    def info(self, event: str, /, **facts: Any) -> None:
        """Something an operator may want to know."""
        if self._logger.isEnabledFor(logging.INFO):
            self._logger.info(event, extra={"facts": facts})

    def warning(self, event: str, /, **facts: Any) -> None:
        """Something that deserves a look and mends itself or waits."""
        self._logger.warning(event, extra={"facts": facts})

    def error(self, event: str, /, *, error: BaseException | None = None, **facts: Any) -> None:
        """Something is wrong; `error` brings its traceback."""
        self._logger.error(event, exc_info=error, extra={"facts": facts})


def set_level(level: str) -> None:
    """Change what is written from now on: a name of LEVELS."""
    logging.getLogger(ROOT).setLevel(LEVELS[level])


def level() -> str:
    """What is written now, by the name of the least important."""
    threshold = logging.getLogger(ROOT).getEffectiveLevel()
    return next((name for name, number in LEVELS.items() if number >= threshold), "error")


def lines_left_out() -> RepeatFilter:
    """The filter of this process's lines, which counts those it does not let through; one that counts nothing where
    the host application decides."""
    filters = [each for handler in logging.getLogger(ROOT).handlers for each in handler.filters]
    return next((each for each in filters if isinstance(each, RepeatFilter)), RepeatFilter())


class RepeatFilter(logging.Filter):
    """Lets `burst` lines of one event through per `window_s`; the next one let through says how many were not.

    One event is one message of one logger; its facts do not matter. Time is that of the record, so nothing here reads
    a clock.
    """

    def __init__(self, burst: int = 5, window_s: float = 10.0) -> None:
        super().__init__()
        assert burst > 0
        assert window_s > 0
        self._burst = burst
        self._window_s = window_s
        self.left_out_total: int = 0
        self._seen: dict[tuple[str, str], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written. Adds the fact `left_out` to one that follows a silence."""
        if record.name == AUDIT:
            return True
        key = (record.name, str(record.msg))
        window = self._seen.get(key)
        if window is None:
            if len(self._seen) >= EVENTS_REMEMBERED_MAX:
                del self._seen[next(iter(self._seen))]
            window = self._seen[key] = _Window(record.created)
        if not 0.0 <= record.created - window.began < self._window_s:
            if window.left_out:
                record.facts = {**getattr(record, "facts", {}), "left_out": window.left_out}
            window.began = record.created
            window.shown = window.left_out = 0
        if window.shown < self._burst:
            window.shown += 1
            return True
        window.left_out += 1
        self.left_out_total += 1
        return False

    def check(self) -> None:
        """The memory is bounded and no window has shown more than it may."""
        assert len(self._seen) <= EVENTS_REMEMBERED_MAX
        assert all(0 <= window.shown <= self._burst and window.left_out >= 0 for window in self._seen.values())


class _Window:
    __slots__ = ("began", "left_out", "shown")

    def __init__(self, began: float) -> None:
        self.began = began
        self.shown = 0
        self.left_out = 0
