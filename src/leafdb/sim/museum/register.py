"""The room of ballots: registers that held two values, lost one, or answered what was never chosen."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

ACCEPTOR: Final = "leafdb.consensus.acceptor"
CONTROL_SET: Final = "leafdb.consensus.control_set"
PROPOSER: Final = "leafdb.consensus.proposer"
MAJORITY: Final = "        return _majority(self.old, votes) and (not self.next or _majority(self.next, votes))\n"

SPLIT: Final = (
    Invariant.AGREEMENT, Invariant.LINEARIZABLE, Invariant.HONEST_OUTCOMES, Invariant.PROMISES_DURABLE,
    Invariant.SELF_CHECK,
)  # fmt: skip


def _register(
    name: str, title: str, *edits: tuple[str, str, str], caught_by: tuple[Invariant, ...] = SPLIT
) -> Mutation:
    return Mutation(
        name=name,
        title=title,
        edits=tuple(Edit(*edit) for edit in edits),
        tier=Tier.REGISTER,
        caught_by=caught_by,
        operations=2_000,
    )


MUTATIONS: Final = (
    _register(
        "ballot-reused-after-restart",
        "A proposer counts from one again after a restart and makes the ballots of its last life.",
        ("leafdb.consensus.ballot", "        self._nonce = nonce\n", "        self._nonce = 0 * nonce\n"),
    ),
    _register(
        "promise-not-durable",
        "A promise is given before it is on the disk, and a crash takes it back.",
        (
            ACCEPTOR,
            "        return self._say(sender, Promise(",
            "        return self._say_at_once(sender, Promise(",
        ),
        (
            ACCEPTOR,
            "    def _say(self, sender: NodeId, reply: Reply) -> tuple[AcceptorEffect, ...]:\n",
            "    def _say_at_once(self, sender: NodeId, reply: Reply) -> tuple[AcceptorEffect, ...]:\n"
            "        return Send(sender, reply), Persist(self.state)\n\n"
            "    def _say(self, sender: NodeId, reply: Reply) -> tuple[AcceptorEffect, ...]:\n",
        ),
    ),
    _register(
        "accept-not-durable",
        "An accepted value is confirmed before it is on the disk.",
        (
            ACCEPTOR,
            "        return self._say(sender, Accepted(state.register, state.acceptor, ballot))\n",
            "        return tuple(reversed(self._say(sender, Accepted(state.register, state.acceptor, ballot))))\n",
        ),
    ),
    _register(
        "accept-without-promise",
        "An acceptor takes a value under a ballot below its promise.",
        (ACCEPTOR, "        if _above(state.promised, ballot) or reused:\n", "        if reused:\n"),
    ),
    _register(
        "read-without-accept",
        "A read answers what it saw at one acceptor without having it chosen (CASSANDRA-12126).",
        (
            PROPOSER,
            "            self._outcome = self._make(base, current)\n",
            "            self._outcome = self._make(base, current)\n"
            "            if isinstance(self._outcome, Chosen) and self._value == current and base is not None:\n"
            "                return self._decide(Chosen(current, base))\n",
        ),
    ),
    _register(
        "refusal-without-accept",
        "A compare-and-set that fails answers with a value that is not chosen yet.",
        (
            PROPOSER,
            "            self._outcome = self._make(base, current)\n",
            "            self._outcome = self._make(base, current)\n"
            "            if isinstance(self._outcome, Refused):\n"
            "                return self._decide(self._outcome)\n",
        ),
    ),
    _register(
        "lowest-ballot-wins",
        "Of the values that a majority has accepted the oldest is taken for the current one.",
        (PROPOSER, "max(held, key=lambda pair: pair[0])", "min(held, key=lambda pair: pair[0])"),
    ),
    _register(
        "wiped-acceptor-votes",
        "An acceptor that has lost its state votes as if it had never promised anything.",
        (
            ACCEPTOR,
            "        self._complete = complete and self.state.register == register and self.state",
            "        self._complete = True or self.state.register == register and self.state",
        ),
    ),
    _register(
        "retried-change-applied-twice",
        "A change that lost its round is made again on a value that contains it.",
        (
            PROPOSER,
            "        elif self._may_contain_change(base) and not self._deduplicates:\n"
            "            return self._decide(Unknown(AMBIGUOUS))\n",
            "",
        ),
    ),
    _register(
        "error-path-skips-round",
        "A proposer that gives up says that nothing happened, although its value may be somewhere.",
        (
            PROPOSER,
            "        return self._decide(Unknown(reason) if self._may_hold else Refused(reason, None))\n",
            "        return self._decide(Refused(reason, None))\n",
        ),
    ),
    _register(
        "quorum-of-half",
        "A round is content with half of an even-sized majority less.",
        (
            CONTROL_SET,
            "    return 2 * sum(1 for who in ids if who in votes) > len(ids)\n",
            "    return sum(1 for who in ids if who in votes) >= max(1, len(ids) // 2)\n",
        ),
    ),
    _register(
        "new-set-counts-before-rescan",
        "While the control set changes the old majority is enough: the new set starts without having taken anything.",
        (CONTROL_SET, MAJORITY, "        return _majority(self.old, votes)\n"),
    ),
    _register(
        "old-majority-not-asked-while-joint",
        "As soon as a change of the control set begins the new set counts alone.",
        (CONTROL_SET, MAJORITY, "        return _majority(self.next or self.old, votes)\n"),
    ),
    _register(
        "several-acceptors-changed-by-plain-majority",
        "While the control set changes a majority of old and new together is enough: right only for one at a time.",
        (CONTROL_SET, MAJORITY, "        return _majority(self.everyone, votes)\n"),
    ),
    _register(
        "joint-round-prepared-by-old-majority",
        "While the control set changes a round is accepted by both majorities, but prepared by the old one only.",
        (
            PROPOSER,
            "            if not in_force.has_majority(self._promises.keys()):\n",
            "            if not ControlSet(in_force.old).has_majority(self._promises.keys()):\n",
        ),
        (
            PROPOSER,
            "        if not self.control.has_majority(self._promises.keys()):\n            return ()\n",
            "        if not ControlSet(self.control.old).has_majority(self._promises.keys()):\n            return ()\n",
        ),
    ),
    _register(
        "control-set-changed-on-unchosen-value",
        "A change of the control set builds on a value that is perhaps not chosen (Raft's one-at-a-time change, 2015).",
        (
            PROPOSER,
            "        if named != self.control and (base is None or base != self._confirmed):\n",
            "        if False:\n",
        ),
    ),
    _register(
        "proposer-of-old-control-set-goes-on",
        "A proposer counts the control set it began with, although the value it found names another.",
        (PROPOSER, "        in_force = self._named(current)\n", "        in_force = self.control\n"),
        (PROPOSER, "        named = self._named(made)\n", "        named = self.control\n"),
    ),
    _register(
        "empty-store-votes-for-its-node",
        "Votes are counted by node, not by store: acceptors replaced one by one by empty ones lose everything.",
        (
            PROPOSER,
            "        if message.acceptor not in self._asked or message.acceptor.node != sender:\n",
            "        named = [acceptor for acceptor in sorted(self._asked) if acceptor.node == sender]\n"
            "        message = type(message)(*(  # type: ignore[arg-type]\n"
            "            named[0] if name == 'acceptor' and named else getattr(message, name)\n"
            "            for name in message.__dataclass_fields__\n"
            "        ))\n"
            "        if message.acceptor not in self._asked or message.acceptor.node != sender:\n",
        ),
    ),
)
