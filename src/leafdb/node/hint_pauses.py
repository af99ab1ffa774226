"""To whom this node delivers no hints for now, because somebody said so. Kept over restarts.

Only the way home is closed: hints are kept, bounded and given up for their age as before, and reads find what a
fallback keeps. Anti-entropy does not wait for hints that are not on their way. Everybody may be paused, or single
nodes, or everybody but single nodes.
"""

from __future__ import annotations

from collections.abc import Callable

from leafdb.codec import cbor
from leafdb.codec.fields import as_bool, as_int, as_list, as_map, map_field
from leafdb.limits import NODE_ID_MAX, NODES_MAX
from leafdb.node.logs import Log
from leafdb.types import NodeId

KEY = bytes((19,))
"""In the CHECKPOINTS tree."""

log: Log = Log("hinted_handoff")


class HintPauses:
    """Of one node. `write` stores the value of KEY, synced."""

    def __init__(self, stored: bytes | None, write: Callable[[bytes], None]) -> None:
        """ValueError when what is stored is malformed."""
        self._write = write
        self._all = False
        self._others: set[NodeId] = set()
        """For whom the opposite holds."""
        if stored is not None:
            fields = as_map(cbor.loads(stored), "pauses of hints")
            self._all = as_bool(map_field(fields, "all"), "all")
            listed = as_list(map_field(fields, "others"), "others", items_max=NODES_MAX)
            self._others = {NodeId(as_int(node, "node", low=1, high=NODE_ID_MAX)) for node in listed}

    def paused(self, target: NodeId) -> bool:
        """Whether hints for the target are not to be delivered now."""
        return self._all != (target in self._others)

    @property
    def any(self) -> bool:
        """Whether anything is paused."""
        return self._all or bool(self._others)

    def set(self, target: NodeId | None, *, paused: bool) -> None:
        """Pause or resume one target; None: all of them."""
        if target is None:
            self._all = paused
            self._others.clear()
        elif paused != self.paused(target):
            self._others ^= {target}
        log.info("delivery of hints was paused" if paused else "delivery of hints goes on", target=target or "all")
        self._write(cbor.dumps({"all": self._all, "others": sorted(self._others)}))

    def words(self, name_of: Callable[[NodeId], str]) -> str:
        """To whom nothing is delivered, in words; empty when that is nobody."""
        names = ", ".join(name_of(node) for node in sorted(self._others))
        if not self._all:
            return names
        return f"all but {names}" if names else "all"
