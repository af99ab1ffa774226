"""The load generator: a closed loop on one thread, every connection with one request in flight.

Cheap on purpose, for it shares the machine with what it measures: no client, no threads, frames made once per key where
they do not change, one send and one receive per operation.

It writes as a program that reads before it writes: a put carries the context of the last answer about its key, and no
two puts of one key are in flight at once, so a bucket that keeps siblings keeps none. A latency runs from before the
request is made to after its answer is read.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from typing import Final

from leafdb.client import bare
from leafdb.errors import ConnectFailed, Overloaded, ProtocolError
from leafdb_cli.workloads.connections import IDLE, Connection, Connections, Lane
from leafdb_cli.workloads.distributions import Draw, named, uniform
from leafdb_cli.workloads.histogram import Histogram
from leafdb_cli.workloads.keyspace import Keyspace
from leafdb_cli.workloads.mixes import SCAN_KEYS_MAX, Mix

GET: Final = "get"
PUT: Final = "put"
SCAN: Final = "scan"
MODIFY: Final = "modify"
REDRAWS_MAX: Final = 32
VALUES: Final = 512
DRAIN_S: Final = 5.0
TICK_S: Final = 0.1
PRELOAD_ROUNDS: Final = 5

_GET_HEAD: Final = 8
_PUT_CONTEXT_AT: Final = bare.PUT_REPLY_CONTEXT_AT


class Generator:
    """Runs phases over the same connections, keys and contexts."""

    def __init__(
        self, connections: Connections, bucket: bare.Bucket, keys: Keyspace, value_size: int, rng: Random
    ) -> None:
        self._connections = connections
        self._bucket = bucket
        self._keys = keys
        self._rng = rng
        self._values = [rng.randbytes(value_size) for _ in range(VALUES)]
        self._op_count = rng.getrandbits(62)
        self._choose: Callable[[Lane], tuple[str, int] | None] = lambda lane: None
        self._flying = 0
        self._paused: list[tuple[float, int, Lane]] = []
        self.histogram = Histogram()
        self.errors: Counter[str] = Counter()

    # -- phases

    def preload(self, on_tick: Callable[[int], None]) -> None:
        """Put every key once. `on_tick` hears how many are done."""
        refused: Counter[str] = Counter()
        for _ in range(PRELOAD_ROUNDS):
            left = [iter(share) for share in self._keys.shares_without_context()]

            def choose(lane: Lane, left: list[Iterator[int]] = left) -> tuple[str, int] | None:
                key = next(left[lane.connection.node], None)
                return None if key is None else (PUT, key)

            self._begin(choose)
            while self._flying or self._paused:
                self._turn()
                on_tick(self.histogram.count)
            refused += self.errors
            if not any(self._keys.shares_without_context()):
                return
        raise ConnectFailed(f"not every key could be loaded: {dict(refused)}")

    def run(self, mix: Mix, seconds: float, on_tick: Callable[[int], None]) -> float:
        """Run a mix for so long; how long it was, to the last answer counted. Figures begin anew."""
        self._begin(self._chooser(mix))
        started = now = time.perf_counter()
        until = started + seconds
        while now < until:
            self._turn()
            now = time.perf_counter()
            on_tick(self.histogram.count)
        return now - started

    def drain(self) -> None:
        """Wait for what is in flight, asking for nothing more."""
        self._choose = lambda lane: None
        self._paused.clear()
        until = time.perf_counter() + DRAIN_S
        while self._flying and time.perf_counter() < until:
            self._turn()

    def _begin(self, choose: Callable[[Lane], tuple[str, int] | None]) -> None:
        self.drain()
        self.histogram = Histogram()
        self.errors = Counter()
        self._choose = choose
        now = time.perf_counter()
        for connection in self._connections:
            frames = b"".join(self._next(lane, now) for lane in connection.lanes)
            if frames:
                self._connections.send(connection, frames)

    def _turn(self) -> None:
        self._connections.turn(TICK_S, self._on_answer, self._on_lost)
        if self._paused:
            now = time.perf_counter()
            while self._paused and self._paused[0][0] <= now:
                lane = heapq.heappop(self._paused)[2]
                frame = self._next(lane, now)
                if frame:
                    self._connections.send(lane.connection, frame)

    # -- one request

    def _next(self, lane: Lane, now: float) -> bytes:
        """The lane's next request; nothing when there is none for it."""
        chosen = self._choose(lane)
        if chosen is None:
            lane.key = IDLE
            return b""
        kind, key = chosen
        lane.kind, lane.key, lane.started = kind, key, now
        self._flying += 1
        if kind is GET:
            return self._keys.get_frame(lane.number, key)
        if kind is PUT:
            self._keys.busy[key] = 1
            return self._put(lane, key, self._keys.contexts[key])
        if kind is MODIFY:
            self._keys.busy[key] = 1
            return self._keys.get_frame(lane.number, key)
        return self._bucket.scan(lane.number, self._keys.encoded[key], 1 + int(self._rng.random() * SCAN_KEYS_MAX))

    def _put(self, lane: Lane, key: int, context: bytes) -> bytes:
        self._op_count = count = self._op_count + 1
        op_id = self._keys.tokens[key] + count.to_bytes(8, "big")
        return self._bucket.put(lane.number, self._keys.encoded[key], context, op_id, self._values[count % VALUES])

    def _on_answer(self, lane: Lane, message_type: int, body: bytes, now: float) -> bytes:
        key, kind = lane.key, lane.kind
        if message_type == bare.PUT_REPLY:
            self._keys.contexts[key] = body[_PUT_CONTEXT_AT:]
            self._keys.busy[key] = 0
        elif message_type == bare.GET_REPLY:
            siblings = body[4] << 8 | body[5]
            if kind is MODIFY:
                lane.kind = PUT
                return self._put(lane, key, body[_GET_HEAD : _GET_HEAD + (body[6] << 8 | body[7])])
            if siblings != 1:
                self._odd(key, siblings, body)
        elif message_type != bare.SCAN_REPLY:
            return self._refused(lane, body, now)
        self._flying -= 1
        self.histogram.add(now - lane.started)
        return self._next(lane, now)

    def _odd(self, key: int, siblings: int, body: bytes) -> None:
        """A key that should be there once and is not: missing, or with siblings, whose context ends them."""
        self.errors["missing" if siblings == 0 else "siblings"] += 1
        if siblings and not self._keys.busy[key]:
            self._keys.contexts[key] = bare.found(body)[1]

    def _refused(self, lane: Lane, body: bytes, now: float) -> bytes:
        error = bare.refusal(body)
        if isinstance(error, ProtocolError):
            raise error
        self.errors[str(getattr(error, "reason", "")) or type(error).__name__] += 1
        self._keys.busy[lane.key] = 0
        lane.key = IDLE
        self._flying -= 1
        pause = error.retry_after if isinstance(error, Overloaded) else 0.001
        heapq.heappush(self._paused, (now + pause, id(lane), lane))
        return b""

    def _on_lost(self, connection: Connection) -> None:
        for lane in connection.lanes:
            if lane.key != IDLE:
                self._keys.busy[lane.key] = 0
                lane.key = IDLE
                self.errors["connection lost"] += 1
                self._flying -= 1
        self._paused = [entry for entry in self._paused if entry[2].connection is not connection]
        heapq.heapify(self._paused)
        if not self._connections.by_descriptor:
            raise ConnectFailed("every connection was lost")

    # -- what is asked

    def _chooser(self, mix: Mix) -> Callable[[Lane], tuple[str, int] | None]:
        keys, random = self._keys, self._rng.random
        count = keys.count
        draw = uniform(count, self._rng) if mix.keys == "uniform" else named(mix.keys, count, self._rng, keys.newest)
        edges = list(zip(_running(mix), (GET, PUT, "insert", SCAN, MODIFY), strict=True))
        reads = edges[0][0]
        # The newest key may still be on its way: a read of it would find nothing.
        fresh = mix.keys == "latest"

        def choose(lane: Lane) -> tuple[str, int]:
            point = random()
            if point < reads:
                return GET, pick(lane, draw, fresh)
            kind = next(kind for edge, kind in edges if point < edge)
            if kind == "insert":
                return PUT, keys.append()
            return kind, pick(lane, draw, kind is not SCAN)

        busy, holds, everywhere = keys.busy, keys.holds, keys.everywhere

        def pick(lane: Lane, draw: Draw, free: bool) -> int:
            for _ in range(REDRAWS_MAX):
                key = draw()
                if (everywhere or holds(key, lane.connection.node)) and not (free and busy[key]):
                    return key
            # Nearly every key drawn is being written: take any that is not, so that no two writes of one key meet.
            return next(key for key in range(count) if not busy[key])

        return choose


def _running(mix: Mix) -> Iterator[float]:
    total = 0.0
    for share in (mix.get, mix.put, mix.insert, mix.scan, mix.modify):
        total += share
        yield total if total < 1 - 1e-9 else 2.0
