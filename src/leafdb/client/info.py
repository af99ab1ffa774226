"""What the calls about the cluster answer: buckets, status, ping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from leafdb.model.bucket import BucketProperties, count_name
from leafdb.types import Conflict, Durability


@dataclass(frozen=True, slots=True)
class BucketInfo:
    """A bucket's properties, in the words of `create_bucket`."""

    name: str
    n: int
    r: int | Literal["quorum", "all"]
    w: int | Literal["quorum", "all"]
    pr: int | Literal["quorum", "all"]
    pw: int | Literal["quorum", "all"]
    dw: int | Literal["quorum", "all"]
    conflict: Literal["siblings", "lww"]
    durability: Literal["always", "periodic"]
    ttl: timedelta | None
    sloppy: bool


@dataclass(frozen=True, slots=True)
class Pong:
    """Who answered a ping: the node's number and name, and the epoch of the metadata it holds."""

    node: int
    name: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Status:
    """The cluster in a few figures. `errors` names the nodes that could not be asked, with the reason; `notices` are
    what goes on and ends by itself, such as a change of the ring, and make nothing unhealthy."""

    cluster: str
    epoch: int
    healthy: bool
    nodes_up: int
    nodes_total: int
    hints_pending: int
    repair_pending: int
    problems: tuple[str, ...]
    errors: Mapping[str, str]
    notices: tuple[str, ...] = ()


def bucket_info(properties: BucketProperties) -> BucketInfo:
    """The public form of bucket properties."""
    return BucketInfo(
        name=properties.name,
        n=properties.n,
        r=count_name(properties.r),
        w=count_name(properties.w),
        pr=count_name(properties.pr),
        pw=count_name(properties.pw),
        dw=count_name(properties.dw),
        conflict="lww" if properties.conflict is Conflict.LWW else "siblings",
        durability="periodic" if properties.durability is Durability.PERIODIC else "always",
        ttl=timedelta(milliseconds=properties.ttl_ms) if properties.ttl_ms else None,
        sloppy=properties.sloppy,
    )


def status_of(reply: Mapping[str, Any]) -> Status:
    """The status in an answer of verb "status". KeyError, TypeError or ValueError when it is none."""
    return Status(
        cluster=str(reply["cluster"]),
        epoch=int(reply["epoch"]),
        healthy=bool(reply["healthy"]),
        nodes_up=int(reply["nodes_up"]),
        nodes_total=int(reply["nodes_total"]),
        hints_pending=int(reply["hints_pending"]),
        repair_pending=int(reply["repair_pending"]),
        problems=tuple(str(problem) for problem in reply["problems"]),
        errors={str(name): str(reason) for name, reason in reply.get("errors", {}).items()},
        notices=tuple(str(notice) for notice in reply.get("notices", ())),
    )


def pong_of(reply: Mapping[str, Any]) -> Pong:
    """The answer of verb "ping". KeyError, TypeError or ValueError when it is none."""
    return Pong(node=int(reply["node"]), name=str(reply["name"]), epoch=int(reply["epoch"]))
