"""Where `leafdbd`'s lines go: stderr, one JSON object each, or a form for people on a terminal.

Part of the server extra: structlog is met here and nowhere else. Nothing is rotated or written to files; that is the
business of journald or whoever started the process. Bytes are shown in hex; values are never
logged, and keys by a hash only unless `log.show_keys` says otherwise (`request_times`).
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import IO, Any

import structlog

from leafdb.node.logs import ROOT, RepeatFilter, set_level


def configure(level: str, form: str, stream: IO[str], **facts: str) -> None:
    """Send every line of leafdb to `stream`. `facts` stand in every line (the node's name).

    Called again it replaces what it did before. `form` is "auto", "json" or "console".
    """
    console = form == "console" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.addFilter(RepeatFilter())
    handler.setFormatter(_formatter(console, stream, facts))
    for name in (ROOT, "trio", "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
    logging.captureWarnings(True)
    set_level(level)


def _formatter(console: bool, stream: IO[str], facts: dict[str, str]) -> logging.Formatter:
    renderer: Any
    if console:
        colors = stream.isatty()
        renderer = structlog.dev.ConsoleRenderer(
            colors=colors, timestamp_key="ts", exception_formatter=structlog.dev.plain_traceback, pad_event_to=30
        )
        errors: list[Any] = []
    else:
        renderer = structlog.processors.JSONRenderer(default=_plain, ensure_ascii=False)
        errors = [structlog.processors.format_exc_info]

    def always(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**facts, **event}

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            always,
            _spread_facts,
        ],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *errors, renderer],
    )


def _spread_facts(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Facts become fields. One that takes a field's own name gets an underscore rather than hiding it."""
    record = event.get("_record")
    for name, value in getattr(record, "facts", {}).items():
        event[f"{name}_" if name in event else name] = value.hex() if isinstance(value, bytes) else value
    return event


def _plain(value: object) -> str:
    return value.hex() if isinstance(value, bytes | bytearray) else str(value)
