"""The failure detectors of a whole cluster in one heap of events, and what each of them has said.

A detector is stepped by mail, by its timer, and by sessions that break and return. Whoever is stalled runs its timer
before it reads what came, which is the order that convicts wrongly. Watched at each step:

    nobody is believed to have an incarnation that it never had
    nothing is said that `membership_watch` forbids
    the machine's own invariants; its messages survive the wire

Members come and go: `change_members` makes the next version of the list, and each node is told when it is told. Those
that are out and have not heard, or run on all the same, are strangers to all who have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from random import Random
from typing import Final

from leafdb.membership.config import MembershipConfig
from leafdb.membership.effects import Effect, Expelled, MemberChanged, PeerEpoch, Send
from leafdb.membership.failure_detector import FailureDetector
from leafdb.membership.messages import AnyMessage, Numbered, from_wire
from leafdb.sim.heap import CALM, Heap, Host, Network, Weather
from leafdb.sim.membership_watch import Watch
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import Epoch, Liveness, NodeId

WIRE_CHECKED: Final = 16
"""One in so many messages is encoded, decoded and compared."""
STEP_S: Final = 0.05
SLEPT: Final = "a node woke up late with suspects"
REFUTED: Final = "a node refuted its own obituary"


class Node:
    """One node: its detector of this life, and what that said."""

    def __init__(self, heap: Heap, node: NodeId) -> None:
        self.id = node
        self.host: Host = Host(heap, f"n{node}")
        self.boots = 0
        self.detector: FailureDetector
        self.changes: list[tuple[float, NodeId, Liveness]] = []
        """Of all lives: when it began to believe what of whom."""
        self.epochs: dict[NodeId, Epoch] = {}
        self.incarnation = 0
        """The greatest it ever had."""
        self.wake_at: float = float("inf")
        self.watch: Watch
        self.members: frozenset[NodeId] = frozenset()
        """The newest list it was ever told: it is on its disk."""
        self.version = 0
        self.expelled = 0
        """How often it said so, in all lives."""


class Cluster:
    """All of them. Time passes in `run` and `until` only."""

    def __init__(
        self, heap: Heap, name: str, count: int, config: MembershipConfig, weather: Weather = CALM, spares: int = 0
    ) -> None:
        self.heap = heap
        self.name = name
        self.config = config
        self.network: Network = Network(heap, Random(f"{name}/net"), weather)
        self.ids: list[NodeId] = [NodeId(number) for number in range(1, count + 1)]
        """The members, in order."""
        self.version: int = 1
        added = map(NodeId, range(count + 1, count + spares + 1))
        self.nodes: dict[NodeId, Node] = {node: Node(heap, node) for node in [*self.ids, *added]}
        self.steps: int = 0
        self.sent: int = 0
        for node in self.nodes.values():
            if node.id in self.ids:
                node.members, node.version = frozenset(self.ids), self.version
                self.start(node)
            else:
                node.host.crash()

    # -- lives

    def start(self, node: Node) -> None:
        """A new life, with the next boot number and nothing remembered."""
        node.boots += 1
        rng = Random(f"{self.name}/n{node.id}/{node.boots}")
        node.detector = FailureDetector(self.config, node.id, boot=node.boots, now=self.heap.now, rng=rng)
        node.epochs = {}
        node.watch = Watch(node.host.name, self.config, node.detector)
        node.wake_at = float("inf")
        node.host.start()
        self._set_members(node)

    def running(self) -> list[Node]:
        """The members that are up, stalled or not."""
        return [self.nodes[node] for node in self.ids if self.nodes[node].host.up]

    def change_members(self, *, joined: NodeId | None = None, removed: NodeId | None = None) -> None:
        """The metadata names others from now on; nobody knows yet."""
        self.ids = sorted({*self.ids, *([] if joined is None else [joined])} - {removed})
        self.version += 1

    def tell_members(self, node: Node) -> None:
        """This node fetches the newest list, if it is up."""
        if node.host.up and node.version < self.version:
            node.members, node.version = frozenset(self.ids), self.version
            node.watch.begins(self.heap.now)
            self._set_members(node)

    def _set_members(self, node: Node) -> None:
        node.watch.told_members(node.members)
        self.perform(node, node.detector.set_members(node.members, self.heap.now))
        known = {member.node for member in node.detector.view}
        wanted = node.members - {node.id} if node.id in node.members else frozenset()
        require(known == wanted, Invariant.BANS_FINAL, f"{node.host.name} watches {known}, and was told {wanted}")

    def session(self, node: Node, peer: NodeId, *, up: bool) -> None:
        """The control stream of `node` to `peer` broke, or is back; it finds out when it runs."""
        self.heap.push(self.heap.now, node.host, 0, b"session", partial(self._session, node, peer, up))

    def _session(self, node: Node, peer: NodeId, up: bool) -> None:
        detector = node.detector
        change = detector.on_session_established if up else detector.on_session_lost
        self._begins(node)
        self.perform(node, change(peer, self.heap.now))

    # -- steps

    def perform(self, node: Node, effects: Iterable[Effect], *, by: NodeId | None = None) -> None:
        """What a step asks for, upon the word of `by` or of nobody, and what must hold after it."""
        self.steps += 1
        detector, heap = node.detector, self.heap
        if detector.incarnation > node.incarnation:
            heap.trace.probe(REFUTED, node.boots == detector.incarnation >> 32 and node.incarnation >> 32 == node.boots)
            node.incarnation = detector.incarnation
        for effect in effects:
            match effect:
                case Send(to=to, message=message):
                    node.watch.sends(to, message, heap.now)
                    self._send(node, self.nodes[to], message)
                case MemberChanged(node=about, liveness=liveness):
                    self._changed(node, about, liveness, by)
                case PeerEpoch(node=about, epoch=epoch):
                    node.epochs[about] = epoch
                case Expelled():
                    node.expelled += 1
        detector.check()
        deadline = detector.deadline()
        require(deadline >= heap.now, Invariant.SELF_CHECK, f"{node.host.name} wants to be woken in the past")
        if deadline < node.wake_at:
            node.wake_at = deadline
            node.host.at(deadline, partial(self._wake, node))

    def _send(self, node: Node, target: Node, message: AnyMessage) -> None:
        self.sent += 1
        if not self.sent % WIRE_CHECKED:
            same = from_wire(message.to_wire()) == message
            require(same, Invariant.SELF_CHECK, f"{message} does not survive the wire")
        number = message.number if isinstance(message, Numbered) else 0
        mail = b"%s %d %d %d" % (message.kind.encode(), number, message.standing.incarnation, len(message.claims))
        self.network.send(node.host, target.host, mail, partial(self._deliver, node.id, target, message))

    def _deliver(self, sender: NodeId, node: Node, message: AnyMessage) -> None:
        self._begins(node)
        effects = node.detector.on_message(sender, message, self.heap.now)
        node.watch.heard(sender, message, self.heap.now)
        self.perform(node, effects, by=sender)

    def _wake(self, node: Node) -> None:
        if node.wake_at > self.heap.now:
            return  # an earlier wish, overtaken by a crash
        node.wake_at = float("inf")
        if node.detector.deadline() > self.heap.now:
            self.perform(node, ())
            return
        self._begins(node)
        self.perform(node, node.detector.on_time(self.heap.now))

    def _begins(self, node: Node) -> None:
        node.watch.begins(self.heap.now)
        if node.watch.slept:
            self.heap.trace.probe(SLEPT, bool(node.detector.view.with_liveness(Liveness.SUSPECT)))

    def _changed(self, node: Node, about: NodeId, liveness: Liveness, by: NodeId | None) -> None:
        node.changes.append((self.heap.now, about, liveness))
        self.heap.trace.tell(node.host.name, f"believes n{about} {liveness.name.lower()}", f"n{about}")
        member = node.detector.view.get(about)
        assert member is not None
        known = member.incarnation <= self.nodes[about].incarnation
        require(known, Invariant.CRASH_KNOWN, f"{node.host.name} believes in an incarnation that n{about} never had")
        node.watch.changes(about, liveness, self.heap.now, by=by)

    # -- time, and what is believed

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.heap.run(self.heap.now + seconds)

    def believed(self, about: NodeId) -> list[Liveness | None]:
        """What the others that are up believe of a node, each opinion once."""
        opinions = [node.detector.liveness(about) for node in self.running() if node.id != about]
        return list(dict.fromkeys(opinions))

    def agreed(self) -> bool:
        """Whether everybody believes the truth of everybody."""
        for node in self.ids:
            truth = Liveness.ALIVE if self.nodes[node].host.up else Liveness.DEAD
            if any(opinion is not truth for opinion in self.believed(node)):
                return False
        return True

    def until_agreed(self, within_s: float, what: str) -> float:
        """How long it takes until everybody believes the truth. Raises Violation when that is too long."""
        start = self.heap.now
        while not self.agreed():
            if self.heap.now >= start + within_s:
                wrong = [f"n{node}: {self.believed(node)}" for node in self.ids]
                violated(Invariant.CRASH_KNOWN, f"{within_s:.1f} s after {what}: {'; '.join(wrong)}")
            self.run(STEP_S)
        return self.heap.now - start

    def deaths(self) -> list[tuple[float, NodeId, NodeId]]:
        """All convictions there ever were: when, by whom, of whom."""
        return [
            (when, node.id, about)
            for node in self.nodes.values()
            for when, about, liveness in node.changes
            if liveness is Liveness.DEAD
        ]


def groups(cluster: Cluster, members: Sequence[NodeId]) -> tuple[list[Host], list[Host]]:
    """The hosts of `members`, and those of the others."""
    inside = [node.host for node in cluster.nodes.values() if node.id in members]
    return inside, [node.host for node in cluster.nodes.values() if node.id not in members]
