"""Spans of what a client does, for OpenTelemetry: `traced(db)` makes them, and nothing here is loaded before.

    import leafdb
    from leafdb.client.tracing import traced

    db = traced(leafdb.connect("leafdb://127.0.0.1:7411"))

Each put, get and delete, and each batch of them, is one span of kind CLIENT, named "operation bucket", with the
attributes of the stable conventions for databases (db.system.name, db.operation.name, db.collection.name, error.type).
Keys and values are in none of them. A put or get carries its span to the node (wire/traced.py), whose own span is then
its child. Retries and hedges are inside the one span: they are what the call took.

Only opentelemetry-api is used (`leafdb[otel]`): without an SDK the program has configured, spans are not recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar, cast

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from leafdb.client.anyio_driver import AnyioDriver
from leafdb.client.async_client import AsyncClient
from leafdb.client.blocking_driver import BlockingDriver
from leafdb.client.call import Begun, KeyCall
from leafdb.client.effects import Exchange, Operation
from leafdb.client.results import Failed
from leafdb.client.sync_client import Client
from leafdb.wire.frame import Frame
from leafdb.wire.registry import MessageType
from leafdb.wire.traced import INSIDE, TraceContext, encode_traced

T = TypeVar("T")
AnyClient = TypeVar("AnyClient", Client, AsyncClient)

SCOPE: Final = "leafdb"
SYSTEM: Final = "leafdb"


def traced(client: AnyClient, tracer_provider: TracerProvider | None = None) -> AnyClient:
    """The same client, which makes spans from now on; handles made before do not. `tracer_provider`: instead of the
    program's own."""
    spans = _Spans(trace.get_tracer(SCOPE, tracer_provider=tracer_provider))
    if isinstance(client, AsyncClient):
        client._driver = cast(AnyioDriver, _AsyncDriver(client._driver, spans))
    else:
        client._driver = cast(BlockingDriver, _SyncDriver(client._driver, spans))
    return client


class _Spans:
    """Makes the spans of one client."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    @contextmanager
    def of(self, operation: str, bucket: str = "") -> Iterator[Span]:
        """One call, from its beginning to its end, whichever that is."""
        name = f"{operation} {bucket}" if bucket else operation
        attributes = {"db.system.name": SYSTEM, "db.operation.name": operation}
        if bucket:
            attributes["db.collection.name"] = bucket
        with self._tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise


class _SyncDriver:
    """In place of a driver: does what it does, in spans."""

    def __init__(self, driver: BlockingDriver, spans: _Spans) -> None:
        self._driver = driver
        self._spans = spans

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def run_key(self, call: KeyCall[T]) -> T:
        """One call about a key, which carries its span along."""
        with self._spans.of(*_words_of(call)) as span:
            return self._driver.run_key(_Carried(call, span))

    def run_all(self, operations: Iterable[Operation[T]]) -> list[T | Failed]:
        """Many operations, in one span."""
        with self._spans.of("batch"):
            return self._driver.run_all(operations)


class _AsyncDriver:
    """The same of the asynchronous driver."""

    def __init__(self, driver: AnyioDriver, spans: _Spans) -> None:
        self._driver = driver
        self._spans = spans

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    async def run_key(self, call: KeyCall[T]) -> T:
        """One call about a key, which carries its span along."""
        with self._spans.of(*_words_of(call)) as span:
            return await self._driver.run_key(_Carried(call, span))

    async def run_all(self, operations: Iterable[Operation[T]]) -> list[T | Failed]:
        """Many operations, in one span."""
        with self._spans.of("batch"):
            return await self._driver.run_all(operations)


class _Carried(Generic[T]):
    """A call whose exchanges say to which span they belong."""

    def __init__(self, call: KeyCall[T], span: Span) -> None:
        self._call = call
        self._trace = _context_of(span)

    @property
    def reply_type(self) -> int:
        """What answers it."""
        return self._call.reply_type

    def begin(self) -> Exchange | None:
        """The first exchange."""
        exchange = self._call.begin()
        return None if exchange is None else self._carrying(exchange)

    def finish(self, frame: Frame, /) -> T:
        """The result that an answer is."""
        return self._call.finish(frame)

    def steps(self, begun: Begun | None = None, /) -> Operation[T]:
        """All of it."""
        inner = self._call.steps(begun)
        try:
            effect = next(inner)
            while True:
                try:
                    frame = yield self._carrying(effect) if isinstance(effect, Exchange) else effect
                except Exception as failure:
                    effect = inner.throw(failure)
                else:
                    effect = inner.send(frame)
        except StopIteration as stop:
            value: T = stop.value
            return value
        finally:
            inner.close()

    def _carrying(self, exchange: Exchange) -> Exchange:
        message_type = exchange.message_type
        if self._trace is None or not exchange.node.traces or message_type not in INSIDE:
            return exchange
        body = encode_traced(self._trace, message_type, exchange.body)
        return exchange._replace(message_type=MessageType.TRACED, body=body)


def _context_of(span: Span) -> TraceContext | None:
    """What of a span travels; None of one that nobody records."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return TraceContext(context.trace_id.to_bytes(16), context.span_id.to_bytes(8), int(context.trace_flags))


def _words_of(call: KeyCall[T]) -> tuple[str, str]:
    """Operation and bucket of a call about a key."""
    ref = getattr(call, "ref", None)
    message = "put" if call.reply_type in (MessageType.PUT_REPLY, MessageType.PUT_EXPLAINED) else "get"
    return message, "" if ref is None else str(ref.name)
