"""Promises of the pure tier's heap: order, lives, stalls, weather; and one seed is one run, in any process (I39)."""

from __future__ import annotations

import os
import subprocess
import sys
from random import Random

import pytest

from leafdb.sim.heap import CALM, Heap, Host, Nemesis, Network, Weather, outcome
from leafdb.sim.outcome import Tier
from leafdb.sim.tiers import runner
from leafdb.testing.violation import Invariant, violated

PURE = (Tier.RECORD, Tier.MEMBERSHIP, Tier.REGISTER, Tier.PURGE)


def test_things_happen_in_order_of_time_and_of_asking() -> None:
    heap, done = Heap(), list[str]()
    for when, what in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (9.0, "never")):
        heap.at(when, lambda what=what: done.append(what))  # type: ignore[misc]
    heap.run(5.0)
    assert (done, heap.now, heap.events) == (["a", "b", "c"], 5.0, 3)


def test_a_crash_takes_timers_and_unread_mail_and_later_mail_finds_the_next_life() -> None:
    heap, done = Heap(), list[str]()
    host, peer, net = Host(heap, "n1"), Host(heap, "n2"), Network(heap, Random(1), CALM)
    host.at(1.0, lambda: done.append("timer"))
    net.send(peer, host, b"early", lambda: done.append("early"))
    host.crash()
    heap.run(0.5)
    host.start()
    net.send(peer, host, b"late", lambda: done.append("late"))
    heap.run(2.0)
    assert done == ["late"]


def test_who_wakes_from_a_stall_runs_its_timers_before_it_reads() -> None:
    heap, done = Heap(), list[str]()
    host, peer, net = Host(heap, "n1"), Host(heap, "n2"), Network(heap, Random(1), CALM)
    host.stall(3.0)
    net.send(peer, host, b"mail", lambda: done.append("mail"))
    host.at(2.0, lambda: done.append("timer"))
    heap.run(2.9)
    assert done == []
    heap.run(3.0)
    assert done == ["timer", "mail"]


def test_weather_loses_doubles_and_reorders() -> None:
    heap, got = Heap(), list[int]()
    a, b = Host(heap, "n1"), Host(heap, "n2")
    net = Network(heap, Random(2), Weather(loss=0.2, doubling=0.2, straggling=0.2))
    for number in range(200):
        net.send(a, b, b"%d" % number, lambda number=number: got.append(number))  # type: ignore[misc]
    heap.run()
    faults = heap.trace.faults
    assert len(got) == 200 - faults["message lost"] + faults["message doubled"]
    assert faults["message lost"] > 10
    assert got != sorted(got)


def test_a_cut_is_one_way_and_heals() -> None:
    heap, got = Heap(), list[str]()
    a, b, net = Host(heap, "n1"), Host(heap, "n2"), Network(heap, Random(3), CALM)
    net.cut(a, b)
    net.send(a, b, b"", lambda: got.append("a to b"))
    net.send(b, a, b"", lambda: got.append("b to a"))
    heap.run()
    net.heal()
    net.send(a, b, b"", lambda: got.append("healed"))
    heap.run()
    assert got == ["b to a", "healed"]


def test_the_nemesis_counts_what_it_did_and_stops() -> None:
    heap = Heap()
    nemesis = Nemesis(heap, Random(4), [("deed", lambda: "n1"), ("idle", lambda: None)], every_s=0.1)
    heap.run(5.0)
    done = heap.trace.faults["deed"]
    assert done > 5
    assert "idle" not in heap.trace.faults
    nemesis.stop()
    heap.run(10.0)
    assert heap.trace.faults["deed"] == done


def test_whatever_goes_wrong_is_an_outcome() -> None:
    def wrong() -> None:
        violated(Invariant.AGREEMENT, "two values", "k")

    def failed() -> None:
        raise KeyError("n1")

    broken = outcome(Tier.REGISTER, 1, 5, Heap(keep=True), ("never",), wrong)
    assert broken.broken is not None
    assert (broken.broken.invariant, broken.broken.key) == ("I24", "k")
    assert broken.probes == {"never": 0}
    assert broken.lines[-1].text == "I24: two values"
    raised = outcome(Tier.REGISTER, 1, 5, Heap(), (), failed).broken
    assert raised is not None
    assert raised.invariant == "A"


@pytest.mark.parametrize("tier", PURE)
def test_the_same_seed_is_the_same_run_in_another_process_with_other_hashes(tier: Tier) -> None:
    here = runner(tier)(11, operations=80)
    program = f"from leafdb.sim.tiers import runner, Tier\nprint(runner(Tier({tier.value!r}))(11, operations=80).trace)"
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    there = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here.trace
