"""Failed logins hold up their source, for a while, and nobody else."""

from __future__ import annotations

import pytest

from leafdb.limits import LOGIN_FAILURES_BURST, LOGIN_FAILURES_PER_S, LOGIN_SOURCES_MAX
from leafdb.node.login_limits import LoginLimits, is_loopback, source_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_source_may_fail_so_often_and_then_waits() -> None:
    clock = Clock()
    limits = LoginLimits(clock)
    for _ in range(LOGIN_FAILURES_BURST):
        assert limits.wait_s("a") == 0.0
        limits.failed("a")
    wait_s = limits.wait_s("a")
    assert wait_s == pytest.approx(1 / LOGIN_FAILURES_PER_S)
    assert limits.wait_s("b") == 0.0, "and nobody else does"
    clock.now += wait_s - 0.01
    assert limits.wait_s("a") > 0.0
    clock.now += 0.02
    assert limits.wait_s("a") == 0.0
    limits.failed("a")
    assert limits.wait_s("a") > 0.0
    clock.now += 10_000
    for _ in range(LOGIN_FAILURES_BURST):
        assert limits.wait_s("a") == 0.0, "no more is saved up than there was"
        limits.failed("a")
    assert limits.wait_s("a") > 0.0
    limits.check()


def test_however_many_sources_there_are_it_is_bounded() -> None:
    limits = LoginLimits(Clock())
    for at in range(LOGIN_SOURCES_MAX + 500):
        limits.failed(f"source {at}")
        limits.failed("always")
    limits.check()
    assert limits.wait_s("always") > 0.0, "who fails on and on is not forgiven for others' sake"


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("[2001:db8:1:2:3::4]", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("[fe80::1%eth0]", "fe80::/64"),
        ("node-7", "node-7"),
        ("", ""),
    ],
)
def test_what_is_one_source(host: str, source: str) -> None:
    assert source_of(host) == source


def test_what_is_this_machine() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.9.9.9", "[::1]", "::1"))
    assert not any(is_loopback(host) for host in ("10.0.0.1", "[2001:db8::1]", "localhost.example.org", "", "0.0.0.0"))
