"""The pages for machines that watch survive whatever a stranger sends, and tell the truth to everybody else."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair

from leafdb.node.http import CONNECTIONS_MAX, Check, HttpPages
from leafdb.node.http_request import HEAD_BYTES_MAX, Refused, parse_head, split_head


class Health:
    """A node whose state a test sets."""

    def __init__(self) -> None:
        self.alive = True
        self.readiness = (True, "")
        self.facts: list[Check] = [Check("disk", True), Check("clock", True, "2 ms")]

    def live(self) -> bool:
        return self.alive

    def ready(self) -> tuple[bool, str]:
        return self.readiness

    def checks(self) -> Sequence[Check]:
        return self.facts


@asynccontextmanager
async def connected(pages: HttpPages) -> AsyncIterator[trio.abc.Stream]:
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pages.handle, theirs)
        yield ours
        await ours.aclose()


async def read_all(stream: trio.abc.Stream) -> bytes:
    data = b""
    while True:
        try:
            more = await stream.receive_some(65_536)
        except trio.BrokenResourceError:
            return data
        if not more:
            return data
        data += more


def ask(pages: HttpPages, request: bytes) -> tuple[int, str]:
    """Send bytes, then the end; the status and the body of the first answer."""

    async def main() -> bytes:
        async with connected(pages) as stream:
            await stream.send_all(request)
            return await read_all(stream)

    answer = trio.run(main, clock=MockClock(autojump_threshold=0))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 "), answer
    return int(head.split()[1]), body.decode()


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def get_once(path: str) -> bytes:
    return get(path, "Connection: close")


def test_livez_and_readyz_follow_the_node() -> None:
    health = Health()
    pages = HttpPages(health)
    assert ask(pages, get_once("/livez")) == (200, "ok\n")
    assert ask(pages, get_once("/readyz")) == (200, "ok\n")
    health.readiness = (False, "draining")
    assert ask(pages, get_once("/readyz")) == (503, "draining\n")
    assert ask(pages, get_once("/livez"))[0] == 200, "liveness does not depend on readiness"
    health.alive = False
    assert ask(pages, get_once("/livez"))[0] == 503


def test_healthz_lists_every_check_as_json() -> None:
    health = Health()
    pages = HttpPages(health)
    assert ask(pages, get_once("/healthz")) == (200, "ok\n")
    health.facts.append(Check("auth", False, "insecure"))
    assert ask(pages, get_once("/healthz")) == (503, "failing: auth\n")
    status, body = ask(pages, get_once("/healthz?verbose"))
    found = json.loads(body)
    assert (status, found["healthy"], found["ready"]) == (503, False, True)
    assert found["checks"][-1] == {"name": "auth", "ok": False, "detail": "insecure"}
    assert json.loads(ask(pages, get_once("/healthz?verbose=1"))[1]) == found


def test_metrics_are_there_when_the_server_brings_them() -> None:
    assert ask(HttpPages(Health(), lambda: b"leafdb_x 1\n"), get_once("/metrics")) == (200, "leafdb_x 1\n")
    assert ask(HttpPages(Health()), get_once("/metrics"))[0] == 404
    assert ask(HttpPages(Health()), get_once("/elsewhere"))[0] == 404


def test_a_page_that_fails_is_an_answer_too(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> bytes:
        raise RuntimeError("no")

    assert ask(HttpPages(Health(), broken), get_once("/metrics"))[0] == 500
    assert "http page failed" in caplog.text


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"POST /livez HTTP/1.1\r\n\r\n", 405),
        (b"HEAD /livez HTTP/1.1\r\n\r\n", 405),
        (b"GET /livez HTTP/2.0\r\n\r\n", 505),
        (b"GET /livez\r\n\r\n", 400),
        (b"GET  /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 400),
        (b"GET /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES_MAX, 431),
        (b"GET /" + b"a" * 5_000 + b" HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"*1\r\n$4\r\nPING\r\n", 400),
        (b"\x00" * 100, 400),
        (b"\r\n\r\n", 400),
    ],
)
def test_what_is_no_request_for_us_is_refused(request_bytes: bytes, status: int) -> None:
    assert ask(HttpPages(Health()), request_bytes)[0] == status


def test_connections_are_kept_and_requests_may_follow_closely() -> None:
    async def main() -> bytes:
        async with connected(HttpPages(Health())) as stream:
            await stream.send_all(get("/livez") + get("/readyz") + get_once("/nowhere"))
            return await read_all(stream)

    answer = trio.run(main, clock=MockClock(autojump_threshold=0))
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404"]


def test_http_1_0_closes_unless_asked_otherwise() -> None:
    assert not parse_head(b"GET / HTTP/1.0").keep_alive
    assert parse_head(b"GET / HTTP/1.0\r\nConnection: Keep-Alive").keep_alive
    assert parse_head(b"GET / HTTP/1.1").keep_alive
    assert not parse_head(b"GET / HTTP/1.1\r\nCONNECTION: close").keep_alive


def test_a_trickling_client_is_cut_off() -> None:
    """One byte a second for ever: the whole head has one deadline, not each byte."""

    async def main() -> tuple[bytes, float]:
        began = trio.current_time()
        async with connected(HttpPages(Health())) as stream, trio.open_nursery() as nursery:

            async def trickle() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    for byte in get("/livez", *[f"X-{i}: y" for i in range(100)]):
                        await stream.send_all(bytes([byte]))
                        await trio.sleep(1)

            nursery.start_soon(trickle)
            answer = await read_all(stream)
            return answer, trio.current_time() - began

    answer, took_s = trio.run(main, clock=MockClock(autojump_threshold=0))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert took_s < 15


def test_a_silent_client_is_cut_off_without_a_word() -> None:
    async def main() -> bytes:
        async with connected(HttpPages(Health())) as stream:
            return await read_all(stream)

    assert trio.run(main, clock=MockClock(autojump_threshold=0)) == b""


def test_connections_are_bounded_and_given_back() -> None:
    pages = HttpPages(Health())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            idle = []
            for _ in range(CONNECTIONS_MAX):
                ours, theirs = memory_stream_pair()
                idle.append(ours)
                nursery.start_soon(pages.handle, theirs)
            await trio.testing.wait_all_tasks_blocked()
            assert pages.connections == CONNECTIONS_MAX
            async with connected(pages) as stream:
                assert (await read_all(stream)).startswith(b"HTTP/1.1 503 ")
            for stream in idle:
                await stream.aclose()
            await trio.testing.wait_all_tasks_blocked()
            assert pages.connections == 0

    trio.run(main)


def test_garbage_never_raises_and_never_hangs() -> None:
    rng = random.Random(20261121)
    pages = HttpPages(Health())

    def mutated() -> bytes:
        data = bytearray(get("/healthz?verbose", "Accept: */*"))
        for _ in range(rng.randrange(1, 6)):
            match rng.randrange(3):
                case 0:
                    data[rng.randrange(len(data))] = rng.randrange(256)
                case 1:
                    del data[rng.randrange(len(data)) :]
                    data += b"\r\n"
                case _:
                    at = rng.randrange(len(data))
                    data[at:at] = rng.randbytes(rng.randrange(20))
        return bytes(data)

    async def main() -> None:
        for make in [mutated] * 200 + [lambda: rng.randbytes(rng.randrange(1, 3_000))] * 50:
            async with connected(pages) as stream, trio.open_nursery() as nursery:
                nursery.start_soon(_send_quietly, stream, make)
                answer = await read_all(stream)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
        assert pages.connections == 0

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def _send_quietly(stream: trio.abc.Stream, make: Callable[[], bytes]) -> None:
    with suppress(trio.BrokenResourceError):
        await stream.send_all(make())


def test_over_real_sockets_a_large_head_still_gets_its_answer() -> None:
    """The refusal must not be lost in a reset because we closed on unread bytes."""

    async def main() -> bytes:
        pages = HttpPages(Health())
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, pages.handle, listeners)
            stream = await trio.testing.open_stream_to_socket_listener(listeners[0])
            await _send_quietly(stream, lambda: b"GET /livez HTTP/1.1\r\nX: " + b"a" * 200_000)
            with trio.fail_after(10):
                answer = await read_all(stream)
            nursery.cancel_scope.cancel()
        return answer

    assert trio.run(main).startswith(b"HTTP/1.1 431 ")


def test_a_head_is_found_only_when_whole() -> None:
    request = get("/livez")
    for end in range(len(request)):
        assert split_head(request[:end]) is None
    assert split_head(request + b"more") == (request[:-4], len(request))
    with pytest.raises(Refused):
        split_head(b"a" * HEAD_BYTES_MAX)
