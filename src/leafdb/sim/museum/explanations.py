"""The room of explanations: requests that did what they should, and said that they had done something else."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

EXPLAINING: Final = "leafdb.node.explaining"


def _explained(name: str, title: str, *edits: tuple[str, str, str], seeds_max: int = 20) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.CLUSTER,
        caught_by=(Invariant.EXPLAINED,),
        seeds_max=seeds_max,
        nodes=5,
        operations=400,
    )


MUTATIONS: Final = (
    _explained(
        "explained-divergence-hidden",
        "An explanation says of no replica that answered that it is behind what was read.",
        (
            EXPLAINING,
            "            return machine.merge(part.record, machine.merged) != part.record\n",
            "            return machine.merged is part.record is None\n",
        ),
    ),
    _explained(
        "explained-refusal-counted",
        "An explanation counts whoever answered, also those who refused.",
        (
            "leafdb.node.explained_put",
            "counted=applied and not machine.ended)",
            "counted=not machine.ended)",
        ),
    ),
)
