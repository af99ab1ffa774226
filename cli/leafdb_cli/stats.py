"""`leafdb stats`: how long requests take, what is queued, which keys are asked for most; of every node, or of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import sleep
from typing import Annotated, Any, Final

import typer

from leafdb_cli.options import parse_duration_s
from leafdb_cli.render import Column, bytes_fields
from leafdb_cli.session import Session, session_of

app = typer.Typer(help="What nodes count: durations, queues, hot keys.", no_args_is_help=True, rich_markup_mode=None)

TOP_DEFAULT: Final = 10
SPAN_S_MAX: Final = 3_600.0
QUANTILES: Final = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}

LATENCY_COLUMNS: Final = [
    Column("node"), Column("what"), Column("op"), Column("count", right=True), Column("mean_ms", right=True),
    *(Column(name, right=True) for name in QUANTILES),
]  # fmt: skip
QUEUE_COLUMNS: Final = [
    Column("node"), Column("queue"), Column("waiting", right=True),
    Column("room", show=lambda room: str(room) if room else "-", right=True),
]  # fmt: skip
TOP_COLUMNS: Final = [
    Column("bucket"), Column("shown", "key"), Column("share", show=lambda share: f"{share:.1%}", right=True),
    Column("reads", right=True), Column("writes", right=True), Column("nodes", spare=1),
]  # fmt: skip

NODE = Annotated[str, typer.Argument(metavar="[NODE]", help="A member's name; otherwise every member.")]


@app.command()
def latency(
    ctx: typer.Context,
    node: NODE = "",
    span: Annotated[str, typer.Option("--for", metavar="TIME", help="Only of the next so long, as 10s.")] = "",
) -> None:
    """Show how long requests take, by operation: since each process began, or of the next few seconds.

    Example: leafdb stats latency --for 10s
    """
    session = session_of(ctx, watch=True)
    span_s = _span_s(span)
    session.watching(lambda: _show_latency(session, node, span_s))


def _span_s(text: str) -> float:
    if not text:
        return 0.0
    try:
        span_s = parse_duration_s(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    if not 0 < span_s <= SPAN_S_MAX:
        raise typer.BadParameter("up to an hour", param_hint="--for")
    return span_s


def _show_latency(session: Session, node: str, span_s: float) -> None:
    before: Mapping[str, Any] = {"nodes": {}}
    if span_s:
        before = session.ask("stats.latency", {"node": node})
        sleep(span_s)
    reply = session.ask("stats.latency", {"node": node})
    items = [
        item
        for name, answer in reply["nodes"].items()
        for item in latency_items(name, answer["durations"], before["nodes"].get(name, {}).get("durations", ()))
    ]
    session.output.items("LatencyList", items, LATENCY_COLUMNS, errors=reply.get("errors") or {})


def latency_items(
    node: str, durations: Sequence[Mapping[str, Any]], before: Sequence[Mapping[str, Any]] = ()
) -> list[dict[str, Any]]:
    """An item for each histogram with anything in it, less what was there `before`."""
    was = {(each["metric"], each["op"]): each for each in before}
    items = []
    for each in durations:
        old = was.get((each["metric"], each["op"]))
        counts, total = list(each["counts"]), float(each["total"])
        if old is not None and sum(old["counts"]) <= sum(counts):  # else the process has begun anew
            counts = [now - then for now, then in zip(counts, old["counts"], strict=True)]
            total -= float(old["total"])
        count = sum(counts)
        if count:
            shown = {name: milliseconds(quantile(each["bounds"], counts, q)) for name, q in QUANTILES.items()}
            mean_ms = milliseconds(total / count)
            what = str(each["metric"]).replace("_", " ")
            items.append({"node": node, "what": what, "op": each["op"], "count": count, "mean_ms": mean_ms, **shown})
    return items


def quantile(bounds: Sequence[float], counts: Sequence[int], q: float) -> float:
    """The q-quantile as Prometheus has it: evenly spread within a bucket; the last bound for what is beyond it."""
    wanted, seen, low = q * sum(counts), 0, 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count and seen + count >= wanted:
            return low + (bound - low) * (wanted - seen) / count
        seen, low = seen + count, bound
    return bounds[-1]


def milliseconds(seconds: float) -> float:
    """To microseconds."""
    return round(seconds * 1000, 3)


@app.command()
def queues(ctx: typer.Context, node: NODE = "") -> None:
    """Show what waits on each node, and how much may.

    Example: leafdb stats queues --watch
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _show_queues(session, node))


def _show_queues(session: Session, node: str) -> None:
    reply = session.ask("stats.queues", {"node": node})
    items = [{"node": name, **line} for name, answer in reply["nodes"].items() for line in answer["queues"]]
    session.output.items("QueueList", items, QUEUE_COLUMNS, errors=reply.get("errors") or {})


@app.command()
def top(
    ctx: typer.Context,
    node: NODE = "",
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=64, help="How many keys.")] = TOP_DEFAULT,
) -> None:
    """Show the keys that are asked for most, of late. A sample: about one request in sixteen is looked at.

    Example: leafdb stats top -n 5
    """
    session = session_of(ctx, watch=True)
    session.watching(lambda: _show_top(session, node, count))


def _show_top(session: Session, node: str, count: int) -> None:
    reply = session.ask("stats.top", {"node": node, "count": count})
    items = hot_items(reply["nodes"])[:count]
    sampled = sum(int(answer["sampled"]) for answer in reply["nodes"].values())
    session.output.items("HotKeyList", items, TOP_COLUMNS, errors=reply.get("errors") or {}, extra={"sampled": sampled})
    session.note(f"of {sampled} requests looked at")


def hot_items(nodes: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the nodes say of each key, added up: the one asked for most first."""
    sampled = sum(int(answer["sampled"]) for answer in nodes.values()) or 1
    found: dict[tuple[str, tuple[bytes, ...]], dict[str, Any]] = {}
    for name, answer in nodes.items():
        for line in answer["keys"]:
            parts = tuple(bytes(part) for part in line["key"])
            item = found.setdefault((line["bucket"], parts), {"reads": 0, "writes": 0, "error": 0, "nodes": []})
            for field in ("reads", "writes", "error"):
                item[field] += int(line[field])
            item["nodes"].append(name)
    items = []
    for (bucket, parts), item in found.items():
        names = zip(("key", "sort_key"), parts, strict=False)
        fields = {name: text for field, part in names for name, text in bytes_fields(field, part).items()}
        shown = " / ".join(part.decode("utf-8", "backslashreplace") for part in parts)
        share = (item["reads"] + item["writes"]) / sampled
        items.append({"bucket": bucket, **fields, "shown": shown, "share": round(share, 4), **item})
    return sorted(items, key=lambda item: (-item["share"], item["bucket"], item["shown"]))
