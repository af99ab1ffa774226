"""What each shard of a machine is told: a name, ports and a directory of its own, a fair part of every size."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leafdb.config import (
    CLIENT_ADDRESS,
    HTTP_ADDRESS,
    PEER_ADDRESS,
    Address,
    Config,
    Kind,
    LimitsConfig,
    ListenConfig,
    NodeConfig,
)
from leafdb.limits import MIB
from leafdb.node import shards
from leafdb.node.config_rules import problems
from leafdb.node.described import described
from leafdb.node.own_member import own_member


def machine(count: int, **listen: Address) -> Config:
    return Config(
        node=NodeConfig(name="a", host="a", data_dir="/data", zone="rack-1", weight=2, shards=count),
        listen=ListenConfig(
            client=listen.get("client", CLIENT_ADDRESS),
            peer=listen.get("peer", PEER_ADDRESS),
            http=listen.get("http", HTTP_ADDRESS),
        ),
        limits=LimitsConfig(memory_bytes_max=1024 * MIB),
    )


def test_a_node_without_shards_is_told_what_is_written() -> None:
    config = machine(1)
    assert shards.shard_of(config, 0) is config
    assert shards.overview(config) == []


def test_each_shard_is_a_member_of_its_own_on_the_same_host() -> None:
    members = [own_member(shards.shard_of(machine(3), number)) for number in range(3)]
    assert [each.name for each in members] == ["a-0", "a-1", "a-2"]
    assert {(each.host, each.zone, each.weight) for each in members} == {("a", "rack-1", 2)}
    assert [each.client_address for each in members] == ["127.0.0.1:7411", "127.0.0.1:7421", "127.0.0.1:7431"]
    assert [each.peer_address for each in members] == ["127.0.0.1:7412", "127.0.0.1:7422", "127.0.0.1:7432"]
    assert [each.http_address for each in members] == ["127.0.0.1:7413", "127.0.0.1:7423", "127.0.0.1:7433"]


def test_each_shard_has_a_directory_of_its_own_and_is_one_node() -> None:
    nodes = [shards.shard_of(machine(2), number).node for number in range(2)]
    assert [each.data_dir for each in nodes] == ["/data/shard-0", "/data/shard-1"]
    assert [each.shards for each in nodes] == [1, 1]


def test_a_host_that_is_not_said_is_the_machine_s_name() -> None:
    unsaid = Config(node=NodeConfig(name="a", shards=2))
    assert shards.shard_of(unsaid, 1).node.host == "a"


@pytest.mark.parametrize("count", [2, 3, 7])
def test_every_size_is_shared_out_and_nothing_else_is(count: int) -> None:
    whole, part = machine(count), shards.shard_of(machine(count), 1)
    for entry in described():
        if entry.section in ("node", "listen"):
            continue
        had, has = (getattr(getattr(config, entry.section), entry.attribute) for config in (whole, part))
        if entry.setting.kind is Kind.SIZE:
            assert 0 <= had - has * count < count, entry.path
        else:
            assert has == had, entry.path


def test_any_free_port_stays_any_free_port() -> None:
    config = machine(2, client=Address("127.0.0.1", 0), peer=Address("127.0.0.1", 0), http=Address("127.0.0.1", 0))
    assert not problems(config)
    assert {address.port for address in (shards.shard_of(config, 1).listen.client,)} == {0}


def test_default_ports_do_for_as_many_shards_as_there_may_be() -> None:
    assert problems(replace(machine(32), limits=LimitsConfig(memory_bytes_max=4096 * MIB))) == []


@pytest.mark.parametrize(
    ("listen", "path", "words"),
    [
        ({"peer": Address("127.0.0.1", 7421)}, "listen.client", "shard 1 is listen.peer of shard 0"),
        ({"peer": Address("0.0.0.0", 7421)}, "listen.client", "shard 1 is listen.peer of shard 0"),
        ({"http": Address("127.0.0.1", 7431)}, "listen.client", "shard 2 is listen.http of shard 0"),
        ({"client": Address("127.0.0.1", 65_530)}, "listen.client", "ports end"),
    ],
)
def test_ports_that_meet_are_named_before_anything_starts(listen: dict[str, Address], path: str, words: str) -> None:
    config = machine(3, **listen)
    found = [line for line in problems(config) if line.startswith(f"{path}: ") and words in line]
    assert len(found) == 1, problems(config)


def test_other_addresses_may_have_the_same_ports() -> None:
    assert problems(machine(3, peer=Address("127.0.0.2", 7421))) == []


def test_memory_that_does_not_do_for_all_is_refused_and_the_least_is_said() -> None:
    small = replace(machine(4), limits=LimitsConfig(memory_bytes_max=384 * MIB))
    (line,) = problems(small)
    assert line.startswith("limits.memory_bytes_max: 384 MiB for 4 shards are 96 MiB for each")
    assert "allow 512 MiB" in line
    assert problems(replace(small, limits=LimitsConfig(memory_bytes_max=512 * MIB))) == []


def test_a_name_that_grows_too_long_is_refused() -> None:
    config = machine(2)
    long = replace(config, node=replace(config.node, name="n" * 62, host="h"))
    assert any(line.startswith("node.name: ") and "last shard" in line for line in problems(long))


def test_people_see_all_of_them_at_once() -> None:
    first, second = shards.overview(machine(2))
    assert first.startswith("shard 0: a-0 on host a, client 127.0.0.1:7411, peer 127.0.0.1:7412, http 127.0.0.1:7413")
    assert "memory 512 MiB, data in /data/shard-1" in second


@pytest.mark.parametrize("number", [-1, 2])
def test_there_is_no_other_shard(number: int) -> None:
    with pytest.raises(ValueError, match="no shard"):
        shards.shard_of(machine(2), number)
