"""Spans of what a node answers, for OpenTelemetry: of requests that came with a trace (wire/traced.py), and no others.

On when `log.traces` says so; this module, and opentelemetry-api with it (`leafdb[otel]`), is loaded only then. A span
of kind SERVER begins when the request is taken and ends when its answer is given to the session. Who records spans is
the program's affair: `opentelemetry-instrument leafdbd ...` runs a node under an SDK that the environment configures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TracerProvider,
)

from leafdb.node.coordinator import Requester
from leafdb.wire.registry import MessageType
from leafdb.wire.traced import TraceContext

if TYPE_CHECKING:
    from leafdb.node.node import Node

SCOPE: Final = "leafdb"
TYPE_OFFSET: Final = 8
"""Of a frame's type (docs/formats/wire.md)."""


def follower(
    node: Node, tracer_provider: TracerProvider | None = None
) -> Callable[[Requester, TraceContext, int, bytes], Requester]:
    """What a dispatch asks about a request that came with a trace: who is to be answered in place of the session."""
    tracer = trace.get_tracer(SCOPE, node.version, tracer_provider=tracer_provider)

    def follow(session: Requester, context: TraceContext, message_type: int, body: bytes) -> Requester:
        operation = MessageType(message_type).name.lower()
        bucket = node.view.buckets.get(int.from_bytes(body[:4], "big"))
        attributes = {"db.system.name": "leafdb", "db.operation.name": operation, "leafdb.node": node.config.node.name}
        name = operation
        if bucket is not None:
            attributes["db.collection.name"] = bucket.properties.name
            name = f"{operation} {bucket.properties.name}"
        span = tracer.start_span(name, context=_parent(context), kind=SpanKind.SERVER, attributes=attributes)
        return _Answered(session, span)

    return follow


class _Answered:
    """A session whose next answer ends a span."""

    __slots__ = ("_session", "_span")

    def __init__(self, session: Requester, span: Span) -> None:
        self._session = session
        self._span = span

    def send(self, frame: bytes) -> bool:
        """Queue the answer; False when the client is gone or too slow."""
        sent = self._session.send(frame)
        if frame[TYPE_OFFSET] == MessageType.ERROR:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()
        return sent


def _parent(context: TraceContext) -> Context:
    spot = SpanContext(
        int.from_bytes(context.trace_id), int.from_bytes(context.span_id), is_remote=True,
        trace_flags=TraceFlags(context.flags),
    )  # fmt: skip
    return trace.set_span_in_context(NonRecordingSpan(spot))
