"""The acceptor: gives promises and keeps them, over any number of crashes.

    Prepare(b)   refused when b is below the promise, or is accepted already; else promised = b
    Accept(b,v)  refused when b is below the promise; else promised = accepted = b, value = v

Both become durable before the answer leaves (`Persist` precedes `Send`). Hearing the same again is answered the same
again, so proposers may repeat themselves, and the network may; the state is persisted again even then, because the
first `Persist` may still be on its way to the disk when the second answer is ready to leave. A refused accept waits for
the disk too: the proposer concludes from it that its value is not here and never will be.

An acceptor that may have forgotten has no vote: its state cannot be read, or is of another acceptor id (a wiped disk, a
restored backup, a clone), or the driver knows of a gap and says `complete=False`. It answers INCOMPLETE for ever;
getting its vote back takes a change of the control set.

It knows nothing of control sets: which one counts is in the value, and for proposers to find there (control_set.py). So
it may answer before it was ever named, knowing nothing, and after it was replaced, knowing what replaced it.

Left out until registers are collected or move: reject and absence floors, retirement at an epoch.
"""

from __future__ import annotations

from leafdb.consensus.acceptor_state import AcceptorState
from leafdb.consensus.ballot import AcceptorId, Ballot
from leafdb.consensus.effects import AcceptorEffect, Persist, Send
from leafdb.consensus.messages import Accept, Accepted, Nack, NackReason, Phase, Prepare, Promise, Reply, Request
from leafdb.limits import BALLOT_JUMP_MAX
from leafdb.types import NodeId


class Acceptor:
    """One register at one acceptor."""

    __slots__ = ("_complete", "config", "state")

    def __init__(
        self,
        register: bytes,
        identity: AcceptorId,
        *,
        config: int,
        state: AcceptorState | None = None,
        complete: bool = True,
    ) -> None:
        fresh = AcceptorState(register, identity)
        self.config: int = config
        """The generation it answers to; the driver raises it."""
        self.state: AcceptorState = state or fresh
        self._complete = complete and self.state.register == register and self.state.acceptor == identity
        if not self._complete:
            self.state = fresh

    @property
    def complete(self) -> bool:
        """Whether it has a vote: one that may have forgotten something has none."""
        return self._complete

    def on_message(self, sender: NodeId, message: Request) -> tuple[AcceptorEffect, ...]:
        """Answer a proposer."""
        assert message.register == self.state.register, "the driver finds the acceptor by register"
        if isinstance(message, Prepare):
            return self.on_prepare(sender, message)
        return self.on_accept(sender, message)

    def on_prepare(self, sender: NodeId, message: Prepare) -> tuple[AcceptorEffect, ...]:
        """The first half of a round."""
        state, ballot = self.state, message.ballot
        if (reason := self._refusal(message.config, ballot)) is not None:
            return self._nack(sender, ballot, Phase.PREPARE, reason)
        if _above(state.promised, ballot) or state.accepted == ballot:
            return self._nack(sender, ballot, Phase.PREPARE, NackReason.CONFLICT)
        self.state = AcceptorState(state.register, state.acceptor, ballot, state.accepted, state.value)
        return self._say(sender, Promise(state.register, state.acceptor, ballot, state.accepted, state.value))

    def on_accept(self, sender: NodeId, message: Accept) -> tuple[AcceptorEffect, ...]:
        """The second half of a round."""
        state, ballot = self.state, message.ballot
        if (reason := self._refusal(message.config, ballot)) is not None:
            return self._nack(sender, ballot, Phase.ACCEPT, reason)
        reused = state.accepted == ballot and state.value != message.value
        if _above(state.promised, ballot) or reused:
            return self._nack(sender, ballot, Phase.ACCEPT, NackReason.CONFLICT)
        self.state = AcceptorState(state.register, state.acceptor, ballot, ballot, message.value)
        return self._say(sender, Accepted(state.register, state.acceptor, ballot))

    def check(self) -> None:
        """The state is sound."""
        self.state.check()
        assert self._complete or self.state.promised is None, "one that forgot promises nothing"

    def describe(self) -> str:
        """One line for people."""
        state = self.state
        promised = state.promised.describe() if state.promised else "nothing"
        accepted = state.accepted.describe() if state.accepted else "nothing"
        size = "no value" if state.value is None else f"{len(state.value)} bytes"
        vote = "" if self._complete else ", without a vote: it may have forgotten"
        who = f"acceptor {state.acceptor.node}/{state.acceptor.incarnation}"
        return f"{who}: promised {promised}, accepted {accepted} ({size}){vote}"

    def _refusal(self, config: int, ballot: Ballot) -> NackReason | None:
        if not self._complete:
            return NackReason.INCOMPLETE
        if config != self.config:
            return NackReason.STALE_CONFIG if config < self.config else NackReason.BEHIND
        promised = self.state.promised
        if ballot.counter > (promised.counter if promised else 0) + BALLOT_JUMP_MAX:
            return NackReason.TOO_FAR
        return None

    def _nack(self, sender: NodeId, ballot: Ballot, phase: Phase, reason: NackReason) -> tuple[AcceptorEffect, ...]:
        state = self.state
        nack = Nack(state.register, state.acceptor, ballot, phase, reason, state.promised, state.accepted)
        if phase is Phase.ACCEPT and reason is NackReason.CONFLICT:
            return self._say(sender, nack)
        return (Send(sender, nack),)

    def _say(self, sender: NodeId, reply: Reply) -> tuple[AcceptorEffect, ...]:
        return Persist(self.state), Send(sender, reply)


def _above(promised: Ballot | None, ballot: Ballot) -> bool:
    return promised is not None and promised > ballot
