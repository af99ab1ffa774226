"""A node's TLS files: tried at the start, taken over when they change and are sound, told of before they run out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from leafdb.config import Address, AuthConfig, Config, ListenConfig, TlsConfig
from leafdb.errors import ConfigError
from leafdb.node import config_rules
from leafdb.node.bell import Bell
from leafdb.node.real_world import wall_ms
from leafdb.node.tls import LEFT_S_MIN, NodeTls, try_files
from leafdb.node.world import World
from leafdb.transport.stream import SocketNetwork
from leafdb.transport.tls import TlsNetwork
from support.certificates import Pki
from support.transports import until


def config_of(pki: Pki, *, days: int = 365, clients: bool = False, optional: bool = False) -> Config:
    files = pki.node(days=days, clients=clients)
    tls = TlsConfig(files.ca, files.cert, files.key, files.client_ca, optional)
    return Config(tls=tls)


def world_at(now_ms: Callable[[], int] = wall_ms) -> World:
    """The little of a world that TLS needs."""
    nothing: Any = None
    return World(
        fs=nothing, network=SocketNetwork(), now=nothing, now_ms=now_ms, rng=nothing, random_bytes=nothing,
        log_executor=nothing, read_executor=nothing, jobs=nothing, boot_id="", worker_pid=nothing,
    )  # fmt: skip


def opened(config: Config) -> NodeTls:
    return NodeTls(config, world_at())


def test_without_a_section_there_is_none() -> None:
    async def main() -> None:
        tls = opened(Config())
        assert isinstance(tls.peers, SocketNetwork)
        assert tls.clients is tls.peers
        assert tls.problems() == []
        assert tls.expiry() == {}
        with trio.fail_after(5.0):
            await tls.watch(Bell())

    trio.run(main)


def test_files_are_taken_over_when_they_change_and_are_sound(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    config = config_of(pki, days=100)

    async def main() -> None:
        tls = opened(config)
        assert isinstance(tls.peers, TlsNetwork)
        first = tls.contexts
        assert first is not None
        tls.look()
        assert tls.contexts is first, "nothing has changed"

        pki.node(days=200)
        tls.look()
        assert tls.contexts is not None
        assert tls.contexts.not_after > first.not_after + 99 * 86_400
        assert tls.peers.doors.accepting is tls.contexts.from_peers
        assert tls.clients is not tls.peers

        # A certificate whose key is not there yet: what works goes on, and is looked at again.
        second, key = tls.contexts, trio.Path(config.tls.key_file)
        kept = await key.read_bytes()
        await key.write_bytes(b"half a key")
        tls.look()
        assert tls.contexts is second
        (problem,) = tls.problems()
        assert "not in use" in problem
        assert str(key) in problem
        await key.write_bytes(kept)
        tls.look()
        assert tls.problems() == []
        assert tls.contexts is not second

    trio.run(main)


def test_a_hangup_has_files_read_at_once(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    config = config_of(pki)

    async def main() -> None:
        tls = opened(config)
        first = tls.contexts
        bell = Bell()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tls.watch, bell)
            await trio.testing.wait_all_tasks_blocked()
            pki.node(days=100)
            bell.ring()
            await until(lambda: tls.contexts is not first)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_it_says_so_before_a_certificate_runs_out(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")

    async def main() -> None:
        tls = opened(config_of(pki, days=29))
        assert tls.left_s() < LEFT_S_MIN
        assert tls.problems() == []
        assert tls.notices() == ["its certificate runs out in 29 days: issue it anew (leafdb cert rotate)"]
        expiry = tls.expiry()
        assert expiry["node"] == pytest.approx(wall_ms() / 1000 + 29 * 86_400, abs=60)
        assert expiry["ca"] > expiry["node"]
        later = opened(config_of(pki, days=31))
        assert later.problems() == later.notices() == []

    trio.run(main)


def test_one_that_has_run_out_while_the_node_runs_is_told_too(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")

    async def main() -> None:
        tls = NodeTls(config_of(pki, days=31), world_at(lambda: wall_ms() + 40 * 86_400_000))
        assert any("has run out" in problem for problem in tls.problems())
        assert tls.notices() == []

    trio.run(main)


def test_optional_is_told_as_long_as_it_lasts(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    config = config_of(pki, optional=True)

    async def main() -> None:
        tls = opened(config)
        assert tls.problems() == []
        assert tls.notices() == ["it takes connections without TLS: tls.optional is set"]

    trio.run(main)
    assert any(line.startswith("tls.optional") for line in config_rules.warnings(config))


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    config = config_of(Pki(tmp_path))
    try_files(config)
    for mode in (0o640, 0o604):
        os.chmod(config.tls.key_file, mode)
        with pytest.raises(ConfigError, match=r"tls\.key_file: others can read .* chmod 600"):
            try_files(config)
    os.chmod(config.tls.key_file, 0o400)
    try_files(config)


def test_a_certificate_must_be_for_where_others_reach_the_node(tmp_path: Path) -> None:
    config = replace(config_of(Pki(tmp_path)), listen=ListenConfig(advertise="db7.example.org"))
    with pytest.raises(ConfigError, match=r"not for db7\.example\.org"):
        try_files(config)


# -- rules


OUTSIDE = ListenConfig(client=Address("10.0.0.1", 7411), peer=Address("10.0.0.1", 7412))
FILES = TlsConfig("ca", "cert", "key")
WITH_CLIENTS = replace(FILES, client_ca_file="ca")


@pytest.mark.parametrize(
    ("tls", "insecure", "refused"),
    [
        (TlsConfig(), False, {"listen.client", "listen.peer"}),
        (TlsConfig(), True, set()),
        (FILES, False, {"listen.client"}),
        (FILES, True, set()),
        (WITH_CLIENTS, False, set()),
        (replace(WITH_CLIENTS, optional=True), False, {"listen.client", "listen.peer"}),
    ],
)
def test_what_other_machines_reach_must_be_proved(tls: TlsConfig, insecure: bool, refused: set[str]) -> None:
    config = Config(listen=OUTSIDE, tls=tls, auth=AuthConfig(mode="off", insecure=insecure))
    found = config_rules.problems(config)
    assert {line.partition(":")[0] for line in found} & {"listen.client", "listen.peer"} == refused
    warned = any(line.startswith("auth.insecure") for line in config_rules.warnings(config))
    assert warned == insecure


@pytest.mark.parametrize(
    ("auth", "told"),
    [
        (AuthConfig(insecure=True), True),
        (AuthConfig(mode="off", insecure=True), True),
        (AuthConfig(mode="required", insecure=True), False),
        (AuthConfig(), False),
    ],
)
def test_who_lets_everybody_in_over_tls_is_told(auth: AuthConfig, told: bool) -> None:
    """`insecure` switches accounts off where the mode is auto, TLS or not."""
    config = Config(listen=OUTSIDE, tls=FILES, auth=auth)
    assert config_rules.accounts_asked(config) != told
    assert any("without accounts" in line for line in config_rules.warnings(config)) == told
    assert not [line for line in config_rules.problems(config) if line.startswith(("listen", "auth"))]


def test_loopback_needs_nothing() -> None:
    assert not [line for line in config_rules.problems(Config()) if line.startswith(("listen", "tls"))]


@pytest.mark.parametrize(
    ("tls", "named"),
    [
        (TlsConfig(cert_file="c"), {"tls.ca_file", "tls.key_file"}),
        (TlsConfig(ca_file="c", key_file="k"), {"tls.cert_file"}),
        (TlsConfig(client_ca_file="c"), {"tls.client_ca_file"}),
        (TlsConfig(optional=True), {"tls.optional"}),
        (FILES, set()),
    ],
)
def test_half_a_section_is_none(tls: TlsConfig, named: set[str]) -> None:
    found = config_rules.problems(Config(tls=tls))
    assert {line.partition(":")[0] for line in found if line.startswith("tls.")} == named
