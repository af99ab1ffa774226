"""From the story of a failing run to a text that a person can follow: what happened to the key concerned, where.

    seed 7 broke I2: Every acknowledged write is live or covered by a write that saw it.
    ...
       time s  1 2 3  who       what
        0.412  | | |  client 3  put #17 begins
        0.413  | # |  n2        stored 1 sibling
        0.900  | x |  nemesis   kill n2

A line is shown when it is about the key, or about none and a fault, a start or an end of a node; and not before the
first line about the key. Without a key all lines about none are shown, unless the story speaks of a single key anyway.
Of a run of many short histories only the last is told, the one that failed. One column per node says whether it is up
and which one a line is about. What repeats is told once with its number; what is still too long keeps its head and,
since bugs show at the end, a longer tail.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import wrap
from typing import Final

from leafdb.sim.outcome import Outcome
from leafdb.sim.trace import Line
from leafdb.testing.violation import Invariant

HEAD_ROWS: Final = 40
TAIL_ROWS: Final = 110
TEXT_MAX: Final = 160
WIDTH: Final = 120
NEMESIS: Final = "nemesis"
CHECKER: Final = "checker"
PLAN: Final = "plan"
"""Who says, at the beginning, what the seed drew."""
RUNNER: Final = "runner"
"""Who says where a history begins, in tiers whose runs are many of them."""

UP: Final = "|"
DOWN: Final = "."
PAUSED: Final = "="
ACTS: Final = "#"
STRUCK: Final = "x"
LEGEND: Final = f"{UP} up, {PAUSED} paused, {DOWN} down; {ACTS} this node acts, {STRUCK} a fault strikes it"

UPS: Final = ("start", "started", "ready", "restart", "restarted", "up", "resume", "resumed")
DOWNS: Final = (
    "kill",
    "killed",
    "stop",
    "stopped",
    "power",
    "power_cut",
    "crash",
    "crashed",
    "clean",
    "wipe",
    "restore",
)
PAUSES: Final = ("pause", "paused")
STATES: Final[Mapping[str, str]] = {
    **dict.fromkeys(UPS, UP), **dict.fromkeys(DOWNS, DOWN), **dict.fromkeys(PAUSES, PAUSED),
}  # fmt: skip
"""How a node is after a line that begins with this word, or with `n1 is` and this word."""

_NODE: Final = re.compile(r"\b(?:n|host-)([0-9]+)\b")
"""A node by its name, or by that of its machine, as faults of the network name it."""
_SUBJECT: Final = re.compile(r"n[0-9]+ (?:is |was )?")


@dataclass(frozen=True, slots=True)
class _Row:
    at_s: float
    marks: str
    who: str
    text: str
    times: int = 1
    until_s: float = 0.0


def timeline(outcome: Outcome, replay: str) -> str:
    """The whole text; `replay` is the command line that makes this run again."""
    rows = _rows(outcome)
    return "\n".join([*_header(outcome, replay), "", *(_table(rows, outcome.nodes) or ["the run left no story"]), ""])


def promise(code: str) -> str:
    """An invariant in words: the sentence that stands under it where it is defined, or its name."""
    found = next((one for one in Invariant if one.value == code), None)
    if found is None:
        return code
    return _sentences().get(found.name) or found.name.replace("_", " ").lower()


def _header(outcome: Outcome, replay: str) -> list[str]:
    broken = outcome.broken
    assert broken is not None, "only a failing run has a timeline"
    about = f" (key {broken.key})" if broken.key is not None else ""
    plan = next((line.text for line in outcome.lines if line.who == PLAN), "")
    return [
        f"seed {outcome.seed} broke {broken.invariant}: {promise(broken.invariant)}",
        *(f"  {line}" for line in f"{broken.message}{about}".splitlines()),
        f"  tier {outcome.tier}, {outcome.nodes} nodes, {outcome.operations} operations, {outcome.virtual_s:.3f} "
        f"virtual seconds, trace {outcome.trace}",
        *wrap(plan, WIDTH, initial_indent="  plan: ", subsequent_indent="    "),
        f"  again: {replay}",
    ]


def _table(rows: Sequence[_Row], nodes: int) -> list[str]:
    if not rows:
        return []
    head, tail, hidden = rows, rows[:0], len(rows) - HEAD_ROWS - TAIL_ROWS
    if hidden > 0:
        head, tail = rows[:HEAD_ROWS], rows[-TAIL_ROWS:]
    width = max(len(row.who) for row in (*head, *tail))
    columns = " ".join(str(number) for number in range(1, nodes + 1))
    return [
        f"  nodes: {LEGEND}",
        f"  {'time s':>10}  {columns}  {'who':<{width}}  what",
        *(_line(row, width) for row in head),
        *([f"  {'...':>10}  {hidden} rows left out"] if hidden > 0 else []),
        *(_line(row, width) for row in tail),
    ]


def _rows(outcome: Outcome) -> list[_Row]:
    """The lines to show with the state of every node at each; equal neighbours are one row."""
    story = _last_history(outcome.lines)
    key = _key_of(story, outcome.broken.key if outcome.broken is not None else None)
    begun = key is None
    states = dict.fromkeys(range(1, outcome.nodes + 1), UP)
    rows: list[_Row] = []
    for line in story:
        about = _nodes_of(line)
        state = _state_of(line.text) if line.key is None else None
        begun = begun or line.key == key
        if begun and (line.key == key or (line.key is None and (line.who in (NEMESIS, CHECKER) or state is not None))):
            row = _Row(line.at_s, _marks(states, about, STRUCK if line.who == NEMESIS else ACTS), line.who, line.text)
            last = rows[-1] if rows else None
            if last is not None and (last.who, last.text, last.marks) == (row.who, row.text, row.marks):
                rows[-1] = replace(last, times=last.times + 1, until_s=line.at_s)
            else:
                rows.append(row)
        if state is not None:
            states.update((number, state) for number in about if number in states)
    return rows


def _last_history(lines: Sequence[Line]) -> Sequence[Line]:
    begins = [index for index, line in enumerate(lines) if line.who == RUNNER]
    return lines[begins[-1] :] if begins else lines


def _key_of(story: Sequence[Line], key: str | None) -> str | None:
    """The key to tell of: the one that broke if the story knows it, else the only one it knows, else none."""
    known = dict.fromkeys(line.key for line in story if line.key is not None)
    if key in known:
        return key
    return next(iter(known)) if len(known) == 1 else None


def _state_of(text: str) -> str | None:
    words = text[match.end() :] if (match := _SUBJECT.match(text)) else text
    return STATES.get(words.partition(" ")[0].rstrip(":,").lower())


def _nodes_of(line: Line) -> list[int]:
    """The nodes a line is about: who speaks, or those the nemesis names."""
    return [int(number) for number in _NODE.findall(line.text if line.who == NEMESIS else line.who)]


def _marks(states: Mapping[int, str], about: Sequence[int], mark: str) -> str:
    return " ".join(f"{mark if number in about else state:<{len(str(number))}}" for number, state in states.items())


def _line(row: _Row, width: int) -> str:
    return f"  {row.at_s:>10.3f}  {row.marks}  {row.who:<{width}}  {_text(row)}"


def _text(row: _Row) -> str:
    text = " ".join(row.text.split())
    if len(text) > TEXT_MAX:
        text = text[: TEXT_MAX - 3] + "..."
    return text if row.times == 1 else f"{text} (x{row.times}, until {row.until_s:.3f})"


def _sentences() -> dict[str, str]:
    """The docstrings under the members of Invariant: they are not kept at run time, so the source is asked."""
    try:
        (definition,) = ast.parse(inspect.getsource(Invariant)).body
    except (OSError, SyntaxError, ValueError):
        return {}
    assert isinstance(definition, ast.ClassDef), "the source of a class"
    found: dict[str, str] = {}
    for before, after in zip(definition.body, definition.body[1:], strict=False):
        match before, after:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(sentence))):
                found[name] = sentence
    return found
