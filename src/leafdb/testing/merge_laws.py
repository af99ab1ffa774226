"""`check_merge`: a hunt for values on which a merge function breaks a law.

Siblings are merged by every reader for itself, in whatever order and grouping its replicas had them, and what one
reader wrote back is merged again. All of them arrive at one value only if the function is commutative, associative and
idempotent, always gives the same answer to the same question, and leaves its arguments alone. All laws are tried on the
same values; once one is seen to be broken, a second hunt, law by law and the simplest first, finds the smallest
counterexample.

What no hunt within one process can see: an answer that depends on the hash seed, as the order of a set of strings does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
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

    `examples` is how many threes are tried. With a `codec`, what `fn` returns must also come back from it equal.
    """
    laws = _Laws(fn, codec)
    found = _hunt(laws.first_broken, st.tuples(strategy, strategy, strategy), examples, smallest=False)
    if found is None:
        return
    values, (law, story) = found
    for name, arity, broken in laws.all:
        smaller = _hunt(partial(_named, name, broken), st.tuples(*[strategy] * arity), examples)
        if smaller is not None:
            values, (law, story) = smaller
            break
    name = getattr(fn, "__qualname__", repr(fn))
    raise MergeLawBroken(law, values, f"{name} is not {law}:\n{story}")


class _Laws(Generic[T]):
    """Each law: what breaks it on these values, as text to read, or None. Nobody gets a value that another has had."""

    def __init__(self, fn: Merge[T], codec: Codec[T] | None) -> None:
        self._fn = fn
        self._codec = codec
        self.all: list[tuple[str, int, Callable[..., str | None]]] = [
            ("total", 3, self.total),
            ("pure", 2, self.pure),
            ("deterministic", 2, self.deterministic),
            ("idempotent", 1, self.idempotent),
            ("idempotent", 2, self.idempotent_of_its_own),
            ("commutative", 2, self.commutative),
            ("associative", 3, self.associative),
        ]
        """Names, numbers of values, and the laws: the simplest first, and none without those before it."""
        if codec is not None:
            self.all.insert(1, ("storable", 2, self.storable))

    def first_broken(self, *values: T) -> tuple[str, str] | None:
        """The first law that these three values break, and how."""
        for name, arity, broken in self.all:
            story = broken(*values[:arity])
            if story is not None:
                return name, story
        return None

    def _merge(self, one: T, other: T) -> T:
        return self._fn(copy.deepcopy(one), copy.deepcopy(other))

    def total(self, a: T, b: T, c: T) -> str | None:
        """It has an answer for any two values, those it made itself among them."""
        try:
            for one, other in ((a, a), (a, b), (b, a)):
                merged = self._merge(one, other)
                self._merge(merged, merged)
            self._merge(self._merge(a, b), c)
            self._merge(a, self._merge(b, c))
        except Exception as error:
            return _told(a=a, b=b, c=c) + f"\n  merging these raises {type(error).__name__}: {error}"
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


def _named(name: str, broken: Callable[..., str | None], *values: object) -> tuple[str, str] | None:
    """As `_Laws.first_broken`, of one law. Values for which the function has no answer break another one."""
    try:
        story = broken(*values)
    except Exception:
        return None
    return None if story is None else (name, story)


def _hunt(
    broken: Callable[..., tuple[str, str] | None],
    strategy: st.SearchStrategy[tuple[Any, ...]],
    examples: int,
    *,
    smallest: bool = True,
) -> tuple[tuple[Any, ...], tuple[str, str]] | None:
    """Values that break a law, the smallest ones unless the first will do; which law, and how.

    A function that rolls dice breaks the law at one time and keeps it at another, which Hypothesis calls flaky; what
    was seen once is proof enough.
    """
    seen: list[tuple[tuple[Any, ...], tuple[str, str]]] = []

    def bad(values: tuple[Any, ...]) -> bool:
        kept = copy.deepcopy(values)
        verdict = broken(*values)
        if verdict is not None:
            seen.append((kept, verdict))
        return verdict is not None

    phases = (hypothesis.Phase.generate, hypothesis.Phase.shrink)[: 1 + smallest]
    settings = hypothesis.settings(max_examples=examples, deadline=None, database=None, phases=phases)
    try:
        hypothesis.find(strategy, bad, settings=settings)
    except hypothesis.errors.NoSuchExample:
        return None
    except hypothesis.errors.Flaky:
        return min(seen, key=lambda one: len(one[1][1]))
    return seen[-1]
