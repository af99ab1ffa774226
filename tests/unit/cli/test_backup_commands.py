"""Promises of `leafdb backup`: what is there is listed, damage is named with its file and ends with 1, nothing is made
where something speaks against it, and whatever was interrupted goes on where it was."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from leafdb.backup.listing import LIST_PATH
from leafdb.errors import NotApplied, Reason
from leafdb.limits import BACKUP_CHUNK_BYTES_MAX
from leafdb_cli import backup_create, backup_restore, exits
from support.backups import CARTS, CLUSTER_ID, NEWEST, PARTITIONS, NodeStore, metadata, record, write_backup
from support.stand_in import Run, StandIn

KEYS = 2_500


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_restore, "PATIENCE_S", 0.0)
    monkeypatch.setattr(backup_restore, "PAUSE_S", 0.0)
    monkeypatch.setattr(backup_restore, "SAVE_S", 0.0)


@pytest.fixture(scope="module")
def stores() -> dict[int, dict[str, bytes]]:
    one, two = NodeStore(1), NodeStore(2)
    for at in range(KEYS):
        (one, two)[at % 2].has(f"k{at}", record((1, 1, at + 1, b"v%d" % at)))
    one.has("deleted", record((1, 1, 5, b"old"))).has("both", record((1, 1, 5, b"one")))
    two.has("deleted", record((2, 1, 6, None), knows=[(1, 1)])).has("both", record((2, 1, 6, b"two")))
    one.has("n", record((1, 1, 5, b"newest")), NEWEST)
    return {1: one.at_rest(), 2: two.at_rest()}


@pytest.fixture
def backup(tmp_path: Path, stores: dict[int, dict[str, bytes]]) -> Path:
    path = tmp_path / "backups" / "first"
    path.mkdir(parents=True)
    write_backup(path, stores, [CARTS, NEWEST])
    return path


def damage(path: Path) -> str:
    """Flip a bit of a table; its name in the backup."""
    table = max((path / "node-1" / "tables").iterdir(), key=lambda each: each.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    return f"node-1/tables/{table.name}"


def test_backups_are_listed_with_those_that_are_none(run: Run, backup: Path) -> None:
    (backup.parent / "second.part").mkdir()
    (backup.parent / "third").mkdir()
    (backup.parent / "third" / LIST_PATH).write_bytes(b"{}\n")
    (backup.parent / "a file").write_bytes(b"")
    ended = run("backup", "list", str(backup.parent), "-o", "json")
    found = {item["name"]: item for item in ended.document["items"]}
    assert found["first"]["state"] == "finished"
    assert found["first"]["nodes"] == "n1, n2"
    assert found["first"]["taken"] == "2026-09-21T14:13:20Z"
    assert found["second.part"]["state"] == "not finished"
    assert "cannot be read" in found["third"]["state"]
    assert set(found) == {"first", "second.part", "third"}


def test_looking_at_what_is_not_there_makes_nothing(run: Run, tmp_path: Path) -> None:
    for command in ("list", "verify", "restore"):
        ended = run("backup", command, str(tmp_path / "none"))
        assert (ended.code, "there is no directory" in ended.err) == (exits.FAILED, True)
    assert list(tmp_path.iterdir()) == []


def test_a_sound_backup_verifies_and_a_damaged_one_names_its_file(run: Run, backup: Path) -> None:
    assert run("backup", "verify", str(backup)).code == 0
    name = damage(backup)
    ended = run("backup", "verify", str(backup), "-o", "json")
    assert ended.code == exits.FAILED
    assert ended.item["path"] == name


class Cluster:
    """Buckets and the records that were given to them."""

    def __init__(self, node: StandIn) -> None:
        self.buckets: dict[str, dict[str, Any]] = {}
        self.records: dict[str, dict[bytes, bytes]] = {}
        self.fail_after = 1_000
        self.batches = 0
        self.state = {"cluster_id": b"another cluster.", "cluster_number": 9}
        node.verbs |= {
            "bucket.get": self.get, "bucket.create": self.create, "backup.restore": self.restore,
            "backup.state": lambda _: self.state,
        }  # fmt: skip

    def get(self, args: Mapping[str, Any]) -> Mapping[str, Any] | NotApplied:
        return self.buckets.get(args["name"], NotApplied("there is none", reason=Reason.NO_SUCH_BUCKET))

    def create(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        made = {**args["properties"], "generation": 40 + len(self.buckets)}
        self.buckets[made["name"]] = made
        return made

    def restore(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        assert args["generation"] == self.buckets[args["bucket"]]["generation"]
        self.batches += 1
        if self.batches > self.fail_after:
            return {"restored": 0, "errors": {"n3": "no session"}}
        self.records.setdefault(args["bucket"], {}).update(zip(args["keys"], args["records"], strict=True))
        return {"restored": len(args["keys"]), "errors": {}}


@pytest.fixture
def cluster(node: StandIn) -> Cluster:
    return Cluster(node)


def test_every_bucket_comes_back_with_what_lives_in_it(run: Run, cluster: Cluster, backup: Path) -> None:
    ended = run("backup", "restore", str(backup), "-o", "json")
    assert ended.code == 0, ended.err
    carts, newest = ended.document["items"]
    assert (carts["restored"], carts["siblings"], carts["dead"]) == (KEYS + 1, 1, 1)
    assert (newest["restored"], newest["into"]) == (1, "newest")
    assert len(cluster.records["carts"]) == KEYS + 1
    assert cluster.buckets["newest"]["conflict"] == NEWEST.conflict
    assert cluster.batches > 2
    assert [path.name for path in backup.parent.iterdir()] == ["first"], "no checkpoint is left"


def test_a_dry_run_counts_and_asks_nobody(run: Run, node: StandIn, backup: Path) -> None:
    ended = run("backup", "restore", str(backup), "--bucket", "carts", "--dry-run", "-o", "json")
    assert (ended.item["restored"], ended.item["dead"]) == (KEYS + 1, 1)
    assert node.calls == []


def test_a_damaged_backup_is_not_restored(run: Run, node: StandIn, backup: Path) -> None:
    name = damage(backup)
    ended = run("backup", "restore", str(backup))
    assert ended.code == exits.FAILED
    assert name in ended.err
    assert "nothing was restored" in ended.err
    assert node.calls == []


def test_a_restore_that_was_stopped_goes_on_from_where_it_was(run: Run, cluster: Cluster, backup: Path) -> None:
    cluster.fail_after = 2
    ended = run("backup", "restore", str(backup), "--bucket", "carts")
    assert ended.code == exits.UNAVAILABLE
    assert "n3 has not taken the records: no session" in ended.err
    had = len(cluster.records["carts"])
    assert 0 < had < KEYS
    cluster.fail_after = 1_000
    ended = run("backup", "restore", str(backup), "--bucket", "carts", "-o", "json")
    assert ended.code == 0, ended.err
    assert f"after {had} keys" in ended.err
    assert ended.item["restored"] == KEYS + 1 - had
    assert len(cluster.records["carts"]) == KEYS + 1


def test_what_does_not_fit_is_refused(run: Run, cluster: Cluster, backup: Path) -> None:
    assert run("backup", "restore", str(backup), "--bucket", "none").code == exits.NOT_FOUND
    assert run("backup", "restore", str(backup), "--into", "other").code == exits.USAGE
    cluster.create({"properties": NEWEST.to_wire()})
    ended = run("backup", "restore", str(backup), "--bucket", "carts", "--into", "newest")
    assert (ended.code, "policy lww" in ended.err) == (exits.CONFLICT, True)
    assert cluster.records == {}


def test_a_cluster_of_the_same_number_that_is_another_is_refused(run: Run, cluster: Cluster, backup: Path) -> None:
    cluster.state["cluster_number"] = metadata().cluster_number
    ended = run("backup", "restore", str(backup))
    assert (ended.code, "by chance" in ended.err) == (exits.FAILED, True)
    assert cluster.buckets == {}
    cluster.state["cluster_id"] = CLUSTER_ID
    assert run("backup", "restore", str(backup)).code == 0, "it may be the very one"


class Nodes:
    """Two nodes that have snapshots, both behind one address."""

    def __init__(self, node: StandIn, stores: dict[int, dict[str, bytes]]) -> None:
        hints = {number: NodeStore(number, empty=True).at_rest() for number in stores}
        self.files = {"": stores[1], "-hints": hints[1]}
        self.state: dict[str, Any] = {
            "cluster": "test", "cluster_id": CLUSTER_ID, "epoch": 3, "partitions": PARTITIONS, "ring": 1,
            "buckets": [CARTS.to_wire(), NEWEST.to_wire()],
            "members": [{"id": 1, "name": "n1", "client": os.environ["LEAFDB_NODE"]}],
            "changing": False, "busy": {}, "errors": {},
        }  # fmt: skip
        self.snapshots: list[str] = []
        self.reads = 0
        self.fail_after = 1_000
        node.verbs |= {
            "backup.state": lambda _: dict(self.state), "backup.snapshot": self.snapshot, "backup.files": self.list,
            "backup.read": self.read, "backup.drop": self.drop,
        }  # fmt: skip

    def of(self, name: str) -> dict[str, bytes]:
        assert name in self.snapshots, "a snapshot that was not made"
        return self.files["-hints" if name.endswith("-hints") else ""]

    def snapshot(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        assert args["hints"] == args["name"].endswith("-hints")
        assert args["hints"] or self.snapshots, "what is kept for others comes first"
        self.snapshots.append(args["name"])
        return {"sequence": 7}

    def list(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        found = [[path, len(data)] for path, data in sorted(self.of(args["name"]).items()) if path > args["after"]]
        return {"files": found[:2], "more": len(found) > 2}

    def read(self, args: Mapping[str, Any]) -> Mapping[str, Any] | NotApplied:
        self.reads += 1
        if self.reads > self.fail_after:
            return NotApplied("the disk is gone", reason=Reason.FAILED)
        offset, size = args["offset"], min(args["size"], 1_000)
        assert args["size"] <= BACKUP_CHUNK_BYTES_MAX
        return {"data": self.of(args["name"])[args["path"]][offset : offset + size]}

    def drop(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        if args["name"] in self.snapshots:
            self.snapshots.remove(args["name"])
        return {}


@pytest.fixture
def nodes(node: StandIn, run: Run, stores: dict[int, dict[str, bytes]]) -> Nodes:
    return Nodes(node, stores)


def create(run: Run, directory: Path, *more: str) -> Any:
    return run("backup", "create", str(directory), "--name", "monday", "-o", "json", *more)


def test_a_backup_is_made_and_is_sound(run: Run, nodes: Nodes, tmp_path: Path) -> None:
    ended = create(run, tmp_path)
    assert ended.code == 0, ended.err
    assert ended.item["files"] == sum(map(len, nodes.files.values()))
    assert [path.name for path in tmp_path.iterdir()] == ["monday"]
    assert nodes.snapshots == [], "the snapshots are dropped"
    assert run("backup", "verify", str(tmp_path / "monday")).code == 0
    again = create(run, tmp_path)
    assert (again.code, "is there already" in again.err) == (exits.FAILED, True)


def test_a_backup_is_nobody_elses_to_read(run: Run, nodes: Nodes, tmp_path: Path) -> None:
    """Every value is in it, and what the nodes keep of passwords."""
    before = os.umask(0o022)
    try:
        assert create(run, tmp_path).code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "monday").stat().st_mode) == 0o700


def test_a_backup_that_was_interrupted_goes_on_with_its_snapshots(run: Run, nodes: Nodes, tmp_path: Path) -> None:
    nodes.fail_after = 40
    ended = create(run, tmp_path)
    assert (ended.code, "the disk is gone" in ended.err) == (exits.FAILED, True)
    assert len(nodes.snapshots) == 2, "they are kept to go on with"
    assert not (tmp_path / "monday").exists()
    before, nodes.fail_after = nodes.reads, 100_000
    ended = create(run, tmp_path)
    assert ended.code == 0, ended.err
    assert "going on" in ended.err
    total = sum(-(-len(data) // 1_000) for files in nodes.files.values() for data in files.values())
    assert before + (nodes.reads - before) <= total + 2, "what had come was not asked for again"
    assert nodes.snapshots == []


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"changing": True}, exits.FAILED, "the ring is changing"),
        ({"busy": {"n1": "it is draining"}}, exits.UNAVAILABLE, "it is draining"),
        ({"errors": {"n2": "no session"}}, exits.UNAVAILABLE, "--allow-missing"),
    ],
)
def test_it_is_not_begun_when_something_speaks_against_it(
    run: Run, nodes: Nodes, tmp_path: Path, change: dict[str, Any], code: int, said: str
) -> None:
    nodes.state |= change
    ended = create(run, tmp_path)
    assert (ended.code, said in ended.err) == (code, True), ended.err
    assert nodes.snapshots == []
    assert list(tmp_path.iterdir()) == []


def test_members_may_be_missing_while_fewer_than_w_are(run: Run, nodes: Nodes, tmp_path: Path) -> None:
    members = [{"id": at, "name": f"n{at}", "client": "127.0.0.1:1"} for at in (2, 3)]
    nodes.state["members"] = [*nodes.state["members"], *members]
    nodes.state["errors"] = {"n2": "no session", "n3": "no session"}
    ended = create(run, tmp_path, "--allow-missing", "n2", "--allow-missing", "n3")
    assert (ended.code, "2 copies, and 2 members are missing" in ended.err) == (exits.UNAVAILABLE, True)
    nodes.state["errors"] = {}
    ended = create(run, tmp_path, "--allow-missing", "n2")
    assert (ended.code, "no member that is down" in ended.err) == (exits.USAGE, True)
    nodes.state["members"] = nodes.state["members"][:2]
    nodes.state["errors"] = {"n2": "no session"}
    ended = create(run, tmp_path, "--allow-missing", "n2")
    assert ended.code == 0, ended.err
    assert ended.item["missing"] == "n2"


def test_a_ring_that_changed_meanwhile_gives_it_up(run: Run, node: StandIn, nodes: Nodes, tmp_path: Path) -> None:
    later = nodes.state | {"ring": 2}
    node.verbs["backup.state"] = [dict(nodes.state), later]
    ended = create(run, tmp_path)
    assert (ended.code, "changed meanwhile" in ended.err) == (exits.FAILED, True)
    assert nodes.snapshots == []


def test_bytes_that_came_wrong_are_not_named_a_backup(run: Run, nodes: Nodes, tmp_path: Path) -> None:
    path, data = max(nodes.files[""].items(), key=lambda item: len(item[1]))
    nodes.files[""] = {**nodes.files[""], path: data[:99] + bytes([data[99] ^ 1]) + data[100:]}
    ended = create(run, tmp_path)
    assert ended.code == exits.FAILED
    assert f"node-1/{path}" in ended.err
    assert not (tmp_path / "monday").exists()


def test_a_node_cannot_name_files_out_of_the_backup(run: Run, nodes: Nodes, tmp_path: Path) -> None:
    nodes.files[""] = {**nodes.files[""], "tables/../../../evil": b"x"}
    ended = create(run, tmp_path)
    assert (ended.code, "which no store has" in ended.err) == (exits.FAILED, True)
    assert not (tmp_path.parent / "evil").exists()


def test_names_and_rates_that_make_no_sense(run: Run, nodes: Nodes, tmp_path: Path) -> None:
    for name in ("", "../up", "a/b", ".hidden", "x.part", "x" * 41):
        assert run("backup", "create", str(tmp_path), "--name", name).code == exits.FAILED
    assert create(run, tmp_path, "--rate", "fast").code == exits.USAGE
    assert backup_create.NAME.fullmatch("monday-2026.11")
    assert list(tmp_path.iterdir()) == []
