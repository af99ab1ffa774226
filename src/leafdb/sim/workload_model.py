"""The model-driven workload: clients that know what each key may hold, and do what is interesting then.

Choosing operations blindly seldom meets what breaks: a write over siblings, with a context from before a deletion, at
a node that has just come back, twice at once at two nodes. So the clients keep a common model of the keys (who has seen
what, which contexts are around, what was deleted) and draw from the operations that it makes interesting. Two of them
are sequential writers with a key each: read, write over what was read, and on from there (I5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final

import trio

from leafdb.sim.asked_outcomes import ask_outcome
from leafdb.sim.clients import DirectClient, ReadHow, Reading, RealClient, Sent, Setting, WriteHow, real_client
from leafdb.sim.scans import scan_all, scan_range
from leafdb.sim.setting import GAP_S
from leafdb.types import NodeId

HOT: Final = 3
COLD: Final = 14
PARTS: Final = 2
ROWS: Final = 12
CONTEXTS_MAX: Final = 6
FIRST_MAX: Final = 3
CROWD: Final = 5
"""So many siblings are to be resolved before anything else."""

Step = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class KeyModel:
    """What the clients together know of one key."""

    name: str
    contexts: deque[bytes] = field(default_factory=lambda: deque(maxlen=CONTEXTS_MAX))
    """What was handed out, the oldest first."""
    first: list[bytes] = field(default_factory=list)
    """The very first that were."""
    siblings: int = 0
    """How many values the last read showed."""
    deleted: bool = False
    """Its last write was a deletion."""
    doubtful: Sent | None = None
    """A direct write of unknown outcome."""

    def saw(self, context: bytes | None) -> None:
        """A context was handed out."""
        if context is not None:
            self.contexts.append(context)
            if len(self.first) < FIRST_MAX:
                self.first.append(context)


class ModelWorkload:
    """See the top of this file."""

    name = "model"

    def __init__(self, world: Setting) -> None:
        self._setting = world
        self._seed = f"{world.plan.seed}/model"
        rng = Random(self._seed)
        self._roamers = rng.randint(6, 10)
        self._writers = 2
        self._gap_s = rng.uniform(*GAP_S) * world.plan.pace
        names = [f"hot{number}" for number in range(HOT)] + [f"cold{number}" for number in range(COLD)]
        self.keys: dict[str, KeyModel] = {name: KeyModel(name) for name in names}
        self.rows: dict[str, KeyModel] = {
            name: KeyModel(name) for name in (f"part{part}/{row:02}" for part in range(PARTS) for row in range(ROWS))
        }

    async def run(self, operations: int) -> None:
        """Perform exactly so many client operations."""
        self._setting.left = operations
        async with trio.open_nursery() as nursery:
            for number in range(self._roamers):
                nursery.start_soon(self._roam, f"roamer {number}")
            for number in range(self._writers):
                nursery.start_soon(self._write_on, f"writer {number}", f"own{number}")

    async def _roam(self, name: str) -> None:
        rng = Random(f"{self._seed}/{name}")
        async with real_client(self._setting, name, rng) as real:
            direct = DirectClient(self._setting, name)
            roamer = Roamer(self, real, direct, rng)
            await trio.sleep(rng.uniform(0, self._gap_s))
            while self._setting.take():
                await roamer.step()
                await trio.sleep(rng.expovariate(1 / self._gap_s))
            direct.close()

    async def _write_on(self, name: str, key: str) -> None:
        """One whose key is its own: it goes on from its own context, and reads again after any doubt."""
        setting = self._setting
        rng = Random(f"{self._seed}/{name}")
        context: bytes | None = None
        async with real_client(setting, name, rng) as real:
            direct = DirectClient(setting, name)
            while setting.take():
                node = None if rng.random() < 0.5 else rng.choice(setting.nodes)
                if context is None:
                    how = ReadHow(sloppy=False)
                    found = await (real.get(key, how) if node is None else direct.get(node, key, how))
                    context = None if found is None else found.context
                elif node is None:
                    context = await real.put(key, context)
                else:
                    context = (await direct.put(node, key, context)).context
                await trio.sleep(rng.expovariate(1 / self._gap_s))
            direct.close()


class Roamer:
    """One client that goes where it is interesting. It speaks through a real client or to a node it picks."""

    def __init__(self, workload: ModelWorkload, real: RealClient, direct: DirectClient, rng: Random) -> None:
        self._keys = workload.keys
        self._rows = workload.rows
        self._setting = real.setting
        self._real = real
        self._direct = direct
        self._rng = rng

    async def step(self) -> None:
        """One operation, counted already; one that needs a second one takes it."""
        await self._choose()()

    def _choose(self) -> Step:
        rng = self._rng
        model = self._pick_key()
        choices: list[tuple[float, Step]] = [
            (5.0, partial(self._read, model)),
            (1.0, partial(self._read_locally, model)),
            (1.5, partial(self._write_blindly, model)),
            (1.0, partial(self._write_twice_at_once, model)),
            (0.7, partial(self._write_expiring, model)),
            (0.5, partial(self._give_up, model)),
            (0.8, self._read_many),
            (0.6, self._write_many),
            (0.35, self._scan),
            (0.7, self._range),
        ]
        if model.contexts and not self._setting.lww:
            choices.append((0.3, partial(self._forge, model)))
        if self._setting.plan.hunt:
            choices += self._hunt(model)
        if model.siblings >= CROWD:
            choices = choices[:2]
        if model.siblings > 1:
            choices.append((6.0, partial(self._write, model, newest=True)))
        if model.contexts:
            choices.append((4.0, partial(self._write, model, newest=True)))
            choices.append((1.5, partial(self._write, model, newest=False)))
            choices.append((1.5, partial(self._write, model, newest=True, delete=True)))
            choices.append((0.5, partial(self._write, model, newest=False, delete=True)))
        if model.deleted:
            choices.append((2.0, partial(self._write, model, newest=rng.random() < 0.5)))
            choices.append((1.0, partial(self._write_blindly, model)))
        if model.doubtful is not None:
            choices.append((3.0, partial(self._send_again, model)))
        if self._real.doubtful or self._direct.doubtful:
            choices.append((1.5, self._ask_outcome))
        return rng.choices([step for _, step in choices], [weight for weight, _ in choices])[0]

    def _hunt(self, model: KeyModel) -> list[tuple[float, Step]]:
        """What else there is to do where values are to come back that are gone: delete, let expire, write anew, with
        what was seen long ago, and look wherever one may find more than there is."""
        choices: list[tuple[float, Step]] = [
            (2.0, partial(self._read_locally, model)),
            (2.0, partial(self._read_one, model)),
            (1.5, partial(self._write_expiring, model)),
        ]
        if model.contexts:
            choices.append((4.0, partial(self._write, model, newest=True, delete=True)))
            choices.append((1.5, partial(self._write_over_the_first, model)))
        if model.deleted:
            choices.append((2.0, partial(self._write_blindly, model)))
        return choices

    def _pick_key(self) -> KeyModel:
        rng = self._rng
        chance = rng.random()
        if chance < 0.4:
            return self._keys[f"hot{rng.randrange(HOT)}"]
        if chance < 0.8:
            return self._keys[f"cold{rng.randrange(COLD)}"]
        return self._rows[rng.choice(list(self._rows))]

    # -- how

    def _node(self) -> NodeId | None:
        """Through which node: one that has just come back, any, or none in particular."""
        rng = self._rng
        back = self._setting.revived(rng)
        if back is not None:
            return back
        return rng.choice(self._setting.nodes) if rng.random() < 0.4 else None

    def _read_how(self) -> ReadHow:
        rng, bucket = self._rng, self._setting.bucket
        quorum = bucket.n // 2 + 1
        r, pr = rng.choice(((0, 0), (0, 0), (0, 0), (0, 0), (0, quorum), (quorum, quorum), (1, 0), (bucket.n, 0)))
        return ReadHow(r, pr, rng.choice((None, None, True, False)), rng.choice((0.3, 1.0, 2.0)))

    def _write_how(self, ttl_ms: int = 0) -> WriteHow:
        rng, bucket = self._rng, self._setting.bucket
        quorum = bucket.n // 2 + 1
        default = (0, 0, 0)
        w, pw, dw = rng.choice(
            (default, default, default, default, (1, 0, 0), (bucket.n, 0, 0), (0, quorum, 0), (0, 1, 0), (0, 0, quorum))
        )
        size = rng.choice((0, 0, 0, 100, 1_000))
        return WriteHow(w, pw, dw, rng.choice((None, None, True, False)), rng.choice((0.3, 1.0, 2.0)), ttl_ms, size)

    # -- operations

    async def _read(self, model: KeyModel) -> None:
        node, how = self._node(), self._read_how()
        if node is None:
            found = await self._real.get(model.name, how)
        else:
            found = await self._direct.get(node, model.name, how)
        self._learn(model, found)

    async def _read_one(self, model: KeyModel) -> None:
        """One replica's word, or a stand-in's."""
        node, how = self._node(), ReadHow(r=1, sloppy=self._rng.choice((True, False)), timeout_s=1.0)
        if node is None:
            self._learn(model, await self._real.get(model.name, how))
        else:
            self._learn(model, await self._direct.get(node, model.name, how))

    async def _read_locally(self, model: KeyModel) -> None:
        setting = self._setting
        owners = setting.cluster.primaries(setting.bucket, model.name) if setting.cluster.nodes else ()
        node = self._rng.choice([setting.machine(owner) for owner in owners] or setting.nodes)
        self._learn(model, await self._direct.get(node, model.name, ReadHow(timeout_s=1.0, local=True)))

    async def _write(self, model: KeyModel, *, newest: bool, delete: bool = False) -> None:
        contexts = model.contexts
        context = None if not contexts else contexts[-1] if newest else self._rng.choice(contexts)
        await self._put(model, self._node(), context, self._write_how(), delete=delete)

    async def _write_over_the_first(self, model: KeyModel) -> None:
        """With what was seen so long ago that it may be forgotten by now."""
        delete = self._rng.random() < 0.3
        await self._put(model, self._node(), self._rng.choice(model.first), self._write_how(), delete=delete)

    async def _write_blindly(self, model: KeyModel) -> None:
        await self._put(model, self._node(), None, self._write_how(), delete=self._rng.random() < 0.05)

    async def _write_expiring(self, model: KeyModel) -> None:
        ttl_ms = self._rng.choice((50, 300, 1_000, 5_000))
        context = model.contexts[-1] if model.contexts else None
        await self._put(model, self._node(), context, self._write_how(ttl_ms))

    async def _write_twice_at_once(self, model: KeyModel) -> None:
        """At two nodes, of which neither can have seen the other's."""
        one, other = self._rng.sample(self._setting.nodes, 2)
        context = model.contexts[-1] if model.contexts and self._rng.random() < 0.5 else None
        hows = self._write_how(), self._write_how()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._put, model, one, context, hows[0])
            if self._setting.take():
                nursery.start_soon(self._put, model, other, context, hows[1])

    async def _give_up(self, model: KeyModel) -> None:
        """Begin to write and lose interest."""
        context = model.contexts[-1] if model.contexts else None
        node, how = self._node(), self._write_how()
        with trio.move_on_after(self._rng.expovariate(1 / 0.01)):
            await self._put(model, node, context, how)

    async def _forge(self, model: KeyModel) -> None:
        """A context of this key, or a damaged one, for another key."""
        rng = self._rng
        other = self._pick_key()
        context = bytearray(rng.choice(model.contexts))
        if other is model or rng.random() < 0.3:
            context[rng.randrange(len(context))] ^= 1 << rng.randrange(8)
        await self._direct.put_forged(rng.choice(self._setting.nodes), other.name, bytes(context))

    async def _send_again(self, model: KeyModel) -> None:
        sent, model.doubtful = model.doubtful, None
        assert sent is not None
        again = await self._direct.put_again(self._rng.choice(self._setting.nodes), sent)
        model.saw(again.context)

    async def _ask_outcome(self) -> None:
        """Of a write of this client that may or may not have happened."""
        await ask_outcome(self._real, self._rng.choice((*self._real.doubtful, *self._direct.doubtful)))

    async def _read_many(self) -> None:
        models = [self._pick_key() for _ in range(self._rng.randint(2, 8))]
        for model, found in zip(models, await self._real.get_many([m.name for m in models]), strict=True):
            self._learn(model, found)

    async def _write_many(self) -> None:
        rng = self._rng
        models = list({model.name: model for model in (self._pick_key() for _ in range(rng.randint(2, 5)))}.values())
        puts = [(model.name, model.contexts[-1] if model.contexts else None) for model in models]
        for model, context in zip(models, await self._real.put_many(puts), strict=True):
            model.saw(context)
            model.deleted = False

    async def _scan(self) -> None:
        rng = self._rng
        part = rng.choice((None, None, 7))
        await scan_all(self._real, page_size=rng.choice((3, 10, 100)), part=part, r=0, timeout_s=2.0)

    async def _range(self) -> None:
        rng = self._rng
        low, high = sorted(rng.sample(range(ROWS + 1), 2))
        start, stop = rng.choice(((None, None), (f"{low:02}", None), (f"{low:02}", f"{high:02}")))
        await scan_range(
            self._real,
            f"part{rng.randrange(PARTS)}",
            start,
            stop,
            reverse=rng.random() < 0.3,
            limit=rng.choice((None, None, 3)),
            timeout_s=2.0,
        )

    async def _put(
        self, model: KeyModel, node: NodeId | None, context: bytes | None, how: WriteHow, *, delete: bool = False
    ) -> None:
        if node is None:
            given = await self._real.put(model.name, context, how, delete=delete)
        else:
            sent = await self._direct.put(node, model.name, context, how, delete=delete)
            given = sent.context
            if sent.write.outcome == "unknown":
                model.doubtful = sent
        model.saw(given)
        if given is not None:
            model.deleted = delete

    def _learn(self, model: KeyModel, found: Reading | None) -> None:
        if found is not None:
            model.saw(found.context)
            model.siblings = len(found.values)
