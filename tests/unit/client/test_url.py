"""URLs name addresses and nothing else; what cannot be kept is refused, not ignored."""

from __future__ import annotations

from typing import Any

import pytest

import leafdb
from leafdb.client.url import Address, parse_address, parse_url, wants_tls


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("leafdb://localhost", [("localhost", 7411)]),
        ("leafdb://127.0.0.1:7421/", [("127.0.0.1", 7421)]),
        ("leafdb://a:1,b,a:1", [("a", 1), ("b", 7411)]),
        ("leafdb://[::1]", [("::1", 7411)]),
        ("leafdb://[fe80::1%eth0]:9,node-1.example.org:65535", [("fe80::1%eth0", 9), ("node-1.example.org", 65_535)]),
    ],
)
def test_addresses(url: str, addresses: list[tuple[str, int]]) -> None:
    assert list(parse_url(url)) == [Address(*address) for address in addresses]


def test_an_address_reads_back() -> None:
    for text in ("a:1", "[::1]:7411"):
        assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "url",
    [
        "", "leafdb://", "leafdb://,", "http://a", "leafdb:a", "leafdb://a:", "leafdb://a:0", "leafdb://a:65536",
        "leafdb://a:1x", "leafdb://a:-1", "leafdb://::1", "leafdb://[::1", "leafdb://[]", "leafdb://a b",
        "leafdb://user:hunter2@a", "leafdb://user@a", "leafdb://a/path", "leafdb://a?zone=b", "leafdb://a#f",
        "leafdb://a:" + "1" * 5_000, "leafdb://a:²",
        "leafdb://" + ",".join(f"a{number}" for number in range(2_000)),
    ],
)  # fmt: skip
def test_refused(url: str) -> None:
    with pytest.raises(leafdb.ConfigError) as refused:
        leafdb.connect(url)
    assert "hunter2" not in str(refused.value)


def test_a_url_says_whether_tls_is_spoken() -> None:
    assert parse_url("leafdbs://a:1,[::1]") == (Address("a", 1), Address("::1", 7411))
    assert wants_tls("leafdbs://a")
    assert not wants_tls("leafdb://a")


def test_wrong_settings_are_refused_at_once() -> None:
    connect: Any = leafdb.connect
    for wrong in ({"routing": "any"}, {"zone": 5}, {"timeout": 0}, {"timeout": None}, {"timeout": 301}):
        with pytest.raises(leafdb.ClientMisuse):
            connect("leafdb://a", **wrong)
    with pytest.raises(leafdb.ConfigError):
        connect(5)
