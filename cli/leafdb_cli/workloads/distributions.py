"""Which key comes next: uniform, scrambled Zipfian, latest.

The Zipfian generator is that of Gray et al., "Quickly generating billion-record synthetic databases" (SIGMOD 1994),
with the constant 0.99 that YCSB made usual: rank 0 is the most popular. Scrambled, the ranks are spread over the keys
by a hash, so that popular keys are not neighbours; `latest` turns ranks into ages instead. All draw from the `rng` they
are given.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from leafdb.errors import ConfigError

THETA: Final = 0.99
_EXACT_TERMS: Final = 10_000

Draw = Callable[[], int]
"""The next index, from 0 up to what the generator was made for."""


def zeta(count: int, theta: float = THETA) -> float:
    """The sum of 1/i^theta for i from 1 to count: exact for the first ten thousand terms, then by the integral."""
    total: float = sum(1 / i**theta for i in range(1, min(count, _EXACT_TERMS) + 1))
    if count > _EXACT_TERMS:
        # Euler-Maclaurin: the integral, and half of the difference between the two ends.
        first, last = float(_EXACT_TERMS), float(count)
        total += (last ** (1 - theta) - first ** (1 - theta)) / (1 - theta)
        total += (last**-theta - first**-theta) / 2
    return total


def zipfian(count: int, rng: Random, theta: float = THETA) -> Draw:
    """Ranks from 0 to count - 1; rank 0 most often."""
    if count < 2:
        return lambda: 0
    total = zeta(count, theta)
    alpha = 1 / (1 - theta)
    second = 1 + 0.5**theta
    eta = (1 - (2 / count) ** (1 - theta)) / (1 - zeta(2, theta) / total)
    random = rng.random

    def draw() -> int:
        u = random()
        share = u * total
        if share < 1:
            return 0
        if share < second:
            return 1
        return min(count - 1, int(count * (eta * u - eta + 1) ** alpha))

    return draw


def scrambled(draw: Draw, count: int) -> Draw:
    """The same popularity, spread over the keys."""

    def next_index() -> int:
        value = draw()
        # Fibonacci hashing with a final mix (the one of splitmix64): cheap, and no two small ranks stay neighbours.
        value = (value + 1) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        return (value ^ (value >> 31)) % count

    return next_index


def latest(draw: Draw, newest: Callable[[], int]) -> Draw:
    """Ranks as ages: rank 0 is the newest key."""

    def next_index() -> int:
        last = newest()
        return max(0, last - draw())

    return next_index


def uniform(count: int, rng: Random) -> Draw:
    """Every index alike."""
    random = rng.random
    return lambda: int(random() * count)


def named(name: str, count: int, rng: Random, newest: Callable[[], int]) -> Draw:
    """A distribution by its name."""
    match name:
        case "uniform":
            return uniform(count, rng)
        case "zipfian":
            return scrambled(zipfian(count, rng), count)
        case "latest":
            return latest(zipfian(count, rng), newest)
        case _:
            raise ConfigError(f"{name!r} is no distribution: uniform, zipfian or latest")
