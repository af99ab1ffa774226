"""Calls about the cluster instead of a key: one verb, one map of arguments, one map back; and fetching the ring.

A verb that changes something is sent like a write: when its connection dies, the outcome is unknown and said to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from leafdb.client.call import call
from leafdb.client.context import Context, tag_prefix
from leafdb.client.core import Core
from leafdb.client.effects import Operation
from leafdb.client.info import BucketInfo, Pong, Status, bucket_info, pong_of, status_of
from leafdb.client.options import Quorum, Seconds, ttl_ms
from leafdb.client.results import Outcome
from leafdb.client.url import Address, parse_address
from leafdb.errors import ClientMisuse, ConfigError, ConnectFailed, LeafdbError, ProtocolError, ServerBug
from leafdb.model import bucket as bucket_model
from leafdb.model.bucket import BucketProperties
from leafdb.model.key import decode_key
from leafdb.model.live import NO_OPERATION
from leafdb.types import FIRST_BUCKET_ID, BucketId, Conflict, Durability, NodeId
from leafdb.wire.body import decode_map
from leafdb.wire.control import AdminRequest
from leafdb.wire.registry import MessageType

T = TypeVar("T")


class _AdminCall:
    """ADMIN as `call` takes it."""

    message_type = MessageType.ADMIN
    reply_type = MessageType.ADMIN_REPLY
    place = None
    once = False

    def __init__(self, body: bytes, op_id: bytes | None, patient: bool) -> None:
        self._body = body
        self.op_id = op_id
        self.patient = patient

    def body(self, deadline_ms: int, again: bool) -> bytes:
        """The same whatever time is left: an admin request carries no deadline."""
        return self._body

    def required(self) -> int:
        """No quorum."""
        return 0


def admin(
    core: Core, verb: str, args: Mapping[str, Any], deadline: float, *, changes: bool = False, patient: bool = True
) -> Operation[Mapping[str, Any]]:
    """The answer of a verb. `changes`: it must not be sent twice; `patient`: one node may take all the time."""
    op_id = b"" if changes else None
    frame = yield from call(core, _AdminCall(AdminRequest(verb, args).encode(), op_id, patient), deadline)
    try:
        return decode_map(frame.body, f"the answer to {verb}")
    except ProtocolError as error:
        raise ServerBug(str(error)) from None


def reading(core: Core, verb: str, read: Callable[[Mapping[str, Any]], T], timeout: Seconds | None) -> Operation[T]:
    """A verb that only reads, its answer given form by `read`."""
    reply = yield from admin(core, verb, {}, core.deadline(timeout))
    return _formed(verb, read, reply)


def ping(core: Core, timeout: Seconds | None) -> Operation[Pong]:
    """Who answers."""
    return reading(core, "ping", pong_of, timeout)


def status(core: Core, timeout: Seconds | None) -> Operation[Status]:
    """How the cluster is."""
    return reading(core, "status", status_of, timeout)


def outcome(core: Core, op_id: bytes, timeout: Seconds | None) -> Operation[Outcome]:
    """What became of a write, as far as the cluster can tell."""
    if not isinstance(op_id, bytes) or len(op_id) != 16 or op_id == NO_OPERATION:
        raise ClientMisuse("an operation id is the 16 bytes of Written.op_id or OutcomeUnknown.op_id")
    reply = yield from admin(core, "outcome", {"op_id": op_id}, core.deadline(timeout))
    return _formed("outcome", _outcome_of, reply)


def _outcome_of(reply: Mapping[str, Any]) -> Outcome:
    unasked = {str(name): str(reason) for name, reason in reply["errors"].items()}
    if reply["outcome"] != "applied":
        return Outcome("unknown", unasked=unasked)
    bucket, key, sealed = str(reply["bucket"]), bytes(reply["key"]), bytes(reply["context"])
    return Outcome(
        "applied",
        bucket,
        decode_key(key),
        Context(tag_prefix(bucket) + key, sealed) if sealed else None,
        tuple(str(name) for name in reply["replicas"]),
        bool(reply["replaced"]),
        unasked,
    )


def list_buckets(core: Core, timeout: Seconds | None) -> Operation[dict[str, BucketInfo]]:
    """Every bucket by name, in the order of names."""

    def read(reply: Mapping[str, Any]) -> dict[str, BucketInfo]:
        found = [BucketProperties.from_wire(each) for each in reply["buckets"]]
        return {each.name: bucket_info(each) for each in sorted(found, key=lambda each: each.name)}

    return reading(core, "bucket.list", read, timeout)


def fetch_bucket(core: Core, name: str, deadline: float) -> Operation[BucketProperties]:
    """The properties of a bucket, from a node; kept for the calls to come."""
    core.buckets.pop(name, None)
    reply = yield from admin(core, "bucket.get", {"name": name}, deadline, patient=False)
    properties = _formed("bucket.get", BucketProperties.from_wire, reply)
    core.buckets[name] = properties
    return properties


def create_bucket(
    core: Core, properties: BucketProperties, *, exist_ok: bool, timeout: Seconds | None
) -> Operation[BucketInfo]:
    """Create it; answers once every live member holds it."""
    args = {"properties": properties.to_wire(), "exist_ok": bool(exist_ok)}
    reply = yield from admin(core, "bucket.create", args, core.deadline(timeout), changes=True)
    created = _formed("bucket.create", BucketProperties.from_wire, reply)
    core.buckets[created.name] = created
    return bucket_info(created)


def drop_bucket(core: Core, name: str, timeout: Seconds | None) -> Operation[None]:
    """Drop it, with everything in it."""
    core.buckets.pop(name, None)
    yield from admin(core, "bucket.drop", {"name": name}, core.deadline(timeout), changes=True)


def change_password(core: Core, password: str, timeout: Seconds | None) -> Operation[None]:
    """Give the user that this client is another password; answers once every live member goes by it."""
    from leafdb.client.auth import Scram, verifier_for  # a client that has no account never needs it

    if not isinstance(core.auth, Scram):
        raise ClientMisuse("who connects with auth=leafdb.Scram(user, password) can change that password, nobody else")
    args = {"name": core.auth.user, "verifier": verifier_for(password)}
    yield from admin(core, "user.password", args, core.deadline(timeout), changes=True)


def wanted_properties(
    name: str,
    *,
    n: int,
    r: Quorum,
    w: Quorum,
    pr: Quorum,
    pw: Quorum,
    dw: Quorum,
    conflict: str,
    durability: str,
    ttl: Seconds | None,
    sloppy: bool,
) -> BucketProperties:
    """The properties `create_bucket` asks for; the cluster gives number and generation.

    Raises ConfigError for a policy this version lacks, ClientMisuse for what can never work.
    """
    policies = {"siblings": Conflict.SIBLINGS, "lww": Conflict.LWW}
    if conflict not in policies:
        raise ConfigError(f"this version has no conflict policy {conflict!r}; it has {', '.join(policies)}")
    durabilities = {"always": Durability.ALWAYS, "periodic": Durability.PERIODIC}
    if durability not in durabilities:
        raise ConfigError(f"this version has no durability {durability!r}; it has {', '.join(durabilities)}")
    if not isinstance(name, str):
        raise ClientMisuse(f"a bucket name is a str, not {type(name).__name__}")
    if type(n) is not int or type(sloppy) is not bool:
        raise ClientMisuse("n is an int and sloppy a bool")
    try:
        properties = BucketProperties(
            id=BucketId(FIRST_BUCKET_ID),
            name=name,
            generation=0,
            n=n,
            r=bucket_model.count_from_name(r),
            w=bucket_model.count_from_name(w),
            pr=bucket_model.count_from_name(pr),
            pw=bucket_model.count_from_name(pw),
            dw=bucket_model.count_from_name(dw),
            conflict=policies[conflict],
            durability=durabilities[durability],
            ttl_ms=ttl_ms(ttl),
            sloppy=sloppy,
        )
    except ValueError as error:
        raise ClientMisuse(f"bucket {name!r}: {error}") from None
    problems = bucket_model.check(properties)
    if problems:
        raise ClientMisuse(f"bucket {name!r}: {'; '.join(problems)}")
    return properties


def refresh_ring(core: Core, deadline: float) -> Operation[None]:
    """Fetch the ring and route by it. What fails here is not the caller's business, unless no node can be reached."""
    now = core.clock()
    try:
        reply = yield from admin(core, "ring", {}, now + (deadline - now) / 2, patient=False)
        _adopt(core, reply)
    except ConnectFailed:
        if not core.router.has_ring:
            raise
    except LeafdbError:
        # A node that is in no cluster yet has no ring: the listed addresses do until it has.
        return


def _adopt(core: Core, reply: Mapping[str, Any]) -> None:
    # Imported here: a client that only talks to listed addresses never needs the ring's code.
    from leafdb.ring.metadata import decode
    from leafdb.ring.ring import Ring

    try:
        metadata = decode(reply["metadata"])
    except (KeyError, TypeError, ValueError) as error:
        raise ServerBug(f"a ring that cannot be read: {error}") from None
    members: dict[NodeId, tuple[Address, str]] = {}
    for node, member in metadata.members.items():
        try:
            members[node] = (parse_address(member.client_address), member.zone)
        except ConfigError:
            continue
    core.router.adopt(metadata.epoch, Ring(metadata), members)


def _formed(verb: str, read: Callable[[Mapping[str, Any]], T], reply: Mapping[str, Any]) -> T:
    try:
        return read(reply)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ServerBug(f"an answer to {verb} that cannot be read: {error!r}") from None
