"""A verdict on a history as text that a person can follow.

What one needs to see is short even when the history is long: the answer that nothing explains, the longest order that
explains the rest with the state it ends in, what was left over, and how these lay in time. So only the end of the order
is shown, and of time only the part in which the shown operations lie; each mark on the line is one event, whatever time
went by between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from leafdb.testing.linearizability import STEPS_MAX, KeyReport, Operation, Report, Verdict, check
from leafdb.testing.linearizability_models import Model, S
from leafdb.testing.violation import Invariant, violated

ORDER_SHOWN: Final = 12
LEFT_SHOWN: Final = 24
WIDTH_MAX: Final = 72


def require_linearizable(operations: Iterable[Operation], model: Model[S], *, steps_max: int = STEPS_MAX) -> Report:
    """Raise Violation, with its story, for the first key that is not linearizable. UNDECIDED passes: see the report."""
    report = check(operations, model, steps_max=steps_max)
    first = report.violation
    if first is not None:
        violated(Invariant.LINEARIZABLE, explain(first), str(first.key))
    return report


def explain(report: KeyReport) -> str:
    """The verdict on one key, and why."""
    lines = [f"{report.key}: {report.verdict} ({len(report.operations)} operations, {report.steps} steps)"]
    if report.verdict is Verdict.LINEARIZABLE:
        return lines[0]
    if report.overdue is not None:
        answer = f"{report.overdue.process} {said(report.overdue)}"
        so_far = "no order explains" if report.verdict is Verdict.VIOLATION else "no order was found that explains"
        lines.append(f"{so_far} all answers up to: {answer}")
    skipped = max(0, len(report.order) - ORDER_SHOWN)
    lines.append(f"longest order found, {len(report.order)} operations:")
    if skipped:
        lines.append(f"  ... {skipped} before")
    lines.append(f"  {'':<4} {'':<10} state {shown_state(report.states[skipped])}")
    for number, operation in enumerate(report.order[skipped:], skipped + 1):
        state = shown_state(report.states[number])
        lines.append(f"  #{number:<3} {operation.process!s:<10} {said(operation)}  ->  state {state}")
    lines.append(f"not placed, {len(report.left)} operations:")
    left = report.left[-LEFT_SHOWN:]
    lines += [f"  {mark(report, each)} {each.process!s:<10} {said(each)}" for each in left]
    numbered = {index: f"#{index + 1}" for index in range(skipped, len(report.order))}
    rows = [(each, numbered[index]) for index, each in enumerate(report.order) if index >= skipped]
    rows += [(each, mark(report, each).strip()) for each in left]
    lines.append("in time, one event a column (|--| call to return, |--> never answered):")
    return "\n".join(lines + timeline(rows))


def mark(report: KeyReport, operation: Operation) -> str:
    """`!!` for the answer that nothing explains, `?` for an operation nobody knows the outcome of."""
    if operation is report.overdue:
        return "!!  "
    return "?   " if operation.unanswered else "    "


def said(operation: Operation) -> str:
    """The operation and its answer."""
    answer = "?" if operation.unanswered else repr(operation.result)
    return f"{operation.argument!r} = {answer}"


def shown_state(state: object) -> str:
    """The state, cut where it gets long."""
    text = repr(state)
    return text if len(text) <= WIDTH_MAX else f"... {text[-WIDTH_MAX:]}"


def timeline(rows: list[tuple[Operation, str]]) -> list[str]:
    """One line for each operation, in the order of calls, with its label."""
    rows = sorted(rows, key=lambda row: row[0].called_at)
    times = [(each.called_at, 0) for each, _ in rows]
    times += [(each.returned_at, 1) for each, _ in rows if not each.unanswered]
    columns = {time: column for column, time in enumerate(sorted(set(times)))}
    squeeze = max(1, -(-len(columns) // WIDTH_MAX))
    width = (len(columns) + squeeze - 1) // squeeze + 1
    lines = []
    for each, label in rows:
        start = columns[(each.called_at, 0)] // squeeze
        if each.unanswered:
            bar = "|" + "-" * (width - start - 2) + ">"
        else:
            end = columns[(each.returned_at, 1)] // squeeze
            bar = "|" + "-" * (end - start - 1) + "|" * (end > start)
        lines.append(f"  {label:<4} {each.process!s:<10} {' ' * start}{bar}".rstrip())
    return lines
