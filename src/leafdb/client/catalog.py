"""A handle's bucket: properties fetched once per name, kind and quorums checked before a request is sent.

Properties are cached in the core under the bucket's name. When a node says that it knows no such bucket, that the
generation is old, or that the kind is wrong, they are fetched again, and the request is repeated if that changed
anything: all three are refusals, so repeating is safe.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from leafdb.client.admin import fetch_bucket, refresh_ring
from leafdb.client.call import Begun, Request, attempt, call
from leafdb.client.context import tag_prefix
from leafdb.client.core import Core
from leafdb.client.effects import Exchange, Operation
from leafdb.client.options import Quorum, Seconds, count_of, quorum_number, sloppy_flags, ttl_ms
from leafdb.client.routing import Place
from leafdb.client.session import Held, held_by
from leafdb.errors import ClientMisuse, NotApplied, Reason
from leafdb.model.bucket import BucketProperties, check_name
from leafdb.model.key import partition_part
from leafdb.ring.token import token_of
from leafdb.types import Conflict
from leafdb.wire.frame import Frame
from leafdb.wire.requests import FLAG_LOCAL, FLAG_LWW, QUORUM_DEFAULT

_new: Final = tuple.__new__
"""ReadPlan(...) goes through a Python function, which each call of a user would pay for."""
_STALE: Final = frozenset({Reason.NO_SUCH_BUCKET, Reason.STALE_EPOCH, Reason.WRONG_BUCKET_KIND})


class BucketRef:
    """The bucket a handle stands for, and the kind the handle is made for."""

    __slots__ = ("conflict", "core", "kind_flags", "name", "prefix", "reads_held")

    def __init__(self, core: Core, name: str, conflict: Conflict) -> None:
        if not isinstance(name, str):
            raise ClientMisuse(f"a bucket name is a str, not {type(name).__name__}")
        problems = check_name(name)
        if problems:
            raise ClientMisuse("; ".join(problems))
        self.core: Core = core
        self.name: str = name
        self.conflict: Conflict = conflict
        self.kind_flags: int = FLAG_LWW if conflict is Conflict.LWW else 0
        self.prefix: bytes = tag_prefix(name)
        self.reads_held: tuple[BucketProperties | None, Held] = (None, Held.NOBODY)
        """Who surely has what a read with the bucket's own r was shown, and of which properties that was found out."""

    def held_by_reads(self, properties: BucketProperties) -> Held:
        """Find it out."""
        held = held_by(count_of(QUORUM_DEFAULT, properties.r, properties.n), properties.n)
        self.reads_held = (properties, held)
        return held

    def place(self, properties: BucketProperties, encoded_key: bytes) -> Place | None:
        """Where a key lies, once there is a ring to place it on."""
        if not self.core.router.has_ring:
            return None
        return Place(token_of(properties.id, partition_part(encoded_key)), properties.n)


class ReadPlan(NamedTuple):
    """A read's options as the wire has them, and its deadline."""

    r: int
    pr: int
    flags: int
    deadline: float


class WritePlan(NamedTuple):
    """A write's options as the wire has them, and its deadline."""

    w: int
    pw: int
    dw: int
    flags: int
    ttl_ms: int
    deadline: float


def plan_read(
    ref: BucketRef,
    r: Quorum | None,
    pr: Quorum | None,
    sloppy: bool | None,
    timeout: Seconds | None,
    local: bool = False,
) -> ReadPlan:
    """Check a read's options. Raises ClientMisuse."""
    deadline = ref.core.deadline(timeout)
    if r is None and pr is None and sloppy is None and local is False:
        return _new(ReadPlan, (QUORUM_DEFAULT, QUORUM_DEFAULT, ref.kind_flags, deadline))
    return ReadPlan(
        quorum_number("r", r, zero_allowed=False),
        quorum_number("pr", pr, zero_allowed=True),
        ref.kind_flags | sloppy_flags(sloppy) | (FLAG_LOCAL if local else 0),
        deadline,
    )


def plan_write(
    ref: BucketRef,
    w: Quorum | None,
    pw: Quorum | None,
    dw: Quorum | None,
    sloppy: bool | None,
    timeout: Seconds | None,
    ttl: Seconds | None = None,
) -> WritePlan:
    """Check a write's options. Raises ClientMisuse."""
    deadline = ref.core.deadline(timeout)
    if w is None and pw is None and dw is None and sloppy is None and ttl is None:
        return _new(WritePlan, (QUORUM_DEFAULT, QUORUM_DEFAULT, QUORUM_DEFAULT, ref.kind_flags, 0, deadline))
    return WritePlan(
        quorum_number("w", w, zero_allowed=False),
        quorum_number("pw", pw, zero_allowed=True),
        quorum_number("dw", dw, zero_allowed=True),
        ref.kind_flags | sloppy_flags(sloppy),
        ttl_ms(ttl),
        deadline,
    )


class BucketCall(Request, Protocol):
    """A request to one bucket: bound to the bucket's properties before it is sent, and again when they were old."""

    @property
    def ref(self) -> BucketRef:
        """The bucket."""

    @property
    def deadline(self) -> float:
        """When it must end."""

    def bind(self, properties: BucketProperties) -> None:
        """Be a request to this bucket from now on. Raises ClientMisuse when it asks what no cluster could give."""


class Begins:
    """A request whose first exchange can be made by itself; `in_bucket` is for all the rest."""

    __slots__ = ()

    def begin(self: BucketCall) -> Exchange | None:
        """The first exchange, when nothing has to be fetched before it."""
        ref = self.ref
        core = ref.core
        router = core.router
        now = core.clock()
        properties = core.buckets.get(ref.name)
        if properties is None or properties.conflict is not ref.conflict or (router.behind and router.refresh_due(now)):
            return None
        self.bind(properties)
        deadline = self.deadline
        node = router.alone
        if node is None or node.disgraced_until > now:
            node = router.pick(self.place, now, ())
        return None if node is None or now >= deadline else attempt(core, self, node, now, deadline)


def in_bucket(request: BucketCall, begun: Begun | None = None) -> Operation[Frame]:
    """Make the request, again with fresh properties when those it was bound to turn out to be old."""
    core, ref = request.ref.core, request.ref
    properties: BucketProperties | None
    if begun is None:
        properties = yield from ready(ref, request.deadline)
        request.bind(properties)
    else:
        properties = core.buckets.get(ref.name)
    try:
        return (yield from call(core, request, request.deadline, begun))
    except NotApplied as error:
        if error.reason not in _STALE:
            raise
        fresh = yield from _fetch(ref, request.deadline)
        if fresh == properties:
            raise
    request.bind(fresh)
    return (yield from call(core, request, request.deadline))


def ready(ref: BucketRef, deadline: float) -> Operation[BucketProperties]:
    """Fetch what is missing before a request to the bucket can be made: the ring, its properties."""
    core = ref.core
    if core.router.claim_refresh(core.clock()):
        yield from refresh_ring(core, deadline)
    properties = core.buckets.get(ref.name)
    if properties is None or properties.conflict is not ref.conflict:
        properties = yield from _fetch(ref, deadline)
    return properties


def _fetch(ref: BucketRef, deadline: float) -> Operation[BucketProperties]:
    properties = yield from fetch_bucket(ref.core, ref.name, deadline)
    if properties.conflict is not ref.conflict:
        method = "lww_bucket" if properties.conflict is Conflict.LWW else "bucket"
        kept = "the last write only" if properties.conflict is Conflict.LWW else "siblings"
        raise ClientMisuse(f"bucket {ref.name!r} keeps {kept}: use {method}({ref.name!r})")
    return properties


def check_read(properties: BucketProperties, plan: ReadPlan) -> None:
    """Raises ClientMisuse when no cluster could satisfy it."""
    if plan.r != QUORUM_DEFAULT or plan.pr != QUORUM_DEFAULT:
        n = properties.n
        r, pr = count_of(plan.r, properties.r, n), count_of(plan.pr, properties.pr, n)
        _within(properties, {"r": r, "pr": pr})
        if pr > r:
            raise ClientMisuse(f"pr={pr} is above r={r}")


def check_write(properties: BucketProperties, plan: WritePlan) -> None:
    """Raises ClientMisuse when no cluster could satisfy it."""
    if plan.w != QUORUM_DEFAULT or plan.pw != QUORUM_DEFAULT or plan.dw != QUORUM_DEFAULT:
        n = properties.n
        w = count_of(plan.w, properties.w, n)
        pw, dw = count_of(plan.pw, properties.pw, n), count_of(plan.dw, properties.dw, n)
        _within(properties, {"w": w, "pw": pw, "dw": dw})
        if pw > w:
            raise ClientMisuse(f"pw={pw} is above w={w}")
        if dw > w:
            raise ClientMisuse(f"dw={dw} is above w={w}")


def _within(properties: BucketProperties, counts: dict[str, int]) -> None:
    for name, count in counts.items():
        if count > properties.n:
            raise ClientMisuse(f"{name}={count} is above n={properties.n} of bucket {properties.name!r}")
