"""Promises of the drawing: valid XML, every partition in both rings, what changes stands out, one plan one text."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from leafdb_cli.plan_view import PlanView
from leafdb_cli.ring_svg import COLORS, arcs, color_of, ring_svg
from support.plan_maps import cluster_of, join, leave, plan_map

SVG = "{http://www.w3.org/2000/svg}"


def view() -> PlanView:
    return PlanView.from_wire(plan_map(cluster_of("a", "b", "c", partitions=64), join("d", 4), leave(2)))


def ring_of(text: str, name: str) -> list[ElementTree.Element]:
    """The arcs of one of the two rings."""
    (group,) = [each for each in ElementTree.fromstring(text).iter(f"{SVG}g") if each.get("id") == name]
    return group.findall(f"{SVG}path")


def told(arc: ElementTree.Element) -> str:
    """What an arc says when it is pointed at."""
    title = arc.find(f"{SVG}title")
    assert title is not None
    assert title.text
    return title.text


def partitions(text: str) -> range:
    first, last = re.match(r"partitions? (\d+)(?:-(\d+))?: ", text).groups()  # type: ignore[union-attr]  # fails the test
    return range(int(first), int(last or first) + 1)


def test_both_rings_have_every_partition_with_its_owner() -> None:
    plan = view()
    text = ring_svg(plan)
    for name, owners in (("now", plan.owners_before), ("then", plan.owners_after)):
        found = [told(arc) for arc in ring_of(text, name)]
        assert [number for title in found for number in partitions(title)] == list(range(64))
        for title in found:
            for number in partitions(title):
                owner = plan.name_of(owners[number])
                assert f"{owner} {name}" in title or f": {owner}, now and then" in title


def test_an_arc_has_its_members_colour_and_stands_out_only_where_it_changes() -> None:
    plan = view()
    fills = {share.name: color_of(index) for index, share in enumerate(plan.shares)}
    moved = 0
    for arc in ring_of(ring_svg(plan), "then"):
        title = told(arc)
        changes = "now and then" not in title
        assert arc.get("class") == ("arc moved" if changes else "arc same")
        owner = re.search(r"(\w+) then" if changes else r": (\w+),", title)
        assert owner is not None
        assert arc.get("fill") == fills[owner[1]]
        moved += len(partitions(title)) if changes else 0
    assert moved == plan.moved > 0


def test_the_legend_names_everybody_with_partitions_and_copies() -> None:
    words = " ".join(" ".join(ElementTree.fromstring(ring_svg(view())).itertext()).split())
    assert "b owns 21, then 0 (0.0 %, goes); copies 64, then 0" in words
    assert re.search(r"d owns 0, then 21 \(32\.8 %, fair 33\.3 %\); copies 0, then 64", words)


def test_one_plan_is_one_text_with_nothing_from_outside() -> None:
    text = ring_svg(view())
    assert text == ring_svg(view())
    assert "href" not in text
    assert "@import" not in text
    assert text.count("http") == 1, "the namespace"
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("name", ["<b>&\"'", "a\u0000b", "\ud800", "]]>", "日本"])
def test_no_name_breaks_the_document(name: str) -> None:
    plan = view()
    odd = replace(plan, shares=tuple(replace(share, name=name, host=name, zone=name) for share in plan.shares))
    shown = "".join(ElementTree.fromstring(ring_svg(odd)).itertext())
    assert "".join(char if char.isprintable() else "?" for char in name) in shown


def test_a_whole_turn_of_one_owner_is_still_drawn() -> None:
    plan = PlanView.from_wire(plan_map(cluster_of("a", partitions=16), join("b", 2)))
    (arc,) = ring_of(ring_svg(replace(plan, owners_after=plan.owners_before)), "then")
    points = re.findall(r"[ML]([\d.]+ [\d.]+)|1 ([\d.]+ [\d.]+)L", str(arc.get("d")))
    assert points[0][0] != points[1][1], "an arc that ends where it begins is drawn by nobody"


def test_neighbours_of_one_fate_are_one_arc() -> None:
    found = [tuple(arc) for arc in arcs((1, 1, 2, 2, 1), (1, 1, 2, 3, 1))]
    assert found == [(0, 1, 1, 1), (2, 2, 2, 2), (3, 3, 2, 3), (4, 4, 1, 1)]


def test_many_members_have_colours_of_their_own() -> None:
    assert len({color_of(index) for index in range(40)}) == 40
    assert color_of(0) == COLORS[0]
