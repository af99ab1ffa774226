"""A plan on a screen of 80 columns: what a tired person decides on, in the order in which it is decided.

Refusals and the command to type next are last, where the eye is when the command returns. A line is a list of (text,
style): on a terminal the styles count, elsewhere the same text is printed bare. Nothing is told by colour alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from leafdb_cli.plan_view import PlanView, Share, StepView, ratio
from leafdb_cli.render import human_bytes, human_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

WIDTH: Final = 78
CELLS_PER_LINE: Final = 64
STRIP_LINES_MAX: Final = 16
"""A ring of more partitions is not printed: `--svg` draws it."""
PALETTE: Final = ("cyan", "magenta", "yellow", "green", "blue", "red", "bright_cyan", "bright_magenta", "bright_yellow")
LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

Segment = tuple[str, str]
"""Text and how it looks."""
Line = list[Segment]


def mark_of(index: int) -> tuple[str, str]:
    """The letter and the colour of the member at this place among the members."""
    return LETTERS[index % len(LETTERS)], PALETTE[index % len(PALETTE)]


def percent(share: float) -> str:
    """`33.6 %`."""
    return f"{100 * share:.1f} %"


def plan_lines(plan: PlanView, commands: Sequence[tuple[str, str]] = ()) -> list[Line]:
    """The whole screen. `commands` are what may be typed next, each with what it does."""
    lines = [*_head(plan), *_ownership(plan), *_strip(plan), *_moves(plan), *_steps(plan), *_spread(plan)]
    lines += _findings("warnings", "!", "yellow", plan.warnings)
    if plan.refusals:
        what = "NOT SAFE: acknowledged writes may be lost; a commit needs --force"
        lines += _findings(what, "x", "bold red", plan.refusals)
    if commands:
        lines.append(_title("next"))
        for command, what in commands:
            lines += [[(f"  {what}:", "")], [(f"    {command}", "bold")]]
    return lines


def plain(lines: Iterable[Line]) -> str:
    """The screen without looks."""
    return "".join("".join(text for text, _ in line).rstrip() + "\n" for line in lines)


def pretty(lines: Iterable[Line]) -> RenderableType:
    """The screen for a terminal."""
    from rich.text import Text

    return Text("\n").join(Text.assemble(*line) for line in lines)


def _title(text: str, style: str = "bold") -> Line:
    return [(f"\n{text}", style)]


def _head(plan: PlanView) -> list[Line]:
    if plan.in_progress:
        state = f"in progress: {plan.phase}"
    elif plan.plan_id:
        state = "staged: nothing has moved"
    else:
        state = "simulated: nothing is staged, nothing has moved"
    name = f"plan {plan.plan_id}" if plan.plan_id else "a plan"
    lines: list[Line] = [[(name, "bold"), ("  ", ""), (state, "yellow" if plan.in_progress else "cyan")]]
    return lines + [wrapped for change in plan.staged for wrapped in _wrapped(change, "  ", "")]


def _ownership(plan: PlanView) -> list[Line]:
    partitions = len(plan.owners_before)
    width = max([4, *(len(share.name) for share in plan.shares)])
    copies = f"copies, n={plan.n}"
    zones = len({share.zone for share in plan.shares}) > 1
    zone = "  zone" if zones else ""
    heading = f"    {'':<{width}}  {'owns now':>12}  {'then':>12}  {'fair':>7}  {copies:>14}{zone}"
    lines: list[Line] = [_title("who has what"), [(heading, "dim")]]
    for index, share in enumerate(plan.shares):
        letter, color = mark_of(index)
        fair = "goes" if share.goes else percent(share.fair)
        lines.append(
            [
                (f"  {letter} ", f"bold {color}"),
                (f"{share.name:<{width}}", "bold"),
                (f"  {_owned(share.before, partitions)}", ""),
                (f"  {_owned(share.after, partitions)}", _style_of(share)),
                (f"  {fair:>7}", "yellow" if share.goes else ""),
                (f"  {share.copies_before:>5} -> {share.copies_after:>5}", ""),
                (f"  {share.zone}" if zones else "", "dim"),
            ]
        )
    return lines


def _owned(count: int, partitions: int) -> str:
    return f"{count:>5} {percent(count / partitions):>6}"


def _style_of(share: Share) -> str:
    return "green" if share.moved > 0 else "yellow" if share.moved < 0 else ""


def _strip(plan: PlanView) -> list[Line]:
    """The ring that will be, a cell for each partition, and a mark below each that changes hands."""
    if len(plan.owners_after) > STRIP_LINES_MAX * CELLS_PER_LINE:
        return [_title("the ring then"), [("  too many partitions to print: --svg FILE draws them", "dim")]]
    marks = {share.node: mark_of(index) for index, share in enumerate(plan.shares)}
    lines: list[Line] = [_title("the ring then, ^ where a partition changes its owner")]
    pairs = list(zip(plan.owners_before, plan.owners_after, strict=True))
    for start in range(0, len(pairs), CELLS_PER_LINE):
        told = pairs[start : start + CELLS_PER_LINE]
        line: Line = [(f"{start:>6}  ", "dim")]
        for before, after in told:
            letter, color = marks.get(after, ("?", "red"))
            line.append((letter, f"bold black on {color}" if before != after else f"{color}"))
        lines.append(line)
        if any(before != after for before, after in told):
            lines.append([(" " * 8 + "".join(" ^"[before != after] for before, after in told), "")])
    return lines


def _moves(plan: PlanView) -> list[Line]:
    rate = "the rate seen" if plan.rate_measured else "an assumed rate"
    took = f", about {human_seconds(plan.seconds)} at {rate}" if plan.seconds and plan.bytes_total else ""
    left = "left to copy" if plan.in_progress else "to copy"
    lines: list[Line] = [
        _title("what moves"),
        [(f"  {plan.moved:>6} partitions change their owner{_least(plan.moved, plan.moved_least)}", "")],
        [(f"  {plan.copies:>6} copies are made{_least(plan.copies, plan.copies_least)}", "")],
        [(f"  {human_bytes(plan.bytes_total)} {left}{took}", "bold")],
    ]
    width = max([4, *(len(name) for name, _ in plan.bytes_to)])
    return lines + [[(f"    to {name:<{width}} {human_bytes(size):>11}", "")] for name, size in plan.bytes_to]


def _least(made: int, least: int) -> str:
    times = ratio(made, least)
    return f" (least possible {least}{'' if times is None else f', ratio {times:.2f}'})"


def _steps(plan: PlanView) -> list[Line]:
    if not plan.steps:
        return []
    several = len({step.n for step in plan.steps}) > 1
    lines: list[Line] = [_title("live replicas that reads can ask, of the range that is worst off")]
    for step in plan.steps:
        name = f"{step.name}, n={step.n}" if several else step.name
        lines.append([(f"  {name:<30} {step.least_live} of {step.replicas}", _danger(step)), *_where(step)])
    return lines


def _danger(step: StepView) -> str:
    if step.least_live == 0:
        return "bold red"
    return "" if step.least_live >= step.replicas else "yellow"


def _where(step: StepView) -> Line:
    """The ranges, where they are not simply all of them."""
    if not step.ranges or step.least_live >= step.replicas:
        return []
    return [("  " + textwrap.shorten(f"ranges {step.ranges}", WIDTH - 42, placeholder=" ..."), "dim")]


def _spread(plan: PlanView) -> list[Line]:
    before, after = plan.spread_before, plan.spread_after
    rows = (
        ("hosts", before.hosts, after.hosts),
        ("zones", before.zones, after.zones),
        (f"hosts of one key's copies, at least (n={plan.n})", before.least_hosts, after.least_hosts),
        (f"zones of one key's copies, at least (n={plan.n})", before.least_zones, after.least_zones),
    )
    return [
        _title("spread"),
        *([(f"  {name:<46} {now:>3} -> {then:>3}", "yellow" if then < now else "")] for name, now, then in rows),
    ]


def _findings(title: str, sign: str, style: str, texts: Sequence[str]) -> list[Line]:
    if not texts:
        return []
    return [_title(title, style), *(line for text in texts for line in _wrapped(text, f"  {sign} ", style))]


def _wrapped(text: str, first: str, style: str) -> list[Line]:
    made = textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False)
    return [[(line, style)] for line in made]
