"""`check_merge`: a hunt for values on which a merge function breaks a law.

Siblings are merged by every reader for itself, in whatever order and grouping its replicas had them, and what one
reader wrote back is merged again. All of them arrive at one value only if the function is commutative, associative and
idempotent, always gives the same answer to the same question, and leaves its arguments alone. One law is hunted after
the other, the simplest first, so that the counterexample shown is the smallest one of the law that is named.

What no hunt within one process can see: an answer that depends on the hash seed, as the order of a set of strings does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import hypothesis
from hypothesis import strategies as st

from leafdb.client.codecs import Codec, decoded, encoded
from leafdb.client.results import Merge

T = TypeVar("T")

EXAMPLES_DEFAULT = 200
REPEATS = 3
"""How often a function is asked the same, to see whether it says the same."""


class MergeLawBroken(AssertionError):
    """A merge function that must not be used. `law` is its name, `values` the smallest values found to break it."""

    def __init__(self, law: str, values: tuple[object, ...], story: str) -> None:
        super().__init__(story)
        self.law = law
        self.values = values


def check_merge(
    fn: Merge[T],
    strategy: st.SearchStrategy[T],
    *,
    examples: int = EXAMPLES_DEFAULT,
    codec: Codec[T] | None = None,
) -> None:
    """Hunt among the values of a Hypothesis strategy for three that show `fn` to be no merge. Raises MergeLawBroken.

    `examples` is how many are tried for each law. With a `codec`, what `fn` returns must also come back from it equal.
    """
    laws = _Laws(fn, codec)
    hunted: list[tuple[str, int, Callable[..., str | None]]] = [
        ("total", 2, laws.total),
        ("pure", 2, laws.pure),
        ("deterministic", 2, laws.deterministic),
        ("idempotent", 1, laws.idempotent),
        ("idempotent", 2, laws.idempotent_of_its_own),
        ("commutative", 2, laws.commutative),
        ("associative", 3, laws.associative),
    ]
    if codec is not None:
        hunted.insert(1, ("storable", 2, laws.storable))
    for law, arity, broken in hunted:
        found = _hunt(broken, st.tuples(*[strategy] * arity), examples)
        if found is not None:
            values, story = found
            name = getattr(fn, "__qualname__", repr(fn))
            raise MergeLawBroken(law, values, f"{name} is not {law}:\n{story}") from None


class _Laws(Generic[T]):
    """Each law: what breaks it on these values, as text to read, or None. Nobody gets a value that another has had."""

    def __init__(self, fn: Merge[T], codec: Codec[T] | None) -> None:
        self._fn = fn
        self._codec = codec

    def _merge(self, one: T, other: T) -> T:
        return self._fn(copy.deepcopy(one), copy.deepcopy(other))

    def total(self, a: T, b: T) -> str | None:
        """It has an answer for any two values, those it made itself among them."""
        try:
            self._merge(self._merge(a, b), b)
        except Exception as error:
            return _told(a=a, b=b) + f"\n  merging them raises {type(error).__name__}: {error}"
        return None

    def storable(self, a: T, b: T) -> str | None:
        """What it makes can be written and read."""
        assert self._codec is not None
        merged = self._merge(a, b)
        try:
            back = decoded(self._codec, encoded(self._codec, merged))
        except Exception as error:
            return _told(a=a, b=b) + f"\n  fn(a, b) = {merged!r}\n  the codec refuses it: {error}"
        if back == merged:
            return None
        return _told(a=a, b=b) + _unlike({"fn(a, b)": merged, "read back": back})

    def pure(self, a: T, b: T) -> str | None:
        """It leaves its arguments as they are."""
        one, other = copy.deepcopy(a), copy.deepcopy(b)
        self._fn(one, other)
        if one == a and other == b:
            return None
        return (
            _told(a=a, b=b) + f"\n  after fn(a, b) they are\n  a = {one!r}\n  b = {other!r}\n  it must not change them"
        )

    def deterministic(self, a: T, b: T) -> str | None:
        """It answers the same question in the same way."""
        first = self._merge(a, b)
        for _ in range(REPEATS - 1):
            again = self._merge(a, b)
            if again != first:
                return _told(a=a, b=b) + _unlike({"fn(a, b)": first, "fn(a, b) again": again})
        return None

    def idempotent(self, a: T) -> str | None:
        """A value merged with itself is that value."""
        merged = self._merge(a, a)
        return None if merged == a else _told(a=a) + _unlike({"a": a, "fn(a, a)": merged})

    def idempotent_of_its_own(self, a: T, b: T) -> str | None:
        """The same of the values it makes, which the strategy may never draw."""
        once = self._merge(a, b)
        twice = self._merge(once, once)
        if once == twice:
            return None
        return _told(a=a, b=b) + _unlike({"m = fn(a, b)": once, "fn(m, m)": twice})

    def commutative(self, a: T, b: T) -> str | None:
        """The order of two values is nothing."""
        one, other = self._merge(a, b), self._merge(b, a)
        return None if one == other else _told(a=a, b=b) + _unlike({"fn(a, b)": one, "fn(b, a)": other})

    def associative(self, a: T, b: T, c: T) -> str | None:
        """The grouping of three values is nothing."""
        left, right = self._merge(self._merge(a, b), c), self._merge(a, self._merge(b, c))
        if left == right:
            return None
        return _told(a=a, b=b, c=c) + _unlike({"fn(fn(a, b), c)": left, "fn(a, fn(b, c))": right})


def _told(**values: object) -> str:
    return "\n".join(f"  {name} = {value!r}" for name, value in values.items())


def _unlike(values: dict[str, object]) -> str:
    width = max(map(len, values))
    return "\n  but these two differ:" + "".join(f"\n  {name:{width}} = {value!r}" for name, value in values.items())


def _hunt(
    broken: Callable[..., str | None], strategy: st.SearchStrategy[tuple[Any, ...]], examples: int
) -> tuple[tuple[Any, ...], str] | None:
    """The smallest values on which a law is broken, and how.

    A function that rolls dice breaks the law at one time and keeps it at another, which Hypothesis calls flaky; what
    was seen once is proof enough.
    """
    seen: list[tuple[tuple[Any, ...], str]] = []

    def bad(values: tuple[Any, ...]) -> bool:
        kept = copy.deepcopy(values)
        story = broken(*values)
        if story is not None:
            seen.append((kept, story))
        return story is not None

    settings = hypothesis.settings(max_examples=examples, deadline=None, database=None)
    try:
        hypothesis.find(strategy, bad, settings=settings)
    except hypothesis.errors.NoSuchExample:
        return None
    except hypothesis.errors.Flaky:
        return min(seen, key=lambda one: len(one[1]))
    return seen[-1]
