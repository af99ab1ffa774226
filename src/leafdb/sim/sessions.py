"""Sessions in a run: clients that ask for as little as can be asked, at whatever node, and are promised all four
guarantees (I9).

A session goes from node to node: it has a client for each, which knows only that node, and takes its token along as
bytes from the one it leaves to the one it goes to. To the judge they are one session, whose every operation is
promised, at r=1 and w=1, whatever breaks. Its keys are written by sessions alone, several of them, so that what one has
read another has written; readers of everybody scan them.

A store that is destroyed may take along the only copy of what a session has seen. Then it is right that it reads
nothing any more: one that fails a few times in a row begins anew, as another, that has seen nothing. Or that it reads
what is left, once a horizon has passed what is lost (testing/forgetting.py).
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from random import Random
from typing import Final

import trio

from leafdb.client.connect import async_client_over
from leafdb.client.session_token import SessionToken
from leafdb.client.url import Address
from leafdb.sim.clients import ChosenIds, ReadHow, RealClient, Setting, WriteHow, sent_again
from leafdb.sim.retries_seen import watched
from leafdb.sim.setting import GAP_S
from leafdb.testing.cluster import CLIENT_HOST, host_of
from leafdb.testing.real_client import dialler
from leafdb.types import NodeId

KEYS: Final = ("shared0", "shared1", "shared2", "shared/1", "shared/2")
FAILURES_MAX: Final = 5
SHARE: Final = 0.3
"""Of the rest that other clients take: a session is to come to the next node before its write does."""
LIVES_MAX: Final = 100


async def keep_session(setting: Setting, name: str, done: trio.Event) -> None:
    """Operations of one session after the other, until it is told that the others are done."""
    rng = Random(f"{setting.plan.seed}/{name}")
    gap_s = SHARE * rng.uniform(*GAP_S) * setting.plan.pace
    for life in range(LIVES_MAX):
        async with AsyncExitStack() as clients:
            wanderer = Wanderer(setting, f"{name}.{life}" if life else name, rng, clients)
            failures = 0
            while failures < FAILURES_MAX and not done.is_set():
                failures = 0 if await wanderer.step() else failures + 1
                with trio.move_on_after(rng.expovariate(1 / gap_s)):
                    await done.wait()
        if done.is_set():
            return
        setting.trace.probe("session_given_up")


class Wanderer:
    """One session. Its clients live as long as the stack they are entered into."""

    def __init__(self, setting: Setting, name: str, rng: Random, clients: AsyncExitStack) -> None:
        self._setting = setting
        self._name = name
        self._rng = rng
        self._stack = clients
        self._clients: dict[NodeId, RealClient] = {}
        self._here: RealClient | None = None
        self._contexts: dict[str, bytes] = {}

    async def step(self) -> bool:
        """Perhaps go elsewhere; then one operation. Whether it was answered."""
        rng = self._rng
        if self._here is None or rng.random() < 0.6:
            await self._go(rng.choice(self._setting.nodes))
        key = rng.choice(KEYS)
        chance = rng.random()
        if chance < 0.3:
            return await self._read(key)
        if chance < 0.45:
            return await self._read_all()
        return await self._write(key, blind=chance < 0.8, delete=chance > 0.95)

    async def _go(self, node: NodeId) -> None:
        client = self._clients.get(node)
        if client is None:
            ids = ChosenIds(f"{self._setting.plan.seed}/{self._name}/{node}")
            again = partial(sent_again, self._setting, self._name)
            dial = watched(dialler(self._setting.cluster.network, CLIENT_HOST), again)
            db = async_client_over([Address(host_of(node), 1)], dial=dial, routing="listed", rng=ids)
            db = await self._stack.enter_async_context(db)
            client = self._clients[node] = RealClient(self._setting, self._name, db, ids)
            client.in_session = True
        # Asking for its token is what makes a client a session: the first one, too, before it has gone anywhere.
        token = (self._here or client).db.session_token
        if self._here is not None:
            client.db.observe(SessionToken.from_bytes(bytes(token)))
        self._here = client

    async def _read(self, key: str) -> bool:
        assert self._here is not None
        found = await self._here.get(key, self._how())
        if found is not None:
            self._contexts[key] = found.context
        return found is not None

    async def _read_all(self) -> bool:
        assert self._here is not None
        answers = await self._here.get_many(KEYS, self._how())
        for key, found in zip(KEYS, answers, strict=True):
            if found is not None:
                self._contexts[key] = found.context
        return any(found is not None for found in answers)

    async def _write(self, key: str, *, blind: bool, delete: bool) -> bool:
        assert self._here is not None
        rng = self._rng
        how = WriteHow(
            rng.choice((1, 1, 0)), sloppy=rng.choice((None, None, True, False)), timeout_s=self._patience_s()
        )
        given = await self._here.put(key, None if blind else self._contexts.get(key), how, delete=delete)
        if given is not None:
            self._contexts[key] = given
        return given is not None

    def _how(self) -> ReadHow:
        rng = self._rng
        return ReadHow(rng.choice((1, 1, 1, 0)), 0, rng.choice((None, None, True, False)), self._patience_s())

    def _patience_s(self) -> float:
        return self._rng.choice((0.3, 1.0, 2.0))
