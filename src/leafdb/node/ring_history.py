"""The last versions of the metadata that this node has believed in, in words, over restarts: `ring history`.

One value in the META tree (docs/formats/metadata.md): a version is rare, and 256 sentences are some 30 KB. It is not
synced: after a power cut the newest sentences may be missing, and the next one tells what changed since the last there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from leafdb.codec import cbor
from leafdb.codec.fields import as_int, as_list
from leafdb.errors import CorruptionError
from leafdb.limits import RING_HISTORY_MAX
from leafdb.node.register import META_TREE
from leafdb.node.view import ClusterView
from leafdb.ring.history import what_changed, worth_telling
from leafdb.ring.metadata import ClusterMetadata
from leafdb.storage.engine import Engine
from leafdb.types import Durability

HISTORY_KEY: Final = b"history"


class Version(NamedTuple):
    """One version, as it came to be known here."""

    generation: int
    epoch: int
    at_ms: int
    what: str


class RingHistory:
    """Newest last; `stored` is what META has under HISTORY_KEY."""

    def __init__(self, engine: Engine, view: ClusterView, now_ms: Callable[[], int], stored: bytes | None) -> None:
        self._engine = engine
        self._now_ms = now_ms
        self._before: ClusterMetadata | None = None
        self._versions: deque[Version] = deque(maxlen=RING_HISTORY_MAX)
        if stored is not None:
            try:
                items = as_list(cbor.loads(stored), "history", items_max=RING_HISTORY_MAX)
                self._versions.extend(_version(item) for item in items)
            except ValueError as error:
                raise CorruptionError(f"the history of this store cannot be read: {error}") from None
        view.on_install.append(self._installed)

    def newest_first(self) -> list[dict[str, Any]]:
        """As an answer."""
        return [
            {"generation": each.generation, "epoch": each.epoch, "at_ms": each.at_ms, "what": each.what}
            for each in reversed(self._versions)
        ]

    def _installed(self, metadata: ClusterMetadata) -> None:
        before, self._before = self._before, metadata
        last = self._versions[-1] if self._versions else None
        if last is not None and (last.generation, last.epoch) >= (metadata.generation, metadata.epoch):
            return  # what this store remembered from before its start
        if not worth_telling(before, metadata):
            return
        what = what_changed(before, metadata)
        self._versions.append(Version(metadata.generation, int(metadata.epoch), self._now_ms(), what))
        stored = cbor.dumps([list(version) for version in self._versions])
        self._engine.write(((META_TREE, HISTORY_KEY, stored),), Durability.PERIODIC, None)


def _version(item: object) -> Version:
    generation, epoch, at_ms, what = as_list(item, "version", items_max=4)
    if not isinstance(what, str):
        raise ValueError("a version without words")
    return Version(as_int(generation, "generation"), as_int(epoch, "epoch"), as_int(at_ms, "at_ms"), what)
