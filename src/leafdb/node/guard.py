"""Whether a request of a client may be done: asked once for every frame, before anything else looks at it.

    session -> who logged in -> that user's roles -> grants -> a Permit, kept until the metadata change

A permit is made once per user and epoch, so a request costs two dictionary look-ups and a comparison. New metadata
throw all of them away: a grant that is revoked, a user that is dropped, a new password count from the next request on,
on every node that has heard of it.

What may be asked with which grant is in `required_grants` for admin verbs and here for keys: GET needs `read`, PUT
`write` or, of a tombstone, `delete`. SCAN shows what lies in a span of the ring, so it needs `read` of the whole
bucket, unless the span is within one partition key that a prefix covers. Between nodes nothing is asked: a request
that is forwarded was decided on where the client is connected.

Where accounts are not asked for, this only writes down who changes something, if that is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from leafdb.errors import LeafdbError, NotApplied, Reason
from leafdb.model.grants import WHOLE, Grant, Permit, Verb
from leafdb.model.key import partition_part
from leafdb.node import required_grants
from leafdb.node.audit import Audit
from leafdb.node.view import ClusterView
from leafdb.ring.accounts import Principal
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.token import TOKEN_BYTES
from leafdb.transport.session import Session
from leafdb.wire.control import AdminRequest, ScanRequest
from leafdb.wire.hello import ClientFacts
from leafdb.wire.registry import MessageType
from leafdb.wire.requests import FLAG_DELETE, decode_get, decode_put

ROOT: Final = Principal("@cluster", 0)
"""Who has shown the cluster's own secret: as good as a node. No user can be called so."""
_EVERYTHING: Final = (Grant("*"),)
_FLAGS_AT: Final = 16

_GET: Final = int(MessageType.GET)
_PUT: Final = int(MessageType.PUT)
_SCAN: Final = int(MessageType.SCAN)
_ADMIN: Final = int(MessageType.ADMIN)
_TRACED: Final = int(MessageType.TRACED)

Again = Callable[[Session, int, int, bytes], None]
"""(session, type, request id, body): handle the frame once more."""


class _Kept(NamedTuple):
    """A permit, and the Unix ms at which it ends; 0: never."""

    permit: Permit
    until_ms: int


class _Asked(NamedTuple):
    """What a request wants, as far as somebody has to be granted it."""

    verb: str
    bucket: str = ""
    key: bytes | None = None


class Guard:
    """Decides by the accounts in the view. `refuse` answers a request with an error; `park` keeps one until newer
    metadata have had their chance, and says whether it did; `now_ms` is Unix time."""

    def __init__(
        self,
        view: ClusterView,
        audit: Audit,
        *,
        required: bool,
        now_ms: Callable[[], int],
        refuse: Callable[[Session, int, LeafdbError], None],
        park: Callable[[Callable[[], None]], bool],
    ) -> None:
        self.idle: bool = not required and not audit.enabled
        """There is nothing to decide and nothing to write down."""
        self._required = required
        self._view = view
        self._audit = audit
        self._now_ms = now_ms
        self._refuse = refuse
        self._park = park
        self._kept: dict[Principal, _Kept] = {}

    def installed(self, metadata: ClusterMetadata) -> None:
        """Other metadata are in force: what was made of those before is of no use."""
        self._kept.clear()

    def admits(self, session: Session, message_type: int, request_id: int, body: bytes, again: Again) -> bool:
        """Whether to handle the frame. If not it has been refused, or will be handled `again`.

        Raises ProtocolError for a body that is none.
        """
        facts = session.facts
        assert isinstance(facts, ClientFacts)
        principal = facts.principal
        if not self._required:
            if message_type == _ADMIN:
                self._write_down(principal, body, session.remote)
            return True
        assert isinstance(principal, Principal), "nobody becomes a session here without a login"
        kept = self._kept.get(principal) or self._keep(principal)
        if kept is None or (kept.until_ms and self._now_ms() >= kept.until_ms):
            told = "this login is not valid any more: the user or token was dropped, has expired or changed"
            self._refuse(session, request_id, NotApplied(told, reason=Reason.UNAUTHORIZED))
            return False
        if message_type == _GET:
            scope = kept.permit.scope(Verb.READ, int.from_bytes(body[:4]))
            if scope == WHOLE or (scope and decode_get(body).key.startswith(scope)):
                return True
        elif message_type == _PUT:
            scope = kept.permit.scope(_verb_of_put(body), int.from_bytes(body[:4]))
            if scope == WHOLE or (scope and decode_put(body).key.startswith(scope)):
                return True
        elif message_type == _SCAN:
            if _may_scan(kept.permit, ScanRequest.decode(body)):
                return True
        elif message_type == _ADMIN:
            return self._admits_verb(session, request_id, principal, kept.permit, AdminRequest.decode(body))
        elif message_type == _TRACED:
            return True  # what is inside is asked about by itself
        else:
            assert message_type < _GET, f"client messages of type {message_type:#04x} need no grant yet"
        return self._turn_down(session, message_type, request_id, body, principal, kept.permit, again)

    # -- permits

    def _keep(self, principal: Principal) -> _Kept | None:
        """Make the permit of somebody; None: that is nobody any more."""
        metadata = self._view.metadata
        if principal == ROOT:
            kept = _Kept(Permit(_EVERYTHING, {}), 0)
        else:
            user = None if metadata is None else metadata.accounts.user_of(principal)
            if metadata is None or user is None:
                return None
            token = metadata.accounts.tokens.get(principal.token)
            buckets = {bucket.name: int(bucket.id) for bucket in metadata.buckets.values()}
            permit = Permit(metadata.accounts.grants_of(user), buckets)
            kept = _Kept(permit, token.expires_ms if token is not None else 0)
        self._kept[principal] = kept
        return kept

    # -- admin verbs

    def _admits_verb(
        self, session: Session, request_id: int, principal: Principal, permit: Permit, request: AdminRequest
    ) -> bool:
        asked = None if _of_self(principal, request) else _missing(permit, request.verb, request.args)
        if asked is None:
            self._note(principal, request, session.remote)
            return True
        self._deny(session, request_id, principal, asked)
        return False

    def _write_down(self, principal: object, body: bytes, remote: str) -> None:
        who = principal if isinstance(principal, Principal) else Principal("", 0)
        self._note(who, AdminRequest.decode(body), remote)

    def _note(self, principal: Principal, request: AdminRequest, remote: str) -> None:
        """Changes are written down; looking is not, or who watches a cluster would fill the log."""
        verb = required_grants.OF_CLUSTER.get(request.verb)
        if request.verb in required_grants.OF_BUCKET or verb not in (None, Verb.ADMIN_READ):
            self._audit.admin(principal.user, request.verb, request.args, remote)

    # -- refusals

    def _turn_down(
        self,
        session: Session,
        message_type: int,
        request_id: int,
        body: bytes,
        principal: Principal,
        permit: Permit,
        again: Again,
    ) -> bool:
        """Refuse a request for keys; but one for a bucket that this node has not heard of may be ahead of it."""
        verb, bucket_id, key = _asked_of_keys(message_type, body)
        bucket = self._view.buckets.get(bucket_id)
        frame = partial(again, session, message_type, request_id, body)
        if bucket is None and permit.has(verb) and self._park(frame):
            return False
        name = bucket.properties.name if bucket is not None else ""
        self._deny(session, request_id, principal, _Asked(verb, name, key))
        return False

    def _deny(self, session: Session, request_id: int, principal: Principal, asked: _Asked) -> None:
        self._audit.denied(principal.user, asked.verb, asked.bucket, asked.key, session.remote)
        where = f" bucket {asked.bucket!r}" if asked.bucket else ""
        of_key = " or this key of it" if asked.key is not None and where else ""
        told = f"user {principal.user!r} is not granted '{asked.verb}'{' on' if where else ''}{where}{of_key}"
        self._refuse(session, request_id, NotApplied(told, reason=Reason.UNAUTHORIZED))

    def check(self) -> None:
        """What is kept is what would be made."""
        for principal in list(self._kept):
            assert principal == ROOT or (
                self._view.metadata is not None and self._view.metadata.accounts.user_of(principal) is not None
            )
            self._kept[principal].permit.check()


def _verb_of_put(body: bytes) -> Verb:
    return Verb.DELETE if len(body) > _FLAGS_AT and body[_FLAGS_AT] & FLAG_DELETE else Verb.WRITE


def _asked_of_keys(message_type: int, body: bytes) -> tuple[Verb, int, bytes | None]:
    """(verb, bucket id, encoded key) of a request for keys. Raises ProtocolError."""
    if message_type == _GET:
        get = decode_get(body)
        return Verb.READ, get.bucket_id, get.key
    if message_type == _PUT:
        put = decode_put(body)
        return _verb_of_put(body), put.bucket_id, put.key
    assert message_type == _SCAN
    return Verb.READ, ScanRequest.decode(body).bucket_id, None


def _may_scan(permit: Permit, request: ScanRequest) -> bool:
    scope = permit.scope(Verb.READ, request.bucket_id)
    if scope == WHOLE or not scope:
        return bool(scope)
    part = _one_part(request.start, request.stop)
    return part is not None and part.startswith(scope)


def _one_part(start: bytes, stop: bytes) -> bytes | None:
    """The encoded partition key that every storage key in [start, stop) has; None when there may be others."""
    try:
        part = partition_part(start[TOKEN_BYTES:])
    except ValueError:
        return None
    prefix = start[:TOKEN_BYTES] + part
    behind = prefix[:-1] + bytes((prefix[-1] + 1,))  # the end mark's last byte is 01
    return part if stop and stop <= behind else None


def _of_self(principal: Principal, request: AdminRequest) -> bool:
    """Whether it is what everybody may do about themselves."""
    given = required_grants.OF_SELF.get(request.verb)
    about_self = not principal.token and request.args.get("name") == principal.user
    return given is not None and about_self and request.args.get(given) is not None


def _missing(permit: Permit, verb: str, args: Mapping[str, Any]) -> _Asked | None:
    """What is not granted of what an admin verb needs; None: it may run."""
    if verb in required_grants.LOGGED_IN:
        return None
    if (of_cluster := required_grants.OF_CLUSTER.get(verb)) is not None:
        return None if permit.has(of_cluster) else _Asked(of_cluster)
    if verb not in required_grants.NAMED_BY:
        return _Asked(verb)
    bucket = required_grants.bucket_in(verb, args)
    if verb in required_grants.ANY_OF_BUCKET:
        return None if permit.touches(bucket) else _Asked(Verb.READ, bucket)
    if (of_bucket := required_grants.OF_BUCKET.get(verb)) is not None:
        return None if permit.scope_named(of_bucket, bucket) == WHOLE else _Asked(of_bucket, bucket)
    of_key, key = required_grants.OF_KEY[verb], args.get("key")
    if isinstance(key, bytes) and key.startswith(permit.scope_named(of_key, bucket)):
        return None
    return _Asked(of_key, bucket, key if isinstance(key, bytes) else None)
