"""The room of names: writes that were made twice as they were sent twice, and wrong answers to what became of one."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

PUT: Final = "leafdb.model.put"
OUTCOME: Final = "leafdb.node.admin_outcome"
CLIENT: Final = "leafdb.client.kv"

LOOKED: Final = "                    dots = dots_of(record, op_id) if op_id in record else []\n"


TWICE: Final = (Invariant.NO_FALSE_SIBLINGS, Invariant.DELETIONS_STAY, Invariant.NOTHING_LOST)


def _name(name: str, title: str, *edits: tuple[str, str, str], caught_by: tuple[Invariant, ...]) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.CLUSTER,
        caught_by=caught_by,
        seeds_max=40,
        nodes=3,
        operations=400,
    )


MUTATIONS: Final = (
    _name(
        "retry-applied-twice",
        "A node that has a write makes another of it when it is sent once more (riak: a retried put is a sibling).",
        (
            PUT,
            "        if head.op_id == op_id and op_id != NO_OPERATION:\n",
            "        if head.op_id == op_id == NO_OPERATION:\n",
        ),
        caught_by=(Invariant.NO_FALSE_SIBLINGS,),
    ),
    _name(
        "retry-under-another-id",
        "A client sends a write of unknown outcome again under a new id: it is two writes where the first one arrived.",
        (
            CLIENT,
            "                flags | FLAG_RETRY if again else flags,\n",
            "                flags,\n",
        ),
        (
            CLIENT,
            "                self.op_id,\n",
            "                self.op_id[:-1] + bytes((self.op_id[-1] ^ again,)),\n",
        ),
        caught_by=(Invariant.NO_FALSE_SIBLINGS, Invariant.HONEST_OUTCOMES),
    ),
    _name(
        "outcome-overlooks-what-is-there",
        "Whoever asks what became of a write that lives is told that nobody knows of it.",
        (OUTCOME, LOOKED, "                    dots = dots_of(record, op_id)[:0]\n"),
        caught_by=(Invariant.HONEST_OUTCOMES,),
    ),
    _name(
        "outcome-of-the-neighbour",
        "A write is said to be applied because there is one of the same key.",
        (OUTCOME, LOOKED, "                    dots = list(header(record).heads)\n"),
        caught_by=(Invariant.DOTS_UNIQUE, Invariant.HONEST_OUTCOMES, Invariant.NO_FALSE_SIBLINGS),
    ),
    _name(
        "twins-shown-twice",
        "A write that two nodes minted, a first try and its retry, is shown as two siblings.",
        (
            "leafdb.model.live",
            "        if sibling.op_id in operations:\n",
            "        if sibling.op_id in operations and sibling.op_id == NO_OPERATION:\n",
        ),
        caught_by=TWICE,
    ),
    _name(
        "outcome-says-replaced",
        "A write that lives is said to be replaced.",
        (
            OUTCOME,
            "                covered = covered or any(dot not in head.heads for dot in has)\n",
            "                covered = covered or bool(has)\n",
        ),
        caught_by=(Invariant.HONEST_OUTCOMES,),
    ),
)
