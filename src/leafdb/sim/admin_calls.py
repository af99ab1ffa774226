"""What operators do while clients work, recorded: buckets made, dropped and listed, repairs, questions about health.

Creating and dropping go into the history of names. A creation is told the identity of what it made (its generation);
that a name is taken is an answer, too. A drop that is refused proves nothing about the name, for it is the bucket that
the node knew by it which is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import trio

from leafdb.errors import LeafdbError, NotApplied, Reason
from leafdb.model.bucket import BucketProperties
from leafdb.sim.clients import RealClient
from leafdb.testing.linearizability_models import NOT_APPLIED, Create, Drop
from leafdb.testing.violation import Invariant, require
from leafdb.types import FIRST_BUCKET_ID, BucketId

ADMIN_S: Final = 8.0
"""The deadline of what changes the cluster."""


async def create_bucket(client: RealClient, name: str) -> None:
    """Make a bucket of this name."""
    wanted = BucketProperties(id=BucketId(FIRST_BUCKET_ID), name=name, generation=0, n=client.setting.bucket.n)
    args = {"properties": wanted.to_wire(), "exist_ok": False}
    names = client.setting.names
    call = names.call(client.name, name, Create())
    client.tell(f"bucket {name}: create begins")
    made = await _change(client, "bucket.create", args)
    if isinstance(made, Mapping):
        created = BucketProperties.from_wire(made)
        require(created.name == name, Invariant.SELF_CHECK, f"bucket {name} was asked for, {created.name} was made")
        names.returned(call, created.generation)
        client.tell(f"bucket {name}: created in epoch {created.generation}")
    elif made is Reason.BUCKET_EXISTS:
        names.returned(call, None)
    elif made is not None:
        names.returned(call, NOT_APPLIED)


async def drop_bucket(client: RealClient, name: str) -> None:
    """Drop the bucket that has this name."""
    names = client.setting.names
    call = names.call(client.name, name, Drop())
    client.tell(f"bucket {name}: drop begins")
    dropped = await _change(client, "bucket.drop", {"name": name})
    if isinstance(dropped, Mapping):
        names.returned(call, True)
        client.tell(f"bucket {name}: dropped")
    elif dropped is not None:
        names.returned(call, NOT_APPLIED)


async def list_buckets(client: RealClient) -> None:
    """All of them; the one that the clients use must be there."""
    try:
        buckets = await client.db.buckets(timeout=2.0)
    except LeafdbError as error:
        client.tell(f"list of buckets failed: {client.judged(error, None)}")
        return
    require(client.setting.bucket.name in buckets, Invariant.ONE_HISTORY, "a node has forgotten a bucket")
    client.tell(f"buckets: {' '.join(buckets)}")


async def ask_status(client: RealClient) -> None:
    """How the cluster is."""
    try:
        status = await client.db.status(timeout=2.0)
    except LeafdbError as error:
        client.tell(f"status failed: {client.judged(error, None)}")
        return
    possible = status.nodes_up <= status.nodes_total
    if client.setting.plan.rings is None:
        possible = possible and status.nodes_total == len(client.setting.nodes)
    require(possible, Invariant.SELF_CHECK, f"a status that cannot be: {status}")
    client.tell(f"status: {status.nodes_up} of {status.nodes_total} up, epoch {status.epoch}")


async def start_repair(client: RealClient) -> None:
    """Have everything compared."""
    try:
        await client.db.admin("repair.run", {}, changes=True, timeout=2.0)
    except LeafdbError as error:
        client.tell(f"repair failed: {client.judged(error, None)}")
        return
    client.tell("repair begun")


async def _change(client: RealClient, verb: str, args: Mapping[str, Any]) -> Mapping[str, Any] | Reason | None:
    """The answer, or why it was refused; None when nobody knows what came of it."""
    try:
        return await client.db.admin(verb, args, changes=True, timeout=ADMIN_S)
    except trio.Cancelled:
        client.tell(f"{verb} cancelled")
        raise
    except NotApplied as error:
        client.tell(f"{verb} refused: {error.reason}")
        return error.reason
    except LeafdbError as error:
        client.tell(f"{verb} failed: {client.judged(error, None)}")
        return Reason.FAILED if error.outcome == "not_applied" else None
