"""The register tier: proposers and acceptors of the metadata register, history after history.

One to five acceptors, two to four clients, up to a dozen operations: reads, compare-and-sets, changes that recognise
themselves and plain ones; in most histories also changes of the control set, to any set of acceptors that are there.
Messages are lost, doubled and reordered, deadlines are short, and a nemesis crashes, stalls, wipes and cuts off. At the
end, everything mended, one more operation has to succeed in bounded time (L), and a change under way ends. Judged are:

    I24   no ballot has two values, and every value chosen is built on the one chosen before
    I26   no durable promise is gone back on
    I10   whoever was told of a change, a refusal or a value was told the truth
    I25   the answers are those of one copy: once by the order in the final value, once by the linearizability checker

An operation is a client's. The histories of a seed draw from streams of their own, so that a run of fewer operations is
a prefix of one of more.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from random import Random
from typing import Final

from leafdb.consensus.ballot import AcceptorId
from leafdb.consensus.control_set import ControlSet
from leafdb.consensus.effects import NO_QUORUM, Chosen, Refused, Unknown
from leafdb.consensus.effects import Outcome as Told
from leafdb.consensus.proposer import AMBIGUOUS
from leafdb.sim.heap import CALM, Heap, Host, Nemesis, Network, Weather, draw_some, outcome
from leafdb.sim.outcome import NODES, OPERATIONS, Outcome, Tier
from leafdb.sim.register_control import Ballots, Controls, half
from leafdb.sim.register_world import (
    CAUGHT_UP,
    FOREVER,
    KINDS,
    LOST_NEXT,
    MET_JOINT,
    OLD_ANSWERED,
    SOUND,
    STEPS,
    AcceptorNode,
    Asked,
    Client,
    Rules,
)
from leafdb.testing.linearizability import Recording, Verdict, check
from leafdb.testing.linearizability_models import IMPOSSIBLE, NOT_APPLIED, UNKNOWN, IsImpossible
from leafdb.testing.violation import Invariant, require, violated
from leafdb.types import NodeId

KEY: Final = "register"
EVERY_S: Final = 0.15
CALM_S: Final = 10.0
"""On a healed control set an operation takes a few round trips, and a pause or two if it meets others."""
PROBES: Final = (
    OVERTAKEN := "a competitor built on what may contain the change",
    NO_VOTE := "an acceptor had lost its vote",
    REFUSED := "a compare-and-set was refused",
    SURFACED := "an unknown change was there after all",
    VANISHED := "an unknown change never was",
    STOOD_STILL := "no majority answered in time",
    MANY := "three clients asked at once",
    CHANGED := "the control set changed from one set to another",
    WIPED_IN := "a node that had lost its store was put into a control set again",
    FAR := "a change replaced more than one acceptor",
    CAUGHT_UP,
    MET_JOINT,
    LOST_NEXT,
    OLD_ANSWERED,
)


class OneCopy:
    """The register as one copy would be: the numbers applied so far (a model for the checker)."""

    def initial(self, key: Hashable) -> bytes:
        """Never written."""
        return b""

    def step(self, state: bytes, argument: object, result: object) -> bytes | IsImpossible:
        """See linearizability_models.Model; the result is the value an answer showed."""
        assert isinstance(argument, Asked)
        made = argument.change(state)
        if isinstance(made, bytes | None):
            after, applied = made or b"", True
        else:
            after, applied = state, False
        if result is UNKNOWN or result == (applied, after):
            return after
        if argument.kind == "once" and isinstance(result, tuple) and result[1].startswith(after):
            return after  # it recognised itself in a value that others had built on
        return IMPOSSIBLE


class History:
    """One history, from an unwritten register to its judgement."""

    def __init__(self, heap: Heap, name: str, nodes: int, rules: Rules = SOUND) -> None:
        self.heap = heap
        self.rng: Random = Random(f"{name}/clients")
        rng = self.rng
        self.rules = rules
        self.started_at: float = heap.now
        self.network: Network = Network(heap, Random(f"{name}/net"), Weather.draw(rng))
        self.changing: bool = nodes >= 3 and rng.random() < 0.7
        self.eager: float = rng.choice((0.3, 0.6, 0.9))
        count = rng.choice((3, 3, 3, 5)) if nodes >= 5 else 3 if nodes >= 3 else 1
        count = rng.choice((1, count)) if self.changing else count
        first = ControlSet.of(AcceptorId(NodeId(node), 1) for node in range(1, count + 1))
        spare = rng.randint(1, 3) if self.changing else 0
        self.controls: Controls = Controls(first)
        self.ballots: Ballots = Ballots(self.controls)
        self.asked: list[Asked] = []
        self.recording: Recording = Recording()
        self._calls: dict[int, int] = {}
        self.left: int = rng.randint(6, 18) if self.changing else rng.randint(4, 12)
        disks, disk_s = Random(f"{name}/disks"), rng.choice((0.0, 0.002, 0.02))
        thin = rng.choice((0.0, 0.0, 0.3, 0.7))
        self.clients: dict[NodeId, Client] = {}
        self.acceptors: dict[NodeId, AcceptorNode] = {
            NodeId(node): AcceptorNode(
                heap, self.network, self.clients, self.ballots, node, rng=disks, disk_s=disk_s, rules=rules
            )
            for node in range(1, count + spare + 1)
        }
        for node in range(1, rng.choice((2, 2, 3, 4)) + 1):
            proposing = Random(f"{name}/proposer {node}")
            self.clients[NodeId(node)] = Client(
                heap, self.network, self.acceptors, self.ballots, self.controls, node,
                rng=proposing, rules=rules, ask=self._ask, told=self._told,
            )  # fmt: skip
            self.clients[NodeId(node)].thin = thin
            if thin and rng.random() < 0.5:
                self.clients[NodeId(node)].beyond = NodeId(rng.randint(1, count))
        self.evil: Random = Random(f"{name}/nemesis")
        self.nemesis: Nemesis = Nemesis(heap, self.evil, self._deeds(), every_s=EVERY_S)

    def run(self, operations: int) -> None:
        """At most so many operations, then the judgement."""
        self.left = min(self.left, operations)
        while (self.left or any(client.asked for client in self.clients.values())) and self.heap.step():
            pass
        self.nemesis.stop()
        stuck = self._heal()
        final = self._check_agreement()
        for asked in self.asked:
            self._check_outcome(asked, final)
        self._check_order(final)
        self._check_linearizable()
        require(stuck is None, Invariant.LIVENESS, f"on a healed control set a change is {stuck}", KEY)

    # -- clients

    def _ask(self, client: Client) -> Asked | None:
        if not self.left:
            return None
        self.left -= 1
        kind = self.rng.choice(KINDS)
        if self.changing and self.rng.random() < self.eager:
            kind = self.rng.choice(STEPS)
        asked = self._record(client, kind, client.known)
        self.heap.operations += 1
        self.heap.trace.probe(MANY, sum(1 for each in self.clients.values() if each.asked) >= 2)
        return asked

    def _record(self, client: Client, kind: str, expected: int) -> Asked:
        number, following = len(self.asked) + 1, self._draw_set(client) if kind == "begin" else ()
        asked = Asked(number, client.host.name, kind, expected, self.heap.now, self.controls, following)
        if kind == "begin":
            self.controls.begins(number, following)
        elif kind == "finish":
            self.controls.finishes(number)
        self.asked.append(asked)
        self._calls[number] = self.recording.call(asked.client, KEY, asked)
        text = f"asks {number}: {kind}" + (f" at {expected}" if kind == "cas" else "")
        text += f" {ControlSet(following).describe()}" if following else ""
        self.heap.trace.tell(asked.client, text, KEY)
        return asked

    def _draw_set(self, client: Client) -> tuple[AcceptorId, ...]:
        """Another control set: often one acceptor replaced, as it should be, often anything."""
        there = sorted(each.identity for each in self.acceptors.values() if each.votes)
        now = set(client.control.old).intersection(there)
        others = [each for each in there if each not in now]
        if now and others and self.rng.random() < 0.5:
            now.discard(self.rng.choice(sorted(now)))
            now.add(self.rng.choice(others))
            return tuple(sorted(now))
        return tuple(sorted(self.rng.sample(there, self.rng.randint(1, min(5, len(there))))))

    def _told(self, asked: Asked) -> None:
        trace, call = self.heap.trace, self._calls[asked.number]
        match asked.outcome:
            case Chosen(value=value):
                self.recording.returned(call, (True, value or b""))
                text = f"chosen {list(value or b'')}"
            case Refused(reason=reason, current=current) if reason != NO_QUORUM:
                self.recording.returned(call, (reason == "seen", current or b""))
                trace.probe(REFUSED)
                text = f"refused ({reason}) at {list(current or b'')}"
            case Refused(reason=reason):
                self.recording.returned(call, NOT_APPLIED)
                trace.probe(STOOD_STILL)
                text = reason
            case Unknown(reason=reason):
                trace.probe(OVERTAKEN, reason == AMBIGUOUS)
                text = f"unknown: {reason}"
        trace.tell(asked.client, f"is told of {asked.number}: {text}", KEY)

    # -- the nemesis

    def _deeds(self) -> list[tuple[str, Callable[[], str | None]]]:
        acceptors, clients = list(self.acceptors.values()), list(self.clients.values())
        return draw_some(
            self.evil,
            (
                ("acceptor killed", partial(self._crash, acceptors)),
                ("proposer killed", partial(self._crash, clients)),
                ("stall", self._stall),
                ("partition", self._partition),
                ("acceptor wiped", partial(self._take_vote, AcceptorNode.wipe)),
                ("acceptor state unreadable", partial(self._take_vote, AcceptorNode.lose_state)),
            ),
        )

    def _crash(self, which: Sequence[AcceptorNode | Client]) -> str | None:
        victim = self.evil.choice(which)
        if not victim.host.up:
            return None
        victim.crash()
        return victim.host.name

    def _hosts(self) -> list[Host]:
        acceptors = [acceptor.host for acceptor in self.acceptors.values()]
        return acceptors + [client.host for client in self.clients.values()]

    def _stall(self) -> str:
        host = self.evil.choice(self._hosts())
        host.stall(self.evil.random() * 0.8)
        return host.name

    def _partition(self) -> str:
        hosts = self._hosts()
        self.evil.shuffle(hosts)
        size = self.evil.randint(1, len(hosts) - 1)
        one_way = self.evil.random() < 0.4
        self.network.split(hosts[:size], hosts[size:], one_way=one_way)
        self.heap.at(self.heap.now + self.evil.random() * 0.5, self.network.heal)
        return f"{'/'.join(sorted(host.name for host in hosts[:size]))}{' one way' if one_way else ''}"

    def _take_vote(self, how: Callable[[AcceptorNode], None]) -> str | None:
        """Only while a majority with votes remains: what a minority cannot survive is not promised."""
        acceptor = self.evil.choice(list(self.acceptors.values()))
        if not acceptor.host.up or not (self._spared(acceptor) if acceptor.votes else how is AcceptorNode.wipe):
            return None
        how(acceptor)
        self.heap.trace.probe(NO_VOTE)
        return acceptor.host.name

    def _spared(self, acceptor: AcceptorNode) -> bool:
        """Whether every control set that is or may come to be has a majority without it."""
        voting = {each.identity for each in self.acceptors.values() if each.votes} - {acceptor.identity}
        waiting = {each.following for each in self.asked if each.following and each.end == FOREVER}
        return all(half(ids, voting) for ids in self.ballots.in_question() | waiting)

    # -- the judgement

    def _heal(self) -> Told | None:
        """Mend everything; one more change gets through, on top of all before it. Returns what kept it from that."""
        self.network.heal()
        self.network.weather = CALM
        for acceptor in self.acceptors.values():
            if not acceptor.host.up:
                acceptor.start()
        self.heap.run()
        client = self.clients[NodeId(1)]
        for kind in ("plain", "finish"):
            if kind == "finish" and not self.ballots.control.joint:
                break
            last = self._record(client, kind, 0)
            client.ask_last(last, CALM_S)
            self.heap.run()
            if not isinstance(last.outcome, Chosen):
                return last.outcome
        return None

    def _check_agreement(self) -> bytes:
        chosen = self.ballots.chosen
        final = b""
        for ballot in sorted(chosen):
            built = chosen[ballot].startswith(final)
            require(
                built, Invariant.AGREEMENT, f"the value chosen at {ballot.describe()} is not built on the last", KEY
            )
            final = chosen[ballot]
        self._count_changes(final)
        numbers = list(final)
        require(len(set(numbers)) == len(numbers), Invariant.HONEST_OUTCOMES, "a change was applied twice", KEY)
        return final

    def _count_changes(self, final: bytes) -> None:
        """What happened to the control set, for the probes."""
        trace, before = self.heap.trace, self.controls.first
        for end in range(1, len(final) + 1):
            control = self.controls.named(final[:end])
            if control.joint and not before.joint:
                trace.probe(WIPED_IN, any(each.incarnation > 1 for each in control.next))
                trace.probe(FAR, len(set(control.next) - set(control.old)) > 1)
            trace.probe(CHANGED, before.joint and not control.joint)
            before = control

    def _check_outcome(self, asked: Asked, final: bytes) -> None:
        """One client was told the truth."""
        number, applied = asked.number, asked.number in final
        match asked.outcome:
            case Chosen(value=value, ballot=ballot):
                held = self.ballots.chosen.get(ballot) == (value or b"")
                self._honest(held, number, "was told of a value that no majority holds")
                self._honest(applied == (asked.kind != "read"), number, "was told of a change that is not there")
                if asked.kind == "cas":
                    self._honest(final.index(number) == asked.expected, number, "compared with another version")
            case Refused(reason=reason, current=current):
                self._honest(not applied, number, "was refused, and is there")
                self._honest(final.startswith(current or b""), number, "was told of a value outside the one history")
                same = reason == "version" and len(current or b"") == asked.expected
                self._honest(not same, number, "was refused at the version it expected")
            case Unknown():
                self.heap.trace.probe(SURFACED, applied)
                self.heap.trace.probe(VANISHED, not applied and asked.kind != "read")

    def _honest(self, holds: bool, number: int, what: str) -> None:
        require(holds, Invariant.HONEST_OUTCOMES, f"operation {number} {what}", KEY)

    def _check_order(self, final: bytes) -> None:
        """What ended before another began comes before it in the final value."""
        points = [(asked, point) for asked in self.asked if (point := _point_of(asked, final)) is not None]
        for later, later_point in points:
            strict = later.number in final
            least = final.index(later.number) if strict else later_point
            for earlier, point in points:
                if earlier.end < later.start and point > least:
                    text = f"operation {later.number} began after {earlier.number} had ended and saw less"
                    violated(Invariant.LINEARIZABLE, text, KEY)

    def _check_linearizable(self) -> None:
        report = check(self.recording.operations(), OneCopy())
        if report.verdict is Verdict.VIOLATION:
            violated(Invariant.LINEARIZABLE, "no order of the operations explains their answers", KEY)


def _point_of(asked: Asked, final: bytes) -> int | None:
    """How much of the final value was there, at least, when the operation ended; None: nothing can be said."""
    applied = final.index(asked.number) + 1 if asked.number in final else 0
    match asked.outcome:
        case Chosen(value=value):
            return max(applied, len(value or b""))
        case Refused(reason=reason, current=current) if reason != NO_QUORUM:
            return len(current or b"")
    return applied or None


def run(
    seed: int, *, nodes: int = NODES, operations: int = OPERATIONS, keep: bool = False, rules: Rules = SOUND
) -> Outcome:
    """So many client operations over as many histories as that takes."""
    heap = Heap(keep=keep)

    def body() -> None:
        number = 0
        while heap.operations < operations:
            number += 1
            heap.clear()
            heap.trace.tell("runner", f"history {number}")
            History(heap, f"{seed}/{number}", nodes, rules).run(operations - heap.operations)

    return outcome(Tier.REGISTER, seed, nodes, heap, PROBES, body)
