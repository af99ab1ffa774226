"""A real node that asks who comes: from an empty directory to the first user, by the command line and both clients, and
what it wrote down meanwhile holds no secret."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import leafdb
from leafdb import BLIND, Found, NotApplied, Reason
from leafdb.client.auth import cluster_login
from leafdb.limits import GREETINGS_MAX, LOGIN_FAILURES_BURST
from leafdb.testing.servers import HOST, MORTAL, clean_environment, free_ports

pytestmark = pytest.mark.system

SECRET = "canary-secret-of-the-cluster"
PASSWORD = "canary-password of alice"
WAIT_S = 240.0
CONFIG = """\
[node]
name = "n1"
[cluster]
secret_file = "secret"
[listen]
client = "{host}:{client}"
peer = "{host}:{peer}"
http = "{host}:{http}"
[auth]
mode = "required"
audit = true
[log]
format = "json"
level = "warning"
"""


class Guarded:
    """One leafdbd in a directory, and commands against it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.client, self.peer, http = free_ports(3)
        config = CONFIG.format(host=HOST, client=self.client, peer=self.peer, http=http)
        (directory / "leafdb.toml").write_text(config, encoding="utf-8")
        self.secret_file = self.secret("secret", SECRET)
        self.password_file = self.secret("alice.password", PASSWORD)
        self._log = (directory / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-c", MORTAL, "-m", "leafdb.node.main", "--config", str(directory / "leafdb.toml")],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=directory,
            env=clean_environment(os.environ),
            start_new_session=True,
        )

    @property
    def address(self) -> str:
        return f"{HOST}:{self.client}"

    def secret(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text + "\n", encoding="utf-8")
        path.chmod(0o600)
        return str(path)

    def run(self, *arguments: str, code: int = 0, **environment: str) -> str:
        """A command; what it printed."""
        ran = subprocess.run(
            [sys.executable, "-m", "leafdb_cli.entry", *arguments],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            stdin=subprocess.DEVNULL,
            env={**clean_environment(os.environ), "LEAFDB_NODE": self.address, **environment},
            check=False,
        )
        assert ran.returncode == code, (arguments, ran.returncode, ran.stdout, ran.stderr)
        assert PASSWORD not in ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def as_root(self, *arguments: str, code: int = 0) -> str:
        return self.run(*arguments, code=code, LEAFDB_SECRET_FILE=self.secret_file)

    def as_alice(self, *arguments: str, code: int = 0) -> str:
        return self.run(*arguments, code=code, LEAFDB_USER="alice", LEAFDB_PASSWORD_FILE=self.password_file)

    def connect(self, auth: leafdb.Auth | None) -> leafdb.Client:
        return leafdb.connect(f"leafdb://{self.address}", auth=auth)

    def await_up(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                with self.connect(cluster_login(SECRET.encode())) as db:
                    db.ping()
                    return
            except leafdb.ConnectFailed:
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.05)

    def log(self) -> str:
        return (self.directory / "log").read_text(encoding="utf-8")

    def audit(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("logger") == "leafdb.audit"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A founded cluster of one with user alice, who may do everything in bucket carts below user-."""
    guarded = Guarded(tmp_path_factory.mktemp("guarded"))
    try:
        guarded.await_up()
        member = f"name=n1,client={guarded.address},peer={HOST}:{guarded.peer}"
        guarded.as_root("cluster", "init", "guarded", "--member", member)
        guarded.as_root("bucket", "create", "carts", "-n", "1")
        guarded.as_root("role", "create", "carts", "read:carts/user-", "write:carts/user-", "delete:carts/user-")
        guarded.as_root("user", "create", "alice", "--role", "carts", "--password-file", guarded.password_file)
        yield guarded
    finally:
        guarded.process.kill()
        guarded.process.wait(WAIT_S)


def test_nobody_comes_in_without_a_login_and_the_exit_code_says_so(node: Guarded) -> None:
    assert "asks who you are" in node.run("status", code=6)
    node.run("kv", "get", "carts", "user-1", code=6)
    wrong = node.secret("wrong.password", "guess")
    assert "rejected" in node.run("status", code=6, LEAFDB_USER="alice", LEAFDB_PASSWORD_FILE=wrong)
    assert "rejected" in node.run("status", code=6, LEAFDB_USER="nobody", LEAFDB_PASSWORD_FILE=wrong)


def test_a_user_may_do_what_is_granted_and_nothing_else(node: Guarded) -> None:
    node.as_alice("kv", "put", "carts", "user-1", "tea")
    assert node.as_alice("kv", "get", "carts", "user-1") == "tea"
    node.as_alice("kv", "put", "carts", "other", "tea", "--blind", code=6)
    node.as_alice("kv", "get", "carts", "other", code=6)
    node.as_alice("kv", "scan", "carts", code=6)
    node.as_alice("bucket", "drop", "carts", "--yes", "--i-understand-data-loss", code=6)
    node.as_alice("user", "create", "eve", "--no-password", "--role", "admin", code=6)
    node.as_alice("status", code=6)
    assert "carts" in node.as_alice("bucket", "list")


def test_both_clients_log_in_and_are_turned_out(node: Guarded) -> None:
    auth = leafdb.Scram("alice", PASSWORD)
    with node.connect(auth) as db:
        carts = db.bucket("carts")
        carts.put("user-2", b"milk", after=BLIND)
        assert isinstance(carts.get("user-2"), Found)
        carts.put(("user-2", "a"), b"1", after=BLIND)
        assert [item.key for item in carts.range("user-2")] == [(b"user-2", b"a")]
        with pytest.raises(NotApplied) as caught:
            list(carts.range("other"))
        assert caught.value.reason is Reason.UNAUTHORIZED

        async def main() -> None:
            async with leafdb.connect_async(f"leafdb://{node.address}", auth=auth) as adb:
                assert isinstance(await adb.bucket("carts").get("user-2"), Found)
                with pytest.raises(NotApplied):
                    await adb.bucket("carts").get("other")
            async with leafdb.connect_async(f"leafdb://{node.address}", auth=leafdb.Scram("alice", "no")) as adb:
                with pytest.raises(NotApplied):
                    await adb.ping()

        anyio.run(main)
        anyio.run(main, backend="trio")

        node.as_root("user", "revoke", "alice", "carts")
        with pytest.raises(NotApplied):
            carts.get("user-2")
        node.as_root("user", "grant", "alice", "carts")
        assert isinstance(carts.get("user-2"), Found)
        node.as_root("user", "set", "alice", "--password-file", node.password_file)
        with pytest.raises(NotApplied, match="not valid any more"):
            carts.get("user-2")


def test_a_user_changes_the_own_password_and_whoever_has_the_old_one_is_out(node: Guarded) -> None:
    old, new = "canary-password of erin", "canary-password of erin, the second"
    node.as_root("user", "create", "erin", "--role", "reader", "--password-file", node.secret("erin.password", old))
    with node.connect(leafdb.Scram("erin", old)) as thief, node.connect(leafdb.Scram("erin", old)) as db:
        assert thief.ping().name == "n1"
        db.change_password(new)
        for client in (thief, db):
            with pytest.raises(NotApplied, match=r"not valid any more|rejected"):
                client.ping()
    with node.connect(leafdb.Scram("erin", new)) as db:
        assert db.ping().name == "n1"


def test_a_token_stands_for_its_user_until_it_is_dropped(node: Guarded) -> None:
    path = node.directory / "job.token"
    node.as_root("token", "create", "job", "--user", "alice", "--expires", "1h", "--out", str(path))
    text = path.read_text(encoding="utf-8").strip()
    assert node.run("kv", "put", "carts", "user-3", "x", LEAFDB_TOKEN_FILE=str(path))
    with node.connect(leafdb.Token(text)) as db:
        assert isinstance(db.bucket("carts").get("user-3"), Found)
        node.as_root("token", "drop", "job")
        with pytest.raises(NotApplied):
            db.bucket("carts").get("user-3")
    assert text not in node.log()


def test_a_benchmark_logs_in_with_every_connection(node: Guarded) -> None:
    words = ["bench", "run", "mixed", "--keys", "40", "-c", "4", "--duration", "1s"]
    words += ["--n", "1", "--r", "1", "--w", "1"]
    figures = json.loads(node.as_root(*words, "-o", "json"))["items"][0]
    assert figures["errors"] == 0
    assert figures["ops"] > 0
    node.as_alice(*words, code=6)


def test_silent_connections_take_no_place_from_who_logs_in(node: Guarded) -> None:
    held = []
    try:
        for _ in range(GREETINGS_MAX + 200):
            held.append(socket.create_connection((HOST, node.client), 5.0))
        with node.connect(leafdb.Scram("alice", PASSWORD)) as db:
            assert db.ping().name == "n1"
    finally:
        for sock in held:
            sock.close()


def test_what_was_written_down_tells_who_did_what_and_no_secret(node: Guarded) -> None:
    for _ in range(LOGIN_FAILURES_BURST + 1):
        with node.connect(leafdb.Scram("alice", "guess")) as db, pytest.raises((NotApplied, leafdb.ConnectFailed)):
            db.ping(timeout=0.3)
    lines = node.audit()
    assert {"login", "login failed", "turned away", "denied", "admin"} <= {line["event"] for line in lines}
    made = [line for line in lines if line.get("verb") == "user.create" and line["event"] == "admin"]
    assert made[0]["arg_name"] == "alice"
    assert {line["user"] for line in made} == {"@cluster"}
    denied = [line for line in lines if line["event"] == "denied"]
    assert any(
        line["verb"] == "read" and line["bucket"] == "carts" and len(line.get("key", "")) == 16 for line in denied
    )
    assert "canary" not in node.log()
    assert "user-1" not in node.log()
