"""Requests that know more than this node: they wait, bounded, while it fetches newer metadata.

A request that names a bucket, a bucket generation or a range epoch this node has never heard of is not refused at once:
its sender may simply be ahead. It is parked, one fetch from the peers is started for all that wait, and when the fetch
is over every parked request runs once more; what is still unknown then is refused for good.
"""

from __future__ import annotations

from collections.abc import Callable

from leafdb.limits import EPOCH_WAITERS_MAX


class CatchUp:
    """The waiting room. `fetch` starts a fetch and calls back once, whether or not it brought anything."""

    def __init__(self, fetch: Callable[[Callable[[], None]], None]) -> None:
        self._fetch = fetch
        self._waiting: list[Callable[[], None]] = []
        self._retrying = False
        self._fetching = False

    def wait(self, retry: Callable[[], None]) -> bool:
        """Park `retry` until newer metadata had its chance. False: no room, or it has had it already."""
        if self._retrying or len(self._waiting) >= EPOCH_WAITERS_MAX:
            return False
        self._waiting.append(retry)
        self.fetch()
        return True

    def fetch(self) -> None:
        """This node is behind, and nobody waits for it: fetch, unless that is under way."""
        if not self._fetching:
            self._fetching = True
            self._fetch(self._fetched)

    def __len__(self) -> int:
        return len(self._waiting)

    def _fetched(self) -> None:
        self._fetching = False
        waiting, self._waiting = self._waiting, []
        self._retrying = True
        first: Exception | None = None
        for retry in waiting:
            try:
                retry()
            except Exception as error:  # one request's fault must not swallow the others'
                first = first or error
        self._retrying = False
        if first is not None:
            raise first
