"""Clients that record what they do and what they are told: real ones, and direct ones that hide nothing.

`RealClient` is leafdb's own asynchronous client, with its connections, routing and retries, over streams in memory.
`DirectClient` speaks the wire's plain requests to one node of its choice: local reads, requests that are forwarded or
coordinated by a stand-in, operation ids sent twice. Both take and give contexts in their sealed form, so that what was
read through one is written over through the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from random import Random
from typing import Final, NamedTuple, TypedDict

import trio

from leafdb.client.async_bucket import AsyncLwwBucket, AsyncSiblingBucket
from leafdb.client.async_client import AsyncClient
from leafdb.client.connect import async_client_over
from leafdb.client.context import BLIND, Blind, Context, tag_of, tag_prefix
from leafdb.client.results import Failed, Put, Written
from leafdb.client.url import Address
from leafdb.errors import LeafdbError
from leafdb.model.clock import EMPTY, CausalClock, Dot
from leafdb.ring.token import OPERATION_CHANCE_BYTES
from leafdb.sim.explained import ExplainedCalls
from leafdb.sim.plan import Trouble
from leafdb.sim.recorder import NotConnected, ReadHow, Reading, Recorder, WriteHow
from leafdb.sim.retries_seen import watched
from leafdb.sim.setting import Setting, Workload, encoded, key_of
from leafdb.sim.stores_with import stores_with
from leafdb.testing.cluster import CLIENT_HOST, host_of
from leafdb.testing.history_values import Answer, Write, clock_of
from leafdb.testing.raw_client import RawClient, Severed
from leafdb.testing.real_client import dialler
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import NodeId
from leafdb.wire.requests import PutReply

CONNECT_S_MAX: Final = 1.0
FORGED_S: Final = 1.0
READ: Final = ReadHow()
WRITE: Final = WriteHow()
_CHANCE_BITS: Final = 8 * OPERATION_CHANCE_BYTES


class Counts(TypedDict):
    """What writes of all handles take."""

    w: int | None
    pw: int | None
    dw: int | None
    sloppy: bool | None
    timeout: float


class Sent(NamedTuple):
    """A direct write that has ended: the context it was sent with, and the one it was given if it was acknowledged."""

    write: Write
    after: bytes | None
    context: bytes | None


class ChosenIds(Random):
    """Chance for one client, whose operation ids are those of the history."""

    def __init__(self, seed: str) -> None:
        super().__init__(seed)
        self._chosen: deque[bytes] = deque()

    def choose(self, *op_ids: bytes) -> None:
        """The ids of the operations that come next."""
        self._chosen.extend(op_ids)

    def choose_now(self, op_id: bytes) -> None:
        """The id of the operation that begins at once, before any other."""
        self._chosen.appendleft(op_id)

    def withdraw(self, op_id: bytes) -> bool:
        """An operation has ended: whether it never came so far as to take its id."""
        if op_id not in self._chosen:
            return False
        self._chosen.remove(op_id)
        return True

    def getrandbits(self, k: int, /) -> int:
        """As ever; but so many bits are the second half of an operation id."""
        if k == _CHANCE_BITS and self._chosen:
            return int.from_bytes(self._chosen.popleft()[-OPERATION_CHANCE_BYTES:], "big")
        return super().getrandbits(k)


class RealClient(Recorder):
    """Made by `real_client`."""

    def __init__(self, setting: Setting, name: str, db: AsyncClient, ids: ChosenIds) -> None:
        super().__init__(setting, name)
        self.db = db
        self._ids = ids
        self._prefix = tag_prefix(setting.bucket.name)
        self._batch = trio.Lock()
        self._explained = ExplainedCalls(setting, name)
        self.handle: AsyncSiblingBucket[bytes] | AsyncLwwBucket[bytes]
        self.handle = db.lww_bucket(setting.bucket.name) if setting.lww else db.bucket(setting.bucket.name)

    async def get(self, key: str, how: ReadHow = READ) -> Reading | None:
        """Read a key."""
        return await self.read(self.begin_read(key, how), partial(self._get, key, how))

    async def put(
        self, key: str, context: bytes | None, how: WriteHow = WRITE, *, delete: bool = False
    ) -> bytes | None:
        """Write a value of its own, or delete."""
        context = None if self.setting.lww else context
        write = self._goes_above(self.begin_write(key, context, how, delete=delete))
        return await self.write(write, partial(self._put, write, context, how))

    async def get_many(self, keys: Sequence[str], how: ReadHow = READ) -> list[Reading | None]:
        """Read many keys at once."""
        begun = [self.begin_read(key, how) for key in keys]
        answers: Sequence[Answer | Failed]
        try:
            answers = await self.handle.get_many(
                [key_of(key) for key in keys],
                r=how.r or None,
                pr=how.pr or None,
                sloppy=how.sloppy,
                timeout=how.timeout_s,
            )
        except LeafdbError as error:
            self.tell(f"reads of {len(keys)} keys failed: {self.judged(error, None)}")
            return [None] * len(keys)
        found: list[Reading | None] = []
        for reads, answer in zip(begun, answers, strict=True):
            if isinstance(answer, Failed):
                self.tell(f"read failed: {self.judged(answer.error, reads.key)}", reads.key)
                found.append(None)
            else:
                found.append(self.found(reads, answer))
        return found

    async def put_many(self, puts: Sequence[tuple[str, bytes | None]], how: WriteHow = WRITE) -> list[bytes | None]:
        """Write many (key, context) at once."""
        async with self._batch:
            begun = [self.begin_write(key, None if self.setting.lww else context, how) for key, context in puts]
            writes = [self._goes_above(write) for write in begun]
            items = [
                Put(
                    key_of(write.key),
                    _value_of(write),
                    None if self.setting.lww else self._after(write.key, context),
                    ttl=how.ttl_ms / 1000 or None,
                )
                for write, (_, context) in zip(writes, puts, strict=True)
            ]
            self._ids.choose(*[write.op_id for write in writes])
            began = self.setting.tick()
            try:
                results = await self.handle.put_many(items, **_counts(how))
            except trio.Cancelled:
                for write in writes:
                    self._not_written(write, None, "cancelled")
                raise
            except LeafdbError as error:
                for write in writes:
                    self._not_written(write, error)
                return [None] * len(writes)
            contexts: list[bytes | None] = []
            for write, result in zip(writes, results, strict=True):
                if isinstance(result, Failed):
                    self._not_written(write, result.error)
                    contexts.append(None)
                else:
                    contexts.append(self.wrote(write, began, result))
            return contexts

    def _not_written(self, write: Write, error: Exception | None, text: str = "") -> None:
        unsent = self._ids.withdraw(write.op_id)
        self.failed(write, NotConnected() if unsent else error, text)

    def _goes_above(self, write: Write) -> Write:
        """In an lww bucket a client's write is newer than what it had seen, though it gives no context."""
        if self.setting.lww:
            write.seen = self.newest.get(write.key, 0)
        return write

    async def _get(self, key: str, how: ReadHow) -> Answer:
        handle = self.handle
        if self._explained.wanted():
            return await self._explained.get(handle, key, how)
        if isinstance(handle, AsyncSiblingBucket):
            return await handle.get(
                key_of(key), r=how.r or None, pr=how.pr or None, sloppy=how.sloppy, timeout=how.timeout_s,
                local=how.local,
            )  # fmt: skip
        # The plain get of this kind shows the value and no context; one of many shows both.
        (answer,) = await handle.get_many(
            [key_of(key)], r=how.r or None, pr=how.pr or None, sloppy=how.sloppy, timeout=how.timeout_s,
            local=how.local,
        )  # fmt: skip
        if isinstance(answer, Failed):
            raise answer.error
        return answer

    async def _put(self, write: Write, context: bytes | None, how: WriteHow) -> Written:
        handle, key = self.handle, key_of(write.key)
        ttl = how.ttl_ms / 1000 or None
        self._ids.choose_now(write.op_id)
        if write.value is not None and self._explained.wanted():
            return await self._explained.put(handle, write.key, write.value, self._after(write.key, context), how)
        if isinstance(handle, AsyncLwwBucket):
            if write.value is None:
                return await handle.delete(key, **_counts(how))
            return await handle.put(key, write.value, ttl=ttl, **_counts(how))
        after = self._after(write.key, context)
        if write.value is None:
            return await handle.delete(key, after=after, **_counts(how))
        return await handle.put(key, write.value, after=after, ttl=ttl, **_counts(how))

    def _after(self, key: str, context: bytes | None) -> Context | Blind:
        return BLIND if context is None else Context(tag_of(self._prefix, encoded(key)), context)


@asynccontextmanager
async def real_client(setting: Setting, name: str, rng: Random) -> AsyncIterator[RealClient]:
    """A client that knows some of the nodes' addresses; which, and how it routes, is drawn."""
    nodes = setting.nodes
    via = rng.sample(nodes, rng.randint(1, len(nodes)))
    ids = ChosenIds(f"{setting.plan.seed}/{name}")
    async with async_client_over(
        [Address(host_of(node), 1) for node in via],
        dial=watched(dialler(setting.cluster.network, CLIENT_HOST), partial(sent_again, setting, name)),
        routing=rng.choice(("ring", "ring", "listed")),
        rng=ids,
    ) as db:
        yield RealClient(setting, name, db, ids)


def sent_again(setting: Setting, name: str, op_id: bytes) -> None:
    """A real client sends a write once more, without being asked to."""
    write = setting.history.writes[op_id]
    setting.history.again(write)
    setting.trace.tell(name, f"{write.text} is tried again", write.key)


class DirectClient(Recorder):
    """Speaks to nodes of its choice, over a connection to each."""

    def __init__(self, setting: Setting, name: str) -> None:
        super().__init__(setting, name)
        self._connections: dict[NodeId, RawClient] = {}

    async def get(self, node: NodeId, key: str, how: ReadHow = READ) -> Reading | None:
        """Read through a node, or with `local` from its own store only."""
        member = self.setting.copies.member_on(node)
        before = self.setting.local.get((member, key), EMPTY)
        reading = await self.read(
            self.begin_read(key, how, via=f" through n{node}"), partial(self._get, node, key, how)
        )
        if reading is not None and how.local and member == self.setting.copies.member_on(node):
            self.check_local(member, key, before, reading)
        return reading

    async def put(
        self, node: NodeId, key: str, context: bytes | None, how: WriteHow = WRITE, *, delete: bool = False
    ) -> Sent:
        """Write a value of its own through a node, or delete."""
        context = None if self.setting.lww else context
        write = self.begin_write(key, context, how, delete=delete, via=f" through n{node}")
        return Sent(write, context, await self.write(write, partial(self._put, node, write, context, how)))

    async def put_again(self, node: NodeId, sent: Sent, how: WriteHow = WRITE) -> Sent:
        """Send the very same write once more, as a client would that keeps operation ids over a crash of its own."""
        write = sent.write
        self.setting.history.again(write)
        self.asks(write, how)
        self.tell(f"{write.text} is sent once more through n{node}", write.key)
        same = how._replace(ttl_ms=write.ttl_ms)
        there = await stores_with(self.setting, write)
        context = await self.write(write, partial(self._put, node, write, sent.after, same))
        process = self.setting.cluster.processes.get(node)
        if context is not None and process is not None and (node, process) in there:
            self._check_recognised(node, write, clock_of(context), there[node, process])
        return Sent(write, sent.after, context)

    def _check_recognised(self, node: NodeId, write: Write, clock: CausalClock, dots: Sequence[Dot]) -> None:
        """A node that showed the write all along has not made another of it (I5)."""
        if Trouble.DISK_FULL not in self.setting.plan.kinds:  # else it may have passed the request on
            known = any(clock.covers(dot) for dot in dots)
            text = f"n{node} had {write.text}, was sent it once more and wrote it again"
            require(known, Invariant.NO_FALSE_SIBLINGS, text, write.key)

    async def put_forged(self, node: NodeId, key: str, context: bytes) -> None:
        """Write over a context that was not sealed for this key: it must be refused, for it covers what nobody saw."""
        self.tell(f"tries a context of another key through n{node}", key)
        try:
            connection = await self._connected(node)
            await connection.put(self.setting.bucket, key_of(key), b"forged", context, timeout_s=FORGED_S)
        except (LeafdbError, Severed, NotConnected):
            return  # refused, or nobody there
        violated(Invariant.NOTHING_LOST, "a write over a context of another key was accepted", key)

    def close(self) -> None:
        """Hang up everywhere."""
        for connection in self._connections.values():
            connection.close()

    async def _get(self, node: NodeId, key: str, how: ReadHow) -> Answer:
        connection = await self._connected(node)
        return await connection.get(
            self.setting.bucket, key_of(key),
            r=how.r, pr=how.pr, local=how.local, sloppy=how.sloppy, timeout_s=how.timeout_s,
        )  # fmt: skip

    async def _put(self, node: NodeId, write: Write, context: bytes | None, how: WriteHow) -> PutReply:
        connection = await self._connected(node)
        return await connection.put(
            self.setting.bucket, key_of(write.key), write.value, context,
            w=how.w, pw=how.pw, dw=how.dw, sloppy=how.sloppy, timeout_s=how.timeout_s,
            ttl_ms=how.ttl_ms, op_id=write.op_id, retry=write.attempts > 1,
        )  # fmt: skip

    async def _connected(self, node: NodeId) -> RawClient:
        connection = self._connections.get(node)
        if connection is None or connection.closed:
            with trio.move_on_after(CONNECT_S_MAX):
                try:
                    connection = self._connections[node] = await self.setting.cluster.client(node)
                except Severed:
                    raise NotConnected from None
        if connection is None or connection.closed:
            raise NotConnected
        return connection


def _value_of(write: Write) -> bytes:
    assert write.value is not None
    return write.value


def _counts(how: WriteHow) -> Counts:
    """The options of a write that all handles take."""
    return {
        "w": how.w or None,
        "pw": how.pw or None,
        "dw": how.dw or None,
        "sloppy": how.sloppy,
        "timeout": how.timeout_s,
    }


__all__ = [
    "READ",
    "WRITE",
    "DirectClient",
    "ReadHow",
    "Reading",
    "RealClient",
    "Sent",
    "Setting",
    "Workload",
    "WriteHow",
    "real_client",
    "sent_again",
]
