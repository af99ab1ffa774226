"""A plan drawn: the ring now inside, the ring then around it, coloured by member; arcs that change hands stand out.

A pure function to text, the same text for the same plan. No file is needed beside it: colours, letters and the style
sheet are in it, and it reads on light and on dark. Neighbouring partitions of one owner are one arc, and each arc says
what it is when it is pointed at. Angles run clockwise from the top, partition 0 first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from leafdb_cli.plan_screen import mark_of, percent
from leafdb_cli.plan_view import PlanView, Share

SIZE: Final = 640
CENTRE: Final = SIZE / 2
BEFORE: Final = (150.0, 195.0)
"""Radii of the inner ring."""
AFTER: Final = (210.0, 255.0)
CHANGED_REACH: Final = 24.0
"""By how much an arc that changes hands stands out of the outer ring."""
LEGEND_WIDTH: Final = 470
ROW_HEIGHT: Final = 44
HEAD_HEIGHT: Final = 64
WHOLE: Final = 0.9999
"""Of a turn: an arc that ends where it begins is none."""

COLORS: Final = (
    "#3b82c4", "#d9822b", "#2f9e6e", "#b5518f", "#8a7f2c", "#6c63c7", "#c2544d", "#2a98a6", "#8f6b4f", "#6f9a2e",
    "#a860c9", "#5b7a99",
)  # fmt: skip
"""Of middling lightness, so that white and black letters and both backgrounds go with them."""
GOLDEN_ANGLE: Final = 137.508

STYLE: Final = """
  text { font-family: ui-sans-serif, system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1b1f24; }
  .paper { fill: #ffffff; }
  .small { font-size: 12px; fill: #57606a; }
  .name { font-size: 15px; font-weight: 600; }
  .middle { text-anchor: middle; }
  .title { font-size: 17px; font-weight: 600; }
  .mark { font-size: 13px; font-weight: 700; fill: #ffffff; text-anchor: middle; }
  .arc { stroke: #ffffff; stroke-width: 0.6; }
  .same { opacity: 0.5; }
  .moved { stroke: #1b1f24; stroke-width: 1; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .paper { fill: #0d1117; }
    .small { fill: #9198a1; }
    .arc { stroke: #0d1117; }
    .moved { stroke: #e6edf3; }
  }
"""


class Arc(NamedTuple):
    """Neighbouring partitions of one owner that share a fate."""

    first: int
    last: int
    owner: int
    other: int
    """Their owner in the other ring."""


def ring_svg(plan: PlanView) -> str:
    """The drawing of a plan, a whole SVG document."""
    height = max(SIZE, HEAD_HEIGHT + ROW_HEIGHT * len(plan.shares) + 40)
    width = SIZE + LEGEND_WIDTH
    colors = {share.node: color_of(index) for index, share in enumerate(plan.shares)}
    title = f"plan {plan.plan_id[:12]}" if plan.plan_id else "a simulated plan"
    told = f"{plan.moved} of {len(plan.owners_before)} partitions change their owner"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' role="img">',
        f"<title>{_text(title)}</title>",
        f"<desc>{_text(told)}. The inner ring is now, the outer ring is then.</desc>",
        f"<style>{STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        *_ring(plan, plan.owners_before, plan.owners_after, colors, outer=False),
        *_ring(plan, plan.owners_after, plan.owners_before, colors, outer=True),
        *_middle(plan, title),
        *_legend(plan, colors),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def color_of(index: int) -> str:
    """The colour of the member at this place among the members."""
    if index < len(COLORS):
        return COLORS[index]
    return f"hsl({index * GOLDEN_ANGLE % 360:.0f}, 48%, 50%)"


def arcs(owners: tuple[int, ...], others: tuple[int, ...]) -> Iterator[Arc]:
    """Runs of partitions with one owner here and one there, in order."""
    first = 0
    for at in range(1, len(owners) + 1):
        if at == len(owners) or (owners[at], others[at]) != (owners[first], others[first]):
            yield Arc(first, at - 1, owners[first], others[first])
            first = at


def _ring(
    plan: PlanView, owners: tuple[int, ...], others: tuple[int, ...], colors: Mapping[int, str], *, outer: bool
) -> Iterator[str]:
    inside, outside = AFTER if outer else BEFORE
    yield f'<g id="{"then" if outer else "now"}">'
    for arc in arcs(owners, others):
        moved = arc.owner != arc.other
        reach = outside + CHANGED_REACH if outer and moved else outside
        path = _path(arc.first / len(owners), (arc.last + 1) / len(owners), inside, reach)
        kind = "arc moved" if moved else "arc same"
        fill = colors.get(arc.owner, "#808080")
        yield f'<path class="{kind}" fill="{fill}" d="{path}"><title>{_text(_tooltip(plan, arc, outer))}</title></path>'
    yield "</g>"


def _tooltip(plan: PlanView, arc: Arc, outer: bool) -> str:
    which = f"partition {arc.first}" if arc.first == arc.last else f"partitions {arc.first}-{arc.last}"
    here, there = plan.name_of(arc.owner), plan.name_of(arc.other)
    if arc.owner == arc.other:
        return f"{which}: {here}, now and then"
    return f"{which}: {there} now, {here} then" if outer else f"{which}: {here} now, {there} then"


def _path(start: float, end: float, inside: float, outside: float) -> str:
    """A piece of a ring between two shares of a turn."""
    if end - start > WHOLE:
        end = start + WHOLE
    large = 1 if end - start > 0.5 else 0
    (x1, y1), (x2, y2) = _point(start, outside), _point(end, outside)
    (x3, y3), (x4, y4) = _point(end, inside), _point(start, inside)
    return (
        f"M{x1:.2f} {y1:.2f}A{outside:g} {outside:g} 0 {large} 1 {x2:.2f} {y2:.2f}"
        f"L{x3:.2f} {y3:.2f}A{inside:g} {inside:g} 0 {large} 0 {x4:.2f} {y4:.2f}Z"
    )


def _point(turn: float, radius: float) -> tuple[float, float]:
    angle = 2 * math.pi * turn
    return CENTRE + radius * math.sin(angle), CENTRE - radius * math.cos(angle)


def _middle(plan: PlanView, title: str) -> Iterator[str]:
    state = plan.phase if plan.in_progress else "staged" if plan.plan_id else "simulated"
    lines = [
        ("title", title),
        ("small", state),
        ("small", f"{plan.moved} of {len(plan.owners_before)} partitions move"),
        ("small", "inside: now, outside: then"),
    ]
    for row, (kind, text) in enumerate(lines):
        yield f'<text class="{kind} middle" x="{CENTRE:g}" y="{CENTRE - 24 + 20 * row:g}">{_text(text)}</text>'


def _legend(plan: PlanView, colors: Mapping[int, str]) -> Iterator[str]:
    left = SIZE + 8
    yield f'<text class="title" x="{left}" y="34">members</text>'
    yield f'<text class="small" x="{left}" y="52">partitions owned, and copies held with n = {plan.n}: now, then</text>'
    for index, share in enumerate(plan.shares):
        top = HEAD_HEIGHT + ROW_HEIGHT * index
        letter = mark_of(index)[0]
        place = f"host {share.host}, zone {share.zone or 'none'}"
        yield f"<g><title>{_text(place)}</title>"
        yield f'<rect x="{left}" y="{top}" width="26" height="26" rx="4" fill="{colors[share.node]}"/>'
        yield f'<text class="mark" x="{left + 13}" y="{top + 18}">{_text(letter)}</text>'
        yield f'<text class="name" x="{left + 36}" y="{top + 12}">{_text(share.name)}</text>'
        yield f'<text class="small" x="{left + 36}" y="{top + 28}">{_text(_told(plan, share))}</text></g>'


def _told(plan: PlanView, share: Share) -> str:
    fair = "goes" if share.goes else f"fair {percent(share.fair)}"
    owned = f"owns {share.before}, then {share.after} ({percent(share.after / len(plan.owners_after))}, {fair})"
    return f"{owned}; copies {share.copies_before}, then {share.copies_after}"


def _text(text: str) -> str:
    """Text as XML takes it: characters that it has no way to write become question marks."""
    return escape("".join(char if char.isprintable() else "?" for char in text))
