"""Clients that ask what became of a write, and whether they were told the truth (I10).

*Applied* must be so: nobody was told that the write was refused, the key is its key, the dots are its dots, and what
more stores know than may be lost is known in the end (final_record.py). *Replaced* must have been done by a write that
saw it. *Unknown* claims nothing of those who could not be asked; but when all were, then no store that serves before
and after shows the write.
"""

from __future__ import annotations

from typing import Final

from leafdb.errors import LeafdbError
from leafdb.model.key import decode_key
from leafdb.sim.clients import RealClient
from leafdb.sim.setting import encoded
from leafdb.sim.stores_with import stores_with
from leafdb.testing.history_values import Write, clock_of
from leafdb.testing.violation import Invariant, require

ASKING_S: Final = 5.0


async def ask_outcome(client: RealClient, write: Write) -> None:
    """Ask through any node; judge the answer."""
    setting = client.setting
    before = await stores_with(setting, write)
    try:
        found = await client.db.outcome(write.op_id, timeout=ASKING_S)
    except LeafdbError as error:
        client.tell(f"outcome of {write.text} cannot be asked: {client.judged(error, write.key)}", write.key)
        return
    away = len(found.unasked)
    if found.state == "unknown":
        setting.history.facts["an outcome that nobody knew"] += 1
        if before and not away:
            both = before.keys() & (await stores_with(setting, write)).keys()
            lives = " ".join(f"n{node}" for node, process in sorted(both, key=lambda each: each[0]))
            text = f"nobody knows of {write.text}, it is said, and it lives on {lives}"
            require(not both, Invariant.HONEST_OUTCOMES, text, write.key)
        client.tell(f"outcome of {write.text}: unknown, {away} could not be asked", write.key)
        return
    text = f"{write.text} is said to be applied, under another key or in another bucket"
    place = setting.bucket.name, decode_key(encoded(write.key))
    require((found.bucket, found.key) == place, Invariant.HONEST_OUTCOMES, text, write.key)
    text = f"{write.text} was refused, and is said to be applied"
    require(write.outcome != "refused", Invariant.HONEST_OUTCOMES, text, write.key)
    if found.context is not None:
        clock = clock_of(found.context)
        for dot in (*clock.vector.items(), *clock.cloud):
            setting.history.name(write, dot)
        claimed = setting.history.of_key(write.key).claimed
        text = f"{write.text} is said to be replaced, and no write has seen it"
        seen = any(claimed.covers(dot) for dot in write.dots)
        # Of one sent twice, what was seen may be the other dot, and that may be forgotten.
        judged = found.replaced and write.lasting and write.attempts == 1
        require(seen or not judged, Invariant.HONEST_OUTCOMES, text, write.key)
        write.told = max(write.told, len(found.replicas))
    setting.history.facts["an outcome that was told"] += 1
    how = "applied and replaced" if found.replaced else "applied"
    client.tell(f"outcome of {write.text}: {how}, known to {len(found.replicas)}, {away} could not be asked", write.key)
