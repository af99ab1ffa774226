"""Promise: the JSON of every command that prints data is what it was: kept in snapshots/cli.json, made by real nodes.

    LEAFDB_TEST_SNAPSHOTS=write pytest tests/system/test_cli_snapshots.py

writes it anew, for a change that is meant. A key may be added; then docs/cli.md gets it too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from leafdb_cli.main import build
from support.json_shapes import difference, shape
from support.processes import Cluster
from support.stand_in import run_cli
from unit.cli.test_command_tree import commands

pytestmark = pytest.mark.system

FILE = Path(__file__).parent / "snapshots" / "cli.json"
UNDERSTOOD = "--yes --i-understand-data-loss"

LINES = """
bucket create snapshots --exist-ok
bucket list
bucket show snapshots
bucket set snapshots w=quorum
kv put snapshots alice tea --blind
kv put snapshots alice milk --blind --explain
kv put snapshots cart apple --sort-key 1 --blind
kv get snapshots alice
kv get snapshots cart --sort-key 1 --explain
kv siblings snapshots alice
kv where snapshots alice
kv history snapshots alice
kv outcome OP_ID
kv scan snapshots
kv range snapshots cart
kv del snapshots cart --sort-key 1
kv why-kept snapshots cart --sort-key 1
status
node list
node show dev-1
node safe-to-stop dev-1
node drain dev-2 --wait
node undrain dev-2
node loglevel dev-1
node profile dev-1 --seconds 1
ring show
ring history
ring simulate --join dev-9
cluster status
cluster stage leave dev-2
cluster plan
cluster clear
transfer list
transfer limit none
hints list
hints pause dev-2
hints resume dev-2
hints purge --dry-run
repair run --bucket snapshots --dry-run
repair run --bucket snapshots
repair run --bucket snapshots --wait
repair status
repair purge --dry-run
repair purge
repair schedule show
repair schedule set 1d
repair schedule pause
repair schedule resume
repair acknowledge
storage stats
storage flush
storage flush --wait
storage compact --bucket snapshots --wait
storage verify --wait
storage verify --stop
storage tasks
storage snapshot create snap
storage snapshot list
storage snapshot drop snap
backup create DIR/backups --name one
backup list DIR/backups
backup verify DIR/backups/one
backup restore DIR/backups/one --bucket snapshots --into restored
task list --all
task show TASK
task wait TASK
top
doctor
context add here 127.0.0.1:7411 --use
context list
context show
context use here
context remove here
config check DIR/leafdb.toml
config show
config show --origin --diff
cert init DIR/ca --name snapshots
cert issue a --host localhost --ca DIR/ca --out DIR
cert show DIR/a.crt
cert rotate DIR/a.crt --ca DIR/ca
role create cart-service read:snapshots
role grant cart-service write:snapshots
role revoke cart-service write:snapshots
role list
role show cart-service
user create carts --role cart-service --password-file DIR/password
user list
user show carts
user grant carts reader
user revoke carts reader
token create nightly --user carts --out DIR/nightly.token
token list
token drop nightly
user set carts --no-password
user drop carts
role drop cart-service
stats latency
stats queues
metrics --name put
metrics dashboards --out DIR
metrics rules --out DIR
version
bucket drop restored --dry-run
bucket drop restored UNDERSTOOD
bucket drop snapshots UNDERSTOOD
"""
CODES = {"kv get snapshots alice": (4,), "config check DIR/leafdb.toml": (1,), "doctor": (0, 7)}

ELSEWHERE = {
    "dev": "tests/system/test_dev.py starts and stops clusters of its own",
    "sim": "tests/unit/cli/test_sim_command.py: no cluster",
    "bench": "tests/system/test_cli_system.py runs one",
    "shell": "the commands themselves", "completion": "words, no data",
    "kv import": "test_cli_system.py: it prints no data", "kv export": "it prints values",
    "stats top": "tests/unit/cli/test_stats_commands.py: whose keys depends on the tests before",
    "cert invite": "tests/unit/cli/test_cert_commands.py", "cert join": "tests/unit/cli/test_cert_commands.py",
    "cluster init": "test_cli_system.py: one cluster, once", "cluster recover": "test_lost_majority.py",
    "cluster commit": "test_ring_life.py", "cluster abort": "test_ring_life.py",
    "cluster stage join": "test_ring_life.py", "cluster stage replace": "test_ring_life.py",
    "cluster stage force-remove": "test_ring_life.py", "repair cancel": "test_repair_commands.py",
    "repair schedule": "as its show", "task cancel": "test_task_commands.py", "storage dump": "test_storage_dump.py",
}  # fmt: skip
"""Commands that are not run here, and where their output is looked at."""


@pytest.fixture
def own_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One of which lists hold what is made here, and not what other tests left."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.up()


@pytest.fixture
def documents(own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The JSON of every line, run in their order against the cluster."""
    monkeypatch.setenv("LEAFDB_NODE", own_cluster.nodes[0].client)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "leafdb.toml").write_text('[node]\nnam = "x"\n')
    (tmp_path / "password").write_text("correct horse battery staple")
    (tmp_path / "password").chmod(0o600)
    found: dict[str, Any] = {}
    known = {"DIR": str(tmp_path), "UNDERSTOOD": UNDERSTOOD}
    for line in LINES.split("\n"):
        if not line:
            continue
        typed = line
        for word, meaning in known.items():
            typed = typed.replace(word, meaning)
        ended = run_cli(monkeypatch, *typed.split(), "-o", "json", "--timeout", "240s")
        assert ended.code in CODES.get(line, (0,)), (line, ended)
        document = json.loads(ended.out) if ended.out else None
        found[line] = shape(document)
        if document is not None and line.startswith("kv put"):
            known["OP_ID"] = document["items"][0]["op_id"]
        if document is not None and line.startswith("task list"):
            known["TASK"] = next(item["id"] for item in document["items"] if item["kind"] == "flush")
    return found


def test_the_json_of_every_command_is_what_it_was(documents: dict[str, Any]) -> None:
    if os.environ.get("LEAFDB_TEST_SNAPSHOTS") == "write":
        FILE.write_text(json.dumps(documents, indent=1) + "\n", encoding="utf-8")
    kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    assert list(kept) == list(documents), "a command is new or gone: write the snapshots anew"
    assert [line for line in kept if (kept[line] is None) != (documents[line] is None)] == [], "prints data, or none"
    changed = {line: difference(kept[line], documents[line]) for line in kept}
    assert {line: lines for line, lines in changed.items() if lines} == {}


def test_every_command_is_here_or_said_where() -> None:
    ran = [line.split() for line in LINES.splitlines() if line]
    silent = [
        " ".join(path)
        for path, _ in commands(typer.main.get_command(build()))
        if not any(words[: len(path)] == list(path) for words in ran)
        and not any(" ".join(path) == name or " ".join(path).startswith(f"{name} ") for name in ELSEWHERE)
    ]
    assert silent == []


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ({"a": "number"}, {}, []),
        ({"a": "number", "b": None}, {"a": "number", "b": "text"}, []),
        ({"a": "number"}, {"b": "number"}, ["$.a is gone", "$.b is new"]),
        ({"a": "number"}, {"a": "text"}, ["$.a was 'number' and is 'text'"]),
        ([{"a": "number"}], [{"a": "number"}, {"a": "text"}], ["$[].a was 'number' and is 'text'"]),
        ([], [{"a": "text"}], []),
    ],
)
def test_a_change_of_shape_is_seen_and_a_change_of_value_is_not(was: Any, now: Any, says: list[str]) -> None:
    assert difference(was, now) == says


def test_shapes() -> None:
    document = {
        "kind": "X",
        "n": 3,
        "errors": {"dev-0": "a", "dev-1": "b"},
        "items": [{"x": 1}, {"x": 2.5}, {"y": True}],
    }
    assert shape(document) == {
        "kind": "X", "n": 3, "errors": {"NODE": "text"}, "items": [{"x": "number"}, {"y": "bool"}],
    }  # fmt: skip
