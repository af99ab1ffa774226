"""Whom this node takes for the peer it says it is: asked about every peer whose proof of the secret has verified.

Each store counts its starts and draws a nonce at each. A peer that shows a lower count than before runs from an old
copy of its disk; one that shows the same count with another nonce runs beside a copy of itself. Both could mint dots
that exist already, so both are refused, with the reason, until an operator decides. What was seen is kept on disk and
synced: a power cut must not bring an old copy back into favour.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from leafdb.codec import cbor
from leafdb.codec.fields import as_list, as_map
from leafdb.node.logs import Log
from leafdb.node.register import META_TREE
from leafdb.node.view import ClusterView
from leafdb.storage.engine import Engine
from leafdb.types import Durability
from leafdb.wire.hello import PeerFacts, Refusal

PEERS_KEY: Final = b"peers"

log = Log("admission")


class Seen(NamedTuple):
    """The newest start of a peer that was ever seen."""

    boot: int
    nonce: bytes


class Admission:
    """The memory of peers' starts."""

    def __init__(self, engine: Engine, view: ClusterView, stored: bytes | None) -> None:
        self._engine = engine
        self._view = view
        self.refusals: dict[int, str] = {}
        """Why a member was not let in the last time it came, for the report of its absence."""
        self._seen: dict[int, Seen] = {}
        if stored is not None:
            for node, entry in as_map(cbor.loads(stored), "peers").items():
                boot, nonce = as_list(entry, "peer", items_max=2)
                self._seen[int(node)] = Seen(boot, nonce)

    def met(self) -> frozenset[int]:
        """The numbers of all peers that were ever welcome here."""
        return frozenset(self._seen)

    def admit(self, facts: PeerFacts) -> str | None:
        """None: welcome; else why not."""
        metadata = self._view.metadata
        if facts.node == 0:
            return None if not facts.cluster_id else Refusal.UNKNOWN_NODE
        if metadata is None:
            return Refusal.NOT_READY
        if facts.node in metadata.bans:
            return Refusal.BANNED
        if facts.node not in metadata.members:
            return Refusal.UNKNOWN_NODE
        seen = self._seen.get(facts.node)
        if seen is not None:
            if facts.boot < seen.boot:
                return self._refuse(facts, seen, Refusal.ROLLED_BACK)
            if facts.boot == seen.boot and facts.boot_nonce != seen.nonce:
                return self._refuse(facts, seen, Refusal.CLONE)
        if seen is None or facts.boot > seen.boot:
            self._seen[facts.node] = Seen(facts.boot, facts.boot_nonce)
            self._save()
        self.refusals.pop(facts.node, None)
        return None

    def _refuse(self, facts: PeerFacts, seen: Seen, refusal: Refusal) -> str:
        log.error("a peer is refused", member=self._view.name_of(facts.node), why=str(refusal), boot=facts.boot,
                  newest_boot_seen=seen.boot)  # fmt: skip
        self.refusals[facts.node] = f"it is refused: {refusal.replace('_', ' ')}, start {facts.boot} after {seen.boot}"
        return refusal

    def _save(self) -> None:
        stored = {str(node): [seen.boot, seen.nonce] for node, seen in sorted(self._seen.items())}
        self._engine.write(((META_TREE, PEERS_KEY, cbor.dumps(stored)),), Durability.ALWAYS, None)
