"""The audit log: a line for what happened, bounded where strangers can cause it, and never a secret or a plain key."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from leafdb.limits import AUDIT_LINES_BURST, AUDIT_LINES_PER_S
from leafdb.node.audit import Audit
from leafdb.node.logs import AUDIT, RepeatFilter

SECRET = b"canary-secret-of-the-cluster"


class Lines(logging.Handler):
    """What was written."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append({"event": record.getMessage(), **getattr(record, "facts", {})})


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    handler.addFilter(RepeatFilter(burst=1))
    logger = logging.getLogger(AUDIT)
    level = logger.level
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def audit(*, enabled: bool = True, show_keys: bool = False, now: float = 0.0) -> tuple[Audit, list[float]]:
    clock = [now]
    return Audit(enabled=enabled, show_keys=show_keys, secret=SECRET, now=lambda: clock[0]), clock


def test_nothing_is_written_unless_it_is_wanted(lines: Lines) -> None:
    quiet, _ = audit(enabled=False)
    quiet.logged_in("alice", "scram", "10.0.0.1:5")
    quiet.login_failed("alice", "scram", "10.0.0.1:5")
    quiet.turned_away("no login", "10.0.0.1:5")
    quiet.denied("alice", "read", "carts", b"k", "10.0.0.1:5")
    quiet.admin("alice", "bucket.drop", {"name": "carts"}, "10.0.0.1:5")
    assert lines.all == []


def test_who_came_and_what_they_changed(lines: Lines) -> None:
    wanted, _ = audit()
    wanted.logged_in("alice", "scram-sha-256", "10.0.0.1:5")
    for _ in range(3):
        wanted.admin("alice", "bucket.drop", {"name": "carts", "dry": True, "expires_ms": 5}, "10.0.0.1:5")
    assert lines.all[0] == {"event": "login", "user": "alice", "how": "scram-sha-256", "remote": "10.0.0.1:5"}
    assert len(lines.all) == 4, "every change has its line, however alike they are"
    assert lines.all[1] == {
        "event": "admin", "user": "alice", "verb": "bucket.drop", "remote": "10.0.0.1:5", "arg_name": "carts",
        "arg_expires_ms": 5, "bucket": "carts",
    }  # fmt: skip


def test_a_line_names_the_bucket_the_verb_goes_by_and_what_is_granted(lines: Lines) -> None:
    wanted, _ = audit()
    wanted.admin("a", "bucket.create", {"name": "decoy", "properties": {"name": "carts"}}, "r")
    wanted.admin("a", "bucket.drop", {"bucket": "decoy", "name": "carts"}, "r")
    assert [line["bucket"] for line in lines.all] == ["carts", "carts"]
    wanted.admin("a", "user.roles", {"name": "bob", "add": ["admin", "reader"], "remove": []}, "r")
    wanted.admin("a", "role.set", {"name": "hers", "add": ["read:carts/canary-", "*"], "remove": [b"canary"]}, "r")
    assert lines.all[-2]["arg_add"] == "admin, reader"
    assert "arg_remove" not in lines.all[-2]
    assert lines.all[-1]["arg_add"] == "read:carts/..., *", "a prefix is part of a key"
    wanted.admin("a", "user.create", {"name": "eve", "roles": ["x" * 500] * 500}, "r")
    assert len(lines.all[-1]["arg_roles"]) <= 128
    plain, _ = audit(show_keys=True)
    plain.admin("a", "role.create", {"name": "hers", "grants": ["read:carts/canary-"]}, "r")
    assert lines.all.pop()["arg_grants"] == "read:carts/canary-"
    assert "canary" not in json.dumps(lines.all)


def test_no_secret_and_no_key_is_written(lines: Lines) -> None:
    wanted, _ = audit()
    verifier = {"salt": b"canary-salt", "stored_key": b"canary-stored", "server_key": b"canary-server"}
    wanted.admin("a", "user.create", {"name": "bob", "verifier": verifier, "password": "canary-password"}, "r")
    wanted.admin("a", "token.create", {"name": "t", "user": "bob", "digest": b"canary-digest"}, "r")
    wanted.admin("a", "backup.restore", {"bucket": "carts", "records": [[b"canary-key", b"canary-value"]]}, "r")
    wanted.denied("a", "read", "carts", b"canary-key", "r")
    wanted.denied("a", "read", "carts", b"canary-key", "r")
    text = json.dumps(lines.all, default=repr)
    assert "canary" not in text
    assert lines.all[-1]["key"] == lines.all[-2]["key"]
    other = Audit(enabled=True, show_keys=False, secret=b"another", now=lambda: 0.0)
    other.denied("a", "read", "carts", b"canary-key", "r")
    assert lines.all[-1]["key"] != lines.all[-2]["key"], "nobody without the secret can try keys out"


def test_keys_are_shown_where_that_is_asked_for(lines: Lines) -> None:
    shown, _ = audit(show_keys=True)
    shown.denied("a", "read", "carts", b"alice\xff", "r")
    assert lines.all[0]["key"] == "alice\\xff"


def test_strangers_cannot_flood_it_and_what_is_left_out_is_counted(lines: Lines) -> None:
    wanted, clock = audit()
    for _ in range(1_000):
        wanted.login_failed("", "scram-sha-256", "6.6.6.6:1")
    assert len(lines.all) == AUDIT_LINES_BURST
    wanted.admin("alice", "user.drop", {"name": "bob"}, "r")
    assert lines.all[-1]["event"] == "admin", "changes are never left out"
    clock[0] += 1 / AUDIT_LINES_PER_S
    wanted.turned_away("no login", "6.6.6.6:2")
    assert lines.all[-1]["left_out"] == 1_000 - AUDIT_LINES_BURST
    assert lines.all[0]["user"] == "(unknown)"
