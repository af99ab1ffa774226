"""The pages for machines that watch: /livez, /readyz, /healthz, /metrics. HTTP/1.1, GET only, everything bounded.

    /livez              200 while the event loop turns. Never depends on other nodes: a partition must not restart all.
    /readyz             200 when requests are taken: joined, ring loaded, not draining. Else 503 and the reason.
    /healthz            200 when every check is fine, else 503 and the names of those that are not; ?verbose: JSON.
    /metrics            Prometheus text, where the server extra is installed.

Four pages do not need a framework. What a stranger can do is hold one of CONNECTIONS_MAX connections for a few seconds:
a head must arrive whole within HEAD_TIMEOUT_S however slowly it trickles, an answer must be taken within
SEND_TIMEOUT_S, and a connection ends after REQUESTS_MAX. A connection's fault is its own: `handle` raises nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final, NamedTuple, Protocol

import trio

from leafdb.node.http_request import Refused, Request, parse_head, refusal, render, split_head
from leafdb.node.logs import Log

CONNECTIONS_MAX: Final = 64
REQUESTS_MAX: Final = 1_000
HEAD_TIMEOUT_S: Final = 10.0
IDLE_TIMEOUT_S: Final = 60.0
SEND_TIMEOUT_S: Final = 10.0
LINGER_TIMEOUT_S: Final = 1.0
LINGER_BYTES_MAX: Final = 1 << 20
RECEIVE_BYTES: Final = 4_096

TEXT: Final = "text/plain; charset=utf-8"
METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
JSON: Final = "application/json"

log: Log = Log("http")


class Check(NamedTuple):
    """One fact about the node's health."""

    name: str
    ok: bool
    detail: str = ""


class HealthSource(Protocol):
    """What the node says of itself. All three are called on the event loop and must be quick."""

    def live(self) -> bool:
        """The node's own machinery turns: no quorum, no peer in it."""

    def ready(self) -> tuple[bool, str]:
        """Whether requests are taken, and if not, why not."""

    def checks(self) -> Sequence[Check]:
        """Everything that can be wrong, with how it stands."""


class Answer(NamedTuple):
    """A page."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT


class HttpPages:
    """Serves the pages on any stream. `metrics` renders /metrics; without it there is no such page."""

    def __init__(self, health: HealthSource, metrics: Callable[[], bytes] | None = None) -> None:
        self._health = health
        self._metrics = metrics
        self._open = 0

    @property
    def connections(self) -> int:
        """Open at the moment."""
        return self._open

    async def handle(self, stream: trio.abc.Stream) -> None:
        """One connection from beginning to end; for `trio.serve_listeners`."""
        try:
            if self._open >= CONNECTIONS_MAX:
                busy = Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections")
                await _send(stream, refusal(busy))
                return
            self._open += 1
            try:
                await self._converse(stream)
            finally:
                self._open -= 1
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, OSError):
            pass  # the other side is gone or might as well be
        except Exception as error:
            log.error("http connection failed", error=error)
        finally:
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.Stream) -> None:
        buffer = bytearray()
        for number in range(1, REQUESTS_MAX + 1):
            try:
                head = await _next_head(stream, buffer, HEAD_TIMEOUT_S if number == 1 else IDLE_TIMEOUT_S)
                if head is None:
                    return
                request = parse_head(head)
            except Refused as refused:
                await _send(stream, refusal(refused))
                await _linger(stream)
                return
            answer = self._answer(request)
            keep_alive = request.keep_alive and number < REQUESTS_MAX
            await _send(stream, render(answer.status, answer.body, answer.content_type, keep_alive=keep_alive))
            if not keep_alive:
                await _linger(stream)
                return

    def _answer(self, request: Request) -> Answer:
        try:
            match request.path:
                case "/livez":
                    return _verdict(self._health.live(), "the node does not make progress")
                case "/readyz":
                    return _verdict(*self._health.ready())
                case "/healthz":
                    return self._healthz(verbose=request.query.partition("=")[0] == "verbose")
                case "/metrics" if self._metrics is not None:
                    return Answer(HTTPStatus.OK, self._metrics(), METRICS)
                case _:
                    return Answer(HTTPStatus.NOT_FOUND, b"pages: /livez /readyz /healthz?verbose /metrics\n")
        except Exception as error:
            log.error("http page failed", error=error, page=request.path[:64])
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, b"this page failed; the log says why\n")

    def _healthz(self, *, verbose: bool) -> Answer:
        checks = self._health.checks()
        bad = [check.name for check in checks if not check.ok]
        status = HTTPStatus.SERVICE_UNAVAILABLE if bad else HTTPStatus.OK
        if not verbose:
            return Answer(status, f"failing: {', '.join(bad)}\n".encode() if bad else b"ok\n")
        ready, reason = self._health.ready()
        page = {
            "healthy": not bad,
            "live": self._health.live(),
            "ready": ready,
            "reason": reason,
            "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks],
        }
        return Answer(status, json.dumps(page, indent=2).encode() + b"\n", JSON)


def _verdict(good: bool, reason: str) -> Answer:
    if good:
        return Answer(HTTPStatus.OK, b"ok\n")
    return Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{reason}\n".encode())


async def _next_head(stream: trio.abc.Stream, buffer: bytearray, idle_s: float) -> bytes | None:
    """The next request's head; None when the other side has no more, or is silent too long between two requests."""
    found = split_head(buffer)
    with trio.move_on_after(HEAD_TIMEOUT_S if buffer else idle_s) as scope:
        while found is None:
            data = await stream.receive_some(RECEIVE_BYTES)
            if not data:
                return None
            if not buffer:
                scope.deadline = trio.current_time() + HEAD_TIMEOUT_S
            buffer += data
            found = split_head(buffer)
    if found is None:
        if buffer:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, f"the request did not arrive within {HEAD_TIMEOUT_S:.0f} s")
        return None
    head, rest = found
    del buffer[:rest]
    return head


async def _send(stream: trio.abc.Stream, data: bytes) -> None:
    with trio.fail_after(SEND_TIMEOUT_S):
        await stream.send_all(data)


async def _linger(stream: trio.abc.Stream) -> None:
    """Read what is still coming for a moment: closing on unread bytes would reset the connection over our answer."""
    if isinstance(stream, trio.abc.HalfCloseableStream):
        await stream.send_eof()
    left = LINGER_BYTES_MAX
    with trio.move_on_after(LINGER_TIMEOUT_S):
        while left > 0:
            data = await stream.receive_some(RECEIVE_BYTES)
            if not data:
                return
            left -= len(data)
