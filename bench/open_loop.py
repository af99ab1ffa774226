"""A load that does not wait: puts and gets in turn, each due at its own time whatever became of the ones before.

One thread over raw connections (`workloads.connections`), frames made by `client.bare`: it shares the machine with the
node it measures, and clients with threads of their own would wait for each other more than for the node. A latency runs
from when the request was due. The same connections also run a closed loop, for the node's capacity.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from random import Random
from typing import Final

from leafdb.client import bare
from leafdb.client.connect import connect
from leafdb.errors import LeafdbError
from leafdb_cli.workloads.connections import Connection, Connections, Lane

CONNECTIONS: Final = 16
LANES: Final = 256
"""Requests in flight on a connection; a bound on what can pile up, and an end of the run when it is met."""
KEYS: Final = 20_000
VALUE_BYTES: Final = 100
BUCKET: Final = "pace"
DEADLINE_MS: Final = 10_000
DRAIN_S: Final = 10.0
TURN_S: Final = 0.001
SETTLE_S: Final = 0.05

Latencies = dict[str, list[float]]
"""Seconds, by kind of request: put, get."""


class Load:
    """Makes its bucket, then loads one node, as often as asked. `address` is that of clients."""

    def __init__(self, address: tuple[str, int], seed: int = 0) -> None:
        host, port = address
        with connect(f"leafdb://{host}:{port}", timeout=10.0) as client:
            client.create_bucket(BUCKET, n=1, r=1, w=1, conflict="lww", durability="periodic")
            epoch = bare.Placement(client.admin("ring")).epoch
            reply = client.admin("bucket.get", {"name": BUCKET})
        self._bucket = bare.Bucket(reply, epoch=epoch, r=1, w=1, deadline_ms=DEADLINE_MS)
        self._rng = Random(seed)
        self._keys = [self._bucket.key(f"key-{number}") for number in range(KEYS)]
        self._tokens = [self._bucket.token(key) for key in self._keys]
        self._value = self._rng.randbytes(VALUE_BYTES)
        self._connections = Connections([address], CONNECTIONS, LANES)
        self._asked = self._rng.getrandbits(62)
        self._closed_loop = False
        self._latencies: Latencies = {"put": [], "get": []}
        self._idle: deque[Lane] = deque()

    def open_loop(self, rate: float, seconds: float) -> Latencies:
        """`rate` requests a second."""
        self._begin(closed_loop=False)
        lanes = [each.lanes for each in self._connections]
        self._idle.extend(lane for place in zip(*lanes, strict=True) for lane in place)
        start = time.perf_counter() + SETTLE_S
        asked, count = 0, int(rate * seconds)
        while asked < count:
            now = time.perf_counter()
            while asked < count and (due := start + asked / rate) <= now:
                if not self._idle:
                    raise RuntimeError(f"{CONNECTIONS * LANES} requests wait for an answer: the node is overloaded")
                lane = self._idle.popleft()
                self._connections.send(lane.connection, self._request(lane, due))
                asked += 1
            self._connections.turn(max(0.0, min(TURN_S, due - now)), self._on_answer, self._on_lost)
        self._drain()
        return self._latencies

    def closed_loop(self, seconds: float) -> float:
        """As many as come back, one in flight on each connection: requests a second."""
        self._begin(closed_loop=True)
        start = time.perf_counter()
        for each in self._connections:
            self._connections.send(each, self._request(each.lanes[0], start))
        while time.perf_counter() < start + seconds:
            self._connections.turn(TURN_S, self._on_answer, self._on_lost)
        answered = sum(map(len, self._latencies.values()))
        self._closed_loop = False
        self._drain()
        return answered / seconds

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def _begin(self, *, closed_loop: bool) -> None:
        gc.collect()  # not in the midst of it, where it would hold up all
        gc.disable()
        self._closed_loop = closed_loop
        self._latencies = {"put": [], "get": []}
        self._idle.clear()

    def _drain(self) -> None:
        until = time.perf_counter() + DRAIN_S
        while any(lane.kind for each in self._connections for lane in each.lanes):
            if time.perf_counter() > until:
                raise RuntimeError(f"requests without an answer after {DRAIN_S:.0f} s")
            self._connections.turn(TURN_S, self._on_answer, self._on_lost)
        gc.enable()

    def _request(self, lane: Lane, due: float) -> bytes:
        key = int(self._rng.random() * KEYS)
        self._asked += 1
        lane.started = due
        if self._asked % 2:
            lane.kind = "get"
            return self._bucket.get(lane.number, self._keys[key])
        lane.kind = "put"
        op_id = self._tokens[key] + self._asked.to_bytes(8, "big")
        return self._bucket.put(lane.number, self._keys[key], b"", op_id, self._value)

    def _on_answer(self, lane: Lane, message_type: int, body: bytes, now: float) -> bytes:
        if message_type not in (bare.PUT_REPLY, bare.GET_REPLY):
            refusal: LeafdbError = bare.refusal(body)
            raise refusal
        self._latencies[lane.kind].append(now - lane.started)
        lane.kind = ""
        if self._closed_loop:
            return self._request(lane, now)
        self._idle.append(lane)
        return b""

    def _on_lost(self, connection: Connection) -> None:
        raise RuntimeError("the node closed a connection")
