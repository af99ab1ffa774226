"""The room of ballots: registers that held two values, lost one, or answered what was never chosen."""

from __future__ import annotations

from typing import Final

from leafdb.sim.mutation import Edit, Mutation
from leafdb.sim.outcome import Tier
from leafdb.testing.violation import Invariant

ACCEPTOR: Final = "leafdb.consensus.acceptor"
PROPOSER: Final = "leafdb.consensus.proposer"

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
            "                self._outcome = Chosen(made, self._ballot)\n                self._value = made\n",
            "                self._outcome = Chosen(made, self._ballot)\n                self._value = made\n"
            "                if made == current and base is not None:\n"
            "                    return self._decide(Chosen(current, base))\n",
        ),
    ),
    _register(
        "refusal-without-accept",
        "A compare-and-set that fails answers with a value that is not chosen yet.",
        (
            PROPOSER,
            "                self._outcome = Refused(made.reason, current)\n",
            "                return self._decide(Refused(made.reason, current))\n",
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
            PROPOSER,
            "        self._quorum = len(self._acceptors) // 2 + 1\n",
            "        self._quorum = max(1, len(self._acceptors) // 2)\n",
        ),
    ),
)
