"""A tracer that remembers its spans, made of opentelemetry-api alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, TraceFlags


class RecordedSpan:
    """One span, with what was said of it."""

    def __init__(self, name: str, kind: SpanKind, context: SpanContext, parent: SpanContext | None) -> None:
        self.name = name
        self.kind = kind
        self.parent = parent
        self.attributes: dict[str, Any] = {}
        self.status: Status | None = None
        self.ended = 0
        self._context = context

    def get_span_context(self) -> SpanContext:
        return self._context

    def end(self, end_time: int | None = None) -> None:
        self.ended += 1

    def set_attributes(self, attributes: Any) -> None:
        self.attributes.update(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value

    def set_status(self, status: Any, description: str | None = None) -> None:
        self.status = status

    def update_name(self, name: str) -> None:
        self.name = name

    def is_recording(self) -> bool:
        return not self.ended

    def add_event(self, *_: Any, **__: Any) -> None:
        raise AssertionError("spans of leafdb have no events")

    def record_exception(self, *_: Any, **__: Any) -> None:
        raise AssertionError("an exception's text may have keys in it")


Span.register(RecordedSpan)  # not a base: where the package is missing, nothing could be derived from it


class Recorder:
    """Provider and tracer in one."""

    def __init__(self) -> None:
        self.spans: list[RecordedSpan] = []
        self._numbers = itertools.count(1)

    @property
    def provider(self) -> Any:
        """As whoever wants a TracerProvider takes it."""
        return self

    def get_tracer(self, *_: Any, **__: Any) -> Any:
        return self

    def start_span(self, name: str, context: Any = None, kind: Any = SpanKind.INTERNAL, attributes: Any = None,
                   *_: Any, **__: Any) -> RecordedSpan:  # fmt: skip
        parent = trace.get_current_span(context).get_span_context()
        trace_id = parent.trace_id if parent.is_valid else 0xABC0 + next(self._numbers)
        own = SpanContext(trace_id, 0xF00 + next(self._numbers), is_remote=False, trace_flags=TraceFlags(1))
        span = RecordedSpan(name, kind, own, parent if parent.is_valid else None)
        span.set_attributes(attributes or {})
        self.spans.append(span)
        return span

    @contextmanager
    def start_as_current_span(self, name: str, context: Any = None, kind: Any = SpanKind.INTERNAL,
                              attributes: Any = None, *_: Any, **__: Any) -> Iterator[RecordedSpan]:  # fmt: skip
        span = self.start_span(name, context, kind, attributes)
        recorded: Any = span  # as much of a Span as is looked at
        with trace.use_span(recorded, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield span
