"""The room of dots: writes that were lost, came back or were two, because a record was made or merged wrongly."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

PUT: Final = "leafdb.model.put"
RECORD: Final = "leafdb.model.record"
REPLICA: Final = "leafdb.node.replica"
KEEPER: Final = "leafdb.node.hint_keeper"

TWICE: Final = (Invariant.DOTS_UNIQUE, Invariant.NOTHING_LOST, Invariant.SELF_CHECK)
"""A dot given twice shows as such, or as the write that vanished under it."""
MERGED: Final = (Invariant.MERGE_IS_A_JOIN, Invariant.NOTHING_LOST, Invariant.DELETIONS_STAY)


def _record(name: str, title: str, *edits: tuple[str, str, str], caught_by: tuple[Invariant, ...]) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.RECORD,
        caught_by=caught_by,
        operations=2_000,
    )


MUTATIONS: Final = (
    _record(
        "own-entry-below-floor",
        "After an unclean start an own entry of an old epoch is incremented: a dot that left before its record was "
        "durable is given again.",
        (PUT, "    if newest is not None and epoch_of(newest) >= epochs.floor:\n", "    if newest is not None:\n"),
        caught_by=TWICE,
    ),
    _record(
        "floor-not-raised",
        "An unclean start trusts the epochs of the life before, of which it may have forgotten dots.",
        (
            "leafdb.model.epochs",
            "        return cls(start, start, floor if clean else start)\n",
            "        return cls(start, start, floor)\n",
        ),
        caught_by=TWICE,
    ),
    _record(
        "coordinator-amnesia",
        "A context names dots of ours that our record has forgotten, and we count on from there (riak_kv 679).",
        (
            PUT,
            "        counter = clock.vector.get(newest, -1)\n"
            "        if 0 <= counter < COUNTER_MAX and known.knows_of(newest) == counter:\n",
            "        counter = max(clock.vector.get(newest, 0), 0)\n        if 0 <= counter < COUNTER_MAX:\n",
        ),
        caught_by=TWICE,
    ),
    _record(
        "replica-path-amnesia",
        "An incoming record knows more of us than we do, and no fresh epoch is taken (riak_kv 679, the replica path).",
        (
            RECORD,
            "    return merged if merged is local else adopt(merged, incoming, local, identity, epochs)\n",
            "    return merged\n",
        ),
        (
            RECORD,
            "        return adopt(incoming, incoming, None, identity, epochs)\n",
            "        return incoming\n",
        ),
        caught_by=TWICE,
    ),
    _record(
        "dot-reused-after-lost-record",
        "A key whose record is gone begins again at dot 1 of the same epoch (riak_kv before per-key epochs).",
        (
            PUT,
            "        actor = identity.actor(epochs.next())\n        return PutResult(first",
            "        actor = identity.actor(1)\n        return PutResult(first",
        ),
        caught_by=TWICE,
    ),
    _record(
        "epoch-used-before-its-lease",
        "Epochs are given out before the block they are from is durable.",
        ("leafdb.model.epochs", "        if epoch >= self.ceiling:\n", "        if epoch >= self.ceiling + 4:\n"),
        caught_by=TWICE,
    ),
    _record(
        "merge-drops-incoming",
        "A merge keeps only what is ours of the concurrent siblings.",
        (
            RECORD,
            "    kept += [dot for dot in their_heads if dot not in our_heads and not covered(dot)]\n",
            "",
        ),
        caught_by=MERGED,
    ),
    _record(
        "merge-keeps-covered",
        "A merge keeps our siblings although the other side has covered them: deletions are undone.",
        (
            RECORD,
            "    kept = [dot for dot in our_heads if dot in their_heads or not covered(dot)]\n",
            "    kept = list(our_heads)\n",
        ),
        caught_by=MERGED,
    ),
    _record(
        "merge-without-clock",
        "A merge forgets what the incoming clock covers beyond its siblings: what was deleted can come back.",
        (RECORD, "    clock = ours.clock.merge(theirs.clock)\n", "    clock = ours.clock\n"),
        caught_by=(*MERGED, Invariant.SELF_CHECK),
    ),
    _record(
        "blind-put-supersedes",
        "A write without a context replaces the siblings it has not seen.",
        (
            PUT,
            "    elif context is None:\n        siblings = {dot: found.sibling(dot) for dot in heads}\n",
            "    elif context is None:\n        siblings = {}\n",
        ),
        caught_by=(Invariant.NOTHING_LOST, Invariant.MERGE_IS_A_JOIN),
    ),
    _record(
        "context-covers-by-vector",
        "A dot beyond a gap is taken for all dots up to it: writes that nobody saw are covered.",
        (
            "leafdb.model.clock",
            "        elif counter > known:\n            loose.append((actor, counter))\n",
            "        elif counter > known:\n            vector[actor] = counter\n",
        ),
        caught_by=(Invariant.NOTHING_LOST, Invariant.MERGE_IS_A_JOIN),
    ),
    _record(
        "lww-older-wins",
        "Of two values the one with the smaller stamp is kept.",
        (RECORD, "    return [max(ranks)[1]] if ranks else []\n", "    return [min(ranks)[1]] if ranks else []\n"),
        caught_by=(*MERGED, Invariant.HONEST_OUTCOMES),
    ),
    _record(
        "lww-stamp-not-above-read",
        "A slow clock's write is older than the one it was meant to replace: acknowledged, and never seen.",
        (
            PUT,
            "        if head.stamp >= stamp:\n",
            "        if head.stamp >= stamp and conflict is not Conflict.LWW:\n",
        ),
        caught_by=(*MERGED, Invariant.CAUSAL_STAMPS),
    ),
    _record(
        "merge-acknowledged-before-commit",
        "A copy is acknowledged when it is in memory.",
        (
            REPLICA,
            "                self._trees.write(tree, key, local, merged, durability, done)\n",
            "                self._trees.write(tree, key, local, merged, durability, None)\n"
            "                done(None)\n",
        ),
        caught_by=(Invariant.SURVIVES_STORES,),
    ),
    _record(
        "expired-work-executed",
        "A put that waited for the disk is carried out after its client was told that it came to nothing.",
        (
            REPLICA,
            "        if operation.abandoned:\n            return\n",
            "        if operation.abandoned and local is operation:\n            return\n",
        ),
        caught_by=(Invariant.NO_EXPIRED_WORK,),
    ),
    _record(
        "unchanged-merge-acknowledged-early",
        "A merge that changes nothing is acknowledged at once, although the version it found is not durable yet.",
        (
            REPLICA,
            "                self._engine.when_safe(sequence, durability, done)\n",
            "                done(None)\n",
        ),
        caught_by=(Invariant.SURVIVES_STORES,),
    ),
    _record(
        "fallback-merges-without-doubt",
        "A fallback's own copy takes in what it has forgotten without a fresh epoch, and mints on.",
        (
            KEEPER,
            "        if hint is not None and hint.kind is Kind.MINTED:\n            # The next",
            "        if hint is not None and hint.kind is None:\n            # The next",
        ),
        caught_by=TWICE,
    ),
    _record(
        "hint-overwritten",
        "A second hint for a key replaces the first instead of being merged with it.",
        (
            KEEPER,
            "        return merge(local, record, self.conflict), done\n",
            "        return record, done\n",
        ),
        caught_by=(Invariant.SURVIVES_STORES, Invariant.NOTHING_LOST, Invariant.SELF_CHECK, *MERGED),
    ),
    _record(
        "siblings-kept-though-covered",
        "A write over what was read keeps the siblings that it replaces: they grow with every write (riak_kv 746).",
        (
            PUT,
            "        siblings = {dot: found.sibling(dot) for dot in heads if not context.covers(dot)}\n",
            "        siblings = {dot: found.sibling(dot) for dot in heads}\n",
        ),
        caught_by=(*MERGED, Invariant.NO_FALSE_SIBLINGS),
    ),
    _record(
        "clock-pruned",
        "A clock that is long loses the actors of which nothing is shown: what they wrote returns (riak_core 613).",
        (
            RECORD,
            "    clock = ours.clock.merge(theirs.clock)\n",
            "    clock = ours.clock.merge(theirs.clock)\n"
            "    if len(clock.vector) > 2:\n"
            "        shown = {dot[0] for dot in (*ours.heads, *theirs.heads)}\n"
            "        vector = {actor: count for actor, count in clock.vector.items() if actor in shown}\n"
            "        clock = type(clock)(vector, clock.cloud)\n",
        ),
        caught_by=(*MERGED, *TWICE, Invariant.NO_FALSE_SIBLINGS),
    ),
    _record(
        "actor-without-incarnation",
        "A store that begins anew has the actors of the one before: ids that collide (riak_kv 1865).",
        (
            "leafdb.model.actor",
            "_IDENTITY.pack(self.cluster, self.node, self.incarnation))",
            "_IDENTITY.pack(self.cluster, self.node, 0))",
        ),
        caught_by=TWICE,
    ),
)
