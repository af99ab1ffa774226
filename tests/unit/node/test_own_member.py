"""What a node's configuration says of it as a member: labels, weight, and addresses that others can use."""

from __future__ import annotations

import pytest

from leafdb.config import Address, Config, ListenConfig, NodeConfig
from leafdb.errors import ConfigError
from leafdb.node.own_member import own_member


def test_a_member_is_what_its_configuration_says() -> None:
    node = NodeConfig(name="a-1", host="a", zone="rack-1", weight=3)
    listen = ListenConfig(Address("10.0.0.1", 7411), Address("10.0.0.1", 7412), Address("10.0.0.1", 7413))
    member = own_member(Config(node=node, listen=listen), incarnation=2)
    assert (member.name, member.host, member.zone, member.weight) == ("a-1", "a", "rack-1", 3)
    assert member.client_address == "10.0.0.1:7411"
    assert member.peer_address == "10.0.0.1:7412"
    assert member.http_address == "10.0.0.1:7413"
    assert member.incarnation == 2


def test_a_node_without_a_host_label_is_its_own_host() -> None:
    assert own_member(Config(node=NodeConfig(name="a"))).host == "a"


def test_what_is_advertised_is_told_and_a_page_for_this_machine_stays_that() -> None:
    everywhere = ListenConfig(Address("0.0.0.0", 7411), Address("::", 7412), advertise="db1.example.org")
    member = own_member(Config(node=NodeConfig(name="a"), listen=everywhere))
    assert member.client_address == "db1.example.org:7411"
    assert member.peer_address == "db1.example.org:7412"
    assert member.http_address == "127.0.0.1:7413"


@pytest.mark.parametrize(
    ("listen", "named"),
    [
        (ListenConfig(client=Address("127.0.0.1", 0)), ["listen.client"]),
        (ListenConfig(Address("0.0.0.0", 1), Address("::", 2)), ["listen.client", "listen.peer"]),
    ],
)
def test_who_cannot_be_reached_is_no_member(listen: ListenConfig, named: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        own_member(Config(node=NodeConfig(name="a"), listen=listen))
    assert [problem.partition(":")[0] for problem in refused.value.problems] == named


def test_a_page_that_nobody_can_find_is_left_out() -> None:
    listen = ListenConfig(http=Address("0.0.0.0", 7413))
    assert own_member(Config(node=NodeConfig(name="a"), listen=listen)).http_address == ""
