"""Promises of `leafdb user`, `role` and `token`: secrets come from prompts and files, leave as verifiers and digests,
and are shown once or never."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from leafdb.client.auth import Scram, Token
from leafdb.errors import ConfigError, NotApplied, Reason
from leafdb.limits import SCRAM_ITERATIONS
from leafdb.model.scram import Verifier, keys_of, prepared, proof_of
from leafdb.ring.accounts import token_digest
from leafdb_cli.credentials import auth_of, text_in
from support.source_tree import ROOT
from support.stand_in import Run, StandIn

CLI_PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
USER = {"name": "alice", "password": True, "roles": ["reader"], "grants": ["read:*"], "tokens": ["job"]}
ROLE = {"name": "reader", "built_in": True, "grants": ["read:*"], "users": ["alice"]}
TOKEN = {"name": "job", "user": "alice", "expires_ms": 1_800_000_000_000}


def secret_file(directory: Path, text: str, mode: int = 0o600) -> str:
    path = directory / "secret"
    path.write_text(text + "\n", encoding="utf-8")
    path.chmod(mode)
    return str(path)


def keys_in(document: dict[str, Any]) -> set[str]:
    return {key for item in document["items"] for key in item}


def test_what_there_is_is_listed(run: Run, node: StandIn) -> None:
    node.verbs.update(
        {"user.list": {"users": [USER]}, "role.list": {"roles": [ROLE]}, "token.list": {"tokens": [TOKEN]}}
    )
    documents = [run(noun, "list", "-o", "json").document for noun in ("user", "role", "token")]
    assert [document["items"] for document in documents] == [[USER], [ROLE], [TOKEN]]
    keys = set().union(*map(keys_in, documents))
    assert sorted(key for key in keys if not re.search(rf"`{key}`", CLI_PAGE)) == []
    assert "2027-01-15 08:00 UTC" in run("token", "list").out
    assert "read:*" in run("user", "show", "alice").out
    assert run("role", "show", "reader", "-o", "json").item == ROLE
    assert run("user", "show", "bob").code == 3
    assert run("role", "show", "bob").code == 3


def test_a_password_leaves_as_a_verifier(run: Run, node: StandIn, tmp_path: Path) -> None:
    node.verbs["user.create"] = node.verbs["user.password"] = USER
    path = secret_file(tmp_path, "canary password")
    made = run("user", "create", "alice", "--role", "reader", "--role", "writer", "--password-file", path)
    assert made.code == 0
    assert run("user", "set", "alice", "--password-file", path).code == 0
    (asked,) = node.asked("user.create")
    assert asked["roles"] == ["reader", "writer"]
    assert "canary" not in str(asked)
    verifier = Verifier.from_wire(asked["verifier"])
    assert verifier.iterations == SCRAM_ITERATIONS
    keys = keys_of(prepared("canary password"), verifier.salt, verifier.iterations)
    assert verifier.proves(proof_of(keys, b"message"), b"message")
    assert node.asked("user.password")[0]["verifier"]["salt"] != verifier.salt, "another salt each time"
    assert "canary" not in made.out + made.err


def test_a_user_without_a_password_is_for_tokens(run: Run, node: StandIn, tmp_path: Path) -> None:
    node.verbs["user.create"] = node.verbs["user.password"] = USER
    assert run("user", "create", "job", "--no-password").code == 0
    assert run("user", "set", "job", "--no-password").code == 0
    assert node.asked("user.create") == [{"name": "job", "verifier": None, "roles": []}]
    both = run("user", "create", "job", "--no-password", "--password-file", secret_file(tmp_path, "x"))
    assert both.code == 2


def test_a_password_is_not_asked_for_where_nobody_can_type_it(run: Run, node: StandIn) -> None:
    node.verbs["user.create"] = USER
    ended = run("user", "create", "alice")
    assert ended.code == 1
    assert "--password-file" in ended.err
    assert node.asked("user.create") == []
    for line in (("user", "create", "alice", "--password", "x"), ("user", "set", "alice", "--password=x")):
        assert run(*line).code == 2, "never on the line, where others can read it"


def test_roles_and_grants_are_given_and_taken(run: Run, node: StandIn) -> None:
    node.verbs["user.roles"] = USER
    node.verbs["role.create"] = node.verbs["role.set"] = ROLE
    node.verbs["role.drop"] = node.verbs["user.drop"] = {}
    assert run("user", "grant", "alice", "writer", "reader").code == 0
    assert run("user", "revoke", "alice", "writer").code == 0
    assert node.asked("user.roles") == [
        {"name": "alice", "add": ["reader", "writer"], "remove": []},
        {"name": "alice", "add": [], "remove": ["writer"]},
    ]
    assert run("role", "create", "r", "read", "write:carts/user-").code == 0
    assert node.asked("role.create") == [{"name": "r", "grants": ["read:*", "write:carts/user-"]}]
    assert run("role", "grant", "r", "admin.read").code == 0
    assert run("role", "revoke", "r", "read").code == 0
    assert node.asked("role.set")[1] == {"name": "r", "add": [], "remove": ["read:*"]}
    wrong = run("role", "create", "r", "reed:carts")
    assert wrong.code == 2
    assert "no verb" in wrong.err
    assert len(node.asked("role.create")) == 1
    assert run("role", "drop", "r").code == run("user", "drop", "alice").code == 0


def test_a_token_is_shown_once_and_leaves_as_a_digest(run: Run, node: StandIn, tmp_path: Path) -> None:
    node.verbs["token.create"] = TOKEN
    shown = run("token", "create", "job", "--user", "alice", "--expires", "30d")
    text = shown.out.strip()
    assert re.fullmatch(r"leafdb_[A-Za-z0-9_-]{43}", text)
    (asked,) = node.asked("token.create")
    assert asked["digest"] == token_digest(text)
    assert text not in str(asked)
    assert text not in shown.err
    assert asked["expires_ms"] > 1_700_000_000_000
    out = tmp_path / "job.token"
    kept = run("token", "create", "job", "--user", "alice", "--expires", "never", "--out", str(out))
    assert "leafdb_" not in kept.out + kept.err
    assert out.stat().st_mode & 0o777 == 0o600
    assert node.asked("token.create")[1]["expires_ms"] == 0
    assert node.asked("token.create")[1]["digest"] == token_digest(text_in(str(out), "x"))
    assert run("token", "create", "job", "--user", "alice", "--out", str(out)).code == 1, "nothing is overwritten"
    assert run("token", "create", "job", "--user", "alice", "--expires", "soon").code == 2


def test_a_token_that_was_not_made_leaves_no_file(run: Run, node: StandIn, tmp_path: Path) -> None:
    node.verbs["token.create"] = NotApplied("there is no user 'bob'", reason=Reason.NO_SUCH_ACCOUNT)
    out = tmp_path / "job.token"
    assert run("token", "create", "job", "--user", "bob", "--out", str(out)).code == 3
    assert not out.exists()


def test_unauthorized_is_exit_code_6_and_says_what_to_do(run: Run, node: StandIn) -> None:
    node.verbs["user.list"] = NotApplied("user 'eve' is not granted 'admin.accounts'", reason=Reason.UNAUTHORIZED)
    ended = run("user", "list")
    assert ended.code == 6
    assert "LEAFDB_USER" in ended.err


def test_who_one_is_comes_from_the_environment(tmp_path: Path) -> None:
    path = secret_file(tmp_path, "canary-secret-of-16-bytes")
    assert auth_of({}) is None
    assert isinstance(auth_of({"LEAFDB_TOKEN_FILE": path}), Token)
    scram = auth_of({"LEAFDB_USER": "alice", "LEAFDB_PASSWORD_FILE": path})
    assert isinstance(scram, Scram)
    assert scram.user == "alice"
    root = auth_of({"LEAFDB_SECRET_FILE": path})
    assert isinstance(root, Scram)
    assert root.user == "@cluster"
    with pytest.raises(ConfigError, match="each say who you are"):
        auth_of({"LEAFDB_TOKEN_FILE": path, "LEAFDB_USER": "alice"})


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("canary", 0o644, "chmod 600"),
        ("canary", 0o640, "chmod 600"),
        ("", 0o600, "is empty"),
        ("c" * 5_000, 0o600, "more"),
    ],
)
def test_a_file_that_is_no_secret_is_refused(tmp_path: Path, text: str, mode: int, told: str) -> None:
    path = secret_file(tmp_path, text, mode)
    with pytest.raises(ConfigError, match=told) as caught:
        auth_of({"LEAFDB_TOKEN_FILE": path})
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        auth_of({"LEAFDB_TOKEN_FILE": path + "-not-there"})
