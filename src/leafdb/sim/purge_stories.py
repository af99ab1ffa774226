"""Stories of the purge model: what chance alone would seldom do in this order.

Each is a dangerous order of events: it is harmless by the rules, and would do harm if one of them were missing. Which
nodes play it is drawn, and now and then something else comes between. A story says what should happen, and not that it
does: nothing is asserted here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Final

from leafdb.sim.purge_calm import PurgeCalm
from leafdb.sim.purge_faults import PurgeFaults
from leafdb.sim.purge_node import PurgeNode
from leafdb.sim.purge_traffic import UNSEEN, PurgeTraffic, Reach
from leafdb.sim.purge_world import KEYS, Mail, PurgeWorld

STORM: Final = 0.9
"""So many messages are lost, or late, or both."""
HASTE: Final = 25
DISTURBED: Final = 0.12
FAST_MS: Final = 3_000
SLOW_MS: Final = -3_000

Step = Callable[[], object]


class PurgeStory:
    """One story with its cast: a hero, two more owners, who may stand in, and the key that it is about."""

    def __init__(
        self,
        world: PurgeWorld,
        traffic: PurgeTraffic,
        faults: PurgeFaults,
        calm: PurgeCalm,
        rng: Random,
        trouble: Callable[[int], None],
    ) -> None:
        self.world: PurgeWorld = world
        self.traffic: PurgeTraffic = traffic
        self.faults: PurgeFaults = faults
        self.calm: PurgeCalm = calm
        self.rng: Random = rng
        self._trouble = trouble
        faults.come_back()
        owners = [world.nodes[number] for number in world.owners]
        cast = rng.sample(owners, len(owners))
        self.hero: PurgeNode = cast[0]
        self.other: PurgeNode = cast[1]
        self.third: PurgeNode = cast[-1]
        stand_ins = traffic.stand_ins()
        self.stand_ins: list[PurgeNode] = rng.sample(stand_ins, len(stand_ins))
        self.key: int = self._fresh_key()

    def tell(self) -> None:
        """One of those that these nodes can play."""
        stories: list[Callable[[], Sequence[Step]]] = [
            self._old_disk, self._long_way, self._absent_owner, self._early_exchange, self._lost_tail,
            self._slowly_whole, self._late_but_newer, self._slow_deleter, self._own_dots, self._all_in_doubt,
            self._change_of_owners, self._parting, self._heir, self._unheard, self._two_losses,
        ]  # fmt: skip
        if self.stand_ins:
            stories += [self._slow_stand_in, self._changed_stand_in, self._stale_stand_in, self._kept_hint]
        if len(self.stand_ins) > 1:
            stories += [self._moving_hint, self._moving_hint]
        if len(self.world.members) < len(self.world.nodes):
            stories += [self._newcomer, self._newcomer]
        world = self.world
        for step in self.rng.choice(stories)():
            world.weather = 0.0
            step()
            world.step += 1
            if self.rng.random() < DISTURBED:
                self._trouble(self.rng.choice((1, 1, 3)))
        world.hushed.clear()

    # -- steps

    def _fresh_key(self) -> int:
        """One of which no store knows anything, if there is one."""
        used = {key for node in self.world.nodes.values() for (kind, key, _) in node.store.data if kind in ("r", "h")}
        return self.rng.choice([key for key in range(KEYS) if key not in used] or range(KEYS))

    def _owns(self, at: PurgeNode) -> bool:
        return at.up and at.id in self.world.owners

    def _put(self, at: PurgeNode, reach: Reach = Reach.ALL, *, blind: bool = False, deleted: bool = False) -> None:
        """A write that one acknowledgement is enough for, and that is safe where it was made."""
        if self._owns(at):
            seen = UNSEEN if blind else self.traffic.shown(self.key, at)
            self.traffic.put(at, self.key, seen, deleted, 0, 1, reach)
            at.store.sync()

    def _delete(self, at: PurgeNode, reach: Reach = Reach.ALL) -> None:
        self._put(at, reach, deleted=True)

    def _aside(self, at: PurgeNode, target: PurgeNode) -> None:
        """A write that only a stand-in has."""
        if at in self.traffic.stand_ins() and target.id in self.world.owners:
            self.traffic.put(at, self.key, UNSEEN, False, 0, 1, Reach.NONE, target=target)

    def _storm(self, at: PurgeNode) -> None:
        """A write that hardly anybody hears of in time."""
        self.world.weather = STORM
        self._put(at)

    def _begin(self, at: PurgeNode) -> None:
        if self.world.may_begin(at):
            self.world.begin_proof(at)

    def _prove(self, at: PurgeNode) -> tuple[Step, ...]:
        """A proof from its beginning to its end, and little else."""
        return partial(self._begin, at), self._quiet

    def _quiet(self, *, learn: bool = True) -> None:
        self.calm.quiet(learn=learn, only=self.rng.random() < 0.7)

    def _forget(self) -> None:
        """Everybody hears of the horizon, and forgets."""
        for node in self.world.owners_now():
            if node.up:
                node.learn(self.world.horizon)
                self.traffic.swept(node)

    def _hear(self, most: int = HASTE) -> None:
        """Some of the mail comes, or most of it."""
        for _ in range(most):
            self.world.deliver(self.world.mail)

    def _late(self) -> None:
        for _ in range(HASTE):
            self.world.deliver(self.world.late)

    def _up(self, node: PurgeNode) -> None:
        if not node.up:
            self.world.start(node)

    def _clock(self, node: PurgeNode, skew_ms: int) -> None:
        node.skew_ms = skew_ms

    def _read(self) -> None:
        for _ in range(4):
            self.traffic.read(self.key)

    # -- stories of what was deleted

    def _old_disk(self) -> Sequence[Step]:
        """Deleted and forgotten; then a disk of long ago."""
        back = self.rng.choice((self.hero, self.third))
        return (
            partial(self._put, self.hero), self.calm.settle, self.faults.back_up_all, partial(self._delete, self.other),
            self.calm.settle, *self._prove(self.other), self._forget, partial(self.faults.restore, back),
            partial(self._up, back), self._read, self.calm.settle,
        )  # fmt: skip

    def _long_way(self) -> Sequence[Step]:
        """A message of before the deletion comes after it was forgotten, to a key that is written again or not."""
        again = partial(self._put, self.third, blind=True) if self.rng.random() < 0.6 else self._read
        return (
            partial(self._storm, self.hero), partial(self._storm, self.other), self.calm.settle,
            partial(self._delete, self.hero), self.calm.settle, *self._prove(self.other), self._forget, again,
            self._late, self._read, self.calm.settle,
        )  # fmt: skip

    def _early_exchange(self) -> Sequence[Step]:
        """A deletion comes between an exchange that has passed its key and the proof."""
        hero, key = self.hero, self.key
        return (
            partial(self._put, hero), self.calm.settle,
            partial(self.world.exchange, hero, self.other, first=key),
            partial(self.world.exchange, hero, self.third, first=key),
            partial(self._delete, hero, Reach.NONE), *self._prove(hero), self._forget, self.calm.settle,
        )  # fmt: skip

    def _lost_tail(self) -> Sequence[Step]:
        """Two owners hear of a deletion in the proof, and lose the end of their log after it."""
        others = self.rng.sample((self.other, self.third), self.rng.choice((1, 2)))
        return (
            partial(self._put, self.hero), self.calm.settle, partial(self._delete, self.hero, Reach.NONE),
            *self._prove(self.hero), *(partial(self.faults.cut, node) for node in others),
            *(partial(self._up, node) for node in others), self._forget, self.calm.settle,
        )  # fmt: skip

    def _slowly_whole(self) -> Sequence[Step]:
        """While a store is made whole, the deleted value comes late to a key that was passed already."""
        hero = self.hero
        return (
            partial(self._storm, self.other), partial(self._put, self.other, Reach.LATE), self.calm.settle,
            partial(self._delete, self.other), self.calm.settle, *self._prove(self.other), self._forget,
            partial(self.faults.doubt, hero),
            partial(self.world.exchange, hero, self.other, first=self.key), partial(self._hear, 2), self._late,
            self._hear, self.calm.settle,
        )  # fmt: skip

    def _slow_deleter(self) -> Sequence[Step]:
        """A client deletes, at a node with a slow clock that has never heard of it, what a fast one wrote."""
        hero, other, key = self.hero, self.other, self.key

        def delete() -> None:
            if self._owns(other) and self.traffic.contexts[key]:
                self.traffic.put(other, key, self.traffic.contexts[key][-1], True, 0, 1, Reach.ALL)

        return (
            partial(self._clock, hero, FAST_MS), partial(self._clock, other, SLOW_MS),
            partial(self._clock, self.third, SLOW_MS // 2), partial(self._put, hero, Reach.LATE), delete,
            self.calm.settle, *self._prove(self.third), self._forget, self._late, self._read, self.calm.settle,
        )  # fmt: skip

    def _own_dots(self) -> Sequence[Step]:
        """A node is told of what it has written itself and forgotten since, beside something new."""
        hero, other = self.hero, self.other
        return (
            partial(self._put, hero), partial(self._put, hero), self.calm.settle, self.faults.back_up_all,
            partial(self._delete, self.rng.choice((hero, self.third))), self.calm.settle, *self._prove(hero),
            self._forget, partial(self.faults.restore, other), partial(self._up, other),
            partial(self._put, other, blind=True), self._hear, partial(self._put, hero), self.calm.settle,
        )  # fmt: skip

    def _stale_stand_in(self) -> Sequence[Step]:
        """A stand-in that has not heard of the horizon is told late of what was deleted and forgotten."""
        hero, target = self.hero, self.other
        return (
            partial(self.faults.down, target), partial(self._put, hero, Reach.LATE), partial(self._up, target),
            self.calm.settle, partial(self._delete, hero), self.calm.settle, *self._prove(hero), self._late,
            self._read, self.calm.settle,
        )  # fmt: skip

    def _all_in_doubt(self) -> Sequence[Step]:
        """Something is forgotten; then nobody vouches any more."""
        owners = self.world.owners_now()
        return (
            partial(self._put, self.hero), self.calm.settle, self.faults.back_up_all, partial(self._delete, self.other),
            self.calm.settle, *self._prove(self.hero), self._forget, partial(self._put, self.third),
            *(partial(self.faults.unreadable, node, self.key) for node in owners), self.faults.come_back,
            self.calm.settle,
        )  # fmt: skip

    # -- stories of what lives

    def _absent_owner(self) -> Sequence[Step]:
        """What only one owner has, and that is away while the others forget."""
        hero, how = self.hero, partial(self._delete if self.rng.random() < 0.5 else self._put, self.hero, Reach.NONE)
        first: tuple[Step, ...] = (partial(self._put, self.other), self.calm.settle) if self.rng.random() < 0.5 else ()
        return (
            *first, how, partial(self.faults.down, hero), *self._prove(self.other), self._forget, self._read,
            partial(self._up, hero), self._read, self.calm.settle,
        )  # fmt: skip

    def _late_but_newer(self) -> Sequence[Step]:
        """One of two siblings is overwritten; that is lost where it was made, and comes elsewhere below the horizon."""
        hero, key, seen = self.hero, self.key, self.traffic.contexts[self.key]

        def overwrite() -> None:
            if self._owns(hero) and seen:
                self.traffic.put(hero, key, seen[-1], False, 0, 2, Reach.LATE)

        return (
            partial(self._put, self.third, Reach.ALL, blind=True), self.calm.settle,
            partial(self._put, self.other, Reach.ALL, blind=True), self.calm.settle, overwrite,
            partial(self.faults.cut, hero), partial(self._up, hero), self.calm.settle, *self._prove(self.other),
            self._forget, self._late, self.calm.settle,
        )  # fmt: skip

    def _two_losses(self) -> Sequence[Step]:
        """Two owners have each lost something that the other still has, and do not know."""
        hero, other, key = self.hero, self.other, self.key
        return (
            partial(self._put, hero), self.calm.settle, *self._prove(hero), self._forget,
            partial(self.faults.lose, hero), partial(self.faults.lose, other, key), self._read,
            partial(self.world.exchange, hero, other), self._hear, self._read, self.calm.settle,
        )  # fmt: skip

    def _slow_stand_in(self) -> Sequence[Step]:
        """A stand-in with a slow clock, that may start anew after a horizon was proved, keeps the only copy."""
        at, hero = self.stand_ins[0], self.hero
        new = (partial(self.rng.choice((self.faults.down, self.faults.cut)), at), partial(self._up, at))
        return (
            partial(self._clock, at, SLOW_MS), partial(self._clock, hero, FAST_MS), partial(self._begin, hero),
            partial(self._quiet, learn=False), *self.rng.choice(((), new)), partial(self._aside, at, self.other),
            self._forget, self.traffic.hand_over, self.calm.settle,
        )  # fmt: skip

    def _changed_stand_in(self) -> Sequence[Step]:
        """As before, but it starts anew, with its disk or another, before all have agreed to the end."""
        at, hero, hushed = self.stand_ins[0], self.hero, self.world.hushed
        rest = [node for node in self.world.nodes if node != at.id]
        new = self.rng.choice((self.faults.down, self.faults.wipe, self.faults.restore))
        early = self.rng.random() < 0.5
        return (
            partial(self._clock, at, SLOW_MS), partial(self._clock, hero, FAST_MS), partial(self._begin, hero),
            partial(self._rush, to_end=not early), partial(hushed.update, rest), partial(self._hear, 4),
            partial(new, at), partial(self._up, at), partial(self._aside, at, self.other), hushed.clear,
            partial(self._quiet, learn=False), self._forget, self.traffic.hand_over, self.calm.settle,
        )  # fmt: skip

    def _rush(self, *, to_end: bool = True) -> None:
        """A proof goes on until all are asked for the end, or for the beginning only."""
        world = self.world
        for _ in range(4 * HASTE):
            if world.proof is None or world.proof.over or world.proof.ended:
                break
            if not to_end and world.proof.barrier is not None:
                break
            world.deliver(world.mail)
            world.advance_proof()
            self.traffic.exchange()

    def _newcomer(self) -> Sequence[Step]:
        """Somebody joins while a horizon is proved, with a slow clock, and stands in at once."""
        hero, new = self.hero, list(self.world.nodes.values())[-1]
        return (
            self.calm.settle, partial(self._clock, new, SLOW_MS), partial(self._clock, hero, FAST_MS),
            partial(self._begin, hero), partial(self._hear, self.rng.randint(0, 8)), self.world.join,
            partial(self._aside, new, self.other), partial(self._quiet, learn=False), self._forget,
            self.traffic.hand_over, self.calm.settle,
        )  # fmt: skip

    def _kept_hint(self) -> Sequence[Step]:
        """A stand-in keeps the only copy, and is on its way or not asked."""
        at = self.stand_ins[0]
        stay: Step = partial(self.faults.down, at) if self.rng.random() < 0.5 else self._hear
        return (
            partial(self._aside, at, self.other), stay, *self._prove(self.hero), self._forget, partial(self._up, at),
            self.traffic.hand_over, self.calm.settle,
        )  # fmt: skip

    def _moving_hint(self) -> Sequence[Step]:
        """The only copy moves, while a horizon is proved, from who has not been asked to who has."""
        at, heir = self.stand_ins[:2]
        return (
            partial(self._aside, at, self.other), partial(self.world.hushed.add, at.id),
            partial(self._begin, self.hero), self._hear, partial(self.traffic.move_hints, at, heir),
            self.world.hushed.clear, self._quiet, self._forget, self.traffic.hand_over, self.calm.settle,
        )  # fmt: skip

    def _change_of_owners(self) -> Sequence[Step]:
        """The ring changes while a horizon is proved, and somebody writes."""
        ring, write = self.faults.ring, partial(self._put, self.hero, Reach.NONE)
        middle: list[Step] = [ring, write, partial(self._delete, self.other, Reach.NONE), self._hear, self._rush]
        return (
            partial(self._put, self.other), self.calm.settle, partial(self._begin, self.hero),
            *self.rng.sample(middle, len(middle)), self._quiet, ring, self._forget, self.calm.settle,
        )  # fmt: skip

    def _admit(self) -> None:
        """Who is to be an owner exchanges with all that are."""
        world = self.world
        self._forget()
        for number in world.owners if world.pending else ():
            world.exchange(world.nodes[world.pending[0]], world.nodes[number])
            self._hear()

    def _parting(self) -> Sequence[Step]:
        """An owner writes something just when its place becomes another's, and a horizon is proved."""
        world = self.world

        def last_words() -> None:
            if world.pending and (at := world.nodes[world.leaving]).up:
                self.traffic.put(at, self.key, UNSEEN, self.rng.random() < 0.3, 0, 1, Reach.NONE)

        return (
            self.calm.settle, self.faults.ring, self._admit, last_words, world.change_ring, self.faults.sync_all,
            *self._prove(self.hero), self._forget, self.calm.settle,
        )  # fmt: skip

    def _heir(self) -> Sequence[Step]:
        """Who becomes an owner at the end of a proof has never heard of a deletion, which all others have."""
        hero, other, world = self.hero, self.other, self.world
        held: list[Mail] = []

        def hold() -> None:
            held.extend(mail for mail in world.mail if mail.target is other)
            world.mail[:] = [mail for mail in world.mail if mail.target is not other]

        first: tuple[Step, ...] = (
            partial(self._clock, hero, FAST_MS),
            partial(self._begin, hero),
            hold,
            self.faults.ring,
            self._admit,
        )
        delete, release = partial(self._delete, other, Reach.NONE), partial(world.mail.extend, held)
        if self.rng.random() < 0.5:
            first = (self.faults.ring, self._admit)
            release = partial(self._begin, hero)
        return (
            partial(self._put, self.third), self.calm.settle, *first, delete, release, self._rush, world.change_ring,
            self._hear, self._quiet, self._forget, self.calm.settle,
        )  # fmt: skip

    def _unheard(self) -> Sequence[Step]:
        """A horizon is proved, and some have not heard of it when they start anew and somebody writes."""
        return (
            partial(self._put, self.other), self.calm.settle, partial(self._begin, self.hero),
            partial(self._quiet, learn=False), partial(self.faults.restore, self.hero), partial(self._up, self.hero),
            partial(self._put, self.hero, Reach.NONE, blind=True), self._read, self.calm.settle,
        )  # fmt: skip
