"""The list of founding members: what is left out, weights, and machines of several shards by the rule of leafdbd."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leafdb.config import Config, NodeConfig
from leafdb.node.founding import member_to_wire
from leafdb.node.own_member import own_member
from leafdb.node.shards import shard_of
from leafdb_cli.cluster import parse_members


def test_what_is_left_out_follows_from_name_and_client() -> None:
    assert parse_members("name=a,client=10.0.0.1:7411") == [
        {
            "name": "a", "host": "a", "zone": "default", "weight": 1,
            "client": "10.0.0.1:7411", "peer": "10.0.0.1:7412", "http": "10.0.0.1:7413",
        }
    ]  # fmt: skip


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_a_machine_stands_for_the_members_that_its_own_configuration_makes(shards: int) -> None:
    machine = Config(node=NodeConfig(name="a", host="box", zone="r1", weight=2, shards=shards))
    told = [member_to_wire(own_member(shard_of(machine, number))) for number in range(shards)]
    spec = f"name=a,host=box,zone=r1,weight=2,shards={shards},client=127.0.0.1:7411"
    assert parse_members(spec) == told


def test_a_host_left_out_is_the_machine_and_not_the_shard() -> None:
    unsaid = replace(Config(), node=NodeConfig(name="a", shards=2))
    assert [each["host"] for each in parse_members("name=a,client=127.0.0.1:7411,shards=2")] == ["a", "a"]
    assert own_member(shard_of(unsaid, 1)).host == "a"


@pytest.mark.parametrize(
    "spec",
    [
        "name=a", "client=a:1", "name=a,client=a", "name=a,client=a:1,colour=red", "name=a,client=a:1,weight=heavy",
        "name=a,client=a:1,weight=-1", "name=a,client=a:1,weight=10001", "name=a,client=a:1,shards=0",
        "name=a,client=a:1,shards=33", "name=a,client=a:65530,shards=2", "name=a,,client=a:1",
    ],
)  # fmt: skip
def test_nonsense_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_members(spec)
