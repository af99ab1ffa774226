"""The proposer: changes the value of a register, one change at a time, and says truthfully what came of it.

A round:  1 prepare a new ballot at all acceptors, wait for promises of a majority
          2 the current value is the one accepted under the highest ballot among them
          3 the change function makes the new value, or refuses
          4 accept at all acceptors, wait for a majority: the value is chosen

- **Step 4 runs always**, also for reads and refused changes, with the current value. A value seen at one acceptor of
  the quorum may not be chosen yet: an answer given without finishing it could be contradicted by the next reader, who
  misses it, and again by the one after, who finds it (CASSANDRA-12126).
- **No change is applied twice.** A round that loses after its accepts left may have left its value somewhere, and a
  competitor may have built on it. The next round therefore looks at the ballot b of the current value:
    - b is of one of this proposal's own rounds: its value survived; it is put forward as it is, and f does not run;
    - b is below all of them: nothing current descends from those, so f runs anew. The strays are harmless: a later
      round that finds one finds it in place of this value, never on top of it;
    - else the value may or may not contain the change: only a change function that can tell (`deduplicates`) may run
      again; for others the outcome is unknown.
  A ballot that every acceptor has provably refused left nothing anywhere and does not count.
- **Whose votes count is in the value** (control_set.py has the rules and the proof). The control set a proposal begins
  with only says whom to ask first. Promises bring values; the newest of them names the control set that counts, the
  round prepares whoever of it was not asked yet, and goes on when its majority, of both sets while joint, has promised.
- **A change of the control set takes two rounds**: the first has the current value chosen as it is, the second makes
  the step if its base is still that round's. A step that is none of the two allowed is refused.
- **Outcomes are honest**: Chosen, Refused (nothing changed), or Unknown once an accept left that may have been taken.
- Silence is answered by saying the same again, under the same ballot; conflict by a new round after a pause, random and
  growing, so that duelling proposers part.

Left out: the next prepare piggybacked on an accept, and reads by comparing ballots. Both save a round trip on hot
registers; metadata is not one.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from random import Random
from typing import assert_never

from leafdb.consensus.ballot import AcceptorId, Ballot, BallotSource
from leafdb.consensus.control_set import ControlSet
from leafdb.consensus.effects import (
    NO_QUORUM,
    NO_STEP,
    STALE_CONFIG,
    Chosen,
    Decided,
    Outcome,
    ProposerEffect,
    Refusal,
    Refused,
    Send,
    Unknown,
)
from leafdb.consensus.messages import Accept, Accepted, Nack, NackReason, Phase, Prepare, Promise, Reply
from leafdb.limits import REGISTER_BACKOFF_S_MAX, REGISTER_BACKOFF_S_MIN, REGISTER_RESEND_S
from leafdb.types import NodeId

Change = Callable[[bytes | None], bytes | Refusal | None]
"""Current value (None: never written) to new value, or a refusal. Pure and deterministic: it may run several times."""

Names = Callable[[bytes], ControlSet]
"""The control set that a value names."""

AMBIGUOUS = "overtaken"
"""Reason of an Unknown: a competitor built on a value that may contain the change."""

_ATTEMPTS_COUNTED_MAX = 16


def read(current: bytes | None) -> bytes | None:
    """The change function of a linearizable read: changes nothing, and that is what gets chosen."""
    return current


class _Stage(Enum):
    IDLE = 1
    PREPARING = 2
    ACCEPTING = 3
    WAITING = 4


class Proposer:
    """Proposes changes of one register.

    `control` is the control set that some chosen value named (at the beginning: that of the founders). `names` reads it
    from a value; None for a register whose control set never changes.
    """

    def __init__(
        self,
        register: bytes,
        control: ControlSet,
        *,
        config: int,
        ballots: BallotSource,
        rng: Random,
        names: Names | None = None,
    ) -> None:
        control.check()
        self._register = register
        self._begun_with = control
        self.control: ControlSet = control
        """What counts in the round under way, as far as it is known."""
        self._names = names
        self._config = config
        self._ballots = ballots
        self._rng = rng
        self._stage = _Stage.IDLE

    @property
    def idle(self) -> bool:
        """Whether it can take the next proposal."""
        return self._stage is _Stage.IDLE

    def propose(
        self, change: Change, *, now: float, deadline: float, deduplicates: bool = False
    ) -> tuple[ProposerEffect, ...]:
        """Begin. Ends with `Decided`, at `deadline` at the latest.

        `deduplicates`: the change function recognises a value that contains this change already (by an id in the
        value) and answers that value unchanged.
        """
        assert self.idle, "one proposal at a time"
        self._change = change
        self._deduplicates = deduplicates
        self._expires = deadline
        self._attempts = 0
        self._may_hold: dict[Ballot, set[AcceptorId]] = {}
        """Ballots under which a changed value left, and who may have taken it."""
        self._confirmed: Ballot | None = None
        """Under it this proposal had a value chosen that it had found: ground for a step of the control set."""
        self._asked: set[AcceptorId] = set()
        return self._begin_round(now)

    def on_message(self, sender: NodeId, message: Reply, now: float) -> tuple[ProposerEffect, ...]:
        """Take an acceptor's answer. What is late, doubled or from elsewhere changes nothing."""
        if message.register != self._register or self.idle:
            return ()
        if message.acceptor not in self._asked or message.acceptor.node != sender:
            return ()
        match message:
            case Promise():
                return self._on_promise(message, now)
            case Accepted():
                return self._on_accepted(message, now)
            case Nack():
                return self._on_nack(message, now)
            case unreachable:
                assert_never(unreachable)

    def on_time(self, now: float) -> tuple[ProposerEffect, ...]:
        """Give up, resend or begin the next round, whichever is due."""
        if self.idle:
            return ()
        if now >= self._expires:
            return self._give_up(NO_QUORUM)
        if now < self._wake_at:
            return ()
        if self._stage is _Stage.WAITING:
            return self._begin_round(now)
        if self._refused_by:  # conflict with some, silence from others: this ballot has no future
            return self._pause(now)
        return self._send(now)

    def hurry(self, deadline: float) -> None:
        """End by then, if not before: the one who asked has no more time."""
        if not self.idle:
            self._expires = min(self._expires, deadline)

    def deadline(self) -> float | None:
        """When `on_time` is wanted next."""
        return None if self.idle else min(self._wake_at, self._expires)

    def check(self) -> None:
        """What holds between the parts."""
        if self.idle:
            return
        self.control.check()
        assert self._promises.keys() <= self._asked
        assert self._stage is not _Stage.PREPARING or not self.control.has_majority(self._promises.keys())
        assert self._stage is not _Stage.ACCEPTING or not self.control.has_majority(self._accepted_by)
        assert all(holders for holders in self._may_hold.values())

    def describe(self) -> str:
        """One line for people."""
        if self.idle:
            return "proposer: idle"
        got = len(self._promises) if self._stage is _Stage.PREPARING else len(self._accepted_by)
        return (
            f"proposer: {self._stage.name.lower()} {self._ballot.describe()}, {got} votes of "
            f"{self.control.describe()}, attempt {self._attempts}"
        )

    # -- a round

    def _begin_round(self, now: float) -> tuple[ProposerEffect, ...]:
        self._stage = _Stage.PREPARING
        self.control = self._begun_with
        self._ballot = self._ballots.next()
        self._promises: dict[AcceptorId, Promise] = {}
        self._accepted_by: set[AcceptorId] = set()
        self._refused_by: set[AcceptorId] = set()
        self._attempts += 1
        return self._send(now)

    def _send(self, now: float) -> tuple[ProposerEffect, ...]:
        """This phase's message to everybody who has not answered it.

        A round is prepared by everybody that any value has named: the first promise may be that of an acceptor that has
        been away for long, and the set it names gone.
        """
        self._wake_at = now + REGISTER_RESEND_S
        self._asked.update(self.control.everyone)
        message: Prepare | Accept
        if self._stage is _Stage.PREPARING:
            message = Prepare(self._register, self._config, self._ballot)
            left = self._asked - self._promises.keys() - self._refused_by
        else:
            message = Accept(self._register, self._config, self._ballot, self._value)
            left = set(self.control.everyone) - self._accepted_by - self._refused_by
        return tuple(Send(acceptor.node, message) for acceptor in sorted(left))

    def _on_promise(self, message: Promise, now: float) -> tuple[ProposerEffect, ...]:
        if self._stage is not _Stage.PREPARING or message.ballot != self._ballot:
            return ()
        self._promises[message.acceptor] = message
        base, current = self._newest()
        in_force = self._named(current)
        if in_force != self.control:
            self.control = in_force
            if not in_force.has_majority(self._promises.keys()):
                return self._send(now)
        if not self.control.has_majority(self._promises.keys()):
            return ()
        return self._accept(base, current, now)

    def _newest(self) -> tuple[Ballot | None, bytes | None]:
        """Step 2, as far as promises have come in."""
        held = [(promise.accepted, promise.value) for promise in self._promises.values() if promise.accepted]
        return max(held, key=lambda pair: pair[0]) if held else (None, None)

    def _named(self, value: bytes | None) -> ControlSet:
        """A register never written names nobody, and nobody has changed its control set."""
        return self._begun_with if value is None or self._names is None else self._names(value)

    def _accept(self, base: Ballot | None, current: bytes | None, now: float) -> tuple[ProposerEffect, ...]:
        """Steps 3 and 4: a majority has promised."""
        self._value = current
        self._outcome: Outcome | None
        if base is not None and base in self._may_hold:
            self._outcome = Chosen(current, self._ballot)
            self._may_hold[self._ballot] = set(self.control.everyone)
        elif self._may_contain_change(base) and not self._deduplicates:
            return self._decide(Unknown(AMBIGUOUS))
        else:
            self._outcome = self._make(base, current)
        self._stage = _Stage.ACCEPTING
        self._refused_by = set()
        return self._send(now)

    def _make(self, base: Ballot | None, current: bytes | None) -> Outcome | None:
        """Run the change, and say what there is to tell once `_value` is chosen; None: then the next round follows."""
        made = self._change(current)
        if isinstance(made, Refusal):
            return Refused(made.reason, current)
        named = self._named(made)
        if not named.follows(self.control):
            return Refused(NO_STEP, current)
        if named != self.control and (base is None or base != self._confirmed):
            return None
        self._value = made
        if made != current:
            self._may_hold[self._ballot] = set(self.control.everyone)
        return Chosen(made, self._ballot)

    def _may_contain_change(self, base: Ballot | None) -> bool:
        if base is None or base == self._confirmed:
            return False
        return bool(self._may_hold) and base > min(self._may_hold)

    def _on_accepted(self, message: Accepted, now: float) -> tuple[ProposerEffect, ...]:
        if self._stage is not _Stage.ACCEPTING or message.ballot != self._ballot:
            return ()
        self._accepted_by.add(message.acceptor)
        if not self.control.has_majority(self._accepted_by):
            return ()
        if self._outcome is not None:
            return self._decide(self._outcome)
        self._confirmed = self._ballot
        return self._begin_round(now)

    # -- what goes wrong

    def _on_nack(self, message: Nack, now: float) -> tuple[ProposerEffect, ...]:
        if message.reason is NackReason.STALE_CONFIG:
            return self._give_up(STALE_CONFIG)
        if message.reason is not NackReason.CONFLICT:
            return ()  # no vote, or not yet: the same as silence
        if message.promised is not None:
            self._ballots.observe(message.promised)
        if message.phase is Phase.ACCEPT and (message.accepted is None or message.accepted < message.ballot):
            self._never_held(message.ballot, message.acceptor)
        phase = Phase.PREPARE if self._stage is _Stage.PREPARING else Phase.ACCEPT
        if self._stage is _Stage.WAITING or message.ballot != self._ballot or message.phase is not phase:
            return ()
        self._refused_by.add(message.acceptor)
        if not self.control.is_lost(self._refused_by):
            return ()
        return self._pause(now)

    def _never_held(self, ballot: Ballot, acceptor: AcceptorId) -> None:
        """`acceptor` did not take the value of `ballot` and never will."""
        holders = self._may_hold.get(ballot)
        if holders is not None:
            holders.discard(acceptor)
            if not holders:
                del self._may_hold[ballot]

    def _pause(self, now: float) -> tuple[ProposerEffect, ...]:
        """Wait before the next round, longer the more were lost."""
        self._stage = _Stage.WAITING
        longest = REGISTER_BACKOFF_S_MIN * 2.0 ** min(self._attempts, _ATTEMPTS_COUNTED_MAX)
        self._wake_at = now + self._rng.uniform(REGISTER_BACKOFF_S_MIN, min(longest, REGISTER_BACKOFF_S_MAX))
        return ()

    def _give_up(self, reason: str) -> tuple[ProposerEffect, ...]:
        return self._decide(Unknown(reason) if self._may_hold else Refused(reason, None))

    def _decide(self, outcome: Outcome) -> tuple[ProposerEffect, ...]:
        self._stage = _Stage.IDLE
        return (Decided(outcome),)
