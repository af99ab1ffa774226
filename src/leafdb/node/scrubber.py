"""Reads every table and value file of this node's store again, once in `storage.scrub_interval`, to find damage that no
read has met.

One file after the other, each at its time (`storage/scrub`) and at a slow pace, whether or not anybody asks for what is
in it. What is found goes the way of damage that a read meets: the table is salvaged, or those that refer to the damaged
value are, and repair brings back what they lost (`lost_tables`). How far a pass is stands in the META tree, so a
restart goes on from there, not from the start. A damaged file keeps its turn until it was replaced, or until nothing
that is damaged in it is referred to any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from leafdb.errors import StorageError
from leafdb.node.engine_reads import Awaited, read_value
from leafdb.node.logs import Log
from leafdb.node.register import META_TREE
from leafdb.storage import scrub
from leafdb.storage.engine import Engine
from leafdb.storage.scrub import ScrubPass
from leafdb.storage.verification import Verified
from leafdb.types import Durability

KEY: Final = b"scrub"
AGAIN_S: Final = 60.0
"""Until a damaged file that is still there is looked at again."""

log: Log = Log("storage")


class Scrubber:
    """Of one node. `run` is its one task."""

    def __init__(self, engine: Engine, interval_s: float, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._interval_ms = int(interval_s * 1_000)
        self._now_ms = now_ms
        self._pass: ScrubPass | None = None
        self.passes_total: int = 0
        """Carried to the end."""

    async def load(self) -> None:
        """Take what the store remembers. What cannot be read is a pass that begins anew. Raises StorageError."""
        stored = await read_value(self._engine, META_TREE, KEY)
        if stored is not None:
            try:
                self._pass = ScrubPass.decode(stored)
            except ValueError as error:
                log.error("how far the scrub was cannot be read; it begins anew", reason=str(error))

    def age_s(self) -> float:
        """Since when the pass under way reads."""
        return 0.0 if self._pass is None else max(0, self._now_ms() - self._pass.begun_ms) / 1_000

    async def run(self) -> None:
        """Read, until cancelled; or the store has failed, which others tell."""
        try:
            while True:
                await self._step()
        except StorageError as error:
            log.debug("the scrub ends with the store", reason=str(error))

    async def _step(self) -> None:
        """Wait for the next turn, and read its file; or for the next pass, and begin it. Raises StorageError."""
        files = self._engine.files()
        now_ms = self._now_ms()
        if self._pass is None or self._pass.begun_ms > now_ms:  # the clock was set back
            self._keep(scrub.begin(files, now_ms))
            return
        turn = scrub.next_turn(self._pass, files, self._interval_ms)
        due_ms = scrub.over_ms(self._pass, self._interval_ms) if turn is None else turn.due_ms
        if due_ms > now_ms:
            await trio.sleep((due_ms - now_ms) / 1_000)  # and look anew: the file may have left
        elif turn is None:
            self.passes_total += 1
            self._keep(scrub.begin(files, now_ms))
        else:
            verified = await self._read(turn.file.file_number)
            if verified.damages_found and turn.file.file_number in self._engine.files():
                log.error("the scrub has found a damaged file", path=turn.file.path, damages=verified.damages_found)
                if self._engine.config.salvages(turn.file.tree_id):
                    await trio.sleep(AGAIN_S)
                    return
            self._keep(scrub.had_its_turn(self._pass, turn.file))

    async def _read(self, number: int) -> Verified:
        told: Awaited[Verified | StorageError] = Awaited()
        pace = scrub.bytes_per_s(self._engine.files().values(), self._interval_ms)
        self._engine.scrub_soon(number, bytes_per_s=pace, done=told.done)
        found = await told.result()
        if isinstance(found, StorageError):
            raise found
        return found

    def _keep(self, state: ScrubPass) -> None:
        self._pass = state
        self._engine.write(((META_TREE, KEY, state.encode()),), Durability.PERIODIC, None)
