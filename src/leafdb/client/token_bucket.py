"""What a client does beside the calls it was asked for is paid for by those calls: each earns a share of one.

So when everything fails, or everything is slow, retries and hedges add that share to the load and not a multiple of it.
"""

from __future__ import annotations


class TokenBucket:
    """Tokens shared by all calls of a client: `share` of one is earned by each, `most` are kept, `tokens` are there at
    first. Threads may race on it: it bounds a load, it does not count exactly."""

    __slots__ = ("_most", "_share", "_tokens", "wanting")

    def __init__(self, share: float, most: float, tokens: float) -> None:
        assert 0.0 < share < 1.0 <= most
        self._share = share
        self._most = most
        self._tokens = tokens
        self.wanting: bool = tokens < most
        """There is room for more: where it is full, as it nearly always is, there is nothing to earn."""

    def earn(self) -> None:
        """A call was made, or went well."""
        self._tokens = min(self._most, self._tokens + self._share)
        self.wanting = self._tokens < self._most

    def take(self) -> bool:
        """Spend one; False when there is none to spend."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        self.wanting = True
        return True

    def check(self) -> None:
        """It is never overdrawn and never hoarded."""
        assert 0.0 <= self._tokens <= self._most
