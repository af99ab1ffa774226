"""The one door: a request of a client needs its grant, what is not granted is denied, a grant ends when it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from leafdb.errors import LeafdbError, NotApplied, ProtocolError, Reason
from leafdb.limits import SCRAM_ITERATIONS_MIN
from leafdb.model.grants import Grant, Verb, parse_grant
from leafdb.model.key import encode_key, partition_part
from leafdb.model.scram import verifier_of
from leafdb.node import required_grants
from leafdb.node.admin_tables import VERBS
from leafdb.node.audit import Audit
from leafdb.node.guard import ROOT, Guard
from leafdb.node.view import ClusterView
from leafdb.ring import account_changes as changes
from leafdb.ring.accounts import Principal, Token, token_digest
from leafdb.ring.metadata import ClusterMetadata
from leafdb.ring.token import storage_key, token_of
from leafdb.transport.session import Session
from leafdb.types import Key, NodeId
from leafdb.wire.control import AdminRequest, ScanRequest
from leafdb.wire.hello import ClientFacts
from leafdb.wire.registry import CLIENT_REQUEST_TYPES, SESSION_TYPES, MessageType
from leafdb.wire.requests import FLAG_BLIND, FLAG_DELETE, GetRequest, PutRequest, encode_get, encode_put
from support.clusters import bucket, cluster

CARTS, PRICES = 256, 257


class Told:
    """A session, as far as a guard looks at one."""

    remote = "10.0.0.9:5"

    def __init__(self, principal: Principal | None) -> None:
        self.facts = ClientFacts(1, "test", principal)


class Desk:
    """A guard over a view, and what became of what it was asked."""

    def __init__(self, metadata: ClusterMetadata, *, required: bool = True) -> None:
        self.view = ClusterView()
        self.refused: list[LeafdbError] = []
        self.parked: list[Callable[[], None]] = []
        self.now_ms = 1_000
        audit = Audit(enabled=False, show_keys=False, secret=b"s", now=lambda: 0.0)
        self.guard = Guard(
            self.view,
            audit,
            required=required,
            now_ms=lambda: self.now_ms,
            refuse=lambda _, __, error: self.refused.append(error),
            park=self._park,
        )
        self.view.on_install.append(self.guard.installed)
        self.install(metadata)

    def _park(self, again: Callable[[], None]) -> bool:
        self.parked.append(again)
        return len(self.parked) == 1

    def install(self, metadata: ClusterMetadata) -> None:
        self.metadata = metadata
        self.view.install(NodeId(1), metadata)

    def ask(self, who: Principal | None, message_type: int, body: bytes) -> bool:
        session = cast(Session, Told(who))
        admitted = self.guard.admits(session, message_type, 1, body, lambda *frame: None)
        self.guard.check()
        return admitted

    def principal(self, name: str, token: str = "") -> Principal:
        accounts = self.metadata.accounts
        digest = accounts.tokens[token].digest if token else b""
        return Principal(name, accounts.users[name].generation, token, digest)


def two_buckets() -> ClusterMetadata:
    return cluster().create_bucket(bucket("carts")).create_bucket(bucket("prices"))


def desk_of(*grants: str, metadata: ClusterMetadata | None = None) -> tuple[Desk, Principal]:
    """A desk at which alice has these grants."""
    made = changes.create_role(metadata or two_buckets(), "hers", [parse_grant(each) for each in grants])
    desk = Desk(changes.create_user(made, "alice", None, ["hers"]))
    return desk, desk.principal("alice")


def get_of(key: Key, bucket_id: int = CARTS) -> bytes:
    return encode_get(GetRequest(bucket_id, 2, 0, 1000, 0, 0, 0, encode_key(key)))


def put_of(key: Key, bucket_id: int = CARTS, flags: int = FLAG_BLIND) -> bytes:
    return encode_put(PutRequest(bucket_id, 2, 0, 1000, flags, 0, 0, 0, 0, bytes(16), encode_key(key), b"", b"v"))


def scan_of(start: bytes = b"", stop: bytes = b"", bucket_id: int = CARTS) -> bytes:
    return ScanRequest(bucket_id, 2, start, stop, 10, 1000, False, 0, 1000).encode()


def range_of(partition: str, bucket_id: int = CARTS) -> tuple[bytes, bytes]:
    """The span of the ring that holds the pairs of a partition key, and nothing else."""
    part = partition_part(encode_key(partition))
    start = token_of(cast(Any, bucket_id), part).to_bytes(8, "big") + part
    return start, start[:-1] + b"\x02"


def verb_of(verb: str, **args: Any) -> bytes:
    return AdminRequest(verb, args).encode()


ASKS = {
    "read": (MessageType.GET, get_of("a")),
    "write": (MessageType.PUT, put_of("a")),
    "delete": (MessageType.PUT, put_of("a", flags=FLAG_BLIND | FLAG_DELETE)),
}


def test_every_admin_verb_of_a_client_has_its_need_and_no_other_has() -> None:
    assert VERBS.keys() == required_grants.ALL


def test_what_a_client_may_send_is_what_the_guard_knows() -> None:
    known = {MessageType.GET, MessageType.PUT, MessageType.SCAN, MessageType.ADMIN, MessageType.TRACED}
    assert known == CLIENT_REQUEST_TYPES - SESSION_TYPES


@pytest.mark.parametrize("wanted", ASKS)
@pytest.mark.parametrize("granted", ASKS)
def test_each_request_for_a_key_needs_its_own_grant(granted: str, wanted: str) -> None:
    desk, alice = desk_of(f"{granted}:carts")
    assert desk.ask(alice, *ASKS[wanted]) == (granted == wanted)
    if granted != wanted:
        (error,) = desk.refused
        assert isinstance(error, NotApplied)
        assert (error.reason, error.outcome, error.retryable) == (Reason.UNAUTHORIZED, "not_applied", False)
        assert f"user 'alice' is not granted '{wanted}' on bucket 'carts'" in str(error)


def test_a_grant_of_one_bucket_is_none_of_another() -> None:
    desk, alice = desk_of("read:carts", "write:prices")
    assert desk.ask(alice, MessageType.GET, get_of("a"))
    assert not desk.ask(alice, MessageType.GET, get_of("a", PRICES))
    assert desk.ask(alice, MessageType.PUT, put_of("a", PRICES))
    assert not desk.ask(alice, MessageType.PUT, put_of("a"))


@pytest.mark.parametrize("key", ["user-1", "user-", ("user-1", "x"), b"user-\x00\xff", ("user-\x00", b"\x00")])
def test_a_prefix_opens_the_keys_that_begin_with_it(key: Key) -> None:
    desk, alice = desk_of("read:carts/user-", "write:carts/user-", "delete:carts/user-")
    for message_type, body in (
        (MessageType.GET, get_of(key)),
        (MessageType.PUT, put_of(key)),
        (MessageType.PUT, put_of(key, flags=FLAG_DELETE)),
    ):
        assert desk.ask(alice, message_type, body)


@pytest.mark.parametrize("key", ["use-1", "users", "User-1", ("x", "user-1"), b"\x00user-", "other"])
def test_a_prefix_opens_no_others(key: Key) -> None:
    desk, alice = desk_of("read:carts/user-", "write:carts/user-")
    assert not desk.ask(alice, MessageType.GET, get_of(key))
    assert not desk.ask(alice, MessageType.PUT, put_of(key))
    assert all("or this key of it" in str(error) for error in desk.refused)
    assert not any(str(key) in str(error) for error in desk.refused), "an error quotes no key"


def test_a_prefix_that_ends_in_a_zero_is_one_of_keys_not_of_their_encoding() -> None:
    desk, alice = desk_of("read:carts/hex:6100")
    assert desk.ask(alice, MessageType.GET, get_of(b"a\x00b"))
    assert not desk.ask(alice, MessageType.GET, get_of(b"a")), "its encoding goes on with a zero too"
    assert not desk.ask(alice, MessageType.GET, get_of((b"a", b"b")))


def test_a_scan_shows_everything_so_it_needs_the_whole_bucket() -> None:
    desk, alice = desk_of("read:carts/user-")
    start, stop = range_of("user-1")
    for span in ((b"", b""), (start, b""), (b"", stop), (start, b"\xff" * 20), (start, stop + b"\x00")):
        assert not desk.ask(alice, MessageType.SCAN, scan_of(*span)), span
    assert all("'read'" in str(error) for error in desk.refused)
    whole, bob = desk_of("read:carts")
    assert whole.ask(bob, MessageType.SCAN, scan_of())
    assert not whole.ask(bob, MessageType.SCAN, scan_of(bucket_id=PRICES))
    nothing, eve = desk_of("write:*", "delete:*")
    assert not nothing.ask(eve, MessageType.SCAN, scan_of())
    assert not nothing.ask(eve, MessageType.SCAN, scan_of(*range_of("user-1")))


def test_the_range_of_one_partition_key_needs_only_that_key() -> None:
    desk, alice = desk_of("read:carts/user-")
    start, stop = range_of("user-1")
    inside = storage_key(cast(Any, CARTS), encode_key(("user-1", "m")))
    for span in ((start, stop), (inside, stop), (start, inside), (inside + b"\x00", stop)):
        assert desk.ask(alice, MessageType.SCAN, scan_of(*span)), span
    assert not desk.ask(alice, MessageType.SCAN, scan_of(*range_of("admin-1")))
    assert not desk.ask(alice, MessageType.SCAN, scan_of(*range_of("user")))


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_admin_verb_is_denied_without_its_grant_and_done_with_it(verb: str) -> None:
    args: dict[str, Any] = {"name": "carts", "bucket": "carts", "key": encode_key("a")}
    if verb == "bucket.create":
        args = {"properties": {"name": "carts"}}
    need: str | None
    if verb in required_grants.LOGGED_IN:
        need = None
    elif verb in required_grants.ANY_OF_BUCKET:
        need = "delete:carts/x"
    else:
        need = {**required_grants.OF_BUCKET, **required_grants.OF_KEY, **required_grants.OF_CLUSTER}[verb]
    # All there is but what it needs, and what it needs of another bucket.
    others = [str(each) for each in Verb if each != need] if need != "delete:carts/x" else ["read:prices", "admin.*"]
    if need is not None and not need.startswith("admin.") and "/" not in need:
        others.append(f"{need}:prices")
    desk, alice = desk_of(*others)
    assert desk.ask(alice, MessageType.ADMIN, verb_of(verb, **args)) == (need is None)
    if need is not None:
        (error,) = desk.refused
        assert isinstance(error, NotApplied)
        assert error.reason is Reason.UNAUTHORIZED
        named = need if need.startswith("admin.") or "/" in need else f"{need}:carts"
        granted, bob = desk_of(named)
        assert granted.ask(bob, MessageType.ADMIN, verb_of(verb, **args))


def test_a_verb_that_nobody_has_heard_of_is_denied_to_everybody() -> None:
    desk, alice = desk_of("*")
    assert not desk.ask(alice, MessageType.ADMIN, verb_of("no.such.verb"))
    assert not desk.ask(alice, MessageType.ADMIN, verb_of("metadata.offer", metadata=b""))


@pytest.mark.parametrize("args", [{}, {"name": 5}, {"name": None}, {"properties": 5}, {"properties": {"name": b"x"}}])
def test_arguments_that_name_no_bucket_are_of_none(args: dict[str, Any]) -> None:
    desk, alice = desk_of("bucket.create:carts", "bucket.drop:carts", "read:carts")
    for verb in ("bucket.create", "bucket.drop", "bucket.set", "bucket.get", "kv.where"):
        assert not desk.ask(alice, MessageType.ADMIN, verb_of(verb, **args))


@pytest.mark.parametrize(
    ("verb", "args"),
    [
        ("bucket.create", {"bucket": "carts", "properties": {"name": "prices"}}),
        ("bucket.create", {"name": "carts", "properties": {"name": "prices"}}),
        ("bucket.set", {"bucket": "carts", "name": "prices", "properties": {}}),
        ("bucket.set", {"name": "prices", "properties": {"name": "carts"}}),
        ("bucket.drop", {"bucket": "carts", "name": "prices"}),
        ("bucket.get", {"bucket": "carts", "name": "prices"}),
        ("kv.where", {"name": "carts", "bucket": "prices", "key": encode_key("user-1")}),
    ],
)
def test_what_is_judged_is_the_argument_the_verb_goes_by(verb: str, args: dict[str, Any]) -> None:
    """Whoever names two buckets is judged by the one that the verb would touch."""
    granted = ["bucket.*:carts", "read:carts"]
    desk, alice = desk_of(*granted)
    assert not desk.ask(alice, MessageType.ADMIN, verb_of(verb, **args))
    assert "'prices'" in str(desk.refused[-1])


def test_a_key_verb_needs_that_very_key() -> None:
    desk, alice = desk_of("read:carts/user-")
    assert desk.ask(alice, MessageType.ADMIN, verb_of("kv.where", bucket="carts", key=encode_key("user-1")))
    for key in (encode_key("other"), b"", None, "user-1"):
        assert not desk.ask(alice, MessageType.ADMIN, verb_of("kv.where", bucket="carts", key=key))


def test_users_may_change_their_own_passwords_and_nobody_elses() -> None:
    desk, alice = desk_of("read:carts")
    desk.install(changes.create_user(desk.metadata, "bob", None, []))
    desk.install(changes.create_token(desk.metadata, Token("job", "alice", token_digest("job"))))

    def asks(who: Principal, **args: Any) -> bool:
        return desk.ask(who, MessageType.ADMIN, verb_of("user.password", **args))

    verifier = verifier_of(b"new", b"s" * 16, SCRAM_ITERATIONS_MIN).to_wire()
    assert asks(alice, name="alice", verifier=verifier)
    assert asks(desk.principal("bob"), name="bob", verifier=verifier)
    assert not asks(alice, name="bob", verifier=verifier)
    assert not asks(alice, name="alice", user="alice", verifier=None), "taking it away is for who gives accounts"
    assert not asks(alice, user="alice", verifier=verifier)
    assert not asks(desk.principal("alice", "job"), name="alice", verifier=verifier), "a token is not its user"
    for verb in ("user.roles", "user.drop", "token.create"):
        assert not desk.ask(alice, MessageType.ADMIN, verb_of(verb, name="alice", user="alice", verifier=verifier))
    desk.install(changes.set_verifier(desk.metadata, "alice", None))
    assert not asks(alice, name="alice", verifier=verifier), "the session of an old password is nobody's"


def test_who_is_dropped_revoked_or_renamed_while_connected_loses_it_at_once() -> None:
    desk, alice = desk_of("read:carts")
    everything: Sequence[tuple[int, bytes]] = [(MessageType.GET, get_of("a")), (MessageType.ADMIN, verb_of("ping"))]
    before = desk.metadata
    assert all(desk.ask(alice, *each) for each in everything)
    desk.install(changes.set_grants(before, "hers", [], [Grant("read", "carts")]))
    assert [desk.ask(alice, *each) for each in everything] == [False, True]
    desk.install(changes.set_grants(desk.metadata, "hers", [Grant("read", "carts")], []))
    assert all(desk.ask(alice, *each) for each in everything)
    desk.install(changes.set_verifier(desk.metadata, "alice", None))
    assert not any(desk.ask(alice, *each) for each in everything), "another password: log in again"
    again = desk.principal("alice")
    assert all(desk.ask(again, *each) for each in everything)
    desk.install(changes.drop_user(desk.metadata, "alice"))
    assert not any(desk.ask(again, *each) for each in everything)
    desk.install(changes.create_user(desk.metadata, "alice", None, ["admin"]))
    assert not any(desk.ask(again, *each) for each in everything), "another one of that name"
    assert "not valid any more" in str(desk.refused[-1])


def test_a_token_ends_when_it_expires_and_when_it_is_dropped() -> None:
    desk, _ = desk_of("read:carts")
    for name, expires_ms in (("short", 5_000), ("long", 0)):
        desk.install(changes.create_token(desk.metadata, Token(name, "alice", token_digest(name), expires_ms)))
    short, long = desk.principal("alice", "short"), desk.principal("alice", "long")
    for who in (short, long):
        assert desk.ask(who, MessageType.GET, get_of("a"))
    desk.now_ms = 5_000
    assert not desk.ask(short, MessageType.GET, get_of("a"))
    assert desk.ask(long, MessageType.GET, get_of("a"))
    desk.install(changes.drop_token(desk.metadata, "long"))
    assert not desk.ask(long, MessageType.GET, get_of("a"))
    assert desk.ask(desk.principal("alice"), MessageType.GET, get_of("a"))


def test_a_token_made_again_under_its_name_does_not_let_in_who_came_with_the_first() -> None:
    desk, _ = desk_of("read:carts")
    desk.install(changes.create_token(desk.metadata, Token("job", "alice", token_digest("leaked"))))
    thief = desk.principal("alice", "job")
    assert desk.ask(thief, MessageType.GET, get_of("a"))
    desk.install(changes.drop_token(desk.metadata, "job"))
    desk.install(changes.create_token(desk.metadata, Token("job", "alice", token_digest("fresh"))))
    assert not desk.ask(thief, MessageType.GET, get_of("a"))
    assert desk.ask(desk.principal("alice", "job"), MessageType.GET, get_of("a"))


def test_a_bucket_this_node_has_not_heard_of_is_asked_for_once() -> None:
    desk, alice = desk_of("read:later")
    assert not desk.ask(alice, MessageType.GET, get_of("a", 258))
    assert (len(desk.parked), desk.refused) == (1, [])
    assert not desk.ask(alice, MessageType.GET, get_of("a", 258)), "it has had its chance"
    assert len(desk.refused) == 1
    desk.install(desk.metadata.create_bucket(bucket("later")))
    assert desk.ask(alice, MessageType.GET, get_of("a", 258))
    nothing, eve = desk_of("write:later")
    assert not nothing.ask(eve, MessageType.GET, get_of("a", 258))
    assert not nothing.parked, "who may read nothing at all has nothing to wait for"


def test_the_clusters_own_secret_opens_everything_even_before_there_is_a_cluster() -> None:
    desk = Desk(two_buckets())
    for verb in VERBS:
        assert desk.ask(ROOT, MessageType.ADMIN, verb_of(verb, name="carts", bucket="carts", key=encode_key("a")))
    for ask in ASKS.values():
        assert desk.ask(ROOT, *ask)
    assert desk.ask(ROOT, MessageType.SCAN, scan_of())
    blank = Desk(two_buckets())
    blank.view.metadata = None
    blank.guard.installed(two_buckets())
    assert blank.guard.admits(cast(Session, Told(ROOT)), MessageType.ADMIN, 1, verb_of("cluster.init"), lambda *_: None)
    assert not blank.guard.admits(
        cast(Session, Told(Principal("alice", 1))), MessageType.ADMIN, 1, verb_of("cluster.init"), lambda *_: None
    )


def test_where_accounts_are_not_asked_for_nothing_is_denied() -> None:
    desk = Desk(two_buckets(), required=False)
    assert desk.guard.idle
    for ask in ASKS.values():
        assert desk.ask(None, *ask)
    assert desk.ask(None, MessageType.ADMIN, verb_of("bucket.drop", name="carts"))


@pytest.mark.parametrize("grant", ["read:carts/a", "write:carts/a", "delete:carts/a", "admin.read"])
def test_a_malformed_body_is_never_admitted_to_a_part_of_a_bucket(grant: str) -> None:
    desk, alice = desk_of(grant)
    for message_type in (MessageType.GET, MessageType.PUT, MessageType.SCAN, MessageType.ADMIN):
        for body in (b"", b"\x00", b"\x00\x00\x01\x00", b"\xff" * 40):
            try:
                admitted = desk.ask(alice, message_type, body)
            except ProtocolError:
                continue
            assert not admitted, (message_type, body)
