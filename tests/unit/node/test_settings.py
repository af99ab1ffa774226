"""Configuration: every problem at once with its path, layers in order, nothing guessed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from leafdb.config import Address, Config, Kind, parse_address
from leafdb.errors import ConfigError
from leafdb.node.config_rules import problems, warnings
from leafdb.node.described import described
from leafdb.node.units import duration_text, parse_duration, parse_size, size_text

pytest.importorskip("pydantic")

from leafdb.node.settings import Loaded, load


def load_text(folder: Path, text: str, *, flags: tuple[str, ...] = (), **environment: str) -> Loaded:
    path = folder / "leafdb.toml"
    path.write_text(text, encoding="utf-8")
    return load(str(path), environment=environment, flags=flags, host_name="Box7.example.org")


def problems_of(folder: Path, text: str, *, flags: tuple[str, ...] = (), **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text, flags=flags, **environment)
    return list(caught.value.problems)


def test_nothing_said_means_the_defaults(tmp_path: Path) -> None:
    loaded = load(None, environment={}, host_name="box7.example.org")
    assert loaded.config == dataclasses.replace(
        Config(), node=dataclasses.replace(Config().node, name="box7", host="box7")
    )
    assert set(loaded.origins.values()) == {"default"}


def test_a_whole_file(tmp_path: Path) -> None:
    config = load_text(
        tmp_path,
        """
        [node]
        name = "n1"
        data_dir = "data"
        zone = "a"
        [cluster]
        name = "prod"
        seeds = ["10.0.0.2:7412", "[fd00::1]:7412"]
        secret_file = "/etc/leafdb/secret"
        [listen]
        client = "127.0.0.1:0"
        [storage]
        memtable_bytes = "8MiB"
        wal_sync_interval = "250ms"
        [repair]
        hint_age_max = "1.5h"
        [limits]
        client_sessions_max = 7
        [log]
        level = "debug"
        """,
    ).config
    assert (config.node.name, config.node.host, config.node.zone) == ("n1", "n1", "a")
    assert config.node.data_dir == str(tmp_path / "data")
    assert config.cluster.seeds == (Address("10.0.0.2", 7412), Address("fd00::1", 7412))
    assert config.cluster.secret_file == "/etc/leafdb/secret"
    assert config.listen.client == Address("127.0.0.1", 0)
    assert config.storage.memtable_bytes == 8 << 20
    assert config.storage.wal_sync_interval_s == 0.25
    assert config.repair.hint_age_max_s == 5400.0
    assert config.limits.client_sessions_max == 7


def test_every_problem_is_listed_at_once_with_its_path(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        """
        shards = 3
        [node]
        nmae = "n1"
        shards = "two"
        zone = 7
        [cluster]
        seeds = ["10.0.0.2", "10.0.0.3:7412", ":80"]
        secret = "hunter2"
        [listen]
        client = "0.0.0.0:7411"
        peer = "127.0.0.1:99999"
        [storage]
        memtable_bytes = 16777216
        block_cache_bytes = "32MB2"
        wal_sync_interval = "100"
        wal_bytes_max = "1KiB"
        [tls]
        cert_file = "x"
        [auth]
        mode = "off"
        [storag]
        x = 1
        [log]
        level = "inof"
        """,
    )
    text = "\n".join(found)
    paths = {line.partition(" ")[0].rstrip(":") for line in found}
    assert paths == {
        "shards", "node.nmae", "node.shards", "node.zone", "cluster.seeds", "cluster.secret", "listen.client",
        "listen.peer", "storage.memtable_bytes", "storage.block_cache_bytes", "storage.wal_sync_interval",
        "storage.wal_bytes_max", "tls.ca_file", "tls.key_file", "auth.mode", "storag", "log.level",
    }, text  # fmt: skip
    assert "did you mean node.name?" in text
    assert "write shards under [node]" in text
    assert "did you mean [storage]?" in text
    assert "did you mean 'info'?" in text
    assert "has no unit" in text
    assert "must be at least 2MiB" in text
    assert "entry 0" in text
    assert "entry 2" in text
    assert "entry 1" not in text
    assert "cluster.secret_file" in text
    assert "auth.insecure = true" in text
    assert "or tls.client_ca_file" in text
    assert "hunter2" not in text, "a secret must not be repeated"


def test_layers_overwrite_in_order_and_say_where_from(tmp_path: Path) -> None:
    loaded = load_text(
        tmp_path,
        '[node]\nname = "from-file"\nzone = "from-file"\nhost = "from-file"\n',
        flags=("node.name=from-flag",),
        LEAFDB__NODE__NAME="from-environment",
        LEAFDB__NODE__ZONE="from-environment",
        LEAFDB_NODE="10.0.0.1:7411",
    )
    assert dataclasses.astuple(loaded.config.node)[0] == "from-flag"
    assert (loaded.config.node.zone, loaded.config.node.host) == ("from-environment", "from-file")
    assert loaded.origins["node.name"] == "flag --set"
    assert loaded.origins["node.zone"] == "environment LEAFDB__NODE__ZONE"
    assert loaded.origins["node.host"] == "file leafdb.toml"
    assert loaded.origins["log.level"] == "default"


def test_text_layers_become_what_the_file_would_hold(tmp_path: Path) -> None:
    loaded = load_text(
        tmp_path,
        "",
        flags=("limits.client_sessions_max=12", "auth.insecure=true"),
        LEAFDB__CLUSTER__SEEDS="10.0.0.1:7412, 10.0.0.2:7412",
        LEAFDB__STORAGE__WAL_SYNC_INTERVAL="20ms",
    )
    assert loaded.config.limits.client_sessions_max == 12
    assert loaded.config.auth.insecure is True
    assert [str(seed) for seed in loaded.config.cluster.seeds] == ["10.0.0.1:7412", "10.0.0.2:7412"]
    assert loaded.config.storage.wal_sync_interval_s == 0.02


def test_problems_name_the_layer_they_come_from(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        "",
        flags=("node.shards=x", "nonsense", "node.zoone=a"),
        LEAFDB__NODE__NMAE="n",
        LEAFDB__STORAGE="x",
        LEAFDB__LOG__LEVEL="loud",
    )
    text = "\n".join(found)
    assert "node.nmae (environment LEAFDB__NODE__NMAE): unknown setting; did you mean node.name?" in text
    assert "log.level (environment LEAFDB__LOG__LEVEL)" in text
    assert "node.shards (flag --set): must be a whole number" in text
    assert "--set nonsense: write --set section.key=value" in text
    assert "did you mean node.zone?" in text
    assert "LEAFDB__STORAGE" in text
    assert len(found) == 6, text


def test_a_file_that_is_not_toml_or_not_there_is_one_problem(tmp_path: Path) -> None:
    assert "line 2" in problems_of(tmp_path, "[node]\nname = \n")[0]
    assert "not TOML" in problems_of(tmp_path, "[node]\nname = 1\nname = 2\n")[0]
    with pytest.raises(ConfigError, match="cannot be read"):
        load(str(tmp_path / "missing.toml"), environment={})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not TOML"):
        load(str(tmp_path / "binary.toml"), environment={})


@pytest.mark.parametrize(
    ("text", "value"),
    [("64MiB", 64 << 20), ("1.5GiB", 3 << 29), ("10 kB", 10_000), ("0B", 0), ("7TiB", 7 << 40)],
)
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text) == value
    assert parse_size(size_text(value)) == value


@pytest.mark.parametrize(
    "text", ["64", 64, 1.5, True, None, "", "MiB", "-1MiB", "1e3B", "64mib", "64M", "1.3B", [], "٣MiB"]
)
def test_sizes_that_would_have_to_be_guessed(text: object) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@pytest.mark.parametrize(("text", "value"), [("250ms", 0.25), ("1.5s", 1.5), ("3h", 10_800.0), ("2d", 172_800.0)])
def test_durations(text: str, value: float) -> None:
    assert parse_duration(text) == value
    assert parse_duration(duration_text(value)) == value


@pytest.mark.parametrize("text", ["5", 5, "5 minutes", "0.0001ms", "-1s", "1h30m", "inf", "nan"])
def test_durations_that_would_have_to_be_guessed(text: object) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize("text", ["127.0.0.1:7411", "[::1]:7411", "n1.example.org:0", "localhost:65535"])
def test_addresses_come_back_as_written(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "host", ":1", "host:", "host:x", "host:65536", "::1:7411", "[::1]", "[x]:1", "a b:1", "h:-1", "h:+1", "h:١"],
)
def test_things_that_are_no_address(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


def test_loopback_is_recognised() -> None:
    assert all(Address(host, 1).loopback for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost"))
    assert not any(Address(host, 1).loopback for host in ("0.0.0.0", "::", "10.0.0.1", "localhost.example.org"))


def test_an_open_listener_needs_a_word_and_earns_a_warning(tmp_path: Path) -> None:
    text = '[listen]\npeer = "10.0.0.1:7412"\n'
    (problem,) = problems_of(tmp_path, text)
    assert problem.startswith("listen.peer (file leafdb.toml): 10.0.0.1:7412 can be reached")
    loaded = load_text(tmp_path, text + "[auth]\ninsecure = true\n")
    assert "listen.peer (10.0.0.1:7412)" in warnings(loaded.config)[0]
    assert warnings(Config()) == []


def test_rules_between_settings(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        """
        [node]
        name = "Not A Name"
        [listen]
        client = "0.0.0.0:7411"
        peer = "127.0.0.1:7413"
        [auth]
        insecure = true
        [storage]
        memtable_bytes = "200MiB"
        """,
    )
    text = "\n".join(found)
    assert "node.name" in text
    assert "is not a name" in text
    assert "set listen.advertise" in text
    assert "listen.http" in text
    assert "is listen.peer already" in text
    assert "limits.memory_bytes_max" in text
    assert "storage.wal_bytes_max" in text
    assert len(found) == 5, text
    assert problems(Config()) == []


def test_every_default_is_within_its_own_bounds() -> None:
    for entry in described():
        about = entry.setting
        assert about.doc.endswith("."), entry.path
        if about.at_least is not None:
            assert entry.default >= about.at_least, entry.path
        if about.at_most is not None:
            assert entry.default <= about.at_most, entry.path
        if about.kind is Kind.CHOICE:
            assert entry.default in about.choices
