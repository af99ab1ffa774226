"""The room of stamps: writes that are older, by their stamp, than what they replace (decision 0008, section 2).

Nothing is lost by that at once. It is when the deletion with the older stamp is forgotten first, and what it deleted
comes late, that a value returns; so what is judged is the stamps themselves.
"""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

PUT: Final = "leafdb.model.put"


def _stamps(
    name: str,
    title: str,
    edit: tuple[str, str, str],
    tier: Tier,
    operations: int,
    *,
    nodes: int = 5,
    seeds_max: int = 20,
) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=(Edit(*edit),),
        tier=tier,
        caught_by=(Invariant.CAUSAL_STAMPS,),
        seeds_max=seeds_max,
        nodes=nodes,
        operations=operations,
    )


MUTATIONS: Final = (
    _stamps(
        "stamp-below-its-context",
        "A write over what was read elsewhere has the stamp of its node's clock, which is slow.",
        (PUT, "    if floor >= stamp:\n", "    if floor >= stamp and conflict is Conflict.LWW:\n"),
        tier=Tier.RECORD,
        operations=2_000,
    ),
    _stamps(
        "stamp-below-its-record",
        "A write has the stamp of its node's clock, though the record it is made over has newer ones.",
        (PUT, "        if head.stamp >= stamp:\n", "        if head.stamp >= stamp and conflict is Conflict.LWW:\n"),
        tier=Tier.RECORD,
        operations=2_000,
    ),
    _stamps(
        "context-without-its-stamp",
        "The coordinator opens a context and looks at its clock alone.",
        (
            "leafdb.node.put_driver",
            "    return (None if bucket.conflict is Conflict.LWW else clock), stamp\n",
            "    return (None if bucket.conflict is Conflict.LWW else clock), 0\n",
        ),
        tier=Tier.CLUSTER,
        operations=400,
    ),
    _stamps(
        "deletion-without-a-stamp",
        "The context of a read has the newest stamp of what is shown, and not that of a deletion.",
        (
            "leafdb.node.get_under_way",
            "        if sibling.stamp > newest:\n",
            "        if sibling.stamp > newest and sibling.value is not None:\n",
        ),
        tier=Tier.CLUSTER,
        operations=400,
    ),
    _stamps(
        "lww-client-forgets-what-it-saw",
        "A write in an lww bucket brings nothing of what its client has read: through a slow clock it is lost.",
        (
            "leafdb.client.kv",
            "                self._above = session.newest(properties.id, prepared.key)\n",
            '                self._above = b""\n',
        ),
        tier=Tier.CLUSTER,
        nodes=3,
        operations=500,
        seeds_max=30,
    ),
)
