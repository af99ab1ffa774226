"""Orders of events in which what comes late would do harm, each with a cast that is drawn: one node writes, another
deletes, and of one of the two a third hears only when the horizon has passed over it.

    late write       a writes, b is not told; c deletes, b is told; all is forgotten; now b hears of what a wrote
    to a new one     the same, but meanwhile the key was written anew
    late deletion    all have it; c deletes, b is not told, nor does anybody owe it that yet; what does b show?
    late member      all have it; b alone writes beside it, and is killed; c deletes; b comes back: what it alone has is
                     not lost, and what c deleted does not return

A story goes on whatever else breaks, and mostly comes to nothing then; what its clients were told is judged like all
else. Its keys are its own, so that nobody tells the third by chance.
"""

from __future__ import annotations

from enum import Enum
from random import Random
from typing import Final

import trio

from leafdb.ring.token import split_storage_key
from leafdb.sim.clients import DirectClient, Sent
from leafdb.sim.recorder import ReadHow, WriteHow
from leafdb.sim.setting import Setting
from leafdb.sim.stage import Stage
from leafdb.sim.stalled import Stalled, running
from leafdb.types import NodeId

KEYS: Final = tuple(f"late{number}" for number in range(12))
AT_ONCE: Final = 4
PATIENCE_S: Final = 12.0
"""So long a story waits for a horizon to rise."""
LOOK_S: Final = 0.1
LOOKS: Final = 3


Cast = tuple[NodeId, NodeId, NodeId]
"""Who writes, who hears late, who deletes: machines."""


class Kind(Enum):
    """What is late, and to what."""

    WRITE = "late write"
    TO_NEW = "late write to a new one"
    DELETION = "late deletion"
    MEMBER = "late member"


class LateStories:
    """Of one run. Played one after the other."""

    def __init__(self, stage: Stage, setting: Setting, rng: Random) -> None:
        self._stage = stage
        self._setting = setting
        self._rng = rng
        self._client = DirectClient(setting, "teller")
        self._all = WriteHow(w=setting.bucket.n, sloppy=False, timeout_s=1.0)
        self._quorum = self._all._replace(w=setting.bucket.n // 2 + 1)

    def close(self) -> None:
        """No more are played."""
        self._client.close()

    async def play(self) -> None:
        """One of them, if there are enough nodes for it."""
        rng = self._rng
        kind = rng.choice(tuple(Kind))
        there, keys = self._cast(rng.sample(KEYS, len(KEYS)))
        if len(there) < 3:
            await trio.sleep(1.0)
            return
        writer, hearer, deleter = rng.sample(there, 3)
        cast = (writer, hearer, deleter)
        self._setting.trace.tell("teller", f"{kind.value}: n{writer} writes, n{deleter} deletes, n{hearer} hears late")
        if kind is Kind.MEMBER:
            await self._away(keys, cast)
        else:
            await self._late(kind, keys, cast)

    async def _late(self, kind: Kind, keys: list[str], cast: Cast) -> None:
        writer, hearer, deleter = cast
        told = await self._write(writer, keys, self._all) if kind is Kind.DELETION else {}
        held = (deleter if kind is Kind.DELETION else writer), hearer
        stalled = Stalled(self._stage, self._rng, [held])
        try:
            sent = told or await self._write(writer, keys, self._quorum)
            await self._go_on(kind, sent, stalled, cast)
            await stalled.release()
            await self._look(sent, (hearer, writer))
        finally:
            stalled.let_go()

    async def _away(self, keys: list[str], cast: Cast) -> None:
        writer, hearer, deleter = cast
        stage = self._stage
        sent = await self._write(writer, keys, self._all)
        if not sent or hearer not in stage.free() or not stage.cluster.can_decide(without=hearer):
            return
        stalled = Stalled(stage, self._rng, [(hearer, other) for other in (writer, deleter)])
        try:
            for key in sent:
                await self._client.put(hearer, key, None, WriteHow(w=1, timeout_s=0.5))
            with stage.claimed(hearer):
                await stage.kill(hearer)
                try:
                    await self._delete(sent, deleter, self._quorum)
                    await self._forgotten(sent)
                finally:
                    await stage.start_all([hearer])
        finally:
            stalled.let_go()
        await self._look(sent, (hearer, writer))

    async def _go_on(self, kind: Kind, sent: dict[str, Sent], stalled: Stalled, cast: Cast) -> None:
        writer, hearer, deleter = cast
        # Whoever waits for an acknowledgement that does not come owes nobody anything until then.
        how = self._quorum._replace(timeout_s=PATIENCE_S) if kind is Kind.DELETION else self._quorum
        if not sent:
            return
        await self._delete(sent, deleter, how)
        if not await self._forgotten(sent, stalled):
            return
        if kind is Kind.TO_NEW:
            for key in sent:
                await self._client.put(self._rng.choice((hearer, deleter)), key, None, self._quorum)
        elif kind is Kind.DELETION:
            await self._look(sent, (hearer, writer))

    async def _write(self, through: NodeId, keys: list[str], how: WriteHow) -> dict[str, Sent]:
        """Those that were acknowledged."""
        sent = {}
        for key in keys:
            found = await self._client.get(through, key, ReadHow(timeout_s=1.0))
            each = await self._client.put(through, key, None if found is None else found.context, how)
            if each.context is not None:
                sent[key] = each
        return sent

    async def _delete(self, sent: dict[str, Sent], through: NodeId, how: WriteHow) -> None:
        for key, each in sent.items():
            await self._client.put(through, key, each.context, how, delete=True)

    async def _forgotten(self, sent: dict[str, Sent], stalled: Stalled | None = None) -> bool:
        """Wait until all that was written is gone by right, for some time."""
        forgetting = self._setting.history.forgetting
        with trio.move_on_after(PATIENCE_S):
            while True:
                if stalled is not None:
                    stalled.hold()
                gone = {key: forgetting.gone(key) for key in sent}
                if all(any(map(gone[key].covers, forgetting.dots_of(key, sent[key].write))) for key in sent):
                    await trio.sleep(self._rng.uniform(0.0, 1.0))
                    return True
                await trio.sleep(LOOK_S)
        return False

    async def _look(self, sent: dict[str, Sent], nodes: tuple[NodeId, ...]) -> None:
        """What they show of it, by themselves and with others."""
        for _ in range(LOOKS):
            for key in sent:
                how = ReadHow(r=self._rng.choice((0, 1)), timeout_s=1.0)
                await self._client.get(self._rng.choice(nodes), key, how)
            await trio.sleep(self._rng.uniform(0.0, 0.5))

    def _cast(self, keys: list[str]) -> tuple[list[NodeId], list[str]]:
        """The owners of some keys that run, on their machines, and these keys."""
        setting, nodes = self._setting, running(self._stage)
        ring = self._stage.cluster.ring

        def owners_of(key: str) -> tuple[NodeId, ...]:
            token, _ = split_storage_key(setting.stored_key(key))
            return tuple(sorted(ring.primaries(ring.partition_of(token), setting.bucket.n)))

        owners = {key: owners_of(key) for key in keys}
        cast = [machine for machine in map(setting.machine, owners[keys[0]]) if machine in nodes]
        return cast, [key for key in keys if owners[key] == owners[keys[0]]][: self._rng.randint(1, AT_ONCE)]
