"""Promises of the command line against real nodes: pinned JSON items, exact bytes, exit codes, resumable transfers."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from leafdb_cli.main import main
from support.processes import Cluster, eventually

pytestmark = pytest.mark.system


class Ran(NamedTuple):
    """How a command ended."""

    code: object
    out: bytes
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Its JSON."""
        found: dict[str, Any] = json.loads(self.out)
        assert found["apiVersion"] == "leafdb/v1"
        return found

    @property
    def items(self) -> list[dict[str, Any]]:
        """Its items, all nodes having answered."""
        assert "errors" not in self.document
        found: list[dict[str, Any]] = self.document["items"]
        return found


Cli = Callable[..., Ran]


@pytest.fixture
def cli(cluster: Cluster, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command in this process against the cluster; `stdin` is what it reads, `code` how it must end."""
    monkeypatch.setenv("LEAFDB_NODE", cluster.nodes[0].client)

    def run(*arguments: str, code: int = 0, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        ran = Ran(ended.value.code or 0, out, err.decode())
        assert ran.code == code, ran
        return ran

    return run


@pytest.fixture
def bucket(cli: Cli, request: pytest.FixtureRequest) -> str:
    """A bucket of the test's own."""
    name = str(request.node.name).replace("[", "-").replace("]", "")
    cli("bucket", "create", name, "--exist-ok")
    return name


def test_the_cluster_in_json(cli: Cli) -> None:
    (status,) = cli("status", "--check", "--wait", "-o", "json").items
    assert list(status) == [
        "cluster", "epoch", "healthy", "nodes_up", "nodes_total", "hints_pending", "repair_pending", "problems",
        "notices",
    ]  # fmt: skip
    assert (status["healthy"], status["nodes_up"], status["nodes_total"]) == (True, 3, 3)
    nodes = cli("node", "list", "-o", "json").items
    assert [node["name"] for node in nodes] == ["dev-0", "dev-1", "dev-2"]
    assert {"name", "id", "host", "zone", "state", "client", "peer", "http"} <= set(nodes[0])
    assert cli("hints", "list", "-o", "json").items == []
    ring = cli("ring", "show", "-o", "json").document
    assert len(ring["owners"]) == ring["partitions"]
    assert sum(member["owned"] for member in ring["items"]) == ring["partitions"]
    (identity,) = cli("cluster", "status", "-o", "json").items
    assert identity["agree"] is True


def test_a_bucket_is_set_and_what_is_fixed_says_why(cli: Cli, bucket: str) -> None:
    (made,) = cli("bucket", "set", bucket, "w=all", "ttl=7d", "-o", "json").items
    assert (made["w"], made["ttl_s"]) == ("all", 604_800)
    assert cli("bucket", "show", bucket, "-o", "json").items == [made]
    assert "n: copies" in cli("bucket", "set", bucket, "n=5", code=2).err
    cli("bucket", "set", bucket, "w=quorum", "ttl=none")


def test_exact_bytes_in_and_out(cli: Cli, bucket: str, tmp_path: Path) -> None:
    value = bytes(range(256))
    cli("kv", "put", bucket, "k", "-", stdin=value)
    assert cli("kv", "get", bucket, "k").out == value
    (tmp_path / "v").write_bytes(b"from a file\n")
    cli("kv", "put", bucket, "k", "--file", str(tmp_path / "v"))
    assert cli("kv", "get", bucket, "k").out == b"from a file\n"
    cli("kv", "put", bucket, "ff00", "odd", "--key-hex")
    (item,) = cli("kv", "get", bucket, "ff00", "--key-hex", "-o", "json").items
    assert item["key_base64"] == "/wA="
    assert item["siblings"][0]["value"] == "odd"
    cli("kv", "put", bucket, "p", "pair", "--sort-key", "s")
    assert cli("kv", "get", bucket, "p", "--sort-key", "s").out == b"pair"
    assert cli("kv", "get", bucket, "p", code=3).out == b""


def test_missing_things(cli: Cli, bucket: str) -> None:
    missing = cli("kv", "get", bucket, "nothing", code=3)
    assert missing.out == b""
    assert cli("kv", "get", bucket, "nothing", "-o", "json", code=3).out == b""
    cli("kv", "siblings", bucket, "nothing", code=3)
    cli("kv", "get", "no-such-bucket", "k", code=3)
    cli("bucket", "show", "no-such-bucket", code=3)
    cli("kv", "del", bucket, "nothing")
    cli("repair", "run", "--only", "dev-9", code=3)


def test_conflicts_are_shown_kept_and_resolved_by_their_context(cli: Cli, bucket: str) -> None:
    cli("kv", "put", bucket, "k", "one")
    (one,) = cli("kv", "get", bucket, "k", "-o", "json").items
    cli("kv", "put", bucket, "k", "two", "--blind")
    shown = cli("kv", "get", bucket, "k", code=4)
    assert sorted(shown.out.split()) == [b"one", b"two"]
    cli("kv", "put", bucket, "k", "three", code=4)
    cli("kv", "del", bucket, "k", code=4)
    (both,) = cli("kv", "siblings", bucket, "k", "-o", "json").items
    assert list(both) == ["key", "siblings", "context"]
    assert [list(sibling) for sibling in both["siblings"]] == [["value", "dot", "written_at"]] * 2
    cli("kv", "put", bucket, "k", "late", "--after", one["context"])
    assert sorted(cli("kv", "get", bucket, "k", code=4).out.split()) == [b"late", b"two"]
    cli("kv", "put", bucket, "other", "x", "--after", both["context"], code=4)
    (both,) = cli("kv", "siblings", bucket, "k", "-o", "json").items
    (written,) = cli("kv", "put", bucket, "k", "end", "--after", both["context"], "-o", "json").items
    assert cli("kv", "get", bucket, "k").out == b"end"
    cli("kv", "del", bucket, "k", "--after", written["context"])
    cli("kv", "get", bucket, "k", code=3)


def test_where_a_key_lives(cli: Cli, bucket: str) -> None:
    cli("kv", "put", bucket, "k", "v", "--w", "all")
    (where,) = cli("kv", "where", bucket, "k", "-o", "json").items
    assert {"bucket", "key", "key_hash", "token", "partition", "epoch", "replicas"} == set(where)
    assert {replica["node"] for replica in where["replicas"]} == {"dev-0", "dev-1", "dev-2"}
    for replica in where["replicas"]:
        assert {"node", "role", "alive", "version", "siblings", "tombstone"} <= set(replica)
    assert len({replica["version"] for replica in where["replicas"]}) == 1
    for node in cli("node", "list", "-o", "json").items:
        assert cli("kv", "get", bucket, "k", "--local", "--node", node["client"]).out == b"v"


def test_a_key_explains_itself(cli: Cli, bucket: str) -> None:
    put = cli("kv", "put", bucket, "k", "v", "--blind", "--w", "all", "--explain")
    assert f"put in {bucket}: answered by dev-" in put.err
    got = cli("kv", "get", bucket, "k", "--explain")
    assert got.out == b"v"
    assert "counted: dev-" in got.err
    (item,) = cli("kv", "get", bucket, "k", "--explain", "-o", "json").items
    (where,) = cli("kv", "where", bucket, "k", "-o", "json").items
    shown = {each["version"]["digest"] for each in item["explanation"]["replicas"] if each["version"]}
    assert shown == {replica["version"] for replica in where["replicas"]}
    assert all(replica["complete"] and not replica["behind"] for replica in where["replicas"])
    cli("kv", "why-kept", bucket, "none", code=3)
    cli("kv", "history", bucket, "none", code=3)
    cli("kv", "del", bucket, "k")
    states = [line["state"] for line in cli("kv", "history", bucket, "k", "-o", "json").items]
    assert states == ["replaced", "tombstone"]
    assert b"no horizon has been proved" in cli("kv", "why-kept", bucket, "k").out
    cli("kv", "get", bucket, "k", "--explain", code=3)


def test_buckets(cli: Cli, bucket: str) -> None:
    cli("bucket", "create", bucket, code=1)
    cli("bucket", "create", "odd", "--conflict", "counter", code=1)
    cli("bucket", "create", "odd", "--r", "5", code=2)
    (made,) = cli("bucket", "create", "lww-kind", "--conflict", "lww", "--ttl", "1h", "--exist-ok", "-o", "json").items
    assert (made["conflict"], made["ttl_s"], made["w"]) == ("lww", 3600.0, "quorum")
    cli("kv", "put", "lww-kind", "k", "one")
    cli("kv", "put", "lww-kind", "k", "two")
    (item,) = cli("kv", "get", "lww-kind", "k", "-o", "json").items
    assert [sibling["value"] for sibling in item["siblings"]] == ["two"]
    cli("kv", "put", "lww-kind", "k", "v", "--after", item["context"], code=2)
    names = [each["name"] for each in cli("bucket", "list", "-o", "json").items]
    assert {bucket, "lww-kind"} <= set(names)
    assert names == sorted(names)
    refused = cli("bucket", "drop", "lww-kind", code=2)
    assert "1 key" in refused.err
    cli("bucket", "drop", "lww-kind", "--dry-run")
    cli("bucket", "drop", "lww-kind", "--yes", "--i-understand-data-loss")
    cli("bucket", "show", "lww-kind", code=3)


def test_a_dead_node_is_an_error_beside_the_items(cli: Cli, cluster: Cluster) -> None:
    cluster.kill(2)

    def noticed() -> bool:
        return "dev-2" in cli("node", "list", "-o", "json").document.get("errors", {})

    eventually("dev-2 is missed", noticed)
    nodes = {node["name"]: node for node in cli("node", "list", "-o", "json").document["items"]}
    assert nodes["dev-2"]["state"] != "alive"
    assert nodes["dev-0"]["state"] == "alive"
    document = cli("status", "--check", "-o", "json", code=7).document
    assert "dev-2" in document["errors"]
    assert document["items"][0]["nodes_up"] == 2
    assert "dev-2" in cli("hints", "list", "-o", "json").document["errors"]


def test_files_in_files_out(cli: Cli, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for index in range(300):
        path = source / f"d{index % 7}" / f"f{index}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(index))
    (report,) = cli("kv", "import", bucket, str(source), "--format", "files", "-o", "json").items
    assert (report["written"], report["unchanged"], report["conflicts"]) == (300, 0, 0)
    (report,) = cli("kv", "import", bucket, str(source), "-o", "json").items
    assert (report["written"], report["unchanged"]) == (0, 300)
    cli("kv", "export", bucket, str(tmp_path / "target"), "--format", "files")
    for path in source.rglob("f*"):
        assert (tmp_path / "target" / path.relative_to(source)).read_bytes() == path.read_bytes()
    assert sum(path.is_file() for path in (tmp_path / "target").rglob("*")) == 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"], "no checkpoint is left"


def test_json_lines_in_and_out(cli: Cli, bucket: str, tmp_path: Path) -> None:
    lines = [json.dumps({"key": f"k{index}", "value": f"v{index}"}) for index in range(500)]
    lines += ['{"key": "p", "sort_key": "s", "value_base64": "/w=="}']
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    cli("kv", "import", bucket, str(tmp_path / "in.jsonl"))
    cli("kv", "export", bucket, str(tmp_path / "out.jsonl"))
    assert sorted((tmp_path / "out.jsonl").read_text().splitlines()) == sorted(lines)
    piped = cli("kv", "export", bucket, "-").out
    assert sorted(piped.decode().splitlines()) == sorted(lines)
    assert len(cli("kv", "scan", bucket, "-o", "jsonl").out.splitlines()) == 501
    page = cli("kv", "scan", bucket, "--limit", "200", "-o", "json").document
    rest = cli("kv", "scan", bucket, "--cursor", page["cursor"], "-o", "json").document
    keys = {item["key"] for item in (*page["items"], *rest["items"])}
    assert (len(page["items"]), len(rest["items"]), len(keys)) == (200, 301, 501)


def test_an_import_goes_on_where_it_was(cli: Cli, bucket: str, tmp_path: Path) -> None:
    good = [json.dumps({"key": f"k{index}", "value": "v"}) for index in range(40)]
    path, checkpoint = tmp_path / "in.jsonl", tmp_path / "mark"
    path.write_text("\n".join(good) + "\n")
    offset = len("\n".join(good[:30])) + 1
    job = {"import": str(path), "format": "jsonl", "bucket": bucket}
    checkpoint.write_text(json.dumps({"version": 1, "job": job, "position": offset, "count": 30}))
    (report,) = cli("kv", "import", bucket, str(path), "--checkpoint", str(checkpoint), "-o", "json").items
    assert report["written"] == 10
    assert not checkpoint.exists()
    path.write_text("nonsense\n")
    refused = cli("kv", "import", bucket, str(path), code=1)
    assert "at byte 0" in refused.err


def test_repairs_can_be_asked_for_and_waited_for(cli: Cli, bucket: str) -> None:
    repairs = cli("repair", "run", "--bucket", bucket, "--wait", "-o", "json").items
    assert {repair["node"] for repair in repairs} == {"dev-0", "dev-1", "dev-2"}
    assert {repair["state"] for repair in repairs} == {"done"}
    assert cli("repair", "status", "-o", "json").items


@pytest.mark.parametrize("workload", ["put", "get", "ycsb-e", "ycsb-f"])
def test_a_short_benchmark(cli: Cli, workload: str) -> None:
    options = ("--duration", "500ms", "--keys", "500", "--connections", "6", "--durability", "always")
    (figures,) = cli("bench", "run", workload, *options, "-o", "json").items
    assert list(figures)[:9] == [
        "workload", "connections", "ops_per_s", "p50_ms", "p99_ms", "p999_ms", "errors", "client_cpu_us_per_op",
        "server_cpu_us_per_op",
    ]  # fmt: skip
    assert figures["errors"] == 0, figures
    assert figures["ops_per_s"] > 0
    assert figures["server_cpu_us_per_op"] is not None
    assert figures["fdatasync_p50_ms"] > 0
    assert not [each for each in cli("bucket", "list", "-o", "json").items if each["name"].startswith("bench-")]
