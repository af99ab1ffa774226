"""What a client is told to be: never shown, never pickled, never sent where it could be read."""

from __future__ import annotations

import copy
import logging
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import leafdb
from leafdb import ConfigError
from leafdb.client.auth import KEYS_KEPT_MAX, ROOT_USER, Scram, Token, cluster_login, login_at
from leafdb.client.core import Core
from leafdb.client.url import Address
from leafdb.errors import LeafdbError, NotApplied, Reason
from leafdb.limits import SCRAM_ITERATIONS_MIN
from leafdb.model.scram import keys_of
from leafdb.wire.login import ScramLogin, TokenLogin
from unit.client.fake_node import FakeCluster

PASSWORD, TEXT = "canary-password", "leafdb_canary-token"


@pytest.mark.parametrize("made", [Scram("alice", PASSWORD), Token(TEXT), cluster_login(b"canary-secret-0123")])
def test_no_text_form_shows_it(made: object) -> None:
    for shown in (repr(made), str(made), f"{made!r:>40}", f"{[made]}", repr(vars) if hasattr(made, "__dict__") else ""):
        assert "canary" not in shown
    assert not hasattr(made, "__dict__"), "nothing that dumps attributes finds it"
    for dump in (pickle.dumps, copy.deepcopy):
        with pytest.raises(ConfigError) as caught:
            dump(made)
        assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Scram("alice", ""),
        lambda: Scram("alice", PASSWORD + "\x00"),
        lambda: Scram("", PASSWORD),
        lambda: Scram("x" * 65, PASSWORD),
        lambda: Scram("alice", PASSWORD.encode()),  # type: ignore[arg-type]
        lambda: Token(TEXT + "\x00"),
        lambda: Token(TEXT.encode()),  # type: ignore[arg-type]
        lambda: Token(""),
        lambda: leafdb.connect("leafdb://127.0.0.1", auth=("alice", PASSWORD)),  # type: ignore[arg-type]
        lambda: leafdb.connect(f"leafdb://alice:{PASSWORD}@127.0.0.1"),
    ],
)
def test_what_cannot_be_is_refused_without_quoting_it(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    told = "".join(traceback.format_exception_only(caught.value))
    assert "canary" not in told


def test_a_password_is_turned_into_a_key_once_for_each_salt(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[bytes] = []

    def counting(password: bytes, salt: bytes, iterations: int) -> Any:
        counted.append(salt)
        return keys_of(password, salt, 1)

    monkeypatch.setattr("leafdb.client.auth.keys_of", counting)
    auth = Scram("alice", PASSWORD)
    for at in (0, 0, 1, 1, 0):
        login = auth.login()
        assert isinstance(login, ScramLogin)
        nonce = login.first().partition(b",r=")[2]
        login.answer(b"r=" + nonce + b"x,s=" + (b"AAA%d" % at) + b",i=%d" % SCRAM_ITERATIONS_MIN)
    assert len(counted) == 2
    for at in range(KEYS_KEPT_MAX + 5):
        login = auth.login()
        nonce = login.first().partition(b",r=")[2]
        login.answer(b"r=" + nonce + b"x,s=" + (b"AB%02d" % at) + b",i=%d" % SCRAM_ITERATIONS_MIN)
    assert auth.login().first() != auth.login().first(), "a nonce is good for one login"


def test_a_token_goes_to_this_machine_or_where_nobody_can_read_it() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        assert isinstance(login_at(Token(TEXT), Address(host, 7411), encrypted=False), TokenLogin)
    for host in ("10.0.0.1", "db.example.org", "2001:db8::1"):
        with pytest.raises(ConfigError, match="over TLS"):
            login_at(Token(TEXT), Address(host, 7411), encrypted=False)
        assert isinstance(login_at(Token(TEXT), Address(host, 7411), encrypted=True), TokenLogin)
        assert isinstance(login_at(Scram("alice", PASSWORD), Address(host, 7411), encrypted=False), ScramLogin)


def test_a_token_that_must_not_be_sent_is_said_before_anybody_is_called() -> None:
    far = leafdb.connect("leafdb://10.255.255.1:7411", auth=Token(TEXT), timeout=0.5)
    with far as client, pytest.raises(ConfigError, match="over TLS"):
        client.ping()


def test_a_node_that_takes_no_notice_gets_nothing_more() -> None:
    """The node of these tests welcomes everybody, as builds did before there were accounts."""
    with FakeCluster() as cluster, leafdb.connect(f"leafdb://{cluster.node.address}", auth=Scram("a", "b")) as client:
        with pytest.raises(leafdb.ConnectFailed, match="took no notice"):
            client.ping(timeout=0.5)
        assert cluster.node.log == []


@pytest.mark.parametrize("auth", [None, Token(TEXT)])
def test_who_has_no_password_cannot_change_it(auth: leafdb.Auth | None) -> None:
    with leafdb.connect("leafdb://127.0.0.1:1", auth=auth) as client, pytest.raises(leafdb.ClientMisuse, match="Scram"):
        client.change_password("another")


def test_a_new_password_that_cannot_be_is_refused_before_anybody_is_called() -> None:
    with leafdb.connect("leafdb://127.0.0.1:1", auth=Scram("alice", PASSWORD)) as client:
        with pytest.raises(ConfigError) as caught:
            client.change_password("canary\x00")
        assert "canary" not in str(caught.value)


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        for auth in (Scram("alice", PASSWORD), Token(TEXT)):
            with leafdb.connect(f"leafdb://127.0.0.1:{port}", auth=auth, timeout=0.2) as client:
                with pytest.raises(LeafdbError) as caught:
                    client.ping()
                assert "canary" not in "".join(traceback.format_exception(caught.value))
                assert "canary" not in repr(client)
    assert "canary" not in caplog.text


def test_the_faces_have_them() -> None:
    assert (leafdb.Scram, leafdb.Token) == (Scram, Token)
    assert cluster_login(b"0123456789abcdef").user == ROOT_USER
    assert "auth" in Core.__slots__
    assert NotApplied("x", reason=Reason.UNAUTHORIZED).retryable is False
