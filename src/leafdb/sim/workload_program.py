"""The random-program workload: each client draws little programs and runs them, one after the other.

A program is a tree of sequences, loops, parallel blocks, pauses and operations; its variables hold contexts, which is
all that ties an operation to one before it. Nothing looks at what a key holds: this generator is meant to be as unlike
the model-driven one as it can, so that what one of them never tries the other may. Some clients are operators now and
then. Whether a program comes to its end is nobody's concern: it stops where the run's operations are used up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

import trio

from leafdb.sim import admin_calls
from leafdb.sim.clients import DirectClient, ReadHow, RealClient, Setting, WriteHow, real_client
from leafdb.sim.program import (
    Block,
    Change,
    Get,
    GetMany,
    Operate,
    Pause,
    Scan,
    Set,
    SetMany,
    Shelf,
    Statement,
)
from leafdb.sim.scans import scan_all, scan_range
from leafdb.types import NodeId

CLIENTS: Final = (6, 12)
SPAN_S: Final = (36.0, 72.0)
"""How long a thousand operations would take without parallel blocks, which take about half of it away."""
SHELVES: Final = ("a", "b", "c")
BOOKS: Final = 8
LOOSE: Final = 12
VARIABLES: Final = 4
DEPTH_MAX: Final = 3
AUXILIARY: Final = ("aux1", "aux2")


class ProgramWorkload:
    """See the top of this file."""

    name = "program"

    def __init__(self, world: Setting) -> None:
        self._setting = world
        self._seed = f"{world.plan.seed}/program"
        rng = Random(self._seed)
        self._clients = rng.randint(*CLIENTS)
        self._pause_s = rng.uniform(*SPAN_S) * self._clients / 1_000 * world.plan.pace

    async def run(self, operations: int) -> None:
        """Perform exactly so many client operations."""
        self._setting.left = operations
        async with trio.open_nursery() as nursery:
            for number in range(self._clients):
                nursery.start_soon(self._client, f"program {number}")

    async def _client(self, name: str) -> None:
        rng = Random(f"{self._seed}/{name}")
        author = Author(rng, self._setting, self._pause_s)
        async with real_client(self._setting, name, rng) as real:
            machine = Machine(real, DirectClient(self._setting, name))
            await trio.sleep(rng.random() * self._pause_s)
            while self._setting.left:
                await machine.run(author.program())
            machine.close()


class Author:
    """Draws programs for one client."""

    def __init__(self, rng: Random, setting: Setting, pause_s: float) -> None:
        self._rng = rng
        self._pause_s = pause_s
        self._setting = setting
        self._n = setting.bucket.n
        # A client has favourites, some of them everybody's: Zipf's law, shifted a little for each.
        keys = [f"loose{number}" for number in range(LOOSE)]
        keys += [f"{shelf}/{book:x}" for shelf in SHELVES for book in range(BOOKS)]
        rng.shuffle(keys)
        self._keys = ["common", "crowded", *keys]
        self._weights = [1.0 / (rank + 1) for rank in range(len(self._keys))]
        self._blindness = rng.choice((0.0, 0.1, 0.3))
        self._deleting = 0.5 if setting.plan.hunt else 0.2
        changing = 3.0
        if setting.plan.crowded:  # nobody looks, and nobody resolves
            self._weights[self._keys.index("crowded")] = 3 * sum(self._weights)
            self._blindness, changing = 0.97, 0.05
        self._operator = rng.random() < 0.4
        self._leaves: list[tuple[float, Callable[[], Statement]]] = [
            (4.0, self._get), (5.0, self._set), (changing, self._change), (0.6, self._get_many), (0.6, self._set_many),
            (0.3, self._scan), (0.6, self._shelf), (0.5 if self._operator else 0.0, self._operate),
        ]  # fmt: skip

    def program(self) -> Block:
        """A new one."""
        return self._block(0)

    def _block(self, depth: int) -> Block:
        rng = self._rng
        parallel = depth > 0 and rng.random() < 0.3
        length = rng.randint(2, 3) if parallel else rng.randint(1, 5)
        body: list[Statement] = []
        for _ in range(length):
            body.append(self._statement(depth + 1))
            if not parallel:
                body.append(Pause(rng.expovariate(1 / self._pause_s)))
        return Block(tuple(body), rng.choice((1, 1, 1, 2, 3)), parallel)

    def _statement(self, depth: int) -> Statement:
        rng = self._rng
        if depth < DEPTH_MAX and rng.random() < 0.25:
            return self._block(depth)
        return rng.choices([leaf for _, leaf in self._leaves], [weight for weight, _ in self._leaves])[0]()

    def _key(self) -> str:
        return self._rng.choices(self._keys, self._weights)[0]

    def _distinct_keys(self, most: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self._key() for _ in range(self._rng.randint(2, most))))

    def _via(self) -> NodeId | None:
        return self._rng.choice(self._setting.nodes) if self._rng.random() < 0.5 else None

    def _timeout_s(self) -> float:
        return self._rng.choice((0.2, 0.5, 1.5, 3.0))

    def _get(self) -> Get:
        rng = self._rng
        how = ReadHow(
            r=rng.randint(0, self._n) if rng.random() < 0.3 else 0,
            sloppy=rng.choice((None, False, True)),
            timeout_s=self._timeout_s(),
            local=rng.random() < 0.1,
        )
        if how.r and rng.random() < 0.5:
            how = how._replace(pr=rng.randint(1, how.r))
        return Get(self._key(), rng.randrange(VARIABLES), how, self._via())

    def _set(self) -> Set:
        rng = self._rng
        how = WriteHow(
            w=rng.randint(0, self._n) if rng.random() < 0.3 else 0,
            sloppy=rng.choice((None, False, True)),
            timeout_s=self._timeout_s(),
            ttl_ms=rng.randint(20, 4_000) if rng.random() < 0.08 else 0,
            size=int(10 ** rng.uniform(0, 3.7)),
        )
        if how.w and rng.random() < 0.5:
            count = rng.randint(1, how.w)
            how = how._replace(pw=count) if rng.random() < 0.5 else how._replace(dw=count)
        variable = None if rng.random() < self._blindness else rng.randrange(VARIABLES)
        patience_s = rng.expovariate(1 / 0.02) if rng.random() < 0.04 else None
        return Set(self._key(), variable, how, self._via(), rng.random() < self._deleting, patience_s)

    def _change(self) -> Change:
        return Change(self._key(), self._via())

    def _get_many(self) -> GetMany:
        return GetMany(self._distinct_keys(10))

    def _set_many(self) -> SetMany:
        return SetMany(self._distinct_keys(6))

    def _scan(self) -> Scan:
        return Scan(self._rng.randint(2, 60), self._rng.choice((None, self._rng.randint(1, 20))))

    def _shelf(self) -> Shelf:
        rng = self._rng
        ends = [None if rng.random() < 0.4 else f"{rng.randrange(BOOKS):x}" for _ in range(2)]
        return Shelf(rng.choice(SHELVES), ends[0], ends[1], rng.random() < 0.4)

    def _operate(self) -> Operate:
        return Operate(self._rng.choice(tuple(VERBS)), self._rng.choice(AUXILIARY))


VERBS: Final[Mapping[str, Callable[..., Any]]] = {
    "create": admin_calls.create_bucket,
    "drop": admin_calls.drop_bucket,
    "list": admin_calls.list_buckets,
    "status": admin_calls.ask_status,
    "repair": admin_calls.start_repair,
}


class Machine:
    """Runs the programs of one client. Variables outlive a program."""

    def __init__(self, real: RealClient, direct: DirectClient) -> None:
        self._real = real
        self._direct = direct
        self._setting = real.setting
        self._variables: list[tuple[str, bytes] | None] = [None] * VARIABLES
        self._latest: dict[str, bytes] = {}

    def close(self) -> None:
        """It runs no more programs."""
        self._direct.close()

    async def run(self, statement: Statement) -> None:
        """Run it, as far as there are operations left."""
        match statement:
            case Pause(seconds):
                await trio.sleep(seconds)
            case Block(body, times, parallel):
                for _ in range(times):
                    await self._block(body, parallel=parallel)
            case _:
                if self._setting.take():
                    await self._operation(statement)

    async def _block(self, body: tuple[Statement, ...], *, parallel: bool) -> None:
        if not parallel:
            for statement in body:
                if self._setting.left:
                    await self.run(statement)
            return
        async with trio.open_nursery() as nursery:
            for statement in body:
                nursery.start_soon(self.run, statement)

    async def _operation(self, statement: Statement) -> None:
        match statement:
            case Get(key, into, how, node):
                self._variables[into] = await self._get(key, how, node)
            case Set():
                await self._set(statement)
            case Change(key, node):
                held = await self._get(key, ReadHow(), node)
                if held is not None and self._setting.take():
                    await self._put(key, held[1], WriteHow(), node, delete=False)
            case GetMany(keys):
                for key, found in zip(keys, await self._real.get_many(keys), strict=True):
                    if found is not None:
                        self._latest[key] = found.context
            case SetMany(keys):
                puts = [(key, self._latest.get(key)) for key in keys]
                for key, context in zip(keys, await self._real.put_many(puts), strict=True):
                    if context is not None:
                        self._latest[key] = context
            case Scan(page_size, part):
                await scan_all(self._real, page_size=page_size, part=part, r=0, timeout_s=1.5)
            case Shelf(part, start, stop, reverse):
                await scan_range(self._real, part, start, stop, reverse=reverse, limit=None, timeout_s=1.5)
            case Operate(verb, name):
                await VERBS[verb](self._real, *((name,) if verb in ("create", "drop") else ()))

    async def _get(self, key: str, how: ReadHow, node: NodeId | None) -> tuple[str, bytes] | None:
        found = await (self._real.get(key, how) if node is None else self._direct.get(node, key, how))
        return None if found is None else (key, found.context)

    async def _set(self, statement: Set) -> None:
        variable = statement.variable
        held = None if variable is None else self._variables[variable]
        context = held[1] if held is not None and held[0] == statement.key else None
        if context is None and variable is not None:
            context = self._latest.get(statement.key)
        given = None
        with trio.move_on_after(statement.patience_s if statement.patience_s is not None else 3_600):
            given = await self._put(statement.key, context, statement.how, statement.node, delete=statement.delete)
        if variable is not None and given is not None:
            self._variables[variable] = statement.key, given

    async def _put(
        self, key: str, context: bytes | None, how: WriteHow, node: NodeId | None, *, delete: bool
    ) -> bytes | None:
        if node is None:
            given = await self._real.put(key, context, how, delete=delete)
        else:
            given = (await self._direct.put(node, key, context, how, delete=delete)).context
        if given is not None:
            self._latest[key] = given
        return given
