"""Broken rules of purging, one function each: what the histories of the purge model have to notice.

The rules are those of docs/decisions/0008, section 2, in the order in which they stand there.
"""

from __future__ import annotations

from typing import Any

import pytest

from leafdb.model import admission, record
from leafdb.model.clock import Dot
from leafdb.model.hlc import LOGICAL_BITS
from leafdb.model.purge import is_dead
from leafdb.sim import purge_node
from leafdb.sim.purge_node import DOUBT, MARK, Place, PurgeNode
from leafdb.sim.purge_world import Proof, PurgeWorld

Patch = pytest.MonkeyPatch


def purge_by_clock(patch: Patch) -> None:
    """What has been dead for a while is forgotten."""
    patch.setattr(PurgeNode, "forgettable", lambda self, rec: is_dead(rec, (self._now_ms() - 100) << LOGICAL_BITS))
    patch.setattr(PurgeNode, "vouches", property(lambda self: True))


def admission_per_key(patch: Patch) -> None:
    """Only where nothing is here something is left out."""

    def old_ones(local: bytes | None, theirs: record.Header, horizon: int) -> list[Dot]:
        return [] if local else [dot for dot, head in theirs.heads.items() if head.stamp < horizon]

    patch.setattr(admission, "_left_out", old_ones)


def no_admission(patch: Patch) -> None:
    """Nothing is left out."""
    patch.setattr(admission, "_left_out", lambda local, theirs, horizon: [])


def whole_clock(patch: Patch) -> None:
    """What is left out is covered all the same."""
    patch.setattr(admission, "_without", lambda clock, gone: clock)


def newer_than_held_left_out(patch: Patch) -> None:
    """Whatever is below the horizon and not known is left out, though something older is here."""

    def all_old(local: bytes | None, theirs: record.Header, horizon: int) -> list[Dot]:
        covers = record.clock_of(local).covers if local else lambda dot: False
        return [dot for dot, head in theirs.heads.items() if head.stamp < horizon and not covers(dot)]

    patch.setattr(admission, "_left_out", all_old)


def owners_only(patch: Patch) -> None:
    """Members that own nothing are not asked."""
    patch.setattr(PurgeWorld, "asked", lambda self, proof: self.owners)


def hints_kept_forgotten(patch: Patch) -> None:
    """Members promise, though they keep hints."""

    def begin(self: PurgeNode, proof: int, horizon: int) -> bool:
        self.lift(horizon)
        self.promises[proof] = purge_node.Promise(horizon)
        return True

    patch.setattr(PurgeNode, "begin", begin)


def hints_since_forgotten(patch: Patch) -> None:
    """Who has taken in an old hint since the beginning agrees to the end."""
    patch.setattr(PurgeNode, "hints_clean", lambda self, promise: True)


def any_exchange_counts(patch: Patch) -> None:
    """Those that began before the proof as well."""
    patch.setattr(PurgeWorld, "counts", lambda self, proof, running: True)


def owner_down(patch: Patch) -> None:
    """Who is down is not waited for."""
    patch.setattr(PurgeWorld, "asked", lambda self, proof: tuple(each for each in proof.members if self.nodes[each].up))
    patch.setattr(PurgeWorld, "provers", lambda self, proof: tuple(each for each in self.owners if self.nodes[each].up))


def incomplete_admits_anything(patch: Patch) -> None:
    """A store that cannot vouch takes whatever comes from anybody."""

    inner = PurgeNode.accepted

    def accepted(self: PurgeNode, local: bytes | None, incoming: bytes) -> bytes | None:
        if self.complete:
            return inner(self, local, incoming)
        return record.accept(local, incoming, self.conflict, identity=self.identity, epochs=self.epochs)

    patch.setattr(PurgeNode, "accepted", accepted)


def incomplete_gives_back(patch: Patch) -> None:
    """A store that cannot vouch takes everything from one that can, and drops nothing of its own."""

    def made_whole(self: PurgeNode, local: bytes | None, vouched: bytes | None) -> bytes | None:
        if vouched is None:
            return local
        return record.accept(local, vouched, self.conflict, identity=self.identity, epochs=self.epochs)

    patch.setattr(PurgeNode, "made_whole", made_whole)


def clocks_not_lifted(patch: Patch) -> None:
    """Members promise, and mint below the horizon all the same."""
    patch.setattr(PurgeNode, "lift", lambda self, horizon: None)
    durable = PurgeNode.end

    def end(self: PurgeNode, proof: int, *, owner: bool) -> bool:
        before = self.ceiling
        said = durable(self, proof, owner=owner)
        self.ceiling = before
        return said

    patch.setattr(PurgeNode, "end", end)


def promise_not_durable(patch: Patch) -> None:
    """The clock of a member that restarts before it hears of the horizon is where it was."""
    durable = PurgeNode.end

    def end(self: PurgeNode, proof: int, *, owner: bool) -> bool:
        before = self.ceiling
        said = durable(self, proof, owner=owner)
        self.ceiling = before
        return said

    patch.setattr(PurgeNode, "end", end)


def purge_before_sync(patch: Patch) -> None:
    """An owner vouches for what the next crash may take."""

    def vouch(self: PurgeNode, horizon: int) -> None:
        self.store.data[MARK] = self.store.synced[MARK] = horizon

    patch.setattr(PurgeNode, "vouch", vouch)


def stamps_of_the_clock_alone(patch: Patch) -> None:
    """A deletion may be older, by its stamp, than what it deletes."""
    inner = PurgeNode.mint

    def mint(self: PurgeNode, place: Place, *how: Any) -> record.PutResult:
        made = inner(self, place, *how)
        decoded = record.decode(made.data)
        decoded.siblings[made.dot] = decoded.siblings[made.dot]._replace(stamp=self.last)
        data = record.encode(decoded)
        self.store.write(place, data)
        return record.PutResult(data, made.dot)

    patch.setattr(PurgeNode, "mint", mint)


def contexts_without_stamps(patch: Patch) -> None:
    """A put is above what is here, but not above what its writer was shown elsewhere."""
    inner = PurgeNode.mint
    patch.setattr(PurgeNode, "mint", lambda self, place, context, floor, *more: inner(self, place, context, 0, *more))


def own_dots_left_out_are_minted_again(patch: Patch) -> None:
    """Of what was left out nothing is learnt about the own dots in it."""
    patch.setattr(record, "readopt", lambda merged, *more: merged)


def members_not_compared(patch: Patch) -> None:
    """Who joined meanwhile was not asked."""

    def registered(self: PurgeWorld, proof: Proof) -> bool:
        lives = {number: self.nodes[number].incarnation for number in proof.members}
        same = proof.epoch == self.epoch and proof.lives == lives
        return same and not self.pending and not self.leftover

    patch.setattr(PurgeWorld, "registered", registered)


def incarnations_not_compared(patch: Patch) -> None:
    """Who has agreed, and then got another disk, is taken for who it was."""

    def registered(self: PurgeWorld, proof: Proof) -> bool:
        same = proof.epoch == self.epoch and proof.members == self.members
        return same and not self.pending and not self.leftover

    patch.setattr(PurgeWorld, "registered", registered)


def epochs_not_compared(patch: Patch) -> None:
    """Owners may have changed meanwhile, or be about to."""
    patch.setattr(
        PurgeWorld, "registered", lambda self, proof: proof.members == self.members and proof.lives == self.lives()
    )


def pending_owners_ignored(patch: Patch) -> None:
    """A proof begins, and ends, though an owner is to be another."""
    patch.setattr(PurgeWorld, "may_begin", lambda self, at: at.up)

    def registered(self: PurgeWorld, proof: Proof) -> bool:
        return proof.epoch == self.epoch and proof.members == self.members and proof.lives == self.lives()

    patch.setattr(PurgeWorld, "registered", registered)


def promises_outlive_the_process(patch: Patch) -> None:
    """Whoever was started anew since the beginning agrees to the end all the same."""
    start = PurgeNode.start

    def started(self: PurgeNode) -> None:
        before = getattr(self, "promises", {})
        start(self)
        self.promises = before

    patch.setattr(PurgeNode, "start", started)


def incomplete_owners_agree(patch: Patch) -> None:
    """An owner that does not vouch, or may have forgotten something of late, agrees to the end."""
    patch.setattr(PurgeNode, "complete", property(lambda self: True))


def marks_survive_damage(patch: Patch) -> None:
    """Whoever cannot read a table vouches as before."""
    patch.setattr(PurgeNode, "doubt", lambda self, *, vouches: self.store.write(DOUBT, 1))


def answers_below_the_horizon(patch: Patch) -> None:
    """A store that does not vouch, or keeps a copy for another, answers with all that it has."""
    patch.setattr(PurgeNode, "answer", lambda self, rec, horizon, *, owner: rec)


def answers_by_what_each_has_heard(patch: Patch) -> None:
    """A store that does not vouch answers with what lies above the horizon of which it has heard itself."""
    inner = PurgeNode.answer
    patch.setattr(PurgeNode, "answer", lambda self, rec, horizon, *, owner: inner(self, rec, self.horizon, owner=owner))


def old_disks_mint_at_once(patch: Patch) -> None:
    """A store that may have forgotten something mints before it has heard of the newest horizon."""
    patch.setattr(PurgeWorld, "start", lambda self, node: node.start())


def left_out_is_confirmed(patch: Patch) -> None:
    """A put of which something was left out is confirmed."""
    inner = PurgeNode.take
    patch.setattr(PurgeNode, "take", lambda self, place, incoming: inner(self, place, incoming) or True)


def stand_ins_admit_anything(patch: Patch) -> None:
    """Copies for others are kept whatever their age."""
    inner = PurgeNode.accepted

    def take(self: PurgeNode, place: Place, incoming: bytes) -> bool:
        local = purge_node.bytes_of(self.store.data.get(place))
        if place[0] == "r":
            whole = not admission.left_out(local, incoming, self.horizon)
            self.store.write(place, inner(self, local, incoming))
            return whole
        made = record.accept(local, incoming, self.conflict, identity=self.identity, epochs=self.epochs)
        self.store.write(place, made)
        return True

    patch.setattr(PurgeNode, "take", take)


def proved_loss_passes_unnoticed(patch: Patch) -> None:
    """Where a loss is proved the record is taken, and the store is as complete as before."""
    patch.setattr(purge_node, "proves_loss", lambda local, incoming, horizon: False)


def nobody_vouches_by_message(patch: Patch) -> None:
    """Where nobody vouches exchanges are like messages; each takes itself for whole when it has met all."""
    inner = PurgeNode.compared
    patch.setattr(
        PurgeNode,
        "compared",
        lambda self, key, theirs, *, vouched, mutual: inner(self, key, theirs, vouched=vouched, mutual=False),
    )


def leftovers_forgotten(patch: Patch) -> None:
    """Who keeps records of what it owns no more promises all the same."""

    def registered(self: PurgeWorld, proof: Proof) -> bool:
        same = proof.epoch == self.epoch and proof.members == self.members and proof.lives == self.lives()
        return same and not self.pending

    patch.setattr(PurgeWorld, "registered", registered)
    patch.setattr(
        PurgeWorld,
        "_begin",
        lambda self, proof, number: (
            proof.begun.add(number)
            if not proof.over and self.nodes[number].begin(proof.number, proof.horizon)
            else self._refuse(proof)
        ),
    )


def marks_outlive_ownership(patch: Patch) -> None:
    """A new owner vouches by the mark that it has from when it owned the range before."""
    inner = PurgeWorld.change_ring

    def change(self: PurgeWorld, *, begin: bool = False) -> None:
        before = {node.id: node.store.data.get(MARK) for node in self.nodes.values()}
        pending, leftover = self.pending, self.leftover
        inner(self, begin=begin)
        if (pending, leftover) != (self.pending, self.leftover):
            for node in self.nodes.values():
                node.store.write(MARK, before[node.id])

    patch.setattr(PurgeWorld, "change_ring", change)


def exchanges_while_things_change(patch: Patch) -> None:
    """An exchange goes on though a horizon, a mark or a process has changed since it began."""
    patch.setattr(PurgeWorld, "_valid", lambda self, running: not running.over)


def exchanges_before_the_sweep(patch: Patch) -> None:
    """An exchange begins though one side has not forgotten yet what the other may have."""
    patch.setattr(PurgeWorld, "can_exchange", lambda self, a, b: a.up and b.up and a.horizon == b.horizon)


def exchanges_over_two_horizons(patch: Patch) -> None:
    """An exchange begins though one side has not heard of the horizon."""
    patch.setattr(PurgeWorld, "can_exchange", lambda self, a, b: a.up and b.up)
