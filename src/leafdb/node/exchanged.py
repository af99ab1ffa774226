"""A record that belongs to an exchange, in the turn of its key: taken by the terms of that exchange, and by no others.

An accord may be spoilt while the turn waits for the disk; then nothing is taken.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from leafdb.node.accords import Accord
from leafdb.node.exchange_terms import TermsChanged, loss_proved, taken
from leafdb.node.replica import REFUSALS, Merged, Replica
from leafdb.node.view import BucketView
from leafdb.types import Durability


class ExchangedRecord(NamedTuple):
    """What the other side has of a key (None: nothing). Put it into the replica's queue (`queue.do`)."""

    replica: Replica
    bucket: BucketView
    key: bytes
    theirs: bytes | None
    accord: Accord
    durability: Durability
    done: Merged

    def run(self, local: bytes | None, sequence: int) -> None:
        """The turn has come."""
        accord, replica = self.accord, self.replica
        tree, conflict = self.bucket.tree, self.bucket.conflict
        if accord.spoilt:
            self.done(TermsChanged(accord.spoilt))
            return
        assert accord.terms is not None, "no record moves before both sides have said where they stand"
        identity, epochs = replica.minter
        before = replica.additions
        try:
            new = taken(
                accord.terms, local, self.theirs, conflict, identity=identity, epochs=epochs,
                horizon=accord.ours.horizon,
                accept=partial(replica.accepted, conflict=conflict, tree=tree, key=self.key),
            )  # fmt: skip
            loss = loss_proved(accord.terms, local, self.theirs, accord.ours.horizon)
            replica.replace(local, sequence, new, tree, self.key, self.durability, self.done)
        except REFUSALS as error:
            self.done(error)
            return
        if loss:
            accord.prove_loss()
        more = local is None and new is not None and new is not self.theirs
        if more or replica.additions != before:
            replica.says_more(tree, self.key)

    def refuse(self, error: Exception) -> None:
        """The record here cannot be had."""
        self.done(error)


def take(
    replica: Replica,
    bucket: BucketView,
    key: bytes,
    theirs: bytes | None,
    accord: Accord,
    durability: Durability,
    done: Merged,
) -> None:
    """Take what the other side of an exchange has of a key; `done` once the result is as durable as asked, or with the
    error: TermsChanged, or one of REFUSALS."""
    replica.queue.do(bucket.tree, key, ExchangedRecord(replica, bucket, key, theirs, accord, durability, done))
