"""Where what was acknowledged has come by itself: once nobody owes anything, to every primary, without any comparing.

A node that dies in the middle of a write leaves copies that nobody owes to anybody: of writes whose clients were told
nothing, and of those alone. In this version only a repair that an operator starts finds them. What was acknowledged is
another matter: whoever was missed is owed a hint or an exchange, and both have been worked off (I11), unless it is gone
by right.
"""

from __future__ import annotations

from leafdb.model.clock import EMPTY
from leafdb.model.record import decode
from leafdb.sim.setting import Setting, key_of
from leafdb.testing.violation import Invariant, require


async def check_delivered(setting: Setting) -> None:
    """Raise Violation unless every primary knows every acknowledged write; everybody runs and owes nothing."""
    cluster, bucket, history = setting.cluster, setting.bucket, setting.history
    for key in history.written_keys():
        acked = [write for write in history.of_key(key).acked if write.acks > history.stores_lost]
        for node in cluster.primaries(bucket, key_of(key)):
            data = await cluster.record(setting.machine(node), bucket, key_of(key))
            clock = EMPTY if data is None else decode(data).clock
            clock = clock.merge(history.forgetting.gone(key))
            for write in acked:
                known = any(clock.covers(dot) for dot in write.dots)
                text = f"nobody owes n{node} anything, and it has not heard of the acknowledged {write.text}"
                require(known, Invariant.HINTS_CONSERVED, text, key)
