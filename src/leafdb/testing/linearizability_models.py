"""What one copy would do: sequential models for the linearizability checker.

A model answers one question: may an operation with this argument and this answer follow this state, and which state is
it then? It is asked with the answer in hand, so it can follow answers it could not have foretold (an identity the
system drew). The answer is UNKNOWN when nobody was told: then the model says what the operation would do, whatever it
would have answered. States are hashable values; `step` is pure.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

S = TypeVar("S", bound=Hashable)


class Answer(Enum):
    """What stands for an answer where there is none."""

    UNKNOWN = "unknown"
    """Nobody knows whether it took effect, nor with which answer: it may do so at any time after the call, or never."""
    NOT_APPLIED = "not applied"
    """It is known to have had no effect, now and for ever: it takes no part in the history."""


class Impossible(Enum):
    """The type of IMPOSSIBLE."""

    IMPOSSIBLE = "impossible"


UNKNOWN: Final = Answer.UNKNOWN
NOT_APPLIED: Final = Answer.NOT_APPLIED
IMPOSSIBLE: Final = Impossible.IMPOSSIBLE
IsImpossible: TypeAlias = Literal[Impossible.IMPOSSIBLE]


class Model(Protocol[S]):
    """One key of the system as it would be with one copy and one client at a time."""

    def initial(self, key: Hashable) -> S:
        """The state of a key before the first operation."""

    def step(self, state: S, argument: object, result: object) -> S | IsImpossible:
        """The state after it, or IMPOSSIBLE: one copy in `state` would not have given this answer."""


@runtime_checkable
class KnowsReads(Protocol):
    """What a model may say besides, to make the search much shorter."""

    def only_reads(self, argument: object, result: object) -> bool:
        """Whether an operation so answered changes no state, whichever it is done in. False is always right."""


def may_be(result: object, expected: object) -> bool:
    """Whether an operation that would answer `expected` may have been answered `result`."""
    return result is UNKNOWN or result == expected


@dataclass(frozen=True, slots=True)
class Get:
    """Read the value: None when there is none."""


@dataclass(frozen=True, slots=True)
class Put:
    """Write the value, None to delete it. Any answer will do: that it was answered is all it says."""

    value: Hashable


@dataclass(frozen=True, slots=True)
class CompareAndSet:
    """Write the value if the present one is `expected`; answers whether it was."""

    expected: Hashable
    value: Hashable


class Register:
    """A value with get, put and compare-and-set. Values need not be unique, but unique ones find more and faster."""

    def __init__(self, initial: Hashable = None) -> None:
        self._initial = initial

    def initial(self, key: Hashable) -> Hashable:
        """The same for every key."""
        return self._initial

    def step(self, state: Hashable, argument: object, result: object) -> Hashable | IsImpossible:
        """See Model."""
        match argument:
            case Get():
                return state if may_be(result, state) else IMPOSSIBLE
            case Put(value):
                return value
            case CompareAndSet(expected, value):
                holds = state == expected
                if not may_be(result, holds):
                    return IMPOSSIBLE
                return value if holds else state
        raise TypeError(f"a register knows no {argument!r}")

    def only_reads(self, argument: object, result: object) -> bool:
        """See KnowsReads: gets, and swaps that failed."""
        return isinstance(argument, Get) or (isinstance(argument, CompareAndSet) and result is False)


@dataclass(frozen=True, slots=True)
class Create:
    """Create what has the name: answers its identity, or None when the name is taken."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Drop what has the name: answers whether there was something."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """What has the name: its identity, or None."""


class Unseen(Enum):
    """The identity of something whose creation was not answered, and which nobody has looked up since."""

    UNSEEN = "not seen yet"


@dataclass(frozen=True, slots=True)
class Name:
    """A name: what has it now (None: nothing), and what had it before and never shall again."""

    present: Hashable
    past: frozenset[Hashable] = frozenset()


class NameRegistry:
    """A name that is created, dropped, and created again as something else: identities are never reused.

    The key of an operation is the name. Whoever is not told identities answers True in their place with
    `identities=False`: then a name merely exists or does not.
    """

    def __init__(self, *, identities: bool = True) -> None:
        self._identities = identities

    def initial(self, key: Hashable) -> Name:
        """Nothing has the name."""
        return Name(None)

    def step(self, state: Name, argument: object, result: object) -> Name | IsImpossible:
        """See Model."""
        match argument:
            case Create():
                return self._created(state, result)
            case Drop():
                if not may_be(result, state.present is not None):
                    return IMPOSSIBLE
                return state if state.present is None else Name(None, self._buried(state))
            case Lookup():
                return self._looked_up(state, result)
        raise TypeError(f"a name registry knows no {argument!r}")

    def only_reads(self, argument: object, result: object) -> bool:
        """See KnowsReads: whatever found nothing to do. A lookup that finds something may teach us its identity."""
        return result is (False if isinstance(argument, Drop) else None)

    def _created(self, state: Name, result: object) -> Name | IsImpossible:
        if state.present is not None:
            return state if may_be(result, None) else IMPOSSIBLE
        if result is None or result in state.past:
            return IMPOSSIBLE
        return Name(Unseen.UNSEEN if result is UNKNOWN else result, state.past)

    def _looked_up(self, state: Name, result: object) -> Name | IsImpossible:
        if may_be(result, state.present):
            return state
        if state.present is Unseen.UNSEEN and result is not None and result not in state.past:
            return Name(result, state.past)
        return IMPOSSIBLE

    def _buried(self, state: Name) -> frozenset[Hashable]:
        if not self._identities or state.present is Unseen.UNSEEN:
            return state.past
        return state.past | {state.present}


@dataclass(frozen=True, slots=True)
class Append:
    """Add the value at the end: answers the length then, or None from a system that does not tell."""

    value: Hashable


@dataclass(frozen=True, slots=True)
class ReadAll:
    """All values in order, as a tuple."""


class Log:
    """A sequence that only grows."""

    def initial(self, key: Hashable) -> tuple[Hashable, ...]:
        """Empty."""
        return ()

    def step(
        self, state: tuple[Hashable, ...], argument: object, result: object
    ) -> tuple[Hashable, ...] | IsImpossible:
        """See Model."""
        match argument:
            case Append(value):
                longer = (*state, value)
                return longer if result is None or may_be(result, len(longer)) else IMPOSSIBLE
            case ReadAll():
                return state if may_be(result, state) else IMPOSSIBLE
        raise TypeError(f"a log knows no {argument!r}")

    def only_reads(self, argument: object, result: object) -> bool:
        """See KnowsReads."""
        return isinstance(argument, ReadAll)
