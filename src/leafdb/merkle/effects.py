"""Settings of an exchange, what it asks of its driver, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass

from leafdb.limits import EXCHANGE_BYTES_MAX, EXCHANGE_KEYS_MAX, TREE_LEAVES
from leafdb.merkle.messages import AnyMessage
from leafdb.types import NodeId


@dataclass(frozen=True, slots=True)
class ExchangeConfig:
    """The same on both sides, though nothing breaks if it is not."""

    keys_max: int = EXCHANGE_KEYS_MAX
    """Keys in one message, and in one Fetch or Offer."""
    bytes_max: int = EXCHANGE_BYTES_MAX
    """Of the keys and digests in one message; one key always fits."""
    window_keys: int = 16_384
    """About so many keys are held in memory per side: leaves are worked off in windows of that size, one scan each."""
    reply_timeout_s: float = 60.0
    """For the other side's answer, which may take it a scan of the range."""
    idle_timeout_s: float = 600.0
    """A responder forgets an initiator that says nothing for so long: it may be busy moving records meanwhile."""

    def leaves_at_once(self, keys: int) -> int:
        """How many leaves make a window, in a tree of `keys` keys."""
        return min(TREE_LEAVES, max(1, self.window_keys // (keys // TREE_LEAVES + 1)))


@dataclass(frozen=True, slots=True)
class Send:
    """Put `message` on the bulk lane to `to`."""

    to: NodeId
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class NeedLeaves:
    """Scan the range once and answer with `on_leaf` for each of these leaves, also for those without keys."""

    leaves: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get these records from the peer, merge them here, then call `on_fetched`."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """Send our records of these keys to the peer to merge, then call `on_offered`."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """What an exchange found and did. Equal trees leave all at 0 but `compared_bytes`."""

    branches: int = 0
    leaves: int = 0
    keys: int = 0
    """Keys that were missing on one side or different."""
    sent: int = 0
    received: int = 0
    bytes: int = 0
    """Of the records moved, both ways, as the driver reported them."""
    compared_bytes: int = 0
    """Of hashes, keys and digests, both ways."""


@dataclass(frozen=True, slots=True)
class Done:
    """The exchange is over: both sides hold the merge of both, as of its comparison."""

    counts: Counts


@dataclass(frozen=True, slots=True)
class Failed:
    """The exchange is over before its end; what was moved stays moved, and another will find the rest."""

    reason: str
    counts: Counts


Effect = Send | NeedLeaves | Fetch | Offer | Done | Failed
