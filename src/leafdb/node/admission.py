"""Whom this node takes for the peer it says it is: asked about every peer whose proof of the secret has verified.

A number belongs to one store. Each store counts its starts and draws a nonce at each. A peer that shows a lower count
than before runs from an old copy of its disk; one that shows the same count with another nonce runs beside a copy of
itself. A copy that was started often enough shows a higher count; so a store also gives account of its last starts, and
one whose account is another than what was seen here went its own way since. All of them could mint dots that exist
already and have forgotten what they acknowledged, so all are refused, with the reason, until an operator decides.

What was seen is kept on disk and synced: a power cut must not bring an old copy back into favour.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from leafdb.codec import cbor
from leafdb.codec.fields import as_bytes, as_int, as_list, as_map
from leafdb.node.contests import Contests
from leafdb.node.logs import Log
from leafdb.node.register import META_TREE
from leafdb.node.view import ClusterView
from leafdb.ring.metadata import ClusterMetadata
from leafdb.storage.engine import Engine
from leafdb.types import Durability, NodeId
from leafdb.wire.hello import BOOT_NONCE_BYTES, STORE_ID_BYTES, PeerFacts, Refusal

PEERS_KEY: Final = b"peers"

log: Log = Log("admission")


class Seen(NamedTuple):
    """The newest start of a peer that was ever seen, and of which store; empty when the peer did not say."""

    boot: int
    nonce: bytes
    store: bytes = b""


class Admission:
    """The memory of peers' starts."""

    def __init__(self, engine: Engine, view: ClusterView, contests: Contests, stored: bytes | None) -> None:
        self._engine = engine
        self._view = view
        self._contests = contests
        self.refusals: dict[int, str] = {}
        """Why a member was not let in the last time it came, for the report of its absence."""
        self._seen: dict[int, Seen] = {} if stored is None else _decode(stored)

    def met(self) -> frozenset[int]:
        """The numbers of all peers that were ever welcome here."""
        return frozenset(self._seen)

    def admit(self, facts: PeerFacts) -> str | None:
        """None: welcome, and remembered; else why not."""
        refusal = self.judge(facts)
        if refusal is None:
            self._welcome(facts)
        return refusal

    def judge(self, facts: PeerFacts) -> Refusal | None:
        """What `admit` would answer. Who is welcome is not remembered; why somebody is not is said in any case."""
        refusal = self._judge(facts)
        if refusal is not None:
            self._note(facts, refusal)
        return refusal

    def _judge(self, facts: PeerFacts) -> Refusal | None:
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
        known = seen.store if seen is not None and seen.store else _store_of(facts.node, metadata)
        if facts.store and known and facts.store != known:
            return Refusal.OTHER_STORE
        if seen is None:
            return None
        if facts.boot < seen.boot:
            return Refusal.ROLLED_BACK
        nonce = facts.nonce_at(seen.boot)
        if nonce is not None and nonce != seen.nonce:
            return Refusal.CLONE
        return self._contests.verdict(facts) if facts.boot > seen.boot else None

    def _welcome(self, facts: PeerFacts) -> None:
        self.refusals.pop(facts.node, None)
        if not facts.node:
            return
        seen = self._seen.get(facts.node)
        store = facts.store or (seen.store if seen else b"")
        newest = Seen(facts.boot, facts.boot_nonce, store)
        if newest != seen:
            self._seen[facts.node] = newest
            self._save()

    def _note(self, facts: PeerFacts, refusal: Refusal) -> None:
        """Say it once, and keep it for `status`. What passes by itself is not worth a line."""
        if refusal not in (Refusal.ROLLED_BACK, Refusal.CLONE, Refusal.OTHER_STORE):
            return
        seen = self._seen.get(facts.node)
        boot = 0 if seen is None else seen.boot
        text = f"it is refused: {refusal.replace('_', ' ')}, start {facts.boot} after {boot}"
        if self.refusals.get(facts.node) != text:
            self.refusals[facts.node] = text
            log.error("a peer is refused", member=self._view.name_of(facts.node), why=str(refusal), boot=facts.boot,
                      newest_boot_seen=boot)  # fmt: skip

    def _save(self) -> None:
        metadata = self._view.metadata
        assert metadata is not None, "nobody is welcome before there is a cluster"
        for node in self._seen.keys() & set(metadata.bans):
            del self._seen[node]
        stored = {str(node): list(seen) for node, seen in sorted(self._seen.items())}
        self._engine.write(((META_TREE, PEERS_KEY, cbor.dumps(stored)),), Durability.ALWAYS, None)


def _store_of(node: NodeId, metadata: ClusterMetadata) -> bytes:
    """The only store that may come as `node` by the plan in progress; empty when it says nothing of it."""
    plan = metadata.plan
    return plan.store_of(node) if plan is not None and node in plan.joining else b""


def _decode(stored: bytes) -> dict[int, Seen]:
    """What `_save` kept, also before it kept stores."""
    found = {}
    for node, entry in as_map(cbor.loads(stored), "peers").items():
        boot, nonce, *store = as_list(entry, "peer", items_max=3)
        found[int(node)] = Seen(
            as_int(boot, "boot"),
            as_bytes(nonce, "nonce", high=BOOT_NONCE_BYTES),
            as_bytes(store[0], "store", high=STORE_ID_BYTES) if store else b"",
        )
    return found
