"""How long requests of clients take here, for which keys, and a line in the log about each that takes long.

The request path pays one look at the clock, one bisection and two comparisons for a request. What is slow is said with
what somebody needs to find out why: the operation, the bucket, the key, the number its client gave the request. Keys
may be anybody's secret: the log has a hash of them that is made with the cluster's secret, the same on every node, and
`leafdb kv where` shows it beside a key. With `log.show_keys` the log has the keys themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from leafdb.model.context import ContextSealer
from leafdb.model.key import decode_key
from leafdb.node.hot_keys import HotKeys
from leafdb.node.logs import Log
from leafdb.node.metrics import Histogram, Metrics

NEVER_S: Final = float("inf")

log: Log = Log("requests")


class RequestTimes:
    """Of one node."""

    __slots__ = ("_metrics", "_now", "_sealer", "hot", "show_keys", "slow_s")

    def __init__(self, metrics: Metrics, sealer: ContextSealer, now: Callable[[], float]) -> None:
        self._metrics = metrics
        self._sealer = sealer
        self._now = now
        self.hot: HotKeys = HotKeys()
        self.slow_s: float = NEVER_S
        """What took at least so long is logged."""
        self.show_keys: bool = False

    def answered(self, taken: Histogram, started: float, op: str, bucket: str, key: bytes, request_id: int) -> None:
        """A request that came at `started`, on this node's clock, was answered without error, right now."""
        seconds = self._now() - started
        taken.observe(seconds)
        if op != "forward":  # it is counted where it is coordinated
            self.hot.saw(bucket, key, writes=op == "put")
        if seconds >= self.slow_s:
            self._metrics.slow_requests_total += 1
            log.warning(
                "a request was slow", op=op, bucket=bucket, request_id=request_id, took_s=round(seconds, 4),
                **self.named(key),
            )  # fmt: skip

    def named(self, key: bytes) -> dict[str, str]:
        """A key as a log may have it: `key` or `key_hash`."""
        if self.show_keys:
            parts = decode_key(key)
            shown = parts if isinstance(parts, tuple) else (parts,)
            return {"key": " / ".join(part.decode("utf-8", "backslashreplace") for part in shown)}
        return {"key_hash": self._sealer.key_hash(key)}
