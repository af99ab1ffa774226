"""What a node has to do with being a member: the start of its store that others know it by, who knows it still.

Puts the parts together that the rules are in: `becoming` and `joining` (how a store becomes a member's), `contests` and
`recognition` (is everybody who they say), `expulsion` (the end of it).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from leafdb.node.contests import Contests
from leafdb.node.expulsion import expel
from leafdb.node.recognition import Recognition
from leafdb.node.self_report import peer_facts
from leafdb.ring.metadata import ClusterMetadata
from leafdb.types import NodeId
from leafdb.wire.hello import PeerFacts, Refusal
from leafdb.wire.registry import Lane

if TYPE_CHECKING:
    from leafdb.node.node import Node


class Belonging:
    """Of one node, made before its store is open."""

    def __init__(self, node: Node, boot_nonce: bytes) -> None:
        self._node = node
        self.boot_nonce = boot_nonce
        self.past = b""
        """The nonces of the starts of this store before, for `PeerFacts`; known once the store is open."""
        self.becoming: trio.Lock = trio.Lock()
        """Held while this node becomes a member."""
        self.contests: Contests = Contests(self._facts_of, lambda member, told: node.news.is_there(member, told))

    def recognise(self) -> None:
        """Make what looks after the others; they can be reached now."""
        node = self._node
        self.recognition: Recognition = Recognition(
            view=node.view,
            peers=node.peers,
            own=partial(peer_facts, node),
            known=node.admission.met,
            outcast=partial(expel, node),
        )

    def doubt(self, member: NodeId) -> None:
        """Somebody at a member's address would not have us."""
        self.recognition.doubt(member)

    def unnamed(self, metadata: ClusterMetadata | None) -> None:
        """Metadata do not name this node, though it was a member."""
        me = self._node.view.self_id
        if metadata is None or me in metadata.members:
            return
        why = Refusal.BANNED if me in metadata.bans else Refusal.UNKNOWN_NODE
        expel(self._node, why, f"the metadata of epoch {metadata.epoch}")

    def why_absent(self, member: NodeId) -> str:
        """What is known of a member that cannot be reached; "" when nothing is."""
        finding = self.recognition.findings.get(member)
        return self._node.admission.refusals.get(member) or ("" if finding is None else finding.text)

    def _facts_of(self, member: NodeId) -> PeerFacts | None:
        session = self._node.peers.session(member, Lane.CONTROL)
        return session.facts if session is not None and isinstance(session.facts, PeerFacts) else None
