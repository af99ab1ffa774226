"""Promises: global options may stand anywhere, durations and sizes have units, a saved connection is found or named."""

from __future__ import annotations

from pathlib import Path

import pytest

from leafdb.errors import ConfigError
from leafdb_cli.options import (
    FLAGS,
    VALUED,
    Options,
    hoist,
    parse_duration_s,
    parse_size,
    url_of,
)
from leafdb_cli.saved import saved_clusters_path


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("kv get carts alice", "kv get carts alice"),
        ("kv get carts alice --node h:1 -o json", "--node h:1 -o json kv get carts alice"),
        ("--node h:1 kv get carts alice", "--node h:1 kv get carts alice"),
        ("kv --timeout=2s get carts alice -ojsonl", "--timeout=2s -ojsonl kv get carts alice"),
        ("status --check --watch --no-color", "--watch --no-color status --check"),
        ("kv put carts alice -- --watch", "kv put carts alice -- --watch"),
        ("dev up -n 3 --dir D", "dev up -n 3 --dir D"),
        ("kv get carts -other", "kv get carts -other"),
        ("status --node", "--node status"),
    ],
)
def test_global_options_stand_anywhere(typed: str, wanted: str) -> None:
    assert hoist(typed.split()) == wanted.split()


def test_hoisting_loses_nothing_and_is_idempotent() -> None:
    line = ["kv", "put", "b", "k", "v", "--yes", "--w", "2", "--node", "n:1", "--wait", "-o", "table"]
    once = hoist(line)
    assert sorted(once) == sorted(line)
    assert hoist(once) == once


def test_the_table_of_global_options_is_that_of_the_callback() -> None:
    """What `hoist` moves and what typer parses at the root are one set of options."""
    import typer

    from leafdb_cli.main import build

    command = typer.main.get_command(build(""))
    names = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert names - {"--help", "-h"} == {*VALUED, *FLAGS}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20s", 20.0), ("250ms", 0.25), ("1.5m", 90.0), ("3", 3.0), ("2h", 7200.0), (" 1 d ", 86400.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 year", "1,5s", "inf", "1e3"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration_s(text)


def test_sizes() -> None:
    assert [parse_size(text) for text in ("100", "4KiB", "1 MiB", "0B")] == [100, 4096, 1 << 20, 0]
    for text in ("", "-1", "1kB", "1.5KiB"):
        with pytest.raises(ValueError, match="size"):
            parse_size(text)


def test_where_to_connect(tmp_path: Path) -> None:
    assert url_of(Options(), {"XDG_CONFIG_HOME": str(tmp_path)}) == "leafdb://127.0.0.1:7411"
    assert url_of(Options(), {"LEAFDB_NODE": "h:1"}) == "leafdb://h:1"
    assert url_of(Options(node="a:1,b:2"), {"LEAFDB_NODE": "h:1"}) == "leafdb://a:1,b:2"
    assert url_of(Options(node="leafdb://a:1"), {}) == "leafdb://a:1"
    with pytest.raises(ConfigError, match="both"):
        url_of(Options(node="a:1", cluster="prod"), {})


def test_saved_connections(tmp_path: Path) -> None:
    environment = {"XDG_CONFIG_HOME": str(tmp_path), "LEAFDB_CLUSTER": "prod"}
    with pytest.raises(ConfigError, match="no saved connection 'prod'"):
        url_of(Options(), environment)
    path = saved_clusters_path(environment)
    path.parent.mkdir(parents=True)
    path.write_text('[prod]\nnodes = ["a:1", "b:2"]\n[odd]\nnodes = "a:1"\n')
    assert url_of(Options(), environment) == "leafdb://a:1,b:2"
    assert url_of(Options(node="c:3"), environment) == "leafdb://c:3", "an option beats the environment"
    assert url_of(Options(cluster="prod"), {**environment, "LEAFDB_NODE": "h:1"}) == "leafdb://a:1,b:2"
    with pytest.raises(ConfigError, match="it has prod, odd"):
        url_of(Options(cluster="test"), environment)
    with pytest.raises(ConfigError, match="wants nodes"):
        url_of(Options(cluster="odd"), environment)
    path.write_text("[prod")
    with pytest.raises(ConfigError, match="cannot be read"):
        url_of(Options(), environment)
