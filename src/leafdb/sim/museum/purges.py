"""The room of what comes back: deleted values that return because somebody forgot too early, or took in too much."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

ADMISSION: Final = "leafdb.model.admission"
PUT: Final = "leafdb.model.put"
NODE: Final = "leafdb.sim.purge_node"
WORLD: Final = "leafdb.sim.purge_world"

CAUGHT: Final = (
    Invariant.DELETIONS_STAY,
    Invariant.NOTHING_LOST,
    Invariant.REPLICAS_EQUAL,
    Invariant.LIVENESS,
    Invariant.DOTS_UNIQUE,
)


def _purge(name: str, title: str, *edits: tuple[str, str, str]) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.PURGE,
        caught_by=CAUGHT,
        seeds_max=6,
        operations=500,
    )


MUTATIONS: Final = (
    _purge(
        "purge-by-clock",
        "Tombstones are dropped when they are old enough, whoever may have missed them (Cassandra's gc_grace, Riak).",
        (NODE, "return is_dead(record, self.horizon)", "return is_dead(record, self.last - (100 << LOGICAL_BITS))"),
        (NODE, "return isinstance(mark, int) and mark >= horizon", "return mark is not None or horizon >= 0"),
    ),
    _purge(
        "reap-with-primary-down",
        "A deletion is forgotten while an owner that has not heard of it is down (Riak's reaping).",
        (
            WORLD,
            "        return proof.members\n",
            "        return tuple(each for each in proof.members if self.nodes[each].up)\n",
        ),
        (
            WORLD,
            'exchange: every owner."""\n        return self.owners\n',
            'exchange."""\n        return tuple(each for each in self.owners if self.nodes[each].up)\n',
        ),
    ),
    _purge(
        "reap-admission-per-key",
        "What is too old is refused only where the key is absent: written again, it lets its old value in.",
        (
            ADMISSION,
            "    if not old or local is None:\n        return old\n",
            "    return old if local is None else []\n",
        ),
    ),
    _purge(
        "late-copy-after-reap",
        "A record is taken however old it is: a message from before the deletion undoes it (Riak, Scylla).",
        (ADMISSION, "if head.stamp < horizon]\n", "if head.stamp < 0]\n"),
    ),
    _purge(
        "hint-after-reap",
        "Hints that are still kept somewhere do not stop tombstones from being dropped (Scylla's batches and hints).",
        (NODE, "        return not self.hints() and not self.marked_above(horizon)\n", "        return True\n"),
        (NODE, "if promise is None or not self.hints_clean(promise):", "if promise is None:"),
    ),
    _purge(
        "left-out-and-covered",
        "The clock of a record is taken whole though not all of its values are: others drop what they rightly hold.",
        (ADMISSION, "    clock = _without(theirs.clock, gone)\n", "    clock = theirs.clock\n"),
    ),
    _purge(
        "deletion-older-than-the-deleted",
        "A node with a slow clock deletes what a fast one wrote; the deletion is forgotten first.",
        (
            PUT,
            "        if head.stamp >= stamp:\n",
            "        if head.stamp >= stamp and not head.op_id:\n",
        ),
        (
            PUT,
            "    if floor >= stamp:\n",
            "    if floor >= stamp and not op_id:\n",
        ),
    ),
    _purge(
        "doomstone",
        "A key that is written anew after its deletion was forgotten takes the dots of its first life: a late copy of "
        "the tombstone deletes it (riak_kv PR 1094).",
        (
            PUT,
            "        actor = identity.actor(epochs.next())\n        return PutResult(first",
            "        actor = identity.actor(1)\n        return PutResult(first",
        ),
    ),
    _purge(
        "old-disk-gives-back",
        "A store that cannot vouch for what it has keeps it all when it is repaired, and repairs others with it (a "
        "backup that is put back).",
        ("leafdb.model.record", "    kept = admitted(vouched, local, horizon)\n", "    kept = local\n"),
    ),
    _purge(
        "old-disk-is-believed",
        "Readers believe every owner, also one that cannot vouch for what lies below the horizon.",
        (
            NODE,
            "        if record is None or (owner and self.vouches_for(horizon)):\n",
            "        if record is None or owner:\n",
        ),
    ),
    _purge(
        "lost-write-refused-for-ever",
        "What a disk lost unnoticed lies below the horizon when it is found missing, and is not taken back: replicas "
        "differ for ever.",
        (
            NODE,
            "        elif theirs is not None and (vouched or mutual):\n",
            "        elif theirs is not None and mutual:\n",
        ),
    ),
)
