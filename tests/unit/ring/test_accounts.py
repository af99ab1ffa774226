"""Accounts in the cluster metadata: changes refused with a reason, bytes that stay, and that nobody is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from leafdb.codec import cbor
from leafdb.errors import NotApplied, Reason
from leafdb.limits import SCRAM_ITERATIONS_MIN, TOKENS_MAX, USER_ROLES_MAX, USERS_MAX
from leafdb.model.grants import Grant, parse_grant
from leafdb.model.scram import Verifier
from leafdb.ring import account_changes as changes
from leafdb.ring.accounts import BUILT_IN, Accounts, Principal, Role, Token, User, token_digest
from leafdb.ring.difference import apply, difference
from leafdb.ring.metadata import ClusterMetadata, MetadataError, decode
from leafdb.ring.staging import Join
from support.clusters import bucket, cluster, proposed
from support.ring_changes import staged

VERIFIER = Verifier(b"s" * 16, SCRAM_ITERATIONS_MIN, b"t" * 32, b"v" * 32)
TOKEN = Token("job", "alice", token_digest("leafdb_x"), 1_800_000_000_000)


def example() -> ClusterMetadata:
    """One of each, as docs/formats/metadata.md shows them."""
    made = changes.create_role(cluster(), "carts", [parse_grant("read:carts"), parse_grant("write:carts/user-")])
    made = changes.create_user(made, "alice", VERIFIER, ["carts"])
    return changes.create_token(made, TOKEN)


def reason_of(change: Callable[[], object]) -> Reason:
    with pytest.raises(NotApplied) as caught:
        change()
    return caught.value.reason


def test_format_4_has_the_bytes_it_was_given() -> None:
    made = example()
    assert made.format == 4
    encoded = made.encode()
    assert cbor.dumps(made.accounts.to_wire()).hex() == (
        "a365726f6c657381a2646e616d65656361727473666772616e74738283647265616465636172747340836577726974656563617274"
        "7345757365722d65757365727381a4646e616d6565616c69636565726f6c65738165636172747368766572696669657"
        "2a46473616c7450" + "73" * 16 + "6a697465726174696f6e73193a98"
        "6a7365727665725f6b65795820"
        + "76" * 32
        + "6a73746f7265645f6b65795820"
        + "74" * 32
        + "6a67656e65726174696f6e0366746f6b656e7381a4646e616d65636a6f62647573657265616c69636566646967657374"
        "5820" + TOKEN.digest.hex() + "6a657870697265735f6d731b000001a3185c5000"
    )
    assert decode(encoded) == made
    assert decode(encoded).encode() == encoded


def test_without_accounts_nothing_is_of_the_new_format() -> None:
    assert cluster().format == 1
    assert b"accounts" not in cluster().encode()
    dropped = changes.drop_role(changes.drop_user(example(), "alice"), "carts")
    assert not dropped.accounts
    assert dropped.format == 1
    assert decode(dropped.encode()) == dropped


def test_format_4_says_whatever_the_others_say_too() -> None:
    made = staged(example(), Join(proposed(7)))
    assert made.format == 4
    assert decode(made.encode()) == made


def test_clients_are_given_metadata_without_accounts() -> None:
    made = example()
    shown = made.without_accounts().encode()
    for secret in (VERIFIER.stored_key, VERIFIER.server_key, VERIFIER.salt, TOKEN.digest, b"alice"):
        assert secret in made.encode()
        assert secret not in shown
    assert decode(shown).format == 1
    assert cluster().without_accounts() == cluster()


def test_a_difference_carries_them() -> None:
    before = cluster().create_bucket(bucket())
    after = changes.create_user(before, "bob", VERIFIER, [])
    assert apply(before, difference(before, after)) == after
    gone = changes.drop_user(after, "bob")
    assert apply(after, difference(after, gone)) == gone


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ((), 5),
        ((), {}),
        (("users",), [5]),
        (("users", 0, "name"), "Alice"),
        (("users", 0, "generation"), 99),
        (("users", 0, "roles"), ["nosuch"]),
        (("users", 0, "roles"), ["carts", "carts"]),
        (("users", 0, "verifier", "iterations"), 1),
        (("users", 0, "surprise"), 1),
        (("roles", 0, "name"), "admin"),
        (("roles", 0, "grants"), [["read", "carts"]]),
        (("roles", 0, "grants"), [["READ!", "carts", b""]]),
        (("roles", 0, "grants"), [["bucket.drop", "carts", b"x"]]),
        (("roles", 0, "grants"), [["write", "carts", b""], ["read", "carts", b""]]),
        (("tokens", 0, "user"), "bob"),
        (("tokens", 0, "digest"), b"short"),
    ],
)
def test_unsound_bytes_are_refused(where: tuple[Any, ...], value: object) -> None:
    wire = example().to_wire()
    assert decode(cbor.dumps(wire)) == example()
    place: Any = wire
    path = ("accounts", *where)
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(MetadataError):
        decode(cbor.dumps(wire))


def test_accounts_in_an_older_format_and_none_in_the_new_one_are_refused() -> None:
    wire = example().to_wire()
    for older in (1, 2, 3):
        with pytest.raises(MetadataError, match="unknown"):
            decode(cbor.dumps({**wire, "format": older}))
    with pytest.raises(MetadataError, match="canonical"):
        decode(cbor.dumps({**wire, "accounts": {"users": [], "roles": [], "tokens": []}}))
    with pytest.raises(MetadataError, match="format"):
        decode(cbor.dumps({**wire, "format": 5}))


def test_a_change_that_runs_twice_counts_once() -> None:
    change_id = b"c" * 16
    made = changes.create_user(cluster(), "alice", VERIFIER, ["reader"], change_id=change_id)
    assert changes.create_user(made, "alice", VERIFIER, ["reader"], change_id=change_id) is made
    assert changes.set_verifier(made, "alice", None, change_id=change_id) is made
    assert changes.set_roles(made, "alice", ["reader"], [], change_id=b"d" * 16) is made, "nothing would change"


def test_refusals_have_their_reasons() -> None:
    made = example()
    assert reason_of(lambda: changes.create_user(made, "alice", None, [])) is Reason.NAME_TAKEN
    assert reason_of(lambda: changes.create_user(made, "@cluster", None, [])) is Reason.BAD_REQUEST
    assert reason_of(lambda: changes.create_user(made, "bob", None, ["nosuch"])) is Reason.BAD_REQUEST
    assert reason_of(lambda: changes.set_roles(made, "bob", ["reader"], [])) is Reason.NO_SUCH_ACCOUNT
    assert reason_of(lambda: changes.drop_user(made, "bob")) is Reason.NO_SUCH_ACCOUNT
    assert reason_of(lambda: changes.create_role(made, "carts", [])) is Reason.NAME_TAKEN
    assert reason_of(lambda: changes.create_role(made, "admin", [])) is Reason.NAME_TAKEN
    assert reason_of(lambda: changes.set_grants(made, "admin", [], [])) is Reason.BAD_REQUEST
    assert reason_of(lambda: changes.set_grants(made, "carts", [], [Grant("delete")])) is Reason.BAD_REQUEST
    assert reason_of(lambda: changes.drop_role(made, "carts")) is Reason.BAD_REQUEST, "alice has it"
    assert reason_of(lambda: changes.drop_role(made, "nosuch")) is Reason.NO_SUCH_ACCOUNT
    assert reason_of(lambda: changes.create_token(made, TOKEN)) is Reason.NAME_TAKEN
    assert reason_of(lambda: changes.create_token(made, replace(TOKEN, name="b"))) is Reason.BAD_REQUEST, "one digest"
    assert reason_of(lambda: changes.create_token(made, replace(TOKEN, name="b", user="bob"))) is Reason.NO_SUCH_ACCOUNT
    assert reason_of(lambda: changes.drop_token(made, "nosuch")) is Reason.NO_SUCH_ACCOUNT


def test_bounds_are_held() -> None:
    users = {f"u{at}": User(f"u{at}", 1, None) for at in range(USERS_MAX)}
    full = replace(cluster(), accounts=Accounts(users=users))
    assert not full.check()
    assert decode(full.encode()) == full
    assert reason_of(lambda: changes.create_user(full, "onemore", None, [])) is Reason.BAD_REQUEST
    tokens = {f"t{at}": Token(f"t{at}", "u0", token_digest(f"{at}")) for at in range(TOKENS_MAX + 1)}
    assert replace(full, accounts=Accounts(users, {}, tokens)).check()
    roles = {f"r{at}": Role(f"r{at}") for at in range(USER_ROLES_MAX + 1)}
    many = {"u": User("u", 1, None, tuple(sorted(roles)))}
    assert replace(full, accounts=Accounts(many, roles)).check()
    wide = tuple(sorted(Grant("read", f"bucket-{at}", b"p" * 256) for at in range(4_000)))
    assert any("bytes" in line for line in replace(full, accounts=Accounts({}, {"wide": Role("wide", wide)})).check())


def test_somebody_is_nobody_once_dropped_or_given_another_password() -> None:
    made = example()
    alice = Principal("alice", made.accounts.users["alice"].generation)
    by_token = alice._replace(token="job", digest=made.accounts.tokens["job"].digest)
    assert made.accounts.user_of(alice) is made.accounts.user_of(by_token) is made.accounts.users["alice"]
    again = changes.create_user(changes.drop_user(made, "alice"), "alice", VERIFIER, ["carts"])
    assert again.accounts.user_of(alice) is None, "another one of that name"
    assert changes.drop_user(made, "alice").accounts.user_of(alice) is None
    assert changes.set_verifier(made, "alice", None).accounts.user_of(alice) is None
    without = changes.drop_token(made, "job").accounts
    assert without.user_of(by_token) is None
    assert without.user_of(alice) is not None
    assert "job" not in changes.drop_user(made, "alice").accounts.tokens


def test_the_roles_that_are_built_in() -> None:
    made = changes.create_user(cluster(), "root", None, ["admin"]).accounts
    assert made.grants_of(made.users["root"]) == (Grant("*"),)
    assert all(not grant.check() for grants in BUILT_IN.values() for grant in grants)


def test_no_text_form_shows_a_secret() -> None:
    made = example()
    for shown in (repr(made), repr(made.accounts), made.describe(), repr(TOKEN), f"{VERIFIER}"):
        for secret in (VERIFIER.stored_key, VERIFIER.server_key, TOKEN.digest):
            assert repr(secret)[2:-1] not in shown
            assert secret.hex() not in shown
