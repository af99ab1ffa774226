"""Promise: an actor names cluster, node, incarnation and epoch, and sorts by them in that order."""

from __future__ import annotations

import itertools

from leafdb.model.actor import ACTOR_BYTES, EPOCH_MAX, ActorIdentity, describe, epoch_of, incarnation_of, node_of
from leafdb.types import NodeId


def test_layout() -> None:
    identity = ActorIdentity(0x0102, NodeId(0x0304), 0x05060708)
    actor = identity.actor(0x090A0B0C0D0E)
    assert actor.hex() == "0102030405060708090a0b0c0d0e"
    assert len(actor) == ACTOR_BYTES
    assert actor.startswith(identity.prefix)
    assert (node_of(actor), incarnation_of(actor), epoch_of(actor)) == (0x0304, 0x05060708, 0x090A0B0C0D0E)


def test_bytes_sort_as_the_fields_do() -> None:
    fields = list(itertools.product((0, 1, 256), (1, 255, 256), (0, 1, 65_536), (0, 1, 255, 256, EPOCH_MAX)))
    actors = [ActorIdentity(c, NodeId(n), i).actor(e) for c, n, i, e in sorted(fields)]
    assert actors == sorted(actors)
    assert len(set(actors)) == len(fields)


def test_another_incarnation_is_another_identity() -> None:
    before, after = ActorIdentity(1, NodeId(1), 1), ActorIdentity(1, NodeId(1), 2)
    assert before.prefix != after.prefix


def test_described_for_people() -> None:
    assert describe(ActorIdentity(0, NodeId(3), 2).actor(17)) == "3.2/17"
    assert describe(ActorIdentity(9, NodeId(3), 2).actor(17)) == "9:3.2/17"
