"""Promises: the shopping cart of docs/examples loses no item, counts none twice, and brings none back, in an embedded
node and in a cluster whose nodes are cut off, stand still, are killed and lose their power while people shop."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest
import trio
from hypothesis import strategies as st

import leafdb
import shopping_cart
from leafdb.testing import Cluster, Faults, check_merge
from shopping_cart import Cart, Carts, Line, merge_carts

CLICKS = 40
TRIES_MAX = 200


def test_the_program_keeps_a_cart_in_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = f"{tmp_path}/shop"
    shopping_cart.main(shop, "alice", "add", "tea", "2")
    shopping_cart.main(shop, "alice", "add", "oil")
    shopping_cart.main(shop, "alice", "add", "tea")
    shopping_cart.main(shop, "alice", "remove", "oil")
    capsys.readouterr()
    shopping_cart.main(shop, "alice")
    assert capsys.readouterr().out == "   3 tea\n"


def test_the_same_click_twice_counts_once(leafdb_memory: leafdb.Client) -> None:
    carts = Carts(leafdb_memory)
    for _ in range(2):
        cart = carts.add("alice", "tea", 2, click="click-1")
    assert cart.products() == {"tea": 2}
    carts.remove("alice", "tea")
    assert carts.add("alice", "tea", 2, click="click-1").products() == {}, "nor does a late one bring it back"


@pytest.mark.leafdb(nodes=4)
def test_both_sides_of_a_broken_network_sell(leafdb_cluster: Cluster, leafdb_faults: Faults) -> None:
    n1, n2, n3, n4 = leafdb_cluster.nodes
    here, there = (Carts(leafdb_cluster.connect(via=node, timeout=3.0)) for node in (n1, n3))
    here.add("alice", "tea", 1, click="a")
    leafdb_cluster.run(leafdb_cluster.settle)
    leafdb_faults.partition([n1, n2], [n3, n4])  # the clients reach both sides
    there.add("alice", "egg", 6, click="b")
    here.add("alice", "tea", 2, click="c")
    leafdb_cluster.run(trio.sleep, 10)
    there.add("alice", "oil", 1, click="d")
    here.add("alice", "oil", 1, click="e")
    leafdb_faults.heal()
    leafdb_cluster.run(leafdb_cluster.settle)
    for carts in (here, there):
        assert carts.show("alice").products() == {"tea": 3, "egg": 6, "oil": 2}


class Trouble:
    """One thing at a time goes wrong, drawn from the seed; never to more than one node."""

    def __init__(self, cluster: Cluster, faults: Faults, rng: Random) -> None:
        self._cluster = cluster
        self._faults = faults
        self._rng = rng

    def next(self) -> None:
        """What was wrong is mended, and something else breaks."""
        self.mend()
        node = self._rng.choice(self._cluster.nodes)
        match self._rng.randrange(5):
            case 0:
                self._faults.cut(node)
            case 1:
                self._faults.pause(node)
            case 2:
                self._cluster.run(self._faults.kill, node)
            case 3:
                self._cluster.run(self._faults.power_cut, node)
            case _:
                self._faults.partition([node], [other for other in self._cluster.nodes if other != node])

    def mend(self) -> None:
        """Everything, and everybody runs."""
        self._faults.heal()
        down = [node for node in self._cluster.nodes if node not in self._cluster.up]
        self._cluster.run(self._faults.start, *down)


@pytest.mark.parametrize("leafdb_seed", range(3))
def test_no_item_is_lost_whatever_breaks(leafdb_cluster: Cluster, leafdb_faults: Faults, leafdb_seed: int) -> None:
    rng = Random(leafdb_seed)
    trouble = Trouble(leafdb_cluster, leafdb_faults, rng)
    shops = [Carts(leafdb_cluster.connect(timeout=3.0)) for _ in range(2)]
    wanted: Counter[str] = Counter()
    for number in range(CLICKS):
        if number % 5 == 0:
            trouble.next()
        product, quantity = rng.choice(["tea", "oil", "egg"]), rng.randrange(1, 4)
        wanted[product] += quantity
        for _ in range(TRIES_MAX):  # a person clicks until the page says yes; the form keeps its click's id
            try:
                rng.choice(shops).add("alice", product, quantity, click=f"click-{number}")
                break
            except leafdb.LeafdbError:
                leafdb_cluster.run(trio.sleep, 1)
        else:
            pytest.fail(f"click {number} was never taken")
    trouble.mend()
    leafdb_cluster.run(leafdb_cluster.settle)
    for shop in shops:
        assert shop.show("alice").products() == wanted


def test_carts_merge() -> None:
    clicks = st.sampled_from(["a", "b", "c", "d"])
    line = {click: Line(click.upper(), 1) for click in "abcd"}  # a click's line is what was clicked, everywhere

    def cart(there: set[str], removed: set[str]) -> Cart:
        return Cart({click: line[click] for click in sorted(there - removed)}, tuple(sorted(removed)))

    check_merge(merge_carts, st.builds(cart, st.sets(clicks), st.sets(clicks)), codec=leafdb.JSON(Cart))
