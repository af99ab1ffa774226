"""The membership tier: failure detectors under loss, stalls, crashes and partitions, episode after episode (I23).

An episode is a cluster of three nodes up to twice the number asked for, in some weather, with settings drawn so that
their bounds are met (few relays, few claims on a message). After some hundred to some thousand steps everything is
mended, but for nodes that stay dead. Then:

    within a bound everybody believes everybody alive who is, and dead who is: no lasting false death
    from then on nobody changes their mind, nodes that were short of breath recover, and everybody knows which metadata
    everybody holds
    one more node is killed, and within the bound of the settings' formula everybody knows

Members come and go meanwhile; each node hears of it when it does, some of the removed never in time, and go on talking
as strangers. When all is mended they have said that they were expelled, and are silent.

An operation is a step of a detector: a message heard, a timer, a session. Those of the judgement are not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf
from random import Random
from typing import Final

from leafdb.membership.config import LARGE, SMALL, MembershipConfig
from leafdb.sim.heap import CALM, Heap, Nemesis, Weather, draw_some, outcome
from leafdb.sim.membership_world import REFUTED, SLEPT, Cluster, Node
from leafdb.sim.outcome import NODES, OPERATIONS, Outcome, Tier
from leafdb.testing.violation import Invariant, require
from leafdb.types import Epoch, Liveness, NodeId

EVERY_S: Final = 2.0
GOSSIP_S: Final = 2.0
"""What a claim takes to be with everybody, on a network that loses nothing."""
HEALTH_MAX: Final = 8
SPARES: Final = 3
"""Nodes that may join."""
MEMBERS_MIN: Final = 3
PROBES: Final = (
    REFUTED,
    SLEPT,
    FALSE_DEATH := "a running node was believed dead",
    DIVIDED := "opinions were divided when all was mended",
    UNWELL := "a node trusted its own ears least",
    RETURNED := "a node returned before it was missed",
    LAST_TWO := "two nodes were left of a cluster",
    REMOVED_SUSPECT := "a suspect was removed from the cluster",
    STRANGER := "a removed node ran on as a stranger",
)


def crash_known_s(config: MembershipConfig, members: int, gone: int) -> float:
    """By when a crash is known to all in a cluster of `members`, `gone` of them dead already, on a calm network.

    A rotation and a half may pass before the first probe, as long again before enough others have probed too. With
    some gone there may never be enough accusers: then the suspicion runs to its end.
    """
    least, most = config.suspicion_s(members)
    probed = (2 * (members - 1) + 1) * config.probe_interval_s
    return probed + (most if gone else min(most, least + probed)) + GOSSIP_S


class Episode:
    """One cluster, from its start to its judgement."""

    def __init__(self, heap: Heap, name: str, nodes: int) -> None:
        self.heap = heap
        self.rng: Random = Random(f"{name}/nemesis")
        rng = self.rng
        count = rng.choice((3, max(3, nodes), max(3, nodes), max(3, 2 * nodes)))
        weather = rng.choice((CALM, Weather(loss=0.05, doubling=0.1), Weather.draw(rng)))
        self.config: MembershipConfig = replace(
            rng.choice((SMALL, SMALL, LARGE)),
            helpers=rng.choice((0, 1, 3, 3)),
            relays_max=rng.choice((2, 256)),
            piggyback_claims_max=rng.choice((2, 32)),
            sync_interval_s=rng.choice((5.0, 30.0)),
        )
        self.length: int = rng.randint(400, 4_000)
        self.cluster: Cluster = Cluster(heap, name, count, self.config, weather, spares=SPARES)
        self.spares: list[NodeId] = [NodeId(count + number) for number in range(1, SPARES + 1)]
        self.announced: dict[NodeId, Epoch] = {}
        self.over: bool = False
        """Who is dead now stays dead."""
        self.nemesis: Nemesis = Nemesis(heap, rng, self._deeds(), every_s=EVERY_S)

    def run(self, operations: int) -> None:
        """At most so many steps, then the judgement."""
        cluster = self.cluster
        length = min(self.length, operations)
        while cluster.steps < length and self.heap.step():
            pass
        self.heap.operations += length
        self.nemesis.stop()
        self.over = True
        self._mend()
        self._settle()
        self._kill_one()

    # -- the nemesis

    def _deeds(self) -> list[tuple[str, Callable[[], str | None]]]:
        return draw_some(
            self.rng,
            (
                ("kill", self._kill),
                ("quick restart", self._restart),
                ("stall", partial(self._stall, 1.2)),
                ("long stall", partial(self._stall, 20.0)),
                ("partition", self._partition),
                ("pair cut off", self._cut_pair),
                ("session reset", self._reset),
                ("new metadata", self._announce),
                ("node removed", self._remove),
                ("node joins", self._join),
            ),
        )

    def _kill(self) -> str | None:
        node = self._victim(spare=2)
        if node is None:
            return None
        self._crash(node)
        if self.rng.random() < 0.7:
            self.heap.at(self.heap.now + self.rng.uniform(1.0, 30.0), partial(self._return, node))
        return node.host.name

    def _restart(self) -> str | None:
        node = self._victim(spare=2)
        if node is None:
            return None
        self._crash(node)
        self.heap.at(self.heap.now + self.rng.uniform(0.05, 1.0), partial(self._return, node))
        return node.host.name

    def _victim(self, *, spare: int) -> Node | None:
        running = self.cluster.running()
        self.heap.trace.probe(LAST_TWO, len(running) == 2)
        return self.rng.choice(running) if len(running) > spare else None

    def _crash(self, node: Node) -> None:
        node.host.crash()
        self.announced.pop(node.id, None)
        tell = self.rng.random() < 0.5
        for other in self.cluster.running():
            if tell:
                self.cluster.session(other, node.id, up=False)

    def _return(self, node: Node) -> None:
        if node.host.up or self.over or node.id not in self.cluster.ids:
            return
        cluster = self.cluster
        self.heap.trace.probe(RETURNED, Liveness.DEAD not in cluster.believed(node.id))
        cluster.start(node)
        for other in cluster.running():
            if other is not node and other.id in node.members and cluster.network.reaches(node.host, other.host):
                cluster.session(node, other.id, up=True)
                cluster.session(other, node.id, up=True)

    def _remove(self) -> str | None:
        cluster, trace = self.cluster, self.heap.trace
        if len(cluster.ids) <= MEMBERS_MIN:
            return None
        node = cluster.nodes[self.rng.choice(cluster.ids)]
        if node.host.up and len(cluster.running()) <= 2:
            return None
        trace.probe(REMOVED_SUSPECT, Liveness.SUSPECT in cluster.believed(node.id))
        trace.probe(STRANGER, node.host.up)
        cluster.change_members(removed=node.id)
        self.announced.pop(node.id, None)
        self._spread()
        return node.host.name

    def _join(self) -> str | None:
        if not self.spares:
            return None
        cluster = self.cluster
        node = cluster.nodes[self.spares.pop()]
        cluster.change_members(joined=node.id)
        node.members, node.version = frozenset(cluster.ids), cluster.version
        cluster.start(node)
        self._spread()
        return node.host.name

    def _spread(self) -> None:
        """Everybody hears of the new list sooner or later."""
        for node in self.cluster.nodes.values():
            self.heap.at(self.heap.now + self.rng.expovariate(0.3), partial(self._tell_members, node))

    def _tell_members(self, node: Node) -> None:
        if not node.host.stalled:
            self.cluster.tell_members(node)

    def _stall(self, seconds: float) -> str | None:
        node = self._victim(spare=0)
        if node is None:
            return None
        node.host.stall(self.rng.random() * seconds)
        return node.host.name

    def _partition(self) -> str:
        network, hosts = self.cluster.network, [node.host for node in self.cluster.nodes.values()]
        self.rng.shuffle(hosts)
        size = self.rng.randint(1, len(hosts) - 1)
        one_way = self.rng.random() < 0.4
        network.split(hosts[:size], hosts[size:], one_way=one_way)
        self.heap.at(self.heap.now + self.rng.uniform(0.5, 25.0), network.heal)
        return f"{'/'.join(sorted(host.name for host in hosts[:size]))}{' one way' if one_way else ''}"

    def _cut_pair(self) -> str:
        a, b = self.rng.sample([node.host for node in self.cluster.nodes.values()], 2)
        self.cluster.network.split([a], [b])
        return f"{a.name}/{b.name}"

    def _reset(self) -> str | None:
        a, b = self.rng.sample(self.cluster.running(), 2)
        for node, peer in ((a, b), (b, a)):
            self.cluster.session(node, peer.id, up=False)
            self.cluster.session(node, peer.id, up=True)
        return f"{a.host.name}/{b.host.name}"

    def _announce(self) -> str | None:
        node = self._victim(spare=0)
        if node is None:
            return None
        epoch = Epoch(max(self.announced.values(), default=Epoch(0)) + 1)
        node.detector.announce(epoch, b"%08d" % epoch)
        self.announced[node.id] = epoch
        return f"{node.host.name}: {epoch}"

    # -- the judgement

    def _mend(self) -> None:
        """Everything but the dead. Whoever is alive is soon known to be, and whoever is not as well."""
        cluster, config, trace = self.cluster, self.config, self.heap.trace
        wrong = [node for node in cluster.running() if Liveness.DEAD in cluster.believed(node.id)]
        trace.probe(FALSE_DEATH, len(wrong))
        trace.probe(DIVIDED, any(len(cluster.believed(node)) > 1 for node in cluster.ids))
        trace.probe(UNWELL, any(node.detector.health.score == config.health_score_max for node in cluster.running()))
        cluster.network.heal()
        cluster.network.weather = CALM
        for node in cluster.nodes.values():
            while node.host.stalled:
                cluster.run(1.0)
        self._tell_all()
        trace.tell("nemesis", "everything is mended")
        # Probe intervals may be stretched to the limit, and the dead are asked one in each.
        members = len(cluster.ids)
        slowest = HEALTH_MAX * config.probe_interval_s * (2 * members + 2)
        cluster.until_agreed(slowest + config.suspicion_s(members)[1] + GOSSIP_S, "everything was mended")

    def _tell_all(self) -> None:
        cluster = self.cluster
        for node in cluster.nodes.values():
            before = node.expelled
            was_in, was = node.id in node.members, node.version
            cluster.tell_members(node)
            told = node.host.up and was_in and was < cluster.version and node.id not in cluster.ids
            says = f"{node.host.name} says {node.expelled - before} times that it was expelled"
            require(node.expelled - before == told, Invariant.BANS_FINAL, says)
            silent = node.id in cluster.ids or not node.host.up or node.detector.deadline() == inf
            require(silent, Invariant.BANS_FINAL, f"{node.host.name} was expelled, and goes on watching")

    def _settle(self) -> None:
        """Nobody changes their mind any more, everybody gets well, and the metadata is known."""
        cluster, config = self.cluster, self.config
        cluster.run((HEALTH_MAX + 1) * config.probe_interval_s)  # probes that were under way end
        within = cluster.until_agreed(config.suspicion_s(len(cluster.ids))[1], "it had been agreed")
        require(within < 1e-9, Invariant.CRASH_KNOWN, "somebody is wrong again, although everything is mended")
        before = [len(node.changes) for node in cluster.nodes.values()]
        # One point better with each probe that succeeds; the one under way, then intervals of 8, 7, 6 ... T.
        cluster.run((HEALTH_MAX + sum(range(1, HEALTH_MAX + 1))) * config.probe_interval_s)
        after = [len(node.changes) for node in cluster.nodes.values()]
        require(before == after, Invariant.CRASH_KNOWN, "somebody changed their mind, although nothing happened")
        running = cluster.running()
        for node in running:
            watched = {member.node for member in node.detector.view} | {node.id}
            require(
                watched == set(cluster.ids), Invariant.BANS_FINAL, f"{node.host.name} takes {watched} for the members"
            )
        unwell = [node.host.name for node in running if node.detector.health.score]
        require(not unwell, Invariant.LIVENESS, f"{unwell} still do not trust their own ears")
        for node in running:
            for peer in running:
                epoch = self.announced.get(peer.id, Epoch(0))
                heard = node is peer or node.epochs.get(peer.id, Epoch(0)) == epoch
                require(
                    heard, Invariant.LIVENESS, f"{node.host.name} has not heard of {peer.host.name}'s epoch {epoch}"
                )
                member = node.detector.view.get(peer.id)
                known = member is None or member.incarnation == peer.incarnation
                require(known, Invariant.CRASH_KNOWN, f"{node.host.name} knows an old {peer.host.name}")

    def _kill_one(self) -> None:
        cluster = self.cluster
        running = cluster.running()
        members, gone = len(cluster.ids), len(cluster.ids) - len(running)
        node = self.rng.choice(running)
        killed_at = self.heap.now
        node.host.crash()
        self.heap.trace.tell("nemesis", f"{node.host.name} is killed")
        bound = crash_known_s(self.config, members, gone)
        cluster.until_agreed(bound, f"{node.host.name} was killed")
        wrong = [about for when, _, about in cluster.deaths() if when >= killed_at and about != node.id]
        require(not wrong, Invariant.CRASH_KNOWN, f"nodes {wrong} were convicted along with it")


def run(seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False) -> Outcome:
    """So many steps of detectors over as many episodes as that takes."""
    heap = Heap(keep=keep)

    def body() -> None:
        number = 0
        while heap.operations < operations:
            number += 1
            heap.clear()
            heap.trace.tell("runner", f"episode {number}")
            Episode(heap, f"{seed}/{number}", nodes).run(operations - heap.operations)

    return outcome(Tier.MEMBERSHIP, seed, nodes, heap, PROBES, body)
