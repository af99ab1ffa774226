"""What `leafdb repair run --dry-run` shows: per range how many keys differ in which direction, some of them with both
versions, and what a repair would move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from leafdb_cli.render import Column, human_bytes, plain_table
from leafdb_cli.repair_view import when

if TYPE_CHECKING:
    from rich.console import RenderableType

    from leafdb_cli.session import Session

Line = Mapping[str, Any]

FIGURES: Final = (
    "ranges_compared", "ranges_failed", "ranges_differing", "only_here", "only_there", "different", "keys_differing",
    "keys_sent", "keys_received", "bytes", "last_error",
)  # fmt: skip
COLUMNS: Final = [
    Column("node"), Column("peer"), Column("bucket"), Column("partition", right=True),
    Column("only_here", "only on node", right=True), Column("only_there", "only on peer", right=True),
    Column("different", right=True),
]  # fmt: skip


def show(session: Session, findings: Mapping[str, Line], errors: Mapping[str, str]) -> None:
    """Print what dry runs have found, by node."""
    totals = [{"node": name, **{figure: found[figure] for figure in FIGURES}} for name, found in findings.items()]
    ranges = [{"node": name, **line} for name, found in findings.items() for line in found["ranges"]]
    samples = [_sample(name, line) for name, found in findings.items() for line in found["samples"]]
    session.output.items(
        "RepairForecastList",
        ranges,
        COLUMNS,
        errors=errors,
        extra={"totals": totals, "samples": samples},
        pretty=lambda: _view(totals, ranges, samples),
        plain=lambda: plain_table(COLUMNS, ranges) + "".join(f"{line}\n" for line in _told(samples)),
        empty="no range differs",
    )
    if session.options.output == "table" and not session.output.pretty:
        for said in _summary(totals):
            session.note(said)
    session.note("nothing was moved")


def _sample(node: str, line: Line) -> dict[str, Any]:
    from leafdb.model.key import decode_key
    from leafdb_cli.keys import key_fields

    fields = key_fields(decode_key(bytes(line["key"])))
    where = {name: line[name] for name in ("bucket", "partition", "peer")}
    return {"node": node, **where, **fields, "here": line["here"], "there": line["there"]}


def _summary(totals: Sequence[Line]) -> list[str]:
    return [
        f"{line['node']}: {line['ranges_differing']} of {line['ranges_compared']} ranges differ; a repair would find "
        f"{line['keys_differing']} keys, send {line['keys_sent']}, receive {line['keys_received']}, "
        f"{human_bytes(line['bytes'])}"
        + (f"; {line['ranges_failed']} ranges failed: {line['last_error']}" if line["ranges_failed"] else "")
        for line in totals
    ]


def _told(samples: Sequence[Line]) -> list[str]:
    found = []
    for line in samples:
        name = line.get("key", line.get("key_base64"))
        sort = line.get("sort_key", line.get("sort_key_base64"))
        found.append(f"{line['bucket']} {name}" + (f" {sort}" if sort is not None else ""))
        found += [f"  on {line['node']}: {_version(line['here'])}", f"  on {line['peer']}: {_version(line['there'])}"]
    return found


def _version(version: Line | None) -> str:
    if version is None:
        return "nothing"
    what = f"{version['siblings']} siblings" if version["siblings"] != 1 else "1 value"
    if version["tombstones"]:
        what = "deleted" if not version["siblings"] else f"{what} and a deletion"
    written = f", {when(version['written_ms'])}" if version["written_ms"] is not None else ""
    return f"{version['version']}  {what}, {human_bytes(version['bytes'])}{written}"


def _view(totals: Sequence[Line], ranges: Sequence[Line], samples: Sequence[Line]) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from leafdb_cli.render import fitting, rich_table

    parts: list[RenderableType] = [Text(said) for said in _summary(totals)]
    if ranges:
        parts.append(rich_table(fitting(COLUMNS, ranges, 80), ranges))
    parts += [Text(said, style="" if said.startswith(" ") else "bold") for said in _told(samples)]
    return Group(*parts)
