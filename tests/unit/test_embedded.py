"""`leafdb.open` and `leafdb.open_async`: a store in a directory is there again, and refuses what it cannot trust."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import pytest

import leafdb
from leafdb import BLIND, Conflict, Found, Missing
from leafdb.embedded import cluster_name_of

CLEAN = "CLEAN"


def opens_not(path: Path | str) -> leafdb.OpenFailed:
    """The refusal to open `path`."""
    with pytest.raises(leafdb.OpenFailed) as refused:
        leafdb.open(path)
    assert refused.value.path == str(path)
    assert refused.value.reason in str(refused.value)
    return refused.value


def soon(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    for _ in range(1_000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it has not come to pass")


def test_a_directory_keeps_what_was_put(tmp_path: Path) -> None:
    """Values, buckets and contexts are good after closing and opening again, and each close leaves the clean mark."""
    path = tmp_path / "data"
    with leafdb.open(path) as db:
        db.create_bucket("carts")
        raw = db.bucket("carts")
        missing = raw.get("alice")
        assert isinstance(missing, Missing)
        kept = raw.put("alice", b"tea", after=missing.context).context
        assert not (path / CLEAN).exists()
    assert (path / CLEAN).exists()
    with leafdb.open(path) as db:
        assert db.status().cluster == "data"
        raw = db.bucket("carts")
        assert isinstance(raw.get("alice"), Found)
        raw.put("alice", b"milk", after=kept)
        found = raw.get("alice")
        assert isinstance(found, Found)
        assert found.value == b"milk", "the context of before the restart replaces what it covered"
        raw.put("alice", b"blind", after=BLIND)
        assert isinstance(raw.get("alice"), Conflict)


def test_scans_ranges_and_the_newest_writer(tmp_path: Path) -> None:
    with leafdb.open(tmp_path / "data") as db:
        db.create_bucket("b")
        raw = db.bucket("b")
        written = raw.put_many(leafdb.Put(("list", f"{number:03}"), b"x", after=BLIND) for number in range(100))
        assert not any(isinstance(result, leafdb.Failed) for result in written)
        raw.put("plain", b"y", after=BLIND)
        assert len(list(raw.scan(page_size=7))) == 101
        tail = [item.key for item in raw.range("list", start="095", reverse=True)]
        assert tail == [(b"list", b"%03d" % number) for number in (99, 98, 97, 96, 95)]
        db.create_bucket("lww", conflict="lww")
        newest = db.lww_bucket("lww", codec=leafdb.Text())
        newest.put("k", "one")
        newest.put("k", "two")
        assert newest.get("k") == "two"


def test_counts_are_those_of_one_member(tmp_path: Path) -> None:
    """n=3 and "all" mean the one there is; more than that there never will be."""
    with leafdb.open(tmp_path / "data") as db:
        db.create_bucket("b", n=3, r="all", w="all")
        raw = db.bucket("b")
        assert raw.put("k", b"v", after=BLIND).acks == 1
        with pytest.raises(leafdb.NotEnoughReplicas):
            raw.put("k", b"v", after=BLIND, w=2)


def test_an_embedded_store_explains_itself() -> None:
    with leafdb.open(":memory:") as db:
        db.create_bucket("b")
        handle = db.bucket("b")
        written = handle.put_explained("k", b"v", after=BLIND)
        assert written.explanation.counted == (written.explanation.node,)
        found = handle.get_explained("k")
        assert found.answer == handle.get("k")
        assert found.explanation.merged == written.explanation.merged


def test_memory_keeps_nothing_and_shares_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with leafdb.open(":memory:") as one, leafdb.open(":memory:") as other:
        one.create_bucket("b")
        one.bucket("b").put("k", b"v", after=BLIND)
        assert other.buckets() == {}
    with leafdb.open(":memory:") as again:
        assert again.buckets() == {}
    assert list(tmp_path.iterdir()) == []


def test_a_session_goes_on_after_a_restart_and_not_in_another_store(tmp_path: Path) -> None:
    with leafdb.open(tmp_path / "one") as db:
        db.create_bucket("b")
        db.bucket("b").put("k", b"first", after=leafdb.BLIND)
        token = bytes(db.session_token)
        db.bucket("b").put("k", b"second", after=leafdb.BLIND)  # brings its floor
        assert isinstance(db.bucket("b").get("k"), leafdb.Conflict)
    with leafdb.open(tmp_path / "one") as again:
        again.observe(leafdb.SessionToken.from_bytes(token))
        assert isinstance(again.bucket("b").get("k", r=1), leafdb.Conflict)
    with leafdb.open(":memory:") as other:
        other.ping()
        with pytest.raises(leafdb.ContextMismatch):
            other.observe(leafdb.SessionToken.from_bytes(token))


def test_threads_share_a_client(tmp_path: Path) -> None:
    with leafdb.open(tmp_path / "data") as db:
        db.create_bucket("b", durability="periodic")
        raw = db.bucket("b")

        def write(thread: int) -> None:
            for number in range(20):
                raw.put(f"{thread}-{number}", b"v", after=BLIND)

        threads = [threading.Thread(target=write, args=(thread,)) for thread in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(raw.scan())) == 80


def test_a_directory_is_opened_once_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "data"
    with leafdb.open(path):
        assert opens_not(path).reason.startswith("locked: ")
    leafdb.open(path).close()


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    """Neither a directory with other files nor that of a server is touched."""
    (tmp_path / "letter.txt").write_text("dear")
    assert opens_not(tmp_path).reason.startswith("foreign: it holds files")
    server = tmp_path / "server"
    leafdb.open(server).close()
    (server / "SECRET").unlink()
    before = sorted(entry.name for entry in server.iterdir())
    assert "leafdbd" in opens_not(server).reason
    assert sorted(entry.name for entry in server.iterdir()) == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["letter.txt", "server"]


@pytest.mark.parametrize("name", ["IDENTITY", "SECRET", "CURRENT", "wal"])
def test_damage_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / "data"
    with leafdb.open(path) as db:
        db.create_bucket("b")
        db.bucket("b").put("k", b"v" * 1_000, after=BLIND)
    victim = max((path / name).iterdir()) if name == "wal" else path / name
    content = victim.read_bytes()
    victim.write_bytes(content[: len(content) // 2])
    assert opens_not(path).reason.startswith("damaged: ")


def test_a_path_that_cannot_be_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert opens_not(path).reason.startswith("unwritable: ")
    with pytest.raises(leafdb.OpenFailed):
        leafdb.open("")


def test_a_closed_client_is_of_no_use(tmp_path: Path) -> None:
    db = leafdb.open(tmp_path / "data")
    db.close()
    db.close()
    with pytest.raises(leafdb.ClientMisuse):
        db.ping()


def test_a_forgotten_client_closes_its_store(tmp_path: Path) -> None:
    path = tmp_path / "data"
    db = leafdb.open(path)
    db.create_bucket("b")
    assert not (path / CLEAN).exists()
    del db
    gc.collect()
    soon((path / CLEAN).exists)


PROGRAM = """
import os, signal, sys
import leafdb
db = leafdb.open(sys.argv[1])
db.create_bucket("b", durability=sys.argv[2])
raw = db.bucket("b")
for number in range(50):
    raw.put(f"k{number}", b"v", after=leafdb.BLIND)
extras = {"pydantic", "structlog", "prometheus_client", "typer", "rich", "hypothesis"} & set(sys.modules)
assert not extras, extras
if sys.argv[3] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("durability", "end"), [("always", "exits"), ("periodic", "killed")])
def test_the_end_of_the_program_loses_nothing(tmp_path: Path, durability: str, end: str) -> None:
    """A program that just ends closes the store in order; one that is killed loses nothing it was told is written.
    None of it needs an extra."""
    path = tmp_path / "data"
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), durability, end], capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == (-signal.SIGKILL if end == "killed" else 0), ended.stderr.decode()
    assert (path / CLEAN).exists() is (end == "exits")
    with leafdb.open(path) as db:
        assert len(list(db.bucket("b").scan())) == 50


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_async_under_either_loop(tmp_path: Path, backend: str) -> None:
    """Opening and closing wait in a thread; the loop of the program may be any; the block's own exception comes out."""
    path = tmp_path / "data"

    async def main() -> None:
        async with leafdb.open_async(path) as db:
            await db.create_bucket("b")
            raw = db.bucket("b")
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(partial(raw.put, f"k{number}", b"v" * 100_000, after=BLIND))
            assert len([item async for item in raw.scan()]) == 10
            with pytest.raises(leafdb.OpenFailed):
                async with leafdb.open_async(path):
                    pytest.fail("it is locked")
        assert (path / CLEAN).exists()
        with pytest.raises(KeyError, match="mine"):
            async with leafdb.open_async(path) as db:
                assert set(await db.buckets()) == {"b"}
                raise KeyError("mine")
        assert (path / CLEAN).exists()
        with pytest.raises(leafdb.ClientMisuse):
            await db.ping()

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_cancelled_block_still_closes_the_store(tmp_path: Path, backend: str) -> None:
    path = tmp_path / "data"

    async def main() -> None:
        with anyio.move_on_after(0.2):
            async with leafdb.open_async(path) as db:
                await db.ping()
                await anyio.sleep_forever()
        assert (path / CLEAN).exists()

    anyio.run(main, backend=backend)


@pytest.mark.parametrize(
    ("path", "name"),
    [(":memory:", "memory"), ("/a/My Data!", "my-data"), ("/", "embedded"), ("x" * 90, "x" * 63), ("/a/.hid.", "hid")],
)
def test_a_cluster_is_called_after_its_directory(path: str, name: str) -> None:
    assert cluster_name_of(path) == name


def test_the_outcome_of_a_write_can_be_asked_of_a_node_in_this_process() -> None:
    with leafdb.open(":memory:") as db:
        db.create_bucket("carts")
        raw = db.bucket("carts")
        tea = raw.put(("alice", "1"), b"tea", after=BLIND)
        found = db.outcome(tea.op_id)
        assert (found.state, found.bucket, found.key) == ("applied", "carts", (b"alice", b"1"))
        assert (len(found.replicas), found.replaced, found.unasked) == (1, False, {})
        raw.put(("alice", "1"), b"milk", after=tea.context)
        assert db.outcome(tea.op_id).replaced
        assert db.outcome(tea.op_id[:8] + b"anything") == leafdb.Outcome("unknown")
