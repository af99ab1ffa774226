"""The room of repairs and epochs: nodes that forgot that they had forgotten, compared wrongly, or went back."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

ADMISSION: Final = "leafdb.node.admission"
EXCHANGE: Final = "leafdb.merkle.exchange"
PROOFS: Final = "leafdb.node.proofs"

APART: Final = (
    Invariant.REPLICAS_EQUAL, Invariant.HINTS_CONSERVED, Invariant.LIVENESS, Invariant.READS_MONOTONIC,
    Invariant.NOTHING_LOST,
)  # fmt: skip
FORGOT: Final = (
    Invariant.READS_MONOTONIC, Invariant.NOTHING_LOST, Invariant.SURVIVES_STORES, Invariant.SESSIONS,
    Invariant.HONEST_OUTCOMES, Invariant.NO_FALSE_SIBLINGS, Invariant.DELETIONS_STAY,
)  # fmt: skip
"""Who reads misses what was acknowledged, or is shown what it has replaced by an owner that missed it."""
COPIED: Final = (Invariant.BANS_FINAL, Invariant.SELF_CHECK, Invariant.DOTS_UNIQUE, *FORGOT)


def _protocol(
    name: str,
    title: str,
    *edits: tuple[str, str, str],
    caught_by: tuple[Invariant, ...],
    seeds_max: int = 20,
    nodes: int = 5,
    compare_hash_seeds: bool = False,
) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.CLUSTER,
        caught_by=caught_by,
        seeds_max=seeds_max,
        nodes=nodes,
        operations=400,
        compare_hash_seeds=compare_hash_seeds,
    )


MUTATIONS: Final = (
    _protocol(
        "exchange-skips-a-leaf",
        "Of the differing leaves one is not worked off, and the range counts as equal.",
        (EXCHANGE, "        self._left.extend(message.leaves)\n", "        self._left.extend(message.leaves[1:])\n"),
        caught_by=APART,
    ),
    _protocol(
        "exchange-only-fetches",
        "An exchange repairs the side that began it, and settles the debts of both.",
        (
            EXCHANGE,
            "self._to_offer.extend([*found.mine, *found.both, *(found.theirs if self._mended_there else ())])",
            "self._to_offer.extend(())",
        ),
        caught_by=APART,
    ),
    _protocol(
        "complete-before-compared",
        "A store that has forgotten counts as complete as soon as it is asked.",
        (
            PROOFS,
            "self._vouches(partition) and not self._debts.partition_owed(partition)",
            "self._vouches(partition)",
        ),
        caught_by=FORGOT,
        nodes=3,
        seeds_max=60,
    ),
    _protocol(
        "rolled-back-disk-accepted",
        "A node that comes back on an old copy of its disk, started less often than the last, is let in (riak#679).",
        (ADMISSION, "        if facts.boot < seen.boot:\n            return Refusal.ROLLED_BACK\n", ""),
        caught_by=COPIED,
        nodes=3,
        seeds_max=60,
    ),
    _protocol(
        "cloned-disk-accepted",
        "A process on a copy of a disk, started as often as the one on the disk, is let in under its number.",
        (ADMISSION, "        if nonce is not None and nonce != seen.nonce:\n", '        if nonce == b"":\n'),
        caught_by=COPIED,
        nodes=3,
        seeds_max=60,
    ),
    _protocol(
        "scan-skips-rest-of-range",
        "A scan whose page was not filled by one part takes that part for the whole range.",
        (
            "leafdb.node.scan_driver",
            "        self._go_to(part.next or (run.start if self._reverse else run.stop))\n",
            "        self._go_to(run.start if self._reverse else run.stop)\n",
        ),
        caught_by=(*FORGOT, Invariant.SELF_CHECK),
        nodes=3,
    ),
    _protocol(
        "set-order",
        "Replicas are asked in the order of a set of strings, which is another in every process.",
        (
            "leafdb.node.get_under_way",
            "        others = [node for node in waiting if node != own]\n",
            "        others = [NodeId(int(name)) for name in {str(node) for node in waiting if node != own}]\n",
        ),
        caught_by=(Invariant.DETERMINISTIC,),
        compare_hash_seeds=True,
    ),
)
