"""Promises of `leafdb context`: connections are saved for their owner alone, found in the order that is promised, and
what a command does not know in the file is kept."""

from __future__ import annotations

import stat
import tomllib
from pathlib import Path

import pytest

from leafdb.errors import ConfigError
from leafdb_cli.options import Options, where_of
from leafdb_cli.saved import Saved, read_saved, render, saved_clusters_path, write_saved
from support.stand_in import Run


@pytest.fixture
def file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where connections are saved in this test; no environment says where to go."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("LEAFDB_NODE")
    return tmp_path / "leafdb" / "clusters.toml"


def test_what_is_added_is_used_shown_listed_and_removed(run: Run, file: Path) -> None:
    assert run("context", "add", "prod", "10.0.0.1", "10.0.0.2:7500,[::1]:7411").code == 0
    assert tomllib.loads(file.read_text()) == {"prod": {"nodes": ["10.0.0.1:7411", "10.0.0.2:7500", "[::1]:7411"]}}
    assert run("context", "add", "test", "h:1", "--use").code == 0
    listed = run("context", "list", "-o", "json").document
    assert (listed["kind"], [item["name"] for item in listed["items"]]) == ("ContextList", ["prod", "test"])
    assert [item["current"] for item in listed["items"]] == [False, True]
    assert run("context", "show", "-o", "json").item == {
        "name": "test", "nodes": ["h:1"], "said_by": "leafdb context use",
    }  # fmt: skip
    assert run("context", "use", "prod").code == 0
    assert run("context", "show", "-o", "json").item["name"] == "prod"
    assert run("context", "use", "none").code == 0
    assert run("context", "show", "-o", "json").item["said_by"] == "the default"
    assert run("context", "remove", "prod").code == 0
    assert [item["name"] for item in run("context", "list", "-o", "json").document["items"]] == ["test"]


def test_the_file_is_its_owners_alone(run: Run, file: Path) -> None:
    run("context", "add", "prod", "h:1")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.chmod(0o644)
    run("context", "add", "test", "h:2")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600, "mended by the next change"
    assert sorted(path.name for path in file.parent.iterdir()) == ["clusters.toml"], "nothing is left beside it"


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("add prod h:2", 1, "--replace"),
        ("add current h:2", 2, "is no name"),
        ("add none h:2", 2, "is no name"),
        ("add a/b h:2", 2, "is no name"),
        ("add other h:0", 2, "port"),
        ("add other", 2, "HOST:PORT"),
        ("use other", 3, "there is prod"),
        ("show other", 3, "there is prod"),
        ("remove other", 3, "leafdb context add"),
    ],
)
def test_what_cannot_be_done_says_why_and_changes_nothing(
    run: Run, file: Path, line: str, code: int, says: str
) -> None:
    run("context", "add", "prod", "h:1")
    before = file.read_text()
    ended = run("context", *line.split())
    assert ended.code == code
    assert says in ended.err
    assert file.read_text() == before


def test_replacing_keeps_what_this_version_does_not_know(run: Run, file: Path) -> None:
    file.parent.mkdir()
    file.write_text('current = "prod"\n[prod]\nnodes = ["h:1"]\nca_file = "/etc/ca.pem"\nretries = 3\nfast = true\n')
    assert run("context", "add", "prod", "h:2", "--replace").code == 0
    assert tomllib.loads(file.read_text()) == {
        "current": "prod",
        "prod": {"nodes": ["h:2"], "ca_file": "/etc/ca.pem", "retries": 3, "fast": True},
    }


def test_the_current_one_that_is_removed_is_used_no_more(run: Run, file: Path) -> None:
    run("context", "add", "prod", "h:1", "--use")
    run("context", "remove", "prod")
    assert "current" not in tomllib.loads(file.read_text())


def test_a_table_that_could_not_be_written_again_is_left_to_an_editor(run: Run, file: Path) -> None:
    file.parent.mkdir()
    file.write_text('[prod]\nnodes = ["h:1"]\n[prod.deep]\nx = 1\n')
    ended = run("context", "add", "test", "h:2")
    assert ended.code == 1
    assert "edit it by hand" in ended.err
    assert "[prod.deep]" in file.read_text()


def test_the_order_of_those_who_say_where_to_go(tmp_path: Path) -> None:
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    path = saved_clusters_path(environment)
    assert where_of(Options(), environment).said_by == "the default"
    write_saved(Saved(path).added("prod", ("a:1", "b:2")).added("test", ("c:3",)).using("prod"))
    assert where_of(Options(), environment).url == "leafdb://a:1,b:2"
    assert where_of(Options(), {**environment, "LEAFDB_CLUSTER": "test"}).cluster == "test"
    both = {**environment, "LEAFDB_CLUSTER": "test", "LEAFDB_NODE": "d:4"}
    assert where_of(Options(), both).said_by == "LEAFDB_NODE"
    assert where_of(Options(cluster="prod"), both).said_by == "--cluster"
    assert where_of(Options(node="e:5"), both).url == "leafdb://e:5"


def test_a_file_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    path = tmp_path / "clusters.toml"
    assert read_saved(path) == Saved(path), "none is no error"
    for text in ("current = 3\n", 'nodes = ["h:1"]\n', "[prod"):
        path.write_text(text)
        with pytest.raises(ConfigError, match=r"clusters\.toml.*by hand"):
            read_saved(path)


def test_names_and_values_survive_a_round_through_the_file(tmp_path: Path) -> None:
    saved = Saved(tmp_path / "x", {"a.b": {"nodes": ["h:1"], "note": 'with "quotes" and \\ and é', "z": 1.5}}, "a.b")
    saved.path.write_text(render(saved), encoding="utf-8")
    assert read_saved(saved.path) == saved
