"""Scans and ranges: pages of storage keys, one request after another, until the end of what was asked for.

    scan     the whole bucket in token order
    range    the pairs of one partition key, by sort key: one contiguous run of storage keys

    cursor = version u8 (1) | bucket id u32 | storage key of the last item yielded

A page begins where the one before it ended, by key and not by position, so a scan survives changes of the ring, sees
every key that was there all the time at least once, and a cursor stays good for as long as the bucket lives.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from leafdb.client.catalog import BucketRef, ReadPlan, check_read, in_bucket
from leafdb.client.effects import Operation
from leafdb.client.kv import Form
from leafdb.client.options import count_of
from leafdb.client.results import Item
from leafdb.client.routing import Place
from leafdb.errors import ClientMisuse, ProtocolError, ServerBug
from leafdb.limits import MIB, SCAN_PAGE_ITEMS_MAX
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import decode_key, encode_key, partition_part
from leafdb.ring.token import TOKEN_BYTES, split_storage_key, storage_key_at, token_of
from leafdb.types import BucketId, Key, Token
from leafdb.wire.control import ScanReply, ScanRequest
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import decode_get_reply

A = TypeVar("A")

PAGE_BYTES: Final = 1 * MIB
STANDS_MAX: Final = 4
"""Answers in a row that do not lead on."""
RANGE_PAGE_ITEMS: Final = 256
_CURSOR: Final = struct.Struct(">BI")
_CURSOR_VERSION: Final = 1
_Bounds = Callable[[BucketProperties], tuple[bytes, bytes]]


class Pager(Generic[A]):
    """One scan in progress. `page` fetches the next page; `take` yields what has been fetched."""

    __slots__ = (
        "_bounds", "_bucket_id", "_fetched", "_form", "_last", "_left", "_page_size", "_plan", "_ref", "_reverse",
        "_start", "_stood", "_stop", "done",
    )  # fmt: skip

    def __init__(
        self,
        ref: BucketRef,
        plan: Callable[[], ReadPlan],
        bounds: _Bounds,
        form: Form[A],
        *,
        page_size: int,
        limit: int | None,
        reverse: bool = False,
    ) -> None:
        if type(page_size) is not int or not 1 <= page_size <= SCAN_PAGE_ITEMS_MAX:
            raise ClientMisuse(f"page_size is an int from 1 to {SCAN_PAGE_ITEMS_MAX}, not {page_size!r}")
        self._ref = ref
        self._plan = plan
        self._bounds = bounds
        self._form = form
        self._page_size = page_size
        self._left = limit
        self._reverse = reverse
        self._start: bytes | None = None
        self._stop = b""
        self._bucket_id = 0
        self._fetched: deque[tuple[bytes, bytes]] = deque()
        self._last: bytes | None = None
        self._stood = 0
        self.done: bool = False

    @property
    def empty(self) -> bool:
        """Nothing fetched is left to yield."""
        return not self._fetched

    @property
    def cursor(self) -> bytes | None:
        """Where to go on after the last item yielded; None when none has been."""
        if self._last is None:
            return None
        return _CURSOR.pack(_CURSOR_VERSION, self._bucket_id) + self._last

    def take(self) -> Item[A] | None:
        """The next item fetched, None for a key with nothing live. After a DataError the next call goes on."""
        storage_key, body = self._fetched.popleft()
        try:
            _, encoded_key = split_storage_key(storage_key)
            key = decode_key(encoded_key)
            reply = decode_get_reply(body)
        except (ProtocolError, ValueError) as error:
            raise ServerBug(f"a scan item that cannot be read: {error}") from None
        if not reply.siblings:
            return None
        item = Item(key, self._form(self._ref.prefix + encoded_key, reply))
        self._last = storage_key
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._fetched.clear()
                self.done = True
        return item

    def page(self) -> Operation[None]:
        """Fetch the next page."""
        request = _ScanCall(self._ref, self._plan(), self)
        frame = yield from in_bucket(request)
        try:
            reply = ScanReply.decode(frame.body)
        except ProtocolError as error:
            raise ServerBug(str(error), request_id=frame.request_id) from None
        self._ref.core.router.saw_epoch(reply.epoch)
        self._fetched.extend(reply.items)
        if not reply.next:
            self.done = True
        elif self._reverse:
            # `next` may or may not have been looked at, so it is asked for once more.
            stop = reply.items[-1][0] if reply.items else reply.next + b"\x00"
            self._advance(not self._stop or stop < self._stop)
            self._stop = stop
        else:
            self._advance(reply.next > (self._start or b""))
            self._start = reply.next

    def _advance(self, advances: bool) -> None:
        """An answer that leads back, or nowhere, would be asked for again and again. One or two may stand still: in
        reverse the last key of a page is asked for twice."""
        self._stood = 0 if advances else self._stood + 1
        if self._stood > STANDS_MAX:
            self.done = True
            raise ServerBug("the node's answers to a scan do not advance")

    def asks(self, properties: BucketProperties, r: int, deadline_ms: int) -> ScanRequest:
        """The request for the next page."""
        start, stop = self.span(properties)
        limit = self._page_size if self._left is None else min(self._page_size, self._left)
        return ScanRequest(
            properties.id, properties.generation, start, stop, limit, PAGE_BYTES, self._reverse, r, deadline_ms
        )

    def span(self, properties: BucketProperties) -> tuple[bytes, bytes]:
        """What is left to fetch: all of it, when the bucket is new to this scan."""
        if self._start is None or properties.id != self._bucket_id:
            self._start, self._stop = self._bounds(properties)
            self._bucket_id = properties.id
        return self._start, self._stop

    @property
    def first_token(self) -> Token:
        """Of the first key of the next page, as far as its bounds tell."""
        edge = self._stop if self._reverse and self._stop else self._start or b""
        return Token(int.from_bytes(edge[:TOKEN_BYTES].ljust(TOKEN_BYTES, b"\x00"), "big"))


class _ScanCall:
    """SCAN as `in_bucket` takes it: one page."""

    message_type = MessageType.SCAN
    reply_type = MessageType.SCAN_REPLY
    patient = False
    op_id = None
    once = False

    def __init__(self, ref: BucketRef, plan: ReadPlan, pager: Pager[Any]) -> None:
        self.ref = ref
        self.deadline = plan.deadline
        self.place: Place | None = None
        self._plan = plan
        self._pager = pager
        self._properties: BucketProperties | None = None

    def bind(self, properties: BucketProperties) -> None:
        check_read(properties, self._plan)
        self._properties = properties
        self._pager.span(properties)
        if self.ref.core.router.has_ring:
            self.place = Place(self._pager.first_token, properties.n)

    def body(self, deadline_ms: int, again: bool) -> bytes:
        assert self._properties is not None
        return self._pager.asks(self._properties, self._plan.r, deadline_ms).encode()

    def required(self) -> int:
        properties = self._properties
        return 0 if properties is None else count_of(self._plan.r, properties.r, properties.n)


def scan_bounds(cursor: bytes | None) -> _Bounds:
    """The whole bucket, or what lies behind `cursor`. Raises ClientMisuse, later for a cursor of another bucket."""
    if cursor is None:
        return lambda properties: (b"", b"")
    if not isinstance(cursor, bytes) or len(cursor) <= _CURSOR.size or cursor[0] != _CURSOR_VERSION:
        raise ClientMisuse("cursor= is what the .cursor of a scan gave")
    _, bucket_id = _CURSOR.unpack_from(cursor)
    start = cursor[_CURSOR.size :] + b"\x00"

    def bounds(properties: BucketProperties) -> tuple[bytes, bytes]:
        if properties.id != bucket_id:
            raise ClientMisuse(f"this cursor belongs to another bucket than {properties.name!r}, or to one dropped")
        return start, b""

    return bounds


def range_bounds(partition_key: Key, start: str | bytes | None, stop: str | bytes | None) -> _Bounds:
    """The pairs of one partition key from `start` (in) to `stop` (out). Raises ClientMisuse."""
    if isinstance(partition_key, tuple):
        raise ClientMisuse("range takes the partition key alone; start= and stop= are sort keys")
    prefix = partition_part(encode_key(partition_key))
    # The plain key is the prefix itself; every pair goes on with at least one byte. 00 01 ends the prefix, so that
    # 00 02 lies behind everything that begins with it.
    first = prefix + b"\x00" if start is None else encode_key((partition_key, start))
    behind = prefix[:-1] + b"\x02" if stop is None else encode_key((partition_key, stop))

    def bounds(properties: BucketProperties) -> tuple[bytes, bytes]:
        token = token_of(BucketId(properties.id), prefix)
        return storage_key_at(token, first), storage_key_at(token, behind)

    return bounds
