"""What two processes say of themselves when they meet, and the bodies that carry it.

HELLO, CHALLENGE and WELCOME are CBOR maps (docs/formats/wire.md). The classes here are their contents and, for the ends
of a finished handshake, the facts it established. No decision is taken here: see `handshake`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from leafdb.codec.fields import bytes_field, int_field
from leafdb.errors import ProtocolError
from leafdb.limits import FRAME_BYTES_MAX, NODE_ID_MAX
from leafdb.types import Epoch, NodeId
from leafdb.wire.body import decode_map, encode_map, refusing, text_field
from leafdb.wire.registry import PROTOCOL_VERSION, Lane

NONCE_BYTES: Final = 16
BOOT_NONCE_BYTES: Final = 16
CLUSTER_ID_BYTES: Final = 16
STORE_ID_BYTES: Final = 16
STARTS_TOLD: Final = 16
"""How many earlier starts of its store a node gives account of."""
MAC_BYTES: Final = 32
VERSION_MAX: Final = 255
AGENT_CHARS_MAX: Final = 200
NAME_CHARS_MAX: Final = 256
U32: Final = (1 << 32) - 1


class Refusal(StrEnum):
    """Why one side would not have the other. A node's `admit` may answer any of these; the names cross the wire."""

    VERSION = "version"
    """No protocol version both know."""
    WRONG_PORT = "wrong_port"
    """A client at the peer port, or a peer at the client port."""
    BAD_SECRET = "bad_secret"  # noqa: S105
    """The proof does not verify: another cluster secret, or bytes changed on the way."""
    WRONG_CLUSTER = "wrong_cluster"
    BANNED = "banned"
    """The node was removed for good."""
    ROLLED_BACK = "rolled_back"
    """A lower boot counter than before: an old disk, or an old copy of it."""
    CLONE = "clone"
    """The same boot with another nonce: two processes run from copies of one disk. Or our own number."""
    OTHER_STORE = "other_store"
    """The number belongs to another store."""
    CONTESTED = "contested"
    """An earlier start of this store is still connected, and is being asked whether it lives. Come again."""
    UNKNOWN_NODE = "unknown_node"
    DUPLICATE = "duplicate"
    """We are dialling you ourselves; that session will do."""
    NOT_READY = "not_ready"


LASTING: Final = frozenset(
    {
        *(Refusal.VERSION, Refusal.WRONG_PORT, Refusal.BAD_SECRET, Refusal.WRONG_CLUSTER, Refusal.BANNED),
        *(Refusal.ROLLED_BACK, Refusal.CLONE, Refusal.OTHER_STORE),
    }
)
"""What does not pass by itself: no use in coming again soon."""


@dataclass(frozen=True, slots=True)
class ClientFacts:
    """What a node knows of a client that has said hello."""

    version: int
    agent: str
    principal: object = None
    """Who it has proved to be, in the node's own words; None: it did not say."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a node tells a client in WELCOME. `node` is 0 while it belongs to no cluster."""

    node: NodeId
    name: str
    cluster: str
    cluster_id: bytes
    epoch: Epoch
    version: int = PROTOCOL_VERSION
    frame_bytes_max: int = FRAME_BYTES_MAX
    user: str = ""
    """Whom the node takes the client for; empty when the client did not say."""
    traces: bool = False
    """It takes TRACED requests. Came later: a node that does not know it does not say so."""

    def encode(self, proof: bytes = b"") -> bytes:
        """The body of a WELCOME to a client; with the node's proof when it answers a login."""
        return encode_map(
            {
                "version": self.version,
                "node": self.node,
                "name": self.name,
                "cluster": self.cluster,
                "cluster_id": self.cluster_id,
                "epoch": self.epoch,
                "frame_bytes_max": self.frame_bytes_max,
                **({"user": self.user, "data": proof} if self.user else {}),
                "traces": self.traces,
            }
        )

    @staticmethod
    @refusing("a welcome")
    def decode(body: bytes) -> ServerFacts:
        """The facts in a WELCOME body."""
        fields = decode_map(body, "a welcome")
        return ServerFacts(
            version=int_field(fields, "version", high=VERSION_MAX),
            node=NodeId(int_field(fields, "node", high=NODE_ID_MAX)),
            name=text_field(fields, "name", chars_max=NAME_CHARS_MAX),
            cluster=text_field(fields, "cluster", chars_max=NAME_CHARS_MAX),
            cluster_id=_cluster_id(fields),
            epoch=Epoch(int_field(fields, "epoch", high=U32)),
            frame_bytes_max=int_field(fields, "frame_bytes_max", low=1, high=U32),
            user=text_field(fields, "user", chars_max=NAME_CHARS_MAX) if "user" in fields else "",
            traces=fields.get("traces") is True,
        )


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """What nodes tell each other, in HELLO and CHALLENGE, and know of each other once both proofs have verified.

    `boot` counts the starts of this store; `boot_nonce` was drawn at this start: together they tell a restart from a
    rolled-back disk and from a clone. `node` is 0 and `cluster_id` empty before founding.

    What follows the version came later: a node that does not know it does not send it.
    """

    cluster_id: bytes
    node: NodeId
    incarnation: int
    boot: int
    boot_nonce: bytes
    epoch: Epoch
    lane: Lane
    version: int = PROTOCOL_VERSION
    """The version agreed on; not in the message, which carries the range known to the sender."""
    store: bytes = b""
    """The identity of the store."""
    past: bytes = b""
    """The nonces of the starts before this one, the last first, 16 bytes each, zeros for one that is not known."""

    def nonce_at(self, boot: int) -> bytes | None:
        """The nonce that the store drew at that start, as it remembers it; None when it does not, or has not."""
        if boot == self.boot:
            return self.boot_nonce
        at = (self.boot - 1 - boot) * BOOT_NONCE_BYTES
        nonce = self.past[at : at + BOOT_NONCE_BYTES] if at >= 0 else b""
        return nonce if any(nonce) else None


@dataclass(frozen=True, slots=True)
class PeerHello:
    """A peer's HELLO or CHALLENGE: its facts, the versions it speaks, and a nonce drawn for this connection alone."""

    facts: PeerFacts
    nonce: bytes
    version_min: int = PROTOCOL_VERSION
    version_max: int = PROTOCOL_VERSION

    def encode(self) -> bytes:
        """The body; these very bytes go under both proofs."""
        facts = self.facts
        return encode_map(
            {
                "kind": "peer",
                "min": self.version_min,
                "max": self.version_max,
                "cluster_id": facts.cluster_id,
                "node": facts.node,
                "incarnation": facts.incarnation,
                "boot": facts.boot,
                "boot_nonce": facts.boot_nonce,
                "nonce": self.nonce,
                "epoch": facts.epoch,
                "lane": int(facts.lane),
                "store": facts.store,
                "past": facts.past,
            }
        )

    @staticmethod
    @refusing("a peer's hello")
    def decode(body: bytes) -> PeerHello:
        """The contents of a HELLO or CHALLENGE body whose kind has been found to be "peer"."""
        fields = decode_map(body, "a peer's hello")
        version_min, version_max = version_range(fields)
        return PeerHello(
            PeerFacts(
                cluster_id=_cluster_id(fields),
                node=NodeId(int_field(fields, "node", high=NODE_ID_MAX)),
                incarnation=int_field(fields, "incarnation", high=U32),
                boot=int_field(fields, "boot"),
                boot_nonce=bytes_field(fields, "boot_nonce", low=BOOT_NONCE_BYTES, high=BOOT_NONCE_BYTES),
                epoch=Epoch(int_field(fields, "epoch", high=U32)),
                lane=Lane(int_field(fields, "lane", low=1, high=3)),
                store=bytes_field(fields, "store", high=STORE_ID_BYTES) if "store" in fields else b"",
                past=bytes_field(fields, "past", high=STARTS_TOLD * BOOT_NONCE_BYTES) if "past" in fields else b"",
            ),
            nonce=bytes_field(fields, "nonce", low=NONCE_BYTES, high=NONCE_BYTES),
            version_min=version_min,
            version_max=version_max,
        )


def version_range(fields: Mapping[str, Any]) -> tuple[int, int]:
    """The versions a hello speaks. Raises ValueError."""
    low = int_field(fields, "min", low=1, high=VERSION_MAX)
    return low, int_field(fields, "max", low=low, high=VERSION_MAX)


def encode_client_hello(agent: str, login: Mapping[str, object] | None = None) -> bytes:
    """The body of a client's HELLO; `login` are the fields that say who it is."""
    return encode_map(
        {
            "kind": "client",
            "min": PROTOCOL_VERSION,
            "max": PROTOCOL_VERSION,
            "agent": agent[:AGENT_CHARS_MAX],
            **(login or {}),
        }
    )


def kind_of(body: bytes) -> str:
    """What a HELLO says its sender is: "client" or "peer"; ProtocolError when neither."""
    kind = decode_map(body, "a hello").get("kind")
    if kind not in ("client", "peer"):
        raise ProtocolError("a hello that is neither a client's nor a peer's")
    return str(kind)


@refusing("a client's hello")
def decode_client_hello(body: bytes) -> tuple[tuple[int, int], str]:
    """((version min, max), agent) of a client's HELLO."""
    fields = decode_map(body, "a client's hello")
    return version_range(fields), text_field(fields, "agent", chars_max=AGENT_CHARS_MAX)


def _cluster_id(fields: Mapping[str, Any]) -> bytes:
    cluster_id = bytes_field(fields, "cluster_id", high=CLUSTER_ID_BYTES)
    if len(cluster_id) not in (0, CLUSTER_ID_BYTES):
        raise ValueError(f"cluster_id is {len(cluster_id)} bytes long")
    return cluster_id
