"""Promises: slow requests are logged with a hash of their key, or with the key if that is wanted; the hash is the same
on every node and nobody's without the secret; hot keys are found among many, and what was hot once goes."""

from __future__ import annotations

import logging
from random import Random

import pytest

from leafdb.model.context import ContextSealer
from leafdb.model.key import encode_key
from leafdb.node.hot_keys import EVERY, KEYS_KEPT, WINDOW, HotKeys
from leafdb.node.metrics import Metrics
from leafdb.node.request_times import RequestTimes

KEY = encode_key("alice@example.org")


def times_of(metrics: Metrics, took_s: float, secret: bytes = b"s" * 32) -> RequestTimes:
    return RequestTimes(metrics, ContextSealer(secret), lambda: 100.0 + took_s)


def test_a_slow_request_is_logged_without_its_key(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    times = times_of(metrics, 2.5)
    with caplog.at_level(logging.WARNING, "leafdb.requests"):
        times.answered(metrics.put_duration, 100.0, "put", "carts", KEY, 7)
        assert not caplog.records, "nothing is slow unless it is said what that is"
        times.slow_s = 2.5
        times.answered(metrics.put_duration, 100.0, "put", "carts", KEY, 7)
        times.slow_s = 3.0
        times.answered(metrics.put_duration, 100.0, "put", "carts", KEY, 7)
    (line,) = caplog.records
    facts = vars(line)["facts"]
    assert "alice" not in str(facts)
    assert len(facts.pop("key_hash")) == 16
    assert facts == {"op": "put", "bucket": "carts", "request_id": 7, "took_s": 2.5}
    assert metrics.slow_requests_total == 1
    assert metrics.put_duration.count == 3


def test_keys_are_shown_on_request_only() -> None:
    times = times_of(Metrics(), 0.0)
    assert set(times.named(KEY)) == {"key_hash"}
    times.show_keys = True
    assert times.named(KEY) == {"key": "alice@example.org"}
    assert times.named(encode_key((b"p\xff", b"s"))) == {"key": "p\\xff / s"}


def test_the_hash_is_that_of_the_cluster() -> None:
    one, two = times_of(Metrics(), 0.0), times_of(Metrics(), 0.0)
    other = times_of(Metrics(), 0.0, secret=b"t" * 32)
    assert one.named(KEY) == two.named(KEY)
    assert one.named(KEY) != one.named(encode_key("bob"))
    assert one.named(KEY) != other.named(KEY)


def ask(hot: HotKeys, rng: Random, names: list[bytes], weights: list[int], requests: int) -> None:
    for name in rng.choices(names, weights, k=requests):
        hot.saw("b", name, writes=rng.random() < 0.25)
    hot.check()


def test_a_hot_key_is_found_among_many() -> None:
    rng, hot = Random(7), HotKeys()
    names = [b"k%d" % number for number in range(5_000)]
    ask(hot, rng, names, [500, 250, *[1] * 4_998], 60_000)
    first, second, *_ = hot.top(10)
    assert (first.key, second.key) == (b"k0", b"k1")
    assert first.requests / hot.sampled == pytest.approx(500 / 5_748, rel=0.3)
    assert first.reads > first.writes > 0
    assert len(hot.top(1_000)) == KEYS_KEPT


def test_a_client_with_a_rhythm_hides_nothing() -> None:
    hot = HotKeys()
    for turn in range(64 * EVERY * 20):
        hot.saw("b", b"k%d" % (turn % EVERY), writes=False)
    counts = [each.requests for each in hot.top(EVERY)]
    assert len(counts) == EVERY
    assert max(counts) < 3 * min(counts)
    hot.check()


def test_what_was_hot_goes() -> None:
    rng, hot = Random(7), HotKeys()
    ask(hot, rng, [b"old"], [1], 4 * WINDOW * EVERY)
    assert hot.sampled < WINDOW
    ask(hot, rng, [b"new"], [1], 4 * WINDOW * EVERY)
    assert [each.key for each in hot.top(2)] == [b"new", b"old"]
    new, old = hot.top(2)
    assert new.requests > 8 * old.requests
