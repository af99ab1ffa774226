"""Scans and ranges of a real client, recorded and judged: order, bounds, what must be there, and each value shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from leafdb.client.results import Item
from leafdb.errors import LeafdbError
from leafdb.ring.token import storage_key
from leafdb.sim.clients import RealClient
from leafdb.sim.recorder import Reads
from leafdb.sim.setting import encoded, name_of
from leafdb.testing.history_values import Known
from leafdb.testing.scan_history import ScanWatch
from leafdb.testing.violation import Invariant, require

RESUMES_MAX: Final = 3
"""How often a scan that failed is taken up again where it stood."""


class Scan:
    """One scan of everything, or range of one partition key, while it runs."""

    def __init__(self, client: RealClient, what: str, within: Callable[[str], bool], r: int) -> None:
        setting = client.setting
        self.client = client
        self.shown: list[str] = []
        self._what = what
        self._within = within
        self._watch = ScanWatch(setting.history, within)
        now_ms = setting.cluster.now_ms()
        # R complete primaries are asked for each part, whatever the bucket says of stand-ins.
        self._known: dict[str, Known] = {
            key: setting.history.begin_read(key, r or setting.bucket.r, now_ms)
            for key in setting.history.keys
            if within(key)
        }
        self._heard = {key: setting.history.forgetting.heard(key) for key in self._known}
        client.tell(f"{what} begins")

    def show(self, item: Item[Any]) -> None:
        """The next item."""
        client, key = self.client, name_of(item.key)
        require(
            self._within(key), Invariant.HONEST_OUTCOMES, f"{self._what} shows a key that it was not asked for", key
        )
        reads = Reads(key, self._known.get(key), 0, 0, 0, self._heard.get(key, 0))
        client.found(reads, item.answer, held=False, tell=False)
        self.shown.append(key)

    def end(self, order: list[bytes] | None = None) -> list[str]:
        """It has come to its end; the keys it showed."""
        order = self._storage_keys() if order is None else order
        client = self.client
        for before, after, key in zip(order, order[1:], self.shown[1:], strict=False):
            require(
                before < after, Invariant.HONEST_OUTCOMES, f"{self._what} is out of order, or shows a key twice", key
            )
        client.tell(f"{self._what} ends with {len(self.shown)} keys")
        self._watch.check(self.shown)
        return self.shown

    def _storage_keys(self) -> list[bytes]:
        bucket = self.client.setting.bucket.id
        return [storage_key(bucket, encoded(key)) for key in self.shown]


async def scan_all(
    client: RealClient, *, page_size: int, part: int | None, r: int, timeout_s: float
) -> list[str] | None:
    """Scan the bucket, `part` items at a time with a cursor in between; None: it failed."""
    scan = Scan(client, "scan", lambda key: True, r)
    cursor: bytes | None = None
    failures = 0
    while True:
        pages = client.handle.scan(cursor=cursor, limit=part, page_size=page_size, r=r or None, timeout=timeout_s)
        before = len(scan.shown)
        try:
            await _drain(scan, pages)
        except LeafdbError as error:
            client.tell(f"scan failed: {client.judged(error, None)}")
            failures += 1
            if failures > RESUMES_MAX:
                return None
        else:
            if part is None or len(scan.shown) - before < part:
                return scan.end()
        cursor = pages.cursor


async def scan_range(
    client: RealClient,
    part: str,
    start: str | None,
    stop: str | None,
    *,
    reverse: bool,
    limit: int | None,
    timeout_s: float,
) -> list[str] | None:
    """The rows of one partition key; None when it failed."""

    def within(key: str) -> bool:
        of, slash, row = key.partition("/")
        return bool(slash) and of == part and (start is None or row >= start) and (stop is None or row < stop)

    scan = Scan(client, f"{'reverse ' if reverse else ''}range of {part} from {start} to {stop}", within, 0)
    rows = client.handle.range(part, start=start, stop=stop, reverse=reverse, limit=limit, timeout=timeout_s)
    try:
        await _drain(scan, rows)
    except LeafdbError as error:
        client.tell(f"range failed: {client.judged(error, None)}")
        return None
    if limit is not None and len(scan.shown) >= limit:
        return scan.shown
    order = [key.encode() for key in scan.shown]
    if reverse:
        scan.shown.reverse()
        order.reverse()
    return scan.end(order)


async def _drain(scan: Scan, items: AsyncIterator[Item[Any]]) -> None:
    async for item in items:
        scan.show(item)
