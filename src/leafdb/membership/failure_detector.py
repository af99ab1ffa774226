"""The failure detector of one node: SWIM with Lifeguard over reliable streams, as a pure machine.

In each probe interval one member, in random rotation, is pinged. No ack within the timeout: some helpers are asked to
ping it too. No ack at all by the end of the interval: it is a suspect, which is told to everybody and, with every
message to it, to the suspect itself (Lifeguard's buddy). It refutes by beginning a new incarnation; or else its timer
runs out and it is dead. The dead stay members and go on being pinged now and then, so a healed partition mends itself.

Streams tell more than datagrams, but a verdict is never taken from them: a lost session starts a probe at once, a new
one pings at once, and only answers count.

Members come and go by the metadata alone. A stranger, also one that was a member, is not believed; its pings are
answered, so that it learns from our epoch that it is one. How claims are weighed is in `beliefs`.

Invariants: a suspicion timer runs for exactly the suspects; at most one probe of a node is under way; nobody we know
becomes DEAD but by our own timer, and not within a probe interval after we ourselves stalled (the self-pause guard):
what looked like silence may lie unread in our own buffers.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from random import Random

from leafdb.membership.beliefs import Beliefs
from leafdb.membership.config import MembershipConfig
from leafdb.membership.dissemination import tellings_max
from leafdb.membership.effects import Effect, Expelled, PeerEpoch, Send
from leafdb.membership.member import INCARNATION_MAX, Claim, MemberState, first_incarnation
from leafdb.membership.messages import Ack, AnyMessage, Ask, Gossip, Nack, Ping, Standing, Sync
from leafdb.membership.probes import Probe, Relay, Relays, Rotation
from leafdb.membership.suspicion import LocalHealth
from leafdb.membership.view import View
from leafdb.types import Epoch, Liveness, NodeId

SUSPECTS_PINGED_MAX = 3


class FailureDetector:
    """Built once per start of the node; `boot` is the store's boot counter. Times are seconds of one monotonic clock.

    Every method that takes `now` answers with effects, to be performed in order.
    """

    def __init__(self, config: MembershipConfig, me: NodeId, *, boot: int, now: float, rng: Random) -> None:
        config.check()
        self.config = config
        self.me = me
        self.health: LocalHealth = LocalHealth(config.health_score_max)
        self._rng = rng
        self._standing = Standing(first_incarnation(boot), Epoch(0), b"")
        self._peer_epochs: dict[NodeId, tuple[Epoch, bytes]] = {}
        self._rotation = Rotation(rng)
        self._dead_rotation = Rotation(rng)
        self._probes: dict[NodeId, Probe] = {}
        self._relays = Relays(config.relays_max)
        self._last_number = 0
        self._next_probe = now + config.probe_interval_s * rng.random()
        self._next_gossip = now
        self._next_sync = inf
        self._piggyback_max = config.piggyback_claims_max - 1
        self._tellings = 0
        self._heartbeat_s = config.heartbeat_s
        self._is_member = False
        self._is_watching = False
        self._has_asked_table = False
        self._no_verdict_before = now
        self._due = inf
        self._stepped_at = now
        self._effects: list[Effect] = []
        self._beliefs = Beliefs(config, me, self._effects)
        self.view: View = self._beliefs.view

    # -- inputs

    def set_members(self, nodes: Iterable[NodeId], now: float) -> tuple[Effect, ...]:
        """The cluster metadata names these nodes. New ones count as alive until probed.

        Of those that it names no longer nothing stays: neither as suspects nor as accusers, helpers, or whom we help.
        Whoever is no member watches nobody.
        """
        self._begin(now)
        wanted = frozenset(nodes)
        was_member, self._is_member = self._is_member, self.me in wanted
        if was_member and not self._is_member:
            self._effects.append(Expelled())
        added, removed = self._beliefs.set_members(wanted if self._is_member else (), now)
        if removed:
            self._forget(frozenset(removed))
        if added and self._next_sync == inf:
            self._next_sync = now + self.config.sync_interval_s * self._rng.random()
        self._tellings = tellings_max(self.config.tellings_multiplier, len(self.view) + 1)
        self._is_watching = len(self.view) > 0
        if not self._is_watching:
            self._has_asked_table = False
        return self._end(now)

    def _forget(self, removed: frozenset[NodeId]) -> None:
        for node in removed:
            self._probes.pop(node, None)
            self._peer_epochs.pop(node, None)
        for probe in self._probes.values():
            probe.discard(removed)
        self._relays.forget(removed)

    def announce(self, epoch: Epoch, digest: bytes) -> None:
        """From now on tell the peers that we hold this version of the cluster metadata."""
        self._standing = Standing(self._standing.incarnation, epoch, digest)

    def on_session_established(self, node: NodeId, now: float) -> tuple[Effect, ...]:
        """The control stream to `node` is up: ping it at once. The first peer of all is asked for its whole table."""
        self._begin(now)
        if self.view.get(node) is not None:
            probe = self._probes.get(node)
            if probe is None:
                self._start_probe(node, now)
            else:
                self._send(node, Ping(self._standing, self._claims_for(node), number=probe.number))
            self._ask_table_once(node)
        return self._end(now)

    def on_session_lost(self, node: NodeId, now: float) -> tuple[Effect, ...]:
        """The control stream to `node` broke: probe at once. Not a verdict: it may only have been the stream."""
        self._begin(now)
        member = self.view.get(node)
        if member is not None and member.liveness is not Liveness.DEAD and node not in self._probes:
            self._start_probe(node, now)
        return self._end(now)

    def on_message(self, sender: NodeId, message: AnyMessage, now: float) -> tuple[Effect, ...]:
        """`sender`, whose identity the transport has proved, says `message`."""
        self._begin(now)
        member = self.view.get(sender)
        known, is_accused = member is not None, False
        self._note_epoch(sender, message, known=known)
        if member is not None:
            for claim in message.claims:
                if claim.node == self.me:
                    self._hear_of_ourselves(claim)
                    is_accused = is_accused or claim.liveness is not Liveness.ALIVE
                else:
                    self._beliefs.hear(claim, now)
            if is_accused and not isinstance(message, Ping):
                self._answer_accuser(sender)
            if message.standing.incarnation > member.incarnation:
                self._beliefs.believe(member, Claim(sender, Liveness.ALIVE, message.standing.incarnation, sender), now)
            if not self._has_asked_table:
                self._ask_table_once(sender)
        match message:
            case Ping(number=number):
                self._send(sender, Ack(self._standing, self._claims_for(sender), number=number))
            case Ack(number=number) if known:
                self._on_ack(sender, number, message.standing)
            case Nack(number=number):
                self._on_nack(sender, number)
            case Ask(number=number, target=target) if known:
                self._on_ask(sender, number, target, now)
            case Sync(answer=True) if known:
                self._send(sender, Sync(self._standing, self.view.claims(), answer=False))
            case _:
                pass  # gossip, or a stranger's word
        return self._end(now)

    def on_time(self, now: float) -> tuple[Effect, ...]:
        """Do what is due; call it when `deadline()` has come."""
        self._begin(now)
        for relay in self._relays.unanswered(now):
            self._send(relay.origin, Nack(self._standing, self._claims_for(relay.origin), number=relay.origin_number))
        if self._probes:
            for probe in [probe for probe in self._probes.values() if probe.due <= now]:
                self._probe_due(probe, now)
        if self._beliefs.suspects:
            self._hear_last_words(now)
            if now >= self._no_verdict_before:
                self._beliefs.convict(now)
        if self._next_probe <= now:
            self._probe_tick(now)
        if self._beliefs.queue and self._next_gossip <= now:
            self._gossip_tick(now)
        if self._next_sync <= now:
            self._sync_tick(now)
        return self._end(now)

    def deadline(self) -> float:
        """When `on_time` is to be called next, if nothing else happens before; infinity while there is nobody else."""
        return self._due

    # -- outputs

    @property
    def incarnation(self) -> int:
        """Our own, as the others know it."""
        return self._standing.incarnation

    def liveness(self, node: NodeId) -> Liveness | None:
        """What `node` is believed to be; ourselves are alive; None for a stranger."""
        if node == self.me:
            return Liveness.ALIVE
        member = self.view.get(node)
        return None if member is None else member.liveness

    def suspect_until(self, node: NodeId) -> float | None:
        """When the suspect `node` will be believed dead, as things stand; None if it is no suspect."""
        suspicion = self._beliefs.suspects.get(node)
        return None if suspicion is None else max(suspicion.expires, self._no_verdict_before)

    def peer_epoch(self, node: NodeId) -> tuple[Epoch, bytes] | None:
        """The last (epoch, digest) heard from `node`."""
        return self._peer_epochs.get(node)

    def states(self) -> tuple[MemberState, ...]:
        """What is believed of every other member."""
        return self.view.states()

    # -- each step

    def _begin(self, now: float) -> None:
        assert not self._effects, "a step began inside another"
        if now - self._due > self.config.stall_s:
            self._woke_late(now)

    def _end(self, now: float) -> tuple[Effect, ...]:
        self._stepped_at = now
        due = self._earliest() if self._is_watching else inf
        self._due = due if due > now else now
        if not self._effects:
            return ()
        effects = tuple(self._effects)
        self._effects.clear()
        return effects

    def _earliest(self) -> float:
        due = self._next_probe
        if self._next_sync < due:
            due = self._next_sync
        if self._next_gossip < due and self._beliefs.queue:
            due = self._next_gossip
        verdict = self._beliefs.suspects.earliest()
        if verdict < inf:
            if verdict < self._no_verdict_before:
                verdict = self._no_verdict_before
            beat = self._stepped_at + self._heartbeat_s
            due = min(due, verdict, beat)
        for probe in self._probes.values():
            if probe.due < due:
                due = probe.due
        relayed = self._relays.earliest()
        return relayed if relayed < due else due

    def _woke_late(self, now: float) -> None:
        """We did not run when we should have: forget what we failed to hear, ask again, judge nobody for a while."""
        self.health.worse()
        self._no_verdict_before = now + self.health.scale(self.config.probe_interval_s)
        self._relays.clear()
        stale, self._probes = self._probes, {}
        for node in dict.fromkeys([*stale, *self._beliefs.suspects]):
            self._start_probe(node, now)

    # -- probing

    def _send(self, to: NodeId, message: AnyMessage) -> None:
        self._effects.append(Send(to, message))

    def _number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _claims_for(self, to: NodeId) -> tuple[Claim, ...]:
        """Gossip for a message to `to`; if it is not alive to us it hears so first, and can refute with its answer."""
        queue, member = self._beliefs.queue, self.view.get(to)
        claims = queue.take(count_max=self._piggyback_max, tellings=self._tellings) if queue else []
        if member is not None and member.liveness is not Liveness.ALIVE:
            claims.insert(0, member.claim())
        return tuple(claims)

    def _ask_table_once(self, node: NodeId) -> None:
        """The first peer that we meet tells us what the cluster believes."""
        if not self._has_asked_table:
            self._has_asked_table = True
            self._send(node, Sync(self._standing, self.view.claims(), answer=True))

    def _ping(self, node: NodeId) -> int:
        number = self._number()
        self._send(node, Ping(self._standing, self._claims_for(node), number=number))
        return number

    def _start_probe(self, node: NodeId, now: float) -> None:
        member = self.view.get(node)
        assert member is not None, "only members are probed"
        self._probes[node] = Probe(
            self._ping(node),
            node,
            member.incarnation,
            ask_at=now + self.health.scale(self.config.probe_timeout_s),
            fails_at=now + self.health.scale(self.config.probe_interval_s),
        )

    def _probe_tick(self, now: float) -> None:
        self._next_probe = now + self.health.scale(self.config.probe_interval_s)
        node = self._rotation.next(self.view.not_dead())
        if node is not None and node not in self._probes:
            self._start_probe(node, now)
        suspects = [suspect for suspect in self._beliefs.suspects if suspect not in self._probes]
        for suspect in suspects[:SUSPECTS_PINGED_MAX]:
            self._ping(suspect)
        dead = self._dead_rotation.next(self.view.dead())
        if dead is not None:
            self._ping(dead)

    def _hear_last_words(self, now: float) -> None:
        """Ask the suspects whose time is nearly over, at unstretched intervals: our own may be longer than that."""
        timeout_s = self.config.probe_timeout_s
        for suspect in self._beliefs.suspects.closing(now, within=self.config.last_words_s, every=timeout_s):
            self._ping(suspect)

    def _probe_due(self, probe: Probe, now: float) -> None:
        if not probe.asked:
            candidates = [node for node in self.view.alive() if node != probe.target]
            helpers = self._rng.sample(candidates, min(self.config.helpers, len(candidates)))
            patience_s = self.config.probe_interval_s - self.config.probe_timeout_s
            probe.ask(helpers, fails_at=now + self.health.scale(patience_s))
            for helper in helpers:
                claims = self._claims_for(helper)
                self._send(helper, Ask(self._standing, claims, number=probe.number, target=probe.target))
        if probe.fails_at <= now:
            del self._probes[probe.target]
            member = self.view.get(probe.target)
            assert member is not None, "a probe outlived its member"
            if member.liveness is not Liveness.DEAD:
                self.health.worse(probe.blame)
                self._beliefs.believe(member, Claim(member.node, Liveness.SUSPECT, probe.incarnation, self.me), now)

    def _on_ack(self, sender: NodeId, number: int, standing: Standing) -> None:
        relay = self._relays.answered(number, sender)
        if relay is not None:
            answered = Claim(sender, Liveness.ALIVE, standing.incarnation, self.me)
            claims = (*self._claims_for(relay.origin), answered)
            self._send(relay.origin, Ack(self._standing, claims, number=relay.origin_number))
            return
        for probe in self._probes.values():
            if probe.number == number and (sender == probe.target or sender in probe.helpers):
                del self._probes[probe.target]
                self.health.better()
                return

    def _on_nack(self, sender: NodeId, number: int) -> None:
        for probe in self._probes.values():
            if probe.number == number and sender in probe.helpers:
                probe.nacks.add(sender)

    def _on_ask(self, origin: NodeId, number: int, target: NodeId, now: float) -> None:
        if target == self.me:
            self._send(origin, Ack(self._standing, self._claims_for(origin), number=number))
        elif self.view.get(target) is None or self._relays.is_full:
            self._send(
                origin, Nack(self._standing, self._claims_for(origin), number=number)
            )  # no reason for self-doubt
        else:
            nack_at, forget_at = now + self.config.nack_after_s, now + 2 * self.config.probe_interval_s
            relay = Relay(origin, number, target, nack_at=nack_at, forget_at=forget_at)
            self._relays.add(self._ping(target), relay)

    # -- believing

    def _hear_of_ourselves(self, claim: Claim) -> None:
        ours = self._standing
        if claim.incarnation < ours.incarnation or claim.incarnation >= INCARNATION_MAX:
            return
        if claim.liveness is Liveness.ALIVE and claim.incarnation == ours.incarnation:
            return
        if claim.liveness is not Liveness.ALIVE:
            self.health.worse()
        self._standing = Standing(claim.incarnation + 1, ours.epoch, ours.digest)
        self._beliefs.queue.put(Claim(self.me, Liveness.ALIVE, self._standing.incarnation, self.me))

    def _answer_accuser(self, accuser: NodeId) -> None:
        """Say that we live, also when the accusation is of old: whoever repeats it has missed what we said to it.

        And nothing else: an accusation in the answer would be answered in turn.
        """
        alive = Claim(self.me, Liveness.ALIVE, self._standing.incarnation, self.me)
        self._send(accuser, Gossip(self._standing, (alive,)))

    def _note_epoch(self, sender: NodeId, message: AnyMessage, *, known: bool) -> None:
        pair = (message.standing.epoch, message.standing.digest)
        news = self._peer_epochs.get(sender) != pair
        ours = (self._standing.epoch, self._standing.digest)
        if known and news:
            self._peer_epochs[sender] = pair
        if news or (pair != ours and isinstance(message, Ping | Ack)):
            self._effects.append(PeerEpoch(sender, *pair))

    # -- telling

    def _gossip_tick(self, now: float) -> None:
        self._next_gossip = now + self.config.gossip_interval_s
        candidates = self.view.not_dead()
        for node in self._rng.sample(candidates, min(self.config.gossip_fanout, len(candidates))):
            claims = self._claims_for(node)
            if claims:
                self._send(node, Gossip(self._standing, claims))

    def _sync_tick(self, now: float) -> None:
        self._next_sync = now + self.config.sync_interval_s * (0.5 + self._rng.random())
        candidates = self.view.alive()
        if candidates:
            self._send(self._rng.choice(candidates), Sync(self._standing, self.view.claims(), answer=True))

    def check(self) -> None:
        """Assert the machine's invariants."""
        self._beliefs.check()
        members = {member.node for member in self.view}
        assert self._probes.keys() <= members
        assert all(probe.helpers <= members for probe in self._probes.values()), "a helper that is no member"
        self._relays.check(members)
        assert all(node == probe.target for node, probe in self._probes.items())
        assert 0 <= self.health.score <= self.health.score_max
        assert not self._effects
